//! What others have done to a batch's chats: another server's messages, a chat that
//! is deleted, another server of the database that has less.

use std::{collections::BTreeMap, sync::Arc};

use ahash::{AHashMap, AHashSet};

use super::{Attempt, LOOKUP_PAGE, RETRY_MIN, UNEXPLAINED};
use crate::{
    domain::{ChatId, MessageId, Row, Seq},
    fault::{self, Fault},
    store::{Page, StoreError},
    telemetry::log_limited,
    writer::{Front, Landed},
};

impl Attempt<'_> {
    /// Some seq of the piece is taken: by a late commit of our own, or by
    /// another writer, behind whose messages ours then go.
    pub(super) async fn give_way(&mut self, piece: Vec<Row>) {
        if self.is_stored(&piece).await {
            return self.stored(Arc::new(piece));
        }
        let mut rest = Vec::with_capacity(piece.len());
        let mut explained = false;
        for rows in by_chat(piece) {
            let (chat, first) = (rows[0].chat, rows[0].seq);
            let foreign = self.behind(chat, first - 1).await;
            if foreign.is_empty() {
                rest.extend(rows);
                continue;
            }
            log_limited!(WARN, lane = self.lane, %chat, seq = first, theirs = foreign.len(),
                "another writer has used our seqs, renumbering behind it");
            rest.extend(self.make_way_for(foreign, rows));
            explained = true;
        }
        if explained {
            self.todo.push(rest);
        } else {
            self.leave_deleted(rest).await;
        }
    }

    /// What is in the way can't be seen, so a chat was deleted under us by another
    /// server. If none was and it stays in the way, what conflicts is found like what
    /// is refused: trying again would hold up the lane's other chats for ever.
    async fn leave_deleted(&mut self, piece: Vec<Row>) {
        let before = piece.len();
        let mut rest = Vec::with_capacity(before);
        for rows in by_chat(piece) {
            let chat = rows[0].chat;
            if self.is_there(chat).await {
                rest.extend(rows);
            } else {
                log_limited!(WARN, lane = self.lane, %chat,
                    "the chat was deleted by another server, its messages are not stored");
                self.end(chat, rows, |chat, id| Landed::NoChat { chat, id });
            }
        }
        if rest.len() < before {
            self.todo.push(rest);
        } else if self.unexplained < UNEXPLAINED {
            self.unexplained += 1;
            tokio::time::sleep(RETRY_MIN).await;
            self.todo.push(rest);
        } else {
            self.divide(rest, &StoreError::Conflict);
        }
    }

    /// Ends the messages of a chat, these and those in later pieces.
    fn end(&mut self, chat: ChatId, mut rows: Vec<Row>, how: fn(ChatId, MessageId) -> Landed) {
        for later in self.todo.iter_mut().rev() {
            rows.extend(later.extract_if(.., |row| row.chat == chat));
        }
        let ended = rows.into_iter();
        self.landed.extend(ended.map(|row| how(chat, row.id)));
    }

    /// Ends what another server of the database has lost, and what would leave a
    /// hole behind that.
    pub(super) async fn leave_lost(&mut self) {
        if fault::is_on(Fault::BelieveMemory) {
            return;
        }
        let lost = self.forget_lost().await;
        let mut next = BTreeMap::new();
        for row in self.todo.iter().rev().flatten() {
            next.entry(row.chat).or_insert(row.seq);
        }
        let chats: Vec<ChatId> = next.keys().copied().collect();
        let Some(any) = chats.first() else { return };
        let last = |deadline| self.store.last_seqs(&chats, deadline);
        let last = self.ask(*any, last).await;
        let fronts = self.fronts.iter().map(|front| (front.chat, *front));
        let fronts: AHashMap<ChatId, Front> = fronts.collect();
        for ((chat, next), last) in next.into_iter().zip(last) {
            let front = fronts.get(&chat);
            let stands = match front.map(|front| (front, front.newest)) {
                _ if last + 1 < next || lost.contains_key(&chat) => false,
                Some((_, Some(newest))) if newest.0 + 1 == next => self.has(chat, newest).await,
                Some((front, None)) if next == 1 => self.is_same(front).await,
                _ => true,
            };
            if stands {
                continue;
            }
            let is_there = match front {
                Some(front) => self.is_same(front).await,
                None => self.is_there(chat).await,
            };
            match is_there {
                true => self.end(chat, Vec::new(), |chat, id| Landed::Lost { chat, id }),
                false => self.end(chat, Vec::new(), |chat, id| Landed::NoChat { chat, id }),
            }
        }
    }

    /// Takes back what has landed and is there no more: from which seq on, by chat.
    /// A chat has nothing to take in of that, since its messages end before it.
    async fn forget_lost(&mut self) -> BTreeMap<ChatId, Seq> {
        let mut told: BTreeMap<ChatId, Vec<(Seq, MessageId)>> = BTreeMap::new();
        for one in &self.landed {
            if let Landed::Stored(row) | Landed::Foreign(row) = one {
                told.entry(row.chat).or_default().push((row.seq, row.id));
            }
        }
        let mut lost = BTreeMap::new();
        for (chat, rows) in told {
            if let Some(seq) = self.first_lost(chat, &rows).await {
                lost.insert(chat, seq);
            }
        }
        let is_lost = |chat, seq| lost.get(&chat).is_some_and(|first| *first <= seq);
        let theirs =
            |one: &Landed| matches!(one, Landed::Foreign(row) if is_lost(row.chat, row.seq));
        self.landed.retain(|one| !theirs(one));
        for one in &mut self.landed {
            match *one {
                Landed::Stored(Row { chat, seq, id, .. })
                | Landed::Duplicate { chat, id, seq, .. }
                    if is_lost(chat, seq) =>
                {
                    *one = Landed::Lost { chat, id };
                }
                _ => {}
            }
        }
        lost
    }

    /// The first of a chat's messages that is not there any more. All that are behind
    /// a lost one are lost.
    async fn first_lost(&self, chat: ChatId, rows: &[(Seq, MessageId)]) -> Option<Seq> {
        let (last, before) = rows.split_last()?;
        if self.has(chat, *last).await {
            return None;
        }
        let (mut there, mut lost) = (0, before.len());
        while there < lost {
            let middle = (there + lost) / 2;
            match self.has(chat, rows[middle]).await {
                true => there = middle + 1,
                false => lost = middle,
            }
        }
        Some(rows[lost].0)
    }

    /// Whether the chat has this message as `seq`: another writer may have filled the
    /// place of a lost one.
    async fn has(&self, chat: ChatId, (seq, id): (Seq, MessageId)) -> bool {
        let found = self.page(chat, Page::After(seq - 1), 1).await;
        found
            .first()
            .is_some_and(|row| (row.seq, row.id) == (seq, id))
    }

    /// Reports the foreign messages, and moves ours behind them, in place and in
    /// time; less those that turn out to be the same post.
    fn make_way_for(&mut self, foreign: Vec<Row>, mut ours: Vec<Row>) -> Vec<Row> {
        let chat = ours[0].chat;
        let newest = foreign.iter().map(|row| row.created_at).max();
        let mut posts = AHashMap::new();
        for row in &foreign {
            if let Some(id) = &row.client_message_id {
                posts.entry((&row.from, id)).or_insert(row);
            }
        }
        let deleted: AHashSet<Seq> = foreign.iter().filter_map(Row::deleted).collect();
        let mut shift = foreign.len() as Seq;
        let messages = foreign.iter().filter(|row| row.is_message());
        let mut more = messages.count() as Seq;
        let mut duplicates = Vec::new();
        let mut keep = |row: &mut Row| {
            let id = row.id;
            // What would change a message that they have deleted has come too late.
            if row.target().is_some_and(|target| deleted.contains(&target)) {
                shift -= 1;
                duplicates.push(Landed::Refused { chat, id });
                return false;
            }
            let post = row.client_message_id.as_ref().map(|id| (&row.from, id));
            if let Some(theirs) = post.and_then(|post| posts.get(&post)) {
                shift -= 1;
                more -= Seq::from(row.is_message());
                duplicates.push(match theirs.is_same_post(row) {
                    true => Landed::Duplicate {
                        chat,
                        id,
                        seq: theirs.seq,
                        created_at: theirs.created_at,
                    },
                    false => Landed::Refused { chat, id },
                });
                return false;
            }
            row.seq += shift;
            row.number += more;
            row.created_at = newest.map_or(row.created_at, |newest| newest.max(row.created_at));
            true
        };
        ours.retain_mut(&mut keep);
        for later in self.todo.iter_mut().rev() {
            later.retain_mut(|row| row.chat != chat || keep(row));
        }
        self.landed.extend(foreign.into_iter().map(Landed::Foreign));
        self.landed.extend(duplicates);
        ours
    }

    /// All messages of a chat behind `seq`.
    async fn behind(&self, chat: ChatId, seq: Seq) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let last = rows.last().map_or(seq, |row| row.seq);
            let page = self.page(chat, Page::After(last), LOOKUP_PAGE).await;
            let full = page.len() == LOOKUP_PAGE;
            rows.extend(page);
            if full {
                continue;
            }
            match rows.last() {
                Some(last) if !self.confirm(last).await => rows.clear(),
                _ => return rows,
            }
        }
    }
}

fn by_chat(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut chats: Vec<Vec<Row>> = Vec::new();
    for row in rows {
        match chats.last_mut() {
            Some(chat) if chat[0].chat == row.chat => chat.push(row),
            _ => chats.push(vec![row]),
        }
    }
    chats
}
