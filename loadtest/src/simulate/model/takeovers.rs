//! Another server of the database takes over, and lacks what was acknowledged: that
//! may be missing, and nothing else, and nobody is to be told of it as if it were
//! there (P2, P4, P5).

use chat_service::domain::{ChatId, Row, Seq};

use super::{Kept, Model, rule, streams::Stream};

impl Model {
    pub fn took_over(&mut self, lost: Vec<Row>) {
        self.counts.lost += lost.len() as u64;
        for row in lost {
            let (id, seq) = (row.chat, row.seq);
            let chat = self.chat(id);
            let left = seq - 1;
            let told = chat.acknowledged >= seq;
            chat.acknowledged = chat.acknowledged.min(left);
            chat.floor = Some(chat.floor.map_or(left, |floor| floor.min(left)));
            chat.stale = true;
            self.shown.remove(&(id, seq));
            if let Some(said) = self.said.get_mut(&row.text) {
                said.forget(seq);
            }
            self.lost.insert((id, seq), row);
            for stream in self.streams.values_mut().filter(|one| one.chat == id) {
                stream.doubtful = true;
                stream.must_end |= told;
            }
        }
    }

    /// What somebody knew of a chat, as far as no takeover has cost it.
    pub(super) fn kept(&mut self, chat: ChatId, known: Seq) -> Seq {
        let floor = self.chat(chat).floor;
        floor.map_or(known, |floor| known.min(floor))
    }

    /// Whether an answer is about a message that is lost, and the server cannot yet
    /// know. Once it has stored another in its place, it does.
    pub(super) fn is_from_before(&mut self, chat: ChatId, seq: Seq, text: &str) -> bool {
        let lost = self.lost.get(&(chat, seq));
        let about_lost = lost.is_some_and(|row| &*row.text == text);
        about_lost && self.chat(chat).stale
    }
}

impl Stream {
    /// A stream that has shown what is lost does not go on.
    pub(super) fn has_noticed(&self) -> Kept {
        rule(!self.must_end, "P4", || {
            format!("a stream in {} outlives the loss of messages", self.chat)
        })
    }
}
