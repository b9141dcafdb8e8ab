//! From the wire's fields to the domain's values. Each refusal names its field.

mod attached;
mod plain;
mod posts;
mod slim;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use super::{calls::Limits, status::Problem};
use crate::{
    domain::{ChatId, ClientMessageId, Draft, Invalid, Seq, UserName},
    proto,
    store::Page,
};

use attached::{Carried, attached};
pub use plain::read as read_post;
pub use posts::{Poster, Refused, delete, edit, react};
pub use slim::SendMessageRequest;

/// Names in one request are bounded before they are looked at one by one.
const MAX_PAGE: i32 = 1_000;
const DEFAULT_PAGE: i32 = 100;

/// A stream's first frame.
#[derive(Debug)]
pub struct Join {
    pub chat: ChatId,
    pub after_seq: Option<Seq>,
    /// Every entry is to come, and not messages alone.
    pub entries: bool,
}

pub fn chat_id(field: &'static str, id: i64) -> Result<ChatId, Problem> {
    ChatId::new(id).map_err(|why| Problem::invalid(field, &why))
}

/// The message of a SendMessage call.
pub fn send(
    request: SendMessageRequest,
    user: &UserName,
    limits: &Limits,
) -> Result<(ChatId, Draft), Problem> {
    let chat = chat_id("chat_id", request.chat_id)?;
    let Some(message) = request.message else {
        return Err(Problem::invalid("message", &Invalid("is missing".into())));
    };
    if !message.from.is_empty() && message.from != **user {
        return Err(Problem::not_yourself("message.from"));
    }
    Draft::check_text(&message.text, limits.max_text)
        .map_err(|why| Problem::invalid("message.text", &why))?;
    let carried = Carried {
        reply_to: message.reply_to,
        data: message.data,
        data_type: message.data_type,
        mentions: message.mentions,
    };
    let change = attached(carried, limits, &attached::names!("message"))
        .map_err(|(field, why)| Problem::invalid(field, &why))?;
    let client_message_id = ClientMessageId::from_wire(&request.client_message_id)
        .map_err(|why| Problem::invalid("client_message_id", &why))?;
    let draft = Draft {
        change,
        ..Draft::message(message.text, client_message_id)
    };
    Ok((chat, draft))
}

pub fn join(first: proto::ConnectChatRequest, user: &UserName) -> Result<Join, Problem> {
    let chat = ChatId::parse(&first.chat_id).map_err(|why| Problem::invalid("chat_id", &why))?;
    if !first.username.is_empty() && first.username != **user {
        return Err(Problem::not_yourself("username"));
    }
    if first.after_seq.is_some_and(|seq| seq < 0) {
        let why = Invalid("must not be negative".into());
        return Err(Problem::invalid("after_seq", &why));
    }
    if let Some(field) = posts::first_posted(&first) {
        let why = Invalid("the first frame joins, only later ones post".into());
        return Err(Problem::invalid(field, &why));
    }
    Ok(Join {
        chat,
        after_seq: first.after_seq,
        entries: first.entries,
    })
}

/// User names, each once, in the order given.
pub fn users(field: &'static str, names: &[String], max: usize) -> Result<Vec<UserName>, Problem> {
    each_once(names, max).map_err(|why| Problem::invalid(field, &why))
}

fn each_once(names: &[String], max: usize) -> Result<Vec<UserName>, Invalid> {
    let mut users = Vec::with_capacity(names.len().min(max));
    let mut seen = ahash::AHashSet::new();
    for (at, name) in names.iter().enumerate() {
        let named = |why: Invalid| Invalid(format!("entry {at}: {why}"));
        let user = UserName::new(name).map_err(named)?;
        if seen.insert(user.clone()) {
            users.push(user);
        }
        if users.len() > max {
            return Err(Invalid(format!("must name at most {max} users")));
        }
    }
    Ok(users)
}

/// What holds for names that enter a chat, and not for those that are in one.
pub fn new_names(field: &'static str, users: &[UserName]) -> Result<(), Problem> {
    for user in users {
        user.check_new()
            .map_err(|why| Problem::invalid(field, &Invalid(format!("{:?} {why}", &**user))))?;
    }
    Ok(())
}

pub fn some_users(names: &[String], max: usize) -> Result<Vec<UserName>, Problem> {
    let users = users("usernames", names, max)?;
    if users.is_empty() {
        let why = Invalid("must name at least one user".into());
        return Err(Problem::invalid("usernames", &why));
    }
    Ok(users)
}

/// How many names of members each chat of a list is to have.
pub fn names(asked: Option<i32>) -> Result<usize, Problem> {
    match asked {
        None => Ok(DEFAULT_PAGE as usize),
        Some(names @ 0..=MAX_PAGE) => Ok(names as usize),
        Some(_) => {
            let why = Invalid(format!(
                "must be 0 to {MAX_PAGE}, or not set for {DEFAULT_PAGE}"
            ));
            Err(Problem::invalid("max_usernames", &why))
        }
    }
}

pub fn page_size(size: i32) -> Result<usize, Problem> {
    match size {
        0 => Ok(DEFAULT_PAGE as usize),
        1..=MAX_PAGE => Ok(size as usize),
        _ => {
            let why = Invalid(format!("must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}"));
            Err(Problem::invalid("page_size", &why))
        }
    }
}

/// Which page of a chat's history is asked for.
pub fn page(request: &proto::ListMessagesRequest) -> Result<Page, Problem> {
    match (request.before_seq, request.after_seq) {
        (Some(_), Some(_)) => {
            let why = Invalid("must not be given together with before_seq".into());
            Err(Problem::invalid("after_seq", &why))
        }
        (Some(before), None) if before < 1 => {
            let why = Invalid("must be greater than 0".into());
            Err(Problem::invalid("before_seq", &why))
        }
        (None, Some(after)) if after < 0 => {
            let why = Invalid("must not be negative".into());
            Err(Problem::invalid("after_seq", &why))
        }
        (Some(before), None) => Ok(Page::Before(before)),
        (None, Some(after)) => Ok(Page::After(after)),
        (None, None) => Ok(Page::Before(Seq::MAX)),
    }
}

/// As HTTP/2 counts them: names, values and 32 bytes each (RFC 9113, 6.5.2).
/// Those that begin with a colon are about as long in every call and left out.
pub fn size_of_headers(headers: &HeaderMap) -> usize {
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    headers.iter().map(size).sum()
}

/// The token of `authorization: Bearer <token>`; the scheme's case does not
/// matter (RFC 9110, 11.1). Of two such headers neither counts: somebody else
/// may look at the other one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let value = value.as_bytes();
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The shorter of the caller's deadline and our own bound.
pub fn timeout(asked: Option<Duration>, bound: Duration) -> Duration {
    asked.map_or(bound, |asked| asked.min(bound))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fuzz;

    #[test]
    fn p10_fuzz_authorization() {
        fuzz("authorization", |input| {
            let Ok(value) = HeaderValue::from_bytes(input) else {
                return;
            };
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            let token = bearer(&headers).map(str::as_bytes);
            let (scheme, rest) = input.split_at(input.len().min(7));
            let utf8 = std::str::from_utf8(input).is_ok();
            let expected = (utf8 && scheme.eq_ignore_ascii_case(b"bearer ")).then_some(rest);
            assert_eq!(token, expected);
        });
    }

    #[test]
    fn p7_of_two_tokens_neither_counts() {
        let one = HeaderValue::from_static("Bearer x");
        let mut headers = HeaderMap::from_iter([(AUTHORIZATION, one.clone())]);
        assert_eq!(bearer(&headers), Some("x"));
        headers.append(AUTHORIZATION, one);
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn p10_a_bad_name_is_pointed_at() {
        let names = ["bob".to_owned(), "bob".to_owned(), "\n".to_owned()];
        let problem = users("info.usernames", &names, 10).unwrap_err();
        assert!(problem.to_status().message().contains("entry 2"));
        assert_eq!(users("u", &names[..2], 10).unwrap().len(), 1);
        assert!(users("u", &names[..2], 0).is_err());
    }
}
