//! Texts of words: those that people put together, with something between them or with
//! capitals.

use std::sync::LazyLock;

/// Words of passwords and of placeholders, with letters for the signs that stand for them.
const LIST: &str = "abc account admin administrator alpha amazon android angular apple application at \
    authentication authorization auth autumn backend bar baseball bezkoder beta bytes byte \
    change character characters char chars chat chatd clave client code company config \
    contrasena course dance default delta demo dev development django docker dragon \
    encryption enter express facebook fastapi flask flower foo football freedom frontend \
    geheim generate github google guest hallo hasura hash hello here herbst hunter hurra hmac \
    insert inside internal ipsum java javascript jesus jwt key keys koder kubernetes \
    laravel least length letters local localhost login long lorem love master message \
    michael microsoft minimum mongo monkey mustang must mysql mysecret nest ninja node \
    only openssl orange pass passe passphrase passwd password passwort path please \
    postgres princess private prod production project public python quick rails \
    rand random react redis refresh replace root sample schluessel secret secreto secretos \
    secure security server service session shadow sign signature signing sommer spring \
    staging starwars string strong sunshine summer super superman supabase team temp \
    temporary test testing this that todo token tokens trustno tutorial ultra user user \
    username value very website welcome willkommen winter with wort world xxxx yourname your zaq";

pub static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| LIST.split_whitespace().collect());

/// Digits that stand alone and are no more are a number, a year or a size.
pub const MOST_DIGITS: usize = 4;

/// Words with something between them, or with capitals.
pub fn is_of_words(text: &str) -> bool {
    are_apart(text) || are_joined(text)
}

/// Six in ten characters are in parts that can be pronounced, or are short numbers.
fn are_apart(text: &str) -> bool {
    let is_between = |c: char| "-_. :@+/,!?".contains(c);
    let parts: Vec<&str> = text
        .split(is_between)
        .filter(|part| !part.is_empty())
        .collect();
    let words = parts.iter().filter(|part| part.len() > 2 && is_word(part));
    if parts.len() < 3 || words.count() < 2 {
        return false;
    }
    let all: usize = parts.iter().map(|part| part.len()).sum();
    let is_number =
        |part: &str| part.len() <= MOST_DIGITS && part.bytes().all(|b| b.is_ascii_digit());
    let told = parts
        .iter()
        .filter(|part| is_word(part) || is_number(part))
        .map(|part| part.len());
    10 * told.sum::<usize>() >= 6 * all
}

/// Nothing but words that begin with capitals, most of them of three letters and more,
/// perhaps with digits and signs around them.
fn are_joined(text: &str) -> bool {
    let core = text.trim_matches(|c: char| !c.is_ascii_alphabetic());
    if 10 * core.len() < 7 * text.len() || !core.bytes().all(|b| b.is_ascii_alphabetic()) {
        return false;
    }
    let bytes = core.as_bytes();
    let capitals = |pair: &&[u8]| pair.iter().all(u8::is_ascii_uppercase);
    // Two side by side are a word of one letter; where letters are drawn there are many.
    if bytes.windows(2).filter(capitals).count() > 1 {
        return false;
    }
    let mut told = 0;
    let parts = bytes.chunk_by(|_, next| !next.is_ascii_uppercase());
    for part in parts.map(|part| std::str::from_utf8(part).unwrap_or_default()) {
        match part.len() {
            0..=2 => {}
            len if is_word(part) => told += len,
            _ => return false,
        }
    }
    10 * told >= 6 * core.len()
}

/// Letters that can be pronounced: of one case but for the first, with vowels.
fn is_word(part: &str) -> bool {
    let rest = part.get(1..).unwrap_or_default();
    let one_case = part.bytes().all(|b| b.is_ascii_lowercase())
        || part.bytes().all(|b| b.is_ascii_uppercase())
        || (part.starts_with(|c: char| c.is_ascii_uppercase())
            && rest.bytes().all(|b| b.is_ascii_lowercase()));
    let lower = part.to_ascii_lowercase();
    let mut between = lower.split(|c: char| "aeiouy".contains(c));
    let spoken = lower.contains(|c: char| "aeiouy".contains(c));
    one_case
        && (2..=16).contains(&part.len())
        && (WORDS.contains(&lower.as_str()) || spoken && between.all(|run| run.len() <= 4))
}
