//! Those who write: by calls, and by posts on streams.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chat_service::proto::{ConnectChatRequest, Message, Post};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{Code, Status};

use super::{
    load::{Client, HANG},
    record::Seen,
    server::Peer,
};

impl Client {
    fn message(&mut self, nth: usize) -> (usize, String, String) {
        let id = format!("{}-{}-{nth}", self.chat, self.user);
        let padding = "x".repeat(self.random.usize(..100));
        let text = format!("{id} {padding}");
        let attempt = self.book.attempt(self.chat, &self.user, &id, &text);
        (attempt, id, text)
    }

    async fn pause(&mut self, most: u64) {
        sleep(Duration::from_millis(self.random.u64(..=most))).await;
    }

    /// A code that the fault does not excuse is the server's fault.
    fn failed(&self, attempt: usize, status: &Status) {
        if !self.plan.excuses(status.code()) {
            self.book.fault(format!("{}: send: {status:?}", self.user));
        }
        self.book.fail(attempt, status.code());
    }
}

/// Calls SendMessage, one message after the other. After a failure it mostly
/// tries again, and now and then goes on and leaves the message to the end.
pub async fn call(mut client: Client, stopped: watch::Receiver<bool>) {
    let servers = client.plan.servers.len();
    let mut peers: Vec<Peer> = (0..servers)
        .map(|server| client.plan.peer(server, &client.user))
        .collect();
    let mut nth = 0;
    while !*stopped.borrow() {
        let (attempt, id, text) = client.message(nth);
        nth += 1;
        let mut server = client.nth + nth;
        loop {
            server += 1;
            let start = Instant::now();
            let hangs_up = client.plan.impatient && client.random.u8(..4) == 0;
            let patience = if hangs_up {
                Duration::from_micros(client.random.u64(300..6_000))
            } else {
                HANG
            };
            let sent = peers[server % servers].send(client.chat, &text, &id);
            let status = match timeout(patience, sent).await {
                Ok(Ok(reply)) => {
                    client.book.ack(attempt, reply.seq, reply.duplicate);
                    client.book.took(start.elapsed());
                    break;
                }
                Ok(Err(status)) if status.code() == Code::InvalidArgument => {
                    client.book.refuse(attempt);
                    break;
                }
                Ok(Err(status)) => status,
                Err(_) if hangs_up => {
                    client.book.fail(attempt, Code::Cancelled);
                    continue;
                }
                Err(_) => Status::deadline_exceeded("no answer at all"),
            };
            client.book.took(start.elapsed());
            client.failed(attempt, &status);
            client.pause(40).await;
            if *stopped.borrow() || client.random.u8(..4) == 0 {
                break;
            }
        }
        client.pause(client.plan.pause).await;
    }
}

/// Posts on a stream, one message under way at a time, and reads what comes. A
/// lost stream is resumed, and the post made again.
pub async fn post(mut client: Client, mut stopped: watch::Receiver<bool>) {
    let mut peer = client.plan.peer(client.nth, &client.user);
    let seen = client.book.reader(Seen {
        chat: client.chat,
        user: client.user.clone(),
        after: Some(0),
        ..Default::default()
    });
    let mut ids = HashMap::new();
    let mut current = None;
    while !*stopped.borrow() {
        let status = match client.join(&mut peer, seen).await {
            Err(status) => status,
            Ok((mut messages, posts)) => loop {
                if current.is_none() {
                    let (attempt, id, text) = client.message(ids.len());
                    ids.insert(id.clone(), attempt);
                    current = Some((attempt, id, text, false));
                }
                if let Some((_, id, text, posted)) = &mut current
                    && !*posted
                {
                    *posted = true;
                    let post = Some(Post {
                        text: text.clone(),
                        client_message_id: id.clone(),
                        ..Default::default()
                    });
                    let frame = ConnectChatRequest {
                        send: post,
                        ..Default::default()
                    };
                    if posts.send(frame).await.is_err() {
                        break Status::unavailable("the server takes no more posts");
                    }
                }
                tokio::select! {
                    message = timeout(HANG, messages.message()) => match message {
                        Ok(Ok(Some(message))) => {
                            let attempt = ids.get(&message.client_message_id).copied();
                            let settled = take(&client, seen, attempt, message);
                            if let Some((attempt, _, _, posted)) = &mut current
                                && let Some((settled, again)) = settled
                                && settled == *attempt
                            {
                                client.pause(if again { 40 } else { client.plan.pause }).await;
                                *posted = false;
                                if !again {
                                    current = None;
                                }
                            }
                        }
                        Ok(Ok(None)) => break Status::unknown("no status"),
                        Ok(Err(status)) => break status,
                        Err(_) => break Status::deadline_exceeded("no answer to a post"),
                    },
                    _ = stopped.changed() => {
                        // Not waited for: as good as lost.
                        if let Some((attempt, ..)) = current {
                            client.book.fail(attempt, Code::Cancelled);
                        }
                        return;
                    }
                }
            },
        };
        client.ended(seen, &status);
        if let Some((attempt, _, _, posted)) = &mut current
            && *posted
        {
            client.book.fail(*attempt, status.code());
            *posted = false;
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// Notes what a frame says. Which attempt it answers, and whether that one is to
/// be posted again.
fn take(
    client: &Client,
    seen: usize,
    attempt: Option<usize>,
    message: Message,
) -> Option<(usize, bool)> {
    let Some(rejected) = &message.rejected else {
        let seq = message.seq;
        client.saw(seen, message);
        let attempt = attempt?;
        client.book.ack(attempt, seq, false);
        return Some((attempt, false));
    };
    let Some(attempt) = attempt else {
        let user = &client.user;
        client.book.fault(format!("{user}: unknown {rejected:?}"));
        return None;
    };
    match Code::from_i32(rejected.code) {
        Code::AlreadyExists => client.book.ack(attempt, rejected.seq, true),
        Code::InvalidArgument => client.book.refuse(attempt),
        code => {
            client.failed(attempt, &Status::new(code, rejected.reason.clone()));
            return Some((attempt, true));
        }
    }
    Some((attempt, false))
}
