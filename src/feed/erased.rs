//! Which messages of a chat were deleted lately, for readers that hold some of them
//! outside of the ring: pages of history that they have, or have asked for.

use std::collections::VecDeque;

use crate::domain::Seq;

/// So many are known. Whoever has missed more reads its page again.
const KNOWN: usize = 256;

/// The last deletions, each of which has a number, one more than the one before.
#[derive(Debug, Default)]
pub(super) struct Erased {
    /// Of the last one.
    number: u64,
    /// The last ones, oldest first.
    seqs: VecDeque<Seq>,
}

impl Erased {
    pub fn add(&mut self, seq: Seq) {
        if self.seqs.len() == KNOWN {
            self.seqs.pop_front();
        }
        self.seqs.push_back(seq);
        self.number += 1;
    }

    /// Some may have been deleted, and nobody knows which.
    pub fn lose_track(&mut self) {
        self.seqs.clear();
        self.number += 1;
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        self.seqs.capacity() * size_of::<Seq>()
    }

    /// Those behind this number; `None` if they are not all known.
    pub fn since(&self, number: u64) -> Option<Vec<Seq>> {
        let missed = usize::try_from(self.number.checked_sub(number)?).ok()?;
        let known = self.seqs.len().checked_sub(missed)?;
        Some(self.seqs.range(known..).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_whoever_has_missed_too_many_is_told_so() {
        let mut erased = Erased::default();
        assert_eq!(erased.since(0), Some(vec![]));
        for seq in 1..=300 {
            erased.add(seq);
        }
        assert_eq!(erased.since(298), Some(vec![299, 300]));
        assert_eq!(erased.since(300 - 256).map(|seqs| seqs.len()), Some(256));
        assert_eq!(erased.since(300 - 257), None);
        erased.lose_track();
        assert_eq!(erased.since(300), None);
        erased.add(7);
        assert_eq!(erased.since(301), Some(vec![7]));
        assert_eq!(erased.since(302), Some(vec![]));
    }
}
