//! The QoS stage: which CAR and which links the packet's bytes count for. Metering itself comes with
//! the forwarding, here and in XDP.

use super::decision::Draft;
use super::{Disposition, PacketContext, Stage, Tracer, nat64};
use crate::policy::Tuple;
use crate::qos::Mark;
use crate::snapshot::Snapshot;
use sag_packet::L4;

/// The meter group of the packet: its CAR by the policies, its links by the ports.
#[inline(always)]
pub(super) fn qos<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    draft: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    let to = snap.metered(draft.egress.port, draft.egress.tunnel);
    let mark = Mark { dscp: ctx.p.tos >> 2, vrf: ctx.vrf, known: ctx.metered };
    let classified = snap.qos.classify(snap.metered(ctx.ingress, ctx.tunnel), to, mark, || {
        if let Some(seen) = &draft.seen64 {
            return nat64::tuple(seen, ctx);
        }
        let (sport, dport) = match ctx.p.l4 {
            L4::Echo { .. } | L4::IcmpError { .. } | L4::IcmpOther { .. } => (0, 0),
            _ => ctx.p.ports(),
        };
        let dport = ctx.to_port.or(draft.dnat.map(|d| d.to.port)).unwrap_or(dport);
        Tuple { proto: ctx.p.proto, src: draft.src, dst: draft.dst, sport, dport }
    });
    if classified.group.is_some() {
        trace.step(Stage::Qos, || match classified.car.and_then(|c| snap.qos.car(c)) {
            Some(car) => match snap.qos.remark(classified.group) {
                Some(dscp) => format!("metered by {car}, marked {dscp}"),
                None => format!("metered by {car}"),
            },
            None => "no policy matched: metered by the link alone".into(),
        });
    }
    draft.meters = classified.group;
    Ok(())
}
