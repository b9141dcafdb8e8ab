//! Text in cells: what of it is shown, how wide that is, and where lines break.

use std::{borrow::Cow, ops::Range};

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

use crate::client::print;

/// What is shown of one grapheme cluster. A tab takes as much room wherever it
/// stands.
fn shown_grapheme(grapheme: &str) -> Cow<'_, str> {
    match grapheme {
        "\t" => Cow::Borrowed("    "),
        other => print::escape(other),
    }
}

/// What is shown of a text without line breaks: nothing that a terminal would
/// obey.
pub(super) fn shown(text: &str) -> String {
    text.graphemes(true).map(shown_grapheme).collect()
}

/// Columns that a text takes, as shown.
pub(super) fn width(text: &str) -> usize {
    text.graphemes(true).map(grapheme_width).sum()
}

fn grapheme_width(grapheme: &str) -> usize {
    shown_grapheme(grapheme).width()
}

/// A text in so many columns at most, as shown; a longer one ends in an ellipsis.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return shown(text);
    }
    let mut left = columns.saturating_sub(1);
    let fits = text.graphemes(true).take_while(|grapheme| {
        let fits = grapheme_width(grapheme) <= left;
        left = left.saturating_sub(grapheme_width(grapheme));
        fits
    });
    let mut out: String = fits.map(shown_grapheme).collect();
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The rows of a text, at most `columns` wide but for white space at a row's
/// end: byte ranges, without the line breaks. There is always one.
pub(super) fn rows(text: &str, columns: usize) -> Vec<Range<usize>> {
    let columns = columns.max(1);
    let mut rows = Vec::new();
    let (mut start, mut taken) = (0, 0);
    // Behind the last white space: where the row may end, and what it had taken.
    let (mut gap, mut at_gap) = (0, 0);
    for (at, grapheme) in text.grapheme_indices(true) {
        let end = at + grapheme.len();
        if grapheme.ends_with(['\n', '\r']) {
            rows.push(start..at);
            (start, taken) = (end, 0);
            (gap, at_gap) = (end, 0);
            continue;
        }
        let width = grapheme_width(grapheme);
        let is_space = grapheme.chars().all(char::is_whitespace);
        if taken + width > columns && !is_space && at > start {
            let (next, used) = if gap > start {
                (gap, at_gap)
            } else {
                (at, taken)
            };
            rows.push(start..next);
            start = next;
            taken -= used;
            (gap, at_gap) = (start, 0);
            // A word that is longer than a row goes on in the next one.
            if taken + width > columns && at > start {
                rows.push(start..at);
                (start, taken) = (at, 0);
                (gap, at_gap) = (at, 0);
            }
        }
        taken += width;
        if is_space {
            (gap, at_gap) = (end, taken);
        }
    }
    rows.push(start..text.len());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::for_seeds;

    fn lines(text: &str, columns: usize) -> Vec<&str> {
        rows(text, columns).into_iter().map(|r| &text[r]).collect()
    }

    #[test]
    fn lines_break_between_words_if_they_can() {
        assert_eq!(lines("", 5), [""]);
        assert_eq!(lines("one two three", 8), ["one two ", "three"]);
        assert_eq!(lines("one two", 3), ["one ", "two"]);
        assert_eq!(lines("abcdefgh ij", 3), ["abc", "def", "gh ", "ij"]);
        assert_eq!(lines("a bcdefgh", 4), ["a ", "bcde", "fgh"]);
        assert_eq!(lines("a\n\nb\n", 9), ["a", "", "b", ""]);
        assert_eq!(lines("a\r\nb", 9), ["a", "b"]);
        // Two columns each.
        assert_eq!(lines("日本語", 5), ["日本", "語"]);
        // One cluster of three code points.
        assert_eq!(lines("e\u{301}\u{302}e", 1), ["e\u{301}\u{302}", "e"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_in_letters() {
        assert_eq!(shown("a\u{1b}[2J\u{9b}\u{202e}\tb"), {
            "a\\u{1b}[2J\\u{9b}\\u{202e}    b"
        });
        assert_eq!(width("\u{1b}"), 6);
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn rows_hold_the_whole_text_and_fit() {
        for_seeds(500, |rng| {
            let letters = ['a', ' ', '\n', '日', '\u{301}', '\t', '\u{1b}', '🦀'];
            let text: String = (0..rng.usize(..60))
                .map(|_| letters[rng.usize(..letters.len())])
                .collect();
            let columns = rng.usize(1..12);
            let rows = rows(&text, columns);
            let mut at = 0;
            for row in rows {
                assert!(text[at..row.start].chars().all(|c| c == '\n'), "{text:?}");
                at = row.end;
                let row = &text[row];
                let fits = width(row.trim_end()) <= columns;
                assert!(
                    fits || row.trim_end().graphemes(true).count() <= 1,
                    "{row:?}"
                );
            }
            assert_eq!(at, text.len(), "{text:?}");
        });
    }
}
