//! What the client prints: one line a message, nothing in it that a terminal
//! would obey.

use std::{
    borrow::Cow,
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use tonic::Status;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};
use unicode_width::UnicodeWidthChar as _;

use super::ClientError;
use crate::proto;

/// The first second that RFC 3339 cannot write, 10000-01-01.
const END_OF_TIME: u64 = 253_402_300_800;

/// `seq  time  from: text`.
pub(super) fn message(message: &proto::Message) -> String {
    format!(
        "{}  {}  {}: {}",
        message.seq,
        time(message.created_at.as_ref()),
        name(&message.from),
        escape(&message.text)
    )
}

/// A line on standard output, there at once even if a pipe reads it.
pub(super) fn line(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// A line on standard error about what goes on beside the chat.
pub(super) fn note(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "chatd: {text}");
}

/// A status in one line.
pub(super) fn status(status: &Status) -> String {
    let code = format!("{:?}", status.code());
    match status.message() {
        "" => format!("{code}: {}", status.code().description()),
        text => format!("{code}: {}", escape(text)),
    }
}

/// Escapes what moves a cursor, rings a bell, breaks a line or turns the
/// direction of writing: from another user's message, all of it is forgery.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_dangerous(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A user's name, of which nothing is hidden: names that are older than the rule
/// against invisible characters may hold some.
pub(super) fn name(name: &str) -> Cow<'_, str> {
    let is_mark = |c: char| c.general_category_group() == GeneralCategoryGroup::Mark;
    let hidden = |c: char| c.width().unwrap_or(0) == 0 && !is_mark(c);
    if !name.chars().any(hidden) {
        return Cow::Borrowed(name);
    }
    let shown = name.chars().map(|c| match hidden(c) {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    });
    Cow::Owned(shown.collect())
}

/// A moment as RFC 3339 has it, in UTC; a dash for one that it can't write.
pub(super) fn time(stamp: Option<&prost_types::Timestamp>) -> String {
    let parts = stamp.and_then(|stamp| {
        let seconds = u64::try_from(stamp.seconds).ok()?;
        let nanos = u32::try_from(stamp.nanos).ok()?;
        (seconds < END_OF_TIME && nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
    });
    match parts.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since)) {
        Some(time) => humantime::format_rfc3339_millis(time).to_string(),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_is_hidden() {
        for plain in ["bob", "two words", "Zoe\u{308}", "李", "علي"] {
            assert_eq!(name(plain), plain);
        }
        assert_eq!(name("\u{202e}eve"), "\\u{202e}eve");
        assert_eq!(name("alice\u{200b}\u{7}"), "alice\\u{200b}\\u{7}");
    }

    #[test]
    fn a_message_is_one_harmless_line() {
        let shown = message(&proto::Message {
            from: "bob".into(),
            text: "a\u{1b}[2Jb\nc\td \u{202e}ü".into(),
            created_at: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 1_500_000,
            }),
            seq: 7,
            ..Default::default()
        });
        assert_eq!(
            shown,
            "7  2023-11-14T22:13:20.001Z  bob: a\\u{1b}[2Jb\\nc\\td \\u{202e}ü"
        );
    }

    #[test]
    fn a_nonsensical_time_does_no_harm() {
        for (seconds, nanos) in [(-1, 0), (i64::MAX, 0), (0, -1), (0, i32::MAX)] {
            let stamp = prost_types::Timestamp { seconds, nanos };
            assert_eq!(time(Some(&stamp)), "-");
        }
    }
}
