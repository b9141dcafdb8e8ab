//! Limits on what clients may have: over one, the answer is RESOURCE_EXHAUSTED
//! and when to try again.

use std::time::{Duration, Instant};

use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::guarded::{client, connect, create, outcome, reason, send, start, stop};

fn assert_over(status: &Status, expected: &str) {
    assert_eq!(
        (status.code(), reason(status).as_str()),
        (Code::ResourceExhausted, expected)
    );
    let retry = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
}

#[tokio::test]
async fn p6_so_many_streams_a_user() {
    let app = start(&["--max-user-streams", "2"]).await;
    let client = client(&app);
    let chat = create(&client, "bob", &["eve"]).await.unwrap();
    let first = connect(&client, "bob", chat).await.unwrap();
    let _second = connect(&client, "bob", chat).await.unwrap();
    let third = connect(&client, "bob", chat).await.err().unwrap();
    assert_over(&third, "TOO_MANY_STREAMS");
    let _other = connect(&client, "eve", chat).await.unwrap();
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(connect(&client, "bob", chat).await.is_ok());
    stop(app).await;
}

#[tokio::test]
async fn p6_so_many_sends_a_second_a_user() {
    let app = start(&["--max-user-sends", "5"]).await;
    let client = client(&app);
    let chat = create(&client, "bob", &["eve"]).await.unwrap();
    let mut over = 0;
    for n in 0..10 {
        if let Err(status) = send(&client, "bob", chat, &n.to_string()).await {
            assert_over(&status, "TOO_MANY_SENDS");
            over += 1;
        }
    }
    assert!((3..=5).contains(&over), "{over}");
    send(&client, "eve", chat, "another user").await.unwrap();
    // On a stream the post is refused and the stream goes on.
    let mut stream = connect(&client, "bob", chat).await.unwrap();
    for n in 0..10 {
        stream.post(&n.to_string()).await;
    }
    let refused = async {
        loop {
            let message = stream.messages.message().await.unwrap().unwrap();
            if let Some(rejected) = message.rejected {
                return rejected;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(5), refused)
        .await
        .unwrap();
    assert_eq!(refused.code, Code::ResourceExhausted as i32);
    assert!(refused.retry_delay.is_some());
    stop(app).await;
}

#[tokio::test]
async fn p6_so_many_connections_and_no_more() {
    let app = start(&["--max-connections", "3", "--handshake-timeout", "500ms"]).await;
    let client = client(&app);
    create(&client, "bob", &[]).await.unwrap();
    let mut silent = [
        TcpStream::connect(app.address()).await.unwrap(),
        TcpStream::connect(app.address()).await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut fourth = TcpStream::connect(app.address()).await.unwrap();
    let began = Instant::now();
    assert!(matches!(fourth.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(
        began.elapsed() < Duration::from_millis(300),
        "closed at once"
    );
    create(&client, "bob", &[]).await.unwrap();
    // Who says nothing is not kept.
    for stream in &mut silent {
        let mut byte = [0; 1];
        let closed = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut byte));
        assert!(matches!(closed.await.unwrap(), Ok(0) | Err(_)));
    }
    let another = crate::guarded::client(&app);
    create(&another, "eve", &[]).await.unwrap();
    stop(app).await;
}

#[tokio::test]
async fn p6_headers_and_first_frames_have_bounds() {
    let flags = ["--max-header", "1KiB", "--first-frame-timeout", "300ms"];
    let app = start(&flags).await;
    let client = client(&app);
    let long = "x".repeat(4000);
    assert!(create(&client, &long, &[]).await.is_err());
    create(&client, "bob", &[]).await.unwrap();

    let never = futures_util::stream::pending();
    let request = crate::guarded::with_token(never, "bob");
    let began = Instant::now();
    let mut messages = client
        .clone()
        .connect_chat(request)
        .await
        .unwrap()
        .into_inner();
    let end = messages.message().await;
    assert_eq!(
        outcome(&end),
        (Code::DeadlineExceeded, "REQUEST_TOO_SLOW".into())
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    stop(app).await;
}
