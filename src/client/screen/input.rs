//! The line that is being typed, which may be several. Pure: keys are named by
//! what they do. The cursor always stands between two grapheme clusters.

use unicode_segmentation::UnicodeSegmentation as _;

use super::text;

/// Most bytes of what is typed: more than any server takes as one message.
const MAX_BYTES: usize = 256 * 1024;

#[derive(Debug, Default, Clone)]
pub(super) struct Input {
    text: String,
    /// In bytes.
    cursor: usize,
    /// The column that moves up and down keep to.
    goal: Option<usize>,
}

/// What a key does to the line. The width is that of the rows, in columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edit {
    Insert(char),
    Left,
    Right,
    WordLeft,
    WordRight,
    /// To the start or the end of the line, not of a row of it.
    Home,
    End,
    DeleteLeft,
    DeleteRight,
    DeleteWordLeft,
    DeleteWordRight,
    DeleteToStart,
    DeleteToEnd,
}

impl Input {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
        self.goal = None;
    }

    /// Takes the text out.
    pub(super) fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        self.set(String::new());
        text
    }

    /// Puts in what was pasted. A NUL no server takes, and the breaks of all
    /// systems are one here.
    pub(super) fn paste(&mut self, pasted: &str) {
        let pasted = pasted.replace("\r\n", "\n").replace('\r', "\n");
        self.insert(&pasted.replace('\0', ""));
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        self.goal = None;
        let cursor = self.cursor;
        match edit {
            Edit::Insert(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            Edit::Left => self.cursor = self.left(),
            Edit::Right => self.cursor = self.right(),
            Edit::WordLeft => self.cursor = self.word_left(),
            Edit::WordRight => self.cursor = self.word_right(),
            Edit::Home => self.cursor = self.line_start(),
            Edit::End => self.cursor = self.line_end(),
            Edit::DeleteLeft => self.delete(self.left(), cursor),
            Edit::DeleteRight => self.delete(cursor, self.right()),
            Edit::DeleteWordLeft => self.delete(self.word_left(), cursor),
            Edit::DeleteWordRight => self.delete(cursor, self.word_right()),
            Edit::DeleteToStart => self.delete(self.line_start(), cursor),
            Edit::DeleteToEnd => self.delete(cursor, self.line_end()),
        }
    }

    /// Moves by a row, up or down. False if there is none that way.
    pub(super) fn move_row(&mut self, down: bool, columns: usize) -> bool {
        let rows = text::rows(&self.text, columns);
        let (row, column) = self.position(columns);
        let goal = *self.goal.get_or_insert(column);
        let target = if down { row + 1 } else { row.wrapping_sub(1) };
        let Some(range) = rows.get(target) else {
            return false;
        };
        let mut left = goal;
        self.cursor = range.end;
        for (at, grapheme) in self.text[range.clone()].grapheme_indices(true) {
            let width = text::width(grapheme);
            if width > left {
                self.cursor = range.start + at;
                break;
            }
            left -= width;
        }
        // The end of a row that goes on is the start of the next one.
        if rows
            .get(target + 1)
            .is_some_and(|next| next.start == range.end)
        {
            self.cursor = self.cursor.min(self.before(range.end));
        }
        true
    }

    /// Row and column of the cursor.
    pub(super) fn position(&self, columns: usize) -> (usize, usize) {
        let rows = text::rows(&self.text, columns);
        let row = rows.iter().rposition(|row| row.start <= self.cursor);
        let row = row.unwrap_or_default();
        let before = &self.text[rows[row].start..self.cursor.max(rows[row].start)];
        (row, text::width(before))
    }

    fn insert(&mut self, new: &str) {
        let room = MAX_BYTES.saturating_sub(self.text.len());
        let new = &new[..new.floor_char_boundary(room)];
        self.text.insert_str(self.cursor, new);
        self.cursor += new.len();
        // What was put in may have become one with what follows it.
        self.cursor = self.boundary_at_or_behind(self.cursor);
    }

    fn delete(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = self.boundary_at_or_behind(from);
    }

    fn boundary_at_or_behind(&self, at: usize) -> usize {
        let mut starts = self.text.grapheme_indices(true).map(|(start, _)| start);
        starts.find(|start| *start >= at).unwrap_or(self.text.len())
    }

    fn before(&self, at: usize) -> usize {
        let last = self.text[..at].grapheme_indices(true).next_back();
        last.map_or(0, |(start, _)| start)
    }

    fn left(&self) -> usize {
        self.before(self.cursor)
    }

    fn right(&self) -> usize {
        let next = self.text[self.cursor..].graphemes(true).next();
        self.cursor + next.map_or(0, str::len)
    }

    fn word_left(&self) -> usize {
        let mut words = self.text[..self.cursor].unicode_word_indices();
        words.next_back().map_or(0, |(start, _)| start)
    }

    fn word_right(&self) -> usize {
        let mut words = self.text[self.cursor..].unicode_word_indices();
        let next = words.next().map(|(start, word)| start + word.len());
        next.map_or(self.text.len(), |end| self.cursor + end)
    }

    fn line_start(&self) -> usize {
        let before = &self.text[..self.cursor];
        before.rfind('\n').map_or(0, |at| at + 1)
    }

    fn line_end(&self) -> usize {
        let rest = &self.text[self.cursor..];
        self.cursor + rest.find('\n').unwrap_or(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::for_seeds;

    /// A line with the cursor at the bar.
    fn input(marked: &str) -> Input {
        let cursor = marked.find('|').unwrap();
        Input {
            text: marked.replace('|', ""),
            cursor,
            goal: None,
        }
    }

    fn marked(input: &Input) -> String {
        let mut text = input.text.clone();
        text.insert(input.cursor, '|');
        text
    }

    #[test]
    fn keys_edit_by_cluster_and_by_word() {
        for (before, edit, after) in [
            ("a|b", Edit::Insert('é'), "aé|b"),
            ("日本|", Edit::Left, "日|本"),
            ("e\u{301}|x", Edit::DeleteLeft, "|x"),
            ("|e\u{301}x", Edit::DeleteRight, "|x"),
            ("👩‍👩‍👧|", Edit::DeleteLeft, "|"),
            ("|", Edit::DeleteLeft, "|"),
            ("|", Edit::DeleteRight, "|"),
            ("one two, |", Edit::DeleteWordLeft, "one |"),
            ("one two|", Edit::WordLeft, "one |two"),
            ("|one two", Edit::WordRight, "one| two"),
            ("one| two x", Edit::DeleteWordRight, "one| x"),
            ("...|", Edit::DeleteWordLeft, "|"),
            ("a\nbc|d", Edit::Home, "a\n|bcd"),
            ("a\nb|cd\ne", Edit::End, "a\nbcd|\ne"),
            ("a\nbc|d", Edit::DeleteToStart, "a\n|d"),
            ("a|b\nc", Edit::DeleteToEnd, "a|\nc"),
        ] {
            let mut line = input(before);
            line.edit(edit);
            assert_eq!(marked(&line), after, "{before} {edit:?}");
        }
    }

    #[test]
    fn what_is_pasted_is_text_and_one_message() {
        let mut line = input("<|>");
        line.paste("a\r\nb\rc\0\u{1b}[31m");
        assert_eq!(marked(&line), "<a\nb\nc\u{1b}[31m|>");
        line.paste(&"x".repeat(2 * MAX_BYTES));
        assert_eq!(line.text.len(), MAX_BYTES);
        assert!(line.take().ends_with('>') && line.is_empty());
    }

    #[test]
    fn rows_are_gone_up_and_down_in_one_column() {
        // In rows of six: `one `, `two`, `日本x`.
        let mut line = input("one two|\n日本x");
        assert_eq!(line.position(6), (1, 3));
        assert!(line.move_row(true, 6));
        assert_eq!(
            (marked(&line), line.position(6)),
            ("one two\n日|本x".into(), (2, 2))
        );
        assert!(!line.move_row(true, 6));
        assert!(line.move_row(false, 6) && line.move_row(false, 6));
        assert_eq!(marked(&line), "one| two\n日本x");
        assert!(!line.move_row(false, 6));
        let mut wide = input("one two|");
        assert!(wide.move_row(false, 4));
        assert_eq!(wide.position(4), (0, 3));
    }

    #[test]
    fn any_edits_leave_the_cursor_between_clusters() {
        const EDITS: [Edit; 16] = [
            Edit::Insert('a'),
            Edit::Insert('\u{301}'),
            Edit::Insert('\u{200d}'),
            Edit::Insert('👩'),
            Edit::Left,
            Edit::Right,
            Edit::WordLeft,
            Edit::WordRight,
            Edit::Home,
            Edit::End,
            Edit::DeleteLeft,
            Edit::DeleteRight,
            Edit::DeleteWordLeft,
            Edit::DeleteWordRight,
            Edit::DeleteToStart,
            Edit::DeleteToEnd,
        ];
        for_seeds(300, |rng| {
            let mut line = Input::default();
            for _ in 0..80 {
                match rng.usize(..20) {
                    0 => line.paste(" b\n🦀🏽 ü"),
                    1 => _ = line.move_row(rng.bool(), rng.usize(..9)),
                    _ => line.edit(EDITS[rng.usize(..EDITS.len())]),
                }
                let mut bounds = line.text.grapheme_indices(true).map(|(at, _)| at);
                let end = line.cursor == line.text.len();
                assert!(end || bounds.any(|at| at == line.cursor), "{line:?}");
                line.position(rng.usize(..9));
            }
        });
    }
}
