//! Whether the server could be a node of its cluster.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{Report, Verdict};
use crate::{
    app::node,
    cluster::{Bus, BusError, Table},
    config::{ClusterConfig, ServeConfig, StoreChoice},
    domain::Attached,
    runtime::Cores,
    store::postgres,
    telemetry::chain,
};

/// How long NATS may take to let a node in.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of a batch that are not the text of its one message, at most.
const BESIDES: usize = 4 * 1024;

pub fn cluster(config: &ServeConfig, report: &mut Report) {
    let (Some(cluster), StoreChoice::Postgres(dsn)) = (&config.cluster, &config.store) else {
        return;
    };
    let cores = match Cores::start(1) {
        Ok(cores) => cores,
        Err(error) => return report.line(Verdict::Fail, "cluster", chain(&error)),
    };
    let main = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let main = match main {
        Ok(main) => main,
        Err(error) => return report.line(Verdict::Fail, "cluster", chain(&error)),
    };
    // A character takes four bytes at most.
    let attached = Attached::max_bytes(config.max_data, config.max_mentions);
    let needed = 4 * config.max_text + attached + BESIDES;
    bus(main.block_on(most_bytes(cluster)), needed, report);
    let settings = postgres::Settings::new(dsn.expose(), Arc::new(cores.spawner_here()));
    match main.block_on(postgres::table_of_nodes(&settings)) {
        Ok(table) => nodes(&table, report),
        Err(error) => {
            let mend = "chatd migrate, or a start of the server, makes it";
            let text = format!("the table of nodes can't be read: {error}: {mend}");
            report.line(Verdict::Warn, "nodes", text);
        }
    }
}

/// The longest message that NATS takes, if it lets this server in.
async fn most_bytes(cluster: &ClusterConfig) -> Result<Option<usize>, BusError> {
    let (bus, _sending) = Bus::open(node::bus(cluster)).await?;
    let connected = async {
        while !bus.is_up() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let is_up = tokio::time::timeout(PATIENCE, connected).await.is_ok();
    Ok(is_up.then(|| bus.most_bytes()).flatten())
}

/// Whether NATS lets this server in, and its longest message through.
fn bus(most: Result<Option<usize>, BusError>, needed: usize, report: &mut Report) {
    match most {
        Err(error) => report.line(Verdict::Fail, "nats", chain(&error)),
        Ok(None) => {
            let text = "no server of --cluster lets this one in: check the address, \
                        --cluster-credentials, --cluster-ca, and that NATS runs; until then the \
                        node serves its own chats only";
            report.line(Verdict::Warn, "nats", text);
        }
        Ok(Some(most)) if most < needed => {
            let text = format!(
                "it takes messages of {most} bytes, and one of --max-text may have {needed}: \
                 raise max_payload, or long messages will not reach other nodes"
            );
            report.line(Verdict::Fail, "nats", text);
        }
        Ok(Some(most)) => {
            let text = format!("connected; it takes messages of {most} bytes");
            report.line(Verdict::Ok, "nats", text);
        }
    }
}

/// What other nodes run.
fn nodes(table: &Table, report: &mut Report) {
    let living = table.nodes.iter().zip(&table.labels);
    let living: Vec<_> = living.filter(|(row, _)| row.state.is_alive()).collect();
    let versions: BTreeSet<&str> = living.iter().map(|(_, one)| &*one.version).collect();
    let count = living.len();
    let own = env!("CARGO_PKG_VERSION");
    let others: Vec<&str> = versions.into_iter().filter(|one| *one != own).collect();
    match others.is_empty() {
        true => report.line(Verdict::Ok, "nodes", format!("{count} run")),
        false => {
            let text = format!(
                "{count} run, some of them {}, and this is {own}: a release works with the one \
                 before it and the one after",
                others.join(", ")
            );
            report.line(Verdict::Warn, "nodes", text);
        }
    }
}
