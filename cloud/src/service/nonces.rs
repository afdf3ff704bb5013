//! Nonces that were used in the time-stamp window.
//!
//! [`Nonces`] knows those of this process. Changing calls also write theirs to the database, in the call's own
//! transaction, so that a restart or another process refuses the replay too; in a shared database reads do as well.
//!
//! What is remembered is bounded, for each key and in all. Beyond a bound a key's nonces of the earliest time stamps are
//! forgotten, and from then on its requests with such a time stamp are refused: its window gets shorter, but nothing can
//! be sent twice. One key never shortens the window of another that has fewer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::nonces::WINDOW_MS;

/// Nonces of one key: a window of 100 s at the default rate limit.
const OF_A_KEY: usize = 500_000;
/// Nonces of all keys; about 40 MB.
const IN_ALL: usize = 2_000_000;

/// What is known of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    New,
    Used,
    /// So many newer ones came that it is not known.
    Forgotten,
}

pub struct Nonces {
    inner: Mutex<Inner>,
    /// Nobody outside knows which nonces share a number.
    numbers: RandomState,
    of_a_key: usize,
    in_all: usize,
}

#[derive(Default)]
struct Inner {
    keys: HashMap<String, OfKey>,
    total: usize,
    /// The highest floor of the keys that are not remembered any more.
    floor: Option<i64>,
}

struct OfKey {
    /// By the second of their requests' time stamps.
    seconds: BTreeMap<i64, HashSet<u64>>,
    len: usize,
    /// Requests of this second and before are refused.
    floor: i64,
}

impl Default for OfKey {
    fn default() -> OfKey {
        OfKey { seconds: BTreeMap::new(), len: 0, floor: i64::MIN }
    }
}

impl OfKey {
    /// Forgets the earliest second; returns how many nonces that were.
    fn forget_first(&mut self) -> usize {
        let Some((second, all)) = self.seconds.pop_first() else { return 0 };
        self.floor = self.floor.max(second);
        self.len -= all.len();
        all.len()
    }

    /// Forgets what the clock refuses anyway.
    fn expire(&mut self, before: i64) -> usize {
        let kept = self.seconds.split_off(&before);
        let gone = std::mem::replace(&mut self.seconds, kept);
        if let Some((last, _)) = gone.last_key_value() {
            // The clock may be ahead for a moment, or be set back: what it accepts again is not new.
            self.floor = self.floor.max(*last);
        }
        let gone: usize = gone.values().map(HashSet::len).sum();
        self.len -= gone;
        gone
    }
}

impl Default for Nonces {
    fn default() -> Nonces {
        Nonces::new(OF_A_KEY, IN_ALL)
    }
}

impl Nonces {
    fn new(of_a_key: usize, in_all: usize) -> Nonces {
        Nonces { inner: Mutex::default(), numbers: RandomState::new(), of_a_key, in_all }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the nonce of a request that is signed by the key and has this time stamp.
    pub fn note(&self, key: &str, nonce: &str, stamp_ms: i64, now_ms: i64) -> Nonce {
        let (second, earliest) = (stamp_ms.div_euclid(1000), earliest(now_ms));
        let number = self.numbers.hash_one(nonce);
        let mut inner = self.lock();
        let Inner { keys, total, floor } = &mut *inner;
        if !keys.contains_key(key) {
            let floor = floor.unwrap_or(i64::MIN);
            keys.insert(key.to_owned(), OfKey { floor, ..OfKey::default() });
        }
        let Some(mine) = keys.get_mut(key) else { return Nonce::Forgotten };
        if second <= mine.floor {
            return Nonce::Forgotten;
        }
        *total -= mine.expire(earliest);
        if !mine.seconds.entry(second).or_default().insert(number) {
            return Nonce::Used;
        }
        (mine.len, *total) = (mine.len + 1, *total + 1);
        while mine.len > self.of_a_key {
            *total -= mine.forget_first();
        }
        while *total > self.in_all {
            let largest = keys.values_mut().max_by_key(|k| k.len);
            let Some(forgotten) = largest.map(OfKey::forget_first).filter(|n| *n > 0) else { break };
            *total -= forgotten;
        }
        Nonce::New
    }

    /// Forgets what the clock refuses anyway, also of keys that are not used any more.
    pub fn sweep(&self, now_ms: i64) {
        let earliest = earliest(now_ms);
        let mut inner = self.lock();
        let Inner { keys, total, floor } = &mut *inner;
        keys.retain(|_, k| {
            *total -= k.expire(earliest);
            let needed = k.len > 0 || k.floor >= earliest;
            if !needed {
                *floor = (*floor).max(Some(k.floor));
            }
            needed
        });
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.lock().total
    }
}

/// The earliest second whose time stamps are accepted, with a reserve for a clock that is set back a little.
fn earliest(now_ms: i64) -> i64 {
    (now_ms - WINDOW_MS).div_euclid(1000) - 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_once_per_key_and_window() {
        let n = Nonces::default();
        assert_eq!(n.note("k", "a", 0, 0), Nonce::New);
        assert_eq!(n.note("k", "a", 0, WINDOW_MS), Nonce::Used);
        assert_eq!(n.note("other", "a", 0, 0), Nonce::New);
        assert_eq!(n.len(), 2);
        n.sweep(2 * WINDOW_MS);
        assert_eq!((n.len(), n.lock().keys.len()), (0, 0));
    }

    #[test]
    fn no_clock_makes_a_used_nonce_new() {
        let n = Nonces::default();
        let (now, years) = (1_800_000_000_000, 10 * 365 * 86_400_000);
        assert_eq!(n.note("k", "a", now, now), Nonce::New);
        assert_eq!(n.note("idle", "a", now, now), Nonce::New);
        // Far ahead for a moment, in which nonces are swept and a request comes; then right again.
        n.sweep(now + years);
        assert_eq!(n.note("k", "b", now + years, now + years), Nonce::New);
        for key in ["k", "idle"] {
            assert_eq!(n.note(key, "a", now, now + 1000), Nonce::Forgotten, "{key}");
            assert_eq!(n.note(key, "c", now + 2000, now + 2000), Nonce::New, "{key}");
        }
        // Set back, an hour later: what is in the window again was used.
        let hour = 3_600_000;
        assert_eq!(n.note("k", "d", now + hour, now + hour), Nonce::New);
        n.sweep(now + hour);
        for key in ["k", "idle"] {
            assert_eq!(n.note(key, "c", now + 2000, now + 3000), Nonce::Forgotten, "{key}");
        }
    }

    #[test]
    fn a_busy_key_shortens_its_own_window_and_nothing_is_accepted_twice() {
        let n = Nonces::new(100, 250);
        assert_eq!(n.note("quiet", "q", 1000, 1000), Nonce::New);
        let sent: Vec<(i64, String)> = (0..5000).map(|i| (1000 + 10 * i, format!("n{i}"))).collect();
        for (stamp, nonce) in &sent {
            for key in ["busy", "busier"] {
                assert_eq!(n.note(key, nonce, *stamp, *stamp), Nonce::New);
            }
            assert!(n.len() <= 250);
        }
        let now = 1000 + 10 * 5000;
        for (stamp, nonce) in &sent {
            assert_ne!(n.note("busy", nonce, *stamp, now), Nonce::New, "{nonce}");
        }
        assert_eq!(n.note("quiet", "q", 1000, now), Nonce::Used);
        assert_eq!(n.note("quiet", "r", 1000, now), Nonce::New, "the window of another is as it was");
    }

    #[test]
    fn many_keys_take_from_the_largest() {
        let n = Nonces::new(100, 250);
        for i in 0..100 {
            n.note("large", &format!("n{i}"), i * 1000, 0);
        }
        for k in 0..200 {
            assert_eq!(n.note(&format!("k{k}"), "a", 0, 0), Nonce::New);
        }
        assert_eq!(n.len(), 250);
        assert_eq!(n.note("large", "n0", 0, 0), Nonce::Forgotten);
        assert_eq!(n.note("large", "n99", 99_000, 0), Nonce::Used);
        assert!((0..200).all(|k| n.note(&format!("k{k}"), "a", 0, 0) == Nonce::Used));
    }
}
