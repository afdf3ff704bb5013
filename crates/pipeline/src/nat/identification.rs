//! Identifications of translated IPv4 datagrams that are fragments or may become some (RFC 6864 section 5.3.1, RFC 7857
//! section 10). To their receiver all hosts behind an external address are one source, so they count on together.
//!
//! Workers and XDP take numbers from the same counters, by destination. What is added to a counter differs from
//! destination to destination, so those that share one learn nothing of each other's numbers but how many there were.

use sag_model::flow::{HASH_M1, HASH_M2, IP_ID_COUNTERS};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters that workers share with XDP (`gw_ip_ids`).
#[derive(Debug)]
pub struct Identifications {
    counters: &'static [AtomicU64],
    seed: u64,
}

impl Identifications {
    /// Over the map of XDP, whose hash has the same seed.
    ///
    /// # Panics
    ///
    /// If there are not [`IP_ID_COUNTERS`] counters.
    pub fn new(counters: &'static [AtomicU64], seed: u64) -> Identifications {
        assert_eq!(counters.len(), IP_ID_COUNTERS, "the map has another size");
        Identifications { counters, seed }
    }

    /// Without XDP.
    pub fn private(seed: u64) -> Identifications {
        // Lives as long as the process, like the rest of what NAT shares.
        Identifications::new(Vec::leak((0..IP_ID_COUNTERS).map(|_| AtomicU64::new(0)).collect()), seed)
    }

    /// The number of the next datagram to a destination: none of the 65,535 before it had the same. `None` stands for all
    /// destinations that are translated themselves.
    #[inline]
    pub fn next(&self, to: Option<Ipv4Addr>) -> u16 {
        // As XDP loads it from the packet.
        let to = to.map_or(0, |a| u32::from_ne_bytes(a.octets()));
        let mix = |h: u64, m: u64| {
            let h = h.wrapping_mul(m);
            h ^ h >> 32
        };
        let h = mix(mix(self.seed ^ u64::from(to), HASH_M1), HASH_M2);
        let counter = &self.counters[h as usize % IP_ID_COUNTERS];
        (counter.fetch_add(1, Ordering::Relaxed) as u16).wrapping_add((h >> 32) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn none_comes_twice_before_all_have_come() {
        let ids = Identifications::private(7);
        for to in [Some(Ipv4Addr::new(198, 51, 100, 7)), None] {
            let seen: HashSet<u16> = (0..=u16::MAX).map(|_| ids.next(to)).collect();
            assert_eq!(seen.len(), 65_536, "{to:?}");
        }
    }

    #[test]
    fn workers_draw_from_one_counter() {
        let ids = Identifications::private(7);
        let to = Some(Ipv4Addr::new(198, 51, 100, 7));
        let drawn = std::thread::scope(|s| {
            let draw = || (0..10_000).map(|_| ids.next(to)).collect::<Vec<_>>();
            let workers: Vec<_> = (0..4).map(|_| s.spawn(draw)).collect();
            workers.into_iter().flat_map(|w| w.join().expect("a worker")).collect::<HashSet<u16>>()
        });
        assert_eq!(drawn.len(), 40_000);
    }

    #[test]
    fn destinations_spread_and_begin_anywhere() {
        let ids = Identifications::private(7);
        let to = |n: u32| Some(Ipv4Addr::from_bits(0xC633_6400 + n));
        let first: HashSet<u16> = (0..1000).map(|n| ids.next(to(n))).collect();
        assert!(first.len() > 980, "{} beginnings", first.len());
        let used = ids.counters.iter().filter(|c| c.load(Ordering::Relaxed) > 0).count();
        assert!(used > 800, "{used} counters");
        let other: HashSet<u16> = (0..1000).map(|n| Identifications::private(8).next(to(n))).collect();
        assert!(first.intersection(&other).count() < 100, "by the seed");
    }
}
