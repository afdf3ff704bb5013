//! Prefixes that providers have delegated, and what follows from them: networks of LAN ports, and routes. Pure: times are
//! seconds of a clock that never goes back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use sag_rtnl::Lifetimes;
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use crate::config::Wan6;

/// How long a prefix that the provider has replaced is still valid: ND_VALID_LIMIT of RFC 9096 section 4.
pub const STALE: u64 = 5400;

/// Prefixes of one port that are remembered, replaced ones included: a provider that gives others all the time costs no more.
const MOST: usize = 32;

/// A prefix that a provider has delegated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The WAN port.
    pub port: String,
    pub prefix: Ipv6Net,
    /// [`u64::MAX`]: always.
    pub preferred_until: u64,
    pub valid_until: u64,
}

/// What of the prefixes concerns a network of a LAN port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LanAddress {
    /// The LAN port.
    pub port: String,
    pub address: Ipv6Net,
}

/// All that were delegated, those that were replaced included, as long as they are valid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations(Vec<Delegation>);

impl Delegations {
    /// What the server of a port has given at a time. A prefix that it does not name any more is deprecated: hosts make no
    /// new connections from it, and have some time for those that they have.
    pub fn renew(&mut self, port: &str, lease: &Lease, at: u64) {
        let until = |seconds: u32| match seconds {
            u32::MAX => u64::MAX,
            _ => at.saturating_add(seconds.into()),
        };
        let mut named: BTreeMap<Ipv6Net, Lifetimes> = BTreeMap::new();
        named.extend(lease.prefixes.iter().filter(|(_, times)| times.valid > 0).copied());
        for d in self.0.iter_mut().filter(|d| d.port == port) {
            match named.remove(&d.prefix) {
                Some(times) => {
                    (d.preferred_until, d.valid_until) = (until(times.preferred), until(times.valid));
                }
                None => d.deprecate(at),
            }
        }
        self.0.extend(named.into_iter().map(|(prefix, times)| Delegation {
            port: port.to_owned(),
            prefix,
            preferred_until: until(times.preferred),
            valid_until: until(times.valid),
        }));
        self.forget(port);
    }

    /// Of too many those go first that hosts use no more, and that would have ended first.
    fn forget(&mut self, port: &str) {
        while self.0.iter().filter(|d| d.port == port).count() > MOST {
            let of_port = self.0.iter().enumerate().filter(|(_, d)| d.port == port);
            let Some((first, _)) = of_port.min_by_key(|(_, d)| (d.preferred_until, d.valid_until)) else {
                return;
            };
            self.0.remove(first);
        }
    }

    /// Takes what is not valid any more away, and all of ports that get none; returns those prefixes.
    pub fn expire(&mut self, now: u64, ports: &BTreeSet<String>) -> Vec<Ipv6Net> {
        let (gone, stays) =
            self.0.drain(..).partition(|d: &Delegation| d.valid_until <= now || !ports.contains(&d.port));
        self.0 = stays;
        gone.into_iter().map(|d: Delegation| d.prefix).collect()
    }

    /// Whether the port has a prefix that its provider has not replaced.
    pub fn is_preferred(&self, port: &str, now: u64) -> bool {
        self.0.iter().any(|d| d.port == port && d.preferred_until > now)
    }

    /// The prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        self.0.iter().map(|d| d.prefix)
    }

    /// The addresses of the LAN ports, and what does not fit, as (LAN port, reason).
    pub fn addresses(
        &self,
        wans: &[Wan6],
        now: u64,
    ) -> (BTreeMap<LanAddress, Lifetimes>, Vec<(String, String)>) {
        let (mut out, mut problems) = (BTreeMap::new(), Vec::new());
        for d in &self.0 {
            let Some(wan) = wans.iter().find(|w| w.port == d.port) else { continue };
            for (port, id) in &wan.lans {
                match subnet(d.prefix, *id) {
                    Some(address) => {
                        out.insert(LanAddress { port: port.clone(), address }, d.lifetimes(now));
                    }
                    None => {
                        let why = format!("the prefix {} of port {} has no subnet {id}", d.prefix, d.port);
                        problems.push((port.clone(), why));
                    }
                }
            }
        }
        (out, problems)
    }
}

impl Delegation {
    fn deprecate(&mut self, at: u64) {
        self.preferred_until = self.preferred_until.min(at);
        self.valid_until = self.valid_until.min(at.saturating_add(STALE));
    }

    fn lifetimes(&self, now: u64) -> Lifetimes {
        let left = |until: u64| match until {
            u64::MAX => u32::MAX,
            _ => u32::try_from(until.saturating_sub(now)).unwrap_or(u32::MAX - 1),
        };
        Lifetimes { preferred: left(self.preferred_until), valid: left(self.valid_until) }
    }
}

/// The gateway's address in a network of 64 bits of a prefix: the first one.
fn subnet(prefix: Ipv6Net, id: u32) -> Option<Ipv6Net> {
    let bits = 64u32.checked_sub(prefix.prefix_len().into())?;
    if bits < 32 && u64::from(id) >= 1 << bits {
        return None;
    }
    let address = u128::from(prefix.network()) | u128::from(id) << 64 | 1;
    Ipv6Net::new(Ipv6Addr::from(address), 64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Wan6Address;
    use proptest::prelude::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().expect("net")
    }

    fn lease(prefixes: &[(&str, u32, u32)]) -> Lease {
        let prefixes = prefixes
            .iter()
            .map(|(p, preferred, valid)| (net(p), Lifetimes { preferred: *preferred, valid: *valid }))
            .collect();
        Lease { addresses: Vec::new(), prefixes }
    }

    fn wan(lans: &[(&str, u32)]) -> Vec<Wan6> {
        let lans = lans.iter().map(|(port, id)| ((*port).to_owned(), *id)).collect();
        let (port, device) = ("0".to_owned(), "wan".to_owned());
        vec![Wan6 { port, device, address: Wan6Address::Dhcp, prefix_length: None, lans }]
    }

    fn shown(all: &Delegations, lans: &[(&str, u32)], now: u64) -> Vec<(String, String, u32, u32)> {
        let (addresses, _) = all.addresses(&wan(lans), now);
        let row = |(a, t): (LanAddress, Lifetimes)| (a.port, a.address.to_string(), t.preferred, t.valid);
        addresses.into_iter().map(row).collect()
    }

    #[test]
    fn each_lan_has_its_network_as_long_as_the_lease() {
        let mut all = Delegations::default();
        all.renew("0", &lease(&[("2001:db8:8000::/56", 300, 600)]), 1000);
        let lans = [("1", 0), ("4", 255)];
        let want = |preferred, valid| {
            [
                ("1".to_owned(), "2001:db8:8000::1/64".to_owned(), preferred, valid),
                ("4".to_owned(), "2001:db8:8000:ff::1/64".to_owned(), preferred, valid),
            ]
        };
        assert_eq!(shown(&all, &lans, 1100), want(200, 500));
        all.renew("0", &lease(&[("2001:db8:8000::/56", 300, 600)]), 1200);
        assert_eq!(shown(&all, &lans, 1200), want(300, 600));
        // Not renewed: deprecated, then gone.
        assert_eq!(shown(&all, &lans, 1600), want(0, 200));
        let ports = BTreeSet::from(["0".to_owned()]);
        assert!(all.expire(1799, &ports).is_empty());
        assert_eq!(all.expire(1800, &ports), [net("2001:db8:8000::/56")]);
        assert!(shown(&all, &lans, 1800).is_empty());
        // A prefix without end.
        all.renew("0", &lease(&[("2001:db8:8000::/56", u32::MAX, u32::MAX)]), 1000);
        assert_eq!(shown(&all, &lans, 1_000_000_000), want(u32::MAX, u32::MAX));
        // A port that gets none any more.
        assert_eq!(all.expire(2000, &BTreeSet::new()).len(), 1);
    }

    #[test]
    fn a_prefix_that_is_replaced_is_deprecated() {
        let mut all = Delegations::default();
        all.renew("0", &lease(&[("2001:db8:8000::/56", 30_000, 60_000)]), 0);
        all.renew("1", &lease(&[("2001:db8:7000::/56", 30_000, 60_000)]), 0);
        all.renew("0", &lease(&[("2001:db8:9000::/56", 30_000, 60_000)]), 100);
        let now = shown(&all, &[("1", 1)], 100);
        assert_eq!(
            now,
            [
                ("1".to_owned(), "2001:db8:8000:1::1/64".to_owned(), 0, 5400),
                ("1".to_owned(), "2001:db8:9000:1::1/64".to_owned(), 30_000, 60_000),
            ]
        );
        // Again the same: what is left does not grow.
        all.renew("0", &lease(&[("2001:db8:9000::/56", 30_000, 60_000)]), 1100);
        assert_eq!(shown(&all, &[("1", 1)], 1100)[0].3, 4400);
        // The server says itself that it is over: both ways of saying it.
        for gone in [&lease(&[("2001:db8:9000::/56", 0, 0)]), &Lease::default()] {
            let mut all = all.clone();
            all.renew("0", gone, 2000);
            assert!(!all.is_preferred("0", 2000) && all.is_preferred("1", 2000));
            assert!(shown(&all, &[("1", 1)], 2000).iter().all(|(.., preferred, _)| *preferred == 0));
        }
    }

    #[test]
    fn a_provider_that_renumbers_all_the_time_is_remembered_in_part() {
        let mut all = Delegations::default();
        for n in 0..200u64 {
            all.renew("0", &lease(&[(&format!("2001:db8:{n:x}00::/56"), 300, 600)]), n);
        }
        assert_eq!(all.prefixes().count(), MOST);
        assert!(all.is_preferred("0", 200) && all.prefixes().any(|p| p == net("2001:db8:c700::/56")));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut all = Delegations::default();
        all.renew("0", &lease(&[("2001:db8:8000::/62", 30, 60)]), 0);
        let (addresses, problems) = all.addresses(&wan(&[("1", 3), ("4", 4)]), 0);
        assert_eq!(addresses.len(), 1);
        assert_eq!(
            problems,
            [("4".to_owned(), "the prefix 2001:db8:8000::/62 of port 0 has no subnet 4".to_owned())]
        );
        assert_eq!(subnet(net("2001:db8::/65"), 0), None, "too long for any");
        assert_eq!(subnet(net("2001:db8:1:2::/64"), 0), Some(net("2001:db8:1:2::1/64")));
        assert_eq!(subnet(net("2000::/16"), 0xffff), Some(net("2000:0:0:ffff::1/64")));
    }

    proptest! {
        /// Networks of LAN ports are within the prefix, and no two are one.
        #[test]
        fn networks_are_apart(bits: u128, len in 16..=64u8, a in 0..70_000u32, b in 0..70_000u32) {
            let prefix = Ipv6Net::new(Ipv6Addr::from(bits), len).expect("net").trunc();
            let (one, other) = (subnet(prefix, a), subnet(prefix, b));
            for s in [one, other].into_iter().flatten() {
                prop_assert!(prefix.contains(&s.trunc()));
            }
            prop_assert!(one.is_none() || (one == other) == (a == b));
        }
    }
}
