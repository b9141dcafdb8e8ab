//! Requests that have begun and are not whole.
//!
//! The first piece of a request costs a client next to nothing, and the rest may never
//! come. Most requests are there when they are looked at, and are not counted here. One
//! whose rest has to be waited for needs room for all of it first: in its user's share,
//! and in what all users have together, which is a part of `--memory` (P6). While there
//! is none, nothing more is read of it, so that HTTP/2's flow control holds its client
//! back; only few may wait so, and the others are refused at once.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Instant,
};

use futures_util::poll;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout_at,
};

use super::{gate::take, status::Problem};
use crate::{
    domain::{Origin, UserName},
    telemetry::Metrics,
};

/// Room is counted in pieces of so many bytes.
const PIECE: usize = 1024;

/// What all have, in bytes, is at least so much: some sixty lists of a thousand names.
const LEAST: usize = 4 * 1024 * 1024;

/// What one user has at most, in bytes. It is a quarter of what there is for all where
/// that is less.
const OF_USER: usize = 16 * 1024 * 1024;
const SHARE: usize = 4;

/// Who has no token, as whoever logs in, has this part of what there is, and no more.
const OF_STRANGERS: usize = 8;

/// Requests of one user, and of one connection, that wait for room. What has come of
/// these is not counted: some 16 KiB that were read, and as much that HTTP/2 has. They
/// take up a quarter of their connection's window, so that the rest of those that have
/// room gets through beside them.
const MOST_WAITING: usize = 64;

/// The room that all such requests share.
#[derive(Debug)]
pub struct Begun {
    users: Part,
    strangers: Part,
    each: Mutex<HashMap<Who, Arc<One>, ahash::RandomState>>,
    metrics: Arc<Metrics>,
}

/// What there is for users, or for strangers, in pieces.
#[derive(Debug)]
struct Part {
    all: Arc<Semaphore>,
    of_one: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    User(UserName),
    Stranger(Origin),
}

/// What one user has, or one address.
#[derive(Debug)]
struct One {
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub enum Sender<'a> {
    User(&'a UserName),
    /// Who has shown no token is told apart by the address.
    Stranger(Origin),
}

/// On what terms the rest of a request is waited for.
#[derive(Debug)]
pub struct Terms<'a> {
    pub begun: &'a Arc<Begun>,
    pub sender: Sender<'a>,
    /// Requests of its connection that wait for room.
    pub waiting: &'a AtomicUsize,
    /// It is to be whole by then.
    pub until: Instant,
}

/// Somebody who sends requests. The terms are asked for only when the rest of one has
/// to be waited for.
pub trait Sends {
    fn terms(&self) -> Terms<'_>;
}

/// The room of one request, until it is dropped.
#[derive(Debug)]
pub struct Room {
    begun: Arc<Begun>,
    who: Who,
    one: Option<Arc<One>>,
    of_one: Option<OwnedSemaphorePermit>,
    of_all: Option<OwnedSemaphorePermit>,
    /// That were asked for.
    bytes: usize,
}

impl Begun {
    /// For requests of so many bytes in all.
    pub fn new(bytes: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let bytes = bytes.max(LEAST);
        let of_strangers = bytes / OF_STRANGERS;
        Arc::new(Self {
            users: Part::new(bytes - of_strangers),
            strangers: Part::new(of_strangers),
            each: Mutex::default(),
            metrics,
        })
    }

    fn each(&self) -> MutexGuard<'_, HashMap<Who, Arc<One>, ahash::RandomState>> {
        self.each.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, who: &Who) -> &Part {
        match who {
            Who::User(_) => &self.users,
            Who::Stranger(_) => &self.strangers,
        }
    }
}

impl Part {
    fn new(bytes: usize) -> Self {
        let all = (bytes / PIECE).min(Semaphore::MAX_PERMITS);
        let of_one = (all / SHARE).min(OF_USER / PIECE);
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_one: u32::try_from(of_one).unwrap_or(u32::MAX),
        }
    }
}

impl Terms<'_> {
    /// Waits for room for a request of so many bytes. What is larger than a user's share
    /// takes just that, so that it has its turn as well.
    ///
    /// # Errors
    /// If too many wait, or there is none until the request is to be whole.
    pub async fn room(&self, bytes: usize) -> Result<Room, Problem> {
        let mut room = Room::none(self.begun, self.sender, bytes);
        let part = self.begun.part(&room.who);
        let pieces = pieces(bytes).min(part.of_one);
        let Some(one) = room.one.clone() else {
            return Ok(room);
        };
        // Neither is ever closed.
        let taking = async {
            let of_one = one.room.clone().acquire_many_owned(pieces).await.ok();
            let of_all = part.all.clone().acquire_many_owned(pieces).await.ok();
            (of_one, of_all)
        };
        let mut taking = pin!(taking);
        let taken = match poll!(taking.as_mut()) {
            Poll::Ready(taken) => taken,
            Poll::Pending => {
                let counts = [self.waiting, &one.waiting];
                let _waits = Waits::begin(&counts)?;
                let taken = timeout_at(self.until.into(), taking).await;
                taken.map_err(|_| Problem::not_whole())?
            }
        };
        (room.of_one, room.of_all) = taken;
        self.begun.metrics.request_held(0, room.held());
        Ok(room)
    }
}

impl Room {
    fn none(begun: &Arc<Begun>, sender: Sender<'_>, bytes: usize) -> Self {
        let who = match sender {
            Sender::User(user) => Who::User(user.clone()),
            Sender::Stranger(origin) => Who::Stranger(origin),
        };
        let of_one = begun.part(&who).of_one as usize;
        let fresh = || {
            Arc::new(One {
                room: Arc::new(Semaphore::new(of_one)),
                waiting: AtomicUsize::new(0),
            })
        };
        let one = begun
            .each()
            .entry(who.clone())
            .or_insert_with(fresh)
            .clone();
        Self {
            begun: begun.clone(),
            who,
            one: Some(one),
            of_one: None,
            of_all: None,
            bytes,
        }
    }

    /// Whether it is enough for so many bytes.
    pub fn fits(&self, bytes: usize) -> bool {
        bytes <= self.bytes
    }

    fn held(&self) -> usize {
        let pieces = self.of_all.as_ref();
        pieces.map_or(0, OwnedSemaphorePermit::num_permits) * PIECE
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.begun.metrics.request_held(self.held(), 0);
        self.of_all = None;
        self.of_one = None;
        let mut each = self.begun.each();
        // All others who have it are in the map's account too, also those who wait.
        self.one = None;
        if each
            .get(&self.who)
            .is_some_and(|one| Arc::strong_count(one) == 1)
        {
            each.remove(&self.who);
        }
    }
}

/// A request that waits for room, until it is dropped.
struct Waits<'a>(&'a [&'a AtomicUsize]);

impl<'a> Waits<'a> {
    fn begin(counts: &'a [&'a AtomicUsize]) -> Result<Self, Problem> {
        for (at, count) in counts.iter().enumerate() {
            if !take(count, MOST_WAITING) {
                drop(Self(&counts[..at]));
                return Err(Problem::not_whole());
            }
        }
        Ok(Self(counts))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        for count in self.0 {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub mod tests {
    use std::{net::IpAddr, time::Duration};

    use futures_util::FutureExt as _;

    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    /// Somebody on a connection of their own.
    pub struct Client {
        pub begun: Arc<Begun>,
        pub user: Option<UserName>,
        pub waiting: AtomicUsize,
        pub patience: Duration,
    }

    impl Client {
        /// `None`: somebody without a token.
        pub fn new(begun: &Arc<Begun>, user: Option<&str>) -> Self {
            Self {
                begun: begun.clone(),
                user: user.map(|user| UserName::new(user).unwrap()),
                waiting: AtomicUsize::new(0),
                patience: Duration::from_secs(3600),
            }
        }
    }

    impl Sends for Client {
        fn terms(&self) -> Terms<'_> {
            Terms {
                begun: &self.begun,
                sender: match &self.user {
                    Some(user) => Sender::User(user),
                    None => Sender::Stranger(IpAddr::from([192, 0, 2, 1]).into()),
                },
                waiting: &self.waiting,
                until: tokio::time::Instant::now().into_std() + self.patience,
            }
        }
    }

    /// What is free of all that users have, in bytes.
    pub fn free(begun: &Begun) -> usize {
        begun.users.all.available_permits() * PIECE
    }

    #[tokio::test]
    async fn p6_who_does_not_finish_requests_waits_alone() {
        let begun = Begun::new(64 * MIB, Metrics::new(1));
        let all = free(&begun);
        assert_eq!(all, 56 * MIB);
        let [alice, bob] = [Some("alice"), Some("bob")].map(|user| Client::new(&begun, user));
        let stranger = Client::new(&begun, None);
        let (terms, of_bob, of_stranger) = (alice.terms(), bob.terms(), stranger.terms());
        let first = terms.room(10 * MIB).await.unwrap();
        let mut second = Box::pin(terms.room(10 * MIB));
        assert!(second.as_mut().now_or_never().is_none(), "14 MiB a user");
        // Others have theirs, and what is larger than a user's share has its turn.
        let bobs = of_bob.room(100 * MIB).now_or_never().unwrap().unwrap();
        let strangers = of_stranger.room(100 * MIB).now_or_never().unwrap();
        assert_eq!(free(&begun), all - 24 * MIB);
        drop((first, bobs, strangers.unwrap()));
        drop(second.await.unwrap());
        assert!(begun.each().is_empty(), "who has nothing is forgotten");
        assert_eq!(free(&begun), all);
    }

    #[tokio::test(start_paused = true)]
    async fn p6_few_wait_for_room_and_none_for_ever() {
        let begun = Begun::new(0, Metrics::new(1));
        let mallory = Client {
            patience: Duration::from_secs(10),
            ..Client::new(&begun, Some("mallory"))
        };
        let terms = mallory.terms();
        let room = terms.room(MIB).await.unwrap();
        let mut waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| Box::pin(terms.room(100 * KIB)))
            .collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let one_more = terms.room(KIB).now_or_never().unwrap();
        assert_eq!(one_more.unwrap_err(), Problem::not_whole());
        for one in waiting {
            assert_eq!(one.await.unwrap_err(), Problem::not_whole(), "in time");
        }
        drop(room);
        assert!(terms.room(KIB).await.is_ok());
        assert_eq!(mallory.waiting.load(Ordering::Relaxed), 0);
    }
}
