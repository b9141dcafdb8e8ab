//! A small disk of one's own, to be filled up: a file system in memory, which
//! only root may mount.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::Result;

const BALLAST: &str = "ballast";

pub struct Disk {
    path: PathBuf,
    /// At the end of our pipe, however this process ends: unmounts, and takes away
    /// what could not be while the disk was there.
    watchdog: Option<(Child, ChildStdin)>,
}

impl Disk {
    /// Mounts `megabytes` at an empty folder.
    pub fn mount(path: &Path, megabytes: u32) -> Result<Self> {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "chatd-check"])
            .arg(path)
            .output()?;
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr);
            return Err(format!("a disk to fill can't be mounted, which takes root: {why}").into());
        }
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "trap '' INT TERM HUP; cat >/dev/null; umount -l \"$0\"; rmdir \"$0\" \"${0%/*}\"",
            ])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = shell.stdin.take().ok_or("no pipe")?;
        Ok(Self {
            path: path.into(),
            watchdog: Some((shell, pipe)),
        })
    }

    /// Leaves no byte free.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.path.join(BALLAST))?;
        for block in [1 << 20, 1 << 12, 1] {
            let zeros = vec![0; block];
            loop {
                match ballast.write(&zeros) {
                    Ok(count) if count == block => {}
                    Ok(_) => break,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.path.join(BALLAST))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some((mut shell, pipe)) = self.watchdog.take() {
            drop(pipe);
            _ = shell.wait();
        }
    }
}
