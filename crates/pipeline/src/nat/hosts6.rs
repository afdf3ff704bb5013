//! IPv6 hosts that NAT64 translates. Bindings name inside hosts by IPv4 addresses; those of IPv6 hosts are numbers of
//! 0.0.0.0/8, which no packet may have as its source (RFC 1122 3.2.1.3) and no host inside has. A host has its number as
//! long as it has sessions.

use crate::table::{Clash, Index};
use sag_model::flow::{BUCKET_WORDS, Bucket, Geometry, HASH_M1, HASH_M2, RecordNo};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Hosts at one time, at the most.
const MOST: usize = 128 * 1024;
/// [`Slot::refs`] while one worker makes or takes back the number.
const LOCKED: u32 = u32::MAX;
/// Numbers that are tried for a new host.
const TRIES: u32 = 256;

#[derive(Debug, Default)]
struct Slot {
    addr: [AtomicU64; 2],
    /// Sessions of the host; 0: free.
    refs: AtomicU32,
}

impl Slot {
    fn addr(&self) -> Ipv6Addr {
        let [high, low] = self.addr.each_ref().map(|w| w.load(Ordering::Acquire));
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
    }
}

/// Numbers of hosts.
#[derive(Debug)]
pub(super) struct Hosts6 {
    /// By number; number 0 is none.
    slots: Box<[Slot]>,
    index: Index,
    seed: u64,
}

/// Whether an inside address is the number of an IPv6 host.
#[inline]
pub const fn is_number(inside: Ipv4Addr) -> bool {
    inside.to_bits() >> 24 == 0 && inside.to_bits() != 0
}

impl Hosts6 {
    /// For the hosts of so many sessions.
    pub fn new(sessions: u32, seed: u64) -> Hosts6 {
        let slots = (sessions as usize * 2).clamp(64, MOST);
        let buckets = (slots * 2).div_ceil(BUCKET_WORDS).next_power_of_two();
        // Lives as long as the process, like the flow table.
        let memory: &'static [Bucket] = Vec::leak((0..buckets).map(|_| Bucket::default()).collect());
        Hosts6 {
            slots: (0..slots).map(|_| Slot::default()).collect(),
            index: Index::new(memory, Geometry { base: 0, mask: buckets as u32 - 1 }),
            seed,
        }
    }

    pub fn memory(&self) -> usize {
        size_of_val(&*self.slots) + size_of_val(self.index.all())
    }

    fn hash(&self, addr: Ipv6Addr) -> u64 {
        let bits = addr.to_bits();
        let mix = |h: u64, w: u64, m: u64| {
            let h = (h ^ w).wrapping_mul(m);
            h ^ h >> 32
        };
        mix(mix(mix(self.seed, (bits >> 64) as u64, HASH_M1), bits as u64, HASH_M2), 0, HASH_M1)
    }

    fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(number as usize).filter(|_| number != 0)
    }

    /// Whether a number stands for this host, be it in the making or live.
    fn is(&self, no: RecordNo, addr: Ipv6Addr) -> bool {
        self.slot(no.0).is_some_and(|s| s.refs.load(Ordering::Acquire) != 0 && s.addr() == addr)
    }

    /// The number of a host, for one session more of it. `None`: there is none left.
    pub fn acquire(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        let hash = self.hash(addr);
        let probe = self.index.probe(hash);
        // Another worker may be making or taking back the same number: look a few times.
        for turn in 0..16 {
            if let Some(no) = self.index.find(&probe, |no| self.is(no, addr)) {
                let number = Ipv4Addr::from_bits(no.0);
                match self.hold(number) {
                    Some(a) if a == addr => return Some(number),
                    // It has become another one's meanwhile.
                    Some(_) => self.release(number),
                    None => std::hint::spin_loop(),
                }
                continue;
            }
            let no = self.claim(hash.rotate_left(turn), addr)?;
            let slot = self.slot(no)?;
            match self.index.publish(&probe, RecordNo(no), |no| self.is(no, addr)) {
                Ok(()) => {
                    slot.refs.store(1, Ordering::Release);
                    return Some(Ipv4Addr::from_bits(no));
                }
                Err(clash) => {
                    slot.refs.store(0, Ordering::Release);
                    if clash == Clash::Full {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// A free number, for nobody else from now on.
    fn claim(&self, from: u64, addr: Ipv6Addr) -> Option<u32> {
        let most = self.slots.len() as u64 - 1;
        let bits = addr.to_bits();
        for n in 0..u64::from(TRIES) {
            // Not one after the other: where hosts are dense, runs of them are long.
            let no = (from.wrapping_add(n * n) % most) as u32 + 1;
            let slot = self.slot(no)?;
            let free = slot.refs.load(Ordering::Relaxed) == 0;
            if free && slot.refs.compare_exchange(0, LOCKED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                slot.addr[0].store((bits >> 64) as u64, Ordering::Relaxed);
                slot.addr[1].store(bits as u64, Ordering::Release);
                return Some(no);
            }
        }
        None
    }

    /// One session more for a live number. The host that has it, which stays so until [`Hosts6::release`].
    pub fn hold(&self, number: Ipv4Addr) -> Option<Ipv6Addr> {
        let slot = self.slot(number.to_bits())?;
        let live = |n: u32| (n != 0 && n < LOCKED - 1).then(|| n + 1);
        slot.refs.fetch_update(Ordering::AcqRel, Ordering::Acquire, live).ok()?;
        Some(slot.addr())
    }

    /// One session less.
    pub fn release(&self, number: Ipv4Addr) {
        let Some(slot) = self.slot(number.to_bits()) else { return };
        let less = |n: u32| match n {
            0 | LOCKED => None,
            1 => Some(LOCKED),
            more => Some(more - 1),
        };
        if slot.refs.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) == Ok(1) {
            let probe = self.index.probe(self.hash(slot.addr()));
            self.index.withdraw(&probe, RecordNo(number.to_bits()));
            slot.refs.store(0, Ordering::Release);
        }
    }

    /// The host that has a number at the moment.
    pub fn addr(&self, number: Ipv4Addr) -> Option<Ipv6Addr> {
        let slot = self.slot(number.to_bits())?;
        let live = |n: u32| n != 0 && n != LOCKED;
        let before = slot.refs.load(Ordering::Acquire);
        let addr = slot.addr();
        (live(before) && live(slot.refs.load(Ordering::Acquire))).then_some(addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn host(n: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | n)
    }

    #[test]
    fn a_host_has_one_number_while_it_has_sessions() {
        let h = Hosts6::new(1000, 7);
        let no = h.acquire(host(1)).unwrap();
        assert!(is_number(no));
        assert_eq!((h.acquire(host(1)), h.hold(no)), (Some(no), Some(host(1))));
        assert_ne!(h.acquire(host(2)), Some(no));
        (0..2).for_each(|_| h.release(no));
        assert_eq!(h.addr(no), Some(host(1)));
        h.release(no);
        assert_eq!((h.addr(no), h.hold(no)), (None, None));
        h.release(no);
        assert!(h.acquire(host(1)).is_some());
        assert!(!is_number(Ipv4Addr::UNSPECIFIED) && !is_number(Ipv4Addr::new(10, 0, 0, 1)));
    }

    #[test]
    fn most_numbers_can_be_given() {
        let h = Hosts6::new(1000, 7);
        let got = (1..=2500).filter(|n| h.acquire(host(*n)).is_some()).count();
        assert!((1900..2000).contains(&got), "{got} of 1999");
    }

    #[test]
    fn threads_agree_about_numbers_and_leave_none_behind() {
        let h = Hosts6::new(100, 7);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for i in 0..5_000u128 {
                        let addr = host(i % 5);
                        if let Some(no) = h.acquire(addr) {
                            assert_eq!(h.addr(no), Some(addr));
                            h.release(no);
                        }
                    }
                });
            }
        });
        assert!(h.slots.iter().all(|s| s.refs.load(Ordering::Relaxed) == 0));
        let kept: HashMap<_, _> = (0..5).map(|n| (h.acquire(host(n)).unwrap(), n)).collect();
        assert_eq!(kept.len(), 5);
    }
}
