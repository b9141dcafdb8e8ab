//! Which pages may call.

use chat_service::proto::{CreateRequest, CreateResponse};

use super::raw::Http1;
use crate::server::Server;

const SHOP: &str = "https://shop.example";

async fn create_from(server: &Server, origin: &str) -> (Result<CreateResponse, i32>, String) {
    let mut http = Http1::connect(server.address(), "alice").await;
    http.headers = format!("origin: {origin}\r\n");
    let head = http.ask("Create", &CreateRequest::default()).await;
    if let Some(status) = head.header("grpc-status") {
        return (Err(status.parse().unwrap()), head.text);
    }
    (Ok(CreateResponse::default()), head.text)
}

async fn preflight(server: &Server, origin: &str) -> (u16, Option<String>) {
    let mut http = Http1::connect(server.address(), "alice").await;
    let request = format!(
        "OPTIONS /chat_v1.ChatV1/Create HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n\
         access-control-request-method: POST\r\n\
         access-control-request-headers: authorization,content-type,x-grpc-web,baggage,sentry-trace,x-shop\r\n\r\n"
    );
    http.write(request.as_bytes()).await;
    let head = http.head().await;
    let allowed = head
        .header("access-control-allow-headers")
        .map(str::to_owned);
    assert_eq!(
        head.header("access-control-allow-origin").is_some(),
        head.status == 204
    );
    (head.status, allowed)
}

#[tokio::test]
async fn p7_only_pages_of_listed_origins_may_call() {
    let server = Server::start(&["--cors-origins", SHOP, "--http-port", "0"]).await;
    let port = server.http_address().port();
    let own = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
    ];
    for origin in own.iter().map(String::as_str).chain([SHOP]) {
        let (status, headers) = preflight(&server, origin).await;
        assert_eq!(status, 204, "{origin}");
        for header in [
            "authorization",
            "content-type",
            "x-grpc-web",
            "grpc-timeout",
            // Of the page's own, which the server does not know.
            "baggage",
            "sentry-trace",
            "x-shop",
        ] {
            assert!(headers.as_ref().unwrap().contains(header), "{header}");
        }
        let (created, head) = create_from(&server, origin).await;
        created.unwrap();
        let leave = format!("access-control-allow-origin: {origin}\r\n");
        assert!(head.contains(&leave), "{head}");
        assert!(head.contains("vary: origin\r\n"), "{head}");
        assert!(head.contains("grpc-status-details-bin"), "{head}");
    }

    // The name of another page, also if it means this server, gets nothing done.
    let rebound = format!("http://evil.example:{}", server.address().port());
    let other = format!("http://127.0.0.1:{}", server.address().port());
    for origin in [
        rebound.as_str(),
        &other,
        "null",
        "https://shop.example.evil.example",
    ] {
        assert_eq!(preflight(&server, origin).await, (403, None));
        let (created, head) = create_from(&server, origin).await;
        assert_eq!(created, Err(7), "{origin}");
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
    let alice = server.client("alice").await;
    assert_eq!(alice.chats(100, "").await.unwrap().chats.len(), 3);
}

#[tokio::test]
async fn p7_without_an_option_no_page_may_call() {
    let server = Server::start(&["--http-port", "off"]).await;
    for origin in ["http://localhost:8093", "http://127.0.0.1:8093", SHOP] {
        assert_eq!(preflight(&server, origin).await.0, 403);
        assert_eq!(create_from(&server, origin).await.0, Err(7));
    }
}

/// A browser may be made to send the content type of gRPC as well.
#[tokio::test]
async fn p7_pages_of_elsewhere_may_not_call_over_grpc_either() {
    let server = Server::start(&["--cors-origins", SHOP]).await;
    for (origin, allowed) in [
        (None, true),
        (Some(SHOP), true),
        (Some("https://evil.example"), false),
        (Some("null"), false),
    ] {
        let mut request = tonic::Request::new(CreateRequest::default());
        if let Some(origin) = origin {
            let origin = origin.parse().unwrap();
            request.metadata_mut().insert("origin", origin);
        }
        let created = server.client("alice").await.grpc.create(request).await;
        match created {
            Ok(_) => assert!(allowed, "{origin:?}"),
            Err(status) => {
                assert!(!allowed, "{origin:?}: {status}");
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                let details = tonic_types::StatusExt::get_error_details(&status);
                assert_eq!(details.error_info().unwrap().reason, "ORIGIN_NOT_ALLOWED");
            }
        }
    }
}
