//! How far each chat was read, kept from one start to the next. A file that
//! can't be read or written costs the marks and nothing else.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
};

use crate::client::credentials::replace;

/// By user and server, then by chat.
type Marks = BTreeMap<String, BTreeMap<i64, i64>>;

pub(super) struct MarkFile {
    path: Option<PathBuf>,
    whose: String,
    kept: HashMap<i64, i64>,
}

impl MarkFile {
    pub(super) fn new(path: Option<PathBuf>, user: &str, server: &str) -> Self {
        let mut file = Self {
            path,
            whose: format!("{user} at {server}"),
            kept: HashMap::new(),
        };
        let own = file.read().remove(&file.whose).unwrap_or_default();
        file.kept = own.into_iter().collect();
        file
    }

    pub(super) fn marks(&self) -> &HashMap<i64, i64> {
        &self.kept
    }

    /// Keeps these, if they are others than before. A chat that was read further
    /// by another client of the same user stays so.
    pub(super) fn keep(&mut self, marks: &HashMap<i64, i64>) {
        let Some(path) = self.path.as_ref().filter(|_| self.kept != *marks) else {
            return;
        };
        let mut all = self.read();
        let own = all.entry(self.whose.clone()).or_default();
        for (chat, seq) in marks {
            let mark = own.entry(*chat).or_default();
            *mark = (*mark).max(*seq);
        }
        if let Ok(text) = serde_json::to_vec(&all) {
            _ = replace(path, &text);
        }
        self.kept.clone_from(marks);
    }

    fn read(&self) -> Marks {
        let text = self.path.as_ref().and_then(|path| fs::read(path).ok());
        let marks = text.and_then(|text| serde_json::from_slice(&text).ok());
        marks.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kept_by_user_and_server_and_never_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/read.json");
        let open = |user| MarkFile::new(Some(path.clone()), user, "x:1");
        let mut al = open("al");
        assert!(al.marks().is_empty());
        let mut also_al = open("al");
        al.keep(&HashMap::from([(1, 5), (2, 7)]));
        also_al.keep(&HashMap::from([(1, 6), (2, 3)]));
        open("bo").keep(&HashMap::from([(1, 1)]));
        assert_eq!(*open("al").marks(), HashMap::from([(1, 6), (2, 7)]));
        fs::write(&path, "nonsense").unwrap();
        assert!(open("al").marks().is_empty());
        MarkFile::new(None, "al", "x:1").keep(&HashMap::from([(1, 5)]));
    }
}
