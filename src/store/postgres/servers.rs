use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::error::ConnectError;
use crate::{store::Lineage, telemetry::log_limited};

/// Which server of the database the sessions are with. One that has been started
/// again, or was promoted in the place of another, may have less than was
/// acknowledged, and is told by the time at which it started.
#[derive(Debug, Default)]
pub(super) struct Servers {
    newest: Mutex<Newest>,
    lineage: watch::Sender<Lineage>,
}

#[derive(Debug, Default)]
struct Newest {
    server: Option<String>,
    timeline: Option<Timeline>,
}

/// The promotion of a standby begins the next timeline of a database (PostgreSQL,
/// "Timelines"), so that a server on an earlier one than was met was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline {
    /// The same for a primary and its standbys.
    pub database: String,
    pub number: u32,
}

impl Servers {
    /// A session is with this server; the number of its lineage. `taken_over` is
    /// called before anybody learns that it is another than before.
    ///
    /// # Errors
    /// If the server was left behind. What was acknowledged since is not there.
    pub fn meet(
        &self,
        server: &str,
        timeline: Option<&Timeline>,
        taken_over: impl FnOnce(),
    ) -> Result<u64, ConnectError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(found), Some(known)) = (timeline, &newest.timeline)
            && found.database == known.database
            && found.number < known.number
        {
            let (found, known) = (found.number, known.number);
            return Err(ConnectError::LeftBehind { found, known });
        }
        if timeline.is_some() {
            newest.timeline = timeline.cloned();
        }
        let is_another = newest.server.as_deref() != Some(server);
        if is_another && newest.server.replace(server.to_owned()).is_some() {
            log_limited!(
                WARN,
                "another server of the database answers, or the same after a restart: looking whether it has all messages"
            );
            taken_over();
            self.lineage.send_modify(|lineage| {
                lineage.number += 1;
                lineage.in_doubt = false;
            });
        } else {
            self.be_sure();
        }
        Ok(self.number())
    }

    /// A session was lost, and nobody knows whether the next meets the same server.
    /// True if that was not known yet.
    pub fn doubt(&self) -> bool {
        let doubt = |lineage: &mut Lineage| !std::mem::replace(&mut lineage.in_doubt, true);
        self.lineage.send_if_modified(doubt)
    }

    /// Nothing speaks against the server that there was.
    pub fn be_sure(&self) {
        let be_sure = |lineage: &mut Lineage| std::mem::take(&mut lineage.in_doubt);
        self.lineage.send_if_modified(be_sure);
    }

    pub fn is_in_doubt(&self) -> bool {
        self.lineage.borrow().in_doubt
    }

    pub fn number(&self) -> u64 {
        self.lineage.borrow().number
    }

    pub fn watch(&self) -> watch::Receiver<Lineage> {
        self.lineage.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_grows_when_the_server_is_another() {
        let servers = Servers::default();
        let meet = |server| {
            let mut told = false;
            let number = servers.meet(server, None, || told = true).unwrap();
            (number, told)
        };
        assert_eq!(meet("a"), (0, false));
        assert_eq!(meet("a"), (0, false));
        assert_eq!(meet("b"), (1, true));
        assert!(servers.doubt() && !servers.doubt() && servers.is_in_doubt());
        assert_eq!(meet("b"), (1, false));
        assert!(!servers.is_in_doubt() && servers.doubt());
        assert_eq!(meet("a"), (2, true));
        assert!(!servers.is_in_doubt());
    }
    #[test]
    fn a_server_on_an_earlier_timeline_was_left_behind() {
        let servers = Servers::default();
        let meet = |server, database: &str, number| {
            let timeline = Timeline {
                database: database.to_owned(),
                number,
            };
            servers.meet(server, Some(&timeline), || {})
        };
        assert_eq!(meet("a", "one", 1).unwrap(), 0);
        assert_eq!(meet("b", "one", 2).unwrap(), 1);
        let left = meet("a", "one", 1);
        assert!(matches!(
            left,
            Err(ConnectError::LeftBehind { found: 1, known: 2 })
        ));
        assert_eq!(meet("b", "one", 2).unwrap(), 1);
        // One that has nothing to do with it, as after a dump was restored.
        assert_eq!(meet("c", "two", 1).unwrap(), 2);
        // One that does not say.
        assert_eq!(servers.meet("d", None, || {}).unwrap(), 3);
    }
}
