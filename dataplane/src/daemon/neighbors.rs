//! Which neighbors the kernel is asked to resolve, and how many at a time (RFC 6583).
//!
//! An address that nobody has costs the kernel an entry for three seconds, and its table has room for some hundred of both
//! kinds together before it throws out neighbors that it knows. So those that have not answered are bounded by port and by
//! family, the oldest of them makes room for the next, and the kernel forgets it. Neighbors that have answered, and routers, are
//! never among them.

use super::floods::{Change, Watch};
use sag_model::config::Config;
use sag_model::{Nanos, PortIdx};
use sag_pipeline::resolution::{Rate, RateLimit, RequestRates};
use sag_pipeline::snapshot::NeighborKey;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Neighbors of one port and family that have been asked for and have not answered.
pub const MAX_INCOMPLETE: usize = 128;
/// The same of all ports together: half of what the kernel holds before it looks for room (`gc_thresh2`).
pub const MAX_INCOMPLETE_FAMILY: usize = 256;
/// After this time the kernel has given up, whether it has said so or not.
const GIVEN_UP: Nanos = Nanos::from_secs(5);

/// The neighbors of one port in one family; IPv6 or not.
type Class = (PortIdx, bool);

/// Neighbors that have been asked for and have not answered.
#[derive(Debug)]
pub struct Resolver {
    /// Requests to the kernel for neighbors of one port and family.
    limit: Rate,
    /// The oldest first.
    incomplete: BTreeMap<Class, VecDeque<(Nanos, NeighborKey)>>,
    rates: BTreeMap<Class, RateLimit>,
    /// Requests refused and requests given up for others, by port.
    limited: BTreeMap<PortIdx, u64>,
}

/// Whether a neighbor is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It has been asked for already.
    Pending,
    /// Yes, and the kernel forgets another one.
    Ask { instead_of: Option<NeighborKey> },
    /// The port has had its share of this second.
    Refused,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver {
            limit: Resolver::limit(RequestRates::default()),
            incomplete: BTreeMap::new(),
            rates: BTreeMap::new(),
            limited: BTreeMap::new(),
        }
    }
}

impl Resolver {
    /// As many as a port's neighbors and its strangers may request together.
    const fn limit(rates: RequestRates) -> Rate {
        let both = rates.port.saturating_mul(2);
        Rate { per_second: both, burst: both }
    }

    /// From here on as many may be requested as these rates say.
    pub fn set_rates(&mut self, rates: RequestRates) {
        self.limit = Resolver::limit(rates);
    }

    /// Whether a neighbor is asked for now; it counts as asked for then.
    pub fn admit(&mut self, key: NeighborKey, now: Nanos) -> Admission {
        let class = (key.0, key.1.is_ipv6());
        if self.incomplete.get(&class).is_some_and(|q| q.iter().any(|(_, k)| *k == key)) {
            return Admission::Pending;
        }
        let rate = self.rates.entry(class).or_default();
        if !rate.allows(now, self.limit) {
            self.count_limited(key.0);
            return Admission::Refused;
        }
        rate.take(now, self.limit);
        let instead_of = self.make_room(class);
        if let Some(old) = instead_of {
            self.count_limited(old.0);
        }
        self.incomplete.entry(class).or_default().push_back((now, key));
        Admission::Ask { instead_of }
    }

    /// The oldest of the class, or of the largest class of the family, if there is no room for one more.
    fn make_room(&mut self, class: Class) -> Option<NeighborKey> {
        let own = self.incomplete.get(&class).map_or(0, VecDeque::len);
        let family = self.incomplete.iter().filter(|(c, _)| c.1 == class.1);
        let from = if own >= MAX_INCOMPLETE {
            class
        } else if family.clone().map(|(_, q)| q.len()).sum::<usize>() >= MAX_INCOMPLETE_FAMILY {
            *family.max_by_key(|(_, q)| q.len())?.0
        } else {
            return None;
        };
        self.incomplete.get_mut(&from)?.pop_front().map(|(_, key)| key)
    }

    fn count_limited(&mut self, port: PortIdx) {
        *self.limited.entry(port).or_default() += 1;
    }

    /// A neighbor has answered, failed, or is gone. False: it was not waited for.
    pub fn settle(&mut self, key: &NeighborKey) -> bool {
        let Some(queue) = self.incomplete.get_mut(&(key.0, key.1.is_ipv6())) else { return false };
        let at = queue.iter().position(|(_, k)| k == key);
        at.and_then(|i| queue.remove(i)).is_some()
    }

    /// Neighbors of whose end nobody has heard.
    pub fn take_given_up(&mut self, now: Nanos) -> Vec<NeighborKey> {
        let mut out = Vec::new();
        for queue in self.incomplete.values_mut() {
            while let Some(&(since, key)) = queue.front()
                && now.saturating_sub(since) > GIVEN_UP
            {
                queue.pop_front();
                out.push(key);
            }
        }
        out
    }

    /// Neighbors that have been asked for and have not answered.
    pub fn incomplete(&self) -> usize {
        self.incomplete.values().map(VecDeque::len).sum()
    }

    /// Requests refused, and given up for others, at a port.
    pub fn limited(&self, port: PortIdx) -> u64 {
        self.limited.get(&port).copied().unwrap_or(0)
    }
}

/// Scans of addresses, and neighbors without a number: the log says when they begin and end.
#[derive(Debug, Default)]
pub struct NeighborEvents {
    scans: BTreeMap<PortIdx, Watch>,
    numbers: Watch,
}

impl NeighborEvents {
    /// Looks for scans that have begun or ended. `limited`: requests refused so far by port; `refused`: neighbors that got
    /// no number.
    pub fn check(&mut self, config: &Config, limited: &[(PortIdx, u64)], refused: u64, now: Instant) {
        for &(idx, total) in limited {
            let port = config.port(idx).map_or("?", |p| p.name.as_str());
            match self.scans.entry(idx).or_default().update(total, now) {
                Some(Change::Begins(requests)) => tracing::warn!(
                    event = "neighbor-scan",
                    port,
                    requests,
                    "more unresolved next hops than may be asked for (neighbor-rate-limit): somebody scans addresses that \
                     nobody has"
                ),
                Some(Change::Over { dropped, lasted }) => tracing::info!(
                    event = "neighbor-scan",
                    port,
                    requests = dropped,
                    seconds = lasted.as_secs(),
                    "the scan is over"
                ),
                None => {}
            }
        }
        match self.numbers.update(refused, now) {
            Some(Change::Begins(neighbors)) => tracing::error!(
                event = "next-hop-table-full",
                neighbors,
                "one port has as many neighbors as the next-hop table has room for: further ones are not reachable"
            ),
            Some(Change::Over { dropped, lasted }) => tracing::info!(
                event = "next-hop-table-full",
                neighbors = dropped,
                seconds = lasted.as_secs(),
                "all neighbors have room in the next-hop table again"
            ),
            None => {}
        }
    }

    /// What goes on now, as warnings.
    pub fn warnings(&self, config: &Config) -> Vec<String> {
        let scan = |(idx, w): (&PortIdx, &Watch)| {
            let (since, requests) = w.going_on()?;
            let port = config.port(*idx).map_or("?", |p| p.name.as_str());
            Some(format!(
                "port {port}: scan of addresses that nobody has since {} s, {requests} resolutions refused \
                 (neighbor-rate-limit)",
                since.as_secs()
            ))
        };
        let numbers = self.numbers.going_on().map(|(_, n)| {
            format!("the next-hop table has no room for {n} neighbors of one port: they are not reachable")
        });
        self.scans.iter().filter_map(scan).chain(numbers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn v4(port: u8, n: u32) -> NeighborKey {
        (PortIdx(port), IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + n)))
    }

    fn v6(port: u8, n: u32) -> NeighborKey {
        (PortIdx(port), IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n))))
    }

    fn ms(n: u64) -> Nanos {
        Nanos(n * 1_000_000)
    }

    /// 40,000 addresses that nobody has, 5,000 a second: the kernel never has more of them than the bound, and hears of a few
    /// hundred a second.
    #[test]
    fn a_scan_holds_a_bounded_number_of_entries() {
        let mut r = Resolver::default();
        let (mut asked, mut forgotten, mut refused) = (0, 0, 0);
        for n in 0..40_000u32 {
            match r.admit(v4(0, n), ms(u64::from(n) / 5)) {
                Admission::Ask { instead_of } => {
                    asked += 1;
                    forgotten += u32::from(instead_of.is_some());
                }
                Admission::Refused => refused += 1,
                Admission::Pending => panic!("{n} was not asked for"),
            }
            assert!(r.incomplete() <= MAX_INCOMPLETE);
        }
        let in_8_s = 8 * r.limit.per_second;
        assert!((in_8_s..=r.limit.burst + in_8_s).contains(&asked), "{asked} in 8 s");
        assert_eq!((asked - forgotten) as usize, MAX_INCOMPLETE);
        assert_eq!(r.limited(PortIdx(0)), u64::from(refused + forgotten));
        // Other ports and the other family are asked for as before.
        assert_eq!(r.admit(v4(1, 1), ms(8000)), Admission::Ask { instead_of: None });
        assert_eq!(r.admit(v6(0, 1), ms(8000)), Admission::Ask { instead_of: None });
        // Afterwards all is as before.
        assert_eq!(r.take_given_up(ms(14_000)).len(), MAX_INCOMPLETE + 2);
        assert_eq!(r.incomplete(), 0);
    }

    /// Where many ports are scanned, the largest gives way.
    #[test]
    fn the_largest_class_gives_way() {
        let mut r = Resolver::default();
        for port in 0..2 {
            for n in 0..MAX_INCOMPLETE as u32 {
                r.admit(v6(port, n), ms(0));
            }
        }
        assert_eq!(r.incomplete(), MAX_INCOMPLETE_FAMILY);
        let Admission::Ask { instead_of: Some(old) } = r.admit(v6(2, 7), ms(1)) else { panic!("no room") };
        assert_eq!(old.1, v6(0, 0).1, "the oldest");
        assert_eq!(r.admit(v6(2, 7), ms(1)), Admission::Pending);
        assert!(r.settle(&v6(2, 7)) && !r.settle(&v6(2, 7)));
        assert_eq!(r.admit(v4(2, 7), ms(1)), Admission::Ask { instead_of: None });
    }
}
