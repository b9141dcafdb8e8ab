use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use super::status::{Limit, Problem};
use crate::{domain::UserName, telemetry::log_limited};

/// How often the counts of users who have sent nothing of late are let go.
const SWEEP: Duration = Duration::from_secs(60);

/// A limit on what is in flight goes by in about the time of a commit.
const RETRY_SOON: Duration = Duration::from_millis(100);
/// Streams last.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// What clients may have of the server at a time, over all cores.
#[derive(Debug, Clone, Copy)]
pub struct GateSettings {
    pub connections: usize,
    pub user_streams: usize,
    /// A second; 0: any number.
    pub user_sends: u32,
    pub inflight: usize,
}

/// Counts what is open, and refuses what would be too much (P6).
pub struct Gate {
    settings: GateSettings,
    connections: AtomicUsize,
    inflight: AtomicUsize,
    streams: Mutex<HashMap<UserName, usize, ahash::RandomState>>,
    sends: Option<DefaultKeyedRateLimiter<UserName>>,
    refused: [AtomicU64; Limit::ALL.len()],
}

/// One of something that is counted, until it is dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a AtomicUsize);

/// One connection, until it is dropped.
#[derive(Debug)]
pub struct ConnectionPlace(Arc<Gate>);

/// One stream of a user, until it is dropped.
#[derive(Debug)]
pub struct StreamPlace(Arc<Gate>, UserName);

impl Gate {
    pub fn new(settings: GateSettings) -> Self {
        let quota = NonZeroU32::new(settings.user_sends).map(Quota::per_second);
        Self {
            settings,
            connections: AtomicUsize::new(0),
            inflight: AtomicUsize::new(0),
            streams: Mutex::default(),
            sends: quota.map(RateLimiter::keyed),
            refused: Default::default(),
        }
    }

    /// Room for a connection; without, there is nobody yet to tell so.
    pub fn connection(self: &Arc<Self>) -> Option<ConnectionPlace> {
        if take(&self.connections, self.settings.connections) {
            return Some(ConnectionPlace(self.clone()));
        }
        self.count(Limit::Connections);
        None
    }

    /// Room for a call that is being answered.
    pub fn call(&self) -> Result<Place<'_>, Problem> {
        if take(&self.inflight, self.settings.inflight) {
            return Ok(Place(&self.inflight));
        }
        Err(self.refuse(Limit::Inflight, RETRY_SOON))
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

    /// Leave for one message of `user`.
    pub fn send(&self, user: &UserName) -> Result<(), Problem> {
        let Some(sends) = &self.sends else {
            return Ok(());
        };
        sends.check_key(user).map_err(|over| {
            let wait = over.wait_time_from(DefaultClock::default().now());
            self.refuse(Limit::UserSends, wait.max(Duration::from_millis(1)))
        })
    }

    /// What has been refused since the start, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused.iter().map(|n| n.load(Ordering::Relaxed));
        Limit::ALL.iter().map(|limit| limit.reason()).zip(counts)
    }

    /// Lets go of what is known of users who have sent nothing of late, again
    /// and again.
    pub async fn sweep(self: Arc<Self>) {
        let Some(sends) = &self.sends else {
            return;
        };
        loop {
            tokio::time::sleep(SWEEP).await;
            sends.retain_recent();
            sends.shrink_to_fit();
        }
    }

    fn refuse(&self, limit: Limit, retry: Duration) -> Problem {
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

fn take(count: &AtomicUsize, max: usize) -> bool {
    let more = |now: usize| (now < max).then_some(now + 1);
    count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
        .is_ok()
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
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
    use super::*;

    fn gate(connections: usize, user_streams: usize, user_sends: u32) -> Arc<Gate> {
        Arc::new(Gate::new(GateSettings {
            connections,
            user_streams,
            user_sends,
            inflight: 1,
        }))
    }

    #[test]
    fn p6_a_place_is_free_again_once_it_is_dropped() {
        let gate = gate(1, 2, 0);
        let bob = UserName::new("bob").unwrap();
        let first = gate.connection().unwrap();
        assert!(gate.connection().is_none());
        drop(first);
        assert!(gate.connection().is_some());

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

        let refused: Vec<u64> = gate.refused().map(|(_, count)| count).collect();
        assert_eq!(refused, [1, 1, 0, 1]);
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
