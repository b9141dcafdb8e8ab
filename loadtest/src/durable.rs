//! Rows into many chats: through the whole server, through a writer lane alone,
//! and by the bare store.

use clap::Args;

use crate::{
    Result,
    ceiling::append::{self, Way},
    options::Common,
    report::CEILING,
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

/// A writer lane without the server before it.
const LANE: &str = "lane";

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
            let lane = append::measure(common, Way::Lane, &rows)?;
            if options.no_server {
                stream::tell_bare(report, CEILING, &bare);
            } else {
                let ours = stream::load_server(common, &shape)?;
                stream::tell(report, &ours);
                stream::tell_bare(report, CEILING, &bare);
                stream::tell_beside(report, &ours, &bare);
            }
            stream::tell_bare(report, LANE, &lane);
            let ratio = lane.rate / bare.rate;
            report.add(LANE, "its rows a second ÷ the ceiling's", ratio);
            Ok(())
        })
}
