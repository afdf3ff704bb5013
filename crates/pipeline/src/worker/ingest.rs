//! From a frame to a parsed packet with its flow hash: the port it arrived on, what is the kernel's,
//! what is malformed, which fragments are to be followed.

use super::{BatchEntry, Env, Pipeline, Verdict, drop_at};
use crate::counters::Counters;
use crate::family::FlowFamily;
use crate::originate::Emit;
use crate::snapshot::Snapshot;
use crate::stages::{self, for_stages};
use sag_model::flow::RecordNo;
use sag_model::{DropReason, PortIdx, VrfNo};
use sag_packet::parse::{self, Family, L4, Parsed};
use sag_packet::partial;
use sag_packet::rewrite::FrameMut;
use std::net::IpAddr;

/// Runs the stages of the part `receive`, one after the other, until one of them has a verdict.
macro_rules! run_receive {
    (
        ($this:ident $args:tt)
        receive { $($stage:ident $name:literal $run:ident;)* }
        decide $decide:tt
        apply $apply:tt
    ) => {
        $($this.$run $args?;)*
    };
}

impl Pipeline {
    /// From a frame to a parsed packet, with its flow hash, in `slot`, which has the record that XDP found, if any:
    /// the stages of the part `receive`.
    #[inline]
    pub(super) fn ingest(
        &mut self,
        env: &Env<'_>,
        f: &mut FrameMut<'_>,
        slot: &mut BatchEntry,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        for_stages!(run_receive!(self(env, f, slot, emit)));
        self.hash_and_prefetch(f.bytes(), slot);
        Ok(())
    }

    /// The parse stage: ingress port, what is the kernel's, and the headers.
    #[inline(always)]
    fn parse(
        &mut self,
        env: &Env<'_>,
        f: &mut FrameMut<'_>,
        slot: &mut BatchEntry,
        _: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let Env { snap, dev, .. } = *env;
        let frame = f.bytes();
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
        let ours = dst_mac.is_some_and(|m| port.is_at(*m)) || snap.options.promiscuous;
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
        self.complete_checksum(f, &slot.p, ingress);
        (slot.ingress, slot.zone) = (ingress, port.side());
        (slot.tunnel, slot.skip) = (None, 0);
        Ok(())
    }

    /// Completes a checksum that the sender has left to an offload: nothing behind this stage knows of such.
    #[inline(always)]
    pub(super) fn complete_checksum(&mut self, f: &mut FrameMut<'_>, p: &Parsed, ingress: PortIdx) {
        if partial::is_partial(f.bytes(), p) && partial::complete(f.bytes_mut(), p) {
            self.counters.port(ingress).partial_checksums.add(1);
            self.batch.partial_checksums = true;
        }
    }

    /// The decap stage: if the packet is a tunnel's, what is inside takes its place.
    #[inline(always)]
    fn decap(
        &mut self,
        env: &Env<'_>,
        f: &mut FrameMut<'_>,
        slot: &mut BatchEntry,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let Env { snap, .. } = *env;
        // Outer packets are in the default VRF.
        if snap.tunnels.is_empty() || !slot.zone.vrf().is_default() {
            return Ok(());
        }
        self.leave_tunnel(env, f, slot, emit)
    }

    /// The packet's hash, and what it will look at into the cache.
    #[inline]
    pub(super) fn hash_and_prefetch(&self, frame: &[u8], slot: &mut BatchEntry) {
        let p = &slot.p;
        slot.hash = match p.family {
            Family::V4 => {
                let hash = self.tables.v4.hash(&p.key4(slot.zone));
                self.tables.v4.prefetch(hash, slot.found);
                hash
            }
            Family::V6 => {
                let hash = self.tables.v6.hash(&p.key6(frame, slot.zone));
                self.tables.v6.prefetch(hash, slot.found);
                hash
            }
        };
    }

    #[inline]
    pub(super) fn find(&self, s: &BatchEntry, frame: &[u8]) -> Option<RecordNo> {
        if let L4::IcmpError { .. } = s.p.l4 {
            // An error is about a session, never part of one.
            return None;
        }
        let (t4, t6) = (&self.tables.v4, &self.tables.v6);
        match s.p.family {
            Family::V4 => t4.find(&s.p.key4(s.zone), s.hash).filter(|&no| !t4.is_denied(no)),
            Family::V6 => {
                let of_v6 = |&no: &RecordNo| !t6.is_denied(no) && t6.record(no).suits(Family::V6);
                t6.find(&s.p.key6(frame, s.zone), s.hash).filter(of_v6)
            }
        }
    }
}

/// Whether fragments to this address of a VRF are followed. Others are the kernel's, which puts them together;
/// an address of its own that NAT shares may have a host inside behind it.
pub(super) fn is_ours_to_follow(snap: &Snapshot, vrf: VrfNo, dst: IpAddr) -> bool {
    stages::local_destination(snap, vrf, dst).is_ok() || matches!(dst, IpAddr::V4(a) if snap.nat.owns(a))
}
