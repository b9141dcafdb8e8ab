mod chunks;
mod others;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::{
    item::{About, Item},
    packed::Packed,
};
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

/// … and of one that is no message, beside that.
const OTHER: usize = 48;

/// The newest committed entries of a chat, framed, bounded in number and in
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
    /// Those of the entries that are no messages. Mostly there are none.
    others: BTreeMap<Seq, About>,
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

/// What a reader takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Takes {
    /// Long messages in gzip.
    pub packs: bool,
    /// Entries that are no messages.
    pub entries: bool,
}

/// What a cursor finds.
#[derive(Debug)]
pub enum Read {
    Chunk(Chunk),
    /// Nothing up to and with this one is for this reader.
    Passed(Seq),
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
            others: BTreeMap::new(),
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
    pub fn entries(&self, after: Seq, most: usize) -> Option<impl Iterator<Item = Item>> {
        let start = usize::try_from(after + 1 - self.first()).ok()?;
        let start = start.min(self.entries.len());
        let mut bytes = 0;
        let fitting = self.entries.range(start..).take_while(move |entry| {
            let first = bytes == 0;
            bytes += entry.frame.len();
            first || bytes <= most
        });
        let items = fitting.zip(self.first() + start as Seq..);
        Some(items.map(|(entry, seq)| Item {
            entry: entry.clone(),
            about: self.about(seq),
        }))
    }

    /// Appends the entries of one commit, which follow the last. Until the next
    /// commit they all stay, however many, as far as their bytes allow: every
    /// reader who was there is to find them without asking the store.
    pub fn append(&mut self, items: impl IntoIterator<Item = impl Into<Item>>) {
        let mut most = 0;
        for item in items {
            let Item { entry, about } = item.into();
            self.bytes += entry.frame.len();
            self.entries.push_back(entry);
            self.last += 1;
            if about != About::Message {
                self.others.insert(self.last, about);
            }
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
        self.others = self.others.split_off(&self.first());
        self.shared = None;
    }

    /// Bytes that it takes in memory, about.
    pub fn weight(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |chunk| chunk.bytes.len());
        let entries = self.entries.capacity() * size_of::<Entry>() + self.entries.len() * OWNED;
        self.bytes + shared + entries + self.others.len() * OTHER
    }

    fn trim(&mut self, most: usize) {
        while self.entries.len() > 1 && (self.entries.len() > most || self.bytes > self.bound.bytes)
        {
            let seq = self.first();
            let oldest = self.entries.pop_front();
            let bytes = oldest.map_or(0, |entry| entry.frame.len());
            let packed = self.packed.remove(&seq).is_some();
            self.bytes -= bytes * (1 + usize::from(packed));
            if !self.others.is_empty() {
                self.others.remove(&seq);
            }
        }
    }

    /// What comes behind `after` for `viewer`: one entry of any size, or
    /// several in one chunk of at most [`CHUNK_BYTES`]. For a viewer that packs, an
    /// entry that is worth it comes alone.
    pub fn read(&mut self, after: Seq, viewer: &UserName, takes: Takes) -> Read {
        if after >= self.last {
            return Read::CaughtUp;
        }
        if after + 1 < self.first() {
            return Read::Behind { newest: self.last };
        }
        let packs = takes.packs;
        let mut most = usize::MAX;
        if !takes.entries && !self.others.is_empty() {
            let messages = self.messages_behind(after);
            if messages == 0 {
                return Read::Passed(self.others_behind(after));
            }
            most = messages;
        }
        let start = (after + 1 - self.first()) as usize;
        let (count, bytes) = self.fitting(start, packs, most);
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
    use crate::domain::{Change, ChatId, MessageId, Timestamp};

    const PLAIN: Takes = Takes {
        packs: false,
        entries: false,
    };
    const PACKS: Takes = Takes {
        packs: true,
        entries: false,
    };

    fn entry(seq: Seq, text_len: usize, id: &str) -> Entry {
        Entry::new(&row(seq, text_len, id))
    }

    fn row(seq: Seq, text_len: usize, id: &str) -> Row {
        Row {
            chat: ChatId::new(1).unwrap(),
            seq,
            id: MessageId(seq),
            from: UserName::new("alice").unwrap(),
            text: "x".repeat(text_len).into(),
            client_message_id: ClientMessageId::from_wire(id).unwrap(),
            created_at: Timestamp(seq),
            number: seq,
            change: None,
        }
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
            assert!(matches!(ring.read(8, &bob, PLAIN), Read::CaughtUp));
            assert!(matches!(
                ring.read(6, &bob, PLAIN),
                Read::Behind { newest: 8 }
            ));
            ring.append([entry(9, size, "")]);
            assert_eq!(chunk(ring.read(8, &bob, PLAIN)).through, 9);
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
            ring.read(9, &name("bob"), PLAIN),
            Read::Behind { newest: 11 }
        ));
        assert!(matches!(ring.read(11, &name("bob"), PLAIN), Read::CaughtUp));
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
        let first = chunk(ring.read(0, &name("bob"), PLAIN));
        assert!(first.bytes.len() <= CHUNK_BYTES && first.through > 40);
        let again = chunk(ring.read(0, &name("carol"), PLAIN));
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
        let others = chunk(ring.read(0, &name("bob"), PLAIN)).bytes;
        let own = chunk(ring.read(0, &name("alice"), PLAIN)).bytes;
        assert_eq!(own.len(), others.len() + 3 * (2 + "key".len()));
        let frames = ring.entries.iter().map(|e| e.frame_for(&name("alice")));
        assert_eq!(own, concat(frames.collect::<Vec<_>>().iter(), own.len()));
        let others_again = chunk(ring.read(0, &name("bob"), PLAIN)).bytes;
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
            let alone = chunk(ring.read(seq - 1, &name("bob"), PACKS));
            assert_eq!(alone.packed.is_some(), size == 3_000);
            let held = if size == 3_000 { alone.bytes.len() } else { 0 };
            assert_eq!(ring.bytes - before, held);
            assert!(
                chunk(ring.read(seq - 1, &name("bob"), PLAIN))
                    .packed
                    .is_none()
            );
            assert!(
                chunk(ring.read(seq - 1, &name("alice"), PACKS))
                    .packed
                    .is_none()
            );
            let steps = [2, 3, 4, 5];
            let mut at = 0;
            for step in steps.into_iter().take_while(|step| *step <= seq) {
                let chunk = chunk(ring.read(at, &name("bob"), PACKS));
                assert_eq!(chunk.through, step.min(seq));
                at = chunk.through;
            }
        }
        assert!(ring.bytes > 100_000 && ring.bytes < 101_000);
        assert!(chunk(ring.read(5, &name("bob"), PACKS)).packed.is_none());
    }

    fn other(seq: Seq, change: Change) -> Item {
        let entry = entry(seq, 10, "");
        let row = Row {
            change: Some(Box::new(change)),
            ..row(seq, 10, "")
        };
        Item {
            entry,
            about: About::of(&row),
        }
    }

    #[test]
    fn a_reader_of_messages_is_led_past_other_entries() {
        let mut ring = ring(100, 1 << 20);
        let reaction = || Change::Reaction {
            target: 1,
            removed: false,
        };
        ring.append((1..=3).map(|seq| entry(seq, 10, "")));
        ring.append([4, 5].map(|seq| other(seq, reaction())));
        ring.append([entry(6, 10, "")]);
        ring.append([other(7, reaction())]);
        let bob = name("bob");
        let all = Takes {
            entries: true,
            ..PLAIN
        };
        assert_eq!(chunk(ring.read(0, &bob, all)).through, 7);
        for takes in [PLAIN, PACKS] {
            assert_eq!(chunk(ring.read(0, &bob, takes)).through, 3);
            assert!(matches!(ring.read(3, &bob, takes), Read::Passed(5)));
            assert!(matches!(ring.read(4, &bob, takes), Read::Passed(5)));
            assert_eq!(chunk(ring.read(5, &bob, takes)).through, 6);
            assert!(matches!(ring.read(6, &bob, takes), Read::Passed(7)));
            assert!(matches!(ring.read(7, &bob, takes), Read::CaughtUp));
        }
        ring.cut();
        assert!(matches!(ring.read(6, &bob, PLAIN), Read::Passed(7)));
        ring.begin(9);
        assert!(ring.others.is_empty());
    }

    #[test]
    fn p12_an_erased_message_is_nowhere_in_the_ring() {
        let mut ring = ring(100, 1 << 20);
        let secret = "x".repeat(100);
        ring.append([entry(1, 10, ""), entry(2, 3_000, "")]);
        ring.append([other(3, Change::Edit { target: 2 })]);
        let bob = name("bob");
        let all = Takes {
            packs: true,
            entries: true,
        };
        let packed = chunk(ring.read(1, &bob, all));
        assert!(packed.packed.is_some());
        _ = ring.read(0, &bob, Takes::default());
        ring.erase(2);
        for takes in [PLAIN, PACKS, all] {
            let mut at = 0;
            while at < ring.last {
                at = match ring.read(at, &bob, takes) {
                    Read::Chunk(chunk) => {
                        let text = String::from_utf8_lossy(&chunk.bytes).into_owned();
                        assert!(!text.contains(&secret) && chunk.packed.is_none());
                        chunk.through
                    }
                    Read::Passed(seq) => seq,
                    other => panic!("{other:?}"),
                };
            }
        }
        let frames: usize = ring.entries.iter().map(|entry| entry.frame.len()).sum();
        assert_eq!(ring.bytes, frames);
        ring.erase(2);
        ring.erase(77);
        assert_eq!(ring.bytes, frames);
    }
}
