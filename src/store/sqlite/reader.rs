//! The threads that read, each with its own connection.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use rusqlite::Connection;
use tokio::{sync::oneshot, time::timeout_at};

use super::{
    error::store_error,
    files::{Files, Moved},
    queue::{Jobs, Queue},
};
use crate::store::{StoreError, StoreResult};

pub(super) struct Read {
    deadline: Instant,
    run: Box<dyn FnOnce(Opened<'_>) + Send>,
}

/// A connection to a file that is where it was.
type Opened<'a> = Result<&'a mut Connection, Moved>;

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
    let run = Box::new(move |conn: Opened<'_>| {
        // A client that takes its calls back is not to keep the readers busy.
        if answer.is_closed() {
            return;
        }
        let run = |conn: &mut Connection| {
            let result = conn.transaction().and_then(|tx| query(&tx));
            result.map_err(store_error)
        };
        let moved = |moved: Moved| StoreError::Unavailable(moved.into());
        let result = conn.map_err(moved).and_then(run);
        // The caller may have gone away.
        let _ = answer.send(result);
    });
    queue.send(Read { deadline, run }, deadline).await?;
    match timeout_at(deadline.into(), answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(StoreError::Unavailable("a reader gave up".into())),
        Err(_) => Err(late()),
    }
}

/// Until the queue is closed and empty. The files are given up behind the
/// connection.
pub(super) fn run(files: Arc<Files>, mut conn: Connection, jobs: Jobs<Read>) {
    while let Ok(read) = jobs.recv_at_rest() {
        // Nobody waits any more, and others do.
        if Instant::now() >= read.deadline {
            continue;
        }
        // A reader changes nothing, so one that panicked is as good as before.
        let done = catch_unwind(AssertUnwindSafe(|| {
            (read.run)(files.check().map(|()| &mut conn));
        }));
        if done.is_err() {
            tracing::error!("a query of the store panicked");
        }
    }
}
