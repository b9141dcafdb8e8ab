//! One server with the ways to it and from it, each of which can be cut.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::Setting;
use crate::{
    Result,
    check::{
        faults::Fault,
        proxy::{Mode, Proxy},
        server::Chatd,
    },
};

/// How far a clock is set, in µs.
const CLOCK_STEP: i64 = 3_600_000_000;

/// What all servers stand on.
pub struct Ground {
    folder: PathBuf,
    /// What `--store` says where there is no `database`.
    pub store: String,
    /// PostgreSQL.
    pub database: Option<SocketAddr>,
    pub nats: Option<SocketAddr>,
    /// The Auth Service.
    pub auth: Option<SocketAddr>,
}

impl Ground {
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            store: String::new(),
            database: None,
            nats: None,
            auth: None,
        }
    }
}

/// Fields go in this order: the server before what it stands on.
pub struct Node {
    pub chatd: Chatd,
    /// Before the server.
    pub front: Proxy,
    /// Before PostgreSQL.
    pub back: Option<Proxy>,
    /// Before NATS.
    pub bus: Option<Proxy>,
    /// The file that sets its clock.
    clock: PathBuf,
    /// Which way the clock was set last. It goes back first: whatever comes after,
    /// a single step is one that a chat's time must not follow.
    forwards: bool,
}

impl Node {
    /// Must be called from a thread that stays as long as the server is to.
    pub async fn start(setting: &Setting, ground: &Ground, number: usize) -> Result<Self> {
        let name = format!("node{number}");
        let home = ground.folder.join(&name);
        fs::create_dir(&home)?;
        let clock = home.join("clock");
        let mut args: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| args.extend([option.into(), value]);
        let (mut back, mut bus) = (None, None);
        let mut store = ground.store.clone();
        if let Some(server) = ground.database {
            let proxy = Proxy::start(server).await?;
            let address = proxy.address;
            store = format!("postgres://postgres@{address}/postgres?sslmode=disable");
            back = Some(proxy);
        }
        add("--store", store);
        add("--ring", setting.window.to_string());
        if let Some(server) = ground.nats {
            let proxy = Proxy::start(server).await?;
            add("--cluster", format!("nats://{}", proxy.address));
            add("--node-name", name);
            bus = Some(proxy);
        }
        if let Some(service) = ground.auth {
            add("--auth", "service".into());
            add("--access-client-host", service.ip().to_string());
            add("--access-client-port", service.port().to_string());
            add("--auth-cache-ttl", "500ms".into());
        }
        let mut environment = Vec::new();
        if setting.faults.contains(&Fault::Clock) {
            environment.push(("CHATD_CLOCK", clock.display().to_string()));
        }
        if let Some(broken) = &setting.broken {
            environment.push(("CHATD_FAULT", broken.clone()));
        }
        let http = ground.nats.is_some();
        let chatd = Chatd::start(&setting.binary, &home, args, environment, http)?;
        Ok(Self {
            front: Proxy::start(chatd.address()).await?,
            chatd,
            back,
            bus,
            clock,
            forwards: true,
        })
    }

    /// Sets the server's clock back, or forwards again.
    pub fn set_clock(&mut self) -> Result<()> {
        self.forwards = !self.forwards;
        let step = if self.forwards {
            CLOCK_STEP
        } else {
            -CLOCK_STEP
        };
        Ok(fs::write(&self.clock, step.to_string())?)
    }

    /// The ways to what it stands on.
    pub fn ways(&self) -> impl Iterator<Item = &Proxy> {
        self.back.iter().chain(&self.bus)
    }

    /// Whatever was done to the ways to what it stands on, they are as they were.
    pub fn mend(&self) {
        self.ways().for_each(|way| way.set(Mode::Pass));
    }
}
