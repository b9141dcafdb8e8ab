//! The numbers of one server: made once, handed to the rooms, read by `/metrics`
//! and the page.
//!
//! The cells are our own, because a number is added to for every message and
//! every delivery: the ready-made counters are atomic read-modify-writes on lines
//! that all cores share, and the ready-made histograms take a lock. The text
//! comes from `prometheus-client`, the official encoder.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use super::{
    ahead::Ahead,
    cluster,
    method::Method,
    names::{AUTH_OUTCOMES, CODES, METHODS, REASONS},
    sheet::{Counts, Histogram, Layout, Sheet, Sum},
};

/// What came of the check of a token.
#[derive(Debug, Clone, Copy)]
pub enum AuthOutcome {
    /// The cache knew the answer.
    Hit,
    Miss,
    Refused,
    /// Nobody could be asked.
    Failed,
}

/// What is looked up when somebody asks, and not kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct Depths {
    /// Sends that wait for shards.
    pub mailbox: u64,
    /// Connections that lanes have opened.
    pub lane_connects: u64,
}

/// The numbers of one server.
#[derive(Debug)]
pub struct Metrics {
    pub(super) sheet: Sheet,
    pub(super) places: Places,
    pub(super) started: SystemTime,
    pub(super) epoch: Instant,
    /// When each lane took its batch up, in microseconds since `epoch`, or 0.
    pub(super) lanes: Box<[AtomicU64]>,
    depths: OnceLock<DepthsProbe>,
    pub ahead: Ahead,
}

struct DepthsProbe(Box<dyn Fn() -> Depths + Send + Sync>);

impl std::fmt::Debug for DepthsProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DepthsProbe")
    }
}

#[derive(Debug)]
pub(super) struct Places {
    pub calls: [[Sum; CODES.len()]; METHODS.len()],
    pub call_micros: [Histogram; METHODS.len()],
    pub refusals: [Sum; REASONS.len()],
    pub auth: [Sum; AUTH_OUTCOMES.len()],
    pub deliveries: Sum,
    pub readers: Sum,
    pub resumes: Sum,
    pub keys_unusable: Sum,
    pub chats: Sum,
    pub memory_budget: Sum,
    pub memory_held: Sum,
    pub pages_held: Sum,
    pub answers_held: Sum,
    pub requests_held: Sum,
    pub rings_cut: Sum,
    pub lane_depth: Sum,
    pub stored: Sum,
    pub batch_rows: Histogram,
    pub batch_bytes: Histogram,
    pub batch_micros: Histogram,
    pub commit_micros: Histogram,
    pub lane_retries: Sum,
    pub lane_conflicts: Sum,
    pub lane_unknown: Sum,
    pub ring_reads: Sum,
    pub history_reads: Sum,
    pub messages_missing: Sum,
    pub messages_lost: Sum,
    pub cursor_lag: Histogram,
    pub failed_exports: Sum,
    pub cluster: cluster::Places,
}

impl Metrics {
    /// For a server with so many writer lanes.
    pub fn new(lanes: usize) -> Arc<Self> {
        let mut l = Layout::default();
        let places = Places {
            calls: std::array::from_fn(|_| std::array::from_fn(|_| l.counter())),
            call_micros: std::array::from_fn(|_| l.histogram()),
            refusals: std::array::from_fn(|_| l.counter()),
            auth: std::array::from_fn(|_| l.counter()),
            deliveries: l.counter(),
            readers: l.counter(),
            resumes: l.counter(),
            keys_unusable: l.counter(),
            chats: l.counter(),
            memory_budget: l.counter(),
            memory_held: l.counter(),
            pages_held: l.counter(),
            answers_held: l.counter(),
            requests_held: l.counter(),
            rings_cut: l.counter(),
            lane_depth: l.counter(),
            stored: l.counter(),
            batch_rows: l.histogram(),
            batch_bytes: l.histogram(),
            batch_micros: l.histogram(),
            commit_micros: l.histogram(),
            lane_retries: l.counter(),
            lane_conflicts: l.counter(),
            lane_unknown: l.counter(),
            ring_reads: l.counter(),
            history_reads: l.counter(),
            messages_missing: l.counter(),
            messages_lost: l.counter(),
            cursor_lag: l.histogram(),
            failed_exports: l.counter(),
            cluster: cluster::Places::new(&mut l),
        };
        Arc::new(Self {
            sheet: Sheet::new(&l),
            places,
            started: SystemTime::now(),
            epoch: Instant::now(),
            lanes: (0..lanes).map(|_| AtomicU64::new(0)).collect(),
            depths: OnceLock::new(),
            ahead: Ahead::default(),
        })
    }

    /// Says once how depths are looked up.
    pub fn probe_depths(&self, probe: impl Fn() -> Depths + Send + Sync + 'static) {
        self.depths.get_or_init(|| DepthsProbe(Box::new(probe)));
    }

    pub(super) fn depths(&self) -> Depths {
        self.depths
            .get()
            .map_or_else(Depths::default, |probe| probe.0())
    }

    // The wire.

    /// A call ended. `code` is gRPC's number.
    pub fn call(&self, method: Method, code: i32, took: Duration) {
        let method = usize::from(method.0);
        let code = usize::try_from(code)
            .ok()
            .filter(|code| *code < CODES.len());
        self.sheet
            .add(self.places.calls[method][code.unwrap_or(2)], 1);
        self.sheet
            .observe(self.places.call_micros[method], micros(took));
    }

    /// A call, a stream or a post was refused, for this `ErrorInfo` reason.
    pub fn refused(&self, reason: &str) {
        let known = REASONS.iter().position(|known| *known == reason);
        let at = known.unwrap_or(REASONS.len() - 1);
        self.sheet.add(self.places.refusals[at], 1);
        match reason {
            "TOKEN_INVALID" | "TOKEN_EXPIRED" | "NOT_ALLOWED" => self.auth(AuthOutcome::Refused),
            "AUTH_UNAVAILABLE" => self.auth(AuthOutcome::Failed),
            _ => {}
        }
    }

    /// Hits and misses are for the cache to count. What was refused or failed is
    /// counted where it is answered.
    pub fn auth(&self, outcome: AuthOutcome) {
        self.sheet.add(self.places.auth[outcome as usize], 1);
    }

    /// A changed file of keys is of no use.
    pub fn keys_unusable(&self) {
        self.sheet.add(self.places.keys_unusable, 1);
    }

    // Readers.

    pub fn reader_joined(&self) {
        self.sheet.add(self.places.readers, 1);
    }

    /// A stream was opened behind a message, and not at the start or the end.
    pub fn stream_resumed(&self) {
        self.sheet.add(self.places.resumes, 1);
    }

    pub fn reader_left(&self) {
        self.sheet.sub(self.places.readers, 1);
    }

    /// A reader that was `lag` messages behind was given `messages` of the ring.
    pub fn delivered(&self, messages: u64, lag: u64) {
        self.sheet.add(self.places.deliveries, messages);
        self.sheet.add(self.places.ring_reads, 1);
        self.sheet.observe(self.places.cursor_lag, lag);
    }

    /// A reader was given `messages` of a page of history.
    pub fn delivered_from_history(&self, messages: u64) {
        self.sheet.add(self.places.deliveries, messages);
    }

    /// A reader `lag` messages behind has to read a page of history.
    pub fn history_read(&self, lag: u64) {
        self.sheet.add(self.places.history_reads, 1);
        self.sheet.observe(self.places.cursor_lag, lag);
    }

    /// A reader was led past messages that the store does not have.
    pub fn messages_missing(&self, messages: u64) {
        self.sheet.add(self.places.messages_missing, messages);
    }

    /// The store has no more what it had acknowledged.
    pub fn messages_lost(&self, messages: u64) {
        self.sheet.add(self.places.messages_lost, messages);
    }

    // Chats.

    pub fn chat_activated(&self) {
        self.sheet.add(self.places.chats, 1);
    }

    /// So many bytes are allowed; said once.
    pub fn memory_allowed(&self, bytes: u64) {
        self.sheet.add(self.places.memory_budget, bytes);
    }

    /// A shard's chats held `before` and hold `now`, in bytes.
    pub fn memory_held(&self, before: usize, now: usize) {
        self.change(self.places.memory_held, before, now);
    }

    /// A reader's page of history held `before` and holds `now`, in bytes.
    pub fn page_held(&self, before: usize, now: usize) {
        self.change(self.places.pages_held, before, now);
    }

    /// An answer that is not taken holds so many bytes now, where it had `before`.
    pub fn answer_held(&self, before: usize, now: usize) {
        self.change(self.places.answers_held, before, now);
    }

    /// A request that is not whole holds so many bytes now, where it had `before`.
    pub fn request_held(&self, before: usize, now: usize) {
        self.change(self.places.requests_held, before, now);
    }

    pub(super) fn change(&self, gauge: Sum, before: usize, now: usize) {
        match now.checked_sub(before) {
            Some(more) => self.sheet.add(gauge, more as u64),
            None => self.sheet.sub(gauge, (before - now) as u64),
        }
    }

    pub fn rings_cut(&self, rings: u64) {
        self.sheet.add(self.places.rings_cut, rings);
    }

    pub fn chat_let_go(&self) {
        self.sheet.sub(self.places.chats, 1);
    }

    // Traces.

    pub fn export_failed(&self) {
        self.sheet.add(self.places.failed_exports, 1);
    }

    /// All unary calls' latencies in one.
    pub(super) fn unary_micros(&self) -> Counts {
        let mut all = Counts::default();
        for (method, place) in self.places.call_micros.iter().enumerate() {
            if method != usize::from(Method::CONNECT.0) {
                all.merge(&self.sheet.histogram(*place));
            }
        }
        all
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_methods_number_is_the_place_of_its_name() {
        let names = [
            (Method::SEND, "SendMessage"),
            (Method::CONNECT, "ConnectChat"),
            (Method::CREATE, "Create"),
            (Method::GET, "Get"),
            (Method::DELETE, "Delete"),
            (Method::LIST_MESSAGES, "ListMessages"),
            (Method::LIST_CHATS, "ListChats"),
            (Method::ADD_MEMBERS, "AddMembers"),
            (Method::REMOVE_MEMBERS, "RemoveMembers"),
            (Method::EDIT_MESSAGE, "EditMessage"),
            (Method::DELETE_MESSAGE, "DeleteMessage"),
            (Method::REACT, "React"),
        ];
        assert_eq!(names.len() + 1, METHODS.len());
        for (method, name) in names {
            assert_eq!((Method::of(name), method.name()), (method, name));
        }
        assert_eq!(Method::of("Nothing"), Method::OTHER);
        assert_eq!(Method::of("other"), Method::OTHER);
    }
}
