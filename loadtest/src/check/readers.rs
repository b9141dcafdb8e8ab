//! Those who read: some stay and wait for the end, some come and go anywhere.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{
    client::{Client, Phase},
    peer::{No, Stream},
    record::{self, Kind, Record},
};

/// How long a reader that comes and goes waits for a next message.
const BORED: Duration = Duration::from_millis(500);

/// Reads from `after` until the run is over, and resumes behind what it has seen
/// when a stream ends. A slow one takes its time over each message, and now and
/// then a lot of it.
pub async fn stay(mut client: Client, after: Option<i64>, slow: bool) -> Record {
    let me = client.progress.reader(client.chat);
    let mut after = after;
    let mut phase = client.phase.clone();
    loop {
        let mut stream = client.new_stream(Kind::Ended, after);
        let joined = tokio::select! {
            joined = client.peer.join(client.chat, after) => joined,
            _ = phase.wait_for(|now| *now == Phase::Over) => {
                client.trouble("had no stream in the end");
                return client.record;
            }
        };
        let end = match joined {
            Ok(mut connected) => {
                tokio::select! {
                    end = read(&mut client, &mut connected, &mut stream, me, slow) => end,
                    _ = phase.wait_for(|now| *now == Phase::Over) => {
                        stream.kind = Kind::Stays;
                        client.record.streams.push(stream);
                        return client.record;
                    }
                }
            }
            Err(no) => no,
        };
        after = match end {
            No::Ahead(last) => {
                client.progress.seen(me, last);
                Some(last)
            }
            _ => stream.last(),
        };
        client.note_end(end);
        client.record.streams.push(stream);
        // Not all at once.
        client.pause_up_to(50).await;
    }
}

async fn read(
    client: &mut Client,
    connected: &mut Stream,
    stream: &mut record::Stream,
    me: usize,
    slow: bool,
) -> No {
    loop {
        match connected.next().await {
            Ok(message) => {
                let message = client.read(&message);
                stream.messages.push(message);
                client.progress.seen(me, message.seq);
            }
            Err(no) => return no,
        }
        if slow && client.runs() {
            let most = if client.one_in(500) { 1_500 } else { 8 };
            client.pause_up_to(most).await;
        }
    }
}

/// Reads a while anywhere, on a stream or page by page, and goes without a word.
pub async fn jump(mut client: Client) -> Record {
    while client.runs() {
        let newest = client.progress.newest(client.chat);
        let mut after = client.random_up_to(newest);
        if client.one_in(3) {
            for _ in 0..5 {
                let size = 1 + client.random_up_to(99);
                let Some(page) = client.read_page(after, size as i32).await else {
                    break;
                };
                after = page.last().unwrap_or(after);
                client.record.streams.push(page);
            }
        } else {
            let after = (!client.one_in(8)).then_some(after);
            let mut stream = client.new_stream(Kind::Ended, after);
            match client.peer.join(client.chat, after).await {
                Ok(mut connected) => {
                    let count = client.random_up_to(300);
                    for _ in 0..count {
                        match timeout(BORED, connected.next()).await {
                            Ok(Ok(message)) => stream.messages.push(client.read(&message)),
                            Ok(Err(no)) => {
                                client.note_end(no);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                }
                Err(no) => client.note_end(no),
            }
            client.record.streams.push(stream);
        }
        sleep(Duration::from_millis(5)).await;
        client.pause_up_to(60).await;
    }
    client.record
}
