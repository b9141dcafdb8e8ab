//! A reconnect storm: all readers lose their connections, and come back at once
//! while messages go on being sent.

mod readers;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use crate::{
    Result,
    calls::Caller,
    child::Child,
    fanout::readers::members,
    options::Common,
    pace::{Meter, block_on, micros, put_on},
    posts::{self, SEND},
    report::{CHATD, Report},
};
use readers::Readers;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[arg(long, default_value_t = 20_000)]
    readers: usize,

    #[arg(long, default_value_t = 100)]
    connections: usize,

    #[arg(long, default_value_t = 100)]
    chats: usize,

    /// Messages a second, in all chats together
    #[arg(long, default_value_t = 500.0)]
    rate: f64,

    /// How long the readers are away
    #[arg(long, default_value_t = 1.0)]
    away: f64,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,
}

pub fn run(options: &Options) -> Result<()> {
    let settings = format!(
        "{} readers on {} connections in {} chats, away for {} s, {} messages a second of {} B",
        options.readers,
        options.connections,
        options.chats,
        options.away,
        options.rate,
        options.text
    );
    let members = (options.readers + 1).clamp(1_000, 100_000).to_string();
    options.common.repeat("resume", settings, |common, report| {
        let server = common.server(&["--max-members", &members])?;
        put_on(common, storm(common, options, &server.child, report))
    })
}

/// How long a message may be under way that nobody waits for any more.
const LATE: Duration = Duration::from_millis(500);

async fn storm(
    common: &Common,
    options: &Options,
    server: &Child,
    report: &mut Report,
) -> Result<()> {
    let chat_of: Vec<usize> = (0..options.readers).map(|n| n % options.chats).collect();
    let members = members(&chat_of, options.chats);
    let chats = posts::create_chats(server.address, &members).await?;
    let readers = Arc::new(Readers::new(chats.clone(), chat_of));
    let senders = Senders::start(options, server, &chats)?;

    // All come for the first time, and read for a while.
    let present = Present::come(&readers, options, server);
    readers.reach(&vec![1; chats.len()]).await?;
    tokio::time::sleep(common.warmup()).await;
    senders.meter.start();
    tokio::time::sleep(common.window()).await;
    let quiet = senders.meter.stop();
    present.leave().await?;

    tokio::time::sleep(Duration::from_secs_f64(options.away)).await;
    let missed = posts::last_seqs(server.address, &chats).await?;
    let cpu = server.usage()?.cpu;
    senders.meter.start();
    let begun = Instant::now();
    let present = Present::come(&readers, options, server);
    readers.reach(&missed).await?;
    let took = begun.elapsed();
    let stormy = senders.meter.stop();
    let cpu = server.usage()?.cpu - cpu;

    // Whoever lost a message or had one twice does not end where its chat does.
    let sent = senders.stop()?;
    let mut last = posts::last_seqs(server.address, &chats).await?;
    // What was under way when the senders stopped may be stored still.
    loop {
        readers.reach(&last).await?;
        tokio::time::sleep(LATE).await;
        let now = posts::last_seqs(server.address, &chats).await?;
        if now == last {
            break;
        }
        last = now;
    }
    if (last.iter().sum::<i64>() as u64) < sent {
        return Err("acknowledged messages are lost".into());
    }
    present.leave().await?;
    readers.are_at(&last)?;

    let [quiet, stormy] = [quiet, stormy].map(|times| micros(&times, 0.99));
    report.add(CHATD, "all caught up after ms", took.as_secs_f64() * 1e3);
    let each = cpu / options.readers as f64;
    report.add(CHATD, "server CPU µs a reader", each);
    report.add(CHATD, "senders' p99 µs, quiet", quiet);
    report.add(CHATD, "senders' p99 µs, storm", stormy);
    report.add(CHATD, "ratio of the p99s", stormy / quiet);
    Ok(())
}

/// All readers, from when they connect and join at once until they leave at once.
struct Present {
    leave: watch::Sender<bool>,
    connections: JoinSet<std::io::Result<()>>,
}

impl Present {
    fn come(readers: &Arc<Readers>, options: &Options, server: &Child) -> Self {
        let (leave, left) = watch::channel(false);
        let mut connections = JoinSet::new();
        for connection in 0..options.connections {
            let mine = (connection..options.readers).step_by(options.connections);
            let readers = readers.clone();
            connections.spawn(readers.read(server.address, mine.collect(), left.clone()));
        }
        Self { leave, connections }
    }

    async fn leave(self) -> Result<()> {
        self.leave.send_replace(true);
        for left in self.connections.join_all().await {
            left?;
        }
        Ok(())
    }
}

/// Has this thread run whenever it can, before all others on its core. A `nice` of
/// -15 has it wait until the other's time slice is over, up to 3 ms.
fn come_first() -> std::io::Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is this thread, and `param` outlives the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// SendMessage at a steady rate, on a thread of its own: what 20,000 readers keep
/// the others busy with is not the server's delay.
struct Senders {
    meter: Arc<Meter>,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), String>>,
}

impl Senders {
    fn start(options: &Options, server: &Child, chats: &[i64]) -> Result<Self> {
        let meter = Arc::new(Meter::new()?);
        let (chats, text) = (chats.to_vec(), options.text);
        let caller = Caller {
            number: 0,
            in_flight: 10_000,
            rate: Some(options.rate),
            path: SEND,
            request: Arc::new(move |_: usize, sent: usize, at: Instant| {
                let chat = chats[sent % chats.len()];
                posts::send(chat, posts::text(at, text), String::new())
            }),
            meter: meter.clone(),
        };
        let address = server.address;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            // The readers share its core: its turn there is to come first. Only
            // root may say so; without, their work is counted as delay.
            if let Err(error) = come_first() {
                eprintln!("the senders come after the readers: {error}");
            }
            let sending = block_on(async {
                tokio::select! {
                    ended = caller.run(address) => Ok(ended?),
                    _ = stopped => Ok(()),
                }
            });
            sending.map_err(|error| error.to_string())
        });
        Ok(Self {
            meter,
            stop,
            thread,
        })
    }

    /// How many messages were acknowledged.
    fn stop(self) -> Result<u64> {
        _ = self.stop.send(());
        self.thread.join().map_err(|_| "the sender panicked")??;
        match self.meter.failures() {
            0 => Ok(self.meter.count()),
            failed => Err(format!("{failed} messages were refused").into()),
        }
    }
}
