//! Public keys in the wrappings of other tools than those of X.509, JOSE and OpenSSH.

use super::spellings::{base32, from_base64, from_hex};

/// A key of Ed25519, and one with a few bytes about it, are so long.
const LEAST_KEY: usize = 32;

/// What comes before a key in OpenPGP makes its packet longer.
const LEAST_PACKET: usize = 42;

/// A shorter part of a name is a port or a number, and no key in base64.
const LEAST_SPELLED: usize = 42;

/// The bytes as a tool keeps them.
pub fn is_wrapped(bytes: &[u8]) -> bool {
    is_openpgp(bytes) || is_cose(bytes) || is_minisign(bytes)
}

/// The packet of a public key (RFC 9580, 4.2 and 5.5.2): its head and length, a version, a
/// time between 1989 and 2038, an algorithm that there is, and the head of a number or of
/// the name of a curve. A long one may have been cut.
fn is_openpgp(bytes: &[u8]) -> bool {
    let body = match bytes {
        [0x98, len, body @ ..] | [0xc6, len @ ..=0xbf, body @ ..] => {
            let is_whole = usize::from(*len) <= body.len() + 4;
            if is_whole { body } else { return false }
        }
        [0x99, 0..=0x10, _, body @ ..] | [0xc6, 0xc0..=0xd0, _, body @ ..] => body,
        [0x9a, 0, 0, 0..=0x10, _, body @ ..] | [0xc6, 0xff, 0, 0, _, _, body @ ..] => body,
        _ => return false,
    };
    let (time, algorithm, next) = match body {
        [3, time, _, _, _, _, _, algorithm @ 1..=3, next, ..] => (time, algorithm, next),
        [4, time, _, _, _, algorithm, next, ..] => (time, algorithm, next),
        [5..=6, time, _, _, _, algorithm, 0, next, ..] => (time, algorithm, next),
        _ => return false,
    };
    let is_known =
        matches!(algorithm, 1..=3 | 16..=19 | 22) && *next <= 0x40 || matches!(algorithm, 25..=28);
    bytes.len() >= LEAST_PACKET && (0x24..0x80).contains(time) && is_known
}

/// A map with the kind of a key and a number of one in it (RFC 9052, 7).
fn is_cose(bytes: &[u8]) -> bool {
    let [0xa2..=0xa9, head @ ..] = bytes else {
        return false;
    };
    let head = &head[..head.len().min(16)];
    let has = |part: &[u8]| head.windows(part.len()).any(|window| window == part);
    let kind = has(&[1, 1]) || has(&[1, 2]) || has(&[1, 3]);
    let is_number = |part: &[u8]| matches!(part, [0x20 | 0x21, 0x58..=0x59, 0x01 | 0x20..=0x42]);
    kind && head.windows(3).any(is_number)
}

/// A key or a signature of minisign or signify.
fn is_minisign(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"Ed") || bytes.starts_with(b"ED")) && [42, 74].contains(&bytes.len())
}

/// A text that a tool makes of a public key.
pub fn is_told(text: &str) -> bool {
    is_named(text) || is_noted(text) || is_nkey(text) || is_prefixed(text) || is_print(text)
}

/// `NAME:KEY`, as of Nix (`cache.nixos.org-1:…`) and Matrix (`ed25519:…`).
fn is_named(text: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    text.rsplit_once(':').is_some_and(|(name, key)| {
        let is_key = |bytes: Vec<u8>| bytes.len() >= LEAST_KEY - 1;
        !name.is_empty()
            && name.chars().all(is_name)
            && key.len() >= LEAST_SPELLED
            && (from_base64(key).is_some_and(is_key) || from_hex(key).is_some_and(is_key))
    })
}

/// `NAME+HASH+KEY`, as of Go's `sum.golang.org`.
fn is_noted(text: &str) -> bool {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    (name.contains('.') || name.contains('-'))
        && hash.len() == 8
        && hash.bytes().all(|b| b.is_ascii_hexdigit())
        && from_base64(key).is_some_and(|key| key.len() > LEAST_KEY)
}

/// A public key of NATS: 32 bytes, a letter for whose it is, and a checksum, in base32.
fn is_nkey(text: &str) -> bool {
    let is_one = text.len() == 56 && text.starts_with(['U', 'A', 'O', 'N', 'C', 'X', 'P']);
    let bytes = if is_one { base32(text) } else { Vec::new() };
    let Some((told, sum)) = bytes.split_last_chunk::<2>() else {
        return false;
    };
    // CRC-16/XMODEM, its low byte first.
    let mut crc = 0_u16;
    for byte in told {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            let carries = crc & 0x8000 != 0;
            crc = (crc << 1) ^ if carries { 0x1021 } else { 0 };
        }
    }
    bytes.len() == 35 && crc.to_le_bytes() == *sum
}

/// What says by its first letters that it is a key: of Nostr, age and wallets.
fn is_prefixed(text: &str) -> bool {
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
    let bech = ["npub1", "nprofile1", "note1", "age1", "bc1q", "bc1p"];
    let wallets = ["xpub", "ypub", "zpub", "tpub", "upub", "vpub"];
    let is_small = !text.bytes().any(|b| b.is_ascii_uppercase());
    let starts = |heads: &[&str]| heads.iter().any(|head| text.starts_with(head));
    is_plain && ((is_small && starts(&bech)) || (text.len() > 100 && starts(&wallets)))
}

/// A fingerprint: pairs of digits with colons between them, and perhaps a name before.
fn is_print(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(['=', ':']).collect();
    let is_pair = |part: &&&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let told = pairs.iter().filter(is_pair).count();
    text.contains(':') && told >= 6 && told + 2 >= pairs.len()
}
