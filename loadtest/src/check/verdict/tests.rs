//! Each verdict, from one doctored place of an otherwise clean record.

use super::*;
use crate::check::record::{Ack, Loss, Removal};

const CHAT: i64 = 7;
const MEMBER: usize = 0;
const LIVE: usize = 1;
const PAGE: usize = 2;
const STRANGER: usize = 3;

fn op(count: u32) -> Op {
    Op::new(1, count)
}

/// The message number `seq`: sent at 100 times that, stored 10 later, known 20
/// later, seen 30 later.
fn message(seq: i64) -> Message {
    Message {
        at: 100 * seq as u64 + 30,
        seq,
        op: Some(op(seq as u32)),
        created_at: 1_000 + seq,
    }
}

fn send(seq: i64) -> Send {
    let ack = Ack {
        at: 100 * seq as u64 + 20,
        seq,
        created_at: Some(1_000 + seq),
        duplicate: false,
    };
    Send {
        op: op(seq as u32),
        chat: CHAT,
        member: true,
        invoked: 100 * seq as u64,
        tries: 1,
        open: false,
        acks: vec![ack],
        to_the_end: false,
    }
}

fn stream(kind: Kind, after: Option<i64>, seqs: std::ops::RangeInclusive<i64>) -> Stream {
    Stream {
        user: "bob".into(),
        node: 0,
        chat: CHAT,
        member: true,
        kind,
        after,
        asked: 10,
        let_in: true,
        messages: seqs.map(message).collect(),
    }
}

/// Five messages, of which the second had to be tried twice and the fifth was
/// never acknowledged; a sixth that was refused. A reader of all, one of what
/// came from the third on, a page, and a stranger who was turned away.
fn clean() -> Record {
    let mut sends: Vec<Send> = (1..=6).map(send).collect();
    let again = Ack {
        at: 290,
        duplicate: true,
        ..sends[1].acks[0]
    };
    sends[1].acks.push(again);
    sends[1].tries = 2;
    sends[4].acks.clear();
    sends[4].open = true;
    sends[5].acks.clear();
    let mut streams = vec![
        stream(Kind::Stays, Some(0), 1..=5),
        stream(Kind::Stays, None, 3..=5),
        stream(Kind::Page { more: false }, Some(1), 2..=4),
        stream(Kind::Ended, Some(0), 1..=1),
    ];
    streams[LIVE].asked = 250;
    streams[PAGE].asked = 450;
    streams[STRANGER].messages.clear();
    (streams[STRANGER].member, streams[STRANGER].let_in) = (false, false);
    Record {
        sends,
        streams,
        histories: [(CHAT, (1..=5).map(message).collect())].into(),
        ..Record::default()
    }
}

/// The verdicts once `doctor` was there.
fn doctored(doctor: impl FnOnce(&mut Record)) -> Vec<Verdict> {
    let mut record = clean();
    doctor(&mut record);
    judge(&record)
}

fn history(record: &mut Record) -> &mut Vec<Message> {
    record.histories.get_mut(&CHAT).unwrap()
}

#[test]
fn a_clean_record_passes() {
    assert_eq!(doctored(|_| {}), []);
}

#[test]
fn p1_an_acknowledged_message_that_is_missing() {
    let found = doctored(|record| {
        history(record).truncate(4);
        record.streams.truncate(0);
        let ack = record.sends[3].acks[0];
        record.sends[4].acks.push(Ack { seq: 5, ..ack });
    });
    let (op, chat) = (op(5), CHAT);
    assert_eq!(found, [Verdict::Lost { op, chat, seq: 5 }]);
}

#[test]
fn p1_an_acknowledgement_of_another_place_or_time() {
    let (op, stored) = (op(1), 1);
    let moved = |acked| [Verdict::Moved { op, acked, stored }];
    let seq = doctored(|record| record.sends[0].acks[0].seq = 2);
    assert_eq!(seq, moved(2));
    let time = doctored(|record| record.sends[0].acks[0].created_at = Some(7));
    assert_eq!(time, moved(1));
}

#[test]
fn p2_a_hole_in_the_history() {
    let found = doctored(|record| {
        history(record).remove(4);
        history(record).push(Message {
            seq: 6,
            ..message(5)
        });
        record.streams.truncate(0);
    });
    let (chat, after, next) = (CHAT, 4, 6);
    assert_eq!(found, [Verdict::Hole { chat, after, next }]);
}

#[test]
fn p2_a_time_that_ran_back() {
    let found = doctored(|record| {
        history(record)[4].created_at = 1_003;
        record.streams.truncate(0);
    });
    assert_eq!(found, [Verdict::TimeRanBack { chat: CHAT, seq: 5 }]);
}

#[test]
fn p2_two_readers_with_different_messages() {
    let found = doctored(|record| record.streams[LIVE].messages[1].op = Some(op(6)));
    let (chat, seq, streams) = (CHAT, 4, [MEMBER, LIVE]);
    assert!(found.contains(&Verdict::Differ { chat, seq, streams }));
    assert!(found.contains(&Verdict::Phantom { stream: LIVE, seq }));
}

#[test]
fn p2_a_later_message_before_one_that_was_known() {
    let (first, second) = (op(4), op(3));
    // By an acknowledgement, and by a reader alone.
    for acked in [true, false] {
        let found = doctored(|record| {
            record.sends[2].invoked = 440;
            if !acked {
                record.sends[3].acks.clear();
                record.sends[3].open = true;
            }
        });
        assert_eq!(found, [Verdict::OutOfOrder { first, second }], "{acked}");
    }
}

#[test]
fn p2_a_page_that_lacks_what_was_acknowledged() {
    let found = doctored(|record| _ = record.streams[PAGE].messages.pop());
    let (stream, missing) = (PAGE, 4);
    assert_eq!(found, [Verdict::Stale { stream, missing }]);
    let more = doctored(|record| {
        record.streams[PAGE].messages.pop();
        record.streams[PAGE].kind = Kind::Page { more: true };
    });
    assert_eq!(more, []);
}

#[test]
fn p3_what_was_seen_and_is_not_stored() {
    let found = doctored(|record| {
        history(record).pop();
        record.streams[MEMBER].messages.pop();
    });
    let (stream, seq) = (LIVE, 5);
    assert_eq!(found, [Verdict::Phantom { stream, seq }]);
}

#[test]
fn p3_what_nobody_sent() {
    let unsent = [Verdict::Unsent { chat: CHAT, seq: 5 }];
    for op in [None, Some(op(9))] {
        let found = doctored(|record| {
            history(record)[4].op = op;
            record.streams.truncate(0);
        });
        assert_eq!(found, unsent);
    }
    let elsewhere = doctored(|record| record.sends[4].chat = 8);
    assert_eq!(elsewhere, unsent);
}

#[test]
fn p4_a_gap_in_a_stream() {
    let gap = |stream, after, next| {
        [Verdict::Gap {
            stream,
            after,
            next,
        }]
    };
    let inside = doctored(|record| _ = record.streams[MEMBER].messages.remove(2));
    assert_eq!(inside, gap(MEMBER, 2, 4));
    let before = doctored(|record| _ = record.streams[PAGE].messages.remove(0));
    assert_eq!(before, gap(PAGE, 1, 3));
}

#[test]
fn p4_a_message_again() {
    let again = |stream, seq| [Verdict::Again { stream, seq }];
    let inside = doctored(|record| {
        let repeated = record.streams[MEMBER].messages[4];
        record.streams[MEMBER].messages.push(repeated);
    });
    assert_eq!(inside, again(MEMBER, 5));
    let before = doctored(|record| record.streams[PAGE].after = Some(2));
    assert_eq!(before, again(PAGE, 2));
    let live = doctored(|record| record.streams[LIVE].messages.insert(0, message(2)));
    assert_eq!(live, again(LIVE, 2));
    // The server that gave a page of the store was still to learn of it.
    let unknown = doctored(|record| {
        record.streams[LIVE].messages.insert(0, message(2));
        record.sends[1].acks.remove(0);
    });
    assert_eq!(unknown, []);
}

#[test]
fn p4_a_reader_that_did_not_get_to_the_end() {
    let found = doctored(|record| _ = record.streams[MEMBER].messages.pop());
    let (stream, last, end) = (MEMBER, 4, 5);
    assert_eq!(found, [Verdict::Behind { stream, last, end }]);
    let left = doctored(|record| {
        record.streams[MEMBER].messages.pop();
        record.streams[MEMBER].kind = Kind::Ended;
    });
    assert_eq!(left, []);
}

#[test]
fn p5_a_retry_that_was_stored_again() {
    let found = doctored(|record| {
        let again = Message {
            seq: 6,
            created_at: 1_006,
            ..message(2)
        };
        history(record).push(again);
        record.streams.truncate(0);
    });
    let (op, seqs) = (op(2), [2, 6]);
    assert_eq!(found, [Verdict::Twice { op, seqs }]);
}

#[test]
fn p5_a_duplicate_of_nothing() {
    let found = doctored(|record| record.sends[0].acks[0].duplicate = true);
    assert_eq!(found, [Verdict::NoOriginal { op: op(1) }]);
}

#[test]
fn p7_a_stranger_who_saw_or_wrote() {
    let intruder = [Verdict::Intruder { stream: STRANGER }];
    let saw = doctored(|record| record.streams[STRANGER].messages.push(message(1)));
    assert_eq!(saw, intruder);
    let let_in = doctored(|record| record.streams[STRANGER].let_in = true);
    assert_eq!(let_in, intruder);
    for stored in [0, 5] {
        let found = doctored(|record| record.sends[stored].member = false);
        let op = op(stored as u32 + 1);
        let wrote = [Verdict::IntruderWrote { op }];
        // The sixth was refused, as it should be.
        assert_eq!(found, if stored == 0 { &wrote[..] } else { &[] });
    }
}

#[test]
fn p7_who_was_removed_and_reads_on() {
    // The third message is sent at 300, and the readers see it at 330.
    let read_on = |from, until, user: &str| {
        doctored(|record| {
            record.streams.truncate(1);
            record.removals.push(Removal {
                user: user.into(),
                chat: CHAT,
                from,
                until,
            });
        })
    };
    let (stream, seq) = (MEMBER, 3);
    assert_eq!(read_on(299, 400, "bob"), [Verdict::ReadOn { stream, seq }]);
    // Sent before the removal was acknowledged; read when it was a member again.
    assert_eq!(read_on(300, 400, "bob"), []);
    assert_eq!(read_on(299, 330, "bob"), []);
    assert_eq!(read_on(299, 400, "ann"), []);
}

#[test]
fn p8_a_send_without_an_answer() {
    let found = doctored(|record| record.sends[4].to_the_end = true);
    assert_eq!(found, [Verdict::Unsettled { op: op(5) }]);
}

#[test]
fn p10_a_refused_send_that_is_stored() {
    let found = doctored(|record| record.sends[4].open = false);
    assert_eq!(found, [Verdict::RefusedYetStored { op: op(5) }]);
}

#[test]
fn what_a_client_noted_is_passed_on() {
    let found = doctored(|record| record.troubles.push("hung".into()));
    assert_eq!(found, [Verdict::Trouble("hung".into())]);
}

#[test]
fn what_a_message_shows_is_looked_at() {
    let op = Op::new(3, 4);
    let mut message = chat_service::proto::Message {
        from: "ann".into(),
        text: op.text("ann"),
        ..Default::default()
    };
    assert_eq!(Op::of(&message, "bob"), Some(op));
    // Only the sender's own streams have the id, and they do.
    assert_eq!(Op::of(&message, "ann"), None);
    message.client_message_id = op.to_string();
    assert_eq!(Op::of(&message, "ann"), Some(op));
    assert_eq!(Op::of(&message, "bob"), None);
    message.text.push('x');
    assert_eq!(Op::of(&message, "ann"), None);
}

/// A million messages, each seen twice: seconds in a debug build. Anything
/// quadratic would take hours.
#[test]
fn a_million_records_are_judged_in_seconds() {
    const COUNT: i64 = 1_000_000;
    let record = Record {
        sends: (1..=COUNT).map(send).collect(),
        streams: (0..2)
            .map(|_| stream(Kind::Stays, Some(0), 1..=COUNT))
            .collect(),
        histories: [(CHAT, (1..=COUNT).map(message).collect())].into(),
        ..Record::default()
    };
    let begun = std::time::Instant::now();
    assert_eq!(judge(&record), []);
    let took = begun.elapsed();
    println!("{took:?}");
    assert!(took.as_secs() < 60, "{took:?}");
}

/// A failover at 390 has cost the fourth message, which had been acknowledged, and
/// the fifth, which had not. What was sent as the sixth has come to be the fourth.
fn after_a_loss() -> Record {
    let mut record = clean();
    let sent = Message {
        seq: 4,
        at: 700,
        ..message(6)
    };
    let stored = history(&mut record);
    stored.truncate(3);
    stored.push(sent);
    let ack = Ack {
        at: 690,
        seq: 4,
        created_at: Some(sent.created_at),
        duplicate: false,
    };
    record.sends[5].acks.push(ack);
    for reader in [MEMBER, LIVE] {
        record.streams[reader].kind = Kind::Ended;
    }
    // Each has come back, one of them to be told that it was ahead.
    let mut resumed = stream(Kind::Stays, Some(3), 4..=4);
    (resumed.asked, resumed.messages[0]) = (650, sent);
    let mut ahead = stream(Kind::Ended, Some(5), 6..=6);
    ahead.asked = 600;
    ahead.messages.clear();
    record.streams.extend([resumed, ahead]);
    let kept = [(CHAT, 3)].into();
    record.losses.push(Loss { until: 500, kept });
    record.loss_is_said = true;
    record.ahead = 1;
    record
}

fn doctored_loss(doctor: impl FnOnce(&mut Record)) -> Vec<Verdict> {
    let mut record = after_a_loss();
    doctor(&mut record);
    judge(&record)
}

#[test]
fn what_a_failover_has_cost_is_nobodys_fault() {
    assert_eq!(doctored_loss(|_| {}), []);
    let kept = |record: &mut Record| {
        let kept = &mut record.losses[0].kept;
        kept.insert(CHAT, 4);
    };
    let found = doctored_loss(kept);
    let (op, chat) = (op(4), CHAT);
    assert!(
        found.contains(&Verdict::Lost { op, chat, seq: 4 }),
        "{found:?}"
    );
}

/// The server may be held off the database for as long as the next faults last, and
/// memory has what it had; but once it shows something new, it knows.
#[test]
fn p2_what_was_lost_is_shown_long_after() {
    let late = |record: &mut Record| {
        let mut stream = stream(Kind::Ended, Some(3), 4..=4);
        stream.asked = 3_000_000_000;
        record.streams.push(stream);
    };
    let found = doctored_loss(late);
    let (stream, seq) = (after_a_loss().streams.len(), 4);
    assert!(
        found.contains(&Verdict::Phantom { stream, seq }),
        "{found:?}"
    );
    let found = doctored_loss(|record| {
        late(record);
        record.sends[5].acks[0].at = 4_000_000_000;
        for stream in &mut record.streams {
            let new = |message: &&mut Message| (message.seq, message.op) == (4, Some(op(6)));
            let new = stream.messages.iter_mut().filter(new);
            new.for_each(|message| message.at = 4_000_000_000);
        }
    });
    assert_eq!(found, []);
}

#[test]
fn p1_a_loss_that_no_operator_is_told_of() {
    let found = doctored_loss(|record| record.loss_is_said = false);
    assert_eq!(found, [Verdict::Unsaid { op: op(4), seq: 4 }]);
}

#[test]
fn p2_a_stream_that_goes_on_behind_what_was_lost() {
    for doctor in [
        |record: &mut Record| record.streams[LIVE].kind = Kind::Stays,
        |record: &mut Record| {
            let sent = history(record)[3];
            record.streams[LIVE].messages.push(sent);
        },
    ] {
        let found = doctored_loss(doctor);
        let (stream, seq) = (LIVE, 4);
        assert!(
            found.contains(&Verdict::WentOn { stream, seq }),
            "{found:?}"
        );
    }
}

#[test]
fn p5_a_lost_message_that_is_a_duplicate_long_after() {
    let found = doctored_loss(|record| {
        let ack = record.sends[3].acks[0];
        record.sends[3].tries = 2;
        record.sends[3].acks.push(Ack {
            at: 3_000_000_000,
            duplicate: true,
            ..ack
        });
    });
    let (op, chat) = (op(4), CHAT);
    assert_eq!(found, [Verdict::Lost { op, chat, seq: 4 }]);
}

#[test]
fn a_reader_that_is_ahead_though_nothing_was_lost() {
    let found = doctored(|record| record.ahead = 1);
    assert!(matches!(&found[..], [Verdict::Trouble(_)]), "{found:?}");
}
