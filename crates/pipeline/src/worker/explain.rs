//! What would happen to a frame.

use super::{BatchEntry, NO_ENTRY, Pipeline};
use crate::snapshot::Snapshot;
use crate::stages::{self, Disposition, ForwardDecision, Stage, Steps, Tracer, for_stages};
use sag_model::DropReason;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_packet::parse::{self, Family, NetworkLayer};

/// Says what each stage of the part `apply` would do.
macro_rules! explain_apply {
    (
        ($args:tt)
        receive $receive:tt
        decide $decide:tt
        apply { $($stage:ident $name:literal $run:ident;)* }
    ) => {
        $($run $args;)*
    };
}

/// What the rewrite stage would do.
fn rewrite(snap: &Snapshot, d: &ForwardDecision, steps: &mut Steps) {
    let translated = d.dnat.is_some() || d.snat.is_some() || d.npt.any() || d.crossing.is_any();
    if translated || snap.qos.remark(d.meters).is_some() {
        steps.step(Stage::Rewrite, || match (translated, snap.qos.remark(d.meters)) {
            (true, None) => "addresses and ports, TTL".into(),
            (true, Some(dscp)) => format!("addresses and ports, DSCP {dscp}, TTL"),
            (false, Some(dscp)) => format!("DSCP {dscp}, TTL"),
            (false, None) => "TTL".into(),
        });
    }
}

/// What the encap stage would do.
fn encap(snap: &Snapshot, d: &ForwardDecision, steps: &mut Steps) {
    if let Some(t) = snap.tunnel(d.tunnel) {
        steps.step(Stage::Encap, || {
            format!("{} to {} by tunnel {}, {} bytes more", t.kind(), t.remote, t.name, t.overhead())
        });
    }
}

fn dropped_at_parse(reason: DropReason, steps: &mut Steps) -> Explained {
    let dropped = Disposition::Drop { reason, icmp: None, rule: None, alone: false };
    steps.stopped(Stage::Parse, &dropped);
    Explained::Stopped(dropped)
}

impl Pipeline {
    /// What would happen to this frame: the very code that forwards, without its effects.
    pub fn explain(&self, snap: &Snapshot, dev: u8, frame: &[u8]) -> (Steps, Explained) {
        let mut steps = Steps::default();
        let verdict = self.explain_into(snap, dev, frame, &mut steps);
        (steps, verdict)
    }

    fn explain_into(&self, snap: &Snapshot, dev: u8, frame: &[u8], steps: &mut Steps) -> Explained {
        let parsed = parse::link(frame).and_then(|(vlan, et, l3)| Ok((vlan, parse::parse(frame, et, l3)?)));
        let (vlan, p) = match parsed {
            Ok((vlan, NetworkLayer::Ip(p))) => (vlan, p),
            Ok((_, NetworkLayer::NotIp { ethertype })) => {
                steps.step(Stage::Parse, || format!("EtherType {ethertype:#06x}"));
                return Explained::Stopped(Disposition::Kernel);
            }
            Err(reason) => return dropped_at_parse(reason, steps),
        };
        let Some((ingress, zone)) =
            snap.ingress.port(dev, vlan).and_then(|i| Some((i, snap.port(i)?.side())))
        else {
            let reason = if vlan != 0 { DropReason::VlanUnknown } else { DropReason::PortNotReady };
            return dropped_at_parse(reason, steps);
        };
        steps.step(Stage::Parse, || format!("{:?} protocol {}, {} bytes", p.family, p.proto, p.ip_len));
        let mut s = BatchEntry { p, ingress, zone, alive: true, ..NO_ENTRY };
        s.hash = match p.family {
            Family::V4 => self.tables.v4.hash(&p.key4(zone)),
            Family::V6 => self.tables.v6.hash(&p.key6(frame, zone)),
        };
        s.found = self.find(&s, frame);
        let nat64 = self.as_nat64(snap, &s, frame);
        s = nat64.unwrap_or(s);
        let family = if nat64.is_some() { Family::V6 } else { s.p.family };
        let mut evaluate = |s: &BatchEntry| {
            let ctx = match family {
                Family::V4 => self.packet_context::<FlowRecord4>(snap, s, frame).0,
                Family::V6 => self.packet_context::<FlowRecord6>(snap, s, frame).0,
            };
            stages::evaluate(snap, &ctx, steps)
        };
        let anew = match family {
            Family::V4 => self.new_connection::<FlowRecord4>(&s, frame),
            Family::V6 => self.new_connection::<FlowRecord6>(&s, frame),
        };
        if anew.is_some() {
            // Judged as the first packet of a session.
            s.found = None;
        }
        let mut end = evaluate(&s);
        if let Err(Disposition::SessionInvalid) = end {
            let bound = match family {
                Family::V4 => self.line_bound::<FlowRecord4>(snap, &s, frame),
                Family::V6 => self.line_bound::<FlowRecord6>(snap, &s, frame),
            };
            s.found = None;
            end = evaluate(&s);
            if bound.is_some_and(|b| b.has_to_leave(snap, &end)) {
                let reason = DropReason::NatWanChanged;
                end = Err(Disposition::Drop { reason, icmp: None, rule: None, alone: false });
            }
        }
        match end {
            Ok(decision) => {
                for_stages!(explain_apply!((snap, &decision, steps)));
                Explained::Forward(decision)
            }
            Err(stop) => Explained::Stopped(stop),
        }
    }
}

/// The end of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explained {
    /// The packet would be sent so.
    Forward(ForwardDecision),
    /// The packet would go no further than this.
    Stopped(Disposition),
}
