//! What two nodes say to each other, one way: batches with numbers, over a bus that may
//! lose, double and hold back whatever it likes.
//!
//! Nothing is acknowledged and nothing sent again. The numbers tell the receiver that
//! something is missing, and then both sides start from what they know: see
//! [`super::watch`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::domain::NodeId;

/// A batch is cut at about so many bytes: what NATS needs for a byte is least there.
pub const BATCH_BYTES: usize = 16 * 1024;

/// A link that has nothing to say says its number so often, so that a loss is noticed.
pub const IDLE: Duration = Duration::from_millis(200);

/// One message of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<T> {
    pub from: NodeId,
    /// The first of a sender is 1.
    pub number: u64,
    pub items: Vec<T>,
}

/// The sending half of a link.
#[derive(Debug)]
pub struct Outbox<T> {
    me: NodeId,
    /// Most bytes that wait.
    room: usize,
    bytes: usize,
    waiting: VecDeque<(T, usize)>,
    sent: u64,
    at: Instant,
}

/// The receiving half of a link.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The sender, and the number of its newest batch.
    newest: Option<(NodeId, u64)>,
}

/// What a batch is to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The next one.
    InOrder,
    /// Something before it is missing, or its sender is a new one. It counts, and what it
    /// follows is to be found out.
    BehindAGap,
    /// It came before, or too late: nothing in it counts.
    Stale,
}

impl<T> Outbox<T> {
    pub fn new(me: NodeId, room: usize, now: Instant) -> Self {
        Self {
            me,
            room,
            bytes: 0,
            waiting: VecDeque::new(),
            sent: 0,
            at: now,
        }
    }

    /// Puts an item behind the others, of about so many bytes. If there is no room, it is
    /// given back.
    pub fn request(&mut self, item: T, bytes: usize) -> Result<(), T> {
        if self.bytes + bytes > self.room {
            return Err(item);
        }
        self.bytes += bytes;
        self.waiting.push_back((item, bytes));
        Ok(())
    }

    /// Puts an item behind the others that the receiver can find out by itself. If there
    /// is no room, it is left out, and a number with it, which tells the receiver. False if
    /// it was.
    pub fn tell(&mut self, item: T, bytes: usize) -> bool {
        let fits = self.request(item, bytes).is_ok();
        self.sent += u64::from(!fits);
        fits
    }

    /// The next batch, if there is something to say, or has not been for [`IDLE`].
    pub fn next(&mut self, now: Instant) -> Option<Batch<T>> {
        let is_silent = now.duration_since(self.at) >= IDLE;
        if self.waiting.is_empty() && !is_silent {
            return None;
        }
        let (mut items, mut total) = (Vec::new(), 0);
        while let Some((item, bytes)) = self
            .waiting
            .pop_front_if(|(_, bytes)| total == 0 || total + *bytes <= BATCH_BYTES)
        {
            total += bytes;
            items.push(item);
        }
        self.bytes -= total;
        self.sent += 1;
        self.at = now;
        Some(Batch {
            from: self.me,
            number: self.sent,
            items,
        })
    }
}

impl Inbox {
    pub fn receive<T>(&mut self, batch: &Batch<T>) -> Received {
        let newest = self.newest.replace((batch.from, batch.number));
        match newest {
            Some((from, number)) if from == batch.from && batch.number <= number => {
                self.newest = newest;
                Received::Stale
            }
            Some((from, number)) if from == batch.from && batch.number == number + 1 => {
                Received::InOrder
            }
            _ => Received::BehindAGap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);

    #[test]
    fn batches_are_numbered_cut_and_bounded() {
        let now = Instant::now();
        let mut outbox = Outbox::new(ME, 3 * BATCH_BYTES, now);
        assert_eq!(outbox.next(now), None);
        for item in 0..6 {
            assert_eq!(outbox.request(item, BATCH_BYTES / 2), Ok(()));
        }
        assert_eq!(outbox.request(6, 1), Err(6));
        let batch = |number, items: &[i32]| {
            Some(Batch {
                from: ME,
                number,
                items: items.to_vec(),
            })
        };
        assert_eq!(outbox.next(now), batch(1, &[0, 1]));
        assert_eq!(outbox.next(now), batch(2, &[2, 3]));
        // A large one goes alone.
        assert!(outbox.tell(7, 2 * BATCH_BYTES));
        assert_eq!(outbox.next(now), batch(3, &[4, 5]));
        assert_eq!(outbox.next(now), batch(4, &[7]));
        assert_eq!(outbox.next(now), None);
        assert_eq!(outbox.next(now + IDLE), batch(5, &[]));
        // What is left out leaves a gap.
        assert!(!outbox.tell(8, 4 * BATCH_BYTES));
        assert!(outbox.tell(9, 1));
        assert_eq!(outbox.next(now), batch(7, &[9]));
    }

    #[test]
    fn what_is_missing_is_noticed() {
        let mut inbox = Inbox::default();
        let mut receive = |from, number| {
            inbox.receive(&Batch::<()> {
                from: NodeId(from),
                number,
                items: Vec::new(),
            })
        };
        // It may have said something before.
        assert_eq!(receive(1, 1), Received::BehindAGap);
        assert_eq!(receive(1, 2), Received::InOrder);
        assert_eq!(receive(1, 2), Received::Stale);
        assert_eq!(receive(1, 4), Received::BehindAGap);
        assert_eq!(receive(1, 3), Received::Stale);
        assert_eq!(receive(1, 5), Received::InOrder);
        assert_eq!(receive(2, 6), Received::BehindAGap);
    }
}
