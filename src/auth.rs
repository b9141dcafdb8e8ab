//! Who is calling: a token becomes an [`Identity`], or a refusal.
//!
//! Called by `grpc` for every call. Invariants:
//! 1. An identity comes from the token alone (P7).
//! 2. A refusal and a failure to ask are told apart.
//! 3. No token is ever logged or shown by `Debug`.

mod dev;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use crate::domain::{Timestamp, UserName};

pub use dev::DevAuth;

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: UserName,
    pub role: Role,
    /// The token is worth nothing from then on; `None`: it does not expire.
    pub expires_at: Option<Timestamp>,
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

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The token is no good.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The token is good, but not for this call.
    #[error("the token does not allow this call")]
    Denied,
    /// Nobody could be asked.
    #[error("the token could not be checked")]
    Unavailable,
}

pub type AuthResult = Result<Arc<Identity>, AuthError>;

/// The answer to a check: often there is nothing to wait for.
pub enum Checked<'a> {
    Now(AuthResult),
    Later(Pin<Box<dyn Future<Output = AuthResult> + Send + 'a>>),
}

/// A way to check tokens.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Checks a token for a call of `method`, `/package.Service/Method`.
    fn check<'a>(&'a self, token: Token<'a>, method: &'a str) -> Checked<'a>;
}
