use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use super::{
    begun::Begun,
    limit::Limit,
    opening::Opening,
    status::Problem,
    strangers::{Stranger, Strangers},
    untaken::Untaken,
};
use crate::{
    chats::Share,
    domain::{Clock as _, Origin, UserName},
    runtime::SystemClock,
    telemetry::{Metrics, log_limited},
};

/// How often the counts of users who have sent nothing of late are let go.
const SWEEP: Duration = Duration::from_secs(60);

/// A limit on what is in flight goes by in about the time of a commit.
const RETRY_SOON: Duration = Duration::from_millis(100);
/// Streams and connections last.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// Connections over the limit that are open for a moment, to be told so. Beyond
/// these nobody is told.
const MAX_TURNED_AWAY: usize = 64;

/// What clients may have of the server at a time, over all cores.
#[derive(Debug, Clone, Copy)]
pub struct GateSettings {
    pub connections: usize,
    pub user_streams: usize,
    /// A second; 0: any number.
    pub user_sends: u32,
    /// Of chats and their members, a second; 0: any number.
    pub user_changes: u32,
    /// Of chats, pages and lists, a second; 0: any number.
    pub user_reads: u32,
    pub inflight: usize,
    /// Bytes of answers that clients have not taken.
    pub untaken: usize,
    /// Bytes of requests that have begun and are not whole.
    pub begun: usize,
}

/// Counts what is open, and refuses what would be too much (P6).
pub struct Gate {
    settings: GateSettings,
    metrics: Arc<Metrics>,
    connections: AtomicUsize,
    strangers: Arc<Strangers>,
    turned_away: AtomicUsize,
    inflight: AtomicUsize,
    streams: Mutex<HashMap<UserName, Arc<Share>, ahash::RandomState>>,
    sends: Option<Pace>,
    changes: Option<Pace>,
    reads: Option<Pace>,
    pub untaken: Arc<Untaken>,
    pub begun: Arc<Begun>,
    pub opening: Opening,
    /// For the log; the metrics count what clients are told.
    refused: [AtomicU64; Limit::ALL.len()],
}

/// What each user may do a second, and at once.
struct Pace {
    users: DefaultKeyedRateLimiter<UserName>,
    most: NonZeroU32,
    limit: Limit,
}

/// One call that is being answered, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Gate>);

/// One connection, until it is dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    gate: Arc<Gate>,
    /// None: it is one too many.
    pub stranger: Option<Arc<Stranger>>,
}

impl ConnectionPlace {
    /// It is one too many.
    pub fn is_turned_away(&self) -> bool {
        self.stranger.is_none()
    }

    /// What each call of the connection is answered, if it is one too many.
    pub fn refusal(&self) -> Option<Problem> {
        self.is_turned_away()
            .then(|| Problem::over(Limit::Connections, RETRY_LATER))
    }
}

impl Gate {
    /// `metrics` counts the connections refused; calls are counted where they
    /// are answered.
    pub fn new(settings: GateSettings, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            untaken: Untaken::new(settings.untaken, metrics.clone()),
            begun: Begun::new(settings.begun, metrics.clone()),
            opening: Opening::new(settings.inflight),
            metrics,
            connections: AtomicUsize::new(0),
            strangers: Strangers::new(settings.connections),
            turned_away: AtomicUsize::new(0),
            inflight: AtomicUsize::new(0),
            streams: Mutex::default(),
            sends: Pace::new(settings.user_sends, Limit::UserSends),
            changes: Pace::new(settings.user_changes, Limit::UserChanges),
            reads: Pace::new(settings.user_reads, Limit::UserReads),
            refused: Default::default(),
        }
    }

    /// Room for a connection, be it to turn it away; `None`: not even that. Where there
    /// is none, another may give way.
    pub fn connection(self: &Arc<Self>, origin: Origin) -> Option<ConnectionPlace> {
        let now = Instant::now();
        let is_free = take(&self.connections, self.settings.connections);
        if !is_free {
            self.count(Limit::Connections);
            self.metrics.refused(Limit::Connections.reason());
        }
        let has_place = is_free || self.strangers.make_way(origin, now, SystemClock.wall());
        let place = |stranger| ConnectionPlace {
            gate: self.clone(),
            stranger,
        };
        if has_place {
            return Some(place(Some(self.strangers.enter(origin, now))));
        }
        take(&self.turned_away, MAX_TURNED_AWAY).then(|| place(None))
    }

    /// Whether it is worth looking at one more call.
    ///
    /// # Errors
    /// If there is no room for any.
    pub fn has_room(&self) -> Result<(), Problem> {
        match self.inflight.load(Ordering::Acquire) < self.settings.inflight {
            true => Ok(()),
            false => Err(self.refuse(Limit::Inflight, RETRY_SOON)),
        }
    }

    /// Room for a call whose request is there.
    pub fn call(self: &Arc<Self>) -> Result<Place, Problem> {
        if take(&self.inflight, self.settings.inflight) {
            return Ok(Place(self.clone()));
        }
        Err(self.refuse(Limit::Inflight, RETRY_SOON))
    }

    /// Room for one more stream of `user`, to be given back by [`Self::leave_stream`]; with
    /// a share if it is one of many, which have what they hold together.
    pub fn enter_stream(&self, user: &UserName) -> Result<Option<Arc<Share>>, Problem> {
        let mut streams = self.streams();
        let share = streams.entry(user.clone()).or_default().clone();
        let entered = share.enter(self.settings.user_streams);
        drop(streams);
        let Some(shares) = entered else {
            return Err(self.refuse(Limit::UserStreams, RETRY_LATER));
        };
        Ok(shares.then_some(share))
    }

    pub fn leave_stream(&self, user: &UserName) {
        let mut streams = self.streams();
        if streams.get(user).is_some_and(|share| share.leave()) {
            streams.remove(user);
        }
    }

    /// Leave for one message of `user`; if there is none, when there will be.
    pub fn send(&self, user: &UserName) -> Result<(), Duration> {
        self.pace(self.sends.as_ref(), user, 1)
    }

    /// Leave for `user` to make, change or delete one chat, by a request with so many
    /// names: each ten of them count as a change more.
    pub fn change(&self, user: &UserName, names: usize) -> Result<(), Problem> {
        let weight = u32::try_from(1 + names / 10).unwrap_or(u32::MAX);
        self.pace(self.changes.as_ref(), user, weight)
            .map_err(|retry| Problem::over(Limit::UserChanges, retry))
    }

    /// Leave for `user` to read a chat, on a stream too, or a page of so many: each
    /// hundred count as a read more.
    pub fn read(&self, user: &UserName, page_size: i32) -> Result<(), Problem> {
        let weight = 1 + u32::try_from(page_size).unwrap_or(0) / 100;
        self.pace(self.reads.as_ref(), user, weight)
            .map_err(|retry| Problem::over(Limit::UserReads, retry))
    }

    fn pace(&self, pace: Option<&Pace>, user: &UserName, weight: u32) -> Result<(), Duration> {
        pace.map_or(Ok(()), |pace| {
            let left = pace.take(user, weight);
            left.inspect_err(|_| self.count(pace.limit))
        })
    }

    /// Lets go of what is known of users who have done nothing of late, again
    /// and again.
    pub async fn sweep(self: Arc<Self>) {
        let paces = [&self.sends, &self.changes, &self.reads];
        let paces: Vec<_> = paces.into_iter().flatten().collect();
        while !paces.is_empty() {
            tokio::time::sleep(SWEEP).await;
            for pace in &paces {
                pace.users.retain_recent();
                pace.users.shrink_to_fit();
            }
        }
    }

    /// A connection ends for what its client has sent too many of.
    pub fn cut_off(&self, limit: Limit) {
        self.count(limit);
        self.metrics.refused(limit.reason());
    }

    /// The refusal of a call for want of room.
    pub fn refuse(&self, limit: Limit, retry: Duration) -> Problem {
        self.count(limit);
        Problem::over(limit, retry)
    }

    fn count(&self, limit: Limit) {
        let before = self.refused[limit as usize].fetch_add(1, Ordering::Relaxed);
        log_limited!(
            WARN,
            limit = limit.reason(),
            count = before + 1,
            "over a limit"
        );
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<UserName, Arc<Share>, ahash::RandomState>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// None: any number.
    fn new(most: u32, limit: Limit) -> Option<Self> {
        NonZeroU32::new(most).map(|most| Self {
            users: RateLimiter::keyed(Quota::per_second(most)),
            most,
            limit,
        })
    }

    /// If there is not so much left for the user, when there will be. What weighs more
    /// than a second's worth takes just that, so that it has its turn as well.
    fn take(&self, user: &UserName, weight: u32) -> Result<(), Duration> {
        let weight = NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN);
        match self.users.check_key_n(user, weight.min(self.most)) {
            Ok(Err(over)) => {
                let wait = over.wait_time_from(DefaultClock::default().now());
                Err(wait.max(Duration::from_millis(1)))
            }
            // Nothing is asked for that there never is.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

/// Counts one more, unless there are as many as there may be.
pub(super) fn take(count: &AtomicUsize, max: usize) -> bool {
    let more = |now: usize| (now < max).then_some(now + 1);
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
        .is_ok()
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let count = match &self.stranger {
            None => &self.gate.turned_away,
            Some(stranger) if stranger.leave() => &self.gate.connections,
            // Somebody else has its place.
            Some(_) => return,
        };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("settings", &self.settings)
            .field("connections", &self.connections)
            .field("inflight", &self.inflight)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn gate(connections: usize, user_streams: usize, user_sends: u32) -> Arc<Gate> {
        let settings = GateSettings {
            connections,
            user_streams,
            user_sends,
            user_changes: 20,
            user_reads: 10,
            inflight: 1,
            untaken: 0,
            begun: 0,
        };
        Arc::new(Gate::new(settings, Metrics::new(1)))
    }

    #[test]
    fn p6_a_place_is_free_again_once_it_is_dropped() {
        let gate = gate(1, 2, 0);
        let bob = UserName::new("bob").unwrap();
        let origin = IpAddr::from([127, 0, 0, 1]).into();
        let first = gate.connection(origin).unwrap();
        assert_eq!(first.refusal(), None);
        let more: Vec<_> = std::iter::from_fn(|| gate.connection(origin)).collect();
        assert_eq!(more.len(), MAX_TURNED_AWAY);
        assert!(more.iter().all(|place| place.refusal().is_some()));
        drop(first);
        assert_eq!(gate.connection(origin).unwrap().refusal(), None);
        drop(more);
        assert_eq!(gate.turned_away.load(Ordering::Relaxed), 0);

        let call = gate.call().unwrap();
        assert!(gate.call().is_err());
        drop(call);
        assert!(gate.call().is_ok());

        let eve = UserName::new("eve").unwrap();
        for user in [&bob, &bob, &eve] {
            gate.enter_stream(user).unwrap();
        }
        assert!(gate.enter_stream(&bob).is_err());
        for user in [&bob, &bob, &eve] {
            gate.leave_stream(user);
        }
        assert!(gate.enter_stream(&bob).is_ok());
        gate.leave_stream(&bob);
        assert!(gate.streams().is_empty(), "idle users are forgotten");

        let refused = gate.refused.each_ref().map(|n| n.load(Ordering::Relaxed));
        assert_eq!(refused, [MAX_TURNED_AWAY as u64 + 1, 1, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn p6_a_user_sends_so_much_a_second() {
        let gate = gate(1, 1, 5);
        let bob = UserName::new("bob").unwrap();
        for _ in 0..5 {
            gate.send(&bob).unwrap();
        }
        assert!(gate.send(&bob).is_err());
        assert!(gate.send(&UserName::new("eve").unwrap()).is_ok());
    }

    #[test]
    fn p6_what_costs_more_counts_for_more() {
        let gate = gate(1, 1, 0);
        let user = |name| UserName::new(name).unwrap();
        let made = |name, names| {
            let user = user(name);
            (0..40)
                .take_while(|_| gate.change(&user, names).is_ok())
                .count()
        };
        assert_eq!([made("a", 0), made("b", 9)], [20, 20]);
        assert_eq!([made("c", 10), made("d", 100)], [10, 1]);
        // One that weighs more than there ever is has its turn, alone.
        assert_eq!(made("e", 1_000), 1);
        assert!(gate.change(&user("e"), 0).is_err());
        let read = |name, size| {
            let user = user(name);
            (0..40)
                .take_while(|_| gate.read(&user, size).is_ok())
                .count()
        };
        assert_eq!([read("a", 0), read("b", 50), read("c", 100)], [10, 10, 5]);
        assert_eq!([read("d", 1_000), read("e", -1)], [1, 10]);
    }
}
