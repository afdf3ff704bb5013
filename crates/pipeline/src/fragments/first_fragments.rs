//! First fragments that some worker has seen, for the others: pieces of one datagram may come to several
//! workers, where receive queues are chosen by fields that not all of them have.
//!
//! A table in which the newest wins its place. Whoever comes upon an entry that is being written finds
//! nothing and looks again later.

use super::{DatagramKey, FlowPorts, TIMEOUT};
use sag_model::Nanos;
use sag_model::flow::HASH_M1;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

const PLACES: usize = 1024;
const WORDS: usize = 7;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Place {
    /// Goes up by two with every change, and is odd while one is made.
    version: AtomicU64,
    /// The datagram, four words and a half, and its new identification; protocol, ports and message; when.
    words: [AtomicU64; WORDS],
}

/// Shared by all workers.
#[derive(Debug)]
pub struct FirstFragmentCache(Box<[Place]>);

impl Default for FirstFragmentCache {
    fn default() -> FirstFragmentCache {
        FirstFragmentCache((0..PLACES).map(|_| Place::default()).collect())
    }
}

impl FirstFragmentCache {
    fn place(&self, key: &DatagramKey) -> &Place {
        let h = (key.src ^ key.dst.rotate_left(64)) as u64 ^ (key.src >> 64) as u64 ^ u64::from(key.id) << 17;
        &self.0[(h.wrapping_mul(HASH_M1) >> 32) as usize % PLACES]
    }

    /// Lets the other workers know the first fragment of a datagram.
    pub fn publish(&self, key: &DatagramKey, ports: FlowPorts, now: Nanos) {
        let place = self.place(key);
        let version = place.version.load(Relaxed);
        if version & 1 != 0 || place.version.compare_exchange(version, version + 1, Acquire, Relaxed).is_err()
        {
            return;
        }
        fence(Release);
        for (word, new) in place.words.iter().zip(words(key, ports, now)) {
            word.store(new, Relaxed);
        }
        place.version.store(version + 2, Release);
    }

    /// What another worker has seen of the datagram a moment ago.
    pub fn lookup(&self, key: &DatagramKey, now: Nanos) -> Option<FlowPorts> {
        let place = self.place(key);
        let version = place.version.load(Acquire);
        let seen = place.words.each_ref().map(|w| w.load(Relaxed));
        fence(Acquire);
        if version == 0 || version & 1 != 0 || place.version.load(Relaxed) != version {
            return None;
        }
        let [.., rest, of, since] = seen;
        let word = |n: u32| (of >> (16 * n)) as u16;
        let new_id = (rest >> 48) as u16;
        let ports = FlowPorts { proto: of as u8, sport: word(1), dport: word(2), message: word(3), new_id };
        // Clocks of workers are a batch apart, either way.
        let fresh = now.0.saturating_sub(since) < TIMEOUT.as_nanos() as u64;
        (fresh && seen == words(key, ports, Nanos(since))).then_some(ports)
    }
}

fn words(key: &DatagramKey, p: FlowPorts, now: Nanos) -> [u64; WORDS] {
    let rest = u64::from(key.id)
        | u64::from(key.proto) << 32
        | u64::from(key.zone) << 40
        | u64::from(p.new_id) << 48;
    let ports =
        u64::from(p.proto) | u64::from(p.sport) << 16 | u64::from(p.dport) << 32 | u64::from(p.message) << 48;
    [key.src as u64, (key.src >> 64) as u64, key.dst as u64, (key.dst >> 64) as u64, rest, ports, now.0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    fn key(n: u32) -> DatagramKey {
        DatagramKey { src: u128::from(n) << 64 | 7, dst: u128::from(n), id: n, proto: 0, zone: 3 }
    }

    fn ports(n: u32) -> FlowPorts {
        FlowPorts {
            proto: n as u8,
            sport: n as u16,
            dport: !n as u16,
            message: (n >> 3) as u16,
            new_id: (n * 7) as u16,
        }
    }

    #[test]
    fn for_a_moment_and_for_that_datagram() {
        let f = FirstFragmentCache::default();
        let (then, late) = (Nanos(5_000_000_000), Nanos(7_000_000_000));
        assert_eq!(f.lookup(&key(1), then), None);
        f.publish(&key(1), ports(9), then);
        assert_eq!(f.lookup(&key(1), then), Some(ports(9)));
        assert_eq!(f.lookup(&key(1), Nanos(4_999_000_000)), Some(ports(9)), "this worker's clock is behind");
        assert_eq!(f.lookup(&key(1), late), None, "its number may be another's by now");
        for other in [
            DatagramKey { zone: 2, ..key(1) },
            DatagramKey { id: 2, ..key(1) },
            DatagramKey { dst: 2, ..key(1) },
            DatagramKey { src: 2, ..key(1) },
            DatagramKey { proto: 6, ..key(1) },
        ] {
            assert_eq!(f.lookup(&other, then), None, "{other:?}");
        }
        f.publish(&key(1), ports(10), late);
        assert_eq!(f.lookup(&key(1), late), Some(ports(10)));
    }

    /// Three workers publish while another one looks. They go on until it has found enough, however the
    /// processor is shared among them.
    #[test]
    fn a_lookup_finds_what_was_published_or_nothing() {
        const PUBLISHED: u32 = 60_000;
        const FOUND: u32 = 1_000;
        let (f, running, done) = (FirstFragmentCache::default(), AtomicU32::new(3), AtomicBool::new(false));
        let wrong = std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for n in 0.. {
                        if n >= PUBLISHED && done.load(Relaxed) {
                            break;
                        }
                        f.publish(&key(n % 100), ports(n % 100), Nanos(n.into()));
                        if n == PUBLISHED {
                            running.fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
            let (mut found, mut wrong) = (0, None);
            while wrong.is_none() && (running.load(Relaxed) > 0 || found < FOUND) {
                for n in 0..100 {
                    let seen = f.lookup(&key(n), Nanos(0));
                    found += u32::from(seen.is_some());
                    wrong = wrong.or(seen.filter(|p| *p != ports(n)).map(|p| (n, p)));
                }
            }
            done.store(true, Relaxed);
            wrong
        });
        assert_eq!(wrong, None);
    }
}
