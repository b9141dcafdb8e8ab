//! Random commands against a simple model of what a chat owes its callers.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fastrand::Rng;

use super::*;
use crate::{
    shard::post::{Room, Rules},
    testing::{chat_id, for_seeds, key, row, user},
    writer::Landed,
};

const RULES: Rules = Rules {
    edit_window: Duration::from_secs(1),
    max_reactions: 3,
};

/// Small, so that keys fall out of it.
const WINDOW: usize = 4;

struct Model {
    chat: Chat<usize>,
    start: Instant,
    now: Instant,
    wall: i64,
    /// Every post that was made, by its reply.
    posts: Vec<Posted>,
    /// What has been published: seq 1 is the first.
    published: Vec<Row>,
    /// What is with the writer.
    out: Vec<Row>,
    effects: Vec<Effect<usize>>,
    /// Texts that another writer has stored.
    foreign: HashSet<String>,
    seen: Seen,
}

struct Posted {
    from: UserName,
    draft: Draft,
    deadline: Instant,
    answer: Option<Result<Receipt, Refusal>>,
}

/// What the runs came across: a test that never sees a retry shows nothing.
#[derive(Default, Debug)]
struct Seen {
    stored: usize,
    duplicates: usize,
    clashes: usize,
    refused: usize,
    expired: usize,
    unknown: usize,
    foreign: usize,
    set_back: usize,
    held: usize,
}

impl Model {
    fn new(start: Instant) -> Self {
        let record = ChatRecord {
            id: chat_id(1),
            created_by: user("alice"),
            created_at: Timestamp(1_000),
            members: vec![user("alice"), user("bob")],
            member_count: 2,
            last_seq: 0,
        };
        Self {
            chat: Chat::new(record, &[], WINDOW, false),
            start,
            now: start,
            wall: 1_000,
            posts: Vec::new(),
            published: Vec::new(),
            out: Vec::new(),
            effects: Vec::new(),
            foreign: HashSet::new(),
            seen: Seen::default(),
        }
    }

    fn post(&mut self, rng: &mut Rng) {
        let from = user(["alice", "bob", "bob", "mallory"][rng.usize(..4)]);
        let reply = self.posts.len();
        // Half are retries; now and then a client takes an id for something else.
        let earlier = (!self.posts.is_empty()).then(|| &self.posts[rng.usize(..reply)]);
        let (from, draft) = match earlier {
            Some(post) if post.draft.client_message_id.is_some() && rng.bool() => {
                (post.from.clone(), post.draft.clone())
            }
            _ => {
                let id = key(["", "a", "b", "c", "d"][rng.usize(..5)]);
                let draft = Draft::message(format!("text {reply}"), id);
                (from, draft)
            }
        };
        let deadline = self.now + Duration::from_millis(rng.u64(1..100));
        self.posts.push(Posted {
            from: from.clone(),
            draft: draft.clone(),
            deadline,
            answer: None,
        });
        let post = Post {
            from,
            draft,
            id: None,
            span: None,
            deadline,
            reply,
        };
        self.chat.accept(post, &mut self.effects);
    }

    fn take(&mut self, rng: &mut Rng) {
        let step = rng.i64(-50..100);
        self.seen.set_back += usize::from(step < 0);
        self.wall += step;
        let mut room = Room {
            rows: rng.usize(..5),
            bytes: rng.usize(..2_000),
        };
        let mut rows = Vec::new();
        let wall = Timestamp(self.wall);
        self.chat
            .take(&mut rows, &mut room, wall, &RULES, &mut self.effects);
        if rows.is_empty() {
            return;
        }
        assert!(self.out.is_empty(), "seqs promised twice");
        let last = self.published.len() as Seq;
        for (row, seq) in rows.iter().zip(last + 1..) {
            assert_eq!(row.seq, seq, "P2");
        }
        self.out = rows;
        // Those that came back from the writer have their place among the others.
        let in_flight = self.chat.in_flight.iter().map(|post| post.ticket);
        let queued = self.chat.queued.iter().map(|post| post.ticket);
        assert!(in_flight.chain(queued).is_sorted(), "P2: one overtakes");
    }

    /// The writer's word on all that is out, as `writer` promises it: foreign
    /// messages first, ours dense behind them.
    fn land(&mut self, rng: &mut Rng) {
        let mut ours = std::mem::take(&mut self.out);
        let mut landed = Vec::new();
        let mut last = self.published.last().cloned();
        let mut lifted = false;
        let mut place = |mut row: Row, foreign: bool| {
            lifted |= foreign;
            if let Some(last) = &last
                && lifted
            {
                row.created_at = row.created_at.max(last.created_at);
            }
            row.seq = last.as_ref().map_or(0, |last| last.seq) + 1;
            last = Some(row.clone());
            row
        };
        if !ours.is_empty() && rng.u8(..4) == 0 {
            for _ in 0..rng.usize(1..8) {
                self.seen.foreign += 1;
                let mut theirs = row(chat_id(1), 0, ["alice", "bob"][rng.usize(..2)], "foreign");
                theirs.client_message_id = key(["", "a", "b", "c", "d"][rng.usize(..5)]);
                // It may be a post that was made here as well.
                let made = &self.posts[rng.usize(..self.posts.len())];
                if made.draft.client_message_id.is_some() && made.from != user("mallory") {
                    theirs.from = made.from.clone();
                    theirs.text = made.draft.text.clone();
                    theirs.client_message_id = made.draft.client_message_id.clone();
                }
                theirs.created_at = Timestamp(self.wall + rng.i64(-50..500));
                self.foreign.insert(theirs.text.to_string());
                let theirs = place(theirs, true);
                ours.retain(|row| {
                    let same = row.client_message_id.is_some()
                        && row.client_message_id == theirs.client_message_id
                        && row.from == theirs.from;
                    let (chat, id) = (row.chat, row.id);
                    if same && row.text == theirs.text {
                        landed.push(Landed::Duplicate {
                            chat,
                            id,
                            seq: theirs.seq,
                            created_at: theirs.created_at,
                        });
                    } else if same {
                        landed.push(Landed::Refused { chat, id });
                    }
                    !same
                });
                landed.push(Landed::Foreign(theirs));
            }
            // Duplicates name messages that have been reported.
            landed.sort_by_key(|landed| !matches!(landed, Landed::Foreign(_)));
        }
        // What is behind one that waits for a lock waits as well.
        let mut held = false;
        for row in ours {
            held |= rng.u8(..8) == 0;
            if held {
                self.seen.held += 1;
                landed.push(Landed::Held(row));
            } else if rng.u8(..6) == 0 {
                let (chat, id) = (row.chat, row.id);
                landed.push(Landed::Refused { chat, id });
            } else {
                landed.push(Landed::Stored(place(row, false)));
            }
        }
        for one in landed {
            let own = matches!(one, Landed::Stored(_));
            self.chat.landed(one, &mut self.effects);
            self.settle(own);
        }
    }

    /// Takes in the effects of one command.
    fn settle(&mut self, own: bool) {
        let mut answers = Vec::new();
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Answer(reply, result) => answers.push((reply, result)),
                Effect::Publish(row) => self.publish(row, own),
            }
        }
        for (reply, result) in answers {
            self.answered(reply, result);
        }
    }

    fn publish(&mut self, row: Row, own: bool) {
        assert_eq!(row.seq, self.published.len() as Seq + 1, "P2");
        if let Some(last) = self.published.last() {
            assert!(last.created_at <= row.created_at, "time runs back");
        }
        let known = self.published.iter().rev().take(WINDOW);
        let same = |known: &Row| {
            known.client_message_id == row.client_message_id && known.from == row.from
        };
        if own && row.client_message_id.is_some() {
            assert!(!known.into_iter().any(same), "P5: {row:?} stored again");
        }
        self.published.push(row);
    }

    fn answered(&mut self, reply: usize, result: Result<Receipt, Refusal>) {
        let post = &mut self.posts[reply];
        assert!(post.answer.is_none(), "{reply} answered twice");
        match &result {
            Ok(receipt) => {
                let row = &self.published[receipt.seq as usize - 1];
                assert_eq!(row.created_at, receipt.created_at, "P5");
                assert_eq!(row.from, post.from);
                if receipt.duplicate {
                    self.seen.duplicates += 1;
                    assert!(row.client_message_id.is_some());
                    assert_eq!(row.text, post.draft.text, "P5");
                } else {
                    self.seen.stored += 1;
                }
                assert_eq!(row.client_message_id, post.draft.client_message_id);
            }
            Err(Refusal::NotMember) => assert_eq!(post.from, user("mallory")),
            Err(Refusal::Refused) => self.seen.refused += 1,
            Err(Refusal::Invalid { field, .. }) => {
                self.seen.clashes += 1;
                assert_eq!(*field, "client_message_id");
                assert!(post.draft.client_message_id.is_some());
            }
            Err(Refusal::Expired) => {
                self.seen.expired += 1;
                assert!(post.deadline <= self.now);
            }
            Err(Refusal::OutcomeUnknown) => {
                self.seen.unknown += 1;
                assert!(post.deadline <= self.now);
            }
            Err(Refusal::Busy { .. } | Refusal::Draining) => {}
            Err(other) => panic!("{other:?}"),
        }
        post.answer = Some(result);
    }

    fn expire(&mut self) {
        self.chat.expire(self.now, &mut self.effects);
        self.settle(false);
        assert!(self.chat.earliest_deadline().is_none_or(|at| at > self.now));
    }

    fn step(&mut self, rng: &mut Rng) {
        match rng.u8(..20) {
            0..9 => self.post(rng),
            9..13 => self.take(rng),
            13..17 => self.land(rng),
            17..19 => {
                self.now += Duration::from_millis(rng.u64(..60));
                self.expire();
            }
            _ if rng.u8(..4) == 0 => {
                self.chat
                    .refuse_queued(Refusal::Draining, &mut self.effects);
            }
            _ => {}
        }
        self.settle(false);
        let load = self.chat.load();
        assert!(load.bytes >= load.posts * size_of::<Row>());
        assert!(self.chat.has_queued() || self.out.len() == load.posts);
    }

    fn finish(&mut self, rng: &mut Rng) {
        while self.chat.has_queued() || self.chat.has_in_flight() {
            self.land(rng);
            self.take(rng);
        }
        assert_eq!(self.chat.load(), Load::default());
        assert_eq!(self.chat.earliest_deadline(), None);
        assert_eq!(self.chat.last_seq(), self.published.len() as Seq);
        let mut stored: HashMap<&str, usize> = HashMap::new();
        for row in &self.published {
            *stored.entry(&*row.text).or_default() += 1;
        }
        // By text: of a post with an id, all retries together.
        let mut posts: HashMap<&str, Vec<&Posted>> = HashMap::new();
        for (reply, post) in self.posts.iter().enumerate() {
            assert!(post.answer.is_some(), "{reply} never answered");
            posts.entry(&*post.draft.text).or_default().push(post);
        }
        for (text, posts) in posts {
            let times = stored.get(text).copied().unwrap_or(0);
            let answers = || posts.iter().filter_map(|post| post.answer.as_ref());
            let new =
                answers().filter(|answer| matches!(answer, Ok(receipt) if !receipt.duplicate));
            let duplicate =
                answers().any(|answer| matches!(answer, Ok(receipt) if receipt.duplicate));
            let unknown = answers()
                .filter(|answer| **answer == Err(Refusal::OutcomeUnknown))
                .count();
            let (new, foreign) = (new.count(), self.foreign.contains(text));
            if posts[0].draft.client_message_id.is_none() {
                assert!(
                    times == new || unknown == 1 && times <= 1,
                    "{text}: {times}"
                );
            } else {
                assert!(
                    new > 0 || duplicate || unknown > 0 || foreign || times == 0,
                    "{text}"
                );
                assert!(times > 0 || new == 0 && !duplicate, "{text}: lost");
            }
        }
        assert!(self.now >= self.start);
    }
}

#[test]
fn p1_p2_p3_p5_random_commands_keep_the_promises() {
    let start = Instant::now();
    let mut seen = Seen::default();
    for_seeds(3_000, |rng| {
        let mut model = Model::new(start);
        for _ in 0..rng.usize(20..200) {
            model.step(rng);
        }
        model.finish(rng);
        seen.stored += model.seen.stored;
        seen.duplicates += model.seen.duplicates;
        seen.clashes += model.seen.clashes;
        seen.refused += model.seen.refused;
        seen.expired += model.seen.expired;
        seen.unknown += model.seen.unknown;
        seen.foreign += model.seen.foreign;
        seen.set_back += model.seen.set_back;
    });
    println!("{seen:?}");
    if std::env::var("CHAT_TEST_SEED").is_err() {
        assert!(seen.stored > 1_000 && seen.duplicates > 1_000 && seen.refused > 1_000);
        assert!(seen.clashes > 1_000);
        assert!(seen.expired > 1_000 && seen.unknown > 1_000);
        assert!(seen.foreign > 1_000 && seen.set_back > 1_000);
    }
}

#[test]
fn p5_a_queued_post_that_another_writer_stored_is_answered_with_its_message() {
    let mut model = Model::new(Instant::now());
    let post = |reply, text: &str, id| Post {
        from: user("bob"),
        draft: Draft::message(text, key(id)),
        id: None,
        span: None,
        deadline: model.start + Duration::from_secs(1),
        reply,
    };
    let (first, second) = (post(0, "one", ""), post(1, "two", "k"));
    let mut effects = Vec::new();
    model.chat.accept(first, &mut effects);
    model.take_all();
    model.chat.accept(second, &mut effects);
    let mut theirs = row(chat_id(1), 1, "bob", "two");
    theirs.client_message_id = key("k");
    model.chat.landed(Landed::Foreign(theirs), &mut effects);
    let receipt = match &effects[..] {
        [Effect::Answer(1, Ok(receipt)), Effect::Publish(_)] => receipt,
        other => panic!("{other:?}"),
    };
    assert!(receipt.duplicate && receipt.seq == 1);
    assert!(!model.chat.has_queued());
    assert_eq!(model.chat.load().posts, 1);
}

impl Model {
    fn take_all(&mut self) {
        let mut room = Room {
            rows: 100,
            bytes: 1 << 20,
        };
        let wall = Timestamp(self.wall);
        self.chat
            .take(&mut self.out, &mut room, wall, &RULES, &mut self.effects);
    }
}
