//! Tokens, and the keys to sign them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256,
    },
};
use serde_json::{Value, json};

use super::secrets;

pub enum Key {
    Hs(Vec<u8>),
    Rs(Box<RsaKeyPair>),
    Es(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    pub fn hs(secret: &str) -> Self {
        secrets::made(secret);
        Self::Hs(secret.into())
    }

    /// A key for these tests and nothing else.
    pub fn rs() -> Self {
        let pem = include_str!("test-only-rsa-key.pem");
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(base64).unwrap();
        Self::Rs(Box::new(RsaKeyPair::from_pkcs8(&der).unwrap()))
    }

    pub fn es() -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self::Es(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap())
    }

    pub fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs(_) => "HS256",
            Self::Rs(_) => "RS256",
            Self::Es(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hs(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Self::Rs(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Self::Es(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The file of `--jwt-keys`, or of a secret that of `--jwt-secret-file`.
    pub fn file(&self) -> String {
        let (label, der) = match self {
            Self::Hs(secret) => return String::from_utf8(secret.clone()).unwrap(),
            Self::Rs(key) => ("RSA PUBLIC KEY", key.public().as_ref().to_vec()),
            Self::Es(key) => {
                let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
                ("PUBLIC KEY", spki(prefix, key.public_key().as_ref()))
            }
            Self::Ed(key) => {
                let prefix = "302a300506032b6570032100";
                ("PUBLIC KEY", spki(prefix, key.public_key().as_ref()))
            }
        };
        let body = STANDARD.encode(der);
        let lines: Vec<&str> = (0..body.len())
            .step_by(64)
            .map(|at| &body[at..body.len().min(at + 64)])
            .collect();
        let lines = lines.join("\n");
        format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
    }

    pub fn jwk(&self, id: Option<&str>) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Hs(secret) => json!({"kty": "oct", "k": text(secret)}),
            Self::Rs(key) => {
                let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "n": text(&parts.n), "e": text(&parts.e)})
            }
            Self::Es(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            }
            Self::Ed(key) => {
                let x = text(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
        };
        if let Some(id) = id {
            jwk["kid"] = id.into();
        }
        jwk
    }

    /// A token of `claims`, as they are.
    pub fn signed(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes()));
        let token = format!("{message}.{signature}");
        secrets::made_token(&token);
        token
    }

    /// A token of a user that is good for `seconds`.
    pub fn token(&self, user: &str, role: &str, seconds: i64) -> String {
        let header = json!({"alg": self.algorithm(), "typ": "JWT"});
        self.signed(&header, &claims(user, role, seconds))
    }
}

fn spki(prefix: &str, key: &[u8]) -> Vec<u8> {
    let digits: Vec<char> = prefix.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
    let mut der: Vec<u8> = digits.chunks(2).map(byte).collect();
    der.extend_from_slice(key);
    der
}

pub fn claims(user: &str, role: &str, seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs() as i64;
    // No two tokens are the same, so that no test meets another's.
    let id = fastrand::u64(..);
    json!({"username": user, "role": role, "exp": now + seconds, "id": id})
}
