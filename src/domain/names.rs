use std::{fmt, ops::Deref, sync::Arc};

/// Longest user name and longest client message id, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;

/// Why a value was refused, in words for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A chat's id: greater than 0, given by the store, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChatId(i64);

impl ChatId {
    /// # Errors
    /// If `id` is not greater than 0.
    pub fn new(id: i64) -> Result<Self, Invalid> {
        if id > 0 {
            Ok(Self(id))
        } else {
            Err(Invalid::new("must be greater than 0"))
        }
    }

    /// Reads the decimal form that `ConnectChatRequest` carries: digits only,
    /// no sign and no leading zero.
    ///
    /// # Errors
    /// If `text` is not the decimal form of an id.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(id) if digits => Self::new(id),
            _ => Err(Invalid::new("must be a chat id in decimal, greater than 0")),
        }
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user's name, as the token gives it: 1 to [`MAX_NAME_BYTES`] bytes, no
/// control characters, no white space at the ends. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Arc<str>);

impl UserName {
    /// # Errors
    /// If `name` breaks one of the rules above.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Invalid::new(format!(
                "must be 1 to {MAX_NAME_BYTES} bytes long"
            )));
        }
        if name.chars().any(char::is_control) {
            return Err(Invalid::new("must not contain control characters"));
        }
        if name.trim() != name {
            return Err(Invalid::new("must not begin or end with white space"));
        }
        Ok(Self(name.into()))
    }
}

impl Deref for UserName {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client's own id of a message, its idempotency key: 1 to
/// [`MAX_NAME_BYTES`] bytes of printable ASCII. Clones share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientMessageId(Arc<str>);

impl ClientMessageId {
    /// Reads the wire's form, where an empty string means that there is none.
    ///
    /// # Errors
    /// If `id` is too long or holds anything but printable ASCII.
    pub fn from_wire(id: &str) -> Result<Option<Self>, Invalid> {
        if id.len() > MAX_NAME_BYTES {
            return Err(Invalid::new(format!(
                "must be at most {MAX_NAME_BYTES} bytes long"
            )));
        }
        if !id.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(Invalid::new("must be printable ASCII"));
        }
        Ok((!id.is_empty()).then(|| Self(id.into())))
    }
}

impl Deref for ClientMessageId {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_keep_their_rules() {
        let longest = "x".repeat(MAX_NAME_BYTES);
        for good in ["a", "Zoë", "two words", longest.as_str()] {
            assert!(UserName::new(good).is_ok(), "{good:?}");
        }
        let too_long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", " a", "a ", "a\n", "a\u{0}b", too_long.as_str()] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn chat_ids_have_one_decimal_form() {
        assert_eq!(ChatId::parse("17").unwrap().get(), 17);
        assert!(ChatId::parse(&i64::MAX.to_string()).is_ok());
        for bad in ["", "0", "-1", "+1", "01", " 1", "1x", "9223372036854775808"] {
            assert!(ChatId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_client_message_id_is_none() {
        assert_eq!(ClientMessageId::from_wire(""), Ok(None));
        assert!(ClientMessageId::from_wire("a b~").unwrap().is_some());
        for bad in ["é", "a\tb", &"x".repeat(65)] {
            assert!(ClientMessageId::from_wire(bad).is_err(), "{bad:?}");
        }
    }
}
