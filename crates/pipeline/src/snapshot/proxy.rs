//! For which addresses the gateway answers on the inner link of a tunnel (RFC 1027, RFC 4861 7.2.8).

use super::{Member, MemberState, Route, Snapshot};
use crate::tunnel::Tunnel;
use sag_model::VrfNo;
use sag_packet::responder::Claim;
use std::net::IpAddr;

impl Snapshot {
    /// What an address is to who asks for it through the tunnel. The far end of a link between two routers may have a
    /// route that names no router: then it asks for every host that is reached by way of the gateway.
    pub fn claim(&self, t: &Tunnel, a: IpAddr) -> Claim {
        if t.has_address(a) {
            return Claim::Own;
        }
        // Outer packets that went inside would never arrive.
        if !t.proxy_arp || !is_routable(a) || a == t.local || a == t.remote {
            return Claim::Foreign;
        }
        match self.has_port_address(t.vrf, a) || self.leads_elsewhere(t, a) {
            true => Claim::Proxy,
            false => Claim::Foreign,
        }
    }

    fn has_port_address(&self, vrf: VrfNo, a: IpAddr) -> bool {
        self.ports.iter().filter(|p| p.vrf == vrf).any(|p| match a {
            IpAddr::V4(a) => p.addrs4.iter().any(|(own, _)| *own == a),
            IpAddr::V6(a) => p.addrs6.iter().any(|(own, _)| *own == a),
        })
    }

    /// Whether packets to it can go on, and none of them back into the tunnel.
    fn leads_elsewhere(&self, t: &Tunnel, a: IpAddr) -> bool {
        let Some(Route::Via(members)) = self.route_in(t.vrf, a) else { return false };
        let up = |m: &Member| self.member_state(m) != MemberState::Down;
        // What else is the gateway's own are broadcast addresses of its networks.
        !self.is_local(t.vrf, a) && members.iter().all(|m| m.tunnel != Some(t.no)) && members.iter().any(up)
    }
}

/// Whether an address means the same beyond its link.
fn is_routable(a: IpAddr) -> bool {
    let scoped = match a {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    !(scoped || a.is_unspecified() || a.is_loopback() || a.is_multicast())
}
