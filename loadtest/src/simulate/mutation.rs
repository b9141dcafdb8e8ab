//! Faults that the simulation can be given, to see that it finds them.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// A commit is reported that never happens.
    AcksWithoutStoring,
    /// A commit is reported before it happens.
    AcksEarly,
    /// A batch is stored a second time, behind itself.
    StoresTwice,
    /// A taken seq is written over.
    Overwrites,
    /// A crash of the server costs the newest messages.
    ForgetsInCrash,
    /// Some message never shows in a page.
    PageWithHole,
    /// Some message shows in a page with another text.
    PageOfOthers,
    /// Of the newest messages only the last is read.
    ShortTail,
    /// Members are removed in word only.
    KeepsMembers,
    /// One wake-up in 500 is swallowed.
    LosesWakes,
    /// Nobody says that another server of the database has taken over.
    HidesTakeovers,
    /// Only the lanes are told that another server of the database has taken over.
    TellsLanesOnly,
    /// Only the shards are told.
    TellsShardsOnly,
    /// Some call is never answered.
    LosesAnswers,
}
