//! The server is killed in the middle of its work, again and again.

use std::{collections::HashMap, time::Duration};

use crate::server::{Load, Server, assert_dense, chance};

const ROUNDS: usize = 4;

/// `kill -9` at a random moment of a load: what was acknowledged is stored once
/// (P1, P5), in one dense order (P2), what was shown is stored (P3), and what
/// had no answer can be sent again (P5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p3_a_killed_server_has_kept_its_word() {
    let mut chance = chance();
    let mut server = Server::start(&[]).await;
    let members = Load::members();
    let members: Vec<_> = members.iter().map(String::as_str).collect();
    let chat = server.client("alice").await.create(&members).await;
    let mut sent = HashMap::new();
    let mut acked = 0;
    for round in 0..ROUNDS {
        let load = Load::start(&server, chat, round).await;
        tokio::time::sleep(Duration::from_millis(chance.u64(50..800))).await;
        server.kill9();
        let tally = load.ended().await;
        acked += tally.acked.len();
        sent.extend(tally.sent.clone());

        server.restart().await;
        let alice = server.client("alice").await;
        let stored = alice.history(chat).await;
        tally.check(&stored, &sent);
        let newest = stored.len() as i64;
        assert_eq!(alice.get(chat).await.unwrap().last_seq, newest);

        let known: HashMap<_, _> = stored.iter().map(|m| (&m.text, m.seq)).collect();
        let answered: HashMap<_, _> = tally.acked.iter().cloned().collect();
        for (text, sender) in &tally.sent {
            if !answered.contains_key(text) {
                let sender = server.client(sender).await;
                let sent = sender.send(chat, text, text).await.unwrap();
                assert_eq!(sent.duplicate, known.contains_key(text), "{text}");
                assert!(known.get(text).is_none_or(|seq| *seq == sent.seq), "P5");
            }
        }
        let stored = alice.history(chat).await;
        assert_eq!(stored.len(), sent.len(), "everything, once");
        assert_dense(&stored, 1);
        tally.check(&stored, &sent);
    }
    assert!(acked > 0, "the load never got going");
    eprintln!("{acked} messages acknowledged, {} sent", sent.len());
}
