//! What entries that are no messages do to messages.

use super::Chat;
use crate::{
    domain::{Change, Current, Reaction, ReactionCount, Row, Seq, Target, UserName},
    store::Page,
};

impl Chat {
    pub(super) fn insert(&mut self, row: Row) {
        if let Some(target) = row.target() {
            self.about.entry(target).or_default().push(row.seq);
        }
        let edited = row.change.as_ref().and_then(|change| change.edited());
        if let Some(message) = edited.and_then(|target| self.messages.get_mut(&target))
            && message.change.as_deref() != Some(&Change::Deleted)
        {
            let attached = message
                .change
                .as_deref()
                .and_then(Change::attached)
                .cloned();
            message.change = Some(Box::new(Change::Edited {
                text: row.text.clone(),
                at: row.created_at,
                attached,
            }));
        }
        if let Some(target) = row.deleted() {
            self.erase(target);
        }
        self.messages.insert(row.seq, row);
    }

    fn erase(&mut self, target: Seq) {
        if let Some(message) = self.messages.get_mut(&target) {
            message.text = "".into();
            message.change = Some(Box::new(Change::Deleted));
        }
        for seq in self.about.get(&target).into_iter().flatten() {
            if let Some(entry) = self.messages.get_mut(seq)
                && let Some(Change::Edit { .. }) = entry.change.as_deref()
            {
                entry.text = "".into();
            }
        }
    }

    fn about(&self, seq: Seq) -> impl Iterator<Item = &Row> {
        let about = self.about.get(&seq).into_iter().flatten();
        about.filter_map(|seq| self.messages.get(seq))
    }

    fn reactions(&self, seq: Seq) -> impl Iterator<Item = Reaction> {
        self.about(seq)
            .filter_map(|row| match row.change.as_deref() {
                Some(Change::Reaction { removed, .. }) => Some(Reaction {
                    seq: row.seq,
                    from: row.from.clone(),
                    emoji: row.text.clone(),
                    removed: *removed,
                    created_at: row.created_at,
                }),
                _ => None,
            })
    }

    pub(super) fn target(&self, seq: Seq) -> Option<Target> {
        let is_edit = |row: &&Row| matches!(row.change.as_deref(), Some(Change::Edit { .. }));
        Some(Target {
            row: self.messages.get(&seq)?.clone(),
            edits: self.about(seq).filter(is_edit).count(),
            reactions: self.reactions(seq).collect(),
        })
    }

    pub(super) fn current(&self, viewer: &UserName, page: Page, limit: usize) -> Vec<Current> {
        let current = |row: &Row| {
            let row = row.clone();
            let reactions = match row.change.as_deref() {
                Some(Change::Deleted) => Vec::new(),
                _ => self.counted(row.seq, viewer),
            };
            Current { row, reactions }
        };
        let is_message = |row: &&Row| row.is_message();
        match page {
            Page::After(seq) => {
                let rows = self.messages.range(seq.saturating_add(1)..);
                let rows = rows.map(|(_, row)| row).filter(is_message).take(limit);
                rows.map(current).collect()
            }
            Page::Before(seq) => {
                let rows = self.messages.range(..seq).rev();
                let rows = rows.map(|(_, row)| row).filter(is_message).take(limit);
                let mut found: Vec<Current> = rows.map(current).collect();
                found.reverse();
                found
            }
        }
    }

    fn counted(&self, seq: Seq, viewer: &UserName) -> Vec<ReactionCount> {
        let mut standing: Vec<Reaction> = Vec::new();
        for one in self.reactions(seq) {
            standing.retain(|other| (&other.from, &other.emoji) != (&one.from, &one.emoji));
            standing.extend((!one.removed).then_some(one));
        }
        let mut counted: Vec<ReactionCount> = Vec::new();
        for one in standing {
            let mine = one.from == *viewer;
            match counted.iter_mut().find(|other| other.emoji == one.emoji) {
                Some(other) => {
                    other.count += 1;
                    other.mine |= mine;
                }
                None => counted.push(ReactionCount {
                    emoji: one.emoji,
                    count: 1,
                    mine,
                }),
            }
        }
        counted
    }
}
