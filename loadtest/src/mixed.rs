//! Many chats of which few are popular: fan-out by Zipf's law.

use clap::Args;

use crate::{
    Result,
    baseline::Against,
    fanout::{self, Shape},
    options::Common,
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    against: Against,

    #[arg(long, default_value_t = 10_000)]
    chats: usize,

    #[arg(long, default_value_t = 2_000)]
    readers: usize,

    #[arg(long, default_value_t = 20)]
    connections: usize,

    /// Messages a second, in all chats together
    #[arg(long, default_value_t = 2_000.0)]
    rate: f64,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,

    /// Of Zipf's law: the greater, the fewer chats have most readers and messages
    #[arg(long, default_value_t = 1.0)]
    exponent: f64,
}

pub fn run(options: &Options) -> Result<()> {
    let baselines = options.against.build(&options.common)?;
    let shape = Shape {
        readers: options.readers,
        connections: options.connections,
        chats: options.chats,
        text: options.text,
        rate: options.rate,
        window: None,
        zipf: Some(options.exponent),
    };
    options
        .common
        .repeat("mixed", shape.describe(), |common, report| {
            fanout::measure(common, &shape, &baselines, report)
        })
}
