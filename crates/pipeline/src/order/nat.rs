//! The translating stages: decisions only. Ports are lent when the session is made.

use super::{Dnat, Known, Stop, View, stop};
use crate::nat::{Endpoint, Lent, Snat};
use crate::order::Stage;
use crate::snapshot::Snapshot;
use crate::trace::Tracer;
use sag_model::{DropReason, PortIdx, Zone};
use sag_packet::proto::{TCP_ACK, TCP_RST, TCP_SYN};
use sag_packet::translate;
use sag_packet::{Family, L4};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// Static entries, and the bindings that sessions from inside have made. `None`: not translated, or
/// by the session that the packet belongs to.
pub(super) fn dnat<T: Tracer>(snap: &Snapshot, v: &View<'_>, trace: &mut T) -> Result<Option<Dnat>, Stop> {
    if v.p.family != Family::V4 {
        return Ok(None);
    }
    if let Some(pair) = &v.pair {
        let moved = pair.old.0 != pair.new.0 && !snap.nat.owns(pair.new.0.addr);
        if moved || !snap.nat.stands(pair.from, pair.proto, pair.old.1, pair.new.1) {
            return Err(Stop::Anew);
        }
    }
    if let Some(to) = v.to {
        trace.step(Stage::Dnat, || format!("to {to} with its session"));
        return Ok(None);
    }
    let (src, dst) = (v.p.src4(), v.p.dst4());
    if v.pair.is_some() || v.session != Known::New || !snap.nat.owns(dst) {
        return Ok(None);
    }
    let local = snap.local.contains(&IpAddr::V4(dst));
    if let L4::IcmpError { .. } = v.p.l4 {
        return if local { Ok(None) } else { Err(stop(DropReason::IcmpUnmatched, None)) };
    }
    let (sport, dport) = v.p.ports();
    let pool = || snap.nat.externals.get(&dst.to_bits()).and_then(|e| snap.nat.source(e.source?));
    let refuse = |reason| {
        if let Some(s) = pool() {
            s.pool.filtered.fetch_add(1, Ordering::Relaxed);
        }
        Err(stop(reason, None))
    };
    if let Some(t) = snap.nat.forward(v.zone, dst, v.p.proto, dport) {
        trace.step(Stage::Dnat, || format!("{dst}:{dport} is {}:{} by {}", t.addr, t.port, t.hits.id));
        // A reset begins no session, and without one nothing is translated.
        if matches!(v.p.l4, L4::Tcp { flags } if flags & TCP_RST != 0) {
            return refuse(DropReason::NatNoSession);
        }
        if !translate::supports(v.p.family, v.p.proto) {
            return refuse(DropReason::NatProtocol);
        }
        let to = Endpoint { addr: t.addr, port: t.port };
        return Ok(Some(Dnat { to, binding: None, external: dst }));
    }
    if v.zone != Zone::Lan || snap.nat.hairpin {
        let (wire, remote) = (Endpoint { addr: dst, port: dport }, Endpoint { addr: src, port: sport });
        let lent = Lent::of(v.p.proto).and_then(|l| snap.nat.lent(v.nat, v.zone, wire, l, remote));
        match lent {
            Some(Ok((to, binding))) => {
                let all = TCP_SYN | TCP_ACK | TCP_RST;
                let begins = !matches!(v.p.l4, L4::Tcp { flags } if flags & all != TCP_SYN);
                if !begins {
                    return refuse(DropReason::NatNoSession);
                }
                trace.step(Stage::Dnat, || format!("{dst}:{dport} is lent to {}:{}", to.addr, to.port));
                return Ok(Some(Dnat { to, binding: Some(binding), external: dst }));
            }
            Some(Err(reason)) => {
                trace.step(Stage::Dnat, || format!("{dst}:{dport} is lent, its filter refuses {src}"));
                return refuse(reason);
            }
            None => {}
        }
    }
    // The gateway's own address: what is not translated is for the gateway. Nobody else has others.
    if local { Ok(None) } else { refuse(DropReason::NatFiltered) }
}

/// Whether and how the source of a new session is translated.
pub(super) fn snat<T: Tracer>(
    snap: &Snapshot,
    v: &View<'_>,
    dnat: Option<&Dnat>,
    (to, egress): (Zone, PortIdx),
    trace: &mut T,
) -> Result<Option<Snat>, Stop> {
    if v.p.family != Family::V4 || v.session == Known::Related || v.pair.is_some_and(|p| p.reply) {
        return Ok(None);
    }
    let src = v.pair.map_or(Endpoint { addr: v.p.src4(), port: v.p.ports().0 }, |p| p.old.0);
    let external = dnat.map(|d| d.external).or(v.pair.filter(|p| p.old.1 != p.new.1).map(|p| p.old.1.addr));
    let hairpin = external.filter(|_| v.zone == Zone::Lan && to == Zone::Lan);
    let wanted =
        snap.nat.snat(v.zone, (to, egress), src, v.p.proto, hairpin).map_err(|reason| stop(reason, None))?;
    if let Some(pair) = &v.pair {
        let addr = wanted.map_or(pair.old.0.addr, |w| w.addr);
        if addr != pair.new.0.addr {
            return Err(Stop::Anew);
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
    match v.p.l4 {
        L4::IcmpError { .. } => Err(stop(DropReason::IcmpUnmatched, None)),
        L4::Echo { reply: true } => Err(stop(DropReason::NatNoSession, None)),
        L4::Tcp { flags } if flags & TCP_RST != 0 => Err(stop(DropReason::NatNoSession, None)),
        _ if !translate::supports(v.p.family, v.p.proto) => Err(stop(DropReason::NatProtocol, None)),
        _ => Ok(Some(snat)),
    }
}
