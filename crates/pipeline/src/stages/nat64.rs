//! The translating stages of NAT64 (RFC 6146). A session of it is one of IPv6, whichever side has begun it: rules and
//! meters see the packet of the IPv6 side, with the address that the IPv6 host has dialled or is dialled by.

use super::crossing::{Crossing, Nat64Context, New64, Seen64, Session64, Target64};
use super::decision::{Draft, drop_packet};
use super::{Disposition, Fragmentation, Known, PacketContext, Stage, Tracer};
use crate::nat::{Endpoint, Held, Nat64, NatProtocol, Towards, is_number};
use crate::policy::{Header, Tuple};
use crate::snapshot::{Route, Snapshot};
use sag_model::{DropReason, Zone};
use sag_packet::icmp::IcmpError;
use sag_packet::nat64::{MAY_FRAGMENT, MIN_MTU6, Untranslatable, length_in_v4, length_in_v6, segments_left};
use sag_packet::proto::{ICMPV6, TCP, TCP_ACK, TCP_RST, TCP_SYN, UDP};
use sag_packet::{Family, Fragment, L4};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// The five-tuple of a packet through NAT64.
pub(super) fn tuple(seen: &Seen64, ctx: &PacketContext<'_>) -> Tuple {
    let proto = if ctx.p.proto == TCP || ctx.p.proto == UDP { ctx.p.proto } else { ICMPV6 };
    let (sport, dport) = if proto == ICMPV6 { (0, 0) } else { (ctx.p.ports().0, seen.dport) };
    Tuple { proto, src: seen.src, dst: seen.dst, sport, dport }
}

/// What rules see of a packet's header: of an echo over IPv4 the kind that it has over IPv6.
pub(super) fn header(ctx: &PacketContext<'_>) -> Header {
    let own = Header::of(ctx.p);
    match (ctx.p.family, ctx.p.l4) {
        (Family::V4, L4::Echo { reply }) => {
            Header { message: if reply { 129 << 8 } else { 128 << 8 }, ..own }
        }
        _ => own,
    }
}

/// The destination: of a session what it makes of it, of others what the prefixes say. False: the packet is none of
/// NAT64's.
#[inline(always)]
pub(super) fn destination<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<bool, Disposition> {
    match (&ctx.nat64, ctx.p.family) {
        (Nat64Context::Session(s), _) => of_session(snap, (ctx, s), draft, trace).map(|()| true),
        (Nat64Context::Inbound, _) => inbound(snap, ctx, draft, trace).map(|()| true),
        (Nat64Context::None, Family::V6) if snap.nat.has_nat64() => outbound(snap, ctx, draft, trace),
        _ => Ok(false),
    }
}

fn of_session<T: Tracer>(
    snap: &Snapshot,
    (ctx, s): (&PacketContext<'_>, &Session64),
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if !is_current(snap, s) {
        return Err(Disposition::SessionInvalid);
    }
    routing_headers(ctx)?;
    trace.step(Stage::Dnat, || format!("to {} with its session, by NAT64", s.to));
    (draft.dst, draft.translated, draft.crossing) = (s.to, true, Crossing::Known);
    if s.to.is_ipv6() {
        // The host is in its VRF, wherever the packet comes from.
        draft.vrf = s.to_vrf;
    }
    draft.seen64 = Some(Seen64 { src: s.sides6.0, dst: s.sides6.1, dport: s.dport6 });
    Ok(())
}

/// Whether prefix and external address of a session are still those of the configuration.
fn is_current(snap: &Snapshot, s: &Session64) -> bool {
    let owned = |a| matches!(a, IpAddr::V4(a) if snap.nat.owns(a));
    match (s.old, s.new) {
        ((IpAddr::V6(_), IpAddr::V6(called)), (external, IpAddr::V4(to))) => {
            owned(external) && snap.nat.nat64(called).is_some_and(|n| n.target(called) == Ok(to))
        }
        ((IpAddr::V6(_), IpAddr::V6(called)), (IpAddr::V6(external), _)) => {
            snap.nat.nat64(called).is_some() && snap.nat.nat64(external).is_some()
        }
        ((IpAddr::V4(_), external), (IpAddr::V6(caller), _)) => {
            owned(external) && snap.nat.nat64(caller).is_some()
        }
        _ => false,
    }
}

fn refused() -> Disposition {
    drop_packet(DropReason::Nat64Refused, Some(IcmpError::AdminProhibited))
}

/// The first packet of an IPv6 host to an address behind a prefix.
#[inline(never)]
fn outbound<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<bool, Disposition> {
    let (IpAddr::V6(src), IpAddr::V6(dst)) = (draft.src, draft.wire_dst) else { return Ok(false) };
    let Some(by) = snap.nat.nat64(dst) else { return Ok(false) };
    match ctx.session {
        Known::New => {}
        // An error about a session that does not go through NAT64, and comes from there.
        Known::Related => return Ok(false),
        // It was forwarded as it is until now.
        _ => return Err(Disposition::SessionInvalid),
    }
    // Who is outside must not be led to third parties.
    if ctx.zone == Zone::Wan {
        return Err(drop_packet(DropReason::Nat64Refused, None));
    }
    let to = by.target(dst).map_err(|_| refused())?;
    begins_session(ctx)?;
    routing_headers(ctx)?;
    let target = if snap.nat.owns(to) {
        hairpin(snap, ctx, src, to)?
    } else if snap.is_local(ctx.vrf, IpAddr::V4(to))
        || matches!(snap.route_in(ctx.vrf, to.into()), Some(Route::Local))
    {
        return Err(refused());
    } else {
        Target64::V4(to)
    };
    trace.step(Stage::Dnat, || match target {
        Target64::V4(to) => format!("{dst} is {to}, by {}", by.hits.id),
        Target64::Host { host, inside, .. } => {
            format!("{dst} is {to}, whose port belongs to {host}:{}", inside.port)
        }
    });
    draft.dst = match target {
        Target64::V4(to) => to.into(),
        Target64::Host { host, .. } => host.into(),
    };
    draft.translated = true;
    draft.crossing = Crossing::New(New64 { target, snat: None, entry: number(snap, by) });
    draft.seen64 = Some(Seen64 { src: src.into(), dst: dst.into(), dport: ctx.p.ports().1 });
    Ok(true)
}

fn number(snap: &Snapshot, by: &Nat64) -> u8 {
    snap.nat.nat64.iter().position(|n| std::ptr::eq(n, by)).unwrap_or(0) as u8
}

/// A routing header that is not used up is for a router on the way (RFC 7915 section 5.1).
fn routing_headers(ctx: &PacketContext<'_>) -> Result<(), Disposition> {
    if !ctx.p.options || ctx.p.family == Family::V4 {
        return Ok(());
    }
    match segments_left(ctx.p.ip(ctx.frame)) {
        Err(Untranslatable::SegmentsLeft { at }) => {
            let icmp = Some(IcmpError::ParameterProblem { pointer: at });
            Err(drop_packet(DropReason::Nat64Untranslatable, icmp))
        }
        _ => Ok(()),
    }
}

/// Whether a packet may begin a session; why not.
fn begins_session(ctx: &PacketContext<'_>) -> Result<(), Disposition> {
    let reason = match ctx.p.l4 {
        L4::IcmpError { .. } => DropReason::IcmpUnmatched,
        L4::Tcp { flags } if flags & TCP_RST != 0 => DropReason::NatNoSession,
        L4::Echo { reply: true } => DropReason::NatNoSession,
        L4::Echo { reply: false } if ctx.p.fragment == Fragment::Whole => return Ok(()),
        L4::Tcp { .. } | L4::Udp => return Ok(()),
        L4::Other if matches!(ctx.p.proto, TCP | UDP) => return Ok(()),
        // Messages for one link, and fragments of ICMP (RFC 7915 section 1.2).
        _ if ctx.p.proto == ICMPV6 => DropReason::Nat64Untranslatable,
        _ => DropReason::NatProtocol,
    };
    Err(drop_packet(reason, None))
}

/// Who inside has the port of an external address that an IPv6 host calls (RFC 6146 section 3.8).
fn hairpin(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    src: Ipv6Addr,
    to: Ipv4Addr,
) -> Result<Target64, Disposition> {
    let (sport, dport) = ctx.p.ports();
    let protocol = NatProtocol::of(ctx.p.proto).filter(|_| snap.nat.hairpin).ok_or_else(refused)?;
    // Filters keep the outside out (RFC 4787 REQ-9): who calls does not matter.
    let (wire, caller) = (Endpoint::new(to, dport), Endpoint::new(to, sport));
    let found = snap.nat.binding_for(ctx.nat, Zone::Lan, wire, protocol, caller);
    let Some(Ok((inside, binding))) = found else { return Err(refused()) };
    if !is_syn(ctx) {
        return Err(drop_packet(DropReason::NatNoSession, None));
    }
    let other = |h: &Ipv6Addr| is_number(inside.addr) && *h != src && inside.vrf == ctx.vrf;
    let host = ctx.nat.host6(inside.addr).filter(other);
    host.map(|host| Target64::Host { host, inside, binding }).ok_or_else(refused)
}

/// Of TCP only a SYN begins a session through a port.
fn is_syn(ctx: &PacketContext<'_>) -> bool {
    !matches!(ctx.p.l4, L4::Tcp { flags } if flags & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN)
}

/// The first packet of an IPv4 host to a port that an IPv6 host has outside.
#[inline(never)]
fn inbound<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    let (src, dst) = (ctx.p.src4(), ctx.p.dst4());
    let (sport, dport) = ctx.p.ports();
    let pool = || snap.nat.externals.get(&dst.to_bits()).and_then(|e| snap.nat.source(e.source?));
    let refuse = |reason| {
        if let Some(s) = pool() {
            s.pool.filtered.fetch_add(1, Ordering::Relaxed);
        }
        drop_packet(reason, None)
    };
    let (wire, remote) = (Endpoint::new(dst, dport), Endpoint::new(src, sport));
    let found = NatProtocol::of(ctx.p.proto)
        .filter(|_| ctx.zone != Zone::Lan || snap.nat.hairpin)
        .and_then(|l| snap.nat.binding_for(ctx.nat, ctx.zone, wire, l, remote));
    let (inside, binding) = match found {
        Some(Ok(found)) => found,
        Some(Err(reason)) => return Err(refuse(reason)),
        None => return Err(refuse(DropReason::NatFiltered)),
    };
    if !is_syn(ctx) {
        return Err(refuse(DropReason::NatNoSession));
    }
    let host = ctx.nat.host6(inside.addr).filter(|_| is_number(inside.addr));
    let (Some(host), Some(by)) = (host, snap.nat.nat64_of_external(dst)) else {
        return Err(refuse(DropReason::NatFiltered));
    };
    if !by.may_embed(src) {
        return Err(refuse(DropReason::Nat64Refused));
    }
    trace.step(Stage::Dnat, || format!("{dst}:{dport} belongs to {host}:{}", inside.port));
    (draft.dst, draft.translated, draft.vrf) = (host.into(), true, inside.vrf);
    let target = Target64::Host { host, inside, binding };
    draft.crossing = Crossing::New(New64 { target, snat: None, entry: number(snap, by) });
    draft.seen64 = Some(Seen64 { src: by.prefix.embed(src).into(), dst: host.into(), dport: inside.port });
    Ok(())
}

/// The source: the external address of a new session of an IPv6 host, and whether that of a live one still holds.
#[inline(never)]
pub(super) fn source<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if ctx.session == Known::Related {
        return Ok(());
    }
    match (&ctx.nat64, &draft.crossing) {
        (Nat64Context::Session(s), _) => {
            if let ((IpAddr::V6(host), IpAddr::V6(called)), (IpAddr::V4(now), _), false) =
                (s.old, s.new, s.reply)
            {
                let held = Held { state: ctx.nat, addr: Some(now) };
                let by = snap.nat.nat64(called).ok_or(Disposition::SessionInvalid)?;
                let wanted = snap.nat.snat64(by, &towards(draft), of_host(host, s.sport), s.proto, held);
                if !wanted.is_ok_and(|w| w.addr == now || snap.nat.keeps(&w, now)) {
                    return Err(Disposition::SessionInvalid);
                }
            }
            trace.step(Stage::Snat, || "with its session".into());
            Ok(())
        }
        (_, Crossing::New(new)) => {
            let IpAddr::V6(host) = draft.src else { return Ok(()) };
            let towards = match new.target {
                Target64::V4(_) => towards(draft),
                Target64::Host { .. } => snap.towards_internet(ctx.vrf).unwrap_or_else(|| towards(draft)),
            };
            let by = snap.nat.nat64.get(usize::from(new.entry)).ok_or_else(refused)?;
            let held = Held { state: ctx.nat, addr: None };
            let src = of_host(host, ctx.p.ports().0);
            let snat = snap
                .nat
                .snat64(by, &towards, src, ctx.p.proto, held)
                .map_err(|reason| drop_packet(reason, Some(IcmpError::AdminProhibited)))?;
            trace.step(Stage::Snat, || format!("from {}", snat.addr));
            draft.crossing = Crossing::New(New64 { snat: Some(snat), ..*new });
            Ok(())
        }
        _ => Ok(()),
    }
}

fn towards(draft: &Draft) -> Towards {
    Towards {
        zone: draft.zone,
        port: draft.egress.port,
        hop: draft.egress.to,
        preferred: draft.egress.source,
    }
}

/// An IPv6 host as the choice among several addresses sees it: the same after a restart, which its number is not.
fn of_host(host: Ipv6Addr, port: u16) -> Endpoint {
    let bits = host.to_bits();
    let folded = (bits >> 64) as u64 ^ (bits as u64).rotate_left(17);
    Endpoint::new(Ipv4Addr::from_bits((folded ^ folded >> 32) as u32), port)
}

/// Whether a packet fits its egress in the family in which it leaves, or how it is made to (RFC 7915 sections 4 and 5).
/// `None`: as any other packet, since it stays in its family.
pub(super) fn fit(ctx: &PacketContext<'_>, draft: &Draft) -> Option<Result<Fragmentation, Disposition>> {
    let (p, out) = (ctx.p, &draft.egress);
    let most = out.most.max(out.mtu);
    let too_big = |mtu| Err(drop_packet(DropReason::MtuExceeded, Some(IcmpError::TooBig { mtu })));
    if let L4::IcmpError { .. } = p.l4 {
        // It is cut to what goes anywhere.
        return Some(Ok(Fragmentation::NotNeeded));
    }
    Some(match (p.family, draft.dst) {
        (Family::V6, IpAddr::V4(_)) => {
            match length_in_v4(p) {
                len if len <= out.mtu => Ok(Fragmentation::NotNeeded),
                len if len <= most => Ok(Fragmentation::Outer),
                // No sender of IPv6 makes smaller packets: those that are may be fragmented.
                len if p.fragment == Fragment::Whole && len > MAY_FRAGMENT => {
                    too_big(most.saturating_add(20).max(MIN_MTU6))
                }
                _ => Ok(Fragmentation::Packet),
            }
        }
        (Family::V4, IpAddr::V6(_)) if p.dont_fragment => match length_in_v6(p) {
            len if len <= out.mtu => Ok(Fragmentation::NotNeeded),
            len if len <= most => Ok(Fragmentation::Outer),
            _ => too_big(most.saturating_sub(20 + 8 * u16::from(p.fragment != Fragment::Whole))),
        },
        // Who may be fragmented on the way does not look for the path's MTU (RFC 7915 section 4.1).
        (Family::V4, IpAddr::V6(_)) if length_in_v6(p) <= MIN_MTU6 => Ok(Fragmentation::NotNeeded),
        (Family::V4, IpAddr::V6(_)) => Ok(Fragmentation::Packet),
        _ => return None,
    })
}
