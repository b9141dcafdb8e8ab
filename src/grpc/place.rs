//! Where a list of chats goes on: what a page token stands for. Clients are not to look
//! into it.

use super::status::Problem;
use crate::{
    domain::{ChatId, Invalid, Timestamp},
    store::{Activity, Walk},
};

/// A place in a list. A chat that becomes active while the pages are read moves to the
/// front, where the walk has been: so it goes up again from where it began, the other
/// way round, in which nothing can get away from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub walk: Walk,
    /// The first of the walk down: what is in front of it has become active since.
    pub since: Option<Activity>,
}

impl Place {
    pub const START: Self = Self {
        walk: Walk::Down(None),
        since: None,
    };

    /// Reads a token: `<at>.<id>`, in hexadecimal, with the same of `since` behind it
    /// if that is known, and with `u.` before it on the way up.
    pub fn from_token(token: &str) -> Result<Self, Problem> {
        if token.is_empty() {
            return Ok(Self::START);
        }
        Self::parse(token).ok_or_else(|| {
            let why = Invalid("must be empty or the next_page_token of a page".into());
            Problem::invalid("page_token", &why)
        })
    }

    fn parse(token: &str) -> Option<Self> {
        let parts: Vec<&str> = token.split('.').collect();
        let (walk, since) = match parts[..] {
            ["u", at, id] => (Walk::Up(activity(at, id)?), None),
            [at, id] => (Walk::Down(Some(activity(at, id)?)), None),
            [at, id, since_at, since_id] => (
                Walk::Down(Some(activity(at, id)?)),
                Some(activity(since_at, since_id)?),
            ),
            _ => return None,
        };
        Some(Self { walk, since })
    }

    /// Empty for the start.
    pub fn to_token(self) -> String {
        match self.walk {
            Walk::Down(None) => String::new(),
            Walk::Down(Some(behind)) => match self.since {
                None => text(behind),
                Some(since) => format!("{}.{}", text(behind), text(since)),
            },
            Walk::Up(above) => format!("u.{}", text(above)),
        }
    }

    /// Behind `last`, the last chat of a page that began at this place with `first`.
    pub fn behind(self, first: Activity, last: Activity) -> Self {
        match self.walk {
            Walk::Down(None) => Self {
                walk: Walk::Down(Some(last)),
                since: Some(first),
            },
            Walk::Down(Some(_)) => Self {
                walk: Walk::Down(Some(last)),
                ..self
            },
            Walk::Up(_) => Self {
                walk: Walk::Up(last),
                since: None,
            },
        }
    }
}

fn text(place: Activity) -> String {
    format!("{:016x}.{:016x}", place.at.0, place.chat.get())
}

fn activity(at: &str, id: &str) -> Option<Activity> {
    let parse = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_hexdigit()) && text.len() == 16;
        let bits = plain
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()?;
        Some(bits as i64)
    };
    Some(Activity {
        at: Timestamp(parse(at)?),
        chat: ChatId::new(parse(id)?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fuzz;

    #[test]
    fn p10_fuzz_page_tokens() {
        fuzz("page_tokens", |input| {
            let Ok(token) = std::str::from_utf8(input) else {
                return;
            };
            if let Ok(place) = Place::from_token(token) {
                let written = place.to_token();
                assert!(written.eq_ignore_ascii_case(token), "{token:?}");
                assert_eq!(Place::from_token(&written), Ok(place));
            }
        });
    }

    #[test]
    fn page_tokens_round_trip_and_nothing_else_passes() {
        let activity = |at, chat| Activity {
            at: Timestamp(at),
            chat: ChatId::new(chat).unwrap(),
        };
        let (first, last) = (activity(9, 3), activity(-5, 12));
        let began = Place::START.behind(first, last);
        assert_eq!(began.since, Some(first));
        let up = Place {
            walk: Walk::Up(first),
            since: None,
        };
        // Tokens of the release before had no beginning.
        let old = Place {
            walk: Walk::Down(Some(last)),
            since: None,
        };
        for place in [Place::START, began, began.behind(last, first), up, old] {
            assert_eq!(Place::from_token(&place.to_token()), Ok(place));
        }
        let zero = format!("{:016x}.{:016x}", 1, 0);
        for bad in ["x", "1.2", ".", "é.é", "u.", "u", zero.as_str()] {
            assert!(Place::from_token(bad).is_err(), "{bad:?}");
        }
    }
}
