//! A lane whose session is the server's own.
//!
//! A batch is `BEGIN; COPY; COMMIT` in two round trips: BEGIN goes out with the COPY,
//! COMMIT with the end of the data. While batches follow each other it is one: the next
//! one's BEGIN and COPY go out with COMMIT. A COPY without BEGIN would take as many, and
//! its answer is not the commit: through the extended protocol the commit only comes with
//! the Sync behind it, and tokio-postgres does not wait for that. So the outcome is
//! unknown if, and only if, the connection is lost after COMMIT was handed to the driver.

use std::{
    mem,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, future::join3, poll};
use tokio::time::timeout;

use super::{
    changes::with_changes,
    link::{Failure, Link, stalled, unavailable},
};
use crate::{
    domain::Row,
    store::{
        StoreError,
        postgres::{
            copy::{Encoder, Layout},
            error::{Stalled, WaitGivenUp, is_answer, is_lock_timeout, unchanged},
        },
    },
};

/// Commits the rows; if they are one of several batches, it opens the next one's COPY.
pub(super) async fn write(
    link: &mut Link,
    rows: &[Row],
    follows: bool,
    stall: Duration,
) -> Result<(), Failure> {
    let layout = Layout::of(rows);
    let ahead = link.ahead.take();
    let (opened, opening) =
        ahead.unwrap_or_else(|| (layout, link.open(Some(link.begin.alone), layout)));
    let sink = async {
        let sink = opening.await?;
        match (opened, layout) {
            (Layout::Plain, Layout::Whole) => link.open_whole(sink).await,
            _ => Ok(sink),
        }
    };
    let sink = timeout(stall, sink).await;
    let mut sink = pin!(sink.map_err(|_| Failure::lost(stalled()))??);

    for chunk in Encoder::new(rows, opened.max(layout)) {
        timeout(stall, sink.feed(chunk))
            .await
            .map_err(|_| Failure::lost(stalled()))?
            .map_err(|e| Failure::lost(unavailable(e)))?;
    }

    // The driver writes requests in the order in which they were made, so
    // COMMIT follows the end of the data. If the COPY has failed, it rolls
    // back.
    let session = link.session.clone();
    let commit = if follows { link.begin.behind } else { "COMMIT" };
    let before = session.waits_given_up();
    let mut said = link.epochs.say(rows, Instant::now());
    let sql = with_changes(mem::take(&mut said.sql), rows);
    let saying = async {
        match &*sql {
            "" => Ok(()),
            sql => session.batch_execute(sql).await,
        }
    };
    let ending = join3(sink.finish(), saying, session.batch_execute(commit));
    let mut ending = pin!(timeout(stall, ending));
    let ended = match poll!(ending.as_mut()) {
        Poll::Ready(ended) => ended,
        Poll::Pending => {
            if follows {
                link.open_ahead(layout).await;
            }
            ending.await
        }
    };
    match ended {
        Ok((Ok(copied), Ok(()), Ok(()))) if copied == rows.len() as u64 => {
            link.epochs.keep(said);
            match session.waits_given_up() == before {
                true => Ok(()),
                // Committed and visible, but a failover may undo it.
                false => Err(Failure {
                    error: StoreError::OutcomeUnknown(WaitGivenUp.into()),
                    reusable: true,
                }),
            }
        }
        // Somebody's trigger or rule has its own ideas.
        Ok((Ok(copied), Ok(()), Ok(()))) => Err(Failure::lost(StoreError::OutcomeUnknown(
            format!("of {} rows, {copied} were stored", rows.len()).into(),
        ))),
        // An error in COPY's own place: it has not succeeded, so nothing was
        // there to commit.
        Ok((Err(e), _, committed)) if e.as_db_error().is_some() => Err(Failure {
            reusable: is_answer(&e) && committed.is_ok(),
            error: unchanged(e),
        }),
        // The same of what goes with the rows.
        Ok((Ok(_), Err(e), committed)) if e.as_db_error().is_some() => Err(Failure {
            reusable: is_lock_timeout(&e) && committed.is_ok(),
            error: unavailable(e),
        }),
        Ok((Ok(_), Ok(()), Err(e))) if is_answer(&e) => Err(Failure::lost(unchanged(e))),
        Ok((Err(e), ..) | (_, Err(e), _) | (.., Err(e))) => {
            Err(Failure::lost(StoreError::OutcomeUnknown(e.into())))
        }
        Err(_) => Err(Failure::lost(StoreError::OutcomeUnknown(Stalled.into()))),
    }
}
