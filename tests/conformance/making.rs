use chat_service::domain::ClientChatId;
use futures_util::future::join_all;

use super::*;

fn keyed(creator: &UserName, id: &str) -> NewChat {
    NewChat {
        client_chat_id: ClientChatId::from_wire(id).unwrap(),
        ..new_chat(&[creator])
    }
}

async fn made_as(store: &dyn Store, creator: &UserName, id: &str) -> Option<ChatId> {
    let id = ClientChatId::from_wire(id).unwrap().unwrap();
    store.made_as(creator, &id, soon()).await.unwrap()
}

pub async fn a_chat_is_made_once_under_its_creators_id(store: &dyn Store) {
    let (alice, bob) = (user("alice"), user("bob"));
    assert_eq!(made_as(store, &alice, "k").await, None);
    let first = store.create_chat(keyed(&alice, "k")).await.unwrap();
    assert_eq!(made_as(store, &alice, "k").await, Some(first));
    // Whatever else is said of it.
    let again = NewChat {
        created_at: Timestamp(5_000),
        members: vec![alice.clone(), bob.clone()],
        ..keyed(&alice, "k")
    };
    assert_eq!(store.create_chat(again).await.unwrap(), first);
    let (record, _) = store.load_chat(first, 0, soon()).await.unwrap().unwrap();
    assert_eq!(record.members, std::slice::from_ref(&alice));
    assert_eq!(record.created_at, Timestamp(1_000));
    // The id is the creator's alone, and none is like no other.
    let mut others = vec![first];
    for other in [
        keyed(&alice, "K"),
        keyed(&bob, "k"),
        keyed(&alice, ""),
        keyed(&alice, ""),
    ] {
        let made = store.create_chat(other).await.unwrap();
        assert!(!others.contains(&made));
        others.push(made);
    }
    // One that is gone is in nobody's way.
    assert!(store.delete_chat(first, None).await.unwrap());
    assert_eq!(made_as(store, &alice, "k").await, None);
    let second = store.create_chat(keyed(&alice, "k")).await.unwrap();
    assert!(!others.contains(&second));
    assert_eq!(made_as(store, &alice, "k").await, Some(second));
}

pub async fn a_chat_that_is_made_twice_at_once_is_made_once(store: &dyn Store) {
    let alice = user("alice");
    for round in 0..20 {
        let id = format!("round {round}");
        let makes = (0..8).map(|_| store.create_chat(keyed(&alice, &id)));
        let made: Vec<ChatId> = join_all(makes)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    }
}
