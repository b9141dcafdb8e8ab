//! Nodes of one cluster, with a NATS server and a database of their own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Mutex, MutexGuard},
};

use crate::{
    pg::{Pg, process::binary},
    server::{PATIENCE, Server},
};

/// A NATS server, killed when dropped.
pub struct Nats {
    port: u16,
    child: Option<Child>,
}

impl Nats {
    pub fn start() -> Self {
        let any = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr());
        let mut nats = Self {
            port: any.unwrap().port(),
            child: None,
        };
        nats.start_again();
        nats
    }

    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "still running");
        let mut command = Command::new(binary("nats-server"));
        command
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Clusters of several processes, one after the other: each has the machine busy.
static ONE: Mutex<()> = Mutex::const_new(());

/// What is killed last comes last.
pub struct Nodes {
    pub all: Vec<Server>,
    pub nats: Nats,
    pub pg: Pg,
    _one: MutexGuard<'static, ()>,
}

impl Nodes {
    /// So many nodes; each owns its part of the chats.
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    pub async fn start_with(count: usize, extra: &[&str]) -> Self {
        let one = ONE.lock().await;
        let (pg, nats) = (Pg::start(), Nats::start());
        let (dsn, url) = (pg.tcp_dsn("postgres"), nats.url());
        let mut all = Vec::new();
        for n in 0..count {
            let name = format!("node{n}");
            let options = ["--store", &dsn, "--cluster", &url, "--node-name", &name];
            // A window (P5) that holds all that a chat gets in one test: some retries come
            // late.
            let window = ["--ring", "16384", "--ring-bytes", "16MiB"];
            let window = if extra.contains(&"--ring") {
                &[]
            } else {
                &window[..]
            };
            let options = [&options[..], window, extra].concat();
            all.push(Server::start(&options).await);
        }
        let nodes = Self {
            all,
            nats,
            pg,
            _one: one,
        };
        nodes.balanced(count).await;
        nodes
    }

    /// Waits until so many nodes share all partitions.
    pub async fn balanced(&self, count: usize) {
        let start = Instant::now();
        loop {
            let mut seen = Vec::new();
            for server in &self.all {
                seen.push(status(server).await);
            }
            let is_balanced = |status: &serde_json::Value| {
                let Some(nodes) = status["nodes"].as_array() else {
                    return false;
                };
                let up = nodes.iter().filter(|node| node["state"] == "up");
                let owned: Vec<u64> = up.map(|one| one["partitions"].as_u64().unwrap()).collect();
                owned.len() == count && owned.iter().sum::<u64>() == 256 && !owned.contains(&0)
            };
            let living = seen.iter().flatten();
            if living.clone().count() >= count && living.clone().all(is_balanced) {
                // As long as partitions move, some are at rest for a moment.
                tokio::time::sleep(Duration::from_millis(300)).await;
                let again = status(&self.all[0]).await;
                if seen[0].is_none()
                    || again
                        .as_ref()
                        .is_some_and(|one| one["moves"] == seen[0].as_ref().unwrap()["moves"])
                {
                    return;
                }
            }
            assert!(start.elapsed() < PATIENCE, "no balance: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What a node says of its cluster, if it answers.
pub async fn status(server: &Server) -> Option<serde_json::Value> {
    let asking = async {
        // One that is killed may refuse, or close.
        let mut stream = TcpStream::connect(server.http_address()).await.ok()?;
        let request = format!(
            "GET /cluster HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            server.http_address()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    };
    let asked = tokio::time::timeout(Duration::from_millis(500), asking).await;
    asked.ok()?
}
