use super::*;

pub async fn a_restart_changes_nothing(backend: &mut impl Durable) {
    let (a, b, c) = (user("a"), user("b"), user("c"));
    let store = backend.store();
    let id = chat(&*store, &[&c, &a]).await;
    store.add_members(id, vec![b.clone()], None).await.unwrap();
    store
        .remove_members(id, vec![c.clone()], None)
        .await
        .unwrap();
    store.add_members(id, vec![c], None).await.unwrap();
    append(&*store, rows(id, 1..=200)).await.unwrap();
    let before = store.load_chat(id, 50, soon()).await.unwrap();
    let all = history(&*store, id).await;
    let list = store
        .chats_of(&a, Walk::Down(None), 9, 1_000, soon())
        .await
        .unwrap();
    assert_eq!((all.len(), list.len()), (200, 1));
    drop(store);

    backend.reopen().await;
    let store = backend.store();
    assert_eq!(store.load_chat(id, 50, soon()).await.unwrap(), before);
    assert_eq!(history(&*store, id).await, all);
    let again = store
        .chats_of(&a, Walk::Down(None), 9, 1_000, soon())
        .await
        .unwrap();
    assert_eq!(again, list);
    append(&*store, rows(id, 201..=201)).await.unwrap();
    assert!(append(&*store, rows(id, 200..=200)).await.is_err());
}

pub async fn ids_are_not_given_twice_over_a_restart(backend: &mut impl Durable) {
    let first = chat_of_one(&*backend.store()).await;
    assert!(backend.store().delete_chat(first, None).await.unwrap());
    backend.reopen().await;
    assert!(chat_of_one(&*backend.store()).await > first);
}

pub async fn a_deleted_chat_stays_deleted(backend: &mut impl Durable) {
    let store = backend.store();
    let id = chat_of_one(&*store).await;
    append(&*store, rows(id, 1..=3_000)).await.unwrap();
    assert!(store.delete_chat(id, None).await.unwrap());
    drop(store);
    backend.reopen().await;
    let store = backend.store();
    assert_eq!(store.load_chat(id, 5, soon()).await.unwrap(), None);
    assert_eq!(history(&*store, id).await, vec![]);
}
