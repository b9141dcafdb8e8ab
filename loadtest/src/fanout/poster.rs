use std::{io, net::SocketAddr, ops::Range, sync::Arc, time::Instant};

use super::{Turns, readers::Load};
use crate::{
    pace::Pace,
    posts::{self, CONNECT, POSTER, Posts},
    wire::{Conn, Deframer, Event},
};

/// Posts to some chats, on a connection of its own.
pub struct Poster {
    load: Arc<Load>,
    conn: Conn,
    streams: Vec<u32>,
    posts: Posts,
    turns: Turns,
    /// The chat whose turn it is.
    next: usize,
    posted: u64,
    /// Its own messages that have come back.
    returned: u64,
}

/// Streams that begin at a time: h2 takes thousands of small frames that nobody
/// has read yet for an attack.
const BATCH: usize = 500;

impl Poster {
    /// Joins the chats, and posts one message to each.
    pub async fn open(
        load: Arc<Load>,
        address: SocketAddr,
        chats: &[i64],
        mut turns: Turns,
    ) -> io::Result<Self> {
        let mut poster = Self {
            posts: Posts::new(load.text),
            load,
            conn: Conn::open(address).await?,
            streams: Vec::with_capacity(chats.len()),
            next: turns.turn(),
            turns,
            posted: 0,
            returned: 0,
        };
        for chats in chats.chunks(BATCH) {
            let first = poster.streams.len();
            for chat in chats {
                let join = posts::join(*chat, None);
                let stream = loop {
                    match poster.conn.call(CONNECT, POSTER, &join, false) {
                        Some(stream) => break stream,
                        None => poster.step().await?,
                    }
                };
                poster.streams.push(stream);
            }
            poster.post_to(first..poster.streams.len()).await?;
        }
        Ok(poster)
    }

    /// Posts one message a chat, and waits until they have come back.
    pub async fn post_everywhere(&mut self) -> io::Result<()> {
        self.post_to(0..self.streams.len()).await
    }

    async fn post_to(&mut self, streams: Range<usize>) -> io::Result<()> {
        for at in streams {
            while !self.post(self.streams[at], Instant::now()) {
                self.step().await?;
            }
        }
        while self.returned < self.posted {
            self.step().await?;
        }
        Ok(())
    }

    /// Posts at a rate, or as fast as the slower of the readers and the store
    /// lets it, `window` messages a chat ahead of them.
    pub async fn run(mut self, rate: Option<f64>, window: u64) -> io::Result<()> {
        let mut pace = rate.map(Pace::new).transpose()?;
        let load = self.load.clone();
        let chats = self.streams.len() as u64;
        let window = window.saturating_mul(chats);
        loop {
            let full = loop {
                let read = load.meter.count() * chats / load.chat_of.len() as u64;
                if self.posted >= read.min(self.returned).saturating_add(window) {
                    break true;
                }
                let at = match &mut pace {
                    None => Instant::now(),
                    Some(pace) => match pace.due() {
                        None => break false,
                        Some(at) => at,
                    },
                };
                if !self.post(self.streams[self.next], at) {
                    break true;
                }
                self.next = self.turns.turn();
            };
            match &pace {
                Some(pace) if !full => tokio::select! {
                    stepped = self.step() => stepped?,
                    waited = pace.wait() => waited?,
                },
                _ => tokio::select! {
                    stepped = self.step() => stepped?,
                    () = load.progress.notified() => {}
                },
            }
        }
    }

    fn post(&mut self, stream: u32, at: Instant) -> bool {
        let post = self.posts.post(self.posted, at);
        let sent = self.conn.send(stream, post);
        self.posted += u64::from(sent);
        sent
    }

    async fn step(&mut self) -> io::Result<()> {
        let (load, returned) = (&self.load, &mut self.returned);
        self.conn
            .step(|event| match event {
                // Counted from the beginnings: what is cut is looked at twice
                // at worst, and the window is no measurement.
                Event::Data(_, data) => {
                    Deframer::default().add(data, |_| *returned += 1);
                }
                Event::End(_) => load.meter.fail(),
            })
            .await
    }
}
