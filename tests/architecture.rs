//! The rooms of `src/` and what each never imports, the length of files, and
//! where files lie.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a file, its tests not counted.
const MAX_LINES: usize = 350;

const ROOMS: [&str; 18] = [
    "main",
    "app",
    "config",
    "runtime",
    "domain",
    "fault",
    "grpc",
    "auth",
    "chats",
    "cluster",
    "shard",
    "feed",
    "writer",
    "store",
    "telemetry",
    "client",
    "reference",
    "admin",
];

/// What a room never imports: a room, a room's `internals` (its modules), or
/// `store::backends`. `main` and `app` see everything.
const NEVER: [(&str, &[&str]); 15] = [
    ("config", &ROOMS),
    ("runtime", &["main", "app", "grpc", "store", "client"]),
    ("domain", &ROOMS),
    (
        "fault",
        &[
            "main",
            "app",
            "client",
            "grpc",
            "chats",
            "shard",
            "feed",
            "store::backends",
        ],
    ),
    (
        "grpc",
        &["main", "app", "client", "shard", "feed", "store::backends"],
    ),
    (
        "auth",
        &[
            "main", "app", "client", "grpc", "store", "chats", "shard", "feed",
        ],
    ),
    (
        "chats",
        &[
            "main",
            "app",
            "client",
            "grpc",
            "shard::internals",
            "feed::internals",
            "store::backends",
        ],
    ),
    (
        "shard",
        &[
            "main",
            "app",
            "client",
            "grpc",
            "chats",
            "feed::internals",
            "store::backends",
        ],
    ),
    (
        "feed",
        &[
            "main",
            "app",
            "client",
            "grpc",
            "chats",
            "shard",
            "writer",
            "store::backends",
        ],
    ),
    (
        "writer",
        &["main", "app", "client", "grpc", "chats", "shard", "feed"],
    ),
    (
        "store",
        &[
            "main", "app", "client", "grpc", "chats", "shard", "feed", "auth",
        ],
    ),
    (
        "cluster",
        &["main", "app", "client", "grpc", "store::backends"],
    ),
    ("telemetry", &ROOMS),
    ("admin", &["main", "app", "client", "store::backends"]),
    (
        "client",
        &[
            "main", "app", "runtime", "domain", "grpc", "chats", "auth", "shard", "feed", "writer",
            "store",
        ],
    ),
];

const BACKENDS: [&str; 3] = ["memory", "sqlite", "postgres"];

/// Words that a room's code does not use: the core has no clock and no wire.
const NOT_SAID: [(&str, &[&str]); 6] = [
    ("chats", &["tonic", "Instant::now", "SystemTime::now"]),
    ("cluster", &["tonic", "Instant::now", "SystemTime::now"]),
    ("shard", &["tonic", "Instant::now", "SystemTime::now"]),
    ("feed", &["tonic", "Instant::now", "SystemTime::now"]),
    (
        "domain",
        &["tokio", "tonic", "Instant::now", "SystemTime::now"],
    ),
    ("writer", &["tonic", "Instant::now", "SystemTime::now"]),
];

/// A file's code, without comments, the insides of strings, and tests.
struct Source {
    /// `["shard", "chat"]` for `src/shard/chat.rs`.
    module: Vec<String>,
    code: String,
    lines: usize,
    /// Modules declared for tests only.
    test_modules: Vec<String>,
}

impl Source {
    fn new(module: Vec<String>, text: &str) -> Self {
        let code = without_text(text);
        let (code, test_lines, test_modules) = without_tests(&code);
        Self {
            module,
            lines: text.lines().count() - test_lines,
            code,
            test_modules,
        }
    }

    fn room(&self) -> &str {
        &self.module[0]
    }

    /// The paths from the crate's root that the code names, rooms first.
    fn imports(&self) -> BTreeSet<Vec<String>> {
        let mut paths = BTreeSet::new();
        for start in ["crate::", "super::"] {
            for (at, _) in self.code.match_indices(start) {
                let before = self.code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let tree = use_tree(&self.code[at..]);
                expand(&self.module, tree, &mut paths);
            }
        }
        paths
    }
}

/// The text with the insides of comments and literals blanked, line by line as
/// long as before.
fn without_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['"', ..] => string_length(rest),
            ['r', '"' | '#', ..] if at == 0 || !is_word(chars[at - 1]) => raw_length(rest),
            ['\'', '\\', ..] => 2 + rest[2..].iter().position(|c| *c == '\'').unwrap_or(0) + 1,
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            out.push(rest[0]);
            at += 1;
        } else {
            out.extend(rest[..length].iter().map(|c| blank(*c)));
            at += length;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn string_length(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_length(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let body = &rest[2 + hashes..];
    let length = body.windows(end.len()).position(|window| window == end);
    2 + hashes + length.unwrap_or(0) + end.len()
}

/// The code without what is `#[cfg(test)]`; how many lines that was, and which
/// modules are declared so.
fn without_tests(code: &str) -> (String, usize, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut kept, mut rest) = (String::new(), code);
    let (mut lines, mut modules) = (0, Vec::new());
    while let Some(at) = rest.find(MARK) {
        kept += &rest[..at];
        let item = &rest[at..];
        let length = item_length(item);
        let words: Vec<&str> = item[MARK.len()..length].split_whitespace().collect();
        if let ["mod", name] = words[..] {
            modules.push(name.trim_end_matches(';').to_owned());
        }
        lines += item[..length].matches('\n').count() + 1;
        rest = &item[length..];
    }
    (kept + rest, lines, modules)
}

/// Up to the `;` or the closing brace that ends an item.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// `a::{b, c::d}` up to where it ends.
fn use_tree(code: &str) -> &str {
    let mut depth = 0;
    let end = code.char_indices().find(|(_, c)| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        let part = is_word(*c) || ":{}*".contains(*c) || depth > 0;
        !part || depth < 0
    });
    &code[..end.map_or(code.len(), |(at, _)| at)]
}

/// The paths of a tree, each from the crate's root.
fn expand(module: &[String], tree: &str, paths: &mut BTreeSet<Vec<String>>) {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, Some(group.trim_end_matches('}'))),
        None => (tree, None),
    };
    let mut base: Vec<String> = module.to_vec();
    for part in path.split("::").filter(|part| !part.is_empty()) {
        match part {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            // `as` renames, and what is nested deeper does not matter here.
            _ => base.push(
                part.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            ),
        }
    }
    let Some(group) = group else {
        paths.insert(base);
        return;
    };
    for item in top_level_items(group) {
        let mut path = base.clone();
        let first = item.split("::").take_while(|part| !part.contains('{'));
        path.extend(
            first
                .map(|part| part.trim().to_owned())
                .filter(|part| part != "self"),
        );
        paths.insert(path);
    }
}

fn top_level_items(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let items = group.split(move |c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    items
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

fn breaks(path: &[String], rule: &str) -> bool {
    let is_module = |name: &String| name.starts_with(char::is_lowercase);
    let second = path.get(1);
    match rule.split_once("::") {
        None => path[0] == rule,
        Some((room, "backends")) => {
            path[0] == room && second.is_some_and(|name| BACKENDS.contains(&name.as_str()))
        }
        Some((room, _)) => path[0] == room && second.is_some_and(is_module),
    }
}

/// What is wrong with a file.
fn faults(source: &Source) -> Vec<String> {
    let room = source.room();
    let mut faults = Vec::new();
    let never = NEVER.iter().find(|(name, _)| *name == room);
    for path in source.imports() {
        if path.is_empty() || path[0] == room {
            continue;
        }
        for rule in never.map_or(&[][..], |(_, never)| never) {
            if breaks(&path, rule) {
                faults.push(format!("{room} imports {}", path.join("::")));
            }
        }
    }
    for (_, words) in NOT_SAID.iter().filter(|(name, _)| *name == room) {
        let said = words.iter().filter(|word| source.code.contains(**word));
        faults.extend(said.map(|word| format!("{room} says {word}")));
    }
    let makes_status = source.code.match_indices("Status::").any(|(at, _)| {
        let before = source.code[..at].chars().next_back();
        !before.is_some_and(is_word)
    });
    if room == "grpc" && source.module.last().unwrap() != "status" && makes_status {
        faults.push("only grpc/status.rs makes a Status".into());
    }
    if source.lines > MAX_LINES {
        faults.push(format!("{} lines, more than {MAX_LINES}", source.lines));
    }
    faults
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, Source)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&root).unwrap().with_extension("");
        let module = inside.iter().map(|part| part.to_str().unwrap().to_owned());
        let source = Source::new(module.collect(), &fs::read_to_string(&path).unwrap());
        (path, source)
    };
    let all: Vec<_> = paths.into_iter().map(read).collect();
    let mut tests: Vec<Vec<String>> = Vec::new();
    for (_, source) in &all {
        for name in &source.test_modules {
            let is_root = source.module == ["lib"] || source.module == ["main"];
            let mut module = if is_root {
                vec![]
            } else {
                source.module.clone()
            };
            module.push(name.clone());
            tests.push(module);
        }
    }
    let is_test = |module: &[String]| tests.iter().any(|test| module.starts_with(test));
    let mut all = all;
    all.retain(|(_, source)| !is_test(&source.module));
    all
}

#[test]
fn every_room_keeps_to_itself() {
    let sources = sources();
    assert!(sources.len() > 40);
    let mut wrong = Vec::new();
    for (path, source) in &sources {
        wrong.extend(
            faults(source)
                .into_iter()
                .map(|fault| format!("{}: {fault}", path.display())),
        );
        let known = source.room() == "lib" || ROOMS.contains(&source.room());
        if !known {
            wrong.push(format!("{}: a room that nobody knows of", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_called_mod() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    files(&root.join("src"), &mut paths);
    files(&root.join("tests"), &mut paths);
    let called_mod = |path: &&PathBuf| path.ends_with("mod.rs");
    assert_eq!(paths.iter().find(called_mod), None);
}

/// The check itself: what it must find, and what it must let pass.
#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let check = |path: &str, code: &str| faults(&Source::new(module(path), code));
    for (path, code) in [
        ("shard/chat", "use crate::grpc::Calls;"),
        (
            "shard/chat",
            "use crate::{\n    domain::{ChatId, Row},\n    grpc::Calls,\n};",
        ),
        ("shard/chat", "fn f() { crate::grpc::f() }"),
        ("shard/chat", "use super::super::grpc::Calls;"),
        (
            "shard/chat",
            "use crate::store::{Store, memory::MemoryStore};",
        ),
        ("feed/cursor", "use crate::shard::Post;"),
        ("shard/task", "use crate::feed::{Feed, ring::Ring};"),
        ("shard/task", "let now = Instant::now();"),
        (
            "chats",
            "use crate::{shard::{ShardHandle}, shard::task::Shard};",
        ),
        ("grpc/calls", "use crate::shard::ShardHandle;"),
        ("shard/chat", "use crate::chats::Chats;"),
        ("grpc/calls", "fn f() -> Status { Status::internal(x) }"),
        ("domain/names", "use crate::store::Page;"),
        ("telemetry", "use crate::config::LogFormat;"),
        (
            "store/memory",
            "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::auth::Role;",
        ),
        (
            "client",
            "let x = '\"'; use crate::domain::Row; let y = '\"';",
        ),
    ] {
        assert_eq!(check(path, code).len(), 1, "{path}: {code}");
    }
    for (path, code) in [
        (
            "shard/chat",
            "use crate::{domain::Row, store::{Store, ChatRecord}};",
        ),
        (
            "shard/chat",
            "// use crate::grpc::Calls;\nconst X: &str = \"crate::grpc\";",
        ),
        (
            "shard/chat",
            "#[cfg(test)]\nmod tests {\n use crate::grpc::X; fn f() { {} }\n}",
        ),
        ("shard/chat", "use super::{post::Post, window::Window};"),
        ("chats", "use crate::{feed::Reader, shard::{ShardHandle}};"),
        ("shard/task", "use crate::feed::{self, Feed, Ring};"),
        ("grpc/service", "ServingStatus::Serving; StatusCode::OK"),
        (
            "grpc/calls",
            "use crate::{chats::{Chats, Slot}, store::{Page, Store}};",
        ),
    ] {
        assert_eq!(check(path, code), Vec::<String>::new(), "{path}: {code}");
    }
    let long = "fn f() {}\n".repeat(MAX_LINES);
    assert!(check("shard/chat", &long).is_empty());
    assert_eq!(
        check("shard/chat", &(long.clone() + "fn g() {}\n")).len(),
        1
    );
    let tests = "#[cfg(test)]\nmod tests {\n}\n";
    assert!(check("shard/chat", &(long + tests)).is_empty());
}
