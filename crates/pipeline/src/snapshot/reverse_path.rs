//! Whether a packet's source may come in where it came in: reverse-path forwarding (RFC 3704, RFC 8704).
//!
//! The check runs for packets that no flow record answers for. A record notes the port or tunnel for which it was
//! passed ([`IngressId`](sag_model::flow::IngressId)), so packets of an established flow cost nothing, and one
//! that comes in elsewhere is checked again.

use super::{Member, Route, Snapshot};
use crate::tunnel::TunnelNo;
use sag_model::config::ReversePath;
use sag_model::{DropReason, PortIdx, VrfNo, Zone};
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
        let members = match self.routes.get(no as usize) {
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
        let unused = || self.unused_routes.get(&no).is_some_and(|list| list.iter().any(back));
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
    pub(crate) fn source_checks<N: std::hash::Hash>(
        &self,
        prefixes: impl Iterator<Item = (N, bool, u32)>,
    ) -> u64 {
        use crate::hash::AddrHash;
        use std::hash::BuildHasher;
        let default = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
            .map(|family| self.default_route_no(VrfNo::DEFAULT, family));
        let usual = default.map(|no| match no {
            Some(no) => self.admitted(no),
            None => self.internet(),
        });
        let hash = |x: &(N, &Admitted)| AddrHash::default().hash_one(x);
        let mut sum = AddrHash::default().hash_one(&usual);
        let all: Vec<_> = (0u32..).zip(&self.routes).map(|(no, _)| self.admitted(no)).collect();
        for (prefix, v6, no) in prefixes {
            if let Some(admitted) = all.get(no as usize)
                && *admitted != usual[usize::from(v6)]
            {
                sum = sum.wrapping_add(hash(&(prefix, admitted)));
            }
        }
        for t in self.tunnels.iter() {
            sum = sum.wrapping_add(AddrHash::default().hash_one((t.no, t.vrf, t.ingress, t.reverse_path)));
        }
        let modes: Vec<_> = self.ports.iter().map(|p| (p.side(), p.reverse_path)).collect();
        sum.wrapping_add(AddrHash::default().hash_one(modes))
    }

    /// Where sources with this route may come in.
    fn admitted(&self, no: u32) -> Admitted {
        let port = |p: &u8| {
            let mode = self.ports[usize::from(*p)].reverse_path;
            mode == ReversePath::Off || self.leads_back(no, mode, PortIdx(*p), None)
        };
        let ports =
            (0..self.ports.len().min(PortIdx::MAX) as u8).filter(port).fold(0, |bits, p| bits | 1 << p);
        let members = match self.routes.get(no as usize) {
            Some(Route::Via(members)) => &members[..],
            _ => &[],
        };
        let unused = self.unused_routes.get(&no).map_or(&[][..], |list| &list[..]);
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

/// Ports, a bit for each, and tunnels.
type Admitted = (u64, Vec<u8>);
