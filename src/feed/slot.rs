use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;

use crate::domain::{ClientMessageId, PostResult, Receipt, UserName};

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The chat was deleted.
    Deleted,
    /// The reader is no longer a member.
    Removed,
    /// The server is shutting down.
    Draining,
    /// The store has lost the chat's newest messages.
    Lost,
    /// The client broke the stream's protocol.
    Misused,
}

/// The answer to a post on a stream that the stream itself must carry: any but
/// "stored", which shows as the message coming by.
#[derive(Debug)]
pub struct PostAnswer {
    pub client_message_id: Option<ClientMessageId>,
    pub result: PostResult,
}

/// One stream's meeting place: the chat's owner and the posting half leave things here
/// for the reading half, and wake it.
#[derive(Debug)]
pub struct Slot {
    user: UserName,
    /// The reading half has found nothing and wants to be woken.
    waiting: AtomicBool,
    /// `inbox` has something for the reading half.
    attention: AtomicBool,
    inbox: Mutex<Inbox>,
    /// Posts that have neither been stored nor had their answer taken.
    posts: AtomicU32,
    max_posts: u32,
    poster: AtomicWaker,
    ended: OnceLock<OnEnd>,
    /// The user reads the chat no more, and the reading half is yet to go.
    removed: AtomicBool,
}

/// What is to be done when the stream's end has come, whether or not the reading
/// half gets to see it.
struct OnEnd(Box<dyn Fn(End) + Send + Sync>);

impl fmt::Debug for OnEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEnd")
    }
}

#[derive(Debug, Default)]
struct Inbox {
    waker: Option<Waker>,
    answers: VecDeque<PostAnswer>,
    end: Option<End>,
}

/// What the reading half finds in its inbox.
#[derive(Debug)]
pub(super) enum Note {
    Answer(PostAnswer),
    End(End),
}

impl Slot {
    /// `max_posts` bounds the posts under way, and with them the answers that
    /// wait (P6).
    pub fn new(user: UserName, max_posts: u32) -> Self {
        Self {
            user,
            waiting: AtomicBool::new(false),
            attention: AtomicBool::new(false),
            inbox: Mutex::default(),
            posts: AtomicU32::new(0),
            max_posts,
            poster: AtomicWaker::new(),
            ended: OnceLock::new(),
            removed: AtomicBool::new(false),
        }
    }

    /// Has `act` called when the stream's end has come; it must not block. Only
    /// the first call counts.
    pub fn on_end(&self, act: impl Fn(End) + Send + Sync + 'static) {
        self.ended.get_or_init(|| OnEnd(Box::new(act)));
    }

    pub fn user(&self) -> &UserName {
        &self.user
    }

    // The reading half.

    pub(super) fn register(&self, waker: &Waker) {
        let mut inbox = self.inbox();
        match &mut inbox.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(super) fn wait(&self) {
        self.waiting.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_note(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    pub(super) fn take_note(&self) -> Option<Note> {
        let mut inbox = self.inbox();
        if let Some(answer) = inbox.answers.pop_front() {
            drop(inbox);
            self.post_done();
            return Some(Note::Answer(answer));
        }
        self.attention.store(false, Ordering::SeqCst);
        inbox.end.take().map(Note::End)
    }

    // The posting half.

    /// Ready once another post may be under way, which it then is.
    pub fn poll_post(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.posts.load(Ordering::Acquire) >= self.max_posts {
            self.poster.register(cx.waker());
            if self.posts.load(Ordering::Acquire) >= self.max_posts {
                return Poll::Pending;
            }
        }
        self.posts.fetch_add(1, Ordering::AcqRel);
        Poll::Ready(())
    }

    fn post_done(&self) {
        let before = self.posts.fetch_sub(1, Ordering::AcqRel);
        if before == self.max_posts {
            self.poster.wake();
        }
    }

    // Whoever has news for the stream.

    /// The outcome of one of this stream's posts.
    pub fn answer(&self, client_message_id: Option<ClientMessageId>, result: PostResult) {
        if let Ok(Receipt {
            duplicate: false, ..
        }) = result
        {
            return self.post_done();
        }
        self.leave_note(|inbox| {
            inbox.answers.push_back(PostAnswer {
                client_message_id,
                result,
            });
        });
        self.wake();
    }

    /// Ends the stream, whose user reads the chat no more.
    pub(super) fn remove(&self, end: End) {
        self.removed.store(true, Ordering::SeqCst);
        self.end(end);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    /// Ends the stream once its answers are taken. The first reason stands.
    pub fn end(&self, end: End) {
        self.note_end(end);
        self.wake();
    }

    /// The same, for whoever wakes the reading half later.
    pub(super) fn note_end(&self, end: End) {
        self.leave_note(|inbox| {
            inbox.end.get_or_insert(end);
        });
        if let Some(OnEnd(act)) = self.ended.get() {
            act(end);
        }
    }

    /// Wakes the reading half if it waits.
    pub(super) fn wake(&self) {
        if self.waiting.load(Ordering::SeqCst)
            && self.waiting.swap(false, Ordering::SeqCst)
            && let Some(waker) = &self.inbox().waker
        {
            waker.wake_by_ref();
        }
    }

    fn leave_note(&self, write: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox();
        write(&mut inbox);
        self.attention.store(true, Ordering::SeqCst);
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
