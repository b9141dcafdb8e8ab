use std::{collections::HashMap, time::Duration};

use http::{HeaderMap, HeaderName};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{limit::Limit, measure::Ended};
use crate::{
    auth::AuthError,
    chats::End,
    domain::{ChatError, Invalid, Refusal, Unfit},
    proto,
    store::StoreError,
};

/// Ends every call, in its trailers or in headers without a body.
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "chat.v1";

/// When to try again after a refusal for want of room …
const RETRY_BUSY: Duration = Duration::from_millis(100);
/// … and after one for want of the store or another peer.
const RETRY_AWAY: Duration = Duration::from_secs(1);

/// An error as a client sees it: in a `Status` with its details, or a `Rejected` frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    /// Stable; part of the contract.
    reason: &'static str,
    message: String,
    field: Option<&'static str>,
    retry: Option<Duration>,
    metadata: Option<(&'static str, String)>,
}

impl Problem {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            field: None,
            retry: None,
            metadata: None,
        }
    }

    fn on(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }

    fn retry(self, after: Duration) -> Self {
        Self {
            retry: Some(after),
            ..self
        }
    }

    pub fn invalid(field: &'static str, why: &Invalid) -> Self {
        Self::new(
            Code::InvalidArgument,
            "INVALID_FIELD",
            format!("{field}: {why}"),
        )
        .on(field)
    }

    /// `field` names somebody other than the token's user.
    pub fn not_yourself(field: &'static str) -> Self {
        let message = format!("{field}: must be empty or the name of the token's user");
        Self::new(Code::PermissionDenied, "NOT_YOURSELF", message).on(field)
    }

    /// `field` names whom the caller may not make a member (`--who-may-add`).
    pub fn may_not_add(field: &'static str, why: &str) -> Self {
        let message = format!("{field}: {why}");
        Self::new(Code::PermissionDenied, "MAY_NOT_ADD", message).on(field)
    }

    pub fn malformed(why: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, "MALFORMED_MESSAGE", why)
    }

    pub fn too_large(max: usize) -> Self {
        let message = format!("a message may have at most {max} bytes");
        Self::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message)
    }

    pub fn headers_too_large(max: usize) -> Self {
        let message = format!("the metadata of a call may have at most {max} bytes");
        Self::new(Code::ResourceExhausted, "HEADERS_TOO_LARGE", message)
    }

    /// As gRPC has it in "Compression": the flag alone says nothing.
    pub fn flag_without_encoding() -> Self {
        let message = "a message is compressed, and grpc-encoding does not say how";
        Self::new(Code::Internal, "MALFORMED_MESSAGE", message)
    }

    pub fn compressed() -> Self {
        let message = "grpc-encoding: of compressed messages only those in gzip are read";
        Self::new(Code::Unimplemented, "COMPRESSED_MESSAGE", message)
    }

    /// Whoever has made so many chats has to delete one first.
    pub fn too_many_chats(max: usize) -> Self {
        let message = format!("a user may have made {max} chats at most");
        Self::new(Code::ResourceExhausted, "TOO_MANY_CHATS", message)
    }

    pub fn no_such_method() -> Self {
        Self::new(Code::Unimplemented, "NO_SUCH_METHOD", "no such method")
    }

    /// A page calls whose origin is not allowed to.
    pub fn foreign_page() -> Self {
        let message = "origin: pages from there may not call; see --cors-origins";
        Self::new(Code::PermissionDenied, "ORIGIN_NOT_ALLOWED", message)
    }

    pub fn too_slow(what: &str) -> Self {
        let message = format!("{what} did not come in time");
        Self::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", message)
    }

    pub fn draining() -> Self {
        let message = "the server is shutting down";
        Self::new(Code::Unavailable, "SHUTTING_DOWN", message).retry(RETRY_BUSY)
    }

    pub fn no_token() -> Self {
        let message = "metadata authorization: must be \"Bearer <token>\", once";
        Self::new(Code::Unauthenticated, "TOKEN_MISSING", message)
    }

    /// Over one of the limits on what clients may have.
    pub fn over(limit: Limit, retry: Duration) -> Self {
        let what = limit.what();
        let message = format!("over the limit: {what}");
        Self::new(Code::ResourceExhausted, limit.reason(), message).retry(retry)
    }

    /// Answers that were asked for before are in the way.
    pub fn untaken() -> Self {
        busy("answers that have not been read")
    }

    /// Requests that have begun before, and whose rest is waited for, are in the way.
    pub fn not_whole() -> Self {
        busy("requests that have begun and are not whole")
    }

    /// What a call that ends so is counted as.
    pub fn ended(&self) -> Ended {
        Ended {
            code: self.code as i32,
            reason: self.reason,
        }
    }

    pub fn to_status(&self) -> Status {
        let mut details = ErrorDetails::new();
        if let Some(field) = self.field {
            details.add_bad_request_violation(field, &self.message);
        }
        if let Some(retry) = self.retry {
            details.set_retry_info(Some(retry));
        }
        let metadata: HashMap<String, String> = self
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        details.set_error_info(self.reason, DOMAIN, metadata);
        Status::with_error_details(self.code, &self.message, details)
    }

    /// Adds the status to the headers or trailers of a response.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        // Our own texts are valid header values once percent-encoded, which
        // tonic does; if ever one is not, the code alone goes out.
        if self.to_status().add_header(headers).is_err() {
            headers.insert(GRPC_STATUS.clone(), (self.code as i32).into());
        }
    }

    pub fn to_rejected(&self) -> proto::Rejected {
        proto::Rejected {
            code: self.code as i32,
            reason: self.reason.into(),
            retry_delay: self.retry.map(|delay| prost_types::Duration {
                seconds: delay.as_secs() as i64,
                nanos: delay.subsec_nanos() as i32,
            }),
            message: self.message.clone(),
            seq: 0,
        }
    }
}

/// A post on a stream that had been stored before.
pub fn duplicate(seq: i64) -> proto::Rejected {
    let message = "a message with this client_message_id is stored already";
    proto::Rejected {
        seq,
        ..Problem::new(Code::AlreadyExists, "DUPLICATE", message).to_rejected()
    }
}

const NOT_MEMBER: &str = "not a member of the chat, or no such chat";
const NO_STORE: &str = "the store is unavailable";

fn not_member() -> Problem {
    Problem::new(Code::PermissionDenied, "NOT_A_MEMBER", NOT_MEMBER)
}

fn no_store() -> Problem {
    Problem::new(Code::Unavailable, "STORE_UNAVAILABLE", NO_STORE).retry(RETRY_AWAY)
}

fn lost() -> Problem {
    let message = "the store has lost the chat's newest messages; read on from what is there";
    Problem::new(Code::Unavailable, "MESSAGES_LOST", message).retry(RETRY_AWAY)
}

fn busy(queue: &str) -> Problem {
    let message = format!("overloaded, no room in the queue: {queue}");
    Problem::new(Code::ResourceExhausted, "OVERLOADED", message).retry(RETRY_BUSY)
}

fn unknown(what_then: &str) -> Problem {
    let message = format!("the outcome is not known; {what_then}");
    Problem::new(Code::Unavailable, "OUTCOME_UNKNOWN", message).retry(RETRY_AWAY)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid { field, why } => Self::invalid(field, &why),
            Refusal::NotMember => not_member(),
            Refusal::Busy { queue } => busy(queue),
            Refusal::TooFast { retry } => Self::over(Limit::UserSends, retry),
            Refusal::Expired => {
                let message = "not stored within the deadline";
                Self::new(Code::Unavailable, "NOT_STORED_IN_TIME", message).retry(RETRY_AWAY)
            }
            Refusal::OutcomeUnknown => unknown("try again, with the same client_message_id"),
            Refusal::Refused => {
                let message = "message: the store cannot hold it";
                Self::new(Code::InvalidArgument, "MESSAGE_REFUSED", message).on("message")
            }
            Refusal::Draining => Self::draining(),
            Refusal::Unavailable => no_store(),
            Refusal::Lost => lost(),
            Refusal::Unfit(why) => why.into(),
        }
    }
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        let (code, reason) = match unfit {
            Unfit::Missing | Unfit::NothingToAnswer => (Code::NotFound, "MESSAGE_NOT_FOUND"),
            Unfit::NoMessage => (Code::FailedPrecondition, "NOT_A_MESSAGE"),
            Unfit::Deleted => (Code::FailedPrecondition, "MESSAGE_DELETED"),
            Unfit::NotTheSender => (Code::PermissionDenied, "NOT_THE_SENDER"),
            Unfit::NotYours => (Code::PermissionDenied, "MAY_NOT_DELETE"),
            Unfit::TooLate => (Code::FailedPrecondition, "EDIT_WINDOW_OVER"),
            Unfit::TooManyEdits { .. } => (Code::FailedPrecondition, "TOO_MANY_EDITS"),
            Unfit::TooManyReactions { .. }
            | Unfit::TooManyOfYours { .. }
            | Unfit::TooManyEmojis { .. } => (Code::FailedPrecondition, "TOO_MANY_REACTIONS"),
            Unfit::NoReaction => (Code::NotFound, "NO_SUCH_REACTION"),
        };
        Self::new(code, reason, format!("{}: {unfit}", unfit.field())).on(unfit.field())
    }
}

impl From<ChatError> for Problem {
    fn from(error: ChatError) -> Self {
        let message = error.to_string();
        match error {
            ChatError::NotMember => not_member(),
            ChatError::NotFound => Self::new(Code::NotFound, "CHAT_NOT_FOUND", message),
            ChatError::NotCreator => Self::new(Code::PermissionDenied, "NOT_THE_CREATOR", message),
            ChatError::TooManyMembers { .. } => {
                Self::new(Code::FailedPrecondition, "TOO_MANY_MEMBERS", message).on("usernames")
            }
            ChatError::AheadOfChat { last_seq } => Self {
                metadata: Some(("last_seq", last_seq.to_string())),
                ..Self::new(Code::OutOfRange, "AFTER_SEQ_AHEAD", message).on("after_seq")
            },
            ChatError::Busy { queue } => busy(queue),
            ChatError::Unavailable => no_store(),
            ChatError::Draining | ChatError::Moved => Self::draining(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_)
            | StoreError::Conflict
            | StoreError::Locked(_)
            | StoreError::Replaced
            | StoreError::Stale => no_store(),
            StoreError::OutcomeUnknown(_) => {
                unknown("look whether it has been done before it is tried again")
            }
            StoreError::Refused(_) => {
                let message = "the store cannot hold this";
                Self::new(Code::InvalidArgument, "REQUEST_REFUSED", message)
            }
        }
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::Invalid(_) => Self::new(Code::Unauthenticated, "TOKEN_INVALID", message),
            AuthError::Expired => Self::new(Code::Unauthenticated, "TOKEN_EXPIRED", message),
            AuthError::Denied => Self::new(Code::PermissionDenied, "NOT_ALLOWED", message),
            AuthError::Unavailable => {
                Self::new(Code::Unavailable, "AUTH_UNAVAILABLE", message).retry(RETRY_AWAY)
            }
        }
    }
}

impl From<End> for Problem {
    fn from(end: End) -> Self {
        match end {
            End::Deleted => Self::new(Code::NotFound, "CHAT_DELETED", "the chat was deleted"),
            End::Removed => not_member(),
            End::Draining => Self::draining(),
            End::Lost => lost(),
            End::Misused => Self::malformed("a frame can't be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_a_status_names_the_field_and_the_reason() {
        let why = UserNameRule::broken();
        let status = Problem::invalid("usernames[1]", &why).to_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "usernames[1]");
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_FIELD", DOMAIN)
        );
    }

    struct UserNameRule;
    impl UserNameRule {
        fn broken() -> Invalid {
            crate::domain::UserName::new("").unwrap_err()
        }
    }

    #[test]
    fn p6_overload_says_when_to_try_again() {
        let status = Problem::from(Refusal::Busy { queue: "mailbox" }).to_status();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.get_error_details().retry_info().unwrap().retry_delay,
            Some(RETRY_BUSY)
        );
    }

    #[test]
    fn p7_a_missing_chat_looks_like_one_of_others() {
        let refusal = Problem::from(Refusal::NotMember);
        assert_eq!(refusal, Problem::from(ChatError::NotMember));
    }
}
