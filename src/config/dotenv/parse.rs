//! The statements of an env file, as Go's godotenv 1.5.1 reads them: files of
//! existing deployments have to mean what they mean to the service that this
//! one continues. Rust's crates for such files follow other rules: of
//! `$POSTGRES_DB`, dotenvy 0.15 takes `$POSTGRES` and leaves `_DB`.
//!
//! Where godotenv makes something up, this refuses: a variable that is not set
//! (there it is empty, and half a password is gone), and a line without a name.

use std::{collections::HashMap, fmt};

/// One `NAME=value`, and the text behind it.
pub(super) struct Statement<'a> {
    pub(super) name: &'a str,
    pub(super) value: Value,
    pub(super) left: &'a str,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    /// Variables that it is made of.
    pub(super) used: Vec<String>,
}

/// Why a statement can't be read. Nothing of its value is shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    NoName,
    Unterminated(String),
    NotSet { name: String, variable: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoName => f.write_str("not of the form NAME=value"),
            Self::Unterminated(name) => write!(f, "the value of {name} has no closing quote"),
            Self::NotSet { name, variable } => write!(
                f,
                "{name}: ${variable} is not set in a line above; if no variable is meant, put \
                 the value in single quotes"
            ),
        }
    }
}

type Values = HashMap<String, String>;

/// Passes over white space, empty lines and comments.
pub(super) fn statement_start(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if !text.starts_with('#') {
            return text;
        }
        text = text.find('\n').map_or("", |end| &text[end..]);
    }
}

/// Reads one statement; `text` begins with it.
pub(super) fn statement<'a>(text: &'a str, values: &Values) -> Result<Statement<'a>, Problem> {
    let (name, rest) = name(text)?;
    let quoted = rest.starts_with(['"', '\'']);
    let (value, left) = if quoted {
        quoted_value(name, rest, values)?
    } else {
        plain_value(name, rest, values)?
    };
    Ok(Statement { name, value, left })
}

fn name(text: &str) -> Result<(&str, &str), Problem> {
    let text = match text.strip_prefix("export") {
        Some(rest) if rest.starts_with(is_space) => rest.trim_start_matches(is_space),
        _ => text,
    };
    let end = text.find(['=', ':']).ok_or(Problem::NoName)?;
    let name = text[..end].trim_end_matches(is_space);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Problem::NoName);
    }
    Ok((name, text[end + 1..].trim_start_matches(is_space)))
}

/// To the end of the line, or to a `#` behind white space (of several such the
/// last one begins the comment).
fn plain_value<'a>(
    name: &str,
    text: &'a str,
    values: &Values,
) -> Result<(Value, &'a str), Problem> {
    let end = text.find(['\n', '\r']).unwrap_or(text.len());
    let (line, left) = text.split_at(end);
    let comment = line
        .rmatch_indices('#')
        .find(|(at, _)| line[..*at].ends_with(is_space));
    let value = comment.map_or(line, |(at, _)| &line[..at]);
    Ok((expand(name, value.trim_matches(is_space), values)?, left))
}

/// To the next such quote that has no backslash before it; lines may end
/// within. In single quotes nothing else has a meaning.
fn quoted_value<'a>(
    name: &str,
    text: &'a str,
    values: &Values,
) -> Result<(Value, &'a str), Problem> {
    let mark = if text.starts_with('"') { '"' } else { '\'' };
    let end = text
        .match_indices(mark)
        .map(|(at, _)| at)
        .find(|&at| at > 0 && !text[..at].ends_with('\\'))
        .ok_or_else(|| Problem::Unterminated(name.to_owned()))?;
    let inner = text[..end].trim_matches(mark);
    let value = if mark == '"' {
        expand(name, &unescape(inner), values)?
    } else {
        Value {
            text: inner.to_owned(),
            used: Vec::new(),
        }
    };
    Ok((value, &text[end + 1..]))
}

/// `\n` and `\r` are what they say; before anything else but `$` a backslash
/// goes away.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('$') => out.push_str("\\$"),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

/// Puts in the values of `$NAME` and `${NAME}`; `\$` is a dollar sign. Names
/// are of capitals, digits and `_`: a `$` before anything else is itself.
fn expand(name: &str, text: &str, values: &Values) -> Result<Value, Problem> {
    let mut value = Value::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let before = &rest[..at];
        let (matched, variable) = variable(&rest[at..]);
        rest = &rest[at + matched.len()..];
        if let Some(before) = before.strip_suffix('\\') {
            value.text += before;
            value.text += matched;
            continue;
        }
        value.text += before;
        if variable.is_empty() {
            value.text += matched;
            continue;
        }
        let known = values.get(variable).ok_or_else(|| Problem::NotSet {
            name: name.to_owned(),
            variable: variable.to_owned(),
        })?;
        value.text += known;
        value.used.push(variable.to_owned());
    }
    value.text += rest;
    Ok(value)
}

/// What begins with `$`: all that belongs to it, and the name in it, which may
/// be empty. A parenthesis counts as godotenv counts it.
fn variable(text: &str) -> (&str, &str) {
    let in_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let inner = &text[1..];
    let inner = inner.strip_prefix('(').unwrap_or(inner);
    let inner = inner.strip_prefix('{').unwrap_or(inner);
    let left = inner.trim_start_matches(in_name);
    let name = &inner[..inner.len() - left.len()];
    let left = left.strip_prefix('}').unwrap_or(left);
    (&text[..text.len() - left.len()], name)
}

/// White space that does not end a line.
fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}'
    )
}

#[cfg(test)]
mod tests;
