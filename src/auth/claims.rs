use std::collections::HashMap;

use serde::{Deserialize, de::IgnoredAny};

use super::{AuthError, Identity, Role};
use crate::domain::{Timestamp, UserName};

/// The claims that make an identity.
#[derive(Deserialize)]
pub struct Claims {
    username: String,
    #[serde(default)]
    role: RoleClaim,
    /// Seconds since the Unix epoch, perhaps with a fraction (RFC 7519, 2).
    exp: f64,
    /// A token may have others. With this here claims are an object, as they have to be
    /// (RFC 7519, 7.2): serde would read a list too, by the order of the fields.
    #[serde(flatten)]
    _others: HashMap<String, IgnoredAny>,
}

/// The Auth Service writes the role as a text, others may write a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum RoleClaim {
    Text(String),
    Number(i64),
}

impl Default for RoleClaim {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Claims {
    /// The identity that the claims speak of; whether they may be believed is
    /// the caller's to know.
    pub fn identity(self) -> Result<Identity, AuthError> {
        let user = UserName::new(&self.username)
            .map_err(|_| AuthError::Invalid("its claim username is not a user name"))?;
        let admin = match self.role {
            RoleClaim::Text(role) => role == "1",
            RoleClaim::Number(role) => role == 1,
        };
        Ok(Identity {
            user,
            // A role that is not known is the one that may least.
            role: if admin { Role::Admin } else { Role::User },
            expires_at: Some(micros(self.exp)),
            recheck_at: None,
        })
    }
}

/// A float too large or not a number becomes the nearest time there is.
fn micros(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1e6) as i64)
}

/// Reads the claims of a token **without checking its signature**: for tokens
/// that the Auth Service says are good, or is about to be asked about.
pub fn unverified(token: &str) -> Result<Identity, AuthError> {
    let claims: Claims = jsonwebtoken::dangerous::insecure_decode_claims(token)
        .map_err(|_| AuthError::Invalid("it is not a JWT with the claims username and exp"))?;
    claims.identity()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(claims: &str) -> Result<Identity, AuthError> {
        let claims: Result<Claims, _> = serde_json::from_str(claims);
        claims.map_err(|_| AuthError::Denied)?.identity()
    }

    #[test]
    fn p7_only_the_admin_role_makes_an_admin() {
        for (role, expected) in [
            (r#""role":"1","#, Role::Admin),
            (r#""role":1,"#, Role::Admin),
            (r#""role":"0","#, Role::User),
            (r#""role":"11","#, Role::User),
            (r#""role":"admin","#, Role::User),
            ("", Role::User),
        ] {
            let claims = format!(r#"{{{role}"username":"bob","exp":1.5}}"#);
            let identity = identity(&claims).unwrap();
            assert_eq!(identity.role, expected, "{claims}");
            assert_eq!(identity.expires_at, Some(Timestamp(1_500_000)));
        }
    }

    #[test]
    fn p7_a_token_names_its_user_and_its_end() {
        for bad in [
            r#"{"username":"bob"}"#,
            r#"{"exp":1}"#,
            r#"{"username":"","exp":1}"#,
            r#"{"username":" bob","exp":1}"#,
            r#"{"username":"bob","exp":"soon"}"#,
            r#"{"username":"bob","exp":1,"role":[]}"#,
            r#"{"username":"bob","exp":1,"username":"eve"}"#,
            r#"{"username":"bob","exp":1,"role":0,"other":1,"role":1}"#,
            r#"["bob","1",9999999999]"#,
            r#"["bob","1",9999999999,{}]"#,
        ] {
            assert!(identity(bad).is_err(), "{bad}");
        }
        assert!(unverified("a.b.c").is_err());
        assert!(unverified("").is_err());
    }
}
