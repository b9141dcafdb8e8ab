use std::num::NonZero;

use super::{Change, ChatId, ClientMessageId, Invalid, Posted, UserName, visible::has_visible};

/// An entry's place in its chat: 1, 2, 3 … without holes. 0 stands for "before
/// the first".
pub type Seq = i64;

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Whole seconds and the nanoseconds beyond them, as protobuf's
    /// `Timestamp` wants them: the nanoseconds are never negative.
    pub fn to_parts(self) -> (i64, i32) {
        let nanos = self.0.rem_euclid(1_000_000) * 1_000;
        (self.0.div_euclid(1_000_000), nanos as i32)
    }
}

/// The server's own random id of a row. With it, a writer that lost the answer
/// to a COMMIT can tell its own row from another writer's under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(pub i64);

impl MessageId {
    /// A new one, which is never 0.
    pub fn random() -> Self {
        match fastrand::i64(..) {
            0 => Self(1),
            id => Self(id),
        }
    }
}

/// A [`MessageId`] other than 0, so that a missing one takes no room of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenId(NonZero<i64>);

impl GivenId {
    pub fn of(id: MessageId) -> Option<Self> {
        NonZero::new(id.0).map(Self)
    }
}

impl From<GivenId> for MessageId {
    fn from(id: GivenId) -> Self {
        Self(id.0.get())
    }
}

/// What a client wants to say, or to change in what was said, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub text: Box<str>,
    pub client_message_id: Option<ClientMessageId>,
    /// `None`: a message.
    pub change: Option<Box<Change>>,
    /// Whoever wants it is an admin, and may do so in every chat. Messages are posted by
    /// members alone, so of a message this is never said.
    pub admin: bool,
}

impl Draft {
    /// A message.
    pub fn message(text: impl Into<Box<str>>, id: Option<ClientMessageId>) -> Self {
        Self {
            text: text.into(),
            client_message_id: id,
            change: None,
            admin: false,
        }
    }

    /// The message that it changes.
    #[inline]
    pub fn target(&self) -> Option<Seq> {
        self.change.as_ref()?.target()
    }

    /// The message that it changes or answers.
    #[inline]
    pub fn refers_to(&self) -> Option<Seq> {
        self.change.as_ref()?.refers_to()
    }

    pub fn posted(&self) -> Posted<'_> {
        Posted::of(self.change.as_deref())
    }

    /// Checks a text: 1 to `max_chars` Unicode scalar values, no NUL, which
    /// PostgreSQL cannot hold.
    ///
    /// # Errors
    /// If the text breaks one of these rules.
    pub fn check_text(text: &str, max_chars: usize) -> Result<(), Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("must not be empty"));
        }
        // Counting is only needed where the bytes could exceed the bound.
        if text.len() > max_chars && text.chars().count() > max_chars {
            return Err(Invalid::new(format!(
                "must be at most {max_chars} characters long"
            )));
        }
        if text.as_bytes().contains(&0) {
            return Err(Invalid::new("must not contain the NUL character"));
        }
        if !has_visible(text) {
            return Err(Invalid::new("must contain a visible character"));
        }
        Ok(())
    }

    /// What the row made of it will weigh.
    pub fn weight(&self) -> usize {
        size_of::<Row>() + self.text.len() + extra(self.change.as_deref())
    }
}

/// An entry in its place, a message mostly: what the store keeps and what readers see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub chat: ChatId,
    pub seq: Seq,
    pub id: MessageId,
    pub from: UserName,
    pub text: Box<str>,
    pub client_message_id: Option<ClientMessageId>,
    /// Never running back within a chat.
    pub created_at: Timestamp,
    /// How many messages there are in the chat up to here. Of a database from before
    /// there was anything but messages it is the seq.
    pub number: Seq,
    /// `None`: a message that is as it was posted.
    pub change: Option<Box<Change>>,
}

impl Row {
    /// About what the row weighs in a queue or a batch, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.text.len() + extra(self.change.as_deref())
    }

    /// Whether it is a message, and not what happens to one.
    pub fn is_message(&self) -> bool {
        self.target().is_none()
    }

    /// The message that it changes.
    #[inline]
    pub fn target(&self) -> Option<Seq> {
        self.change.as_ref()?.target()
    }

    /// The message whose text is gone by it.
    pub fn deleted(&self) -> Option<Seq> {
        self.change.as_ref()?.deleted()
    }

    pub fn posted(&self) -> Posted<'_> {
        Posted::of(self.change.as_deref())
    }

    /// Whether the other, which was to be stored, is of the same post as this one, which
    /// is.
    pub fn is_same_post(&self, other: &Self) -> bool {
        self.is_erased() || (&self.text, self.posted()) == (&other.text, other.posted())
    }

    /// Whether its text was erased: it is a message or an edit of one that was deleted.
    pub fn is_erased(&self) -> bool {
        match self.change.as_deref() {
            Some(Change::Deleted) => true,
            Some(Change::Edit { .. }) => self.text.is_empty(),
            _ => false,
        }
    }
}

fn extra(change: Option<&Change>) -> usize {
    change.map_or(0, Change::weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_before_the_epoch_has_positive_nanoseconds() {
        assert_eq!(Timestamp(-1).to_parts(), (-1, 999_999_000));
        assert_eq!(Timestamp(1_500_000).to_parts(), (1, 500_000_000));
    }

    #[test]
    fn a_text_is_counted_in_characters() {
        assert!(Draft::check_text(&"ü".repeat(10), 10).is_ok());
        assert!(Draft::check_text(&"ü".repeat(11), 10).is_err());
        assert!(Draft::check_text("", 10).is_err());
        assert!(Draft::check_text("a\0b", 10).is_err());
        for nothing in [" ", "\n\t ", "\u{200b}", "\u{2800}\u{3164}", "\u{fe0f}"] {
            assert!(Draft::check_text(nothing, 10).is_err(), "{nothing:?}");
        }
        assert!(Draft::check_text("\u{202e}abc ❤\u{fe0f}", 10).is_ok());
    }
}
