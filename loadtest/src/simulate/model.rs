//! What the promises allow, checked at every step: each call, each commit, each
//! delivery is told to the model, which knows of no shard and no lane.
//!
//! Rules by promise; what each means is written where it is checked.

mod calls;
mod members;
mod streams;
mod takeovers;

use std::{collections::BTreeMap, fmt, time::Instant};

use chat_service::domain::{ChatId, Draft, Row, Seq, UserName};

use super::disk::Disk;
use calls::Said;
use members::Member;
use streams::Stream;

/// A promise that was not kept.
#[derive(Debug, Clone)]
pub struct Broken {
    pub promise: &'static str,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

pub type Kept = Result<(), Broken>;

/// For a rule: broken unless `kept`.
pub fn rule(kept: bool, promise: &'static str, what: impl FnOnce() -> String) -> Kept {
    if kept {
        Ok(())
    } else {
        let what = what();
        Err(Broken { promise, what })
    }
}

/// How much a run has tried, so that one that tries nothing shows.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub commits: u64,
    pub foreign: u64,
    pub posts: u64,
    pub acknowledged: u64,
    pub duplicates: u64,
    pub unknown: u64,
    pub refused: u64,
    pub cut: u64,
    pub joins: u64,
    pub delivered: u64,
    pub ended: u64,
    pub removals: u64,
    pub crashes: u64,
    pub drains: u64,
    pub lost: u64,
    /// Batches that met a lock.
    pub locked: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.commits += more.commits;
        self.foreign += more.foreign;
        self.posts += more.posts;
        self.acknowledged += more.acknowledged;
        self.duplicates += more.duplicates;
        self.unknown += more.unknown;
        self.refused += more.refused;
        self.cut += more.cut;
        self.joins += more.joins;
        self.delivered += more.delivered;
        self.ended += more.ended;
        self.removals += more.removals;
        self.crashes += more.crashes;
        self.drains += more.drains;
        self.lost += more.lost;
        self.locked += more.locked;
    }
}

/// What the users know of a chat.
#[derive(Debug, Default)]
struct Chat {
    /// The newest seq that anybody was told of.
    acknowledged: Seq,
    /// Somebody has asked for its end, here or at another server.
    end_asked: bool,
    end_acknowledged: bool,
    /// What was left of it after the last takeover that it lost messages in.
    floor: Option<Seq>,
    /// It has lost messages, and none of this server's has been stored since: it may
    /// not have noticed.
    stale: bool,
}

pub struct Model {
    pub broken: Option<Broken>,
    pub counts: Counts,
    pub draining: bool,
    /// The duplicate window.
    window: usize,
    /// Counts what happens, to tell earlier from later.
    tick: u64,
    chats: BTreeMap<ChatId, Chat>,
    members: BTreeMap<(ChatId, UserName), Member>,
    said: BTreeMap<Box<str>, Said>,
    /// Posts by chat that another server may be given as well.
    twins: BTreeMap<ChatId, Vec<(UserName, Draft)>>,
    open: BTreeMap<u64, OpenCall>,
    streams: BTreeMap<u64, Stream>,
    /// What was acknowledged or delivered as which message: it stays so.
    shown: BTreeMap<(ChatId, Seq), Row>,
    /// What takeovers have cost.
    lost: BTreeMap<(ChatId, Seq), Row>,
}

struct OpenCall {
    what: String,
    due: Instant,
}

impl Model {
    pub fn new(window: usize) -> Self {
        Self {
            broken: None,
            counts: Counts::default(),
            draining: false,
            window,
            tick: 0,
            chats: BTreeMap::new(),
            members: BTreeMap::new(),
            said: BTreeMap::new(),
            twins: BTreeMap::new(),
            open: BTreeMap::new(),
            streams: BTreeMap::new(),
            shown: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub fn created(&mut self, chat: ChatId, members: &[UserName]) {
        self.chats.insert(chat, Chat::default());
        for user in members {
            self.members.insert((chat, user.clone()), Member::joined());
        }
    }

    /// Those whose end nobody has asked for.
    pub fn chats(&self) -> impl Iterator<Item = ChatId> {
        let chats = self.chats.iter().filter(|(_, chat)| !chat.end_asked);
        chats.map(|(id, _)| *id)
    }

    fn chat(&mut self, chat: ChatId) -> &mut Chat {
        self.chats.entry(chat).or_default()
    }

    /// The newest posts with an id to a chat.
    pub fn posted_to(&self, chat: ChatId) -> Vec<(UserName, Draft)> {
        self.twins.get(&chat).cloned().unwrap_or_default()
    }

    /// A call that must be answered by `due`, or by the end of its server.
    pub fn opened(&mut self, what: String, due: Instant) -> u64 {
        let id = self.tick();
        self.open.insert(id, OpenCall { what, due });
        id
    }

    pub fn closed(&mut self, id: u64, now: Instant) -> Kept {
        let Some(call) = self.open.remove(&id) else {
            return rule(false, "P8", || format!("call {id} is answered twice"));
        };
        rule(now <= call.due, "P8", || {
            format!("{} is answered {:?} late", call.what, now - call.due)
        })
    }

    /// Its caller has gone, or its server: not because it was not answered.
    pub fn cut(&mut self, id: u64, now: Instant) -> Kept {
        self.counts.cut += 1;
        let call = self.open.remove(&id);
        let late = call.filter(|call| now > call.due);
        rule(late.is_none(), "P8", || {
            format!(
                "{} is not answered",
                late.map_or_else(String::new, |call| call.what)
            )
        })
    }

    pub fn open_calls(&self) -> usize {
        self.open.len()
    }

    /// What happens from now on is later than this.
    pub fn now(&mut self) -> u64 {
        self.tick()
    }

    /// P9: some time after a drain nobody from before its end waits, and no stream
    /// is left.
    pub fn drained(&self, end: u64) -> Kept {
        if let Some((_, call)) = self.open.range(..end).next() {
            return rule(false, "P9", || format!("{} outlives a drain", call.what));
        }
        let stream = self.streams.keys().next();
        rule(stream.is_none(), "P9", || {
            format!("stream {stream:?} outlives a drain")
        })
    }

    pub fn crashed(&mut self) {
        self.counts.crashes += 1;
        self.draining = false;
    }

    /// P2, P5: a new row in a chat.
    pub fn committed(&mut self, row: &Row, disk: &Disk) -> Kept {
        self.counts.commits += 1;
        let foreign = disk.chats[&row.chat].foreign.contains(&row.seq);
        self.counts.foreign += u64::from(foreign);
        // Another server's messages tell this one nothing.
        self.chat(row.chat).stale &= foreign;
        if let Some(shown) = self.shown.get(&(row.chat, row.seq)) {
            return rule(shown == row, "P2", || {
                format!("{}:{} is written over", row.chat, row.seq)
            });
        }
        let at = usize::try_from(row.seq).unwrap_or(0);
        let rows = disk.chats[&row.chat].rows();
        if let [.., before, _] = rows.get(..at).unwrap_or_default() {
            rule(foreign || before.created_at <= row.created_at, "P2", || {
                format!("the time runs back at {}:{}", row.chat, row.seq)
            })?;
        }
        rule(rows.get(at - 1) == Some(row), "P2", || {
            format!("a hole before {}:{}", row.chat, row.seq)
        })?;
        self.stored(row, foreign)
    }

    /// The row that was acknowledged or delivered is the one on the disk, and
    /// was at the first time too.
    fn show(&mut self, row: &Row, promise: &'static str, disk: &Disk) -> Kept {
        let on_disk = disk.chats.get(&row.chat).and_then(|chat| chat.row(row.seq));
        rule(on_disk.is_some(), promise, || {
            format!("{}:{} is shown and not committed", row.chat, row.seq)
        })?;
        rule(on_disk == Some(row), promise, || {
            format!("{}:{} is shown as what it is not", row.chat, row.seq)
        })?;
        let known = self.shown.entry((row.chat, row.seq));
        let known = known.or_insert_with(|| row.clone());
        rule(known == row, "P2", || {
            format!("{}:{} is shown as two messages", row.chat, row.seq)
        })
    }

    /// All has come to rest: nobody waits, and every reader has caught up.
    pub fn at_rest(&mut self, disk: &Disk) -> Kept {
        if let Some(call) = self.open.values().next() {
            return rule(false, "P8", || format!("{} is never answered", call.what));
        }
        for stream in self.streams.values() {
            if !self.chats[&stream.chat].end_asked {
                stream.has_noticed()?;
                stream.at_rest(disk)?;
            }
        }
        for ((chat, seq), row) in &self.shown {
            let on_disk = disk.chats[chat].row(*seq);
            rule(on_disk == Some(row), "P1", || {
                format!("{chat}:{seq} was shown and is gone")
            })?;
        }
        Ok(())
    }
}
