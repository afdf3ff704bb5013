//! Packets whose next hop is not resolved yet: asked for, released, or given up.

use super::{MAX_REQUESTS, NO_SLOT, Pipeline, Verdict};
use crate::hold;
use crate::originate::Emit;
use crate::snapshot::Snapshot;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::parse::{self, Family};
use sag_packet::rewrite::FrameMut;
use std::net::IpAddr;

impl Pipeline {
    /// Asks for a next hop, unless that has been done. False: no room to ask.
    pub(super) fn request(&mut self, port: PortIdx, to: IpAddr) -> bool {
        if self.requests.contains(&(port, to)) || self.hold.waits_for(port, to) {
            return true;
        }
        let room = self.requests.len() < MAX_REQUESTS;
        if room {
            self.requests.push((port, to));
        }
        room
    }

    /// Next hops to be resolved, asked for since the last call.
    pub fn take_requests(&mut self) -> impl Iterator<Item = (PortIdx, IpAddr)> + '_ {
        self.requests.drain(..)
    }

    pub(super) fn poll_held(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        let resolved = |port, to| {
            snap.neighbors.get(&(port, to)).and_then(|&n| snap.nexthop(n)).is_some_and(|nh| nh.valid())
        };
        while let Some(held) = self.hold.take(|h| resolved(h.port, h.to) || now - h.since > hold::PATIENCE) {
            self.counters.port(held.ingress).held.sub(1);
            // Counted when it arrived; counted again by `ingest`.
            let len = usize::from(held.len);
            let c = self.counters.port(held.ingress);
            c.rx_packets.sub(1);
            c.rx_bytes.sub(u64::from(held.len));
            // Taken out of `self` while the pipeline runs; put back below.
            let mut buf = std::mem::take(&mut self.released);
            buf[..hold::HEADROOM + len].copy_from_slice(&self.hold.buffer(&held)[..hold::HEADROOM + len]);
            self.hold.done(held);
            let mut f = FrameMut::new(&mut buf, hold::HEADROOM, len);
            let mut s = NO_SLOT;
            let (ingress, verdict) = match self.ingest(snap, now, held.dev, f.bytes(), &mut s) {
                Err(v) => {
                    (parse::link(f.bytes()).ok().and_then(|(vlan, ..)| snap.ingress.port(held.dev, vlan)), v)
                }
                Ok(()) => {
                    s.found = self.find(&s, f.bytes());
                    let v =
                        match s.p.family {
                            Family::V4 => self
                                .walk_one::<FlowRecord4>(snap, now, held.dev, &s, &mut f, emit, held.since),
                            Family::V6 => self
                                .walk_one::<FlowRecord6>(snap, now, held.dev, &s, &mut f, emit, held.since),
                        };
                    (Some(s.ingress), v)
                }
            };
            let ingress = ingress.unwrap_or(held.ingress);
            match verdict {
                Verdict::Tx { port, start, len } if !emit.emit(port, &buf[start..start + len]) => {
                    self.untransmit(ingress, port, len, DropReason::TxRingFull);
                }
                // Become the gateway's own while it waited.
                Verdict::Kernel if !emit.to_kernel(held.dev, &buf[hold::HEADROOM..hold::HEADROOM + len]) => {
                    self.counters.port(ingress).to_kernel.sub(1);
                    self.counters.count_drop(ingress, DropReason::NoKernelPath);
                }
                _ => {}
            }
            self.released = buf;
        }
    }
}
