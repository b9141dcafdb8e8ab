//! The database's files: who has them, and whether they are still where they were.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{OpenError, scrub::scrub};

/// Messages are for the server's own user, whatever the umask says.
const OWN_FILE: u32 = 0o600;
const OWN_FOLDER: u32 = 0o700;

/// What SQLite's log, its shared memory and the first pages need, and some more.
const LEAST_ROOM: usize = 256 * 1024;

/// The right to use the file, given up when this is dropped.
///
/// The lock on the file itself holds whatever name another server calls it by. It
/// must not be given up while a connection is open: closing any handle of the file
/// takes SQLite's own locks of this process away, which are POSIX locks. For the
/// same reason the lock beside it is asked for first: a process that opens the same
/// name twice then never opens the file twice. It also keeps older servers out,
/// which knew no other.
pub(super) struct Claim {
    path: PathBuf,
    /// SQLite resolves links too, so its log and its shared memory are here.
    resolved: PathBuf,
    beside: File,
    file: File,
}

impl Claim {
    /// Makes the folder and the file where they are missing, and takes the locks.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let in_use = || OpenError::InUse { path: path.into() };
        make_folder(path)?;
        // A file that is not there yet is made under the name that was given.
        let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let beside_path = with_ending(&resolved, ".lock");
        // It is written to, so it must not lead to another file.
        let beside = writable(&beside_path, rustix::fs::OFlags::NOFOLLOW.bits() as i32)?;
        if !lock(&beside, &beside_path)? {
            return Err(in_use());
        }
        // SQLite only says "unable to open database file"; the system says why.
        let file = writable(path, 0)?;
        if !lock(&file, path)? {
            return Err(in_use());
        }
        let resolved = path.canonicalize().map_err(|e| io_error(path, e))?;
        Ok(Self {
            path: path.to_owned(),
            resolved,
            beside,
            file,
        })
    }

    /// Where there is no room left, SQLite may call that an I/O error.
    pub fn explain(&self, error: OpenError) -> OpenError {
        match error {
            OpenError::Sqlite { path, .. } if self.is_disk_full() => OpenError::Full { path },
            error => error,
        }
    }

    fn is_disk_full(&self) -> bool {
        let beside = &self.beside;
        // Behind the note of what is to be scrubbed.
        let before = beside.metadata().map_or(0, |file| file.len());
        let written = beside.write_all_at(&vec![0; LEAST_ROOM], before);
        let written = written.and_then(|()| beside.sync_data());
        // A lock file with more in it would be in nobody's way.
        let _ = beside.set_len(before);
        written.is_err_and(|error| is_full(&error))
    }
}

/// The files as they were when they were opened. Each thread of the store holds
/// this until its connection is closed.
pub(super) struct Files {
    watched: Vec<(PathBuf, Identity)>,
    claim: Arc<Claim>,
}

/// Device and inode.
type Identity = (u64, u64);

/// What is written into a file without a name is gone once the server ends.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is not the file any more that the server has opened: put that one back, or restart the server",
    .0.display()
)]
pub(super) struct Moved(PathBuf);

impl Files {
    /// To be called when connections are open, since SQLite makes what is missing.
    pub fn watch(claim: Arc<Claim>) -> Result<Self, OpenError> {
        let opened = claim
            .file
            .metadata()
            .map_err(|e| io_error(&claim.path, e))?;
        if opened.nlink() > 1 {
            tracing::warn!(file = %claim.path.display(), names = opened.nlink(),
                "the database has other names, and what is in its log is found by this one alone");
        }
        let mut watched = vec![(claim.path.clone(), (opened.dev(), opened.ino()))];
        for ending in ["-wal", "-shm"] {
            let path = with_ending(&claim.resolved, ending);
            let identity = identity(&path).map_err(|e| io_error(&path, e))?;
            watched.push((path, identity));
        }
        Ok(Self { watched, claim })
    }

    /// The page from which on the file is to be scrubbed: rows have been removed from
    /// it since it was scrubbed last. It is noted in the lock's file, so that a server
    /// that was killed leaves it to the next one.
    pub fn to_scrub(&self) -> Option<u64> {
        let mut note = [0; 8];
        let read = self.claim.beside.read_exact_at(&mut note, 0);
        read.is_ok().then(|| u64::from_le_bytes(note))
    }

    /// # Errors
    /// If the lock's file cannot be written.
    pub fn note_to_scrub(&self, from: u64) -> io::Result<()> {
        let beside = &self.claim.beside;
        beside.write_all_at(&from.to_le_bytes(), 0)?;
        beside.sync_data()
    }

    /// There is nothing to scrub any more.
    ///
    /// # Errors
    /// If the lock's file cannot be written.
    pub fn scrubbed(&self) -> io::Result<()> {
        self.claim.beside.set_len(0)
    }

    /// Scrubs the file. The log has to be empty, and nobody may write to either.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn scrub(&self, page_bytes: usize, from: u64) -> io::Result<Option<u64>> {
        let log = with_ending(&self.claim.resolved, "-wal");
        if fs::metadata(log)?.len() > 0 {
            return Ok(Some(from));
        }
        // A handle of its own, closed, would take SQLite's locks away.
        scrub(&self.claim.file, page_bytes, from)
    }

    /// A microsecond a file.
    ///
    /// # Errors
    /// If a file has been moved, removed or replaced.
    pub fn check(&self) -> Result<(), Moved> {
        let moved = |(path, opened): &&(PathBuf, Identity)| identity(path).ok() != Some(*opened);
        match self.watched.iter().find(moved) {
            Some((path, _)) => Err(Moved(path.clone())),
            None => Ok(()),
        }
    }
}

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
#[error("the disk of {} is full: {left} bytes are left", path.display())]
pub struct NoRoom {
    path: PathBuf,
    left: u64,
}

/// Whether the disk that the file is on has room for what comes next.
///
/// # Errors
/// If it has none; what can't be told counts as room.
pub fn has_room(path: &Path) -> Result<(), NoRoom> {
    let Ok(disk) = rustix::fs::statvfs(path) else {
        return Ok(());
    };
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    if left < LEAST_ROOM as u64 {
        let path = path.to_owned();
        return Err(NoRoom { path, left });
    }
    Ok(())
}

fn identity(path: &Path) -> io::Result<Identity> {
    let file = fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(OWN_FOLDER).create(folder);
    made.map_err(|e| match e.kind() {
        // What exists is no folder.
        io::ErrorKind::AlreadyExists => io_error(path, io::ErrorKind::NotADirectory.into()),
        _ => io_error(path, e),
    })
}

fn writable(path: &Path, flags: i32) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // SQLite gives its log and its shared memory the file's own mode.
    options.mode(OWN_FILE).custom_flags(flags);
    options.open(path).map_err(|e| io_error(path, e))
}

/// Whether this process has the lock now.
fn lock(file: &File, path: &Path) -> Result<bool, OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e)) => Err(io_error(path, e)),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(ending);
    name.into()
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    let path = path.to_owned();
    if is_full(&source) {
        return OpenError::Full { path };
    }
    OpenError::Io { path, source }
}

fn is_full(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::StorageFull || kind == io::ErrorKind::QuotaExceeded
}
