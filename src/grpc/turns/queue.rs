use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::Newcomer;
use crate::domain::Origin;

/// Between two turns in which strangers that linger read: 1 % of a core.
const LINGERING: Duration = Duration::from_millis(2);

/// Newcomers that wait for their turn.
#[derive(Debug, Default)]
pub struct Queue {
    known: Line,
    strangers: Line,
    lingering: Line,
    /// The last turn was a stranger's.
    stranger_last: bool,
    /// When one that lingers has last read.
    pub lingered: Option<Instant>,
}

/// Those that wait, by where they come from.
#[derive(Debug, Default)]
struct Line {
    waiting: HashMap<Origin, VecDeque<Weak<Newcomer>>, ahash::RandomState>,
    /// Whose turn is next. Each that has somebody waiting is here once.
    next: VecDeque<Origin>,
}

impl Queue {
    pub fn push(&mut self, newcomer: &Arc<Newcomer>) {
        let line = if newcomer.lingers() {
            &mut self.lingering
        } else if newcomer.known.load(Ordering::Relaxed) {
            &mut self.known
        } else {
            &mut self.strangers
        };
        line.push(newcomer.origin, Arc::downgrade(newcomer));
    }

    /// When the next of those that linger may read; `None` if nobody waits to.
    pub fn lingering_due(&self) -> Option<Instant> {
        let waits = !self.lingering.next.is_empty();
        let due = |lingered| lingered + LINGERING;
        waits.then(|| self.lingered.map_or_else(Instant::now, due))
    }

    /// One that lingers may read now.
    pub fn may_linger(&self, now: Instant) -> bool {
        self.lingered
            .is_none_or(|lingered| now >= lingered + LINGERING)
    }

    /// Strangers have every other turn.
    pub fn pop(&mut self, now: Instant) -> Option<Weak<Newcomer>> {
        if !self.lingering.next.is_empty() && self.may_linger(now) {
            return self.lingering.pop();
        }
        let (first, second) = match self.stranger_last {
            true => (&mut self.known, &mut self.strangers),
            false => (&mut self.strangers, &mut self.known),
        };
        if let Some(next) = first.pop() {
            self.stranger_last = !self.stranger_last;
            return Some(next);
        }
        second.pop()
    }
}

impl Line {
    fn push(&mut self, origin: Origin, newcomer: Weak<Newcomer>) {
        let waiting = self.waiting.entry(origin).or_default();
        if waiting.is_empty() {
            self.next.push_back(origin);
        }
        waiting.push_back(newcomer);
    }

    fn pop(&mut self) -> Option<Weak<Newcomer>> {
        let origin = self.next.pop_front()?;
        let waiting = self.waiting.get_mut(&origin)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&origin);
        } else {
            self.next.push_back(origin);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Queue {
        pub fn len(&self) -> usize {
            let waiting = self.lines().flat_map(|line| line.waiting.values());
            waiting.map(VecDeque::len).sum()
        }

        /// Addresses of which anything is kept.
        pub fn origins(&self) -> usize {
            self.lines()
                .map(|line| line.waiting.len() + line.next.len())
                .sum()
        }

        fn lines(&self) -> impl Iterator<Item = &Line> {
            [&self.known, &self.strangers, &self.lingering].into_iter()
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin() {
        let origin = |text: &str| Origin::from(text.parse::<std::net::IpAddr>().unwrap());
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.2"), origin("192.0.2.1"));
    }
}
