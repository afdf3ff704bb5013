//! VRFs: routes and own addresses apart from those of other VRFs, and what crosses from one to another.
//!
//! A packet is in the VRF of the port or tunnel by which it comes in, and its destination is looked up there. A route that
//! leads out by a port of another VRF leaks: that is the only way from one VRF to another. Answers go back to the VRF of the
//! session's first packet, and what is translated goes to the VRF of its host inside; both as far as a route leaks.

use super::{Member, Route, Snapshot};
use crate::hash::AddrSet;
use crate::nat::Towards;
use crate::tunnel::TunnelNo;
use sag_fib::Fib;
use sag_model::{PortIdx, VrfNo, Zone};
use std::net::{IpAddr, Ipv4Addr};

/// A routing table with the addresses that are the gateway's own in it.
#[derive(Debug, Clone)]
pub struct Vrf {
    /// The gateway's own addresses, subnet broadcasts included.
    pub local: AddrSet,
    /// Longest prefix of IPv4, to a route's number.
    pub fib4: Fib<u32>,
    /// Longest prefix of IPv6, to a route's number.
    pub fib6: Fib<u128>,
}

impl Snapshot {
    /// A VRF by its number; `None`: nothing is in it.
    #[inline]
    pub fn vrf(&self, no: VrfNo) -> Option<&Vrf> {
        self.vrfs.get(no.index())?.as_ref()
    }

    /// The VRF of a port, or of what comes out of a tunnel.
    pub fn vrf_of(&self, port: PortIdx, tunnel: Option<TunnelNo>) -> VrfNo {
        match tunnel {
            Some(_) => self.tunnel(tunnel).map_or(VrfNo::DEFAULT, |t| t.vrf),
            None => self.port(port).map_or(VrfNo::DEFAULT, |p| p.vrf),
        }
    }

    /// Whether an address is the gateway's own in a VRF.
    #[inline]
    pub fn is_local(&self, vrf: VrfNo, addr: IpAddr) -> bool {
        self.vrf(vrf).is_some_and(|v| v.local.contains(&addr))
    }

    /// Whether an address is the gateway's own in any VRF.
    pub fn is_local_somewhere(&self, addr: IpAddr) -> bool {
        self.vrfs.iter().flatten().any(|v| v.local.contains(&addr))
    }

    /// The gateway's own addresses as XDP knows them: whose packets are the kernel's, with the one VRF in which they are.
    /// Of an address that several VRFs have a worker finds out which one a packet means, and inside tunnels workers answer
    /// for the gateway.
    pub fn kernel_addresses(&self) -> impl Iterator<Item = (VrfNo, IpAddr)> + '_ {
        let all = || (0u8..).zip(&self.vrfs).filter_map(|(no, vrf)| Some((VrfNo::new(no)?, vrf.as_ref()?)));
        let local = all().flat_map(|(no, vrf)| vrf.local.iter().map(move |a| (no, *a)));
        let elsewhere =
            move |no: VrfNo, a: IpAddr| all().any(|(other, vrf)| other != no && vrf.local.contains(&a));
        local.filter(move |(no, a)| !self.tunnels.owns(*no, *a) && !elsewhere(*no, *a))
    }

    /// Whether addresses are the gateway's own in the same VRFs as in another snapshot.
    pub fn same_local(&self, other: &Snapshot) -> bool {
        let local =
            |s: &Snapshot| s.vrfs.iter().map(|v| v.as_ref().map(|v| v.local.clone())).collect::<Vec<_>>();
        local(self) == local(other)
    }

    /// The route of the longest matching prefix of the default VRF.
    pub fn route(&self, dst: IpAddr) -> Option<&Route> {
        self.route_in(VrfNo::DEFAULT, dst)
    }

    /// The route of the longest matching prefix of a VRF.
    #[inline]
    pub fn route_in(&self, vrf: VrfNo, dst: IpAddr) -> Option<&Route> {
        self.routes.get(self.route_no(vrf, dst)?)
    }

    /// The number of that route.
    #[inline]
    pub fn route_no(&self, vrf: VrfNo, dst: IpAddr) -> Option<u32> {
        let vrf = self.vrf(vrf)?;
        match dst {
            IpAddr::V4(a) => vrf.fib4.lookup(a.to_bits()),
            IpAddr::V6(a) => vrf.fib6.lookup(a.to_bits()),
        }
    }

    /// The number of a VRF's default route of the family of an address.
    pub(super) fn default_route_no(&self, vrf: VrfNo, family_of: IpAddr) -> Option<u32> {
        let vrf = self.vrf(vrf)?;
        if family_of.is_ipv4() { vrf.fib4.default_route() } else { vrf.fib6.default_route() }
    }

    /// Where packets of a VRF go to the Internet by default, over IPv4, if by a WAN port.
    pub fn towards_internet(&self, vrf: VrfNo) -> Option<Towards> {
        if vrf.is_default() {
            return self.nat.internet;
        }
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let Some(Route::Via(members)) = self.routes.get(self.default_route_no(vrf, any)?) else {
            return None;
        };
        let by_wan = |m: &&Member| {
            m.tunnel.is_none() && self.port(m.port).is_some_and(|p| p.zone == Zone::Wan && p.up)
        };
        let m = members.iter().find(by_wan)?;
        Some(Towards { zone: Zone::Wan, port: m.port, hop: m.via.unwrap_or(any), preferred: m.source })
    }

    /// Whether a route of a VRF leads to an address in another one: a leak. A route that is not in use counts too, since
    /// packets may come in by it.
    fn leads_into(&self, from: VrfNo, addr: IpAddr, into: VrfNo) -> bool {
        let Some(no) = self.route_no(from, addr) else { return false };
        let used = match self.routes.get(no) {
            Some(Route::Via(members)) => members.as_slice(),
            _ => return false,
        };
        let unused = self.routes.unused(no);
        let is_there = |m: &Member| self.vrf_of(m.port, m.tunnel) == into;
        used.iter().chain(unused).any(is_there)
    }

    /// Whether a packet of a VRF may go to another one, because of the session or the translation that it belongs to: there is
    /// a leak between the two for it or for its answers.
    #[inline]
    pub fn may_cross(&self, (from, src): (VrfNo, IpAddr), (into, dst): (VrfNo, IpAddr)) -> bool {
        from == into || self.leads_into(from, dst, into) || self.leads_into(into, src, from)
    }
}
