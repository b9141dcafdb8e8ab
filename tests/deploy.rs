//! What strangers run the server with: the files of `deploy/` and the
//! Dockerfile, held against the binary, and the steps of the pages, taken.

mod backup;
mod cluster;
mod files;
mod image;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use chat_service::{app::App, config::serve_from};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_chatd");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Everything below a value, itself included.
fn all(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    match value {
        Value::Array(items) => found.extend(items.iter().flat_map(all)),
        Value::Object(fields) => found.extend(fields.values().flat_map(all)),
        _ => {}
    }
    found
}

/// The texts of an array.
fn texts(value: &Value) -> Vec<&str> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap()).collect()
}

/// What `chatd COMMAND --help` says.
struct Help(String);

impl Help {
    fn of(command: &str) -> Self {
        let help = Command::new(BINARY).args([command, "--help"]).output();
        let help = help.unwrap();
        assert!(help.status.success(), "there is no command {command:?}");
        let help = String::from_utf8(help.stdout).unwrap();
        // Lines end where the terminal's would.
        Self(help.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The names that the environment has for its options.
    fn variables(&self) -> BTreeSet<&str> {
        let parts = self.0.split("[env: ").skip(1);
        let mut names: BTreeSet<&str> = parts.map(|part| part.split(']').next().unwrap()).collect();
        // In the words about --store.
        if self.0.contains("PG_DSN") {
            names.insert("PG_DSN");
        }
        names
    }

    fn default(&self, flag: &str) -> &str {
        let option = self.0.split(&format!(" --{flag} <")).nth(1);
        let option = option.unwrap_or_else(|| panic!("there is no --{flag}"));
        let default = option.split("[default: ").nth(1).unwrap();
        default.split([',', ']']).next().unwrap()
    }

    fn default_time(&self, flag: &str) -> Duration {
        humantime::parse_duration(self.default(flag)).unwrap()
    }

    /// A command line behind the program's name: `["serve", "--cores", "2"]`.
    fn check_line(line: &[&str]) {
        let Some((command, options)) = line.split_first() else {
            panic!("a command line without a command");
        };
        if command.starts_with('-') {
            return;
        }
        let help = Self::of(command);
        for flag in options.iter().filter(|option| option.starts_with("--")) {
            let known = help.0.split(' ').any(|word| word == *flag);
            assert!(known, "chatd {command} has no {flag}");
        }
    }
}

/// Runs a page's commands as a user's shell would, and stops at the first that
/// fails.
fn shell(commands: &str, folder: &Path, vars: &[(&str, &str)]) -> Output {
    let chatd = Path::new(BINARY).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .env("PATH", format!("{}:{path}", chatd.display()))
        .envs(vars.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\n{stderr}");
    output
}

/// The shell commands below a heading of a page.
fn commands(page: &str, heading: &str) -> String {
    let section = page.split(&format!("# {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("no heading {heading}"));
    let section = section.split("\n#").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let blocks: Vec<&str> = blocks.map(|b| b.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "no commands below {heading}");
    blocks.join("")
}

/// What a server answers over HTTP.
async fn get(path: &str) -> (u16, String) {
    let flags = ["--grpc-port", "0", "--http-port", "0", "--store", "memory"];
    let app = App::start(serve_from(&flags).unwrap()).await.unwrap();
    let answer = crate::ops::get(app.http_address().unwrap(), path).await;
    app.drain(Duration::from_secs(10)).await;
    answer
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}
