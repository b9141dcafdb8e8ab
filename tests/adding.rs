//! Whom a user may make a member of a chat.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{guarded::reason, server::Server};

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(reason(&status), "MAY_NOT_ADD");
    let fields = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, field);
}

async fn start(who: &str) -> Server {
    Server::start(&["--who-may-add", who, "--dev-admins", "root"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_add_others() {
    let server = start("admin").await;
    let (alice, root) = (server.client("alice").await, server.client("root").await);
    refused(alice.try_create(&["bob"]).await, "info.usernames");
    let own = alice.create(&[]).await;
    refused(alice.add(own, &["bob"]).await, "usernames");
    assert_eq!(alice.get(own).await.unwrap().member_count, 1);
    // What concerns only oneself stays allowed, and what an admin does.
    alice.create(&["alice"]).await;
    alice.add(own, &["alice"]).await.unwrap();
    root.add(own, &["bob"]).await.unwrap();
    root.create(&["alice", "bob"]).await;
    alice.remove(own, &["bob"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_add_whom_they_share_a_chat_with() {
    let server = start("shares-a-chat").await;
    let (alice, root) = (server.client("alice").await, server.client("root").await);
    refused(alice.try_create(&["bob"]).await, "info.usernames");
    let first = root.create(&["alice", "bob"]).await;
    let own = alice.create(&["bob"]).await;
    // One stranger among others is enough, and nobody is added.
    let strange = alice.add(own, &["bob", "carol", "dave"]).await;
    let told = strange.as_ref().unwrap_err().message().to_owned();
    assert!(told.contains("carol") && !told.contains("dave"), "{told}");
    refused(strange, "usernames");
    assert_eq!(alice.get(own).await.unwrap().member_count, 2);
    root.add(first, &["carol"]).await.unwrap();
    alice.add(own, &["bob", "carol"]).await.unwrap();

    // A chat that both have left, or that is deleted, counts no more.
    root.create(&["dave", "erin"]).await;
    refused(alice.add(own, &["erin"]).await, "usernames");
    let shared = root.create(&["alice", "erin"]).await;
    root.delete(shared).await.unwrap();
    refused(alice.add(own, &["erin"]).await, "usernames");
    for chat in [first, own] {
        root.remove(chat, &["carol"]).await.unwrap();
    }
    refused(alice.add(own, &["carol"]).await, "usernames");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_anybody_is_added() {
    let server = Server::start(&[]).await;
    let alice = server.client("alice").await;
    let own = alice.create(&["bob"]).await;
    alice.add(own, &["carol"]).await.unwrap();
}
