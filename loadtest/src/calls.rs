//! Unary calls, many in flight on a few connections.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::{
    Result,
    child::Child,
    options::Common,
    pace::{Measured, Meter, Pace, stamp},
    posts::POSTER,
    report::Report,
    wire::{Conn, Event},
};

#[derive(Args, Clone)]
pub struct Shape {
    /// Calls that are under way at most, on all connections together
    #[arg(long, default_value_t = 256)]
    pub in_flight: usize,

    #[arg(long, default_value_t = 8)]
    pub connections: usize,

    /// Calls a second; without it, as many as go
    #[arg(long)]
    pub rate: Option<f64>,
}

impl Shape {
    pub fn describe(&self) -> String {
        let rate = match self.rate {
            Some(rate) => format!("{rate} calls a second"),
            None => "as many calls as go".into(),
        };
        let (in_flight, connections) = (self.in_flight, self.connections);
        format!("{in_flight} in flight on {connections} connections, {rate}")
    }
}

/// The call number `.1` of connection `.0`, to be sent at `.2`.
pub type Request = dyn Fn(usize, usize, Instant) -> Vec<u8> + Send + Sync;

/// Keeps a server under this load while it is measured.
pub async fn drive(
    server: &Child,
    common: &Common,
    shape: &Shape,
    path: &'static str,
    request: Arc<Request>,
) -> Result<Measured> {
    let meter = Arc::new(Meter::new()?);
    let mut callers = JoinSet::new();
    for number in 0..shape.connections {
        let caller = Caller {
            number,
            in_flight: (shape.in_flight / shape.connections).max(1),
            rate: shape.rate.map(|rate| rate / shape.connections as f64),
            path,
            request: request.clone(),
            meter: meter.clone(),
        };
        callers.spawn(caller.run(server.address));
    }
    tokio::select! {
        measured = meter.measure(server, common) => measured,
        Some(ended) = callers.join_next() => Err(format!("a caller ended: {ended:?}").into()),
    }
}

pub fn tell(report: &mut Report, subject: &str, measured: &Measured) {
    report.add(subject, "calls a second", measured.rate());
    report.add(subject, "server CPU µs a call", measured.cpu_each());
    report.add(subject, "p50 µs", measured.quantile(0.5));
    report.add(subject, "p99 µs", measured.quantile(0.99));
    report.add(subject, "failed calls", measured.failed as f64);
}

/// One connection's calls.
pub struct Caller {
    pub number: usize,
    pub in_flight: usize,
    pub rate: Option<f64>,
    pub path: &'static str,
    pub request: Arc<Request>,
    pub meter: Arc<Meter>,
}

/// A call under way: when it was to begin, and whether its answer is there.
type Calls = HashMap<u32, (u64, bool)>;

impl Caller {
    pub async fn run(self, address: SocketAddr) -> std::io::Result<()> {
        let mut conn = Conn::open(address).await?;
        let mut pace = self.rate.map(Pace::new).transpose()?;
        let mut calls = Calls::with_capacity(self.in_flight);
        let mut sent = 0;
        loop {
            while calls.len() < self.in_flight {
                let at = match &mut pace {
                    None => Instant::now(),
                    Some(pace) => match pace.due() {
                        None => break,
                        Some(at) => at,
                    },
                };
                let call = (self.request)(self.number, sent, at);
                match conn.call(self.path, POSTER, &call, true) {
                    Some(stream) => calls.insert(stream, (stamp(at), false)),
                    None => break,
                };
                sent += 1;
            }
            let can_send = calls.len() < self.in_flight;
            let step = conn.step(|event| self.take(&mut calls, event));
            match &pace {
                Some(pace) if can_send => tokio::select! {
                    stepped = step => stepped?,
                    waited = pace.wait() => waited?,
                },
                _ => step.await?,
            }
        }
    }

    fn take(&self, calls: &mut Calls, event: Event<'_>) {
        match event {
            Event::Data(stream, _) => {
                if let Some((_, answered)) = calls.get_mut(&stream) {
                    *answered = true;
                }
            }
            Event::End(stream) => match calls.remove(&stream) {
                Some((begun, true)) => {
                    self.meter.add(1);
                    self.meter.time(begun);
                }
                Some((_, false)) => self.meter.fail(),
                None => {}
            },
        }
    }
}
