//! SendMessage, many calls in flight on a few connections.

use std::{sync::Arc, time::Instant};

use clap::Args;

use crate::{
    Result,
    baseline::Against,
    calls::{self, Shape, drive, tell},
    child::{Child, myself},
    options::Common,
    pace::{Measured, put_on},
    posts::{self, SEND},
    report::{CEILING, CHATD},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    against: Against,

    #[command(flatten)]
    shape: Shape,

    #[arg(long, default_value_t = 16)]
    chats: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,

    /// Send no client_message_id
    #[arg(long)]
    no_ids: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let shape = options.shape.describe();
    let settings = format!(
        "{shape}, {} chats, texts of {} B",
        options.chats, options.text
    );
    let baselines = options.against.build(&options.common)?;
    options.common.repeat("unary", settings, |common, report| {
        let server = common.server(&[])?;
        let ours = load(common, options, &server.child)?;
        drop(server);
        tell(report, CHATD, &ours);
        let mut beside = |subject: &str, theirs: &Measured| {
            tell(report, subject, theirs);
            let ratio = ours.cpu_each() / theirs.cpu_each();
            report.add(subject, "chatd's CPU a call ÷ this", ratio);
            let ratio = ours.rate() / theirs.rate();
            report.add(subject, "chatd's calls a second ÷ this", ratio);
        };
        let bare = Child::start(myself("ceiling-unary")?, common)?;
        let request = requests(vec![1; options.chats], options.text, !options.no_ids);
        let bare = drive(&bare, common, &options.shape, SEND, request);
        beside(CEILING, &put_on(common, bare)?);
        for baseline in &baselines {
            let server = baseline.start(common)?;
            beside(baseline.name, &load(common, options, &server)?);
        }
        Ok(())
    })
}

fn load(common: &Common, options: &Options, server: &Child) -> Result<Measured> {
    put_on(common, async {
        let alone = vec![vec![]; options.chats];
        let chats = posts::create_chats(server.address, &alone).await?;
        let request = requests(chats, options.text, !options.no_ids);
        drive(server, common, &options.shape, SEND, request).await
    })
}

/// Posts to these chats in turn, of so many bytes.
pub fn requests(chats: Vec<i64>, text: usize, ids: bool) -> Arc<calls::Request> {
    Arc::new(move |number: usize, sent: usize, at: Instant| {
        let chat = chats[(number + sent) % chats.len()];
        let id = match ids {
            true => format!("{number}-{sent:012}"),
            false => String::new(),
        };
        posts::send(chat, posts::text(at, text), id)
    })
}
