use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chat_service::proto;
use prost::Message as _;
use tokio::sync::watch;

use crate::{
    Result,
    fanout::readers::name,
    posts::{self, CONNECT},
    wire::{Conn, Deframer, Event},
};

/// What the readers have seen, over all their connections.
pub struct Readers {
    chats: Vec<i64>,
    /// By reader: which of the chats.
    chat_of: Vec<usize>,
    /// By reader: how many messages, which is the newest seq unless one was lost
    /// or came twice.
    seen: Vec<AtomicI64>,
    /// Messages whose seq was not the next one.
    gaps: AtomicU64,
    /// Streams that the server ended.
    ended: AtomicU64,
}

const LOOK: Duration = Duration::from_millis(1);

impl Readers {
    pub fn new(chats: Vec<i64>, chat_of: Vec<usize>) -> Self {
        Self {
            chats,
            seen: chat_of.iter().map(|_| AtomicI64::new(0)).collect(),
            chat_of,
            gaps: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }

    /// Waits until every reader has seen as much of its chat as `goal` says.
    pub async fn reach(&self, goal: &[i64]) -> Result<()> {
        for (seen, chat) in self.seen.iter().zip(&self.chat_of) {
            while seen.load(Ordering::Relaxed) < goal[*chat] {
                self.check()?;
                tokio::time::sleep(LOOK).await;
            }
        }
        self.check()
    }

    /// That every reader has seen exactly so much of its chat.
    pub fn are_at(&self, last: &[i64]) -> Result<()> {
        let mut readers = self.seen.iter().zip(&self.chat_of);
        let lost =
            |(seen, chat): &(&AtomicI64, &usize)| seen.load(Ordering::Relaxed) != last[**chat];
        match readers.find(lost) {
            Some((seen, chat)) => {
                Err(format!("a reader saw {seen:?} of {} messages", last[*chat]).into())
            }
            None => self.check(),
        }
    }

    fn check(&self) -> Result<()> {
        let (ended, gaps) = (&self.ended, &self.gaps);
        match (ended.load(Ordering::Relaxed), gaps.load(Ordering::Relaxed)) {
            (0, 0) => Ok(()),
            (ended, gaps) => Err(format!("{ended} streams refused, {gaps} gaps").into()),
        }
    }

    /// Some of the readers, on one connection, until they are to leave: each goes
    /// on where it was.
    pub async fn read(
        self: Arc<Self>,
        address: SocketAddr,
        mine: Vec<usize>,
        mut leave: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut conn = Conn::open(address).await?;
        let mut deframers = vec![Deframer::default(); mine.len()];
        let mut joined = 0;
        loop {
            while let Some(reader) = mine.get(joined) {
                let chat = self.chats[self.chat_of[*reader]];
                let after = self.seen[*reader].load(Ordering::Relaxed);
                let join = posts::join(chat, Some(after));
                if conn.call(CONNECT, &name(*reader), &join, true).is_none() {
                    break;
                }
                joined += 1;
            }
            let step = conn.step(|event| match event {
                Event::Data(stream, data) => {
                    // Streams are numbered 1, 3, 5 … in the order of joining.
                    let at = stream as usize / 2;
                    let seen = &self.seen[mine[at]];
                    deframers[at].add(data, |message| self.take(seen, message));
                }
                Event::End(_) => _ = self.ended.fetch_add(1, Ordering::Relaxed),
            });
            tokio::select! {
                stepped = step => stepped?,
                _ = leave.wait_for(|leave| *leave) => return Ok(()),
            }
        }
    }

    fn take(&self, seen: &AtomicI64, message: &[u8]) {
        let seq = seen.fetch_add(1, Ordering::Relaxed) + 1;
        // One that is cut is counted all the same.
        if let Ok(message) = proto::Message::decode(message)
            && message.seq != seq
        {
            self.gaps.fetch_add(1, Ordering::Relaxed);
        }
    }
}
