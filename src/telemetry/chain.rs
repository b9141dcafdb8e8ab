use std::{
    error::Error,
    fmt::{self, Write as _},
};

use tokio_postgres::error::DbError;

/// An error with all its causes, in one line. Most errors name only themselves,
/// and what the operator can mend is at the end of the chain.
///
/// A cause that the text so far contains already is left out. Of a database's
/// error there is its message, its code (SQLSTATE), and its detail and hint.
#[derive(Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

/// For a log line or an operator's terminal: `error = %chain(&error)`.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = String::new();
        let mut next = Some(self.0);
        while let Some(error) = next {
            let text = match error.downcast_ref() {
                Some(answer) => answered(answer),
                None => error.to_string(),
            };
            if !told.contains(&text) {
                if !told.is_empty() {
                    told.push_str(": ");
                }
                told.push_str(&text);
            }
            next = error.source();
        }
        told.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .try_for_each(|c| f.write_char(c))
    }
}

fn answered(error: &DbError) -> String {
    let code = error.code().code();
    let mut text = format!("{} (SQLSTATE {code})", error.message());
    // For data that breaks a rule (classes 22 and 23) the detail quotes the row,
    // and a message's text does not belong in a log.
    let detail = error.detail().filter(|_| !code.starts_with("22"));
    let detail = detail.filter(|_| !code.starts_with("23"));
    if let Some(detail) = detail {
        let _ = write!(text, "; detail: {detail}");
    }
    if let Some(hint) = error.hint() {
        let _ = write!(text, "; hint: {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Told {
        #[error("the store is unavailable")]
        Store(#[source] Box<Told>),
        #[error("not here: {0}")]
        Repeats(#[source] Box<Told>),
        #[error(transparent)]
        Passes(Box<Told>),
        #[error("port 1\nis closed")]
        Last,
    }

    #[test]
    fn every_cause_is_told_once_and_in_one_line() {
        let last = || Box::new(Told::Last);
        let repeats = Told::Repeats(last());
        assert_eq!(chain(&repeats).to_string(), "not here: port 1 is closed");
        let store = Told::Store(Box::new(Told::Passes(Box::new(repeats))));
        assert_eq!(
            chain(&store).to_string(),
            "the store is unavailable: not here: port 1 is closed"
        );
    }
}
