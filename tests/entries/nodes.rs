//! The same on several nodes.

use chat_service::proto::ConnectChatRequest;

use super::{all_said, said};
use crate::{
    cluster::nodes::Nodes,
    server::{join, soon},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p12_any_node_changes_messages_and_every_node_shows_it() {
    let nodes = Nodes::start(2).await;
    for owner in 0..4 {
        let owner = &nodes.all[owner % 2];
        let chat = owner.client("alice").await.create(&["bob"]).await;
        let alice = [
            nodes.all[0].client("alice").await,
            nodes.all[1].client("alice").await,
        ];
        let mut streams = Vec::new();
        for node in &nodes.all {
            let bob = node.client("bob").await;
            let first = ConnectChatRequest {
                entries: true,
                ..join(chat, Some(0))
            };
            streams.push((bob.open_with(first).await, bob.read(chat, Some(0)).await));
        }
        for round in 0..10 {
            let (one, other) = (&alice[round % 2], &alice[(round + 1) % 2]);
            let seq = one.send(chat, "a secret", "").await.unwrap().seq;
            other.edit(chat, seq, "still a secret").await.unwrap();
            one.react(chat, seq, "👍").await.unwrap();
            other.delete_message(chat, seq).await.unwrap();
            let refused = one.edit(chat, seq, "again").await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
            assert!(refused.message().contains("deleted"), "{refused:?}");
            let missing = other.react(chat, seq + 1_000, "👍").await.unwrap_err();
            assert_eq!(missing.code(), tonic::Code::NotFound);
        }
        let last = alice[0].send(chat, "end", "").await.unwrap().seq;
        assert_eq!(last, 41);
        for ((_posts, entries), messages) in &mut streams {
            for seq in 1..=last {
                entries.expect(seq).await;
            }
            for seq in (1..=last).step_by(4) {
                messages.expect(seq).await;
            }
        }
        // Whoever resumes on a node that follows the chat: once the node has heard.
        for node in &nodes.all {
            let bob = node.client("bob").await;
            for after in 0..last {
                let mut frames = bob.read(chat, Some(after)).await;
                let mut seen = Vec::new();
                while seen.last() != Some(&"end".to_owned()) {
                    seen.push(said(&soon("the next", frames.next()).await.unwrap()));
                }
                assert!(!seen.iter().any(|text| text.contains("secret")), "{seen:?}");
            }
            let log = all_said(&bob.log(chat).await);
            assert!(!log.iter().any(|text| text.contains("secret")), "{log:?}");
        }
    }
}
