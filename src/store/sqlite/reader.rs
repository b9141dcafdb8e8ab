//! The threads that read, each with its own connection.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use rusqlite::Connection;
use tokio::{sync::oneshot, time::timeout_at};

use super::{
    error::store_error,
    queue::{Jobs, Queue},
};
use crate::store::{StoreError, StoreResult};

pub(super) struct Read {
    deadline: Instant,
    run: Box<dyn FnOnce(&mut Connection) + Send>,
}

/// Has `query` run by a reader thread. It sees one state of the database, and
/// cannot change it.
pub(super) async fn read<T: Send + 'static>(
    queue: &Queue<Read>,
    deadline: Instant,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> StoreResult<T> {
    let late = || StoreError::Unavailable("the deadline has passed".into());
    if Instant::now() >= deadline {
        return Err(late());
    }
    let (answer, answered) = oneshot::channel();
    let run = Box::new(move |conn: &mut Connection| {
        // A client that takes its calls back is not to keep the readers busy.
        if answer.is_closed() {
            return;
        }
        let result = conn.transaction().and_then(|tx| query(&tx));
        // The caller may have gone away.
        let _ = answer.send(result);
    });
    queue.send(Read { deadline, run }, deadline).await?;
    match timeout_at(deadline.into(), answered).await {
        Ok(Ok(result)) => result.map_err(store_error),
        Ok(Err(_)) => Err(StoreError::Unavailable("a reader gave up".into())),
        Err(_) => Err(late()),
    }
}

/// Until the queue is closed and empty.
pub(super) fn run(mut conn: Connection, jobs: Jobs<Read>) {
    while let Ok(read) = jobs.recv_at_rest() {
        // Nobody waits any more, and others do.
        if Instant::now() >= read.deadline {
            continue;
        }
        // A reader changes nothing, so one that panicked is as good as before.
        let done = catch_unwind(AssertUnwindSafe(|| (read.run)(&mut conn)));
        if done.is_err() {
            tracing::error!("a query of the store panicked");
        }
    }
}
