//! The QoS stage: which CAR and which links the packet's bytes count for. Metering itself comes with
//! the forwarding, here and in XDP.

use super::{Dnat, PacketContext, Stage};
use crate::policy::Tuple;
use crate::qos::{Mark, MeterGroupNo};
use crate::snapshot::Snapshot;
use crate::stages::Tracer;
use sag_model::PortIdx;
use sag_packet::L4;
use std::net::IpAddr;

pub(super) fn qos<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    (src, dst): (IpAddr, IpAddr),
    dnat: Option<&Dnat>,
    to: PortIdx,
    trace: &mut T,
) -> MeterGroupNo {
    let mark = Mark { dscp: ctx.p.tos >> 2, judged: ctx.metered };
    let classified = snap.qos.classify(snap.metered(ctx.ingress, ctx.tunnel), to, mark, || {
        let (sport, dport) = match ctx.p.l4 {
            L4::Echo { .. } | L4::IcmpError { .. } | L4::IcmpOther { .. } => (0, 0),
            _ => ctx.p.ports(),
        };
        let dport = ctx.to_port.or(dnat.map(|d| d.to.port)).unwrap_or(dport);
        Tuple { proto: ctx.p.proto, src, dst, sport, dport }
    });
    if classified.group != 0 {
        trace.step(Stage::Qos, || match classified.car.and_then(|c| snap.qos.car(c)) {
            Some(car) => match snap.qos.remark(classified.group) {
                Some(dscp) => format!("metered by {car}, marked {dscp}"),
                None => format!("metered by {car}"),
            },
            None => "no policy matched: metered by the link alone".into(),
        });
    }
    classified.group
}
