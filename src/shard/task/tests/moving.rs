//! Chats that come to a shard and leave it.

use std::sync::Mutex;

use super::*;
use crate::{
    domain::{GivenId, MessageId, NodeId, Partition, PostResult},
    feed::Reader,
};

/// What was sent on.
#[derive(Debug, Default)]
struct SentOn(Mutex<Vec<(ChatId, Post<Reply>)>>);

impl Elsewhere for SentOn {
    fn moved(&self, chat: ChatId, post: Post<Reply>) {
        self.0.lock().unwrap().push((chat, post));
    }

    fn outcome(&self, _: NodeId, _: u64, _: PostResult) {}
}

impl SentOn {
    fn texts(&self) -> Vec<String> {
        let all = self.0.lock().unwrap();
        all.iter()
            .map(|(_, post)| post.draft.text.to_string())
            .collect()
    }
}

fn partition() -> Vec<Partition> {
    vec![Partition::of(chat_id(CHAT))]
}

async fn node() -> (World, Arc<SentOn>) {
    let sent_on = Arc::new(SentOn::default());
    (World::of_a_node(sent_on.clone()).await, sent_on)
}

async fn next(reader: &mut Reader) -> Delivery {
    let next = poll_fn(|cx| reader.poll_next(cx));
    let next = tokio::time::timeout(SECOND, next).await;
    next.expect("something to read")
}

#[tokio::test(start_paused = true)]
async fn what_a_shard_does_not_answer_for_is_sent_on() {
    let (world, sent_on) = node().await;
    let _post = world.post("one", SECOND);
    turn().await;
    assert_eq!(sent_on.texts(), ["one"]);
    let asked = world.shard.get(chat_id(CHAT), world.alice()).await;
    assert_eq!(asked.unwrap_err(), ChatError::Moved);
    world.shard.serve(partition(), Vec::new()).await;
    assert!(world.post("two", SECOND).await.unwrap().is_ok());
    world.shard.leave(partition()).await;
    let _post = world.post("three", SECOND);
    turn().await;
    assert_eq!(sent_on.texts(), ["one", "three"]);
    assert_eq!(world.stored().await, ["two"]);
    sent_on.0.lock().unwrap().clear();
    world.end().await;
}

/// The other node begins where this one has ended.
#[tokio::test(start_paused = true)]
async fn p1_p2_what_is_under_way_is_waited_for_and_the_rest_sent_on() {
    let (world, sent_on) = node().await;
    world.shard.serve(partition(), Vec::new()).await;
    assert!(world.post("warm", SECOND).await.unwrap().is_ok());
    world.script(|script| script.appends = vec![None]);
    let under_way = world.post("under way", 10 * SECOND);
    turn().await;
    let _queued = world.post("queued", 10 * SECOND);
    turn().await;
    let shard = world.shard.clone();
    let leaving = async move { shard.leave(partition()).await };
    let mut leaving = Box::pin(leaving);
    assert!(leaving.as_mut().now_or_never().is_none());
    turn().await;
    assert_eq!(sent_on.texts(), ["queued"]);
    assert!(
        leaving.as_mut().now_or_never().is_none(),
        "a commit is under way"
    );
    world.let_go();
    assert_eq!(under_way.await.unwrap().unwrap().seq, 2);
    assert!(leaving.await.is_empty(), "nobody reads");
    sent_on.0.lock().unwrap().clear();
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn p4_readers_stay_with_a_chat_that_leaves_and_comes_back() {
    let (world, _sent_on) = node().await;
    world.shard.serve(partition(), Vec::new()).await;
    let bob = user("bob");
    let joined = world.shard.join(chat_id(CHAT), bob.clone(), None, 0).await;
    let mut reader = joined.unwrap();
    let joined = world
        .shard
        .join(chat_id(CHAT), user("alice"), None, 0)
        .await;
    let mut removed = joined.unwrap();
    assert!(world.post("one", SECOND).await.unwrap().is_ok());
    assert!(matches!(next(&mut reader).await, Delivery::Frames(_)));
    assert!(matches!(next(&mut removed).await, Delivery::Frames(_)));
    let feeds = world.shard.leave(partition()).await;
    assert_eq!(feeds.len(), 1);
    assert_eq!(feeds[0].users().len(), 2);
    // Meanwhile it lives elsewhere, where one of them is removed.
    let gone = vec![user("alice")];
    world
        .memory
        .remove_members(chat_id(CHAT), gone, None)
        .await
        .unwrap();
    world.shard.serve(partition(), feeds).await;
    assert!(matches!(
        next(&mut removed).await,
        Delivery::End(End::Removed)
    ));
    assert!(world.post("two", SECOND).await.unwrap().is_ok());
    assert!(matches!(next(&mut reader).await, Delivery::Frames(_)));
    assert_eq!(reader.delivered(), 2);
    drop((reader, removed));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn p5_a_post_of_another_node_is_stored_once_also_after_a_move() {
    let (world, _sent_on) = node().await;
    world.shard.serve(partition(), Vec::new()).await;
    let post_as = |text: &str, id: i64, key: &str| {
        let (caller, answer) = oneshot::channel();
        let post = Post {
            from: user("bob"),
            draft: {
                let key = crate::domain::ClientMessageId::from_wire(key).unwrap();
                crate::domain::Draft::message(text, key)
            },
            id: GivenId::of(MessageId(id)),
            span: None,
            deadline: tokio::time::Instant::now().into_std() + SECOND,
            reply: Reply::Call(crate::shard::Asking::Call(caller)),
        };
        world.shard.pass(chat_id(CHAT), post);
        answer
    };
    let post = |text: &str, id: i64| post_as(text, id, "");
    let first = post("one", 7).await.unwrap().unwrap();
    let again = post("one", 7).await.unwrap().unwrap();
    assert_eq!(first, again);
    assert!(!again.duplicate, "the client has sent it once");
    world.shard.leave(partition()).await;
    world.shard.serve(partition(), Vec::new()).await;
    let later = post("one", 7).await.unwrap().unwrap();
    assert_eq!(later.seq, first.seq);
    assert_eq!(post("one", 8).await.unwrap().unwrap().seq, 2);
    assert_eq!(world.stored().await, ["one", "one"]);
    // Under its own id a post comes from the node again, under another from the client.
    for (id, duplicate) in [(9, false), (9, false), (10, true)] {
        let sent = post_as("two", id, "key").await.unwrap().unwrap();
        assert_eq!((sent.seq, sent.duplicate), (3, duplicate), "{id}");
    }
    world.shard.leave(partition()).await;
    world.shard.serve(partition(), Vec::new()).await;
    for (id, duplicate) in [(9, false), (10, true)] {
        let sent = post_as("two", id, "key").await.unwrap().unwrap();
        assert_eq!(
            (sent.seq, sent.duplicate),
            (3, duplicate),
            "{id}, after a move"
        );
    }
    world.end().await;
}
