//! Those who follow a chat: live or from a seq, slowly or not; who hang up and
//! come back where they were, and may post on their stream.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, time::Duration};

use chat_service::{
    chats::{Delivery, Reader, Slot},
    domain::{ChatError, ChatId, Seq, UserName},
};
use tokio::sync::oneshot;

use super::{
    executor::Life,
    open::Open,
    senders::new_draft,
    server::Server,
    sim::{Sim, now, sleep},
};

/// A join may wait for a chat that waits for the store, and for a change of it.
const JOIN: Duration = Duration::from_secs(120);

pub async fn run(sim: Sim, user: UserName) {
    // Where this client was in each chat.
    let mut seen: BTreeMap<ChatId, Seq> = BTreeMap::new();
    loop {
        sim.while_calm().await;
        let Some(server) = sim.server() else {
            sleep(50).await;
            continue;
        };
        let chat = sim.random_chat();
        let last = seen.get(&chat).copied();
        let after = sim.draw(|rng| match (rng.u8(..8), last) {
            (0, _) => Some(0),
            (1, _) => None,
            (2, Some(last)) => Some(rng.i64(0..=last)),
            (_, last) => last,
        });
        let (left, over) = oneshot::channel();
        let stream = Stream {
            sim: sim.clone(),
            server,
            chat,
            user: user.clone(),
            after,
            moody: !sim.one_in(3),
            left: Some(left),
            id: None,
            poster: None,
        };
        let task = sim.spawn(Life::Server, format!("stream {user} {chat}"), stream.run());
        let mut over = over;
        // Stays for a while; while all is to come to rest, it stays.
        let stay = sim.draw(|rng| 1 << rng.u32(4..15));
        let cursor = loop {
            match tokio::time::timeout(Duration::from_millis(stay), &mut over).await {
                Ok(cursor) => break cursor,
                Err(_) if sim.state().calm => {}
                Err(_) => {
                    sim.cancel(task);
                    break over.await;
                }
            }
        };
        if let Ok(Some(cursor)) = cursor {
            seen.insert(chat, cursor);
        }
        let rest = sim.state().plan.rest;
        sim.nap(1..rest.max(2)).await;
    }
}

/// The server's half of a stream. When it goes, for whatever reason, its client
/// is told how far it came.
struct Stream {
    sim: Sim,
    server: Server,
    chat: ChatId,
    user: UserName,
    after: Option<Seq>,
    /// Reads in fits and starts.
    moody: bool,
    left: Option<oneshot::Sender<Option<Seq>>>,
    /// The model's name for it, once it has joined.
    id: Option<u64>,
    poster: Option<u64>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let state = &mut *self.sim.state();
        let cursor = self.id.and_then(|id| state.model.cursor(id));
        if let Some(id) = self.id {
            state.model.stream_closed(id);
        }
        if let Some(poster) = self.poster {
            state.orders.cancel(poster);
        }
        if let Some(left) = self.left.take() {
            _ = left.send(cursor);
        }
    }
}

impl Stream {
    async fn run(mut self) {
        let Ok(mut reader) = self.join().await else {
            return;
        };
        let Some(id) = self.id else { return };
        reader.pack(id % 4 == 0);
        if self.sim.one_in(3) {
            let (sim, server, slot) =
                (self.sim.clone(), self.server.clone(), reader.slot().clone());
            let name = format!("poster {} {}", self.user, self.chat);
            let posts = post_on(sim, server, self.chat, id, slot);
            self.poster = Some(self.sim.spawn(Life::Server, name, posts));
        }
        let ring = {
            let shard = self.sim.state().plan.shard;
            let ring = shard.ring;
            if shard.memory < usize::MAX {
                // It may be cut, but for a small newest message.
                0
            } else if ring.bytes > ring.messages << 15 {
                ring.messages
            } else {
                // With a bound in bytes only the newest message is sure to be there.
                1
            }
        };
        loop {
            if self.moody && self.sim.one_in(12) && !self.sim.is_quiet() {
                self.sim.nap(1..3_000).await;
            }
            let what = format!("stream {id}");
            match poll_fn(|cx| reader.poll_next(cx)).await {
                Delivery::Frames(frames) | Delivery::Long(frames, ..) => {
                    let what = format!("{what} gets {} bytes", frames.len());
                    self.sim
                        .told(&what, |model, disk| model.delivered(id, frames, disk));
                }
                Delivery::Answer(answer, _) => {
                    let what = format!("{what} gets {answer:?}");
                    self.sim
                        .told(&what, |model, disk| model.answered(id, &answer, disk));
                }
                Delivery::End(end) => {
                    let what = format!("{what} ends: {end:?}");
                    self.sim
                        .told(&what, |model, disk| model.ended(id, end, ring, disk));
                    return;
                }
            }
        }
    }

    async fn join(&mut self) -> Result<Reader, ChatError> {
        let (chat, user) = (self.chat, self.user.clone());
        let (call, open) = {
            let model = &mut self.sim.state().model;
            let call = model.join_asked(chat, &user, self.after);
            (call, model.opened(format!("{user}'s join"), now() + JOIN))
        };
        let open = Open::new(&self.sim, open);
        let core = self.sim.draw(|rng| rng.usize(..self.server.cores));
        let joined = self.server.chats.join(chat, user, self.after, core).await;
        open.answered();
        match &joined {
            Ok(_) => {
                let id = &mut self.id;
                self.sim.told("joins", |model, disk| {
                    let (stream, kept) = model.joined(&call, disk);
                    *id = Some(stream);
                    kept
                });
            }
            Err(error) => {
                let what = format!("join refused: {error}");
                self.sim
                    .told(&what, |model, _| model.join_refused(&call, *error));
            }
        }
        joined
    }
}

/// The posting half of a stream.
async fn post_on(sim: Sim, server: Server, chat: ChatId, stream: u64, slot: Arc<Slot>) {
    loop {
        sim.while_calm().await;
        let draft = new_draft(&sim, true);
        sim.state().model.posted_on(stream, &draft);
        let timeout = sim.draw(|rng| Duration::from_millis(rng.u64(5..4_000)));
        let post = server
            .chats
            .post_on_stream(chat, &slot, draft, timeout, None, now);
        post.await;
        let rest = sim.state().plan.rest;
        sim.nap(0..rest).await;
    }
}
