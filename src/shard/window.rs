use std::collections::VecDeque;

use ahash::AHashMap;

use crate::domain::{ClientMessageId, Row, Seq, Timestamp, UserName};

/// Who posted and under which id: what makes two posts the same.
pub type Key = (UserName, ClientMessageId);

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
    /// Accepted, not stored yet; the number that the chat gave it.
    UnderWay(u64),
    Stored(Seq, Timestamp),
}

impl Window {
    pub fn new(size: usize) -> Self {
        Self {
            size,
            known: AHashMap::new(),
            stored: VecDeque::new(),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Known> {
        self.known.get(key).copied()
    }

    pub fn begin(&mut self, key: Key, ticket: u64) {
        self.known.insert(key, Known::UnderWay(ticket));
    }

    /// The post under way was not stored and will not be.
    pub fn forget(&mut self, key: &Key) {
        if matches!(self.known.get(key), Some(Known::UnderWay(_))) {
            self.known.remove(key);
        }
    }

    /// Takes in the chat's next message, and lets go of what is too old.
    pub fn store(&mut self, row: &Row) {
        if let Some(id) = &row.client_message_id {
            let key = (row.from.clone(), id.clone());
            let known = Known::Stored(row.seq, row.created_at);
            // Mostly it is there as under way, and the key needs no copy.
            match self.known.get_mut(&key) {
                Some(under_way) => *under_way = known,
                None => drop(self.known.insert(key.clone(), known)),
            }
            self.stored.push_back((row.seq, key));
        }
        let oldest = row.seq - self.size as Seq;
        while let Some((seq, key)) = self.stored.pop_front_if(|(seq, _)| *seq <= oldest) {
            // The same key may have been stored again since.
            if matches!(self.known.get(&key), Some(Known::Stored(at, _)) if *at == seq) {
                self.known.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ChatId, MessageId};

    fn row(seq: Seq, key: &str) -> Row {
        Row {
            chat: ChatId::new(1).unwrap(),
            seq,
            id: MessageId(seq),
            from: UserName::new("alice").unwrap(),
            text: "x".into(),
            client_message_id: ClientMessageId::from_wire(key).unwrap(),
            created_at: Timestamp(seq),
        }
    }

    fn key(key: &str) -> Key {
        let id = ClientMessageId::from_wire(key).unwrap().unwrap();
        (UserName::new("alice").unwrap(), id)
    }

    #[test]
    fn p5_the_window_covers_the_newest_messages() {
        let mut window = Window::new(3);
        for seq in 1..=10 {
            window.store(&row(seq, &format!("k{seq}")));
        }
        assert_eq!(window.get(&key("k7")), None);
        assert_eq!(window.get(&key("k8")), Some(Known::Stored(8, Timestamp(8))));
        assert_eq!(window.known.len(), 3);
    }

    #[test]
    fn a_key_used_again_outlives_its_first_use() {
        let mut window = Window::new(3);
        window.store(&row(1, "k"));
        for seq in 2..=4 {
            window.store(&row(seq, ""));
        }
        window.store(&row(5, "k"));
        window.store(&row(6, ""));
        assert_eq!(window.get(&key("k")), Some(Known::Stored(5, Timestamp(5))));
    }

    #[test]
    fn forgetting_spares_what_is_stored() {
        let mut window = Window::new(3);
        window.begin(key("a"), 1);
        window.forget(&key("a"));
        assert_eq!(window.get(&key("a")), None);
        window.store(&row(1, "a"));
        window.forget(&key("a"));
        assert!(window.get(&key("a")).is_some());
    }
}
