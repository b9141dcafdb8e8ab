//! What people make up: words, passwords, walks over the keyboard, what is counted, and
//! what is a date, an address or a name rather than a secret.
//!
//! The rules measure how much of a text is explained by such parts. What is drawn at
//! random has them too, but hardly ever makes up half its length of them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use super::words::{MOST_DIGITS, WORDS, is_of_words};

/// Words of what nobody has replaced yet, wherever they stand.
const PLACEHOLDERS: [&str; 31] = [
    "changeme",
    "change-me",
    "change_me",
    "replaceme",
    "replace-me",
    "replace_me",
    "placeholder",
    "example",
    "insecure",
    "secret-at-least",
    "supersecret",
    "super-secret",
    "secretsecret",
    "0123456789abcdef",
    "abcdefghijklmnop",
    "1234567890",
    "password",
    "passw0rd",
    "letmein",
    "iloveyou",
    "correcthorse",
    "undefined",
    "jwtsecret",
    "jwt-secret",
    "jwt_secret",
    "qwerty",
    "fixme",
    "deadbeef",
    "feedface",
    "8badf00d",
    "baadf00d",
];

/// For each walk, in either direction, which key comes after each; 0: none.
static NEXT: LazyLock<Vec<[u8; 256]>> = LazyLock::new(|| {
    let tables = WALKS.iter().flat_map(|walk| {
        let (mut there, mut back) = ([0; 256], [0; 256]);
        for pair in walk.as_bytes().windows(2) {
            there[usize::from(pair[0])] = pair[1];
            back[usize::from(pair[1])] = pair[0];
        }
        [there, back]
    });
    tables.collect()
});

/// Keys that are neighbours, on three layouts of keyboards.
const WALKS: [&str; 12] = [
    "1234567890-=",
    "qwertyuiop[]",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl;'",
    "qsdfghjklm",
    "zxcvbnm,./",
    "yxcvbnm,.-",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "1qay2wsx3edc4rfv5tgb6zhn7ujm8ik,9ol.0p",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1q2w3e4r5t6y7u8i9o0p-[=]",
];

/// Fewer different bytes than any secret has that was drawn at random.
const LEAST_DIFFERENT: usize = 6;

/// Letters of one case that are longer may be what a tool has drawn.
const LONG_WORDS: usize = 40;

/// So many characters in a row that count up or down, or are neighbours on a keyboard,
/// are no accident.
const LEAST_WALK: usize = 4;

/// Shorter texts have signs of all kinds by chance.
const LEAST_NOISE: usize = 20;

/// Whether it is what was to be replaced by a secret, or as easily tried.
pub fn is_guessable(bytes: &[u8]) -> bool {
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    if different.len() < LEAST_DIFFERENT || is_counted(bytes) || is_repeated(bytes) {
        return true;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let lower = text.to_ascii_lowercase();
    let is_placeholder = PLACEHOLDERS.iter().any(|word| lower.contains(word));
    let mut parts = text.split(|c: char| !c.is_ascii_alphabetic());
    is_placeholder
        || lower.starts_with("todo")
        || parts.any(|part| ["your", "YOUR", "Your"].contains(&part))
        || is_one_case(bytes)
        || is_of_words(text)
        || is_hash(text)
        || 2 * explained(&lower) >= lower.len()
        || is_name(&lower)
}

/// Whether it is a text as only a generator draws it: signs that no address, setting or
/// JSON has, and few characters of one kind side by side.
pub fn is_noise(bytes: &[u8]) -> bool {
    let kind = |byte: &u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changes = bytes
        .windows(2)
        .filter(|pair| kind(&pair[0]) != kind(&pair[1]));
    let count = |signs: &[u8]| signs.iter().filter(|sign| bytes.contains(sign)).count();
    let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let is_json = has(b"\":")
        || [b"{\"", b"[{", b"[\""]
            .iter()
            .any(|head| bytes.starts_with(*head));
    // With other signs as well, if no JSON and no address has them.
    let few = count(b"!#$%^&*()<>?;|~`'@\\+") >= 3;
    let many = count(b"!#$%^&*()<>?;|~`'@\\+{}[]\",:=/") >= 6;
    bytes.iter().all(u8::is_ascii_graphic)
        && bytes.len() >= LEAST_NOISE
        && 5 * changes.count() >= 2 * bytes.len()
        && (few || many && !is_json && !has(b"://"))
}

/// Nobody draws from the letters of one case alone, but words are made of them.
fn is_one_case(bytes: &[u8]) -> bool {
    let all = |is_one: fn(&u8) -> bool| bytes.iter().all(|b| is_one(b) || b"-_ ".contains(b));
    bytes.len() < LONG_WORDS
        && (all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase) || all(u8::is_ascii_digit))
}

/// `00 01 02 …`: three in four bytes have the same distance from those before them.
fn is_counted(bytes: &[u8]) -> bool {
    let mut steps = [0_usize; 256];
    for pair in bytes.windows(2) {
        steps[usize::from(pair[1].wrapping_sub(pair[0]))] += 1;
    }
    let most = steps.into_iter().max().unwrap_or(0);
    bytes.len() > 2 && 4 * most >= 3 * (bytes.len() - 1)
}

/// One part over and over.
fn is_repeated(bytes: &[u8]) -> bool {
    (1..=bytes.len() / 2).any(|part| bytes[part..] == bytes[..bytes.len() - part])
}

/// What is kept of a password, as crypt(3) writes it: it stands in files and dumps.
fn is_hash(text: &str) -> bool {
    let kinds = [
        "$1$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$argon2", "$scrypt$",
    ];
    kinds.iter().any(|kind| text.starts_with(kind))
}

/// How many characters are in words, walks and counts.
fn explained(lower: &str) -> usize {
    let mut told = vec![false; lower.len()];
    let mut tell = |at: usize, len: usize| {
        told[at..at + len].fill(true);
    };
    for text in [lower.to_owned(), plain(lower)] {
        for word in WORDS.iter().filter(|word| word.len() > 2) {
            text.match_indices(*word)
                .for_each(|(at, _)| tell(at, word.len()));
        }
    }
    for (at, _) in lower.match_indices("123") {
        tell(at, 3);
    }
    let keys = unshifted(lower);
    let bytes = keys.as_bytes();
    for step in [-1_i16, 0, 1] {
        let goes = |a: u8, b: u8| i16::from(b) - i16::from(a) == step && b.is_ascii_alphanumeric();
        for (at, len) in runs(bytes, goes) {
            tell(at, len);
        }
    }
    for next in NEXT.iter() {
        for (at, len) in runs(bytes, |a, b| next[usize::from(a)] == b) {
            tell(at, len);
        }
    }
    told.into_iter().filter(|told| *told).count()
}

/// Where each character follows from the one before, for long enough.
fn runs(bytes: &[u8], follows: impl Fn(u8, u8) -> bool) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    let runs: Vec<(usize, usize)> = bytes
        .chunk_by(|a, b| follows(*a, *b))
        .map(|run| {
            at += run.len();
            (at - run.len(), run.len())
        })
        .filter(|(_, len)| *len >= LEAST_WALK)
        .collect();
    runs.into_iter()
}

/// Letters for the signs that people write in their place.
fn plain(lower: &str) -> String {
    let letter = |c: char| match c {
        '@' | '4' => 'a',
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '$' | '5' => 's',
        '7' => 't',
        other => other,
    };
    lower.chars().map(letter).collect()
}

/// The digits under signs, as on an American keyboard.
fn unshifted(lower: &str) -> String {
    let signs = "!@#$%^&*()".chars().zip("1234567890".chars());
    let digit = |c: char| {
        let mut signs = signs.clone();
        signs
            .find(|(sign, _)| *sign == c)
            .map_or(c, |(_, digit)| digit)
    };
    lower.chars().map(digit).collect()
}

/// An address, a date, a number, a version, or that of a mailbox.
fn is_name(lower: &str) -> bool {
    let numbers = lower
        .bytes()
        .all(|b| b.is_ascii_digit() || b"-:./+,tzv ".contains(&b));
    let has_number = lower.contains(|c: char| c.is_ascii_digit());
    let is_address = lower.parse::<IpAddr>().is_ok() || lower.parse::<SocketAddr>().is_ok();
    (numbers && has_number && lower.len() < LONG_WORDS)
        || is_address
        || is_mailbox(lower)
        || is_version(lower)
}

fn is_mailbox(lower: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    lower.split_once('@').is_some_and(|(name, host)| {
        let top = host.rsplit_once('.').map(|(_, top)| top);
        let is_top = |top: &str| top.len() > 1 && top.bytes().all(|b| b.is_ascii_lowercase());
        !name.is_empty()
            && (name.chars().all(is_part) && host.chars().all(is_part))
            && top.is_some_and(is_top)
    })
}

/// `chatd-1.2.3-rc.1+build`: a number with two points is in it, and no long part is.
fn is_version(lower: &str) -> bool {
    let parts: Vec<&str> = lower.split(['-', '+', '_', ':', '/', '@']).collect();
    let is_number = |part: &&str| {
        let digits: Vec<&str> = part.trim_start_matches('v').split('.').collect();
        let short = |part: &&str| {
            (1..=MOST_DIGITS).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        digits.len() > 2 && digits.iter().all(short)
    };
    let is_plain = |part: &&str| part.len() <= 12;
    let is_text = |c: char| c.is_ascii_alphanumeric() || "-+_:/@.".contains(c);
    parts.iter().any(is_number) && parts.iter().all(is_plain) && lower.chars().all(is_text)
}
