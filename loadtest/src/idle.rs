//! Memory of readers that wait for messages.

use std::{sync::Arc, time::Duration};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    Result,
    fanout::{
        Poster, Turns,
        readers::{Load, members, read},
    },
    options::Common,
    pace::put_on,
    posts,
    report::{CHATD, Report},
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

/// Bytes of the texts that show who is there.
const TEXT: usize = 100;

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
    let most = (options.readers + 1).clamp(1_000, 100_000).to_string();
    let server = common.server(&["--max-members", &most])?;
    let child = &server.child;
    let chat_of: Vec<usize> = (0..options.readers).map(|n| n % options.chats).collect();
    let members = members(&chat_of, options.chats);
    put_on(common, async {
        let chats = posts::create_chats(child.address, &members).await?;
        let load = Arc::new(Load::new(chats, chat_of, TEXT)?);
        let turns = Turns::new(options.chats, None)?;
        let mut poster = Poster::open(load.clone(), child.address, &load.chats, turns).await?;
        // The chats are in memory from here on.
        tokio::time::sleep(SETTLE).await;
        let before = child.usage()?.rss;
        let mut connections = JoinSet::new();
        let all: Vec<usize> = (0..options.readers).collect();
        for readers in all.chunks(each) {
            connections.spawn(read(load.clone(), child.address, readers.to_vec()));
        }
        // That they wait is known when each has had a message.
        poster.post_everywhere().await?;
        load.delivered(2 * options.readers as u64).await?;
        tokio::time::sleep(SETTLE).await;
        let usage = child.usage()?;
        let bytes = (usage.rss - before) / options.readers as f64;
        report.add(
            CHATD,
            &format!("{each} a connection: KB a reader"),
            bytes / 1000.0,
        );
        tokio::time::sleep(common.window()).await;
        let cpu = (child.usage()?.cpu - usage.cpu) / 1000.0 / common.seconds;
        report.add(
            CHATD,
            &format!("{each} a connection: CPU ms a second, all"),
            cpu,
        );
        Ok(())
    })
}
