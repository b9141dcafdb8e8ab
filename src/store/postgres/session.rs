use std::{
    convert::Infallible,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    cancel::Peer,
    error::{ConnectError, is_answer},
    servers::Timeline,
    sql,
};

/// A connection. Dropping it closes the socket at once, whatever is under way:
/// the client's own drop would wait for answers that a stopped server never
/// gives.
pub(super) struct Session {
    /// The first field, since it is to be gone before the client is: an end that
    /// nobody wanted is known by that.
    _alive: oneshot::Sender<Infallible>,
    client: Client,
    pub peer: Peer,
    /// Whether it is one of the server's own, all to itself. If not, each
    /// transaction may meet another session of the server, which others have used
    /// and will use.
    pub is_direct: bool,
    /// `Connector::doubts` when it was checked.
    pub doubts: u64,
    /// The number of its server's lineage.
    pub lineage: u64,
    /// What tells the server from others.
    pub server: String,
    /// Of its server, as far as that says it.
    pub timeline: Option<Timeline>,
    waits_given_up: Arc<AtomicU64>,
}

impl Session {
    /// One that has not been checked. `alive` is dropped with it; `waits_given_up`
    /// counts the warnings that say so.
    pub fn new(
        client: Client,
        peer: Peer,
        waits_given_up: Arc<AtomicU64>,
        alive: oneshot::Sender<Infallible>,
    ) -> Self {
        Self {
            _alive: alive,
            client,
            peer,
            is_direct: false,
            doubts: 0,
            lineage: 0,
            server: String::new(),
            timeline: None,
            waits_given_up,
        }
    }

    /// How many commits of this session gave up waiting for a standby: they were
    /// answered like any other, but a failover may undo them.
    pub fn waits_given_up(&self) -> u64 {
        self.waits_given_up.load(Ordering::Acquire)
    }

    /// Whether the session writes, and whose it is; what marker it has.
    pub async fn check(&mut self) -> Result<String, ConnectError> {
        let answers = self.client.simple_query(sql::CHECK).await?;
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let column = |n: usize| row.and_then(|row| row.get(n)).unwrap_or_default();
        let (marker, server) = (column(2).to_owned(), column(3).to_owned());
        match (column(0), column(1)) {
            ("f", "off") => {
                self.server = server;
                self.timeline = self.ask_timeline().await?;
                Ok(marker)
            }
            ("t", _) => Err(ConnectError::Standby),
            _ => Err(ConnectError::ReadOnly),
        }
    }

    async fn ask_timeline(&self) -> Result<Option<Timeline>, ConnectError> {
        let answers = match self.client.simple_query(sql::TIMELINE).await {
            Ok(answers) => answers,
            Err(error) if is_answer(&error) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let row = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some((row.get(0)?, row.get(1)?)),
            _ => None,
        });
        Ok(row.and_then(|(database, number)| {
            Some(Timeline {
                database: database.to_owned(),
                number: number.parse().ok()?,
            })
        }))
    }
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}
