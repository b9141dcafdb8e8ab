/// What clients may have only so much of. A stable reason each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Connections,
    UserStreams,
    UserSends,
    UserChanges,
    UserReads,
    Inflight,
    /// Health, reflection and logins, which need no token.
    OpenCalls,
    /// Of HTTP/2, those that cost more than they bring.
    Frames,
}

impl Limit {
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::UserStreams,
        Self::UserSends,
        Self::UserChanges,
        Self::UserReads,
        Self::Inflight,
        Self::OpenCalls,
        Self::Frames,
    ];

    pub fn reason(self) -> &'static str {
        match self {
            Self::Connections => "TOO_MANY_CONNECTIONS",
            Self::UserStreams => "TOO_MANY_STREAMS",
            Self::UserSends => "TOO_MANY_SENDS",
            Self::UserChanges => "TOO_MANY_CHANGES",
            Self::UserReads => "TOO_MANY_READS",
            Self::Inflight => "TOO_MANY_CALLS",
            Self::OpenCalls => "TOO_MANY_OPEN_CALLS",
            Self::Frames => "TOO_MANY_FRAMES",
        }
    }

    /// In the words of a message.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Connections => "connections open at a time",
            Self::UserStreams => "streams of one user open at a time",
            Self::UserSends => "messages of one user a second",
            Self::UserChanges => "changes of chats by one user a second",
            Self::UserReads => "reads of one user a second",
            Self::Inflight => "calls being answered at a time",
            Self::OpenCalls => "calls without a token open at a time",
            Self::Frames => "SETTINGS, GOAWAY or PING frames of a connection",
        }
    }
}
