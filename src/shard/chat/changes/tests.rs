//! Random changes of messages, and whether all that gets a place in the order may have it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use fastrand::Rng;

use super::super::*;
use crate::{
    domain::{Attached, Change, GivenId, MessageId, Reaction, Target, Unfit},
    shard::post::{Room, Rules},
    testing::{chat_id, for_seeds, key, row, user},
    writer::Landed,
};

const RULES: Rules = Rules {
    edit_window: Duration::from_millis(50),
    max_reactions: 2,
};

struct World {
    chat: Chat<usize>,
    /// What is committed.
    log: Vec<Row>,
    out: Vec<Row>,
    /// What the store has said to a question, and its number.
    read: Option<(u64, Vec<Target>)>,
    effects: Vec<Effect<usize>>,
    answers: BTreeMap<usize, Result<Receipt, Refusal>>,
    drafts: Vec<Draft>,
    wall: i64,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    changes: usize,
    unfit: BTreeSet<&'static str>,
    stands: usize,
    aside: usize,
    foreign: usize,
    unread: usize,
}

const USERS: [&str; 3] = ["alice", "bob", "cyd"];

impl World {
    fn new() -> Self {
        let record = ChatRecord {
            id: chat_id(1),
            created_by: user("alice"),
            created_at: Timestamp(0),
            members: USERS.map(user).to_vec(),
            member_count: 3,
            last_seq: 0,
        };
        Self {
            chat: Chat::new(record, &[], 4, false),
            log: Vec::new(),
            out: Vec::new(),
            read: None,
            effects: Vec::new(),
            answers: BTreeMap::new(),
            drafts: Vec::new(),
            wall: 0,
            seen: Seen::default(),
        }
    }

    fn post(&mut self, rng: &mut Rng) {
        let reply = self.drafts.len();
        let target = rng.i64(1..self.log.len() as i64 + 4);
        let removed = rng.bool();
        let change = match rng.u8(..10) {
            0..2 => None,
            2 => Attached::new(Some(target), b"", "", &[]).map(Change::Attached),
            3..5 => Some(Change::Edit { target }),
            5..7 => Some(Change::Deletion { target }),
            _ => Some(Change::Reaction { target, removed }),
        };
        let text = match &change {
            Some(Change::Deletion { .. }) => String::new(),
            Some(Change::Reaction { .. }) => ["👍", "🦀"][rng.usize(..2)].to_owned(),
            _ => format!("text {reply}"),
        };
        let id = key(["", "", "a", "b"][rng.usize(..4)]);
        let draft = Draft {
            admin: matches!(change, Some(Change::Deletion { .. })) && rng.u8(..8) == 0,
            change: change.map(Box::new),
            ..Draft::message(text, id)
        };
        self.drafts.push(draft.clone());
        let post = Post {
            from: user(USERS[rng.usize(..3)]),
            draft,
            id: None,
            span: None,
            deadline: Instant::now() + Duration::from_secs(3_600),
            reply,
        };
        self.chat.accept(post, &mut self.effects);
    }

    fn take(&mut self, rng: &mut Rng) {
        self.wall += rng.i64(0..20_000);
        let mut room = Room {
            rows: rng.usize(1..6),
            bytes: 1 << 20,
        };
        let wall = Timestamp(self.wall);
        let mut rows = Vec::new();
        self.chat
            .take(&mut rows, &mut room, wall, &RULES, &mut self.effects);
        self.seen.aside = self.seen.aside.max(self.chat.aside.len());
        if !rows.is_empty() {
            assert!(self.out.is_empty(), "seqs promised twice");
            self.out = rows;
        }
    }

    /// As `writer` does it: what another writer has stored comes first.
    fn land(&mut self, rng: &mut Rng) {
        let mut ours = std::mem::take(&mut self.out);
        let mut landed = Vec::new();
        if !ours.is_empty() && rng.u8(..10) == 0 {
            let foreign = self.foreign(rng);
            self.seen.foreign += 1;
            let gone = foreign.deleted();
            ours.retain(|row| {
                let stays = gone.is_none() || row.target() != gone;
                if !stays {
                    let (chat, id) = (row.chat, row.id);
                    landed.push(Landed::Refused { chat, id });
                }
                stays
            });
            landed.insert(0, Landed::Foreign(foreign));
        }
        for row in ours {
            let (chat, id) = (row.chat, row.id);
            // A store refuses texts, and an emoji is none that it could not hold: nothing
            // that follows in the batch relies on one that is refused.
            let may_refuse = row.deleted().is_none() && !is_reaction(&row);
            landed.push(match rng.u8(..20) {
                0 if may_refuse => Landed::Refused { chat, id },
                _ => Landed::Stored(row),
            });
        }
        if rng.u8(..20) == 0 {
            // All of it comes back unwritten.
            landed.retain_mut(|one| match one {
                Landed::Stored(row) => {
                    *one = Landed::Held(row.clone());
                    true
                }
                one => !matches!(one, Landed::Foreign(_)),
            });
        }
        for mut one in landed {
            if let Landed::Stored(row) | Landed::Foreign(row) = &mut one {
                let messages = self.log.iter().filter(|row| row.is_message()).count();
                row.seq = self.log.len() as Seq + 1;
                row.number = messages as Seq + Seq::from(row.is_message());
                row.created_at = row.created_at.max(self.time());
                self.log.push(row.clone());
            }
            self.chat.landed(one, &mut self.effects);
        }
    }

    fn time(&self) -> Timestamp {
        self.log.last().map_or(Timestamp(0), |row| row.created_at)
    }

    fn foreign(&self, rng: &mut Rng) -> Row {
        let seq = self.log.len() as Seq + 1;
        let mut foreign = row(chat_id(1), seq, "bob", "theirs");
        foreign.created_at = self.time();
        let target = rng.i64(1..seq + 1);
        let standing = State::of(&self.log);
        if standing.0.get(&target).is_some_and(|one| !one.deleted) && rng.bool() {
            foreign.text = "".into();
            foreign.from = standing.0[&target].from.clone();
            foreign.change = Some(Box::new(Change::Deletion { target }));
        }
        foreign
    }

    fn begin_reading(&mut self) {
        if let Some((number, seqs)) = self.chat.targets_to_read() {
            let targets = seqs.iter().filter_map(|seq| target(&self.log, *seq));
            self.read = Some((number, targets.collect()));
        }
    }

    fn end_reading(&mut self, rng: &mut Rng) {
        if let Some((number, found)) = self.read.take() {
            let fails = rng.u8(..20) == 0;
            self.seen.unread += usize::from(fails);
            let found = (!fails).then_some(found);
            self.chat.targets_read(number, found, &mut self.effects);
        }
    }

    fn settle(&mut self) {
        for effect in self.effects.drain(..) {
            let Effect::Answer(reply, result) = effect else {
                continue;
            };
            match &result {
                Ok(receipt) => {
                    let row = &self.log[receipt.seq as usize - 1];
                    let draft = &self.drafts[reply];
                    let target = |change: Option<&Change>| change.and_then(Change::target);
                    let (ours, theirs) = (draft.change.as_deref(), row.change.as_deref());
                    assert_eq!(target(ours), target(theirs));
                    self.seen.changes += usize::from(ours.is_some());
                    self.seen.stands +=
                        usize::from(receipt.duplicate && draft.client_message_id.is_none());
                }
                Err(Refusal::Unfit(why)) => _ = self.seen.unfit.insert(name(why)),
                Err(_) => {}
            }
            assert!(
                self.answers.insert(reply, result).is_none(),
                "answered twice"
            );
        }
        State::of(&self.log);
    }
}

fn name(why: &Unfit) -> &'static str {
    match why {
        Unfit::Missing => "missing",
        Unfit::NoMessage => "no message",
        Unfit::NothingToAnswer => "nothing to answer",
        Unfit::Deleted => "deleted",
        Unfit::NotTheSender => "not the sender",
        Unfit::NotYours => "not yours",
        Unfit::TooLate => "too late",
        Unfit::TooManyReactions { .. } => "too many reactions",
        Unfit::NoReaction => "no reaction",
        Unfit::TooManyEdits { .. } | Unfit::TooManyOfYours { .. } | Unfit::TooManyEmojis { .. } => {
            "too many others"
        }
    }
}

fn is_reaction(row: &Row) -> bool {
    matches!(row.change.as_deref(), Some(Change::Reaction { .. }))
}

/// What the store has of a message.
fn target(log: &[Row], seq: Seq) -> Option<Target> {
    let mut row = log.get(usize::try_from(seq - 1).ok()?)?.clone();
    let about = log.iter().filter(|row| row.target() == Some(seq));
    if row.is_message() && about.clone().any(|row| row.deleted().is_some()) {
        row.change = Some(Box::new(Change::Deleted));
    }
    let reactions = about.clone().filter_map(|row| match row.change.as_deref() {
        Some(Change::Reaction { removed, .. }) => Some(Reaction {
            seq: row.seq,
            from: row.from.clone(),
            emoji: row.text.clone(),
            removed: *removed,
            created_at: row.created_at,
        }),
        _ => None,
    });
    let is_edit = |row: &Row| matches!(row.change.as_deref(), Some(Change::Edit { .. }));
    Some(Target {
        row,
        edits: about.clone().filter(|row| is_edit(row)).count(),
        reactions: reactions.collect(),
    })
}

/// The messages of a log; it panics over an entry that should not be there.
struct State(BTreeMap<Seq, Message>);

struct Message {
    from: UserName,
    at: Timestamp,
    deleted: bool,
    reactions: usize,
    standing: BTreeSet<(UserName, Box<str>)>,
}

impl State {
    fn of(log: &[Row]) -> Self {
        let mut messages: BTreeMap<Seq, Message> = BTreeMap::new();
        for (row, seq) in log.iter().zip(1..) {
            assert_eq!(row.seq, seq, "P2");
            if row.is_message() {
                let message = Message {
                    from: row.from.clone(),
                    at: row.created_at,
                    deleted: false,
                    reactions: 0,
                    standing: BTreeSet::new(),
                };
                let attached = row.change.as_deref().and_then(Change::attached);
                if let Some(answered) = attached.and_then(Attached::reply_to) {
                    assert!(messages.contains_key(&answered), "an answer to a message");
                }
                messages.insert(seq, message);
                assert_eq!(row.number as usize, messages.len());
                continue;
            }
            let target = row.target().unwrap_or_default();
            let message = messages.get_mut(&target).expect("there is such a message");
            assert!(!message.deleted, "a change behind the deletion");
            match row.change.as_deref() {
                Some(Change::Edit { .. }) => {
                    assert_eq!(row.from, message.from);
                    assert!(row.created_at.0 - message.at.0 <= 50_000, "too late");
                }
                Some(Change::Deletion { .. }) => message.deleted = true,
                Some(Change::Reaction { removed, .. }) => {
                    let one = (row.from.clone(), row.text.clone());
                    match removed {
                        true => assert!(message.standing.remove(&one)),
                        false => {
                            assert!(message.standing.insert(one));
                            message.reactions += 1;
                            assert!(message.reactions <= RULES.max_reactions);
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        Self(messages)
    }
}

#[test]
fn p2_p12_only_what_may_be_has_a_place_in_the_order() {
    let mut unfit = BTreeSet::new();
    let (mut changes, mut stands, mut aside, mut foreign, mut unread) = (0, 0, 0, 0, 0);
    for_seeds(300, |rng| {
        let mut world = World::new();
        for _ in 0..400 {
            match rng.u8(..10) {
                0..4 => world.post(rng),
                4..6 => world.take(rng),
                6..8 => world.land(rng),
                8 => world.begin_reading(),
                _ => world.end_reading(rng),
            }
            world.settle();
        }
        // All comes to its end.
        for _ in 0..10_000 {
            world.begin_reading();
            world.end_reading(rng);
            world.take(rng);
            world.land(rng);
            world.settle();
            if world.chat.load() == Load::default() {
                break;
            }
        }
        assert_eq!(world.chat.load(), Load::default());
        assert_eq!(
            world.answers.len(),
            world.drafts.len(),
            "each has its answer"
        );
        unfit.append(&mut world.seen.unfit);
        changes += world.seen.changes;
        stands += world.seen.stands;
        aside = aside.max(world.seen.aside);
        foreign += world.seen.foreign;
        unread += world.seen.unread;
    });
    if std::env::var("CHAT_TEST_SEED").is_err() {
        assert_eq!(unfit.len(), 9, "{unfit:?}");
        assert!(changes > 1_000 && stands > 10, "{changes} {stands}");
        assert!(aside > 2 && foreign > 100 && unread > 10);
    }
}

#[test]
fn the_answer_to_another_question_is_none() {
    let mut world = World::new();
    let reaction = |reply| Post {
        from: user("bob"),
        draft: Draft {
            change: Some(Box::new(Change::Reaction {
                target: 1,
                removed: false,
            })),
            ..Draft::message("👍", None)
        },
        id: GivenId::of(MessageId(7)),
        span: None,
        deadline: Instant::now() + Duration::from_secs(1),
        reply,
    };
    world.chat.accept(reaction(0), &mut world.effects);
    let (number, seqs) = world.chat.targets_to_read().unwrap();
    assert_eq!(seqs, [1]);
    assert!(
        world.chat.targets_to_read().is_none(),
        "one question at a time"
    );
    world
        .chat
        .targets_read(number.wrapping_add(1), Some(Vec::new()), &mut world.effects);
    assert!(!world.chat.has_queued(), "another's answer");
    world
        .chat
        .targets_read(number, Some(Vec::new()), &mut world.effects);
    assert!(world.chat.has_queued());
}
