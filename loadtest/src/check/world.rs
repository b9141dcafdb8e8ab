//! The servers and all that they stand on, each where it can be broken: a store on
//! a disk of its own, proxies before each server, before the database and before
//! NATS, an Auth Service, clocks.

mod node;
mod suffer;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use tempfile::TempDir;

use self::node::{Ground, Node};
use super::{
    auth::Auth, database::Database, disk::Disk, faults::Fault, nats::Nats, operator, pg::Pg,
};
use crate::Result;

/// Everybody who is in every chat.
pub const MEMBERS: [&str; 4] = ["ann", "bob", "cid", "dan"];

/// Who is in none.
pub const STRANGER: &str = "mallory";

/// Who are added to chats and removed again, one after the other.
pub const GUESTS: [&str; 16] = [
    "eve", "eva", "evi", "evo", "fay", "gus", "hal", "ida", "jim", "kay", "lea", "max", "ned",
    "oda", "pam", "roy",
];

/// The size of a disk to be filled, in MiB: more than SQLite's log takes, which is
/// not carried over while it would be waited for.
const DISK: u32 = 640;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    Memory,
    Sqlite,
    Postgres,
}

/// Enough for a run of minutes at full speed.
pub const WINDOW: u32 = 16_384;

/// What is to be tested, and by what.
#[derive(Debug, Clone)]
pub struct Setting {
    pub store: StoreKind,
    pub faults: Vec<Fault>,
    pub binary: PathBuf,
    /// The duplicate window (P5): what a chat gets while a retry may still come.
    pub window: u32,
    /// A fault that the server itself is to have: a name of `CHATD_FAULT`.
    pub broken: Option<String>,
    pub cluster: Cluster,
}

/// How many servers there are, and what carries what they say to each other.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// One: a server that is alone.
    pub nodes: usize,
    /// The program of the NATS server.
    pub nats: String,
}

/// Fields go in this order: what stands on something before that.
pub struct World {
    nodes: Vec<Node>,
    nats: Option<Nats>,
    auth: Option<Auth>,
    pg: Option<Database>,
    disk: Option<Disk>,
    _home: TempDir,
    /// What the last failover has left that may have cost messages: the newest seq
    /// of each chat.
    left: Option<BTreeMap<i64, i64>>,
}

impl World {
    /// Must be called from a thread that stays as long as the world is to.
    pub async fn start(setting: &Setting) -> Result<Self> {
        let has = |fault| setting.faults.contains(&fault);
        let home = TempDir::with_prefix("chatd-check-")?;
        let (mut disk, mut pg) = (None, None);
        let mut ground = Ground::in_folder(home.path());
        match setting.store {
            StoreKind::Memory => ground.store = "memory".into(),
            StoreKind::Sqlite => {
                let folder = home.path().join("disk");
                fs::create_dir(&folder)?;
                if has(Fault::Disk) {
                    disk = Some(Disk::mount(&folder, DISK)?);
                }
                ground.store = format!("sqlite:{}", folder.join("chat.db").display());
            }
            StoreKind::Postgres => {
                let mut mounted = Ok(None);
                let server = Pg::start_with(&["min_wal_size=32MB", "max_wal_size=64MB"], |data| {
                    if has(Fault::Disk) {
                        mounted = on_a_disk(data).map(Some);
                    }
                });
                disk = mounted?;
                ground.database = Some(([127, 0, 0, 1], server.port()).into());
                let mut database = Database::new(server);
                if setting.faults.iter().any(|fault| fault.replicates()) {
                    database.replicate().await;
                }
                pg = Some(database);
            }
        }
        let mut auth = None;
        if has(Fault::Auth) {
            let users = [&MEMBERS[..], &[STRANGER], &GUESTS].concat();
            let service = Auth::start(&setting.binary, home.path(), &users)?;
            ground.auth = Some(service.address());
            auth = Some(service);
        }
        let mut nats = None;
        if setting.cluster.nodes > 1 {
            let server = Nats::start(&setting.cluster.nats)?;
            ground.nats = Some(server.address());
            nats = Some(server);
        }
        let mut nodes = Vec::new();
        for number in 0..setting.cluster.nodes {
            nodes.push(Node::start(setting, &ground, number).await?);
        }
        let world = Self {
            nodes,
            nats,
            auth,
            pg,
            disk,
            _home: home,
            left: None,
        };
        if world.is_cluster() {
            operator::settled(&world.https()).await?;
        }
        Ok(world)
    }

    /// Where clients find the servers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.front.address).collect()
    }

    /// Where operators find the nodes; none of a server that is alone.
    pub fn https(&self) -> Vec<SocketAddr> {
        let https = self.nodes.iter().map(|node| node.chatd.http());
        https.flatten().collect()
    }

    pub fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    pub async fn tokens(&self) -> Result<HashMap<String, String>> {
        let users = [&MEMBERS[..], &[STRANGER], &GUESTS].concat();
        match &self.auth {
            Some(auth) => auth.tokens(&users).await,
            None => Ok(HashMap::new()),
        }
    }

    /// The process of the first server.
    pub fn pid(&self) -> Option<u32> {
        self.nodes.first()?.chatd.pid()
    }

    /// Whether a server ended though nobody told it to.
    pub fn has_ended(&mut self) -> bool {
        self.nodes.iter_mut().any(|node| node.chatd.has_ended())
    }

    /// `kill -9` of all servers at once, and a new start.
    pub fn kill_all(&mut self) -> Result<()> {
        self.nodes.iter_mut().for_each(|node| node.chatd.kill());
        let mut nodes = self.nodes.iter_mut();
        nodes.try_for_each(|node| node.chatd.start_again())
    }

    /// Whether a server wrote this, in one of its lives.
    pub fn says(&self, what: &str) -> bool {
        self.nodes.iter().any(|node| node.chatd.says(what))
    }

    /// The end of what each server wrote on standard error.
    pub fn log(&self) -> String {
        let logs: Vec<String> = self.nodes.iter().map(|node| node.chatd.log()).collect();
        logs.join("\n\n")
    }

    /// Keeps all that the servers wrote on standard error as `NAME.nodeN.log`.
    pub fn keep_logs(&self, folder: &Path, name: &str) -> Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let file = folder.join(format!("{name}.node{number}.log"));
            fs::write(file, node.chatd.whole_log())?;
        }
        Ok(())
    }
}

/// Puts PostgreSQL's data on a small disk.
fn on_a_disk(data: &Path) -> Result<Disk> {
    let copied = data.with_file_name("copied");
    fs::rename(data, &copied)?;
    fs::create_dir(data)?;
    let disk = Disk::mount(data, DISK)?;
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(copied.join(".")).arg(data);
    super::pg::run(&mut copy);
    fs::remove_dir_all(copied)?;
    Ok(disk)
}
