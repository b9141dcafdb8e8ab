//! gRPC-Web: what browsers speak, over HTTP/1.1 and HTTP/2. The messages are
//! framed as in gRPC; the trailers come as a last frame of the body, and in the
//! text form all is base64.
//!
//! A browser tells from where the page is that calls (`Origin`). Pages of
//! nowhere that is listed are refused, not only left without leave to read the
//! answer: else a page whose host name is made to mean this server would be let
//! in as coming from the server itself.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, ORIGIN, VARY,
    },
};
use http_body::{Body as _, Frame};

use super::{
    body::{BodyError, ResponseBody},
    status::Problem,
};
use crate::domain::PREFIX_LEN;

/// The flag of the frame that holds the trailers.
const TRAILERS: u8 = 0x80;

const KNOWN: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, grpc-timeout, traceparent, x-grpc-web, x-request-id, x-user-agent",
);
const SHOWN: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, x-request-id");
/// Browsers ask again after two hours, the longest that they all keep to.
const LEAVE: HeaderValue = HeaderValue::from_static("7200");

/// The two forms of gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Binary,
    Text,
}

impl Form {
    /// The form that a content type names, if it is gRPC-Web of protobuf.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let rest = content_type.strip_prefix(b"application/grpc-web")?;
        let (form, rest) = match rest.strip_prefix(b"-text") {
            Some(rest) => (Self::Text, rest),
            None => (Self::Binary, rest),
        };
        let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
        matches!(rest, [] | [b';' | b' ', ..]).then_some(form)
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Binary => "application/grpc-web+proto",
            Self::Text => "application/grpc-web-text+proto",
        })
    }
}

/// Where the pages come from that may call. Without `Origin` it is no page that
/// calls, and anybody may.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// `origins` as browsers write them: `https://chat.example.org`. Others are
    /// left out.
    pub fn new(origins: impl IntoIterator<Item = String>) -> Self {
        let values = origins.into_iter().map(HeaderValue::try_from);
        Self(values.filter_map(Result::ok).collect())
    }

    /// The page's origin, if it is a page that calls.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(None),
            // No browser sends two.
            (Some(origin), None) if self.0.contains(origin) => Ok(Some(origin.clone())),
            (Some(_), _) => Err(Problem::foreign_page()),
        }
    }
}

/// A browser asks whether a page may call.
pub fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight. The browser makes a refusal of what is missing.
///
/// Pages of an origin that is listed may send any headers: apps and their tracing
/// add their own (`baggage`, `sentry-trace`), and what the server does not know it
/// passes over.
pub fn preflight(origins: &Origins, headers: &HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    let may_send = with_known(headers.get(ACCESS_CONTROL_REQUEST_HEADERS));
    match origins.check(headers) {
        Ok(origin) => {
            *response.status_mut() = StatusCode::NO_CONTENT;
            let headers = response.headers_mut();
            let post = HeaderValue::from_static("POST");
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, post);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, may_send);
            headers.insert(ACCESS_CONTROL_MAX_AGE, LEAVE);
            give_leave(headers, origin);
            headers.append(
                VARY,
                HeaderValue::from_static("access-control-request-headers"),
            );
        }
        Err(_) => *response.status_mut() = StatusCode::FORBIDDEN,
    }
    response
}

/// The headers that a page asks to send, and those that the server knows.
fn with_known(asked: Option<&HeaderValue>) -> HeaderValue {
    let Some(asked) = asked else {
        return KNOWN;
    };
    let all = [KNOWN.as_bytes(), b", ", asked.as_bytes()].concat();
    HeaderValue::from_bytes(&all).unwrap_or(KNOWN)
}

/// Makes an answer to gRPC-Web of one to gRPC.
pub fn respond(
    response: Response<ResponseBody>,
    form: Form,
    origin: Option<HeaderValue>,
) -> Response<ResponseBody> {
    let mut response = response.map(|inner| match inner {
        // The status is in the headers, which gRPC-Web allows as well.
        ResponseBody::Empty => ResponseBody::Empty,
        inner => ResponseBody::Web(Box::new(WebBody {
            inner,
            form,
            rest: Bytes::new(),
        })),
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, form.content_type());
    if origin.is_some() {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN);
        give_leave(headers, origin);
    }
    response
}

fn give_leave(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
}

/// A body whose trailers come as its last frame.
pub struct WebBody {
    inner: ResponseBody,
    form: Form,
    /// Of the last frame, what has not been given.
    rest: Bytes,
}

/// Given at a time, so that what a connection of HTTP/1.1 copies is little: a multiple
/// of three, as base64 needs it.
const PIECE: usize = 48 * 1024;

impl WebBody {
    pub fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)) else {
                return Poll::Ready(None);
            };
            self.rest = match frame?.into_data() {
                Ok(data) => data,
                Err(frame) => frame
                    .into_trailers()
                    .map_or_else(|_| Bytes::new(), in_frame),
            };
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(match self.form {
            Form::Binary => piece,
            Form::Text => STANDARD.encode(&piece).into(),
        }))))
    }

    pub fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }
}

/// Trailers as an HTTP/1.1 header block in a frame.
fn in_frame(trailers: HeaderMap) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_bytes(0, PREFIX_LEN);
    for (name, value) in &trailers {
        out.put_slice(name.as_str().as_bytes());
        out.put_u8(b':');
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    let length = (out.len() - PREFIX_LEN) as u32;
    out[0] = TRAILERS;
    out[1..PREFIX_LEN].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_name_a_form_or_none() {
        for (kind, form) in [
            ("application/grpc-web", Some(Form::Binary)),
            ("application/grpc-web+proto", Some(Form::Binary)),
            ("application/grpc-web-text", Some(Form::Text)),
            (
                "application/grpc-web-text+proto;charset=utf-8",
                Some(Form::Text),
            ),
            ("application/grpc-web+json", None),
            ("application/grpc-webs", None),
            ("application/grpc", None),
        ] {
            assert_eq!(Form::of(kind.as_bytes()), form, "{kind}");
        }
    }

    #[test]
    fn p7_a_page_of_elsewhere_may_not_call() {
        let origins = Origins::new(["https://chat.example.org".to_owned()]);
        let check = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            origins.check(&headers)
        };
        assert_eq!(origins.check(&HeaderMap::new()), Ok(None));
        assert!(check("https://chat.example.org").unwrap().is_some());
        for bad in [
            "https://chat.example.org.evil.example",
            "http://chat.example.org",
            "https://chat.example.org:8443",
            "null",
            "",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
