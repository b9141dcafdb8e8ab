//! The form of a token: one JWT as RFC 7515, 7.1 writes it, and nothing beside.
//!
//! Who checks a token and who reads its claims must mean the same bytes. Some
//! peers split the header at white space or commas, or look for the first thing
//! that resembles a token; so what could be read as two tokens is none.

use super::{AuthError, Token};

/// In bytes. Tokens of identity providers have one to four KiB. It is well below
/// what servers take of headers (16 KiB in tonic, 8 KiB a line in nginx), so
/// that no token is too large for the Auth Service.
const MAX_TOKEN: usize = 8 * 1_024 - 512;

/// Refuses whatever is not three parts of base64url with a dot between them.
pub(super) fn check(token: Token<'_>) -> Result<(), AuthError> {
    let token = token.0;
    if token.len() > MAX_TOKEN {
        return Err(AuthError::Invalid("it is longer than 7,680 bytes"));
    }
    let is_part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !part.is_empty() && part.bytes().all(allowed)
    };
    let mut parts = 0;
    for part in token.split('.') {
        parts += 1;
        if parts > 3 || !is_part(part) {
            return Err(NOT_A_JWT);
        }
    }
    if parts == 3 { Ok(()) } else { Err(NOT_A_JWT) }
}

const NOT_A_JWT: AuthError = AuthError::Invalid("it is not a JWT in compact form");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_only_one_token_and_nothing_else_is_a_token() {
        assert_eq!(check(Token("a-Z.0_.b")), Ok(()));
        let long = format!("a.b.{}", "c".repeat(MAX_TOKEN - 4));
        assert_eq!(check(Token(&long)), Ok(()));
        let longer = format!("{long}c");
        for bad in [
            "",
            "a",
            "a.b",
            "a.b.",
            ".b.c",
            "a..c",
            "a.b.c.d",
            " a.b.c",
            "a.b.c ",
            "a.b.c d.e.f",
            "a.b.c,d.e.f",
            "a.b.c;d.e.f",
            "a.b.c=",
            "a.b.c\td",
            "a.b.c+",
            "a.b/.c",
            "a.b.ü",
            &longer,
        ] {
            assert!(check(Token(bad)).is_err(), "{bad:?}");
        }
    }
}
