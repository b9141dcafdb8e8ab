//! How far chats and readers have come, for those who choose where to read and
//! for whoever waits until all have read all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The newest seq that anybody knows of, by chat.
    newest: HashMap<i64, i64>,
    /// Of readers that stay: the chat, and the last seq seen, if any was.
    readers: Vec<(i64, Option<i64>)>,
}

impl Progress {
    /// A panic leaves nothing half done here.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn reached(&self, chat: i64, seq: i64) {
        let mut state = self.state();
        let newest = state.newest.entry(chat).or_default();
        *newest = seq.max(*newest);
    }

    /// The chat has lost what was behind `seq`.
    pub fn set_back(&self, chat: i64, seq: i64) {
        self.state().newest.insert(chat, seq);
    }

    pub fn newest(&self, chat: i64) -> i64 {
        self.state().newest.get(&chat).copied().unwrap_or(0)
    }

    /// A reader that will stay; the number is its own.
    pub fn reader(&self, chat: i64) -> usize {
        let mut state = self.state();
        state.readers.push((chat, None));
        state.readers.len() - 1
    }

    pub fn seen(&self, reader: usize, seq: i64) {
        self.state().readers[reader].1 = Some(seq);
    }

    /// Whether every reader of the chat has seen `seq`. One that has seen nothing
    /// yet may have come later, "from now on".
    pub fn all_saw(&self, chat: i64, seq: i64) -> bool {
        let state = self.state();
        let mut readers = state.readers.iter().filter(|(of, _)| *of == chat);
        readers.all(|(_, seen)| seen.is_none_or(|seen| seen >= seq))
    }
}
