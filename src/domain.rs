//! The values that the rooms hand to each other: validated ids and names, a
//! message before ([`Draft`]) and after ([`Row`]) it has its place in a chat, what it carries
//! ([`Attached`]), what happens to messages ([`Change`]), the wire form ([`Frame`]), how what
//! is asked of a chat ends ([`PostResult`], [`ChatError`]), and digests that stand for values
//! ([`Digests`]).
//!
//! Invariants:
//! 1. A value of these types has been validated; nothing checks it again.
//! 2. No I/O, no clock, no runtime: time is an argument ([`Timestamp`]).

mod attached;
mod call;
mod change;
mod clock;
mod digest;
mod frame;
mod message;
mod names;
mod origin;
mod packed;
mod partition;
mod visible;

pub use attached::{Attached, MAX_DATA_TYPE_BYTES};
pub use call::{Caller, ChatError, PostResult, Receipt, Refusal, Unfit};
pub use change::{
    Change, Current, MAX_EMOJI_BYTES, MAX_EMOJIS, Posted, Reaction, ReactionCount, Target,
    check_emoji,
};
pub use clock::Clock;
pub use digest::Digests;
pub use frame::{Frame, PREFIX_LEN};
pub use message::{Draft, GivenId, MessageId, Row, Seq, Timestamp};
pub use names::{ChatId, ClientChatId, ClientMessageId, Invalid, MAX_NAME_BYTES, UserName};
pub use origin::Origin;
pub use packed::packed;
pub use partition::{NodeId, PARTITIONS, Partition};
