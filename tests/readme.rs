//! The README names every option, with its default, as `--help` has it.

use std::process::Command;

#[test]
fn the_readme_lists_every_option_of_the_server() {
    let readme = include_str!("../README.md");
    let help = Command::new(env!("CARGO_BIN_EXE_chatd"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags = help.lines().filter_map(|line| {
        let (flag, value) = line.split_once("--")?.1.split_once(' ')?;
        // Not where the text of an option happens to begin a line with another.
        let heads = line.trim_start().starts_with('-') && value.starts_with('<');
        heads.then_some(flag)
    });
    let flags: Vec<&str> = flags.collect();
    assert!(flags.len() > 40, "{flags:?}");
    for flag in flags {
        let env = flag.replace('-', "_").to_uppercase();
        assert!(
            readme.contains(&format!("`--{flag}`")),
            "--{flag} is missing"
        );
        let by_env = flag == "config-path" || readme.contains(&format!("`{env}`"));
        assert!(by_env, "{env} is missing");
    }
}

#[test]
fn the_readme_lists_every_reason_of_an_error() {
    let readme = include_str!("../README.md");
    let source = include_str!("../src/grpc/status.rs");
    let code = source.split("#[cfg(test)]").next().unwrap();
    let reasons: Vec<&str> = code
        .split('"')
        .filter(|text| text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
        .collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    for reason in reasons {
        assert!(
            readme.contains(&format!("`{reason}`")),
            "{reason} is missing"
        );
    }
}
