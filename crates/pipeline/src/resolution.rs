//! How many next hops may be requested, and for whom (RFC 6583).
//!
//! Whoever sends packets to addresses that nobody has makes the gateway ask for each of them. So what may be asked for in a
//! second is bounded by the port that the packets come by, and within it by their source: one host that scans uses up its own
//! share. Sources that are neighbors themselves have shares apart from those of strangers, whose addresses may be made up.
//! A router, and the far end of a session, is nobody's choice: these are always asked for.

use crate::hash::AddrHash;
use sag_model::{Nanos, PortIdx};
use std::net::IpAddr;

/// Requests a second for the packets of one source, and how many at once.
pub const SOURCE_RATE: Rate = Rate { per_second: 32, burst: 64 };
/// Requests a second for the packets that come by one port in one family from neighbors, the same from strangers, and how many
/// at once.
pub const PORT_RATE: Rate = Rate { per_second: 128, burst: 256 };
/// Packets of one source that wait at a time.
pub const MAX_PER_SOURCE: u16 = 64;
/// Packets of strangers that wait at a time: half of all that may.
pub const MAX_STRANGERS: u16 = 128;

/// Places for sources of a kind; those of equal hash share one.
const SOURCES: usize = 256;

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// After a rest.
    pub burst: u32,
}

impl Rate {
    /// The part of one of `workers`; sixteen at least.
    fn share(self, workers: u32) -> Rate {
        let part = |n: u32| (n / workers.max(1)).max(16);
        Rate { per_second: part(self.per_second), burst: part(self.burst) }
    }
}

/// When the next one is due at the steady rate (GCRA).
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimit(u64);

impl RateLimit {
    /// Whether one more may pass now.
    pub fn allows(&self, now: Nanos, rate: Rate) -> bool {
        let interval = 1_000_000_000 / u64::from(rate.per_second.max(1));
        self.0.saturating_sub(now.0) < interval * u64::from(rate.burst)
    }

    /// One more passes now.
    pub fn take(&mut self, now: Nanos, rate: Rate) {
        self.0 = self.0.max(now.0) + 1_000_000_000 / u64::from(rate.per_second.max(1));
    }
}

/// Whose packet waits for a next hop: a place among sources, those of strangers first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SourceNo(u16);

impl SourceNo {
    /// Of a packet that has no place yet.
    pub const NONE: SourceNo = SourceNo(0);

    const fn index(self) -> usize {
        self.0 as usize
    }

    const fn is_stranger(self) -> bool {
        self.index() < SOURCES
    }
}

/// The shares that one worker gives out.
#[derive(Debug)]
pub struct RequestLimits {
    seed: AddrHash,
    source_rate: Rate,
    port_rate: Rate,
    sources: Box<[RateLimit]>,
    ports: Box<[RateLimit]>,
    /// Packets that wait, by source.
    waiting: Box<[u16]>,
    strangers_waiting: u16,
}

impl RequestLimits {
    /// For one of `workers`.
    pub fn new(workers: u32) -> RequestLimits {
        RequestLimits {
            seed: AddrHash::default(),
            source_rate: SOURCE_RATE.share(workers),
            port_rate: PORT_RATE.share(workers),
            sources: vec![RateLimit::default(); 2 * SOURCES].into_boxed_slice(),
            ports: vec![RateLimit::default(); 4 * PortIdx::MAX].into_boxed_slice(),
            waiting: vec![0; 2 * SOURCES].into_boxed_slice(),
            strangers_waiting: 0,
        }
    }

    /// From here on everything is allowed.
    pub fn lift(&mut self) {
        let any = Rate { per_second: 1_000_000_000, burst: u32::MAX };
        (self.source_rate, self.port_rate) = (any, any);
    }

    /// The place of a source. `neighbor`: it is one of the port that the packet came by. A stranger counts with its /64,
    /// since it can have any address in there.
    pub fn source(&self, ingress: PortIdx, src: IpAddr, neighbor: bool) -> SourceNo {
        let (high, low) = match src {
            IpAddr::V4(a) => (0, u64::from(a.to_bits())),
            IpAddr::V6(a) => ((a.to_bits() >> 64) as u64, if neighbor { a.to_bits() as u64 } else { 0 }),
        };
        let place = self.seed.words([high, low, u64::from(ingress.0)]) as usize % SOURCES;
        SourceNo((place + if neighbor { SOURCES } else { 0 }) as u16)
    }

    /// Whether one more next hop may be requested for a packet that came by `ingress`.
    pub fn allow(&mut self, now: Nanos, ingress: PortIdx, v6: bool, source: SourceNo) -> bool {
        let class = usize::from(v6) | usize::from(source.is_stranger()) << 1;
        let port = &mut self.ports[4 * ingress.index().min(PortIdx::MAX - 1) + class];
        let source = &mut self.sources[source.index()];
        let allowed = source.allows(now, self.source_rate) && port.allows(now, self.port_rate);
        if allowed {
            source.take(now, self.source_rate);
            port.take(now, self.port_rate);
        }
        allowed
    }

    /// Whether one more packet of a source may wait.
    pub fn has_room(&self, source: SourceNo) -> bool {
        self.waiting[source.index()] < MAX_PER_SOURCE
            && (!source.is_stranger() || self.strangers_waiting < MAX_STRANGERS)
    }

    /// A packet of a source waits.
    pub fn waits(&mut self, source: SourceNo) {
        self.waiting[source.index()] += 1;
        self.strangers_waiting += u16::from(source.is_stranger());
    }

    /// A packet of a source waits no longer.
    pub fn went(&mut self, source: SourceNo) {
        let n = &mut self.waiting[source.index()];
        *n = n.saturating_sub(1);
        self.strangers_waiting = self.strangers_waiting.saturating_sub(u16::from(source.is_stranger()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    fn allowed(l: &mut RequestLimits, at_ms: u64, source: SourceNo, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(l.allow(Nanos(at_ms * 1_000_000), PortIdx(0), false, source))).sum()
    }

    #[test]
    fn one_source_uses_up_its_own_share() {
        let mut l = RequestLimits::new(1);
        let (scanner, other) = (l.source(PortIdx(0), v4(1), true), l.source(PortIdx(0), v4(7), true));
        assert_ne!(scanner, other, "choose other addresses");
        assert_eq!(allowed(&mut l, 0, scanner, 10_000), SOURCE_RATE.burst);
        assert_eq!(allowed(&mut l, 1000, scanner, 10_000), SOURCE_RATE.per_second);
        assert_eq!(allowed(&mut l, 1000, other, 10), 10);
    }

    /// Made-up sources use up what strangers have; neighbors, and the same strangers at another port, have theirs.
    #[test]
    fn strangers_do_not_use_up_what_neighbors_have() {
        let mut l = RequestLimits::new(1);
        let mut n = 0;
        for i in 0..100_000 {
            let source = l.source(PortIdx(0), v4(i), false);
            n += allowed(&mut l, 0, source, 1);
        }
        assert_eq!(n, PORT_RATE.burst);
        let neighbor = l.source(PortIdx(0), v4(3), true);
        assert_eq!(allowed(&mut l, 0, neighbor, 10), 10);
        let elsewhere = l.source(PortIdx(1), v4(3), false);
        assert!(l.allow(Nanos(0), PortIdx(1), true, elsewhere));
        // A stranger has a whole /64.
        let in_prefix = |last: u16| format!("2001:db8::{last:x}").parse().unwrap();
        assert_eq!(l.source(PortIdx(0), in_prefix(1), false), l.source(PortIdx(0), in_prefix(2), false));
        assert_ne!(l.source(PortIdx(0), in_prefix(1), true), l.source(PortIdx(0), in_prefix(2), true));
    }

    #[test]
    fn workers_share_what_a_port_may_ask_for() {
        let mut n = 0;
        for _ in 0..4 {
            let mut l = RequestLimits::new(4);
            for i in 0..10_000 {
                let source = l.source(PortIdx(0), v4(i), false);
                n += allowed(&mut l, 0, source, 1);
            }
        }
        assert_eq!(n, PORT_RATE.burst);
    }
}
