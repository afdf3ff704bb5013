//! Nonces that were used in the time-stamp window, in this process.
//!
//! Changing calls also write theirs to the database, in the call's own transaction, so that a
//! restart or another process refuses the replay too.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub struct Nonces {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    seen: HashSet<(String, String)>,
    order: VecDeque<(i64, (String, String))>,
}

/// More than one key can send in a window at the default rate; beyond it the oldest goes first.
const CAPACITY: usize = 2_000_000;

impl Nonces {
    /// False if the key used the nonce before and the window is still open.
    pub fn first_use(&self, key: &str, nonce: &str, now_ms: i64, keep_ms: i64) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner
            .order
            .front()
            .is_some_and(|(at, _)| *at + keep_ms < now_ms || inner.order.len() > CAPACITY)
        {
            if let Some((_, id)) = inner.order.pop_front() {
                inner.seen.remove(&id);
            }
        }
        let id = (key.to_owned(), nonce.to_owned());
        if !inner.seen.insert(id.clone()) {
            return false;
        }
        inner.order.push_back((now_ms, id));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_once_per_key_and_window() {
        let n = Nonces::default();
        assert!(n.first_use("k", "a", 0, 10));
        assert!(!n.first_use("k", "a", 10, 10));
        assert!(n.first_use("other", "a", 10, 10));
        assert!(n.first_use("k", "a", 11, 10));
    }
}
