use std::{collections::VecDeque, time::Duration};

/// Lines that are kept for a failure to show.
const TAIL: usize = 60;

/// All that happened, in order: its hash tells two runs apart, its last lines
/// tell a person what led to a failure.
pub struct Trace {
    start: tokio::time::Instant,
    hash: u64,
    tail: VecDeque<String>,
    /// Every line goes to standard error as well.
    loud: bool,
}

impl Trace {
    pub fn new(loud: bool) -> Self {
        Self {
            start: tokio::time::Instant::now(),
            // FNV-1a, which no version of a library changes.
            hash: 0xcbf2_9ce4_8422_2325,
            tail: VecDeque::with_capacity(TAIL),
            loud,
        }
    }

    pub fn note(&mut self, line: impl AsRef<str>) {
        let line = format!("{:>10.3} {}", self.at().as_secs_f64() * 1e3, line.as_ref());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.loud {
            eprintln!("{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// Virtual time since the start.
    pub fn at(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }
}
