use chat_service::store::Activity;

use super::*;

/// Reads the whole list, `limit` at a time.
async fn listed(store: &dyn Store, user: &UserName, limit: usize) -> Vec<(i64, ChatId)> {
    let mut all = Vec::new();
    let mut behind: Option<Activity> = None;
    loop {
        let page = store
            .chats_of(user, Walk::Down(behind), limit, 1_000, soon())
            .await
            .unwrap();
        assert!(page.len() <= limit);
        let Some((last, _)) = page.last() else {
            return all;
        };
        behind = Some(*last);
        for (activity, record) in page {
            assert_eq!(activity.chat, record.id);
            all.push((activity.at.0, record.id));
        }
        assert!(all.len() < 1_000, "the list has no end");
    }
}

async fn chat_at(store: &dyn Store, member: &UserName, at: i64) -> ChatId {
    let chat = NewChat {
        client_chat_id: None,
        created_at: Timestamp(at),
        ..new_chat(&[member])
    };
    store.create_chat(chat).await.unwrap()
}

async fn message_at(store: &dyn Store, chat: ChatId, seq: Seq, at: i64) {
    let message = Row {
        created_at: Timestamp(at),
        ..row(chat, seq)
    };
    append(store, vec![message]).await.unwrap();
}

pub async fn the_newest_activity_comes_first(store: &dyn Store) {
    let me = user("me");
    let a = chat_at(store, &me, 10).await;
    let b = chat_at(store, &me, 20).await;
    let c = chat_at(store, &me, 30).await;
    assert_eq!(listed(store, &me, 9).await, [(30, c), (20, b), (10, a)]);
    message_at(store, a, 1, 40).await;
    message_at(store, b, 1, 25).await;
    assert_eq!(listed(store, &me, 9).await, [(40, a), (30, c), (25, b)]);
    message_at(store, b, 2, 50).await;
    assert_eq!(listed(store, &me, 9).await, [(50, b), (40, a), (30, c)]);
}

/// The other way round, in front of a place; and with no more names than are wanted.
pub async fn a_list_is_read_upwards(store: &dyn Store) {
    let me = user("me");
    let mut chats = Vec::new();
    for at in 1..=6 {
        chats.push(chat_at(store, &me, at).await);
    }
    let place = |at: usize| Activity {
        at: Timestamp(at as i64),
        chat: chats[at - 1],
    };
    let up = async |above, limit| -> Vec<i64> {
        let walk = Walk::Up(place(above));
        let page = store.chats_of(&me, walk, limit, 10, soon()).await.unwrap();
        page.iter().map(|(activity, _)| activity.at.0).collect()
    };
    assert_eq!(up(3, 9).await, [4, 5, 6]);
    assert_eq!(up(3, 2).await, [4, 5]);
    assert_eq!(up(6, 9).await, [] as [i64; 0]);
    message_at(store, chats[0], 1, 7).await;
    assert_eq!(up(5, 9).await, [6, 7]);

    let all = [me.clone(), user("a"), user("b"), user("c")];
    let others = all[1..].to_vec();
    store.add_members(chats[5], others, None).await.unwrap();
    for names in [0, 2, 9] {
        let walk = Walk::Up(place(5));
        let page = store.chats_of(&me, walk, 1, names, soon()).await.unwrap();
        let (_, record) = &page[0];
        assert_eq!(record.member_count, 4);
        assert_eq!(record.members, all[..names.min(4)]);
    }
}

pub async fn a_list_is_read_in_pages(store: &dyn Store) {
    let me = user("me");
    let mut expected = Vec::new();
    for i in 0..11 {
        // Each instant twice, and chats with and without a message.
        let at = 100 + i / 2;
        let id = chat_at(store, &me, if i % 3 == 0 { 1 } else { at }).await;
        if i % 3 == 0 {
            message_at(store, id, 1, at).await;
        }
        expected.push((at, id));
    }
    expected.sort_unstable();
    expected.reverse();
    for limit in [1, 2, 3, 10, 11, 12] {
        assert_eq!(listed(store, &me, limit).await, expected, "{limit}");
    }
    assert_eq!(listed(store, &me, 0).await, vec![]);
}

pub async fn chats_of_one_instant_are_in_the_order_of_ids(store: &dyn Store) {
    let me = user("me");
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(chat_at(store, &me, 7).await);
    }
    let expected: Vec<_> = ids.iter().rev().map(|id| (7, *id)).collect();
    assert_eq!(listed(store, &me, 1).await, expected);
    let between = Activity {
        at: Timestamp(7),
        chat: ids[2],
    };
    let page = store
        .chats_of(&me, Walk::Down(Some(between)), 9, 1_000, soon())
        .await
        .unwrap();
    let found: Vec<_> = page.iter().map(|(a, _)| a.chat).collect();
    assert_eq!(found, [ids[1], ids[0]]);
    // A place that no chat has.
    let older = Activity {
        at: Timestamp(6),
        chat: ids[3],
    };
    let page = store
        .chats_of(&me, Walk::Down(Some(older)), 9, 1_000, soon())
        .await
        .unwrap();
    assert_eq!(page, vec![]);
}

pub async fn a_list_holds_only_chats_of_the_user(store: &dyn Store) {
    let (me, you) = (user("me"), user("you"));
    let both = chat(store, &[&me, &you]).await;
    let mine = chat(store, &[&me]).await;
    let yours = chat(store, &[&you]).await;
    assert_eq!(listed(store, &me, 9).await, [(1_000, mine), (1_000, both)]);
    store
        .remove_members(both, vec![me.clone()], None)
        .await
        .unwrap();
    store
        .add_members(yours, vec![me.clone()], None)
        .await
        .unwrap();
    assert_eq!(listed(store, &me, 9).await, [(1_000, yours), (1_000, mine)]);
    assert_eq!(
        listed(store, &you, 9).await,
        [(1_000, yours), (1_000, both)]
    );
    assert_eq!(listed(store, &user("me"), 9).await, vec![]);
}

pub async fn a_list_shows_a_chat_as_it_is(store: &dyn Store) {
    let (me, you) = (user("me"), user("you"));
    let id = chat(store, &[&you, &me]).await;
    append(store, rows(id, 1..=3)).await.unwrap();
    let list = store
        .chats_of(&me, Walk::Down(None), 9, 1_000, soon())
        .await
        .unwrap();
    let (record, _) = store.load_chat(id, 0, soon()).await.unwrap().unwrap();
    assert_eq!(record.members, [you, me]);
    assert_eq!(record.last_seq, 3);
    let activity = Activity {
        at: Timestamp(3_000),
        chat: id,
    };
    assert_eq!(list, [(activity, record)]);
}

/// More than a store looks at one by one.
pub async fn a_user_of_many_chats_finds_them_by_activity(store: &dyn Store) {
    const CHATS: i64 = 230;
    let (me, friend) = (user("me"), user("friend"));
    let mut expected = Vec::new();
    for n in 0..CHATS {
        // Of every third I become a member when it has messages already.
        let founder = if n % 3 == 0 { &friend } else { &me };
        let id = chat(store, &[founder]).await;
        // Half of them talk, in another order than that of their making.
        let last = if n % 2 == 0 { 2 + n * 77 % CHATS } else { 0 };
        if last > 0 {
            append(store, rows(id, 1..=last)).await.unwrap();
        }
        if n % 3 == 0 {
            store.add_members(id, vec![me.clone()], None).await.unwrap();
        }
        // A chat is made at one millisecond, and its messages are of one each.
        let at = Timestamp(last.max(1) * 1_000);
        expected.push(Activity { at, chat: id });
    }
    for gone in [7, 8] {
        let chat = expected.remove(gone).chat;
        store.delete_chat(chat, None).await.unwrap();
        let left = expected.remove(gone).chat;
        let me = vec![me.clone()];
        store.remove_members(left, me, None).await.unwrap();
    }
    // The last moves up.
    let moved = expected.last_mut().unwrap();
    let last = store.last_seqs(&[moved.chat], soon()).await.unwrap()[0];
    let next = row(moved.chat, last + 1);
    *moved = Activity {
        at: next.created_at,
        chat: moved.chat,
    };
    append(store, vec![next]).await.unwrap();
    expected.sort_unstable();
    expected.reverse();

    let walk = async |mut walk: Walk| {
        let mut all = Vec::new();
        loop {
            let page = store.chats_of(&me, walk, 40, 3, soon()).await.unwrap();
            let Some((last, _)) = page.last() else {
                return all;
            };
            walk = match walk {
                Walk::Down(_) => Walk::Down(Some(*last)),
                Walk::Up(_) => Walk::Up(*last),
            };
            all.extend(page.iter().map(|(activity, _)| *activity));
        }
    };
    assert_eq!(walk(Walk::Down(None)).await, expected);
    let above = expected.pop().unwrap();
    expected.reverse();
    assert_eq!(walk(Walk::Up(above)).await, expected);
}
