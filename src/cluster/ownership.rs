//! Which partitions a node owns, and what it does so that each has the owner it should
//! have. The database decides: what is read there is fact, and every change is made there
//! on the condition that it is still as it was read.

use std::collections::BTreeMap;

use super::nodes::{NodeRow, State};
use crate::domain::{NodeId, Partition};

/// So many partitions a node hands over at a time. Each is without an owner for a moment,
/// and what waits for it is held in memory.
pub const MOVES: usize = 4;

/// A partition's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRow {
    pub partition: Partition,
    pub owner: Option<NodeId>,
    /// Grows by one with each change of the owner.
    pub epoch: i64,
}

/// What the node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Wait for what the node, which is gone, has under way, or end it, and then write
    /// down that it is fenced.
    Fence(NodeId),
    /// Become the owner if the epoch is still this one and the owner, if there is one, is
    /// fenced.
    Claim { partition: Partition, epoch: i64 },
    /// It is ours: answer for its chats.
    Serve { partition: Partition, epoch: i64 },
    /// Begin no more writes of its chats, and say when none is under way any more: not
    /// even one whose session was given up and that might yet commit.
    Quiesce(Partition),
    /// Make the other node the owner if we still are, in this epoch.
    Give {
        partition: Partition,
        to: NodeId,
        epoch: i64,
    },
    /// It stays ours after all: answer for its chats again.
    Resume(Partition),
    /// It is not ours: forget its chats, and pass on what waits.
    Drop(Partition),
    /// We are not a node of the cluster any more: come back under a new id.
    Rejoin,
    /// Nothing is ours and nothing under way: write down that we are fenced, and stop.
    Retire,
}

/// What became of [`Effect::Give`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Done,
    /// We were not the owner in that epoch.
    Refused,
    /// It may have been done: it is to be tried again.
    Unknown,
}

/// One node's part in the ownership of partitions.
#[derive(Debug)]
pub struct Ownership {
    me: NodeId,
    held: BTreeMap<Partition, Held>,
    /// The newest epoch of each partition that is known. What an older row says is over.
    epochs: BTreeMap<Partition, i64>,
    leaving: bool,
    ended: bool,
    /// For the simulation to find: [`Held::in_doubt`] is forgotten.
    #[cfg(test)]
    pub(super) forgets_doubts: bool,
}

#[derive(Debug)]
struct Held {
    epoch: i64,
    phase: Phase,
    /// Who should have it, as of the last look; `None` if nobody can.
    to: Option<NodeId>,
    /// It may yet be given away by a transaction whose answer was lost.
    in_doubt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Writes are under way.
    Quiescing,
    /// None is. It stays so until there is somebody to give it to.
    Quiet,
    Giving(NodeId),
}

impl Ownership {
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            held: BTreeMap::new(),
            epochs: BTreeMap::new(),
            leaving: false,
            ended: false,
            #[cfg(test)]
            forgets_doubts: false,
        }
    }

    /// Whether this node answers for the partition, and may begin writes.
    pub fn serves(&self, partition: Partition) -> bool {
        let held = self.held.get(&partition);
        held.is_some_and(|held| held.phase == Phase::Serving)
    }

    /// Hands everything over, and retires then.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// The database may have lost what was read of it: what is read from now on counts,
    /// older epochs too.
    pub fn forget_epochs(&mut self) {
        self.epochs.clear();
    }

    /// Takes in what one statement has read of the database.
    pub fn table(&mut self, nodes: &[NodeRow], partitions: &[PartitionRow]) -> Vec<Effect> {
        if self.ended {
            return Vec::new();
        }
        let me = nodes.iter().find(|node| node.id == self.me);
        if me.is_none_or(|me| matches!(me.state, State::Gone | State::Fenced)) {
            self.ended = true;
            let held = std::mem::take(&mut self.held);
            let drops = held.into_keys().map(Effect::Drop);
            return drops.chain([Effect::Rejoin]).collect();
        }
        let gone = nodes.iter().filter(|node| node.state == State::Gone);
        let mut effects: Vec<Effect> = gone.map(|node| Effect::Fence(node.id)).collect();
        let eligible = self.eligible(nodes);
        for row in partitions {
            let known = self.epochs.entry(row.partition).or_insert(row.epoch);
            if row.epoch < *known {
                continue;
            }
            *known = row.epoch;
            self.settle(row, &mut effects);
            let rightful = row.partition.rightful(eligible.iter().copied());
            if rightful == Some(self.me) && is_free(row, nodes) {
                effects.push(Effect::Claim {
                    partition: row.partition,
                    epoch: row.epoch,
                });
            }
        }
        self.hand_over(&eligible, &mut effects);
        effects
    }

    /// Nothing of the partition is under way any more.
    pub fn quiet(&mut self, partition: Partition) -> Option<Effect> {
        let held = self.held.get_mut(&partition)?;
        if held.phase != Phase::Quiescing {
            return None;
        }
        held.phase = Phase::Quiet;
        held.go_on(partition, self.me)
    }

    /// Takes in what became of a partition that was to be given away.
    pub fn given(&mut self, partition: Partition, given: Given) -> Option<Effect> {
        let held = self.held.get_mut(&partition)?;
        if !matches!(held.phase, Phase::Giving(_)) {
            return None;
        }
        match given {
            Given::Done => {
                let epoch = held.epoch + 1;
                let known = self.epochs.entry(partition).or_insert(epoch);
                *known = epoch.max(*known);
                if held.phase == Phase::Giving(self.me) {
                    (held.epoch, held.phase, held.in_doubt) = (epoch, Phase::Serving, false);
                    return Some(Effect::Resume(partition));
                }
                self.held.remove(&partition);
                Some(Effect::Drop(partition))
            }
            // The table says what is so.
            Given::Refused | Given::Unknown => {
                held.phase = Phase::Quiet;
                held.in_doubt |= given == Given::Unknown;
                #[cfg(test)]
                {
                    held.in_doubt &= !self.forgets_doubts;
                }
                None
            }
        }
    }

    /// Who may be given something: of those that are up, the ones on the bus, or all if
    /// the bus is away for everybody.
    fn eligible(&self, nodes: &[NodeRow]) -> Vec<NodeId> {
        let stays = |node: &&NodeRow| !(node.id == self.me && self.leaving);
        let of = |state: State| -> Vec<&NodeRow> {
            let theirs = nodes.iter().filter(|node| node.state == state);
            theirs.filter(stays).collect()
        };
        let mut able = of(State::Up);
        // Those that are drained have it all if there is nobody else.
        if able.is_empty() {
            able = of(State::Drained);
        }
        let has_bus = able.iter().any(|node| node.on_bus);
        able.retain(|node| node.on_bus || !has_bus);
        able.into_iter().map(|node| node.id).collect()
    }

    /// Makes what we hold agree with the row.
    fn settle(&mut self, row: &PartitionRow, effects: &mut Vec<Effect>) {
        let is_ours = row.owner == Some(self.me);
        let partition = row.partition;
        match self.held.get(&partition).map(|held| held.epoch) {
            Some(epoch) if is_ours && epoch == row.epoch => return,
            Some(_) => {
                self.held.remove(&partition);
                effects.push(Effect::Drop(partition));
            }
            None => {}
        }
        if is_ours {
            let epoch = row.epoch;
            let held = Held {
                epoch,
                phase: Phase::Serving,
                to: None,
                in_doubt: false,
            };
            self.held.insert(partition, held);
            effects.push(Effect::Serve { partition, epoch });
        }
    }

    /// Gives away what others should have, a few at a time.
    fn hand_over(&mut self, eligible: &[NodeId], effects: &mut Vec<Effect>) {
        let is_moving = |held: &&Held| held.phase != Phase::Serving;
        let moving = self.held.values().filter(is_moving).count();
        let mut room = match eligible {
            // There is nobody to take them: it all ends at once.
            [] => usize::MAX,
            _ => MOVES.saturating_sub(moving),
        };
        for (partition, held) in &mut self.held {
            held.to = partition.rightful(eligible.iter().copied());
            let stays = match held.to {
                Some(to) => to == self.me,
                None => !self.leaving,
            };
            match held.phase {
                Phase::Serving if stays || room == 0 => {}
                Phase::Serving => {
                    room -= 1;
                    held.phase = Phase::Quiescing;
                    effects.push(Effect::Quiesce(*partition));
                }
                Phase::Quiet => {
                    // With nobody to give it to, it stays with who stays.
                    if held.to.is_none() && !self.leaving {
                        held.to = Some(self.me);
                    }
                    effects.extend(held.go_on(*partition, self.me));
                }
                Phase::Quiescing | Phase::Giving(_) => {}
            }
        }
        let has_ended = |held: &Held| held.phase == Phase::Quiet && held.to.is_none();
        if self.leaving && self.held.values().all(has_ended) {
            self.ended = true;
            effects.push(Effect::Retire);
        }
    }
}

impl Held {
    /// What follows for one that is quiet.
    fn go_on(&mut self, partition: Partition, me: NodeId) -> Option<Effect> {
        let to = self.to?;
        // If it may be given away already, we give it to ourselves: of two transactions
        // that end the same epoch one fails.
        if to == me && !self.in_doubt {
            self.phase = Phase::Serving;
            return Some(Effect::Resume(partition));
        }
        self.phase = Phase::Giving(to);
        Some(Effect::Give {
            partition,
            to,
            epoch: self.epoch,
        })
    }
}

/// Nobody owns it, or whoever does can't write any more.
fn is_free(row: &PartitionRow, nodes: &[NodeRow]) -> bool {
    let Some(owner) = row.owner else { return true };
    let owner = nodes.iter().find(|node| node.id == owner);
    owner.is_none_or(|owner| owner.state == State::Fenced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i64, state: State) -> NodeRow {
        NodeRow {
            id: NodeId(id),
            beat: 0,
            state,
            on_bus: true,
        }
    }

    fn all(owner: Option<i64>, epoch: i64) -> Vec<PartitionRow> {
        let row = |partition| PartitionRow {
            partition,
            owner: owner.map(NodeId),
            epoch,
        };
        Partition::all().map(row).collect()
    }

    fn count(effects: &[Effect], is_this: impl Fn(&Effect) -> bool) -> usize {
        effects.iter().filter(|effect| is_this(effect)).count()
    }

    #[test]
    fn p13_drained_nodes_take_over_if_there_is_nobody_else() {
        let mut ownership = Ownership::new(NodeId(1));
        let nodes = [node(1, State::Drained), node(2, State::Up)];
        assert_eq!(ownership.table(&nodes, &all(Some(2), 1)), []);
        let nodes = [node(1, State::Drained), node(2, State::Fenced)];
        let effects = ownership.table(&nodes, &all(Some(2), 1));
        let is_claim = |effect: &Effect| matches!(effect, Effect::Claim { .. });
        assert_eq!(count(&effects, is_claim), 256);
    }

    #[test]
    fn what_is_quiet_when_the_last_node_is_drained_is_served_again() {
        let mut ownership = Ownership::new(NodeId(1));
        let rows = all(Some(1), 1);
        let nodes = [node(1, State::Drained), node(2, State::Up)];
        let effects = ownership.table(&nodes, &rows);
        let quiesced: Vec<Partition> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Quiesce(partition) => Some(*partition),
                _ => None,
            })
            .collect();
        assert_eq!(quiesced.len(), MOVES);
        // The other is drained as well, or leaves, before anything is given to it.
        for other in [State::Drained, State::Leaving] {
            let nodes = [node(1, State::Drained), node(2, other)];
            ownership.table(&nodes, &rows);
        }
        let mut effects = Vec::new();
        for partition in &quiesced {
            effects.extend(ownership.quiet(*partition));
        }
        let nodes = [node(1, State::Drained), node(2, State::Leaving)];
        effects.extend(ownership.table(&nodes, &rows));
        for partition in quiesced {
            assert!(
                effects.contains(&Effect::Resume(partition)),
                "{partition:?}"
            );
            assert!(ownership.serves(partition));
        }
    }

    #[test]
    fn p2_what_a_failover_has_lost_is_not_held_on_to() {
        let mut ownership = Ownership::new(NodeId(1));
        let nodes = [node(1, State::Up), node(2, State::Up)];
        let lost = Partition::all().next().unwrap();
        let row = |owner, epoch| PartitionRow {
            partition: lost,
            owner: Some(NodeId(owner)),
            epoch,
        };
        let effects = ownership.table(&nodes, &[row(1, 7)]);
        assert_eq!(
            effects[0],
            Effect::Serve {
                partition: lost,
                epoch: 7
            }
        );
        assert_eq!(ownership.table(&nodes, &[row(2, 5)]), []);
        ownership.forget_epochs();
        assert_eq!(ownership.table(&nodes, &[row(2, 5)]), [Effect::Drop(lost)]);
        assert!(!ownership.serves(lost));
    }
}
