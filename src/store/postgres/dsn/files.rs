//! libpq's two files: services and passwords.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::words::Words;
use crate::store::postgres::error::OpenError;

/// A file's path in the home folder, if there is one.
fn at_home(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(PathBuf::from(home).join(name))
}

/// The words of a service, from the file that is named or `~/.pg_service.conf`.
pub(super) fn service(name: &str, file: Option<&str>) -> Result<Words, OpenError> {
    let fail = |why: String| OpenError::Dsn(format!("service: {why}"));
    let path = file.map(PathBuf::from).or(at_home(".pg_service.conf"));
    let path = path.ok_or_else(|| fail("servicefile says which file".into()))?;
    let text = fs::read_to_string(&path).map_err(|e| fail(format!("{}: {e}", path.display())))?;
    let (mut words, mut found, mut inside) = (Words::new(), false, false);
    let lines = text.lines().map(str::trim);
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.strip_suffix(']') == Some(name);
            found |= inside;
        } else if inside {
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| fail(format!("{}: a line has no =", path.display())))?;
            words.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    match found {
        true => Ok(words),
        false => Err(fail(format!("{} does not have it", path.display()))),
    }
}

/// Who asks for a password.
pub(super) struct Asker<'a> {
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The lines of a password file: the one that is named, or `~/.pgpass` if it is
/// there. As for libpq, one that others may read does not count.
pub(super) fn passwords(file: Option<&str>) -> Result<Vec<String>, OpenError> {
    let fail = |path: &Path, why: &dyn std::fmt::Display| {
        OpenError::Dsn(format!("passfile: {}: {why}", path.display()))
    };
    let Some(path) = file.map(PathBuf::from).or(at_home(".pgpass")) else {
        return Ok(Vec::new());
    };
    let Ok(metadata) = fs::metadata(&path) else {
        return match file {
            Some(_) => Err(fail(&path, &"it is not there")),
            None => Ok(Vec::new()),
        };
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        let why = "others may read it: its permissions have to be 0600 or less";
        return match file {
            Some(_) => Err(fail(&path, &why)),
            None => Ok(Vec::new()),
        };
    }
    let text = fs::read_to_string(&path).map_err(|e| fail(&path, &e))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// `host:port:database:user:password`, where `*` is any and a backslash takes the
/// next character as it is. The first line that fits counts.
pub(super) fn password_for(lines: &[String], asker: &Asker<'_>) -> Option<String> {
    let port = asker.port.to_string();
    let wanted = [asker.host, &port, asker.database, asker.user];
    lines
        .iter()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            let (fields, password) = fields(line)?;
            let fits = |(field, wanted): (&String, &&str)| field == "*" || field == wanted;
            fields.iter().zip(&wanted).all(fits).then_some(password)
        })
}

fn fields(line: &str) -> Option<([String; 4], String)> {
    let mut fields: [String; 4] = Default::default();
    let mut at = 0;
    let mut chars = line.chars();
    while at < 4 {
        match chars.next()? {
            ':' => at += 1,
            '\\' => fields[at].push(chars.next()?),
            c => fields[at].push(c),
        }
    }
    let mut password = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => password.push(chars.next()?),
            c => password.push(c),
        }
    }
    Some((fields, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let lines: Vec<String> = [
            "# a comment",
            "db:5432:other:u:no",
            r"db:*:chat:u:a\:b\\c",
            "*:*:*:*:last",
        ]
        .map(str::to_owned)
        .into();
        let password = |host, user| {
            let (port, database) = (5432, "chat");
            let asker = Asker {
                host,
                port,
                database,
                user,
            };
            password_for(&lines, &asker)
        };
        assert_eq!(password("db", "u").as_deref(), Some(r"a:b\c"));
        assert_eq!(password("db", "v").as_deref(), Some("last"));
        assert_eq!(
            password_for(
                &lines[..2],
                &Asker {
                    host: "db",
                    port: 1,
                    database: "chat",
                    user: "u"
                }
            ),
            None
        );
    }
}
