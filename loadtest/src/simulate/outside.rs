//! What comes over a server besides posts and readers: changes of chats, the
//! store's weather, clocks that are set, a second server by mistake.

use std::time::Duration;

use chat_service::{
    domain::{Caller, MessageId, Row, Timestamp},
    store::{Lineage, NewChat},
};

use super::{
    open::Open,
    plan::owner,
    sim::{Sim, brief, now, sleep},
    weather::Weather,
};

/// A change waits for the store, and for the changes before it.
const CHANGE: Duration = Duration::from_secs(300);

/// The most chats that a run has had, so that most are met again.
const MAX_CHATS: usize = 12;

pub fn create_chat(sim: &Sim) {
    let state = &mut *sim.state();
    let users = (0..state.plan.users).map(|at| state.plan.user(at));
    let mut members = vec![owner()];
    members.extend(users);
    let chat = NewChat {
        client_chat_id: None,
        created_by: owner(),
        created_at: Timestamp(0),
        members: members.clone(),
    };
    let chat = state.disk.create(chat);
    state.model.created(chat, &members);
}

/// Adds and removes members, asks, and at times deletes a chat.
pub async fn changes(sim: Sim) {
    loop {
        sim.while_calm().await;
        let rest = sim.state().plan.rest;
        sim.nap(0..rest * 8).await;
        let Some(server) = sim.server() else {
            sleep(50).await;
            continue;
        };
        let chat = sim.random_chat();
        let user = {
            let state = &mut *sim.state();
            state.plan.user(state.rng.usize(..state.plan.users))
        };
        let caller = Caller {
            user: owner(),
            admin: false,
        };
        let chats = server.chats;
        let act = sim.draw(|rng| rng.u8(..32));
        let world = sim.clone();
        let work = async move {
            let sim = world;
            let what = format!("a change of {chat}");
            let id = sim.state().model.opened(what, now() + CHANGE);
            let open = Open::new(&sim, id);
            match act {
                0..12 => {
                    sim.state().model.add_asked(chat, &user);
                    let added = async {
                        let turn = chats.turn_to_change(&caller.user, 1).await?;
                        let users = vec![user.clone()];
                        chats.add_members(chat, caller, users, turn).await
                    };
                    let result = added.await.map(|(record, _)| record);
                    sim.told(
                        &format!("added {user} to {chat}: {}", ok(&result)),
                        |model, _| model.add_answered(chat, &user, &result),
                    );
                }
                12..24 => {
                    let asked = sim.state().model.remove_asked(chat, &user);
                    let removed = async {
                        let turn = chats.turn_to_change(&caller.user, 1).await?;
                        let users = vec![user.clone()];
                        chats.remove_members(chat, caller, users, turn).await
                    };
                    let result = removed.await.map(|(record, _)| record);
                    let what = format!("removed {user} from {chat}: {}", ok(&result));
                    sim.told(&what, |model, _| {
                        model.remove_answered(chat, &user, &asked, &result)
                    });
                }
                24..31 => {
                    let known = sim.state().model.known(chat);
                    let got = chats.get(chat, caller).await;
                    let result = got.map(|(record, _)| record);
                    sim.told(&format!("got {chat}: {}", ok(&result)), |model, _| {
                        model.described(chat, known, &result)
                    });
                }
                _ => {
                    let spare = {
                        let model = &mut sim.state().model;
                        let spare = model.chats().count() > 1;
                        if spare {
                            model.delete_asked(chat);
                        }
                        spare
                    };
                    if spare {
                        let result = chats.delete(chat, caller).await;
                        sim.told(&format!("deleted {chat}: {}", ok(&result)), |model, _| {
                            model.delete_answered(chat, result)
                        });
                    }
                }
            }
            open.answered();
        };
        sim.call("change".into(), 2 * CHANGE, work).await;
        if sim.one_in(40) && sim.state().disk.chats.len() < MAX_CHATS {
            create_chat(&sim);
        }
    }
}

fn ok<T, E: std::fmt::Display>(result: &Result<T, E>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(error) => error.to_string(),
    }
}

pub async fn weather(sim: Sim) {
    loop {
        sim.while_calm().await;
        {
            let state = &mut *sim.state();
            state.weather = Weather::draw(&mut state.rng);
            state.locked.clear();
            if state.rng.u8(..3) == 0 {
                state.locked = state.disk.ids().filter(|_| state.rng.bool()).collect();
            }
            let (weather, locked) = (state.weather, &state.locked);
            state
                .trace
                .note(format!("weather: {weather:?}, locked: {locked:?}"));
        }
        sim.nap(100..6_000).await;
    }
}

/// The database is away for a while, and then another server of it answers, which
/// has not got the newest commits, nor those that were under way.
pub async fn take_over(sim: &Sim) {
    {
        let state = &mut *sim.state();
        state.weather = Weather::Down;
        // Not always is a connection lost before another is made.
        let in_doubt = state.rng.bool();
        let doubt = |lineage: &mut Lineage| lineage.in_doubt = in_doubt;
        state.lineage.send_modify(doubt);
    }
    sim.nap(0..3_000).await;
    let state = &mut *sim.state();
    state.settle();
    let commits = state.rng.usize(..8);
    let lost = state.disk.take_over(commits);
    let rows: Vec<String> = lost.iter().map(brief).collect();
    state.trace.note(format!("a takeover loses {rows:?}"));
    state.model.took_over(lost);
    state.lineage.send_modify(|lineage| {
        lineage.number += 1;
        lineage.in_doubt = false;
    });
    state.weather = Weather::Rough;
}

/// The wall clock is set forth and back by up to a minute.
pub async fn clock(sim: Sim) {
    loop {
        sim.nap(500..10_000).await;
        let state = &mut *sim.state();
        state.wall = state.rng.i64(-60_000_000..60_000_000);
    }
}

/// Another server on the same store, which knows nothing of this one. It posts
/// what some client of ours may be posting here too, and at times ends a chat.
pub async fn second_server(sim: Sim) {
    if !sim.state().plan.foreign {
        return;
    }
    loop {
        sim.while_calm().await;
        sim.nap(1..4_000).await;
        let chat = sim.random_chat();
        let state = &mut *sim.state();
        if state.calm {
            continue;
        }
        state.settle();
        if state.rng.u8(..60) == 0 && state.model.chats().count() > 1 {
            state
                .trace
                .note(format!("the second server deletes {chat}"));
            state.model.delete_asked(chat);
            if let Some(chat) = state.disk.chat_mut(chat) {
                chat.deleted = true;
            }
            continue;
        }
        for _ in 0..state.rng.u8(1..4) {
            let Some(found) = state.disk.chat(chat) else {
                break;
            };
            let seq = found.last_seq() + 1;
            let before = found
                .rows()
                .last()
                .map_or(Timestamp(0), |row| row.created_at);
            let theirs = state.model.posted_to(chat);
            let twin = state.rng.choice(theirs).filter(|_| state.rng.bool());
            let (from, draft) = match twin {
                Some(twin) => twin,
                None => {
                    let id = format!("foreign {:x}", state.rng.u64(..));
                    (owner(), chat_service::domain::Draft::message(id, None))
                }
            };
            let row = Row {
                chat,
                seq,
                id: MessageId(state.rng.i64(..)),
                from,
                text: draft.text,
                client_message_id: draft.client_message_id,
                created_at: before,
                number: seq,
                change: None,
            };
            state.disk.commit(&[row], true);
            state.settle();
        }
    }
}
