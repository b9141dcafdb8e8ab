use chat_service::proto::DeleteRequest;
use tokio::task::{JoinSet, block_in_place};

use super::{
    count,
    load::{Load, Plan},
    millis,
    proxy::{Cut, Proxy},
    seeded,
    server::Chatd,
};
use crate::pg::Pg;

/// Cuts `rounds` times under load and checks each time.
async fn cuts(test: &str, cut: Cut, rounds: usize) -> String {
    let mut random = seeded(test);
    let pg = block_in_place(Pg::start);
    let proxy = Proxy::start(pg.port()).await;
    let stall = ["--store-stall", "300ms"];
    let chatd = Chatd::start(&proxy.dsn("postgres"), &stall);
    let mut all = Vec::new();
    for _ in 0..rounds {
        let load = Load::start(Plan::new(&[chatd.address()], random.u64(..))).await;
        millis(random.u64(10..80)).await;
        proxy.cut(cut).await;
        millis(random.u64(50..150)).await;
        let done = load.finish().await;
        assert_eq!(done.stream_ends(), 0, "readers stay connected");
        all.push(done);
    }
    let mut messages = 0;
    for done in &all {
        done.check_again().await;
        messages += done.messages();
    }
    println!("{rounds} cuts {cut:?}, {messages} messages");
    chatd.log()
}

fn looked_up(log: &str) -> usize {
    log.matches("outcome of a commit unknown").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_connection_cut_between_commit_and_its_answer_loses_and_doubles_nothing() {
    let rounds = count("FAULT_CUTS", 5);
    let log = cuts("cut before the answer", Cut::BeforeAnswer, rounds).await;
    assert!(looked_up(&log) >= rounds, "{log}");
}

/// Whether PostgreSQL reads COMMIT before it sees the connection gone is chance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_connection_cut_right_behind_commit_is_looked_up() {
    let rounds = count("FAULT_CUTS", 3);
    let log = cuts("cut after COMMIT", Cut::AfterCommit, rounds).await;
    assert!(looked_up(&log) >= rounds, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_connection_cut_before_commit_is_written_again() {
    let rounds = count("FAULT_CUTS", 3);
    let log = cuts("cut before COMMIT", Cut::BeforeCommit, rounds).await;
    assert!(looked_up(&log) >= rounds, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_an_answer_that_never_comes_is_given_up_and_looked_up() {
    let rounds = count("FAULT_CUTS", 2);
    let log = cuts("half-open", Cut::HalfOpen, rounds).await;
    assert!(looked_up(&log) >= rounds, "{log}");
}

/// The deletion is looked up while others post on; all of them are answered, and
/// nothing of the chat is left to wait for at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_deletion_whose_answer_is_lost_is_looked_up_under_load() {
    let pg = block_in_place(Pg::start);
    let proxy = Proxy::start(pg.port()).await;
    let mut chatd = Chatd::start(&proxy.dsn("postgres"), &["--drain-timeout", "20s"]);
    let mut ann = chatd.peer("ann");
    for _ in 0..count("FAULT_DELETIONS", 5) {
        let chat = ann.create(&[]).await;
        let mut senders = JoinSet::new();
        for _ in 0..16 {
            let mut ann = ann.clone();
            senders.spawn(async move {
                loop {
                    let status = match ann.send(chat, "x", "").await {
                        Ok(_) => continue,
                        Err(status) => status,
                    };
                    match status.code() {
                        tonic::Code::Unavailable => {}
                        tonic::Code::PermissionDenied => return,
                        _ => panic!("{status:?}"),
                    }
                }
            });
        }
        millis(50).await;
        let delete = ann.request(DeleteRequest { id: chat });
        let mut deleter = ann.clone();
        let (status, ()) = tokio::join!(deleter.client.delete(delete), proxy.cut(Cut::Deleted));
        assert_eq!(status.unwrap_err().code(), tonic::Code::Unavailable);
        senders.join_all().await;
    }
    let log = chatd.log();
    assert!(!log.contains("panicked"), "{log}");
    // Accepted posts that nobody answers would be waited for.
    let drain = std::time::Instant::now();
    block_in_place(|| chatd.terminate());
    let took = drain.elapsed();
    assert!(took.as_secs() < 10, "{took:?} to drain: {}", chatd.log());
}
