//! Messages that edits, deletions, reactions and answers are about: what has to be known of
//! one before it may be changed or answered, with what has been given a seq since it was
//! read. So a change is held against all that comes before it in the chat's order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use ahash::AHashMap;

use crate::{
    domain::{
        Change, Digests, Draft, MAX_EMOJI_BYTES, MAX_EMOJIS, Seq, Target, Timestamp, Unfit,
        UserName,
    },
    shard::post::Rules,
};

/// How often a message may be edited: each edit is a row that its deletion has to erase.
const MAX_EDITS: usize = 1_000;

/// How often one user may react to a message, so that it is not one who uses up what all
/// may.
const MAX_OF_USER: usize = 50;

/// So many messages stay known whom nobody is about to change.
const KEPT: usize = 8;

/// Most that are read at a time.
const READ: usize = 64;

static DIGESTS: LazyLock<Digests> = LazyLock::new(Digests::new);

#[derive(Debug, Default)]
pub(super) struct Targets {
    known: AHashMap<Seq, Known>,
    /// To be read, once nothing is.
    wanted: BTreeSet<Seq>,
    /// What is being read, under a number, so that nothing else passes for its answer.
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    number: u64,
    /// True: another writer may have changed it since the question was asked.
    seqs: BTreeMap<Seq, bool>,
}

/// `None`: there is no such message.
type Known = Option<Box<Message>>;

#[derive(Debug)]
struct Message {
    from: UserName,
    created_at: Timestamp,
    /// It is one, and not what happens to one.
    is_message: bool,
    is_deleted: bool,
    edits: usize,
    /// Those that were taken back are counted too.
    reactions: usize,
    of_user: AHashMap<UserName, usize>,
    /// By who reacts with what; the entry that says so.
    standing: AHashMap<u128, (Seq, Timestamp)>,
    /// How many of those there are with each emoji.
    emojis: AHashMap<Box<str>, usize>,
}

/// Whether a change may have the next seq.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fit,
    /// Its message has to be read first.
    Unknown,
    Unfit(Unfit),
    /// It is so already, by this entry.
    Stands(Seq, Timestamp),
}

/// Who wants to change a message, and when.
pub(super) struct Asker<'a> {
    pub from: &'a UserName,
    pub is_creator: bool,
    pub now: Timestamp,
    pub rules: &'a Rules,
}

impl Targets {
    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        let weight = |one: &Known| one.as_ref().map_or(0, |message| message.weight());
        self.known.values().map(weight).sum()
    }

    pub fn is_known(&self, seq: Seq) -> bool {
        self.known.contains_key(&seq)
    }

    /// The message has to be read.
    pub fn want(&mut self, seq: Seq) {
        let is_read = |reading: &Reading| reading.seqs.contains_key(&seq);
        if !self.is_known(seq) && !self.reading.as_ref().is_some_and(is_read) {
            self.wanted.insert(seq);
        }
    }

    /// Whether there is something to be read now.
    pub fn is_wanting(&self) -> bool {
        !self.wanted.is_empty() && self.reading.is_none()
    }

    /// What is to be read next, with the number under which it is.
    pub fn begin_reading(&mut self) -> Option<(u64, Vec<Seq>)> {
        if !self.is_wanting() {
            return None;
        }
        let mut seqs = Vec::new();
        while seqs.len() < READ
            && let Some(seq) = self.wanted.pop_first()
        {
            seqs.push(seq);
        }
        let number = fastrand::u64(..);
        let fresh = seqs.iter().map(|seq| (*seq, false)).collect();
        self.reading = Some(Reading {
            number,
            seqs: fresh,
        });
        Some((number, seqs))
    }

    /// Takes in what the store has of them; `None`: it could not be asked. The messages
    /// of which that is the last word for now.
    pub fn read(&mut self, number: u64, found: Option<Vec<Target>>) -> Vec<Seq> {
        let Some(reading) = self.reading.take_if(|one| one.number == number) else {
            return Vec::new();
        };
        let Some(found) = found else {
            return reading.seqs.into_keys().collect();
        };
        let found = found.into_iter().map(|one| (one.row.seq, one));
        let mut found: BTreeMap<Seq, Target> = found.collect();
        let mut read = Vec::new();
        for (seq, is_stale) in reading.seqs {
            match is_stale {
                true => self.want(seq),
                false => {
                    let message = found.remove(&seq).map(|one| Box::new(Message::of(one)));
                    self.known.insert(seq, message);
                    read.push(seq);
                }
            }
        }
        read
    }

    /// Nothing is sure any more: another writer was here, or what was given a seq has not
    /// been stored under it.
    pub fn forget(&mut self) {
        self.known.clear();
        if let Some(reading) = &mut self.reading {
            reading.seqs.values_mut().for_each(|stale| *stale = true);
        }
    }

    /// What was not there may come yet.
    pub fn forget_missing(&mut self) {
        self.known.retain(|_, message| message.is_some());
    }

    /// Lets go of messages that nobody is about to change, but for a few.
    pub fn sweep(&mut self, is_needed: impl Fn(Seq) -> bool) {
        if self.known.len() > KEPT {
            self.known.retain(|seq, _| is_needed(*seq));
        }
    }

    /// Whether the change may follow all that was [applied](Self::apply) before.
    pub fn judge(&self, draft: &Draft, asker: &Asker<'_>) -> Verdict {
        let Some((change, message)) = draft.change.as_deref().zip(draft.refers_to()) else {
            return Verdict::Fit;
        };
        match self.known.get(&message) {
            None => Verdict::Unknown,
            Some(None) => Verdict::Unfit(match change {
                Change::Attached(_) => Unfit::NothingToAnswer,
                _ => Unfit::Missing,
            }),
            Some(Some(message)) => message.judge(change, draft, asker),
        }
    }

    /// The change has a seq.
    pub fn apply(&mut self, draft: &Draft, from: &UserName, seq: Seq, at: Timestamp) {
        let Some((change, target)) = draft.change.as_deref().zip(draft.target()) else {
            return;
        };
        if let Some(Some(message)) = self.known.get_mut(&target) {
            match change {
                Change::Edit { .. } => message.edits += 1,
                Change::Deletion { .. } => message.is_deleted = true,
                Change::Reaction { removed, .. } => {
                    message.react(from, &draft.text, *removed, (seq, at));
                }
                Change::Attached(_) | Change::Edited { .. } | Change::Deleted => {}
            }
        }
    }
}

impl Message {
    fn of(target: Target) -> Self {
        let row = target.row;
        let mut message = Self {
            is_message: row.is_message(),
            is_deleted: row.change.as_deref() == Some(&Change::Deleted),
            from: row.from,
            created_at: row.created_at,
            edits: target.edits,
            reactions: 0,
            of_user: AHashMap::new(),
            standing: AHashMap::new(),
            emojis: AHashMap::new(),
        };
        for one in target.reactions {
            let at = (one.seq, one.created_at);
            message.react(&one.from, &one.emoji, one.removed, at);
        }
        message
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
            + 2 * self.standing.len() * size_of::<(u128, (Seq, Timestamp))>()
            + self.emojis.len() * 2 * MAX_EMOJI_BYTES
            + 2 * self.of_user.len() * size_of::<(UserName, usize)>()
    }

    fn react(&mut self, from: &UserName, emoji: &str, removed: bool, at: (Seq, Timestamp)) {
        let key = DIGESTS.of((from, emoji));
        if removed {
            if self.standing.remove(&key).is_some()
                && let Some(count) = self.emojis.get_mut(emoji)
            {
                *count -= 1;
                if *count == 0 {
                    self.emojis.remove(emoji);
                }
            }
            return;
        }
        if self.standing.insert(key, at).is_none() {
            *self.emojis.entry(emoji.into()).or_default() += 1;
        }
        self.reactions += 1;
        *self.of_user.entry(from.clone()).or_default() += 1;
    }

    fn judge(&self, change: &Change, draft: &Draft, asker: &Asker<'_>) -> Verdict {
        let unfit = match change {
            Change::Attached(_) if !self.is_message => Some(Unfit::NothingToAnswer),
            // One that was deleted may be answered: whoever does so may not know it yet.
            Change::Attached(_) => None,
            _ if !self.is_message => Some(Unfit::NoMessage),
            _ if self.is_deleted => Some(Unfit::Deleted),
            Change::Edit { .. } => self.forbids_edit(asker),
            Change::Deletion { .. } => {
                let may = draft.admin || asker.is_creator || self.from == *asker.from;
                (!may).then_some(Unfit::NotYours)
            }
            Change::Reaction { removed, .. } => {
                return self.judge_reaction(&draft.text, *removed, asker);
            }
            Change::Edited { .. } | Change::Deleted => None,
        };
        unfit.map_or(Verdict::Fit, Verdict::Unfit)
    }

    fn forbids_edit(&self, asker: &Asker<'_>) -> Option<Unfit> {
        let age = asker.now.0.saturating_sub(self.created_at.0);
        let window = asker.rules.edit_window.as_micros();
        if self.from != *asker.from {
            Some(Unfit::NotTheSender)
        } else if window == 0 || age > 0 && age as u128 > window {
            Some(Unfit::TooLate)
        } else if self.edits >= MAX_EDITS {
            Some(Unfit::TooManyEdits { max: MAX_EDITS })
        } else {
            None
        }
    }

    fn judge_reaction(&self, emoji: &str, removed: bool, asker: &Asker<'_>) -> Verdict {
        let standing = self.standing.get(&DIGESTS.of((asker.from, emoji)));
        let of_user = self.of_user.get(asker.from).copied().unwrap_or(0);
        let max = asker.rules.max_reactions;
        match standing {
            // Whoever has reacted may take it back, however many there are.
            Some(_) if removed => Verdict::Fit,
            Some((seq, at)) => Verdict::Stands(*seq, *at),
            None if removed => Verdict::Unfit(Unfit::NoReaction),
            None if self.reactions >= max => Verdict::Unfit(Unfit::TooManyReactions { max }),
            None if of_user >= MAX_OF_USER => {
                Verdict::Unfit(Unfit::TooManyOfYours { max: MAX_OF_USER })
            }
            None if self.emojis.len() >= MAX_EMOJIS && !self.emojis.contains_key(emoji) => {
                Verdict::Unfit(Unfit::TooManyEmojis { max: MAX_EMOJIS })
            }
            None => Verdict::Fit,
        }
    }
}
