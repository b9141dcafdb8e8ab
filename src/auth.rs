//! Who is calling: a token becomes an [`Identity`], or a refusal.
//!
//! Called by `grpc` for every call, and again for every stream as long as it is
//! open. Invariants:
//! 1. An identity comes from the token alone (P7).
//! 2. A refusal and a failure to ask are told apart; a failure lets nobody in
//!    and is never remembered as a refusal.
//! 3. No token is ever logged, kept in the cache or shown by `Debug`.

mod answers;
mod breaker;
mod cache;
mod claims;
mod compact;
mod crypto;
mod dev;
mod jwt;
mod keys;
mod logins;
mod one_answer;
mod secret;
mod service;
mod shares;

use std::{fmt, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;

use crate::domain::{Origin, Timestamp, UserName};

pub(crate) use crypto::install as install_crypto;
pub(crate) use secret::check as check_secret;

pub use cache::{Cache, CacheSettings};
pub use dev::DevAuth;
pub use jwt::{JwtAuth, JwtSettings};
pub use keys::{KeyError, KeyFile};
pub use logins::Logins;
pub use service::{AccessClient, AccessError, AccessSettings};

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: UserName,
    pub role: Role,
    /// The token is worth nothing from then on; `None`: it does not expire.
    pub expires_at: Option<Timestamp>,
    /// What goes on for longer is to ask again then; `None`: there is nothing
    /// that could have changed.
    pub recheck_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    User,
    /// May see and change every chat.
    Admin,
}

/// A bearer token, as it came.
#[derive(Clone, Copy)]
pub struct Token<'a>(pub &'a str);

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What is to be checked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub token: Token<'a>,
    /// `/package.Service/Method`.
    pub method: &'a str,
    /// The caller's `traceparent`, for whoever else has to be asked.
    pub trace: Option<&'a str>,
    pub asker: Asker,
}

/// On whose behalf a token is checked, where there is room for few checks at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Asker {
    /// Where the connection comes from; `None`: from nobody outside.
    pub from: Option<Origin>,
    /// The connection has shown an accepted token before.
    pub is_known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token is no good.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The token was good once.
    #[error("the token has expired")]
    Expired,
    /// The token is good, but not for this call.
    #[error("the token does not allow this call")]
    Denied,
    /// Nobody could be asked.
    #[error("the token could not be checked")]
    Unavailable,
}

pub type AuthResult = Result<Arc<Identity>, AuthError>;

/// A way to check tokens.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// What can be said of a token without asking anybody, as of most there can;
    /// `None` if somebody is to be asked.
    fn known(&self, ask: Ask<'_>) -> Option<AuthResult>;

    /// Checks a token, by asking if it must.
    fn check<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, AuthResult>;
}
