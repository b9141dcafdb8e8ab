//! Throw-away PostgreSQL servers.
//!
//! Each server is a child of this process with a data folder, a port and a
//! socket of its own; it runs as `postgres` where the tests run as root, which
//! PostgreSQL refuses. A shell at its side waits for the end of a pipe that only
//! this process holds open, so however the tests end, also by `kill -9`, the
//! shell then stops that one server and removes its folder. (A parent-death
//! signal won't do: it comes at the end of the thread that started the child,
//! and each test is a thread.)
//!
//! With `TEST_PG_DSN` (a URL without a query, of a role that may create
//! databases), [`fresh_database`] uses that server; a server to be broken is
//! always one of these.

// By its path, because a bench includes this file from elsewhere.
#[path = "pg/process.rs"]
pub mod process;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chat_service::store::postgres::{PostgresStore, Settings, Spawner};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use self::process::{binary, give_away, unprivileged, watch};
pub use self::process::{kill, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// One server.
pub struct Pg {
    home: PathBuf,
    port: u16,
    extra: Vec<String>,
    child: Mutex<Option<Child>>,
    /// Closing it ends the server and removes its folder.
    watchdog: Mutex<Option<(Child, ChildStdin)>>,
}

impl Pg {
    /// A private server, gone with this value.
    pub fn start() -> Self {
        Self::start_with(&[], |_| {})
    }

    /// `extra` are settings (`name=value`); `prepare` may add to the data folder.
    pub fn start_with(extra: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let home = TempDir::with_prefix("chatd-pg-").unwrap().keep();
        run(Command::new("cp")
            .arg("-a")
            .arg(template())
            .arg(home.join("data")));
        prepare(&home.join("data"));
        Self::start_in(home, extra)
    }

    /// A copy that follows this server by streaming replication, and calls itself
    /// `standby`.
    #[allow(dead_code, reason = "for those who include this file")]
    pub fn standby(&self) -> Self {
        let home = TempDir::with_prefix("chatd-pg-").unwrap().keep();
        give_away(&home);
        let data = home.join("data");
        let primary = format!("host=127.0.0.1 port={} user=postgres", self.port);
        let mut copy = unprivileged(&binary("pg_basebackup"));
        copy.args(["--no-sync", "--checkpoint=fast", "-d", &primary, "-D"]);
        run(copy.arg(&data));
        let follow = format!(
            "primary_conninfo = '{primary} application_name=standby'\n\
             wal_retrieve_retry_interval = 200ms\n"
        );
        fs::write(data.join("postgresql.auto.conf"), follow).unwrap();
        fs::write(data.join("standby.signal"), "").unwrap();
        Self::start_in(home, &[])
    }

    fn start_in(home: PathBuf, extra: &[&str]) -> Self {
        fs::create_dir(home.join("run")).unwrap();
        give_away(&home);
        let watchdog = watch(&home);
        let pg = Self {
            home,
            port: TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .unwrap()
                .port(),
            extra: extra.iter().map(|s| (*s).into()).collect(),
            child: Mutex::new(None),
            watchdog: Mutex::new(Some(watchdog)),
        };
        pg.start_again();
        pg
    }

    /// The server that tests share, each with its own database.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Pg> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Over the Unix socket.
    pub fn dsn(&self, database: &str) -> String {
        let run = self.home.join("run");
        format!(
            "host={} port={} user=postgres dbname={database}",
            run.display(),
            self.port
        )
    }

    /// Over TCP.
    pub fn tcp_dsn(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// As after a power cut: recovery at the next start.
    pub fn stop_immediate(&self) {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return;
        };
        kill("-QUIT", child.id());
        child.wait().unwrap();
    }

    /// Ends all connections, and ends itself in order.
    #[allow(dead_code, reason = "for those who include this file")]
    pub fn stop_fast(&self) {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return;
        };
        kill("-INT", child.id());
        child.wait().unwrap();
    }

    /// Whether it has ended by itself.
    #[allow(dead_code, reason = "for those who include this file")]
    pub fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child
            .as_mut()
            .is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    pub fn start_again(&self) {
        let mut postgres = unprivileged(&binary("postgres"));
        postgres
            .arg("-D")
            .arg(self.data())
            .arg("-k")
            .arg(self.home.join("run"));
        postgres.args(["-p", &self.port.to_string()]);
        let settings = [
            "listen_addresses=127.0.0.1",
            "shared_buffers=64MB",
            "max_connections=100",
            "max_wal_size=1GB",
            "autovacuum_naptime=10s",
        ];
        for setting in settings
            .iter()
            .copied()
            .chain(self.extra.iter().map(|s| &**s))
        {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.join("log"))
            .unwrap();
        let child = postgres
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        *self.child.lock().unwrap() = Some(child);
        let start = Instant::now();
        while !self.ready(pid) {
            assert!(
                start.elapsed() < PATIENCE,
                "PostgreSQL does not start:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[allow(dead_code, reason = "for tests that break the database under load")]
    pub fn restart(&self) {
        self.stop_immediate();
        self.start_again();
    }

    /// Stops all of the server's processes where they are.
    pub fn sigstop(&self) {
        self.processes()
            .into_iter()
            .for_each(|pid| kill("-STOP", pid));
    }

    pub fn sigcont(&self) {
        self.processes()
            .into_iter()
            .for_each(|pid| kill("-CONT", pid));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn ready(&self, pid: u32) -> bool {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines();
        lines.next() == Some(&*pid.to_string())
            && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    /// The postmaster and its children.
    fn processes(&self) -> Vec<u32> {
        let Some(postmaster) = self.child.lock().unwrap().as_ref().map(Child::id) else {
            return Vec::new();
        };
        let mut pids = vec![postmaster];
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // "pid (name) state ppid …", and the name may hold anything.
            let parent = stat
                .rsplit_once(") ")
                .and_then(|(_, s)| s.split(' ').nth(1));
            if parent.and_then(|p| p.parse().ok()) == Some(postmaster) {
                pids.push(pid);
            }
        }
        pids
    }
}

impl Drop for Pg {
    fn drop(&mut self) {
        self.sigcont();
        self.stop_immediate();
        if let Some((mut shell, pipe)) = self.watchdog.lock().unwrap().take() {
            drop(pipe);
            let _ = shell.wait();
        }
    }
}

/// The address of a database for tests that keep to chats and users of their
/// own: to make one takes longer than most of them.
pub async fn shared_database() -> String {
    static SHARED: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    SHARED.get_or_init(fresh_database).await.clone()
}

/// The address of a new, empty database.
pub async fn fresh_database() -> String {
    if let Ok(dsn) = std::env::var("TEST_PG_DSN") {
        let name = create_database(&dsn).await;
        let (server, _) = dsn.rsplit_once('/').expect("TEST_PG_DSN is not a URL");
        return format!("{server}/{name}");
    }
    let pg = tokio::task::spawn_blocking(Pg::shared).await.unwrap();
    fresh_database_on(pg).await
}

pub async fn fresh_database_on(pg: &Pg) -> String {
    let name = create_database(&pg.dsn("postgres")).await;
    pg.dsn(&name)
}

async fn create_database(dsn: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("chatd_{}_{number}", std::process::id());
    sql(dsn, &format!("CREATE DATABASE {name}")).await;
    name
}

/// Runs statements and gives the first column of their rows.
pub async fn sql(dsn: &str, statements: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await.unwrap();
    spawner()(Box::pin(async {
        let _ = connection.await;
    }));
    let answers = client.simple_query(statements).await.unwrap();
    let mut column = Vec::new();
    for answer in answers {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = answer {
            column.push(row.get(0).unwrap_or("").to_owned());
        }
    }
    column
}

/// Spawns on the calling test's runtime.
pub fn spawner() -> Spawner {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |future| {
        runtime.spawn(future);
    })
}

pub fn settings(dsn: &str) -> Settings {
    Settings::new(dsn, spawner())
}

pub async fn open(dsn: &str) -> PostgresStore {
    PostgresStore::open(settings(dsn)).await.unwrap()
}

/// A data folder as initdb makes it, made once and copied for each server.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<(PathBuf, Mutex<(Child, ChildStdin)>)> = OnceLock::new();
    let (home, _) = TEMPLATE.get_or_init(|| {
        let home = TempDir::with_prefix("chatd-pg-").unwrap().keep();
        give_away(&home);
        let watchdog = watch(&home);
        let data = home.join("data");
        let mut initdb = unprivileged(&binary("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres"]);
        initdb
            .args(["--encoding=UTF8", "--no-locale", "-D"])
            .arg(&data);
        run(&mut initdb);
        (data, Mutex::new(watchdog))
    });
    home
}
