//! Everything that is asked of a shard besides posts.

use std::sync::Arc;

use super::{MAX_WAITING_CALLS, Shard, ShardSettings, adjust};
use crate::{
    domain::{ChatError, ChatId, Refusal, Seq, UserName},
    fault::{self, Fault},
    feed::{History, Reader, Slot, Tap},
    shard::{
        active::{Active, Place, refuse},
        elsewhere::Watched,
        handle::{ChatCommand, Command},
    },
};

impl Shard {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Chat(id, command) => self.chat_command(id, command),
            Command::Serve(partitions, feeds, done) => {
                self.serve(&partitions, feeds);
                // Whoever has gone away does not want to know.
                _ = done.send(());
            }
            Command::Leave(partitions, done) => self.leave(&partitions, done),
            Command::Drain(drained) => {
                self.state.draining = true;
                self.state.drained.push(drained);
                self.refuse_waiting();
            }
        }
    }

    /// What waits for a chat to be read, or for a change of it, comes too late: a
    /// stream that joined now would miss the end of all streams (P9). And a chat
    /// that is being read may be so for longer than the drain.
    fn refuse_waiting(&mut self) {
        let chats = self.state.chats.values_mut().map(|place| match place {
            Place::Loading(waiting) => &mut waiting.commands,
            Place::Active(active) => &mut active.waiting,
        });
        let strangers = self.state.strangers.values_mut();
        for waiting in chats.chain(strangers.map(|waiting| &mut waiting.commands)) {
            for command in std::mem::take(waiting) {
                refuse(command, |_| ChatError::Draining);
            }
        }
        self.state.waiting_calls = 0;
    }

    pub(super) fn chat_command(&mut self, id: ChatId, command: ChatCommand) {
        if !self.serves(id) {
            return refuse(command, |_| ChatError::Moved);
        }
        if self.state.draining {
            return refuse(command, |_| ChatError::Draining);
        }
        let now = self.history.clock.now();
        let calls = command.calls();
        let full = self.state.waiting_calls + calls > MAX_WAITING_CALLS;
        let active = match self.state.chats.get_mut(&id) {
            Some(Place::Active(active)) if active.knows(command.asker()) => active,
            _ if full => return refuse_busy(command),
            _ => return self.ask_command(id, command),
        };
        active.touched = now;
        match command {
            ChatCommand::Get { caller, answer } => {
                let seen = active.check_may_see(&caller);
                answer.send(seen.map(|()| (active.chat.record(), active.chat.in_flight())));
            }
            ChatCommand::Watch {
                users,
                call,
                answer,
                ..
            } if !active.is_ending() => {
                let is_none = |user: &UserName| !active.chat.members().contains(user);
                answer.send(Ok(Watched {
                    tap: Tap::new(active.feed.clone(), active.chat.last_seq(), call),
                    last_seq: active.chat.last_seq(),
                    in_flight: active.chat.in_flight(),
                    refused: users.into_iter().filter(is_none).collect(),
                }));
            }
            ChatCommand::Join {
                user,
                after_seq,
                core,
                answer,
            } if !active.is_ending() => {
                let (settings, history) = (self.settings, self.history.clone());
                let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                    return;
                };
                let joined = join(active, user, after_seq, core, settings, history);
                answer.send(joined);
            }
            command if active.change.is_some() => {
                if full {
                    return refuse_busy(command);
                }
                active.waiting.push(command);
                self.state.waiting_calls += calls;
            }
            command => {
                let max = self.settings.max_members;
                let store = self.history.store.clone();
                let Some(Place::Active(active)) = self.state.chats.get_mut(&id) else {
                    return;
                };
                let next = active.begin(command, max, &store, self.state.lineage.number);
                if active.is_ending() {
                    let before = active.chat.load();
                    let effects = &mut self.state.effects;
                    active.chat.refuse_queued(Refusal::Unavailable, effects);
                    adjust(&mut self.state.load, before, active.chat.load());
                    self.answer_effects();
                }
                self.go_on(id, next);
            }
        }
    }
}

fn join(
    active: &Active,
    user: UserName,
    after_seq: Option<Seq>,
    core: usize,
    settings: ShardSettings,
    history: Arc<History>,
) -> Result<Reader, ChatError> {
    let member = active.chat.members().contains(&user);
    if !member && !fault::is_on(Fault::SkipMembership) {
        return Err(ChatError::NotMember);
    }
    let last_seq = active.chat.last_seq();
    let cursor = after_seq.unwrap_or(last_seq);
    // A commit shows in history before its answer is here, so a reader may have
    // seen what is still with the writer.
    if cursor > last_seq + active.chat.in_flight() as Seq {
        return Err(ChatError::AheadOfChat { last_seq });
    }
    let slot = Arc::new(Slot::new(user, settings.stream_posts));
    let feed = active.feed.clone();
    Ok(Reader::join(feed, slot, core, cursor, history))
}

fn refuse_busy(command: ChatCommand) {
    let queue = "commands on a chat";
    refuse(command, |_| ChatError::Busy { queue });
}
