use std::{sync::Arc, time::Instant};

use http::{Response, request::Parts};

use super::{
    body::ResponseBody,
    service::{CHAT, Shared},
    status::Problem,
};
use crate::{
    domain::{ChatId, UserName},
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
    id: CallId,
    /// Boxed: few calls are sampled.
    span: Option<Box<CallSpan>>,
    open: bool,
}

impl Measured {
    pub fn method(&self) -> Method {
        self.method
    }

    pub fn id(&self) -> &CallId {
        &self.id
    }

    /// Its caller has shown a token that was accepted.
    pub fn is_proven(&mut self) {
        if let Some(span) = &mut self.span {
            span.is_proven();
        }
    }

    /// The call has its answer; what is a stream goes on with it.
    pub fn ended(mut self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let ended = response.extensions().get().copied();
        let quiet = ended.is_none() && self.method == Method::SEND;
        if !quiet {
            self.id.request.add_to(response.headers_mut());
        }
        match response.body_mut() {
            ResponseBody::Chat(stream) => stream.measure(self),
            _ => self.end(ended),
        }
        response
    }

    fn end(&mut self, ended: Option<Ended>) {
        self.open = false;
        let code = ended.map_or(0, |ended| ended.code);
        self.metrics
            .call(self.method, code, self.id.begun.elapsed());
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
                open_ms = self.id.begun.elapsed().as_millis() as u64,
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
    /// Counts, times and traces a call from now on.
    pub fn measure(&self, head: &Parts) -> Measured {
        let method = Method::of(&head.uri.path()[CHAT.len()..]);
        let span = self.telemetry.traces.call(method.name(), &head.headers);
        let id = CallId {
            begun: self.calls.now(),
            request: RequestId::of(&head.headers),
            span: span.as_ref().map(CallSpan::reference),
        };
        Measured {
            metrics: self.telemetry.metrics.clone(),
            method,
            id,
            span: span.map(Box::new),
            open: true,
        }
    }
}
