//! The table of nodes and partitions, as a simple query answers it.

use std::str::FromStr;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::{
    cluster::{Label, NodeId, NodeRow, Partition, PartitionRow, State, Table},
    store::{StoreError, StoreResult},
};

/// All nodes and all partitions, of one snapshot. Of a partition there are its id, its
/// epoch and its owner.
pub(super) const TABLE: &str = "
    SELECT 'node', id, beat, state, on_bus, name, version, address FROM nodes
     UNION ALL
    SELECT 'partition', id, epoch, owner::text, NULL, NULL, NULL, NULL FROM partitions";

/// A row that no release of this program has written.
#[derive(Debug, thiserror::Error)]
#[error("a row of the cluster's nodes and partitions cannot be read")]
struct Unreadable;

/// The rows of the last statement that has any.
pub(super) fn last_rows(messages: Vec<SimpleQueryMessage>) -> Vec<SimpleQueryRow> {
    let mut rows = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(_) => rows.clear(),
            SimpleQueryMessage::Row(row) => rows.push(row),
            _ => {}
        }
    }
    rows
}

/// What [`TABLE`] has answered.
pub(super) fn table(rows: &[SimpleQueryRow]) -> StoreResult<Table> {
    let mut table = Table {
        nodes: Vec::new(),
        partitions: Vec::new(),
        labels: Vec::new(),
    };
    for row in rows {
        add(&mut table, row).ok_or_else(|| StoreError::Refused(Unreadable.into()))?;
    }
    Ok(table)
}

fn add(table: &mut Table, row: &SimpleQueryRow) -> Option<()> {
    if row.get(0)? == "partition" {
        let owner = match row.get(3) {
            Some(owner) => Some(NodeId(owner.parse().ok()?)),
            None => None,
        };
        table.partitions.push(PartitionRow {
            partition: Partition::from_number(column(row, 1)?)?,
            owner,
            epoch: column(row, 2)?,
        });
        return Some(());
    }
    let id = NodeId(column(row, 1)?);
    table.nodes.push(NodeRow {
        id,
        beat: column(row, 2)?,
        state: State::of_name(row.get(3)?)?,
        on_bus: row.get(4)? == "t",
    });
    table.labels.push(Label {
        node: id,
        name: row.get(5)?.to_owned(),
        version: row.get(6)?.to_owned(),
        address: row.get(7)?.to_owned(),
    });
    Some(())
}

fn column<T: FromStr>(row: &SimpleQueryRow, at: usize) -> Option<T> {
    row.get(at)?.parse().ok()
}
