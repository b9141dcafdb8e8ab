//! Memory of readers that wait for messages.

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    Result,
    fanout::readers::{Load, Poster, name, read},
    options::Common,
    pace::{Meter, put_on},
    posts,
    report::Report,
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[arg(long, default_value_t = 2_000)]
    readers: usize,

    /// Readers on a connection; each is measured
    #[arg(long, value_delimiter = ',', default_value = "200,1")]
    per_connection: Vec<usize>,

    #[arg(long, default_value_t = 1)]
    chats: usize,
}

/// Until the server has put away what it needed while all came at once.
const SETTLE: Duration = Duration::from_secs(1);

pub fn run(options: &Options) -> Result<()> {
    let settings = format!("{} readers in {} chats", options.readers, options.chats);
    options.common.repeat("idle", settings, |common, report| {
        for each in &options.per_connection {
            measure(common, options, *each, report)?;
        }
        Ok(())
    })
}

fn measure(common: &Common, options: &Options, each: usize, report: &mut Report) -> Result<()> {
    let members = (options.readers + 1).clamp(1_000, 100_000).to_string();
    let server = common.server(&["--max-members", &members])?;
    let child = &server.child;
    let readers = |chat| (chat..options.readers).step_by(options.chats);
    let members: Vec<Vec<String>> = (0..options.chats)
        .map(|chat| readers(chat).map(name).collect())
        .collect();
    put_on(common, async {
        let chats = posts::create_chats(child.address, &members).await?;
        let load = Arc::new(Load {
            chats,
            readers: options.readers,
            text: 100,
            meter: Meter::new()?,
            progress: Notify::new(),
        });
        let mut poster = Poster::open(load.clone(), child.address).await?;
        // The chats are in memory from here on.
        poster.reach_everyone(0).await?;
        tokio::time::sleep(SETTLE).await;
        let before = child.usage()?.rss;
        let mut connections = JoinSet::new();
        let all: Vec<usize> = (0..options.readers).collect();
        for readers in all.chunks(each) {
            connections.spawn(read(load.clone(), child.address, readers.to_vec()));
        }
        // That they wait is known when each has had a message.
        poster.reach_everyone(2 * options.readers as u64).await?;
        tokio::time::sleep(SETTLE).await;
        let usage = child.usage()?;
        let bytes = (usage.rss - before) / options.readers as f64;
        report.add(&format!("{each} a connection: KB a reader"), bytes / 1000.0);
        tokio::time::sleep(common.window()).await;
        let cpu = (child.usage()?.cpu - usage.cpu) / 1000.0 / common.seconds;
        report.add(&format!("{each} a connection: CPU ms a second, all"), cpu);
        Ok(())
    })
}
