//! A standby that has not got all takes over while the server runs: what is lost is
//! lost, and said; nothing is believed of it any more (P2–P5).

use std::time::Duration;

use tokio::task::block_in_place;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    ops::get,
    pg::{Pg, sql},
    server::{Server, soon},
};

const PAUSE: Duration = Duration::from_millis(50);

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
    let primary = block_in_place(Pg::start);
    let standby = block_in_place(|| primary.standby());
    let hosts = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        primary.port(),
        standby.port()
    );
    let server = Server::start(&["--store", &hosts, "--store-stall", "1s"]).await;
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

    // A chat that has all of its messages goes on as if nothing had been.
    assert_eq!(alice.send(whole, "m4", "m4").await.unwrap().seq, 4);
    assert_eq!(of_whole.expect(4).await.text, "m4");

    let (_, metrics) = get(server.http_address(), "/metrics").await;
    assert!(
        metrics.contains("\nchat_messages_lost_total 6\n"),
        "{metrics}"
    );
    let log = server.log();
    let said = "the store has lost messages that were acknowledged";
    assert!(log.contains(said), "{log}");
}
