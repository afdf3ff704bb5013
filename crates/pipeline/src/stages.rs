//! The one place with the order of the pipeline. `walk` is what every packet that no flow record
//! answers for goes through; `established` in [`crate::worker`] is its short cut.

mod nat;
mod qos;
mod trace;

use crate::family::EndpointPair;
use crate::nat::{BindingNo, Endpoint, NatState, Snat};
use crate::policy::{AclVerdict, Tuple};
use crate::qos::MeterGroupNo;
use crate::snapshot::{Member, NhIdx, Route, Snapshot};
use crate::tunnel::{MIN_MTU6, TunnelNo};
use sag_model::ids::Zone;
use sag_model::{DropReason, PortIdx};
use sag_packet::icmp::IcmpError;
use sag_packet::{Family, L4, Parsed};
use std::fmt;

use std::net::{IpAddr, Ipv4Addr};
pub use trace::{NoTrace, Steps, Tracer};

/// The stages, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Parse,
    Decap,
    Session,
    Dnat,
    Local,
    Sanity,
    Route,
    Acl,
    Qos,
    Snat,
    Ttl,
    Mtu,
    Neighbor,
    Rewrite,
    Encap,
}

impl Stage {
    pub const ORDER: [Stage; 15] = [
        Stage::Parse,
        Stage::Decap,
        Stage::Session,
        Stage::Dnat,
        Stage::Local,
        Stage::Sanity,
        Stage::Route,
        Stage::Acl,
        Stage::Qos,
        Stage::Snat,
        Stage::Ttl,
        Stage::Mtu,
        Stage::Neighbor,
        Stage::Rewrite,
        Stage::Encap,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Stage::Parse => "parse",
            Stage::Decap => "decap",
            Stage::Session => "session",
            Stage::Dnat => "dnat",
            Stage::Local => "local",
            Stage::Sanity => "sanity",
            Stage::Route => "route",
            Stage::Acl => "acl",
            Stage::Qos => "qos",
            Stage::Snat => "snat",
            Stage::Ttl => "ttl",
            Stage::Mtu => "mtu",
            Stage::Neighbor => "neighbor",
            Stage::Rewrite => "rewrite",
            Stage::Encap => "encap",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What every IPv4 link carries in one piece (RFC 791 3.2): the longest header and eight bytes.
const MIN_MTU: u16 = 68;

/// A packet on its way, as the stages see it.
#[derive(Debug, Clone, Copy)]
pub struct PacketContext<'f> {
    pub p: &'f Parsed,
    pub frame: &'f [u8],
    pub ingress: PortIdx,
    /// The tunnel through which it came; 0: none.
    pub tunnel: TunnelNo,
    pub zone: Zone,
    /// Flow hash, for multipath.
    pub hash: u64,
    /// What an existing session says, if there is one.
    pub session: Known,
    /// The set of meters that its flow passes, if that was judged in this epoch; 0: none.
    pub metered: Option<MeterGroupNo>,
    /// The zone to which that session's packets in this direction go.
    pub leaves_to: Option<Zone>,
    /// What the session makes of the destination, if it is another one.
    pub to: Option<IpAddr>,
    /// The port that goes with it.
    pub to_port: Option<u16>,
    /// The translation of an IPv4 session that the packet belongs to.
    pub translation: Option<Translation>,
    pub nat: &'f NatState,
}

/// A session's first packet and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    pub from: Zone,
    /// The session's protocol; the packet in hand may be an ICMP error about it.
    pub proto: u8,
    pub old: EndpointPair,
    pub new: EndpointPair,
    /// The packet in hand goes the other way.
    pub reply: bool,
}

/// What the session table knew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A packet of no session.
    New,
    /// Of a session that was judged under the current epoch.
    Established,
    /// Of a session of an older epoch: the tuple and zones of its first packet are judged anew.
    Revalidate { initiator: Tuple, from: Zone, to: Zone },
    /// An ICMP error about a packet of a session.
    Related,
}

/// The way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardDecision {
    pub port: PortIdx,
    /// The tunnel that it enters; 0: none.
    pub tunnel: TunnelNo,
    /// Where it goes.
    pub zone: Zone,
    /// The next hop's address.
    pub to: IpAddr,
    pub nexthop: NhIdx,
    /// Rule slot that admitted the packet, if a rule was asked.
    pub rule: Option<u32>,
    /// IP bytes that fit.
    pub mtu: u16,
    /// What is done if the packet is larger than that.
    pub fragmentation: Fragmentation,
    /// Translation of a new session.
    pub dnat: Option<Dnat>,
    pub snat: Option<Snat>,
    /// The meters that it passes; 0: none.
    pub meters: MeterGroupNo,
}

/// How a packet is cut to size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragmentation {
    /// It fits.
    NotNeeded,
    /// The packet itself.
    Packet,
    /// The packet with the tunnel's header.
    Outer,
}

/// Where a packet really goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dnat {
    pub to: Endpoint,
    /// The binding through which a packet from outside came in.
    pub binding: Option<BindingNo>,
    /// External address by which it came.
    pub external: Ipv4Addr,
}

/// Where a walk ends other than by a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    Kernel,
    Drop {
        reason: DropReason,
        icmp: Option<IcmpError>,
        rule: Option<u32>,
    },
    /// The session's translation is not what is wanted any more: it ends, and the packet is looked at
    /// as a first one.
    SessionInvalid,
    /// The next hop's link address is not known yet.
    Unresolved {
        port: PortIdx,
        to: IpAddr,
    },
}

const fn drop_packet(reason: DropReason, icmp: Option<IcmpError>) -> Disposition {
    Disposition::Drop { reason, icmp, rule: None }
}

/// Translation, route, ACL, TTL, MTU and neighbour of one packet.
pub fn evaluate<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    trace: &mut T,
) -> Result<ForwardDecision, Disposition> {
    let (src, wire_dst) = (ctx.p.src(ctx.frame), ctx.p.dst(ctx.frame));
    trace.step(Stage::Session, || ctx.session.to_string());
    let dnat = nat::dnat(snap, ctx, trace)?;
    let dst = ctx.to.or(dnat.map(|d| IpAddr::V4(d.to.addr)));
    if dst.is_none() {
        local(snap, wire_dst)
            .inspect_err(|_| trace.step(Stage::Local, || "addressed to the gateway or its links".into()))?;
    }
    sanity(snap, src, wire_dst)?;
    let dst = dst.unwrap_or(wire_dst);
    let member = route(snap, ctx, dst, trace)?;
    let out = egress(snap, member, dst, ctx.hash)?;
    let Some(port) = snap.port(out.port) else { return Err(drop_packet(DropReason::EgressNotOurs, None)) };
    let zone = if out.tunnel == 0 { port.zone } else { Zone::Overlay };
    let rule = acl(snap, ctx, (src, dst), dnat.as_ref(), zone, trace)?;
    let meters = qos::qos(snap, ctx, (src, dst), dnat.as_ref(), snap.metered(out.port, out.tunnel), trace);
    let snat = nat::snat(snap, ctx, dnat.as_ref(), (zone, out.port), trace)?;
    if ctx.p.ttl <= 1 {
        return Err(drop_packet(DropReason::TtlExpired, Some(IcmpError::TimeExceeded)));
    }
    trace.step(Stage::Ttl, || format!("{} becomes {}", ctx.p.ttl, ctx.p.ttl - 1));
    if !port.up {
        return Err(drop_packet(DropReason::EgressDown, Some(IcmpError::HostUnreachable)));
    }
    let mtu = out.mtu;
    let fragmentation = fit(ctx.p, &out)?;
    trace.step(Stage::Mtu, || {
        let what = match fragmentation {
            Fragmentation::NotNeeded => "fits",
            Fragmentation::Packet => "is split to",
            Fragmentation::Outer => "is split outside the tunnel, which carries",
        };
        format!("{} bytes {what} {mtu}", ctx.p.ip_len)
    });
    let to = out.to;
    let nexthop = snap
        .neighbors
        .get(&(out.port, to))
        .copied()
        .filter(|&n| snap.nexthop(n).is_some_and(|nh| nh.valid()))
        .ok_or(Disposition::Unresolved { port: out.port, to })?;
    trace.step(Stage::Neighbor, || match snap.nexthop(nexthop) {
        Some(nh) => format!("{to} is at {}", nh.dmac),
        None => format!("{to}"),
    });
    let (port, tunnel) = (out.port, out.tunnel);
    if let Some(t) = snap.tunnel(tunnel) {
        trace.step(Stage::Encap, || {
            format!("{} to {} by tunnel {}, {} bytes more", t.kind(), t.remote, t.name, t.overhead())
        });
    }
    Ok(ForwardDecision { port, tunnel, zone, to, nexthop, rule, mtu, fragmentation, dnat, snat, meters })
}

/// A route's way out of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    pub port: PortIdx,
    pub tunnel: TunnelNo,
    /// Next hop, of the outer packet if there is a tunnel.
    pub to: IpAddr,
    /// Bytes of the packet itself that leave in one piece.
    pub mtu: u16,
    /// One up to this size leaves in pieces of the outer packet.
    most: u16,
}

/// The way of packets to `dst` by a member of its route.
pub fn egress(snap: &Snapshot, m: &Member, dst: IpAddr, hash: u64) -> Result<Egress, Disposition> {
    let down = || drop_packet(DropReason::TunnelDown, Some(IcmpError::HostUnreachable));
    if m.tunnel == 0 {
        let own = snap.port(m.port).map_or(0, |p| p.mtu);
        let mtu = if m.mtu != 0 { m.mtu.min(own) } else { own };
        return Ok(Egress { port: m.port, tunnel: 0, to: m.via.unwrap_or(dst), mtu, most: mtu });
    }
    let t = snap.tunnel(m.tunnel).filter(|t| t.state.is_up()).ok_or_else(down)?;
    let path = snap.outer_path(t.remote_now(), hash).ok_or_else(down)?;
    Ok(Egress { port: path.port, tunnel: m.tunnel, to: path.to, mtu: t.whole_mtu(), most: t.inner_mtu() })
}

/// Whether a packet fits its way out, or how it may be made to.
fn fit(p: &Parsed, out: &Egress) -> Result<Fragmentation, Disposition> {
    if p.ip_len <= out.mtu {
        return Ok(Fragmentation::NotNeeded);
    }
    // No link carries less of IPv6, so the tunnel must not either (RFC 2473 7.1).
    let least = if out.tunnel != 0 && p.family == Family::V6 { MIN_MTU6 } else { 0 };
    let mtu = out.most.max(out.mtu).max(least);
    if p.ip_len <= mtu {
        return Ok(Fragmentation::Outer);
    }
    if p.dont_fragment {
        return Err(drop_packet(DropReason::MtuExceeded, Some(IcmpError::TooBig { mtu })));
    }
    if mtu < MIN_MTU {
        return Err(drop_packet(DropReason::MtuExceeded, None));
    }
    Ok(Fragmentation::Packet)
}

/// Packets for the gateway itself and link-scope multicast are the kernel's.
pub fn local(snap: &Snapshot, dst: IpAddr) -> Result<(), Disposition> {
    if dst.is_multicast() || snap.local.contains(&dst) || dst == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Disposition::Kernel);
    }
    match dst {
        IpAddr::V6(d) if d.is_unicast_link_local() => Err(Disposition::Kernel),
        _ => Ok(()),
    }
}

/// Addresses that a router must not forward (RFC 1812 5.3.7, RFC 4291 2.5, RFC 3927 2.7).
fn sanity(snap: &Snapshot, src: IpAddr, dst: IpAddr) -> Result<(), Disposition> {
    let bad_source = match src {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.octets()[0] >= 224 || a.is_loopback(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unspecified() || a.is_loopback(),
    };
    if bad_source || src == dst {
        return Err(drop_packet(DropReason::SourceMartian, None));
    }
    let bad_dest = match dst {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.octets()[0] >= 240 || a.is_loopback(),
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback(),
    };
    if bad_dest {
        return Err(drop_packet(DropReason::DestMartian, None));
    }
    let link_local = match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => s.is_link_local() || d.is_link_local(),
        (IpAddr::V6(s), _) => s.is_unicast_link_local(),
        _ => false,
    };
    if link_local {
        return Err(drop_packet(DropReason::LinkLocalScope, None));
    }
    if snap.local.contains(&src) {
        return Err(drop_packet(DropReason::SourceIsOurs, None));
    }
    Ok(())
}

fn route<'s, T: Tracer>(
    snap: &'s Snapshot,
    ctx: &PacketContext<'_>,
    dst: IpAddr,
    trace: &mut T,
) -> Result<&'s Member, Disposition> {
    let found = match snap.route(dst) {
        None => Err(drop_packet(DropReason::NoRoute, Some(IcmpError::NetUnreachable))),
        Some(Route::Local) => Err(Disposition::Kernel),
        Some(Route::Blackhole) => Err(drop_packet(DropReason::RouteBlackhole, None)),
        Some(Route::Unreachable) => {
            Err(drop_packet(DropReason::RouteUnreachable, Some(IcmpError::HostUnreachable)))
        }
        Some(Route::Prohibit) => {
            Err(drop_packet(DropReason::RouteProhibit, Some(IcmpError::AdminProhibited)))
        }
        Some(Route::NotOurs) => Err(drop_packet(DropReason::EgressNotOurs, None)),
        Some(Route::Via(members)) => snap
            .choose(members, ctx.hash)
            .ok_or(drop_packet(DropReason::NoRoute, Some(IcmpError::NetUnreachable))),
    };
    if let Ok(m) = &found {
        trace.step(Stage::Route, || {
            if let Some(t) = snap.tunnel(m.tunnel) {
                return match snap.outer_path(t.remote, ctx.hash).and_then(|p| snap.port(p.port)) {
                    Some(port) => format!("through tunnel {}, to {} by port {}", t.name, t.remote, port.name),
                    None => format!("through tunnel {}, but no port leads to {}", t.name, t.remote),
                };
            }
            let port = snap.port(m.port).map_or("?", |p| p.name.as_str());
            match m.via {
                Some(via) => format!("via {via} on port {port}"),
                None => format!("on link of port {port}"),
            }
        });
    }
    found
}

/// The ACLs, unless the session was judged already. Returns the rule that admitted the packet.
fn acl<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    (src, dst): (IpAddr, IpAddr),
    dnat: Option<&Dnat>,
    to: Zone,
    trace: &mut T,
) -> Result<Option<u32>, Disposition> {
    let session = match ctx.leaves_to {
        // Rerouted across another border: what admitted the session does not speak for this way.
        Some(zone) if zone != to => Known::New,
        _ => ctx.session,
    };
    let judged = match session {
        Known::Established | Known::Related => {
            trace.step(Stage::Acl, || "passed with its session".into());
            return Ok(None);
        }
        Known::Revalidate { initiator, from, to } => snap.acl.check(from, to, &initiator),
        Known::New => {
            let (sport, dport) = match ctx.p.l4 {
                L4::Echo { .. } | L4::IcmpError { .. } | L4::IcmpOther { .. } => (0, 0),
                _ => ctx.p.ports(),
            };
            let dport = dnat.map_or(dport, |d| d.to.port);
            snap.acl.check(ctx.zone, to, &Tuple { proto: ctx.p.proto, src, dst, sport, dport })
        }
    };
    match judged {
        AclVerdict::Accept { slot } => {
            trace.step(Stage::Acl, || match slot {
                Some(s) => format!("accepted by {}", trace_rule(snap, s)),
                None => "no rule matched: accepted".into(),
            });
            Ok(slot)
        }
        AclVerdict::Deny { slot: Some(s) } => {
            trace.step(Stage::Acl, || format!("denied by {}", trace_rule(snap, s)));
            Err(Disposition::Drop { reason: DropReason::AclDenied, icmp: None, rule: Some(s) })
        }
        AclVerdict::Deny { slot: None } => {
            trace.step(Stage::Acl, || "no rule matched: denied".into());
            Err(drop_packet(DropReason::AclDefaultDenied, None))
        }
    }
}

fn trace_rule(snap: &Snapshot, slot: u32) -> String {
    snap.acl.name(slot).map_or_else(|| format!("rule slot {slot}"), |n| format!("rule {n}"))
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Known::New => "none",
            Known::Established => "known, judged under this epoch",
            Known::Revalidate { .. } => "known, of an older epoch: judged anew",
            Known::Related => "ICMP error about a known session",
        })
    }
}

/// EtherType of a family.
pub const fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => sag_packet::proto::ETHERTYPE_IPV4,
        Family::V6 => sag_packet::proto::ETHERTYPE_IPV6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_pinned() {
        let names: Vec<_> = Stage::ORDER.iter().map(|s| s.name()).collect();
        assert_eq!(
            names,
            [
                "parse", "decap", "session", "dnat", "local", "sanity", "route", "acl", "qos", "snat", "ttl",
                "mtu", "neighbor", "rewrite", "encap"
            ]
        );
        assert!(Stage::ORDER.is_sorted());
    }
}
