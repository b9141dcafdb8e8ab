//! Who of a cluster's nodes is alive, as one of them sees it.
//!
//! Each node adds one to its beat in the database, and reads the others' beats in the same
//! answer. No clock is compared with another: a node is taken for dead if its beat has
//! stood still for a while *of ours* in which we have been answered again and again, so
//! that it had the same chance. While the database is away nobody is answered, and what was
//! counted before the outage does not count after it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::domain::NodeId;

/// How often a node adds one to its beat.
pub const BEAT: Duration = Duration::from_millis(500);

/// A beat that is answered so long after the one before begins the counting anew: we, or
/// the database, were away, and the others may not have had their chance.
pub const LATE: Duration = Duration::from_millis(1_500);

/// So many beats of ours have to see another's standing still.
pub const BEATS: u32 = 5;

/// Where a node stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may own partitions.
    Up,
    /// It is to own nothing as long as others can, and serves its clients.
    Drained,
    /// It stops: it owns what it has not handed over yet, and gets nothing any more.
    Leaving,
    /// It was declared dead. Whatever it began to write before may still be under way.
    Gone,
    /// It is gone, and nothing of it is under way: its partitions may be taken.
    Fenced,
}

impl State {
    const NAMES: [(Self, &str); 5] = [
        (Self::Up, "up"),
        (Self::Drained, "drained"),
        (Self::Leaving, "leaving"),
        (Self::Gone, "gone"),
        (Self::Fenced, "fenced"),
    ];

    /// What it is called in the database, and to people.
    pub fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter().filter(|(state, _)| *state == self);
        names.next().map_or("", |(_, name)| name)
    }

    /// The state of this name, if there is one.
    pub fn of_name(name: &str) -> Option<Self> {
        let mut named = Self::NAMES.iter().filter(|(_, known)| *known == name);
        named.next().map(|(state, _)| *state)
    }

    /// It runs, as far as anybody has said.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Up | Self::Drained | Self::Leaving)
    }
}

/// A node's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRow {
    pub id: NodeId,
    /// Grows by one with each beat.
    pub beat: i64,
    pub state: State,
    /// It can be reached by the bus.
    pub on_bus: bool,
}

/// A node that is to be declared gone if its beat is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub node: NodeId,
    pub beat: i64,
}

/// Watches the beats of the other nodes.
#[derive(Debug)]
pub struct Observer {
    me: NodeId,
    /// How long a beat stands still before its node is declared gone.
    timeout: Duration,
    /// [`LATE`].
    pub(super) late: Duration,
    last: Option<Instant>,
    seen: BTreeMap<NodeId, Seen>,
}

#[derive(Debug)]
struct Seen {
    beat: i64,
    since: Instant,
    /// Beats of ours that found it so, one after the other.
    times: u32,
}

impl Observer {
    pub fn new(me: NodeId, timeout: Duration) -> Self {
        Self {
            me,
            timeout,
            late: LATE,
            last: None,
            seen: BTreeMap::new(),
        }
    }

    /// Takes in what a beat of ours has read at `now`, which is when it was answered, and
    /// says who is to be declared gone. The node that comes first by weight judges first,
    /// each other one beat later than the one before it, so that mostly one does.
    pub fn beat(&mut self, rows: &[NodeRow], now: Instant) -> Vec<Verdict> {
        let is_late = |last: Instant| now.duration_since(last) > self.late;
        if self.last.replace(now).is_none_or(is_late) {
            self.seen.clear();
        }
        let is_watched = |row: &&NodeRow| row.id != self.me && row.state.is_alive();
        let watched: BTreeMap<NodeId, i64> = rows
            .iter()
            .filter(is_watched)
            .map(|row| (row.id, row.beat))
            .collect();
        self.seen.retain(|node, _| watched.contains_key(node));
        for (node, beat) in watched {
            let seen = self.seen.entry(node).or_insert(Seen {
                beat,
                since: now,
                times: 0,
            });
            if seen.beat != beat {
                (seen.beat, seen.since, seen.times) = (beat, now, 0);
            } else if seen.since != now {
                seen.times += 1;
            }
        }
        let is_dead = |(node, seen): &(&NodeId, &Seen)| {
            let turn = BEAT * self.turn(rows, **node);
            // An answer is a little earlier or later than the one before it.
            let stood = now.duration_since(seen.since) + BEAT / 2;
            seen.times >= BEATS && stood >= self.timeout + turn
        };
        let dead = self.seen.iter().filter(is_dead);
        dead.map(|(node, seen)| Verdict {
            node: *node,
            beat: seen.beat,
        })
        .collect()
    }

    /// How many living nodes judge this one before us.
    fn turn(&self, rows: &[NodeRow], node: NodeId) -> u32 {
        let about = node.0 as u64;
        let ours = (self.me.weight(about), self.me);
        let is_before = |row: &&NodeRow| {
            row.state == State::Up && row.id != node && (row.id.weight(about), row.id) > ours
        };
        rows.iter().filter(is_before).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(2_500);

    fn row(id: i64, beat: i64) -> NodeRow {
        NodeRow {
            id: NodeId(id),
            beat,
            state: State::Up,
            on_bus: true,
        }
    }

    /// When the observer, which beats every `pace`, gives its verdict on node 2, which
    /// has stopped; within 20 beats.
    fn verdict(observer: &mut Observer, start: Instant, pace: Duration) -> Option<Duration> {
        let mut now = start;
        for beat in 0..20 {
            let found = observer.beat(&[row(1, beat), row(2, 7)], now);
            if let [Verdict { node, beat: 7 }] = *found {
                assert_eq!(node, NodeId(2));
                return Some(now - start);
            }
            assert_eq!(found, []);
            now += pace;
        }
        None
    }

    #[test]
    fn whose_beat_stands_still_is_declared_gone() {
        let start = Instant::now();
        let took = verdict(&mut Observer::new(NodeId(1), TIMEOUT), start, BEAT);
        assert_eq!(took, Some(TIMEOUT));
        // Few beats are not enough, however long they take.
        let slow = Duration::from_millis(1_400);
        let took = verdict(&mut Observer::new(NodeId(1), TIMEOUT), start, slow);
        assert_eq!(took, Some(slow * BEATS));
    }

    #[test]
    fn an_outage_declares_nobody_gone() {
        let mut observer = Observer::new(NodeId(1), TIMEOUT);
        let late = LATE + Duration::from_millis(1);
        assert_eq!(verdict(&mut observer, Instant::now(), late), None);
        // Nor does the first beat after one.
        let mut now = Instant::now();
        let mut observer = Observer::new(NodeId(1), TIMEOUT);
        for beat in 0..5 {
            assert_eq!(observer.beat(&[row(1, beat), row(2, 7)], now), []);
            now += BEAT;
        }
        now += Duration::from_secs(30);
        assert_eq!(observer.beat(&[row(1, 5), row(2, 7)], now), []);
        now += BEAT;
        assert_eq!(observer.beat(&[row(1, 6), row(2, 8)], now), []);
    }

    #[test]
    fn one_judges_and_the_others_wait() {
        let start = Instant::now();
        let took: Vec<Duration> = (1..=3)
            .map(|me| {
                let mut observer = Observer::new(NodeId(me), TIMEOUT);
                let mut now = start;
                for beat in 0.. {
                    let mut rows = vec![row(1, beat), row(2, beat), row(3, beat)];
                    rows.push(row(4, 9));
                    if !observer.beat(&rows, now).is_empty() {
                        break;
                    }
                    now += BEAT;
                }
                now - start
            })
            .collect();
        let mut sorted = took.clone();
        sorted.sort();
        assert_eq!(sorted, [TIMEOUT, TIMEOUT + BEAT, TIMEOUT + 2 * BEAT]);
    }

    #[test]
    fn who_is_gone_is_not_declared_again() {
        let mut observer = Observer::new(NodeId(1), TIMEOUT);
        let mut now = Instant::now();
        for beat in 0..20 {
            let mut other = row(2, 7);
            other.state = State::Gone;
            assert_eq!(observer.beat(&[row(1, beat), other], now), []);
            now += BEAT;
        }
    }
}
