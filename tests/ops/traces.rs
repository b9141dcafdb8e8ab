use std::sync::{Arc, Mutex};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Response, Status};

use super::*;
use crate::cluster::nodes::Nodes;
use crate::guarded::{
    keys::Key,
    peer::{Answer, Peer},
    secrets,
};

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn start(collector: Collector) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let service = TraceServiceServer::new(collector.clone());
            connections.spawn(async move {
                let service = TowerToHyperService::new(service);
                _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    (address, tasks)
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn one_trace_goes_from_the_callers_traceparent_to_the_commit() {
    let collector = Collector::default();
    let (address, _tasks) = start(collector.clone()).await;
    let endpoint = format!("http://{address}");
    let app = server(&["--otlp-endpoint", &endpoint, "--trace-sample", "0"]).await;
    let mut client = client(&app).await;
    let chat = create(&mut client).await;
    for flags in ["00", "01"] {
        let mut send = by("alice", text(chat, flags));
        let parent = format!("00-{TRACE}-{CALLER}-{flags}");
        let metadata = send.metadata_mut();
        metadata.insert("traceparent", parent.parse().unwrap());
        client.send_message(send).await.unwrap();
    }
    // Whoever has no token has no say in what is traced.
    for _ in 0..20 {
        let mut send = Request::new(text(chat, "no token"));
        let parent = format!("00-{TRACE}-{CALLER}-01");
        send.metadata_mut()
            .insert("traceparent", parent.parse().unwrap());
        client.send_message(send).await.unwrap_err();
    }
    // The terminal client has a trace of its own for each command.
    let (at, id) = (app.address().to_string(), chat.to_string());
    let args = ["send", &id, "typed", "--as", "alice", "--addr", &at];
    let typed = tokio::process::Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(args)
        .args(["--config-path", ""])
        .env_clear()
        .output()
        .await;
    assert!(typed.unwrap().status.success());
    drop(client);
    // The drain sends the last spans, too.
    app.drain(PATIENCE).await;

    let (spans, typed): (Vec<Span>, Vec<Span>) = collector
        .0
        .lock()
        .unwrap()
        .iter()
        .cloned()
        .partition(|span| hex(&span.trace_id) == TRACE);
    assert_eq!(typed.len(), 2, "{typed:?}");
    assert_eq!(typed[0].trace_id, typed[1].trace_id);
    assert!(typed.iter().all(|span| !span.parent_span_id.is_empty()));
    let mut names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["chat_v1.ChatV1/SendMessage", "commit batch"]);
    let call = spans
        .iter()
        .find(|span| span.name != "commit batch")
        .unwrap();
    let batch = spans
        .iter()
        .find(|span| span.name == "commit batch")
        .unwrap();
    assert_eq!(hex(&call.parent_span_id), CALLER);
    assert_eq!(batch.parent_span_id, call.span_id);
    assert_eq!(batch.links.len(), 1);
    assert_eq!(batch.links[0].span_id, call.span_id);
    assert!(batch.start_time_unix_nano >= call.start_time_unix_nano);
    assert!(batch.end_time_unix_nano <= call.end_time_unix_nano + 50_000_000);
}

/// Every post of one user through one node; some chats live on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_through_both_nodes_to_the_commit() {
    let collector = Collector::default();
    let (address, _tasks) = start(collector.clone()).await;
    let endpoint = format!("http://{address}");
    let options = ["--otlp-endpoint", &endpoint, "--trace-sample", "0"];
    let nodes = Nodes::start_with(2, &options).await;
    let address = format!("http://{}", nodes.all[0].address());
    let mut client = ChatV1Client::connect(address).await.unwrap();
    for _ in 0..16 {
        let chat = create(&mut client).await;
        let mut send = by("alice", text(chat, "hello"));
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let metadata = send.metadata_mut();
        metadata.insert("traceparent", parent.parse().unwrap());
        client.send_message(send).await.unwrap();
    }
    let start = Instant::now();
    loop {
        let spans = collector.0.lock().unwrap().clone();
        let named = |name| spans.iter().filter(move |span: &&Span| span.name == name);
        let passed: Vec<&Span> = named("post of another node").collect();
        let is_whole = |passed: &&Span| {
            let mut calls = named("chat_v1.ChatV1/SendMessage");
            let mut batches = named("commit batch");
            calls.any(|call| call.span_id == passed.parent_span_id)
                && batches.any(|batch| batch.parent_span_id == passed.span_id)
        };
        if !passed.is_empty() && passed.iter().all(is_whole) {
            assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{spans:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// While one commit is under way the next batch grows, and its span names every
/// send in it.
#[tokio::test]
async fn a_batchs_span_links_to_the_sends_it_carried() {
    const SENDS: usize = 40;
    let collector = Collector::default();
    let (address, _tasks) = start(collector.clone()).await;
    let endpoint = format!("http://{address}");
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("chat.db").display());
    let flags = [
        "--grpc-port",
        "0",
        "--otlp-endpoint",
        &endpoint,
        "--trace-sample",
        "1",
    ];
    let config = serve_from(&[&flags[..], &["--store", &store]].concat());
    let app = App::start(config.unwrap()).await.unwrap();
    let mut client = client(&app).await;
    let chat = create(&mut client).await;
    let mut sends = JoinSet::new();
    for n in 0..SENDS {
        let mut client = client.clone();
        sends.spawn(async move {
            client
                .send_message(by("alice", text(chat, &n.to_string())))
                .await
        });
    }
    for sent in sends.join_all().await {
        sent.unwrap();
    }
    drop(client);
    app.drain(PATIENCE).await;

    let spans = collector.0.lock().unwrap().clone();
    let (batches, calls): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| span.name == "commit batch");
    let mut linked: Vec<&[u8]> = Vec::new();
    for batch in &batches {
        linked.extend(batch.links.iter().map(|link| &*link.span_id));
        let parent = calls
            .iter()
            .find(|call| call.span_id == batch.parent_span_id);
        assert_eq!(parent.unwrap().name, "chat_v1.ChatV1/SendMessage");
    }
    let sends = calls
        .iter()
        .filter(|call| call.name == "chat_v1.ChatV1/SendMessage");
    let mut sent: Vec<&[u8]> = sends.map(|call| &*call.span_id).collect();
    linked.sort_unstable();
    sent.sort_unstable();
    assert_eq!(sent.len(), SENDS);
    assert_eq!(linked, sent);
    assert!(batches.len() < SENDS, "no batch carried two");
}

/// The Auth Service is part of the trace: its caller is the call's span.
#[tokio::test]
async fn the_auth_service_is_asked_by_the_calls_span() {
    secrets::capture_logs();
    let collector = Collector::default();
    let (address, _tasks) = start(collector.clone()).await;
    let endpoint = format!("http://{address}");
    let auth = Peer::start(Answer::Yes).await;
    let flags = auth.flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--otlp-endpoint", &endpoint, "--trace-sample", "1"]);
    let app = server(&flags).await;
    let token = Key::hs("any secret: the Auth Service says yes").token("alice", "0", 600);
    let mut client = client(&app).await;
    let created = client.create(by(&token, CreateRequest::default())).await;
    created.unwrap();
    drop(client);
    app.drain(PATIENCE).await;
    let spans = collector.0.lock().unwrap().clone();
    assert_eq!(spans.len(), 1);
    secrets::produced(&spans);
    secrets::assert_none_shows();
    let (trace, span) = (hex(&spans[0].trace_id), hex(&spans[0].span_id));
    assert_eq!(auth.last()[2], format!("00-{trace}-{span}-01"));
}

/// Nobody listens: sends are answered as ever, and what failed is counted.
#[tokio::test]
async fn a_collector_that_is_away_is_not_felt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let app = server(&["--otlp-endpoint", &endpoint, "--trace-sample", "1"]).await;
    let http = app.http_address().unwrap();
    let mut client = client(&app).await;
    let chat = create(&mut client).await;
    // More than the queue of spans holds.
    for n in 0..3_000 {
        let send = by("alice", text(chat, &n.to_string()));
        client.send_message(send).await.unwrap();
    }
    until("the failed export is counted", async || {
        let (_, metrics) = get(http, "/metrics").await;
        value(&metrics, "chat_traces_failed_exports_total") > 0.0
    })
    .await;
    drop(client);
    app.drain(PATIENCE).await;
}
