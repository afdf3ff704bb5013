//! The gateway's NAT as [`sag_pcp`] asks it: mappings are bindings that are held without a session.

use sag_model::{Nanos, PortIdx, VrfNo};
use sag_pcp::{Admission, Filter, Held, Host, Inside, Nat, Protocol, Refusal, Want};
use sag_pipeline::nat::{
    self, AdmitError, BindingNo, Endpoint, Events, HoldError, NatProtocol, NatState, PeerPrefix, PortRequest,
    Random, Snat,
};
use sag_pipeline::session::release_binding;
use sag_pipeline::snapshot::{Route, Snapshot};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

/// What is translated at the moment, for the hosts of some ports.
pub struct GatewayNat<'d> {
    pub snapshot: &'d Snapshot,
    pub state: &'d NatState,
    /// The port by which the request came; all that may ask while mappings are looked over.
    pub links: Vec<PortIdx>,
    /// Ports that hosts may have by asking.
    pub range: RangeInclusive<u16>,
    pub random: &'d mut Random,
    pub now: Nanos,
    /// What belongs into the NAT log.
    pub events: &'d mut Events,
}

impl GatewayNat<'_> {
    /// Whether the route to a host leads by the links; `None`: there is no route at the moment.
    fn is_behind(&self, host: Host) -> Option<bool> {
        let (vrf, address) = (vrf(host), IpAddr::V4(host.address));
        if address.is_multicast() || self.snapshot.is_local(vrf, address) {
            return Some(false);
        }
        let of_vrf = |port: PortIdx| self.snapshot.vrf_of(port, None) == vrf;
        if !self.links.iter().any(|port| of_vrf(*port)) {
            return Some(false);
        }
        match self.snapshot.route_in(vrf, address)? {
            Route::Via(members) => Some(
                members.iter().any(|m| m.tunnel.is_none() && self.links.contains(&m.port) && of_vrf(m.port)),
            ),
            _ => Some(false),
        }
    }

    /// As whom the Internet sees an endpoint, of several addresses the one that it has already.
    fn seen(&self, inside: &Inside, addr: Option<Ipv4Addr>) -> Option<Snat> {
        let held = nat::Held { state: self.state, addr };
        let towards = self.snapshot.towards_internet(vrf(inside.host))?;
        self.snapshot.nat.seen_by(&towards, endpoint(inside), inside.protocol.number(), held)
    }
}

impl Nat for GatewayNat<'_> {
    fn external(&self, host: Host) -> Option<Ipv4Addr> {
        let of = |host| self.seen(&Inside { host, protocol: Protocol::Udp, port: 0 }, None).map(|s| s.addr);
        if !host.address.is_unspecified() {
            return of(host);
        }
        // That of hosts of the first VRF that has one.
        let vrfs = self.links.iter().map(|port| self.snapshot.vrf_of(*port, None));
        vrfs.map(|vrf| Host { realm: vrf.get(), ..host }).find_map(of)
    }

    fn permits(&self, host: Host) -> bool {
        self.is_behind(host) == Some(true)
    }

    fn may_keep(&self, host: Host) -> bool {
        // A link that is down for a moment takes the route with it.
        self.is_behind(host) != Some(false)
    }

    fn hold(&mut self, want: &Want) -> Result<Held, Refusal> {
        let seen = self.seen(&want.inside, None).ok_or(Refusal::NoAddress)?;
        if let Some(port) = seen.port {
            // A forward of the configuration, or an address of its own: there is nothing to hold.
            return Ok(Held { external: SocketAddrV4::new(seen.addr, port), hold: None });
        }
        let source = seen.source.and_then(|no| self.snapshot.nat.source(no)).ok_or(Refusal::NotMapped)?;
        let request = PortRequest {
            protocol: protocol(want.inside.protocol),
            inside: endpoint(&want.inside),
            wanted: want.port,
            only: want.only,
            range: self.range.clone(),
        };
        let limits = &self.snapshot.nat.limits;
        let lease = self.state.hold(source, limits, &request, self.random, self.now.tick().0);
        let lease = lease.map_err(|why| match why {
            HoldError::Dependent => Refusal::NotMapped,
            HoldError::Exhausted => Refusal::Exhausted,
            HoldError::HostShare => Refusal::HostShare,
            HoldError::NotThatPort => Refusal::NotThatPort,
        })?;
        if let (Some(block), true) = (lease.new_block, limits.log_blocks) {
            self.events.push(self.state.block_event(lease.binding, block, request.inside.host(), true));
        }
        Ok(Held { external: SocketAddrV4::new(seen.addr, lease.port), hold: Some(lease.binding.0) })
    }

    fn is_current(&self, inside: &Inside, held: &Held) -> bool {
        // Without an address at the moment it is not another's.
        self.seen(inside, Some(*held.external.ip())).is_none_or(|seen| {
            let same_port = seen.port.is_none_or(|p| p == held.external.port());
            seen.addr == *held.external.ip() && same_port && seen.port.is_some() == held.hold.is_none()
        })
    }

    fn admit(&mut self, hold: u32, who: &Admission) -> Result<(), Refusal> {
        let binding = BindingNo(hold);
        if who.anyone {
            self.state.admit_anyone(binding);
            return Ok(());
        }
        if who.peers.is_empty() && !who.exclusive {
            self.state.admit_by_source(binding);
            return Ok(());
        }
        let peers: Vec<_> = who.peers.iter().map(prefix).collect();
        self.state.admit_peers(binding, &peers, who.exclusive).map_err(|why| match why {
            AdmitError::TooMany => Refusal::TooManyPeers,
            AdmitError::NoList => Refusal::Exhausted,
        })
    }

    fn release(&mut self, hold: u32) {
        let binding = BindingNo(hold);
        self.state.admit_by_source(binding);
        release_binding(self.state, self.snapshot, self.events, binding);
    }
}

fn endpoint(inside: &Inside) -> Endpoint {
    Endpoint { addr: inside.host.address, port: inside.port, vrf: vrf(inside.host) }
}

/// The realms of hosts are the VRFs of the ports at which they ask.
fn vrf(host: Host) -> VrfNo {
    VrfNo::new(host.realm).unwrap_or_default()
}

const fn protocol(p: Protocol) -> NatProtocol {
    match p {
        Protocol::Tcp => NatProtocol::Tcp,
        Protocol::Udp => NatProtocol::Udp,
    }
}

fn prefix(f: &Filter) -> PeerPrefix {
    PeerPrefix { addr: f.address, len: f.prefix_len, port: f.port }
}
