//! `--auth service` against an Auth Service that is slow, refuses, flaps, hangs
//! or is down: what the client gets, and how often the Auth Service is asked.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use chat_service::{
    app::App,
    proto::{
        chat_v1_client::ChatV1Client,
        tokens::{LoginRequest, auth_v1_client::AuthV1Client},
    },
};
use futures_util::{StreamExt as _, stream};
use tokio::task::JoinSet;
use tonic::{Code, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::guarded::{
    Client, client, connect, create,
    keys::Key,
    outcome,
    peer::{Answer, Around, Peer},
    reason, send, start, stop, with_token,
};
use crate::{
    hostile::raw::{Connection, HEADERS, hello, open_path},
    server::soon,
};

const SECRET: &str = "the chat server never needs this";

fn token(user: &str) -> String {
    Key::hs(SECRET).token(user, "0", 3600)
}

async fn server(peer: &Peer, more: &[&str]) -> App {
    let flags = peer.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    start(&[&flags[..], more].concat()).await
}

/// One call by a new token each: the peer's answer, what the client gets, and
/// how many checks the peer has seen.
#[tokio::test]
async fn p7_a_refusal_is_no_failure_and_a_failure_is_no_refusal() {
    use Answer::{Flap, Hang, Http, No, Slow, Yes};
    let ok = (Code::Ok, "");
    let invalid = (Code::Unauthenticated, "TOKEN_INVALID");
    let denied = (Code::PermissionDenied, "NOT_ALLOWED");
    let failed = (Code::Unavailable, "AUTH_UNAVAILABLE");
    let table = [
        (Yes, ok, 1),
        (Slow(Duration::from_millis(100)), ok, 1),
        (Flap, ok, 2),
        (No(Code::Unauthenticated, "no"), invalid, 1),
        (No(Code::PermissionDenied, "no"), denied, 1),
        (No(Code::Unknown, "access token is invalid"), invalid, 1),
        (No(Code::Unknown, "Access Denied"), denied, 1),
        (No(Code::Unavailable, "no"), failed, 2),
        (No(Code::ResourceExhausted, "rate limit"), failed, 1),
        (No(Code::DeadlineExceeded, "no"), failed, 1),
        (No(Code::Cancelled, "no"), failed, 1),
        (No(Code::Internal, "no"), failed, 1),
        (No(Code::Unimplemented, "no"), failed, 1),
        (No(Code::InvalidArgument, "no"), failed, 1),
        (No(Code::NotFound, "no"), failed, 1),
        (No(Code::DataLoss, "no"), failed, 1),
        (No(Code::Aborted, "no"), failed, 1),
        (Http(500), failed, 1),
        (Http(503), failed, 2),
        (Http(401), failed, 1),
        (Answer::Page(500), failed, 1),
        (Answer::Page(503), failed, 1),
        (Answer::CutOff, failed, 1),
        (Hang, failed, 1),
    ];
    for (answer, expected, checks) in table {
        // A server each: no breaker has seen an earlier row.
        let peer = Peer::start(answer).await;
        let app = server(&peer, &["--auth-timeout", "400ms"]).await;
        let token = token("bob");
        let result = create(&client(&app), &token, &[]).await;
        let (code, reason) = outcome(&result);
        assert_eq!((code, reason.as_str()), expected, "{answer:?}");
        assert_eq!(peer.checks(), checks, "{answer:?}");
        if let Err(status) = result {
            let retry = status.get_details_retry_info();
            assert_eq!(retry.is_some(), code == Code::Unavailable, "{answer:?}");
            assert!(!status.message().contains("access"), "{status:?}");
        }
        stop(app).await;
    }
}

/// What is between the two may add to an answer: nobody is let in by one that also says no.
#[tokio::test]
async fn p7_a_yes_is_one_only_if_nothing_in_it_says_otherwise() {
    const GRPC: &str = "application/grpc";
    const PAGE: &str = "text/html";
    let yes = (Code::Ok, "");
    let denied = (Code::PermissionDenied, "NOT_ALLOWED");
    let failed = (Code::Unavailable, "AUTH_UNAVAILABLE");
    type Statuses = &'static [&'static str];
    let table: [(u16, &str, Statuses, Statuses, _); 15] = [
        (200, GRPC, &[], &["0"], yes),
        (200, "application/grpc+proto", &[], &["0"], yes),
        (200, GRPC, &["0"], &[], yes),
        (200, GRPC, &["0"], &["0"], yes),
        (200, GRPC, &["0"], &["7"], failed),
        (200, GRPC, &["0", "7"], &[], failed),
        (200, GRPC, &[], &["0", "7"], failed),
        (200, GRPC, &["7"], &["0"], denied),
        (200, GRPC, &[], &[], failed),
        (403, GRPC, &["0"], &[], failed),
        (403, GRPC, &[], &["0"], failed),
        (500, GRPC, &["0"], &["0"], failed),
        (200, PAGE, &["0"], &[], failed),
        (200, PAGE, &[], &["0"], failed),
        (200, "application/grpc-web", &[], &["0"], failed),
    ];
    for (http, content_type, headers, trailers, expected) in table {
        let around = Around {
            http,
            content_type,
            headers,
            trailers,
        };
        let peer = Peer::start(Answer::Says(around)).await;
        let app = server(&peer, &[]).await;
        let result = create(&client(&app), &token("bob"), &[]).await;
        let (code, reason) = outcome(&result);
        assert_eq!((code, reason.as_str()), expected, "{around:?}");
        stop(app).await;
    }
}

#[tokio::test]
async fn p7_what_cannot_be_a_token_is_not_asked_about() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &[]).await;
    let client = client(&app);
    let expired = Key::hs(SECRET).token("bob", "0", -1);
    for (token, reason) in [
        ("garbage", "TOKEN_INVALID"),
        ("a.b.c", "TOKEN_INVALID"),
        (expired.as_str(), "TOKEN_EXPIRED"),
    ] {
        let result = create(&client, token, &[]).await;
        assert_eq!(outcome(&result), (Code::Unauthenticated, reason.into()));
    }
    assert_eq!(peer.checks(), 0);
    stop(app).await;
}

/// A name, and what is read of a header.
type Way = (&'static str, fn(&str) -> Option<&str>);

/// How Auth Services get the token out of the header.
const WAYS: [Way; 6] = [
    ("without the prefix", |value| value.strip_prefix("Bearer ")),
    ("the first word behind the scheme", |value| {
        value.split_whitespace().nth(1)
    }),
    ("the last word", |value| value.split_whitespace().last()),
    ("up to a comma", |value| {
        value.strip_prefix("Bearer ")?.split(',').next()
    }),
    ("up to a semicolon", |value| {
        value.strip_prefix("Bearer ")?.split(';').next()
    }),
    ("the first that looks like one", |value| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let rest = value
            .strip_prefix("Bearer ")?
            .trim_start_matches(|c| !is_part(c));
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let third = rest.match_indices('.').nth(2).map_or(end, |(at, _)| at);
        Some(&rest[..end.min(third)])
    }),
];

/// Whatever way the peer reads the header, what it has said yes to is what the
/// identity is read from.
#[tokio::test]
async fn p7_the_token_that_is_checked_is_the_one_that_is_believed() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &[]).await;
    let mut client = client(&app);
    let good = token("bob");
    let forged = Key::hs("a secret of somebody else entirely").token("mallory", "1", 3600);
    let evil = forged.split('.').nth(1).unwrap();
    for value in [
        format!("Bearer {good}"),
        format!("Bearer {good} {forged}"),
        format!("Bearer {forged} {good}"),
        format!("Bearer {good} .{evil}.x"),
        format!("Bearer {good},{forged}"),
        format!("Bearer {good};{forged}"),
        format!("Bearer {good}=.{evil}.x"),
        format!("Bearer {good}.{evil}.x"),
        format!("Bearer {good}, Bearer {forged}"),
        format!("Bearer  {good}"),
        format!("Bearer {good} "),
        format!("Bearer\t{good} {forged}"),
        format!("Bearer {good}\t{forged}"),
        format!("Bearer \"{good}\"{forged}"),
        format!("Basic {good} {forged}"),
    ] {
        peer.take_checks();
        let mut request = tonic::Request::new(chat_service::proto::CreateRequest::default());
        request
            .metadata_mut()
            .insert("authorization", value.parse().unwrap());
        let answer = client.create(request).await;
        if peer.checks() == 0 {
            let code = answer.map(drop).map_err(|status| status.code());
            assert_eq!(code, Err(Code::Unauthenticated), "{value}");
            continue;
        }
        let [checked, ..] = peer.last();
        for (way, read) in WAYS {
            assert_eq!(read(&checked), Some(&*good), "{way}: {value}");
        }
    }
    // Two headers, of which each side could take another one.
    for pair in [[&good, &forged], [&forged, &good]] {
        peer.take_checks();
        let mut request = tonic::Request::new(chat_service::proto::CreateRequest::default());
        for token in pair {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().append("authorization", value);
        }
        let status = client.create(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(peer.checks(), 0);
    }
    stop(app).await;
}

/// Nor does the wait behind a flood of tokens say anything about the peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_flood_of_tokens_is_no_failure_of_the_auth_service() {
    const FLOOD: usize = 6_000;
    let peer = Peer::start(Answer::Slow(Duration::from_millis(600))).await;
    let app = server(&peer, &["--auth-timeout", "2s"]).await;
    let client = client(&app);
    let tokens: Vec<_> = (0..FLOOD).map(|n| token(&format!("m{n}"))).collect();
    let calls = tokens.iter().map(|token| create(&client, token, &[]));
    let answers = futures_util::future::join_all(calls).await;
    let late = answers.iter().filter(|answer| answer.is_err()).count();
    assert!(late > FLOOD / 4, "{late} waited too long, so it is a flood");
    // The breaker would be open for a second, at least.
    let result = create(&client, &token("bob"), &[]).await;
    assert_eq!(outcome(&result).0, Code::Ok, "{late} were late");
    stop(app).await;
}

/// Whoever brings heaps of tokens that have to be asked about, from one address, leaves
/// room for questions about others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_flood_of_tokens_from_one_address_leaves_room_for_others() {
    const FLOOD: usize = 3_000;
    let peer = Peer::start(Answer::Slow(Duration::from_millis(400))).await;
    let app = server(&peer, &["--auth-timeout", "2s"]).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address())).unwrap();
    let elsewhere = endpoint.local_address(Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    let flooding = ChatV1Client::new(elsewhere.connect_lazy());
    let tokens: Vec<_> = (0..FLOOD).map(|n| token(&format!("m{n}"))).collect();
    let calls = tokens.iter().map(|token| create(&flooding, token, &[]));
    let flood = futures_util::future::join_all(calls);
    let others = async {
        let client = client(&app);
        tokio::time::sleep(Duration::from_millis(800)).await;
        for n in 0..5 {
            let begun = Instant::now();
            let result = create(&client, &token(&format!("good{n}")), &[]).await;
            assert_eq!(outcome(&result).0, Code::Ok, "{n}");
            let took = begun.elapsed();
            assert!(took < Duration::from_millis(1_200), "{n}: {took:?}");
        }
    };
    let (flood, ()) = tokio::join!(flood, others);
    let late = flood.iter().filter(|answer| answer.is_err()).count();
    assert!(late > FLOOD / 4, "{late} waited too long, so it is a flood");
    stop(app).await;
}

/// Who asks and leaves, again and again, does not keep others out after an outage: the
/// one check that says whether the Auth Service is back is finished for nobody, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_who_leaves_before_the_answer_keeps_nobody_out() {
    let peer = Peer::start(Answer::No(Code::Unavailable, "away")).await;
    let app = server(&peer, &[]).await;
    let client = client(&app);
    for n in 0..30 {
        let away = create(&client, &token(&format!("early{n}")), &[]).await;
        assert_eq!(outcome(&away).0, Code::Unavailable);
    }
    peer.answers(Answer::Slow(Duration::from_millis(200)));
    let mut leaving = JoinSet::new();
    for worker in 0..16 {
        let client = client.clone();
        leaving.spawn(async move {
            for n in 0.. {
                let token = token(&format!("mallory{worker}-{n}"));
                let call = create(&client, &token, &[]);
                _ = tokio::time::timeout(Duration::from_millis(150), call).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let begun = Instant::now();
    while create(&client, &token("bob"), &[]).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(6), "nobody is let in");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    leaving.shutdown().await;
    stop(app).await;
}

/// Answers that do not come for a stranger's tokens say nothing about other tokens, also
/// when the peer has just been away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_who_gets_no_answer_keeps_nobody_out_after_an_outage() {
    let peer = Peer::start(Answer::HangAbout("mallory")).await;
    let app = server(&peer, &["--auth-timeout", "500ms"]).await;
    let client = client(&app);
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address())).unwrap();
    let elsewhere = endpoint.local_address(Some(Ipv4Addr::new(127, 0, 0, 2).into()));
    let strange = ChatV1Client::new(elsewhere.connect_lazy());
    peer.down();
    for n in 0..30 {
        let away = create(&client, &token(&format!("early{n}")), &[]).await;
        assert_eq!(outcome(&away).0, Code::Unavailable);
    }
    let mut strangers = JoinSet::new();
    for worker in 0..16 {
        let strange = strange.clone();
        strangers.spawn(async move {
            for n in 0.. {
                let token = token(&format!("mallory{worker}-{n}"));
                assert!(create(&strange, &token, &[]).await.is_err());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    peer.up().await;
    let begun = Instant::now();
    while create(&client, &token("bob"), &[]).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(4), "nobody is let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Now and then somebody comes, so that most of what is asked has no answer.
    for n in 0..8 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let result = create(&client, &token(&format!("good{n}")), &[]).await;
        assert_eq!(outcome(&result).0, Code::Ok, "{n}");
    }
    strangers.shutdown().await;
    stop(app).await;
}

/// A client at another of this machine's addresses, which has shown a good token.
async fn known_from(app: &App, last: u8) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", app.address())).unwrap();
    let from = endpoint.local_address(Some(Ipv4Addr::new(127, 0, 0, last).into()));
    let client = ChatV1Client::new(from.connect_lazy());
    create(&client, &token("mallory"), &[]).await.unwrap();
    client
}

const CREATE: &str = "/chat_v1.ChatV1/Create";
/// What the server asks about by itself.
const PROBED: &str = "/chat_v1.ChatV1/Get";

/// Tokens for which the Auth Service says that it can't serve keep out who brings them,
/// and nobody else, from however many addresses they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_one_user_with_many_addresses_keeps_nobody_out() {
    let peer = Peer::start(Answer::AwayAbout("away")).await;
    let app = server(&peer, &[]).await;
    let began = Instant::now();
    let mut attack = JoinSet::new();
    for last in 10..20 {
        let client = known_from(&app, last).await;
        attack.spawn(async move {
            for n in 0.. {
                let away = create(&client, &token(&format!("away{last}-{n}")), &[]).await;
                assert_eq!(outcome(&away).1, "AUTH_UNAVAILABLE");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let client = client(&app);
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        let result = create(&client, &token(&format!("bob{n}")), &[]).await;
        assert_eq!(outcome(&result).0, Code::Ok, "{n}");
        n += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let probes = peer.checks_of(PROBED);
    let most = began.elapsed().as_secs() as usize + 1;
    assert!((1..=most).contains(&probes), "{probes} in {most} s");
    attack.shutdown().await;
    stop(app).await;
}

/// When the Auth Service itself is away, nobody waits for it, and the server finds out by
/// itself when it is back.
#[tokio::test]
async fn p8_an_outage_spares_everybody_the_wait_until_a_probe_is_answered() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &[]).await;
    let clients = [known_from(&app, 21).await, known_from(&app, 22).await];
    let newcomer = known_from(&app, 23).await;
    peer.answers(Answer::No(Code::Unavailable, "away"));
    for n in 0..12 {
        for client in &clients {
            let away = create(client, &token(&format!("early{n}")), &[]).await;
            assert_eq!(outcome(&away).1, "AUTH_UNAVAILABLE");
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = peer.checks_of(CREATE);
    let away = create(&newcomer, &token("eve"), &[]).await;
    assert_eq!(outcome(&away).1, "AUTH_UNAVAILABLE");
    assert_eq!(peer.checks_of(CREATE), before, "nobody was asked");
    peer.answers(Answer::Yes);
    let begun = Instant::now();
    while create(&newcomer, &token("eve"), &[]).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody is let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop(app).await;
}

/// A login that does not come is no place of a user's call, nor of another's login.
#[tokio::test]
async fn p6_half_logins_do_not_take_the_places_of_calls() {
    const HALVES: u32 = 1_500;
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &["--max-inflight", "1100"]).await;
    let mut stranger = Connection::open(app.address(), 113).await.unwrap();
    let half = |n| open_path(2 * n + 1, "/auth_v1.AuthV1/Login");
    let halves: Vec<_> = (0..HALVES).map(half).collect();
    let words = [hello(), halves.concat()].concat();
    stranger.say(&words).await.unwrap();
    for n in 0..HALVES - 128 {
        let refused = soon("a refusal", stranger.hear_of(HEADERS)).await;
        assert!(refused.is_some(), "{n}");
    }
    let result = create(&client(&app), &token("bob"), &[]).await;
    assert_eq!(outcome(&result).0, Code::Ok);
    let address = format!("http://{}", app.address());
    let mut logins = AuthV1Client::connect(address).await.unwrap();
    let login = logins.login(LoginRequest::default()).await;
    assert_ne!(login.unwrap_err().code(), Code::ResourceExhausted);
    drop(stranger);
    stop(app).await;
}

/// What one token is answered says nothing about the peer: however many bad ones
/// an outsider brings, a good user is let in.
#[tokio::test]
async fn p7_bad_tokens_do_not_close_the_door_for_others() {
    use Answer::{Http, No, Reset};
    for answer in [
        Reset,
        No(Code::Internal, "no"),
        No(Code::InvalidArgument, "no"),
        No(Code::NotFound, "no"),
        No(Code::ResourceExhausted, "rate limit"),
        Http(400),
        Http(431),
    ] {
        let peer = Peer::start(answer).await;
        let app = server(&peer, &[]).await;
        let client = client(&app);
        for _ in 0..30 {
            assert!(create(&client, &token("mallory"), &[]).await.is_err());
        }
        assert!(peer.take_checks() >= 30, "{answer:?}: each was asked about");
        peer.answers(Answer::Yes);
        let result = create(&client, &token("bob"), &[]).await;
        assert_eq!(outcome(&result).0, Code::Ok, "{answer:?}");
        stop(app).await;
    }
}

/// The Auth Service refuses what is too large for its HTTP/2, which would look
/// like a failure of its own.
#[tokio::test]
async fn p7_what_is_passed_on_is_bounded() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &[]).await;
    let mut client = client(&app);
    let padded = format!("{}{}", token("mallory"), "x".repeat(8 * 1024));
    let result = create(&client, &padded, &[]).await;
    let refused = (Code::Unauthenticated, "TOKEN_INVALID".into());
    assert_eq!(outcome(&result), refused);
    assert_eq!(peer.checks(), 0);

    let good = token("bob");
    let mut request = with_token(chat_service::proto::CreateRequest::default(), &good);
    let trace = format!("00-{}", "0".repeat(12 * 1024));
    request
        .metadata_mut()
        .insert("traceparent", trace.parse().unwrap());
    client.create(request).await.unwrap();
    let [_, _, passed] = peer.last();
    assert!(passed.len() <= 128, "{}", passed.len());
    stop(app).await;
}

#[tokio::test]
async fn the_peer_gets_the_token_the_method_and_the_trace() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &[]).await;
    let (mut client, token) = (client(&app), token("bob"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut request = with_token(chat_service::proto::CreateRequest::default(), &token);
    let value = trace.parse().unwrap();
    request.metadata_mut().insert("traceparent", value);
    client.create(request).await.unwrap();
    let bearer = format!("Bearer {token}");
    let method = "/chat_v1.ChatV1/Create".to_owned();
    assert_eq!(peer.last(), [bearer, method, trace.to_owned()]);
    stop(app).await;
}

#[tokio::test]
async fn p6_a_user_is_checked_once_a_method_and_ttl() {
    const USERS: usize = 100;
    const SENDS: usize = 100;
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &[]).await;
    let client = client(&app);
    let users = (0..USERS).map(|n| {
        let (client, token) = (client.clone(), token(&format!("user{n}")));
        async move {
            let chat = create(&client, &token, &[]).await.unwrap();
            let sends =
                stream::iter(0..SENDS).map(|n| send(&client, &token, chat, n.to_string().leak()));
            let sends = sends.buffer_unordered(10).collect::<Vec<_>>().await;
            assert!(sends.iter().all(Result::is_ok));
        }
    });
    let began = Instant::now();
    stream::iter(users)
        .buffer_unordered(USERS)
        .collect::<()>()
        .await;
    assert!(began.elapsed() < Duration::from_secs(25), "within one TTL");
    assert_eq!(peer.checks(), USERS * 2, "Create and SendMessage");
    assert_eq!(peer.most_of_one(), 1);
    stop(app).await;
}

#[tokio::test]
async fn p6_a_thousand_first_calls_of_one_token_are_one_check() {
    let peer = Peer::start(Answer::Slow(Duration::from_millis(300))).await;
    let app = server(&peer, &[]).await;
    let (client, token) = (client(&app), token("bob"));
    let calls = (0..1000).map(|_| create(&client, &token, &[]));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(peer.checks(), 1);

    // A failure too is one for all who wait for it, and is then forgotten.
    peer.answers(Answer::Hang);
    peer.take_checks();
    let other = Key::hs(SECRET).token("eve", "0", 3600);
    let calls = (0..1000).map(|_| create(&client, &other, &[]));
    let began = Instant::now();
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|a| outcome(a).0 == Code::Unavailable));
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "nobody waits twice"
    );
    assert_eq!(peer.take_checks(), 1);
    peer.answers(Answer::Yes);
    create(&client, &other, &[]).await.unwrap();
    stop(app).await;
}

#[tokio::test]
async fn p7_refusals_are_remembered_for_a_moment_and_failures_not_at_all() {
    let peer = Peer::start(Answer::No(Code::Unauthenticated, "")).await;
    let app = server(&peer, &["--auth-refusal-ttl", "500ms"]).await;
    let (client, token) = (client(&app), token("bob"));
    for _ in 0..5 {
        assert!(create(&client, &token, &[]).await.is_err());
    }
    assert_eq!(peer.take_checks(), 1);
    peer.answers(Answer::No(Code::Internal, ""));
    tokio::time::sleep(Duration::from_millis(600)).await;
    for _ in 0..3 {
        let failed = create(&client, &token, &[]).await;
        assert_eq!(outcome(&failed).0, Code::Unavailable);
    }
    assert_eq!(peer.take_checks(), 3);
    peer.answers(Answer::Yes);
    create(&client, &token, &[]).await.unwrap();
    stop(app).await;
}

#[tokio::test]
async fn p6_a_peer_that_is_down_is_left_alone_and_found_again() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &["--auth-timeout", "300ms"]).await;
    let client = client(&app);
    create(&client, &token("bob"), &[]).await.unwrap();
    peer.answers(Answer::Hang);
    peer.take_checks();
    let mut quick = 0;
    for n in 0..30 {
        let began = Instant::now();
        let result = create(&client, &token(&format!("u{n}")), &[]).await;
        assert_eq!(outcome(&result).1, "AUTH_UNAVAILABLE");
        quick += usize::from(began.elapsed() < Duration::from_millis(100));
    }
    assert!(quick >= 15, "the breaker answers at once, {quick} of 30");
    assert!(peer.take_checks() <= 15);

    peer.down();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(create(&client, &token("eve"), &[]).await.is_err());
    peer.answers(Answer::Yes);
    peer.up().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    create(&client, &token("eve"), &[]).await.unwrap();
    stop(app).await;
}

#[tokio::test]
async fn an_allowed_token_outlasts_an_outage_if_it_may() {
    for (stale, expected) in [("0s", Code::Unavailable), ("1h", Code::Ok)] {
        let peer = Peer::start(Answer::Yes).await;
        let app = server(&peer, &["--auth-cache-ttl", "200ms", "--auth-stale", stale]).await;
        let client = client(&app);
        let (lasting, short) = (token("bob"), Key::hs(SECRET).token("eve", "0", 3));
        create(&client, &lasting, &[]).await.unwrap();
        create(&client, &short, &[]).await.unwrap();
        peer.down();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let result = create(&client, &lasting, &[]).await;
        assert_eq!(outcome(&result).0, expected, "--auth-stale {stale}");
        let result = create(&client, &token("new"), &[]).await;
        assert_eq!(outcome(&result).0, Code::Unavailable);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let result = create(&client, &short, &[]).await;
        assert_eq!(outcome(&result).1, "TOKEN_EXPIRED");
        stop(app).await;
    }
}

/// How long an open stream outlives an Auth Service that is away: as the README
/// says, and not for ever.
#[tokio::test]
async fn an_open_stream_outlasts_an_outage_for_as_long_as_it_may() {
    const TTL: Duration = Duration::from_secs(1);
    for stale in [Duration::ZERO, Duration::from_secs(3)] {
        let peer = Peer::start(Answer::Yes).await;
        let (ttl, option) = (format!("{TTL:?}"), format!("{stale:?}"));
        let app = server(&peer, &["--auth-cache-ttl", &ttl, "--auth-stale", &option]).await;
        let (client, token) = (client(&app), token("bob"));
        let chat = create(&client, &token, &[]).await.unwrap();
        let mut reading = connect(&client, &token, chat).await.unwrap();
        let posting = connect(&client, &token, chat).await.unwrap();
        peer.down();
        let gone = Instant::now();
        tokio::time::sleep(stale + TTL / 2).await;
        posting.post("still here").await;
        let message = reading.messages.message().await.unwrap().unwrap();
        assert_eq!(message.text, "still here", "--auth-stale {option}");

        let end = reading.end().await;
        let lasted = gone.elapsed();
        assert_eq!(reason(&end), "AUTH_UNAVAILABLE");
        assert!(lasted >= TTL + stale, "--auth-stale {option}: {lasted:?}");
        // A look at the clock every second or so, and the check's own time.
        let most = 2 * (TTL + stale) + Duration::from_secs(4);
        assert!(lasted <= most, "--auth-stale {option}: {lasted:?}");
        stop(app).await;
    }
}

#[tokio::test]
async fn p7_a_revoked_token_ends_its_streams_and_posts_within_the_ttl() {
    let peer = Peer::start(Answer::Yes).await;
    let app = server(&peer, &["--auth-cache-ttl", "1s"]).await;
    let (client, token) = (client(&app), token("bob"));
    let chat = create(&client, &token, &[]).await.unwrap();
    let mut reading = connect(&client, &token, chat).await.unwrap();
    let posting = connect(&client, &token, chat).await.unwrap();
    // Checked again and again, the streams go on.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(peer.checks() >= 3);
    posting.post("still here").await;
    let message = reading.messages.message().await.unwrap().unwrap();
    assert_eq!(message.text, "still here");

    peer.answers(Answer::No(Code::PermissionDenied, ""));
    let began = Instant::now();
    let end = reading.end().await;
    assert!(began.elapsed() < Duration::from_millis(1300));
    assert_eq!(
        (end.code(), reason(&end).as_str()),
        (Code::PermissionDenied, "NOT_ALLOWED")
    );
    // The other stream is not read; its posts come to nothing all the same.
    posting.try_post("too late").await;
    peer.answers(Answer::Yes);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let admin = Key::hs(SECRET).token("root", "1", 60);
    let request = with_token(chat_service::proto::GetRequest { id: chat }, &admin);
    let chat = client.clone().get(request).await.unwrap().into_inner().chat;
    assert_eq!(chat.unwrap().last_seq, 1);
    stop(app).await;
}

#[tokio::test]
async fn streams_outlast_a_short_outage_of_the_peer() {
    let peer = Peer::start(Answer::Yes).await;
    let flags = ["--auth-cache-ttl", "1s", "--auth-timeout", "200ms"];
    let app = server(&peer, &flags).await;
    let (client, token) = (client(&app), token("bob"));
    let chat = create(&client, &token, &[]).await.unwrap();
    let mut stream = connect(&client, &token, chat).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    peer.down();
    tokio::time::sleep(Duration::from_millis(700)).await;
    peer.up().await;
    tokio::time::sleep(Duration::from_millis(2000)).await;
    stream.post("after").await;
    assert_eq!(stream.messages.message().await.unwrap().unwrap().seq, 1);
    // A long one they do not.
    peer.down();
    assert_eq!(reason(&stream.end().await), "AUTH_UNAVAILABLE");
    stop(app).await;
}
