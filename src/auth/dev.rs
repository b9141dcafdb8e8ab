use std::{future::ready, sync::Arc};

use futures_util::future::BoxFuture;

use super::{Ask, AuthError, AuthResult, Authenticator, Identity, Role, Token};
use crate::domain::UserName;

/// Development mode: the token is the user's name, and anyone may be anyone.
/// For listeners on loopback only.
#[derive(Debug, Default)]
pub struct DevAuth {
    admins: Vec<UserName>,
}

impl DevAuth {
    /// `admins` are the names that have the admin's role.
    pub fn new(admins: Vec<UserName>) -> Self {
        Self { admins }
    }

    fn identify(&self, token: Token<'_>) -> AuthResult {
        let user = UserName::new(token.0)
            .map_err(|_| AuthError::Invalid("in development mode the token is a user name"))?;
        let role = if self.admins.contains(&user) {
            Role::Admin
        } else {
            Role::User
        };
        Ok(Arc::new(Identity {
            user,
            role,
            expires_at: None,
            recheck_at: None,
        }))
    }
}

impl Authenticator for DevAuth {
    fn known(&self, ask: Ask<'_>) -> Option<AuthResult> {
        Some(self.identify(ask.token))
    }

    fn check<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, AuthResult> {
        Box::pin(ready(self.identify(ask.token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_the_name() {
        let root = UserName::new("root").unwrap();
        let auth = DevAuth::new(vec![root.clone()]);
        assert_eq!(auth.identify(Token("bob")).unwrap().role, Role::User);
        let admin = auth.identify(Token("root")).unwrap();
        assert_eq!((&admin.user, admin.role), (&root, Role::Admin));
        assert!(auth.identify(Token(" bob")).is_err());
    }
}
