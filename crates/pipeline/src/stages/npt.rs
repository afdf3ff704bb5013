//! The translating stages of IPv6: prefixes, by RFC 6296. Sessions hold nothing; the addresses follow from the prefixes.

use super::decision::{Draft, drop_packet};
use super::{Disposition, Known, PacketContext, Stage, Tracer, Translation6};
use crate::snapshot::Snapshot;
use sag_model::{DropReason, VrfNo, VrfZone, Zone};
use sag_packet::L4;
use sag_packet::icmp::IcmpError;
use sag_packet::proto::TCP_RST;
use std::net::{IpAddr, Ipv6Addr};

/// The destination: of a session what it makes of it, of others what the prefixes say.
pub(super) fn destination<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if let Some(t) = &ctx.translation6
        && !is_current(snap, t)
    {
        return Err(Disposition::SessionInvalid);
    }
    if let Some(to) = ctx.to {
        trace.step(Stage::Dnat, || format!("to {to} with its session"));
        (draft.dst, draft.translated) = (to, true);
        return Ok(());
    }
    let IpAddr::V6(dst) = draft.wire_dst else { return Ok(()) };
    if ctx.translation6.is_some() || ctx.session != Known::New {
        return Ok(());
    }
    let Some((wanted, vrf)) = wanted_destination(snap, VrfZone::new(ctx.zone, ctx.vrf), dst) else {
        return Ok(());
    };
    // An external address of one VRF may be a host's in another.
    if !snap.may_cross((ctx.vrf, draft.src), (vrf, wanted.unwrap_or(dst).into())) {
        return Ok(());
    }
    match wanted {
        Err(reason) => Err(drop_packet(reason, None)),
        Ok(_) if matches!(ctx.p.l4, L4::IcmpError { .. }) => {
            Err(drop_packet(DropReason::IcmpUnmatched, None))
        }
        // It begins no session.
        Ok(_) if is_reset(ctx) => Err(drop_packet(DropReason::NatNoSession, None)),
        Ok(to) => {
            trace.step(Stage::Dnat, || format!("{dst} is {to}"));
            (draft.dst, draft.translated, draft.npt.dst) = (IpAddr::V6(to), true, Some(to));
            draft.vrf = vrf;
            Ok(())
        }
    }
}

/// The source, likewise.
pub(super) fn source<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if !snap.nat.translates6() && ctx.translation6.is_none() {
        return Ok(());
    }
    let IpAddr::V6(src) = draft.src else { return Ok(()) };
    let side = VrfZone::new(ctx.zone, ctx.vrf);
    if ctx.session == Known::Related {
        // Who speaks of the session: a host or router of the branch is known by its external address.
        draft.npt.src = wanted_source(snap, (side, draft), src, None).and_then(Result::ok);
        return Ok(());
    }
    if let Some(t) = &ctx.translation6 {
        let called = (t.old.1 != t.new.1).then_some(t.old.1);
        let is_current = || {
            let wanted = wanted_source(snap, (t.from, draft), t.old.0, called);
            wanted.unwrap_or(Ok(t.old.0)) == Ok(t.new.0)
        };
        return if t.reply || is_current() { Ok(()) } else { Err(Disposition::SessionInvalid) };
    }
    let called = match (draft.npt.dst, draft.wire_dst) {
        (Some(_), IpAddr::V6(called)) => Some(called),
        _ => None,
    };
    match wanted_source(snap, (side, draft), src, called) {
        None => Ok(()),
        Some(Err(reason)) => Err(drop_packet(reason, Some(IcmpError::AdminProhibited))),
        Some(Ok(_)) if matches!(ctx.p.l4, L4::IcmpError { .. }) => {
            Err(drop_packet(DropReason::IcmpUnmatched, None))
        }
        Some(Ok(_)) if is_reset(ctx) => Err(drop_packet(DropReason::NatNoSession, None)),
        Some(Ok(external)) => {
            trace.step(Stage::Snat, || format!("from {external}"));
            draft.npt.src = Some(external);
            Ok(())
        }
    }
}

fn is_reset(ctx: &PacketContext<'_>) -> bool {
    matches!(ctx.p.l4, L4::Tcp { flags } if flags & TCP_RST != 0)
}

/// Whether the destination of a session is still what the prefixes say.
fn is_current(snap: &Snapshot, t: &Translation6) -> bool {
    match wanted_destination(snap, t.from, t.old.1) {
        Some((wanted, vrf)) => wanted == Ok(t.new.1) && vrf == t.to_vrf,
        None => t.old.1 == t.new.1,
    }
}

/// What a destination is to become, and in which VRF. The gateway's own addresses stay.
fn wanted_destination(
    snap: &Snapshot,
    from: VrfZone,
    dst: Ipv6Addr,
) -> Option<(Result<Ipv6Addr, DropReason>, VrfNo)> {
    if !snap.nat.translates6() || snap.is_local(from.vrf(), IpAddr::V6(dst)) {
        return None;
    }
    let (wanted, vrf) = snap.nat.inbound6(from.zone(), dst)?;
    // What the gateway's own sockets answer passes no translation.
    let of_a_host = |to: Ipv6Addr| match snap.is_local(vrf, IpAddr::V6(to)) {
        true => Err(DropReason::NatFiltered),
        false => Ok(to),
    };
    Some((wanted.and_then(of_a_host), vrf))
}

/// What a source is to become. `called`: the external address by which a LAN host calls another.
fn wanted_source(
    snap: &Snapshot,
    (from, draft): (VrfZone, &Draft),
    src: Ipv6Addr,
    called: Option<Ipv6Addr>,
) -> Option<Result<Ipv6Addr, DropReason>> {
    let wanted = match (from.zone(), draft.zone) {
        (Zone::Lan, Zone::Lan) => snap.nat.hairpin6(called?, (from.vrf(), src)),
        (from, to) if from == to => None,
        (_, to) => snap.nat.outbound6((from.vrf(), src), to, draft.egress.port),
    };
    let free = |addr: Ipv6Addr| match snap.is_local(draft.egress_vrf, IpAddr::V6(addr)) {
        true => Err(DropReason::NatNoAddress),
        false => Ok(addr),
    };
    wanted.map(|w| w.and_then(free))
}
