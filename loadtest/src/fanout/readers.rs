use std::{io, net::SocketAddr, sync::Arc};

use tokio::sync::Notify;

use crate::{
    Result,
    pace::Meter,
    posts::{self, CONNECT},
    wire::{Conn, Deframer, Event},
};

/// What readers and posters share.
pub struct Load {
    pub chats: Vec<i64>,
    /// By reader: which of the chats it reads.
    pub chat_of: Vec<usize>,
    /// Bytes of a text.
    pub text: usize,
    /// Counts deliveries, those to the posters left out.
    pub meter: Meter,
    /// Something was delivered.
    pub progress: Notify,
}

impl Load {
    pub fn new(chats: Vec<i64>, chat_of: Vec<usize>, text: usize) -> Result<Self> {
        Ok(Self {
            chats,
            chat_of,
            text,
            meter: Meter::new()?,
            progress: Notify::new(),
        })
    }

    /// Waits until there were so many deliveries.
    pub async fn delivered(&self, count: u64) -> io::Result<()> {
        while self.meter.count() < count {
            if self.meter.failures() > 0 {
                return Err(io::Error::other("the server ends streams"));
            }
            self.progress.notified().await;
        }
        Ok(())
    }
}

pub fn name(reader: usize) -> String {
    format!("reader-{reader}")
}

/// By chat: the names of its readers.
pub fn members(chat_of: &[usize], chats: usize) -> Vec<Vec<String>> {
    let mut members = vec![Vec::new(); chats];
    for (reader, chat) in chat_of.iter().enumerate() {
        members[*chat].push(name(reader));
    }
    members
}

/// Reads on one connection. The last of its readers takes the times.
pub async fn read(load: Arc<Load>, address: SocketAddr, readers: Vec<usize>) -> io::Result<()> {
    let mut conn = Conn::open(address).await?;
    let mut deframers = vec![Deframer::default(); readers.len()];
    let mut last = 0;
    let mut readers = readers.into_iter().peekable();
    loop {
        while let Some(reader) = readers.peek() {
            let join = posts::join(load.chats[load.chat_of[*reader]], Some(0));
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
