use futures_util::future::join_all;

use super::*;

async fn members(store: &dyn Store, chat: ChatId) -> Vec<UserName> {
    let loaded = store.load_chat(chat, 0, soon()).await.unwrap();
    loaded.expect("the chat exists").0.members
}

pub async fn a_chat_is_found_as_it_was_made(store: &dyn Store) {
    let (zoe, two_words) = (user("Zoë"), user("it's \"two\" \\ words 🦀"));
    let id = chat(store, &[&zoe, &two_words]).await;
    let (record, newest) = store.load_chat(id, 10, soon()).await.unwrap().unwrap();
    assert_eq!(record.id, id);
    assert_eq!(record.created_by, zoe);
    assert_eq!(record.created_at, Timestamp(1_000));
    assert_eq!(record.members, [zoe, two_words]);
    assert_eq!(record.last_seq, 0);
    assert_eq!(newest, vec![]);
}

pub async fn members_stand_in_the_order_of_joining(store: &dyn Store) {
    let (z, a, m, b) = (user("z"), user("a"), user("m"), user("b"));
    let id = chat(store, &[&z, &a]).await;
    let more = vec![m.clone(), a.clone(), b.clone()];
    store.add_members(id, more.clone(), None).await.unwrap();
    let expected = [z, a, m, b];
    assert_eq!(members(store, id).await, expected);
    // Who is a member already stays in his place.
    store.add_members(id, more, None).await.unwrap();
    assert_eq!(members(store, id).await, expected);
}

pub async fn a_member_who_returns_comes_last(store: &dyn Store) {
    let (a, b, c) = (user("a"), user("b"), user("c"));
    let id = chat(store, &[&a, &b, &c]).await;
    let gone = vec![a.clone(), user("nobody")];
    store.remove_members(id, gone, None).await.unwrap();
    assert_eq!(members(store, id).await, [b.clone(), c.clone()]);
    store.add_members(id, vec![a.clone()], None).await.unwrap();
    assert_eq!(members(store, id).await, [b.clone(), c.clone(), a.clone()]);
    // The same where the one who joined last leaves.
    store
        .remove_members(id, vec![a.clone()], None)
        .await
        .unwrap();
    let back = vec![a.clone()];
    store.add_members(id, back, None).await.unwrap();
    assert_eq!(members(store, id).await, [b, c, a]);
}

pub async fn members_of_one_chat_are_not_those_of_another(store: &dyn Store) {
    let (a, b) = (user("a"), user("b"));
    let (one, two) = (chat(store, &[&a, &b]).await, chat(store, &[&a, &b]).await);
    store
        .remove_members(one, vec![b.clone()], None)
        .await
        .unwrap();
    assert_eq!(members(store, one).await, std::slice::from_ref(&a));
    assert_eq!(members(store, two).await, [a, b]);
}

pub async fn membership_is_known_without_the_chat(store: &dyn Store) {
    let (a, b, c) = (user("a"), user("b"), user("c"));
    let (id, other) = (chat(store, &[&a, &b]).await, chat(store, &[&c]).await);
    let asked = async |chat, users: &[&UserName]| {
        let users: Vec<UserName> = users.iter().copied().cloned().collect();
        store.has_member(chat, &users, soon()).await.unwrap()
    };
    assert!(asked(id, &[&b]).await);
    assert!(asked(id, &[&c, &a]).await, "one of several");
    assert!(!asked(id, &[&c]).await, "a member of another chat");
    assert!(!asked(id, &[]).await);
    store
        .remove_members(id, vec![b.clone()], None)
        .await
        .unwrap();
    assert!(!asked(id, &[&b]).await, "removed");
    assert!(store.delete_chat(id, None).await.unwrap());
    assert!(!asked(id, &[&a]).await, "the chat is deleted");
    assert!(asked(other, &[&c]).await);
}

pub async fn who_shares_a_chat_is_known(store: &dyn Store) {
    // Other tests of the same database have their own users.
    let own = |name: &str| user(&format!("sharing-{name}"));
    let (a, b, c) = (own("a"), own("b"), own("c"));
    let share = async |one: &UserName, other: &UserName| {
        let asked = store.share_a_chat(one, other, soon()).await.unwrap();
        let turned = store.share_a_chat(other, one, soon()).await.unwrap();
        assert_eq!(asked, turned);
        asked
    };
    let (first, second) = (chat(store, &[&a, &b]).await, chat(store, &[&b, &c]).await);
    assert!(share(&a, &b).await && share(&b, &c).await);
    assert!(!share(&a, &c).await, "each is in a chat with b alone");
    store
        .add_members(second, vec![a.clone()], None)
        .await
        .unwrap();
    assert!(share(&a, &c).await, "added");
    store
        .remove_members(second, vec![a.clone()], None)
        .await
        .unwrap();
    assert!(!share(&a, &c).await, "removed");
    assert!(store.delete_chat(first, None).await.unwrap());
    assert!(!share(&a, &b).await, "the chat is deleted");
    assert!(!share(&a, &own("nobody")).await);
}

pub async fn a_deleted_chat_is_not_found(store: &dyn Store) {
    let (a, b) = (user("a"), user("b"));
    let (id, other) = (chat(store, &[&a, &b]).await, chat(store, &[&a]).await);
    let both = [rows(id, 1..=20), rows(other, 1..=3)].concat();
    append(store, both).await.unwrap();

    assert!(store.delete_chat(id, None).await.unwrap());
    assert_eq!(store.load_chat(id, 5, soon()).await.unwrap(), None);
    assert_eq!(history(store, id).await, vec![]);
    assert_eq!(
        seqs(store, id, Page::Before(Seq::MAX), 5).await,
        Vec::<Seq>::new()
    );
    let last = store.last_seqs(&[id, other], soon()).await.unwrap();
    assert_eq!(last, [0, 3]);
    let of_a = store
        .chats_of(&a, Walk::Down(None), 10, 1_000, soon())
        .await
        .unwrap();
    assert_eq!(of_a.len(), 1);
    assert_eq!(of_a[0].1.id, other);
    assert_eq!(
        store
            .chats_of(&b, Walk::Down(None), 10, 1_000, soon())
            .await
            .unwrap(),
        vec![]
    );
    assert!(!store.delete_chat(id, None).await.unwrap(), "a second time");
    store.add_members(id, vec![b.clone()], None).await.unwrap();
    assert_eq!(store.load_chat(id, 5, soon()).await.unwrap(), None);
    assert_eq!(
        store
            .chats_of(&b, Walk::Down(None), 10, 1_000, soon())
            .await
            .unwrap(),
        vec![]
    );
    assert_eq!(history(store, other).await.len(), 3);
}

pub async fn a_missing_chat_is_not_an_error(store: &dyn Store) {
    let missing = ChatId::new(i64::MAX - 1).unwrap();
    assert_eq!(store.load_chat(missing, 5, soon()).await.unwrap(), None);
    assert!(!store.delete_chat(missing, None).await.unwrap());
    assert_eq!(history(store, missing).await, vec![]);
    assert_eq!(store.last_seqs(&[missing], soon()).await.unwrap(), [0]);
    let somebody = vec![user("somebody")];
    store
        .add_members(missing, somebody.clone(), None)
        .await
        .unwrap();
    store.remove_members(missing, somebody, None).await.unwrap();
    assert_eq!(store.load_chat(missing, 5, soon()).await.unwrap(), None);
    store.ping(soon()).await.unwrap();
}

pub async fn ids_are_not_given_twice(store: &dyn Store) {
    let first = chat_of_one(store).await;
    assert!(store.delete_chat(first, None).await.unwrap());
    let second = chat_of_one(store).await;
    assert!(second > first);
}

pub async fn many_chats_are_made_at_once(store: &dyn Store) {
    let owner = user("owner");
    let members = [&owner];
    let made = join_all((0..100).map(|_| chat(store, &members))).await;
    let mut distinct = made.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), made.len());
    let found = store
        .chats_of(&owner, Walk::Down(None), 1_000, 1_000, soon())
        .await
        .unwrap();
    assert_eq!(found.len(), made.len());
}
