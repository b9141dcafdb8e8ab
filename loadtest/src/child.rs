//! The processes that are measured: started here, pinned, and ended with the
//! guard that holds them.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{self, ChildStdout, Command, Stdio},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Result, options::Common};

/// A child that listens. Dropping it ends it.
pub struct Child {
    process: process::Child,
    stop: bool,
    // Kept, so that the child can go on writing.
    _stdout: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

/// What a process has used.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Processor time in µs, the kernel's for it included.
    pub cpu: f64,
    /// Resident memory in bytes.
    pub rss: f64,
}

impl Child {
    /// Starts `command` on the server's core, and waits until it says where it
    /// listens.
    pub fn start(command: Command, common: &Common) -> Result<Self> {
        let mut command = ending_with_us(&command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = on_server_core(common, || command.spawn())??;
        let stdout = process.stdout.take().ok_or("the child has no output")?;
        let mut child = Self {
            process,
            stop: common.stop,
            _stdout: BufReader::new(stdout),
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let mut line = String::new();
        child._stdout.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        let address = address.ok_or_else(|| format!("{command:?} does not start"))?;
        child.address = address.parse()?;
        Ok(child)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the child has used so far.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.stop
            && let Ok(pid) = i32::try_from(self.process.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
            && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
        {
            _ = self.process.wait();
        }
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Runs a child of this program on the server's core to its end, and returns
/// what it told.
pub fn output<T: DeserializeOwned>(command: Command, common: &Common) -> Result<T> {
    let mut command = ending_with_us(&command);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = on_server_core(common, || command.output())??;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Tells the program whose child this is.
pub fn tell(figures: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}

/// The same command by way of util-linux's setpriv, which has the kernel kill it
/// if this process goes without dropping its guard.
pub fn ending_with_us(command: &Command) -> Command {
    let mut ending = Command::new("setpriv");
    ending
        .args(["--pdeathsig", "KILL"])
        .arg(command.get_program())
        .args(command.get_args());
    ending
}

/// This program, to be one of its own ceilings.
pub fn myself(scenario: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(scenario);
    Ok(command)
}

/// A child inherits the cores of the thread that starts it, so this thread
/// moves there and back.
pub fn on_server_core<T>(common: &Common, start: impl FnOnce() -> T) -> Result<T> {
    if common.unpinned {
        return Ok(start());
    }
    pin(common.server_core)?;
    let started = start();
    pin(common.client_core)?;
    Ok(started)
}

pub fn pin(core: usize) -> Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(format!("core {core} can't be had").into())
    }
}

/// The clock of `/proc/PID/stat`: 100 Hz on every Linux of today.
const TICK_MICROS: f64 = 10_000.0;

pub fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may hold anything, the fields are counted from 3.
    let (_, fields) = stat.rsplit_once(')').ok_or("no process")?;
    let ticks = fields.split_whitespace().skip(14 - 3).take(2);
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(Usage {
        cpu: ticks * TICK_MICROS,
        rss: rss.ok_or("no memory")? * 1024.0,
    })
}
