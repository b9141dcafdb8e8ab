use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::{store::Lineage, telemetry::log_limited};

/// Which server of the database the sessions are with. One that has been started
/// again, or was promoted in the place of another, may have less than was
/// acknowledged, and is told by the time at which it started.
#[derive(Debug, Default)]
pub(super) struct Servers {
    newest: Mutex<Option<String>>,
    lineage: watch::Sender<Lineage>,
}

impl Servers {
    /// A session is with this server; the number of its lineage. `taken_over` is
    /// called before anybody learns that it is another than before.
    pub fn meet(&self, server: &str, taken_over: impl FnOnce()) -> u64 {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_another = newest.as_deref() != Some(server);
        if is_another && newest.replace(server.to_owned()).is_some() {
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
        self.number()
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
            (servers.meet(server, || told = true), told)
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
}
