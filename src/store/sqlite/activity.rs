//! Lists of a user's chats are read from an index of `members.active_at`, which is
//! written here, behind the messages: `active_chats` names the chats that have had
//! messages since, each once, in the transaction of its first, and a list looks at these
//! chats' newest messages ([`super::lists`]). So a list is in the right order at any
//! time, after a crash too. A member without it, of an earlier release, counts as named.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Result};

use super::lists::active_at;
use crate::domain::{ChatId, Row};

/// How far `members.active_at` may be behind, and how often the members of an active
/// chat are written.
const ROUND: Duration = Duration::from_secs(60);

/// Members a step, about: some milliseconds.
const STEP: usize = 500;

/// A step that took `t` is followed by `PAUSE * t` for others.
const PAUSE: u32 = 9;

/// After a failed step.
const RETRY: Duration = Duration::from_secs(1);

/// Which chats are named, and when the next are to be taken.
pub(super) struct Activity {
    named: HashSet<ChatId, ahash::RandomState>,
    /// The rest of this round.
    round: Vec<ChatId>,
    /// There may be members of an earlier release.
    is_behind: bool,
    /// When the next step is due; `None` while nothing is named.
    pub due: Option<Instant>,
}

/// What a step has done.
#[derive(Default)]
struct Step {
    taken: Vec<ChatId>,
    written: usize,
    is_behind: bool,
}

impl Activity {
    pub fn new(conn: &Connection) -> Result<Self> {
        let mut select = conn.prepare("SELECT chat_id FROM active_chats")?;
        let chats = select.query_map([], |row| row.get::<_, i64>(0))?;
        let chats = chats.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            named: chats.into_iter().flat_map(ChatId::new).collect(),
            round: Vec::new(),
            is_behind: true,
            due: Some(Instant::now()),
        })
    }

    /// Names the chats of these rows, in their transaction; those that were not named
    /// yet. Rows of a chat stand together.
    pub fn name(&self, conn: &Connection, rows: &[&Row]) -> Result<Vec<ChatId>> {
        let chats = rows.chunk_by(|one, next| one.chat == next.chat);
        let chats = chats.map(|rows| rows[0].chat);
        let new: Vec<ChatId> = chats.filter(|chat| !self.named.contains(chat)).collect();
        if !new.is_empty() {
            let mut insert = conn.prepare_cached("INSERT INTO active_chats VALUES (?1)")?;
            for chat in &new {
                insert.execute([chat.get()])?;
            }
        }
        Ok(new)
    }

    /// They are named: it was committed.
    pub fn keep(&mut self, named: Vec<ChatId>) {
        if self.due.is_none() && !named.is_empty() {
            self.due = Some(Instant::now() + ROUND);
        }
        self.named.extend(named);
    }

    /// Writes the activity of the next members, in a transaction of its own.
    pub fn step(&mut self, conn: &Connection) {
        let start = Instant::now();
        if self.round.is_empty() {
            self.round = self.named.iter().copied().collect();
        }
        let pause = match self.write(conn) {
            Ok(step) => {
                self.round.truncate(self.round.len() - step.taken.len());
                for chat in &step.taken {
                    self.named.remove(chat);
                }
                if self.named.is_empty() {
                    self.named.shrink_to_fit();
                }
                self.is_behind = step.is_behind;
                match self.round.is_empty() && !self.is_behind {
                    true => ROUND,
                    false => start.elapsed() * PAUSE,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write when chats were last active, trying again");
                RETRY
            }
        };
        let is_done = self.named.is_empty() && !self.is_behind;
        self.due = (!is_done).then(|| Instant::now() + pause);
    }

    fn write(&self, conn: &Connection) -> Result<Step> {
        let mut step = Step::default();
        let tx = conn.unchecked_transaction()?;
        for chat in self.round.iter().rev() {
            step.written += write_chat(&tx, *chat)?;
            step.taken.push(*chat);
            if step.written >= STEP {
                break;
            }
        }
        step.is_behind = self.is_behind && (step.written >= STEP || fill(&tx)? > 0);
        tx.commit()?;
        Ok(step)
    }
}

fn write_chat(conn: &Connection, chat: ChatId) -> Result<usize> {
    let written = conn
        .prepare_cached(concat!(
            "UPDATE members SET active_at = newest.at FROM (SELECT ",
            active_at!(
                "(SELECT created_at FROM messages WHERE chat_id = ?1 ORDER BY seq DESC LIMIT 1)",
                "NULL"
            ),
            " AS at) AS newest WHERE chat_id = ?1 AND newest.at IS NOT NULL"
        ))?
        .execute([chat.get()])?;
    conn.prepare_cached("DELETE FROM active_chats WHERE chat_id = ?1")?
        .execute([chat.get()])?;
    Ok(written)
}

fn fill(conn: &Connection) -> Result<usize> {
    conn.prepare_cached(concat!(
        "UPDATE members SET active_at = ",
        active_at!(
            "coalesce((SELECT created_at FROM messages WHERE chat_id = members.chat_id
                        ORDER BY seq DESC LIMIT 1),
                      (SELECT created_at FROM chats WHERE id = members.chat_id), 0)",
            "NULL"
        ),
        " WHERE position IN (SELECT position FROM members WHERE active_at IS NULL LIMIT ?1)"
    ))?
    .execute([STEP as i64])
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::{
        super::{Settings, changes, lists, schema},
        *,
    };
    use crate::{
        domain::{MessageId, Timestamp, UserName},
        store::{NewChat, Walk},
    };

    fn now() -> i64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap().as_micros() as i64
    }

    fn database(folder: &TempDir) -> Connection {
        let path = folder.path().join("chat.db");
        std::fs::File::create(&path).unwrap();
        schema::open_writer(&path, &Settings::default()).unwrap()
    }

    fn bo() -> UserName {
        UserName::new("bo").unwrap()
    }

    fn chat(conn: &Connection, at: i64) -> ChatId {
        let chat = NewChat {
            client_chat_id: None,
            created_by: bo(),
            created_at: Timestamp(at),
            members: vec![bo()],
        };
        ChatId::new(changes::create_chat(conn, &chat).unwrap()).unwrap()
    }

    fn append(activity: &mut Activity, conn: &Connection, chat: ChatId, seq: i64, at: i64) {
        let row = Row {
            chat,
            seq,
            id: MessageId(seq),
            from: bo(),
            text: "hello".into(),
            client_message_id: None,
            created_at: Timestamp(at),
            number: seq,
            change: None,
        };
        let rows = [&row];
        changes::insert_rows(conn, &rows).unwrap();
        let named = activity.name(conn, &rows).unwrap();
        activity.keep(named);
    }

    fn listed(conn: &Connection) -> Vec<(ChatId, i64)> {
        let page = lists::chats_of(conn, &bo(), Walk::Down(None), 100, 0).unwrap();
        page.iter().map(|(at, _)| (at.chat, at.at.0)).collect()
    }

    fn count(conn: &Connection, what: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {what}");
        conn.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_is_named_is_written_also_after_a_restart() {
        let folder = TempDir::new().unwrap();
        let conn = database(&folder);
        let mut activity = Activity::new(&conn).unwrap();
        // More than are looked at one by one.
        let chats: Vec<ChatId> = (1..=40).map(|at| chat(&conn, at)).collect();
        activity.step(&conn);
        assert!(activity.due.is_none(), "there is nothing to do");
        for seq in 1..=3 {
            append(&mut activity, &conn, chats[7], seq, 100 + seq);
        }
        append(&mut activity, &conn, chats[30], 1, 102);
        assert_eq!(count(&conn, "active_chats"), 2);
        let order = [(chats[7], 103), (chats[30], 102), (chats[39], 40)];
        assert_eq!(listed(&conn)[..3], order);

        let mut activity = Activity::new(&conn).unwrap();
        append(&mut activity, &conn, chats[30], 2, 104);
        // As a release before this left them.
        conn.execute("UPDATE members SET active_at = NULL WHERE chat_id <= 5", [])
            .unwrap();
        let order = [(chats[30], 104), (chats[7], 103), (chats[39], 40)];
        for _ in 0..3 {
            assert_eq!(listed(&conn)[..3], order);
            assert_eq!(listed(&conn)[39], (chats[0], 1));
            activity.step(&conn);
        }
        assert!(activity.due.is_none());
        assert_eq!(count(&conn, "active_chats"), 0);
        assert_eq!(count(&conn, "members WHERE active_at IS NULL"), 0);
        let written = "members WHERE chat_id IN (8, 31) AND active_at > 100";
        assert_eq!(count(&conn, written), 2);
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_no_chat_on_top() {
        const DAY: i64 = 24 * 60 * 60 * 1_000_000;
        for chats in [3, 40] {
            let folder = TempDir::new().unwrap();
            let conn = database(&folder);
            let mut activity = Activity::new(&conn).unwrap();
            let chats: Vec<ChatId> = (1..=chats).map(|at| chat(&conn, at)).collect();
            append(&mut activity, &conn, chats[0], 1, now() + DAY);
            activity.step(&conn);
            let (top, at) = listed(&conn)[0];
            assert!(top == chats[0] && at <= now());
            std::thread::sleep(Duration::from_millis(2));
            append(&mut activity, &conn, chats[1], 1, now());
            let order = listed(&conn);
            assert_eq!((order[0].0, order[1].0), (chats[1], chats[0]));
        }
    }
}
