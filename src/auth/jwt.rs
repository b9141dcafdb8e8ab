use std::{
    fmt,
    future::ready,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use moka::sync;

use super::{
    Ask, AuthError, AuthResult, Authenticator, Identity, KeyError, KeyFile, Token, claims::Claims,
    compact, crypto, keys::Keys,
};
use crate::{domain::Digests, runtime::Watched, telemetry::Metrics};

/// Tokens without a good signature that are remembered, and for how long.
const MOST_REFUSED: u64 = 16_384;
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Checks tokens by their signatures, without asking anybody.
pub struct JwtAuth {
    keys: Watched<Keys>,
    settings: JwtSettings,
    digests: Digests,
    /// Tokens that several keys were tried with, in vain.
    refused: sync::Cache<u128, AuthError, ahash::RandomState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    pub keys: KeyFile,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// What `aud` has to hold.
    pub audience: Option<String>,
    /// How far the clock of who made the token may be off.
    pub leeway: Duration,
}

impl JwtAuth {
    /// Reads the keys.
    ///
    /// # Errors
    /// If the file can't be read or has no key that is of use.
    pub fn new(settings: JwtSettings) -> Result<Self, KeyError> {
        crypto::install();
        let file = settings.keys.clone();
        let are_secret = OnceLock::new();
        let read = move || {
            let keys = Keys::read(&file)?;
            // What has been public is never a secret afterwards.
            match *are_secret.get_or_init(|| keys.are_secret()) == keys.are_secret() {
                true => Ok(keys),
                false => Err(Keys::other_kind(&file)),
            }
        };
        let keys = Watched::new(vec![settings.keys.path().into()], read)?;
        let refused = sync::Cache::builder()
            .max_capacity(MOST_REFUSED)
            .time_to_live(REFUSED_FOR)
            .build_with_hasher(ahash::RandomState::new());
        Ok(Self {
            keys,
            settings,
            digests: Digests::new(),
            refused,
        })
    }

    /// Counts the times that a changed file of keys is of no use.
    #[must_use]
    pub fn counted_by(mut self, metrics: Arc<Metrics>) -> Self {
        self.keys.on_failure(move || metrics.keys_unusable());
        self
    }

    fn verify(&self, token: Token<'_>) -> AuthResult {
        compact::check(token)?;
        let header = decode_header(token.0).map_err(|_| AuthError::Invalid("it is not a JWT"))?;
        // Extensions that have to be understood (RFC 7515, 4.1.11): none is.
        if header.crit.is_some() {
            return Err(AuthError::Invalid("it has extensions that are not known"));
        }
        let keys = self.keys.get();
        let several = keys.fitting(&header).nth(1).is_some();
        let digest = several.then(|| self.digests.of((keys.edition(), token.0)));
        if let Some(refusal) = digest.and_then(|digest| self.refused.get(&digest)) {
            return Err(refusal);
        }
        let mut refusal = AuthError::Invalid("it is signed with a key that is not known");
        let mut is_forged = true;
        for (key, algorithm) in keys.fitting(&header) {
            match self.verify_with(token, key, algorithm) {
                Ok(identity) => return Ok(Arc::new(identity)),
                Err(error) => {
                    // What is wrong with it otherwise may change with time.
                    is_forged &= error == WRONG_SIGNATURE;
                    refusal = error;
                }
            }
        }
        if let Some(digest) = digest.filter(|_| is_forged) {
            self.refused.insert(digest, refusal);
        }
        Err(refusal)
    }

    fn verify_with(
        &self,
        token: Token<'_>,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Identity, AuthError> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway.as_secs();
        validation.validate_nbf = true;
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".into());
        }
        match &self.settings.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".into());
            }
            None => validation.validate_aud = false,
        }
        let token = decode::<Claims>(token.0, key, &validation).map_err(|e| refusal(e.kind()))?;
        let mut identity = token.claims.identity()?;
        // The leeway holds for the whole life of the token.
        if let Some(end) = &mut identity.expires_at {
            end.0 = end
                .0
                .saturating_add(self.settings.leeway.as_micros() as i64);
        }
        Ok(identity)
    }
}

const WRONG_SIGNATURE: AuthError = AuthError::Invalid("its signature is wrong");

/// In words of our own: the library's may quote the token.
fn refusal(kind: &ErrorKind) -> AuthError {
    AuthError::Invalid(match kind {
        ErrorKind::ExpiredSignature => return AuthError::Expired,
        ErrorKind::InvalidSignature => return WRONG_SIGNATURE,
        ErrorKind::InvalidIssuer => "it is of another issuer",
        ErrorKind::InvalidAudience => "it is for another audience",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::MissingRequiredClaim(_) => "a claim is missing",
        _ => "it is not a JWT with the claims username and exp",
    })
}

impl Authenticator for JwtAuth {
    fn known(&self, ask: Ask<'_>) -> Option<AuthResult> {
        Some(self.verify(ask.token))
    }

    fn check<'a>(&'a self, ask: Ask<'a>) -> BoxFuture<'a, AuthResult> {
        Box::pin(ready(self.verify(ask.token)))
    }
}

impl fmt::Debug for JwtAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtAuth").field(&self.settings).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Write as _};

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;
    use crate::{
        auth::{Role, claims::unverified},
        testing::fuzz,
    };

    /// What the good ones of the tokens that are kept are signed with. They last
    /// until the year 2100.
    const SECRET: &[u8] = b"kNowN2all7who4Read9THIS3Line5Xq8";

    #[test]
    fn p7_fuzz_tokens() {
        let mut keys = tempfile::NamedTempFile::new().unwrap();
        let jwk = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)});
        keys.write_all(jwk.to_string().as_bytes()).unwrap();
        let auth = JwtAuth::new(JwtSettings {
            keys: KeyFile::Keys(keys.path().into()),
            issuer: None,
            audience: None,
            leeway: Duration::ZERO,
        });
        let auth = auth.unwrap();
        let accepted = Cell::new(0);
        fuzz("tokens", |input| {
            let Ok(token) = std::str::from_utf8(input) else {
                return;
            };
            let unverified = unverified(token);
            let Ok(identity) = auth.verify(Token(token)) else {
                return;
            };
            // Nobody else has ever been given one.
            let known = [("bob", Role::User), ("root", Role::Admin)];
            let (user, role) = (&*identity.user, identity.role);
            assert!(known.contains(&(user, role)), "{user}, {role:?}: {token}");
            assert_eq!(unverified.as_ref(), Ok(&*identity), "{token}");
            accepted.set(accepted.get() + 1);
        });
        assert!(accepted.get() >= 2, "the good ones are good");
    }
}
