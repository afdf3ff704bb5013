//! Sessions of each host, so that no host takes the room of all others.
//!
//! A count-min sketch: two rows of counters, a host has one in each, and its count is the smaller one. So counting
//! takes a fixed amount of memory and time however many sources somebody invents, there is nothing to fill up, and
//! whoever shares a counter with a heavy host is hardly ever with one in both rows. A count is never too low.

use super::prefetch;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Sessions that a host may have in any case while there is room at all.
pub const UNQUESTIONED: u32 = 64;

/// What a host has: sessions, and those of them that nobody has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostUse {
    /// All sessions that the host has begun.
    pub sessions: u32,
    /// Of these, unanswered.
    pub unanswered: u32,
}

/// One unanswered session, in a counter's word: sessions in the lower half, unanswered ones in the upper.
const UNANSWERED: u64 = 1 << 32;

/// Counts of all hosts.
#[derive(Debug)]
pub struct HostCounts {
    rows: [Box<[AtomicU64]>; 2],
    seed: u64,
    /// The host that had most when it was last looked, and how many.
    heaviest: AtomicU64,
    heaviest_sessions: AtomicU32,
}

impl HostCounts {
    /// For a table of so many sessions. `seed`: nobody can aim at another host's counters.
    pub fn new(sessions: u32, seed: u64) -> HostCounts {
        let len = (sessions / 16).next_power_of_two().clamp(1 << 10, 1 << 16);
        let row = || (0..len).map(|_| AtomicU64::new(0)).collect();
        HostCounts {
            rows: [row(), row()],
            seed,
            heaviest: AtomicU64::new(0),
            heaviest_sessions: AtomicU32::new(0),
        }
    }

    /// Bytes of the counters.
    pub fn memory(&self) -> usize {
        self.rows.iter().map(|r| size_of_val(&**r)).sum()
    }

    #[inline]
    fn words(&self, host: u64) -> [&AtomicU64; 2] {
        let h = (host ^ self.seed).wrapping_mul(sag_model::flow::HASH_M1);
        let h = (h ^ h >> 32).wrapping_mul(sag_model::flow::HASH_M2);
        let mask = self.rows[0].len() - 1;
        [&self.rows[0][h as usize >> 8 & mask], &self.rows[1][(h >> 40) as usize & mask]]
    }

    /// A host begins a session soon: brings its counters into the cache.
    #[inline]
    pub fn prefetch(&self, host: u64) {
        self.words(host).into_iter().for_each(prefetch);
    }

    /// What a host has.
    #[inline]
    pub fn get(&self, host: u64) -> HostUse {
        let [a, b] = self.words(host).map(|w| w.load(Ordering::Relaxed));
        HostUse {
            sessions: (a as u32).min(b as u32),
            unanswered: ((a / UNANSWERED) as u32).min((b / UNANSWERED) as u32),
        }
    }

    /// One more session, answered or not.
    #[inline]
    pub fn begun(&self, host: u64, answered: bool) {
        let add = 1 + if answered { 0 } else { UNANSWERED };
        let [a, b] = self.words(host).map(|w| w.fetch_add(add, Ordering::Relaxed) as u32);
        let now = a.min(b).wrapping_add(1);
        if now >= UNQUESTIONED && now > self.heaviest_sessions.load(Ordering::Relaxed) {
            self.heaviest.store(host, Ordering::Relaxed);
            self.heaviest_sessions.store(now, Ordering::Relaxed);
        }
    }

    /// A session was answered for the first time.
    #[inline]
    pub fn answered(&self, host: u64) {
        self.words(host).into_iter().for_each(|w| {
            w.fetch_sub(UNANSWERED, Ordering::Relaxed);
        });
    }

    /// A session has ended, answered or not.
    #[inline]
    pub fn ended(&self, host: u64, answered: bool) {
        let sub = 1 + if answered { 0 } else { UNANSWERED };
        self.words(host).into_iter().for_each(|w| {
            w.fetch_sub(sub, Ordering::Relaxed);
        });
    }

    /// The host with most sessions, if any has many.
    pub fn heaviest(&self) -> Option<(u64, u32)> {
        let host = self.heaviest.load(Ordering::Relaxed);
        Some((host, self.get(host).sessions)).filter(|(_, n)| *n >= UNQUESTIONED)
    }

    /// Looks again how many the heaviest host has: another may have more by now. To be called from time to time.
    pub fn refresh(&self) {
        let now = self.get(self.heaviest.load(Ordering::Relaxed)).sessions;
        self.heaviest_sessions.store(now, Ordering::Relaxed);
    }
}

/// Whether a host that has `held` of something takes more than its share while `free` are left: a host alone may
/// have `percent` of all, several of them equal parts, and a part that grows with their number stays free
/// (dynamic thresholds, Choudhury and Hahne 1998). 100 %: there is no share.
#[inline]
pub const fn over_share(held: u32, free: u32, percent: u8) -> bool {
    held >= UNQUESTIONED && held as u64 * 100u64.saturating_sub(percent as u64) > free as u64 * percent as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_back_to_zero() {
        let c = HostCounts::new(1 << 20, 7);
        for host in 0..50_000u64 {
            c.begun(host, false);
        }
        c.answered(3);
        assert!(c.get(3).sessions >= 1);
        for host in 0..50_000u64 {
            c.ended(host, host == 3);
        }
        assert!((0..50_000).all(|h| c.get(h) == HostUse { sessions: 0, unanswered: 0 }));
        assert_eq!(c.heaviest(), None);
    }

    #[test]
    fn a_heavy_host_weighs_on_hardly_any_other() {
        let c = HostCounts::new(1 << 20, 7);
        (0..200_000).for_each(|_| c.begun(1, false));
        // Sources that somebody invents, as many as the table has room for.
        (1000..800_000u64).for_each(|h| c.begun(h, false));
        assert_eq!(c.heaviest().map(|(h, _)| h), Some(1));
        let loaded = (1_000_000..1_010_000u64).filter(|h| c.get(*h).sessions >= UNQUESTIONED).count();
        assert_eq!(loaded, 0, "a host with no session of its own");
        c.refresh();
        assert!(c.heaviest().unwrap().1 >= 200_000);
    }

    #[test]
    fn shares() {
        // One host alone stops at 80 %, two at four ninths each, ten at 4/41.
        for (hosts, all, each) in [(1, 1000, 800), (2, 900, 400), (10, 4100, 400)] {
            let mut held = 0;
            while !over_share(held, all - hosts * held, 80) {
                held += 1;
            }
            assert!(held.abs_diff(each) <= 1, "{hosts} hosts have {held} each");
        }
        assert!(!over_share(UNQUESTIONED - 1, 0, 80), "a few are everybody's");
        assert!(!over_share(u32::MAX, 0, 100));
    }
}
