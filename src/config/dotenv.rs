//! The `.env` file. It is read into a map and never into the process
//! environment: changing that is unsound beside other threads.

mod parse;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
};

use self::parse::Statement;
use super::{Refusal, value::quote};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct EnvFile {
    values: HashMap<String, String>,
    /// The names in the order of the file, each with its line.
    names: Vec<(String, usize)>,
    /// Names that other values of the file are made of.
    used: Vec<String>,
}

impl EnvFile {
    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.values.get(name)
    }

    /// The names that are neither `known` nor part of another value, as
    /// `NAME (line 3)`: most likely slips of the pen.
    pub(super) fn unknown(&self, known: &HashSet<String>) -> Vec<String> {
        let left = self.names.iter().filter(|(name, _)| {
            // What does not look like a name may be a secret, and is not shown.
            is_name(name) && !known.contains(name) && !self.used.contains(name)
        });
        left.map(|(name, line)| format!("{name} (line {line})"))
            .collect()
    }
}

/// Reads the file. A missing one counts as empty, unless it was asked for by
/// name (`named`).
///
/// Of a name that is set twice the later line counts, as in the Go service
/// whose files these are. The text of a line is never part of a refusal: it may
/// hold a password.
pub(super) fn read(path: &Path, named: bool) -> Result<EnvFile, Refusal> {
    let shown = quote(&super::shown(path));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !named => return Ok(EnvFile::default()),
        Err(e) => return Err(Refusal::new(format!("--config-path: {shown}: {e}"))),
    };
    from_text(&text).map_err(|why| Refusal::new(format!("{shown}: {why}")))
}

fn from_text(text: &str) -> Result<EnvFile, String> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let mut file = EnvFile::default();
    let mut rest = text.as_str();
    loop {
        rest = parse::statement_start(rest);
        if rest.is_empty() {
            return Ok(file);
        }
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let Statement { name, value, left } = parse::statement(rest, &file.values)
            .map_err(|problem| format!("line {line}: {problem}"))?;
        rest = left;
        file.used.extend(value.used);
        file.names.push((name.to_owned(), line));
        file.values.insert(name.to_owned(), value.text);
    }
}

/// What is worth showing: what has the form of a name holds no secret.
fn is_name(text: &str) -> bool {
    text.len() <= 64
        && !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read_text(text: &str) -> Result<EnvFile, Refusal> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        read(file.path(), true)
    }

    #[test]
    fn the_later_line_counts() {
        let file = read_text("\u{feff}# a comment\n\nA=1\nexport B='x y'\nA=2\n").unwrap();
        assert_eq!(file.values["A"], "2");
        assert_eq!(file.values["B"], "x y");
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let missing = Path::new("no/such/file");
        assert!(read(missing, false).unwrap().values.is_empty());
        let why = read(missing, true).unwrap_err().to_string();
        assert!(why.contains("no/such/file"), "{why}");
    }

    #[test]
    fn a_bad_line_is_numbered_and_not_shown() {
        let bad = [
            ("A=1\n\nPG_DSN=\"host=db password=hunter2\n", "line 3"),
            ("A=1\nhunter2\n", "line 2"),
            ("A=1\nhunter2", "line 2"),
            ("A=1\nhunter-2=x\n", "line 2"),
            ("A=1\n=hunter2\n", "line 2"),
            ("PG_DSN=hunter2$NOWHERE\n", "line 1"),
        ];
        for (text, line) in bad {
            let why = read_text(text).unwrap_err().to_string();
            assert!(why.contains(line), "{text:?}: {why}");
            assert!(!why.contains("hunter"), "{text:?}: {why}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_is_named() {
        let why = read_text("A=1\nPG_DSN='x'\nB=pa$WORD\n").unwrap_err();
        let why = why.to_string();
        assert!(why.contains("line 3: B: $WORD is not set"), "{why}");
        // It is not taken from a later line either, as in the Go service.
        assert!(read_text("B=$A\nA=1\n").is_err());
    }

    #[test]
    fn unknown_names_are_told_with_their_lines() {
        let text = "PG_DNS=x\nPG_DSN=host=$DB_HOST\nDB_HOST=y\n";
        assert!(read_text(text).is_err(), "DB_HOST comes too late");
        let file = read_text("DB_HOST=y\nPG_DNS=x\nPG_DSN=host=${DB_HOST}\n").unwrap();
        let unknown = file.unknown(&HashSet::from(["PG_DSN".into()]));
        assert_eq!(unknown, ["PG_DNS (line 2)"]);
    }
}
