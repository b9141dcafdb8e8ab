//! The host that a request names (RFC 9112, 3.2; RFC 9113, 8.3.1).

use h2::Reason;
use http::{HeaderMap, Request, StatusCode};
use tokio::{net::TcpStream, task::JoinSet};

use super::raw::Http1;
use crate::server::{Server, soon};

#[tokio::test]
async fn p10_http1_without_a_host_or_with_two_is_a_bad_request() {
    let server = Server::start(&[]).await;
    let call = |hosts: &str| {
        format!(
            "POST /chat_v1.ChatV1/Get HTTP/1.1\r\n{hosts}content-type: application/grpc-web\r\n\
             authorization: Bearer eve\r\ncontent-length: 0\r\n\r\n"
        )
    };
    for bad in [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a b\r\n",
    ] {
        let mut http = Http1::connect(server.address(), "eve").await;
        // What comes behind it is not answered.
        let both = [call(bad), call("host: chat\r\n")].concat();
        http.write(both.as_bytes()).await;
        let head = http.head().await;
        assert_eq!(
            (head.status, head.header("connection")),
            (400, Some("close")),
            "{bad}"
        );
        while http.more().await {}
        assert!(http.rest().is_empty(), "{bad}: {:?}", http.rest());
    }
    for good in ["host: chat\r\n", "host: [::1]:8092\r\n", "host:\r\n"] {
        let mut http = Http1::connect(server.address(), "eve").await;
        for _ in 0..2 {
            http.write(call(good).as_bytes()).await;
            // The request message is missing.
            assert_eq!(http.head().await.header("grpc-status"), Some("3"), "{good}");
        }
    }
}

/// What a request with these hosts beside its authority gets.
async fn http2(server: &Server, uri: &str, hosts: &[&str]) -> Result<StatusCode, Option<Reason>> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut h2, connection) = h2::client::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/grpc".parse().unwrap());
    for host in hosts {
        headers.append("host", host.parse().unwrap());
    }
    let mut request = Request::post(uri).body(()).unwrap();
    *request.headers_mut() = headers;
    let (answer, _) = h2.send_request(request, true).unwrap();
    let answer = soon("an answer", answer).await;
    // The connection goes on.
    assert!(h2.clone().ready().await.is_ok());
    answer
        .map(|answer| answer.status())
        .map_err(|error| error.reason())
}

#[tokio::test]
async fn p10_http2_whose_host_is_not_its_authority_is_malformed() {
    let server = Server::start(&[]).await;
    let uri = "http://chat/chat_v1.ChatV1/Get";
    for same in [&[][..], &["chat"], &["CHAT:80"]] {
        assert_eq!(
            http2(&server, uri, same).await,
            Ok(StatusCode::OK),
            "{same:?}"
        );
    }
    let malformed = Err(Some(Reason::PROTOCOL_ERROR));
    for other in [&["eve"][..], &["chat:8092"], &["chat", "chat"], &[""]] {
        assert_eq!(http2(&server, uri, other).await, malformed, "{other:?}");
    }
}
