use std::{
    io::Write as _,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chat_service::proto;
use clap::Args;
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};

use super::listen;
use crate::{
    Result,
    child::{Child, myself},
    options::Common,
    pace::{Measured, Meter, put_on},
    posts, wire,
};

#[derive(Args)]
pub struct Options {
    #[arg(long)]
    connections: usize,
    /// Of a write
    #[arg(long)]
    bytes: usize,
    /// Writes a second to each connection
    #[arg(long)]
    rate: f64,
}

/// Writes the same bytes to each connection in turn, as often as messages come:
/// what the kernel alone takes to deliver them one by one.
pub fn run(options: &Options) -> Result<()> {
    let listener = listen()?;
    listener.set_nonblocking(false)?;
    println!("listening on {}", listener.local_addr()?);
    let mut connections = Vec::with_capacity(options.connections);
    while connections.len() < options.connections {
        let (connection, _) = listener.accept()?;
        connection.set_nodelay(true)?;
        connections.push(connection);
    }
    let bytes = vec![0; options.bytes];
    let interval = Duration::from_secs_f64(1.0 / options.rate);
    let mut next = Instant::now();
    loop {
        for connection in &mut connections {
            // The load has been taken off.
            if connection.write_all(&bytes).is_err() {
                return Ok(());
            }
        }
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// How often it is looked whether all connections have had something.
const LOOK: Duration = Duration::from_millis(10);

pub fn measure(common: &Common, connections: usize, text: usize, rate: f64) -> Result<Measured> {
    let bytes = delivery(text);
    let mut command = myself("ceiling-write")?;
    command
        .args(["--connections", &connections.to_string()])
        .args(["--bytes", &bytes.to_string()])
        .args(["--rate", &rate.to_string()]);
    let child = Child::start(command, common)?;
    put_on(common, async {
        let meter = Arc::new(Meter::new()?);
        let mut readers = JoinSet::new();
        for _ in 0..connections {
            readers.spawn(read(child.address, bytes, meter.clone()));
        }
        while meter.count() < connections as u64 {
            tokio::time::sleep(LOOK).await;
        }
        tokio::select! {
            measured = meter.measure(&child, common) => measured,
            Some(ended) = readers.join_next() => Err(format!("a reader ended: {ended:?}").into()),
        }
    })
}

async fn read(address: SocketAddr, each: usize, meter: Arc<Meter>) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    let mut input = vec![0; 16 * 1024];
    let mut left = 0;
    loop {
        let count = connection.read(&mut input).await?;
        if count == 0 {
            return Ok(());
        }
        left += count;
        meter.add((left / each) as u64);
        left %= each;
    }
}

/// Bytes on the wire of a message in a DATA frame of its own.
fn delivery(text: usize) -> usize {
    const FRAME: usize = 9;
    let message = proto::Message {
        from: posts::POSTER.into(),
        text: posts::text(Instant::now(), text),
        created_at: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 123_456_000,
        }),
        seq: 1_000,
        chat_id: 1,
        ..Default::default()
    };
    FRAME + wire::frame(&message).len()
}
