//! Packets whose next hop is not resolved yet: requested, released, or given up; and how a copy that
//! was held goes on.

use super::{BatchEntry, Env, NO_ENTRY, Pipeline, Verdict};
use crate::originate::Emit;
use crate::pending::{self, Arrival};
use crate::snapshot::Snapshot;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::parse::{self, Family, Fragment};
use sag_packet::rewrite::FrameMut;
use std::net::IpAddr;

impl Pipeline {
    /// Next hops to be resolved, requested since the last call.
    pub fn take_requests(&mut self) -> impl Iterator<Item = (PortIdx, IpAddr)> + '_ {
        self.neighbors.requests.drain(..)
    }

    /// The slow path of a packet that was not in the batch.
    pub(super) fn onward(
        &mut self,
        env: &Env<'_>,
        s: &mut BatchEntry,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Env { now, .. } = *env;
        match (s.p.fragment, s.p.family) {
            (Fragment::Whole, Family::V4) => self.process_slow::<FlowRecord4>(env, s, f, emit, now),
            (Fragment::Whole, Family::V6) => self.process_slow::<FlowRecord6>(env, s, f, emit, now),
            (_, Family::V4) => self.fragment::<FlowRecord4>(env, s, f, emit),
            (_, Family::V6) => self.fragment::<FlowRecord6>(env, s, f, emit),
        }
    }

    pub(super) fn poll_pending_neighbors(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        // Out of `self` while the pipeline runs.
        let mut buf = std::mem::take(&mut self.buffers.released);
        while let Some(held) = self.neighbors.take(&mut buf, |h| {
            let (port, to) = h.key;
            snap.resolved(port, to).is_some() || now - h.arrival.since > pending::TIMEOUT
        }) {
            self.again(snap, now, &held.arrival, &mut buf, held.len, emit);
        }
        self.buffers.released = buf;
    }

    /// Sends a copy that was held (`len` bytes of `buf`, at [`pending::HEADROOM`]) on its way.
    pub(super) fn again(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        arrival: &Arrival,
        buf: &mut [u8],
        len: usize,
        emit: &mut impl Emit,
    ) {
        let Arrival { dev, since, .. } = *arrival;
        let env = Env { snap, now, dev };
        let c = self.counters.port(arrival.ingress);
        c.held.sub(1);
        let mut f = FrameMut::new(buf, pending::HEADROOM, len);
        let mut s = NO_ENTRY;
        let taken_in = if arrival.tunnel.is_none() {
            // Counted when it arrived; counted again by `ingest`.
            c.rx_packets.sub(1);
            c.rx_bytes.sub(len as u64);
            self.ingest(&env, &mut f, &mut s, emit)
        } else {
            self.left_before(snap, arrival, &f, &mut s)
        };
        let (ingress, verdict) = match taken_in {
            Err(v) => (parse::link(f.bytes()).ok().and_then(|(vlan, ..)| snap.ingress.port(dev, vlan)), v),
            Ok(()) => {
                if s.p.fragment != Fragment::Whole {
                    self.belongs(&mut s, f.bytes(), arrival.ports);
                }
                s.found = self.find(&s, f.bytes());
                let v = match s.p.family {
                    Family::V4 => self.process_slow::<FlowRecord4>(&env, &s, &mut f, emit, since),
                    Family::V6 => self.process_slow::<FlowRecord6>(&env, &s, &mut f, emit, since),
                };
                (Some(s.ingress), v)
            }
        };
        let ingress = ingress.unwrap_or(arrival.ingress);
        match verdict {
            Verdict::Tx { port, start, len } if !emit.emit(port, &buf[start..start + len]) => {
                self.untransmit(ingress, port, len, DropReason::TxRingFull);
            }
            // The gateway's own after all.
            Verdict::Kernel if !emit.to_kernel(dev, &buf[pending::HEADROOM..pending::HEADROOM + len]) => {
                self.counters.port(ingress).to_kernel.sub(1);
                self.counters.count_drop(ingress, DropReason::NoKernelPath);
            }
            _ => {}
        }
    }
}
