//! Posts on ConnectChat, many under way; a post is done when it has come back.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    Result,
    ceiling::append::{self, Bare, Rows, Way},
    child::Child,
    options::Common,
    pace::{Measured, Meter, put_on},
    posts::{self, CONNECT, POSTER, Posts},
    report::{CEILING, CHATD, Report},
    wire::{Conn, Deframer, Event},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    shape: Shape,
}

#[derive(Args, Clone)]
pub struct Shape {
    /// Streams, each in a chat of its own
    #[arg(long, default_value_t = 16)]
    pub streams: usize,

    #[arg(long, default_value_t = 4)]
    pub connections: usize,

    /// Posts under way on a stream
    #[arg(long, default_value_t = 512)]
    pub window: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    pub text: usize,
}

impl Shape {
    pub fn describe(&self) -> String {
        format!(
            "{} streams and chats on {} connections, {} posts under way a stream, texts of {} B",
            self.streams, self.connections, self.window, self.text
        )
    }

    /// The rows that this makes, for the bare store.
    pub fn rows(&self, batch: usize, writers: usize) -> Rows {
        Rows {
            chats: self.streams,
            text: self.text,
            batch,
            writers,
        }
    }
}

/// The server's most rows a commit.
pub const BATCH: usize = 5_000;

pub fn run(options: &Options) -> Result<()> {
    let shape = &options.shape;
    options
        .common
        .repeat("stream", shape.describe(), |common, report| {
            let ours = load_server(common, shape)?;
            let bare = append::measure(common, Way::Store, &shape.rows(BATCH, 1))?;
            tell(report, &ours);
            tell_bare(report, CEILING, &bare);
            tell_beside(report, &ours, &bare);
            Ok(())
        })
}

pub fn tell(report: &mut Report, measured: &Measured) {
    report.add(CHATD, "rows a second", measured.rate());
    report.add(CHATD, "CPU µs a row", measured.cpu_each());
    report.add(CHATD, "p50 µs", measured.quantile(0.5));
    report.add(CHATD, "p99 µs", measured.quantile(0.99));
    report.add(CHATD, "refused posts and streams", measured.failed as f64);
}

/// Rows without a server before the store.
pub fn tell_bare(report: &mut Report, subject: &str, bare: &Bare) {
    report.add(subject, "rows a second", bare.rate);
    report.add(subject, "CPU µs a row", bare.cpu_each);
}

/// What of the bare store the server reaches.
pub fn tell_beside(report: &mut Report, measured: &Measured, bare: &Bare) {
    let ratio = measured.rate() / bare.rate;
    report.add(CEILING, "chatd's rows a second ÷ this", ratio);
    let ratio = measured.cpu_each() / bare.cpu_each;
    report.add(CEILING, "chatd's CPU a row ÷ this", ratio);
}

/// A new server under this load.
pub fn load_server(common: &Common, shape: &Shape) -> Result<Measured> {
    let server = common.server(&[])?;
    let child = &server.child;
    put_on(common, async {
        let alone = vec![vec![]; shape.streams];
        let chats = posts::create_chats(child.address, &alone).await?;
        drive(child, common, shape, &chats).await
    })
}

async fn drive(server: &Child, common: &Common, shape: &Shape, chats: &[i64]) -> Result<Measured> {
    let meter = Arc::new(Meter::new()?);
    let mut tasks = JoinSet::new();
    for chats in chats.chunks(chats.len().div_ceil(shape.connections)) {
        let (meter, shape, chats) = (meter.clone(), shape.clone(), chats.to_vec());
        tasks.spawn(post_all(server.address, meter, shape, chats));
    }
    tokio::select! {
        measured = meter.measure(server, common) => measured,
        Some(ended) = tasks.join_next() => Err(format!("a connection ended: {ended:?}").into()),
    }
}

#[derive(Default)]
struct Stream {
    id: u32,
    posted: u64,
    returned: u64,
    deframer: Deframer,
}

/// One connection's streams.
async fn post_all(
    address: SocketAddr,
    meter: Arc<Meter>,
    shape: Shape,
    chats: Vec<i64>,
) -> io::Result<()> {
    let mut conn = Conn::open(address).await?;
    let mut posts = Posts::new(shape.text);
    let mut streams: Vec<Stream> = Vec::with_capacity(chats.len());
    for chat in chats {
        let join = posts::join(chat, Some(0));
        loop {
            if let Some(id) = conn.call(CONNECT, POSTER, &join, false) {
                let stream = Stream {
                    id,
                    ..Stream::default()
                };
                streams.push(stream);
                break;
            }
            conn.step(|_| {}).await?;
        }
    }
    loop {
        for stream in &mut streams {
            while stream.posted - stream.returned < shape.window as u64 {
                let post = posts.post(stream.posted, Instant::now());
                if !conn.send(stream.id, post) {
                    break;
                }
                stream.posted += 1;
            }
        }
        let (mut done, mut now) = (0, None);
        conn.step(|event| match event {
            Event::Data(id, data) => {
                let stream = &mut streams[id as usize / 2];
                let returned = stream.deframer.add(data, |message| {
                    if posts::is_refusal(message) {
                        meter.fail();
                    } else if let Some(stamp) = posts::stamp_of(message) {
                        let now = now.get_or_insert_with(Instant::now);
                        meter.time_until(stamp, *now);
                    }
                });
                stream.returned += returned;
                done += returned;
            }
            Event::End(_) => meter.fail(),
        })
        .await?;
        meter.add(done);
    }
}
