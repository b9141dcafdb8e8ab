//! The ways in which people write down a key that is public: whole or in part, within a
//! setting, joined by what their tools put between lines.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// How a key says which algorithm it is for: object identifiers in DER, of RSA and PKCS #1
/// (RFC 8017, appendix C), elliptic curves (RFC 5480, 2.1.1), X25519 to Ed448 (RFC 8410,
/// 3). Bytes drawn at random have one of these once in 2^40 places.
const ALGORITHMS: [&[u8]; 6] = [
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01",
    b"\x06\x07\x2a\x86\x48\xce\x3d",
    b"\x06\x03\x2b\x65\x6e",
    b"\x06\x03\x2b\x65\x6f",
    b"\x06\x03\x2b\x65\x70",
    b"\x06\x03\x2b\x65\x71",
];

/// Shorter runs of letters can't hold an identifier.
const LEAST_RUN: usize = 8;

/// Whether the bytes have the identifier of a key's algorithm in them.
pub fn names_algorithm(bytes: &[u8]) -> bool {
    let is_in = |id: &&[u8]| bytes.windows(id.len()).any(|window| window == *id);
    ALGORITHMS.iter().any(is_in)
}

/// Whether some part of the text, read in one of the ways in which bytes are written,
/// has such an identifier in it.
pub fn spells_algorithm(text: &str) -> bool {
    let text = text
        .replace("%2B", "+")
        .replace("%2b", "+")
        .replace("%2F", "/")
        .replace("%2f", "/");
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || "+/-_".contains(c);
    let joined: String = text.chars().filter(|c| of_base64(*c)).collect();
    let runs = text.split(|c| !of_base64(c)).chain([joined.as_str()]);
    let in_base64 = runs.filter(|run| run.len() >= LEAST_RUN).any(|run| {
        let offsets = 0..4.min(run.len());
        offsets.into_iter().any(|at| {
            let whole = run.len() - (run.len() - at) % 4;
            run.get(at..whole)
                .and_then(from_base64)
                .is_some_and(|bytes| names_algorithm(&bytes))
        })
    });
    let spaced: String = text.replace("0x", "").replace("\\x", "");
    let bare: String = spaced.chars().filter(char::is_ascii_alphanumeric).collect();
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    let in_hex = runs.chain([bare.as_str()]).any(|run| {
        [0, 1].into_iter().any(|at| {
            let bytes = run.get(at..).and_then(from_hex);
            bytes.is_some_and(|bytes| names_algorithm(&bytes))
        })
    });
    in_base64 || in_hex || names_algorithm(&numbers(&text)) || names_algorithm(&base32(&text))
}

/// What is written in either alphabet, as far as groups of four go.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    [&STANDARD, &URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())
}

/// Pairs of digits, as tools print them: with or without something between them, and
/// `0x` or `\x` before all or each.
pub fn from_hex(word: &str) -> Option<Vec<u8>> {
    let word = word.to_ascii_lowercase();
    let word = word.replace("0x", "").replace("\\x", "");
    let digits: Vec<u8> = word
        .bytes()
        .filter(|b| !b":-_,".contains(b))
        .map(|b| char::from(b).to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    // What is cut may end within a byte.
    let pairs = digits.chunks_exact(2);
    Some(pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Bytes as decimal numbers.
fn numbers(text: &str) -> Vec<u8> {
    let words = text.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

/// RFC 4648, 6.
pub fn base32(text: &str) -> Vec<u8> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let five = match letter.to_ascii_uppercase() {
            upper @ b'A'..=b'Z' => upper - b'A',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => continue,
        };
        held = (held << 5 | u32::from(five)) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of an Ed25519, a P-256 and an RSA key.
    const KEYS: [&str; 3] = [
        "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE",
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEVs/o5+uQbTjL3chynL4wXgUg2R9",
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAu1SU1LfVLPHCozMxH2Mo",
    ];

    #[test]
    fn p7_a_public_key_is_one_in_any_spelling() {
        for key in KEYS {
            let bytes = from_base64(key.split_at(key.len() / 4 * 4).0).unwrap();
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let decimal: Vec<String> = bytes.iter().map(u8::to_string).collect();
            let lines = key.split_at(40);
            for spelling in [
                key.to_owned(),
                format!("b'{key}'"),
                format!("k=rsa;p={key}"),
                format!("pub:{key}"),
                format!("${key}$"),
                format!("{}\\n{}", lines.0, lines.1),
                format!("{}%0A{}", lines.0, lines.1),
                format!("{}<br>{}", lines.0, lines.1),
                key.replace('/', "%2F").replace('+', "%2b"),
                key.replace('/', "_").replace('+', "-"),
                format!("x{key}"),
                format!("x'{}'", hex.concat()),
                format!("#{}", hex.concat()),
                format!("a{}", hex.concat()),
                hex.join("."),
                hex.join("|"),
                format!("\\x{}", hex.join("\\x")),
                format!("[{}]", decimal.join(",")),
            ] {
                assert!(spells_algorithm(&spelling), "{spelling}");
            }
            assert!(names_algorithm(&[b"\x03\x2d\0", &*bytes].concat()));
        }
        assert!(spells_algorithm("GAVDABIGAMVWK4ADEEAA"), "base32");
    }
}
