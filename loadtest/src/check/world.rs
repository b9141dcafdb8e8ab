//! The server and all that it stands on, each where it can be broken: a store on
//! a disk of its own, proxies before the server and the database, an Auth Service,
//! a clock.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use clap::ValueEnum;
use tempfile::TempDir;
use tokio::time::sleep;

use super::{
    auth::Auth,
    database::Database,
    disk::Disk,
    faults::{Fault, Step},
    pg::Pg,
    proxy::{Mode, Proxy},
    server::Chatd,
};
use crate::Result;

/// Everybody who is in every chat.
pub const MEMBERS: [&str; 4] = ["ann", "bob", "cid", "dan"];

/// Who is in none.
pub const STRANGER: &str = "mallory";

/// The size of a disk to be filled, in MiB: more than SQLite's log takes, which is
/// not carried over while it would be waited for.
const DISK: u32 = 640;

/// Between the end of a wait for a standby and a failover that undoes the commit.
const VISIBLE: Duration = Duration::from_millis(300);

/// What a proxy adds to each chunk.
const DELAY: Duration = Duration::from_millis(30);

/// How far the clock is set, in µs.
const CLOCK_STEP: i64 = 3_600_000_000;

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
}

/// Fields go in this order: what stands on something before that.
pub struct World {
    pub chatd: Chatd,
    front: Proxy,
    auth: Option<Auth>,
    back: Option<Proxy>,
    pg: Option<Database>,
    disk: Option<Disk>,
    home: TempDir,
    /// Which way the clock was set last. It goes back first: whatever comes after,
    /// a single step is one that a chat's time must not follow.
    forwards: bool,
    /// What the last failover has left that may have cost messages: the newest seq
    /// of each chat.
    left: Option<BTreeMap<i64, i64>>,
}

impl World {
    /// Must be called from a thread that stays as long as the world is to.
    pub async fn start(setting: &Setting) -> Result<Self> {
        let has = |fault| setting.faults.contains(&fault);
        let home = TempDir::with_prefix("chatd-check-")?;
        let mut args = Vec::new();
        let mut environment = Vec::new();
        let mut disk = None;
        let (mut pg, mut back) = (None, None);
        let store = match setting.store {
            StoreKind::Memory => "memory".into(),
            StoreKind::Sqlite => {
                let folder = home.path().join("disk");
                fs::create_dir(&folder)?;
                if has(Fault::Disk) {
                    disk = Some(Disk::mount(&folder, DISK)?);
                }
                format!("sqlite:{}", folder.join("chat.db").display())
            }
            StoreKind::Postgres => {
                let mut mounted = Ok(None);
                let server = Pg::start_with(&["min_wal_size=32MB", "max_wal_size=64MB"], |data| {
                    if has(Fault::Disk) {
                        mounted = on_a_disk(data).map(Some);
                    }
                });
                disk = mounted?;
                let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await?;
                let address = proxy.address;
                let mut database = Database::new(server);
                if setting.faults.iter().any(|fault| fault.replicates()) {
                    database.replicate().await;
                }
                (pg, back) = (Some(database), Some(proxy));
                format!("postgres://postgres@{address}/postgres?sslmode=disable")
            }
        };
        args.extend(["--store".into(), store]);
        args.extend(["--ring".into(), setting.window.to_string()]);
        let mut auth = None;
        if has(Fault::Auth) {
            let users = [&MEMBERS[..], &[STRANGER]].concat();
            let service = Auth::start(&setting.binary, home.path(), &users)?;
            let port = service.address().port().to_string();
            let flags = ["--auth", "service", "--access-client-host", "127.0.0.1"];
            args.extend(flags.map(String::from));
            args.extend(["--access-client-port".into(), port]);
            args.extend(["--auth-cache-ttl".into(), "500ms".into()]);
            auth = Some(service);
        }
        if has(Fault::Clock) {
            let clock = home.path().join("clock");
            environment.push(("CHATD_CLOCK", clock.display().to_string()));
        }
        if let Some(broken) = &setting.broken {
            environment.push(("CHATD_FAULT", broken.clone()));
        }
        let chatd = Chatd::start(&setting.binary, home.path(), args, environment)?;
        let front = Proxy::start(chatd.address()).await?;
        Ok(Self {
            chatd,
            front,
            auth,
            back,
            pg,
            disk,
            home,
            forwards: true,
            left: None,
        })
    }

    /// Where clients find the server.
    pub fn address(&self) -> std::net::SocketAddr {
        self.front.address
    }

    pub async fn tokens(&self) -> Result<std::collections::HashMap<String, String>> {
        let users = [&MEMBERS[..], &[STRANGER]].concat();
        match &self.auth {
            Some(auth) => auth.tokens(&users).await,
            None => Ok(Default::default()),
        }
    }

    /// Makes a fault, lets it last, and mends it. If messages may be lost for good,
    /// the newest seq of each chat that was left.
    pub async fn suffer(&mut self, step: Step) -> Result<Option<BTreeMap<i64, i64>>> {
        self.begin(step.fault).await?;
        sleep(step.lasts).await;
        self.end(step.fault).await?;
        Ok(self.left.take())
    }

    async fn begin(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill => self.chatd.kill(),
            Fault::Term => self.chatd.terminate()?,
            Fault::Stop => self.chatd.signal("-STOP"),
            Fault::Cut => self.front.cut(),
            Fault::Delay => self.front.set(Mode::Delay(DELAY)),
            Fault::HalfOpen => self.front.set(Mode::HalfOpen),
            // The clients' own doing.
            Fault::Flood => {}
            Fault::Clock => {
                self.forwards = !self.forwards;
                let step = if self.forwards {
                    CLOCK_STEP
                } else {
                    -CLOCK_STEP
                };
                fs::write(self.home.path().join("clock"), step.to_string())?;
            }
            Fault::Auth => self.auth.iter_mut().for_each(Auth::kill),
            Fault::Disk => self.disk.iter().try_for_each(Disk::fill)?,
            Fault::DbFast => self.primary().for_each(Pg::stop_fast),
            Fault::DbImmediate => self.primary().for_each(Pg::stop_immediate),
            Fault::DbStop => self.primary().for_each(Pg::sigstop),
            Fault::DbStandby | Fault::DbCancel | Fault::DbFailover => {
                self.pg.iter().for_each(Database::standby_goes);
            }
            Fault::DbLose => {
                if let Some(pg) = &self.pg {
                    pg.wait_for("").await;
                    pg.standby_goes();
                }
            }
            Fault::DbCut => self.back.iter().for_each(Proxy::cut),
            Fault::DbDelay => self.set_back(Mode::Delay(DELAY)),
            Fault::DbHalfOpen => self.set_back(Mode::HalfOpen),
        }
        Ok(())
    }

    async fn end(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill | Fault::Term => self.chatd.start_again()?,
            Fault::Stop => self.chatd.signal("-CONT"),
            Fault::Delay | Fault::HalfOpen => self.front.set(Mode::Pass),
            Fault::Auth => self.auth.iter_mut().try_for_each(Auth::start_again)?,
            Fault::Disk => {
                self.disk.iter().try_for_each(Disk::free)?;
                // Without room for its log, PostgreSQL does not go on.
                if let Some(pg) = &self.pg
                    && pg.primary.has_ended()
                {
                    pg.primary.start_again();
                }
            }
            Fault::DbFast | Fault::DbImmediate => self.primary().for_each(Pg::start_again),
            Fault::DbFailover => {
                if let Some(pg) = &self.pg {
                    pg.cancel_waits().await;
                    sleep(VISIBLE).await;
                }
                self.take_over().await;
            }
            Fault::DbLose => self.left = self.take_over().await,
            Fault::DbStop => self.primary().for_each(Pg::sigcont),
            Fault::DbStandby => self.pg.iter().for_each(Database::standby_comes_back),
            Fault::DbCancel => {
                if let Some(pg) = &self.pg {
                    pg.cancel_waits().await;
                    pg.standby_comes_back();
                }
            }
            Fault::DbDelay | Fault::DbHalfOpen => self.set_back(Mode::Pass),
            Fault::Cut | Fault::Flood | Fault::Clock | Fault::DbCut => {}
        }
        Ok(())
    }

    fn primary(&self) -> impl Iterator<Item = &Pg> {
        self.pg.iter().map(|pg| &pg.primary)
    }

    /// What the standby has when it takes over. A server whose data is on the disk
    /// that fills goes on itself.
    async fn take_over(&mut self) -> Option<BTreeMap<i64, i64>> {
        let pg = self.pg.as_mut()?;
        pg.primary.stop_immediate();
        pg.standby_comes_back();
        let left = match self.disk {
            None => pg.take_over().await,
            Some(_) => None,
        };
        if left.is_none() {
            pg.primary.start_again();
            pg.wait_for("standby").await;
            return None;
        }
        let server = ([127, 0, 0, 1], pg.primary.port()).into();
        self.back.iter().for_each(|back| back.lead_to(server));
        left
    }

    fn set_back(&self, mode: Mode) {
        self.back.iter().for_each(|back| back.set(mode));
    }
}

/// Puts PostgreSQL's data on a small disk.
fn on_a_disk(data: &std::path::Path) -> Result<Disk> {
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
