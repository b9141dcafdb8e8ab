//! The `.env` file. It is read into a map and never into the process
//! environment: changing that is unsound beside other threads.

use std::{collections::HashMap, fs, io, path::Path};

use super::{Refusal, value::quote};

/// Reads the file. A missing one counts as empty, unless it was asked for by
/// name (`named`).
///
/// Of a name that is set twice the later line counts, as in the Go service
/// whose files these are. The text of a line is never part of a refusal: it may
/// hold a password.
pub(super) fn read(path: &Path, named: bool) -> Result<HashMap<String, String>, Refusal> {
    let shown = quote(&path.display().to_string());
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !named => return Ok(HashMap::new()),
        Err(e) => return Err(Refusal::new(format!("--config-path: {shown}: {e}"))),
    };
    let text = text.trim_start_matches('\u{feff}');
    dotenvy::from_read_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| Refusal::new(format!("{shown}: {}", explain(&e, text))))
}

fn explain(error: &dotenvy::Error, text: &str) -> String {
    let dotenvy::Error::LineParse(entry, _) = error else {
        return "it cannot be read".into();
    };
    // The error has the line, or only its value.
    let first = entry.lines().next().unwrap_or_default().trim();
    let is_it = |line: &str| {
        let value = line.split_once('=').map(|(_, value)| value.trim());
        line.trim() == first || value == Some(first)
    };
    let found = text.lines().zip(1..).find(|(line, _)| is_it(line));
    let Some((line, number)) = found else {
        return "a line is not of the form NAME=value".into();
    };
    let name = line.split_once('=').map(|(name, _)| name.trim());
    match name {
        // A name is worth showing; what has the form of one holds no secret.
        Some(name) if is_name(name) => format!(
            "line {number}: the value of {name} is not valid (one with spaces, $, # or quotes \
             needs single quotes around it)"
        ),
        _ => format!("line {number}: not of the form NAME=value"),
    }
}

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

    fn read_text(text: &str) -> Result<HashMap<String, String>, Refusal> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        read(file.path(), true)
    }

    #[test]
    fn the_later_line_counts() {
        let map = read_text("\u{feff}# a comment\n\nA=1\nexport B='x y'\nA=2\n").unwrap();
        assert_eq!(map["A"], "2");
        assert_eq!(map["B"], "x y");
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let missing = Path::new("no/such/file");
        assert!(read(missing, false).unwrap().is_empty());
        let why = read(missing, true).unwrap_err().to_string();
        assert!(why.contains("no/such/file"), "{why}");
    }

    #[test]
    fn a_bad_line_is_numbered_and_not_shown() {
        let why = read_text("A=1\n\nPG_DSN=host=db password=hunter2\n").unwrap_err();
        let why = why.to_string();
        assert!(why.contains("line 3: the value of PG_DSN"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");

        let why = read_text("A=1\nhunter2\n").unwrap_err().to_string();
        assert!(why.contains("line 2"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}
