//! Who may change which message.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::server::{Client, Server};

fn reason(status: &Status) -> (Code, String, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().map(|info| info.reason.clone());
    let field = details
        .bad_request()
        .map(|bad| bad.field_violations[0].field.clone());
    (status.code(), info.unwrap_or_default(), field)
}

/// What each call says to this user about this message: nothing, or why not.
async fn answers(client: &Client, chat: i64, seq: i64) -> [Option<String>; 3] {
    let why = |status: Status| {
        let (_, reason, field) = reason(&status);
        let about_seq = field.as_deref() == Some("seq");
        assert!(about_seq || reason == "NOT_A_MEMBER", "{status:?}");
        reason
    };
    [
        client.edit(chat, seq, "x").await.err().map(why),
        client.react(chat, seq, "👍").await.err().map(why),
        client.delete_message(chat, seq).await.err().map(why),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_who_may_edit_react_and_delete() {
    let server = Server::start(&["--dev-admins", "root"]).await;
    let client = async |name: &str| server.client(name).await;
    let creator = client("creator").await;
    let sender = client("sender").await;
    let member = client("member").await;
    let removed = client("removed").await;
    let stranger = client("stranger").await;
    let later = client("later").await;
    let admin = client("root").await;
    let chat = creator.create(&["sender", "member", "removed"]).await;
    let fresh = async || sender.send(chat, "theirs", "").await.unwrap().seq;
    creator.remove(chat, &["removed"]).await.unwrap();
    fresh().await;
    creator.add(chat, &["later"]).await.unwrap();

    let no = |why: &str| Some(why.to_owned());
    let not_member = || [no("NOT_A_MEMBER"), no("NOT_A_MEMBER"), no("NOT_A_MEMBER")];
    let others = || [no("NOT_THE_SENDER"), None, no("MAY_NOT_DELETE")];
    let may = [None, None, None];
    let creators = [no("NOT_THE_SENDER"), None, None];
    let admins = [no("NOT_A_MEMBER"), no("NOT_A_MEMBER"), None];
    for (who, expected) in [
        (&sender, may),
        (&creator, creators),
        (&member, others()),
        (&later, others()),
        (&removed, not_member()),
        (&stranger, not_member()),
        (&admin, admins),
    ] {
        let seq = fresh().await;
        assert_eq!(answers(who, chat, seq).await, expected, "{who:?}");
    }
    // A member's refusal of a chat that is not there is that of one that is.
    assert_eq!(answers(&stranger, chat + 1_000, 1).await, not_member());

    let deleted = fresh().await;
    sender.delete_message(chat, deleted).await.unwrap();
    let edited = fresh().await;
    let edit = sender.edit(chat, edited, "better").await.unwrap();
    let last = sender.send(chat, "last", "").await.unwrap().seq;
    let all = |why: &str| [no(why), no(why), no(why)];
    for who in [&sender, &creator, &member] {
        assert_eq!(answers(who, chat, deleted).await, all("MESSAGE_DELETED"));
        assert_eq!(answers(who, chat, edit).await, all("NOT_A_MESSAGE"));
        for seq in [last + 1_000, i64::MAX] {
            assert_eq!(answers(who, chat, seq).await, all("MESSAGE_NOT_FOUND"));
        }
    }
    for seq in [0, -1, i64::MIN] {
        for status in [
            sender.edit(chat, seq, "x").await.unwrap_err(),
            sender.delete_message(chat, seq).await.unwrap_err(),
            sender.react(chat, seq, "👍").await.unwrap_err(),
        ] {
            let (code, reason, field) = reason(&status);
            assert_eq!(code, Code::InvalidArgument);
            assert_eq!((&*reason, field.as_deref()), ("INVALID_FIELD", Some("seq")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_be_edited_for_a_while() {
    let server = Server::start(&["--edit-window", "1s"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let seq = alice.send(chat, "one", "").await.unwrap().seq;
    alice.edit(chat, seq, "two").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let late = alice.edit(chat, seq, "three").await.unwrap_err();
    let expected = (
        Code::FailedPrecondition,
        "EDIT_WINDOW_OVER".to_owned(),
        Some("seq".to_owned()),
    );
    assert_eq!(reason(&late), expected);
    assert_eq!(alice.history(chat).await[0].text, "two");
    // To delete it there is no hurry.
    alice.delete_message(chat, seq).await.unwrap();

    let server = Server::start(&["--edit-window", "0s"]).await;
    let alice = server.client("alice").await;
    let chat = alice.create(&[]).await;
    let seq = alice.send(chat, "one", "").await.unwrap().seq;
    assert_eq!(
        reason(&alice.edit(chat, seq, "two").await.unwrap_err()),
        expected
    );
}
