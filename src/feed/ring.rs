use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::packed::{Packed, WORTH};
use crate::domain::{ClientMessageId, Frame, Row, Seq, UserName};

/// Most bytes of several messages that are put together into one chunk: the
/// default, and so the largest safe, HTTP/2 frame (RFC 9113, 6.5.2). A single
/// message may be larger.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// A newest message of up to so many bytes outlives a cut of its ring.
const KEPT: usize = 1024;

/// Bytes of an entry that are not in its frame and its own struct, about: what is
/// shared with it is counted, and the sender's name and id.
const OWNED: usize = 64;

/// The newest committed messages of a chat, framed, bounded in number and in
/// bytes. The newest message always stays, whatever its size.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    /// The seq of the newest entry; of the newest message before the ring
    /// while it is empty.
    last: Seq,
    bytes: usize,
    bound: RingBound,
    /// Of long messages that somebody has asked for in gzip. That may take as much again
    /// as the frame, and counts so. Apart from the entries, which all readers walk over.
    packed: BTreeMap<Seq, Packed>,
    /// What the last reader of several messages got. Readers move together, so
    /// the next one mostly wants the same.
    shared: Option<Chunk>,
}

#[derive(Debug, Clone, Copy)]
pub struct RingBound {
    pub messages: usize,
    pub bytes: usize,
}

/// A message in the ring: its frame, and what it takes to make the sender's
/// own frame of it.
#[derive(Debug, Clone)]
pub struct Entry {
    frame: Frame,
    from: UserName,
    client_message_id: Option<ClientMessageId>,
}

// Each reader walks over all entries that it is to get: one more word here, and the
// deliveries of a fan-out cost a fifth more.
const _: () = assert!(size_of::<Entry>() <= 64);

/// Whole frames of the messages behind one seq up to and with `through`.
#[derive(Debug, Clone)]
pub struct Chunk {
    after: Seq,
    pub through: Seq,
    /// The ring's newest message.
    pub newest: Seq,
    pub bytes: Bytes,
    /// The same in gzip, for who takes it so.
    pub packed: Option<Packed>,
}

/// What a cursor finds.
#[derive(Debug)]
pub enum Read {
    Chunk(Chunk),
    /// There is nothing newer.
    CaughtUp,
    /// The next message has fallen off the tail: history has it.
    Behind {
        newest: Seq,
    },
}

impl Entry {
    pub fn new(row: &Row) -> Self {
        Self {
            frame: Frame::encode(row),
            from: row.from.clone(),
            client_message_id: row.client_message_id.clone(),
        }
    }

    /// One that another node has made of a row, out of its parts.
    pub fn from_parts(
        frame: Frame,
        from: UserName,
        client_message_id: Option<ClientMessageId>,
    ) -> Self {
        Self {
            frame,
            from,
            client_message_id,
        }
    }

    /// What another node needs to make the same of it.
    pub fn parts(&self) -> (&Bytes, &UserName, Option<&ClientMessageId>) {
        let id = self.client_message_id.as_ref();
        (self.frame.as_bytes(), &self.from, id)
    }

    /// The frame as `viewer` is to see it: only the sender's names the
    /// `client_message_id`.
    pub fn frame_for(&self, viewer: &UserName) -> Frame {
        match self.own_id(viewer) {
            Some(id) => self.frame.with_client_message_id(id),
            None => self.frame.clone(),
        }
    }

    /// The id by which `viewer` posted the message, if it did, and by one.
    fn own_id(&self, viewer: &UserName) -> Option<&ClientMessageId> {
        let id = self.client_message_id.as_ref();
        id.filter(|_| self.from == *viewer)
    }
}

impl Ring {
    /// An empty ring behind the message `last`.
    pub fn new(last: Seq, bound: RingBound) -> Self {
        Self {
            entries: VecDeque::new(),
            last,
            bytes: 0,
            bound,
            packed: BTreeMap::new(),
            shared: None,
        }
    }

    /// The seq of the oldest entry; one behind the last, if there is none.
    pub fn first(&self) -> Seq {
        self.last - self.entries.len() as Seq + 1
    }

    /// The seq of the newest entry, or of the newest message before the ring.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Forgets all entries, and goes on behind the message `last`.
    pub fn begin(&mut self, last: Seq) {
        *self = Self::new(last, self.bound);
    }

    /// What comes behind `after`, up to about so many bytes, and one entry at least;
    /// `None` if the ring does not have the first of it.
    pub fn entries(&self, after: Seq, most: usize) -> Option<impl Iterator<Item = &Entry>> {
        let start = usize::try_from(after + 1 - self.first()).ok()?;
        let start = start.min(self.entries.len());
        let mut bytes = 0;
        let fitting = self.entries.range(start..).take_while(move |entry| {
            let first = bytes == 0;
            bytes += entry.frame.len();
            first || bytes <= most
        });
        Some(fitting)
    }

    /// Appends the messages of one commit, which follow the last. Until the next
    /// commit they all stay, however many, as far as their bytes allow: every
    /// reader who was there is to find them without asking the store.
    pub fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut most = 0;
        for entry in entries {
            self.bytes += entry.frame.len();
            self.entries.push_back(entry);
            self.last += 1;
            most += 1;
            self.trim(most.max(self.bound.messages));
        }
    }

    /// Forgets all entries, since history has them, but for a small newest one: most
    /// readers are one behind at most.
    pub fn cut(&mut self) {
        let newest = self.entries.pop_back();
        let newest = newest.filter(|entry| entry.frame.len() <= KEPT);
        self.entries = newest.into_iter().collect();
        self.bytes = self.entries.iter().map(|entry| entry.frame.len()).sum();
        self.packed.clear();
        self.shared = None;
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |chunk| chunk.bytes.len());
        let entries = self.entries.capacity() * size_of::<Entry>() + self.entries.len() * OWNED;
        self.bytes + shared + entries
    }

    fn trim(&mut self, most: usize) {
        while self.entries.len() > 1 && (self.entries.len() > most || self.bytes > self.bound.bytes)
        {
            let seq = self.first();
            let oldest = self.entries.pop_front();
            let bytes = oldest.map_or(0, |entry| entry.frame.len());
            let packed = self.packed.remove(&seq).is_some();
            self.bytes -= bytes * (1 + usize::from(packed));
        }
    }

    /// What comes behind `after` for `viewer`: one message of any size, or
    /// several in one chunk of at most [`CHUNK_BYTES`]. For a viewer that `packs`, a
    /// message that is worth it comes alone.
    pub fn read(&mut self, after: Seq, viewer: &UserName, packs: bool) -> Read {
        if after >= self.last {
            return Read::CaughtUp;
        }
        if after + 1 < self.first() {
            return Read::Behind { newest: self.last };
        }
        let start = (after + 1 - self.first()) as usize;
        let (count, bytes) = self.fitting(start, packs);
        let through = after + count as Seq;
        let entries = self.entries.range(start..start + count);

        if count == 1 {
            let frame = self.entries[start].frame_for(viewer);
            let is_own = self.entries[start].own_id(viewer).is_some();
            let packed = (packs && !is_own).then(|| self.pack(start, through));
            let packed = packed.flatten();
            return Read::Chunk(Chunk {
                after,
                through,
                newest: self.last,
                bytes: frame.into_bytes(),
                packed,
            });
        }
        let own = entries.clone().filter_map(|entry| entry.own_id(viewer));
        let more: usize = own.map(Frame::len_of_id).sum();
        if more > 0 {
            let mut out = BytesMut::with_capacity(bytes + more);
            for entry in entries {
                match entry.own_id(viewer) {
                    Some(id) => entry.frame.put_with_client_message_id(id, &mut out),
                    None => out.extend_from_slice(entry.frame.as_bytes()),
                }
            }
            return Read::Chunk(Chunk {
                after,
                through,
                newest: self.last,
                bytes: out.freeze(),
                packed: None,
            });
        }
        if let Some(chunk) = &self.shared
            && chunk.after == after
            && chunk.through == through
        {
            return Read::Chunk(Chunk {
                newest: self.last,
                ..chunk.clone()
            });
        }
        let chunk = Chunk {
            after,
            through,
            newest: self.last,
            bytes: concat(entries.map(|entry| &entry.frame), bytes),
            packed: None,
        };
        self.shared = Some(chunk.clone());
        Read::Chunk(chunk)
    }

    /// The place of an entry in gzip, if it is worth it.
    fn pack(&mut self, at: usize, seq: Seq) -> Option<Packed> {
        let bytes = self.entries[at].frame.len();
        if !WORTH.contains(&bytes) {
            return None;
        }
        let packed = self.packed.entry(seq).or_insert_with(|| {
            self.bytes += bytes;
            Packed::default()
        });
        Some(packed.clone())
    }

    /// How many entries from `start` fit into a chunk, at least one, and their
    /// bytes.
    fn fitting(&self, start: usize, packs: bool) -> (usize, usize) {
        if packs {
            return self.fitting_packed(start);
        }
        let mut bytes = self.entries[start].frame.len();
        let mut count = 1;
        for entry in self.entries.range(start + 1..) {
            if bytes + entry.frame.len() > CHUNK_BYTES {
                break;
            }
            bytes += entry.frame.len();
            count += 1;
        }
        (count, bytes)
    }

    /// The same where long messages come alone.
    fn fitting_packed(&self, start: usize) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for entry in self.entries.range(start..) {
            let length = entry.frame.len();
            if count > 0 && (bytes + length > CHUNK_BYTES || WORTH.contains(&length)) {
                break;
            }
            bytes += length;
            count += 1;
            if WORTH.contains(&length) {
                break;
            }
        }
        (count, bytes)
    }
}

fn concat<'a>(frames: impl Iterator<Item = &'a Frame>, bytes: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes);
    for frame in frames {
        out.extend_from_slice(frame.as_bytes());
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatId, MessageId, Timestamp};

    fn entry(seq: Seq, text_len: usize, id: &str) -> Entry {
        Entry::new(&Row {
            chat: ChatId::new(1).unwrap(),
            seq,
            id: MessageId(seq),
            from: UserName::new("alice").unwrap(),
            text: "x".repeat(text_len).into(),
            client_message_id: ClientMessageId::from_wire(id).unwrap(),
            created_at: Timestamp(seq),
        })
    }

    fn ring(messages: usize, bytes: usize) -> Ring {
        Ring::new(0, RingBound { messages, bytes })
    }

    fn name(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    fn chunk(read: Read) -> Chunk {
        match read {
            Read::Chunk(chunk) => chunk,
            other => panic!("no chunk: {other:?}"),
        }
    }

    #[test]
    fn p4_p6_a_cut_leaves_a_small_newest_message_and_goes_on_behind_it() {
        for (size, first) in [(10, 8), (2 * KEPT, 9)] {
            let mut ring = ring(256, 1 << 20);
            for seq in 1..=8 {
                ring.append([entry(seq, size, "")]);
            }
            let before = ring.weight();
            ring.cut();
            assert_eq!((ring.first(), ring.last), (first, 8));
            assert!(ring.weight() < before / 4, "{} of {before}", ring.weight());
            let bob = name("bob");
            assert!(matches!(ring.read(8, &bob, false), Read::CaughtUp));
            assert!(matches!(
                ring.read(6, &bob, false),
                Read::Behind { newest: 8 }
            ));
            ring.append([entry(9, size, "")]);
            assert_eq!(chunk(ring.read(8, &bob, false)).through, 9);
        }
    }

    #[test]
    fn p6_the_ring_keeps_to_both_bounds() {
        let mut ring = ring(4, 1_000);
        for seq in 1..=10 {
            ring.append([entry(seq, 10, "")]);
        }
        assert_eq!((ring.first(), ring.last), (7, 10));
        ring.append([entry(11, 5_000, "")]);
        assert_eq!((ring.first(), ring.last), (11, 11), "the newest stays");
        assert!(matches!(
            ring.read(9, &name("bob"), false),
            Read::Behind { newest: 11 }
        ));
        assert!(matches!(ring.read(11, &name("bob"), false), Read::CaughtUp));
    }

    #[test]
    fn a_commit_stays_whole_until_the_next_one() {
        let mut ring = ring(4, 1_000);
        let len = entry(111, 10, "").frame.len() as Seq;
        ring.append((1..=10).map(|seq| entry(seq, 10, "")));
        assert_eq!((ring.first(), ring.last), (1, 10));
        ring.append([entry(11, 10, "")]);
        assert_eq!((ring.first(), ring.last), (8, 11));
        ring.append((12..=111).map(|seq| entry(seq, 10, "")));
        let kept = ring.last - ring.first() + 1;
        assert_eq!(kept, 1_000 / len, "as far as the bytes allow");
    }

    #[test]
    fn several_messages_share_one_chunk() {
        let mut ring = ring(100, 1 << 20);
        ring.append((1..=100).map(|seq| entry(seq, 300, "")));
        let first = chunk(ring.read(0, &name("bob"), false));
        assert!(first.bytes.len() <= CHUNK_BYTES && first.through > 40);
        let again = chunk(ring.read(0, &name("carol"), false));
        assert_eq!(
            first.bytes.as_ptr(),
            again.bytes.as_ptr(),
            "not copied again"
        );
    }

    #[test]
    fn only_the_sender_gets_the_client_message_id() {
        let mut ring = ring(100, 1 << 20);
        ring.append((1..=3).map(|seq| entry(seq, 10, "key")));
        let others = chunk(ring.read(0, &name("bob"), false)).bytes;
        let own = chunk(ring.read(0, &name("alice"), false)).bytes;
        assert_eq!(own.len(), others.len() + 3 * (2 + "key".len()));
        let frames = ring.entries.iter().map(|e| e.frame_for(&name("alice")));
        assert_eq!(own, concat(frames.collect::<Vec<_>>().iter(), own.len()));
        let others_again = chunk(ring.read(0, &name("bob"), false)).bytes;
        assert_eq!(others, others_again);
    }
    #[test]
    fn p4_p6_long_messages_come_alone_to_who_packs_and_count_twice() {
        let mut ring = ring(8, 20_000);
        for size in [10, 10, 3_000, 10, 3_000, 100_000] {
            let seq = ring.last + 1;
            ring.append([entry(seq, size, "k")]);
            if size == 100_000 {
                assert_eq!(ring.first(), seq, "more than there is room for");
                continue;
            }
            let before = ring.bytes;
            let alone = chunk(ring.read(seq - 1, &name("bob"), true));
            assert_eq!(alone.packed.is_some(), size == 3_000);
            let held = if size == 3_000 { alone.bytes.len() } else { 0 };
            assert_eq!(ring.bytes - before, held);
            assert!(
                chunk(ring.read(seq - 1, &name("bob"), false))
                    .packed
                    .is_none()
            );
            assert!(
                chunk(ring.read(seq - 1, &name("alice"), true))
                    .packed
                    .is_none()
            );
            let steps = [2, 3, 4, 5];
            let mut at = 0;
            for step in steps.into_iter().take_while(|step| *step <= seq) {
                let chunk = chunk(ring.read(at, &name("bob"), true));
                assert_eq!(chunk.through, step.min(seq));
                at = chunk.through;
            }
        }
        assert!(ring.bytes > 100_000 && ring.bytes < 101_000);
        assert!(chunk(ring.read(5, &name("bob"), true)).packed.is_none());
    }
}
