use std::{
    fs,
    path::{Path, PathBuf},
};

/// Nobody says how much memory there is.
#[derive(Debug, thiserror::Error)]
#[error("the system does not say how much memory there is; give a size, as in 512MiB")]
pub struct NoLimit;

/// Bytes that this process can have: the machine's, or what its control groups
/// allow, if that is less (cgroups(7); `memory.max` of version 2,
/// `memory.limit_in_bytes` of version 1).
///
/// # Errors
/// If the system says neither.
pub fn memory_limit() -> Result<u64, NoLimit> {
    limit_below(Path::new("/")).ok_or(NoLimit)
}

fn limit_below(root: &Path) -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = read(Path::new("proc/meminfo"));
    let machine = machine.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = read(Path::new("proc/self/cgroup"));
    let limits = groups
        .lines()
        .flat_map(|line| files_of(line).unwrap_or_default());
    // "max" is no number, and version 1 says a huge one.
    let limits = limits.filter_map(|file| read(&file).trim().parse().ok());
    limits.chain(machine).min()
}

/// Where the limits of a group and of those it is in stand; the line is one of
/// `/proc/self/cgroup`, `NUMBER:CONTROLLERS:PATH`.
fn files_of(line: &str) -> Option<Vec<PathBuf>> {
    let (_, line) = line.split_once(':')?;
    let (controllers, group) = line.split_once(':')?;
    let (folder, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let folder = Path::new(folder);
    let groups = Path::new(group.trim_start_matches('/')).ancestors();
    Some(groups.map(|group| folder.join(group).join(file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");

    fn limit(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_below(root.path())
    }

    #[test]
    fn the_least_that_anybody_says_counts() {
        let group2 = ("proc/self/cgroup", "0::/a/b\n");
        let group1 = ("proc/self/cgroup", "7:cpu:/x\n5:cpuset,memory:/a\n0::/\n");
        for (files, expected) in [
            (&[][..], None),
            (&[MACHINE], Some(1_024_000)),
            (&[MACHINE, group2], Some(1_024_000)),
            (
                &[MACHINE, group2, ("sys/fs/cgroup/a/b/memory.max", "max\n")],
                Some(1_024_000),
            ),
            (
                &[MACHINE, group2, ("sys/fs/cgroup/a/b/memory.max", "4096\n")],
                Some(4_096),
            ),
            (
                &[MACHINE, group2, ("sys/fs/cgroup/a/memory.max", "4096\n")],
                Some(4_096),
            ),
            // In a container the group's own folder is the root.
            (
                &[MACHINE, group2, ("sys/fs/cgroup/memory.max", "4096\n")],
                Some(4_096),
            ),
            (
                &[
                    MACHINE,
                    group1,
                    ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n"),
                ],
                Some(4_096),
            ),
            (
                &[
                    MACHINE,
                    group1,
                    (
                        "sys/fs/cgroup/memory/memory.limit_in_bytes",
                        "9223372036854771712\n",
                    ),
                ],
                Some(1_024_000),
            ),
        ] {
            assert_eq!(limit(files), expected, "{files:?}");
        }
    }

    #[test]
    fn this_machine_says_something() {
        assert!(memory_limit().unwrap() > 1 << 20);
    }
}
