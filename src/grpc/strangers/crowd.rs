use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

/// A connection's turn in its group's line, and its number.
pub type Turn = (u64, u64);

/// Connections in groups, as those of one address or of one user.
#[derive(Debug)]
pub struct Crowd<K, V> {
    groups: HashMap<K, Group<V>, ahash::RandomState>,
    /// Groups by how many connections they have, as far as one of these could give way.
    ranks: BTreeSet<(usize, K)>,
}

#[derive(Debug)]
struct Group<V> {
    count: usize,
    /// Those that could give way, by their turn to.
    line: BTreeMap<Turn, V>,
}

impl<V> Group<V> {
    fn rank(&self) -> Option<usize> {
        (!self.line.is_empty()).then_some(self.count)
    }
}

impl<K, V> Default for Crowd<K, V> {
    fn default() -> Self {
        Self {
            groups: HashMap::default(),
            ranks: BTreeSet::new(),
        }
    }
}

impl<K: Clone + Ord + Hash, V: Clone> Crowd<K, V> {
    /// How many connections a group has.
    pub fn count(&self, group: &K) -> usize {
        self.groups.get(group).map_or(0, |group| group.count)
    }

    pub fn enter(&mut self, group: &K, turn: Turn, one: V) {
        self.change(group, |group| {
            group.count += 1;
            group.line.insert(turn, one);
        });
    }

    /// `turn` is `None` if it does not stand in the line.
    pub fn leave(&mut self, group: &K, turn: Option<Turn>) {
        self.change(group, |group| {
            group.count -= 1;
            if let Some(turn) = turn {
                group.line.remove(&turn);
            }
        });
    }

    /// One of the group takes another turn, or leaves the line and stays in the group.
    pub fn change_turn(&mut self, group: &K, from: Option<Turn>, to: Option<Turn>, one: V) {
        self.change(group, |group| {
            if let Some(from) = from {
                group.line.remove(&from);
            }
            if let Some(to) = to {
                group.line.insert(to, one);
            }
        });
    }

    /// Of the groups in which somebody stands in the line, the one with most
    /// connections: how many these are, and whose turn it is.
    pub fn largest(&self) -> Option<(usize, K, Turn, V)> {
        let (count, group) = self.ranks.last()?;
        let (turn, one) = self.groups.get(group)?.line.first_key_value()?;
        Some((*count, group.clone(), *turn, one.clone()))
    }

    fn change(&mut self, key: &K, change: impl FnOnce(&mut Group<V>)) {
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group {
            count: 0,
            line: BTreeMap::new(),
        });
        let before = group.rank();
        change(group);
        let after = group.rank();
        if group.count == 0 {
            self.groups.remove(key);
        }
        if before != after {
            if let Some(count) = before {
                self.ranks.remove(&(count, key.clone()));
            }
            if let Some(count) = after {
                self.ranks.insert((count, key.clone()));
            }
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.ranks.is_empty()
    }
}
