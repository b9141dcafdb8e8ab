use std::{
    fmt,
    future::ready,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use moka::sync;
use tokio::sync::OnceCell;

use super::{Ask, AuthError, AuthResult, Authenticator, Identity};
use crate::{
    domain::{Clock, Digests},
    telemetry::{AuthOutcome, Metrics},
};

/// While the peer can't be asked, an entry in its grace is asked about again
/// after this time.
const GRACE_RECHECK: Duration = Duration::from_secs(1);
/// Beyond the time that an entry counts: for the check it begins with.
const FLIGHT: Duration = Duration::from_secs(60);

/// Remembers the answers of another authenticator for a while.
///
/// 1. A key is the digest of token and method: nobody can look for two tokens
///    that share an entry, and it gives no token back.
/// 2. Checks of one key under way are one check, whose answer, also a failure
///    to ask, all get who waited for it.
/// 3. A failure to ask is forgotten at once.
pub struct Cache {
    inner: Arc<dyn Authenticator>,
    clock: Arc<dyn Clock>,
    settings: CacheSettings,
    metrics: Arc<Metrics>,
    digests: Digests,
    entries: sync::Cache<u128, Arc<Entry>, ahash::RandomState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// How long a token that was allowed is not asked about again, at most.
    pub ttl: Duration,
    /// … and one that was refused.
    pub refusal_ttl: Duration,
    /// How long one that was allowed goes on to be while nobody can be asked.
    pub stale: Duration,
    pub max_entries: u64,
    /// Whether the answer depends on the method.
    pub per_method: bool,
}

/// One check, under way or done.
struct Entry {
    outcome: OnceCell<Outcome>,
    /// The answer before this one, if it was a yes.
    before: Option<Yes>,
}

struct Outcome {
    result: AuthResult,
    /// The outcome counts before then.
    until: Instant,
    yes: Option<Yes>,
}

/// The last time that somebody who knows said yes.
#[derive(Clone)]
struct Yes {
    identity: Arc<Identity>,
    until: Instant,
}

impl Cache {
    pub fn new(
        inner: Arc<dyn Authenticator>,
        clock: Arc<dyn Clock>,
        settings: CacheSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let longest = settings.ttl.max(settings.refusal_ttl) + settings.stale + FLIGHT;
        Self {
            inner,
            clock,
            settings,
            metrics,
            digests: Digests::new(),
            entries: sync::Cache::builder()
                .max_capacity(settings.max_entries)
                .time_to_live(longest)
                .build_with_hasher(ahash::RandomState::new()),
        }
    }

    fn key(&self, ask: &Ask<'_>) -> u128 {
        match self.settings.per_method {
            true => self.digests.of((ask.token.0, ask.method)),
            false => self.digests.of(ask.token.0),
        }
    }

    /// The entry that replaces `known`, which is over, or is missing. Whoever
    /// comes first makes it.
    fn renew(&self, key: u128, known: Option<&Arc<Entry>>) -> Arc<Entry> {
        let fresh = |before| {
            Arc::new(Entry {
                outcome: OnceCell::new(),
                before,
            })
        };
        let Some(known) = known else {
            return self.entries.get_with(key, || fresh(None));
        };
        let entry = self.entries.entry(key).and_upsert_with(|found| {
            let found = found.map(moka::Entry::into_value);
            match found {
                Some(other) if !Arc::ptr_eq(&other, known) => other,
                _ => fresh(known.outcome.get().and_then(|outcome| outcome.yes.clone())),
            }
        });
        entry.into_value()
    }

    /// What the entry says, if that still counts.
    fn remembered(&self, entry: &Entry) -> Option<AuthResult> {
        let outcome = entry.outcome.get()?;
        (self.clock.now() < outcome.until).then(|| {
            self.metrics.auth(AuthOutcome::Hit);
            outcome.result.clone()
        })
    }

    async fn join(&self, entry: &Entry, ask: Ask<'_>) -> AuthResult {
        let outcome = entry.outcome.get_or_init(|| self.ask(entry, ask)).await;
        outcome.result.clone()
    }

    async fn ask(&self, entry: &Entry, ask: Ask<'_>) -> Outcome {
        let answer = self.inner.check(ask).await;
        let now = self.clock.now();
        let end = |identity: &Identity| self.end_of(identity, now);
        match answer {
            Ok(identity) => match end(&identity) {
                Some(end) if end <= now => self.refusal(AuthError::Expired, now),
                end => {
                    // Up to a tenth less, so that the streams of clients that
                    // came all at once do not all ask again at once.
                    let ttl = self.settings.ttl.mul_f64(1.0 - fastrand::f64() / 10.0);
                    let until = end.map_or(now + ttl, |end| end.min(now + ttl));
                    let identity = checked_until(&identity, until);
                    Outcome {
                        result: Ok(identity.clone()),
                        until,
                        yes: Some(Yes { identity, until }),
                    }
                }
            },
            Err(AuthError::Unavailable) => self.grace(entry.before.clone(), now),
            Err(error) => self.refusal(error, now),
        }
    }

    fn refusal(&self, error: AuthError, now: Instant) -> Outcome {
        Outcome {
            result: Err(error),
            until: now + self.settings.refusal_ttl,
            yes: None,
        }
    }

    /// Nobody could be asked: what was allowed stays so for a while.
    fn grace(&self, before: Option<Yes>, now: Instant) -> Outcome {
        if let Some(yes) = &before {
            let grace = yes.until + self.settings.stale;
            let end = self.end_of(&yes.identity, now);
            let grace = end.map_or(grace, |end| end.min(grace));
            if now < grace {
                let until = grace.min(now + GRACE_RECHECK);
                return Outcome {
                    result: Ok(checked_until(&yes.identity, until)),
                    until,
                    yes: before,
                };
            }
        }
        Outcome {
            result: Err(AuthError::Unavailable),
            until: now,
            yes: before,
        }
    }

    /// When the token expires, on the clock that does not run back.
    fn end_of(&self, identity: &Identity, now: Instant) -> Option<Instant> {
        let end = identity.expires_at?;
        let left = end.0.saturating_sub(self.clock.wall().0);
        // Too far away to be told from never.
        now.checked_add(Duration::from_micros(u64::try_from(left).unwrap_or(0)))
    }
}

fn checked_until(identity: &Identity, until: Instant) -> Arc<Identity> {
    Arc::new(Identity {
        recheck_at: Some(until),
        ..identity.clone()
    })
}

impl Authenticator for Cache {
    fn known(&self, ask: Ask<'_>) -> Option<AuthResult> {
        self.remembered(&*self.entries.get(&self.key(&ask))?)
    }

    fn check<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, AuthResult> {
        let key = self.key(&ask);
        let known = self.entries.get(&key);
        if let Some(result) = known.as_ref().and_then(|entry| self.remembered(entry)) {
            return Box::pin(ready(result));
        }
        self.metrics.auth(AuthOutcome::Miss);
        let entry = match known {
            // Somebody asks just now.
            Some(entry) if !entry.outcome.initialized() => entry,
            known => self.renew(key, known.as_ref()),
        };
        Box::pin(async move { self.join(&entry, ask).await })
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("inner", &self.inner)
            .field("settings", &self.settings)
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}
