//! The servers that are checked: the usual one, and the one with the feature
//! `testing`, which has the usual one's name until it is put aside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, options};

const TESTING: &str = "chatd-testing";

/// In a debug build, the one that `cargo test` has left here.
pub fn usual() -> Result<PathBuf> {
    if !cfg!(debug_assertions) {
        return options::built("chat-service", "chatd");
    }
    let here = std::env::current_exe()?.with_file_name("chatd");
    match here.exists() {
        true => Ok(here),
        false => Err("there is no chatd here: cargo test --workspace --no-run".into()),
    }
}

pub fn testing() -> Result<PathBuf> {
    let usual = usual()?;
    let aside = usual.with_file_name("chatd-usual");
    fs::rename(&usual, &aside)?;
    let built = build(&usual);
    fs::rename(&aside, &usual)?;
    built
}

fn build(usual: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo says of this package to its tests. Some build scripts look at it, and all
    // that stands on them would be built again, and once more behind this.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    if cfg!(debug_assertions) {
        // As the tests are built, or all that both stand on would be built again.
        command.args(["test", "--workspace", "--no-run", "--test", "testing"]);
        command.args(["--features", "chat-service/testing"]);
    } else {
        command.args(["build", "--release", "--package", "chat-service"]);
        command.args(["--bin", "chatd", "--features", "testing"]);
    }
    if !command.status()?.success() {
        return Err("the server with the feature testing can't be built".into());
    }
    let testing = usual.with_file_name(TESTING);
    fs::rename(usual, &testing)?;
    Ok(testing)
}
