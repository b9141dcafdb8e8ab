//! The NATS server that carries what nodes say to each other, to be taken away and
//! brought back.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, check::pg::kill, child};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Nats {
    binary: String,
    address: SocketAddr,
    running: Option<Child>,
}

impl Nats {
    /// As with the nodes, the thread that calls must stay.
    pub fn start(binary: &str) -> Result<Self> {
        let mut nats = Self {
            binary: binary.into(),
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            running: None,
        };
        nats.start_again()?;
        Ok(nats)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// On the port it had. Returns once it can be reached.
    pub fn start_again(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["-a", "127.0.0.1", "-p", &self.address.port().to_string()]);
        let process = child::ending_with_us(&command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        self.running = Some(process);
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let has_ended = self.running.as_mut().map(Child::try_wait).transpose()?;
            if has_ended.flatten().is_some() || begun.elapsed() > PATIENCE {
                return Err(format!("{} does not start", self.binary).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.running.take() {
            // An error: it has ended.
            _ = process.kill();
            _ = process.wait();
        }
    }

    pub fn signal(&self, signal: &str) {
        if let Some(process) = &self.running {
            kill(signal, process.id());
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}
