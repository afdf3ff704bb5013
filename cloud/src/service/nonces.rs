//! Nonces that were used in the time-stamp window.
//!
//! [`Nonces`] knows those of this process. Changing calls also write theirs to the database, in the call's own
//! transaction, so that a restart or another process refuses the replay too; in a shared database reads do as well.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub struct Nonces {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    seen: HashSet<u128>,
    order: VecDeque<(i64, u128)>,
}

/// Beyond it the oldest goes first; about 100 MB.
const CAPACITY: usize = 2_000_000;

/// Key and nonce as one number that nobody can make two of.
fn digest(key: &str, nonce: &str) -> u128 {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [key, "\n", nonce] {
        context.update(part.as_bytes());
    }
    let all = context.finish();
    all.as_ref().iter().take(16).fold(0, |n, b| n << 8 | u128::from(*b))
}

impl Nonces {
    /// False if the key used the nonce before and the window is still open.
    pub fn first_use(&self, key: &str, nonce: &str, now_ms: i64, keep_ms: i64) -> bool {
        let id = digest(key, nonce);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner
            .order
            .front()
            .is_some_and(|(at, _)| *at + keep_ms < now_ms || inner.order.len() >= CAPACITY)
        {
            if let Some((_, id)) = inner.order.pop_front() {
                inner.seen.remove(&id);
            }
        }
        if !inner.seen.insert(id) {
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
