use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The metadata that carries it, in both directions.
static HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ones are replaced: they are for people to compare.
const MAX_BYTES: usize = 64;

/// What tells one call from others in the log: what its caller calls it, or a
/// random number, which becomes text only if it is shown.
#[derive(Debug, Clone)]
pub enum RequestId {
    Given(HeaderValue),
    Random(u64),
}

impl RequestId {
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&HEADER).filter(|value| {
            let bytes = value.as_bytes();
            (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        });
        match given {
            Some(given) => Self::Given(given.clone()),
            None => Self::Random(fastrand::u64(..)),
        }
    }

    /// Tells the caller. Not for the answers to sends that went well: there the
    /// header would cost more than it says.
    ///
    /// Not to be remembered by HPACK either: no other answer has it, and a table
    /// full of those that have been takes a connection kilobytes.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        let value = match self {
            Self::Given(given) => Ok(given.clone()),
            Self::Random(_) => HeaderValue::try_from(self.to_string()),
        };
        if let Ok(mut value) = value {
            value.set_sensitive(true);
            headers.insert(HEADER.clone(), value);
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(given) => f.write_str(given.to_str().map_err(|_| fmt::Error)?),
            Self::Random(random) => write!(f, "{random:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_kept_if_it_can_be_shown() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER.clone(), HeaderValue::from_static("order-7"));
        assert_eq!(RequestId::of(&headers).to_string(), "order-7");
        for bad in ["", "a b", &"x".repeat(65)] {
            headers.insert(HEADER.clone(), HeaderValue::from_str(bad).unwrap());
            assert_eq!(RequestId::of(&headers).to_string().len(), 16, "{bad}");
        }
        let mut out = HeaderMap::new();
        let id = RequestId::of(&HeaderMap::new());
        id.add_to(&mut out);
        assert_eq!(out[&HEADER].to_str().unwrap(), id.to_string());
        assert!(out[&HEADER].is_sensitive());
    }
}
