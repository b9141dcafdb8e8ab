//! The page that is committed is what its sources make.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use ring::digest::{Context, SHA256};

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// As `web/sources.mjs` has it: each file's name and bytes, a zero behind each.
fn digest(mut paths: Vec<PathBuf>) -> String {
    paths.sort();
    let mut hash = Context::new(&SHA256);
    for path in paths {
        let name = path
            .strip_prefix(web())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        hash.update(name.as_bytes());
        hash.update(b"\0");
        hash.update(&fs::read(path).unwrap());
        hash.update(b"\0");
    }
    let bytes = hash.finish();
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn the_page_is_built_of_its_sources() {
    let own = [
        "index.html",
        "package.json",
        "package-lock.json",
        "tsconfig.json",
        "vite.config.ts",
    ];
    let mut sources: Vec<PathBuf> = own.iter().map(|name| web().join(name)).collect();
    files(&web().join("src"), &mut sources);
    let built = ["index.html", "chat.css", "chat.js"];
    let built = built.iter().map(|name| web().join("dist").join(name));
    let now = format!(
        "{}  sources\n{}  dist\n",
        digest(sources),
        digest(built.collect())
    );
    let then = fs::read_to_string(web().join("dist/sources.sha256")).unwrap();
    assert_eq!(
        now, then,
        "the sources and dist/ do not belong together: make web"
    );
}

/// Where the tools are installed
/// the page is built again, and comes out the same.
#[test]
fn the_page_comes_out_the_same_again() {
    if !web().join("node_modules/.bin/vite").exists() {
        eprintln!("not run: web/node_modules is not installed (make web)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("npx")
        .args(["vite", "build", "--logLevel", "error", "--outDir"])
        .arg(folder.path())
        .current_dir(web())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    for name in ["index.html", "chat.css", "chat.js"] {
        let again = fs::read(folder.path().join(name)).unwrap();
        assert!(
            again == fs::read(web().join("dist").join(name)).unwrap(),
            "{name}"
        );
    }
}
