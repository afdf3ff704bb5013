//! The translating stages: decisions only. Ports are allocated when the session is made.

use super::decision::{Draft, drop_packet};
use super::{Disposition, Dnat, Known, PacketContext, Stage, Tracer, Translation};
use super::{nat64, npt};
use crate::nat::{Endpoint, Held, NatProtocol, Snat, Towards};
use crate::snapshot::Snapshot;
use sag_model::{DropReason, Zone};
use sag_packet::proto::{TCP_ACK, TCP_RST, TCP_SYN};
use sag_packet::translate;
use sag_packet::{Family, L4};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// The destination translation of a new session, or that of the session that the packet belongs to.
#[inline(always)]
pub(super) fn dnat<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if nat64::destination(snap, ctx, draft, trace)? {
        return Ok(());
    }
    if ctx.p.family == Family::V6 {
        return npt::destination(snap, ctx, draft, trace);
    }
    draft.dnat = find_dnat(snap, ctx, trace)?;
    if let Some(dnat) = draft.dnat {
        draft.vrf = dnat.to.vrf;
    }
    if let Some(to) = ctx.to.or(draft.dnat.map(|d| IpAddr::V4(d.to.addr))) {
        (draft.dst, draft.translated) = (to, true);
    }
    Ok(())
}

/// Static entries, and the bindings that sessions from inside have made. `None`: not translated, or
/// by the session that the packet belongs to.
#[inline(always)]
fn find_dnat<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    trace: &mut T,
) -> Result<Option<Dnat>, Disposition> {
    if let Some(pair) = &ctx.translation {
        let moved = pair.old.0 != pair.new.0 && !snap.nat.owns(pair.new.0.addr);
        if moved
            || is_a_tunnels(snap, pair)
            || !snap.nat.dnat_is_current(pair.from, pair.proto, pair.old.1, pair.new.1)
        {
            return Err(Disposition::SessionInvalid);
        }
    }
    if let Some(to) = ctx.to {
        trace.step(Stage::Dnat, || format!("to {to} with its session"));
        return Ok(None);
    }
    let (src, dst) = (ctx.p.src4(), ctx.p.dst4());
    if ctx.translation.is_some() || ctx.session != Known::New || !snap.nat.owns(dst) {
        return Ok(None);
    }
    let local = snap.is_local(ctx.vrf, IpAddr::V4(dst));
    // An external address of one VRF may be a host's in another.
    let crosses = |to: Endpoint| snap.may_cross((ctx.vrf, src.into()), (to.vrf, to.addr.into()));
    if let L4::IcmpError { .. } = ctx.p.l4 {
        return if local { Ok(None) } else { Err(drop_packet(DropReason::IcmpUnmatched, None)) };
    }
    let (sport, dport) = ctx.p.ports();
    if ctx.vrf.is_default() && snap.tunnels.takes(IpAddr::V4(dst), IpAddr::V4(src), (ctx.p.proto, dport)) {
        // What the tunnel did not want of it is the gateway's.
        trace.step(Stage::Dnat, || format!("{dst}:{dport} is a tunnel's"));
        return Ok(None);
    }
    let pool = || snap.nat.externals.get(&dst.to_bits()).and_then(|e| snap.nat.source(e.source?));
    let refuse = |reason| {
        if let Some(s) = pool() {
            s.pool.filtered.fetch_add(1, Ordering::Relaxed);
        }
        Err(drop_packet(reason, None))
    };
    if let Some(t) = snap.nat.forward(ctx.zone, dst, ctx.p.proto, dport) {
        trace.step(Stage::Dnat, || format!("{dst}:{dport} is {}:{} by {}", t.addr, t.port, t.hits.id));
        if !crosses(t.endpoint()) {
            return Ok(None);
        }
        // What the gateway's own sockets answer passes no translation, and the kernel does not know the address: it would
        // send the packet back to where it came from.
        if snap.is_local(t.vrf, IpAddr::V4(t.addr)) {
            return refuse(DropReason::NatFiltered);
        }
        // A reset begins no session, and without one nothing is translated.
        if matches!(ctx.p.l4, L4::Tcp { flags } if flags & TCP_RST != 0) {
            return refuse(DropReason::NatNoSession);
        }
        if !translate::supports(ctx.p.family, ctx.p.proto) {
            return refuse(DropReason::NatProtocol);
        }
        return Ok(Some(Dnat { to: t.endpoint(), binding: None, external: dst }));
    }
    if ctx.zone != Zone::Lan || snap.nat.hairpin {
        let (wire, remote) = (Endpoint::new(dst, dport), Endpoint::new(src, sport));
        let binding = NatProtocol::of(ctx.p.proto)
            .and_then(|l| snap.nat.binding_for(ctx.nat, ctx.zone, wire, l, remote));
        match binding {
            Some(Ok((to, _))) if !crosses(to) => return Ok(None),
            Some(Ok((to, binding))) => {
                let all = TCP_SYN | TCP_ACK | TCP_RST;
                let begins = !matches!(ctx.p.l4, L4::Tcp { flags } if flags & all != TCP_SYN);
                if !begins {
                    return refuse(DropReason::NatNoSession);
                }
                trace.step(Stage::Dnat, || format!("{dst}:{dport} belongs to {}:{}", to.addr, to.port));
                return Ok(Some(Dnat { to, binding: Some(binding), external: dst }));
            }
            Some(Err(reason)) => {
                trace.step(Stage::Dnat, || {
                    format!("{dst}:{dport} belongs to a host inside, its filter refuses {src}")
                });
                return refuse(reason);
            }
            None => {}
        }
    }
    // The gateway's own address: what is not translated is for the gateway. Nobody else has others.
    let elsewhere = ctx.zone == Zone::Lan && !ctx.vrf.is_default();
    if elsewhere || local && !(ctx.zone == Zone::Wan && is_unsolicited(snap, ctx, dport)) {
        return Ok(None);
    }
    refuse(DropReason::NatFiltered)
}

/// Whether a SYN finds no socket of the gateway either, as far as these are known. XDP, which knows them all, drops most of
/// such SYNs itself.
fn is_unsolicited(snap: &Snapshot, ctx: &PacketContext<'_>, dport: u16) -> bool {
    let begins = matches!(ctx.p.l4, L4::Tcp { flags } if flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN);
    begins && snap.nat.is_silent(ctx.p.dst4()) && {
        let external = snap.nat.externals.get(&ctx.p.dst4().to_bits());
        let source = external.and_then(|e| snap.nat.source(e.source?));
        source.is_some_and(|s| !s.pool.is_reserved(NatProtocol::Tcp, dport))
    }
}

/// Whether one direction of a session is what a tunnel receives, since a tunnel has come to be there.
fn is_a_tunnels(snap: &Snapshot, pair: &Translation) -> bool {
    let takes = |own: Endpoint, remote: Endpoint| {
        snap.tunnels.takes(IpAddr::V4(own.addr), IpAddr::V4(remote.addr), (pair.proto, own.port))
    };
    (pair.old.0 != pair.new.0 && takes(pair.new.0, pair.new.1))
        || (pair.old.1 != pair.new.1 && takes(pair.old.1, pair.old.0))
}

/// Whether and how the source of a new session is translated.
#[inline(always)]
pub(super) fn snat<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if draft.crossing.is_any() {
        return nat64::source(snap, ctx, draft, trace);
    }
    if ctx.p.family == Family::V6 {
        return npt::source(snap, ctx, draft, trace);
    }
    draft.snat = find_snat(snap, ctx, draft, trace)?;
    Ok(())
}

#[inline(always)]
fn find_snat<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &Draft,
    trace: &mut T,
) -> Result<Option<Snat>, Disposition> {
    let dnat = draft.dnat.as_ref();
    let towards = Towards {
        zone: draft.zone,
        port: draft.egress.port,
        hop: draft.egress.to,
        preferred: draft.egress.source,
    };
    if ctx.session == Known::Related || ctx.translation.is_some_and(|p| p.reply) {
        return Ok(None);
    }
    let sender = Endpoint { addr: ctx.p.src4(), port: ctx.p.ports().0, vrf: ctx.vrf };
    let src = ctx.translation.map_or(sender, |p| p.old.0);
    let external =
        dnat.map(|d| d.external).or(ctx.translation.filter(|p| p.old.1 != p.new.1).map(|p| p.old.1.addr));
    let hairpin = external.filter(|_| ctx.zone == Zone::Lan && towards.zone == Zone::Lan);
    let held = Held { state: ctx.nat, addr: ctx.translation.map(|p| p.new.0.addr) };
    let proto = ctx.translation.map_or(ctx.p.proto, |p| p.proto);
    let wanted = snap
        .nat
        .snat(ctx.zone, &towards, src, proto, hairpin, held)
        .map_err(|reason| drop_packet(reason, None))?;
    if let Some(pair) = &ctx.translation {
        let (addr, now) = (wanted.map_or(pair.old.0.addr, |w| w.addr), pair.new.0.addr);
        if addr != now && !wanted.is_some_and(|w| snap.nat.keeps(&w, now)) {
            return Err(Disposition::SessionInvalid);
        }
        trace.step(Stage::Snat, || match wanted {
            Some(_) => format!("from {}:{} with its session", pair.new.0.addr, pair.new.0.port),
            None => "none".into(),
        });
        return Ok(None);
    }
    let Some(snat) = wanted else { return Ok(None) };
    trace.step(Stage::Snat, || match snat.port {
        Some(port) => format!("from {}:{port}", snat.addr),
        None => format!("from {}", snat.addr),
    });
    match ctx.p.l4 {
        L4::IcmpError { .. } => Err(drop_packet(DropReason::IcmpUnmatched, None)),
        L4::Echo { reply: true } => Err(drop_packet(DropReason::NatNoSession, None)),
        L4::Tcp { flags } if flags & TCP_RST != 0 => Err(drop_packet(DropReason::NatNoSession, None)),
        _ if !translate::supports(ctx.p.family, ctx.p.proto) => {
            Err(drop_packet(DropReason::NatProtocol, None))
        }
        _ => Ok(Some(snat)),
    }
}
