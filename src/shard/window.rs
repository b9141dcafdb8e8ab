use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::LazyLock,
};

use ahash::{AHashMap, RandomState};

use crate::{
    domain::{ClientMessageId, Digests, MessageId, Posted, Row, Seq, Timestamp, UserName},
    fault::{self, Fault},
};

/// Who posted and under which id: what makes two posts the same. A digest, so that
/// thousands of them are looked through without going to the texts, which have
/// left the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

static DIGESTS: LazyLock<Digests> = LazyLock::new(Digests::new);

impl Key {
    /// None without an id: such a post is like no other.
    pub fn new(from: &UserName, id: Option<&ClientMessageId>) -> Option<Self> {
        id.map(|id| Self(DIGESTS.of((from, id))))
    }

    pub fn of(row: &Row) -> Option<Self> {
        Self::new(&row.from, row.client_message_id.as_ref())
    }

    /// Of a post without a client's id that another node has given one.
    pub fn of_id(id: MessageId) -> Self {
        Self(DIGESTS.of((id.0, "id")))
    }
}

/// What is posted under a [`Key`]: the same text again, which carries the same, or the same
/// change of the same message, is the same post; anything else is a mistake of the
/// client's. A short digest tells them apart but for one pair in four billion, which then counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextDigest(u32);

impl TextDigest {
    /// Of a text that was erased since: nobody can tell what it was.
    const ERASED: Self = Self(0);

    pub fn of(text: &str, posted: Posted<'_>) -> Self {
        static SEEDS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let digest = match posted == Posted::default() {
            true => SEEDS.hash_one(text),
            false => SEEDS.hash_one((text, posted)),
        };
        Self((digest as u32).max(1))
    }

    /// Of the post that the row was made of.
    pub fn of_row(row: &Row) -> Self {
        match row.is_erased() {
            true => Self::ERASED,
            false => Self::of(&row.text, row.posted()),
        }
    }

    /// Whether the two may be of one post.
    pub fn is_same(self, other: Self) -> bool {
        self == other || self == Self::ERASED || other == Self::ERASED
    }
}

/// The duplicate window of a chat: the posts under way and the newest `size`
/// messages, by their [`Key`] (P5). Messages without a client message id cost
/// nothing here.
#[derive(Debug)]
pub struct Window {
    size: usize,
    known: AHashMap<Key, Known>,
    /// The stored ones, oldest first.
    stored: VecDeque<(Seq, Key)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Accepted, not stored yet; with the number that the chat gave it.
    UnderWay(u64, TextDigest),
    Stored(Seq, Timestamp, TextDigest, MessageId),
}

impl Known {
    pub fn text(&self) -> TextDigest {
        match self {
            Self::UnderWay(_, text) | Self::Stored(_, _, text, _) => *text,
        }
    }
}

impl Window {
    pub fn new(size: usize) -> Self {
        Self {
            size,
            known: AHashMap::new(),
            stored: VecDeque::new(),
        }
    }

    /// Bytes that it takes in memory, about: of the table's room, which depends on
    /// chance, half is free.
    pub fn weight(&self) -> usize {
        2 * self.known.len() * size_of::<(Key, Known)>()
            + self.stored.capacity() * size_of::<(Seq, Key)>()
    }

    pub fn get(&self, key: Key) -> Option<Known> {
        self.known.get(&key).copied()
    }

    /// Takes in a post that is under way from now on, unless it is known: then
    /// says as what.
    pub fn begin(&mut self, key: Key, ticket: u64, text: TextDigest) -> Option<Known> {
        match self.known.entry(key) {
            Entry::Occupied(known) if !fault::is_on(Fault::ForgetDuplicates) => Some(*known.get()),
            Entry::Occupied(mut known) => {
                known.insert(Known::UnderWay(ticket, text));
                None
            }
            Entry::Vacant(place) => {
                place.insert(Known::UnderWay(ticket, text));
                None
            }
        }
    }

    /// The post under way was not stored and will not be.
    pub fn forget(&mut self, key: Key) {
        if matches!(self.known.get(&key), Some(Known::UnderWay(..))) {
            self.known.remove(&key);
        }
    }

    /// Takes in the chat's next message, and lets go of what is too old.
    pub fn store(&mut self, row: &Row, key: Option<Key>) {
        if let Some(key) = key {
            let text = TextDigest::of_row(row);
            let known = Known::Stored(row.seq, row.created_at, text, row.id);
            self.known.insert(key, known);
            self.stored.push_back((row.seq, key));
        }
        let oldest = row.seq - self.size as Seq;
        while let Some((seq, key)) = self.stored.pop_front_if(|(seq, _)| *seq <= oldest) {
            // The same key may have been stored again since.
            if let Entry::Occupied(known) = self.known.entry(key)
                && matches!(known.get(), Known::Stored(at, ..) if *at == seq)
            {
                known.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seq: Seq) -> Row {
        let mut row = crate::testing::row(crate::testing::chat_id(1), seq, "alice", "x");
        (row.created_at, row.id) = (Timestamp(seq), MessageId(seq));
        row
    }

    fn store(window: &mut Window, seq: Seq, id: &str) {
        let id = ClientMessageId::from_wire(id).unwrap();
        let key = Key::new(&UserName::new("alice").unwrap(), id.as_ref());
        window.store(&stored(seq), key);
    }

    fn key(key: &str) -> Key {
        let id = ClientMessageId::from_wire(key).unwrap();
        Key::new(&UserName::new("alice").unwrap(), id.as_ref()).unwrap()
    }

    fn x() -> TextDigest {
        TextDigest::of("x", Posted::default())
    }

    #[test]
    fn p5_the_window_covers_the_newest_messages() {
        let mut window = Window::new(3);
        for seq in 1..=10 {
            store(&mut window, seq, &format!("k{seq}"));
        }
        assert_eq!(window.get(key("k7")), None);
        assert_eq!(
            window.get(key("k8")),
            Some(Known::Stored(8, Timestamp(8), x(), MessageId(8)))
        );
        assert_eq!(window.known.len(), 3);
    }

    #[test]
    fn a_key_used_again_outlives_its_first_use() {
        let mut window = Window::new(3);
        store(&mut window, 1, "k");
        for seq in 2..=4 {
            store(&mut window, seq, "");
        }
        store(&mut window, 5, "k");
        store(&mut window, 6, "");
        assert_eq!(
            window.get(key("k")),
            Some(Known::Stored(5, Timestamp(5), x(), MessageId(5)))
        );
    }

    #[test]
    fn forgetting_spares_what_is_stored() {
        let mut window = Window::new(3);
        assert_eq!(window.begin(key("a"), 1, x()), None);
        assert_eq!(
            window.begin(key("a"), 2, x()),
            Some(Known::UnderWay(1, x()))
        );
        window.forget(key("a"));
        assert_eq!(window.get(key("a")), None);
        store(&mut window, 1, "a");
        window.forget(key("a"));
        assert!(window.get(key("a")).is_some());
    }
}
