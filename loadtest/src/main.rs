//! Puts the chat service under load, and beside it, in the same run and on the
//! same core, the barest thing that does the same work: the ceiling. What counts
//! is the ratio of the two, which holds on any machine.
//!
//! The server under test and the ceilings are children of this process, pinned
//! to one core; the load comes from another.

mod baseline;
mod calls;
mod ceiling;
mod check;
mod child;
mod cluster;
mod durable;
mod fanout;
mod history;
mod idle;
mod latency;
mod mixed;
mod options;
mod pace;
mod posts;
mod report;
mod resume;
mod simulate;
mod stream;
mod unary;
mod wire;

use clap::{Parser, Subcommand};

// The server's allocator: a ceiling with another one would measure that.
#[global_allocator]
static GLOBAL: chat_service::runtime::Heap = chat_service::runtime::Heap;

/// What can go wrong ends the run, so one line for a person is enough.
type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Load generator of the chat service.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// SendMessage with many calls in flight, beside a no-op unary call
    Unary(unary::Options),
    /// Messages to many readers, beside a bare fan-out of shared frames
    Fanout(fanout::Options),
    /// The same in many chats of which few are popular
    Mixed(mixed::Options),
    /// Time to the last reader at half of saturation, beside COPY and COMMIT
    Latency(latency::Options),
    /// Posts on streams, acknowledged durable, beside the bare store
    Stream(stream::Options),
    /// Rows through the writer lanes into many chats, beside the bare store
    Durable(durable::Options),
    /// Memory of idle readers
    Idle(idle::Options),
    /// Pages anywhere in long chats, beside the bare store
    History(history::Options),
    /// Posts and deliveries by way of another node, beside the same on the owner
    Cluster(cluster::Options),
    /// All readers lose their connections, and come back at once
    Resume(resume::Options),
    /// Tries to break the promises, by faults under load
    Check(check::Options),
    /// Shards, lanes and cursors on one thread with seeded faults
    Simulate(simulate::Options),
    /// Draws results as SVG
    Plot(report::PlotOptions),
    /// Writes the compiled contract to a file, as ghz and grpcurl read it
    Protoset { file: std::path::PathBuf },
    /// Serves no-op unary calls
    #[command(hide = true)]
    CeilingUnary,
    /// Serves a bare fan-out
    #[command(hide = true)]
    CeilingFanout,
    /// Writes bytes to connections
    #[command(hide = true)]
    CeilingWrite(ceiling::write::Options),
    /// Reads pages of a store without anything before it
    #[command(hide = true)]
    CeilingPage(ceiling::page::Options),
    /// Writes rows to a store without anything before it
    #[command(hide = true)]
    CeilingAppend(ceiling::append::Options),
    /// Commits rows at a rate
    #[command(hide = true)]
    CeilingCommit(ceiling::commit::Options),
}

fn main() -> Result<()> {
    match Cli::parse().scenario {
        Scenario::Unary(options) => unary::run(&options),
        Scenario::Fanout(options) => fanout::run(&options),
        Scenario::Mixed(options) => mixed::run(&options),
        Scenario::Latency(options) => latency::run(&options),
        Scenario::Stream(options) => stream::run(&options),
        Scenario::Durable(options) => durable::run(&options),
        Scenario::Idle(options) => idle::run(&options),
        Scenario::History(options) => history::run(&options),
        Scenario::Cluster(options) => cluster::run(&options),
        Scenario::Resume(options) => resume::run(&options),
        Scenario::Check(options) => check::run(&options),
        Scenario::Simulate(options) => simulate::run(&options),
        Scenario::Plot(options) => report::plot(&options),
        Scenario::Protoset { file } => Ok(std::fs::write(file, chat_service::proto::DESCRIPTORS)?),
        Scenario::CeilingUnary => ceiling::unary::run(),
        Scenario::CeilingFanout => ceiling::fanout::run(),
        Scenario::CeilingWrite(options) => ceiling::write::run(&options),
        Scenario::CeilingPage(options) => ceiling::page::run(&options),
        Scenario::CeilingAppend(options) => ceiling::append::run(&options),
        Scenario::CeilingCommit(options) => ceiling::commit::run(&options),
    }
}
