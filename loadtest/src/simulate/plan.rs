//! The make of one simulated server and of those who use it, drawn from a seed.

use std::time::Duration;

use chat_service::{
    domain::UserName,
    feed::RingBound,
    shard::{Load, Room, Rules, ShardSettings},
    writer::LaneSettings,
};
use fastrand::Rng;

use super::executor::Pace;

#[derive(Debug, Clone)]
pub struct Plan {
    pub cores: usize,
    pub shards: usize,
    pub lanes: usize,
    pub shard: ShardSettings,
    pub lane: LaneSettings,
    pub pace: Pace,
    pub chats: usize,
    pub users: usize,
    pub senders: usize,
    pub readers: usize,
    /// Milliseconds from one act of an actor to the next, at most.
    pub rest: u64,
    /// Busy times, each with a calm behind it.
    pub rounds: usize,
    /// A second server by mistake.
    pub foreign: bool,
    /// Servers of the database take over from each other, and lack the newest
    /// messages.
    pub takeovers: bool,
}

impl Plan {
    /// Small bounds, so that a short run meets all of them.
    pub fn draw(rng: &mut Rng) -> Self {
        let batch = rng.usize(1..=12);
        let bytes = 1 << rng.u32(10..20);
        let takeovers = rng.u8(..4) == 0;
        Self {
            cores: rng.usize(1..=3),
            shards: rng.usize(1..=4),
            lanes: rng.usize(1..=2),
            shard: ShardSettings {
                mailbox: rng.usize(1..=24),
                pending: Load {
                    posts: rng.usize(1..=24),
                    bytes,
                },
                batch: Room { rows: batch, bytes },
                ring: RingBound {
                    messages: rng.usize(2..=24),
                    bytes: 1 << rng.u32(8..20),
                },
                memory: if rng.bool() {
                    usize::MAX
                } else {
                    1 << rng.u32(10..20)
                },
                idle: Duration::from_millis(rng.u64(50..5_000)),
                patience: Duration::from_millis(rng.u64(500..5_000)),
                max_members: 6,
                rules: Rules {
                    edit_window: Duration::from_secs(3_600),
                    max_reactions: 10,
                },
                stream_posts: rng.usize(1..=4) as u32,
            },
            lane: LaneSettings {
                batch_rows: batch,
                batch_bytes: bytes,
            },
            pace: Pace {
                late: [0, 20, 200][rng.usize(..3)],
                by: rng.u64(1..=40),
                lost: 0,
            },
            chats: rng.usize(1..=4),
            users: rng.usize(2..=5),
            senders: rng.usize(2..=8),
            readers: rng.usize(2..=10),
            rest: 1 << rng.u32(3..10),
            rounds: rng.usize(2..=4),
            // The two together are the hardest.
            foreign: rng.u8(..4) < if takeovers { 2 } else { 1 },
            takeovers,
        }
    }

    pub fn user(&self, at: usize) -> UserName {
        UserName::new(&format!("user{at}")).expect("a name by the rules")
    }
}

/// Makes the chats, is never removed, and does what must succeed.
pub fn owner() -> UserName {
    UserName::new("owner").expect("a name by the rules")
}
