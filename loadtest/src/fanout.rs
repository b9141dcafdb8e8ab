//! Messages to many readers.

mod poster;
pub mod readers;
mod turns;

use std::sync::Arc;

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    Result,
    baseline::{Against, Baseline},
    ceiling::write,
    child::{Child, myself},
    options::Common,
    pace::{Measured, put_on},
    posts,
    report::{CEILING, CHATD, Report},
};
pub use poster::Poster;
use readers::{Load, read};
pub use turns::Turns;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    against: Against,

    #[command(flatten)]
    shape: Shape,
}

#[derive(Args, Clone)]
pub struct Shape {
    #[arg(long, default_value_t = 1_000)]
    pub readers: usize,

    #[arg(long, default_value_t = 10)]
    pub connections: usize,

    #[arg(long, default_value_t = 1)]
    pub chats: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    pub text: usize,

    /// Messages a second, in all chats together
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,

    /// Instead of a rate: as many as go, with this many messages a chat under
    /// way
    #[arg(long)]
    pub window: Option<u64>,

    /// Readers and messages prefer few chats, by Zipf's law with this exponent
    #[arg(long)]
    pub zipf: Option<f64>,
}

/// Chats that one connection posts to.
const CHATS_A_POSTER: usize = 10_000;

pub fn run(options: &Options) -> Result<()> {
    let baselines = options.against.build(&options.common)?;
    let shape = &options.shape;
    options
        .common
        .repeat("fanout", shape.describe(), |common, report| {
            measure(common, shape, &baselines, report)
        })
}

/// Measures our server, the ceilings and the usual servers under this load.
pub fn measure(
    common: &Common,
    shape: &Shape,
    baselines: &[Baseline],
    report: &mut Report,
) -> Result<()> {
    let ours = shape.load_server(common)?;
    tell(report, CHATD, &ours);
    let mut beside = |subject: &str, theirs: &Measured| {
        tell(report, subject, theirs);
        let ratio = ours.cpu_each() / theirs.cpu_each();
        report.add(subject, "chatd's CPU a delivery ÷ this", ratio);
    };
    let bare = Child::start(myself("ceiling-fanout")?, common)?;
    let bare = put_on(common, shape.load(common, &bare, false))?;
    beside(CEILING, &bare);
    if shape.readers == shape.connections && shape.window.is_none() {
        let bare = write::measure(common, shape.readers, shape.text, shape.rate)?;
        beside("bare write", &bare);
    }
    for baseline in baselines {
        let server = baseline.start(common)?;
        let usual = put_on(common, shape.load(common, &server, true))?;
        beside(baseline.name, &usual);
    }
    Ok(())
}

fn tell(report: &mut Report, subject: &str, measured: &Measured) {
    report.add(subject, "deliveries a second", measured.rate());
    report.add(subject, "server CPU µs a delivery", measured.cpu_each());
    let busy = measured.cpu / measured.seconds / 10_000.0;
    report.add(subject, "server busy %", busy);
    if !measured.times.is_empty() {
        report.add(subject, "p50 µs", measured.quantile(0.5));
        report.add(subject, "p99 µs", measured.quantile(0.99));
    }
    report.add(subject, "failed streams", measured.failed as f64);
}

impl Shape {
    pub fn describe(&self) -> String {
        let drive_by = match self.window {
            Some(window) => format!("{window} messages a chat under way"),
            None => format!("{} messages a second", self.rate),
        };
        let popularity = match self.zipf {
            Some(exponent) => format!(" by Zipf's law ({exponent})"),
            None => String::new(),
        };
        format!(
            "{} readers on {} connections in {} chats{popularity}, texts of {} B, {drive_by}",
            self.readers, self.connections, self.chats, self.text
        )
    }

    /// Puts the load on our server.
    pub fn load_server(&self, common: &Common) -> Result<Measured> {
        // A member a reader, as it would be; all chats have the one poster.
        let members = (self.readers + 1).clamp(1_000, 100_000).to_string();
        let streams = (self.chats + 1).clamp(16_384, 1_000_000).to_string();
        let server = common.server(&["--max-members", &members, "--max-user-streams", &streams])?;
        put_on(common, self.load(common, &server.child, true))
    }

    /// Puts the load on a server; one that `knows` chats has to make them first.
    pub async fn load(&self, common: &Common, server: &Child, knows: bool) -> Result<Measured> {
        let mut turns = Turns::new(self.chats, self.zipf)?;
        let chat_of: Vec<usize> = (0..self.readers).map(|_| turns.turn()).collect();
        let chats = match knows {
            true => {
                let members = readers::members(&chat_of, self.chats);
                posts::create_chats(server.address, &members).await?
            }
            false => (1..=self.chats as i64).collect(),
        };
        let load = Arc::new(Load::new(chats, chat_of, self.text)?);
        let mut tasks = JoinSet::new();
        for connection in 0..self.connections {
            let mine = (connection..self.readers).step_by(self.connections);
            tasks.spawn(read(load.clone(), server.address, mine.collect()));
        }
        let mut posters = Vec::new();
        for chats in load.chats.chunks(CHATS_A_POSTER) {
            let turns = Turns::new(chats.len(), self.zipf)?;
            posters.push(Poster::open(load.clone(), server.address, chats, turns).await?);
        }
        load.delivered(self.readers as u64).await?;
        let rate = self.rate / posters.len() as f64;
        let (rate, window) = match self.window {
            None => (Some(rate), u64::MAX),
            window => (None, window.unwrap_or_default()),
        };
        for poster in posters {
            tasks.spawn(poster.run(rate, window));
        }
        tokio::select! {
            measured = load.meter.measure(server, common) => measured,
            Some(ended) = tasks.join_next() => {
                Err(format!("a connection ended: {ended:?}").into())
            }
        }
    }
}
