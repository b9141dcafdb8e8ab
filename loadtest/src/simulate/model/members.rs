//! P7: who is in and who is out, as far as those outside can tell.

use chat_service::{
    domain::{ChatError, ChatId, Seq, UserName},
    store::ChatRecord,
};

use super::{Kept, Model, rule};

#[derive(Debug, Default)]
pub(super) struct Member {
    /// Additions that are not answered, or whose answer was lost.
    adds: u32,
    /// Additions that were ever asked for.
    all_adds: u32,
    /// Nobody has ever asked to remove this member.
    pub safe: bool,
    /// Removed, and nobody has asked to add it again.
    pub out: bool,
    /// When a removal was asked for, and when it was acknowledged.
    pub removals: Vec<(u64, u64)>,
    pub removal_asked: bool,
}

impl Member {
    pub fn joined() -> Self {
        Self {
            safe: true,
            ..Self::default()
        }
    }

    /// If it is out: how often it had been added before.
    pub fn out_at(&self) -> Option<u32> {
        self.out.then_some(self.all_adds)
    }

    /// Removed for sure since a moment.
    pub fn was_removed_since(&self, tick: u64) -> bool {
        self.removals.iter().any(|(asked, _)| *asked > tick)
    }
}

pub struct RemoveCall {
    asked: u64,
    /// Additions asked for before; `None` if one was under way.
    adds: Option<u32>,
}

impl Model {
    pub(super) fn member(&mut self, chat: ChatId, user: &UserName) -> &mut Member {
        self.members.entry((chat, user.clone())).or_default()
    }

    /// Whether a user who was `out` when a call was made has been so all the time.
    pub(super) fn is_out(&mut self, chat: ChatId, user: &UserName, out: Option<u32>) -> bool {
        out.is_some() && self.member(chat, user).out_at() == out
    }

    pub fn add_asked(&mut self, chat: ChatId, user: &UserName) {
        let member = self.member(chat, user);
        member.adds += 1;
        member.all_adds += 1;
        member.out = false;
    }

    pub fn add_answered(
        &mut self,
        chat: ChatId,
        user: &UserName,
        result: &Result<ChatRecord, ChatError>,
    ) -> Kept {
        let member = self.member(chat, user);
        member.adds -= 1;
        match result {
            Ok(record) => rule(record.members.contains(user), "P7", || {
                format!("{user} is added to {chat} and not there")
            }),
            Err(error) => self.refused(chat, *error),
        }
    }

    pub fn remove_asked(&mut self, chat: ChatId, user: &UserName) -> RemoveCall {
        let asked = self.tick();
        let member = self.member(chat, user);
        member.safe = false;
        member.removal_asked = true;
        let adds = (member.adds == 0).then_some(member.all_adds);
        RemoveCall { asked, adds }
    }

    pub fn remove_answered(
        &mut self,
        chat: ChatId,
        user: &UserName,
        call: &RemoveCall,
        result: &Result<ChatRecord, ChatError>,
    ) -> Kept {
        let now = self.tick();
        match result {
            Ok(record) => {
                self.counts.removals += 1;
                let member = self.member(chat, user);
                member.removals.push((call.asked, now));
                member.out = call.adds == Some(member.all_adds);
                rule(!record.members.contains(user), "P7", || {
                    format!("{user} is removed from {chat} and still there")
                })
            }
            Err(error) => self.refused(chat, *error),
        }
    }

    /// The newest seq of a chat that anybody was told of.
    pub fn known(&mut self, chat: ChatId) -> Seq {
        self.chat(chat).acknowledged
    }

    /// `known` is from before it was asked for.
    pub fn described(
        &mut self,
        chat: ChatId,
        known: Seq,
        result: &Result<ChatRecord, ChatError>,
    ) -> Kept {
        match result {
            Ok(record) => rule(record.last_seq >= self.kept(chat, known), "P1", || {
                format!(
                    "{chat} has {known} and is described with {}",
                    record.last_seq
                )
            }),
            Err(error) => self.refused(chat, *error),
        }
    }

    pub fn delete_asked(&mut self, chat: ChatId) {
        self.chat(chat).end_asked = true;
    }

    pub fn delete_answered(&mut self, chat: ChatId, result: Result<(), ChatError>) -> Kept {
        self.chat(chat).end_acknowledged |= result.is_ok();
        result.or_else(|error| self.refused(chat, error))
    }

    /// What the owner of a chat is not to be told.
    fn refused(&mut self, chat: ChatId, error: ChatError) -> Kept {
        let missing = matches!(error, ChatError::NotMember | ChatError::NotFound);
        let ended = self.chat(chat).end_asked;
        rule(ended || !missing, "P7", || {
            format!("the owner of {chat} is told: {error}")
        })
    }
}
