//! What a file that is said to be a secret must not be: something that others
//! have too. Whoever knows the secret makes any token, an admin's as well.

mod spellings;

use self::spellings::{from_base64, from_hex, names_algorithm, spells_algorithm};

/// No secret that a person or a tool makes is longer; keys, certificates and
/// pages are.
const MOST_SECRET: usize = 1_024;

/// Words of what nobody has replaced yet.
const PLACEHOLDERS: [&str; 27] = [
    "changeme",
    "change-me",
    "change_me",
    "replaceme",
    "replace-me",
    "replace_me",
    "placeholder",
    "example",
    "your-",
    "your_",
    "todo",
    "secret-at-least",
    "supersecret",
    "secretsecret",
    "0123456789abcdef",
    "abcdefghijklmnop",
    "1234567890",
    "password",
    "passw0rd",
    "qwerty",
    "letmein",
    "iloveyou",
    "correcthorse",
    "undefined",
    "jwtsecret",
    "jwt-secret",
    "jwt_secret",
];

/// Fewer different bytes than any secret has that was drawn at random.
const LEAST_DIFFERENT: usize = 6;

/// A page begins with as many bytes of plain text at least, whatever it is encoded in.
const LEAST_TAG: usize = 4;

/// Letters of one case that are longer may be what a tool has drawn.
const LONG_WORDS: usize = 40;

/// A key in base64 in base64 is one still, and so on.
const MOST_LAYERS: u32 = 4;

/// Refuses what looks public. It never says what the file holds. It can't know
/// everything that is public: the bare numbers of a key look like a secret.
pub(super) fn check(secret: &[u8]) -> Result<(), &'static str> {
    if secret.len() > MOST_SECRET {
        return Err("longer than 1,024 bytes, so it is no secret for HS256");
    }
    if is_wide(secret) {
        return Err("a text in UTF-16 is no secret");
    }
    if is_key(secret) || names_algorithm(secret) {
        return Err("a key or certificate is no secret; --jwt-keys takes a public key in PEM");
    }
    if is_point(secret) {
        return Err("a point of a curve is a public key, and no secret");
    }
    if is_page(secret) {
        return Err("a page is no secret");
    }
    if is_compressed(secret) {
        return Err("something compressed, as a page that was fetched may be, is no secret");
    }
    if is_guessable(secret) {
        return Err("it looks like a placeholder, and not like a secret drawn at random");
    }
    // Other bytes that are no text may be anything, unless most of them are letters: a
    // text in Latin-1, or one that was cut within a character.
    match std::str::from_utf8(secret) {
        Ok(text) => check_text(text),
        Err(_) if is_mostly_text(secret) => check_text(&String::from_utf8_lossy(secret)),
        Err(_) => Ok(()),
    }
}

/// Of bytes drawn at random, three in eight are.
fn is_mostly_text(bytes: &[u8]) -> bool {
    let is_text = |byte: &&u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    bytes.iter().filter(is_text).count() * 8 >= bytes.len() * 7
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.starts_with(['{', '[']) {
        return Err("JSON is no secret; --jwt-keys takes a JWKS");
    }
    let lower = text.to_ascii_lowercase();
    if lower.contains("://") || lower.contains("/.") || lower.ends_with(".json") {
        return Err("an address is no secret: it is the file that is named, and has to be there");
    }
    if is_path(text) {
        return Err("a path or an address is no secret: name the file that it leads to");
    }
    // A header in JSON begins so; a JWE has five parts, and a signature may be cut off.
    let is_paseto = lower.starts_with("v4.") || lower.starts_with("v3.");
    if is_paseto || (lower.starts_with("ey") && text.contains('.')) {
        return Err("a token is no secret: others have it");
    }
    // What servers and proxies say in words when they fail is no secret either.
    if text.starts_with('\u{feff}') || text.contains(char::is_whitespace) {
        return Err("a secret is one word: no white space, no byte order mark");
    }
    if is_setting(text) {
        return Err(
            "a setting or a reference to one is no secret: the file holds the secret alone",
        );
    }
    if holds_key(text, MOST_LAYERS) || spells_algorithm(text) {
        return Err("a key in base64 or hex is no secret; --jwt-keys takes a public key in PEM");
    }
    Ok(())
}

/// Whether it is what was to be replaced by a secret, or as easily tried.
fn is_guessable(bytes: &[u8]) -> bool {
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let known = PLACEHOLDERS.iter().any(|word| lower.contains(word));
    // Nobody draws from the letters of one case alone, but words are made of them.
    let words = bytes.len() < LONG_WORDS
        && (bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b"-_ ".contains(b))
            || bytes
                .iter()
                .all(|b| b.is_ascii_uppercase() || b"-_ ".contains(b))
            || bytes.iter().all(u8::is_ascii_digit));
    different.len() < LEAST_DIFFERENT || known || words
}

/// Whether the text is a key's, or a set of keys', in base64 or hex, also more
/// than once over.
fn holds_key(text: &str, layers: u32) -> bool {
    let is_public = |bytes: &[u8]| {
        is_plain(bytes)
            || std::str::from_utf8(bytes)
                .is_ok_and(|inner| layers > 0 && holds_key(inner, layers - 1))
    };
    // Lines may be joined by what stands for their ends in a setting.
    let word: String = text
        .replace("\\r", "")
        .replace("\\n", "")
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\'' | ',' | ';'))
        .collect();
    // What is cut may end within a group of four; what is joined goes on behind padding.
    let first = word.split('=').next().unwrap_or_default();
    let whole = first.len() - usize::from(first.len() % 4 == 1);
    let first = first.get(..whole).unwrap_or(first);
    let in_base64 = from_base64(first).is_some_and(|bytes| is_public(&bytes));
    in_base64 || from_hex(&word).is_some_and(|bytes| is_public(&bytes))
}

/// A key, keys or a page as they are, in no other spelling.
fn is_plain(bytes: &[u8]) -> bool {
    let point = is_point(bytes) && bytes.len() % 2 == 1;
    is_key(bytes)
        || names_algorithm(bytes)
        || point
        || is_wide(bytes)
        || is_page(bytes)
        || is_json(bytes)
        || is_compressed(bytes)
}

/// By gzip, zlib, zstd, bzip2, xz or zip, as their first bytes say.
fn is_compressed(bytes: &[u8]) -> bool {
    let heads: [&[u8]; 9] = [
        b"\x1f\x8b\x08",
        b"\x78\x01",
        b"\x78\x5e",
        b"\x78\x9c",
        b"\x78\xda",
        b"\x28\xb5\x2f\xfd",
        b"BZh",
        b"\xfd7zXZ",
        b"PK\x03\x04",
    ];
    heads.iter().any(|head| bytes.starts_with(head))
}

fn is_json(bytes: &[u8]) -> bool {
    let is_object = bytes.trim_ascii_start().starts_with(b"{") || bytes.starts_with(b"[");
    let is_cut = bytes.starts_with(b"{\"") && is_mostly_text(bytes);
    is_cut || is_object && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Pages come in other encodings than UTF-8 too.
fn is_page(bytes: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    // Random bytes may well begin with `<`, but not go on like this.
    let opens = lower.strip_prefix('<').is_some_and(|rest| {
        let name = rest.trim_start_matches(['!', '?', '-']);
        let mut tag = rest.bytes().take(LEAST_TAG);
        name.len() > 1
            && name.bytes().take(2).all(|b| b.is_ascii_alphanumeric())
            && tag.all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
    });
    opens || (lower.is_ascii() && lower.contains("</"))
}

/// A path, or an address without its scheme. Base64 may hold `/`, but then no `-`,
/// `_` or `.` beside it, and hardly small letters alone.
fn is_path(text: &str) -> bool {
    let ends = [
        ".pem", ".key", ".pub", ".txt", ".der", ".crt", ".cer", ".jwk", ".jwks",
    ];
    let slashes = text.contains(['/', '\\']);
    let is_small = !text.contains(|c: char| c.is_ascii_uppercase());
    (slashes && (is_small || text.contains(['-', '_', '.', '~'])))
        || ends.iter().any(|end| text.ends_with(end))
}

/// A line of an environment file, or what stands for a value that is elsewhere. The
/// `=` at the end of base64 is none.
fn is_setting(text: &str) -> bool {
    let refers = [
        "${", "$(", "{{", "enc[", "vault:", "arn:", "data:", "base64:", "sha256:", "did:", "age1",
        "v=dkim1", "%7b", "%5b", "k1.", "k2.", "k3.", "k4.",
    ];
    let words = [
        "key", "secret", "token", "jwt", "hmac", "pass", "modulus", "exponent",
    ];
    let lower = text.to_ascii_lowercase();
    let (word, said) = lower.split_once(['=', ':']).unwrap_or_default();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let says = word.chars().all(is_word)
        && words.iter().any(|known| word.contains(known))
        && !said.trim_matches('=').is_empty();
    let (name, value) = text.split_once(['=', ':']).unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = name.len() > 2
        && name.contains('_')
        && name.chars().all(is_name)
        && !value.trim_matches('=').is_empty();
    named || says || refers.iter().any(|head| lower.starts_with(head)) || is_bare_setting(text)
}

/// `SECRET=…` and `$SECRET`, with or without percent signs.
fn is_bare_setting(text: &str) -> bool {
    let is_name = |name: &str| {
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        name.len() > 2 && name.chars().all(plain)
    };
    let variable = text
        .strip_prefix(['$', '%'])
        .map(|name| name.trim_end_matches('%'));
    let set = text
        .split_once('=')
        .filter(|(_, value)| !value.trim_matches('=').is_empty());
    variable.is_some_and(is_name) || set.is_some_and(|(name, _)| is_name(name))
}

/// A point of P-256, P-384 or P-521 in its long form (SEC 1, 2.3.3). In base64 or hex
/// no byte of it is missing.
fn is_point(bytes: &[u8]) -> bool {
    // Its last byte may have been taken for white space.
    bytes.first() == Some(&4) && [64, 65, 96, 97, 132, 133].contains(&bytes.len())
}

/// Text in UTF-16: it begins with the mark of one, or every second byte is zero.
fn is_wide(bytes: &[u8]) -> bool {
    let zeros = |from: usize| bytes.iter().skip(from).step_by(2).all(|byte| *byte == 0);
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    marked || (bytes.len() > 1 && (zeros(0) || zeros(1)))
}

/// A key or a certificate, in DER, in PEM, or as OpenSSH writes it.
fn is_key(bytes: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let marks = ["-----begin", "bag attributes", "ssh-", "ecdsa-sha2-"];
    is_der(bytes) || marks.iter().any(|mark| lower.contains(mark))
}

/// One SEQUENCE with another, a number or an identifier in it, as in every key and
/// certificate (X.690, 8.1.3 and 8.9). Something may follow it, and its end may be
/// missing: a download broke off, or its last bytes were taken for white space.
fn is_der(bytes: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = bytes else {
        return false;
    };
    let (len, body) = match usize::from(*first) {
        short @ ..0x80 => (short, rest),
        long => {
            let digits = long & 0x7f;
            if digits > 4 || digits > rest.len() {
                return false;
            }
            let (digits, body) = rest.split_at(digits);
            let len = digits
                .iter()
                .fold(0, |len, digit| len << 8 | usize::from(*digit));
            (len, body)
        }
    };
    let is_whole = len <= body.len() + MOST_TRIMMED || *first > 0x80;
    // Digits alone may look like it: `020` is a SEQUENCE of 50 bytes with another in it.
    let is_text = bytes.iter().all(u8::is_ascii_graphic);
    is_whole && !is_text && matches!(body, [0x30 | 0x02 | 0x06, ..])
}

/// So many bytes at the end of a short key look like white space.
const MOST_TRIMMED: usize = 4;

#[cfg(test)]
mod tests {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD},
    };

    use super::*;

    fn random(len: usize) -> Vec<u8> {
        (0..len).map(|_| fastrand::u8(..)).collect()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn p7_what_is_public_or_known_is_no_secret() {
        // An Ed25519 key, as a file and without the last byte, which is a space.
        let mut key = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
        key.extend(random(31));
        key.push(b' ');
        let cut = key.trim_ascii_end().to_vec();
        // The first half of a certificate, and a chain of them (PKCS #7).
        let half = [&b"\x30\x82\x03\x10\x30\x82\x01\xf8"[..], &random(200)].concat();
        let chain = [&b"\x30\x82\x01\x34\x06\x09\x2a\x86"[..], &random(300)].concat();
        let gzip = [&b"\x1f\x8b\x08\0\0\0\0\0"[..], &random(100)].concat();
        let point = [&[4][..], &random(64)].concat();
        assert!(check(&point[..64]).is_err());
        for public in [&key, &cut, &half, &chain, &gzip, &point] {
            assert!(check(public).is_err(), "{public:?}");
            assert!(check(BASE64.encode(public).as_bytes()).is_err());
            assert!(check(hex(public).as_bytes()).is_err());
        }
        // Texts in another encoding, or cut within a character.
        for text in [
            &b"{\"keys\":[{\"kid\":\"schl\xfcssel\",\"kty\":\"RSA\"}]}"[..],
            b"D\xe9sol\xe9, la page demand\xe9e n'est pas disponible",
            b"{\"keys\":[{\"kid\":\"caf\xc3",
        ] {
            assert!(check(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        let cut = BASE64.encode(&half);
        let joined = format!("{cut},{cut}");
        let cut_hex = hex(&half);
        for spelling in [
            &cut[..cut.len() - 3],
            &joined,
            &cut_hex[..cut_hex.len() - 1],
        ] {
            assert!(check(spelling.as_bytes()).is_err(), "{spelling}");
        }
        for known in [
            "eyAiYWxnIjoiSFMyNTYifQ.eyJzdWIiOiJib2IifQ",
            "v4.public.eyJzdWIiOiJib2IifQ",
            "1234567890123456",
            "12345678901234567890123456789012",
            "qwertyuiopasdfghjklzxcvbnm",
            "password1234567890",
            "mysecretkeymysecretkey",
            "correcthorsebatterystaple",
            "undefinedundefined",
            "upstream_request_timeout",
            "Modulus=C2A3F09B7D4E11886A5F00D3C2A3F09B7D4E11886A5F00D3",
            "secret=c2VjcmV0c2VjcmV0c2VjcmV0",
            "jwt-secret=c2VjcmV0c2VjcmV0c2VjcmV0",
            "key:MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
            "v=DKIM1;k=rsa;p=MIGfMA0GCSqGSIb3",
            "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
            "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
            "%7B%22keys%22%3A%5B%7B%22kty%22",
        ] {
            assert!(check(known.as_bytes()).is_err(), "{known}");
        }
    }

    /// Of those that are bytes one in 10,000 begins like something compressed.
    #[test]
    fn p7_what_was_drawn_at_random_is_a_secret() {
        const DRAWS: usize = 20_000;
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        fastrand::seed(seed);
        let mut refused = [0; 4];
        for n in 0..DRAWS {
            let bytes = random(if n % 2 == 0 { 32 } else { 64 });
            let spellings = [
                hex(&bytes).into_bytes(),
                BASE64.encode(&bytes).into_bytes(),
                URL_SAFE_NO_PAD.encode(&bytes).into_bytes(),
                bytes,
            ];
            for (refused, spelling) in refused.iter_mut().zip(spellings) {
                *refused += usize::from(check(&spelling).is_err());
            }
        }
        // Of 64 bytes as they are one in 256 could be a point whose last byte is cut off.
        let [encoded @ .., bytes] = refused;
        let few = encoded.iter().all(|refused| *refused < DRAWS / 1_000) && bytes < DRAWS / 200;
        assert!(few, "{refused:?} of {DRAWS}");
    }
}
