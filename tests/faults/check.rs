//! Holds a record against the history: P1, P2, P3, P4 and P5 as verdicts.

use std::collections::{HashMap, HashSet};

use super::record::{Attempt, Histories, Line, Record};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// P1: acknowledged, and not in the history.
    Lost {
        id: String,
    },
    /// P1: acknowledged as one seq, stored or acknowledged again as another.
    Moved {
        id: String,
    },
    /// P2: the history has a seq where another should be.
    NotDense {
        chat: i64,
        seq: i64,
        expected: i64,
    },
    /// P3: nobody has sent this.
    Phantom {
        chat: i64,
        seq: i64,
    },
    /// P5: the same post again.
    Twice {
        chat: i64,
        seq: i64,
    },
    /// Never answered for good, although it was tried until the end.
    Unsettled {
        id: String,
    },
    /// P5: a duplicate of nothing.
    NoOriginal {
        id: String,
    },
    /// P10: answered as refused, and stored.
    RefusedYetStored {
        id: String,
    },
    /// P2, P3: a reader saw what the history does not say.
    SeenOtherwise {
        user: String,
        seq: i64,
    },
    /// P4: a gap, a repetition, or another order.
    SeenOutOfOrder {
        user: String,
        seq: i64,
    },
    /// P4: a reader that stayed did not see the end.
    SeenTooLittle {
        user: String,
        last: i64,
    },
    Fault(String),
}

/// Everything wrong with what was recorded. `behind` is how many of the newest
/// messages a reader that stayed need not have seen.
pub fn check(record: &Record, histories: &Histories, behind: i64) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = record.faults.iter().cloned().map(Verdict::Fault).collect();
    let sent: HashSet<(i64, &str, &str)> = record.attempts.iter().map(key).collect();
    let mut stored: HashMap<(i64, &str, &str), i64> = HashMap::new();
    for (&chat, lines) in histories {
        for (line, expected) in lines.iter().zip(1..) {
            let seq = line.seq;
            if seq != expected {
                verdicts.push(Verdict::NotDense {
                    chat,
                    seq,
                    expected,
                });
            }
            let key = (chat, &*line.from, &*line.text);
            if !sent.contains(&key) {
                verdicts.push(Verdict::Phantom { chat, seq });
            }
            if stored.insert(key, seq).is_some() {
                verdicts.push(Verdict::Twice { chat, seq });
            }
        }
    }
    for attempt in &record.attempts {
        check_attempt(attempt, stored.get(&key(attempt)).copied(), &mut verdicts);
    }
    let none = Vec::new();
    for seen in &record.seen {
        let history = histories.get(&seen.chat).unwrap_or(&none);
        let user = || seen.user.clone();
        let mut last = seen.after;
        for line in &seen.lines {
            let seq = line.seq;
            if last.is_some_and(|last| seq != last + 1) {
                verdicts.push(Verdict::SeenOutOfOrder { user: user(), seq });
            }
            last = Some(seq);
            let at = usize::try_from(seq - 1).unwrap_or(usize::MAX);
            if history.get(at) != Some(line) {
                verdicts.push(Verdict::SeenOtherwise { user: user(), seq });
            }
        }
        // One that began "from now on" may have come after the last message.
        let last = last.unwrap_or(i64::MAX);
        let end = history.last().map_or(0, |line: &Line| line.seq);
        if seen.stays && last < end - behind {
            verdicts.push(Verdict::SeenTooLittle { user: user(), last });
        }
    }
    verdicts
}

fn check_attempt(attempt: &Attempt, stored: Option<i64>, verdicts: &mut Vec<Verdict>) {
    let id = || attempt.id.clone();
    match (attempt.acks.first(), stored) {
        (Some(_), None) => verdicts.push(Verdict::Lost { id: id() }),
        (Some(_), Some(seq)) if attempt.acks.iter().any(|ack| ack.seq != seq) => {
            verdicts.push(Verdict::Moved { id: id() });
        }
        (None, _) if !attempt.refused => verdicts.push(Verdict::Unsettled { id: id() }),
        _ => {}
    }
    if attempt.acks.first().is_some_and(|ack| ack.duplicate) && attempt.failures.is_empty() {
        verdicts.push(Verdict::NoOriginal { id: id() });
    }
    if attempt.refused && stored.is_some() {
        verdicts.push(Verdict::RefusedYetStored { id: id() });
    }
}

fn key(attempt: &Attempt) -> (i64, &str, &str) {
    (attempt.chat, &attempt.from, &attempt.text)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::{
        super::record::{Ack, Seen},
        *,
    };

    const CHAT: i64 = 7;

    fn line(seq: i64) -> Line {
        Line {
            seq,
            from: "ann".into(),
            text: format!("text {seq}"),
        }
    }

    /// Three messages, acknowledged and seen; the second was tried twice.
    fn good() -> (Record, Histories) {
        let attempts = (1..=3).map(|seq| Attempt {
            chat: CHAT,
            from: "ann".into(),
            id: format!("id {seq}"),
            text: format!("text {seq}"),
            acks: vec![Ack {
                seq,
                duplicate: seq == 2,
            }],
            failures: vec![Code::Unavailable; usize::from(seq == 2)],
            refused: false,
        });
        let seen = |user: &str, after, from: i64| Seen {
            chat: CHAT,
            user: user.into(),
            after,
            lines: (from..=3).map(line).collect(),
            stays: true,
            ..Default::default()
        };
        let record = Record {
            attempts: attempts.collect(),
            seen: vec![seen("bob", Some(0), 1), seen("eve", None, 2)],
            ..Default::default()
        };
        (record, [(CHAT, (1..=3).map(line).collect())].into())
    }

    /// What the checker says once `doctor` was there.
    fn verdicts(doctor: impl FnOnce(&mut Record, &mut Vec<Line>)) -> Vec<Verdict> {
        let (mut record, mut histories) = good();
        doctor(&mut record, histories.get_mut(&CHAT).unwrap());
        check(&record, &histories, 0)
    }

    fn id(id: &str) -> String {
        id.into()
    }

    #[test]
    fn a_good_record_passes() {
        assert_eq!(verdicts(|_, _| {}), []);
    }

    #[test]
    fn a_lost_message_is_found() {
        let found = verdicts(|record, history| {
            history.pop();
            record.seen.clear();
        });
        assert_eq!(found, [Verdict::Lost { id: id("id 3") }]);
    }

    #[test]
    fn an_acknowledgement_of_another_seq_is_found() {
        let moved = [Verdict::Moved { id: id("id 1") }];
        assert_eq!(verdicts(|r, _| r.attempts[0].acks[0].seq = 2), moved);
        let again = Ack {
            seq: 4,
            duplicate: true,
        };
        assert_eq!(verdicts(|r, _| r.attempts[0].acks.push(again)), moved);
    }

    #[test]
    fn a_hole_is_found() {
        let found = verdicts(|record, history| {
            history[2].seq = 4;
            record.attempts[2].acks[0].seq = 4;
            record.seen.clear();
        });
        let hole = Verdict::NotDense {
            chat: CHAT,
            seq: 4,
            expected: 3,
        };
        assert_eq!(found, [hole]);
    }

    #[test]
    fn a_phantom_is_found() {
        let found = verdicts(|record, history| {
            history.push(line(4));
            record.seen.clear();
        });
        assert_eq!(found, [Verdict::Phantom { chat: CHAT, seq: 4 }]);
    }

    #[test]
    fn a_double_is_found() {
        let found = verdicts(|record, history| {
            history.push(Line { seq: 4, ..line(3) });
            record.attempts[2].acks[0].seq = 4;
            record.seen.clear();
        });
        assert_eq!(found, [Verdict::Twice { chat: CHAT, seq: 4 }]);
    }

    #[test]
    fn an_unanswered_send_is_found() {
        let found = verdicts(|record, _| record.attempts[0].acks.clear());
        assert_eq!(found, [Verdict::Unsettled { id: id("id 1") }]);
    }

    #[test]
    fn a_duplicate_of_nothing_is_found() {
        let found = verdicts(|record, _| record.attempts[1].failures.clear());
        assert_eq!(found, [Verdict::NoOriginal { id: id("id 2") }]);
    }

    #[test]
    fn a_refused_message_that_is_stored_is_found() {
        let found = verdicts(|record, _| {
            record.attempts[0].acks.clear();
            record.attempts[0].refused = true;
        });
        assert_eq!(found, [Verdict::RefusedYetStored { id: id("id 1") }]);
    }

    #[test]
    fn a_reader_that_saw_something_else_is_found() {
        let found = verdicts(|record, _| record.seen[0].lines[1].text = "other".into());
        let user = id("bob");
        assert_eq!(found, [Verdict::SeenOtherwise { user, seq: 2 }]);
        let found = verdicts(|record, _| record.seen[0].lines.push(line(4)));
        let user = id("bob");
        assert_eq!(found, [Verdict::SeenOtherwise { user, seq: 4 }]);
    }

    #[test]
    fn a_readers_gap_repetition_or_disorder_is_found() {
        let out_of_order = |user: &str, seqs: &[i64]| -> Vec<Verdict> {
            let at = |seq: &i64| Verdict::SeenOutOfOrder {
                user: user.into(),
                seq: *seq,
            };
            seqs.iter().map(at).collect()
        };
        let gap = verdicts(|record, _| drop(record.seen[0].lines.remove(0)));
        assert_eq!(gap, out_of_order("bob", &[2]));
        let again = verdicts(|record, _| record.seen[1].lines.push(line(3)));
        assert_eq!(again, out_of_order("eve", &[3]));
        let swapped = verdicts(|record, _| record.seen[0].lines.swap(0, 1));
        assert_eq!(swapped, out_of_order("bob", &[2, 1, 3]));
    }

    #[test]
    fn a_reader_that_did_not_get_to_the_end_is_found() {
        let found = verdicts(|record, _| drop(record.seen[0].lines.pop()));
        let user = id("bob");
        assert_eq!(found, [Verdict::SeenTooLittle { user, last: 2 }]);
        let left = verdicts(|record, _| {
            record.seen[0].lines.pop();
            record.seen[0].stays = false;
        });
        assert_eq!(left, []);
    }

    #[test]
    fn a_fault_is_passed_on() {
        let found = verdicts(|record, _| record.faults.push("hung".into()));
        assert_eq!(found, [Verdict::Fault("hung".into())]);
    }
}
