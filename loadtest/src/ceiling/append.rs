//! Rows into a store, as fast as it takes them: without a server before it.

pub mod copy;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    domain::{ChatId, ClientMessageId, Clock as _, MessageId, Row, Seq, UserName},
    runtime::{Cores, SystemClock},
    store::{
        NewChat, Store,
        memory::MemoryStore,
        postgres::{self, PostgresStore},
        sqlite::{self, SqliteStore},
    },
    telemetry::Telemetry,
    writer::{Lane, LaneSettings, Submission},
};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet};

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
    #[arg(long, value_enum)]
    way: Way,
    #[arg(long)]
    chats: usize,
    #[arg(long)]
    text: usize,
    #[arg(long)]
    batch: usize,
    /// Calls, lanes or connections at a time
    #[arg(long)]
    writers: usize,
    #[arg(long)]
    seconds: f64,
}

#[derive(ValueEnum, Clone, Copy, PartialEq)]
pub enum Way {
    /// `Store::append`, or PostgreSQL's COPY
    Store,
    /// Through writer lanes
    Lane,
}

/// What a store does on the server's core.
pub fn measure(common: &Common, way: Way, rows: &Rows) -> Result<Bare> {
    let (store, _folder) = common.new_store()?;
    let mut command = myself("ceiling-append")?;
    let way = way.to_possible_value().ok_or("no such way")?;
    command
        .args(["--store", &store, "--way", way.get_name()])
        .args(["--chats", &rows.chats.to_string()])
        .args(["--text", &rows.text.to_string()])
        .args(["--batch", &rows.batch.to_string()])
        .args(["--writers", &rows.writers.to_string()])
        .args(["--seconds", &common.seconds.to_string()]);
    output(command, common)
}

/// What a child tells that has measured itself.
#[derive(Serialize, Deserialize)]
pub struct Bare {
    /// Rows or pages a second.
    pub rate: f64,
    /// Processor time in µs a row or page; PostgreSQL's own is not in it.
    pub cpu_each: f64,
}

/// What rows are written.
pub struct Rows {
    pub chats: usize,
    pub text: usize,
    pub batch: usize,
    pub writers: usize,
}

pub fn run(options: &Options) -> Result<()> {
    let bare = block_on(async {
        let postgres = options.store.starts_with("postgres");
        if postgres && options.way == Way::Store {
            return copy::measure(options).await;
        }
        // Runs the database's connections; on this thread, since it asks.
        let cores = Cores::start(1)?;
        let store = open(&options.store, options.writers, &cores).await?;
        let chats = create(&store, options.chats).await?;
        let parts = chats.chunks(chats.len().div_ceil(options.writers));
        let text = posts::text(Instant::now(), options.text);
        let until = Instant::now() + Duration::from_secs_f64(options.seconds);
        let cpu = usage(std::process::id())?.cpu;
        let begun = Instant::now();
        let mut writers = JoinSet::new();
        for (writer, chats) in parts.enumerate() {
            let source = Source::new(chats.to_vec(), &text, options.batch)?;
            match options.way {
                Way::Store => writers.spawn(append(writer, store.clone(), source, until)),
                Way::Lane => writers.spawn(submit(writer, store.clone(), source, until)),
            };
        }
        let mut written = 0;
        while let Some(rows) = writers.join_next().await {
            written += rows?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = usage(std::process::id())?.cpu - cpu;
        store.close().await;
        Ok(Bare {
            rate: written as f64 / seconds,
            cpu_each: cpu / written as f64,
        })
    })?;
    tell(&bare)
}

/// Opens a store; `cores` run its connections, if it has any.
pub async fn open(store: &str, lanes: usize, cores: &Cores) -> Result<Arc<dyn Store>> {
    if let Some(path) = store.strip_prefix("sqlite:") {
        let settings = sqlite::Settings::default();
        return Ok(Arc::new(SqliteStore::open(path.as_ref(), settings)?));
    }
    if !store.starts_with("postgres") {
        return Ok(Arc::new(MemoryStore::new()));
    }
    let spawn = Arc::new(cores.spawner_here());
    let mut settings = postgres::Settings::new(store, spawn);
    settings.lanes = lanes;
    Ok(Arc::new(PostgresStore::open(settings).await?))
}

async fn append(writer: usize, store: Arc<dyn Store>, mut rows: Source, until: Instant) -> usize {
    let mut written = 0;
    while Instant::now() < until {
        let batch = rows.batch();
        let count = batch.len();
        if store.append(writer, Arc::new(batch)).await.is_err() {
            break;
        }
        written += count;
    }
    written
}

/// Two shards' worth of submissions, so that the lane always has the next one.
const SHARDS: usize = 2;

async fn submit(index: usize, store: Arc<dyn Store>, mut rows: Source, until: Instant) -> usize {
    let settings = LaneSettings {
        batch_rows: rows.size,
        batch_bytes: 64 << 20,
    };
    let clock = Arc::new(SystemClock);
    let (lane, sender) = Lane::new(index, SHARDS, settings, store, clock, Telemetry::quiet(1));
    let (done, mut answers) = mpsc::channel(SHARDS);
    let mut lanes = JoinSet::new();
    lanes.spawn(lane.run());
    let mut written = 0;
    let mut under_way = 0;
    loop {
        while under_way < SHARDS && Instant::now() < until {
            let (rows, done) = (rows.batch(), done.clone());
            let submission = Submission {
                rows,
                fronts: Vec::new(),
                lineage: Some(0),
                sampled: Vec::new(),
                done,
            };
            if sender.send(submission).await.is_err() {
                return written;
            }
            under_way += 1;
        }
        if under_way == 0 {
            return written;
        }
        written += answers.recv().await.map_or(0, |done| done.landed.len());
        under_way -= 1;
    }
}

/// Makes chats of one member.
pub async fn create(store: &Arc<dyn Store>, chats: usize) -> Result<Vec<ChatId>> {
    let user = UserName::new(posts::POSTER)?;
    let mut ids = Vec::with_capacity(chats);
    while ids.len() < chats {
        let creates = (ids.len()..chats).take(128).map(|_| {
            store.create_chat(NewChat {
                client_chat_id: None,
                created_by: user.clone(),
                created_at: SystemClock.wall(),
                members: vec![user.clone()],
            })
        });
        for id in futures_util::future::join_all(creates).await {
            ids.push(id?);
        }
    }
    Ok(ids)
}

/// Makes rows of chats in turn.
pub struct Source {
    chats: Vec<(ChatId, Seq)>,
    next: usize,
    size: usize,
    from: UserName,
    text: Box<str>,
}

impl Source {
    /// `size` rows at a time.
    pub fn new(chats: Vec<ChatId>, text: &str, size: usize) -> Result<Self> {
        Ok(Self {
            chats: chats.into_iter().map(|chat| (chat, 0)).collect(),
            next: 0,
            size,
            from: UserName::new(posts::POSTER)?,
            text: text.into(),
        })
    }

    pub fn batch(&mut self) -> Vec<Row> {
        self.take(self.size)
    }

    /// So many rows, about.
    pub fn take(&mut self, rows: usize) -> Vec<Row> {
        let each = (rows / self.chats.len()).max(1);
        let chats = (rows / each).clamp(1, self.chats.len());
        let created_at = SystemClock.wall();
        let mut rows = Vec::with_capacity(each * chats);
        for _ in 0..chats {
            let (chat, seq) = &mut self.chats[self.next];
            for _ in 0..each {
                *seq += 1;
                let id = format!("{seq:012}");
                rows.push(Row {
                    chat: *chat,
                    seq: *seq,
                    id: MessageId(chat.get() << 32 | *seq),
                    from: self.from.clone(),
                    text: self.text.clone(),
                    client_message_id: ClientMessageId::from_wire(&id).ok().flatten(),
                    created_at,
                    number: *seq,
                    change: None,
                });
            }
            self.next = (self.next + 1) % self.chats.len();
        }
        rows
    }
}
