//! The stages that look at the egress link: TTL, MTU and next hop.

use super::decision::{Draft, drop_packet};
use super::{Disposition, Egress, Fragmentation, PacketContext, Stage, Tracer, nat64};
use crate::snapshot::Snapshot;
use crate::tunnel::MIN_MTU6;
use sag_model::DropReason;
use sag_packet::icmp::IcmpError;
use sag_packet::{Family, Parsed};

/// What every IPv4 link carries in one piece (RFC 791 3.2): the longest header and eight bytes.
const MIN_MTU: u16 = 68;

/// The packet may go one more hop.
#[inline(always)]
pub(super) fn ttl<T: Tracer>(
    _: &Snapshot,
    ctx: &PacketContext<'_>,
    _: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if ctx.p.ttl <= 1 {
        return Err(drop_packet(DropReason::TtlExpired, Some(IcmpError::TimeExceeded)));
    }
    trace.step(Stage::Ttl, || format!("{} becomes {}", ctx.p.ttl, ctx.p.ttl - 1));
    Ok(())
}

/// The egress port has a link, and the packet fits it or may be fragmented.
#[inline(always)]
pub(super) fn mtu<T: Tracer>(
    _: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    if !draft.link_up {
        return Err(drop_packet(DropReason::EgressDown, Some(IcmpError::HostUnreachable)));
    }
    let crossing = if draft.crossing.is_any() { nat64::fit(ctx, draft) } else { None };
    draft.fragmentation = crossing.unwrap_or_else(|| fit(ctx.p, &draft.egress))?;
    trace.step(Stage::Mtu, || {
        let what = match draft.fragmentation {
            Fragmentation::NotNeeded => "fits",
            Fragmentation::Packet => "is split to",
            Fragmentation::Outer => "is split outside the tunnel, which carries",
        };
        format!("{} bytes {what} {}", ctx.p.ip_len, draft.egress.mtu)
    });
    Ok(())
}

/// Whether a packet fits its egress, or how it may be made to.
#[inline(always)]
fn fit(p: &Parsed, out: &Egress) -> Result<Fragmentation, Disposition> {
    if p.ip_len <= out.mtu {
        return Ok(Fragmentation::NotNeeded);
    }
    // No link carries less of IPv6, so the tunnel must not either (RFC 2473 7.1).
    let least = if out.tunnel.is_some() && p.family == Family::V6 { MIN_MTU6 } else { 0 };
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

/// The next hop is resolved.
#[inline(always)]
pub(super) fn neighbor<T: Tracer>(
    snap: &Snapshot,
    _: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    let (port, to) = (draft.egress.port, draft.egress.to);
    draft.nexthop = snap
        .neighbors
        .get(&(port, to))
        .filter(|&n| snap.nexthop(n).is_some_and(|nh| nh.valid()))
        .ok_or(Disposition::Unresolved { port, to })?;
    trace.step(Stage::Neighbor, || match snap.nexthop(draft.nexthop) {
        Some(nh) => format!("{to} is at {}", nh.dmac),
        None => format!("{to}"),
    });
    Ok(())
}
