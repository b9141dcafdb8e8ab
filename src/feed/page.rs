//! A page of history that a reader has, and has not sent on yet.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    item::About,
    ring::{CHUNK_BYTES, Entry},
};
use crate::domain::{Frame, Row, Seq, UserName};

/// Frames of a reader's page, up to an entry behind which the reader goes on.
#[derive(Debug)]
pub(super) struct Page {
    frames: VecDeque<Kept>,
    pub through: Seq,
}

#[derive(Debug)]
struct Kept {
    seq: Seq,
    about: About,
    frame: Frame,
}

/// Frames from a page's front.
#[derive(Debug)]
pub(super) struct Taken {
    pub count: usize,
    /// The last of them.
    pub through: Seq,
    pub bytes: Bytes,
}

impl Page {
    /// What a reader behind `after` takes of these rows, as far as they follow one another
    /// and about so many bytes go: one frame at least.
    pub fn new(after: Seq, rows: &[Row], viewer: &UserName, entries: bool, most: usize) -> Self {
        let mut page = Self {
            frames: VecDeque::new(),
            through: after,
        };
        let mut bytes = 0;
        for row in rows {
            if row.seq != page.through + 1 {
                break;
            }
            if entries || row.is_message() {
                let frame = Entry::new(row).frame_for(viewer);
                bytes += frame.len();
                if bytes > most && !page.frames.is_empty() {
                    break;
                }
                page.frames.push_back(Kept {
                    seq: row.seq,
                    about: About::of(row),
                    frame,
                });
            }
            page.through = row.seq;
        }
        page
    }

    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|kept| kept.frame.len()).sum()
    }

    /// These messages were deleted.
    pub fn erase(&mut self, deleted: &[Seq]) {
        for kept in &mut self.frames {
            let gone = kept.about.erased_with(kept.seq);
            if gone.is_some_and(|message| deleted.contains(&message)) {
                kept.frame = kept.frame.erased();
            }
        }
    }

    /// Frames from the front, in one chunk of `most` bytes.
    pub fn take(&mut self, most: usize) -> Option<Taken> {
        let first = self.frames.pop_front()?;
        let most = most.min(CHUNK_BYTES);
        if !self.next_fits(first.frame.len(), most) {
            return Some(Taken {
                count: 1,
                through: first.seq,
                bytes: first.frame.into_bytes(),
            });
        }
        let (mut count, mut through) = (1, first.seq);
        let mut chunk = BytesMut::with_capacity(most);
        chunk.extend_from_slice(first.frame.as_bytes());
        while self.next_fits(chunk.len(), most)
            && let Some(next) = self.frames.pop_front()
        {
            chunk.extend_from_slice(next.frame.as_bytes());
            (count, through) = (count + 1, next.seq);
        }
        let bytes = chunk.freeze();
        Some(Taken {
            count,
            through,
            bytes,
        })
    }

    fn next_fits(&self, bytes: usize, most: usize) -> bool {
        let next = self.frames.front();
        next.is_some_and(|next| bytes + next.frame.len() <= most)
    }
}
