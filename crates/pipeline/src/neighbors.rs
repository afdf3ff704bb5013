//! Which number a next hop has: one table that all workers read, and that the control thread alone writes.
//!
//! A neighbor that comes or goes is one store here. Nothing is compiled or published for it, so what it costs does not
//! depend on how many others there are.
//!
//! **Protocol.** A number's key is written before the number is linked into its chain. A number that is unlinked keeps
//! its key and its place in the chain, so that a reader who stands on it finds on. It gets another key only when every
//! reader has begun another round since ([`Grace`](crate::table::Grace)).

use crate::hash::AddrHash;
use crate::ids::NhIdx;
use sag_model::PortIdx;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// A next hop: the egress port, and the address on its link.
pub type NeighborKey = (PortIdx, IpAddr);

/// The number of each next hop that has one. Number 0 is never used.
#[derive(Debug)]
pub struct NeighborTable {
    seed: AddrHash,
    /// The first number of each chain, by hash; 0 ends a chain.
    heads: Box<[AtomicU16]>,
    /// By number.
    nodes: Box<[Node]>,
    len: AtomicUsize,
    /// See [`NeighborTable::routes`].
    routes: AtomicU32,
}

/// The key of a number, and the next number of its chain.
#[derive(Debug, Default)]
struct Node {
    high: AtomicU64,
    low: AtomicU64,
    /// Port, family, and in bits 16 to 31 the next number.
    link: AtomicU64,
}

/// A key as a node holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    high: u64,
    low: u64,
    id: u64,
}

const ID: u64 = 0xFFFF;
const NEXT: u32 = 16;
const IPV6: u64 = 0x100;

impl Words {
    #[inline]
    fn of(&(port, ip): &NeighborKey) -> Words {
        let port = u64::from(port.0);
        match ip {
            IpAddr::V4(a) => Words { high: 0, low: u64::from(a.to_bits()), id: port },
            IpAddr::V6(a) => {
                let a = a.to_bits();
                Words { high: (a >> 64) as u64, low: a as u64, id: port | IPV6 }
            }
        }
    }

    fn key(&self) -> NeighborKey {
        let port = PortIdx(self.id as u8);
        let ip = if self.id & IPV6 == 0 {
            IpAddr::V4(Ipv4Addr::from_bits(self.low as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.high) << 64 | u128::from(self.low)))
        };
        (port, ip)
    }
}

impl Node {
    fn words(&self) -> Words {
        Words {
            high: self.high.load(Ordering::Relaxed),
            low: self.low.load(Ordering::Relaxed),
            id: self.link.load(Ordering::Relaxed) & ID,
        }
    }

    fn next(&self) -> u16 {
        (self.link.load(Ordering::Acquire) >> NEXT) as u16
    }
}

impl NeighborTable {
    /// An empty table for numbers below `count`.
    pub fn new(count: usize) -> NeighborTable {
        let count = count.min(usize::from(u16::MAX) + 1);
        let heads = count.next_power_of_two().max(2);
        NeighborTable {
            seed: AddrHash::default(),
            heads: (0..heads).map(|_| AtomicU16::new(0)).collect(),
            nodes: (0..count).map(|_| Node::default()).collect(),
            len: AtomicUsize::new(0),
            routes: AtomicU32::new(0),
        }
    }

    #[inline]
    fn head(&self, w: &Words) -> &AtomicU16 {
        let hash = self.seed.words([w.high, w.low, w.id]);
        &self.heads[hash as usize & (self.heads.len() - 1)]
    }

    /// The number of a next hop.
    #[inline]
    pub fn get(&self, key: &NeighborKey) -> Option<NhIdx> {
        let w = Words::of(key);
        let mut at = self.head(&w).load(Ordering::Acquire);
        while at != 0 {
            let node = self.nodes.get(usize::from(at))?;
            let link = node.link.load(Ordering::Acquire);
            if node.low.load(Ordering::Relaxed) == w.low
                && node.high.load(Ordering::Relaxed) == w.high
                && link & ID == w.id
            {
                return Some(NhIdx(at));
            }
            at = (link >> NEXT) as u16;
        }
        None
    }

    /// Gives a next hop a number. For the control thread alone, which knows that no reader can still be at the number's old
    /// key, and that neither the key nor the number is in the table.
    pub fn insert(&self, key: NeighborKey, no: NhIdx) {
        let Some(node) = self.nodes.get(no.index()).filter(|_| no.0 != 0) else { return };
        let w = Words::of(&key);
        let head = self.head(&w);
        node.high.store(w.high, Ordering::Relaxed);
        node.low.store(w.low, Ordering::Relaxed);
        let next = u64::from(head.load(Ordering::Relaxed));
        node.link.store(w.id | next << NEXT, Ordering::Release);
        head.store(no.0, Ordering::Release);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the number of a next hop out of the table. For the control thread alone. The number may get another key when
    /// a grace period that begins afterwards is over.
    pub fn remove(&self, key: &NeighborKey) -> Option<NhIdx> {
        let w = Words::of(key);
        let head = self.head(&w);
        let mut before: Option<&Node> = None;
        let mut at = head.load(Ordering::Relaxed);
        while at != 0 {
            let node = self.nodes.get(usize::from(at))?;
            let next = node.next();
            if node.words() == w {
                match before {
                    None => head.store(next, Ordering::Release),
                    Some(b) => {
                        let id = b.link.load(Ordering::Relaxed) & ID;
                        b.link.store(id | u64::from(next) << NEXT, Ordering::Release);
                    }
                }
                self.len.fetch_sub(1, Ordering::Relaxed);
                return Some(NhIdx(at));
            }
            (before, at) = (Some(node), next);
        }
        None
    }

    /// All next hops and their numbers. For the control thread.
    pub fn iter(&self) -> impl Iterator<Item = (NeighborKey, NhIdx)> + '_ {
        self.heads.iter().flat_map(|head| {
            let node = |no: u16| self.nodes.get(usize::from(no)).filter(|_| no != 0).map(|n| (no, n));
            let first = node(head.load(Ordering::Relaxed));
            std::iter::successors(first, move |(_, n)| node(n.next()))
                .map(|(no, n)| (n.words().key(), NhIdx(no)))
        })
    }

    /// Next hops that have a number.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no next hop has a number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The version of the routes that generations were last raised for. A worker that still goes by older ones
    /// ([`Snapshot::routes_version`](crate::snapshot::Snapshot)) must not stamp a raised generation onto a record: the record
    /// would count as made by the new routes.
    #[inline]
    pub fn routes(&self) -> u32 {
        self.routes.load(Ordering::Acquire)
    }

    /// Routes of this version are in every snapshot that is sent from now on. To be called before the generations are raised.
    pub fn set_routes(&self, version: u32) {
        self.routes.store(version, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(n: u32) -> NeighborKey {
        let port = PortIdx((n % 3) as u8);
        match n % 2 {
            0 => (port, IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + n / 6))),
            _ => (port, IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n / 6)))),
        }
    }

    /// The table does what a map does, with few chains so that they are long.
    #[test]
    fn equals_a_map() {
        let t = NeighborTable::new(64);
        let mut model = HashMap::new();
        let mut free: Vec<u16> = (1..64).collect();
        let mut x = 1u32;
        for _ in 0..20_000 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let k = key((x >> 8) % 200);
            match model.remove(&k) {
                Some(no) => {
                    assert_eq!(t.remove(&k), Some(no));
                    free.push(no.0);
                }
                None => match free.pop() {
                    Some(no) => {
                        t.insert(k, NhIdx(no));
                        model.insert(k, NhIdx(no));
                    }
                    None => assert_eq!(t.remove(&k), None),
                },
            }
            for n in 0..200 {
                assert_eq!(t.get(&key(n)), model.get(&key(n)).copied());
            }
        }
        assert_eq!(t.iter().collect::<HashMap<_, _>>(), model);
        assert_eq!(t.len(), model.len());
    }

    /// IPv4 and IPv6 addresses of equal bits, and one address on two ports, are different next hops.
    #[test]
    fn families_and_ports_are_told_apart() {
        let t = NeighborTable::new(8);
        let (v4, v6) = ("0.0.0.7".parse().unwrap(), "::7".parse().unwrap());
        for (no, k) in [(1, (PortIdx(0), v4)), (2, (PortIdx(0), v6)), (3, (PortIdx(1), v4))] {
            assert_eq!(t.get(&k), None);
            t.insert(k, NhIdx(no));
        }
        assert_eq!(t.get(&(PortIdx(0), v4)), Some(NhIdx(1)));
        assert_eq!(t.get(&(PortIdx(0), v6)), Some(NhIdx(2)));
        assert_eq!(t.get(&(PortIdx(1), v4)), Some(NhIdx(3)));
        assert_eq!(t.get(&(PortIdx(1), v6)), None);
    }

    /// Readers see every neighbor that stays, whatever comes and goes around it.
    #[test]
    fn readers_find_what_stays_while_others_come_and_go() {
        use std::sync::atomic::AtomicBool;
        let t = NeighborTable::new(128);
        (1..40).for_each(|n| t.insert(key(u32::from(n)), NhIdx(n)));
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        for n in 1..40 {
                            assert_eq!(t.get(&key(u32::from(n))), Some(NhIdx(n)));
                        }
                    }
                });
            }
            for round in 0..2_000u32 {
                // Every number keeps its key: what a grace period is for is not part of this.
                for n in 40..128u16 {
                    if round % 2 == 0 {
                        t.insert(key(u32::from(n)), NhIdx(n));
                    } else {
                        t.remove(&key(u32::from(n)));
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
