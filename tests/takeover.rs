//! A standby that has not got all takes over while the server runs: what is lost is
//! lost, and said; nothing is believed of it any more (P2–P5).

use std::time::Duration;

use tokio::task::block_in_place;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    ops::{get, value},
    pg::{Pg, sql},
    pooler::Pooler,
    server::{Client, Server, soon},
};

const PAUSE: Duration = Duration::from_millis(50);

/// A primary, its standby, and a server that knows both.
async fn served_by_either() -> (Pg, Pg, Server) {
    let primary = block_in_place(Pg::start);
    let standby = block_in_place(|| primary.standby());
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        primary.port(),
        standby.port()
    );
    let server = Server::start(&["--store", &hosts, "--store-stall", "1s"]).await;
    (primary, standby, server)
}

/// Waits until the standby has applied what the primary has.
async fn caught_up(primary: &Pg) {
    const BEHIND: &str = "SELECT count(*) FROM pg_stat_replication
                           WHERE replay_lsn IS NULL OR replay_lsn < pg_current_wal_lsn()";
    const ATTACHED: &str = "SELECT count(*) FROM pg_stat_replication";
    let dsn = primary.dsn("postgres");
    let caught_up = async {
        while sql(&dsn, ATTACHED).await == ["0"] || sql(&dsn, BEHIND).await != ["0"] {
            tokio::time::sleep(PAUSE).await;
        }
    };
    soon("the standby has caught up", caught_up).await;
}

async fn promoted(primary: &Pg, standby: &Pg) {
    block_in_place(|| {
        primary.stop_immediate();
        standby.start_again();
    });
    let promote = sql(&standby.dsn("postgres"), "SELECT pg_promote()").await;
    assert_eq!(promote, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p5_what_a_failover_has_lost_is_forgotten_and_said() {
    let (primary, standby, server) = served_by_either().await;
    let alice = server.client("alice").await;
    let (lost, idle, whole) = (
        alice.create(&["bob"]).await,
        alice.create(&[]).await,
        alice.create(&[]).await,
    );
    for n in 1..=3 {
        for chat in [lost, idle, whole] {
            let text = format!("m{n}");
            assert_eq!(alice.send(chat, &text, &text).await.unwrap().seq, n);
        }
    }
    caught_up(&primary).await;
    block_in_place(|| standby.stop_fast());
    for n in 4..=6 {
        for chat in [lost, idle] {
            let text = format!("m{n}");
            assert_eq!(alice.send(chat, &text, &text).await.unwrap().seq, n);
        }
    }
    alice.remove(lost, &["bob"]).await.unwrap();
    alice.add(whole, &["carol"]).await.unwrap();
    let mut readers = Vec::new();
    for (chat, after) in [(lost, 6), (idle, 6), (whole, 3)] {
        readers.push(alice.read(chat, Some(after)).await);
    }
    let [of_lost, of_idle, of_whole] = &mut readers[..] else {
        unreachable!("there are three")
    };
    promoted(&primary, &standby).await;

    // A lost message is no duplicate, and the next seq leaves no hole.
    let again = async {
        loop {
            match alice.send(lost, "m5", "m5").await {
                Ok(sent) => break (sent.seq, sent.duplicate),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert_eq!(soon("m5 is stored again", again).await, (4, false));
    let texts = |messages: Vec<chat_service::proto::Message>| -> Vec<_> {
        let texts = messages
            .iter()
            .map(|one| format!("{} {}", one.seq, one.text));
        texts.collect()
    };
    let history = texts(alice.history(lost).await);
    assert_eq!(history, ["1 m1", "2 m2", "3 m3", "4 m5"]);

    // Also where nobody posts.
    for reader in [of_lost, of_idle] {
        let end = reader.end().await;
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
        let details = end.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "MESSAGES_LOST");
    }
    let mut resumed = alice.read(idle, Some(3)).await;
    assert_eq!(alice.send(idle, "m7", "m7").await.unwrap().seq, 4);
    assert_eq!(resumed.expect(4).await.text, "m7");
    // Whose removal was lost is a member again, here as there.
    let members = alice.get(lost).await.unwrap().info.unwrap().usernames;
    assert_eq!(members, ["alice", "bob"]);

    // A chat that has all of its messages goes on as if nothing had been, and what
    // has changed of its members is said.
    assert_eq!(alice.send(whole, "m4", "m4").await.unwrap().seq, 4);
    assert_eq!(of_whole.expect(4).await.text, "m4");
    let members = alice.get(whole).await.unwrap().info.unwrap().usernames;
    assert_eq!(members, ["alice"]);

    let (_, metrics) = get(server.http_address(), "/metrics").await;
    assert!(
        metrics.contains("\nchat_messages_lost_total 6\n"),
        "{metrics}"
    );
    let log = server.log();
    for said in [
        "the store has lost messages that were acknowledged",
        "the store has lost members of a chat",
    ] {
        assert!(log.contains(said), "{said}: {log}");
    }
}

/// Makes chats until the database has set numbers aside for later ones, which a standby
/// then takes for used: what is made behind that is made again by whoever takes over.
async fn made_until_numbers_are_fresh(alice: &Client, dsn: &str) {
    const LAST: &str = "SELECT last_value FROM pg_sequences WHERE sequencename = 'chats_id_seq'";
    const AT_ONCE: i64 = 33;
    loop {
        alice.create(&[]).await;
        let last: i64 = sql(dsn, LAST).await[0].parse().unwrap();
        if last % AT_ONCE == 0 {
            return;
        }
    }
}

/// The ids of chats that a failover has lost are given again. Whoever had one has
/// nothing of its new chat, neither by a first message that was under way nor by what
/// memory has of the right to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_chat_that_a_failover_has_lost_is_not_taken_for_the_next_one() {
    let primary = block_in_place(Pg::start);
    let standby = block_in_place(|| primary.standby());
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?connect_timeout=1",
        primary.port(),
        standby.port()
    );
    let server = Server::start(&["--store", &hosts, "--store-stall", "1s"]).await;
    let alice = server.client("alice").await;
    made_until_numbers_are_fresh(&alice, &primary.dsn("postgres")).await;
    caught_up(&primary).await;
    block_in_place(|| standby.stop_fast());
    let mut lost = Vec::new();
    for _ in 0..6 {
        let chat = alice.create(&["bob"]).await;
        lost.push((chat, alice.read(chat, None).await));
    }
    // Their first messages are under way when another server takes over.
    block_in_place(|| primary.sigstop());
    let first = lost
        .iter()
        .map(|(chat, _)| alice.send(*chat, "secret", "k"));
    let first = futures_util::future::join_all(first);
    let taken_over = async {
        block_in_place(|| standby.start_again());
        let promote = sql(&standby.dsn("postgres"), "SELECT pg_promote()").await;
        assert_eq!(promote, ["t"]);
    };
    let (sent, ()) = tokio::join!(first, taken_over);
    for outcome in sent {
        let status = outcome.expect_err("it is in a chat that is not there");
        let told = [Code::PermissionDenied, Code::NotFound, Code::Unavailable];
        assert!(told.contains(&status.code()), "{status:?}");
    }
    let orphans = "SELECT chat_id FROM messages WHERE chat_id NOT IN (SELECT id FROM chats)";
    let dsn = standby.dsn("postgres");
    assert!(sql(&dsn, orphans).await.is_empty());
    let eve = server.client("eve").await;
    for (chat, mut reader) in lost {
        assert_eq!(soon("its end", reader.end()).await.code(), Code::NotFound);
        assert_eq!(
            soon("eve's", eve.try_create(&["mallory"])).await.unwrap(),
            chat
        );
        assert!(eve.history(chat).await.is_empty());
        let refused = alice.add(chat, &["spy"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert_eq!(
            alice.delete(chat).await.unwrap_err().code(),
            Code::PermissionDenied
        );
        assert_eq!(eve.send(chat, "hers", "").await.unwrap().seq, 1);
    }
    block_in_place(|| primary.sigcont());
    let said = "the store has lost a chat";
    assert!(server.log().contains(said), "{}", server.log());
}

/// No connection of ours ends when a pooler goes on with another server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p5_p7_a_failover_behind_a_pooler_is_noticed_by_itself() {
    let primary = block_in_place(Pg::start);
    let standby = block_in_place(|| primary.standby());
    let pooler = block_in_place(|| Pooler::start(&primary));
    let server = Server::start(&["--store", &pooler.dsn("postgres"), "--store-stall", "1s"]).await;
    let alice = server.client("alice").await;
    let kept = alice.create(&["bob"]).await;
    for n in 1..=3 {
        alice.send(kept, "m", &n.to_string()).await.unwrap();
    }
    made_until_numbers_are_fresh(&alice, &primary.dsn("postgres")).await;
    caught_up(&primary).await;
    block_in_place(|| standby.stop_fast());
    let lost = alice.create(&["bob"]).await;
    alice.send(lost, "m", "1").await.unwrap();
    for n in 4..=6 {
        alice.send(kept, "m", &n.to_string()).await.unwrap();
    }
    let mut readers = [
        alice.read(kept, Some(6)).await,
        alice.read(lost, Some(1)).await,
    ];
    promoted(&primary, &standby).await;
    block_in_place(|| pooler.go_on_with(&standby));

    // Nobody asks the database for anything.
    let [of_kept, of_lost] = &mut readers;
    let end = soon("the end of the stream", of_kept.end()).await;
    assert_eq!(
        end.get_error_details().error_info().unwrap().reason,
        "MESSAGES_LOST"
    );
    assert_eq!(soon("the end", of_lost.end()).await.code(), Code::NotFound);
    let again = alice.send(kept, "m", "5").await.unwrap();
    assert_eq!((again.seq, again.duplicate), (4, false));
    // The id goes to somebody else, and so does the right to it.
    let eve = server.client("eve").await;
    assert_eq!(eve.create(&["mallory"]).await, lost);
    assert!(alice.add(lost, &["spy"]).await.is_err());
    assert!(alice.delete(lost).await.is_err());
    let members = eve.get(lost).await.unwrap().info.unwrap().usernames;
    assert_eq!(members, ["eve", "mallory"]);
    let (_, metrics) = get(server.http_address(), "/metrics").await;
    assert_eq!(value(&metrics, "chat_messages_lost_total"), 4.0);
    let log = server.log();
    assert!(log.contains("the store has lost a chat"), "{log}");
}

/// The old primary comes back by itself, as a machine that was restarted does, while the
/// new one is away: nothing is acknowledged there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_a_primary_that_was_left_behind_is_not_gone_back_to() {
    let (primary, standby, server) = served_by_either().await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let send = async |seq: i64| {
        let text = format!("m{seq}");
        let stored = async {
            loop {
                match alice.send(chat, &text, &text).await {
                    Ok(sent) => break sent.seq,
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        assert_eq!(soon("a message is stored", stored).await, seq);
    };
    send(1).await;
    caught_up(&primary).await;
    block_in_place(|| standby.stop_fast());
    promoted(&primary, &standby).await;
    for seq in 2..=5 {
        send(seq).await;
    }

    block_in_place(|| {
        standby.stop_immediate();
        primary.start_again();
    });
    let refused = async {
        loop {
            let (ready, _) = get(server.http_address(), "/ready").await;
            if ready == 503 && server.log().contains("it is on timeline 1 ") {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    soon("it is known for what it is", refused).await;
    assert!(alice.send(chat, "m6", "m6").await.is_err());
    block_in_place(|| standby.start_again());
    send(6).await;
    let seqs: Vec<i64> = alice.history(chat).await.iter().map(|m| m.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        sql(&primary.dsn("postgres"), "SELECT max(seq) FROM messages").await,
        ["1"]
    );
}
