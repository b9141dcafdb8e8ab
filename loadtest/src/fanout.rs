//! Messages to many readers.

pub mod readers;

use std::sync::Arc;

use clap::Args;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    Result,
    child::{Child, myself},
    options::Common,
    pace::{Measured, Meter, put_on},
    posts,
    report::Report,
};
use readers::{Load, Poster, read};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[arg(long, default_value_t = 1_000)]
    readers: usize,

    #[arg(long, default_value_t = 10)]
    connections: usize,

    #[arg(long, default_value_t = 1)]
    chats: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,

    /// Messages a second, in all chats together
    #[arg(long, default_value_t = 500.0)]
    rate: f64,

    /// Instead of a rate: as many as go, with this many messages a chat under
    /// way
    #[arg(long)]
    window: Option<u64>,
}

pub fn run(options: &Options) -> Result<()> {
    let drive_by = match options.window {
        Some(window) => format!("{window} messages a chat under way"),
        None => format!("{} messages a second", options.rate),
    };
    let settings = format!(
        "{} readers on {} connections in {} chats, texts of {} B, {drive_by}",
        options.readers, options.connections, options.chats, options.text
    );
    options.common.repeat("fanout", settings, |common, report| {
        // A member a reader, as it would be.
        let members = (options.readers + 1).clamp(1_000, 100_000).to_string();
        let server = common.server(&["--max-members", &members])?;
        let address = server.child.address;
        let ours = put_on(common, async {
            let chats = posts::create_chats(address, &members_of(options)).await?;
            drive(&server.child, common, options, chats).await
        })?;
        drop(server);
        let bare = Child::start(myself("ceiling-fanout")?, common)?;
        let chats = (1..=options.chats as i64).collect();
        let bare = put_on(common, drive(&bare, common, options, chats))?;
        tell(report, "", &ours);
        tell(report, "ceiling: ", &bare);
        let ratio = ours.cpu_each() / bare.cpu_each();
        report.add("ratio of CPU a delivery", ratio);
        Ok(())
    })
}

fn tell(report: &mut Report, whose: &str, measured: &Measured) {
    report.add(&format!("{whose}deliveries a second"), measured.rate());
    let name = format!("{whose}server CPU µs a delivery");
    report.add(&name, measured.cpu_each());
    let busy = measured.cpu / measured.seconds / 10_000.0;
    report.add(&format!("{whose}server busy %"), busy);
    report.add(&format!("{whose}p50 µs"), measured.quantile(0.5));
    report.add(&format!("{whose}p99 µs"), measured.quantile(0.99));
    report.add(&format!("{whose}failed streams"), measured.failed as f64);
}

/// Reader `number` reads chat `number % chats`.
fn members_of(options: &Options) -> Vec<Vec<String>> {
    let readers = |chat| (chat..options.readers).step_by(options.chats);
    (0..options.chats)
        .map(|chat| readers(chat).map(readers::name).collect())
        .collect()
}

async fn drive(
    server: &Child,
    common: &Common,
    options: &Options,
    chats: Vec<i64>,
) -> Result<Measured> {
    let load = Arc::new(Load {
        chats,
        readers: options.readers,
        text: options.text,
        meter: Meter::new()?,
        progress: Notify::new(),
    });
    let mut tasks = JoinSet::new();
    for connection in 0..options.connections {
        let mine = (connection..options.readers).step_by(options.connections);
        tasks.spawn(read(load.clone(), server.address, mine.collect()));
    }
    let mut poster = Poster::open(load.clone(), server.address).await?;
    poster.reach_everyone(options.readers as u64).await?;
    let (rate, window) = match options.window {
        None => (Some(options.rate), u64::MAX),
        window => (None, window.unwrap_or_default()),
    };
    tasks.spawn(poster.run(rate, window));
    tokio::select! {
        measured = load.meter.measure(server, common) => measured,
        Some(ended) = tasks.join_next() => Err(format!("a connection ended: {ended:?}").into()),
    }
}
