//! What the Auth Service's answers mean, also those that are none.

use tonic::{Code, Status};

use super::{AuthError, breaker::Outcome};
use crate::telemetry::log_limited;

/// What an error says: no, or nothing. The text of a peer is never passed on,
/// nor logged: it may quote the token.
pub(super) fn meaning(status: &Status) -> AuthError {
    let refused = AuthError::Invalid("the Auth Service refuses it");
    let code = status.code();
    let error = match code {
        // tonic makes a status of a broken connection and of an HTTP error too.
        _ if std::error::Error::source(status).is_some() || no_grpc(status).is_some() => {
            AuthError::Unavailable
        }
        Code::Unauthenticated => refused,
        Code::PermissionDenied => AuthError::Denied,
        // What a Go server makes of any error that is not a status: this is how
        // existing peers refuse, in words alone.
        Code::Unknown => {
            let text = status.message().to_ascii_lowercase();
            if ["denied", "forbidden", "not allowed"]
                .iter()
                .any(|word| text.contains(word))
            {
                AuthError::Denied
            } else {
                refused
            }
        }
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => AuthError::Unavailable,
    };
    if error == AuthError::Unavailable {
        log_limited!(DEBUG, ?code, "the Auth Service could not be asked");
    }
    error
}

/// What an error says about the peer.
pub(super) fn outcome(status: &Status) -> Outcome {
    match is_away(status) {
        true if is_late(status) => Outcome::Late,
        true => Outcome::Away,
        false => Outcome::Answered,
    }
}

/// Whether an error says something about the peer, and not about the one token
/// that it was asked about: an answer to a token, whatever it is, is no reason to
/// ask about no other. Otherwise a few bad tokens would close the door for all.
fn is_away(status: &Status) -> bool {
    if let Some(cause) = std::error::Error::source(status) {
        return !is_reset_by_peer(cause);
    }
    if let Some(broken) = no_grpc(status) {
        // What a proxy says of a request that it does not like is 4xx.
        return !matches!(broken, NoGrpc::Http(400..500));
    }
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
    )
}

/// Whether a check was not answered in time, by the call's own clock or the peer's.
fn is_late(status: &Status) -> bool {
    matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
}

/// Whether the peer has taken back the call's own stream, as one does that finds a
/// header too large: its connection goes on, and other calls with it.
fn is_reset_by_peer(cause: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(cause), |cause| cause.source()).any(|cause| {
        let error = cause.downcast_ref::<h2::Error>();
        error.is_some_and(|error| error.is_reset() && error.is_remote())
    })
}

/// An answer that is none of gRPC's.
enum NoGrpc {
    /// Some proxy's, with this HTTP status.
    Http(u16),
    /// It ended before it said how the call went.
    CutOff,
}

/// What was wrong with an answer that was not gRPC: tonic says so only in words.
fn no_grpc(status: &Status) -> Option<NoGrpc> {
    let text = status.message();
    if text.starts_with("protocol error: missing grpc-status trailer") {
        return Some(NoGrpc::CutOff);
    }
    let http = match text.strip_prefix("grpc-status header missing, mapped from HTTP status code ")
    {
        Some(http) => http,
        // A page, whose first letter is taken for a frame's.
        None if text.starts_with("protocol error: received message with invalid compression") => {
            text.split_once("with status: ")?.1
        }
        None => return None,
    };
    let code = http.split(' ').next().unwrap_or_default();
    Some(NoGrpc::Http(code.parse().unwrap_or_default()))
}
