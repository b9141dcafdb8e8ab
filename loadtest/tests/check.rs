//! The checker's short runs: the server passes, and each fault of its own making
//! is found. What a longer look takes: `make check`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

fn check(args: &[&str]) -> String {
    let output = Command::new(LOADTEST).arg("check").args(args).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
    let (out, log) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{args:?}: {status}\n{out}\n{log}");
    println!("{out}");
    out.into_owned()
}

/// In one test, since the server with the faults is built in the usual one's place.
#[test]
fn the_promises_hold_and_every_fault_of_the_server_is_found() {
    let found = check(&["--prove"]);
    assert!(found.matches("\n| ").count() >= 11, "{found}");
    // What is shipped knows none of them.
    let usual = Path::new(LOADTEST).with_file_name("chatd");
    let holds = |path: &Path, name: &str| {
        let bytes = fs::read(path).unwrap();
        bytes
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    };
    for name in ["CHATD_FAULT", "CHATD_CLOCK"] {
        assert!(!holds(&usual, name), "{name}");
        assert!(
            holds(&usual.with_file_name("chatd-testing"), name),
            "{name}"
        );
    }
    let postgres = "kill,db-immediate,db-half-open,half-open,flood";
    check(&["--for", "6s", "--store", "postgres", "--faults", postgres]);
    let replicated = "db-cancel,db-failover,db-lose";
    check(&["--for", "6s", "--store", "postgres", "--faults", replicated]);
    let sqlite = "kill,term,cut,auth";
    check(&["--for", "4s", "--store", "sqlite", "--faults", sqlite]);
    let nodes = "kill,nats-kill,moves";
    check(&["--for", "12s", "--nodes", "3", "--faults", nodes]);
}
