//! What the server is built from: where it comes from, under which licences, and
//! nothing twice without a reason. From `Cargo.lock` and the crates that are
//! here already, so it needs no network. It knows of no advisories: their list
//! has to be fetched, as `cargo deny check advisories` does where there is a
//! network.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Licences that ask for no more than their text in a copy.
const LICENCES: [&str; 10] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates of which the server itself has two versions, because its dependencies
/// have not agreed yet. A name that is not needed here any more fails as well.
const TWICE: [&str; 14] = [
    // async-nats signs with an older ed25519-dalek, and with it the older hashes.
    "block-buffer",
    "const-oid",
    "cpufeatures",
    "crypto-common",
    "digest",
    "fallible-iterator",
    "getrandom",
    "hashbrown",
    "itertools",
    "rand",
    "rand_chacha",
    "rand_core",
    "sha2",
    "syn",
];

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> Vec<Value> {
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    let filter = ["--filter-platform", host.unwrap()];
    let metadata = cargo(&[&["metadata", "--format-version=1"], &filter[..]].concat());
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Whether an SPDX expression can be met with [`LICENCES`] alone.
fn allowed(expression: &str) -> bool {
    let alternatives = |part: &str| part.split(" OR ").any(|one| LICENCES.contains(&one.trim()));
    // `a/b` is an old way to write `a OR b`.
    let expression = expression.replace('/', " OR ");
    match expression.contains('(') {
        // `(a OR b) AND c`, and no deeper.
        true => expression
            .split(" AND ")
            .all(|part| alternatives(part.trim_matches(['(', ')']))),
        false => expression.split(" OR ").any(|part| {
            part.split(" AND ")
                .all(|one| LICENCES.contains(&one.trim()))
        }),
    }
}

#[test]
fn every_crate_is_from_the_registry_and_under_a_permissive_licence() {
    let packages = packages();
    assert!(packages.len() > 100);
    for package in &packages {
        let (name, version) = (&package["name"], &package["version"]);
        // The workspace's own have no source.
        let Some(source) = package["source"].as_str() else {
            continue;
        };
        let registry = "registry+https://github.com/rust-lang/crates.io-index";
        assert_eq!(source, registry, "{name} {version}");
        let licence = package["license"].as_str().unwrap_or("none");
        assert!(allowed(licence), "{name} {version}: {licence}");
    }
    let lock = include_str!("../Cargo.lock");
    let checksums = lock.matches("\nchecksum = ").count();
    let sources = lock.matches("\nsource = ").count();
    assert_eq!(checksums, sources, "a crate without a checksum");
}

#[test]
fn licences_are_read_as_spdx_has_them() {
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "none",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND MPL-2.0",
    ] {
        assert!(!allowed(bad), "{bad}");
    }
}

/// The crates that are built into the server, itself included, with their
/// versions.
fn built_in() -> BTreeMap<String, BTreeSet<String>> {
    let tree = cargo(&[
        "tree",
        "--package=chat-service",
        "--edges=normal",
        "--prefix=none",
        "--format={p}",
    ]);
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let version = version.trim_start_matches('v').to_owned();
        versions.entry(name.into()).or_default().insert(version);
    }
    assert!(versions.len() > 80);
    versions
}

#[test]
fn the_server_has_no_crate_twice_without_a_reason() {
    let versions = built_in();
    let twice = versions.iter().filter(|(_, versions)| versions.len() > 1);
    let twice: Vec<&str> = twice.map(|(name, _)| &**name).collect();
    assert_eq!(twice, TWICE);
}

/// The checksums of `Cargo.lock`, by name and version.
fn checksums() -> BTreeMap<(String, String), String> {
    let lock: toml::Table = include_str!("../Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let text = |package: &toml::Value, field| Some(package.get(field)?.as_str()?.to_owned());
    packages
        .filter_map(|package| {
            let of = (text(package, "name")?, text(package, "version")?);
            Some((of, text(package, "checksum")?))
        })
        .collect()
}

#[test]
#[ignore = "`make sbom` makes the file first"]
fn the_sbom_has_every_crate_with_its_licence_and_checksum() {
    let path = std::env::var_os("SBOM").expect("SBOM names the file");
    let bom: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    let about = &bom["metadata"]["component"];
    assert_eq!(about["name"], "chatd");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let checksums = checksums();
    let mut listed = BTreeSet::new();
    for component in bom["components"].as_array().unwrap() {
        let text = |field: &str| component[field].as_str().unwrap().to_owned();
        let of = (text("name"), text("version"));
        let licence = &component["licenses"][0]["expression"];
        assert!(licence.as_str().is_some_and(allowed), "{of:?}: {licence}");
        let hash = &component["hashes"][0];
        assert_eq!(hash["alg"], "SHA-256", "{of:?}");
        assert_eq!(hash["content"].as_str(), checksums.get(&of).map(|c| &**c));
        assert_eq!(text("purl"), format!("pkg:cargo/{}@{}", of.0, of.1));
        listed.insert(of);
    }
    for (name, versions) in built_in() {
        for version in versions {
            let of = (name.clone(), version);
            assert!(listed.contains(&of) || name == "chat-service", "{of:?}");
        }
    }
    println!("{} crates", listed.len());
}
