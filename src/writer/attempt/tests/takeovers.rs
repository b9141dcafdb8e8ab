//! Another server of the database has taken over meanwhile, and has less.

use super::*;

/// Another server's messages were there, and have gone with the server of the
/// database: nobody hears of them, and nobody is told that theirs are stored.
#[tokio::test(start_paused = true)]
async fn p2_p5_what_a_takeover_has_lost_is_neither_published_nor_acknowledged() {
    lost_meanwhile(|_| {}).await;
}

/// … nor if others have come to stand in their places.
#[tokio::test(start_paused = true)]
async fn p1_p2_p5_what_a_takeover_has_lost_is_not_taken_for_what_came_after_it() {
    lost_meanwhile(|memory| {
        let others = (2..=4).map(|seq| row(chat_id(1), seq, "eve", "after"));
        assert!(memory_append(memory, others.collect()));
    })
    .await;
}

async fn lost_meanwhile(after: fn(&MemoryStore)) {
    let memory = Arc::new(MemoryStore::new());
    new_chats(&memory);
    let chat = chat_id(1);
    let keyed = |seq, from: &str, id: &str| {
        let mut row = row(chat, seq, from, "text");
        row.client_message_id = key(id);
        row
    };
    assert!(memory_append(&memory, vec![keyed(1, "bob", "before")]));
    // One of theirs is a retry of one of ours.
    let theirs = vec![keyed(2, "eve", "foreign"), keyed(3, "bob", "retry")];
    assert!(memory_append(&memory, theirs));
    let (appends, losing) = (AtomicUsize::new(0), memory.clone());
    let store = ScriptStore::new(memory.clone(), move |op| {
        let fault = match op {
            Op::Append(_) if appends.fetch_add(1, Ordering::Relaxed) == 1 => {
                (2..=3).for_each(|seq| losing.lose(chat, seq));
                after(&losing);
                Fault::Replaced
            }
            _ => Fault::None,
        };
        Box::pin(std::future::ready(fault))
    });
    let ours = vec![keyed(2, "bob", "retry"), keyed(3, "bob", "new")];
    let ids: Vec<MessageId> = ours.iter().map(|row| row.id).collect();
    let clock = TestClock::default();
    let metrics = Metrics::new(1);
    let attempt = Attempt::new(0, &store, &clock, &metrics);
    let (landed, attempts) = attempt.write(ours, false).await;
    assert_eq!(attempts, 2);
    let lost: Vec<MessageId> = landed
        .iter()
        .filter_map(|one| match one {
            Landed::Lost { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(lost, ids, "{landed:?}");
    assert_eq!(landed.len(), 2, "{landed:?}");
}

/// Another server's message stands where ours did that the batch follows, and another
/// chat has gone: nothing is written behind either.
#[tokio::test(start_paused = true)]
async fn p2_p5_nothing_is_written_behind_a_place_that_others_have_filled() {
    let memory = Arc::new(MemoryStore::new());
    new_chats(&memory);
    let before: Vec<Row> = (1..=3)
        .map(|n| row(chat_id(n), 1, "bob", "before"))
        .collect();
    let fronts = before.iter().map(|row| Front {
        chat: row.chat,
        made: Timestamp(0),
        newest: Some((row.seq, row.id)),
    });
    let fronts: Vec<Front> = fronts.collect();
    let theirs = row(chat_id(1), 1, "eve", "after");
    let [_, gone, kept] = before.try_into().unwrap();
    assert!(memory_append(&memory, vec![theirs, gone, kept]));
    memory.delete_chat(chat_id(2), None).await.unwrap();
    let ours = (1..=3).map(|n| row(chat_id(n), 2, "bob", "ours"));
    let clock = TestClock::default();
    let metrics = Metrics::new(1);
    let attempt = Attempt::new(0, memory.as_ref(), &clock, &metrics).following(fronts);
    let (landed, _) = attempt.write(ours.collect(), true).await;
    let lost = |one: &Landed| matches!(one, Landed::Lost { chat, .. } if *chat == chat_id(1));
    let gone = |one: &Landed| matches!(one, Landed::NoChat { chat, .. } if *chat == chat_id(2));
    let stored = |one: &Landed| matches!(one, Landed::Stored(row) if row.chat == chat_id(3));
    assert_eq!(landed.len(), 3, "{landed:?}");
    assert!(
        landed.iter().any(lost) && landed.iter().any(gone),
        "{landed:?}"
    );
    assert!(landed.iter().any(stored), "{landed:?}");
    assert_eq!(history(&memory, chat_id(1)).len(), 1);
}
