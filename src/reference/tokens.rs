use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use ring::{hmac, rand::SecureRandom as _};
use serde::{Deserialize, Serialize};

use super::users::User;

/// The least that HS256 wants (RFC 7518, 3.2).
const LEAST_SECRET: usize = 32;

/// Makes and checks tokens.
pub struct Issuer {
    access: Kind,
    refresh: Kind,
    binding: hmac::Key,
    login_ttl: Duration,
}

/// How long what is issued counts.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    pub access: Duration,
    pub refresh: Duration,
    /// All refresh tokens of one login together.
    pub login: Duration,
}

struct Kind {
    encoding: EncodingKey,
    decoding: DecodingKey,
    ttl: Duration,
}

#[derive(Serialize, Deserialize)]
pub struct Claims {
    pub username: String,
    /// "0" user, "1" admin.
    pub role: String,
    pub exp: u64,
    iat: u64,
    /// What the password was when the user logged in, as [`Issuer::binding`] tells
    /// it. Empty in tokens of earlier releases, which count no more.
    #[serde(default)]
    pub binding: String,
    /// When the login ends that a refresh token comes from, in seconds since the
    /// Unix epoch.
    #[serde(default)]
    pub end: u64,
}

impl Issuer {
    /// Access tokens are signed with the secret itself, so that a chat server
    /// with `--auth jwt` can check them; refresh tokens with a key made from it,
    /// so that none passes for the other.
    pub fn new(secret: &[u8], lives: Lives) -> Self {
        crate::auth::install_crypto();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let refresh = hmac::sign(&key, b"chatd refresh token");
        let binding = hmac::sign(&key, b"chatd password binding");
        let kind = |secret: &[u8], ttl| Kind {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            ttl,
        };
        Self {
            access: kind(secret, lives.access),
            refresh: kind(refresh.as_ref(), lives.refresh),
            binding: hmac::Key::new(hmac::HMAC_SHA256, binding.as_ref()),
            login_ttl: lives.login,
        }
    }

    /// Ties a token to a user as the users' file has them: another password, or
    /// another user who has the name later, has another hash, whose salt alone is
    /// drawn anew each time.
    pub fn binding(&self, name: &str, user: &User) -> String {
        let text = [name, user.hash()].join("\0");
        let tag = hmac::sign(&self.binding, text.as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
    }

    /// When a login ends that begins now, in seconds since the Unix epoch.
    pub fn end(&self) -> u64 {
        (now() + self.login_ttl).as_secs()
    }

    /// A token that counts until `end` at most.
    pub fn access(&self, name: &str, user: &User, end: u64) -> Option<String> {
        self.access.issue(self.claims(name, user, end))
    }

    /// A refresh token of a login that ends at `end`.
    pub fn refresh(&self, name: &str, user: &User, end: u64) -> Option<String> {
        self.refresh.issue(self.claims(name, user, end))
    }

    fn claims(&self, name: &str, user: &User, end: u64) -> Claims {
        Claims {
            username: name.to_owned(),
            role: if user.admin { "1" } else { "0" }.into(),
            exp: end,
            iat: now().as_secs(),
            binding: self.binding(name, user),
            end,
        }
    }

    /// What an access token says, if it is one and counts.
    pub fn read_access(&self, token: &str) -> Option<Claims> {
        self.access.read(token)
    }

    pub fn read_refresh(&self, token: &str) -> Option<Claims> {
        self.refresh.read(token)
    }
}

impl Kind {
    fn issue(&self, mut claims: Claims) -> Option<String> {
        claims.exp = (now() + self.ttl).as_secs().min(claims.end);
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).ok()
    }

    fn read(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        Some(decode(token, &self.decoding, &validation).ok()?.claims)
    }
}

/// Since the Unix epoch.
fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Reads the secret, or makes one for whoever comes first.
pub fn secret(path: &Path) -> io::Result<Vec<u8>> {
    let secret = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(path)?,
        read => read?,
    };
    let secret = secret.trim_ascii().to_vec();
    if secret.len() < LEAST_SECRET {
        let why = "a secret needs at least 32 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    crate::auth::check_secret(&secret)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    Ok(secret)
}

fn make_secret(path: &Path) -> io::Result<Vec<u8>> {
    let mut random = [0; 32];
    ring::rand::SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("no randomness"))?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    Ok(text.into_bytes())
}
