//! Readers that HTTP/2 has no window for: nothing can be told to them, and what
//! they hold of the server is given back all the same.

use std::time::{Duration, Instant};

use chat_service::{
    app::App,
    proto::{RemoveMembersRequest, chat_v1_client::ChatV1Client},
};
use tonic::{Code, transport::Endpoint};

use crate::{
    guarded::{
        Client, Connected, client, connect, create,
        keys::Key,
        peer::{Answer, Peer},
        reason, send, start, stop, with_token,
    },
    ops::{get, value},
};

/// The least that HTTP/2 lets a client take without reading.
const WINDOW: u32 = 65_535;

/// How long a stream that has ended keeps its place, and what that takes on a
/// slow machine.
const LINGER: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(15);

const MESSAGES: i64 = 60;

fn narrow(app: &App) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address())).unwrap();
    let endpoint = endpoint.initial_stream_window_size(WINDOW);
    ChatV1Client::new(
        endpoint
            .initial_connection_window_size(WINDOW)
            .connect_lazy(),
    )
}

async fn metric(app: &App, name: &str) -> f64 {
    let (_, metrics) = get(app.http_address().unwrap(), "/metrics").await;
    value(&metrics, name)
}

async fn fill(client: &Client, token: &str, chat: i64) {
    let text = "x".repeat(4_096);
    for _ in 0..MESSAGES {
        send(client, token, chat, &text).await.unwrap();
    }
}

/// A stream on which the server can send no more.
async fn blocked(app: &App, token: &str, chat: i64) -> Connected {
    let start = metric(app, "chat_deliveries_total").await;
    let mut stream = connect(&narrow(app), token, chat).await.unwrap();
    stream.messages.message().await.unwrap().unwrap();
    let mut before = 0.0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let delivered = metric(app, "chat_deliveries_total").await - start;
        if delivered > 0.0 && delivered == before {
            assert!(delivered < MESSAGES as f64, "it is not blocked");
            assert_eq!(metric(app, "chat_readers").await, 1.0);
            return stream;
        }
        before = delivered;
    }
}

/// Waits until the server has let the reader go.
async fn let_go(app: &App) {
    let began = Instant::now();
    while metric(app, "chat_readers").await > 0.0 {
        assert!(began.elapsed() < LINGER + SLACK, "it is still held");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn p7_a_token_that_expires_ends_also_a_stream_that_is_not_read() {
    const LIFE: i64 = 6;
    let peer = Peer::start(Answer::Yes).await;
    let flags = peer.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--http-port", "0", "--stream-buffer", "4KiB"]);
    let app = start(&flags).await;
    let key = Key::hs("the chat server never needs this");
    let lasting = key.token("bob", "0", 3_600);
    let chat = create(&client(&app), &lasting, &[]).await.unwrap();
    fill(&client(&app), &lasting, chat).await;

    let begun = Instant::now();
    let short = key.token("bob", "0", LIFE);
    let mut stream = blocked(&app, &short, chat).await;
    let_go(&app).await;
    let held = begun.elapsed();
    assert!(held > Duration::from_secs(LIFE as u64 - 1), "{held:?}");
    let end = stream.end().await;
    let told = (end.code(), reason(&end));
    assert_eq!(told, (Code::Unauthenticated, "TOKEN_EXPIRED".into()));
    stop(app).await;
}

#[tokio::test]
async fn p7_a_removed_member_is_let_go_also_if_it_does_not_read() {
    let app = start(&["--http-port", "0", "--stream-buffer", "4KiB"]).await;
    let client = client(&app);
    for deleted in [false, true] {
        let chat = create(&client, "alice", &["bob"]).await.unwrap();
        fill(&client, "alice", chat).await;
        let mut stream = blocked(&app, "bob", chat).await;
        let mut alice = client.clone();
        if deleted {
            let request = chat_service::proto::DeleteRequest { id: chat };
            alice.delete(with_token(request, "alice")).await.unwrap();
        } else {
            let request = RemoveMembersRequest {
                chat_id: chat,
                usernames: vec!["bob".into()],
            };
            let removed = alice.remove_members(with_token(request, "alice"));
            removed.await.unwrap();
        }
        let_go(&app).await;
        let end = stream.end().await;
        let expected = match deleted {
            false => (Code::PermissionDenied, "NOT_A_MEMBER"),
            true => (Code::NotFound, "CHAT_DELETED"),
        };
        assert_eq!((end.code(), reason(&end).as_str()), expected);
    }
    stop(app).await;
}
