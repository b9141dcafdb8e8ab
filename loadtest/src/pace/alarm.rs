use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Wakes a task at a time, late by less than a tenth of a millisecond. The
/// runtime's timers are late by up to a whole one, and to spend the rest of it
/// looking would keep a store on the same core from its work.
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an OwnedFd stays open and the same for as long as it lives.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
        Ok(Self(timer))
    }

    /// May be let go of and called again.
    pub async fn until(&self, at: Instant) -> io::Result<()> {
        let Some(left) = at.checked_duration_since(Instant::now()) else {
            return Ok(());
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once(left))?;
        loop {
            let mut ready = self.0.readable().await?;
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer, &mut [0; 8])?);
            if let Ok(read) = ready.try_io(read) {
                return read.map(drop);
            }
        }
    }
}

fn once(after: Duration) -> Itimerspec {
    // Zero would let it never ring.
    let after = after.max(Duration::from_nanos(1));
    Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec {
            tv_sec: after.as_secs() as i64,
            tv_nsec: after.subsec_nanos().into(),
        },
    }
}
