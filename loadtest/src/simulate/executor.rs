//! Polls the simulated tasks, one at a time, in an order that its seed decides.
//!
//! It is the one future of a tokio runtime whose time is paused, so time goes on
//! only when no task is ready, and then to the next timer at once.
//!
//! Invariants:
//! 1. A task is polled when it has been woken and not otherwise, so that a lost
//!    wake-up shows.
//! 2. What the seed decides depends on which tasks were woken by a poll, not on
//!    the order in which it woke them: that may hang on a hash map's own seed.
//! 3. Each poll has tokio's whole budget, as each poll of a spawned task has.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::{Instant, sleep_until};

use super::sim::Sim;

/// More polls than any run needs: tasks that wake each other for ever.
const MAX_POLLS: u64 = 20_000_000;

pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What happens to a task in a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is part of the server, and gone.
    Server,
    /// It is of the world outside, and stays.
    Outside,
}

/// What tasks want of the executor, which sees to it after the poll.
#[derive(Default)]
pub struct Orders {
    next_id: u64,
    spawned: Vec<(u64, Task)>,
    cancelled: Vec<u64>,
    /// Which tasks of the server die: those up to this one.
    crash: Option<u64>,
}

struct Task {
    name: String,
    life: Life,
    job: Job,
    waker: Option<Waker>,
    /// Woken, and not polled since.
    woken: bool,
}

impl Orders {
    pub fn spawn(&mut self, life: Life, name: String, job: Job) -> u64 {
        self.next_id += 1;
        let task = Task {
            name,
            life,
            job,
            waker: None,
            woken: true,
        };
        self.spawned.push((self.next_id, task));
        self.next_id
    }

    pub fn cancel(&mut self, id: u64) {
        self.cancelled.push(id);
    }

    fn take(&mut self) -> (Vec<(u64, Task)>, Vec<u64>, Option<u64>) {
        let spawned = std::mem::take(&mut self.spawned);
        let cancelled = std::mem::take(&mut self.cancelled);
        (spawned, cancelled, std::mem::take(&mut self.crash))
    }

    /// Drops all tasks of the server at once.
    pub fn crash(&mut self) {
        self.crash = Some(self.next_id);
    }
}

/// How unevenly tasks get their turn.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Of 1,000 wake-ups, how many reach their task late.
    pub late: u32,
    /// How late, in milliseconds.
    pub by: u64,
    /// Of 10,000 wake-ups, how many are swallowed. None in a true simulation.
    pub lost: u32,
}

pub struct Executor {
    sim: Sim,
    rng: Rng,
    pace: Pace,
    tasks: BTreeMap<u64, Task>,
    ready: Vec<u64>,
    late: BTreeSet<(Instant, u64)>,
    woken: Arc<Woken>,
    polls: u64,
}

#[derive(Default)]
struct Woken {
    tasks: Mutex<BTreeSet<u64>>,
    executor: Mutex<Option<Waker>>,
}

struct TaskWaker {
    id: u64,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.woken.tasks).insert(self.id);
        if let Some(executor) = &*lock(&self.woken.executor) {
            executor.wake_by_ref();
        }
    }
}

impl Executor {
    pub fn new(sim: Sim, rng: Rng, pace: Pace) -> Self {
        Self {
            sim,
            rng,
            pace,
            tasks: BTreeMap::new(),
            ready: Vec::new(),
            late: BTreeSet::new(),
            woken: Arc::default(),
            polls: 0,
        }
    }

    /// Runs until the simulation is over; answers with the number of polls.
    pub async fn run(mut self) -> u64 {
        let mut timer = Box::pin(sleep_until(Instant::now()));
        poll_fn(move |cx| {
            *lock(&self.woken.executor) = Some(cx.waker().clone());
            self.take_orders();
            self.take_woken();
            if self.sim.is_over() {
                return Poll::Ready(self.polls);
            }
            if self.ready.is_empty() {
                let Some((due, _)) = self.late.first() else {
                    return Poll::Pending;
                };
                timer.as_mut().reset(*due);
                _ = timer.as_mut().poll(cx);
                return Poll::Pending;
            }
            self.poll_one();
            // For the next one, with a new budget.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn poll_one(&mut self) {
        let at = self.rng.usize(..self.ready.len());
        let id = self.ready.swap_remove(at);
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        task.woken = false;
        self.polls += 1;
        if self.polls > MAX_POLLS {
            self.sim.broken("P8", "the tasks never come to rest");
            return;
        }
        self.sim.note(format!("poll {}", task.name));
        let waker = task.waker.get_or_insert_with(|| {
            let woken = self.woken.clone();
            Waker::from(Arc::new(TaskWaker { id, woken }))
        });
        let polled = task.job.as_mut().poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            self.tasks.remove(&id);
        }
    }

    fn take_orders(&mut self) {
        // Tasks that are dropped may give orders themselves.
        loop {
            let (spawned, cancelled, crash) = self.sim.state().orders.take();
            if spawned.is_empty() && cancelled.is_empty() && crash.is_none() {
                return;
            }
            for (id, task) in spawned {
                self.tasks.insert(id, task);
                self.ready.push(id);
            }
            for id in cancelled {
                drop(self.tasks.remove(&id));
            }
            if let Some(last) = crash {
                let server = self.tasks.range(..=last);
                let server = server.filter(|(_, task)| task.life == Life::Server);
                let mut server: Vec<u64> = server.map(|(id, _)| *id).collect();
                self.rng.shuffle(&mut server);
                for id in server {
                    drop(self.tasks.remove(&id));
                }
            }
        }
    }

    fn take_woken(&mut self) {
        let now = Instant::now();
        let woken = std::mem::take(&mut *lock(&self.woken.tasks));
        for id in woken {
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            let server = task.life == Life::Server;
            if task.woken || (server && self.rng.u32(..10_000) < self.pace.lost) {
                continue;
            }
            task.woken = true;
            if server && self.rng.u32(..1_000) < self.pace.late {
                let by = Duration::from_millis(self.rng.u64(1..=self.pace.by));
                self.late.insert((now + by, id));
            } else {
                self.ready.push(id);
            }
        }
        while let Some(first) = self.late.first().copied()
            && first.0 <= now
        {
            self.late.remove(&first);
            self.ready.push(first.1);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
