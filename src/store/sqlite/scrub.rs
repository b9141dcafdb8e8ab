//! Takes out of the database's file what SQLite leaves of deleted rows.
//!
//! With `secure_delete` SQLite overwrites a row where it stands when it is deleted,
//! and pages that become free. But where rows move between pages, since a page has
//! become nearly empty, the bytes that they leave in the middle of a page, between
//! the list of its cells and the first of them, stay as they are. Such a copy of a row
//! is nothing to SQLite any more, so that deleting the row later does not find it:
//! about one text in a thousand stayed so. These bytes mean nothing in any page, and
//! are overwritten here.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

/// The longest that a stop of the server is held up. The rest is done at the next.
const LONGEST: Duration = Duration::from_secs(5);

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// What a page of a table's rows begins with (the file format's "leaf table b-tree
/// page"); texts are in these, and in pages of their own that are overwritten when
/// they become free.
const LEAF: u8 = 0x0d;

/// The file's header, which is in front of the first page's own.
const FILE_HEADER: usize = 100;

/// Scrubs the file from page `from` on, counted from 0. Nobody may write to it
/// meanwhile, and there must be nothing in the log. `None` once it is done, or the
/// page at which to go on.
///
/// # Errors
/// If the file cannot be read or written. What has been scrubbed until then stays
/// valid: no byte changes that has a meaning.
pub(super) fn scrub(file: &File, page_bytes: usize, from: u64) -> io::Result<Option<u64>> {
    let started = Instant::now();
    let pages = file.metadata()?.len() / page_bytes as u64;
    let at_a_time = (PIECE / page_bytes).max(1) as u64;
    let mut piece = vec![0; at_a_time as usize * page_bytes];
    let mut at = from;
    while at < pages {
        if started.elapsed() > LONGEST {
            file.sync_data()?;
            return Ok(Some(at));
        }
        let now = at_a_time.min(pages - at);
        let piece = &mut piece[..now as usize * page_bytes];
        file.read_exact_at(piece, at * page_bytes as u64)?;
        for (page, number) in piece.chunks_exact(page_bytes).zip(at..) {
            let header = if number == 0 { FILE_HEADER } else { 0 };
            let Some(gap) = gap(page, header) else {
                continue;
            };
            if page[gap.clone()].iter().any(|byte| *byte != 0) {
                let offset = number * page_bytes as u64 + gap.start as u64;
                file.write_all_at(&vec![0; gap.len()], offset)?;
            }
        }
        at += now;
    }
    file.sync_data()?;
    Ok(None)
}

/// The bytes of a page of rows between the list of its cells and the first of them;
/// `None` for other pages, and for what makes no sense.
fn gap(page: &[u8], header: usize) -> Option<std::ops::Range<usize>> {
    let head = page.get(header..header + 8)?;
    let number = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let (cells, content) = (number(3), number(5));
    let start = header + 8 + 2 * cells;
    // 65,536 does not fit into two bytes.
    let end = if content == 0 { 65_536 } else { content };
    (head[0] == LEAF && start <= end && end <= page.len()).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_without_a_meaning_are_a_gap() {
        let mut page = [7_u8; 512];
        page[..8].copy_from_slice(&[LEAF, 0, 0, 0, 3, 1, 0, 0]);
        assert_eq!(gap(&page, 0), Some(14..256));
        page[0] = 0x05;
        assert_eq!(gap(&page, 0), None, "a page of the tree's inside");
        page[..8].copy_from_slice(&[LEAF, 0, 0, 0, 3, 0, 9, 0]);
        assert_eq!(gap(&page, 0), None, "the list would reach into the cells");
        page[..8].copy_from_slice(&[LEAF, 0, 0, 0, 3, 3, 0, 0]);
        assert_eq!(gap(&page, 0), None, "beyond the page");
    }
}
