use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    pace::{Meter, Pace},
    posts::{self, CONNECT, POSTER},
    wire::{Conn, Deframer, Event},
};

/// What readers and poster share.
pub struct Load {
    pub chats: Vec<i64>,
    pub readers: usize,
    pub text: usize,
    /// Counts deliveries, those to the poster left out.
    pub meter: Meter,
    /// Something was delivered.
    pub progress: Notify,
}

pub fn name(reader: usize) -> String {
    format!("reader-{reader}")
}

/// Reads on one connection. The last of its readers takes the times.
pub async fn read(load: Arc<Load>, address: SocketAddr, readers: Vec<usize>) -> io::Result<()> {
    let mut conn = Conn::open(address).await?;
    let mut deframers = vec![Deframer::default(); readers.len()];
    let mut last = 0;
    let mut readers = readers.into_iter().peekable();
    loop {
        while let Some(reader) = readers.peek() {
            let chat = load.chats[reader % load.chats.len()];
            let join = posts::join(chat, Some(0));
            let Some(stream) = conn.call(CONNECT, &name(*reader), &join, true) else {
                break;
            };
            last = stream;
            readers.next();
        }
        let mut delivered = 0;
        conn.step(|event| match event {
            Event::Data(stream, data) => {
                let deframer = &mut deframers[stream as usize / 2];
                delivered += deframer.add(data, |message| {
                    if stream == last
                        && let Some(stamp) = posts::stamp_of(message)
                    {
                        load.meter.time(stamp);
                    }
                });
            }
            Event::End(_) => load.meter.fail(),
        })
        .await?;
        load.meter.add(delivered);
        load.progress.notify_one();
    }
}

/// Posts to all chats in turn, on a connection of its own.
pub struct Poster {
    load: Arc<Load>,
    conn: Conn,
    streams: Vec<u32>,
    posted: u64,
    /// Its own messages that have come back.
    returned: u64,
}

impl Poster {
    pub async fn open(load: Arc<Load>, address: SocketAddr) -> io::Result<Self> {
        let mut conn = Conn::open(address).await?;
        let mut streams = Vec::new();
        for chat in &load.chats {
            let join = posts::join(*chat, None);
            loop {
                if let Some(stream) = conn.call(CONNECT, POSTER, &join, false) {
                    streams.push(stream);
                    break;
                }
                conn.step(|_| {}).await?;
            }
        }
        Ok(Self {
            load,
            conn,
            streams,
            posted: 0,
            returned: 0,
        })
    }

    /// Posts one message a chat, and waits until all readers have theirs.
    pub async fn reach_everyone(&mut self, readers: u64) -> io::Result<()> {
        for _ in 0..self.streams.len() {
            while !self.post(Instant::now()) {
                self.step().await?;
            }
        }
        while self.load.meter.count() < readers {
            if self.load.meter.failed.load(Ordering::Relaxed) > 0 {
                return Err(io::Error::other("the server ends streams"));
            }
            let progress = self.load.clone();
            tokio::select! {
                stepped = self.step() => stepped?,
                () = progress.progress.notified() => {}
            }
        }
        Ok(())
    }

    /// Posts at a rate, or as fast as the slower of the readers and the store
    /// lets it, `window` messages a chat ahead of them.
    pub async fn run(mut self, rate: Option<f64>, window: u64) -> io::Result<()> {
        let mut pace = Pace::new(rate);
        let load = self.load.clone();
        let window = window.saturating_mul(self.streams.len() as u64);
        loop {
            let full = loop {
                let chats = self.streams.len() as u64;
                let read = load.meter.count() * chats / load.readers as u64;
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
                if !self.post(at) {
                    break true;
                }
            };
            match &pace {
                Some(pace) if !full => tokio::select! {
                    stepped = self.step() => stepped?,
                    () = pace.wait() => {}
                },
                _ => tokio::select! {
                    stepped = self.step() => stepped?,
                    () = load.progress.notified() => {}
                },
            }
        }
    }

    fn post(&mut self, at: Instant) -> bool {
        let text = posts::text(at, self.load.text);
        let post = posts::post(text, format!("{:012}", self.posted));
        let stream = self.streams[self.posted as usize % self.streams.len()];
        let sent = self.conn.send(stream, &post);
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
