use chat_service::domain::{Attached, Change, ClientMessageId, Current, ReactionCount, Target};

use super::*;

fn entry(chat: ChatId, seq: Seq, from: &UserName, text: &str, change: Change) -> Row {
    Row {
        from: from.clone(),
        text: text.into(),
        number: 2,
        change: Some(Box::new(change)),
        ..row(chat, seq)
    }
}

fn attached() -> Attached {
    Attached::new(
        Some(1),
        b"\0\xffdata",
        "x/y",
        &[UserName::new("bob").unwrap()],
    )
    .unwrap()
}

/// A message that carries something.
fn loaded(chat: ChatId, seq: Seq) -> Row {
    Row {
        change: Some(Box::new(Change::Attached(attached()))),
        ..row(chat, seq)
    }
}

fn edit(chat: ChatId, seq: Seq, target: Seq, text: &str) -> Row {
    entry(chat, seq, &user("owner"), text, Change::Edit { target })
}

fn deletion(chat: ChatId, seq: Seq, target: Seq) -> Row {
    entry(chat, seq, &user("owner"), "", Change::Deletion { target })
}

fn reaction(chat: ChatId, seq: Seq, from: &UserName, target: Seq, emoji: &str) -> Row {
    let removed = emoji.starts_with('-');
    let change = Change::Reaction { target, removed };
    entry(chat, seq, from, emoji.trim_start_matches('-'), change)
}

async fn current(store: &dyn Store, chat: ChatId, viewer: &UserName) -> Vec<Current> {
    let page = Page::After(0);
    let found = store.current(chat, viewer, page, 1_000, soon()).await;
    found.unwrap()
}

async fn target(store: &dyn Store, chat: ChatId, seq: Seq) -> Target {
    let mut found = store.targets(chat, &[seq], soon()).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn text(current: &Current) -> &str {
    match current.row.change.as_deref() {
        Some(Change::Edited { text, .. }) => text,
        _ => &current.row.text,
    }
}

pub async fn entries_come_back_as_they_were(store: &dyn Store) {
    let id = chat_of_one(store).await;
    let bob = user("bob");
    let keyed = Row {
        client_message_id: ClientMessageId::from_wire("k").unwrap(),
        ..edit(id, 3, 1, "better \u{1f980}")
    };
    let written = vec![
        loaded(id, 1),
        loaded(id, 2),
        keyed,
        reaction(id, 4, &bob, 1, "👍"),
        reaction(id, 5, &bob, 1, "-👍"),
        deletion(id, 6, 2),
        Row {
            number: 3,
            ..loaded(id, 7)
        },
    ];
    append(store, written.clone()).await.unwrap();
    let at = written[2].created_at;
    let found = history(store, id).await;
    let mut expected = written;
    expected[0].change = Some(Box::new(Change::Edited {
        text: "better \u{1f980}".into(),
        at,
        attached: Some(attached()),
    }));
    expected[1].change = Some(Box::new(Change::Deleted));
    expected[1].text = "".into();
    assert_eq!(found, expected);
    let (_, newest) = store.load_chat(id, 3, soon()).await.unwrap().unwrap();
    assert_eq!(newest, expected[4..]);
    let last = store.last_seqs(&[id], soon()).await.unwrap();
    assert_eq!(last, [7]);
}

pub async fn the_last_edit_of_a_message_is_current(store: &dyn Store) {
    let id = chat_of_one(store).await;
    append(store, rows(id, 1..=3)).await.unwrap();
    append(store, vec![edit(id, 4, 2, "one"), edit(id, 5, 2, "two")])
        .await
        .unwrap();
    append(
        store,
        vec![edit(id, 6, 2, "three"), edit(id, 7, 3, "other")],
    )
    .await
    .unwrap();
    let found = current(store, id, &user("me")).await;
    let original = row(id, 1).text;
    let texts: Vec<&str> = found.iter().map(text).collect();
    assert_eq!(texts, [&*original, "three", "other"]);
    let at = row(id, 6).created_at;
    assert!(
        matches!(found[1].row.change.as_deref(), Some(Change::Edited { at: when, .. }) if *when == at)
    );
    assert_eq!(target(store, id, 2).await.edits, 3);
    // Of another chat nothing has changed.
    let other = chat_of_one(store).await;
    append(store, rows(other, 1..=3)).await.unwrap();
    assert!(
        history(store, other)
            .await
            .iter()
            .all(|row| row.change.is_none())
    );
}

pub async fn p12_a_deletion_leaves_no_text(store: &dyn Store) {
    let id = chat_of_one(store).await;
    append(store, rows(id, 1..=2)).await.unwrap();
    append(store, vec![edit(id, 3, 1, "one")]).await.unwrap();
    // An edit and the deletion behind it in one batch, and one of another message.
    let batch = vec![
        edit(id, 4, 1, "two"),
        edit(id, 5, 2, "stays"),
        deletion(id, 6, 1),
    ];
    append(store, batch).await.unwrap();
    // Of a writer who did not know.
    append(store, vec![edit(id, 7, 1, "")]).await.unwrap();
    let found = history(store, id).await;
    let texts: Vec<&str> = found.iter().map(|row| &*row.text).collect();
    let second = row(id, 2).text;
    assert_eq!(texts, ["", &*second, "", "", "stays", "", ""]);
    assert_eq!(found[0].change.as_deref(), Some(&Change::Deleted));
    let found = current(store, id, &user("me")).await;
    let texts: Vec<&str> = found.iter().map(text).collect();
    assert_eq!(texts, ["", "stays"]);
    let target = target(store, id, 1).await;
    assert_eq!(target.row.change.as_deref(), Some(&Change::Deleted));
}

pub async fn reactions_are_counted(store: &dyn Store) {
    let id = chat_of_one(store).await;
    let (me, bob, cyd) = (user("me"), user("bob"), user("cyd"));
    append(store, rows(id, 1..=3)).await.unwrap();
    let reactions = vec![
        reaction(id, 4, &bob, 1, "👍"),
        reaction(id, 5, &me, 1, "❤️"),
        reaction(id, 6, &cyd, 1, "👍"),
        reaction(id, 7, &me, 3, "👍"),
        reaction(id, 8, &bob, 1, "-👍"),
        reaction(id, 9, &bob, 1, "🦀"),
        reaction(id, 10, &me, 3, "-👍"),
        reaction(id, 11, &me, 3, "👍"),
        reaction(id, 12, &bob, 2, "👍"),
        reaction(id, 13, &bob, 2, "-👍"),
    ];
    append(store, reactions).await.unwrap();
    let count = |emoji: &str, count, mine| ReactionCount {
        emoji: emoji.into(),
        count,
        mine,
    };
    let found = current(store, id, &me).await;
    let counted: Vec<&[ReactionCount]> = found.iter().map(|one| &*one.reactions).collect();
    let first = [
        count("❤️", 1, true),
        count("👍", 1, false),
        count("🦀", 1, false),
    ];
    assert_eq!(counted, [&first[..], &[], &[count("👍", 1, true)]]);
    // A page that begins behind some of them.
    let page = store.current(id, &bob, Page::Before(4), 1, soon());
    let page = page.await.unwrap();
    assert_eq!(page[0].reactions, [count("👍", 1, false)]);
    let told = target(store, id, 1).await.reactions;
    let told: Vec<(Seq, &UserName, &str, bool)> = told
        .iter()
        .map(|one| (one.seq, &one.from, &*one.emoji, one.removed))
        .collect();
    let all = [
        (4, &bob, "👍", false),
        (5, &me, "❤️", false),
        (6, &cyd, "👍", false),
        (8, &bob, "👍", true),
        (9, &bob, "🦀", false),
    ];
    assert_eq!(told, all);
    append(store, vec![deletion(id, 14, 1)]).await.unwrap();
    assert!(current(store, id, &me).await[0].reactions.is_empty());
}

pub async fn pages_of_messages_pass_over_other_entries(store: &dyn Store) {
    let id = chat_of_one(store).await;
    let bob = user("bob");
    append(store, rows(id, 1..=2)).await.unwrap();
    let between = (3..=20).map(|seq| reaction(id, seq, &bob, 1, "👍"));
    append(store, between.collect()).await.unwrap();
    append(store, rows(id, 21..=22)).await.unwrap();
    for (page, limit, expected) in [
        (Page::After(0), 3, vec![1, 2, 21]),
        (Page::After(2), 1, vec![21]),
        (Page::After(5), 9, vec![21, 22]),
        (Page::Before(Seq::MAX), 3, vec![2, 21, 22]),
        (Page::Before(21), 1, vec![2]),
        (Page::Before(10), 9, vec![1, 2]),
        (Page::After(22), 9, vec![]),
        (Page::After(Seq::MAX), 9, vec![]),
        (Page::Before(1), 9, vec![]),
    ] {
        let found = store.current(id, &bob, page, limit, soon()).await.unwrap();
        let found: Vec<Seq> = found.iter().map(|one| one.row.seq).collect();
        assert_eq!(found, expected, "{page:?}, {limit}");
    }
    assert_eq!(seqs(store, id, Page::After(18), 3).await, [19, 20, 21]);
}

pub async fn what_is_to_be_changed_is_found_or_not(store: &dyn Store) {
    let id = chat_of_one(store).await;
    append(store, rows(id, 1..=2)).await.unwrap();
    append(store, vec![deletion(id, 3, 1)]).await.unwrap();
    let found = store.targets(id, &[3, 1, 99], soon()).await.unwrap();
    let mut found: Vec<(Seq, bool)> = found
        .iter()
        .map(|one| (one.row.seq, one.row.is_message()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(1, true), (3, false)]);
    let none = ChatId::new(id.get() + 1_000_000).unwrap();
    assert!(store.targets(none, &[1], soon()).await.unwrap().is_empty());
    let me = user("me");
    let page = store.current(none, &me, Page::After(0), 9, soon()).await;
    assert!(page.unwrap().is_empty());
    assert!(store.delete_chat(id, None).await.unwrap());
    assert!(store.targets(id, &[2], soon()).await.unwrap().is_empty());
}

pub async fn p12_a_restart_brings_no_text_back(backend: &mut impl Durable) {
    let store = backend.store();
    let id = chat_of_one(&*store).await;
    append(&*store, rows(id, 1..=2)).await.unwrap();
    append(&*store, vec![edit(id, 3, 1, "one"), edit(id, 4, 2, "two")])
        .await
        .unwrap();
    append(&*store, vec![deletion(id, 5, 1)]).await.unwrap();
    let before = history(&*store, id).await;
    let me = user("me");
    let then = current(&*store, id, &me).await;
    drop(store);
    backend.reopen().await;
    let store = backend.store();
    assert_eq!(history(&*store, id).await, before);
    assert_eq!(current(&*store, id, &me).await, then);
    assert_eq!(text(&then[1]), "two");
}
