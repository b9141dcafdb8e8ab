//! The machine: a current-thread runtime a core, its listeners, and the tasks
//! that run there. The only room that spawns.
//!
//! Invariants:
//! 1. Every task is tracked, so that shutting down can wait for it.
//! 2. A task that holds state nobody else has ([`Spawner::spawn_vital`]) takes
//!    the process with it when it panics: what was acknowledged is in the store,
//!    and a restart is better than a half-dead server.

mod clock;
mod files;
mod heap;
mod listen;
mod memory;
mod signals;
mod tls;
mod watched;

use std::{
    future::Future,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use hyper::rt::Executor;
use tokio::{runtime::Handle, task::AbortHandle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use clock::SystemClock;
pub use files::{file_limit, raise_file_limit};
pub use heap::{Heap, trim_heap};
pub use listen::{BindError, bind};
pub use memory::{NoLimit, memory_limit};
pub use signals::outlive_signals;
pub use tls::{Tls, TlsError, TlsFiles};
pub use tokio_rustls::server::TlsStream;
pub use watched::Watched;

/// The cores' threads, each with its runtime.
#[derive(Debug)]
pub struct Cores {
    cores: Vec<Core>,
    stop: DropGuard,
}

#[derive(Debug)]
struct Core {
    spawner: Spawner,
    thread: thread::JoinHandle<()>,
}

/// Spawns tasks on one core. A single pointer: each connection and each call
/// has one.
#[derive(Debug, Clone)]
pub struct Spawner(Arc<Tasks>);

#[derive(Debug)]
struct Tasks {
    handle: Handle,
    tracker: TaskTracker,
}

/// Tokio's default: a look costs a system call.
const EVENT_INTERVAL: u32 = 61;

/// Every so many steps the next task is one that another thread has woken. By tokio's
/// default, 31, whatever a core has to do itself comes before most of these: the answers
/// that shards on other cores have for somebody would wait until whoever begins
/// thousands of calls on this one is through. The less often, the more of the store's
/// answers a shard takes at once, which saves commits.
const ELSEWHERE_INTERVAL: u32 = 8;

impl Cores {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// If the operating system gives no thread or no event queue.
    pub fn start(count: usize) -> io::Result<Self> {
        Self::named("core", count)
    }

    /// Starts `count` threads called so.
    ///
    /// # Errors
    /// As [`Cores::start`].
    pub fn named(name: &str, count: usize) -> io::Result<Self> {
        Self::watchful(name, count, EVENT_INTERVAL)
    }

    /// The same for threads that look for events of the operating system every so many
    /// steps of their tasks.
    ///
    /// # Errors
    /// As [`Cores::start`].
    pub fn watchful(name: &str, count: usize, event_interval: u32) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let core = |number| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .event_interval(event_interval)
                .global_queue_interval(ELSEWHERE_INTERVAL)
                .build()?;
            let spawner = Spawner(Arc::new(Tasks {
                handle: runtime.handle().clone(),
                tracker: TaskTracker::new(),
            }));
            let stopped = stop.clone().cancelled_owned();
            let thread = thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || runtime.block_on(stopped))?;
            Ok(Core { spawner, thread })
        };
        let cores = (0..count).map(core).collect::<io::Result<_>>()?;
        let stop = stop.drop_guard();
        Ok(Self { cores, stop })
    }

    pub fn count(&self) -> usize {
        self.cores.len()
    }

    pub fn spawner(&self, core: usize) -> &Spawner {
        &self.cores[core].spawner
    }

    /// Spawns tasks on the core that asks, or on the first if none of them does.
    pub fn spawner_here(&self) -> impl Fn(BoxFuture<'static, ()>) + Send + Sync + use<> {
        let spawner = self.spawner(0).clone();
        move |task| {
            let here = Handle::try_current();
            let handle = here.as_ref().unwrap_or(&spawner.0.handle);
            spawner.0.tracker.spawn_on(task, handle);
        }
    }

    /// Ends the threads, with whatever still runs on them.
    pub fn stop(self) {
        drop(self.stop);
        for core in self.cores {
            // A core that panicked has said so already.
            _ = core.thread.join();
        }
    }
}

impl Spawner {
    /// Spawns a task that may end, fail or be aborted on its own.
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let Tasks { handle, tracker } = &*self.0;
        tracker.spawn_on(task, handle).abort_handle()
    }

    /// Runs `work` on a thread where it may block; true once it has ended, false
    /// if it panicked.
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.0.handle.spawn_blocking(work).await.ok()
    }

    /// What `make` makes belongs to this core's runtime.
    pub fn enter<T>(&self, make: impl FnOnce() -> T) -> T {
        let _entered = self.0.handle.enter();
        make()
    }

    /// Ends once this core has run a task that does nothing.
    pub async fn answers(&self) {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.spawn(async move { _ = answer.send(()) });
        // A runtime that has ended drops the task: it does not answer.
        if answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs something that takes a processor's time, on a thread of its own; None
    /// if it panics.
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let Tasks { handle, tracker } = &*self.0;
        tracker.spawn_blocking_on(work, handle).await.ok()
    }

    /// Spawns a task whose panic ends the process.
    pub fn spawn_vital(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.spawn(async move {
            let guard = Vital(name);
            task.await;
            std::mem::forget(guard);
        })
    }
}

/// HTTP/2 connections have tasks of their own, which stay on the core.
impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

struct Vital(&'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(task = self.0, "vital task panicked, aborting");
            std::process::abort();
        }
    }
}

/// Waits until `done` says so, at most until `deadline`; false if it was too
/// late.
pub async fn wait_until(deadline: Instant, done: impl Future<Output = ()>) -> bool {
    tokio::time::timeout_at(deadline.into(), done).await.is_ok()
}

/// What is left until `deadline`.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
