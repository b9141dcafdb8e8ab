//! SendMessage, many calls in flight on a few connections.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    Result,
    child::{Child, myself},
    options::Common,
    pace::{Measured, Meter, Pace, put_on, stamp},
    posts::{self, POSTER, SEND},
    report::Report,
    wire::{Conn, Event},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    /// Calls that are under way at most, on all connections together
    #[arg(long, default_value_t = 256)]
    in_flight: usize,

    #[arg(long, default_value_t = 8)]
    connections: usize,

    #[arg(long, default_value_t = 16)]
    chats: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,

    /// Calls a second; without it, as many as go
    #[arg(long)]
    rate: Option<f64>,

    /// Send no client_message_id
    #[arg(long)]
    no_ids: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let settings = format!(
        "{} in flight on {} connections, {} chats, texts of {} B, rate {:?}",
        options.in_flight, options.connections, options.chats, options.text, options.rate
    );
    options.common.repeat("unary", settings, |common, report| {
        let server = common.server(&[])?;
        let address = server.child.address;
        let ours = put_on(common, async {
            let chats = posts::create_chats(address, &vec![vec![]; options.chats]).await?;
            drive(&server.child, common, options, chats).await
        })?;
        drop(server);
        let bare = Child::start(myself("ceiling-unary")?, common)?;
        let bare = put_on(
            common,
            drive(&bare, common, options, vec![1; options.chats]),
        )?;
        tell(report, "", &ours);
        tell(report, "ceiling: ", &bare);
        report.add("ratio of CPU a call", ours.cpu_each() / bare.cpu_each());
        report.add("ratio of calls a second", ours.rate() / bare.rate());
        Ok(())
    })
}

fn tell(report: &mut Report, whose: &str, measured: &Measured) {
    report.add(&format!("{whose}calls a second"), measured.rate());
    report.add(&format!("{whose}server CPU µs a call"), measured.cpu_each());
    report.add(&format!("{whose}p50 µs"), measured.quantile(0.5));
    report.add(&format!("{whose}p99 µs"), measured.quantile(0.99));
    report.add(&format!("{whose}failed calls"), measured.failed as f64);
}

async fn drive(
    server: &Child,
    common: &Common,
    options: &Options,
    chats: Vec<i64>,
) -> Result<Measured> {
    let meter = Arc::new(Meter::new()?);
    let mut callers = JoinSet::new();
    for number in 0..options.connections {
        let caller = Caller {
            number,
            chats: chats.clone(),
            in_flight: (options.in_flight / options.connections).max(1),
            text: options.text,
            ids: !options.no_ids,
            rate: options.rate.map(|rate| rate / options.connections as f64),
            meter: meter.clone(),
        };
        callers.spawn(caller.run(server.address));
    }
    tokio::select! {
        measured = meter.measure(server, common) => measured,
        Some(ended) = callers.join_next() => Err(format!("a caller ended: {ended:?}").into()),
    }
}

/// One connection's calls.
struct Caller {
    number: usize,
    chats: Vec<i64>,
    in_flight: usize,
    text: usize,
    ids: bool,
    rate: Option<f64>,
    meter: Arc<Meter>,
}

/// A call under way: when it was to begin, and whether its answer is there.
type Calls = HashMap<u32, (u64, bool)>;

impl Caller {
    async fn run(self, address: SocketAddr) -> std::io::Result<()> {
        let mut conn = Conn::open(address).await?;
        let mut pace = Pace::new(self.rate);
        let mut calls = Calls::with_capacity(self.in_flight);
        let mut sent = 0;
        loop {
            while calls.len() < self.in_flight {
                let at = match &mut pace {
                    None => Instant::now(),
                    Some(pace) => match pace.due() {
                        None => break,
                        Some(at) => at,
                    },
                };
                let call = self.request(sent, at);
                match conn.call(SEND, POSTER, &call, true) {
                    Some(stream) => calls.insert(stream, (stamp(at), false)),
                    None => break,
                };
                sent += 1;
            }
            let can_send = calls.len() < self.in_flight;
            let step = conn.step(|event| self.take(&mut calls, event));
            match &pace {
                Some(pace) if can_send => tokio::select! {
                    stepped = step => stepped?,
                    () = pace.wait() => {}
                },
                _ => step.await?,
            }
        }
    }

    fn request(&self, sent: usize, at: Instant) -> Vec<u8> {
        let chat = self.chats[(self.number + sent) % self.chats.len()];
        let id = match self.ids {
            true => format!("{}-{sent:012}", self.number),
            false => String::new(),
        };
        posts::send(chat, posts::text(at, self.text), id)
    }

    fn take(&self, calls: &mut Calls, event: Event<'_>) {
        match event {
            Event::Data(stream, _) => {
                if let Some((_, answered)) = calls.get_mut(&stream) {
                    *answered = true;
                }
            }
            Event::End(stream) => match calls.remove(&stream) {
                Some((begun, true)) => {
                    self.meter.add(1);
                    self.meter.time(begun);
                }
                Some((_, false)) => self.meter.fail(),
                None => {}
            },
        }
    }
}
