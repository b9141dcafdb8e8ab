//! Pages anywhere in long chats.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use chat_service::proto;
use clap::Args;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    Result,
    calls::{Shape, drive, tell},
    ceiling::page,
    options::Common,
    pace::put_on,
    posts::{self, CONNECT, LIST, POSTER},
    report::{CEILING, CHATD},
    wire::{Conn, Deframer, Event, frame},
};

/// Posts under way while the chats are filled: a stream's most.
const WINDOW: usize = 1_024;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    shape: Shape,

    #[arg(long, default_value_t = 10)]
    chats: usize,

    /// Messages in each chat
    #[arg(long, default_value_t = 20_000)]
    messages: usize,

    /// Messages on a page
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    page: u16,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,
}

pub fn run(options: &Options) -> Result<()> {
    let settings = format!(
        "pages of {} anywhere in {} chats of {} messages, texts of {} B, {}",
        options.page,
        options.chats,
        options.messages,
        options.text,
        options.shape.describe()
    );
    let page = usize::from(options.page);
    options
        .common
        .repeat("history", settings, |common, report| {
            let server = common.server(&[])?;
            let ours = put_on(common, async {
                let address = server.child.address;
                let alone = vec![vec![]; options.chats];
                let chats = posts::create_chats(address, &alone).await?;
                for chat in &chats {
                    fill(address, *chat, options).await?;
                }
                let request = requests(chats, options.messages, options.page);
                drive(&server.child, common, &options.shape, LIST, request).await
            })?;
            drop(server);
            tell(report, CHATD, &ours);
            let bare = page::measure(
                common,
                options.chats,
                options.messages,
                options.text,
                page,
                options.shape.in_flight,
            )?;
            report.add(CEILING, "calls a second", bare.rate);
            report.add(CEILING, "server CPU µs a call", bare.cpu_each);
            let ratio = ours.cpu_each() / bare.cpu_each;
            report.add(CEILING, "chatd's CPU a call ÷ this", ratio);
            Ok(())
        })
}

fn requests(chats: Vec<i64>, messages: usize, page: u16) -> Arc<crate::calls::Request> {
    let random = Mutex::new(StdRng::seed_from_u64(1));
    let last = messages.saturating_sub(page.into()) as i64;
    Arc::new(move |_: usize, _: usize, _: Instant| {
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        frame(&proto::ListMessagesRequest {
            chat_id: chats[random.random_range(0..chats.len())],
            after_seq: Some(random.random_range(0..=last)),
            page_size: page.into(),
            ..Default::default()
        })
    })
}

/// Posts a chat's messages, and waits until all have come back.
async fn fill(address: SocketAddr, chat: i64, options: &Options) -> Result<()> {
    let mut conn = Conn::open(address).await?;
    let join = posts::join(chat, Some(0));
    let stream = conn.call(CONNECT, POSTER, &join, false);
    let stream = stream.ok_or("no room for a stream")?;
    let (mut posted, mut returned, mut failed) = (0, 0, false);
    let mut deframer = Deframer::default();
    while returned < options.messages {
        while posted < options.messages && posted - returned < WINDOW {
            let text = posts::text(Instant::now(), options.text);
            if !conn.send(stream, &posts::post(text, String::new())) {
                break;
            }
            posted += 1;
        }
        conn.step(|event| match event {
            Event::Data(_, data) => {
                let count = deframer.add(data, |message| failed |= posts::is_refusal(message));
                returned += count as usize;
            }
            Event::End(_) => failed = true,
        })
        .await?;
        if failed {
            return Err("a chat can't be filled".into());
        }
    }
    Ok(())
}
