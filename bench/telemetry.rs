//! What counting and not tracing cost, a message: each line is to stay below
//! 50 ns.

use std::{hint::black_box, time::Duration};

use chat_service::telemetry::{Method, Metrics, RequestId, Traces};
use criterion::{Criterion, criterion_group, criterion_main};
use http::HeaderMap;

fn telemetry(c: &mut Criterion) {
    let metrics = Metrics::new(1);
    let took = Duration::from_micros(300);
    c.bench_function("count a call", |b| {
        b.iter(|| metrics.call(black_box(Method::SEND), 0, black_box(took)));
    });
    c.bench_function("count a delivery", |b| {
        b.iter(|| metrics.delivered(black_box(1), black_box(3)));
    });
    let mut headers = HeaderMap::new();
    for name in ["te", "user-agent", "authorization", "content-type"] {
        headers.insert(name, "value".parse().unwrap());
    }
    c.bench_function("name a call", |b| {
        b.iter(|| RequestId::of(black_box(&headers)));
    });
    let off = Traces::default();
    c.bench_function("tracing off", |b| {
        b.iter(|| off.call(black_box("SendMessage"), &headers).is_some());
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let unsampled = runtime
        .block_on(async { Traces::otlp("http://127.0.0.1:1", 0.0, metrics.clone()) })
        .unwrap();
    c.bench_function("not sampled", |b| {
        b.iter(|| unsampled.call(black_box("SendMessage"), &headers).is_some());
    });
}

criterion_group!(benches, telemetry);
criterion_main!(benches);
