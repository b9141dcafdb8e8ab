//! How much goes into one chunk, and what comes in gzip.

use super::{CHUNK_BYTES, Ring};
use crate::{
    domain::Seq,
    feed::packed::{Packed, WORTH},
};

impl Ring {
    /// The place of an entry in gzip, if it is worth it.
    pub(super) fn pack(&mut self, at: usize, seq: Seq) -> Option<Packed> {
        let bytes = self.entries[at].frame.len();
        if !WORTH.contains(&bytes) {
            return None;
        }
        let packed = self.packed.entry(seq).or_insert_with(|| {
            self.bytes += bytes;
            Packed::default()
        });
        Some(packed.clone())
    }

    /// How many entries from `start` fit into a chunk, at least one and at most so many,
    /// and their bytes.
    pub(super) fn fitting(&self, start: usize, packs: bool, most: usize) -> (usize, usize) {
        if packs {
            return self.fitting_packed(start, most);
        }
        let mut bytes = self.entries[start].frame.len();
        let mut count = 1;
        for entry in self.entries.range(start + 1..) {
            if bytes + entry.frame.len() > CHUNK_BYTES || count == most {
                break;
            }
            bytes += entry.frame.len();
            count += 1;
        }
        (count, bytes)
    }

    /// The same where long messages come alone.
    fn fitting_packed(&self, start: usize, most: usize) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for entry in self.entries.range(start..).take(most) {
            let length = entry.frame.len();
            if count > 0 && (bytes + length > CHUNK_BYTES || WORTH.contains(&length)) {
                break;
            }
            bytes += length;
            count += 1;
            if WORTH.contains(&length) {
                break;
            }
        }
        (count, bytes)
    }
}
