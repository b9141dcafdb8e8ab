use std::fmt;

use super::ChatId;

/// How many partitions the chats of a cluster are divided into. It is the unit in which
/// chats move between nodes, so it is well above the number of nodes, and small enough
/// that all of them are a page of the database.
pub const PARTITIONS: u16 = 256;

/// One of [`PARTITIONS`]: the chats that have the same owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

/// A run of a node, drawn anew at each start: a node that comes back is another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub i64);

impl Partition {
    /// The partition of a chat. All nodes of a cluster, of whichever release, have to
    /// agree on it, so it never changes.
    pub fn of(chat: ChatId) -> Self {
        Self(mixed(chat.get() as u64) as u8)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// From a row of the database; `None` if there is no such partition.
    pub fn from_number(number: i16) -> Option<Self> {
        u8::try_from(number).ok().map(Self)
    }

    pub fn number(self) -> i16 {
        self.0.into()
    }

    /// Which of the nodes should own it: the one with the highest random weight
    /// (rendezvous hashing, Thaler and Ravishankar, 1998), so that a node that comes or
    /// goes moves the partitions that it gains or loses, and no others.
    pub fn rightful(self, nodes: impl IntoIterator<Item = NodeId>) -> Option<NodeId> {
        let weight = |node: &NodeId| (node.weight(u64::from(self.0)), *node);
        nodes.into_iter().max_by_key(weight)
    }
}

impl From<Partition> for usize {
    fn from(partition: Partition) -> Self {
        partition.0.into()
    }
}

impl NodeId {
    /// Its weight for something, evenly distributed.
    pub fn weight(self, of: u64) -> u64 {
        mixed(mixed(of.wrapping_add(1)) ^ self.0 as u64)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The finaliser of MurmurHash3 (Appleby, public domain, `fmix64`): a bijection in which
/// each bit of the input changes half of the output's.
fn mixed(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::chat_id;

    #[test]
    fn the_partition_of_a_chat_never_changes() {
        let found: Vec<i16> = [1, 2, 3, 1_000, i64::MAX]
            .map(|chat| Partition::of(chat_id(chat)).number())
            .to_vec();
        assert_eq!(found, [44, 231, 206, 65, 234]);
    }

    #[test]
    fn chats_and_partitions_are_spread_evenly() {
        let mut chats = [0; PARTITIONS as usize];
        for chat in 1..=256_000 {
            chats[Partition::of(chat_id(chat)).number() as usize] += 1;
        }
        assert!(chats.iter().all(|count| (850..1_150).contains(count)));

        let nodes: Vec<NodeId> = (0..8).map(|n| NodeId(n * 7_919)).collect();
        let mut owned = [0; 8];
        for partition in Partition::all() {
            let owner = partition.rightful(nodes.iter().copied()).unwrap();
            owned[nodes.iter().position(|node| *node == owner).unwrap()] += 1;
        }
        assert!(
            owned.iter().all(|count| (16..=48).contains(count)),
            "{owned:?}"
        );
    }

    #[test]
    fn who_leaves_moves_nothing_of_others() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
        for partition in Partition::all() {
            let before = partition.rightful(nodes.iter().copied());
            let after = partition.rightful(nodes.iter().copied().filter(|n| *n != NodeId(3)));
            assert!(before == after || before == Some(NodeId(3)));
        }
        assert_eq!(Partition::of(chat_id(1)).rightful([]), None);
    }
}
