use std::{net::Ipv4Addr, time::Duration};

use super::{lines::GRACE, *};

fn origin(last: u8) -> Origin {
    std::net::IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
}

fn gone(one: &Stranger) -> bool {
    one.gives_way.load(Ordering::Relaxed)
}

/// An account whose clocks the test sets.
struct Account {
    strangers: Arc<Strangers>,
    now: Instant,
    wall: Timestamp,
}

impl Account {
    fn new(places: usize) -> Self {
        let mut strangers = Strangers::new(places);
        // What ends in the test is used later than what the test says was used.
        let began = strangers.began - Duration::from_secs(10);
        Arc::get_mut(&mut strangers).unwrap().began = began;
        Self {
            strangers,
            now: began,
            wall: Timestamp(1_000),
        }
    }

    fn enter(&self, last: u8) -> Arc<Stranger> {
        self.strangers.enter(origin(last), self.now)
    }

    /// A connection of a user who has shown a token without an end.
    fn user(&self, name: &str) -> Arc<Stranger> {
        self.user_until(name, None)
    }

    fn user_until(&self, name: &str, expires: Option<Timestamp>) -> Arc<Stranger> {
        let one = self.enter(200);
        know(&one, name, expires);
        one
    }

    fn make_way(&self, newcomer: u8) -> bool {
        self.strangers
            .make_way(origin(newcomer), self.now, self.wall)
    }

    fn assert_empty(&self) {
        assert!(self.strangers.lines().is_empty());
    }
}

fn know(one: &Arc<Stranger>, name: &str, expires: Option<Timestamp>) {
    one.is_known(expires, || Owner::User(UserName::new(name).unwrap()));
}

/// As if its last call had ended so many milliseconds after the account began.
fn used(one: &Stranger, millis: u64) {
    one.used.store(millis, Ordering::SeqCst);
}

#[test]
fn p6_the_first_of_the_address_with_most_gives_way() {
    let mut account = Account::new(10);
    let alone = account.enter(1);
    let many = [account.enter(2), account.enter(2), account.enter(2)];
    let user = account.enter(2);
    know(&user, "bob", None);
    assert!(!account.make_way(2), "each has its time");
    account.now += GRACE;
    for n in 0..3 {
        assert!(account.make_way(2));
        let given: Vec<bool> = many.iter().map(|one| gone(one)).collect();
        // The last two addresses have one each.
        let expected: Vec<bool> = (0..3).map(|m| m <= n).collect();
        assert_eq!(given, expected);
    }
    assert!(!gone(&alone) && !gone(&user));
    assert!(!many[0].leave(), "its place is somebody else's");
    assert!(user.leave());
    assert!(account.make_way(1) && gone(&alone));
    assert!(!account.make_way(1), "there is nobody left");
    account.assert_empty();
}

/// Who opens connections faster than they have had their time, and closes them before,
/// keeps out nobody who comes from elsewhere.
#[test]
fn p6_an_address_has_time_for_its_share_alone() {
    let account = Account::new(10);
    let flood: Vec<_> = (0..10).map(|_| account.enter(1)).collect();
    assert!(!account.make_way(1), "its own have to wait");
    let mut others = Vec::new();
    for one in &flood[..5] {
        // Addresses that have fewer, each with itself.
        assert!(account.make_way(2));
        assert!(gone(one), "the one that came first");
        others.push(account.enter(2));
    }
    assert!(!account.make_way(2), "five each");
    assert!(account.make_way(3));
    assert!(gone(&others[0]));
    for one in flood.iter().chain(&others) {
        one.leave();
    }
    account.assert_empty();
}

/// One user's connections that only answer PINGs keep nobody out.
#[test]
fn p6_the_user_with_most_connections_loses_the_one_idle_for_longest() {
    let account = Account::new(10);
    let bobs: Vec<_> = (0..4).map(|_| account.user("bob")).collect();
    let eves = [account.user("eve"), account.user("eve")];
    for (one, millis) in bobs.iter().zip([40, 20, 30, 10]) {
        used(one, millis);
    }
    // It has something under way.
    let work = Work::of(&bobs[3]);
    assert!(account.make_way(1) && gone(&bobs[1]));
    // With 1 and the one that comes it would have as many as bob has.
    let strangers = [account.enter(1), account.enter(1)];
    assert!(!account.make_way(1));
    assert!(account.make_way(2), "it has none");
    assert!(
        gone(&strangers[0]) && !gone(&bobs[2]),
        "strangers come first"
    );
    strangers[1].leave();
    // Until its work ends it stands behind all others; then it is idle since just now.
    drop(work);
    assert!(account.make_way(1) && gone(&bobs[2]));
    assert!(account.make_way(1));
    let last_of = |of: &[Arc<Stranger>]| of.iter().filter(|one| !gone(one)).count();
    assert_eq!(last_of(&bobs) + last_of(&eves), 3);
    assert!(account.make_way(1));
    assert!(!account.make_way(1), "everybody keeps one");
    assert_eq!([last_of(&bobs), last_of(&eves)], [1, 1]);
    for one in bobs.iter().chain(&eves) {
        assert_eq!(one.leave(), !gone(one));
    }
    account.assert_empty();
}

#[test]
fn p6_connections_with_calls_under_way_never_give_way() {
    let account = Account::new(10);
    let bobs: Vec<_> = (0..3).map(|_| account.user("bob")).collect();
    let eves: Vec<_> = (0..2).map(|_| account.user("eve")).collect();
    let works: Vec<_> = bobs.iter().map(Work::of).collect();
    let second = Work::of(&bobs[0]);
    // All of bob's are busy: it is the turn of the next user.
    assert!(account.make_way(1) && gone(&eves[0]));
    assert!(!account.make_way(1));
    drop(works);
    assert!(account.make_way(1) && !gone(&bobs[0]));
    drop(second);
    assert!(account.make_way(1));
    assert_eq!(bobs.iter().filter(|one| gone(one)).count(), 2);
    assert!(!account.make_way(1));
    for one in bobs.iter().chain(&eves) {
        one.leave();
    }
    account.assert_empty();
}

/// However many are found to have been used since somebody looked, one gives way.
#[test]
fn p6_many_that_are_in_use_do_not_hide_the_idle_ones() {
    let account = Account::new(8_000);
    let bobs: Vec<_> = (0..2_000).map(|_| account.user("bob")).collect();
    for (one, millis) in bobs.iter().zip(1_000..) {
        used(one, millis);
    }
    for n in 1..=10 {
        assert!(account.make_way(1));
        assert_eq!(bobs.iter().filter(|one| gone(one)).count(), n);
    }
    let works: Vec<_> = bobs.iter().map(Work::of).collect();
    for _ in 0..10 {
        assert!(!account.make_way(1), "all are busy");
    }
    drop(works);
    for one in &bobs {
        one.leave();
    }
    account.assert_empty();
}

#[test]
fn p6_an_idle_connection_whose_token_has_expired_is_a_stranger_again() {
    let mut account = Account::new(10);
    let expires = Some(Timestamp(5_000_000));
    let idle = account.user_until("bob", expires);
    let busy = account.user_until("kim", expires);
    let renewed = account.user_until("eve", expires);
    know(&renewed, "eve", Some(Timestamp(60_000_000)));
    let work = Work::of(&busy);
    account.now += GRACE;
    assert!(!account.make_way(1), "each is its user's only one");
    account.wall = Timestamp(5_000_000);
    assert!(account.make_way(1) && gone(&idle));
    assert!(!account.make_way(1));
    drop(work);
    account.wall = Timestamp(7_000_000);
    assert!(account.make_way(1) && gone(&busy));
    assert!(!account.make_way(1));
    account.wall = Timestamp(60_000_000);
    know(&renewed, "eve", Some(Timestamp(90_000_000)));
    assert!(!account.make_way(1));
    account.wall = Timestamp(90_000_000);
    assert!(account.make_way(1) && gone(&renewed));
    account.assert_empty();
}

#[test]
fn p6_expired_connections_become_known_again() {
    let mut account = Account::new(10);
    let silent = account.enter(200);
    let one = account.user_until("bob", Some(Timestamp(5_000)));
    account.now += GRACE;
    account.wall = Timestamp(5_000);
    assert!(account.make_way(1) && gone(&silent), "it came first");
    know(&one, "bob", None);
    assert!(!account.make_way(1));
    assert!(one.leave());
    account.assert_empty();
}

/// With something under way on each of its connections somebody could keep all places.
#[test]
fn p6_a_users_connections_beyond_a_quarter_of_all_stay_strangers() {
    let mut account = Account::new(100);
    let bobs: Vec<_> = (0..100).map(|_| account.user("bob")).collect();
    let works: Vec<_> = bobs.iter().map(Work::of).collect();
    account.now += GRACE;
    let mut others = Vec::new();
    for _ in 0..75 {
        assert!(account.make_way(1));
        others.push(account.user("eve"));
    }
    assert_eq!(bobs.iter().filter(|one| !gone(one)).count(), 25);
    drop(works);
    // Once there is room in the quarter, one takes it with its next call.
    let mut stranger = account.user("bob");
    assert!(!stranger.is_known.load(Ordering::Relaxed));
    bobs.iter().find(|one| !gone(one)).unwrap().leave();
    know(&stranger, "bob", None);
    assert!(stranger.is_known.load(Ordering::Relaxed));
    stranger = account.user("bob");
    assert!(!stranger.is_known.load(Ordering::Relaxed));
}
