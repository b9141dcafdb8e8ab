//! P1, P5, P8: posts and their answers.

use std::time::Instant;

use chat_service::domain::{ChatId, Draft, PostResult, Refusal, Row, Seq, UserName};

use super::{Kept, Model, rule};
use crate::simulate::{disk::Disk, store::REFUSED};

/// One text, which nobody else ever posts.
#[derive(Debug)]
pub struct Said {
    keyed: bool,
    /// Calls that may yet have it stored: not answered, or not clearly.
    possible: u32,
    /// Where it was stored last.
    stored: Option<Seq>,
}

/// A post that waits for its answer.
#[derive(Debug, Clone)]
pub struct PostCall {
    pub id: u64,
    pub chat: ChatId,
    pub from: UserName,
    pub draft: Draft,
    /// See [`Model::is_out`].
    out: Option<u32>,
    ended: bool,
}

impl Said {
    /// It is lost where it was stored.
    pub(super) fn forget(&mut self, seq: Seq) {
        if self.stored == Some(seq) {
            self.stored = None;
        }
    }
}

impl Model {
    pub fn post_asked(
        &mut self,
        chat: ChatId,
        from: &UserName,
        draft: &Draft,
        due: Instant,
    ) -> PostCall {
        self.counts.posts += 1;
        self.may_be_stored(draft);
        if draft.client_message_id.is_some() {
            let twins = self.twins.entry(chat).or_default();
            twins.push((from.clone(), draft.clone()));
            if twins.len() > 4 {
                twins.remove(0);
            }
        }
        PostCall {
            id: self.opened(format!("post {:?}", draft.text), due),
            chat,
            from: from.clone(),
            draft: draft.clone(),
            out: self.member(chat, from).out_at(),
            ended: self.chat(chat).end_acknowledged,
        }
    }

    pub(super) fn may_be_stored(&mut self, draft: &Draft) {
        let said = self.said.entry(draft.text.clone()).or_insert(Said {
            keyed: draft.client_message_id.is_some(),
            possible: 0,
            stored: None,
        });
        said.possible += 1;
    }

    pub fn post_answered(&mut self, call: &PostCall, result: &PostResult, disk: &Disk) -> Kept {
        rule(!(call.ended && result.is_ok()), "P7", || {
            format!("a post to {} is stored after its end", call.chat)
        })?;
        let out = self.is_out(call.chat, &call.from, call.out);
        rule(!(out && result.is_ok()), "P7", || {
            format!("{} is removed from {} and posts", call.from, call.chat)
        })?;
        self.outcome(call.chat, &call.from, &call.draft, result, disk)
    }

    /// What an answer says, whichever way it came.
    pub(super) fn outcome(
        &mut self,
        chat: ChatId,
        from: &UserName,
        draft: &Draft,
        result: &PostResult,
        disk: &Disk,
    ) -> Kept {
        match result {
            Ok(receipt) if self.is_from_before(chat, receipt.seq, &draft.text) => Ok(()),
            Ok(receipt) => {
                self.counts.acknowledged += 1;
                self.counts.duplicates += u64::from(receipt.duplicate);
                let known = self.chat(chat);
                known.acknowledged = known.acknowledged.max(receipt.seq);
                let row = disk.chats.get(&chat).and_then(|chat| chat.row(receipt.seq));
                let Some(row) = row else {
                    return rule(false, "P1", || {
                        format!("{chat}:{} is acknowledged and not committed", receipt.seq)
                    });
                };
                let same = row.text == draft.text
                    && row.from == *from
                    && row.client_message_id == draft.client_message_id
                    && row.created_at == receipt.created_at;
                rule(same, "P1", || {
                    format!("{:?} is acknowledged as {row:?}", draft.text)
                })?;
                self.show(row, "P1", disk)
            }
            Err(Refusal::OutcomeUnknown) => {
                self.counts.unknown += 1;
                Ok(())
            }
            Err(refusal) => {
                self.counts.refused += 1;
                if let Some(said) = self.said.get_mut(&draft.text) {
                    said.possible -= 1;
                }
                self.check_refusal(chat, from, draft, refusal)
            }
        }
    }

    fn check_refusal(
        &mut self,
        chat: ChatId,
        from: &UserName,
        draft: &Draft,
        refusal: &Refusal,
    ) -> Kept {
        let ended = self.chat(chat).end_asked;
        let safe = self.member(chat, from).safe;
        let draining = self.draining;
        let lost = self.chat(chat).floor.is_some();
        let fair = match refusal {
            Refusal::NotMember => ended || !safe,
            Refusal::Refused => draft.text.starts_with(REFUSED),
            Refusal::Draining => draining,
            Refusal::Lost => lost,
            Refusal::Invalid { .. } | Refusal::TooFast { .. } => false,
            _ => true,
        };
        rule(fair, "P10", || {
            format!("{from}'s post {:?} to {chat}: {refusal}", draft.text)
        })
    }

    /// P5: a retry within the window is stored once. And what was answered with
    /// a clear no is not stored at all.
    pub(super) fn stored(&mut self, row: &Row, foreign: bool) -> Kept {
        let window = self.window as Seq;
        let Some(said) = self.said.get_mut(&row.text) else {
            return rule(foreign, "P3", || format!("nobody has posted {row:?}"));
        };
        let before = said.stored.replace(row.seq);
        if foreign {
            // Another server keeps no promise of this one's.
            return Ok(());
        }
        if let Some(before) = before {
            rule(said.keyed && row.seq - before > window, "P5", || {
                format!("{}:{before} is stored again as {}", row.chat, row.seq)
            })?;
        }
        rule(said.possible > 0, "P5", || {
            format!("{:?} was refused and is stored", row.text)
        })
    }
}
