//! Keys with counts, shared by all workers without a lock: sessions of a host, which remote addresses a binding has sent
//! to, sessions of a source that a rule has admitted.
//!
//! Key and count are one word, so a look sees them together. A key may stand in several words (two
//! workers began to count it at once, or one word is full): its count is their sum.

use crate::table::prefetch;
use std::sync::atomic::{AtomicU64, Ordering};

const WAYS: usize = 8;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// `BITS`: the low bits of a word that count; the rest is the key.
#[derive(Debug)]
pub struct RefCountTable<const BITS: u32> {
    sets: Box<[Set]>,
}

impl<const BITS: u32> RefCountTable<BITS> {
    const MAX: u64 = (1 << BITS) - 1;

    /// Room for about so many keys.
    pub fn new(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).next_power_of_two();
        RefCountTable { sets: (0..sets).map(|_| Set::default()).collect() }
    }

    /// Bytes of the table.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// The two sets of a key.
    #[inline]
    fn places(&self, key: u64) -> (usize, usize) {
        let h = key.wrapping_mul(sag_model::flow::HASH_M1);
        let h = (h ^ h >> 32).wrapping_mul(sag_model::flow::HASH_M2);
        let mask = self.sets.len() - 1;
        let (a, b) = ((h >> 32) as usize & mask, h as usize & mask);
        // One set twice would count its keys twice.
        (a, if a == b { (a + 1) & mask } else { b })
    }

    #[inline]
    fn words(&self, key: u64) -> impl Iterator<Item = &AtomicU64> {
        let (a, b) = self.places(key);
        let second: &[AtomicU64] = if a == b { &[] } else { &self.sets[b].0 };
        self.sets[a].0.iter().chain(second)
    }

    /// This key is counted soon: brings its words into the cache.
    #[inline]
    pub(crate) fn prefetch(&self, key: u64) {
        let (a, b) = self.places(key);
        prefetch(&self.sets[a]);
        prefetch(&self.sets[b]);
    }

    /// Counts one more. False: no room for the key.
    pub fn increment(&self, key: u64) -> bool {
        let counts = |old: u64| old >> BITS == key && (1..Self::MAX).contains(&(old & Self::MAX));
        let swap = |w: &AtomicU64, old, new| {
            w.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        for _ in 0..4 {
            let known = self.words(key).any(|w| {
                let old = w.load(Ordering::Relaxed);
                counts(old) && swap(w, old, old + 1)
            });
            let stored = known
                || self.words(key).any(|w| w.load(Ordering::Relaxed) == 0 && swap(w, 0, key << BITS | 1));
            if stored {
                return true;
            }
        }
        false
    }

    /// Counts one less, if there is one.
    pub fn decrement(&self, key: u64) {
        for _ in 0..64 {
            for w in self.words(key) {
                let old = w.load(Ordering::Relaxed);
                if old >> BITS != key || old & Self::MAX == 0 {
                    continue;
                }
                let new = if old & Self::MAX == 1 { 0 } else { old - 1 };
                if w.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    return;
                }
            }
        }
    }

    /// The count of a key; 0: it has none.
    pub fn get(&self, key: u64) -> u64 {
        let count = |w: &AtomicU64| w.load(Ordering::Relaxed);
        self.words(key).map(count).filter(|w| w >> BITS == key).map(|w| w & Self::MAX).sum()
    }

    /// Every word's key and count.
    pub fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        let words = self.sets.iter().flat_map(|s| &s.0).map(|w| w.load(Ordering::Relaxed));
        words.filter(|w| *w != 0).map(|w| (w >> BITS, w & Self::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_and_down_and_past_a_full_word() {
        let c = RefCountTable::<9>::new(64);
        for n in 1..=1500 {
            assert_eq!((c.increment(7), c.get(7)), (true, n));
        }
        assert_eq!((c.increment(8), c.get(8)), (true, 1));
        (0..1500).for_each(|_| c.decrement(7));
        assert_eq!((c.get(7), c.get(8)), (0, 1));
        c.decrement(7);
        assert_eq!(c.get(7), 0, "nothing below zero");
        c.decrement(8);
        assert_eq!(c.all().count(), 0);
    }

    #[test]
    fn a_full_table_says_so() {
        let c = RefCountTable::<32>::new(64);
        let fit = (1..10_000).filter(|k| c.increment(*k)).count();
        assert_eq!(fit, 64);
    }

    #[test]
    fn threads_lose_no_count() {
        let c = RefCountTable::<32>::new(8);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for i in 0..20_000u64 {
                        c.increment(i % 3);
                        if i % 2 == 1 {
                            c.decrement((i - 1) % 3);
                        }
                    }
                });
            }
        });
        let left: u64 = (0..3).map(|k| c.get(k)).sum();
        assert_eq!(left, 4 * 10_000);
    }
}
