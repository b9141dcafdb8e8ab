//! How long a message takes to its last reader at half of what saturates the
//! server, beside the commit that it waits for.

use clap::Args;

use crate::{
    Result,
    ceiling::commit,
    fanout::Shape,
    options::Common,
    report::{CEILING, CHATD},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    shape: Shape,
}

/// Messages under way when it is saturated.
const WINDOW: u64 = 64;

pub fn run(options: &Options) -> Result<()> {
    if !options.common.store.starts_with("postgres") {
        return Err("--store: its ceiling is PostgreSQL's COPY, so postgres://…".into());
    }
    let shape = &options.shape;
    let settings = format!("{}, at half of what saturates it", shape.describe());
    options
        .common
        .repeat("latency", settings, |common, report| {
            let saturated = Shape {
                window: Some(WINDOW),
                ..shape.clone()
            };
            let readers = shape.readers as f64 / shape.chats as f64;
            let rate = saturated.load_server(common)?.rate() / readers / 2.0;
            let half = Shape {
                rate,
                window: None,
                ..shape.clone()
            };
            let ours = half.load_server(common)?;
            let bare = commit::measure(common, shape.text, rate)?;
            let p99 = ours.quantile(0.99);
            report.add(CHATD, "messages a second", rate);
            report.add(CHATD, "deliveries a second", ours.rate());
            report.add(CHATD, "p50 µs", ours.quantile(0.5));
            report.add(CHATD, "p99 µs", p99);
            report.add(CHATD, "max µs", ours.quantile(1.0));
            report.add(CEILING, "p50 µs", bare.p50);
            report.add(CEILING, "p99 µs", bare.p99);
            report.add(CEILING, "max µs", bare.max);
            report.add(CEILING, "rows a commit", bare.rows);
            report.add(CEILING, "a row's p99 µs", bare.row_p99);
            report.add(CEILING, "chatd's p99 ÷ p99", p99 / bare.p99);
            report.add(CEILING, "chatd's p99 ÷ a row's", p99 / bare.row_p99);
            Ok(())
        })
}
