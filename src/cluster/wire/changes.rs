//! What happens to messages, as nodes say it to each other.

use crate::{
    domain::{Attached, Change, Invalid, Refusal, Seq, Unfit},
    feed::About,
    proto::cluster::{self as wire, Kind, Reason},
};

/// What a post changes, and in which message.
pub fn change(change: Option<&Change>) -> (Kind, Seq) {
    match change {
        None | Some(Change::Attached(_) | Change::Edited { .. } | Change::Deleted) => {
            (Kind::Message, 0)
        }
        Some(Change::Edit { target }) => (Kind::Edit, *target),
        Some(Change::Deletion { target }) => (Kind::Deletion, *target),
        Some(Change::Reaction { target, removed }) => match removed {
            false => (Kind::Reaction, *target),
            true => (Kind::TakenBack, *target),
        },
    }
}

/// The same, read, with what a message carries; `None`: it is a plain message.
///
/// # Errors
/// If a later release says something that this one does not know.
pub fn read_change(
    kind: Kind,
    target: Seq,
    attached: Option<&[u8]>,
) -> Result<Option<Box<Change>>, Invalid> {
    let change = match kind {
        Kind::Message => match attached {
            None => return Ok(None),
            Some(attached) => Change::Attached(Attached::read(attached)?),
        },
        Kind::Edit => Change::Edit { target },
        Kind::Deletion => Change::Deletion { target },
        Kind::Reaction | Kind::TakenBack => Change::Reaction {
            target,
            removed: kind == Kind::TakenBack,
        },
        Kind::Other => return Err(Invalid::new("is of a kind that this release does not know")),
    };
    Ok(Some(Box::new(change)))
}

pub(super) fn about(about: About) -> (Kind, Seq) {
    match about {
        About::Message => (Kind::Message, 0),
        About::Edit(message) => (Kind::Edit, message),
        About::Deletion(message) => (Kind::Deletion, message),
        About::Other => (Kind::Other, 0),
    }
}

pub(super) fn read_about(kind: Kind, message: Seq) -> About {
    match kind {
        Kind::Message => About::Message,
        Kind::Edit => About::Edit(message),
        Kind::Deletion => About::Deletion(message),
        Kind::Reaction | Kind::TakenBack | Kind::Other => About::Other,
    }
}

pub(super) fn unfit(why: Unfit) -> wire::Refused {
    let (unfit, max) = match why {
        Unfit::Missing => (wire::Unfit::Missing, 0),
        Unfit::NoMessage => (wire::Unfit::NoMessage, 0),
        Unfit::Deleted => (wire::Unfit::Deleted, 0),
        Unfit::NotTheSender => (wire::Unfit::NotTheSender, 0),
        Unfit::NotYours => (wire::Unfit::NotYours, 0),
        Unfit::TooLate => (wire::Unfit::TooLate, 0),
        Unfit::TooManyEdits { max } => (wire::Unfit::TooManyEdits, max),
        Unfit::TooManyReactions { max } => (wire::Unfit::TooManyReactions, max),
        Unfit::TooManyOfYours { max } => (wire::Unfit::TooManyOfYours, max),
        Unfit::TooManyEmojis { max } => (wire::Unfit::TooManyEmojis, max),
        Unfit::NoReaction => (wire::Unfit::NoReaction, 0),
        Unfit::NothingToAnswer => (wire::Unfit::NothingToAnswer, 0),
    };
    wire::Refused {
        reason: Reason::Unfit.into(),
        unfit: unfit.into(),
        number: max as i64,
        ..wire::Refused::default()
    }
}

pub(super) fn read_unfit(refused: &wire::Refused) -> Refusal {
    let max = usize::try_from(refused.number).unwrap_or(0);
    Refusal::Unfit(match refused.unfit() {
        wire::Unfit::Missing => Unfit::Missing,
        wire::Unfit::NoMessage => Unfit::NoMessage,
        wire::Unfit::Deleted => Unfit::Deleted,
        wire::Unfit::NotTheSender => Unfit::NotTheSender,
        wire::Unfit::NotYours => Unfit::NotYours,
        wire::Unfit::TooLate => Unfit::TooLate,
        wire::Unfit::TooManyEdits => Unfit::TooManyEdits { max },
        wire::Unfit::TooManyReactions => Unfit::TooManyReactions { max },
        wire::Unfit::TooManyOfYours => Unfit::TooManyOfYours { max },
        wire::Unfit::TooManyEmojis => Unfit::TooManyEmojis { max },
        wire::Unfit::NoReaction => Unfit::NoReaction,
        wire::Unfit::NothingToAnswer => Unfit::NothingToAnswer,
        // Of a later release.
        wire::Unfit::Otherwise => return Refusal::Refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_as_it_was_told() {
        let target = 7;
        for told in [
            None,
            Attached::new(Some(7), b"1", "t", &[]).map(Change::Attached),
            Some(Change::Edit { target }),
            Some(Change::Deletion { target }),
            Some(Change::Reaction {
                target,
                removed: false,
            }),
            Some(Change::Reaction {
                target,
                removed: true,
            }),
        ] {
            let (kind, target) = change(told.as_ref());
            let attached = told.as_ref().and_then(Change::attached);
            let read = read_change(kind, target, attached.map(Attached::as_bytes));
            assert_eq!(read, Ok(told.clone().map(Box::new)));
        }
        assert!(read_change(Kind::Other, 7, None).is_err());
        assert!(read_change(Kind::Message, 0, Some(b"x")).is_err());
        for told in [
            About::Message,
            About::Edit(7),
            About::Deletion(7),
            About::Other,
        ] {
            let (kind, target) = about(told);
            assert_eq!(read_about(kind, target), told);
        }
    }
}
