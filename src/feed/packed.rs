use std::{
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

/// Frames of so many bytes are worth it. Longer ones would keep a core from its other
/// streams for a millisecond and more.
pub const WORTH: RangeInclusive<usize> = 1_024..=64 * 1_024;

/// The place of a message in gzip, shared by all readers that take it so: the first of
/// them compresses it.
#[derive(Debug, Clone, Default)]
pub struct Packed(Arc<OnceLock<Option<Bytes>>>);

impl Packed {
    pub fn is_there(&self) -> bool {
        self.0.get().is_some()
    }

    /// The message in gzip; `None` if that is no shorter. `pack` makes it, if nobody has.
    pub fn get(&self, pack: impl FnOnce() -> Option<Bytes>) -> Option<Bytes> {
        self.0.get_or_init(pack).clone()
    }
}
