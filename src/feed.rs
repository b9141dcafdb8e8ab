//! The reading half of a chat: its newest messages in a ring, and readers that
//! follow it from any core. It holds nothing of the half that owns the chat, which
//! gives out seqs and knows the members.
//!
//! Called by `shard`, which makes a [`Feed`] for each chat in use, appends what is
//! committed, and lets a [`Reader`] join once it may; and by whoever holds that
//! reader, which polls it. Calls the `store` for what the ring no longer has, through
//! [`History`]. Of the owner it needs nothing: what the owner has to say to a stream
//! it leaves in the stream's [`Slot`], and what it has to know ([`Feed::readers`],
//! [`Feed::weight`]) it looks up itself.
//!
//! Invariants:
//! 1. A reader is a place in the chat, not a queue: a slow one holds nothing and
//!    nobody up (P6).
//! 2. A cursor moves from n to n + 1 only, whether the ring or the store gave the
//!    message: no gap, no duplicate (P4). It is led past messages that the store has
//!    lost, and that is counted and logged.
//! 3. Whatever is in a ring is committed (P3), and follows the message before it:
//!    a ring has no hole.
//! 4. No wake-up is lost: a reader that waits is woken after each commit.
//! 5. A reader that is dropped leaves nothing behind.
//! 6. Once the deletion of a message is in a feed, no reader of the feed is given the
//!    message's text any more, wherever it has it from (P12).
//! 7. A reader of messages alone is led past the seqs of other entries, and sees the
//!    messages in their order.

mod cursor;
mod erased;
mod history;
mod item;
mod packed;
mod page;
mod ring;
mod share;
mod shared;
mod slot;
mod tap;
mod wake;

pub use cursor::{Delivery, Reader};
pub use history::{History, Pages};
pub use item::{About, Item};
pub use packed::Packed;
pub use ring::{CHUNK_BYTES, Chunk, Entry, Read, Ring, RingBound, Takes};
pub use share::{Share, Unwritten, counted};
pub use shared::Feed;
pub use slot::{End, PostAnswer, Slot};
pub use tap::{Call, Tap, Tapped};
pub use wake::Wakes;
