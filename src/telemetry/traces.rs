//! Traces: a span a sampled call and one a batch with a sampled send in it, sent
//! to an OpenTelemetry collector over OTLP/gRPC.
//!
//! Spans are made by hand and handed on as values. A subscriber layer would be
//! asked about every event of every library, and would find a span's parent in
//! the thread, where a task that waits does not stay.
//!
//! Whether a call is sampled is decided here, before anything is made: by the
//! caller's `traceparent` if there is one, else by the ratio. What a caller without an
//! accepted token wishes to be traced is not exported: anybody could fill the collector.
//! The SDK's queue is bounded and drops what does not fit; its thread is its own.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span,
        SpanData, SpanProcessor,
    },
};

use super::{
    metrics::Metrics,
    traceparent::{SpanRef, TRACEPARENT, parse},
};

/// The mark of a span that is not to be exported.
const UNPROVEN: &str = "chat.unproven";

/// Spans that wait for the exporter; what comes beyond is dropped (P6).
const QUEUE: usize = 2_048;
const EXPORT_EVERY: Duration = Duration::from_millis(500);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends that a batch's span links to; a span with more is no use to anybody.
pub const MAX_LINKS: usize = 64;

/// Why traces could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("--otlp-endpoint: {0}")]
pub struct TraceError(#[from] ExporterBuildError);

/// Makes spans, or, by default, none. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Exported>>);

struct Exported {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    sample: f64,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.0.is_some()).finish()
    }
}

impl Traces {
    /// Exports to a collector, `http://HOST:PORT`; of the calls without a
    /// `traceparent` the share `sample` (0 to 1). The exporter's connection runs
    /// on the runtime that this is called on.
    ///
    /// # Errors
    /// If the endpoint is not a URL.
    pub fn otlp(endpoint: &str, sample: f64, metrics: Arc<Metrics>) -> Result<Self, TraceError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_scheduled_delay(EXPORT_EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(Counted(exporter, metrics))
            .with_batch_config(config)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Proven(processor))
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(Resource::builder().with_service_name("chatd").build())
            .build();
        Ok(Self(Some(Arc::new(Exported {
            tracer: provider.tracer("chat_service"),
            provider,
            sample,
        }))))
    }

    /// The span of a call, if the call is sampled.
    pub fn call(&self, method: &'static str, headers: &HeaderMap) -> Option<CallSpan> {
        let exported = self.0.as_ref()?;
        let (parent, is_wished) = match headers.get(&TRACEPARENT).and_then(|h| parse(h.as_bytes()))
        {
            Some((parent, true)) => (Some(parent), true),
            Some((_, false)) => return None,
            None if fastrand::f64() < exported.sample => (None, false),
            None => return None,
        };
        let builder = exported
            .tracer
            .span_builder(format!("chat_v1.ChatV1/{method}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.system", "grpc"),
                KeyValue::new("rpc.service", "chat_v1.ChatV1"),
                KeyValue::new("rpc.method", method),
            ]);
        Some(CallSpan {
            span: start(exported, builder, parent),
            is_unproven: is_wished,
        })
    }

    /// The span of a post that another node has passed on, as a child of that node's.
    pub fn passed(&self, parent: SpanRef) -> Option<CallSpan> {
        let exported = self.0.as_ref()?;
        let builder = exported
            .tracer
            .span_builder("post of another node")
            .with_kind(SpanKind::Server);
        Some(CallSpan {
            span: start(exported, builder, Some(parent)),
            is_unproven: false,
        })
    }

    /// The span of a batch that carries sampled sends: a child of the first and
    /// linked to all.
    pub fn batch(&self, sends: &[SpanRef]) -> Option<BatchSpan> {
        let (exported, first) = (self.0.as_ref()?, sends.first()?);
        let links = sends.iter().take(MAX_LINKS);
        let links = links.map(|send| Link::with_context(send.context()));
        let builder = exported
            .tracer
            .span_builder("commit batch")
            .with_kind(SpanKind::Internal)
            .with_links(links.collect());
        Some(BatchSpan(start(exported, builder, Some(*first))))
    }

    /// Sends what is left. Blocks for up to `timeout`.
    pub fn shut_down(&self, timeout: Duration) {
        if let Some(exported) = &self.0
            && let Err(error) = exported.provider.shutdown_with_timeout(timeout)
        {
            tracing::debug!(%error, "last traces not exported");
        }
    }
}

fn start(
    exported: &Exported,
    builder: opentelemetry::trace::SpanBuilder,
    parent: Option<SpanRef>,
) -> Span {
    let root = Context::new();
    let context = match parent {
        Some(parent) => root.with_remote_span_context(parent.context()),
        None => root,
    };
    let builder = builder.with_start_time(SystemTime::now());
    exported.tracer.build_with_context(builder, &context)
}

/// A sampled call; it ends with the value.
#[derive(Debug)]
pub struct CallSpan {
    span: Span,
    /// Its caller wished it, and has shown no accepted token.
    is_unproven: bool,
}

impl CallSpan {
    pub fn reference(&self) -> SpanRef {
        SpanRef::of(self.span.span_context())
    }

    /// Its caller may wish it.
    pub fn is_proven(&mut self) {
        self.is_unproven = false;
    }

    /// The call ended; `code` is gRPC's number.
    pub fn end(mut self, code: i32) {
        let code = i64::from(code);
        self.span
            .set_attribute(KeyValue::new("rpc.grpc.status_code", code));
        if code != 0 {
            self.span.set_status(Status::error(""));
        }
        if self.is_unproven {
            self.span.set_attribute(KeyValue::new(UNPROVEN, true));
        }
        self.span.end();
    }
}

/// A batch on its way; it ends with the value.
#[derive(Debug)]
pub struct BatchSpan(Span);

impl BatchSpan {
    pub fn end(mut self, lane: usize, rows: usize, attempts: u32) {
        self.0.set_attributes([
            KeyValue::new("chat.lane", lane as i64),
            KeyValue::new("chat.batch.rows", rows as i64),
            KeyValue::new("chat.batch.attempts", i64::from(attempts)),
        ]);
        self.0.end();
    }
}

/// Keeps what is unproven out of the exporter's queue.
#[derive(Debug)]
struct Proven(BatchSpanProcessor);

impl SpanProcessor for Proven {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span
            .attributes
            .iter()
            .all(|one| one.key.as_str() != UNPROVEN)
        {
            self.0.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// Counts exports that fail: the SDK itself says nothing.
#[derive(Debug)]
struct Counted(SpanExporter, Arc<Metrics>);

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.0.export(batch).await;
        if exported.is_err() {
            self.1.export_failed();
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents_are_read_as_the_standard_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (span, sampled) = parse(good.as_bytes()).unwrap();
        assert!(sampled);
        assert_eq!(span.traceparent(), good);
        let later = good.replace("00-4", "01-4") + "-more";
        assert!(parse(later.as_bytes()).is_some());
        assert!(!parse(good.replace("-01", "-00").as_bytes()).unwrap().1);
        for bad in [
            "",
            "00",
            &format!("{good}-more"),
            &good.replace("00-4", "ff-4"),
            &good.replace('f', "F"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
