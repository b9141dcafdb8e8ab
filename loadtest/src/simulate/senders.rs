//! Those who post, with ids and deadlines, and again when they are not sure.

use std::time::Duration;

use chat_service::domain::{ChatId, ClientMessageId, Draft, PostResult, Refusal, UserName};
use futures_util::future::join;

use super::{
    mutation::Mutation,
    open::Open,
    plan::owner,
    sim::{Sim, now, sleep},
    store::REFUSED,
};

/// How late an answer may be: what tasks that get their turn late add up to.
const SLACK: Duration = Duration::from_millis(600);

/// Posts that a sender may come back to.
const REMEMBERED: usize = 12;

struct Message {
    chat: ChatId,
    draft: Draft,
}

/// One that nobody has posted before.
pub fn new_draft(sim: &Sim, keyed: bool) -> Draft {
    let state = &mut *sim.state();
    let number = state.model.counts.posts;
    let salt = state.rng.u32(..);
    let refused = if state.rng.u8(..40) == 0 { REFUSED } else { "" };
    let padding = match state.rng.u8(..20) {
        0 => state.rng.usize(..20_000),
        1..5 => state.rng.usize(..300),
        _ => 0,
    };
    let id = format!("m{number}-{salt:x}");
    let text = format!("{refused}{id} {:x<padding$}", "");
    let key = ClientMessageId::from_wire(&id).expect("an id by the rules");
    Draft::message(text, key.filter(|_| keyed))
}

pub async fn run(sim: Sim, user: UserName) {
    let mut recent: Vec<Message> = Vec::new();
    loop {
        sim.while_calm().await;
        let again = sim.one_in(6) && !recent.is_empty();
        let message = if again {
            let at = sim.draw(|rng| rng.usize(..recent.len()));
            recent.swap_remove(at)
        } else {
            let keyed = !sim.one_in(3);
            Message {
                chat: sim.random_chat(),
                draft: new_draft(&sim, keyed),
            }
        };
        let keyed = message.draft.client_message_id.is_some();
        if keyed && sim.one_in(8) {
            // A retry that does not wait for the first to fail.
            join(insist(&sim, &user, &message), insist(&sim, &user, &message)).await;
        } else {
            insist(&sim, &user, &message).await;
        }
        if keyed {
            recent.push(message);
            if recent.len() > REMEMBERED {
                recent.remove(0);
            }
        }
        let rest = sim.state().plan.rest;
        sim.nap(0..rest).await;
    }
}

/// Posts, and again if it has an id and its fate is not clear.
async fn insist(sim: &Sim, user: &UserName, message: &Message) {
    for _ in 0..sim.draw(|rng| rng.u8(1..6)) {
        let timeout = sim.draw(|rng| match rng.u8(..4) {
            0 => rng.u64(1..30),
            1 => rng.u64(..400),
            _ => rng.u64(..5_000),
        });
        let timeout = Duration::from_millis(timeout);
        // Some hang up before.
        let patience = if sim.one_in(10) {
            timeout / 2
        } else {
            timeout * 2 + 2 * SLACK
        };
        let result = post(
            sim,
            message.chat,
            user.clone(),
            &message.draft,
            timeout,
            patience,
        )
        .await;
        let sure = match result {
            None | Some(Err(Refusal::OutcomeUnknown | Refusal::Draining)) => false,
            Some(Err(Refusal::Expired | Refusal::Busy { .. })) => false,
            Some(Err(Refusal::Unavailable | Refusal::Lost)) => false,
            Some(Ok(_)) => !sim.one_in(10),
            Some(Err(_)) => true,
        };
        if sure || message.draft.client_message_id.is_none() || sim.state().calm {
            return;
        }
        sim.nap(1..300).await;
    }
}

/// One call; `None` if nobody answered it, or there was nobody.
async fn post(
    sim: &Sim,
    chat: ChatId,
    from: UserName,
    draft: &Draft,
    timeout: Duration,
    patience: Duration,
) -> Option<PostResult> {
    let Some(server) = sim.server() else {
        sleep(50).await;
        return None;
    };
    let name = format!("post {} by {from}", super::sim::head(&draft.text));
    let (sim, draft) = (sim.clone(), draft.clone());
    let world = sim.clone();
    let call = async move {
        let deadline = now() + timeout;
        let due = deadline + SLACK;
        let call = sim.state().model.post_asked(chat, &from, &draft, due);
        let open = Open::new(&sim, call.id);
        let result = server.chats.post(chat, from, draft, deadline, None).await;
        if sim.state().mutated(Mutation::LosesAnswers) {
            std::future::pending::<()>().await;
        }
        open.answered();
        sim.told(
            &format!("{} {result:?}", super::sim::head(&call.draft.text)),
            |model, disk| model.post_answered(&call, &result, disk),
        );
        result
    };
    world.call(name, patience, call).await
}

/// Posts that must succeed, as all else rests: one to each chat.
pub async fn probe(sim: &Sim) {
    let chats: Vec<ChatId> = sim.state().model.chats().collect();
    for chat in chats {
        let mut draft = new_draft(sim, false);
        draft.text = draft.text.replace(REFUSED, "").into();
        let timeout = Duration::from_secs(20);
        let result = post(sim, chat, owner(), &draft, timeout, timeout * 2).await;
        if !matches!(result, Some(Ok(_))) {
            sim.broken(
                "P8",
                format!("all is well and {chat} takes no post: {result:?}"),
            );
        }
    }
}
