use futures_util::future::join_all;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::server::Chatd;
use crate::pg::{self, sql};

const ROUNDS: usize = 5;
const SENDERS: usize = 60;

/// A database that can't hold every character, which no validation of ours knows.
/// One whose encoding is to blame is not served at all, so what PostgreSQL answers
/// there is answered here by a trigger.
async fn latin1() -> String {
    let dsn = pg::fresh_database().await;
    drop(Chatd::start(&dsn, &[]));
    sql(
        &dsn,
        "CREATE FUNCTION latin1() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           PERFORM convert_to(NEW.text, 'LATIN1'); RETURN NEW; END $$;
         CREATE TRIGGER latin1 BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION latin1()",
    )
    .await;
    dsn
}

/// A rule that somebody has added to the table.
async fn constrained() -> String {
    let dsn = pg::fresh_database().await;
    drop(Chatd::start(&dsn, &[]));
    sql(
        &dsn,
        "ALTER TABLE messages ADD CONSTRAINT mine CHECK (text NOT LIKE '%☠%')",
    )
    .await;
    dsn
}

/// Batches of several chats with a few guilty ones among many: these alone are
/// refused, and the order has no holes.
async fn only_the_guilty(dsn: &str) {
    let chatd = Chatd::start(dsn, &["--writer-lanes", "1", "--cores", "1"]);
    let mut ann = chatd.peer("ann");
    let mut chats = Vec::new();
    for _ in 0..3 {
        chats.push(ann.create(&[]).await);
    }
    let guilty = |nth: usize| nth % 17 == 3;
    for round in 0..ROUNDS {
        let sends = (0..SENDERS).map(|nth| {
            let mut ann = ann.clone();
            let chat = chats[nth % chats.len()];
            async move {
                let skull = if guilty(nth) { "☠" } else { "" };
                let text = format!("{round} {nth} {skull}");
                ann.send(chat, &text, &format!("{round} {nth}")).await
            }
        });
        for (nth, answer) in join_all(sends).await.into_iter().enumerate() {
            match answer {
                Ok(reply) => assert!(!guilty(nth) && !reply.duplicate, "{nth}"),
                Err(status) => {
                    assert!(guilty(nth), "{nth}: {status:?}");
                    assert_eq!(status.code(), Code::InvalidArgument);
                    let details = status.get_error_details();
                    assert_eq!(details.error_info().unwrap().reason, "MESSAGE_REFUSED");
                    assert!(!status.message().contains("constraint"), "{status:?}");
                }
            }
        }
    }
    let mut stored = 0;
    for chat in chats {
        let messages = ann.page(chat, 0, 1_000).await.unwrap().messages;
        let seqs = messages.iter().map(|message| message.seq);
        assert!(seqs.eq(1..=messages.len() as i64), "dense");
        stored += messages.len();
    }
    let innocent = (0..SENDERS).filter(|nth| !guilty(*nth)).count();
    assert_eq!(stored, ROUNDS * innocent);
}

#[tokio::test]
async fn p10_a_text_that_the_database_cannot_hold_harms_no_neighbour() {
    only_the_guilty(&latin1().await).await;
}

#[tokio::test]
async fn p10_a_text_that_a_constraint_refuses_harms_no_neighbour() {
    only_the_guilty(&constrained().await).await;
}
