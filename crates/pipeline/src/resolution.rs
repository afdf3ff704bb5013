//! How many next hops may be requested, and for whom (RFC 6583).
//!
//! Whoever sends packets to addresses that nobody has makes the gateway ask for each of them. So what may be asked for in a
//! second is bounded by the port that the packets come by, and within it by their source: one host that scans uses up its own
//! share. Sources that are neighbors themselves have shares apart from those of strangers, whose addresses may be made up.
//! Among strangers, shares are nested ([`Class`]): some of what they have is left to hosts that have sessions with answers, and
//! some to senders that come back after a second, as everybody does whose connection is not answered; who makes up a source
//! for each packet is neither. A router, and the far end of a session, is nobody's choice: these are always asked for.
//!
//! Sources are counted in a sketch of fixed size: two rows with hashes of their own, the lower count holds. So nothing fills
//! up by invented sources, and a host shares its rate with a scanner only where both rows put them in one place.

use crate::hash::AddrHash;
use sag_model::{Nanos, PortIdx};
use std::net::IpAddr;

/// What may be requested, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRates {
    /// Requests a second for the packets of one source.
    pub source: u32,
    /// Requests a second for the packets that come by one port in one family from neighbors; the same from strangers.
    pub port: u32,
}

impl Default for RequestRates {
    fn default() -> RequestRates {
        RequestRates { source: 32, port: 128 }
    }
}

impl RequestRates {
    /// Of one source.
    pub const fn of_source(self) -> Rate {
        Rate::of(self.source)
    }

    /// Of a port's neighbors, or of all strangers there.
    pub const fn of_port(self) -> Rate {
        Rate::of(self.port)
    }
}

/// Packets of one source that wait at a time.
pub const MAX_PER_SOURCE: u16 = 64;
/// Packets of strangers that wait at a time: half of all that may.
pub const MAX_STRANGERS: u16 = 128;

/// Places for sources in a row of the sketch.
const SOURCES: usize = 512;
/// Places for senders that have been refused, of whom it is seen that they come back.
const ATTEMPTS: usize = 1 << 17;
/// Who comes back earlier than this has not waited, and who comes later is a new one.
const COMES_BACK: std::ops::RangeInclusive<u64> = 500..=4_000;

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// After a rest.
    pub burst: u32,
}

impl Rate {
    /// So many a second, and those of two seconds at once.
    pub const fn of(per_second: u32) -> Rate {
        Rate { per_second, burst: per_second.saturating_mul(2) }
    }

    /// The part of one of `workers`; sixteen at least.
    fn share(self, workers: u32) -> Rate {
        let part = |n: u32| (n / workers.max(1)).max(n.min(16));
        Rate { per_second: part(self.per_second), burst: part(self.burst) }
    }

    /// So many quarters of it.
    fn quarters(self, n: u32) -> Rate {
        let part = |all: u32| (u64::from(all) * u64::from(n) / 4).max(1) as u32;
        Rate { per_second: part(self.per_second), burst: part(self.burst) }
    }

    const fn interval(self) -> u64 {
        1_000_000_000 / if self.per_second == 0 { 1 } else { self.per_second as u64 }
    }
}

/// When the next one is due at the steady rate (GCRA).
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimit(u64);

impl RateLimit {
    /// Whether one more may pass now.
    pub fn allows(&self, now: Nanos, rate: Rate) -> bool {
        self.0.saturating_sub(now.0) < rate.interval() * u64::from(rate.burst)
    }

    /// One more passes now.
    pub fn take(&mut self, now: Nanos, rate: Rate) {
        self.0 = self.0.max(now.0) + rate.interval();
    }
}

/// Who sends a packet without a next hop. A class has what it says and what those before it leave of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Class {
    /// Anybody: half of what strangers have.
    #[default]
    Stranger,
    /// A stranger that has been refused and comes back for the same destination: three quarters.
    Returning,
    /// A stranger with sessions that were answered: all of it.
    Known,
    /// A neighbor of the port: as much as all strangers, apart from them.
    Neighbor,
}

impl Class {
    /// Quarters of its share that this class and those before it may have.
    const fn quarters(self) -> u32 {
        match self {
            Class::Stranger => 2,
            Class::Returning => 3,
            Class::Known | Class::Neighbor => 4,
        }
    }

    /// Packets of this class and of those before it that may wait.
    const fn room(self) -> u16 {
        match self {
            Class::Neighbor => u16::MAX,
            stranger => MAX_STRANGERS / 4 * stranger.quarters() as u16,
        }
    }

    /// Classes whose share a request of this one uses up.
    const fn charged(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Class::Neighbor => 3..=3,
            stranger => stranger as usize..=Class::Known as usize,
        }
    }
}

/// Classes.
const CLASSES: [Class; 4] = [Class::Stranger, Class::Returning, Class::Known, Class::Neighbor];

/// Whose packet waits for a next hop: its places in the sketch, and its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requester {
    places: [u16; 2],
    class: Class,
}

impl Requester {
    /// Of a packet that has no place yet.
    pub const NONE: Requester = Requester { places: [0; 2], class: Class::Stranger };

    /// Of which class.
    pub const fn class(self) -> Class {
        self.class
    }

    fn indexes(self) -> [usize; 2] {
        let kind = if self.class == Class::Neighbor { 2 * SOURCES } else { 0 };
        [kind + usize::from(self.places[0]), kind + SOURCES + usize::from(self.places[1])]
    }
}

/// Senders that have been refused: for each place a part of the hash of source and destination, and when.
#[derive(Debug)]
struct Attempts(Box<[u32]>);

impl Attempts {
    const TIME_BITS: u32 = 12;
    const UNIT_MS: u64 = 8;

    /// Whether this sender has been refused a while ago and comes back. If not, it is noted.
    fn comes_back(&mut self, now: Nanos, hash: u64) -> bool {
        let mask = (1 << Attempts::TIME_BITS) - 1;
        let tick = (now.0 / 1_000_000 / Attempts::UNIT_MS) as u32 & mask;
        // The hash is a product folded: all of its bits are as good.
        let mark = ((hash >> 20) as u32 & !mask) | 1 << Attempts::TIME_BITS;
        let place = &mut self.0[hash as usize % ATTEMPTS];
        let waited = u64::from(tick.wrapping_sub(*place) & mask) * Attempts::UNIT_MS;
        let same = *place & !mask == mark;
        if same && COMES_BACK.contains(&waited) {
            return true;
        }
        if !same || waited > *COMES_BACK.end() {
            *place = mark | tick;
        }
        false
    }
}

/// The shares that one worker gives out.
#[derive(Debug)]
pub struct RequestLimits {
    seed: AddrHash,
    workers: u32,
    /// Nothing is refused.
    lifted: bool,
    /// Of strangers two rows, then of neighbors two.
    sources: Box<[RateLimit]>,
    /// By port, family and class.
    ports: Box<[RateLimit]>,
    /// Packets that wait, by source.
    waiting: Box<[u16]>,
    /// Packets that wait, by class.
    waiting_of: [u16; CLASSES.len()],
    attempts: Attempts,
}

impl RequestLimits {
    /// For one of `workers`.
    pub fn new(workers: u32) -> RequestLimits {
        RequestLimits {
            seed: AddrHash::default(),
            workers,
            lifted: false,
            sources: vec![RateLimit::default(); 4 * SOURCES].into_boxed_slice(),
            ports: vec![RateLimit::default(); 2 * CLASSES.len() * PortIdx::MAX].into_boxed_slice(),
            waiting: vec![0; 4 * SOURCES].into_boxed_slice(),
            waiting_of: [0; CLASSES.len()],
            attempts: Attempts(vec![0; ATTEMPTS].into_boxed_slice()),
        }
    }

    /// From here on everything is allowed.
    pub fn lift(&mut self) {
        self.lifted = true;
    }

    /// Whose a packet is that came by a port. A stranger counts with its /64, since it can have any address in there.
    pub fn requester(&self, ingress: PortIdx, src: IpAddr, class: Class) -> Requester {
        let (high, low) = match src {
            IpAddr::V4(a) => (0, u64::from(a.to_bits())),
            IpAddr::V6(a) => {
                let own = if class == Class::Neighbor { a.to_bits() as u64 } else { 0 };
                ((a.to_bits() >> 64) as u64, own)
            }
        };
        let hash = self.seed.words([high, low, u64::from(ingress.0)]);
        let place = |h: u64| (h as usize % SOURCES) as u16;
        Requester { places: [place(hash), place(hash >> 32)], class }
    }

    /// Whether one more next hop may be requested for a packet that came by `ingress`. A stranger that is refused and comes
    /// back is a [`Class::Returning`] then.
    pub fn allow(
        &mut self,
        (now, rates): (Nanos, RequestRates),
        (ingress, from): (PortIdx, &mut Requester),
        (src, to): (IpAddr, IpAddr),
    ) -> bool {
        if self.lifted || self.take(now, rates, (ingress, to.is_ipv6()), *from) {
            return true;
        }
        if from.class != Class::Stranger || !self.attempts.comes_back(now, self.pair(src, to)) {
            return false;
        }
        from.class = Class::Returning;
        self.take(now, rates, (ingress, to.is_ipv6()), *from)
    }

    fn pair(&self, src: IpAddr, to: IpAddr) -> u64 {
        let fold = |ip: IpAddr| match ip {
            IpAddr::V4(a) => (0, u64::from(a.to_bits())),
            IpAddr::V6(a) => ((a.to_bits() >> 64) as u64, a.to_bits() as u64),
        };
        let ((a, b), (c, d)) = (fold(src), fold(to));
        self.seed.words([self.seed.words([a, b, 1]), c, d])
    }

    fn take(
        &mut self,
        now: Nanos,
        rates: RequestRates,
        (ingress, v6): (PortIdx, bool),
        from: Requester,
    ) -> bool {
        let (of_source, of_port) =
            (rates.of_source().share(self.workers), rates.of_port().share(self.workers));
        let first = CLASSES.len() * (2 * ingress.index().min(PortIdx::MAX - 1) + usize::from(v6));
        let [a, b] = from.indexes();
        let least = if self.sources[a].0 <= self.sources[b].0 { a } else { b };
        let allowed = self.sources[least].allows(now, of_source)
            && from
                .class
                .charged()
                .all(|c| self.ports[first + c].allows(now, of_port.quarters(CLASSES[c].quarters())));
        if allowed {
            self.sources[least].take(now, of_source);
            // The other row is raised no further than what the lower one knows: it counts others, too.
            let due = self.sources[least].0;
            for i in [a, b] {
                self.sources[i].0 = self.sources[i].0.max(due);
            }
            for c in from.class.charged() {
                self.ports[first + c].take(now, of_port.quarters(CLASSES[c].quarters()));
            }
        }
        allowed
    }

    /// Whether one more packet of a source may wait.
    pub fn has_room(&self, from: Requester) -> bool {
        let [a, b] = from.indexes();
        let before: u16 = self.waiting_of[..=from.class as usize].iter().sum();
        self.waiting[a].min(self.waiting[b]) < MAX_PER_SOURCE && before < from.class.room()
    }

    /// A packet of a source waits.
    pub fn waits(&mut self, from: Requester) {
        from.indexes().into_iter().for_each(|i| self.waiting[i] += 1);
        self.waiting_of[from.class as usize] += 1;
    }

    /// A packet of a source waits no longer.
    pub fn went(&mut self, from: Requester) {
        let less = |n: &mut u16| *n = n.saturating_sub(1);
        from.indexes().into_iter().for_each(|i| less(&mut self.waiting[i]));
        less(&mut self.waiting_of[from.class as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const RATES: RequestRates = RequestRates { source: 32, port: 128 };

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    /// Whether a packet gets its next hop requested, by port 0 over IPv4.
    fn ask(l: &mut RequestLimits, ms: u64, src: u32, to: u32, class: Class) -> bool {
        let mut from = l.requester(PortIdx(0), v4(src), class);
        l.allow((Nanos(ms * 1_000_000), RATES), (PortIdx(0), &mut from), (v4(src), v4(to)))
    }

    /// How many of so many, each for another destination.
    fn allowed(l: &mut RequestLimits, ms: u64, src: u32, class: Class, tries: u32) -> u32 {
        (0..tries).map(|to| u32::from(ask(l, ms, src, to, class))).sum()
    }

    #[test]
    fn one_source_uses_up_its_own_share() {
        let mut l = RequestLimits::new(1);
        assert_eq!(allowed(&mut l, 0, 1, Class::Neighbor, 10_000), 64);
        assert_eq!(allowed(&mut l, 1000, 1, Class::Neighbor, 10_000), 32);
        assert_eq!(allowed(&mut l, 1000, 7, Class::Neighbor, 10), 10);
    }

    /// In one row of 256 places a scanner took their requests from 4 of a thousand others, in two rows from none of most
    /// thousands; several scanners from few.
    #[test]
    fn a_scanner_shares_its_rate_with_hardly_anybody() {
        let (mut refused, mut tried) = (0, 0);
        for round in 0..20u32 {
            let mut l = RequestLimits::new(1);
            // Of every process another seed; a thread of tests has one, so the scanners differ.
            for scanner in 0..4 {
                allowed(&mut l, 0, 1 + scanner + 1000 * round, Class::Neighbor, 80);
            }
            for other in 0..1000 {
                // Each by itself: what others have used of the port is not the point here.
                l.ports.fill(RateLimit::default());
                let before = l.sources.clone();
                tried += 1;
                refused += u32::from(!ask(&mut l, 0, 1 << 24 | other, 1, Class::Neighbor));
                l.sources = before;
            }
        }
        assert!(refused * 2_000 <= tried, "{refused} of {tried}");
    }

    /// Made-up sources use up half of what strangers have; neighbors, and the same strangers at another port, have theirs.
    #[test]
    fn strangers_do_not_use_up_what_others_have() {
        let mut l = RequestLimits::new(1);
        let n: u32 = (0..100_000).map(|i| u32::from(ask(&mut l, 0, i, i, Class::Stranger))).sum();
        assert_eq!(n, 128, "half of the burst");
        assert_eq!(allowed(&mut l, 0, 1 << 24, Class::Known, 20), 20);
        assert_eq!(allowed(&mut l, 0, 3, Class::Neighbor, 10), 10);
        let mut elsewhere = l.requester(PortIdx(1), v4(3), Class::Stranger);
        assert!(l.allow((Nanos(0), RATES), (PortIdx(1), &mut elsewhere), (v4(3), v4(9))));
        // A stranger has a whole /64.
        let in_prefix = |last: u16| format!("2001:db8::{last:x}").parse().unwrap();
        let one = |l: &RequestLimits, last, class| l.requester(PortIdx(0), in_prefix(last), class);
        assert_eq!(one(&l, 1, Class::Stranger), one(&l, 2, Class::Stranger));
        assert_ne!(one(&l, 1, Class::Neighbor), one(&l, 2, Class::Neighbor));
    }

    /// While made-up sources take all that is anybody's, a stranger is refused and comes back after a second, as TCP does. At
    /// 30,000 a second some are forgotten meanwhile; they come back once more.
    #[test]
    fn who_comes_back_gets_through() {
        for (rate, percent) in [(4_000, 95), (30_000, 90)] {
            let mut l = RequestLimits::new(1);
            let mut n = 0u32;
            let (mut begun, mut opened) = (0, 0);
            // Hosts that have not got through: who, at which try.
            let mut waiting: Vec<(u64, u32)> = Vec::new();
            for ms in 0..8_000u64 {
                for _ in 0..rate / 1000 {
                    n += 1;
                    ask(&mut l, ms, n, n.wrapping_mul(7), Class::Stranger);
                }
                if ms % 20 == 0 && (2_000..5_000).contains(&ms) {
                    begun += 1;
                    waiting.push((ms, 1 << 30 | ms as u32));
                }
                waiting.retain(|&(since, host)| {
                    let due = ms >= since && ms - since <= 2_000 && (ms - since) % 1000 == 0;
                    let through = due && ask(&mut l, ms, host, host, Class::Stranger);
                    opened += u32::from(through);
                    !through
                });
            }
            assert!(opened * 100 >= begun * percent, "{opened} of {begun} beside {rate} a second");
        }
    }

    #[test]
    fn who_does_not_wait_is_no_better_off() {
        let mut l = RequestLimits::new(1);
        (0..10_000).for_each(|i| {
            ask(&mut l, 0, i, i, Class::Stranger);
        });
        for ms in [0, 1, 100, 499] {
            assert!(!ask(&mut l, ms / 500, 1 << 30, 1, Class::Stranger), "{ms} ms");
        }
        // For another destination it has not waited either.
        allowed(&mut l, 0, 1 << 30, Class::Stranger, 5);
        let (mut first, mut second) =
            (Attempts(vec![0; ATTEMPTS].into()), Attempts(vec![0; ATTEMPTS].into()));
        assert!(!first.comes_back(Nanos(0), 1 << 40) && !first.comes_back(Nanos::from_secs(1), 1 << 41));
        assert!(!second.comes_back(Nanos(0), 1 << 40) && second.comes_back(Nanos::from_secs(1), 1 << 40));
        assert!(!second.comes_back(Nanos::from_secs(6), 1 << 40), "too late: begins again");
        assert!(second.comes_back(Nanos::from_secs(7), 1 << 40));
    }

    #[test]
    fn workers_share_what_a_port_may_ask_for() {
        let mut n = 0;
        for _ in 0..4 {
            let mut l = RequestLimits::new(4);
            n += (0..10_000).map(|i| u32::from(ask(&mut l, 0, i, i, Class::Known))).sum::<u32>();
        }
        assert_eq!(n, RATES.of_port().burst);
    }

    /// Packets that wait: of strangers, those that are nobody's leave room to the others.
    #[test]
    fn places_to_wait_are_shared_as_requests_are() {
        let mut l = RequestLimits::new(1);
        let mut fill = |class, from: u32| {
            let waits = |l: &mut RequestLimits, i| {
                let r = l.requester(PortIdx(0), v4(i), class);
                let room = l.has_room(r);
                if room {
                    l.waits(r);
                }
                room
            };
            (from..from + 1000).filter(|i| waits(&mut l, *i)).count()
        };
        let got = [fill(Class::Stranger, 0), fill(Class::Returning, 2000), fill(Class::Known, 4000)];
        assert_eq!(got, [64, 32, 32]);
        let one = l.requester(PortIdx(0), v4(9), Class::Neighbor);
        (0..MAX_PER_SOURCE).for_each(|_| l.waits(one));
        assert!(!l.has_room(one));
        l.went(one);
        assert!(l.has_room(one));
    }
}
