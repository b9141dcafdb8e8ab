use super::*;

/// So long do seeds that nobody has tried go on in `make test`.
const MOMENT: Duration = Duration::from_secs(12);

fn must_hold(explored: &Explored, first: u64) {
    explored.print(first);
    if let Some((seed, run)) = &explored.failed {
        panic!("{}", failure(*seed, run));
    }
}

#[test]
fn p1_to_p9_hold_for_the_first_seeds() {
    let explored = explore(1, 30, None, None, false);
    must_hold(&explored, 1);
    let counts = &explored.counts;
    let tried = [
        counts.commits,
        counts.foreign,
        counts.acknowledged,
        counts.duplicates,
        counts.unknown,
        counts.refused,
        counts.cut,
        counts.delivered,
        counts.ended,
        counts.removals,
        counts.crashes,
        counts.drains,
        counts.lost,
        counts.locked,
    ];
    assert!(tried.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn p1_to_p9_hold_for_seeds_that_nobody_has_tried() {
    let first = fastrand::u64(..1 << 48);
    must_hold(&explore(first, u64::MAX, Some(MOMENT), None, false), first);
}

#[test]
fn a_seed_decides_everything() {
    for seed in 1..=8 {
        let [first, again] = [(); 2].map(|()| world::run(seed, None, false));
        assert_eq!(first.hash, again.hash, "seed {seed}");
        assert_eq!(first.polls, again.polls, "seed {seed}");
    }
    let [one, other] = [1, 2].map(|seed| world::run(seed, None, false).hash);
    assert_ne!(one, other);
}

/// Found within so many seeds, from the first on, with one of these promises.
#[track_caller]
fn is_found(mutation: Mutation, seeds: u64, promises: &[&str]) {
    let explored = explore(1, seeds, None, Some(mutation), false);
    let Some((seed, run)) = explored.failed else {
        panic!("{mutation:?} is not found within {seeds} seeds");
    };
    let again = world::run(seed, Some(mutation), false);
    assert_eq!(run.hash, again.hash, "it can be played again");
    let broken = run.broken.expect("what has failed");
    println!("{mutation:?} is found by seed {seed}: {broken}");
    assert!(promises.contains(&broken.promise), "{broken}");
}

#[test]
fn a_commit_that_never_happens_is_found() {
    is_found(Mutation::AcksWithoutStoring, 5, &["P1", "P2", "P3"]);
}

#[test]
fn an_acknowledgement_before_the_commit_is_found() {
    is_found(Mutation::AcksEarly, 5, &["P1", "P3"]);
}

#[test]
fn a_batch_that_is_stored_twice_is_found() {
    is_found(Mutation::StoresTwice, 5, &["P5"]);
}

#[test]
fn a_message_written_over_another_is_found() {
    is_found(Mutation::Overwrites, 5, &["P1", "P2", "P5"]);
}

#[test]
fn messages_lost_in_a_crash_are_found() {
    is_found(Mutation::ForgetsInCrash, 5, &["P1", "P2", "P4"]);
}

#[test]
fn a_hole_in_a_page_is_found() {
    // P10: what is in a message's way and shows in no page is taken for the
    // message's own fault.
    is_found(Mutation::PageWithHole, 10, &["P4", "P5", "P8", "P10"]);
}

#[test]
fn a_page_with_another_text_is_found() {
    is_found(Mutation::PageOfOthers, 10, &["P2"]);
}

#[test]
fn a_window_that_does_not_survive_a_restart_is_found() {
    is_found(Mutation::ShortTail, 20, &["P5"]);
}

#[test]
fn a_removal_that_is_not_stored_is_found() {
    is_found(Mutation::KeepsMembers, 20, &["P7"]);
}

#[test]
fn a_swallowed_wake_up_is_found() {
    is_found(Mutation::LosesWakes, 5, &["P4", "P8", "P9"]);
}

#[test]
fn a_takeover_that_nobody_notices_is_found() {
    is_found(Mutation::HidesTakeovers, 20, &["P1", "P2", "P4", "P5"]);
}

#[test]
fn a_takeover_that_the_shards_do_not_notice_is_found() {
    // The next post is refused, when all is well.
    is_found(
        Mutation::TellsLanesOnly,
        40,
        &["P1", "P2", "P4", "P5", "P8"],
    );
}

#[test]
fn a_takeover_that_the_lanes_do_not_notice_is_found() {
    is_found(Mutation::TellsShardsOnly, 200, &["P2"]);
}

#[test]
fn a_call_without_an_answer_is_found() {
    is_found(Mutation::LosesAnswers, 5, &["P8"]);
}
