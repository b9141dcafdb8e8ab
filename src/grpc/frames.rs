//! What a client's HTTP/2 frames cost beside what they bring.
//!
//! h2 works off whatever it has read before anything else gets a turn, and some
//! frames of a few bytes cost far more than their bytes: SETTINGS that change the
//! initial window, and GOAWAY, make it walk over all streams of the connection
//! (`proto/streams/send.rs` and `streams.rs`), and each PING has to be answered. So
//! frames are counted by their heads before h2 gets them. A client that sends too
//! many is cut off between two frames, and what it has sent before still counts.
//!
//! The other frames without an end are bounded in h2 itself: resets, HEADERS that
//! are refused, CONTINUATION, DATA with little in it and frames of streams that
//! are no more. WINDOW_UPDATE, PRIORITY and unknown frames cost what reading them
//! does. A client that sends so many of them that they fill its turn waits before it
//! is read again, longer from turn to turn.

use std::time::{Duration, Instant};

use super::limit::Limit;

/// Frames that a connection works off before others have their turn; as many more
/// as the last read has brought, 900 at most. That is under half a millisecond.
const MOST_A_TURN: u16 = 512;

/// A connection with so many streams of a user begins few calls at a time: thousands in a
/// row would be felt, since the first steps of all that a turn begins come before the
/// others' next one.
pub const MANY_STREAMS: usize = 256;

/// What HEADERS count as then. Most begin a call: a turn begins 32, and what the last read
/// has brought.
const CALL: u16 = 16;

/// Behind a read that brought so many calls the next one is then of so many bytes: what
/// begins a dozen or two.
const MANY_CALLS: u16 = 32;
const SIP: usize = 2 * 1024;

/// Of the frames of a turn, so many that bring nothing make it an idle one: a reader
/// of thousands of streams may send a few hundred WINDOW_UPDATEs at once.
const IDLE_A_TURN: u16 = MOST_A_TURN / 10 * 9;

/// After an idle turn nothing is read for so long, and twice as long after each further
/// one, [`MOST_DOUBLED`] times.
const PAUSE: Duration = Duration::from_millis(5);
const MOST_DOUBLED: u8 = 5;

/// SETTINGS and GOAWAY, at once and a second. With the 16,384 streams that a
/// connection has by default such a frame takes 0.2 ms. Clients send SETTINGS when
/// they begin, and as often as they enlarge their windows: each time by half or
/// more, a dozen times in all.
const WALKS: f32 = 48.0;
const WALKS_A_SECOND: f32 = 2.0;

/// PINGs, at once and a second. Clients try a connection every ten seconds or less
/// often; but gRPC's also measure each round trip while they are sent messages, so
/// that each piece of what they are sent allows for one more.
const PINGS: f32 = 100.0;
const PINGS_A_SECOND: f32 = 10.0;
/// In bytes: the shortest message with its frames and its share of the headers.
const PING_PIECE: f32 = 32.0;

const HEAD: usize = 9;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// The last that RFC 9113 knows.
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;

/// HTTP/2's name for "too much" (RFC 9113, 7).
const ENHANCE_YOUR_CALM: u8 = 11;

/// What a client has sent too many of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    #[error("too many SETTINGS or GOAWAY frames")]
    Walks,
    #[error("too many PING frames")]
    Pings,
}

impl Flood {
    pub fn limit(self) -> Limit {
        Limit::Frames
    }

    /// The GOAWAY that says why. It claims no stream to be unseen, since some of
    /// them may have been acted on.
    pub fn farewell(self) -> Vec<u8> {
        // gRPC's clients know this word, and then ask half as often.
        let why: &[u8] = match self {
            Self::Walks => b"too_many_settings",
            Self::Pings => b"too_many_pings",
        };
        let length = 8 + why.len() as u8;
        let head = [0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
        let last_stream = i32::MAX.to_be_bytes();
        let code = [0, 0, 0, ENHANCE_YOUR_CALM];
        [&head[..], &last_stream, &code, why].concat()
    }
}

/// Counts the frames of one connection, from behind the preface on.
#[derive(Debug)]
pub struct Frames {
    /// What has come of the next frame's head.
    head: [u8; HEAD],
    heard: u8,
    /// Bytes to come of the frame whose head has been seen.
    payload: u32,
    in_turn: u16,
    /// Of these, such as bring nothing.
    idle: u16,
    /// HEADERS in the last read, if the connection had many streams.
    calls: u16,
    /// Idle turns, one behind the other.
    idle_turns: u8,
    /// The poll of the connection in which the last turn ended.
    over: Option<u32>,
    /// What may be sent at once, as of `since`.
    walks: f32,
    pings: f32,
    since: Instant,
}

impl Frames {
    pub fn new(now: Instant) -> Self {
        Self {
            head: [0; HEAD],
            heard: 0,
            payload: 0,
            in_turn: 0,
            calls: 0,
            idle: 0,
            idle_turns: 0,
            over: None,
            walks: WALKS,
            pings: PINGS,
            since: now,
        }
    }

    /// Looks at what has been read on a connection that has [`MANY_STREAMS`] or not;
    /// `clock` is asked when something counts.
    ///
    /// # Errors
    /// If that is too much of something: with how many of the bytes come before.
    pub fn read(
        &mut self,
        bytes: &[u8],
        is_crowded: bool,
        clock: impl Fn() -> Instant,
    ) -> Result<(), (usize, Flood)> {
        let mut at = 0;
        self.calls = 0;
        loop {
            let skipped = (bytes.len() - at).min(self.payload as usize);
            self.payload -= skipped as u32;
            at += skipped;
            if at == bytes.len() {
                return Ok(());
            }
            let begin = at;
            let heard = usize::from(self.heard);
            let more = (HEAD - heard).min(bytes.len() - at);
            self.head[heard..heard + more].copy_from_slice(&bytes[at..at + more]);
            at += more;
            self.heard += more as u8;
            if usize::from(self.heard) < HEAD {
                return Ok(());
            }
            self.heard = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.payload = u32::from_be_bytes([0, a, b, c]);
            let is_call = is_crowded && kind == HEADERS;
            self.calls = self.calls.saturating_add(is_call.into());
            let cost = if is_call { CALL } else { 1 };
            self.in_turn = self.in_turn.saturating_add(cost);
            self.idle = self.idle.saturating_add(u16::from(is_idle(kind, flags)));
            if let Some(flood) = counted(kind, flags) {
                self.refill(clock());
                self.count(flood).map_err(|flood| (begin, flood))?;
            }
        }
    }

    fn count(&mut self, flood: Flood) -> Result<(), Flood> {
        let left = match flood {
            Flood::Walks => &mut self.walks,
            Flood::Pings => &mut self.pings,
        };
        if *left < 1.0 {
            return Err(flood);
        }
        *left -= 1.0;
        Ok(())
    }

    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs_f32();
        self.since = now;
        self.walks = WALKS.min(self.walks + seconds * WALKS_A_SECOND);
        self.pings = PINGS.min(self.pings + seconds * PINGS_A_SECOND);
    }

    /// How many bytes the next read is to bring at most.
    pub fn most_bytes(&self) -> usize {
        match self.calls {
            MANY_CALLS.. => SIP,
            _ => usize::MAX,
        }
    }

    /// So many bytes have been sent to the client.
    pub fn wrote(&mut self, bytes: usize) {
        self.pings = PINGS.min(self.pings + bytes as f32 / PING_PIECE);
    }

    /// The turn is over for others to have theirs; asked before each read. `poll`
    /// says which poll of the connection this is: hyper asks h2 again behind each
    /// call that it has begun, and there is one turn in a poll.
    pub fn end_turn(&mut self, poll: u32) -> Option<Turn> {
        if self.over == Some(poll) {
            return Some(Turn::Over);
        }
        if self.in_turn < MOST_A_TURN {
            return None;
        }
        let was_idle = self.idle >= IDLE_A_TURN;
        (self.in_turn, self.idle) = (0, 0);
        self.over = Some(poll);
        if !was_idle {
            self.idle_turns = 0;
            return Some(Turn::Over);
        }
        let doubled = self.idle_turns.min(MOST_DOUBLED);
        self.idle_turns = self.idle_turns.saturating_add(1);
        Some(Turn::Idle(PAUSE * (1 << doubled)))
    }

    /// There was nothing to read, which ends the turn as well.
    pub fn rest(&mut self) {
        (self.in_turn, self.idle, self.idle_turns) = (0, 0, 0);
    }
}

/// How a turn has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Others have theirs before the next one.
    Over,
    /// The next one is not to come for so long.
    Idle(Duration),
}

/// Whether a frame brings nothing by itself.
fn is_idle(kind: u8, flags: u8) -> bool {
    match kind {
        PRIORITY | WINDOW_UPDATE => true,
        SETTINGS => flags & ACK != 0,
        _ => kind > CONTINUATION,
    }
}

/// What a frame counts as.
fn counted(kind: u8, flags: u8) -> Option<Flood> {
    match kind {
        SETTINGS if flags & ACK == 0 => Some(Flood::Walks),
        GOAWAY => Some(Flood::Walks),
        PING => Some(Flood::Pings),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::fuzz;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = (payload as u32).to_be_bytes();
        [
            &[a, b, c, kind, flags, 0, 0, 0, 1][..],
            &vec![PING; payload],
        ]
        .concat()
    }

    fn frames() -> Frames {
        Frames::new(Instant::now())
    }

    /// As of the last refill: no time passes by itself.
    fn read(frames: &mut Frames, bytes: &[u8]) -> Result<(), (usize, Flood)> {
        let now = frames.since;
        frames.read(bytes, false, || now)
    }

    fn read_crowded(frames: &mut Frames, bytes: &[u8]) -> Result<(), (usize, Flood)> {
        let now = frames.since;
        frames.read(bytes, true, || now)
    }

    #[test]
    fn p6_what_costs_a_walk_or_an_answer_is_cut_off_between_two_frames() {
        for (kind, most, flood) in [
            (SETTINGS, WALKS, Flood::Walks),
            (GOAWAY, WALKS, Flood::Walks),
            (PING, PINGS, Flood::Pings),
        ] {
            let data = frame(0, 0, 1_000);
            let one = frame(kind, 0, 8);
            let flooded = [data.clone(), one.repeat(2_000)].concat();
            let before = data.len() + one.len() * most as usize;
            assert_eq!(read(&mut frames(), &flooded), Err((before, flood)));
        }
        let harmless = [frame(SETTINGS, ACK, 0), frame(0, 0, 9), frame(1, 4, 20)];
        assert_eq!(
            read(&mut frames(), &harmless.concat().repeat(5_000)),
            Ok(())
        );
    }

    #[test]
    fn a_client_that_keeps_to_its_pace_is_never_cut_off() {
        let mut frames = frames();
        let mut now = frames.since;
        for _ in 0..1_000 {
            now += Duration::from_millis(600);
            frames.refill(now);
            let more = [frame(SETTINGS, 0, 6), frame(PING, 0, 8).repeat(5)].concat();
            assert_eq!(read(&mut frames, &more), Ok(()));
        }
        // While it is sent messages, it may measure every round trip.
        for _ in 0..10_000 {
            assert_eq!(read(&mut frames, &frame(PING, 0, 8)), Ok(()));
            frames.wrote(80);
        }
        // The answers to PINGs alone earn no more of them for long.
        let mut answered = 0;
        while read(&mut frames, &frame(PING, 0, 8)).is_ok() {
            frames.wrote(17);
            answered += 1;
            assert!(answered < 1_000);
        }
    }

    #[test]
    fn a_turn_has_so_many_frames_and_a_poll_one_turn() {
        let mut frames = frames();
        read(&mut frames, &frame(1, 0, 5).repeat(511)).unwrap();
        assert_eq!(frames.end_turn(1), None);
        read(&mut frames, &frame(1, 0, 5)).unwrap();
        assert_eq!(frames.end_turn(1), Some(Turn::Over));
        assert_eq!(frames.end_turn(1), Some(Turn::Over));
        assert_eq!(frames.end_turn(2), None);
        read(&mut frames, &frame(1, 0, 5).repeat(511)).unwrap();
        frames.rest();
        read(&mut frames, &frame(1, 0, 5)).unwrap();
        assert_eq!(frames.end_turn(2), None);
    }

    #[test]
    fn p6_with_many_streams_a_turn_begins_few_calls_and_the_next_read_is_small() {
        let mut frames = frames();
        let calls = |count| frame(HEADERS, 4, 20).repeat(count);
        read(&mut frames, &calls(511)).unwrap();
        assert_eq!(
            (frames.end_turn(0), frames.most_bytes()),
            (None, usize::MAX)
        );
        frames.rest();
        read_crowded(&mut frames, &calls(31)).unwrap();
        assert_eq!(
            (frames.end_turn(1), frames.most_bytes()),
            (None, usize::MAX)
        );
        read_crowded(&mut frames, &calls(1)).unwrap();
        assert_eq!(frames.end_turn(1), Some(Turn::Over));
        read_crowded(&mut frames, &calls(32)).unwrap();
        assert_eq!(frames.most_bytes(), SIP);
        read_crowded(&mut frames, &frame(0, 0, 10)).unwrap();
        assert_eq!(frames.most_bytes(), usize::MAX);
    }

    #[test]
    fn p6_turns_that_bring_nothing_are_further_and_further_apart() {
        for (kind, flags) in [
            (PRIORITY, 0),
            (WINDOW_UPDATE, 0),
            (SETTINGS, ACK),
            (0x33, 0),
        ] {
            let mut frames = frames();
            let mut turn = |poll, idle: usize, busy: usize| {
                let bytes = [
                    frame(kind, flags, 4).repeat(idle),
                    frame(1, 4, 9).repeat(busy),
                ];
                read(&mut frames, &bytes.concat()).unwrap();
                frames.end_turn(poll)
            };
            let pauses = [5, 10, 20, 40, 80, 160, 160].map(Duration::from_millis);
            for (poll, pause) in pauses.into_iter().enumerate() {
                assert_eq!(turn(poll as u32, 512, 0), Some(Turn::Idle(pause)), "{kind}");
            }
            // Who works is not held up, and neither is who rests now and then.
            assert_eq!(turn(10, 400, 112), Some(Turn::Over));
            assert_eq!(turn(11, 512, 0), Some(Turn::Idle(PAUSE)));
            frames.rest();
            let bytes = frame(kind, flags, 4).repeat(512);
            read(&mut frames, &bytes).unwrap();
            assert_eq!(frames.end_turn(12), Some(Turn::Idle(PAUSE)));
        }
    }

    /// However the bytes come, they are cut at the same place: less what had been
    /// handed on of a head that came in pieces.
    #[test]
    fn p10_fuzz_frames_of_http2() {
        fuzz("http2-frames", |input| {
            let Some((size, rest)) = input.split_first() else {
                return;
            };
            let bytes = [rest, &frame(PING, 0, 3).repeat(200)].concat();
            let cut = |size: usize| {
                let mut frames = frames();
                let mut passed = 0;
                for piece in bytes.chunks(size) {
                    match read(&mut frames, piece) {
                        Ok(()) => passed += piece.len(),
                        Err((before, flood)) => return (passed + before, Some(flood)),
                    }
                }
                (passed, None)
            };
            let (whole, in_pieces) = (cut(bytes.len()), cut(usize::from(*size).max(1)));
            assert_eq!(whole.1, in_pieces.1);
            assert!(in_pieces.0 >= whole.0 && in_pieces.0 - whole.0 < HEAD);
        });
    }
}
