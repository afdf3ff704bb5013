//! Whether a packet's source may come in where it came in: reverse-path forwarding (RFC 3704, RFC 8704).
//!
//! The check runs for packets that no flow record answers for. A record notes the port or tunnel for which it was
//! passed ([`IngressId`](sag_model::flow::IngressId)), so packets of an established flow cost nothing, and one
//! that comes in elsewhere is checked again.

use super::{Member, Route, Snapshot};
use crate::hash::AddrHash;
use crate::tunnel::TunnelNo;
use sag_model::config::ReversePath;
use sag_model::{DropReason, PortIdx, VrfNo, Zone};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Snapshot {
    /// Checks that packets from `src` may come in by a port, or out of a tunnel.
    ///
    /// # Errors
    ///
    /// [`DropReason::ReversePath`], [`DropReason::TunnelSource`].
    #[inline]
    pub fn check_source(
        &self,
        src: IpAddr,
        ingress: PortIdx,
        tunnel: Option<TunnelNo>,
    ) -> Result<(), DropReason> {
        let mode = match tunnel {
            Some(_) => match self.tunnel(tunnel) {
                Some(t) => match &t.sources {
                    Some(sources) if sources.contains(src) => return Ok(()),
                    Some(_) => return Err(DropReason::TunnelSource),
                    None => t.reverse_path,
                },
                None => ReversePath::Strict,
            },
            None => self.port(ingress).map_or(ReversePath::Strict, |p| p.reverse_path),
        };
        let passes = mode == ReversePath::Off
            || self
                .route_no(self.vrf_of(ingress, tunnel), src)
                .is_some_and(|no| self.leads_back(no, mode, ingress, tunnel));
        if passes { Ok(()) } else { Err(DropReason::ReversePath) }
    }

    /// Whether a source with this route may come in there.
    fn leads_back(&self, no: u32, mode: ReversePath, ingress: PortIdx, tunnel: Option<TunnelNo>) -> bool {
        let back = |m: &Member| match tunnel {
            Some(_) => m.tunnel == tunnel,
            None => m.tunnel.is_none() && m.port == ingress,
        };
        let members = match self.routes.get(no) {
            Some(Route::Via(members)) => members,
            // By a device that is no port: a route all the same.
            Some(Route::NotOurs) => return mode == ReversePath::Loose,
            // A source that is to be discarded is no source (RFC 5635 4).
            _ => return false,
        };
        if mode == ReversePath::Loose || members.iter().any(back) {
            return true;
        }
        if mode == ReversePath::Strict {
            return false;
        }
        let unused = || self.routes.unused(no).iter().any(back);
        let zone = |port: PortIdx| self.port(port).map(|p| p.zone);
        let alike = || {
            tunnel.is_none() && members.iter().any(|m| m.tunnel.is_none() && zone(m.port) == zone(ingress))
        };
        unused() || alike()
    }

    /// The ports by which outer packets of a tunnel may come in, a bit for each. What is encrypted proves its source
    /// by itself, and its peer may move.
    pub(crate) fn outer_ingress(&self, remote: IpAddr, authenticated: bool) -> u64 {
        if authenticated {
            return u64::MAX;
        }
        // Outer packets are in the default VRF.
        let outside = |p: &u8| self.ports[usize::from(*p)].vrf.is_default();
        (0..self.ports.len().min(PortIdx::MAX) as u8)
            .filter(|p| outside(p) && self.check_source(remote, PortIdx(*p), None).is_ok())
            .fold(0, |bits, p| bits | 1 << p)
    }

    /// A number that changes when sources may come in elsewhere than before: then flows have to be checked again.
    ///
    /// Most routes of a large table are of the Internet. As far as they mean the same as the default route, or, without
    /// one, what any route to the Internet means, they do not count, so that their coming and going revalidates nothing.
    ///
    /// `prefixes` as of [`Snapshot::finish`]: what a route means for sources is a factor of what its prefixes add, so that
    /// the number costs a look at the routes and not at each prefix.
    pub(crate) fn source_checks(&self, prefixes: impl Iterator<Item = (u64, bool, u32)>) -> u64 {
        let mut usual = self.usual_sources();
        let mut sum = hash(&usual.of_family);
        for of_route in prefixes {
            sum = sum.wrapping_add(self.source_check(&mut usual, of_route));
        }
        for t in self.tunnels.iter() {
            sum = sum.wrapping_add(hash(&(t.no, t.vrf, t.ingress, t.reverse_path)));
        }
        let modes: Vec<_> = self.ports.iter().map(|p| (p.side(), p.reverse_path)).collect();
        sum.wrapping_add(hash(&modes))
    }

    /// What most routes mean for sources.
    pub fn usual_sources(&self) -> UsualSources {
        let default = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            .map(|family| self.default_route_no(VrfNo::DEFAULT, family));
        let of_family = default.map(|no| match no {
            Some(no) => self.admitted(no),
            None => self.internet(),
        });
        UsualSources { of_family, of_route: HashMap::default() }
    }

    /// What prefixes with this route add to the sum of the source checks, by the sum of their [`prefix_hash`]es; `v6`: they
    /// are of IPv6.
    pub fn source_check(&self, usual: &mut UsualSources, (hashes, v6, no): (u64, bool, u32)) -> u64 {
        let UsualSources { of_family, of_route } = usual;
        let admitted = of_route.entry(no).or_insert_with(|| self.admitted(no));
        // An odd factor loses nothing of the hashes.
        if *admitted == of_family[usize::from(v6)] { 0 } else { hashes.wrapping_mul(hash(&*admitted) | 1) }
    }

    /// Where sources with this route may come in.
    fn admitted(&self, no: u32) -> Admitted {
        let port = |p: &u8| {
            let mode = self.ports[usize::from(*p)].reverse_path;
            mode == ReversePath::Off || self.leads_back(no, mode, PortIdx(*p), None)
        };
        let ports =
            (0..self.ports.len().min(PortIdx::MAX) as u8).filter(port).fold(0, |bits, p| bits | 1 << p);
        let members = match self.routes.get(no) {
            Some(Route::Via(members)) => &members[..],
            _ => &[],
        };
        let unused = self.routes.unused(no);
        let tunnels = members.iter().map(|m| (m, true)).chain(unused.iter().map(|m| (m, false)));
        let strict = |no| self.tunnel(no).is_some_and(|t| t.reverse_path == ReversePath::Strict);
        let mut tunnels: Vec<_> = tunnels
            .filter_map(|(m, used)| m.tunnel.filter(|no| used || !strict(*no)))
            .map(TunnelNo::get)
            .collect();
        tunnels.sort_unstable();
        tunnels.dedup();
        (ports, tunnels)
    }

    /// The same of a route by some port to the Internet.
    fn internet(&self) -> Admitted {
        let port = |p: &&(u8, &super::Port)| {
            p.1.reverse_path != ReversePath::Strict && p.1.zone == Zone::Wan
                || matches!(p.1.reverse_path, ReversePath::Off | ReversePath::Loose)
        };
        let numbered: Vec<_> = (0..PortIdx::MAX as u8).zip(&self.ports).collect();
        (numbered.iter().filter(port).fold(0, |bits, p| bits | 1 << p.0), Vec::new())
    }
}

/// What routes mean for sources, as far as it was looked at.
#[derive(Debug)]
pub struct UsualSources {
    /// Of IPv4 and of IPv6, most routes.
    of_family: [Admitted; 2],
    of_route: HashMap<u32, Admitted, AddrHash>,
}

/// What a prefix of a VRF adds to the sum of its route, for [`Snapshot::finish`].
pub fn prefix_hash(prefix: &impl Hash) -> u64 {
    hash(prefix)
}

fn hash(of: &impl Hash) -> u64 {
    AddrHash::default().hash_one(of)
}

/// Ports, a bit for each, and tunnels.
type Admitted = (u64, Vec<u8>);
