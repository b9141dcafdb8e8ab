use std::{
    fs,
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};

use super::secret;

/// Shorter secrets can be found by trying (RFC 7518, 3.2 wants 32 bytes, which
/// a warning asks for).
const LEAST_SECRET: usize = 16;
const GOOD_SECRET: usize = 32;

/// Where the keys are, and of which kind. The kind is said and never guessed:
/// what is public would otherwise be taken for a secret that everybody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFile {
    /// A JWKS, a JWK, or public keys in PEM.
    Keys(PathBuf),
    /// The secret of HS256, and nothing else.
    Secret(PathBuf),
}

impl KeyFile {
    pub fn path(&self) -> &Path {
        match self {
            Self::Keys(path) | Self::Secret(path) => path,
        }
    }

    /// As an error may show it. Where that is not the path, the option says what is meant.
    fn shown(&self) -> String {
        let option = match self {
            Self::Keys(_) => "--jwt-keys",
            Self::Secret(_) => "--jwt-secret-file",
        };
        let shown = crate::config::shown(self.path());
        match shown == self.path().display().to_string() {
            true => shown,
            false => format!("{option}: {shown}"),
        }
    }
}

/// Some editors begin a UTF-8 file with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const PEM: &str = "-----BEGIN";

/// Keys in one file.
const MOST_KEYS: usize = 16;

/// Keys that are tried for one token that names none: each costs a verification, and
/// anybody can bring such tokens.
const MOST_TRIED: usize = 4;

/// Why there are no keys. It never shows what the file holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {why}")]
pub struct KeyError {
    file: String,
    why: String,
}

/// The keys that tokens may be signed with. What algorithm a key is for follows
/// from the key, never from the token.
#[derive(Debug)]
pub struct Keys {
    all: Vec<Key>,
    /// Drawn at random, so that what is known of a token goes with the keys that it was
    /// tried with.
    edition: u64,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keys {
    /// Reads the file as what it is said to be.
    ///
    /// # Errors
    /// If it can't be read, or holds anything else.
    pub fn read(file: &KeyFile) -> Result<Self, KeyError> {
        let fail = |why: String| KeyError {
            file: file.shown(),
            why,
        };
        let bytes = fs::read(file.path()).map_err(|e| fail(e.to_string()))?;
        let keys = match file {
            KeyFile::Keys(_) => public_keys(&bytes),
            KeyFile::Secret(_) => from_secret(bytes.trim_ascii()).map(|key| vec![key]),
        };
        let keys = keys.map_err(|why| fail(why.into()))?;
        let keys = Self {
            all: keys,
            edition: fastrand::u64(..),
        };
        keys.warn_of_many();
        Ok(keys)
    }

    fn warn_of_many(&self) {
        for key in &self.all {
            let alike = self.all.iter().filter(|one| one.algorithm == key.algorithm);
            if alike.count() > MOST_TRIED {
                return tracing::warn!(
                    algorithm = ?key.algorithm,
                    "tokens that name no key here (kid) are tried with the first four keys of their \
                     algorithm, and there are more"
                );
            }
        }
    }

    /// Whether they are secrets, and not public keys.
    pub fn are_secret(&self) -> bool {
        self.all.iter().any(|key| key.algorithm == Algorithm::HS256)
    }

    /// Another number for other keys.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// The same file, which held keys of the other kind before.
    pub fn other_kind(file: &KeyFile) -> KeyError {
        KeyError {
            file: file.shown(),
            why: "it has secrets where there were public keys, or the other way round; that \
                  takes a start"
                .into(),
        }
    }

    /// The keys that the header of a token may mean, at most four if it names none
    /// of them.
    pub fn fitting<'a>(
        &'a self,
        header: &'a Header,
    ) -> impl Iterator<Item = (&'a DecodingKey, Algorithm)> {
        let named = header.kid.as_ref();
        let known = named.is_some_and(|id| self.all.iter().any(|key| key.id.as_ref() == Some(id)));
        let most = if known { MOST_KEYS } else { MOST_TRIED };
        self.all
            .iter()
            .filter(move |key| key.algorithm == header.alg)
            .filter(move |key| match (named, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                (Some(_), None) => !known,
                (None, _) => true,
            })
            .take(most)
            .map(|key| (&key.key, key.algorithm))
    }
}

fn public_keys(bytes: &[u8]) -> Result<Vec<Key>, &'static str> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = bytes.trim_ascii();
    if text.starts_with(b"{") || text.starts_with(b"[") {
        return from_jwks(text);
    }
    // Comments and "Bag Attributes" may stand before a key (RFC 7468, 2).
    let text = std::str::from_utf8(text).unwrap_or_default();
    let pems: Vec<&str> = text
        .match_indices(PEM)
        .map(|(at, _)| &text[at..])
        .map(|pem| &pem[..pem[1..].find(PEM).map_or(pem.len(), |end| end + 1)])
        .collect();
    if pems.is_empty() {
        return Err(
            "neither a JWKS nor a public key in PEM; a secret for HS256 is named by \
             --jwt-secret-file instead",
        );
    }
    if pems.len() > MOST_KEYS {
        return Err("more than 16 keys");
    }
    pems.iter().map(|pem| from_pem(pem.as_bytes())).collect()
}

fn from_secret(secret: &[u8]) -> Result<Key, &'static str> {
    secret::check(secret)?;
    if secret.len() < LEAST_SECRET {
        return Err("a secret needs at least 16 bytes, better 32");
    }
    if secret.len() < GOOD_SECRET {
        tracing::warn!("the secret of tokens is shorter than the 32 bytes that HS256 wants");
    }
    Ok(Key {
        id: None,
        algorithm: Algorithm::HS256,
        key: DecodingKey::from_secret(secret),
    })
}

fn from_pem(pem: &[u8]) -> Result<Key, &'static str> {
    let first = pem.split(|b| *b == b'\n').next().unwrap_or_default();
    let public = first.windows(10).any(|part| part == b"PUBLIC KEY");
    if !public {
        return Err("of PEM files only a public key is taken");
    }
    // An RSA key is neither an EC nor an Ed25519 one: at most one succeeds.
    let rsa = DecodingKey::from_rsa_pem(pem).map(|key| (Algorithm::RS256, key));
    let ec = || DecodingKey::from_ec_pem(pem).map(|key| (Algorithm::ES256, key));
    let ed = || DecodingKey::from_ed_pem(pem).map(|key| (Algorithm::EdDSA, key));
    let (algorithm, key) = rsa
        .or_else(|_| ec())
        .or_else(|_| ed())
        .map_err(|_| "neither an RSA, a P-256 nor an Ed25519 public key")?;
    // An uncompressed point of P-256; P-384 has longer ones.
    if algorithm == Algorithm::ES256 && key.try_get_as_bytes().map_or(0, <[u8]>::len) != 65 {
        return Err("of elliptic curves only P-256 and Ed25519 are supported");
    }
    Ok(Key {
        id: None,
        algorithm,
        key,
    })
}

fn from_jwks(json: &[u8]) -> Result<Vec<Key>, &'static str> {
    let set: JwkSet = serde_json::from_slice(json)
        .or_else(|_| serde_json::from_slice(json).map(|keys| JwkSet { keys }))
        .or_else(|_| serde_json::from_slice(json).map(|key| JwkSet { keys: vec![key] }))
        .map_err(|_| "not a JWKS or JWK that can be read")?;
    if serde_json::from_slice(json).is_ok_and(|json| has_both(&json)) {
        return Err("a secret (kty oct) has members of a public key");
    }
    // Those that are passed over count too: what a set is for shows by all of it.
    let is_secret = |jwk: &Jwk| matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
    if set.keys.iter().any(is_secret) && !set.keys.iter().all(is_secret) {
        return Err("it has secrets (kty oct) beside public keys; a set is of one kind");
    }
    let keys: Vec<Key> = set.keys.iter().filter_map(from_jwk).collect();
    for key in &keys {
        let bytes = key.key.try_get_as_bytes().unwrap_or_default();
        if key.algorithm == Algorithm::HS256 && secret::check(bytes).is_err() {
            return Err("the value of a secret (kty oct) is public, or can be guessed");
        }
    }
    if keys.is_empty() {
        return Err("no key for signatures with HS256, RS256, ES256 or EdDSA");
    }
    if keys.len() > MOST_KEYS {
        return Err("more than 16 keys");
    }
    Ok(keys)
}

/// Whether a key that says it is a secret has what a public key is made of.
fn has_both(json: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match json {
        Array(all) => all.iter().any(has_both),
        Object(key) => {
            let says = key.get("kty").is_some_and(|kind| kind == "oct");
            let public = ["n", "e", "crv", "x", "y"];
            let has = public.iter().any(|name| key.contains_key(*name));
            (says && has) || key.get("keys").is_some_and(has_both)
        }
        _ => false,
    }
}

/// A set may hold keys for other purposes: they are passed over.
fn from_jwk(jwk: &Jwk) -> Option<Key> {
    if matches!(&jwk.common.public_key_use, Some(usage) if *usage != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|given| given != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let short = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len) < LEAST_SECRET;
    if algorithm == Algorithm::HS256 && short(&key) {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key,
    })
}
