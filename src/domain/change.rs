use unicode_segmentation::UnicodeSegmentation as _;

use super::{
    Attached, Invalid, Row, Seq, Timestamp, UserName,
    visible::{has_odd_marks, has_visible},
};

/// What an entry of a chat is, if it is more than a plain message: what it changes
/// ([`Change::target`]), what it carries, or what has been changed in the message since it
/// was stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// The entry's text takes the place of the target's.
    Edit { target: Seq },
    /// The target's text is gone, and so are the texts of its edits.
    Deletion { target: Seq },
    /// The sender reacts to the target, or takes that back. The entry's text is the emoji.
    Reaction { target: Seq, removed: bool },
    /// A message that carries more than its text.
    Attached(Attached),
    /// A message whose text is this by now. The row's own is the first one.
    Edited {
        text: Box<str>,
        at: Timestamp,
        attached: Option<Attached>,
    },
    /// A message that was deleted, which has no text any more.
    Deleted,
}

impl Change {
    /// The message that is changed, if this changes another one.
    pub fn target(&self) -> Option<Seq> {
        match self {
            Self::Edit { target } | Self::Deletion { target } | Self::Reaction { target, .. } => {
                Some(*target)
            }
            Self::Attached(_) | Self::Edited { .. } | Self::Deleted => None,
        }
    }

    /// The message that has to be there: the one that is changed, or answered.
    pub fn refers_to(&self) -> Option<Seq> {
        match self {
            Self::Attached(attached) => attached.reply_to(),
            _ => self.target(),
        }
    }

    /// What a message carries besides its text.
    pub fn attached(&self) -> Option<&Attached> {
        match self {
            Self::Attached(attached) => Some(attached),
            Self::Edited { attached, .. } => attached.as_ref(),
            _ => None,
        }
    }

    /// The message whose text is gone once this is stored.
    pub fn deleted(&self) -> Option<Seq> {
        match self {
            Self::Deletion { target } => Some(*target),
            _ => None,
        }
    }

    /// The message that gets another text by this.
    pub fn edited(&self) -> Option<Seq> {
        match self {
            Self::Edit { target } => Some(*target),
            _ => None,
        }
    }

    /// Bytes that it takes in memory besides the pointer to it, about.
    pub fn weight(&self) -> usize {
        match self {
            Self::Edited { text, .. } => size_of::<Self>() + text.len() + self.attached_len(),
            _ => size_of::<Self>() + self.attached_len(),
        }
    }

    fn attached_len(&self) -> usize {
        self.attached().map_or(0, |one| one.as_bytes().len())
    }
}

/// What was posted besides a text: what it changes, what it carries, and nothing that has
/// been changed in it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Posted<'a> {
    change: Option<&'a Change>,
    attached: Option<&'a Attached>,
}

impl<'a> Posted<'a> {
    pub fn of(change: Option<&'a Change>) -> Self {
        Self {
            change: change.filter(|change| change.target().is_some()),
            attached: change.and_then(Change::attached),
        }
    }
}

/// Bytes of an emoji: the longest that are in use, families with colours of skin, have
/// 41.
pub const MAX_EMOJI_BYTES: usize = 64;

/// Different emojis that a message may have among its reactions.
pub const MAX_EMOJIS: usize = 64;

/// Checks what somebody reacts with: one grapheme (UAX 29), which can be seen.
///
/// # Errors
/// If it is none, more than one, or too long.
pub fn check_emoji(emoji: &str) -> Result<(), Invalid> {
    if emoji.len() > MAX_EMOJI_BYTES {
        return Err(Invalid::new(format!(
            "must be at most {MAX_EMOJI_BYTES} bytes long"
        )));
    }
    if emoji.graphemes(true).count() != 1 {
        return Err(Invalid::new(
            "must be one emoji: one character as people count them",
        ));
    }
    // An emoji may have selectors and joiners, which `has_visible` looks past.
    if !has_visible(emoji) || has_odd_marks(emoji) || emoji.chars().any(char::is_control) {
        return Err(Invalid::new("must be a character that can be seen"));
    }
    Ok(())
}

/// What a store knows of a message that is to be changed: the message, how often it was
/// edited, and all reactions to it, oldest first, those that were taken back among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub row: Row,
    pub edits: usize,
    pub reactions: Vec<Reaction>,
}

/// Somebody's reaction, or that it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    pub seq: Seq,
    pub from: UserName,
    pub emoji: Box<str>,
    pub removed: bool,
    pub created_at: Timestamp,
}

/// A message as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub row: Row,
    /// In the order in which the emojis were first used.
    pub reactions: Vec<ReactionCount>,
}

/// How many react with one emoji.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReactionCount {
    pub emoji: Box<str>,
    pub count: usize,
    /// Whoever asked is one of them.
    pub mine: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emoji_is_one_grapheme_that_can_be_seen() {
        let family = "\u{1f468}\u{1f3fd}\u{200d}\u{1f469}\u{1f3fd}\u{200d}\u{1f467}\u{1f3fd}\u{200d}\u{1f466}\u{1f3fd}";
        let good = ["👍", "❤\u{fe0f}", "🇩🇪", "1\u{fe0f}\u{20e3}", "👍🏽", family];
        for emoji in good {
            assert!(check_emoji(emoji).is_ok(), "{emoji:?}");
        }
        let zalgo = format!("a{}", "\u{301}".repeat(20));
        let long = format!("👍{}", "\u{200d}👍".repeat(20));
        let bad = [
            "", "👍👍", "ok", " ", "\u{200b}", "\0", "\n", "\u{fe0f}", "\r\n", &zalgo, &long,
        ];
        for emoji in bad {
            assert!(check_emoji(emoji).is_err(), "{emoji:?}");
        }
    }
}
