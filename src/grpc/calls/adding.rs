//! Whom a caller may make a member of a chat.

use super::{Call, Calls};
use crate::{
    auth::Role,
    config::WhoMayAdd,
    domain::{ChatError, ChatId, UserName},
    grpc::status::Problem,
};

impl Calls {
    /// Whether [`Self::may_add`] has anything to ask.
    pub(super) fn asks_whom_to_add(&self, call: &Call) -> bool {
        call.identity.role != Role::Admin && self.limits.who_may_add != WhoMayAdd::Anyone
    }

    /// Refuses who may not change the chat's members, before anything is looked up for
    /// the change.
    pub(super) async fn may_change(&self, call: &Call, chat: ChatId) -> Result<(), Problem> {
        let (record, _) = call.within(self.chats.get(chat, call.caller())).await?;
        match record.created_by == *call.user() {
            true => Ok(()),
            false => Err(ChatError::NotCreator.into()),
        }
    }

    /// Refuses whom the caller may not add; `field` names them. Nothing is said of a
    /// user but that there is no chat with the caller, whose chats the caller can list.
    pub(super) async fn may_add(
        &self,
        call: &Call,
        field: &'static str,
        users: &[UserName],
    ) -> Result<(), Problem> {
        let is_admin = call.identity.role == Role::Admin;
        let mut others = users.iter().filter(|user| *user != call.user());
        match self.limits.who_may_add {
            WhoMayAdd::Anyone => Ok(()),
            _ if is_admin => Ok(()),
            WhoMayAdd::Admin => match others.next() {
                None => Ok(()),
                Some(_) => Err(Problem::may_not_add(field, "only admins may add others")),
            },
            WhoMayAdd::SharesAChat => {
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
        }
    }
}
