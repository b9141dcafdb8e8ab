//! Programs of the distribution, and who they run as.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::OnceLock,
};

/// Waits for the end of our pipe, and then for the end of the server.
pub fn watch(home: &Path) -> (Child, ChildStdin) {
    const WATCH: &str = r#"
        trap '' INT TERM HUP
        cat >/dev/null
        pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) && [ -n "$pid" ] && {
            kill -CONT "$pid"; kill -QUIT "$pid"
            n=0; while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done
        }
        rm -rf "$0""#;
    let mut shell = Command::new("sh")
        .args(["-c", WATCH])
        .arg(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pipe = shell.stdin.take().unwrap();
    (shell, pipe)
}

pub fn binary(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|e| e.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    folders.push("/usr/sbin".into());
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: apt-get install postgresql"))
}

/// The `postgres` user's ids, if we are root.
fn other_user() -> Option<(u32, u32)> {
    static IDS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    let id = |args: &[&str]| -> u32 {
        let output = run(Command::new("id").args(args));
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().parse().unwrap()
    };
    *IDS.get_or_init(|| {
        (id(&["-u"]) == 0).then(|| (id(&["-u", "postgres"]), id(&["-g", "postgres"])))
    })
}

/// The command becomes the program, so its process id is the program's.
pub fn unprivileged(program: &Path) -> Command {
    let Some((uid, gid)) = other_user() else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .arg("--clear-groups")
        .arg(program)
        .current_dir("/");
    command
}

pub fn give_away(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    let Some((uid, gid)) = other_user() else {
        return;
    };
    run(Command::new("chown")
        .arg("-R")
        .arg(format!("{uid}:{gid}"))
        .arg(folder));
    chown(folder, Some(uid), Some(gid)).unwrap();
}

pub fn kill(signal: &str, pid: u32) {
    // It may have ended meanwhile.
    let _ = Command::new("kill")
        .stderr(Stdio::null())
        .args([signal, &pid.to_string()])
        .status();
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}
