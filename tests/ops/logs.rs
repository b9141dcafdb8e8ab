use tonic::Code;

use super::PATIENCE;
use crate::server::{Server, lines};

const REFUSED: u64 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_is_a_few_lines_and_a_count() {
    let server = Server::start(&["--log-level", "debug", "--log-format", "json"]).await;
    let chat = server.client("alice").await.create(&[]).await;
    let mallory = server.client("mallory").await;
    let begun = std::time::Instant::now();
    for _ in 0..REFUSED {
        let refused = mallory.send(chat, "hi", "").await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let seconds = begun.elapsed().as_secs();
    // The next line, in another second, says what was left out.
    let mut more = 0;
    let told = loop {
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        mallory.send(chat, "hi", "").await.unwrap_err();
        more += 1;
        let refused = lines(&server, "call refused");
        let left_out = refused.iter().filter_map(|line| line["left_out"].as_u64());
        let told = refused.len() as u64 + left_out.sum::<u64>();
        if told == REFUSED + more || begun.elapsed() > PATIENCE {
            break told;
        }
    };
    assert_eq!(told, REFUSED + more);
    let shown = lines(&server, "call refused");
    let most = 5 * (seconds + 2) + more;
    assert!((shown.len() as u64) <= most, "{} lines", shown.len());
    assert!(shown.iter().all(|line| line["reason"] == "NOT_A_MEMBER"));
    assert!(shown[0]["request_id"].is_string(), "{}", shown[0]);
}

/// No text is ever in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_a_chat_is_logged_without_its_messages() {
    let server = Server::start(&["--log-level", "debug", "--log-format", "json"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    alice.add(chat, &["carol"]).await.unwrap();
    alice.remove(chat, &["carol"]).await.unwrap();
    let mut frames = server.client("bob").await.read(chat, Some(0)).await;
    alice.send(chat, "swordfish", "").await.unwrap();
    frames.expect(1).await;
    alice.delete(chat).await.unwrap();
    assert_eq!(frames.end().await.code(), Code::NotFound);
    for message in [
        "chat created",
        "members added",
        "members removed",
        "chat deleted",
    ] {
        let found = lines(&server, message);
        assert_eq!(found.len(), 1, "{message}");
        assert_eq!(
            (&found[0]["level"], &found[0]["user"]),
            (&"INFO".into(), &"alice".into())
        );
        assert!(found[0]["request_id"].is_string(), "{message}");
    }
    let opened = lines(&server, "stream opened");
    let closed = lines(&server, "stream closed");
    assert_eq!((opened.len(), closed.len()), (1, 1));
    assert_eq!(
        (&closed[0]["reason"], &closed[0]["delivered"]),
        (&"CHAT_DELETED".into(), &1.into())
    );
    assert!(!server.log().contains("swordfish"));
}

/// Whoever may change a chat can't fill the disk with saying so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_without_end_are_a_few_lines() {
    let server = Server::start(&["--log-format", "json"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&["bob"]).await;
    for _ in 0..REFUSED {
        alice.add(chat, &["bob"]).await.unwrap();
        alice.remove(chat, &["carol"]).await.unwrap();
    }
    for message in ["members added", "members removed"] {
        assert!(lines(&server, message).is_empty(), "nothing has changed");
    }
    let begun = std::time::Instant::now();
    for _ in 0..REFUSED {
        alice.add(chat, &["carol"]).await.unwrap();
        alice.remove(chat, &["carol"]).await.unwrap();
    }
    let most = 5 * (begun.elapsed().as_secs() + 2);
    for message in ["members added", "members removed"] {
        let shown = lines(&server, message);
        assert!((1..=most).contains(&(shown.len() as u64)), "{message}");
        assert_eq!(shown[0]["count"], 1, "as many as have changed");
    }
}
