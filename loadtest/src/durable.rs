//! Rows into many chats: through the whole server, through a writer lane alone,
//! and by the bare store.

use clap::Args;

use crate::{
    Result,
    ceiling::append::{self, Way},
    options::Common,
    stream::{self, BATCH, Shape},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[arg(long, default_value_t = 10_000)]
    chats: usize,

    #[arg(long, default_value_t = 20)]
    connections: usize,

    /// Posts under way in a chat
    #[arg(long, default_value_t = 4)]
    window: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,

    /// Only what needs no server: the lane and the store
    #[arg(long)]
    no_server: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let shape = Shape {
        streams: options.chats,
        connections: options.connections,
        window: options.window,
        text: options.text,
    };
    options
        .common
        .repeat("durable", shape.describe(), |common, report| {
            let rows = shape.rows(BATCH, 1);
            let bare = append::measure(common, Way::Store, &rows)?;
            if options.no_server {
                report.add("ceiling: rows a second", bare.rate);
                report.add("ceiling: CPU µs a row", bare.cpu_each);
            } else {
                let ours = stream::load_server(common, &shape)?;
                stream::tell(report, &ours);
                stream::tell_beside(report, &ours, &bare);
            }
            let lane = append::measure(common, Way::Lane, &rows)?;
            report.add("lane: rows a second", lane.rate);
            report.add("lane: CPU µs a row", lane.cpu_each);
            report.add("lane: ratio of rows a second", lane.rate / bare.rate);
            Ok(())
        })
}
