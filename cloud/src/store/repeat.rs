//! Running a transaction again when the database asks for that.

use std::time::Duration;

use super::Error;
use crate::error::ApiError;

/// How often a transaction is run that others were in the way of.
const ATTEMPTS: u64 = 8;

/// An error that may ask for another attempt.
pub trait Conflict {
    /// Whether the transaction came to nothing because of others, and would succeed when it is run again.
    fn wants_repetition(&self) -> bool;
}

impl Conflict for Error {
    fn wants_repetition(&self) -> bool {
        self.is_conflict()
    }
}

impl Conflict for anyhow::Error {
    fn wants_repetition(&self) -> bool {
        self.downcast_ref::<Error>().is_some_and(Error::is_conflict)
    }
}

impl Conflict for ApiError {
    fn wants_repetition(&self) -> bool {
        self.retry
    }
}

/// Counts the attempts at a transaction.
#[derive(Default)]
pub struct Attempts(u64);

impl Attempts {
    /// Whether what came to nothing is to be tried again, after a pause; false if it was tried often enough.
    pub async fn another(&mut self) -> bool {
        self.0 += 1;
        if self.0 >= ATTEMPTS {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5 * self.0)).await;
        true
    }
}

/// Runs a whole transaction, from its begin to its commit, and again while the database asks for that: PostgreSQL gives
/// up all but one of several changes that it cannot put in an order. (No function: the compiler cannot see that the
/// future of an `AsyncFnMut` with borrowed arguments may move between threads.)
#[macro_export]
macro_rules! repeated {
    ($transaction:expr) => {{
        let mut attempts = $crate::store::Attempts::default();
        loop {
            let done = $transaction.await;
            let conflict = matches!(&done, Err(e) if $crate::store::Conflict::wants_repetition(e));
            if !(conflict && attempts.another().await) {
                break done;
            }
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry: bool) -> ApiError {
        let mut e = ApiError::new(503, "ServiceUnavailable", "busy");
        e.retry = retry;
        e
    }

    #[tokio::test]
    async fn what_was_in_the_way_of_others_is_run_again_but_not_for_ever() {
        for (conflicts, runs, well) in [(0, 1, true), (3, 4, true), (7, 8, true), (8, 8, false)] {
            let mut seen = 0;
            let done: Result<(), ApiError> = repeated!(async {
                seen += 1;
                if seen <= conflicts { Err(busy(true)) } else { Ok(()) }
            });
            assert_eq!((done.is_ok(), seen), (well, runs), "{conflicts} conflicts");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated() {
        let mut seen = 0;
        let done: Result<(), ApiError> = repeated!(async {
            seen += 1;
            Err(busy(false))
        });
        assert_eq!((done.is_err(), seen), (true, 1));
    }
}
