//! Whom a caller may make a member of a chat.

use super::{Call, Calls};
use crate::{
    auth::Role,
    config::WhoMayAdd,
    domain::{ChatError, ChatId, UserName},
    grpc::status::Problem,
};

impl Calls {
    /// Refuses whom the caller may not add to the chat, or to a new one; `field` names
    /// them. Nothing is said of a user but that there is no chat with the caller, whose
    /// chats the caller can list; and nothing is looked up for a chat that the caller may
    /// not change.
    pub(super) async fn may_add(
        &self,
        call: &Call,
        chat: Option<ChatId>,
        field: &'static str,
        users: &[UserName],
    ) -> Result<(), Problem> {
        let who = self.limits.who_may_add;
        if who == WhoMayAdd::Anyone || call.identity.role == Role::Admin {
            return Ok(());
        }
        if let Some(chat) = chat {
            self.may_change(call, chat).await?;
        }
        let mut others = users.iter().filter(|user| *user != call.user());
        if who == WhoMayAdd::Admin {
            return match others.next() {
                None => Ok(()),
                Some(_) => Err(Problem::may_not_add(field, "only admins may add others")),
            };
        }
        // One question a user, so that others' reads come in between.
        for other in others {
            let shares = self.store.share_a_chat(call.user(), other, call.deadline);
            if !call.asked(shares).await? {
                let why = format!("{other} is in no chat with you, and can't be added");
                return Err(Problem::may_not_add(field, &why));
            }
        }
        Ok(())
    }

    async fn may_change(&self, call: &Call, chat: ChatId) -> Result<(), Problem> {
        let (record, _) = call.within(self.chats.get(chat, call.caller())).await?;
        match record.created_by == *call.user() {
            true => Ok(()),
            false => Err(ChatError::NotCreator.into()),
        }
    }
}
