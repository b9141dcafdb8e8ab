//! Entries that are no messages, and what becomes of messages by them.

use super::Ring;
use crate::{domain::Seq, feed::item::About};

impl Ring {
    pub(super) fn about(&self, seq: Seq) -> About {
        self.others.get(&seq).copied().unwrap_or(About::Message)
    }

    /// The message was deleted: neither it nor an edit of it has a text any more.
    pub fn erase(&mut self, message: Seq) {
        self.erase_entry(message);
        let edits = self.others.iter();
        let edits = edits.filter(|(_, about)| **about == About::Edit(message));
        let edits: Vec<Seq> = edits.map(|(seq, _)| *seq).collect();
        edits.into_iter().for_each(|seq| self.erase_entry(seq));
        self.shared = None;
    }

    fn erase_entry(&mut self, seq: Seq) {
        let at = usize::try_from(seq - self.first());
        let Some(entry) = at.ok().and_then(|at| self.entries.get_mut(at)) else {
            return;
        };
        let before = entry.frame.len();
        entry.frame = entry.frame.erased();
        self.bytes += entry.frame.len();
        let packed = self.packed.remove(&seq).is_some();
        self.bytes -= before * (1 + usize::from(packed));
    }

    /// How many messages follow one another directly behind `after`.
    pub(super) fn messages_behind(&self, after: Seq) -> usize {
        let other = self.others.range(after + 1..).next();
        let end = other.map_or(self.last + 1, |(seq, _)| *seq);
        (end - after - 1) as usize
    }

    /// The last of the entries directly behind `after` that are no messages.
    pub(super) fn others_behind(&self, after: Seq) -> Seq {
        let others = self.others.range(after + 1..).zip(after + 1..);
        let run = others.take_while(|((seq, _), next)| *seq == next);
        run.last().map_or(after, |(_, seq)| seq)
    }
}
