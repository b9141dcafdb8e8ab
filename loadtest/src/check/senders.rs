//! Those who write: by calls, by posts on streams, and many at once.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use chat_service::proto::{Message, Rejected};
use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::Code;

use super::{
    client::Client,
    peer::{No, Stream, reason},
    record::{Ack, Kind, Op, Record, Send},
};

/// Messages that a caller goes on without and comes back to.
const LEFT: usize = 8;

/// Posts of one stream that are under way.
const POSTS: usize = 4;

/// A post that is answered by nothing for so long is made again.
const ANSWERED: Duration = Duration::from_secs(5);

/// Calls SendMessage, one message after the other. Now and then it hangs up and
/// tries again, tries again what was acknowledged, or leaves a message for later
/// or for good.
pub async fn call(mut client: Client) -> Record {
    let mut left: VecDeque<Send> = VecDeque::new();
    while client.runs() {
        let mut send = match client.one_in(4) {
            true => left.pop_front(),
            false => None,
        }
        .unwrap_or_else(|| client.new_send());
        loop {
            let hangs_up = client.one_in(32);
            let micros = 200 + client.random_up_to(6_000);
            let patience = hangs_up.then(|| Duration::from_micros(micros as u64));
            if client.try_once(&mut send, patience).await {
                if !client.one_in(16) {
                    break client.record.sends.push(send);
                }
            } else if !hangs_up {
                client.pause_up_to(40).await;
                if !client.runs() || client.one_in(4) {
                    break left.push_back(send);
                }
            }
        }
        if left.len() > LEFT {
            client.record.sends.extend(left.pop_front());
        }
        let pause = client.pause;
        client.pause_up_to(pause).await;
    }
    for mut send in left {
        // The others stay as they are: stored or not, nobody has been told.
        if !client.one_in(4) {
            client.settle(&mut send).await;
        }
        client.record.sends.push(send);
    }
    client.record
}

/// Posts on a stream, some at a time. What was under way when a stream was lost is
/// posted again on the next.
pub async fn post(mut client: Client) -> Record {
    let mut open: BTreeMap<Op, (Send, bool)> = BTreeMap::new();
    let mut after = 0;
    while client.runs() || !(open.is_empty() || client.gives_up()) {
        let mut stream = client.new_stream(Kind::Ended, Some(after));
        match client.peer.join(client.chat, Some(after)).await {
            Ok(mut connected) => {
                stream.let_in = true;
                let end = post_on(&mut client, &mut connected, &mut stream, &mut open).await;
                after = match end {
                    No::Ahead(last) => last,
                    _ => stream.last().unwrap_or(after),
                };
                client.note_end(end);
                client.record.streams.push(stream);
            }
            Err(no) => client.note_end(no),
        }
        for (send, posted) in open.values_mut() {
            send.open |= std::mem::take(posted);
        }
        client.pause_up_to(40).await;
    }
    for (mut send, _) in open.into_values() {
        send.to_the_end = true;
        client.record.sends.push(send);
    }
    client.record
}

/// Until the stream ends, or all is answered in the end.
async fn post_on(
    client: &mut Client,
    connected: &mut Stream,
    stream: &mut super::record::Stream,
    open: &mut BTreeMap<Op, (Send, bool)>,
) -> No {
    loop {
        if client.runs() && open.len() < POSTS {
            let send = client.new_send();
            open.insert(send.op, (send, false));
        }
        for (op, (send, posted)) in open.iter_mut().filter(|(_, (_, posted))| !posted) {
            *posted = true;
            send.tries += 1;
            let text = op.text(&client.peer.user);
            if !connected.post(text, op.to_string()).await {
                return No::Open;
            }
        }
        if open.is_empty() {
            return No::Open;
        }
        match timeout(ANSWERED, connected.next()).await {
            Ok(Ok(message)) => take(client, stream, open, &message),
            Ok(Err(no)) => return no,
            Err(_) => return No::Open,
        }
        if client.runs() {
            let pause = client.pause;
            client.pause_up_to(pause / 4).await;
        }
    }
}

/// Notes what a frame says.
fn take(
    client: &mut Client,
    stream: &mut super::record::Stream,
    open: &mut BTreeMap<Op, (Send, bool)>,
    message: &Message,
) {
    let at = client.place.now();
    let own = message.client_message_id.parse().ok();
    let Some(rejected) = &message.rejected else {
        let read = client.read(message);
        stream.messages.push(read);
        if let Some((mut send, _)) = own.and_then(|op: Op| open.remove(&op)) {
            send.acks.push(Ack {
                at,
                seq: read.seq,
                created_at: Some(read.created_at),
                duplicate: false,
            });
            client.record.sends.push(send);
        }
        return;
    };
    let Some((mut send, _)) = own.and_then(|op: Op| open.remove(&op)) else {
        // What a post before had stored may come before the next one is refused.
        if !own.is_some_and(|op| client.has_made(op)) {
            client.trouble(&format!("what it did not post is rejected: {rejected:?}"));
        }
        return;
    };
    if let Some(seq) = stored_before(rejected) {
        send.acks.push(Ack {
            at,
            seq,
            created_at: None,
            duplicate: true,
        });
        client.record.sends.push(send);
        return;
    }
    client.note_no(
        &mut send,
        reason(Code::from_i32(rejected.code), &rejected.reason),
    );
    open.insert(send.op, (send, false));
}

fn stored_before(rejected: &Rejected) -> Option<i64> {
    let exists = Code::from_i32(rejected.code) == Code::AlreadyExists;
    exists.then_some(rejected.seq)
}

/// So many sends at once, each tried once.
pub async fn flood(mut client: Client, count: usize) -> Record {
    let sends: Vec<Send> = (0..count).map(|_| client.new_send()).collect();
    let calls = sends.into_iter().map(|mut send| {
        let peer = client.peer.clone();
        let (place, text) = (client.place.clone(), send.op.text(&client.peer.user));
        async move {
            let mut peer = peer;
            send.tries = 1;
            let id = send.op.to_string();
            let answer = peer.send(send.chat, text, id, None).await;
            (place.now(), send, answer)
        }
    });
    for (at, mut send, answer) in join_all(calls).await {
        match answer {
            Ok(reply) => send.acks.push(Ack {
                at,
                seq: reply.seq,
                created_at: None,
                duplicate: reply.duplicate,
            }),
            Err(no) => client.note_no(&mut send, no),
        }
        client.record.sends.push(send);
    }
    client.record
}

/// Whoever has no business in the chat, and tries everything.
pub async fn intrude(mut client: Client) -> Record {
    while client.runs() {
        let after = client.one_in(2).then_some(0);
        client.try_to_join(after, ANSWERED).await;
        let newest = client.progress.newest(client.chat);
        if let Some(page) = client.read_page((newest - 10).max(0), 10).await {
            client.record.streams.push(page);
        }
        let mut send = client.new_send();
        client.try_once(&mut send, None).await;
        client.record.sends.push(send);
        if client.peer.last_seq(client.chat).await.is_ok() {
            client.trouble("Get told someone who is not a member");
        }
        client.pause_up_to(200).await;
    }
    client.record
}
