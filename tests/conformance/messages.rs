use chat_service::{domain::ClientMessageId, store::StoreError};

use super::*;

pub async fn a_message_comes_back_as_it_was(store: &dyn Store) {
    let texts = [
        "plain",
        "it's \"quoted\" \\ and \\N \\. and \\x41",
        "tab\t newline\n carriage\r return",
        "ä € 🦀 👩‍👩‍👧 \u{10FFFF} \u{FEFF} e\u{301}",
        "'; DROP TABLE messages; --",
        "  spaces at both ends  ",
        "\u{1}\u{7f}\u{2028}",
        &"🦀".repeat(16_384),
    ];
    let id = chat_of_one(store).await;
    let written: Vec<Row> = (1..)
        .zip(texts)
        .map(|(seq, text)| Row {
            text: text.into(),
            from: user("Zoë's \\ \"🦀\""),
            created_at: Timestamp(1_700_000_000_123_456 + seq),
            // Every other one has none.
            client_message_id: ClientMessageId::from_wire(["", r#"a'b"c\ {}"#][seq as usize % 2])
                .unwrap(),
            ..row(id, seq)
        })
        .collect();
    append(store, written.clone()).await.unwrap();
    assert_eq!(history(store, id).await, written);
}

pub async fn an_append_of_nothing_changes_nothing(store: &dyn Store) {
    let id = chat_of_one(store).await;
    let written = rows(id, 1..=2);
    append(store, written.clone()).await.unwrap();
    append(store, vec![]).await.unwrap();
    assert_eq!(history(store, id).await, written);
}

pub async fn an_append_is_all_or_nothing(store: &dyn Store) {
    let (a, b) = (chat_of_one(store).await, chat_of_one(store).await);
    append(store, rows(b, 1..=1)).await.unwrap();
    let batch = [rows(a, 1..=500), rows(b, 1..=2)].concat();
    let refused = append(store, batch).await;
    assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
    assert_eq!(history(store, a).await, vec![]);
    assert_eq!(seqs(store, b, Page::After(0), 9).await, [1]);
    // The store is as good as before.
    append(store, rows(a, 1..=2)).await.unwrap();
    append(store, rows(b, 2..=2)).await.unwrap();
}

pub async fn a_conflict_inside_a_batch_writes_nothing(store: &dyn Store) {
    let id = chat_of_one(store).await;
    let first = rows(id, 1..=3);
    append(store, first.clone()).await.unwrap();
    // The same rows again, the tail of them, and one that runs into them.
    for again in [first.clone(), first[2..].to_vec(), rows(id, 3..=6)] {
        let refused = append(store, again).await;
        assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
        assert_eq!(history(store, id).await, first);
    }
}

pub async fn pages_go_both_ways(store: &dyn Store) {
    let id = chat_of_one(store).await;
    append(store, rows(id, 1..=6)).await.unwrap();
    append(store, rows(id, 7..=10)).await.unwrap();
    for (page, limit, expected) in [
        (Page::After(0), 3, vec![1, 2, 3]),
        (Page::After(3), 3, vec![4, 5, 6]),
        (Page::After(8), 3, vec![9, 10]),
        (Page::Before(11), 3, vec![8, 9, 10]),
        (Page::Before(8), 3, vec![5, 6, 7]),
        (Page::Before(3), 3, vec![1, 2]),
        (Page::Before(6), 1, vec![5]),
    ] {
        let found = seqs(store, id, page, limit).await;
        assert_eq!(found, expected, "{page:?}, {limit}");
    }
}

pub async fn pages_end_where_the_chat_ends(store: &dyn Store) {
    // Neighbours by id must not show through at the edges.
    let before = chat_of_one(store).await;
    let id = chat_of_one(store).await;
    let behind = chat_of_one(store).await;
    for chat in [before, id, behind] {
        append(store, rows(chat, 1..=3)).await.unwrap();
    }
    let all = vec![1, 2, 3];
    for (page, limit, expected) in [
        (Page::After(0), 0, vec![]),
        (Page::Before(9), 0, vec![]),
        (Page::After(0), 3, all.clone()),
        (Page::After(0), usize::MAX, all.clone()),
        (Page::Before(Seq::MAX), usize::MAX, all.clone()),
        (Page::After(3), 9, vec![]),
        (Page::After(4), 9, vec![]),
        (Page::After(Seq::MAX), 9, vec![]),
        (Page::Before(1), 9, vec![]),
        (Page::Before(0), 9, vec![]),
        (Page::Before(1_000), 2, vec![2, 3]),
    ] {
        let found = seqs(store, id, page, limit).await;
        assert_eq!(found, expected, "{page:?}, {limit}");
    }
    let empty = chat_of_one(store).await;
    assert_eq!(history(store, empty).await, vec![]);
}

pub async fn the_newest_messages_come_with_the_chat(store: &dyn Store) {
    let id = chat_of_one(store).await;
    append(store, rows(id, 1..=7)).await.unwrap();
    for (newest, expected) in [(0, 8..8), (3, 5..8), (7, 1..8), (100, 1..8)] {
        let loaded = store.load_chat(id, newest, soon()).await.unwrap();
        let (record, rows) = loaded.unwrap();
        let found: Vec<Seq> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(found, expected.collect::<Vec<Seq>>());
        assert_eq!(record.last_seq, 7);
    }
}

pub async fn last_seqs_are_in_the_order_asked_for(store: &dyn Store) {
    let (a, b, empty) = (
        chat_of_one(store).await,
        chat_of_one(store).await,
        chat_of_one(store).await,
    );
    append(store, rows(a, 1..=2)).await.unwrap();
    append(store, rows(b, 1..=9)).await.unwrap();
    let last = store.last_seqs(&[b, empty, a, b], soon()).await.unwrap();
    assert_eq!(last, [9, 0, 2, 9]);
    assert_eq!(store.last_seqs(&[], soon()).await.unwrap(), [] as [Seq; 0]);
}

pub async fn lanes_append_side_by_side(store: &dyn Store) {
    let (a, b) = (chat_of_one(store).await, chat_of_one(store).await);
    let lane = async |lane: usize, id: ChatId| {
        for batch in 0..20 {
            let next = rows(id, batch * 50 + 1..=batch * 50 + 50);
            append_on(store, lane, next).await.unwrap();
        }
    };
    tokio::join!(lane(0, a), lane(1, b));
    let dense: Vec<Seq> = (1..=1_000).collect();
    for id in [a, b] {
        assert_eq!(seqs(store, id, Page::After(0), 2_000).await, dense);
    }
}

pub async fn a_conflict_in_a_lane_does_not_touch_another(store: &dyn Store) {
    let (a, b) = (chat_of_one(store).await, chat_of_one(store).await);
    append(store, rows(b, 1..=1)).await.unwrap();
    for round in 1..=20 {
        let (good, bad) = tokio::join!(
            append_on(store, 0, rows(a, round..=round)),
            append_on(store, 1, rows(b, 1..=1)),
        );
        good.unwrap();
        assert!(matches!(bad, Err(StoreError::Conflict)), "{bad:?}");
    }
    assert_eq!(history(store, a).await.len(), 20);
    assert_eq!(history(store, b).await.len(), 1);
}

/// Asks every reading method.
async fn assert_unavailable(store: &dyn Store, id: ChatId, deadline: Instant) {
    let owner = user("owner");
    let answers = [
        store.load_chat(id, 1, deadline).await.map(drop),
        store
            .chats_of(&owner, Walk::Down(None), 1, 1_000, deadline)
            .await
            .map(drop),
        store.page(id, Page::After(0), 1, deadline).await.map(drop),
        store.last_seqs(&[id], deadline).await.map(drop),
        store.ping(deadline).await,
    ];
    for answer in answers {
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answer:?}"
        );
    }
}

pub async fn a_deadline_in_the_past_is_unavailable(store: &dyn Store) {
    let id = chat_of_one(store).await;
    let past = Instant::now()
        .checked_sub(Duration::from_millis(1))
        .unwrap();
    assert_unavailable(store, id, past).await;
    store.ping(soon()).await.unwrap();
}

pub async fn a_closed_store_is_unavailable(store: &dyn Store) {
    let id = chat_of_one(store).await;
    store.close().await;
    store.close().await;
    assert_unavailable(store, id, soon()).await;
    let owner = vec![user("owner")];
    let answers = [
        append(store, rows(id, 1..=1)).await,
        store.create_chat(new_chat(&[&owner[0]])).await.map(drop),
        store.delete_chat(id, None).await.map(drop),
        store.add_members(id, owner.clone(), None).await,
        store.remove_members(id, owner, None).await,
    ];
    for answer in answers {
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{answer:?}"
        );
    }
}
