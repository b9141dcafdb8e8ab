//! What the full screen asks of the server. Each call ends in events.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tonic::Code;

use super::{history::Page, state::Event};
use crate::{
    client::{
        ClientError,
        outbox::Line,
        peer::{Peer, backoff},
        session::{Front, Session, pause_after},
    },
    proto,
};

/// Messages of a page: some screens of them.
const PAGE: i32 = 200;

/// Where a chat's events go, and where the lines typed in it come from.
pub(super) struct Desk {
    pub(super) chat: i64,
    pub(super) events: Sender<Event>,
    pub(super) lines: Receiver<Line>,
}

impl Desk {
    async fn say(&self, event: Event) {
        // Nobody listens any more: the client is about to end.
        _ = self.events.send(event).await;
    }
}

impl Front for Desk {
    async fn live(&mut self) -> Result<(), ClientError> {
        self.say(Event::Live(self.chat)).await;
        Ok(())
    }

    async fn lost(&mut self, why: String, pause: Duration) -> Result<(), ClientError> {
        self.say(Event::Lost(self.chat, why, pause)).await;
        Ok(())
    }

    async fn message(&mut self, message: proto::Message) -> Result<(), ClientError> {
        self.say(Event::Message(self.chat, Box::new(message))).await;
        Ok(())
    }

    async fn stored(&mut self, id: &str) -> Result<(), ClientError> {
        self.say(Event::Stored(self.chat, id.to_owned())).await;
        Ok(())
    }

    async fn refused(&mut self, line: Line, why: String) -> Result<(), ClientError> {
        self.say(Event::Refused(self.chat, line.id, why)).await;
        Ok(())
    }

    async fn line(&mut self) -> Result<Option<Line>, ClientError> {
        Ok(self.lines.recv().await)
    }
}

/// Reads a chat from its newest page on, and posts to it, until there will be no
/// more lines and all are stored, or the server refuses.
pub(super) async fn read(mut peer: Peer, mut desk: Desk) {
    if let Err(error) = read_on(&mut peer, &mut desk).await {
        desk.say(Event::Ended(desk.chat, error.to_string())).await;
    }
}

async fn read_on(peer: &mut Peer, desk: &mut Desk) -> Result<(), ClientError> {
    let mut session = Session::new(peer.clone(), desk.chat, 0, true);
    let mut pauses = backoff();
    loop {
        let newest = loop {
            peer.renew(false).await?;
            match page(peer, desk.chat, Page::Newest).await {
                Ok(messages) => break messages,
                Err(status) => pause_after(&status, &mut pauses, desk).await?,
            }
        };
        session.restart(newest.last().map_or(0, |message| message.seq));
        desk.say(Event::Page(desk.chat, Page::Newest, Ok(newest)))
            .await;
        match session.run(desk).await {
            // What was read is not this chat's history any more.
            Err(ClientError::Refused(status)) if status.code() == Code::OutOfRange => {
                tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            }
            done => return done,
        }
    }
}

pub(super) async fn load(mut peer: Peer, chat: i64, which: Page, events: Sender<Event>) {
    let result = match peer.renew(false).await {
        Ok(_) => page(&mut peer, chat, which)
            .await
            .map_err(|status| peer.explain(status)),
        Err(error) => Err(error),
    };
    let result = result.map_err(|error| error.to_string());
    _ = events.send(Event::Page(chat, which, result)).await;
}

async fn page(
    peer: &mut Peer,
    chat: i64,
    page: Page,
) -> Result<Vec<proto::Message>, tonic::Status> {
    let (before_seq, after_seq) = match page {
        Page::Newest => (None, None),
        Page::Before(seq) => (Some(seq), None),
        Page::After(seq) => (None, Some(seq)),
    };
    let request = peer.request(proto::ListMessagesRequest {
        chat_id: chat,
        before_seq,
        after_seq,
        page_size: PAGE,
        ..Default::default()
    });
    let reply = peer.client.list_messages(request).await?;
    Ok(reply.into_inner().messages)
}

pub(super) async fn list(mut peer: Peer, size: i32, events: Sender<Event>) {
    let result = match peer.renew(false).await {
        Ok(_) => chats(&mut peer, size).await,
        Err(error) => Err(error),
    };
    let result = result.map_err(|error| error.to_string());
    _ = events.send(Event::Chats(result)).await;
}

async fn chats(peer: &mut Peer, size: i32) -> Result<(Vec<proto::Chat>, bool), ClientError> {
    let request = peer.request(proto::ListChatsRequest {
        page_size: size,
        page_token: String::new(),
        max_usernames: None,
    });
    let reply = peer.client.list_chats(request).await;
    let reply = reply.map_err(|status| peer.explain(status))?.into_inner();
    Ok((reply.chats, !reply.next_page_token.is_empty()))
}
