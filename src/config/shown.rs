//! A path as an error may show it.

use std::path::{Component, Path};

/// Whoever takes the option for the secret itself gives it in place of a path. What is
/// shorter is no secret.
const LEAST_SECRET: usize = 16;

/// Nothing else ends like this, and a token has longer parts.
const LONGEST_ENDING: usize = 8;

const HIDDEN: &str = "a path that is not shown, because no file has it and it could be a secret";

/// The path, unless no file has it and it may be a secret that was given in its place.
pub fn shown(path: &Path) -> String {
    match path.symlink_metadata().is_ok() || is_plain(path) {
        true => path.display().to_string(),
        false => HIDDEN.to_owned(),
    }
}

/// Whether it is a path by its looks: it is short, begins in a folder that is there, or
/// its name has an ending. Base64 has slashes too, but no folders and no points.
fn is_plain(path: &Path) -> bool {
    let Some(text) = path.to_str() else {
        return false;
    };
    if text.len() < LEAST_SECRET {
        return true;
    }
    let folders = path.parent().into_iter().flat_map(Path::components);
    let first = folders
        .clone()
        .find(|part| !matches!(part, Component::RootDir));
    let in_folder = match first {
        Some(Component::Normal(name)) if name.len() > 1 => {
            let root = if path.is_absolute() { "/" } else { "" };
            Path::new(root).join(name).is_dir()
        }
        Some(part) => matches!(part, Component::CurDir | Component::ParentDir),
        None => false,
    };
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let named = text.rsplit_once('.').is_some_and(|(name, ending)| {
        let is_token = text.starts_with("ey") && name.contains('.');
        (1..=LONGEST_ENDING).contains(&ending.len())
            && ending.bytes().all(|b| b.is_ascii_lowercase())
            && text.chars().all(is_of_path)
            && !is_token
    });
    in_folder || named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_a_secret_in_place_of_a_path_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("c2VjcmV0LW9mLWEtcHJvZHVjdGlvbg");
        std::fs::write(&there, "").unwrap();
        for path in [
            there.to_str().unwrap(),
            folder.path().join("missing-and-long").to_str().unwrap(),
            "./a-long-name-of-a-secret",
            "jwt.key",
            "jwt-secret",
            "secrets/of/production/jwt.secret",
            "/nowhere-at-all/jwt-secret.txt",
        ] {
            assert_eq!(shown(Path::new(path)), path);
        }
        for secret in [
            "kX9vQ2mR7tLw4ZsB1nYc8dJf5gHp3aUe",
            "kX9v/2mR7tLw4ZsB1nYc8dJf5gHp3aUe0oIq6WxTzCk=",
            "/X9v/2mR7tLw4ZsB1nYc8dJf5gHp3aUe0oIq6WxTzCk=",
            "3f9a1c7e5b2d8f604e1a9c3b7d5f2e80",
            "correct-horse-battery-staple",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2IifQ.abc",
            "kX9v!Q2m.R7tLw4ZsB1.nYc",
        ] {
            assert_eq!(shown(Path::new(secret)), HIDDEN, "{secret}");
        }
    }
}
