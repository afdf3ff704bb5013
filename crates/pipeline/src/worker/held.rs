//! Packets whose next hop is not resolved yet: asked for, released, or given up.

use super::{MAX_REQUESTS, Pipeline, Verdict};
use crate::hold;
use crate::originate::Emit;
use crate::snapshot::Snapshot;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::parse::Family;
use sag_packet::rewrite::FrameMut;
use std::net::IpAddr;

impl Pipeline {
    pub(super) fn request(&mut self, port: PortIdx, to: IpAddr) {
        if self.requests.len() < MAX_REQUESTS
            && !self.requests.contains(&(port, to))
            && !self.hold.waits_for(port, to)
        {
            self.requests.push((port, to));
        }
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
            let verdict = match self.ingest(snap, now, held.dev, f.bytes()) {
                Err(v) => v,
                Ok(mut s) => {
                    s.found = self.find(&s, f.bytes());
                    match s.p.family {
                        Family::V4 => {
                            self.walk_one::<FlowRecord4>(snap, now, held.dev, &s, &mut f, emit, false)
                        }
                        Family::V6 => {
                            self.walk_one::<FlowRecord6>(snap, now, held.dev, &s, &mut f, emit, false)
                        }
                    }
                }
            };
            if let Verdict::Tx { port, start, len } = verdict
                && !emit.emit(port, &buf[start..start + len])
            {
                self.untransmit(held.ingress, port, len, DropReason::TxRingFull);
            }
            self.released = buf;
        }
    }
}
