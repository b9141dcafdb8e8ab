use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::{Interest, unix::AsyncFd};

/// A timer of the kernel. The runtime's timers are late by up to a millisecond, and
/// to spend the rest of it looking would keep a store on the same core from its
/// work; so would a timer that is set anew each time.
pub struct Ticks(AsyncFd<OwnedFd>);

impl Ticks {
    /// Ticks from now on.
    pub fn every(interval: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Timespec {
            tv_sec: interval.as_secs() as i64,
            tv_nsec: interval.subsec_nanos().into(),
        };
        let ticks = Itimerspec {
            it_interval: interval,
            it_value: interval,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &ticks)?;
        // SAFETY: an OwnedFd stays open and the same for as long as it lives.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
        Ok(Self(timer))
    }

    /// Returns once there was a tick since the last call, however many. May be let
    /// go of and called again.
    pub async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer, &mut [0; 8])?);
            if let Ok(read) = ready.try_io(read) {
                return read.map(drop);
            }
        }
    }
}
