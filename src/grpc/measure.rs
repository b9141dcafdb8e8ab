use std::{sync::Arc, time::Instant};

use http::{Request, Response};

use super::{
    body::ResponseBody,
    request::RequestBody,
    service::{CHAT, Shared},
    status::Problem,
};
use crate::{
    domain::{ChatId, UserName},
    runtime::Spawner,
    telemetry::{CallSpan, Method, Metrics, RequestId, SpanRef, log_limited},
};

/// gRPC's number for a call that its caller gave up.
const CANCELLED: i32 = 1;

/// What ties a call's log lines, spans and messages together.
#[derive(Debug, Clone)]
pub struct CallId {
    /// When the call's headers were there: its deadline counts from then.
    pub begun: Instant,
    pub request: RequestId,
    /// The call's span, if it is sampled.
    pub span: Option<SpanRef>,
}

impl CallId {
    pub fn trace_id(&self) -> Option<String> {
        self.span.map(SpanRef::trace_id)
    }
}

/// How a response of a status alone ended the call.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub code: i32,
    pub reason: &'static str,
}

/// A call under way. It is counted once, also when its caller goes away.
pub struct Measured {
    metrics: Arc<Metrics>,
    method: Method,
    begun: Instant,
    id: CallId,
    span: Option<CallSpan>,
    open: bool,
}

impl Measured {
    fn end(&mut self, ended: Option<Ended>) {
        self.open = false;
        let code = ended.map_or(0, |ended| ended.code);
        self.metrics.call(self.method, code, self.begun.elapsed());
        if let Some(span) = self.span.take() {
            span.end(code);
        }
        if let Some(Ended { code, reason }) = ended.filter(|ended| !ended.reason.is_empty()) {
            self.metrics.refused(reason);
            log_limited!(DEBUG, method = self.method.name(), code, reason,
                request_id = %self.id.request, trace_id = self.id.trace_id(), "call refused");
        }
    }

    /// A post on the stream was refused.
    pub fn post_refused(&self, reason: &str) {
        self.metrics.refused(reason);
    }

    pub fn stream_opened(&self, chat: ChatId, user: &UserName, after_seq: Option<i64>) {
        if after_seq > Some(0) {
            self.metrics.stream_resumed();
        }
        tracing::debug!(%chat, %user, after_seq, request_id = %self.id.request,
            trace_id = self.id.trace_id(), "stream opened");
    }

    /// The stream of a member ended; without a problem, because its client left.
    pub fn stream_closed(
        &mut self,
        joined: Option<(ChatId, &UserName, u64)>,
        problem: Option<&Problem>,
    ) {
        let cancelled = Ended {
            code: CANCELLED,
            reason: "",
        };
        if let Some((chat, user, delivered)) = joined {
            let reason = problem.map_or("CLIENT_LEFT", |problem| problem.ended().reason);
            tracing::debug!(%chat, %user, delivered, reason,
                open_ms = self.begun.elapsed().as_millis() as u64,
                request_id = %self.id.request, trace_id = self.id.trace_id(), "stream closed");
        }
        self.end(Some(problem.map_or(cancelled, Problem::ended)));
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if self.open {
            self.end(Some(Ended {
                code: CANCELLED,
                reason: "",
            }));
        }
    }
}

impl Shared {
    /// Answers a call of the chat service, and counts, times and traces it.
    pub async fn measured(
        &self,
        request: Request<RequestBody>,
        core: usize,
        spawner: Spawner,
    ) -> Response<ResponseBody> {
        let method = Method::of(&request.uri().path()[CHAT.len()..]);
        let traces = &self.telemetry.traces;
        let span = traces.call(method.name(), request.headers());
        let begun = self.calls.now();
        let id = CallId {
            begun,
            request: RequestId::of(request.headers()),
            span: span.as_ref().map(CallSpan::reference),
        };
        let mut measured = Measured {
            metrics: self.telemetry.metrics.clone(),
            method,
            begun,
            id: id.clone(),
            span,
            open: true,
        };
        let mut response = self.chat_call(request, core, spawner, id.clone()).await;
        let ended = response.extensions().get().copied();
        let quiet = ended.is_none() && method == Method::SEND;
        if !quiet {
            id.request.add_to(response.headers_mut());
        }
        match response.body_mut() {
            ResponseBody::Chat(stream) => stream.measure(measured),
            _ => measured.end(ended),
        }
        response
    }
}
