//! What a second node costs: posts and deliveries by way of another node, beside the same
//! on the node that owns the chats.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;

use crate::{
    Result,
    calls::{Shape, drive},
    child::{Usage, ending_with_us, on_server_core, usage},
    fanout,
    options::{Common, Server},
    pace::{Measured, put_on},
    posts::{self, SEND},
    report::Report,
    unary,
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,

    #[command(flatten)]
    shape: Shape,

    #[arg(long, default_value_t = 16)]
    chats: usize,

    /// Bytes of a text
    #[arg(long, default_value_t = 100)]
    text: usize,

    /// Readers of one chat, for the deliveries
    #[arg(long, default_value_t = 1_000)]
    readers: usize,

    /// Calls a second at which latencies are taken
    #[arg(long, default_value_t = 200.0)]
    calm: f64,

    /// The NATS server
    #[arg(long, default_value = "nats-server")]
    nats: String,
}

/// How long nodes may take to find each other and to move what they own.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(options: &Options) -> Result<()> {
    if !options.common.store.starts_with("postgres") {
        return Err(
            "the nodes of a cluster share a PostgreSQL database: --store postgres://…".into(),
        );
    }
    let shape = options.shape.describe();
    let settings = format!(
        "{shape}, {} chats, texts of {} B, {} readers",
        options.chats, options.text, options.readers
    );
    options
        .common
        .repeat("cluster", settings, |common, report| {
            let nats = Nats::start(&options.nats, common)?;
            let alone = Node::start(common, None, "alone")?;
            let alone_figures = alone.posts(common, options, &[])?;
            tell(report, "alone", &alone_figures.0);
            drop(alone);

            let owner = Node::start(common, Some(&nats), "owner")?;
            owner.until(owns_all)?;
            let (local, _) = owner.posts(common, options, &[])?;
            tell(report, "owner", &local);
            let calm = owner.calm(common, options)?;
            report.add("owner", "p50 µs when calm", calm.quantile(0.5));
            report.add("owner", "p99 µs when calm", calm.quantile(0.99));
            let deliveries = owner.deliveries(common, options, &[])?;
            report.add("owner", "CPU µs a delivery", deliveries.0.cpu_each());
            report.add("owner", "deliveries a second", deliveries.0.rate());

            let edge = Node::start(common, Some(&nats), "edge")?;
            edge.until(|status| named(status, "state", "up") == 2)?;
            edge.ask("PUT", "drain edge")?;
            owner.until(owns_all)?;
            let others = [owner.pid(), nats.pid()];
            let (forwarded, used) = edge.posts(common, options, &others)?;
            tell(report, "edge", &forwarded);
            let each = |used: &Usage| used.cpu / forwarded.done;
            report.add("edge", "owner's CPU µs a call", each(&used[0]));
            report.add("edge", "NATS' CPU µs a call", each(&used[1]));
            let all = forwarded.cpu_each() + each(&used[0]) + each(&used[1]);
            report.add("edge", "all CPU µs a call", all);
            report.add(
                "edge",
                "all CPU a call ÷ the owner's of its own",
                all / local.cpu_each(),
            );
            let far = edge.calm(common, options)?;
            report.add("edge", "p50 µs when calm", far.quantile(0.5));
            report.add("edge", "p99 µs when calm", far.quantile(0.99));
            let hop = far.quantile(0.5) - calm.quantile(0.5);
            report.add("edge", "p50 µs more than on the owner", hop);
            let (delivered, used) = edge.deliveries(common, options, &others)?;
            report.add("edge", "CPU µs a delivery", delivered.cpu_each());
            report.add("edge", "deliveries a second", delivered.rate());
            let ratio = delivered.cpu_each() / deliveries.0.cpu_each();
            report.add("edge", "CPU a delivery ÷ the owner's of its own", ratio);
            let share = used[0].cpu / delivered.done;
            report.add("edge", "owner's CPU µs a delivery", share);
            let ratio = local.rate() / alone_figures.0.rate();
            report.add("owner", "calls a second ÷ alone", ratio);
            let ratio = local.cpu_each() / alone_figures.0.cpu_each();
            report.add("owner", "CPU a call ÷ alone", ratio);
            Ok(())
        })
}

fn tell(report: &mut Report, subject: &str, measured: &Measured) {
    report.add(subject, "calls a second", measured.rate());
    report.add(subject, "CPU µs a call", measured.cpu_each());
    report.add(subject, "failed calls", measured.failed as f64);
}

/// A NATS server on the server's core.
struct Nats {
    process: process::Child,
    port: u16,
}

impl Nats {
    fn start(binary: &str, common: &Common) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(binary);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        let mut command = ending_with_us(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null());
        let process = on_server_core(common, || command.spawn())??;
        Ok(Self { process, port })
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// One node.
struct Node {
    server: Server,
    http: SocketAddr,
}

impl Node {
    fn start(common: &Common, nats: Option<&Nats>, name: &str) -> Result<Self> {
        let http = free_port()?;
        let port = http.to_string();
        let url = nats.map(|nats| format!("nats://127.0.0.1:{}", nats.port));
        let members = ["--max-members", "100000", "--max-user-streams", "16384"];
        let mut more = vec!["--http-port", &port, "--node-name", name];
        more.extend(members);
        if let Some(url) = &url {
            more.extend(["--cluster", url]);
        }
        Ok(Self {
            server: common.server(&more)?,
            http: SocketAddr::from(([127, 0, 0, 1], http)),
        })
    }

    fn pid(&self) -> u32 {
        self.server.child.pid()
    }

    /// What the node says of its cluster, or to what is asked of it.
    fn ask(&self, method: &str, body: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.http)?;
        let (host, length) = (self.http, body.len());
        let request = format!(
            "{method} /cluster HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.contains(" 200 ") {
            true => Ok(answer),
            false => Err(format!("{method} /cluster: {answer}").into()),
        }
    }

    /// Waits until what the node says of the cluster is so.
    fn until(&self, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.ask("GET", "")?;
            let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            if is_so(&serde_json::from_str(body)?) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err("the nodes do not settle".into());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Posts through this node; what it has used, and what others have.
    fn posts(
        &self,
        common: &Common,
        options: &Options,
        others: &[u32],
    ) -> Result<(Measured, Vec<Usage>)> {
        self.drive(common, options, &options.shape, others)
    }

    /// The same at a rate at which nothing waits.
    fn calm(&self, common: &Common, options: &Options) -> Result<Measured> {
        let shape = Shape {
            rate: Some(options.calm),
            ..options.shape.clone()
        };
        Ok(self.drive(common, options, &shape, &[])?.0)
    }

    fn drive(
        &self,
        common: &Common,
        options: &Options,
        shape: &Shape,
        others: &[u32],
    ) -> Result<(Measured, Vec<Usage>)> {
        put_on(common, async {
            let child = &self.server.child;
            let alone = vec![vec![]; options.chats];
            let chats = posts::create_chats(child.address, &alone).await?;
            let request = unary::requests(chats, options.text, true);
            beside(common, others, drive(child, common, shape, SEND, request)).await
        })
    }

    /// Messages to many readers of this node.
    fn deliveries(
        &self,
        common: &Common,
        options: &Options,
        others: &[u32],
    ) -> Result<(Measured, Vec<Usage>)> {
        let shape = fanout::Shape {
            readers: options.readers,
            connections: 10,
            chats: 1,
            text: options.text,
            rate: 500.0,
            window: Some(64),
            zipf: None,
        };
        let load = shape.load(common, &self.server.child, true);
        put_on(common, beside(common, others, load))
    }
}

/// What these processes use while the load is measured.
async fn beside(
    common: &Common,
    others: &[u32],
    load: impl Future<Output = Result<Measured>>,
) -> Result<(Measured, Vec<Usage>)> {
    let watched = async {
        tokio::time::sleep(common.warmup()).await;
        let before: Result<Vec<Usage>> = others.iter().map(|pid| usage(*pid)).collect();
        let before = before?;
        tokio::time::sleep(common.window()).await;
        let after: Result<Vec<Usage>> = others.iter().map(|pid| usage(*pid)).collect();
        let used = after?.into_iter().zip(before).map(|(after, before)| Usage {
            cpu: after.cpu - before.cpu,
            rss: after.rss,
        });
        Ok::<_, Box<dyn std::error::Error>>(used.collect())
    };
    let (measured, used) = futures_util::future::join(load, watched).await;
    Ok((measured?, used?))
}

/// Whether the node that says this owns all chats. Others may be known that did, in an
/// earlier run.
fn owns_all(status: &Value) -> bool {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let mut own = nodes.filter(|node| node["id"] == status["node"]);
    own.any(|node| node["partitions"] == 256)
}

/// How many nodes have this value there.
fn named(status: &Value, field: &str, value: &str) -> usize {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    nodes.filter(|node| node[field] == value).count()
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
