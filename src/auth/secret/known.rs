//! Values that everybody can look up: keys of standards and of tutorials, digests of
//! nothing and of common passwords, UUIDs that mean something.

use std::sync::LazyLock;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};

use super::spellings::{from_base64, from_hex};

/// As they are published; their bytes, if they are in base64 or hex, are known as well.
const PUBLISHED: [&str; 39] = [
    // RFC 7515, A.1; RFC 7517, A.3; RFC 7520, 3.5 and 3.6.
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    "GawgguFyGrWKav7AX4VKUg",
    "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
    "AAPapAv4LbFbiVawEjagUBluYqN5rhna-8nuldDvOx8",
    // FastAPI, tutorials of Spring, Hasura, BezKoder.
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
    "5367566B59703373367639792F423F4528482B4D6251655468576D5A71347437",
    "3EK6FD+o0+c7tzBNVfjpMkNDi2yARAAKzQlk8O2IKoxQu4nF7EdAh8s3TwpHwrdWT6R",
    "bezKoderSecretKey",
    // MD5 of nothing, of a line's end, of password, secret, admin, 123456 and test.
    "d41d8cd98f00b204e9800998ecf8427e",
    "68b329da9893e34099c7d8ad5cb9c940",
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "5ebe2294ecd0e0f08eab7690d2a6ee69",
    "21232f297a57a5a743894a0e4a801fc3",
    "e10adc3949ba59abbe56e057f20f883e",
    "098f6bcd4621d373cade4e832627b4f6",
    // Git's empty tree and file.
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
    // The namespaces and the example of RFC 9562, the examples of everywhere.
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "6ba7b811-9dad-11d1-80b4-00c04fd430c8",
    "6ba7b812-9dad-11d1-80b4-00c04fd430c8",
    "6ba7b814-9dad-11d1-80b4-00c04fd430c8",
    "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "550e8400-e29b-41d4-a716-446655440000",
    "123e4567-e89b-12d3-a456-426614174000",
    "123e4567-e89b-12d3-a456-426655440000",
    "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
    // Keys of NIST SP 800-38A, and of the pages that explain Stripe's.
    "2b7e151628aed2a6abf7158809cf4f3c",
    "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
    "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
    "sk_test_4eC39HqLyjWDarjtT1zdp7dc",
    "sk_test_tR3PYbcVNZZ796tH88S4VQ2u",
    // WebSocket (RFC 6455), and kinds of partitions.
    "258EAFA5-E914-47DA-95CA-C5AB0DC85B11",
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    "0fc63daf-8483-4772-8e79-3d69d8477de4",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
];

/// Their digests are in every table, with a line's end or without.
const DIGESTED: [&str; 16] = [
    "", "password", "secret", "admin", "changeme", "test", "123456", "12345678", "qwerty", "root",
    "user", "token", "hello", "default", "chat", "chatd",
];

static KNOWN: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let published = PUBLISHED.into_iter().flat_map(|text| {
        let plain = Some(text.as_bytes().to_vec());
        [plain, from_base64(text), from_hex(text)]
    });
    let texts = DIGESTED.iter().flat_map(|text| {
        let line = format!("{text}\n");
        [(*text).to_owned(), line]
    });
    let digests = texts.flat_map(|text| {
        let kinds = [&SHA1_FOR_LEGACY_USE_ONLY, &SHA256, &SHA384, &SHA512];
        kinds.map(|kind| Some(digest(kind, text.as_bytes()).as_ref().to_vec()))
    });
    published.chain(digests).flatten().collect()
});

/// Whether it is one of those, as it is, or in base64 or hex.
pub fn is_known(bytes: &[u8]) -> bool {
    let is_one = |bytes: &[u8]| KNOWN.iter().any(|known| known == bytes);
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let inner = [from_base64(text), from_hex(text)];
    is_one(bytes)
        || (inner.iter().flatten()).any(|inner| !inner.is_empty() && is_one(inner))
        || is_uuid_of_time(text)
}

/// A UUID that says when and on which machine it was made, or of which name it is the
/// digest (RFC 9562, 5): only those of version 4 are drawn, and most of version 7.
fn is_uuid_of_time(text: &str) -> bool {
    let text = text
        .trim_start_matches(['{', '('])
        .trim_end_matches(['}', ')']);
    let parts: Vec<&str> = text.split('-').collect();
    let is_uuid = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts
            .concat()
            .bytes()
            .all(|digit| digit.is_ascii_hexdigit());
    is_uuid && !matches!(parts[2].as_bytes().first(), Some(b'4' | b'7' | b'8'))
}
