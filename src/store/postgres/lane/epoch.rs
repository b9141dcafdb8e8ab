//! What a lane says of the chats that it writes to, so that lists of chats are in the
//! order of activity: see [`super::super::activity`].
//!
//! A chat is named once an epoch, in the transaction of its first rows in it, and the
//! rows that follow rely on that. So an epoch must not end, which is when its names are
//! taken, before every transaction that relies on it has ended. A lane's transactions
//! follow one another in one session, hence the one that begins an epoch ends the last.
//! The epoch of a session that is lost is ended by somebody else, once nobody holds the
//! session's lock any more. A session of the server's own holds it as long as it lives;
//! behind a pooler each transaction holds it, and asks whether the epoch is still there.

use std::{
    collections::HashSet,
    fmt::Write as _,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::domain::{ChatId, Row};

/// So many chats are named in one epoch, about, at 16 bytes each.
const MOST: usize = 200_000;

/// A session's epochs, one after the other.
#[derive(Debug)]
pub(super) struct Epochs {
    /// The key of the session's lock.
    lock: i64,
    is_direct: bool,
    length: Duration,
    open: Option<(i64, Instant)>,
    /// In the open one.
    named: HashSet<ChatId, ahash::RandomState>,
}

/// What a transaction says besides its rows.
#[derive(Debug)]
pub(super) struct Said {
    /// Empty if there is nothing to be said.
    pub sql: String,
    open: Option<(i64, Instant)>,
    /// The chats that it names.
    pub named: Vec<ChatId>,
}

impl Epochs {
    pub fn new(lock: i64, is_direct: bool, length: Duration) -> Self {
        Self {
            lock,
            is_direct,
            length,
            open: None,
            named: HashSet::default(),
        }
    }

    /// Whether the epoch should end, even if no rows come.
    pub fn is_over(&self, now: Instant) -> bool {
        self.open
            .is_some_and(|(_, since)| now.duration_since(since) >= self.length)
    }

    /// Lets the open one last as long as if it had begun now.
    pub fn prolong(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.open {
            *since = now;
        }
    }

    /// What the transaction of these rows has to say. Rows of a chat stand together.
    pub fn say(&self, rows: &[Row], now: Instant) -> Said {
        let is_over = self.is_over(now) || self.named.len() >= MOST;
        let mut said = Said {
            sql: String::new(),
            open: self.open.filter(|_| !is_over),
            named: Vec::new(),
        };
        if is_over && let Some((id, _)) = self.open {
            said.add(format_args!("DELETE FROM activity_epochs WHERE id = {id}"));
        }
        let goes_on = said.open.is_some();
        for chat in rows.chunk_by(|one, next| one.chat == next.chat) {
            let chat = chat[0].chat;
            if !(goes_on && self.named.contains(&chat)) {
                said.named.push(chat);
            }
        }
        if rows.is_empty() {
            return said;
        }
        let (id, _) = *said.open.get_or_insert_with(|| (new_id(), now));
        if goes_on && !self.is_direct {
            said.add(format_args!(
                "SELECT 1 / (SELECT count(*) FROM activity_epochs WHERE id = {id})"
            ));
        }
        if !goes_on {
            let lock = self.lock;
            said.add(format_args!(
                "INSERT INTO activity_epochs (id, lane) VALUES ({id}, {lock})"
            ));
        }
        if !said.named.is_empty() {
            let chats: Vec<String> = said.named.iter().map(ToString::to_string).collect();
            let chats = chats.join(",");
            said.add(format_args!(
                "INSERT INTO active_chats SELECT {id}, unnest('{{{chats}}}'::bigint[]) \
                 ON CONFLICT DO NOTHING"
            ));
        }
        said
    }

    /// It was committed.
    pub fn keep(&mut self, said: Said) {
        if self.open != said.open {
            self.named.clear();
        }
        self.open = said.open;
        self.named.extend(said.named);
    }
}

impl Said {
    fn add(&mut self, statement: std::fmt::Arguments<'_>) {
        if !self.sql.is_empty() {
            self.sql.push_str("; ");
        }
        // A String takes all that it is given.
        _ = self.sql.write_fmt(statement);
    }
}

/// Nobody else's, and later ones are larger: those that have waited longest are taken
/// first.
fn new_id() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.unwrap_or_default().as_millis() as i64;
    (millis << 20) | fastrand::i64(0..1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MessageId, Timestamp, UserName};

    const LENGTH: Duration = Duration::from_secs(60);

    fn rows(chats: &[i64]) -> Vec<Row> {
        let row = |chat: &i64| Row {
            chat: ChatId::new(*chat).unwrap(),
            seq: 1,
            id: MessageId(1),
            from: UserName::new("bo").unwrap(),
            text: "hello".into(),
            client_message_id: None,
            created_at: Timestamp(1),
            number: 1,
            change: None,
        };
        chats.iter().map(row).collect()
    }

    fn says(sql: &str) -> Vec<&str> {
        let words = |part: &str| part.trim().split(' ').next().unwrap().to_owned();
        let verbs = sql.split(';').filter(|part| !part.is_empty()).map(words);
        let verbs: Vec<String> = verbs.collect();
        let known = ["DELETE", "SELECT", "INSERT"];
        verbs
            .iter()
            .map(|verb| *known.iter().find(|k| *k == verb).unwrap())
            .collect()
    }

    #[test]
    fn a_chat_is_named_once_an_epoch() {
        let now = Instant::now();
        let mut epochs = Epochs::new(7, true, LENGTH);
        assert_eq!(epochs.say(&[], now).sql, "");

        let first = epochs.say(&rows(&[1, 1, 2]), now);
        assert_eq!(says(&first.sql), ["INSERT", "INSERT"]);
        assert!(first.sql.contains("'{1,2}'"), "{}", first.sql);
        // Not committed: all of it is to be said again.
        assert!(epochs.say(&rows(&[1]), now).sql.contains("'{1}'"));
        epochs.keep(first);
        assert_eq!(epochs.say(&rows(&[2, 1]), now).sql, "");
        let third = epochs.say(&rows(&[3, 1]), now);
        assert_eq!(says(&third.sql), ["INSERT"]);
        assert!(third.sql.contains("'{3}'"), "{}", third.sql);
        epochs.keep(third);

        // The next one ends it, and names the chat again.
        let later = now + LENGTH;
        let (old, _) = epochs.open.unwrap();
        let next = epochs.say(&rows(&[1]), later);
        assert_eq!(says(&next.sql), ["DELETE", "INSERT", "INSERT"]);
        assert!(next.sql.contains(&old.to_string()), "{}", next.sql);
        epochs.keep(next);
        assert_ne!(epochs.open.unwrap().0, old);
        assert!(epochs.say(&rows(&[3]), later).sql.contains("'{3}'"));
    }

    #[test]
    fn an_epoch_ends_without_rows_too() {
        let now = Instant::now();
        let mut epochs = Epochs::new(7, true, LENGTH);
        let said = epochs.say(&rows(&[1]), now);
        epochs.keep(said);
        assert!(!epochs.is_over(now));
        assert_eq!(epochs.say(&[], now).sql, "");
        assert!(epochs.is_over(now + LENGTH));
        let end = epochs.say(&[], now + LENGTH);
        assert_eq!(says(&end.sql), ["DELETE"]);
        epochs.keep(end);
        assert!(!epochs.is_over(now + LENGTH));
        let next = epochs.say(&rows(&[1]), now + LENGTH);
        assert_eq!(says(&next.sql), ["INSERT", "INSERT"]);
    }

    #[test]
    fn behind_a_pooler_each_transaction_asks_for_its_epoch() {
        let now = Instant::now();
        let mut epochs = Epochs::new(7, false, LENGTH);
        let first = epochs.say(&rows(&[1]), now);
        assert_eq!(says(&first.sql), ["INSERT", "INSERT"]);
        epochs.keep(first);
        assert_eq!(says(&epochs.say(&rows(&[1]), now).sql), ["SELECT"]);
        let more = epochs.say(&rows(&[2]), now);
        assert_eq!(says(&more.sql), ["SELECT", "INSERT"]);
    }
}
