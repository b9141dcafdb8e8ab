//! Coming to rest after a fault: what was not acknowledged is sent again, and
//! the whole history is read.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    load::Plan,
    record::{Book, Histories, Line},
};

/// For how long readers and retries may take to come to rest after a fault.
pub const REST: Duration = Duration::from_secs(30);

/// Sends again, with the id it had, what was not acknowledged. What the history
/// has already must be known as a duplicate.
pub async fn settle(plan: &Plan, book: &Book, before: &Histories) {
    let attempts = book.open().attempts.clone();
    let open = attempts
        .iter()
        .enumerate()
        .filter(|(_, attempt)| attempt.acks.is_empty() && !attempt.refused);
    for (at, attempt) in open {
        let mut peer = plan.peer(at, &attempt.from);
        let text = |line: &&Line| (&line.from, &line.text) == (&attempt.from, &attempt.text);
        let stored = before[&attempt.chat].iter().find(text);
        let give_up = Instant::now() + REST;
        loop {
            match peer.send(attempt.chat, &attempt.text, &attempt.id).await {
                Ok(reply) => {
                    if stored.is_some() && !reply.duplicate {
                        book.fault(format!("{} was stored, the retry again", attempt.id));
                    }
                    break book.ack(at, reply.seq, reply.duplicate);
                }
                Err(status) if Instant::now() > give_up => {
                    break book.fault(format!("{}: {status:?} in the end", attempt.id));
                }
                Err(status) => book.fail(at, status.code()),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// All messages of the chats, page by page, as soon as the server can tell.
pub async fn histories(plan: &Plan, chats: &[i64]) -> Histories {
    let mut peer = plan.peer(0, "owner");
    let mut histories = Histories::new();
    for &chat in chats {
        let history = histories.entry(chat).or_default();
        let give_up = Instant::now() + REST;
        loop {
            let after = history.last().map_or(0, |line: &Line| line.seq);
            match peer.page(chat, after, 1_000).await {
                Ok(page) => {
                    history.extend(page.messages.into_iter().map(|message| Line {
                        seq: message.seq,
                        from: message.from,
                        text: message.text,
                    }));
                    if !page.has_more {
                        break;
                    }
                }
                Err(status) => {
                    assert!(Instant::now() < give_up, "no history of {chat}: {status:?}");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    histories
}
