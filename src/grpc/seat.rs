use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    chats::{Delivery, End, Reader},
    runtime::Spawner,
};

/// How long a stream that has ended keeps its place in the chat for a client
/// that does not read: HTTP/2 has no room then, and never asks for the end.
const LINGER: Duration = Duration::from_secs(5);

/// A stream's place in its chat: the reader, until it is let go.
pub struct Seat(Mutex<Seated>);

enum Seated {
    Reader(Reader),
    LetGo { end: End, delivered: u64 },
}

impl Seat {
    /// `spawner` runs what lets the reader go after the stream's end.
    pub fn take(reader: Reader, spawner: Spawner) -> Arc<Self> {
        let slot = reader.slot().clone();
        let seat = Arc::new(Self(Mutex::new(Seated::Reader(reader))));
        let left = Arc::downgrade(&seat);
        slot.on_end(move |end| {
            let left = left.clone();
            spawner.spawn(async move {
                tokio::time::sleep(LINGER).await;
                if let Some(seat) = left.upgrade() {
                    seat.let_go(end);
                }
            });
        });
        seat
    }

    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Delivery> {
        match &mut *self.lock() {
            Seated::Reader(reader) => reader.poll_next(cx),
            Seated::LetGo { end, .. } => Poll::Ready(Delivery::End(*end)),
        }
    }

    /// Messages that were yielded so far.
    pub fn delivered(&self) -> u64 {
        match &*self.lock() {
            Seated::Reader(reader) => reader.delivered(),
            Seated::LetGo { delivered, .. } => *delivered,
        }
    }

    /// Gives back what the reader holds of the chat and of its history.
    fn let_go(&self, end: End) {
        let delivered = self.delivered();
        let gone = Seated::LetGo { end, delivered };
        // Dropped once the seat is no longer locked.
        let _reader = std::mem::replace(&mut *self.lock(), gone);
    }

    fn lock(&self) -> MutexGuard<'_, Seated> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
