use std::{fmt, ops::Deref, sync::Arc};

use super::visible::{has_odd_marks, has_visible, is_invisible};

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

    /// What a name has to keep to besides where it enters a chat: it looks like no
    /// other one and turns nothing that stands beside it. Names that are in a chat
    /// already stay as they are. NFC and NFD are two names.
    ///
    /// # Errors
    /// If it holds an invisible character, or no visible one.
    pub fn check_new(&self) -> Result<(), Invalid> {
        if self.chars().any(|c| c != ' ' && is_invisible(c)) {
            return Err(Invalid::new(
                "must not contain invisible characters, nor such as turn the direction of writing",
            ));
        }
        if !has_visible(self) {
            return Err(Invalid::new("must contain a visible character"));
        }
        if has_odd_marks(self) {
            return Err(Invalid::new(
                "must not begin with a combining mark, nor have more than 4 of them in a row",
            ));
        }
        if self.contains("  ") {
            return Err(Invalid::new("must not contain two spaces in a row"));
        }
        Ok(())
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

/// A client's own id of a chat that it makes, with the same rules.
pub type ClientChatId = ClientMessageId;

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
    fn names_that_enter_a_chat_are_seen_as_they_are() {
        for good in [
            "a",
            "Zoë",
            "Zoe\u{308}",
            "two words",
            "bob!",
            "😀",
            "李",
            "علي",
            "ก้อง",
            "_",
        ] {
            assert_eq!(UserName::new(good).unwrap().check_new(), Ok(()), "{good:?}");
        }
        for bad in [
            "\u{202e}gnp.exe",
            "alice\u{200b}",
            "al\u{ad}ice",
            "\u{200b}",
            "bob\u{fe0f}",
            "a\u{2066}b",
            "a\u{a0}b",
            "\u{3164}",
            "a\u{2800}",
            "\u{301}",
            "a\u{e0061}",
            "a\u{200d}b",
            "a\u{2028}b",
            "\u{301}a",
            "a\u{301}\u{301}\u{301}\u{301}\u{301}",
            "a  b",
            "bob\u{1d159}",
            "bob\u{378}",
            "bob\u{ffff}",
            "bob\u{e000}",
            "\u{fffc}",
            "bob\u{2d7f}",
        ] {
            let name = UserName::new(bad).unwrap_or_else(|_| panic!("{bad:?}"));
            assert!(name.check_new().is_err(), "{bad:?}");
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
