//! What the workers know of the world: one immutable value, published whole.
//!
//! Next hops are the exception: their records are shared memory that XDP reads too, and their numbers stand in one table
//! that outlives snapshots, so that a neighbour that comes, goes or changes takes effect with a few stores and no new
//! snapshot.

mod outer_path;
mod proxy;
mod return_path;
mod reverse_path;
mod routes;
mod vrf;

pub use crate::hash::AddrSet;
pub use crate::ids::NhIdx;
use crate::nat::NatPolicy;
pub use crate::neighbors::{NeighborKey, NeighborTable};
use crate::policy::AclSet;
use crate::qos::QosPolicy;
use crate::resolution::RequestRates;
use crate::syn_cookie::SynCookies;
use crate::tunnel::{Tunnel, TunnelNo, Tunnels};
pub use outer_path::OuterPath;
pub use reverse_path::{UsualSources, prefix_hash};
pub use routes::RouteList;
use sag_model::config::ReversePath;
use sag_model::flow::{NH_VALID, NextHopRecord};
use sag_model::{MacAddr, PortIdx, VrfNo, VrfZone, Zone};
use sag_packet::rewrite::LinkWords;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
pub use vrf::Vrf;

/// A gateway port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The name in the configuration.
    pub name: String,
    /// Where it leads.
    pub zone: Zone,
    /// The VRF that it is in.
    pub vrf: VrfNo,
    /// Slot of the device in XDP's device map.
    pub dev: u8,
    /// The kernel's number of the device.
    pub ifindex: u32,
    /// 0 = untagged.
    pub vlan: u16,
    /// The Ethernet address of the interface.
    pub mac: MacAddr,
    /// Ethernet addresses of macvlan devices above it, at which hosts reach it too (VRRP).
    pub macs: Vec<MacAddr>,
    /// IP bytes.
    pub mtu: u16,
    /// TCP SYNs by it get an MSS that fits the MTU.
    pub mss_clamp: bool,
    /// Whether the link is up.
    pub up: bool,
    /// Own addresses with their prefix lengths, the preferred one first.
    pub addrs4: Vec<(Ipv4Addr, u8)>,
    /// The same of IPv6.
    pub addrs6: Vec<(Ipv6Addr, u8)>,
    /// Which sources may come in by it.
    pub reverse_path: ReversePath,
    /// What watches the line has found that it leads nowhere.
    pub failed: bool,
}

impl Port {
    /// Where its packets come from.
    #[inline]
    pub const fn side(&self) -> VrfZone {
        VrfZone::new(self.zone, self.vrf)
    }

    /// Whether frames to an Ethernet address are the gateway's.
    #[inline]
    pub fn is_at(&self, mac: [u8; 6]) -> bool {
        mac == self.mac.0 || self.macs.iter().any(|m| m.0 == mac)
    }
}

/// What a prefix resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Route {
    /// One member, or several sharing the load by weight.
    Via(Vec<Member>),
    /// Addressed to the gateway itself.
    Local,
    /// Dropped without a word.
    Blackhole,
    /// Dropped, and the sender gets "destination unreachable".
    Unreachable,
    /// Dropped, and the sender gets "administratively prohibited".
    Prohibit,
    /// Leaves by a device that is no port of the gateway.
    NotOurs,
    /// No route, whatever shorter prefixes say: the lookup has ended in a table (`throw`), and no later one leads there.
    Throw,
}

/// One way out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// The egress port.
    pub port: PortIdx,
    /// The router to hand to; `None`: the destination itself is on the link.
    pub via: Option<IpAddr>,
    /// Share of the traffic, beside those of the other members.
    pub weight: u16,
    /// Route MTU, 0 = the port's.
    pub mtu: u16,
    /// Through this tunnel, whose own path counts then instead of port and router.
    pub tunnel: Option<TunnelNo>,
    /// The source that the route prefers, of the gateway's own addresses.
    pub source: Option<Ipv4Addr>,
}

impl Member {
    /// By a port, to a router or to the destination itself.
    pub fn port(port: PortIdx, via: Option<IpAddr>, weight: u16) -> Member {
        Member { port, via, weight, mtu: 0, tunnel: None, source: None }
    }

    /// Through a tunnel.
    pub fn tunnel(tunnel: TunnelNo, weight: u16) -> Member {
        Member { tunnel: Some(tunnel), ..Member::port(PortIdx(u8::MAX), None, weight) }
    }
}

/// Whether a member of a multipath route can take traffic, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MemberState {
    /// Its link or tunnel is down.
    Down,
    /// Nobody knows where its router is.
    Unresolved,
    /// Up, and its router is resolved or not needed.
    Ready,
}

/// Idle time after which a session ends, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP with a complete handshake.
    pub tcp_established: u32,
    /// TCP that is closed or reset.
    pub tcp_transitory: u32,
    /// TCP during the handshake, or of which one side alone has been seen.
    pub tcp_syn: u32,
    /// TCP that was refused by RST.
    pub tcp_refused: u32,
    /// UDP.
    pub udp: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// All other protocols.
    pub other: u32,
}

/// What one host may have of a session table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Percent of the table that a host may have when it is alone in wanting much; several of them have equal parts
    /// ([`crate::table::over_share`]). 100: there is no share.
    pub host_share: u8,
    /// Sessions of a host that nobody has answered; `None`: a quarter of the table.
    pub host_half_open: Option<u32>,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits { host_share: 80, host_half_open: None }
    }
}

/// Settings of the gateway as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Answers to admitted packets pass without a rule.
    pub acl_stateful: bool,
    /// LAN hosts get an ICMP error about packets that an ACL drops.
    pub acl_reject: bool,
    /// When idle sessions end.
    pub timeouts: Timeouts,
    /// What a host may have of the session tables.
    pub sessions: SessionLimits,
    /// Next hops that may be requested.
    pub requests: RequestRates,
    /// ICMP errors a second, port and worker.
    pub icmp_rate: u32,
    /// Take frames whatever their destination MAC (a capture file has no interface address).
    pub promiscuous: bool,
}

/// The whole forwarding state of one policy epoch.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Number of the policy epoch; a record of another one is revalidated.
    pub epoch: u32,
    /// Ports by [`PortIdx`].
    pub ports: Vec<Port>,
    /// Which port a frame came by.
    pub ingress: Ingress,
    /// VRFs by their number; the first is the default one. `None`: the number is not in use.
    pub vrfs: Vec<Option<Vrf>>,
    /// Routes of all VRFs, by the number that a VRF gives for an address. Prefixes that lead the same way share one.
    pub routes: RouteList,
    /// Changes when sources may come in by other ports or tunnels than before.
    pub source_checks: u64,
    /// The numbers of next hops, live.
    pub neighbors: Arc<NeighborTable>,
    /// The version of the routes above, beside that of [`NeighborTable::routes`].
    pub routes_version: u32,
    /// Records of next hops, by [`NhIdx`]: memory that XDP reads too.
    pub nexthops: &'static [NextHopRecord],
    /// Bound ACLs.
    pub acl: AclSet,
    /// What is translated.
    pub nat: Arc<NatPolicy>,
    /// Which meters a packet passes.
    pub qos: Arc<QosPolicy>,
    /// Services that SYN cookies protect.
    pub syn_cookies: SynCookies,
    /// Tunnels by [`TunnelNo`].
    pub tunnels: Tunnels,
    /// Settings of the gateway as a whole.
    pub options: Options,
}

/// (device slot, VLAN) → port. Few devices with few VLANs each: a walk is cheaper than a hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingress {
    by_dev: Vec<Vec<(u16, PortIdx)>>,
}

impl Ingress {
    /// Of these ports, in the order of their numbers.
    pub fn new(ports: &[Port]) -> Ingress {
        let mut by_dev: Vec<Vec<(u16, PortIdx)>> = Vec::new();
        for (i, p) in ports.iter().enumerate().take(PortIdx::MAX) {
            let dev = usize::from(p.dev);
            if by_dev.len() <= dev {
                by_dev.resize_with(dev + 1, Vec::new);
            }
            by_dev[dev].push((p.vlan, PortIdx(i as u8)));
        }
        Ingress { by_dev }
    }

    /// Any port of a device: where frames are counted that belong to none.
    pub fn first(&self, dev: u8) -> Option<PortIdx> {
        self.by_dev.get(usize::from(dev))?.first().map(|(_, p)| *p)
    }

    /// The port of a device and VLAN.
    #[inline]
    pub fn port(&self, dev: u8, vlan: u16) -> Option<PortIdx> {
        let ports = self.by_dev.get(usize::from(dev))?;
        ports.iter().find(|(v, _)| *v == vlan).map(|(_, p)| *p)
    }
}

/// A next-hop record, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// The neighbour's Ethernet address.
    pub dmac: MacAddr,
    /// The port's Ethernet address.
    pub smac: MacAddr,
    /// VLAN, 0 = untagged.
    pub vlan: u16,
    /// IP bytes that the port carries.
    pub mtu: u16,
    /// The kernel's number of the device.
    pub ifindex: u32,
    /// Slot of the device in XDP's device map.
    pub dev: u8,
    /// The egress port.
    pub port: PortIdx,
    /// Changes when the record stands for another neighbour.
    pub generation: u8,
    /// [`NH_VALID`] or 0.
    pub flags: u8,
}

impl NextHop {
    /// Whether the neighbour is resolved.
    pub const fn valid(&self) -> bool {
        self.flags & NH_VALID != 0
    }

    /// Reads a record.
    #[inline]
    pub fn load(r: &NextHopRecord) -> NextHop {
        NextHopWords::load(r).unpack()
    }

    /// Stores the record word by word, the flags (in the last word) last.
    pub fn store(&self, r: &NextHopRecord) {
        let six = |m: &MacAddr, x: u16| {
            let v = x.to_le_bytes();
            u64::from_le_bytes([m.0[0], m.0[1], m.0[2], m.0[3], m.0[4], m.0[5], v[0], v[1]])
        };
        let i = self.ifindex.to_le_bytes();
        let dev = [i[0], i[1], i[2], i[3], self.dev, self.port.0, self.generation, self.flags];
        r.dmac_vlan.store(six(&self.dmac, self.vlan), Ordering::Relaxed);
        r.smac_mtu.store(six(&self.smac, self.mtu), Ordering::Relaxed);
        r.dev.store(u64::from_le_bytes(dev), Ordering::Release);
    }
}

/// The same as words, for the packets of established flows.
#[derive(Debug, Clone, Copy)]
pub struct NextHopWords {
    dmac_vlan: u64,
    smac_mtu: u64,
    dev: u64,
}

impl NextHopWords {
    /// Reads a record.
    #[inline]
    pub fn load(r: &NextHopRecord) -> NextHopWords {
        let dev = r.dev.load(Ordering::Acquire);
        NextHopWords {
            dmac_vlan: r.dmac_vlan.load(Ordering::Relaxed),
            smac_mtu: r.smac_mtu.load(Ordering::Relaxed),
            dev,
        }
    }

    /// Field by field.
    pub fn unpack(&self) -> NextHop {
        let (d, s, w) = (self.dmac_vlan.to_le_bytes(), self.smac_mtu.to_le_bytes(), self.dev.to_le_bytes());
        NextHop {
            dmac: MacAddr([d[0], d[1], d[2], d[3], d[4], d[5]]),
            vlan: u16::from_le_bytes([d[6], d[7]]),
            smac: MacAddr([s[0], s[1], s[2], s[3], s[4], s[5]]),
            mtu: u16::from_le_bytes([s[6], s[7]]),
            ifindex: u32::from_le_bytes([w[0], w[1], w[2], w[3]]),
            dev: w[4],
            port: PortIdx(w[5]),
            generation: w[6],
            flags: w[7],
        }
    }

    /// Valid, and still the neighbour that a record of this generation means.
    #[inline]
    pub const fn stands_for(&self, generation: u8) -> bool {
        (self.dev >> 56) as u8 & NH_VALID != 0 && (self.dev >> 48) as u8 == generation
    }

    /// IP bytes that the port carries.
    #[inline]
    pub const fn mtu(&self) -> u16 {
        (self.smac_mtu >> 48) as u16
    }

    /// The egress port.
    #[inline]
    pub const fn port(&self) -> PortIdx {
        PortIdx((self.dev >> 40) as u8)
    }

    /// The link header for a packet of an EtherType.
    #[inline]
    pub const fn link(&self, ethertype: u16) -> LinkWords {
        LinkWords { dst: self.dmac_vlan, src: self.smac_mtu, vlan: (self.dmac_vlan >> 48) as u16, ethertype }
    }
}

impl Snapshot {
    /// A port by its number.
    #[inline]
    pub fn port(&self, idx: PortIdx) -> Option<&Port> {
        self.ports.get(idx.index())
    }

    /// A tunnel by its number, if it has one.
    #[inline]
    pub fn tunnel(&self, no: impl Into<Option<TunnelNo>>) -> Option<&Tunnel> {
        self.tunnels.get(no.into()?)
    }

    /// As what QoS knows a port, or the tunnels through it.
    pub fn metered(&self, port: PortIdx, tunnel: Option<TunnelNo>) -> PortIdx {
        match tunnel {
            None => port,
            Some(_) => PortIdx(port.0.saturating_add(self.ports.len() as u8)),
        }
    }

    /// A next hop by its number; `None`: the number is out of range.
    #[inline]
    pub fn nexthop(&self, idx: NhIdx) -> Option<NextHop> {
        self.nexthops.get(idx.index()).map(NextHop::load)
    }

    /// The record of a neighbour that is resolved.
    pub fn resolved(&self, port: PortIdx, ip: IpAddr) -> Option<NextHop> {
        self.neighbors.get(&(port, ip)).and_then(|n| self.nexthop(n)).filter(NextHop::valid)
    }

    /// The generation that a record made by these routes gets for a next hop that was just read. If generations were raised
    /// for newer routes, it is one that the next hop does not have: the record sends its next packet to a worker, which has them.
    #[inline]
    pub fn stamp(&self, nh: &NextHop) -> u8 {
        if self.neighbors.routes() == self.routes_version {
            nh.generation
        } else {
            nh.generation.wrapping_sub(1)
        }
    }

    /// Fills in what depends on routes and ports together. To be called once, when all else is there. `prefixes`: for each
    /// route and family the sum of the [`prefix_hash`]es of its prefixes, whether they are of IPv6, and the route's number.
    pub fn finish(&mut self, prefixes: impl Iterator<Item = (u64, bool, u32)>) {
        let end = |t: &Tunnel| (t.no, self.outer_ingress(t.remote, t.is_esp()), self.line_of(t.local));
        let ends: Vec<_> = self.tunnels.iter().map(end).collect();
        for (no, ingress, line) in ends {
            self.tunnels.set_outside(no, ingress, line);
        }
        self.source_checks = self.source_checks(prefixes);
    }

    /// The member of a multipath route for a flow: by weight, the same for the same hash. Members whose link is down, or
    /// whose router is not resolved, take no traffic while there are others (Linux: `fib_multipath_use_neigh`).
    pub fn choose<'r>(&self, members: &'r [Member], hash: u64) -> Option<&'r Member> {
        if let [only] = members {
            return Some(only);
        }
        let (mut best, mut total) = (MemberState::Down, 0);
        for m in members {
            let state = self.member_state(m);
            if state > best {
                (best, total) = (state, 0);
            }
            total += if state == best { u64::from(m.weight.max(1)) } else { 0 };
        }
        let mut at = ((u128::from(hash) * u128::from(total)) >> 64) as u64;
        let mut chosen = members.first();
        // Routers come and go while this runs: whatever is found then is as good as another.
        for m in members.iter().filter(|m| self.member_state(m) == best) {
            chosen = Some(m);
            let w = u64::from(m.weight.max(1));
            if at < w {
                break;
            }
            at -= w;
        }
        chosen
    }

    fn member_state(&self, m: &Member) -> MemberState {
        let up = match m.tunnel {
            None => self.port(m.port).is_some_and(|p| p.up),
            Some(no) => self.tunnel(no).is_some_and(|t| t.state.is_up()),
        };
        let resolved = || m.tunnel.is_some() || m.via.is_none_or(|via| self.resolved(m.port, via).is_some());
        match up {
            false => MemberState::Down,
            true if resolved() => MemberState::Ready,
            true => MemberState::Unresolved,
        }
    }

    /// The address from which the gateway speaks into a tunnel of a VRF that has none: one of the LAN.
    pub fn inside_source(&self, vrf: VrfNo, to: IpAddr) -> Option<IpAddr> {
        let of_vrf = || self.ports.iter().filter(move |p| p.vrf == vrf);
        let lan_first = |lan: bool| of_vrf().filter(move |p| (p.zone == Zone::Lan) == lan);
        let mut ports = lan_first(true).chain(lan_first(false));
        match to {
            IpAddr::V4(_) => ports.find_map(|p| p.addrs4.first().map(|a| IpAddr::V4(a.0))),
            IpAddr::V6(_) => ports.find_map(|p| {
                p.addrs6.iter().find(|a| !a.0.is_unicast_link_local()).map(|a| IpAddr::V6(a.0))
            }),
        }
    }

    /// The address from which the gateway speaks to `to` by this port: one on the same subnet, else
    /// the port's first, else any of the gateway's in the VRF.
    pub fn source_for(&self, port: PortIdx, to: IpAddr) -> Option<IpAddr> {
        let vrf = self.port(port)?.vrf;
        let candidates = self.port(port).into_iter().chain(self.ports.iter().filter(|p| p.vrf == vrf));
        match to {
            IpAddr::V4(to) => {
                let mask = |len: u8| u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
                let own = self.port(port)?;
                let near = own.addrs4.iter().find(|(a, l)| (a.to_bits() ^ to.to_bits()) & mask(*l) == 0);
                near.or_else(|| candidates.flat_map(|p| &p.addrs4).next()).map(|(a, _)| IpAddr::V4(*a))
            }
            IpAddr::V6(to) => {
                let mask = |len: u8| u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
                let own = self.port(port)?;
                let near = own.addrs6.iter().find(|(a, l)| (a.to_bits() ^ to.to_bits()) & mask(*l) == 0);
                let global = |a: &&(Ipv6Addr, u8)| !a.0.is_unicast_link_local();
                near.or_else(|| candidates.flat_map(|p| &p.addrs6).find(global)).map(|(a, _)| IpAddr::V6(*a))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hop_record_round_trip() {
        let nh = NextHop {
            dmac: MacAddr([1, 2, 3, 4, 5, 6]),
            smac: MacAddr([7, 8, 9, 10, 11, 12]),
            vlan: 4094,
            mtu: 9000,
            ifindex: 0x0102_0304,
            dev: 5,
            port: PortIdx(6),
            generation: 200,
            flags: NH_VALID,
        };
        let r = NextHopRecord::default();
        nh.store(&r);
        assert_eq!(NextHop::load(&r), nh);
    }
}
