//! Faults of our own making, for the checker to find (`loadtest check --prove`):
//! what it has never seen fail, it may be blind to.
//!
//! They are in builds with the feature `testing` only, and one at a time is
//! switched on by the environment, `CHATD_FAULT=NAME`. In any other build
//! [`is_on`] is a constant, so that neither the names nor the branches are there.
//! Such a build also has a wall clock that can be set, `CHATD_CLOCK`.
//!
//! `app`, `shard` and their parts ask; this room asks nobody.

#[cfg(feature = "testing")]
mod clock;
#[cfg(feature = "testing")]
mod store;

#[cfg(feature = "testing")]
pub use clock::SetClock;
#[cfg(feature = "testing")]
pub use store::FaultyStore;

/// What is done wrong, and which promise that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// P1: the lane is told of a commit that comes one batch late.
    AckBeforeCommit,
    /// P1, P2: the store leaves out a row of a batch now and then.
    LoseARow,
    /// P2: the store has two rows of a batch in each other's place.
    SwapRows,
    /// P2: a chat is loaded without its newest message, and the store says
    /// nothing of a seq that is taken.
    ReuseASeq,
    /// P2: `created_at` is what the wall clock says, even if it was set back.
    TimeRunsBack,
    /// P3: readers see what is yet to be committed.
    DeliverBeforeCommit,
    /// P4: a reader that changes from the ring to history leaves one out.
    GapAtHandover,
    /// P4: readers are not woken now and then.
    LoseAWake,
    /// P5: a post is new, whatever its `client_message_id`.
    ForgetDuplicates,
    /// P7: anyone may read.
    SkipMembership,
    /// P2, P4: what memory has of a chat stands, whatever a failover has cost.
    BelieveMemory,
}

/// Whether the server is to do this wrong, always.
#[cfg(not(feature = "testing"))]
pub const fn is_on(_fault: Fault) -> bool {
    false
}

#[cfg(feature = "testing")]
pub fn is_on(fault: Fault) -> bool {
    switched_on() == Some(fault)
}

/// Whether the server is to do this wrong this time: one in eight.
pub fn strikes(fault: Fault) -> bool {
    is_on(fault) && fastrand::u8(..8) == 0
}

#[cfg(feature = "testing")]
const NAMES: [(&str, Fault); 11] = [
    ("ack-before-commit", Fault::AckBeforeCommit),
    ("lose-a-row", Fault::LoseARow),
    ("swap-rows", Fault::SwapRows),
    ("reuse-a-seq", Fault::ReuseASeq),
    ("time-runs-back", Fault::TimeRunsBack),
    ("deliver-before-commit", Fault::DeliverBeforeCommit),
    ("gap-at-handover", Fault::GapAtHandover),
    ("lose-a-wake", Fault::LoseAWake),
    ("forget-duplicates", Fault::ForgetDuplicates),
    ("skip-membership", Fault::SkipMembership),
    ("believe-memory", Fault::BelieveMemory),
];

/// The fault that the environment names.
///
/// # Panics
/// If there is none of that name: a run without it would prove nothing.
#[cfg(feature = "testing")]
pub fn switched_on() -> Option<Fault> {
    static ON: std::sync::OnceLock<Option<Fault>> = std::sync::OnceLock::new();
    *ON.get_or_init(|| {
        let name = std::env::var("CHATD_FAULT").ok()?;
        let named = NAMES.iter().find(|(known, _)| *known == name);
        match named {
            Some((_, fault)) => Some(*fault),
            None => panic!("CHATD_FAULT: no fault is called {name}"),
        }
    })
}
