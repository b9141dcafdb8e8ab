use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// From now on the signals that many daemons take for an order to read their
/// files again, or to open their logs anew, don't end this process: it would end
/// without a drain. Files are read again without being told.
///
/// # Errors
/// If the operating system does not let them be caught.
pub fn outlive_signals() -> io::Result<()> {
    let ignored = [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    for kind in ignored {
        // A signal that was listened to once never has its default effect again.
        drop(signal(kind)?);
    }
    Ok(())
}
