//! The cores of ownership under crashes, pauses, lost answers and outages, and what this
//! finds if something is left out of them.

mod database;
mod following;
mod world;

use fastrand::Rng;

use self::{
    following::Following,
    world::{Millis, World},
};
use crate::{cluster::edge, testing::for_seeds};

/// Something that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutation {
    NoFence,
    ChecksBeforeTheLock,
    TakesOverBeforeTheLock,
    /// Beats that were not answered count as if they had been.
    CountsOutages,
    /// A transaction whose answer was lost is taken for one that has failed.
    ForgetsDoubts,
    GivesWhatIsUnderWay,
    /// A session that was given up is taken for one that has ended.
    ForgetsSessions,
}

/// How long things go wrong, and how long it takes until all is as it should be.
const FAULTS: Millis = 50_000;
const SETTLED: Millis = 25_000;

fn explore(rng: &mut Rng, mutation: Option<Mutation>) -> (World, Option<String>) {
    let nodes = rng.usize(2..=5);
    let mut world = World::new(rng.fork(), nodes, FAULTS, mutation);
    world.run(FAULTS + SETTLED);
    let wrong = world.wrong.take();
    let wrong = wrong.or_else(|| world.unsettled());
    (world, wrong)
}

#[test]
fn p1_p2_p8_one_node_at_a_time_writes_a_partition() {
    let (mut declared, mut moved) = (0, 0);
    for_seeds(60, |rng| {
        let (world, wrong) = explore(rng, None);
        assert_eq!(wrong, None, "at {} ms", world.now);
        declared += world.declared;
        moved += world.moved;
    });
    if std::env::var_os("CHAT_TEST_SEED").is_none() {
        assert!(declared > 60 && moved > 400, "{declared}, {moved}");
    }
}

#[test]
fn what_is_left_out_is_found() {
    for mutation in [
        Mutation::NoFence,
        Mutation::ChecksBeforeTheLock,
        Mutation::TakesOverBeforeTheLock,
        Mutation::CountsOutages,
        Mutation::ForgetsDoubts,
        Mutation::GivesWhatIsUnderWay,
        Mutation::ForgetsSessions,
    ] {
        let first = fastrand::u64(..u64::MAX / 2);
        let found = (0..400).find(|seed| {
            let (_, wrong) = explore(&mut Rng::with_seed(first + seed), Some(mutation));
            wrong.is_some_and(|wrong| wrong.starts_with('P'))
        });
        println!("{mutation:?} from seed {first}: found after {found:?}");
        assert!(found.is_some(), "{mutation:?} from seed {first}");
    }
}

#[test]
fn p1_who_is_killed_is_followed_within_three_seconds() {
    for_seeds(50, |rng| {
        let nodes = rng.usize(2..=5);
        let mut world = World::new(rng.fork(), nodes, 0, None);
        let calm = 20_000 + rng.u64(..1_000);
        world.run(calm);
        assert_eq!(world.unsettled(), None);
        let killed = rng.usize(..nodes);
        let owned = world.owned_by(killed);
        world.longest = 0;
        world.crash(killed);
        world.run(calm + 10_000);
        assert_eq!(world.wrong, None);
        for partition in owned {
            assert!(world.written[&partition] > calm + 8_000, "{partition:?}");
        }
        // Besides, the database takes up to 5 ms for each answer, and 100 ms are what
        // the dead one's locks are waited for.
        assert!(world.longest < 3_250, "{} ms", world.longest);
    });
}

#[test]
fn p9_who_leaves_is_followed_at_once() {
    for_seeds(50, |rng| {
        let nodes = rng.usize(2..=5);
        let mut world = World::new(rng.fork(), nodes, 0, None);
        world.run(20_000);
        assert_eq!(world.unsettled(), None);
        world.longest = 0;
        world.leave(rng.usize(..nodes));
        world.run(40_000);
        assert_eq!(world.wrong, None);
        assert_eq!(world.unsettled(), None);
        // Two writes, and ten answers of the database of up to 10 ms.
        assert!(world.longest < 200, "{} ms", world.longest);
    });
}

/// How long chats are followed while things go wrong, and then until all have heard.
const FOLLOWED: Millis = 20_000;
const HEARD: Millis = 9_000;

fn follow(rng: &mut Rng, mutation: Option<edge::Mutation>) -> Following {
    let mut following = Following::new(rng.fork(), FOLLOWED, mutation);
    following.run(FOLLOWED + HEARD);
    following
}

#[test]
fn p2_p4_p7_chats_are_followed_on_other_nodes() {
    let (mut delivered, mut begun) = (0, 0);
    for_seeds(60, |rng| {
        let following = follow(rng, None);
        assert_eq!(following.wrong, None, "at {} ms", following.now);
        delivered += following.delivered;
        begun += following.begun;
    });
    if std::env::var_os("CHAT_TEST_SEED").is_none() {
        assert!(delivered > 100_000 && begun > 1_000, "{delivered}, {begun}");
    }
}

#[test]
fn what_is_left_out_of_following_is_found() {
    for mutation in [
        edge::Mutation::AppendsOverAHole,
        edge::Mutation::TakesALookForAnAnswer,
        edge::Mutation::ForgetsAChat,
        edge::Mutation::LetsTheRemovedRead,
    ] {
        let first = fastrand::u64(..u64::MAX / 2);
        let found = (0..2_000).find(|seed| {
            let following = follow(&mut Rng::with_seed(first + seed), Some(mutation));
            following.wrong.is_some()
        });
        println!("{mutation:?} from seed {first}: found after {found:?}");
        assert!(found.is_some(), "{mutation:?} from seed {first}");
    }
}
