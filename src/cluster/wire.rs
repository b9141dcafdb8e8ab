//! Between what nodes say to each other ([`crate::proto::cluster`]) and what it means.

mod changes;

use crate::{
    domain::{
        Caller, ChatError, ChatId, ClientMessageId, Frame, Invalid, PostResult, Receipt, Refusal,
        Timestamp, UserName,
    },
    feed::{End, Entry, Item},
    proto::cluster::{self as wire, Reason, item::Item as Said},
    store::ChatRecord,
};

pub use changes::{change, read_change};

/// What a queue on another node is called here, whichever it is.
const QUEUE: &str = "queue of the chat's node";

pub fn item(item: Said) -> wire::Item {
    wire::Item { item: Some(item) }
}

fn reason(reason: Reason) -> wire::Refused {
    wire::Refused {
        reason: reason.into(),
        ..wire::Refused::default()
    }
}

/// What became of a post.
pub fn outcome(ask: u64, result: PostResult) -> Said {
    use wire::outcome::Outcome;
    let outcome = match result {
        Ok(receipt) => Outcome::Stored(wire::Receipt {
            seq: receipt.seq,
            created_at: receipt.created_at.0,
            duplicate: receipt.duplicate,
        }),
        Err(refusal) => Outcome::Refused(refused(refusal)),
    };
    Said::Outcome(wire::Outcome {
        ask,
        outcome: Some(outcome),
    })
}

/// The same, read; `None` if the post is to be sent elsewhere.
pub fn read_outcome(outcome: wire::Outcome) -> Option<PostResult> {
    use wire::outcome::Outcome;
    match outcome.outcome {
        Some(Outcome::Stored(receipt)) => Some(Ok(Receipt {
            seq: receipt.seq,
            created_at: Timestamp(receipt.created_at),
            duplicate: receipt.duplicate,
        })),
        Some(Outcome::Refused(refused)) => read_refusal(refused).map(Err),
        // Of a later release: whatever it says, it is not known here.
        None => Some(Err(Refusal::OutcomeUnknown)),
    }
}

fn refused(refusal: Refusal) -> wire::Refused {
    match refusal {
        Refusal::Invalid { field, why } => wire::Refused {
            why: why.to_string(),
            field: field.to_owned(),
            ..reason(Reason::Invalid)
        },
        Refusal::NotMember => reason(Reason::NotMember),
        Refusal::Busy { .. } | Refusal::TooFast { .. } => reason(Reason::Busy),
        Refusal::Expired => reason(Reason::Expired),
        Refusal::OutcomeUnknown => reason(Reason::OutcomeUnknown),
        Refusal::Refused => reason(Reason::Refused),
        Refusal::Draining => reason(Reason::Moved),
        Refusal::Unavailable => reason(Reason::Unavailable),
        Refusal::Lost => reason(Reason::Lost),
        Refusal::Unfit(why) => changes::unfit(why),
    }
}

fn read_refusal(refused: wire::Refused) -> Option<Refusal> {
    Some(match refused.reason() {
        Reason::Moved => return None,
        Reason::NotMember | Reason::NotFound | Reason::NotCreator => Refusal::NotMember,
        Reason::Busy | Reason::TooManyMembers => Refusal::Busy { queue: QUEUE },
        Reason::Expired => Refusal::Expired,
        Reason::Refused => Refusal::Refused,
        Reason::Unavailable | Reason::AheadOfChat => Refusal::Unavailable,
        Reason::Lost => Refusal::Lost,
        Reason::Invalid => Refusal::Invalid {
            field: match &*refused.field {
                "client_message_id" => "client_message_id",
                _ => "text",
            },
            why: Invalid::new(refused.why),
        },
        Reason::Unfit => changes::read_unfit(&refused),
        Reason::Unknown | Reason::OutcomeUnknown => Refusal::OutcomeUnknown,
    })
}

/// Why a call was refused.
pub fn error(error: ChatError) -> wire::Refused {
    let numbered = |why, number| wire::Refused {
        number,
        ..reason(why)
    };
    match error {
        ChatError::NotMember => reason(Reason::NotMember),
        ChatError::NotFound => reason(Reason::NotFound),
        ChatError::NotCreator => reason(Reason::NotCreator),
        ChatError::TooManyMembers { max } => numbered(Reason::TooManyMembers, max as i64),
        ChatError::AheadOfChat { last_seq } => numbered(Reason::AheadOfChat, last_seq),
        ChatError::Busy { .. } => reason(Reason::Busy),
        ChatError::Unavailable => reason(Reason::Unavailable),
        ChatError::Draining | ChatError::Moved => reason(Reason::Moved),
    }
}

pub fn read_error(refused: &wire::Refused) -> ChatError {
    match refused.reason() {
        Reason::Moved => ChatError::Moved,
        Reason::NotMember => ChatError::NotMember,
        Reason::NotFound => ChatError::NotFound,
        Reason::NotCreator => ChatError::NotCreator,
        Reason::TooManyMembers => ChatError::TooManyMembers {
            max: usize::try_from(refused.number).unwrap_or(usize::MAX),
        },
        Reason::AheadOfChat => ChatError::AheadOfChat {
            last_seq: refused.number,
        },
        Reason::Busy => ChatError::Busy { queue: QUEUE },
        _ => ChatError::Unavailable,
    }
}

pub fn described(record: ChatRecord, count: usize) -> wire::Described {
    wire::Described {
        id: record.id.get(),
        created_by: record.created_by.to_string(),
        created_at: record.created_at.0,
        members: record.members.iter().map(ToString::to_string).collect(),
        last_seq: record.last_seq,
        count: count as u64,
    }
}

pub fn read_described(described: wire::Described) -> Result<(ChatRecord, usize), Invalid> {
    let members: Vec<UserName> = users(&described.members);
    let record = ChatRecord {
        id: ChatId::new(described.id)?,
        created_by: UserName::new(&described.created_by)?,
        created_at: Timestamp(described.created_at),
        member_count: members.len(),
        members,
        last_seq: described.last_seq,
    };
    Ok((record, described.count as usize))
}

/// Names that another node has checked; one that this release would not take is left
/// out.
pub fn users<'n, N: FromIterator<UserName>>(names: impl IntoIterator<Item = &'n String>) -> N {
    let read = names
        .into_iter()
        .filter_map(|name| UserName::new(name).ok());
    read.collect()
}

pub fn names<'n>(users: impl IntoIterator<Item = &'n UserName>) -> Vec<String> {
    users.into_iter().map(ToString::to_string).collect()
}

pub fn caller(user: &str, admin: bool) -> Result<Caller, Invalid> {
    let user = UserName::new(user)?;
    Ok(Caller { user, admin })
}

pub fn entry(item: &Item) -> wire::Entry {
    let (frame, from, id) = item.entry.parts();
    let (kind, target) = changes::about(item.about);
    wire::Entry {
        frame: frame.clone(),
        from: from.to_string(),
        client_message_id: id.map(|id| id.to_string()),
        kind: kind.into(),
        target,
    }
}

pub fn read_entry(entry: wire::Entry) -> Result<Item, Invalid> {
    let id = entry.client_message_id.as_deref().unwrap_or_default();
    let about = changes::read_about(entry.kind(), entry.target);
    let entry = Entry::from_parts(
        Frame::from_bytes(entry.frame)?,
        UserName::new(&entry.from)?,
        ClientMessageId::from_wire(id)?,
    );
    Ok(Item { entry, about })
}

/// An end that is to be told to nodes that follow the chat. A drain is not: the chat
/// goes on elsewhere.
pub fn ended(chat: ChatId, end: End) -> Option<Said> {
    let end = match end {
        End::Deleted => wire::ended::End::Deleted,
        End::Lost => wire::ended::End::Lost,
        End::Removed | End::Draining | End::Misused => return None,
    };
    Some(Said::Ended(wire::Ended {
        chat: chat.get(),
        end: end.into(),
    }))
}

pub fn read_end(ended: &wire::Ended) -> End {
    match ended.end() {
        wire::ended::End::Deleted => End::Deleted,
        wire::ended::End::Lost => End::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::Unfit;
    use crate::testing::{chat_id, row, user};

    #[test]
    fn what_becomes_of_a_post_is_read_as_it_was_told() {
        let why = || Invalid::new("names another message");
        let field = "client_message_id";
        let told = [
            Ok(Receipt {
                seq: 7,
                created_at: Timestamp(1_700_000_000_000_000),
                duplicate: true,
            }),
            Err(Refusal::Invalid { field, why: why() }),
            Err(Refusal::NotMember),
            Err(Refusal::Busy { queue: QUEUE }),
            Err(Refusal::Expired),
            Err(Refusal::OutcomeUnknown),
            Err(Refusal::Refused),
            Err(Refusal::Unavailable),
            Err(Refusal::Lost),
            Err(Refusal::Unfit(Unfit::Deleted)),
            Err(Refusal::Unfit(Unfit::TooManyReactions { max: 7 })),
        ];
        for result in told {
            let Said::Outcome(sent) = outcome(3, result.clone()) else {
                panic!("another item");
            };
            assert_eq!(sent.ask, 3);
            assert_eq!(read_outcome(sent), Some(result));
        }
        // A node that stops has not stored it: it is to be asked elsewhere.
        let Said::Outcome(sent) = outcome(3, Err(Refusal::Draining)) else {
            panic!("another item");
        };
        assert_eq!(read_outcome(sent), None);
        let retry = Duration::from_secs(1);
        let Said::Outcome(sent) = outcome(3, Err(Refusal::TooFast { retry })) else {
            panic!("another item");
        };
        let busy = Refusal::Busy { queue: QUEUE };
        assert_eq!(read_outcome(sent), Some(Err(busy)));
        // Of a later release.
        let unknown = wire::Outcome::default();
        let result = Some(Err(Refusal::OutcomeUnknown));
        assert_eq!(read_outcome(unknown), result);
    }

    #[test]
    fn why_a_call_was_refused_is_read_as_it_was_told() {
        for told in [
            ChatError::NotMember,
            ChatError::NotFound,
            ChatError::NotCreator,
            ChatError::TooManyMembers { max: 1_000 },
            ChatError::AheadOfChat { last_seq: 42 },
            ChatError::Busy { queue: QUEUE },
            ChatError::Unavailable,
            ChatError::Moved,
        ] {
            assert_eq!(read_error(&error(told)), told);
        }
        assert_eq!(read_error(&error(ChatError::Draining)), ChatError::Moved);
        let later = wire::Refused {
            reason: 1_000,
            ..wire::Refused::default()
        };
        assert_eq!(read_error(&later), ChatError::Unavailable);
    }

    #[test]
    fn a_message_is_the_same_on_another_node() {
        let mut row = row(chat_id(5), 9, "alice", "hello");
        row.client_message_id = ClientMessageId::from_wire("k").unwrap();
        let ours = Item::new(&row);
        let theirs = read_entry(entry(&ours)).unwrap();
        for viewer in [user("alice"), user("bob")] {
            let (ours, theirs) = (&ours.entry, &theirs.entry);
            assert_eq!(theirs.frame_for(&viewer), ours.frame_for(&viewer));
        }
        let mut broken = entry(&ours);
        broken.frame.truncate(20);
        assert!(read_entry(broken).is_err());
    }

    #[test]
    fn a_chat_is_the_same_on_another_node() {
        let record = ChatRecord {
            id: chat_id(5),
            created_by: user("alice"),
            created_at: Timestamp(12),
            members: vec![user("alice"), user("bob")],
            member_count: 2,
            last_seq: 3,
        };
        let read = read_described(described(record.clone(), 4));
        assert_eq!(read, Ok((record, 4)));
    }
}
