//! Changes of a chat itself: its members, its end. The store has them before
//! the chat does, one at a time.

use std::{future::Future, sync::Arc};

use super::{
    active::{Active, Change, Trust},
    callers::Answer,
    handle::ChatCommand,
    reads::{StoreAnswer, StoreCall, reread},
};
use crate::{
    domain::{ChatError, ChatId, Clock, Row, UserName},
    feed::{End, History},
    store::{ChatRecord, Store, StoreError, StoreResult},
    telemetry::{chain, log_limited},
};

/// What the shard is to do about a change.
pub(super) enum Next {
    Nothing,
    Call(StoreCall),
    /// The chat is gone; its readers have been told, not yet woken.
    Gone(End),
}

impl Active {
    /// Checks a command that changes the chat, and begins it; what is known of the
    /// chat is so as of this lineage of the store.
    pub fn begin(
        &mut self,
        command: ChatCommand,
        max_members: usize,
        store: &Arc<dyn Store>,
        as_of: u64,
    ) -> Next {
        let chat = self.chat.id();
        let store = store.clone();
        match command {
            ChatCommand::AddMembers {
                caller,
                users,
                answer,
            } => {
                let users = self.chat.members().missing(&users);
                let members = self.chat.members().in_order().len() + users.len();
                let allowed = self.check_may_change(&caller).and_then(|()| {
                    let max = max_members;
                    let fits = members <= max || users.is_empty();
                    fits.then_some(()).ok_or(ChatError::TooManyMembers { max })
                });
                match allowed {
                    Err(error) => self.answer(answer, Err(error)),
                    Ok(()) if users.is_empty() => self.answer(answer, Ok((self.chat.record(), 0))),
                    Ok(()) => {
                        let added = users.clone();
                        self.change = Some(Change::Add { users, answer });
                        call(chat, async move {
                            store.add_members(chat, added, Some(as_of)).await
                        })
                    }
                }
            }
            ChatCommand::RemoveMembers {
                caller,
                users,
                answer,
            } => {
                let allowed = self.check_may_remove(&caller, &users);
                let mut users = users;
                users.retain(|user| self.chat.members().contains(user));
                match allowed {
                    Err(error) => self.answer(answer, Err(error)),
                    Ok(()) if users.is_empty() => self.answer(answer, Ok((self.chat.record(), 0))),
                    Ok(()) => {
                        let removed = users.clone();
                        self.change = Some(Change::Remove { users, answer });
                        call(chat, async move {
                            store.remove_members(chat, removed, Some(as_of)).await
                        })
                    }
                }
            }
            ChatCommand::Delete { caller, answer } => match self.check_may_change(&caller) {
                Err(error) => self.answer(answer, Err(error)),
                Ok(()) => {
                    self.change = Some(Change::Delete {
                        begun: false,
                        as_of,
                        answer,
                    });
                    self.begin_deletion(&store)
                }
            },
            ChatCommand::Join { .. } | ChatCommand::Watch { .. } | ChatCommand::Get { .. } => {
                Next::Nothing
            }
        }
    }

    fn answer<T>(&self, answer: Answer<T>, result: Result<T, ChatError>) -> Next {
        answer.send(result);
        Next::Nothing
    }

    /// Has the chat read again, as another server may have changed it. A change
    /// under way will find out by itself.
    pub fn reload(&mut self, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) -> Next {
        if self.change.is_some() {
            return self.begin_deletion(store);
        }
        let doubted = self.trust == Trust::Doubted;
        let newest = doubted.then(|| self.chat.newest()).flatten();
        if doubted {
            self.trust = Trust::Asked;
        }
        self.change = Some(Change::Reload { doubted, newest });
        Next::Call(reread(self.chat.id(), newest, store.clone(), clock.clone()))
    }

    /// Lets a deletion that waits for the writer go on, if it can.
    pub fn begin_deletion(&mut self, store: &Arc<dyn Store>) -> Next {
        let chat = self.chat.id();
        if self.chat.has_in_flight() {
            return Next::Nothing;
        }
        match &mut self.change {
            Some(Change::Gone(end)) => {
                self.feed.end(*end);
                Next::Gone(*end)
            }
            Some(Change::Delete { begun, as_of, .. }) if !*begun => {
                *begun = true;
                let (store, as_of) = (store.clone(), Some(*as_of));
                call(chat, async move {
                    store.delete_chat(chat, as_of).await.map(|_| ())
                })
            }
            _ => Next::Nothing,
        }
    }

    /// Takes in what the store said to the change under way.
    pub fn changed(
        &mut self,
        result: StoreResult<()>,
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
    ) -> Next {
        let Some(change) = self.change.take() else {
            return Next::Nothing;
        };
        if let Err(error) = &result {
            log_limited!(WARN, chat = %self.chat.id(), error = %chain(error), "change of a chat failed");
        }
        let unknown = matches!(result, Err(StoreError::OutcomeUnknown(_)));
        let result = result.map_err(|_| ChatError::Unavailable);
        match change {
            Change::Add { users, answer } => {
                let result = result.map(|()| {
                    self.chat.members_mut().add(&users);
                    (self.chat.record(), users.len())
                });
                self.answer(answer, result);
            }
            Change::Remove { users, answer } => {
                let result = result.map(|()| {
                    self.remove(&users);
                    (self.chat.record(), users.len())
                });
                self.answer(answer, result);
            }
            Change::Delete { answer, .. } => {
                let gone = result.is_ok();
                self.answer(answer, result);
                if gone {
                    self.feed.end(End::Deleted);
                    return Next::Gone(End::Deleted);
                }
            }
            Change::Reload { .. } | Change::Gone(_) => {}
        }
        if unknown || self.trust == Trust::Doubted {
            return self.reload(store, clock);
        }
        Next::Nothing
    }

    /// Takes in the chat as the store has it.
    pub fn reloaded(&mut self, found: Option<(ChatRecord, Vec<Row>)>, history: &History) -> Next {
        let History {
            store,
            clock,
            metrics,
            ..
        } = history;
        let (doubted, newest) = match self.change.take() {
            Some(Change::Reload { doubted, newest }) => (doubted, newest),
            _ => (false, None),
        };
        // A server that has lost the chat may have given its id again.
        let found = found.filter(|(record, _)| self.chat.is_made_as(record));
        let Some((record, rows)) = found else {
            if doubted {
                let lost = self.chat.last_seq();
                log_limited!(ERROR, chat = %self.chat.id(), lost,
                    "the store has lost a chat, or another server has deleted it");
                metrics.messages_lost(lost as u64);
            }
            self.trust = Trust::Sure;
            self.change = Some(Change::Gone(End::Deleted));
            return self.begin_deletion(store);
        };
        // What was read before the doubt says nothing.
        if self.trust == Trust::Doubted {
            return self.reload(store, clock);
        }
        self.trust = Trust::Sure;
        if let Some(newest) = newest
            && rows.first().is_none_or(|row| (row.seq, row.id) != newest)
        {
            // Others may have filled the places of some.
            let lost = (self.chat.last_seq() - record.last_seq).max(1);
            log_limited!(ERROR, chat = %self.chat.id(), at_least = lost, last_seq = record.last_seq,
                "the store has lost messages that were acknowledged");
            metrics.messages_lost(lost as u64);
            self.change = Some(Change::Gone(End::Lost));
            return self.begin_deletion(store);
        }
        let gone: Vec<UserName> = self
            .chat
            .members()
            .in_order()
            .iter()
            .filter(|user| !record.members.contains(user))
            .cloned()
            .collect();
        let new = self.chat.members().missing(&record.members);
        if doubted && !gone.is_empty() {
            log_limited!(ERROR, chat = %self.chat.id(), no_members = gone.len(),
                "the store has lost members of a chat, or another server has removed them");
        }
        if doubted && !new.is_empty() {
            // It may be the outcome of a change that was under way.
            log_limited!(WARN, chat = %self.chat.id(), members = new.len(),
                "the store has more members of a chat than was known");
        }
        self.remove(&gone);
        self.chat.members_mut().add(&record.members);
        Next::Nothing
    }

    fn remove(&mut self, users: &[UserName]) {
        self.chat.members_mut().remove(users);
        for user in users {
            self.feed.end_user(user, End::Removed);
        }
    }
}

fn call(chat: ChatId, change: impl Future<Output = StoreResult<()>> + Send + 'static) -> Next {
    Next::Call(Box::pin(
        async move { StoreAnswer::Changed(chat, change.await) },
    ))
}
