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
    limit::Limit,
    opening::Opening,
    status::Problem,
    strangers::{Stranger, Strangers},
    untaken::Untaken,
};
use crate::{
    domain::{Origin, UserName},
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
    pub inflight: usize,
    /// Bytes of answers that clients have not taken.
    pub untaken: usize,
}

/// Counts what is open, and refuses what would be too much (P6).
pub struct Gate {
    settings: GateSettings,
    metrics: Arc<Metrics>,
    connections: AtomicUsize,
    strangers: Strangers,
    turned_away: AtomicUsize,
    inflight: AtomicUsize,
    streams: Mutex<HashMap<UserName, usize, ahash::RandomState>>,
    sends: Option<DefaultKeyedRateLimiter<UserName>>,
    changes: Option<DefaultKeyedRateLimiter<UserName>>,
    pub untaken: Arc<Untaken>,
    pub opening: Opening,
    /// For the log; the metrics count what clients are told.
    refused: [AtomicU64; Limit::ALL.len()],
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

/// One stream of a user, until it is dropped.
#[derive(Debug)]
pub struct StreamPlace(Arc<Gate>, UserName);

impl Gate {
    /// `metrics` counts the connections refused; calls are counted where they
    /// are answered.
    pub fn new(settings: GateSettings, metrics: Arc<Metrics>) -> Self {
        let a_second = |most| NonZeroU32::new(most).map(Quota::per_second);
        Self {
            settings,
            untaken: Untaken::new(settings.untaken, metrics.clone()),
            opening: Opening::new(settings.inflight),
            metrics,
            connections: AtomicUsize::new(0),
            strangers: Strangers::default(),
            turned_away: AtomicUsize::new(0),
            inflight: AtomicUsize::new(0),
            streams: Mutex::default(),
            sends: a_second(settings.user_sends).map(RateLimiter::keyed),
            changes: a_second(settings.user_changes).map(RateLimiter::keyed),
            refused: Default::default(),
        }
    }

    /// Room for a connection, be it to turn it away; `None`: not even that. Where there
    /// is none, one gives way that has shown no token.
    pub fn connection(self: &Arc<Self>, origin: Origin) -> Option<ConnectionPlace> {
        let now = Instant::now();
        let is_free = take(&self.connections, self.settings.connections);
        if !is_free {
            self.count(Limit::Connections);
            self.metrics.refused(Limit::Connections.reason());
        }
        let has_place = is_free || self.strangers.make_way(now);
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

    /// The connection is somebody's who has shown a token.
    pub fn is_known(&self, stranger: &Stranger) {
        self.strangers.is_known(stranger);
    }

    /// Room for one more stream of `user`.
    pub fn stream(self: &Arc<Self>, user: &UserName) -> Result<StreamPlace, Problem> {
        let mut streams = self.streams();
        let open = streams.entry(user.clone()).or_default();
        if *open >= self.settings.user_streams {
            drop(streams);
            return Err(self.refuse(Limit::UserStreams, RETRY_LATER));
        }
        *open += 1;
        drop(streams);
        Ok(StreamPlace(self.clone(), user.clone()))
    }

    /// Leave for one message of `user`; if there is none, when there will be.
    pub fn send(&self, user: &UserName) -> Result<(), Duration> {
        self.pace(self.sends.as_ref(), Limit::UserSends, user)
    }

    /// Leave for `user` to make, change or delete one chat.
    pub fn change(&self, user: &UserName) -> Result<(), Problem> {
        self.pace(self.changes.as_ref(), Limit::UserChanges, user)
            .map_err(|retry| Problem::over(Limit::UserChanges, retry))
    }

    fn pace(
        &self,
        paced: Option<&DefaultKeyedRateLimiter<UserName>>,
        limit: Limit,
        user: &UserName,
    ) -> Result<(), Duration> {
        let Some(paced) = paced else {
            return Ok(());
        };
        paced.check_key(user).map_err(|over| {
            self.count(limit);
            let wait = over.wait_time_from(DefaultClock::default().now());
            wait.max(Duration::from_millis(1))
        })
    }

    /// Lets go of what is known of users who have done nothing of late, again
    /// and again.
    pub async fn sweep(self: Arc<Self>) {
        let paced = [&self.sends, &self.changes];
        let paced: Vec<_> = paced.into_iter().flatten().collect();
        while !paced.is_empty() {
            tokio::time::sleep(SWEEP).await;
            for users in &paced {
                users.retain_recent();
                users.shrink_to_fit();
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

    fn streams(&self) -> MutexGuard<'_, HashMap<UserName, usize, ahash::RandomState>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
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
            Some(stranger) if self.gate.strangers.leave(stranger) => &self.gate.connections,
            // Somebody else has its place.
            Some(_) => return,
        };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut streams = self.0.streams();
        if let Some(open) = streams.get_mut(&self.1) {
            *open -= 1;
            if *open == 0 {
                streams.remove(&self.1);
            }
        }
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
            user_changes: 0,
            inflight: 1,
            untaken: 0,
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

        let streams = [gate.stream(&bob).unwrap(), gate.stream(&bob).unwrap()];
        assert!(gate.stream(&bob).is_err());
        assert!(gate.stream(&UserName::new("eve").unwrap()).is_ok());
        drop(streams);
        assert!(gate.stream(&bob).is_ok());
        assert!(gate.streams().is_empty(), "idle users are forgotten");

        let refused = gate.refused.each_ref().map(|n| n.load(Ordering::Relaxed));
        assert_eq!(refused, [MAX_TURNED_AWAY as u64 + 1, 1, 0, 0, 1, 0, 0]);
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
}
