use std::time::{Duration, Instant};

use chat_service::proto::ConnectChatRequest;

use super::{
    count,
    load::{Load, Plan},
    millis, seeded,
    server::Chatd,
};
use crate::pg::{fresh_database, sql};

/// Two servers write the same chats, and callers that hang up try again at the
/// other one with the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p5_two_servers_on_one_database_overwrite_nothing() {
    let mut random = seeded("two servers");
    let dsn = fresh_database().await;
    let servers = [Chatd::start(&dsn, &[]), Chatd::start(&dsn, &[])];
    let addresses = servers.each_ref().map(Chatd::address);
    let mut all = Vec::new();
    for _ in 0..count("FAULT_PAIRS", 2) {
        let mut plan = Plan::new(&addresses, random.u64(..));
        plan.impatient = true;
        let load = Load::start(plan).await;
        millis(1_500).await;
        let done = load.finish().await;
        assert_eq!(done.stream_ends(), 0);
        all.push(done);
    }
    for done in &all {
        done.check_again().await;
        println!("{} messages by two servers", done.messages());
    }
    for server in &servers {
        assert!(
            server.log().contains("renumbering behind it"),
            "{}",
            server.log()
        );
    }
}

/// A message is refused, and its neighbours go in one by one: the other server
/// has stored one of them meanwhile.
#[tokio::test]
async fn p5_a_retry_at_the_other_server_is_found_in_a_divided_batch() {
    let dsn = fresh_database().await;
    let one = Chatd::start(&dsn, &[]);
    let other = Chatd::start(&dsn, &["--cores", "1", "--writer-lanes", "1"]);
    sql(
        &dsn,
        "ALTER TABLE messages ADD CONSTRAINT poison CHECK (text <> 'poison')",
    )
    .await;
    let chat = one.peer("ann").create(&[]).await;
    let mut here = one.peer("ann");
    let there = other.peer("ann");
    // Both know the chat as empty.
    there.clone().page(chat, 0, 1).await.unwrap();
    for nth in 0..6 {
        here.send(chat, &format!("text {nth}"), &format!("id {nth}"))
            .await
            .unwrap();
    }
    // The first occupies the lane, so the others make one batch.
    let posts = (0..6).map(|nth| {
        let mut there = there.clone();
        async move {
            match nth {
                0 => there.send(chat, "poison", "id poison").await,
                nth => {
                    there
                        .send(chat, &format!("text {nth}"), &format!("id {nth}"))
                        .await
                }
            }
        }
    });
    for (nth, answer) in futures_util::future::join_all(posts)
        .await
        .into_iter()
        .enumerate()
    {
        match (nth, answer) {
            (0, Err(status)) => assert_eq!(status.code(), tonic::Code::InvalidArgument),
            (nth, Ok(reply)) => {
                assert!(reply.duplicate, "{nth} is stored twice");
                assert_eq!(reply.seq, nth as i64 + 1);
            }
            (nth, answer) => panic!("{nth}: {answer:?}"),
        }
    }
    let history = here.page(chat, 0, 100).await.unwrap().messages;
    assert_eq!(history.len(), 6, "{history:?}");
}

/// The other server does not know that the chat is gone, and a message of it is
/// in the way of its seq. It must find out, and its lane must go on.
#[tokio::test]
async fn p8_a_chat_deleted_by_the_other_server_stalls_no_lane() {
    let dsn = fresh_database().await;
    let one = Chatd::start(&dsn, &[]);
    let other = Chatd::start(&dsn, &["--cores", "1", "--writer-lanes", "1"]);
    let (mut here, mut there) = (one.peer("ann"), other.peer("ann"));
    let doomed = here.create(&[]).await;
    let living = here.create(&[]).await;
    for seq in 1..=3 {
        assert_eq!(there.send(doomed, "before", "").await.unwrap().seq, seq);
    }
    here.send(doomed, "behind", "").await.unwrap();
    let reading = there.request(join_frame(doomed));
    let mut reading = there
        .client
        .connect_chat(reading)
        .await
        .unwrap()
        .into_inner();
    // Out of sight, while the purge has not come by yet.
    sql(
        &dsn,
        &format!(
            "WITH gone AS (DELETE FROM chats WHERE id = {doomed} RETURNING id)
             INSERT INTO deleted_chats (chat_id, next_look) SELECT id, 'infinity' FROM gone"
        ),
    )
    .await;
    let mut late = there.clone();
    let start = Instant::now();
    let (refused, sent) = tokio::join!(late.send(doomed, "too late", ""), async {
        millis(100).await;
        there.send(living, "elsewhere", "").await
    });
    let status = refused.unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
    sent.unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "the lane stood for {took:?}");
    // And so the server knows, and tells the chat's readers.
    let end = tokio::time::timeout(Duration::from_secs(5), reading.message()).await;
    let status = end.expect("the stream ends").unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
}

/// Joins from now on, and posts nothing.
fn join_frame(chat: i64) -> impl futures_util::Stream<Item = ConnectChatRequest> {
    let join = ConnectChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    futures_util::stream::iter([join])
}
