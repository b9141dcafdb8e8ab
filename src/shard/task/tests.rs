//! Shards as tasks, with a store that goes away.

mod moving;
mod world;

use std::sync::atomic::Ordering;

use futures_util::FutureExt as _;
use world::{CHAT, SECOND, World, settings, turn};

use super::*;
use crate::{
    domain::{Caller, ChatError, Timestamp},
    feed::{Delivery, End},
    store::{NewChat, Store},
    testing::{Fault, chat_id, user},
};

#[tokio::test(start_paused = true)]
async fn p8_sends_get_their_answer_by_the_deadline_while_the_store_is_away() {
    let world = World::new().await;
    world.script(|script| script.appends = vec![None]);
    let with_store = world.post("first", SECOND);
    turn().await;
    let queued: Vec<_> = (0..5)
        .map(|n| world.post(&format!("queued {n}"), 2 * SECOND))
        .collect();
    let began = tokio::time::Instant::now();
    assert_eq!(with_store.await.unwrap(), Err(Refusal::OutcomeUnknown));
    assert!(began.elapsed() < SECOND + Duration::from_millis(10));
    for post in queued {
        assert_eq!(post.await.unwrap(), Err(Refusal::Expired));
    }
    assert!(began.elapsed() < 2 * SECOND + Duration::from_millis(10));
    world.let_go();
    assert!(world.post("after", SECOND).await.unwrap().is_ok());
    assert_eq!(world.stored().await, ["first", "after"]);
    world.end().await;
}

/// A batch may be as large as all that may be pending. It does not keep those
/// behind it from their answers.
#[tokio::test(start_paused = true)]
async fn p8_a_large_batch_that_hangs_holds_no_answer_back() {
    let world = World::new().await;
    let warm = world.post("warm", SECOND);
    assert!(warm.await.unwrap().is_ok());
    world.script(|script| script.appends = vec![None]);
    let batch: Vec<_> = (0..12)
        .map(|n| world.post(&format!("{n}"), 10 * SECOND))
        .collect();
    turn().await;
    let late: Vec<_> = (0..20).map(|_| world.post("late", SECOND)).collect();
    let began = tokio::time::Instant::now();
    for post in late {
        let answer = tokio::time::timeout(8 * SECOND, post)
            .await
            .expect("an answer");
        assert_eq!(answer.unwrap(), Err(Refusal::Expired));
    }
    assert!(began.elapsed() < 2 * SECOND, "{:?}", began.elapsed());
    world.let_go();
    for post in batch {
        assert!(post.await.unwrap().is_ok());
    }
    // All room is there again: more than may be pending at a time goes through.
    for n in 0..20 {
        assert!(
            world
                .post(&format!("again {n}"), SECOND)
                .await
                .unwrap()
                .is_ok()
        );
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn p8_a_post_behind_more_patient_ones_is_answered_by_its_deadline() {
    let world = World::new().await;
    world.script(|script| script.appends = vec![None]);
    let first = world.post("first", 60 * SECOND);
    turn().await;
    let pending = settings().pending.posts;
    let patient: Vec<_> = (0..pending)
        .map(|n| world.post(&format!("{n}"), 60 * SECOND))
        .collect();
    turn().await;
    let begun = tokio::time::Instant::now();
    let hasty = world.post("hasty", SECOND).await.unwrap();
    assert_eq!(hasty, Err(Refusal::Expired));
    assert!(
        begun.elapsed() < SECOND + Duration::from_millis(10),
        "{:?}",
        begun.elapsed()
    );
    world.let_go();
    assert!(first.await.unwrap().is_ok());
    for post in patient {
        assert!(post.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn p4_a_reader_resumes_at_a_message_whose_commit_the_shard_does_not_know_yet() {
    let world = World::new().await;
    let join = |after| world.shard.join(chat_id(CHAT), user("bob"), after, 0);
    // It may have been seen in history: committed, and the answer on its way.
    world.script(|script| script.appends = vec![None]);
    let post = world.post("1", SECOND);
    turn().await;
    let mut reader = join(Some(1)).await.unwrap();
    let ahead = join(Some(2)).await.unwrap_err();
    assert_eq!(ahead, ChatError::AheadOfChat { last_seq: 0 });
    world.let_go();
    assert!(post.await.unwrap().is_ok());
    let next = std::future::poll_fn(|cx| reader.poll_next(cx)).now_or_never();
    assert!(next.is_none(), "{next:?}");
    assert!(world.post("2", SECOND).await.unwrap().is_ok());
    let next = std::future::poll_fn(|cx| reader.poll_next(cx)).await;
    assert!(matches!(next, Delivery::Frames(_)), "{next:?}");
    assert_eq!(reader.delivered(), 1);
}

#[tokio::test(start_paused = true)]
async fn p8_posts_to_a_chat_that_cannot_be_loaded_expire() {
    let world = World::new().await;
    world.script(|script| script.loads = vec![Some(Fault::Unavailable); 1_000]);
    let posts: Vec<_> = (0..30).map(|_| world.post("x", SECOND)).collect();
    let joined = world.shard.join(chat_id(CHAT), user("bob"), None, 0).await;
    assert_eq!(joined.unwrap_err(), ChatError::Unavailable);
    for post in posts {
        assert_eq!(post.await.unwrap(), Err(Refusal::Expired));
    }
    world.script(|script| script.loads.clear());
    assert!(world.post("back", SECOND).await.unwrap().is_ok());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn p8_a_change_whose_outcome_is_lost_is_looked_up() {
    let world = World::new().await;
    for (fault, there) in [(Fault::Lost, false), (Fault::DoneAndLost, true)] {
        world.script(|script| {
            script.members = vec![Some(fault)];
            script.loads = vec![Some(Fault::Unavailable); 3];
        });
        let name = format!("new-{there}");
        let add = world
            .shard
            .add_members(chat_id(CHAT), world.alice(), vec![user(&name)], None);
        assert_eq!(add.await.unwrap_err(), ChatError::Unavailable);
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(world.members().await.contains(&name), there);
    }
    let mut bob = world
        .shard
        .join(chat_id(CHAT), user("bob"), None, 0)
        .await
        .unwrap();
    world.script(|script| script.members = vec![Some(Fault::DoneAndLost)]);
    let remove = world
        .shard
        .remove_members(chat_id(CHAT), world.alice(), vec![user("bob")], None);
    assert_eq!(remove.await.unwrap_err(), ChatError::Unavailable);
    let end = std::future::poll_fn(|cx| bob.poll_next(cx)).await;
    assert!(matches!(end, Delivery::End(End::Removed)), "{end:?}");
    assert_eq!(
        world.post("x", SECOND).await.unwrap(),
        Err(Refusal::NotMember)
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_waits_for_what_is_with_the_writer() {
    let world = World::new().await;
    let mut reader = world
        .shard
        .join(chat_id(CHAT), user("bob"), None, 0)
        .await
        .unwrap();
    world.script(|script| script.appends = vec![None]);
    let in_flight = world.post("in flight", 10 * SECOND);
    turn().await;
    let queued = world.post("queued", 10 * SECOND);
    turn().await;
    let (shard, alice) = (world.shard.clone(), world.alice());
    let deletion = tokio::runtime::Handle::current()
        .spawn(async move { shard.delete(chat_id(CHAT), alice, None).await });
    assert_eq!(queued.await.unwrap(), Err(Refusal::Unavailable));
    assert_eq!(
        world.post("too late", SECOND).await.unwrap(),
        Err(Refusal::Unavailable)
    );
    assert!(!in_flight.is_finished() && !deletion.is_finished());
    world.let_go();
    assert!(in_flight.await.unwrap().is_ok());
    assert_eq!(deletion.await.unwrap(), Ok(()));
    let end = async {
        loop {
            if let Delivery::End(end) = std::future::poll_fn(|cx| reader.poll_next(cx)).await {
                return end;
            }
        }
    };
    assert_eq!(end.await, End::Deleted);
    assert_eq!(
        world.post("gone", SECOND).await.unwrap(),
        Err(Refusal::NotMember)
    );
    world.end().await;
}

/// A lock was in the way of the chat's messages, so they are to be written again; but
/// meanwhile the chat is being deleted.
#[tokio::test(start_paused = true)]
async fn what_a_lock_held_back_is_not_written_to_a_chat_that_is_being_deleted() {
    let world = World::new().await;
    world.script(|script| {
        script.appends = vec![None];
        script.held = Some(Fault::Locked(Some(chat_id(CHAT))));
        script.deletes = vec![None];
    });
    let held_back = world.post("held back", 100 * SECOND);
    turn().await;
    let (shard, alice) = (world.shard.clone(), world.alice());
    let deletion = tokio::runtime::Handle::current()
        .spawn(async move { shard.delete(chat_id(CHAT), alice, None).await });
    turn().await;
    world.let_go();
    assert_eq!(held_back.await.unwrap(), Err(Refusal::Unavailable));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(world.script.lock().unwrap().sizes, [1], "one try");
    assert!(!deletion.is_finished());
    world.let_go();
    assert_eq!(deletion.await.unwrap(), Ok(()));
    world.end().await;
}

/// The chat turns out to be gone while messages of it are with the writer: they
/// are answered, and nothing of them is left in the shard's account.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_lost_and_done_leaves_nothing_behind() {
    let world = World::new().await;
    let mut reader = world
        .shard
        .join(chat_id(CHAT), user("bob"), None, 0)
        .await
        .unwrap();
    world.script(|script| {
        script.deletes = vec![Some(Fault::DoneAndLost)];
        script.loads = vec![Some(Fault::Unavailable); 3];
        script.appends = vec![None];
    });
    let deletion = world.shard.delete(chat_id(CHAT), world.alice(), None).await;
    assert_eq!(deletion, Err(ChatError::Unavailable));
    let in_flight = world.post("in flight", 100 * SECOND);
    turn().await;
    let queued: Vec<_> = (0..6).map(|_| world.post("queued", 100 * SECOND)).collect();
    tokio::time::sleep(10 * SECOND).await;
    assert!(!in_flight.is_finished());
    world.let_go();
    _ = in_flight.await.unwrap();
    for post in queued {
        assert_eq!(post.await.unwrap(), Err(Refusal::NotMember));
    }
    let end = async {
        loop {
            if let Delivery::End(end) = std::future::poll_fn(|cx| reader.poll_next(cx)).await {
                return end;
            }
        }
    };
    assert_eq!(end.await, End::Deleted);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn p9_nobody_joins_after_the_drain() {
    let world = World::new().await;
    world.script(|script| script.loads = vec![None]);
    let (shard, bob) = (world.shard.clone(), user("bob"));
    let joining = tokio::runtime::Handle::current()
        .spawn(async move { shard.join(chat_id(CHAT), bob, None, 0).await });
    turn().await;
    world.shard.drain().await.await;
    world.let_go();
    assert_eq!(joining.await.unwrap().unwrap_err(), ChatError::Draining);
    let late = world.shard.get(chat_id(CHAT), world.alice()).await;
    assert_eq!(late.unwrap_err(), ChatError::Draining);
    assert_eq!(
        world.post("x", SECOND).await.unwrap(),
        Err(Refusal::Draining)
    );
}

#[tokio::test(start_paused = true)]
async fn p9_a_drain_waits_for_what_was_accepted() {
    let world = World::new().await;
    let mut reader = world
        .shard
        .join(chat_id(CHAT), user("bob"), None, 0)
        .await
        .unwrap();
    world.script(|script| script.appends = vec![None]);
    let posts: Vec<_> = (0..3)
        .map(|n| world.post(&format!("{n}"), 60 * SECOND))
        .collect();
    turn().await;
    let shard = world.shard.clone();
    let drain = tokio::runtime::Handle::current().spawn(async move { shard.drain().await.await });
    tokio::time::sleep(SECOND).await;
    assert!(!drain.is_finished());
    world.let_go();
    drain.await.unwrap();
    for post in posts {
        assert!(post.await.unwrap().is_ok());
    }
    let frames = std::future::poll_fn(|cx| reader.poll_next(cx)).await;
    assert!(
        matches!(frames, Delivery::Frames(_)),
        "first what the ring has"
    );
    let end = std::future::poll_fn(|cx| reader.poll_next(cx)).now_or_never();
    assert!(matches!(end, Some(Delivery::End(End::Draining))), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn p9_a_drain_waits_for_a_change_that_is_with_the_store() {
    let world = World::new().await;
    world.script(|script| script.members = vec![None]);
    let (shard, alice) = (world.shard.clone(), world.alice());
    let runtime = tokio::runtime::Handle::current();
    let change = runtime.spawn(async move {
        let carol = vec![user("carol")];
        shard.add_members(chat_id(CHAT), alice, carol, None).await
    });
    turn().await;
    let shard = world.shard.clone();
    let drain = runtime.spawn(async move { shard.drain().await.await });
    tokio::time::sleep(SECOND).await;
    assert!(!drain.is_finished());
    world.let_go();
    drain.await.unwrap();
    assert!(change.await.unwrap().is_ok());
}

/// The outcome of a change is lost, so the chat is read again, and the store does
/// not answer that. What waits behind it is not left without an answer.
#[tokio::test(start_paused = true)]
async fn p9_a_drain_answers_what_waits_for_a_chat_that_is_read_again() {
    let world = World::new().await;
    world.members().await;
    world.script(|script| {
        script.members = vec![Some(Fault::Lost)];
        script.loads = vec![None];
    });
    let add = |name: &str| {
        let (shard, alice, users) = (world.shard.clone(), world.alice(), vec![user(name)]);
        let add = async move { shard.add_members(chat_id(CHAT), alice, users, None).await };
        tokio::runtime::Handle::current().spawn(add)
    };
    let lost = add("carol").await.unwrap();
    assert_eq!(lost.unwrap_err(), ChatError::Unavailable);
    let waiting = add("dave");
    turn().await;
    assert!(!waiting.is_finished());
    world.shard.drain().await.await;
    assert_eq!(waiting.await.unwrap().unwrap_err(), ChatError::Draining);
}

#[tokio::test(start_paused = true)]
async fn p6_idle_chats_are_let_go_and_used_ones_are_not() {
    let world = World::new().await;
    let loads = || world.loads.load(Ordering::Relaxed);
    assert!(
        world
            .post_with_key("one", "k", SECOND)
            .await
            .unwrap()
            .is_ok()
    );
    for _ in 0..10 {
        tokio::time::sleep(30 * SECOND).await;
        world.members().await;
    }
    assert_eq!(loads(), 1, "in use");
    let reader = world.shard.join(chat_id(CHAT), user("bob"), None, 0).await;
    tokio::time::sleep(1_000 * SECOND).await;
    world.members().await;
    assert_eq!(loads(), 1, "it has a reader");
    drop(reader);
    tokio::time::sleep(200 * SECOND).await;
    let again = world
        .post_with_key("one", "k", SECOND)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loads(), 2, "let go");
    assert!(again.duplicate && again.seq == 1, "P5");
    assert_eq!(world.stored().await, ["one"]);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn posts_that_wait_for_their_chat_are_accounted_for() {
    let world = World::new().await;
    world.script(|script| script.loads = vec![None]);
    let posts: Vec<_> = (0..5)
        .map(|n| world.post(&format!("{n}"), 10 * SECOND))
        .collect();
    let late = world.post("late", SECOND);
    assert_eq!(late.await.unwrap(), Err(Refusal::Expired));
    world.let_go();
    for (post, seq) in posts.into_iter().zip(1..) {
        assert_eq!(post.await.unwrap().unwrap().seq, seq);
    }
    world.end().await;
}

/// A chat whose queue fills every batch lets the others into the next one.
#[tokio::test(start_paused = true)]
async fn a_long_queue_keeps_no_other_chat_waiting() {
    let mut settings = settings();
    settings.batch.rows = 2;
    let world = World::with(settings).await;
    let other = NewChat {
        client_chat_id: None,
        created_by: user("bob"),
        created_at: Timestamp(0),
        members: vec![user("bob")],
    };
    let other = world.memory.create_chat(other).await.unwrap().get();
    world.script(|script| script.appends = vec![None, None, None]);

    let long: Vec<_> = (0..7)
        .map(|n| world.post_to(CHAT, &format!("{n}"), "", 10 * SECOND))
        .collect();
    turn().await;
    let short = world.post_to(other, "mine", "", 10 * SECOND);
    turn().await;
    // The batch under way, and one with the other's that has waited at the lane.
    for _ in 0..2 {
        assert!(!short.is_finished());
        world.let_go();
        turn().await;
    }
    assert!(short.is_finished(), "still behind the long queue");
    assert!(!long[6].is_finished(), "the queue was not long enough");
    world.let_go();
    for post in long {
        assert!(post.await.unwrap().is_ok());
    }
    world.end().await;
}

/// While one commit is under way the next waits at the lane, if it is worth one.
#[tokio::test(start_paused = true)]
async fn a_second_batch_of_other_chats_is_ready_when_the_first_has_landed() {
    let mut settings = settings();
    settings.batch.rows = 4;
    let world = World::with(settings).await;
    let other = NewChat {
        client_chat_id: None,
        created_by: user("bob"),
        created_at: Timestamp(0),
        members: vec![user("bob")],
    };
    let other = world.memory.create_chat(other).await.unwrap().get();
    world.script(|script| script.appends = vec![None, None]);

    let first = world.post("first", 10 * SECOND);
    turn().await;
    let mut others = Vec::new();
    for text in ["too few", "still", "enough", "late"] {
        others.push(world.post_to(other, text, "", 10 * SECOND));
        turn().await;
    }
    world.let_go();
    turn().await;
    assert!(first.is_finished() && !others[0].is_finished());
    world.let_go();
    for (post, seq) in others.into_iter().zip(1..) {
        assert_eq!(post.await.unwrap().unwrap().seq, seq);
    }
    // The last came when the others were at the lane already.
    assert_eq!(world.script.lock().unwrap().sizes, [1, 3, 1]);
    world.end().await;
}

/// What is ready to post when a batch is about to leave still goes with it.
#[tokio::test(start_paused = true)]
async fn a_small_batch_waits_until_all_that_is_ready_has_run() {
    let world = World::new().await;
    world
        .post("the chat is active", SECOND)
        .await
        .unwrap()
        .unwrap();
    let early = world.post("early", SECOND);
    let ready = async {
        tokio::task::yield_now().await;
        let draft = crate::domain::Draft::message("ready", None);
        let deadline = tokio::time::Instant::now().into_std() + SECOND;
        let (chat, bob) = (chat_id(CHAT), user("bob"));
        world.shard.post(chat, bob, draft, deadline, None).await
    };
    let (early, ready) = tokio::join!(early, ready);
    assert_eq!((early.unwrap().unwrap().seq, ready.unwrap().seq), (2, 3));
    assert_eq!(world.script.lock().unwrap().sizes, [1, 2]);
    world.end().await;
}

/// What a stranger asks for is not kept, and no member is refused for having come
/// in the same moment.
#[tokio::test(start_paused = true)]
async fn p6_a_chat_is_not_read_for_somebody_who_is_no_member() {
    let world = World::new().await;
    let stranger = || Caller {
        user: user("mallory"),
        admin: false,
    };
    for id in [CHAT, CHAT + 1] {
        let refused = Err(ChatError::NotMember);
        let get = world.shard.get(chat_id(id), stranger()).await;
        assert_eq!(get.map(drop), refused);
        let join = world.shard.join(chat_id(id), user("mallory"), None, 0);
        assert_eq!(join.await.map(drop), refused);
        let add = world
            .shard
            .add_members(chat_id(id), stranger(), vec![user("mallory")], None);
        assert_eq!(add.await.map(drop), refused);
        let leave =
            world
                .shard
                .remove_members(chat_id(id), stranger(), vec![user("mallory")], None);
        assert_eq!(leave.await.map(drop), refused);
        let delete = world.shard.delete(chat_id(id), stranger(), None).await;
        assert_eq!(delete, refused);
    }
    let post = world.post_to(CHAT + 1, "nowhere", "", SECOND);
    assert_eq!(post.await.unwrap(), Err(Refusal::NotMember));
    assert_eq!(world.loads.load(Ordering::Relaxed), 0, "chats read");

    let (refused, seen, posted) = tokio::join!(
        world.shard.get(chat_id(CHAT), stranger()),
        world.shard.get(chat_id(CHAT), world.alice()),
        world.post("with a stranger", SECOND),
    );
    assert_eq!(refused.map(drop), Err(ChatError::NotMember));
    assert!(seen.is_ok(), "{seen:?}");
    assert!(posted.unwrap().is_ok());
    assert_eq!(world.loads.load(Ordering::Relaxed), 1, "chats read");
    world.end().await;
}
