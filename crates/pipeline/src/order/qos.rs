//! The QoS stage: which CAR and which links the packet's bytes count for. Metering itself comes with
//! the forwarding, here and in XDP.

use super::{Dnat, Stage, View};
use crate::policy::Tuple;
use crate::qos::SetNo;
use crate::snapshot::Snapshot;
use crate::trace::Tracer;
use sag_model::PortIdx;
use sag_packet::L4;
use std::net::IpAddr;

pub(super) fn qos<T: Tracer>(
    snap: &Snapshot,
    v: &View<'_>,
    (src, dst): (IpAddr, IpAddr),
    dnat: Option<&Dnat>,
    to: PortIdx,
    trace: &mut T,
) -> SetNo {
    let classified = snap.qos.classify(snap.metered(v.ingress, v.tunnel), to, || {
        let (sport, dport) = match v.p.l4 {
            L4::Echo { .. } | L4::IcmpError { .. } | L4::IcmpOther { .. } => (0, 0),
            _ => v.p.ports(),
        };
        let dport = v.to_port.or(dnat.map(|d| d.to.port)).unwrap_or(dport);
        Tuple { proto: v.p.proto, src, dst, sport, dport }
    });
    if classified.set != 0 {
        trace.step(Stage::Qos, || match classified.car.and_then(|c| snap.qos.car(c)) {
            Some(car) => format!("metered by {car}"),
            None => "no policy matched: metered by the link alone".into(),
        });
    }
    classified.set
}
