//! Whoever is made a member and is removed again, over and over, and reads all the
//! while, on any node: what is sent once a removal is acknowledged is not for it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};

use super::{
    client::{Client, REST},
    peer::{No, Peer},
    record::{Kind, Nanos, Record, Removal, Stream},
    world::GUESTS,
};

/// How long its last stream is read on after a removal. It need not end within that:
/// the node may be cut off from all that could tell it, and then shows nothing either.
const LINGER: Duration = Duration::from_secs(3);

/// How long it waits for a message where it should be refused.
const REFUSED: Duration = Duration::from_secs(5);

/// Comes and goes while the run is under load; `owner` may change who is in the chat.
///
/// A change that was asked for twice may be made again at any time: a node that stood
/// still goes on with what its client has given up. So from then on somebody else is
/// the guest.
pub async fn come_and_go(mut client: Client, mut owner: Peer) -> Record {
    let mut random = StdRng::from_rng(&mut client.random);
    let mut after = 0;
    for guest in GUESTS {
        client.peer.user = guest.into();
        if let Err(why) = be_guest(&mut client, &mut owner, &mut after, &mut random).await {
            client.trouble(&why);
            break;
        }
    }
    client.record
}

/// Until the run ends, or something was asked for twice.
async fn be_guest(
    client: &mut Client,
    owner: &mut Peer,
    after: &mut i64,
    random: &mut StdRng,
) -> Result<(), String> {
    let (chat, user) = (client.chat, client.peer.user.clone());
    let mut since: Option<usize> = None;
    while client.runs() {
        if let Some(last) = since {
            client.record.removals[last].until = client.place.now();
        }
        if change(owner, chat, &user, true, random).await? == Tries::Several {
            return Ok(());
        }
        client.member = true;
        let (from, tries) = stay_until_removed(client, owner, after, random).await?;
        since = Some(client.record.removals.len());
        client.record.removals.push(Removal {
            user: user.clone(),
            chat,
            from,
            until: u64::MAX,
        });
        client.member = false;
        for _ in 0..=client.random_up_to(3) {
            try_to_read(client, *after).await;
            client.pause_up_to(200).await;
        }
        if tries == Tries::Several {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads behind `after` until the owner has removed it, which is acknowledged at the
/// time that is returned, and a while longer.
async fn stay_until_removed(
    client: &mut Client,
    owner: &mut Peer,
    after: &mut i64,
    random: &mut StdRng,
) -> Result<(Nanos, Tries), String> {
    let (chat, user, place) = (client.chat, client.peer.user.clone(), client.place.clone());
    let asked = AtomicBool::new(false);
    let removing = async {
        sleep(Duration::from_millis(random.random_range(0..1_500))).await;
        asked.store(true, Ordering::Relaxed);
        let removed = change(owner, chat, &user, false, random).await;
        removed.map(|tries| (place.now(), tries))
    };
    tokio::pin!(removing);
    loop {
        let mut stream = client.new_stream(Kind::Ended, Some(*after));
        let (removed, end) = {
            let reading = read(client, &mut stream);
            tokio::pin!(reading);
            tokio::select! {
                end = &mut reading => (None, Some(end)),
                removed = &mut removing => (Some(removed), timeout(LINGER, reading).await.ok()),
            }
        };
        *after = stream.last().unwrap_or(*after);
        client.record.streams.push(stream);
        match end {
            // It may come before the removal is acknowledged.
            Some(No::NotAMember) if asked.load(Ordering::Relaxed) => {}
            Some(end) => client.note_end(end),
            None => {}
        }
        if let Some(removed) = removed {
            return removed;
        }
        client.pause_up_to(50).await;
    }
}

async fn read(client: &mut Client, stream: &mut Stream) -> No {
    let mut connected = match client.peer.join(client.chat, stream.after).await {
        Ok(connected) => connected,
        Err(no) => return no,
    };
    loop {
        match connected.next().await {
            Ok(message) => stream.messages.push(client.read(&message)),
            Err(no) => return no,
        }
    }
}

/// Asks for a stream and a page that it may not have.
async fn try_to_read(client: &mut Client, after: i64) {
    client.try_to_join(Some(after), REFUSED).await;
    if let Some(page) = client.read_page((after - 5).max(0), 10).await {
        client.record.streams.push(page);
    }
}

/// How often something had to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tries {
    One,
    Several,
}

/// Has the user added or removed, however often that has to be asked for.
async fn change(
    owner: &mut Peer,
    chat: i64,
    user: &str,
    adds: bool,
    random: &mut StdRng,
) -> Result<Tries, String> {
    let give_up = Instant::now() + REST;
    let mut tries = Tries::One;
    loop {
        let no = match owner.change(chat, user, adds).await {
            Ok(()) => return Ok(tries),
            Err(no) => no,
        };
        let done = if adds { "added" } else { "removed" };
        match no {
            No::Refused | No::Open if Instant::now() < give_up => {}
            no => return Err(format!("is not {done}: {no:?}")),
        }
        tries = Tries::Several;
        owner.go_elsewhere(random);
        sleep(Duration::from_millis(random.random_range(0..50))).await;
    }
}
