//! From a frame to a parsed packet with its flow hash: the port it arrived on, what is the kernel's,
//! what is malformed, which datagram a fragment belongs to.

use super::{Pipeline, Slot, Verdict, drop_at};
use crate::counters::Counters;
use crate::fragments::DatagramKey;
use crate::order;
use crate::snapshot::Snapshot;
use sag_model::flow::RecordNo;
use sag_model::ids::Zone;
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::parse::{self, Family, Fragment, L4, Parsed};
use std::net::IpAddr;

impl Pipeline {
    /// Ingress port, headers and flow hash of a frame, into `slot`.
    #[inline]
    pub(super) fn ingest(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        dev: u8,
        frame: &[u8],
        slot: &mut Slot,
    ) -> Result<(), Verdict> {
        let count = |c: &Counters, port: PortIdx| {
            c.port(port).rx_packets.add(1);
            c.port(port).rx_bytes.add(frame.len() as u64);
        };
        let anyone = || snap.ingress.port(dev, 0).or_else(|| snap.ingress.first(dev)).unwrap_or(PortIdx(0));
        let c = &self.counters;
        let (vlan, ethertype, l3) = parse::link(frame).map_err(|r| {
            count(c, anyone());
            drop_at(c, anyone(), r)
        })?;
        let Some(ingress) = snap.ingress.port(dev, vlan) else {
            count(c, anyone());
            let reason = if vlan != 0 { DropReason::VlanUnknown } else { DropReason::PortNotReady };
            return Err(drop_at(c, anyone(), reason));
        };
        count(c, ingress);
        let Some(port) = snap.port(ingress) else {
            return Err(drop_at(c, ingress, DropReason::PortNotReady));
        };
        let dst_mac: Option<&[u8; 6]> = frame.first_chunk();
        let ours = dst_mac.is_some_and(|m| *m == port.mac.0) || snap.options.promiscuous;
        let seen = parse::parse_into(frame, ethertype, l3, &mut slot.p);
        let group = dst_mac.is_some_and(|m| m[0] & 1 != 0);
        if !ours || group {
            c.port(ingress).to_kernel.add(1);
            return Err(Verdict::Kernel);
        }
        match seen {
            Ok(true) => {}
            Ok(false) => {
                c.port(ingress).to_kernel.add(1);
                return Err(Verdict::Kernel);
            }
            Err(reason) => return Err(drop_at(c, ingress, reason)),
        }
        let p = &mut slot.p;
        if p.fragment != Fragment::Whole {
            let key = datagram(p, frame, port.zone);
            if order::local(snap, p.dst(frame)).is_ok() && !self.fragments.follow(&key, p, now) {
                return Err(drop_at(c, ingress, DropReason::FragmentNoFirst));
            }
        }
        slot.hash = match p.family {
            Family::V4 => {
                let hash = self.tables.v4.hash(&p.key4(port.zone));
                self.tables.v4.expect(hash);
                hash
            }
            Family::V6 => {
                let hash = self.tables.v6.hash(&p.key6(frame, port.zone));
                self.tables.v6.expect(hash);
                hash
            }
        };
        (slot.ingress, slot.zone) = (ingress, port.zone);
        Ok(())
    }

    #[inline]
    pub(super) fn find(&self, s: &Slot, frame: &[u8]) -> Option<RecordNo> {
        if let L4::IcmpError { .. } = s.p.l4 {
            // An error is about a session, never part of one.
            return None;
        }
        match s.p.family {
            Family::V4 => self.tables.v4.find(&s.p.key4(s.zone), s.hash),
            Family::V6 => self.tables.v6.find(&s.p.key6(frame, s.zone), s.hash),
        }
    }
}

fn datagram(p: &Parsed, frame: &[u8], zone: Zone) -> DatagramKey {
    let wide = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    let id = match p.fragment {
        Fragment::First { id } | Fragment::Later { id, .. } => id,
        Fragment::Whole => 0,
    };
    DatagramKey {
        src: wide(p.src(frame)),
        dst: wide(p.dst(frame)),
        id,
        proto: if p.family == Family::V4 { p.proto } else { 0 },
        zone: zone as u8,
    }
}
