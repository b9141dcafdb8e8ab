//! Everyday work for a server that is about to be stopped or killed, and what
//! its users can say afterwards.

use std::collections::{HashMap, HashSet};

use chat_service::proto::Message;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{Client, Frames, Posts, Server, post};

/// Callers of SendMessage.
const SENDERS: usize = 8;
const POSTERS: usize = 2;
/// Posts that each poster has under way. All that is under way at any time is
/// less than the duplicate window.
const UNDER_WAY: usize = 32;

/// Members of a chat at work, until their calls and streams end.
pub struct Load(JoinSet<Tally>);

/// What the users did and saw. A message's text is its client_message_id.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whatever a client has sent, whether it had an answer or not; with the
    /// sender's name.
    pub sent: HashMap<String, String>,
    /// Acknowledged, with the seq.
    pub acked: Vec<(String, i64)>,
    /// Shown to a reader, with the seq.
    pub seen: Vec<(String, i64)>,
    /// What ended each caller's work; with the message that was to be sent, if
    /// it was a call.
    pub ends: Vec<(Option<String>, Status)>,
}

impl Load {
    /// Members that a chat needs for this.
    pub fn members() -> Vec<String> {
        let senders = (0..SENDERS).map(|n| format!("sender{n}"));
        let posters = (0..POSTERS).map(|n| format!("poster{n}"));
        senders.chain(posters).chain(["reader".into()]).collect()
    }

    /// Starts the work. `round` sets the texts of one load apart from those of
    /// another.
    pub async fn start(server: &Server, chat: i64, round: usize) -> Self {
        let mut tasks = JoinSet::new();
        let channel = server.connect().await;
        for n in 0..SENDERS {
            let user = format!("sender{n}");
            let client = Client::new(channel.clone(), &user);
            tasks.spawn(send(client, chat, user, round));
        }
        for n in 0..POSTERS {
            let user = format!("poster{n}");
            let (posts, frames) = server.client(&user).await.open(chat, None).await;
            tasks.spawn(post_all(posts, frames, user, round));
        }
        let frames = server.client("reader").await.read(chat, Some(0)).await;
        tasks.spawn(read(frames));
        Self(tasks)
    }

    /// Waits until every user's work has ended.
    pub async fn ended(self) -> Tally {
        let mut all = Tally::default();
        for tally in self.0.join_all().await {
            all.sent.extend(tally.sent);
            all.acked.extend(tally.acked);
            all.seen.extend(tally.seen);
            all.ends.extend(tally.ends);
        }
        all
    }
}

async fn send(client: Client, chat: i64, user: String, round: usize) -> Tally {
    let mut tally = Tally::default();
    for n in 0.. {
        let text = format!("{user}/{round}/{n}");
        tally.sent.insert(text.clone(), user.clone());
        match client.send(chat, &text, &text).await {
            Ok(sent) => tally.acked.push((text, sent.seq)),
            Err(status) => {
                tally.ends.push((Some(text), status));
                break;
            }
        }
    }
    tally
}

async fn post_all(posts: Posts, mut frames: Frames, user: String, round: usize) -> Tally {
    let mut tally = Tally::default();
    let mut under_way = 0;
    loop {
        tokio::select! {
            Ok(place) = posts.reserve(), if under_way < UNDER_WAY => {
                let text = format!("{user}/{round}/{}", tally.sent.len());
                place.send(post(&text, &text));
                tally.sent.insert(text, user.clone());
                under_way += 1;
            }
            frame = frames.next() => match frame {
                Ok(frame) => {
                    let own = !frame.client_message_id.is_empty();
                    under_way -= usize::from(own);
                    if let Some(rejected) = frame.rejected {
                        // Only a server that is going away refuses any of this.
                        assert_eq!(rejected.code, Code::Unavailable as i32, "{rejected:?}");
                    } else if own {
                        assert_eq!(frame.client_message_id, frame.text);
                        tally.acked.push((frame.text, frame.seq));
                    } else {
                        tally.seen.push((frame.text, frame.seq));
                    }
                }
                Err(status) => {
                    tally.ends.push((None, status));
                    return tally;
                }
            },
        }
    }
}

async fn read(mut frames: Frames) -> Tally {
    let mut tally = Tally::default();
    loop {
        match frames.next().await {
            Ok(frame) => {
                assert_eq!(frame.seq, tally.seen.len() as i64 + 1, "P4");
                tally.seen.push((frame.text, frame.seq));
            }
            Err(status) => {
                tally.ends.push((None, status));
                return tally;
            }
        }
    }
}

impl Tally {
    /// Holds what the users know against all that is stored: every promise of
    /// storage at once. `sent` is whatever was sent to this chat, ever.
    pub fn check(&self, stored: &[Message], sent: &HashMap<String, String>) {
        for (message, seq) in stored.iter().zip(1..) {
            assert_eq!(message.seq, seq, "P2: a hole");
            let sender = sent.get(&message.text);
            assert_eq!(sender, Some(&message.from), "nobody sent {message:?}");
        }
        let texts: HashSet<_> = stored.iter().map(|message| &message.text).collect();
        assert_eq!(texts.len(), stored.len(), "P5: stored twice");
        let find = |promise: &str, known: &[(String, i64)]| {
            for (text, seq) in known {
                let found = stored.get(*seq as usize - 1).map(|m| m.text.as_str());
                assert_eq!(found, Some(text.as_str()), "{promise} at seq {seq}");
            }
        };
        find("P1: not what was acknowledged", &self.acked);
        find("P3: not what was shown", &self.seen);
    }
}
