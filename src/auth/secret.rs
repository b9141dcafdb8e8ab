//! What a file that is said to be a secret must not be: something that others
//! have too. Whoever knows the secret makes any token, an admin's as well.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// No secret that a person or a tool makes is longer; keys, certificates and
/// pages are.
const MOST_SECRET: usize = 1_024;

/// Words of what nobody has replaced yet.
const PLACEHOLDERS: [&str; 10] = [
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
];

/// Fewer different bytes than any secret has that was drawn at random.
const LEAST_DIFFERENT: usize = 6;

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
    if is_key(secret) {
        return Err("a key or certificate is no secret; --jwt-keys takes a public key in PEM");
    }
    if is_page(secret) {
        return Err("a page is no secret");
    }
    let mut different = secret.to_vec();
    different.sort_unstable();
    different.dedup();
    if different.len() < LEAST_DIFFERENT {
        return Err("the same few characters again and again are no secret");
    }
    // Other bytes that are no text may be anything.
    match std::str::from_utf8(secret) {
        Ok(text) => check_text(text),
        Err(_) => Ok(()),
    }
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
        return Err("a path is no secret: name the file that it leads to");
    }
    // What servers and proxies say in words when they fail is no secret either.
    if text.starts_with('\u{feff}') || text.contains(char::is_whitespace) {
        return Err("a secret is one word: no white space, no byte order mark");
    }
    if is_setting(text) {
        return Err("a line NAME=value is no secret: the file holds the secret alone");
    }
    if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        return Err("it looks like a placeholder that was to be replaced by a secret");
    }
    if holds_key(text, MOST_LAYERS) {
        return Err("a key in base64 or hex is no secret; --jwt-keys takes a public key in PEM");
    }
    Ok(())
}

/// Whether it is a key, a set of keys, or a page, in whatever spelling.
pub(super) fn is_public(bytes: &[u8]) -> bool {
    let in_text = |text| holds_key(text, MOST_LAYERS);
    is_wide(bytes)
        || is_key(bytes)
        || is_page(bytes)
        || bytes.starts_with(b"{\"")
        || std::str::from_utf8(bytes).is_ok_and(in_text)
}

/// Whether the text is a key's, or a set of keys', in base64 or hex, also more
/// than once over.
fn holds_key(text: &str, layers: u32) -> bool {
    let is_public = |bytes: &[u8]| {
        is_key(bytes)
            || is_point(bytes)
            || bytes.starts_with(b"{\"")
            || std::str::from_utf8(bytes)
                .is_ok_and(|inner| layers > 0 && holds_key(inner, layers - 1))
    };
    let word: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '"' | '\''))
        .collect();
    let in_base64 = [&STANDARD, &URL_SAFE].into_iter().any(|alphabet| {
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let decoded = GeneralPurpose::new(alphabet, config).decode(&word);
        decoded.is_ok_and(|bytes| is_public(&bytes))
    });
    in_base64 || from_hex(&word).is_some_and(|bytes| is_public(&bytes))
}

/// Pairs of digits, as tools print them: with or without colons between them.
fn from_hex(word: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = word
        .bytes()
        .filter(|b| *b != b':')
        .map(|b| char::from(b).to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    let is_even = pairs.remainder().is_empty();
    is_even.then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Pages come in other encodings than UTF-8 too.
fn is_page(bytes: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    // Random bytes may well begin with `<`, but not go on like this.
    let opens = lower.strip_prefix('<').is_some_and(|rest| {
        let name = rest.trim_start_matches(['!', '?', '-']);
        name.len() > 1 && name.bytes().take(2).all(|b| b.is_ascii_alphanumeric())
    });
    opens || (lower.is_ascii() && lower.contains("</"))
}

/// Only small letters in one that begins at the root: base64 may begin with `/`.
fn is_path(text: &str) -> bool {
    let ends = [
        ".pem", ".key", ".txt", ".der", ".crt", ".cer", ".jwk", ".jwks",
    ];
    let at_root = text.starts_with('/') && !text.contains(|c: char| c.is_ascii_uppercase());
    at_root
        || ["./", "../", "~/"]
            .iter()
            .any(|head| text.starts_with(head))
        || ends.iter().any(|end| text.ends_with(end))
}

/// A line of an environment file. The `=` at the end of base64 is none.
fn is_setting(text: &str) -> bool {
    let (name, value) = text.split_once('=').unwrap_or_default();
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.len() > 2 && name.chars().all(is_name) && !value.trim_matches('=').is_empty()
}

/// A point of P-256, P-384 or P-521 in its long form (SEC 1, 2.3.3).
fn is_point(bytes: &[u8]) -> bool {
    bytes.first() == Some(&4) && [65, 97, 133].contains(&bytes.len())
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

/// One SEQUENCE that is all there, with another or a number in it, as in every key
/// and certificate (X.690, 8.1.3 and 8.9); something may follow it.
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
    len <= body.len() && matches!(body, [0x30 | 0x02, ..])
}
