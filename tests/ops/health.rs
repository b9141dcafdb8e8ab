use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::JoinSet,
};

use super::*;
use crate::pg::{Pg, kill};

struct Process {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
    _out: Lines<BufReader<ChildStdout>>,
}

async fn process(dsn: &str) -> Process {
    let mut child = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["serve", "--grpc-port", "0", "--config-path", ""])
        .args(["--store-stall", "5s", "--log-level", "error"])
        .env_clear()
        .env("PG_DSN", dsn)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = async |head: &str| -> SocketAddr {
        let line = out.next_line().await.unwrap().unwrap();
        line.strip_prefix(head).unwrap().parse().unwrap()
    };
    Process {
        grpc: address("listening on ").await,
        http: address("http on ").await,
        child,
        _out: out,
    }
}

#[tokio::test]
async fn p9_not_ready_while_the_database_is_away_and_while_draining() {
    let pg = Pg::start();
    let mut process = process(&pg.tcp_dsn("postgres")).await;
    let http = process.http;
    assert_eq!(get(http, "/live").await, (200, "live\n".into()));
    assert_eq!(get(http, "/ready").await, (200, "ready\n".into()));
    let url = format!("http://{}", process.grpc);
    let mut client = ChatV1Client::connect(url).await.unwrap();
    let chat = create(&mut client).await;
    client
        .send_message(by("alice", text(chat, "1")))
        .await
        .unwrap();

    pg.sigstop();
    until("not ready without its database", async || {
        let (status, why) = get(http, "/ready").await;
        status == 503 && why.starts_with("store: ") && why.ends_with('\n')
    })
    .await;
    assert_eq!(get(http, "/live").await.0, 200, "a restart would not help");
    let mut sender = client.clone();
    let mut sends = JoinSet::new();
    sends.spawn(async move { sender.send_message(by("alice", text(chat, "2"))).await });
    until("the send is with its lane", async || {
        let (_, metrics) = get(http, "/metrics").await;
        value(&metrics, "chat_lane_depth") == 1.0
    })
    .await;
    kill("-TERM", process.child.id().unwrap());
    until("not ready while draining", async || {
        let (status, why) = get(http, "/ready").await;
        status == 503 && why.starts_with("draining: ")
    })
    .await;

    pg.sigcont();
    assert_eq!(
        sends
            .join_next()
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .into_inner()
            .seq,
        2
    );
    drop(client);
    let ended = tokio::time::timeout(PATIENCE, process.child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn p10_other_paths_and_methods_are_answered() {
    let app = server(&[]).await;
    let http_at = app.http_address().unwrap();
    assert_eq!(get(http_at, "/nothing").await.0, 404);
    assert_eq!(http(http_at, "POST", "/metrics", "").await.0, 405);
    assert_eq!(get(http_at, "/log-level").await.0, 405);
    let (status, why) = http(http_at, "PUT", "/log-level", "loud").await;
    assert_eq!((status, why.contains("loud")), (400, true), "{why}");
    let long = "x".repeat(5_000);
    assert_eq!(http(http_at, "PUT", "/log-level", &long).await.0, 400);
    let filter = "chat_service=debug,info";
    let (status, now) = http(http_at, "PUT", "/log-level", filter).await;
    assert_eq!((status, now.trim()), (200, filter));
    app.drain(PATIENCE).await;
}

/// Connections that idle, and such as never finish a request, take no place from
/// the probes that decide whether this process lives.
#[tokio::test]
async fn p6_probes_are_answered_whatever_others_hold() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = server(&[]).await;
    let at = app.http_address().unwrap();
    let mut held = Vec::new();
    for n in 0..520 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let head = format!("GET /live HTTP/1.1\r\nhost: {at}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if n < 456 {
            stream.write_all(b"\r\n").await.unwrap();
            let mut some = [0; 12];
            stream.read_exact(&mut some).await.unwrap();
            assert_eq!(&some, b"HTTP/1.1 200");
        }
        held.push(stream);
        if n % 20 == 0 || n > 506 {
            let began = Instant::now();
            assert_eq!(get(at, "/live").await.0, 200);
            assert_eq!(get(at, "/ready").await.0, 200);
            assert!(began.elapsed() < Duration::from_secs(1), "{n} are held");
        }
    }
    app.drain(PATIENCE).await;
}

/// What a page of another server may get out of a browser on this machine, by
/// the names of its host and the headers that its browser adds.
#[tokio::test]
async fn p7_a_page_elsewhere_reads_and_changes_nothing() {
    let app = server(&["--http-hosts", "chat.example.org"]).await;
    let at = app.http_address().unwrap();
    let own = at.to_string();
    let port = at.port();
    for path in ["/metrics", "/stats.json", "/chat/config.json", "/live"] {
        for (host, status) in [
            (own.clone(), 200),
            (format!("localhost:{port}"), 200),
            (format!("[::1]:{port}"), 200),
            ("Chat.example.org".into(), 200),
            ("evil.example".into(), 421),
            (format!("evil.example:{port}"), 421),
            ("localhost.evil.example".into(), 421),
            ("127.0.0.1.evil.example".into(), 421),
            ("[::1].evil.example".into(), 421),
            ("[::1]evil.example".into(), 421),
            ("[127.0.0.1]".into(), 421),
            ("127.0.0.1:evil".into(), 421),
            ("127.0.0.1:80:80".into(), 421),
        ] {
            let host = format!("host: {host}\r\n");
            assert_eq!(
                http_with(at, "GET", path, &host, "").await.0,
                status,
                "{path} {host}"
            );
        }
        let two = format!("host: {own}\r\nhost: evil.example\r\n");
        for bad in [
            "",
            &two,
            "host: a b\r\n",
            "host: \r\n",
            "host: evil.example@127.0.0.1\r\n",
            "host: 127.0.0.1/evil.example\r\n",
        ] {
            assert_eq!(
                http_with(at, "GET", path, bad, "").await.0,
                400,
                "{path} {bad}"
            );
        }
    }
    for (more, status) in [
        (String::new(), 200),
        (
            format!("origin: http://{own}\r\nsec-fetch-site: same-origin\r\n"),
            200,
        ),
        ("origin: http://evil.example\r\n".into(), 403),
        ("origin: null\r\n".into(), 403),
        (
            format!("origin: http://{own}\r\norigin: http://evil.example\r\n"),
            403,
        ),
        ("sec-fetch-site: cross-site\r\n".into(), 403),
        ("forwarded: for=192.0.2.1\r\n".into(), 403),
        ("x-forwarded-for: 192.0.2.1\r\n".into(), 403),
        ("x-forwarded-host: chat.example\r\n".into(), 403),
        ("via: 1.1 proxy.example\r\n".into(), 403),
        ("x-client-ip: 127.0.0.1\r\n".into(), 403),
        ("fastly-client-ip: 192.0.2.1\r\n".into(), 403),
        ("x-envoy-external-address: 192.0.2.1\r\n".into(), 403),
        ("cdn-loop: cloudflare\r\n".into(), 403),
        ("x-amzn-trace-id: Root=1\r\n".into(), 403),
        ("x-any-other: 1\r\n".into(), 403),
        (
            "sec-fetch-site: same-origin\r\nsec-fetch-site: cross-site\r\n".into(),
            403,
        ),
        (format!("referer: http://{own}/\r\n"), 200),
        ("referer: http://evil.example/\r\n".into(), 403),
        (format!("referer: http://{own}.evil.example/\r\n"), 403),
        (
            format!("referer: http://{own}/\r\nreferer: http://evil.example/\r\n"),
            403,
        ),
        // As curl, wget and chatd send it.
        (
            "user-agent: curl/8.5.0\r\naccept: */*\r\n\
             content-type: application/x-www-form-urlencoded\r\n"
                .into(),
            200,
        ),
        (
            "user-agent: Wget/1.21\r\naccept: */*\r\naccept-encoding: identity\r\n".into(),
            200,
        ),
    ] {
        let head = format!("host: {own}\r\n{more}");
        let (got, _) = http_with(at, "PUT", "/log-level", &head, "info").await;
        assert_eq!(got, status, "{more}");
    }
    // What a request for a change is sent to is this machine, and by the address that it
    // alone reaches.
    for (host, status) in [
        ("6.6.6.6".to_owned(), 421),
        (format!("192.168.1.10:{port}"), 421),
        ("[2001:db8::1]".into(), 421),
        ("0.0.0.0".into(), 421),
        (format!("127.0.0.2:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        (format!("[::ffff:127.0.0.1]:{port}"), 200),
        ("chat.example.org".into(), 200),
    ] {
        for path in ["/log-level", "/cluster"] {
            let head = format!("host: {host}\r\n");
            let (got, _) = http_with(at, "PUT", path, &head, "info").await;
            // This server is alone, and has no nodes to move chats between.
            let alone = path == "/cluster" && status == 200;
            assert_eq!(got, if alone { 404 } else { status }, "{path} {host}");
        }
    }
    app.drain(PATIENCE).await;
}

/// A server that others on the network reach by any name is also reached by the
/// browsers of its own machine.
#[tokio::test]
async fn p7_a_page_elsewhere_changes_nothing_where_any_host_is_answered() {
    let app = server(&["--http-host", "0.0.0.0"]).await;
    let at = SocketAddr::from(([127, 0, 0, 1], app.http_address().unwrap().port()));
    for (host, read, change) in [
        (format!("evil.example:{}", at.port()), 200, 421),
        (format!("localhost:{}", at.port()), 200, 200),
        (at.to_string(), 200, 200),
    ] {
        let head = format!("host: {host}\r\norigin: http://{host}\r\n");
        assert_eq!(http_with(at, "GET", "/live", &head, "").await.0, read);
        let (got, _) = http_with(at, "PUT", "/log-level", &head, "info").await;
        assert_eq!(got, change, "{host}");
    }
    app.drain(PATIENCE).await;
}

/// Also while connections come faster than they can be served: whoever comes with
/// a request is not made to give way before it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_probes_are_answered_while_thousands_knock() {
    use tokio::io::AsyncWriteExt as _;
    let app = server(&[]).await;
    let at = app.http_address().unwrap();
    let mut knocking = JoinSet::new();
    for _ in 0..4 {
        knocking.spawn(async move {
            let mut held = std::collections::VecDeque::new();
            loop {
                let mut stream = TcpStream::connect(at).await.unwrap();
                _ = stream.write_all(b"GET /live HTTP/1.1\r\n").await;
                held.push_back(stream);
                if held.len() > 100 {
                    held.pop_front();
                }
            }
        });
    }
    for probes in 0..20 {
        for probe in ["/live", "/ready"] {
            let began = Instant::now();
            assert_eq!(get(at, probe).await.0, 200, "{probe} after {probes}");
            // The kubelet's time for one, if nothing else is said.
            let took = began.elapsed();
            assert!(took < Duration::from_secs(1), "{probe} after {probes}");
        }
    }
    assert!(knocking.try_join_next().is_none(), "they still knock");
    knocking.shutdown().await;
    app.drain(PATIENCE).await;
}

/// What asks for much at once is served a piece at a time: each of its connections
/// sends dozens of requests before it reads an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_probes_are_answered_while_others_ask_in_heaps() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = server(&[]).await;
    let at = app.http_address().unwrap();
    let mut asking = JoinSet::new();
    for path in ["/metrics", "/stats.json?after=1", "/chat", "/live"].repeat(8) {
        let mut stream = TcpStream::connect(at).await.unwrap();
        asking.spawn(async move {
            let ask = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\n\r\n").repeat(50);
            let (mut read, mut write) = stream.split();
            let mut answers = vec![0; 256 * 1024];
            let reading = async { while read.read(&mut answers).await.is_ok_and(|n| n > 0) {} };
            let asking = async { while write.write_all(ask.as_bytes()).await.is_ok() {} };
            tokio::join!(reading, asking);
        });
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(get(at, "/live").await.0, 200);
        assert_eq!(get(at, "/ready").await.0, 200);
        slowest = slowest.max(began.elapsed());
    }
    assert!(asking.try_join_next().is_none(), "they still ask");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    asking.shutdown().await;
    app.drain(PATIENCE).await;
}

/// Load balancers ask in HTTP/1.0 and name no host: they read, and change nothing.
#[tokio::test]
async fn p7_a_request_that_names_no_host_reads_in_http_1_0_and_changes_nothing() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = server(&[]).await;
    let at = app.http_address().unwrap();
    for (head, status) in [
        ("GET /live HTTP/1.0\r\n\r\n", "200"),
        ("GET /live HTTP/1.1\r\n\r\n", "400"),
        (
            "PUT /log-level HTTP/1.0\r\ncontent-length: 4\r\n\r\ninfo",
            "400",
        ),
        // As nginx passes on what others ask it.
        (
            "PUT /log-level HTTP/1.0\r\nhost: 127.0.0.1\r\ncontent-length: 4\r\n\r\ninfo",
            "403",
        ),
    ] {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer[9..]), Ok(status), "{head}");
    }
    app.drain(PATIENCE).await;
}

/// Requests whose body never comes hold places, and whoever comes then is new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_probes_are_answered_while_others_hold_requests_open() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = server(&[]).await;
    let at = app.http_address().unwrap();
    let mut held = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let head = format!("PUT /log-level HTTP/1.1\r\nhost: {at}\r\ncontent-length: 9\r\n\r\ni");
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    for probe in 0..100 {
        // A probe that is a little slow, and one more connection behind it.
        let mut slow = TcpStream::connect(at).await.unwrap();
        held.push(TcpStream::connect(at).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
        let ask = format!("GET /live HTTP/1.1\r\nhost: {at}\r\n\r\n");
        slow.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        let answered = tokio::time::timeout(PATIENCE, slow.read_exact(&mut answer)).await;
        answered
            .unwrap()
            .unwrap_or_else(|why| panic!("probe {probe}: {why}"));
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    // Nor do they hold them for long.
    let (mut ended, mut answer) = (0, Vec::new());
    for mut stream in held.drain(..256) {
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        ended += usize::from(end.is_ok());
    }
    assert_eq!(ended, 256);
    app.drain(PATIENCE).await;
}
