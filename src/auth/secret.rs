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

/// Refuses what looks public. It never says what the file holds.
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
    // Pages come in other encodings too.
    let lossy = String::from_utf8_lossy(secret).to_ascii_lowercase();
    if lossy.starts_with('<') || lossy.contains("</") {
        return Err("a page is no secret");
    }
    // Other bytes that are no text may be anything.
    let Ok(text) = std::str::from_utf8(secret) else {
        return Ok(());
    };
    if text.starts_with(['{', '[']) {
        return Err("JSON is no secret; --jwt-keys takes a JWKS");
    }
    if lossy.contains("://") || lossy.contains("/.") || lossy.ends_with(".json") {
        return Err("an address is no secret: it is the file that is named, and has to be there");
    }
    // What servers and proxies say in words when they fail is no secret either.
    if text.starts_with('\u{feff}') || text.contains(char::is_whitespace) {
        return Err("a secret is one word: no white space, no byte order mark");
    }
    let text = text.trim_matches(['"', '\'']);
    for alphabet in [&STANDARD, &URL_SAFE] {
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let decoded = GeneralPurpose::new(alphabet, config).decode(text).ok();
        if decoded.is_some_and(|bytes| is_key(&bytes)) {
            return Err("a key in base64 is no secret; --jwt-keys takes a public key in PEM");
        }
    }
    Ok(())
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

/// One SEQUENCE that fills all of it (X.690, 8.1.3), as every key and
/// certificate is.
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
    len == body.len()
}
