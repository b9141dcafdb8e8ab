use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::ChatId,
    runtime::Cores,
    store::{Page, Store},
};
use clap::Args;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;

use super::append::{self, Bare, Source};
use crate::{
    Result,
    child::{myself, output, tell, usage},
    options::Common,
    pace::block_on,
    posts,
};

#[derive(Args, Clone)]
pub struct Options {
    #[arg(long)]
    store: String,
    #[arg(long)]
    chats: usize,
    /// In each chat
    #[arg(long)]
    messages: usize,
    #[arg(long)]
    text: usize,
    #[arg(long)]
    page: usize,
    /// At a time
    #[arg(long)]
    readers: usize,
    #[arg(long)]
    seconds: f64,
}

/// Rows a commit while the store is filled.
const BATCH: usize = 1_000;

/// Pages out of a store, by whoever reads them without a server before it.
pub fn measure(
    common: &Common,
    chats: usize,
    messages: usize,
    text: usize,
    page: usize,
    readers: usize,
) -> Result<Bare> {
    let (store, _folder) = common.new_store()?;
    let mut command = myself("ceiling-page")?;
    command
        .args(["--store", &store])
        .args(["--chats", &chats.to_string()])
        .args(["--messages", &messages.to_string()])
        .args(["--text", &text.to_string()])
        .args(["--page", &page.to_string()])
        .args(["--readers", &readers.to_string()])
        .args(["--seconds", &common.seconds.to_string()]);
    output(command, common)
}

pub fn run(options: &Options) -> Result<()> {
    let bare = block_on(async {
        let cores = Cores::start(1)?;
        let store = append::open(&options.store, 1, &cores).await?;
        let chats = append::create(&store, options.chats).await?;
        let text = posts::text(Instant::now(), options.text);
        for chat in &chats {
            let mut rows = Source::new(vec![*chat], &text, BATCH)?;
            for _ in 0..options.messages.div_ceil(BATCH) {
                store.append(0, Arc::new(rows.batch())).await?;
            }
        }
        let until = Instant::now() + Duration::from_secs_f64(options.seconds);
        let cpu = usage(std::process::id())?.cpu;
        let begun = Instant::now();
        let mut readers = JoinSet::new();
        for reader in 0..options.readers {
            let (store, chats) = (store.clone(), chats.clone());
            readers.spawn(read(reader, store, chats, options.clone(), until));
        }
        let mut pages = 0;
        while let Some(read) = readers.join_next().await {
            pages += read?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = usage(std::process::id())?.cpu - cpu;
        store.close().await;
        Ok(Bare {
            rate: pages as f64 / seconds,
            cpu_each: cpu / pages as f64,
        })
    })?;
    tell(&bare)
}

async fn read(
    reader: usize,
    store: Arc<dyn Store>,
    chats: Vec<ChatId>,
    options: Options,
    until: Instant,
) -> usize {
    let mut random = StdRng::seed_from_u64(reader as u64);
    let last = options.messages.saturating_sub(options.page) as i64;
    let mut pages = 0;
    while Instant::now() < until {
        let chat = chats[random.random_range(0..chats.len())];
        let after = Page::After(random.random_range(0..=last));
        let deadline = Instant::now() + Duration::from_secs(10);
        match store.page(chat, after, options.page, deadline).await {
            Ok(rows) if rows.len() == options.page => pages += 1,
            _ => break,
        }
        // A store in memory answers at once.
        tokio::task::yield_now().await;
    }
    pages
}
