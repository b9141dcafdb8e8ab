//! Limits on what clients may have: over one, the answer is RESOURCE_EXHAUSTED
//! and when to try again.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    time::{Duration, Instant},
};

use chat_service::{
    app::App,
    config::serve_from,
    proto::{CreateRequest, DeleteRequest, ListChatsRequest, SendMessageRequest},
};
use futures_util::future::join_all;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{
    guarded::{client, connect, create, outcome, reason, send, start, stop, with_token},
    hostile::raw::{
        Connection, DATA, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, PREFACE, hello, message,
        open, reset, window_update,
    },
    ops::{get, value},
    server::soon,
};

/// Long enough for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

async fn raw(app: &App) -> Connection {
    Connection::open(app.address(), 1).await.unwrap()
}

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
async fn p6_so_many_changes_a_second_a_user() {
    let app = start(&["--max-user-changes", "5"]).await;
    let client = client(&app);
    let mut over = 0;
    for _ in 0..10 {
        if let Err(status) = create(&client, "bob", &[]).await {
            assert_over(&status, "TOO_MANY_CHANGES");
            over += 1;
        }
    }
    assert!((3..=5).contains(&over), "{over}");
    // Other users, and what else this one does, are not held up.
    let chat = create(&client, "eve", &["bob"]).await.unwrap();
    for n in 0..20 {
        send(&client, "bob", chat, &n.to_string()).await.unwrap();
    }
    stop(app).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_so_many_chats_a_user() {
    let pg = crate::pg::Pg::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("chat.db");
    let dsn = pg.tcp_dsn("postgres");
    for store in [
        &["--store", "memory"][..],
        &["--store", &format!("sqlite:{}", file.display())],
        &["--store", &dsn],
    ] {
        let rest = ["--grpc-port", "0", "--max-user-chats", "3"];
        let config = serve_from(&[store, &rest].concat()).unwrap();
        let app = App::start(config).await.unwrap();
        let client = client(&app);
        let again = || {
            let request = CreateRequest {
                client_chat_id: "once".into(),
                ..Default::default()
            };
            let mut client = client.clone();
            async move { client.create(with_token(request, "dan")).await }
        };
        let first = again().await.unwrap().into_inner().id;
        for _ in 0..2 {
            create(&client, "dan", &[]).await.unwrap();
        }
        assert!(create(&client, "dan", &[]).await.is_err(), "{store:?}");
        // That is none more.
        assert_eq!(again().await.unwrap().into_inner().id, first);
        let many = futures_util::future::join_all((0..8).map(|_| create(&client, "bob", &["eve"])));
        let (made, refused): (Vec<_>, Vec<_>) = many.await.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 3, "{store:?}");
        for refusal in refused {
            let refusal = refusal.unwrap_err();
            assert_eq!(
                (refusal.code(), reason(&refusal).as_str()),
                (Code::ResourceExhausted, "TOO_MANY_CHATS")
            );
        }
        // Being in chats of others counts for nobody.
        create(&client, "eve", &["bob"]).await.unwrap();
        let gone = made.into_iter().next().unwrap().unwrap();
        let delete = with_token(DeleteRequest { id: gone }, "bob");
        client.clone().delete(delete).await.unwrap();
        create(&client, "bob", &[]).await.unwrap();
        assert!(create(&client, "bob", &[]).await.is_err(), "{store:?}");
        stop(app).await;
    }
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
    assert_eq!(refused.reason, "TOO_MANY_SENDS");
    assert!(refused.retry_delay.is_some());
    stop(app).await;
}

#[tokio::test]
async fn p6_so_many_connections_and_one_more_is_told() {
    let app = start(&["--max-connections", "3", "--handshake-timeout", "30s"]).await;
    let first = client(&app);
    create(&first, "bob", &[]).await.unwrap();
    let mut others = [raw(&app).await, raw(&app).await];
    for other in &mut others {
        other.say(&hello()).await.unwrap();
        other.settle().await.unwrap();
    }
    let told = create(&client(&app), "eve", &[]).await.unwrap_err();
    assert_over(&told, "TOO_MANY_CONNECTIONS");
    create(&first, "bob", &[]).await.unwrap();
    // It is not open for long, least of all to who says nothing.
    assert!(raw(&app).await.closed(PATIENCE).await);
    // Who goes makes room.
    drop(others);
    let began = Instant::now();
    while create(&client(&app), "eve", &[]).await.is_err() {
        assert!(began.elapsed() < PATIENCE);
    }
    stop(app).await;
}

#[tokio::test]
async fn p6_a_connection_that_says_too_little_loses_its_place() {
    let app = start(&["--max-connections", "2", "--handshake-timeout", "300ms"]).await;
    let mut silent = [raw(&app).await, raw(&app).await];
    silent[0].say(&PREFACE[..20]).await.unwrap();
    for connection in &mut silent {
        assert!(connection.closed(PATIENCE).await);
    }
    create(&client(&app), "eve", &[]).await.unwrap();
    stop(app).await;
}

/// Of many that are too many at once, some are told and the others closed.
#[tokio::test]
async fn p6_no_more_than_64_connections_are_turned_away_at_a_time() {
    let app = start(&["--max-connections", "1"]).await;
    let first = client(&app);
    create(&first, "bob", &[]).await.unwrap();
    let began = Instant::now();
    let clients = (0..200).map(|_| async {
        let mut connection = raw(&app).await;
        _ = connection.say(&hello()).await;
        let told = connection.settle().await.is_ok();
        (told, connection.closed(PATIENCE).await)
    });
    let outcomes = join_all(clients).await;
    let told = outcomes.iter().filter(|(told, _)| *told).count();
    assert!(outcomes.iter().all(|(_, closed)| *closed));
    // As many again each second.
    let most = 64 * (1 + began.elapsed().as_secs() as usize);
    assert!((64..=most).contains(&told), "{told} of at most {most}");
    create(&first, "bob", &[]).await.unwrap();
    stop(app).await;
}

#[tokio::test]
async fn p6_headers_and_first_frames_have_bounds() {
    let flags = ["--max-header", "1KiB", "--first-frame-timeout", "300ms"];
    let app = start(&flags).await;
    let client = client(&app);
    let long = create(&client, &"x".repeat(1500), &[]).await;
    let told = (Code::ResourceExhausted, "HEADERS_TOO_LARGE".into());
    assert_eq!(outcome(&long), told);
    // Far beyond the limit HTTP/2 does not even read them.
    assert!(create(&client, &"x".repeat(4000), &[]).await.is_err());
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

/// Takes calls back at once, all in one piece; what becomes of the connection.
async fn take_back(app: &App, count: u32) -> Result<(), Option<u32>> {
    let mut connection = raw(app).await;
    let streams = (0..count).map(|n| 2 * n + 1);
    let calls = streams.flat_map(|stream| [open(stream, "Get", "bob"), reset(stream)].concat());
    let words = [hello(), calls.collect()].concat();
    connection.say(&words).await.unwrap();
    tokio::time::timeout(PATIENCE, connection.settle())
        .await
        .unwrap()
}

/// Breaks HTTP/2 in each of so many calls, by windows too large.
async fn break_rules(app: &App, count: u32) -> Result<(), Option<u32>> {
    let mut connection = raw(app).await;
    connection.say(&hello()).await.unwrap();
    for stream in (0..count).map(|n| 2 * n + 1) {
        let request = SendMessageRequest::default();
        let words = [
            open(stream, "SendMessage", "bob"),
            message(stream, 0, &request),
            window_update(stream, (1 << 31) - 1),
        ];
        _ = connection.say(&words.concat()).await;
    }
    tokio::time::timeout(PATIENCE, connection.settle())
        .await
        .unwrap()
}

#[tokio::test]
async fn p6_so_many_resets_a_connection() {
    let calm = Err(Some(ENHANCE_YOUR_CALM));
    let flags = ["--max-pending-resets", "8", "--max-error-resets", "8"];
    let app = start(&flags).await;
    // The calls of a connection's first 64 KiB are worked off as they are read.
    assert_eq!(take_back(&app, 1_000).await, calm);
    assert_eq!(break_rules(&app, 30).await, calm);
    create(&client(&app), "bob", &[]).await.unwrap();
    stop(app).await;
    let flags = ["--max-pending-resets", "100", "--max-error-resets", "100"];
    let app = start(&flags).await;
    assert_eq!(take_back(&app, 30).await, Ok(()));
    assert_eq!(break_rules(&app, 30).await, Ok(()));
    stop(app).await;
}

#[tokio::test]
async fn p6_a_connection_that_answers_no_ping_is_gone() {
    let flags = ["--keep-alive-interval", "300ms"];
    let app = start(&[&flags[..], &["--keep-alive-timeout", "300ms"]].concat()).await;
    let client = client(&app);
    let chat = create(&client, "bob", &[]).await.unwrap();
    let mut stream = connect(&client, "bob", chat).await.unwrap();
    let began = Instant::now();
    let mut dead = raw(&app).await;
    dead.say(&hello()).await.unwrap();
    _ = tokio::time::timeout(PATIENCE, dead.hear_of(GOAWAY)).await;
    assert!(dead.closed(PATIENCE).await);
    assert!(began.elapsed() >= Duration::from_millis(550), "too soon");
    // Who answers stays, also without a call.
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(&client, "bob", chat, "still here").await.unwrap();
    assert_eq!(stream.messages.message().await.unwrap().unwrap().seq, 1);
    stop(app).await;
}

#[tokio::test]
async fn p6_every_refusal_is_counted_by_its_reason() {
    let flags = [
        &["--http-port", "0", "--max-connections", "2"][..],
        &["--max-inflight", "1", "--max-user-streams", "1"],
        &["--max-user-sends", "1", "--max-header", "1KiB"],
        &["--max-members", "2", "--max-text", "10"],
    ];
    let app = start(&flags.concat()).await;
    let client = client(&app);
    let chat = create(&client, "bob", &[]).await.unwrap();

    let mut stream = connect(&client, "bob", chat).await.unwrap();
    assert!(connect(&client, "bob", chat).await.is_err());
    send(&client, "bob", chat, "1").await.unwrap();
    assert!(send(&client, "bob", chat, "2").await.is_err());
    stream.post("3").await;
    while stream
        .messages
        .message()
        .await
        .unwrap()
        .unwrap()
        .rejected
        .is_none()
    {}
    let long = create(&client, "bob", &[&"x".repeat(2_000)]).await;
    assert_eq!(outcome(&long).1, "MESSAGE_TOO_LARGE");
    assert!(create(&client, &"x".repeat(1_500), &[]).await.is_err());
    assert!(create(&client, "bob", &["eve", "kim"]).await.is_err());

    // One call too many whose message does not come; they are in nobody else's way.
    let mut second = raw(&app).await;
    let calls: Vec<_> = (0..513).map(|n| open(2 * n + 1, "Get", "bob")).collect();
    let words = [hello(), calls.concat()].concat();
    second.say(&words).await.unwrap();
    let refused = soon("a refusal", second.hear_of(HEADERS)).await;
    assert_eq!(refused.map(|frame| frame.stream), Some(1_025));
    create(&client, "eve", &[]).await.unwrap();
    let third = crate::guarded::client(&app);
    let told = create(&third, "bob", &[]).await.unwrap_err();
    assert_over(&told, "TOO_MANY_CONNECTIONS");

    let (_, metrics) = get(app.http_address().unwrap(), "/metrics").await;
    for (reason, expected) in [
        ("TOO_MANY_CONNECTIONS", 1.0),
        ("TOO_MANY_STREAMS", 1.0),
        ("TOO_MANY_SENDS", 2.0),
        ("TOO_MANY_CALLS", 1.0),
        ("MESSAGE_TOO_LARGE", 1.0),
        ("HEADERS_TOO_LARGE", 1.0),
        ("INVALID_FIELD", 1.0),
    ] {
        let name = format!("chat_refusals_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&metrics, &name), expected, "{reason}");
    }
    drop((second, stream));
    stop(app).await;
}

/// Connections that show no token are kept, as long as nobody else needs their places.
#[tokio::test]
async fn p6_who_shows_no_token_makes_way_for_who_does() {
    let app = start(&["--max-connections", "4"]).await;
    let before = client(&app);
    let chat = create(&before, "bob", &[]).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut one = raw(&app).await;
        one.say(&hello()).await.unwrap();
        one.settle().await.unwrap();
        silent.push(one);
    }
    // They have some time to show one.
    let refused = create(&client(&app), "eve", &[]).await.unwrap_err();
    assert_over(&refused, "TOO_MANY_CONNECTIONS");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut members = Vec::new();
    for mut one in silent {
        let member = client(&app);
        let own = create(&member, "eve", &[]).await.unwrap();
        assert!(one.closed(PATIENCE).await, "it goes on");
        let stream = connect(&member, "eve", own).await.unwrap();
        members.push((member, stream));
    }
    // Users' connections that are in use stay, and so does a user's only one.
    let refused = create(&client(&app), "eve", &[]).await.unwrap_err();
    assert_over(&refused, "TOO_MANY_CONNECTIONS");
    send(&before, "bob", chat, "still here").await.unwrap();
    for (member, _stream) in &members {
        create(member, "eve", &[]).await.unwrap();
    }
    stop(app).await;
}

/// A user who takes all places with connections that were of use once gives places back
/// to those who have fewer, and keeps the connection that is in use.
#[tokio::test]
async fn p6_one_users_idle_connections_keep_nobody_out() {
    let app = start(&["--max-connections", "6"]).await;
    let used = client(&app);
    let chat = create(&used, "bob", &[]).await.unwrap();
    let mut stream = connect(&used, "bob", chat).await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut one = raw(&app).await;
        let call = [
            hello(),
            open(1, "ListChats", "bob"),
            message(1, END_STREAM, &ListChatsRequest::default()),
        ];
        one.say(&call.concat()).await.unwrap();
        let answer = soon("an answer", one.hear_of(DATA)).await;
        assert_eq!(answer.map(|frame| frame.stream), Some(1));
        idle.push(one);
    }
    let mut others = Vec::new();
    for (user, mut longest) in ["eve", "kim", "ann"].into_iter().zip(idle) {
        let other = client(&app);
        create(&other, user, &[]).await.unwrap();
        assert!(longest.closed(PATIENCE).await, "{user}");
        others.push((user, other));
    }
    for (user, other) in &others {
        create(other, user, &[]).await.unwrap();
    }
    send(&used, "bob", chat, "still here").await.unwrap();
    assert_eq!(stream.messages.message().await.unwrap().unwrap().seq, 1);
    stop(app).await;
}

/// Connections from one address have their time to show a token as long as they are not
/// more than another address has.
#[tokio::test]
async fn p6_one_address_keeps_nobody_out_who_comes_from_elsewhere() {
    let app = start(&["--max-connections", "8"]).await;
    let mut flood = Vec::new();
    for _ in 0..8 {
        let mut one = Connection::open(app.address(), 2).await.unwrap();
        one.say(&hello()).await.unwrap();
        one.settle().await.unwrap();
        flood.push(one);
    }
    // None of them has had its two seconds.
    let others = [client(&app), client(&app), client(&app)];
    for other in &others {
        create(other, "bob", &[]).await.unwrap();
    }
    for one in &mut flood[..3] {
        assert!(one.closed(PATIENCE).await, "those that came first");
    }
    stop(app).await;
}

/// One user opens calls on several connections whose messages never come: others have
/// their calls answered, also such as come in pieces.
#[tokio::test]
async fn p6_a_users_half_calls_leave_room_for_others() {
    let app = start(&["--max-inflight", "64", "--http-port", "0"]).await;
    let client = client(&app);
    let chat = create(&client, "eve", &[]).await.unwrap();
    let mut greedy = Vec::new();
    for _ in 0..5 {
        let mut one = raw(&app).await;
        let calls = (0..300).map(|n| open(2 * n + 1, "SendMessage", "bob"));
        let words = [hello(), calls.collect::<Vec<_>>().concat()].concat();
        one.say(&words).await.unwrap();
        one.settle().await.unwrap();
        greedy.push(one);
    }
    let (_, metrics) = get(app.http_address().unwrap(), "/metrics").await;
    let refused = value(&metrics, "chat_refusals_total{reason=\"TOO_MANY_CALLS\"}");
    assert!((950.0..1_000.0).contains(&refused), "{refused}");
    let mut slow = raw(&app).await;
    slow.say(&[hello(), open(1, "Create", "eve")].concat())
        .await
        .unwrap();
    slow.settle().await.unwrap();
    for text in ["one", "two"] {
        send(&client, "eve", chat, text).await.unwrap();
    }
    slow.say(&message(1, END_STREAM, &CreateRequest::default()))
        .await
        .unwrap();
    let answer = soon("an answer", slow.hear_of(DATA)).await;
    assert_eq!(answer.map(|frame| frame.stream), Some(1));
    drop(greedy);
    stop(app).await;
}

/// A process that may have few files open, and whose limit is to begin with lower
/// still, as a shell's mostly is.
#[tokio::test]
async fn p6_p10_a_low_limit_of_open_files_leaves_room_for_probes_and_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let serve = "ulimit -Sn 100 && ulimit -Hn 600 && exec \"$0\" serve --grpc-port 0 --auth dev";
    let mut child = std::process::Command::new("bash")
        .args(["-c", serve, env!("CARGO_BIN_EXE_chatd")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<String> = stdout.lines().take(2).map(Result::unwrap).collect();
    let at = |line: &str, head| line.strip_prefix(head).unwrap().parse::<SocketAddr>();
    let address = at(&lines[0], "listening on ").unwrap();
    let http = at(&lines[1], "http on ").unwrap();

    let mut connections = Vec::new();
    for _ in 0..700 {
        let mut connection = Connection::open(address, 1).await.unwrap();
        // It may have been closed already.
        _ = connection.say(&hello()).await;
        connections.push(connection);
    }
    let (status, _) = get(http, "/live").await;
    assert_eq!(status, 200);
    assert_eq!(get(http, "/ready").await.0, 200);
    // Half of the files. The last may still wait to be accepted.
    let refused = async {
        loop {
            let (_, metrics) = get(http, "/metrics").await;
            let name = "chat_refusals_total{reason=\"TOO_MANY_CONNECTIONS\"}";
            if value(&metrics, name) >= 400.0 {
                break metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let metrics = soon("all are refused that are too many", refused).await;
    let open = value(&metrics, "process_open_fds");
    assert!((300.0..450.0).contains(&open), "{open}");
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let warned = "fewer connections than --max-connections";
    assert_eq!(log.matches(warned).count(), 1, "{log}");
    assert!(!log.contains("can't be accepted"), "{log}");
    child.kill().unwrap();
    child.wait().unwrap();
}
