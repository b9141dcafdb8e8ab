//! What one user asks for in heaps does not keep others waiting (P6).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chat_service::proto::{CreateRequest, ListChatsRequest, ListMessagesRequest};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::server::{Client, Server, soon};

/// Calls of the greedy user under way, all the time.
const GREEDY: usize = 16;
const LOOKS: usize = 30;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:0>20}")).collect()
}

async fn create_large(client: &Client) -> i64 {
    let names = names(999);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    client.create(&names).await
}

async fn list_all(client: &Client) {
    let request = ListChatsRequest {
        page_size: 1_000,
        max_usernames: Some(1_000),
        ..Default::default()
    };
    let page = client.grpc.clone().list_chats(request).await;
    assert!(!page.unwrap().into_inner().chats.is_empty());
}

async fn page(client: &Client, chat: i64) {
    let page_size = 10;
    let request = ListMessagesRequest {
        chat_id: chat,
        page_size,
        ..Default::default()
    };
    client.page(request).await.unwrap();
}

/// Calls that are always under way, and how many have been answered.
struct Greedy {
    answered: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Greedy {
    async fn begin<F: Future<Output = ()> + Send + 'static>(
        call: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let answered = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..GREEDY {
            let (call, answered) = (call.clone(), answered.clone());
            tasks.spawn(async move {
                loop {
                    call().await;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begun = async {
            while answered.load(Ordering::Relaxed) < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("the greedy user's first calls", begun).await;
        Self {
            answered,
            _tasks: tasks,
        }
    }
}

/// How long the slowest but one of `LOOKS` calls takes, and how many of the greedy
/// user's are answered during a call.
async fn look(greedy: Option<&Greedy>, call: impl AsyncFn()) -> (Duration, f64) {
    let answered = || greedy.map_or(0, |greedy| greedy.answered.load(Ordering::Relaxed));
    let (mut times, mut before_it) = (Vec::new(), 0);
    for _ in 0..LOOKS {
        let (before, began) = (answered(), Instant::now());
        soon("an answer", call()).await;
        times.push(began.elapsed());
        before_it += answered() - before;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    times.sort_unstable();
    (times[LOOKS - 2], before_it as f64 / LOOKS as f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_user_who_makes_large_chats_does_not_hold_up_others_messages() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let send = async || _ = alice.send(chat, "hi", "").await.unwrap();
    let (quiet, _) = look(None, send).await;
    let mallory = server.client("mallory").await;
    let create = move || {
        let mallory = mallory.clone();
        async move { _ = create_large(&mallory).await }
    };
    let greedy = Greedy::begin(create).await;
    let (held_up, before) = look(Some(&greedy), send).await;
    eprintln!("a message takes {quiet:?}, beside large chats {held_up:?}, behind {before:.1}");
    // Sixteen that go into one transaction would all be answered before it.
    assert!(before < 5.0, "behind {before} large chats");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_user_who_lists_many_chats_does_not_hold_up_others_pages() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    alice.send(chat, "hi", "").await.unwrap();
    let mallory = server.client("mallory").await;
    for _ in 0..60 {
        create_large(&mallory).await;
    }
    let read = async || page(&alice, chat).await;
    let (quiet, _) = look(None, read).await;
    let list = move || {
        let mallory = mallory.clone();
        async move { list_all(&mallory).await }
    };
    let greedy = Greedy::begin(list).await;
    let (held_up, before) = look(Some(&greedy), read).await;
    eprintln!("a page takes {quiet:?}, beside long lists {held_up:?}, behind {before:.1}");
    assert!(before < 4.0, "behind {before} lists");
}

/// Who takes calls back does not get around its turn: the change goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_changes_that_are_taken_back_keep_their_turn() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let mallory = server.client("mallory").await;
    let create = move || {
        let mut grpc = mallory.grpc.clone();
        async move {
            let info = chat_service::proto::ChatInfo {
                usernames: names(999),
            };
            let mut request = Request::new(CreateRequest {
                info: Some(info),
                ..Default::default()
            });
            request.set_timeout(Duration::from_millis(2));
            let made = grpc.create(request).await;
            let code = made.err().map(|status| status.code());
            assert!(
                matches!(code, None | Some(Code::DeadlineExceeded | Code::Cancelled)),
                "{code:?}"
            );
        }
    };
    let greedy = Greedy::begin(create).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = alice.create(&[]).await;
    drop(greedy);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Ids count up: of those that were under way, one was made, and no queue of them.
    let after = alice.create(&[]).await;
    assert!(after - before < 6, "{} chats were made", after - before);
    alice.send(chat, "hi", "").await.unwrap();
}
