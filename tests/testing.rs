//! Of a build with the feature `testing` alone: that its faults are called as the
//! checker calls them. That no other build has them, the checker's tests say.

use std::process::{Command, Output, Stdio};

fn serve(fault: &str) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["serve", "--store", "memory", "--grpc-port", "0"])
        .args(["--http-port", "off", "--config-path", ""])
        .env_clear()
        .env("CHATD_FAULT", fault)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Enough to start or to refuse to.
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    _ = Command::new("kill").arg(child.id().to_string()).status();
    child.wait_with_output().unwrap()
}

#[test]
fn a_fault_that_there_is_not_is_refused() {
    let output = serve("nonsense");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(log.contains("no fault is called nonsense"), "{log}");
    assert!(serve("lose-a-wake").status.success());
}
