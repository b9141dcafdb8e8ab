//! What a file that is said to be a secret must not be: something that others
//! have too. Whoever knows the secret makes any token, an admin's as well.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// No secret that a person or a tool makes is longer; keys, certificates and
/// pages are.
const MOST_SECRET: usize = 1_024;

/// Refuses what looks public. It never says what the file holds.
pub(super) fn check(secret: &[u8]) -> Result<(), &'static str> {
    if is_der(secret) {
        return Err("a key or certificate in DER is no secret; --jwt-keys takes one in PEM");
    }
    if secret.len() > MOST_SECRET {
        return Err("longer than 1,024 bytes, so it is no secret for HS256");
    }
    // Bytes that are no text may be anything.
    let Ok(text) = std::str::from_utf8(secret) else {
        return Ok(());
    };
    let lower = text.to_ascii_lowercase();
    if lower.contains("-----begin") || lower.contains("bag attributes") {
        return Err("a key or certificate in PEM is no secret; --jwt-keys takes a public key");
    }
    if ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|kind| lower.contains(kind))
    {
        return Err("a public key of SSH is no secret");
    }
    if lower.starts_with(['{', '[', '"']) {
        return Err("JSON is no secret; --jwt-keys takes a JWKS");
    }
    if lower.starts_with('<') || lower.contains("<html") || lower.contains("</") {
        return Err("a page is no secret");
    }
    if lower.contains("://") {
        return Err("an address is no secret: it is the file that is named, and has to be there");
    }
    if text.starts_with('\u{feff}') || text.contains(['\n', '\r']) {
        return Err("a secret is one line without a byte order mark");
    }
    let decoded = STANDARD.decode(text).ok();
    if decoded.is_some_and(|bytes| is_der(&bytes)) {
        return Err("a key in base64 is no secret; --jwt-keys takes one in PEM");
    }
    Ok(())
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
