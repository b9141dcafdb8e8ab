//! Several nodes over one PostgreSQL database: who was declared gone writes nothing any
//! more, and each partition has one owner.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chat_service::{
    cluster::{Given, Label, NodeId, PARTITIONS, Partition, PartitionRow, State, Table, Verdict},
    domain::{ChatId, UserName},
    store::{
        Store, StoreError, StoreResult,
        postgres::{PostgresStore, Registry},
    },
};
use futures_util::future::join_all;
use tokio::{
    task::{JoinSet, block_in_place},
    time::{sleep, timeout},
};
use tokio_postgres::Client;

use crate::{
    pg::{self, Pg, fresh_database, fresh_database_on, sql},
    pooler::Pooler,
    postgres_store::{append, chat, last_seq, rows, soon},
};

const A: NodeId = NodeId(i64::MIN);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(-3);

/// A server that stands as a node.
struct Node {
    id: NodeId,
    store: Arc<PostgresStore>,
    registry: Registry,
}

impl Node {
    async fn start(dsn: &str, id: NodeId) -> Self {
        let store = Arc::new(pg::open(dsn).await);
        let registry = store.registry();
        registry.join(&label(id)).await.unwrap();
        store.stand_as(Some(id));
        Self {
            id,
            store,
            registry,
        }
    }

    async fn beat(&self) -> Table {
        self.registry.beat(self.id, false, true).await.unwrap()
    }

    /// Declares the other node gone.
    async fn declare(&self, other: &Node) {
        let table = self.registry.table().await.unwrap();
        let beat = row(&table, other.id).beat;
        let node = other.id;
        let declared = self.registry.declare(Verdict { node, beat }).await;
        assert!(declared.unwrap());
    }

    async fn fence(&self, other: &Node) -> StoreResult<()> {
        self.registry.fence(other.id, soon()).await
    }
}

fn label(node: NodeId) -> Label {
    Label {
        node,
        name: "it's \\ one's".into(),
        version: "1.2.3".into(),
        address: "10.0.0.1:50051".into(),
    }
}

fn row(table: &Table, node: NodeId) -> chat_service::cluster::NodeRow {
    let found = table.nodes.iter().find(|row| row.id == node);
    *found.expect("the node is in the table")
}

fn partition(number: i16) -> Partition {
    Partition::from_number(number).unwrap()
}

fn partition_row(table: &Table, number: i16) -> PartitionRow {
    let is_it = |row: &&PartitionRow| row.partition == partition(number);
    *table.partitions.iter().find(is_it).unwrap()
}

fn every_partition(epoch: i64) -> Vec<(Partition, i64)> {
    Partition::all().map(|one| (one, epoch)).collect()
}

fn users(names: &[&str]) -> Vec<UserName> {
    let user = |name: &&str| UserName::new(name).unwrap();
    names.iter().map(user).collect()
}

fn is_stale<T>(result: StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Stale))
}

async fn raw(dsn: &str) -> Client {
    let connected = tokio_postgres::connect(dsn, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    pg::spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    client
}

/// What a transaction of this node begins with, and a message that it has written.
async fn under_way(client: &Client, node: NodeId, chat: ChatId, seq: i64) {
    let written = format!(
        "BEGIN; SELECT chatd_fence('{}');
         INSERT INTO messages VALUES ({chat}, {seq}, {seq}, 'x', 'x', NULL, 1)",
        node.0
    );
    client.batch_execute(&written).await.unwrap();
}

#[tokio::test]
async fn p1_a_node_that_is_gone_writes_nothing() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let id = chat(&a.store).await;
    append(&a.store, rows(id, 1..=3)).await.unwrap();
    b.declare(&a).await;
    let again = Verdict { node: A, beat: 0 };
    assert!(!b.registry.declare(again).await.unwrap());
    // Whether it had a session or makes one, once and again.
    for _ in 0..3 {
        assert!(is_stale(append(&a.store, rows(id, 4..=4)).await));
        assert!(is_stale(a.store.append(1, rows(id, 4..=4).into()).await));
    }
    b.fence(&a).await.unwrap();
    b.fence(&a).await.unwrap();
    assert!(is_stale(append(&a.store, rows(id, 4..=4)).await));
    assert_eq!(last_seq(&b.store, id).await, 3);
    // What is stored is so for good, whoever asks.
    assert!(a.store.confirm(0, &rows(id, 3..=3)[0]).await.unwrap());
    let table = a.beat().await;
    assert_eq!(row(&table, A).state, State::Fenced);
    assert_eq!(row(&table, A).beat, 0);

    append(&b.store, rows(id, 4..=4)).await.unwrap();
    // It comes back as another.
    a.registry.join(&label(C)).await.unwrap();
    a.store.stand_as(Some(C));
    append(&a.store, rows(id, 5..=5)).await.unwrap();
    assert_eq!(last_seq(&b.store, id).await, 5);
}

/// Batches that follow each other have the next one's COPY open all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_nothing_is_stored_once_the_fence_is_taken() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let mut chats = Vec::new();
    for _ in 0..2 {
        chats.push(chat(&a.store).await);
    }
    let mut writing = JoinSet::new();
    for (lane, id) in chats.iter().copied().enumerate() {
        let store = a.store.clone();
        writing.spawn(async move {
            let mut seq = 0;
            loop {
                match store.append(lane, rows(id, seq + 1..=seq + 1).into()).await {
                    Ok(()) => seq += 1,
                    Err(StoreError::Stale) => return (id, seq),
                    // The lock was waited for.
                    Err(StoreError::Unavailable(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    sleep(Duration::from_millis(300)).await;
    b.declare(&a).await;
    let start = Instant::now();
    b.fence(&a).await.unwrap();
    let took = start.elapsed();
    let stored = join_all(chats.iter().map(|id| last_seq(&b.store, *id))).await;
    println!("fenced after {took:?}: {stored:?}");
    assert!(stored.iter().all(|seq| *seq > 5), "{stored:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let acknowledged = timeout(Duration::from_secs(20), writing.join_all()).await;
    for (id, seq) in acknowledged.unwrap() {
        let at = chats.iter().position(|one| *one == id).unwrap();
        assert_eq!(stored[at], seq, "acknowledged and stored");
        assert_eq!(last_seq(&b.store, id).await, seq, "stored behind the fence");
    }
}

/// The node's process has stopped in the middle of a transaction.
#[tokio::test]
async fn p1_whoever_keeps_a_node_from_being_fenced_is_ended() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let c = Node::start(&dsn, C).await;
    let id = chat(&a.store).await;
    let (stopped, other) = (raw(&dsn).await, raw(&dsn).await);
    under_way(&stopped, A, id, 1).await;
    under_way(&other, B, id, 2).await;
    let not_gone = b.fence(&c).await;
    assert!(
        matches!(not_gone, Err(StoreError::Refused(_))),
        "{not_gone:?}"
    );
    b.declare(&a).await;
    // Several nodes at once, none of which ends another.
    let fenced = tokio::join!(b.fence(&a), c.fence(&a));
    assert!(matches!(fenced, (Ok(()), Ok(()))), "{fenced:?}");
    assert!(stopped.batch_execute("COMMIT").await.is_err());
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(last_seq(&b.store, id).await, 0);
    assert_eq!(row(&b.beat().await, A).state, State::Fenced);
}

/// A process that has stopped between two batches, its next COPY open, which holds the
/// lock; and goes on when others have taken over.
#[tokio::test]
async fn p1_a_process_that_stopped_with_a_copy_open_writes_nothing_when_it_goes_on() {
    const LAST: i64 = 5;
    let dsn = fresh_database().await;
    let b = Node::start(&dsn, B).await;
    let (stops, stopped) = tokio::sync::oneshot::channel();
    let (go_on, goes_on) = std::sync::mpsc::sync_channel(1);
    let address = dsn.clone();
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let a = Node::start(&address, A).await;
            let id = chat(&a.store).await;
            for seq in 1..=LAST {
                append(&a.store, rows(id, seq..=seq)).await.unwrap();
            }
            stops.send(id).unwrap();
            // Nothing of this runtime runs meanwhile.
            goes_on.recv().unwrap();
            loop {
                match append(&a.store, rows(id, LAST + 1..=LAST + 1)).await {
                    Err(StoreError::Stale) => break,
                    // Its session was ended.
                    Err(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
    });
    let id = stopped.await.unwrap();
    let held = "SELECT mode FROM pg_locks JOIN pg_stat_activity USING (pid) \
        WHERE locktype = 'advisory' AND mode = 'ShareLock' AND query LIKE 'COPY%' \
        AND datname = current_database()";
    assert_eq!(sql(&dsn, held).await, ["ShareLock"]);
    let table = b.registry.table().await.unwrap();
    let (node, beat) = (A, row(&table, A).beat);
    assert!(b.registry.declare(Verdict { node, beat }).await.unwrap());
    let start = Instant::now();
    b.registry.fence(A, soon()).await.unwrap();
    println!("fenced after {:?}", start.elapsed());
    assert!(sql(&dsn, held).await.is_empty());
    assert_eq!(last_seq(&b.store, id).await, LAST);
    go_on.send(()).unwrap();
    process.join().unwrap();
    assert_eq!(last_seq(&b.store, id).await, LAST);
}

/// A commit that waits for a standby is neither done nor lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_commit_that_waits_for_a_standby_is_not_ended() {
    let pg = block_in_place(Pg::start);
    let dsn = pg.dsn("postgres");
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let id = chat(&a.store).await;
    let waiting = raw(&dsn).await;
    under_way(&waiting, A, id, 1).await;
    b.declare(&a).await;
    let standbys = async |names: &str| {
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        sql(&dsn, &set).await;
        sql(&dsn, "SELECT pg_reload_conf()").await;
        // Commits wait once the checkpointer has read it, and it does not say when.
        sleep(Duration::from_secs(1)).await;
    };
    standbys("away").await;
    let commit = waiting.batch_execute("COMMIT");
    let rest = async {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let seen = async { while sql(&dsn, waits).await != ["1"] {} };
        timeout(Duration::from_secs(20), seen).await.unwrap();
        let refused = b.fence(&a).await;
        assert!(
            matches!(&refused, Err(StoreError::Unavailable(why)) if why.to_string().contains("standby")),
            "{refused:?}"
        );
        assert_eq!(sql(&dsn, waits).await, ["1"]);
        standbys("").await;
    };
    let (committed, ()) = tokio::join!(commit, rest);
    committed.unwrap();
    b.fence(&a).await.unwrap();
    assert_eq!(last_seq(&b.store, id).await, 1);
}

#[tokio::test]
async fn p1_a_node_that_is_gone_changes_no_chat() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let id = chat(&a.store).await;
    let add = async |store: &PostgresStore, name| store.add_members(id, users(&[name]), None).await;
    add(&a.store, "bob").await.unwrap();
    b.declare(&a).await;
    assert!(is_stale(add(&a.store, "eve").await));
    let removed = a.store.remove_members(id, users(&["bob"]), None).await;
    assert!(is_stale(removed));
    assert!(is_stale(a.store.delete_chat(id, None).await));
    b.fence(&a).await.unwrap();
    assert!(is_stale(a.store.delete_chat(id, None).await));
    let (record, _) = b.store.load_chat(id, 0, soon()).await.unwrap().unwrap();
    assert_eq!(record.members, users(&["alice", "bob"]));
    // A new chat is nobody's yet.
    chat(&a.store).await;
    add(&b.store, "eve").await.unwrap();
    assert!(b.store.delete_chat(id, None).await.unwrap());
}

#[tokio::test]
async fn p1_each_partition_has_one_owner() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    // All at once, and each is somebody's.
    let all = every_partition(0);
    let (by_a, by_b) = tokio::join!(a.registry.claim(A, &all), b.registry.claim(B, &all));
    let (by_a, by_b) = (by_a.unwrap(), by_b.unwrap());
    assert_eq!(by_a + by_b, PARTITIONS as usize);
    let table = a.beat().await;
    assert_eq!(table.partitions.len(), PARTITIONS as usize);
    let owned = |by: NodeId| {
        let rows = table.partitions.iter();
        rows.filter(|row| row.owner == Some(by) && row.epoch == 1)
            .count()
    };
    assert_eq!((owned(A), owned(B)), (by_a, by_b));
    // None is free now, in whatever epoch.
    for epoch in 0..3 {
        let taken = b.registry.claim(B, &every_partition(epoch)).await;
        assert_eq!(taken.unwrap(), 0);
    }

    // Who is gone has its own until it is fenced.
    b.declare(&a).await;
    assert_eq!(b.registry.claim(B, &every_partition(1)).await.unwrap(), 0);
    assert!(is_stale(a.registry.claim(A, &every_partition(1)).await));
    b.fence(&a).await.unwrap();
    assert!(is_stale(a.registry.claim(A, &every_partition(1)).await));
    assert_eq!(b.registry.claim(B, &every_partition(0)).await.unwrap(), 0);
    let claimed = b.registry.claim(B, &every_partition(1)).await;
    assert_eq!(claimed.unwrap(), by_a);
    assert_eq!(b.registry.claim(B, &[]).await.unwrap(), 0);
    // So is one that nobody knows of.
    sql(&dsn, "UPDATE partitions SET owner = 999 WHERE id = 7").await;
    let row = partition_row(&b.beat().await, 7);
    assert_eq!(row.owner, Some(NodeId(999)));
    let claimed = b.registry.claim(B, &[(row.partition, row.epoch)]).await;
    assert_eq!(claimed.unwrap(), 1);
}

#[tokio::test]
async fn p1_a_partition_is_given_by_its_owner_alone() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let five = partition(5);
    assert_eq!(a.registry.claim(A, &[(five, 0)]).await.unwrap(), 1);
    assert_eq!(b.registry.give(B, five, B, 1).await, Given::Refused);
    assert_eq!(a.registry.give(A, five, B, 0).await, Given::Refused);
    assert_eq!(a.registry.give(A, five, B, 1).await, Given::Done);
    assert_eq!(a.registry.give(A, five, B, 1).await, Given::Refused);
    let row = partition_row(&a.beat().await, 5);
    assert_eq!((row.owner, row.epoch), (Some(B), 2));
    // To itself, too.
    assert_eq!(b.registry.give(B, five, B, 2).await, Given::Done);
    a.declare(&b).await;
    assert_eq!(b.registry.give(B, five, A, 3).await, Given::Refused);
    let row = partition_row(&a.beat().await, 5);
    assert_eq!((row.owner, row.epoch), (Some(B), 3));
}

#[tokio::test]
async fn what_became_of_a_partition_is_unknown_if_the_answer_is_late() {
    let pg = Pg::start();
    let dsn = pg.dsn("postgres");
    let a = Node::start(&dsn, A).await;
    let five = partition(5);
    assert_eq!(a.registry.claim(A, &[(five, 0)]).await.unwrap(), 1);
    pg.sigstop();
    let start = Instant::now();
    assert_eq!(a.registry.give(A, five, B, 1).await, Given::Unknown);
    let late = a.registry.table().await;
    assert!(late.is_err(), "{late:?}");
    assert!(start.elapsed() < Duration::from_secs(6));
    pg.sigcont();
    let row = partition_row(&a.registry.table().await.unwrap(), 5);
    assert!(row.owner == Some(A) || row.owner == Some(B), "{row:?}");
}

#[tokio::test]
async fn a_beat_counts_and_tells_how_the_node_is() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let table = a.beat().await;
    assert_eq!(table.labels.len(), 2);
    for (label, row) in table.labels.iter().zip(&table.nodes) {
        assert_eq!(*label, self::label(row.id));
        assert_eq!((row.state, row.on_bus), (State::Up, true));
    }
    assert_eq!((row(&table, A).beat, row(&table, B).beat), (1, 0));
    // To join once more is no harm, unless somebody else has the id.
    b.registry.join(&label(B)).await.unwrap();
    for taken in [A, B] {
        let mut other = label(taken);
        other.name = "another".into();
        let refused = b.registry.join(&other).await;
        assert!(
            matches!(refused, Err(StoreError::Refused(_))),
            "{refused:?}"
        );
    }

    let table = a.registry.beat(A, true, false).await.unwrap();
    let of_a = row(&table, A);
    assert_eq!(
        (of_a.beat, of_a.state, of_a.on_bus),
        (2, State::Leaving, false)
    );
    // It does not go back.
    let of_a = row(&a.beat().await, A);
    assert_eq!(
        (of_a.beat, of_a.state, of_a.on_bus),
        (3, State::Leaving, true)
    );
    // It writes until it has left.
    let id = chat(&a.store).await;
    append(&a.store, rows(id, 1..=1)).await.unwrap();
    // Its beat is not the one that was seen.
    let seen = Verdict { node: A, beat: 2 };
    assert!(!b.registry.declare(seen).await.unwrap());
    assert!(
        b.registry
            .declare(Verdict { beat: 3, ..seen })
            .await
            .unwrap()
    );
    let of_a = row(&a.beat().await, A);
    assert_eq!((of_a.beat, of_a.state), (3, State::Gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_the_table_is_of_one_moment() {
    let dsn = fresh_database().await;
    let a = Node::start(&dsn, A).await;
    Node::start(&dsn, B).await;
    let changing = raw(&dsn).await;
    let mut work = JoinSet::new();
    work.spawn(async move {
        for n in 1.. {
            let change = format!(
                "BEGIN; UPDATE nodes SET beat = {n} WHERE id = {}; \
                 UPDATE partitions SET epoch = {n} WHERE id IN (3, 200); COMMIT",
                B.0
            );
            changing.batch_execute(&change).await.unwrap();
        }
    });
    for turn in 0..200 {
        let table = match turn % 2 {
            0 => a.beat().await,
            _ => a.registry.table().await.unwrap(),
        };
        let beat = row(&table, B).beat;
        let epochs = [3, 200].map(|number| partition_row(&table, number).epoch);
        assert_eq!(epochs, [beat, beat]);
    }
}

#[tokio::test]
async fn who_retires_is_fenced_and_in_time_forgotten() {
    let dsn = fresh_database().await;
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let id = chat(&a.store).await;
    append(&a.store, rows(id, 1..=1)).await.unwrap();
    let five = partition(5);
    assert_eq!(a.registry.claim(A, &[(five, 0)]).await.unwrap(), 1);
    a.registry.beat(A, true, true).await.unwrap();
    a.registry.retire(A, soon()).await.unwrap();
    assert!(is_stale(append(&a.store, rows(id, 2..=2)).await));
    assert_eq!(row(&b.beat().await, A).state, State::Fenced);

    let long_ago = "UPDATE nodes SET since = now() - interval '61 minutes'";
    sql(&dsn, long_ago).await;
    let c = Node::start(&dsn, C).await;
    c.registry.retire(C, soon()).await.unwrap();
    // It owns something still, and the others are up or were not fenced for long.
    assert_eq!(b.beat().await.nodes.len(), 3);
    // What it could hand over to nobody is free.
    assert_eq!(b.registry.claim(B, &[(five, 1)]).await.unwrap(), 1);
    c.registry.retire(C, soon()).await.unwrap();
    let mut left: Vec<NodeId> = b.beat().await.nodes.iter().map(|row| row.id).collect();
    left.sort();
    assert_eq!(left, [C, B]);
    // Who is forgotten writes as little.
    assert!(is_stale(append(&a.store, rows(id, 2..=2)).await));
    b.fence(&a).await.unwrap();
}

#[tokio::test]
async fn a_role_without_rights_on_the_nodes_serves_alone_and_cannot_join() {
    let dsn = fresh_database_on(Pg::shared()).await;
    pg::open(&dsn).await;
    let (_, name) = dsn.rsplit_once("dbname=").unwrap();
    let role = format!("alone_{name}");
    let grant = format!(
        "CREATE ROLE {role} LOGIN;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE ALL ON nodes, partitions FROM {role};
         GRANT SELECT ON nodes TO {role}"
    );
    sql(&dsn, &grant).await;
    let store = pg::open(&dsn.replace("user=postgres", &format!("user={role}"))).await;
    store.ping(soon()).await.unwrap();
    let id = chat(&store).await;
    append(&store, rows(id, 1..=2)).await.unwrap();
    let refused = store.registry().join(&label(A)).await.unwrap_err();
    let StoreError::Unavailable(why) = refused else {
        panic!("{refused:?}");
    };
    let why = why.to_string();
    for right in ["INSERT on nodes", "DELETE on nodes", "UPDATE on partitions"] {
        assert!(why.contains(right), "{right}: {why}");
    }
    assert!(
        !why.contains("SELECT on nodes") && !why.contains('\n'),
        "{why}"
    );
    drop(store);
    sql(&dsn, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_server_of_no_cluster_has_nothing_to_do_with_one() {
    let dsn = fresh_database().await;
    let store = pg::open(&dsn).await;
    let away = "DROP FUNCTION chatd_fence; DROP TABLE nodes; DROP TABLE partitions";
    sql(&dsn, away).await;
    let id = chat(&store).await;
    for seq in 1..=5 {
        append(&store, rows(id, seq..=seq)).await.unwrap();
    }
    store.add_members(id, users(&["bob"]), None).await.unwrap();
    store.ping(soon()).await.unwrap();
    assert!(store.delete_chat(id, None).await.unwrap());
}

/// A function that read an older snapshot would find a state from before the lock.
#[tokio::test]
async fn p1_the_fence_refuses_a_transaction_of_one_snapshot() {
    let dsn = fresh_database().await;
    Node::start(&dsn, A).await;
    let other = raw(&dsn).await;
    let fence = format!("SELECT chatd_fence('{}')", A.0);
    other.batch_execute(&fence).await.unwrap();
    let repeatable = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {fence}");
    let refused = other.batch_execute(&repeatable).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25000");
}

/// The fence is read once the lock is there: who has waited for it sees what was
/// committed meanwhile.
#[tokio::test]
async fn p1_who_has_waited_for_the_fence_sees_what_has_become_of_the_node() {
    let dsn = fresh_database().await;
    Node::start(&dsn, A).await;
    let (fencing, waiting) = (raw(&dsn).await, raw(&dsn).await);
    let lock = format!("BEGIN; SELECT pg_advisory_xact_lock('{}')", A.0);
    fencing.batch_execute(&lock).await.unwrap();
    let fence = format!("BEGIN; SELECT chatd_fence('{}')", A.0);
    let fenced = waiting.batch_execute(&fence);
    let change = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        let seen = async { while sql(&dsn, waits).await != ["1"] {} };
        timeout(Duration::from_secs(20), seen).await.unwrap();
        let gone = "UPDATE nodes SET state = 'fenced'; COMMIT";
        fencing.batch_execute(gone).await.unwrap();
    };
    let (fenced, ()) = tokio::join!(fenced, change);
    assert_eq!(fenced.unwrap_err().code().unwrap().code(), "CD001");
}

/// A role's default may be another isolation, and sessions are others'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_behind_a_pooler_a_node_that_is_gone_writes_nothing() {
    let pg = block_in_place(Pg::start);
    let pooler = block_in_place(|| Pooler::start(&pg));
    let own = fresh_database_on(&pg).await;
    let (_, name) = own.rsplit_once("dbname=").unwrap();
    let isolation =
        format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'");
    sql(&own, &isolation).await;
    let dsn = pooler.dsn(name);
    let (a, b) = (Node::start(&dsn, A).await, Node::start(&dsn, B).await);
    let id = chat(&a.store).await;
    for seq in 1..=3 {
        append(&a.store, rows(id, seq..=seq)).await.unwrap();
    }
    a.store
        .add_members(id, users(&["bob"]), None)
        .await
        .unwrap();
    let all = every_partition(0);
    assert_eq!(a.registry.claim(A, &all).await.unwrap(), 256);
    // The session of a stopped process, and somebody else's.
    let (stopped, other) = (raw(&dsn).await, raw(&dsn).await);
    stopped
        .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await
        .unwrap();
    let fence = format!("SELECT chatd_fence('{}')", A.0);
    stopped.batch_execute(&fence).await.unwrap();
    other.batch_execute("BEGIN; SELECT 1").await.unwrap();
    b.declare(&a).await;
    assert!(is_stale(append(&a.store, rows(id, 4..=4)).await));
    b.fence(&a).await.unwrap();
    assert!(stopped.batch_execute("COMMIT").await.is_err());
    other.batch_execute("COMMIT").await.unwrap();
    for _ in 0..3 {
        assert!(is_stale(append(&a.store, rows(id, 4..=4)).await));
        assert!(is_stale(a.store.delete_chat(id, None).await));
    }
    assert_eq!(last_seq(&b.store, id).await, 3);
    assert_eq!(b.registry.claim(B, &every_partition(1)).await.unwrap(), 256);
    append(&b.store, rows(id, 4..=4)).await.unwrap();
    a.registry.join(&label(C)).await.unwrap();
    a.store.stand_as(Some(C));
    append(&a.store, rows(id, 5..=5)).await.unwrap();
    // Nothing outlives its transaction.
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let gone = async { while sql(&own, locks).await != ["0"] {} };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}
