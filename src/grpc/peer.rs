use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use super::{
    frames::Flood,
    gate::Gate,
    status::Problem,
    strangers::{Owner, Stranger, Work},
    turns::Newcomer,
};
use crate::{auth::Identity, chats::Share, domain::UserName, runtime::Spawner};

/// The other side of one connection, as what reads from it and its calls share it.
#[derive(Debug)]
pub struct Peer {
    pub gate: Arc<Gate>,
    pub newcomer: Arc<Newcomer>,
    /// None: the connection is one too many.
    stranger: Option<Arc<Stranger>>,
    /// Where the connection is served.
    pub core: usize,
    pub spawner: Spawner,
    /// Of the connection, so far.
    polls: AtomicU32,
    /// Calls that need no token.
    open_calls: AtomicUsize,
    /// Streams of users.
    streams: AtomicUsize,
    /// Calls that wait for their requests.
    pub waiting: AtomicUsize,
    /// Requests that have begun and wait for room for the rest.
    pub short_of_room: AtomicUsize,
    /// Logins under way.
    pub logins: AtomicUsize,
    /// What it has sent too many of, once it has.
    flood: OnceLock<Flood>,
}

/// One stream of a user on a connection, until it is dropped.
#[derive(Debug)]
pub struct StreamPlace {
    peer: Arc<Peer>,
    user: UserName,
}

impl StreamPlace {
    /// With a share if it is one of many streams of the user.
    ///
    /// # Errors
    /// If the user has too many.
    pub fn take(peer: &Arc<Peer>, user: &UserName) -> Result<(Self, Option<Arc<Share>>), Problem> {
        let share = peer.gate.enter_stream(user)?;
        if let Some(stranger) = &peer.stranger {
            stranger.begin();
        }
        peer.streams.fetch_add(1, Ordering::Relaxed);
        let place = Self {
            peer: peer.clone(),
            user: user.clone(),
        };
        Ok((place, share))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.peer.gate.leave_stream(&self.user);
        self.peer.streams.fetch_sub(1, Ordering::Relaxed);
        if let Some(stranger) = &self.peer.stranger {
            stranger.end();
        }
    }
}

impl Peer {
    pub fn new(
        gate: Arc<Gate>,
        newcomer: Arc<Newcomer>,
        stranger: Option<Arc<Stranger>>,
        core: usize,
        spawner: Spawner,
    ) -> Self {
        Self {
            gate,
            newcomer,
            stranger,
            core,
            spawner,
            polls: AtomicU32::new(0),
            open_calls: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            short_of_room: AtomicUsize::new(0),
            logins: AtomicUsize::new(0),
            flood: OnceLock::new(),
        }
    }

    /// It has shown a token that was accepted.
    pub fn is_known(&self, identity: &Identity) {
        self.newcomer.is_known();
        if let Some(stranger) = &self.stranger {
            let owner = || Owner::User(identity.user.clone());
            stranger.is_known(identity.expires_at, owner);
        }
    }

    /// A call or a stream begins for which the connection is kept, as long as there is
    /// what this gives back.
    pub fn begin_work(&self) -> Option<Work> {
        self.stranger.as_ref().map(Work::of)
    }

    /// Ready once the connection is to end, because others have no place.
    pub fn poll_gives_way(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.stranger {
            Some(stranger) => stranger.poll_gives_way(cx),
            None => Poll::Pending,
        }
    }

    /// The connection is about to be polled. Only who polls it counts and asks.
    pub fn begin_poll(&self) {
        let before = self.polls.load(Ordering::Relaxed);
        self.polls.store(before.wrapping_add(1), Ordering::Relaxed);
    }

    /// Which poll of the connection this is.
    pub fn polls(&self) -> u32 {
        self.polls.load(Ordering::Relaxed)
    }

    /// Streams of users on the connection now.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Counts one more call that needs no token; how many there were before.
    pub fn begin_open_call(&self) -> usize {
        self.open_calls.fetch_add(1, Ordering::AcqRel)
    }

    pub fn end_open_call(&self) {
        self.open_calls.fetch_sub(1, Ordering::AcqRel);
    }

    /// It has sent too much of something, and is cut off.
    pub fn cut_off(&self, flood: Flood) {
        if self.flood.set(flood).is_ok() {
            self.gate.cut_off(flood.limit());
        }
    }

    /// The last frame that it is sent, if it is cut off.
    pub fn farewell(&self) -> Option<Vec<u8>> {
        self.flood.get().map(|flood| flood.farewell())
    }
}
