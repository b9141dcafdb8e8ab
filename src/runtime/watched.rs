use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// How often the files are looked at: two system calls a file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A value read from files, and read again once they have changed. A version
/// that can't be read leaves the last good one in force.
///
/// There is no task and no file watcher behind it: whoever wants the value looks
/// whether it is time to look. A folder swapped by symbolic link, as Kubernetes
/// does, counts as a change.
pub struct Watched<T> {
    files: Vec<PathBuf>,
    load: Load<T>,
    failed: Box<dyn Fn() + Send + Sync>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

type Load<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

struct Seen {
    at: Instant,
    stamps: Vec<Option<Stamp>>,
}

/// What tells one version of a file from another.
#[derive(PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    len: u64,
    inode: u64,
}

impl<T> Watched<T> {
    /// Reads the value for the first time.
    ///
    /// # Errors
    /// If `load` can't.
    pub fn new<E: fmt::Display>(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let stamps = stamps(&files);
        let value = load()?;
        Ok(Self {
            files,
            load: Box::new(move || load().map_err(|error| error.to_string())),
            failed: Box::new(|| {}),
            current: RwLock::new(Arc::new(value)),
            seen: Mutex::new(Seen {
                at: Instant::now(),
                stamps,
            }),
        })
    }

    /// What is called each time that a changed file can't be used.
    pub fn on_failure(&mut self, failed: impl Fn() + Send + Sync + 'static) {
        self.failed = Box::new(failed);
    }

    /// The value as of at most a second ago.
    pub fn get(&self) -> Arc<T> {
        // Whoever finds another looking takes what there is.
        if let Ok(mut seen) = self.seen.try_lock()
            && seen.at.elapsed() >= LOOK_EVERY
        {
            seen.at = Instant::now();
            // The stamps come first: a change in between is seen next time.
            let stamps = stamps(&self.files);
            if stamps != seen.stamps {
                seen.stamps = stamps;
                self.reload();
            }
        }
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reload(&self) {
        let file = self.files.first();
        match (self.load)() {
            Ok(value) => {
                tracing::info!(?file, "changed file read");
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(value);
            }
            Err(why) => {
                (self.failed)();
                tracing::warn!(?file, why, "changed file not usable, the last one counts");
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path| -> io::Result<Stamp> {
        let meta = fs::metadata(path)?;
        Ok(Stamp {
            modified: (meta.mtime(), meta.mtime_nsec()),
            len: meta.len(),
            inode: meta.ino(),
        })
    };
    files.iter().map(|path| stamp(path).ok()).collect()
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.files).finish()
    }
}
