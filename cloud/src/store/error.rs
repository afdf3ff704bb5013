//! What can go wrong with the database.

use crate::error::ApiError;

/// A failure of the database, or a stored document that is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[cfg(feature = "postgres")]
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("the file of the database: {0}")]
    File(std::io::Error),
    #[error("a stored document cannot be read: {0}")]
    Document(#[from] serde_json::Error),
    #[error("a change in a transaction that only reads")]
    ReadOnly,
    #[error("column {0} is not of the expected type")]
    Column(usize),
    #[error("the transaction is over")]
    Over,
}

/// When a client may try again, in milliseconds: after another transaction, and after somebody has seen to the disk.
const BUSY_RETRY_MS: u64 = 1000;
const DISK_RETRY_MS: u64 = 30_000;

/// The result of a statement.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the database wants the transaction to be run again: on PostgreSQL after a serialization failure, a
    /// deadlock, or the unique violation that the loser of two concurrent creations sees.
    pub fn is_conflict(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Error::Postgres(e) = self {
            let code = e.as_database_error().and_then(|d| d.code());
            return matches!(code.as_deref(), Some("40001" | "40P01" | "23505"));
        }
        false
    }

    /// Whether the disk cannot be written: it is full, read-only or broken. The same can succeed later, and what is there
    /// can be read.
    pub fn is_disk(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DiskFull, ReadOnly, SystemIoFailure};
        let Error::Sqlite(e) = self else { return false };
        matches!(e.sqlite_error_code(), Some(DiskFull | ReadOnly | SystemIoFailure | CannotOpen))
    }
}

impl From<Error> for ApiError {
    fn from(e: Error) -> ApiError {
        if e.is_disk() {
            // The log has why, once.
            return ApiError::new(
                503,
                "ServiceUnavailable",
                "The service cannot write to its database now; nothing was changed. Try again later.",
            )
            .with_retry_after(DISK_RETRY_MS);
        }
        if e.is_conflict() {
            let mut busy = ApiError::new(503, "ServiceUnavailable", "The service is busy; try again.")
                .with_retry_after(BUSY_RETRY_MS);
            busy.retry = true;
            return busy;
        }
        ApiError::internal(e)
    }
}
