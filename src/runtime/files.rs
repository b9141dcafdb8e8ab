use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that this process may have open; `u64::MAX`: as many as it likes.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the limit of open files to what the process may have, its hard limit. Most
/// systems begin with 1,024, for programs that use `select`. A system that refuses
/// leaves it as it was.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
