//! What a file that is said to be a secret must not be: something that others
//! have too. Whoever knows the secret makes any token, an admin's as well.

mod guess;
mod known;
mod spellings;
#[cfg(test)]
mod tests;
mod words;
mod wrapped;

use flate2::{Decompress, FlushDecompress, Status};

use self::{
    guess::{is_guessable, is_noise},
    known::is_known,
    spellings::{from_base64, from_hex, names_algorithm, spells_algorithm},
    wrapped::{is_told, is_wrapped},
};

/// No secret that a person or a tool makes is longer; keys, certificates and
/// pages are.
const MOST_SECRET: usize = 1_024;

/// A page begins with as many bytes of plain text at least, whatever it is encoded in.
const LEAST_TAG: usize = 12;

/// What is in fewer bytes was not written down in another spelling on purpose.
const LEAST_INNER: usize = 8;

/// A key in base64 in base64 is one still, and so on.
const MOST_LAYERS: u32 = 4;

/// Refuses what looks public. It never says what the file holds. It can't know
/// everything that is public: the bare numbers of a key look like a secret.
pub(crate) fn check(secret: &[u8]) -> Result<(), &'static str> {
    check_layer(secret, MOST_LAYERS)
}

/// What is in base64 or hex is judged again by what is in it, for so many layers.
fn check_layer(secret: &[u8], layers: u32) -> Result<(), &'static str> {
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
    if is_wrapped(secret) {
        return Err("a public key is no secret; --jwt-keys takes one in PEM or as a JWK");
    }
    let is_noise = is_noise(secret);
    if !is_noise && is_page(secret) {
        return Err("a page is no secret");
    }
    if is_compressed(secret) {
        return Err("something compressed, as a page that was fetched may be, is no secret");
    }
    if is_known(secret) {
        return Err("it is published, so others have it: draw a secret at random");
    }
    if is_guessable(secret) {
        return Err("it looks like a placeholder, and not like a secret drawn at random");
    }
    let text = std::str::from_utf8(secret).unwrap_or_default();
    for inner in [from_base64(text), from_hex(text)].into_iter().flatten() {
        // A few bytes that are text by chance say nothing.
        if layers > 0 && inner.len() >= LEAST_INNER && inner.is_ascii() && is_mostly_text(&inner) {
            check_layer(inner.trim_ascii(), layers - 1)?;
        } else if layers > 0 && inner.len() >= LEAST_INNER && is_guessable(&inner) {
            return Err("it looks like a placeholder, and not like a secret drawn at random");
        }
    }
    if is_noise {
        return Ok(());
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
    if is_told(text) {
        return Err("a public key or its fingerprint is no secret; --jwt-keys takes one in PEM");
    }
    if holds_key(text, MOST_LAYERS) || spells_algorithm(text) {
        return Err("a key in base64 or hex is no secret; --jwt-keys takes a public key in PEM");
    }
    Ok(())
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
        || is_wrapped(bytes)
        || point
        || is_wide(bytes)
        || is_page(bytes)
        || is_json(bytes)
        || is_compressed(bytes)
}

/// By gzip, zlib, zstd, bzip2, xz or zip, as their first bytes say.
fn is_compressed(bytes: &[u8]) -> bool {
    let heads: [&[u8]; 4] = [
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7zXZ",
        b"PK\x03\x04",
    ];
    // The two bytes of zlib come by chance: what follows has to be made by it too.
    let is_zlib = matches!(bytes, [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..]);
    let inflates = || {
        // Random bytes give no whole stream, with its sum, nor many of them more than they are.
        let (mut inflate, mut out) = (Decompress::new(true), vec![0; 2 * bytes.len() + 4_096]);
        let done = inflate.decompress(bytes, &mut out, FlushDecompress::None);
        let grew = bytes.len() >= 128 && inflate.total_out() as usize > bytes.len();
        done.is_ok_and(|done| done == Status::StreamEnd || grew)
    };
    let is_bzip2 = bytes.starts_with(b"BZh") && bytes.get(4..7) == Some(b"1AY");
    heads.iter().any(|head| bytes.starts_with(head)) || is_bzip2 || (is_zlib && inflates())
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
    let mut strange = "!$^*()<>;|\"'`{}[],".chars().filter(|c| text.contains(*c));
    let slashes = text.contains(['/', '\\']);
    let is_small = !text.contains(|c: char| c.is_ascii_uppercase());
    (slashes && (is_small || text.contains(['-', '_', '.', '~'])) && strange.nth(2).is_none())
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
        "key", "secret", "token", "jwt", "hmac", "pass", "modulus", "exponent", "kty",
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
    let is_query = text.contains('&')
        && text.split('&').all(|part| {
            let (name, value) = part.split_once('=').unwrap_or_default();
            !name.is_empty() && name.chars().all(is_name) && !value.is_empty()
        });
    named
        || says
        || is_query
        || refers.iter().any(|head| lower.starts_with(head))
        || is_bare_setting(text)
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

/// Text in UTF-16: it begins with the mark of one and reads as text, or
/// every second byte is zero.
fn is_wide(bytes: &[u8]) -> bool {
    let zeros = |from: usize| bytes.iter().skip(from).step_by(2).all(|byte| *byte == 0);
    let read: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        _ => u16::from_be_bytes,
    };
    // Random bytes may begin with the mark, but then hardly all of them are letters.
    let (units, _) = bytes.as_chunks::<2>();
    let units = units.iter().skip(1).map(|unit| read(*unit));
    let is_ascii = units.clone().all(|unit| unit < 0x80);
    let is_text = units.len() > 16
        && char::decode_utf16(units)
            .all(|c| c.is_ok_and(|c| c.is_alphanumeric() || c.is_ascii() || c.is_whitespace()));
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    (marked && (is_ascii || is_text)) || (bytes.len() > 1 && (zeros(0) || zeros(1)))
}

/// A key or a certificate, in DER, in PEM, or as OpenSSH writes it.
fn is_key(bytes: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let marks = [
        "-----begin",
        "bag attributes",
        "ssh-rsa",
        "ssh-dss",
        "ssh-ed",
        "ecdsa-sha2-",
    ];
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
            // No key is longer than two bytes can say, and none has zeros before its length.
            let digits = long & 0x7f;
            if digits > 2 || digits > rest.len() || (digits > 0 && rest[0] == 0) {
                return false;
            }
            let (digits, body) = rest.split_at(digits);
            let len = digits
                .iter()
                .fold(0, |len, digit| len << 8 | usize::from(*digit));
            (len, body)
        }
    };
    let is_whole = match first {
        ..0x80 => len >= LEAST_DER && len <= body.len() + MOST_TRIMMED,
        _ => true,
    };
    let is_part = match body {
        [0x02, 1, 0..=3, ..] | [0x02 | 0x30, 0x80..=0x82, ..] | [0x06, 3..=11, ..] => true,
        [0x02, 16..=66, ..] => true,
        [0x30, part, 0x02 | 0x06 | 0x30 | 0x31 | 0xa0, ..] => *part < 0x80,
        _ => false,
    };
    // Digits alone may look like it: `020` is a SEQUENCE of 50 bytes with another in it.
    let is_text = bytes.iter().all(u8::is_ascii_graphic);
    is_whole && is_part && !is_text
}

/// Shorter sequences are parts of keys, and no keys.
const LEAST_DER: usize = 38;

/// So many bytes at the end of a short key look like white space.
const MOST_TRIMMED: usize = 4;
