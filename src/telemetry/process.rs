//! What the operating system says of this process, from `/proc`. Where there is
//! none, the figures are 0.

use std::fs;

/// Of `/proc/self/stat`'s times: the kernel shows them in this unit to every
/// program, whatever its own tick is (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    /// User and system.
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
}

pub(super) fn figures() -> Figures {
    Figures {
        cpu_seconds: cpu_seconds().unwrap_or_default(),
        resident_bytes: resident_bytes().unwrap_or_default(),
        // One is open for the counting itself.
        open_fds: fs::read_dir("/proc/self/fd")
            .map_or(0, |fds| fds.count().saturating_sub(1) as u64),
    }
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_A_SECOND)
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let figures = figures();
        assert!(
            figures.resident_bytes > 100_000 && figures.open_fds > 0,
            "{figures:?}"
        );
    }
}
