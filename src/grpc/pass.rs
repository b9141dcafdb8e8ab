use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    auth::{Ask, Asker, AuthError, Authenticator, Identity, Token},
    domain::{Clock, Origin, Timestamp},
};

/// While nobody can be asked, this is how often it is tried.
const RETRY: Duration = Duration::from_secs(1);

/// What a caller showed to be let in, kept for as long as its stream lasts and
/// shown again when it may no longer count.
#[derive(Clone)]
pub struct Pass {
    auth: Arc<dyn Authenticator>,
    clock: Arc<dyn Clock>,
    token: Arc<str>,
    method: &'static str,
    from: Option<Origin>,
    expires_at: Option<Timestamp>,
    recheck_at: Instant,
    /// How long a stream may go on while nobody can be asked.
    patience: Duration,
    unanswered_since: Option<Instant>,
}

impl Pass {
    /// None if there is nothing to show again: what was said at the door counts
    /// for ever.
    pub fn new(
        auth: Arc<dyn Authenticator>,
        clock: Arc<dyn Clock>,
        token: Token<'_>,
        from: Option<Origin>,
        method: &'static str,
        identity: &Identity,
        patience: Duration,
    ) -> Option<Self> {
        let recheck_at = identity.recheck_at?;
        Some(Self {
            auth,
            clock,
            token: token.0.into(),
            method,
            from,
            expires_at: identity.expires_at,
            recheck_at,
            patience,
            unanswered_since: None,
        })
    }

    /// Shows it again if it is time to: what is to be done before each post.
    pub async fn hold(&mut self) -> Result<(), AuthError> {
        if self.clock.now() < self.recheck_at {
            return Ok(());
        }
        self.show().await
    }

    /// Shows it again whenever it is time to, until it no longer counts.
    pub async fn watch(mut self) -> AuthError {
        loop {
            tokio::time::sleep_until(self.recheck_at.into()).await;
            if let Err(error) = self.show().await {
                return error;
            }
        }
    }

    async fn show(&mut self) -> Result<(), AuthError> {
        if self.expires_at.is_some_and(|end| end <= self.clock.wall()) {
            return Err(AuthError::Expired);
        }
        let ask = Ask {
            token: Token(&self.token),
            method: self.method,
            trace: None,
            asker: Asker {
                from: self.from,
                is_known: true,
            },
        };
        let answer = self.auth.check(ask).await;
        let now = self.clock.now();
        match answer {
            Ok(identity) => {
                self.unanswered_since = None;
                self.recheck_at = identity.recheck_at.unwrap_or(now + RETRY);
                Ok(())
            }
            Err(AuthError::Unavailable) => {
                let since = *self.unanswered_since.get_or_insert(now);
                if now >= since + self.patience {
                    return Err(AuthError::Unavailable);
                }
                // Not all streams at once.
                self.recheck_at = now + RETRY.mul_f64(0.5 + fastrand::f64());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::DevAuth, runtime::SystemClock};

    /// A server has a hundred thousand of these: 100 bytes each are 10 MB.
    #[test]
    fn p6_an_idle_stream_stays_cheap() {
        let auth = Arc::new(DevAuth::default());
        let user = crate::domain::UserName::new("bob").unwrap();
        let mut identity = Identity {
            user,
            role: crate::auth::Role::User,
            expires_at: None,
            recheck_at: None,
        };
        let pass = |identity: &Identity| {
            let (auth, clock) = (auth.clone(), Arc::new(SystemClock));
            Pass::new(auth, clock, Token("bob"), None, "x", identity, RETRY)
        };
        assert!(pass(&identity).is_none(), "nothing to watch costs nothing");
        identity.recheck_at = Some(Instant::now());
        let watch = pass(&identity).unwrap().watch();
        let bytes = size_of_val(&watch);
        println!("a watch has {bytes} bytes, a pass {}", size_of::<Pass>());
        assert!(bytes <= 512, "{bytes}");
    }
}
