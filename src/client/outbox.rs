//! The lines that were typed and have not come back yet, in the order in which
//! they were typed. Pure: time is an argument.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Lines under way. While it is full, standard input is not read.
pub(super) const CAPACITY: usize = 64;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A key that nobody else makes: 128 random bits.
pub(super) fn random_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// A line, under the key that makes posting it again safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) text: String,
    state: State,
    refusals: u32,
    /// It was posted on a stream that was lost: it may be stored.
    uncertain: bool,
}

impl Line {
    /// A line under a new key.
    pub(super) fn new(text: String) -> Self {
        Self::with_id(random_id(), text)
    }

    pub(super) fn with_id(id: String, text: String) -> Self {
        Self {
            id,
            text,
            state: State::Waiting(None),
            refusals: 0,
            uncertain: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be posted, not before this time.
    Waiting(Option<Instant>),
    /// Posted on the present stream.
    Posted,
}

#[derive(Debug, Default)]
pub(super) struct Outbox(VecDeque<Line>);

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= CAPACITY
    }

    pub(super) fn push(&mut self, line: Line) {
        self.0.push_back(line);
    }

    /// Whether a line may be stored that has not come back.
    pub(super) fn is_uncertain(&self) -> bool {
        self.0.iter().any(|line| line.uncertain)
    }

    /// The stream is gone: whatever has not come back is posted again on the
    /// next one, under the same keys.
    pub(super) fn reconnected(&mut self) {
        for line in &mut self.0 {
            line.uncertain |= line.state == State::Posted || line.refusals > 0;
            line.state = State::Waiting(None);
        }
    }

    /// The next line to post now. Behind a line that waits out a pause the
    /// later ones wait too, or they would overtake it.
    pub(super) fn next(&mut self, now: Instant) -> Option<&Line> {
        let line = self.0.iter_mut().find(|line| line.state != State::Posted)?;
        match line.state {
            State::Waiting(Some(until)) if until > now => None,
            _ => {
                line.state = State::Posted;
                Some(line)
            }
        }
    }

    /// When to call [`Self::next`] again, if a pause is what it waits for.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let line = self.0.iter().find(|line| line.state != State::Posted)?;
        match line.state {
            State::Waiting(until) => until,
            State::Posted => None,
        }
    }

    /// The line has come back, or is given up.
    pub(super) fn done(&mut self, id: &str) -> Option<Line> {
        let at = self.0.iter().position(|line| line.id == id)?;
        self.0.remove(at)
    }

    /// The server refused the line for now. `jitter` is in 0..1.
    pub(super) fn refused(&mut self, id: &str, asked: Duration, now: Instant, jitter: f64) {
        let Some(line) = self.0.iter_mut().find(|line| line.id == id) else {
            return;
        };
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(line.refusals.min(16));
        let pause = pause.max(asked).min(LONGEST_PAUSE);
        line.refusals += 1;
        line.state = State::Waiting(Some(now + pause.mul_f64(1.0 + jitter / 2.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(texts: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        for text in texts {
            outbox.push(Line::new((*text).into()));
        }
        outbox
    }

    fn post_all(outbox: &mut Outbox, now: Instant) -> Vec<(String, String)> {
        let mut posted = Vec::new();
        while let Some(line) = outbox.next(now) {
            posted.push((line.text.clone(), line.id.clone()));
        }
        posted
    }

    #[test]
    fn a_new_stream_gets_the_same_lines_under_the_same_keys() {
        let now = Instant::now();
        let mut outbox = filled(&["a", "b", "c"]);
        let first = post_all(&mut outbox, now);
        assert_eq!(first.len(), 3);
        assert!(outbox.next(now).is_none());

        assert!(outbox.done(&first[1].1).is_some());
        assert!(outbox.done(&first[1].1).is_none());
        assert!(!outbox.is_uncertain());
        outbox.reconnected();
        assert!(outbox.is_uncertain());
        assert_eq!(
            post_all(&mut outbox, now),
            [first[0].clone(), first[2].clone()]
        );
    }

    #[test]
    fn a_refused_line_holds_back_those_behind_it() {
        let now = Instant::now();
        let mut outbox = filled(&["a"]);
        let id = post_all(&mut outbox, now).remove(0).1;
        outbox.refused(&id, Duration::from_secs(2), now, 0.0);
        outbox.push(Line::new("b".into()));
        assert!(outbox.next(now).is_none());
        assert_eq!(outbox.wake_at(), Some(now + Duration::from_secs(2)));

        let texts: Vec<String> = post_all(&mut outbox, now + Duration::from_secs(2))
            .into_iter()
            .map(|(text, _)| text)
            .collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(outbox.wake_at(), None);
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        let now = Instant::now();
        let mut outbox = filled(&["a"]);
        let id = post_all(&mut outbox, now).remove(0).1;
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            outbox.refused(&id, Duration::ZERO, now, 0.99);
            let pause = outbox.wake_at().unwrap() - now;
            assert!(pause >= last && pause <= LONGEST_PAUSE * 3 / 2);
            last = pause;
        }
        assert!(last >= LONGEST_PAUSE);
    }

    #[test]
    fn it_is_full_at_its_capacity() {
        let mut outbox = filled(&["x"; CAPACITY - 1]);
        assert!(!outbox.is_full());
        outbox.push(Line::new("x".into()));
        assert!(outbox.is_full());
    }
}
