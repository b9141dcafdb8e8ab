//! A span as it is named between processes (W3C Trace Context).

use http::HeaderName;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// W3C Trace Context, 3.2.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A span that others may belong or link to: its trace's id and its own, as they
/// go over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRef {
    trace: [u8; 16],
    span: [u8; 8],
}

impl SpanRef {
    pub(super) fn of(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
        }
    }

    pub(super) fn context(self) -> SpanContext {
        SpanContext::new(
            TraceId::from_bytes(self.trace),
            SpanId::from_bytes(self.span),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        )
    }

    /// A span of a new trace, for who calls and exports nothing.
    pub fn new_trace() -> Self {
        Self {
            trace: fastrand::u128(1..).to_be_bytes(),
            span: fastrand::u64(1..).to_be_bytes(),
        }
    }

    /// Another span of the same trace.
    pub fn sibling(self) -> Self {
        let span = fastrand::u64(1..).to_be_bytes();
        Self { span, ..self }
    }

    /// The trace's id, as tools show it.
    pub fn trace_id(self) -> String {
        TraceId::from_bytes(self.trace).to_string()
    }

    /// The sampled span that such a header names.
    pub fn from_traceparent(header: &str) -> Option<Self> {
        let (span, is_sampled) = parse(header.as_bytes())?;
        is_sampled.then_some(span)
    }

    /// The header that makes a call to another service part of this trace.
    pub fn traceparent(self) -> String {
        let span = SpanId::from_bytes(self.span);
        format!("00-{}-{span}-01", self.trace_id())
    }
}

/// `traceparent` (W3C Trace Context, level 1): the caller's span, and whether it
/// is sampled. What can't be read counts as absent.
pub(super) fn parse(header: &[u8]) -> Option<(SpanRef, bool)> {
    let text = std::str::from_utf8(header).ok()?;
    let mut parts = text.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (span, flags) = (parts.next()?, parts.next()?);
    let hex = |text: &str, len| {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text.len() == len && text.bytes().all(lower)
    };
    let well_formed = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    // Later versions may append parts; this one has none.
    if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok()?;
    let span = u64::from_str_radix(span, 16).ok()?;
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    let reference = SpanRef {
        trace: trace.to_be_bytes(),
        span: span.to_be_bytes(),
    };
    (trace != 0 && span != 0).then_some((reference, sampled))
}
