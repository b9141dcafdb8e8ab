//! New chats.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::{Call, Calls};
use crate::{
    domain::{ClientChatId, Invalid},
    grpc::{status::Problem, validate},
    proto,
    store::NewChat,
    telemetry::log_limited,
};

impl Calls {
    pub async fn create(
        self: Arc<Self>,
        call: Call,
        request: proto::CreateRequest,
    ) -> Result<proto::CreateResponse, Problem> {
        validate::new_names("authorization", std::slice::from_ref(call.user()))?;
        let client_chat_id = ClientChatId::from_wire(&request.client_chat_id)
            .map_err(|why| Problem::invalid("client_chat_id", &why))?;
        let names = request.info.unwrap_or_default().usernames;
        // Names are not looked at before it is their user's turn.
        let turn = self.turn_to_change(&call, names.len()).await?;
        let others = validate::users("info.usernames", &names, self.limits.max_members)?;
        drop(names);
        validate::new_names("info.usernames", &others)?;
        self.may_add(&call, None, "info.usernames", &others).await?;
        let mut members = vec![call.user().clone()];
        members.extend(others.into_iter().filter(|user| user != call.user()));
        if members.len() > self.limits.max_members {
            let max = self.limits.max_members;
            let why = Invalid(format!("a chat has at most {max} members"));
            return Err(Problem::invalid("info.usernames", &why));
        }
        let chat = NewChat {
            created_by: call.user().clone(),
            created_at: self.clock.wall(),
            members,
            client_chat_id,
        };
        let members = chat.members.len();
        let is_there = self.is_made(&call, &chat).await?;
        // Held until the chat is there, so that it is counted for the next one.
        let counted = match is_there {
            true => None,
            false => self.room_for_a_chat(&call).await?,
        };
        let store = self.store.clone();
        let make = async move { store.create_chat(chat).await };
        let id = call.in_turn((turn, counted), make).await?;
        match is_there {
            true => log_limited!(DEBUG, chat = %id, user = %call.user(), "chat created before"),
            false => log_limited!(INFO, chat = %id, user = %call.user(), members,
                request_id = %call.id.request, trace_id = call.id.trace_id(), "chat created"),
        }
        Ok(proto::CreateResponse { id: id.get() })
    }

    /// Whether the caller has made the chat already. That it stays is not sure before
    /// the store has been told to make it.
    async fn is_made(&self, call: &Call, chat: &NewChat) -> Result<bool, Problem> {
        let Some(id) = &chat.client_chat_id else {
            return Ok(false);
        };
        let made = self.store.made_as(call.user(), id, call.deadline);
        Ok(call.asked(made).await?.is_some())
    }

    /// Whether the caller may have one more chat. Chats are made one after the other by
    /// users who share a turn, and by each user for sure.
    async fn room_for_a_chat(&self, call: &Call) -> Result<Option<OwnedMutexGuard<()>>, Problem> {
        let most = self.limits.max_user_chats;
        if most == 0 {
            return Ok(None);
        }
        let at = self.turns_hash.hash_one(call.user()) as usize % self.turns.len();
        let turn =
            call.within(async { Ok::<_, Problem>(self.turns[at].clone().lock_owned().await) });
        let turn = turn.await?;
        let made = self.store.made_by(call.user(), most, call.deadline);
        match call.asked(made).await? < most {
            true => Ok(Some(turn)),
            false => Err(Problem::too_many_chats(most)),
        }
    }
}
