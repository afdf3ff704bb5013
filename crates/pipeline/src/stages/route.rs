//! The stages that look at addresses: what is for the gateway, what may not be forwarded, and where the rest goes.

use super::decision::{Draft, drop_packet};
use super::{Disposition, Known, Line, PacketContext, Stage, Tracer};
use crate::ids::TunnelNo;
use crate::snapshot::{Member, Route, Snapshot};
use sag_model::{DropReason, PortIdx, VrfNo, Zone};
use sag_packet::icmp::IcmpError;
use sag_packet::parse::Fragment;
use sag_packet::proto::{UDP, UDP_LEN};
use sag_packet::{Family, L4};
use std::net::{IpAddr, Ipv4Addr};

/// ICMP type of a redirect (RFC 1812 5.2.7.2): its source must be the next router of the host, so none comes from beyond
/// the link. Those of IPv6 have link-local sources.
const REDIRECT4: u8 = 5;

/// A route's way out of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// The port.
    pub port: PortIdx,
    /// The tunnel, if it enters one.
    pub tunnel: Option<TunnelNo>,
    /// The next hop's address.
    pub to: IpAddr,
    /// IP bytes of a packet that leave in one piece.
    pub mtu: u16,
    /// IP bytes of a packet that a tunnel takes in whatever pieces.
    pub most: u16,
    /// The source that the route prefers.
    pub source: Option<Ipv4Addr>,
}

/// Where packets to `dst` leave by a member of a route.
///
/// # Errors
///
/// A drop: the tunnel is down, or no port leads to its remote address.
#[inline]
pub fn egress(snap: &Snapshot, m: &Member, dst: IpAddr, hash: u64) -> Result<Egress, Disposition> {
    let down = || drop_packet(DropReason::TunnelDown, Some(IcmpError::HostUnreachable));
    let Some(no) = m.tunnel else {
        let own = snap.port(m.port).map_or(0, |p| p.mtu);
        let mtu = if m.mtu != 0 { m.mtu.min(own) } else { own };
        return Ok(Egress {
            port: m.port,
            tunnel: None,
            to: m.via.unwrap_or(dst),
            mtu,
            most: mtu,
            source: m.source,
        });
    };
    let t = snap.tunnel(no).filter(|t| t.state.is_up()).ok_or_else(down)?;
    let path = snap.outer_path(t, t.remote_now(), hash).ok_or_else(down)?;
    Ok(Egress {
        port: path.port,
        tunnel: m.tunnel,
        to: path.to,
        mtu: t.whole_mtu(),
        most: t.inner_mtu(),
        source: None,
    })
}

/// Packets for the gateway itself and link-scope multicast are the kernel's.
///
/// # Errors
///
/// [`Disposition::Kernel`].
pub fn local_destination(snap: &Snapshot, vrf: VrfNo, dst: IpAddr) -> Result<(), Disposition> {
    if dst.is_multicast() || snap.is_local(vrf, dst) || dst == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Disposition::Kernel);
    }
    match dst {
        IpAddr::V6(d) if d.is_unicast_link_local() => Err(Disposition::Kernel),
        _ => Ok(()),
    }
}

/// What a DHCP server offers the gateway is unicast to the address that a port is to get (RFC 2131 4.1), whatever others it
/// has. Who the offer is for is in it: the Ethernet address to which the frame was sent.
#[inline(always)]
fn is_dhcp_offer(ctx: &PacketContext<'_>) -> bool {
    let p = ctx.p;
    let has_ports = p.proto == UDP && p.ports() == (67, 68);
    has_ports && p.family == Family::V4 && p.fragment == Fragment::Whole && offers_an_address(ctx)
}

/// [`is_dhcp_offer`], by what the datagram says. Hardly any packet comes to this.
#[cold]
fn offers_an_address(ctx: &PacketContext<'_>) -> bool {
    let p = ctx.p;
    let message = ctx.frame.get(usize::from(p.l4_at) + UDP_LEN..).and_then(|m| m.first_chunk::<36>());
    let (Some(m), None) = (message, ctx.tunnel) else { return false };
    // The kind, the address that the client is to have, the client's Ethernet address.
    m[0] == 2 && m[16..20] == p.dst4().octets() && ctx.frame.starts_with(&m[28..34])
}

/// What is not translated may be for the gateway.
#[inline(always)]
pub(super) fn local<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if draft.translated {
        return Ok(());
    }
    if is_dhcp_offer(ctx) {
        trace.step(Stage::Local, || "a DHCP server's answer to the gateway".into());
        return Err(Disposition::Kernel);
    }
    local_destination(snap, ctx.vrf, draft.wire_dst)
        .inspect_err(|_| trace.step(Stage::Local, || "addressed to the gateway or its links".into()))
}

/// Addresses that a router must not forward (RFC 1812 5.3.7, RFC 4291 2.5, RFC 3927 2.7, RFC 6890 2.2), and sources that
/// do not live where the packet comes from (RFC 2827, RFC 3704).
#[inline(always)]
pub(super) fn sanity<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    _: &mut T,
) -> Result<(), Disposition> {
    let (src, dst) = (draft.src, draft.wire_dst);
    let bad_source = match src {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.octets()[0] >= 224 || a.is_loopback(),
        IpAddr::V6(a) => {
            a.is_multicast() || a.is_unspecified() || a.is_loopback() || a.to_ipv4_mapped().is_some()
        }
    };
    if bad_source || src == dst {
        return Err(drop_packet(DropReason::SourceMartian, None));
    }
    let bad_dest = match dst {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.octets()[0] >= 240 || a.is_loopback(),
        IpAddr::V6(a) => a.is_unspecified() || a.is_loopback() || a.to_ipv4_mapped().is_some(),
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
    if snap.is_local(ctx.vrf, src) {
        return Err(drop_packet(DropReason::SourceIsOurs, None));
    }
    // Nobody is told: who has the source did not send the packet. Routers have addresses to which no route leads, and
    // what they say of a session is needed (RFC 5508 REQ-5).
    if !ctx.on_path {
        snap.check_source(src, ctx.ingress, ctx.tunnel).map_err(|reason| drop_packet(reason, None))?;
    }
    if let L4::IcmpError { kind, .. } = ctx.p.l4
        && kind == REDIRECT4
        && ctx.p.family == Family::V4
    {
        return Err(drop_packet(DropReason::IcmpRedirect, None));
    }
    Ok(())
}

/// The route of the destination, the member for the flow, and the port or tunnel that it names.
#[inline(always)]
pub(super) fn route<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    // Routers on the way may have addresses to which no route leads.
    if ctx.session != Known::Related && !snap.may_cross((ctx.vrf, draft.src), (draft.vrf, draft.dst)) {
        return Err(drop_packet(DropReason::NoRoute, Some(IcmpError::NetUnreachable)));
    }
    let mut member = lookup(snap, (draft.vrf, draft.dst), ctx.hash)?;
    let held = match ctx.line {
        Some(Line::Source(port)) if !snap.may_hold(port) => None,
        Some(Line::Question(port) | Line::Source(port)) => Some(port),
        None => None,
    };
    if let Some(port) = held {
        member = snap.return_member(member, (draft.vrf, draft.dst), port);
    }
    trace.step(Stage::Route, || describe(snap, member, ctx.hash));
    draft.egress = egress(snap, member, draft.dst, ctx.hash)?;
    let Some(port) = snap.port(draft.egress.port) else {
        return Err(drop_packet(DropReason::EgressNotOurs, None));
    };
    draft.link_up = port.up;
    draft.zone = if draft.egress.tunnel.is_none() { port.zone } else { Zone::Overlay };
    draft.egress_vrf = snap.vrf_of(draft.egress.port, draft.egress.tunnel);
    if draft.translated
        && draft.zone == ctx.zone
        && ctx.zone != Zone::Lan
        && snap.nat.is_prefix_inside(draft.vrf, draft.dst)
    {
        // As by a discard route of the inside network: the default route would send it back to where it came from.
        trace.step(Stage::Route, || format!("no route leads inside to {}", draft.dst));
        return Err(drop_packet(DropReason::NoRoute, Some(IcmpError::NetUnreachable)));
    }
    Ok(())
}

#[inline(always)]
fn lookup(snap: &Snapshot, (vrf, dst): (VrfNo, IpAddr), hash: u64) -> Result<&Member, Disposition> {
    match snap.route_in(vrf, dst) {
        None | Some(Route::Throw) => Err(drop_packet(DropReason::NoRoute, Some(IcmpError::NetUnreachable))),
        Some(Route::Local) => Err(Disposition::Kernel),
        Some(Route::Blackhole) => Err(drop_packet(DropReason::RouteBlackhole, None)),
        Some(Route::Unreachable) => {
            // As Linux says it: of IPv6 there is no route.
            let error = if dst.is_ipv4() { IcmpError::HostUnreachable } else { IcmpError::NetUnreachable };
            Err(drop_packet(DropReason::RouteUnreachable, Some(error)))
        }
        Some(Route::Prohibit) => {
            Err(drop_packet(DropReason::RouteProhibit, Some(IcmpError::AdminProhibited)))
        }
        Some(Route::NotOurs) => Err(drop_packet(DropReason::EgressNotOurs, None)),
        Some(Route::Via(members)) => snap
            .choose(members, hash)
            .ok_or_else(|| drop_packet(DropReason::NoRoute, Some(IcmpError::NetUnreachable))),
    }
}

fn describe(snap: &Snapshot, m: &Member, hash: u64) -> String {
    if let Some(t) = snap.tunnel(m.tunnel) {
        return match snap.outer_path(t, t.remote, hash).and_then(|p| snap.port(p.port)) {
            Some(port) => format!("through tunnel {}, to {} by port {}", t.name, t.remote, port.name),
            None => format!("through tunnel {}, but no port leads to {}", t.name, t.remote),
        };
    }
    let port = snap.port(m.port).map_or("?", |p| p.name.as_str());
    match m.via {
        Some(via) => format!("via {via} on port {port}"),
        None => format!("on link of port {port}"),
    }
}
