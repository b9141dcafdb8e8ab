//! No secret shows: what servers in this process log, what their clients are
//! answered and what collectors are sent is searched for every token and key
//! that the tests have made.

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// What has not been searched yet.
static PRODUCED: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static LOGGED: AtomicBool = AtomicBool::new(false);
static SECRETS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Shorter ones are found by chance.
const SHORTEST: usize = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that finds something fails while it holds nothing.
    mutex.lock().unwrap()
}

/// From now on this must not show.
pub fn made(secret: &str) {
    lock(&SECRETS).insert(secret.to_owned());
}

/// The same of a token: its claims and its signature each. Its header is that of
/// all tokens.
pub fn made_token(token: &str) {
    token.split('.').skip(1).for_each(made);
}

/// Keeps what somebody has got to see.
pub fn produced(what: &impl fmt::Debug) {
    let line = format!("{what:?}\n");
    lock(&PRODUCED).extend_from_slice(line.as_bytes());
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        LOGGED.store(true, Ordering::Relaxed);
        lock(&PRODUCED).extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps all that servers in this process log, as `-l trace` would.
pub fn capture_logs() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = "chat_service=trace,warn";
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(|| Log)
            .init();
    });
}

/// The first line that a secret is in.
fn shown<'a>(text: &'a str, secrets: &BTreeSet<String>) -> Option<&'a str> {
    let secrets = secrets.iter().filter(|secret| secret.len() >= SHORTEST);
    let at = secrets.filter_map(|secret| text.find(secret)).min()?;
    let from = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[from..].lines().next()
}

/// Searches all that was produced since the last search, whoever produced it.
pub fn assert_none_shows() {
    assert!(LOGGED.load(Ordering::Relaxed), "nothing was logged");
    let text = std::mem::take(&mut *lock(&PRODUCED));
    let text = String::from_utf8_lossy(&text);
    let line = shown(&text, &lock(&SECRETS)).map(str::to_owned);
    assert_eq!(line, None, "a secret shows");
}

#[test]
fn a_secret_is_found_in_a_message_and_in_details() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let secret = "dGhlIHNpZ25hdHVyZSBvZiBhIHRva2Vu";
    let secrets = BTreeSet::from([secret.to_owned()]);
    let unauthenticated = tonic::Code::Unauthenticated;
    let message = format!("{secret} is no token");
    let in_message = tonic::Status::new(unauthenticated, message);
    let details = ErrorDetails::with_debug_info([], secret);
    let in_details = tonic::Status::with_error_details(unauthenticated, "no", details);
    for status in [in_message, in_details] {
        let text = format!("before\n{status:?}\nafter\n");
        assert_eq!(shown(&text, &secrets), Some(&*format!("{status:?}")));
    }
    let none = tonic::Status::new(unauthenticated, "no");
    assert_eq!(shown(&format!("{none:?}"), &secrets), None);
}
