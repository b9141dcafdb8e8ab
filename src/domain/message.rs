use super::{ChatId, ClientMessageId, Invalid, UserName, visible::has_visible};

/// A message's place in its chat: 1, 2, 3 … without holes. 0 stands for "before
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

/// What a client wants to say, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub text: Box<str>,
    pub client_message_id: Option<ClientMessageId>,
}

impl Draft {
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
        size_of::<Row>() + self.text.len()
    }
}

/// A message in its place: what the store keeps and what readers see.
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
}

impl Row {
    /// About what the row weighs in a queue or a batch, in bytes.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
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
