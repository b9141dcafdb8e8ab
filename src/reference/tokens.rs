use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use ring::{hmac, rand::SecureRandom as _};
use serde::{Deserialize, Serialize};

/// The least that HS256 wants (RFC 7518, 3.2).
const LEAST_SECRET: usize = 32;

/// Makes and checks tokens.
pub struct Issuer {
    access: Kind,
    refresh: Kind,
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
}

impl Issuer {
    /// Access tokens are signed with the secret itself, so that a chat server
    /// with `--auth jwt` can check them; refresh tokens with a key made from it,
    /// so that none passes for the other.
    pub fn new(secret: &[u8], access_ttl: Duration, refresh_ttl: Duration) -> Self {
        crate::auth::install_crypto();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let refresh = hmac::sign(&key, b"chatd refresh token");
        let kind = |secret: &[u8], ttl| Kind {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            ttl,
        };
        Self {
            access: kind(secret, access_ttl),
            refresh: kind(refresh.as_ref(), refresh_ttl),
        }
    }

    pub fn access(&self, user: &str, admin: bool) -> Option<String> {
        self.access.issue(user, admin)
    }

    pub fn refresh(&self, user: &str, admin: bool) -> Option<String> {
        self.refresh.issue(user, admin)
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
    fn issue(&self, user: &str, admin: bool) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let claims = Claims {
            username: user.to_owned(),
            role: if admin { "1" } else { "0" }.into(),
            exp: (now + self.ttl).as_secs(),
            iat: now.as_secs(),
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).ok()
    }

    fn read(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        Some(decode(token, &self.decoding, &validation).ok()?.claims)
    }
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
