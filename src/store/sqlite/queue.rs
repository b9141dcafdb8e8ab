use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout_at,
};

use crate::{
    runtime::trim_heap,
    store::{StoreError, StoreResult},
};

/// A thread without a job for so long is at rest.
const REST: Duration = Duration::from_secs(1);

/// The way from async callers to a thread. A caller waits for one of as many
/// permits as the channel has places, so that sending never blocks its runtime.
pub(super) struct Queue<T> {
    permits: Arc<Semaphore>,
    /// `None` once closed.
    sender: Mutex<Option<Sender<Admitted<T>>>>,
}

/// The thread's end. It sees what was admitted before the queue was closed.
pub(super) struct Jobs<T>(Receiver<Admitted<T>>);

struct Admitted<T> {
    job: T,
    _permit: OwnedSemaphorePermit,
}

pub(super) fn bounded<T>(capacity: usize) -> (Queue<T>, Jobs<T>) {
    let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    let queue = Queue {
        permits: Arc::new(Semaphore::new(capacity)),
        sender: Mutex::new(Some(sender)),
    };
    (queue, Jobs(receiver))
}

impl<T> Queue<T> {
    /// Waits for a place, at most until `deadline`.
    pub(super) async fn send(&self, job: T, deadline: Instant) -> StoreResult<()> {
        let permit = timeout_at(deadline.into(), self.permits.clone().acquire_owned());
        let Ok(permit) = permit.await else {
            return Err(StoreError::Unavailable("the queue stayed full".into()));
        };
        let closed = || StoreError::Unavailable("the store is closed".into());
        let permit = permit.map_err(|_| closed())?;
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = Admitted {
            job,
            _permit: permit,
        };
        let sent = sender.as_ref().map(|sender| sender.try_send(admitted));
        if let Some(Ok(())) = sent {
            Ok(())
        } else {
            Err(closed())
        }
    }

    pub(super) fn close(&self) {
        self.permits.close();
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        *sender = None;
    }
}

impl<T> Clone for Jobs<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Jobs<T> {
    /// The next job. While none comes, the thread's free memory goes back: at
    /// first its own, later what others had from it and freed.
    pub(super) fn recv_at_rest(&self) -> Result<T, RecvError> {
        loop {
            match self.recv_by(Instant::now() + REST) {
                Ok(job) => return Ok(job),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Err(RecvTimeoutError::Timeout) => trim_heap(),
            }
        }
    }

    pub(super) fn recv_by(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.0.recv_deadline(deadline).map(|admitted| admitted.job)
    }

    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.try_recv().map(|admitted| admitted.job)
    }
}

/// A thread whose end can be awaited.
pub(super) struct Thread {
    handle: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Thread {
    pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (alive, ended) = oneshot::channel();
        let handle = thread::Builder::new().name(name.into()).spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            run();
        })?;
        Ok(Self { handle, ended })
    }

    pub(super) async fn join(self) {
        // Resolves when the sender is dropped, with nothing but the thread's own
        // end left to wait for.
        let _ = self.ended.await;
        if self.handle.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_waited_for_until_the_deadline() {
        let (queue, jobs) = bounded(1);
        let soon = || Instant::now() + Duration::from_millis(20);
        queue.send(1, soon()).await.unwrap();
        let refused = queue.send(2, soon()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
        assert_eq!(jobs.recv_at_rest(), Ok(1));
        queue.send(3, soon()).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_admitted_is_received_after_the_close() {
        let (queue, jobs) = bounded(2);
        let deadline = Instant::now() + Duration::from_secs(5);
        queue.send(1, deadline).await.unwrap();
        queue.close();
        assert!(queue.send(2, deadline).await.is_err());
        assert_eq!(jobs.recv_at_rest(), Ok(1));
        assert!(jobs.recv_at_rest().is_err());
    }
}
