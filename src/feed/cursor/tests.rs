//! Readers between ring and history, under random schedules on one thread, and
//! under the machine's own on several.

mod threads;
mod world;

use fastrand::Rng;
use world::{Flag, Seen, Watcher, World, crowded, now};

use super::*;
use crate::{
    feed::history::{LOOKS_AT_END, LOOKS_AT_HOLE, RETRY_MIN},
    store::Store as _,
    testing::{Fault, for_seeds, row, user},
};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // Without tokio's budget, which would make its own parts pretend to wait.
    runtime.block_on(tokio::task::unconstrained(test));
}

#[test]
fn p4_readers_between_ring_and_history_in_random_schedules() {
    let mut total = Seen::default();
    for_seeds(12_000, |rng| {
        let mut world = World::new(rng);
        run(async {
            for _ in 0..rng.usize(1..4) {
                world.join(rng);
            }
            for _ in 0..rng.usize(20..150) {
                world.step(rng).await;
            }
            world.finish(rng).await;
        });
        assert_eq!(world.feed.readers(), world.watchers.len());
        world.watchers.clear();
        assert_eq!(world.feed.readers(), 0);
        let seen = world.seen;
        total.ring += seen.ring;
        total.history += seen.history;
        total.to_history += seen.to_history;
        total.to_ring += seen.to_ring;
        total.faults += seen.faults;
        total.answers += seen.answers;
        total.ends += seen.ends;
        total.stalls += seen.stalls;
        total.holes += seen.holes;
    });
    println!("{total:?}");
    if std::env::var("CHAT_TEST_SEED").is_err() {
        assert!(total.ring > 10_000 && total.history > 10_000);
        assert!(total.to_history > 5_000 && total.to_ring > 5_000);
        assert!(total.faults > 1_000 && total.stalls > 1_000);
        assert!(total.answers > 1_000 && total.ends > 1_000);
        assert!(total.holes > 1_000);
    }
}

/// A world with one reader that waits for history, which does not answer.
fn behind(rng: &mut Rng) -> World {
    let mut world = World::with_pages(rng, usize::MAX);
    world.bound.messages = 1;
    let bound = world.bound;
    world.feed = Arc::new(Feed::new(
        world.chat,
        world.published,
        bound,
        world.wakes.cores(),
    ));
    for _ in 0..3 {
        world.commit(rng, 0);
        world.committed += 1;
        let row = row(world.chat, world.committed, "alice", "x");
        world.unpublished.push_back(row.clone());
        now(world.memory.append(0, Arc::new(vec![row]))).unwrap();
        world.publish_one();
    }
    let slot = Arc::new(Slot::new(user("carol"), 1));
    let reader = Reader::join(world.feed.clone(), slot, 0, 0, world.history.clone());
    world.watchers.push(Watcher::new(reader));
    world.poll(0, 10);
    assert_eq!(world.asked.lock().unwrap().len(), 1);
    world
}

#[test]
fn p8_p9_a_reader_that_waits_for_history_sees_the_end() {
    for end in [End::Deleted, End::Draining] {
        let mut rng = Rng::with_seed(1);
        run(async {
            let mut world = behind(&mut rng);
            world.end = Some(end);
            world.feed.end(end);
            world.call();
            world.rest(&mut rng, false).await;
            assert_eq!(world.watchers[0].ended, Some(end));
        });
    }
}

/// Its user may have been removed since, where the chat goes on.
#[test]
fn p7_what_a_reader_has_not_taken_goes_with_the_end() {
    for end in [End::Deleted, End::Lost] {
        let mut rng = Rng::with_seed(1);
        run(async {
            let mut world = behind(&mut rng);
            for ask in world.asked.lock().unwrap().drain(..) {
                _ = ask.send(Fault::None);
            }
            world.end = Some(end);
            world.feed.end(end);
            world.call();
            world.rest(&mut rng, false).await;
            let watcher = &world.watchers[0];
            assert_eq!((watcher.ended, watcher.cursor), (Some(end), 0));
        });
    }
}

/// What the store has lost is looked for a few times, not at once, and then what
/// is behind it comes.
#[test]
fn p4_a_reader_is_led_past_what_the_store_has_lost() {
    for (lost, asked) in [
        (1..=1, LOOKS_AT_HOLE),
        (2..=2, 1 + LOOKS_AT_HOLE),
        // And whether there is such a chat.
        (1..=3, LOOKS_AT_END + 1),
    ] {
        let mut rng = Rng::with_seed(1);
        run(async {
            let mut world = behind(&mut rng);
            for seq in lost.clone() {
                world.memory.lose(world.chat, seq);
                world.lost.insert(seq);
            }
            let mut asks = 0;
            let begun = tokio::time::Instant::now();
            while world.watchers[0].cursor < 3 {
                world.poll(0, 10);
                let waiting: Vec<_> = world.asked.lock().unwrap().drain(..).collect();
                match waiting.is_empty() {
                    true => tokio::time::advance(RETRY_MIN).await,
                    false => asks += waiting.len() as u32,
                }
                waiting
                    .into_iter()
                    .for_each(|ask| _ = ask.send(Fault::None));
                assert!(asks < 100, "asked without end");
            }
            assert_eq!(asks, asked, "{lost:?}");
            assert!(begun.elapsed() >= RETRY_MIN * 2, "{:?}", begun.elapsed());
            // The ring has the newest, though the store has lost it.
            assert_eq!(world.seen.holes, if lost == (1..=3) { 2 } else { 1 });
        });
    }
}

/// A reader may stop at any time: it keeps little, and then asks for little.
#[test]
fn p6_of_a_page_of_large_messages_little_is_kept() {
    let mut rng = Rng::with_seed(1);
    run(async {
        let mut world = behind(&mut rng);
        let reader = &mut world.watchers[0].reader;
        let mut pages = Vec::new();
        for size in [16_000, 16_000, 10, 10] {
            let text = "x".repeat(size);
            let seqs = 1..=reader.page as Seq;
            let rows = seqs.map(|seq| row(world.chat, seq, "alice", &text));
            let rows: Vec<Row> = rows.collect();
            let Source::Page(page) = reader.open_page(&rows) else {
                panic!("no page");
            };
            assert!(page.bytes() <= PAGE_BYTES, "{}", page.bytes());
            pages.push(page.through - reader.cursor);
        }
        assert_eq!(pages, [8, 8, 16, 32]);
    });
}

/// Many streams of one user: what HTTP/2 has not written holds up its own stream, until
/// it is written; and then the end comes before what is left.
#[test]
fn p4_p6_a_stream_of_many_goes_on_once_what_it_has_is_written() {
    let mut rng = Rng::with_seed(1);
    run(async {
        let mut world = behind(&mut rng);
        let slot = Arc::new(Slot::new(user("carol"), 1));
        let feed = world.feed.clone();
        let last = world.published;
        let mut reader = Reader::join(feed, slot.clone(), 0, last - 1, world.history.clone());
        reader.share(Some(crowded()));
        let flag = Flag::raised();
        let waker = Waker::from(flag.clone());
        let mut cx = Context::from_waker(&waker);
        let mut next = || reader.poll_next(&mut cx);
        let Poll::Ready(Delivery::Frames(unwritten)) = next() else {
            panic!("nothing to read");
        };
        world.committed += 1;
        let row = row(world.chat, world.committed, "alice", "x");
        world.unpublished.push_back(row);
        assert!(world.publish_one());
        flag.take();
        assert!(next().is_pending());
        drop(unwritten);
        assert!(flag.take(), "not woken");
        let Poll::Ready(Delivery::Frames(unwritten)) = next() else {
            panic!("held up");
        };
        assert!(next().is_pending());
        slot.end(End::Misused);
        drop(unwritten);
        assert!(flag.take(), "not woken");
        assert!(matches!(next(), Poll::Ready(Delivery::End(End::Misused))));
    });
}
