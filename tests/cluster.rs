//! Several nodes over one database and one NATS: any client on any node, and nothing lost
//! when one dies.

mod nodes;
mod work;

use std::time::{Duration, Instant};

use chat_service::proto::Chat;
use tonic::Code;

use self::{
    nodes::{Nodes, status},
    work::Work,
};
use crate::server::assert_dense;

/// The longest that any chat may go without an acknowledgement here, where other tests
/// share the machine. What it is on a machine of its own, each test prints.
const LONGEST: Duration = Duration::from_secs(10);

/// Of users who read and send on any node.
const CHATS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_p4_p5_any_client_on_any_node() {
    let nodes = Nodes::start(3).await;
    let work = Work::start(&nodes, CHATS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let done = work.finish(&nodes).await;
    assert!(done.acks.len() > 100, "{}", done.acks.len());
    assert_eq!(done.ends, [0, 0, 0], "nobody was disconnected");
    // What is sent again is stored once, whichever node it was sent to.
    let alice = [
        nodes.all[0].client("sender0").await,
        nodes.all[1].client("sender0").await,
        nodes.all[2].client("sender0").await,
    ];
    for chat in &done.chats {
        let first = alice[0].send(*chat, "once", "once").await.unwrap();
        for again in &alice {
            let second = again.send(*chat, "once", "once").await.unwrap();
            assert_eq!((second.seq, second.duplicate), (first.seq, true), "P5");
        }
    }
}

#[tokio::test]
async fn p4_the_only_reader_of_a_chat_on_another_node_hears_of_all() {
    let nodes = Nodes::start(2).await;
    // Of so many chats, some live on the other node.
    for n in 0..8 {
        let (here, there) = (&nodes.all[n % 2], &nodes.all[(n + 1) % 2]);
        let owner = there.client("owner").await;
        let chat = owner.create(&["bob"]).await;
        let mut bob = here.client("bob").await.read(chat, Some(0)).await;
        for seq in 1..=3 {
            owner.send(chat, "hello", "").await.unwrap();
            bob.expect(seq).await;
        }
    }
}

fn names(chat: Chat) -> Vec<String> {
    let mut names = chat.info.unwrap().usernames;
    names.sort();
    names
}

#[tokio::test]
async fn p7_who_is_removed_or_no_member_reads_on_no_node() {
    let nodes = Nodes::start(3).await;
    let mut owners = Vec::new();
    for server in &nodes.all {
        owners.push(server.client("owner").await);
    }
    for n in 0..9 {
        let chat = owners[n % 3].create(&["bob", "cyd"]).await;
        let mut bobs = Vec::new();
        for server in &nodes.all {
            let bob = server.client("bob").await;
            bobs.push(bob.read(chat, Some(0)).await);
            let stranger = server.client("stranger").await;
            let refused = stranger.send(chat, "hello", "").await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            let end = stranger.read(chat, None).await.end().await;
            assert_eq!(end.code(), Code::PermissionDenied);
            let refused = stranger.get(chat).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            let ahead = bob.read(chat, Some(1_000)).await.end().await;
            assert_eq!(ahead.code(), Code::OutOfRange);
        }
        owners[(n + 1) % 3].send(chat, "one", "").await.unwrap();
        for bob in &mut bobs {
            bob.expect(1).await;
        }
        let left = owners[(n + 2) % 3].remove(chat, &["bob"]).await.unwrap();
        assert_eq!(names(left), ["cyd", "owner"]);
        owners[n % 3].send(chat, "two", "").await.unwrap();
        for bob in &mut bobs {
            let end = bob.next().await.unwrap_err();
            assert_eq!(end.code(), Code::PermissionDenied, "{end:?}");
        }
        let mut cyd = nodes.all[n % 3]
            .client("cyd")
            .await
            .read(chat, Some(1))
            .await;
        cyd.expect(2).await;
        let back = owners[(n + 1) % 3].add(chat, &["bob"]).await.unwrap();
        assert_eq!(names(back), ["bob", "cyd", "owner"]);
        let bob = nodes.all[(n + 2) % 3].client("bob").await;
        let sent = bob.send(chat, "three", "").await.unwrap();
        assert_eq!(sent.seq, 3);
        assert_dense(&bob.history(chat).await, 1);
        cyd.expect(3).await;
        owners[(n + 2) % 3].delete(chat).await.unwrap();
        let end = cyd.next().await.unwrap_err();
        assert_eq!(end.code(), Code::NotFound, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_a_node_is_killed_and_nothing_is_lost() {
    let mut nodes = Nodes::start(3).await;
    let work = Work::start(&nodes, CHATS).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let killed = Instant::now();
    nodes.all[1].kill9();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = [work.ends(0), work.ends(2)];
    assert_eq!(before, [0, 0], "readers on other nodes stay connected");
    nodes.all[1].restart().await;
    work.moved(1, nodes.all[1].address());
    nodes.balanced(3).await;
    let end = Instant::now();
    let done = work.finish(&nodes).await;
    let pause = done.longest_pause(killed, end);
    println!(
        "longest pause after a kill: {pause:?}, {} messages",
        done.acks.len()
    );
    assert!(pause < LONGEST, "{pause:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_a_node_stands_still_and_writes_nothing_afterwards() {
    let nodes = Nodes::start(3).await;
    let work = Work::start(&nodes, CHATS).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    nodes.all[2].signal(libc::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(8)).await;
    nodes.all[2].signal(libc::SIGCONT);
    nodes.balanced(3).await;
    assert_eq!([work.ends(0), work.ends(1)], [0, 0]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let done = work.finish(&nodes).await;
    assert!(done.acks.len() > 500, "{}", done.acks.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p13_nats_is_killed_and_readers_go_on() {
    let mut nodes = Nodes::start(3).await;
    let work = Work::start(&nodes, CHATS).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    nodes.nats.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let acked = work.acked();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // Who is connected to a chat's own node goes on.
    assert!(work.acked() > acked + 100, "{} and {acked}", work.acked());
    // And everybody hears of it within two seconds.
    let seen = work.seen();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = work.seen();
    let mut newest = std::collections::HashMap::new();
    for ((chat, _), seq) in &seen {
        let known = newest.entry(*chat).or_insert(0);
        *known = (*seq).max(*known);
    }
    for (at, seq) in &later {
        assert!(
            *seq >= newest[&at.0],
            "{at:?} has {seq} of {}",
            newest[&at.0]
        );
    }
    nodes.nats.start_again();
    nodes.balanced(3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let done = work.finish(&nodes).await;
    assert_eq!(done.ends, [0, 0, 0], "nobody was disconnected");
    let now = status(&nodes.all[0]).await.unwrap();
    assert_eq!(now["on_bus"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_p13_nodes_are_restarted_one_after_the_other() {
    let mut nodes = Nodes::start(3).await;
    let work = Work::start(&nodes, CHATS).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    for n in 0..3 {
        assert_eq!(nodes.all[n].terminate().await, Some(0));
        nodes.all[n].restart().await;
        work.moved(n, nodes.all[n].address());
        nodes.balanced(3).await;
    }
    let end = Instant::now();
    let done = work.finish(&nodes).await;
    let pause = done.longest_pause(begun, end);
    println!(
        "longest pause in a rolling restart: {pause:?}, {} messages",
        done.acks.len()
    );
    assert!(pause < LONGEST, "{pause:?}");
}

#[tokio::test]
async fn p13_a_drained_node_takes_over_when_it_is_the_last() {
    let mut nodes = Nodes::start(2).await;
    let http = nodes.all[0].http_address();
    let (code, said) = crate::ops::http(http, "PUT", "/cluster", "drain node0").await;
    assert_eq!(code, 200, "{said}");
    let first = &nodes.all[0];
    let owned = async |node: usize| {
        let status = status(first).await.unwrap();
        let all = status["nodes"].as_array().unwrap().clone();
        let name = format!("node{node}");
        let one = all
            .iter()
            .find(|one| one["name"] == *name && one["state"] != "fenced");
        one.map_or(0, |one| one["partitions"].as_u64().unwrap())
    };
    let begun = Instant::now();
    while owned(1).await != 256 {
        assert!(
            begun.elapsed() < crate::server::PATIENCE,
            "it is not drained"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It serves its clients all the same.
    let alice = nodes.all[0].client("alice").await;
    let chat = alice.create(&[]).await;
    assert_eq!(alice.send(chat, "one", "").await.unwrap().seq, 1);
    nodes.all[1].kill9();
    let sent = async {
        loop {
            if let Ok(sent) = alice.send(chat, "two", "two").await {
                return sent.seq;
            }
        }
    };
    assert_eq!(crate::server::soon("a take-over", sent).await, 2);
    let (code, _) = crate::ops::http(http, "PUT", "/cluster", "rebalance").await;
    assert_eq!(code, 200);
    let (code, why) = crate::ops::http(http, "PUT", "/cluster", "drain nobody").await;
    assert_eq!((code, why.contains("nobody")), (400, true), "{why}");
}
