use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

/// An error of a statement, or of a transaction that has been rolled back.
pub(super) fn store_error(error: Error) -> StoreError {
    match error.sqlite_error() {
        Some(e) if e.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE => StoreError::Conflict,
        Some(e) if is_about_the_data(e.code) => StoreError::Refused(error.into()),
        _ => StoreError::Unavailable(error.into()),
    }
}

/// An error of COMMIT, rolled back as far as this process can tell. Where the
/// last frame was never written whole, no recovery can find the transaction; a
/// failed sync leaves all frames behind, and a crash now might bring them back.
pub(super) fn commit_error(error: Error) -> StoreError {
    let unfinished = match error.sqlite_error() {
        Some(e) => {
            matches!(e.code, ErrorCode::DiskFull | ErrorCode::DatabaseBusy)
                || e.extended_code == ffi::SQLITE_IOERR_WRITE
        }
        None => false,
    };
    if unfinished {
        StoreError::Unavailable(error.into())
    } else {
        StoreError::OutcomeUnknown(error.into())
    }
}

fn is_about_the_data(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch
            | ErrorCode::TooBig
            | ErrorCode::ParameterOutOfRange
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Error {
        Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn trouble_with_the_disk_is_not_the_senders_fault() {
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_BUSY,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_CORRUPT,
        ] {
            let error = store_error(failure(code));
            assert!(matches!(error, StoreError::Unavailable(_)), "{code}");
        }
        let error = store_error(failure(ffi::SQLITE_TOOBIG));
        assert!(matches!(error, StoreError::Refused(_)));
    }

    #[test]
    fn only_a_commit_that_cannot_come_back_is_known_to_have_failed() {
        let full = commit_error(failure(ffi::SQLITE_FULL));
        assert!(matches!(full, StoreError::Unavailable(_)));
        let not_synced = commit_error(failure(ffi::SQLITE_IOERR_FSYNC));
        assert!(matches!(not_synced, StoreError::OutcomeUnknown(_)));
    }
}
