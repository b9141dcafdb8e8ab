//! Checks of tokens under way, shared among those they are made for. Whoever floods the
//! server with tokens that nobody has signed has each of them asked about, and the Auth
//! Service answers only so many a second: without shares, everybody else's questions would
//! wait behind all of the flood's.
//!
//! A quarter is kept for those who have shown a good token before, and their turns come
//! first: strangers, from however many addresses, do not stand in their way.
//!
//! An asker may have as many checks under way as are free, so that one who takes all it
//! can have leaves half of them, two leave a third, and so on (the dynamic threshold of
//! Choudhury and Hahne, with a factor of 1). One beyond that waits in the asker's own line.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::Asker;

/// All checks.
#[derive(Debug)]
pub struct Shares(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Of those, only known askers get so many.
    kept: usize,
    lines: HashMap<Asker, Line, ahash::RandomState>,
    /// Askers that have somebody waiting, in the order of their turns: those who are known,
    /// and the others.
    turns: [VecDeque<Asker>; 2],
}

/// What one asker has.
#[derive(Debug, Default)]
struct Line {
    held: usize,
    waiting: VecDeque<oneshot::Sender<Share>>,
}

/// A place for one check, until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    asker: Asker,
}

impl Shares {
    /// Room for `most` checks at a time.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: most,
            kept: most / 4,
            lines: HashMap::default(),
            turns: Default::default(),
        })))
    }

    /// A place, as soon as there is one for this asker. It may be dropped while it waits.
    pub async fn take(self: &Arc<Self>, asker: Asker) -> Option<Share> {
        let waiting = self.state().take(asker);
        match waiting {
            None => Some(self.share(asker)),
            Some(waiting) => waiting.await.ok(),
        }
    }

    /// Gives places to those whose turn it is, as far as there are any.
    fn call(self: &Arc<Self>) {
        loop {
            let next = self.state().next();
            let Some((asker, waiting)) = next else {
                return;
            };
            // Who has gone meanwhile gives it back at once.
            drop(waiting.send(self.share(asker)));
        }
    }

    fn share(self: &Arc<Self>, asker: Asker) -> Share {
        let shares = self.clone();
        Share { shares, asker }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a place, or one in the asker's line.
    fn take(&mut self, asker: Asker) -> Option<oneshot::Receiver<Share>> {
        let free = self.free_for(asker);
        let line = self.lines.entry(asker).or_default();
        if line.waiting.is_empty() && line.held < free {
            line.held += 1;
            self.free -= 1;
            return None;
        }
        if line.waiting.is_empty() {
            self.turns[turn(asker)].push_back(asker);
        }
        let (sender, waiting) = oneshot::channel();
        line.waiting.push_back(sender);
        Some(waiting)
    }

    /// Takes a place for the first whose asker has not got too many.
    fn next(&mut self) -> Option<(Asker, oneshot::Sender<Share>)> {
        (0..self.turns.len()).find_map(|kind| self.next_of(kind))
    }

    fn next_of(&mut self, kind: usize) -> Option<(Asker, oneshot::Sender<Share>)> {
        for _ in 0..self.turns[kind].len() {
            let asker = self.turns[kind].pop_front()?;
            let free = self.free_for(asker);
            let line = self.lines.get_mut(&asker)?;
            while line.waiting.pop_front_if(|one| one.is_closed()).is_some() {}
            let mut next = None;
            if line.held < free
                && let Some(waiting) = line.waiting.pop_front()
            {
                line.held += 1;
                self.free -= 1;
                next = Some((asker, waiting));
            }
            match line.waiting.is_empty() {
                true => self.tidy(asker),
                false => self.turns[kind].push_back(asker),
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn free_for(&self, asker: Asker) -> usize {
        match asker.is_known {
            true => self.free,
            false => self.free.saturating_sub(self.kept),
        }
    }

    fn give_back(&mut self, asker: Asker) {
        self.free += 1;
        if let Some(line) = self.lines.get_mut(&asker) {
            line.held -= 1;
        }
        self.tidy(asker);
    }

    fn tidy(&mut self, asker: Asker) {
        let is_over = |line: &Line| line.held == 0 && line.waiting.is_empty();
        if self.lines.get(&asker).is_some_and(is_over) {
            self.lines.remove(&asker);
        }
    }
}

/// In which of the lines of turns it stands.
fn turn(asker: Asker) -> usize {
    usize::from(!asker.is_known)
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.state().give_back(self.asker);
        self.shares.call();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use futures_util::FutureExt as _;

    use super::*;

    fn asker(last: u8) -> Asker {
        Asker {
            from: Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()),
            is_known: true,
        }
    }

    fn stranger(last: u8) -> Asker {
        Asker {
            is_known: false,
            ..asker(last)
        }
    }

    #[test]
    fn p7_strangers_from_many_addresses_keep_nobody_waiting_who_is_known() {
        let shares = Shares::new(16);
        let take = |asker| shares.take(asker).now_or_never().flatten();
        let strangers: Vec<_> = (0..200).filter_map(|last| take(stranger(last))).collect();
        assert_eq!(strangers.len(), 12);
        let known: Vec<_> = (0..4).filter_map(|last| take(asker(last))).collect();
        assert_eq!(known.len(), 4, "what is kept for them");
        // And then they come first.
        let mut strange = Box::pin(shares.take(stranger(201)));
        assert!(strange.as_mut().now_or_never().is_none());
        let mut late = Box::pin(shares.take(asker(9)));
        assert!(late.as_mut().now_or_never().is_none());
        drop(strangers);
        assert!(late.as_mut().now_or_never().is_some());
        drop(known);
        assert!(strange.as_mut().now_or_never().is_some());
    }

    #[test]
    fn p6_who_floods_leaves_places_for_others() {
        let shares = Shares::new(12);
        let take = |last| shares.take(asker(last)).now_or_never().flatten();
        let mut flood: Vec<_> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(flood.len(), 6);
        let mut second: Vec<_> = std::iter::from_fn(|| take(2)).collect();
        assert_eq!(second.len(), 3);
        assert!(take(3).is_some(), "a third one has its own");
        // Those that did not get a place have gone from their lines since.
        second.clear();
        flood.clear();
        assert!(take(1).is_some());
        let state = shares.state();
        assert_eq!((state.free, state.lines.len()), (12, 0));
        assert!(state.turns.iter().all(VecDeque::is_empty));
    }

    #[tokio::test]
    async fn p6_lines_take_turns_and_those_who_leave_cost_nothing() {
        let shares = Shares::new(2);
        let held = shares.take(asker(1)).await;
        let mut waiting: Vec<_> = [1, 1, 1, 2, 3]
            .into_iter()
            .map(|last| Box::pin(shares.take(asker(last))))
            .collect();
        // The second address has the other place.
        let mut taken: Vec<_> = waiting.iter_mut().map(|one| one.now_or_never()).collect();
        let has_it: Vec<bool> = taken.iter().map(Option::is_some).collect();
        assert_eq!(has_it, [false, false, false, true, false]);
        let third = waiting.pop();
        let mut first = waiting.drain(..3);
        drop(first.next());
        let (next, last) = (first.next(), first.next());
        let (mut third, mut next) = (third.unwrap(), next.unwrap());
        drop(held);
        // The first has gone; its address comes before the third one.
        assert!(third.as_mut().now_or_never().is_none());
        let held = next.as_mut().now_or_never();
        assert!(held.is_some());
        let mut last = last.unwrap();
        drop(held);
        assert!(last.as_mut().now_or_never().is_none(), "it is not its turn");
        assert!(third.as_mut().now_or_never().is_some());
        assert!(last.as_mut().now_or_never().is_some());
        drop(first);
        taken.clear();
        let state = shares.state();
        assert_eq!((state.free, state.lines.len()), (2, 0));
        assert!(state.turns.iter().all(VecDeque::is_empty));
    }
}
