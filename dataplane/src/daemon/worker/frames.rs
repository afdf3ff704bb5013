//! Frames between sockets and pipeline.

use super::Queue;
use sag_bpf::{Injector, PuntMeta, PuntReason};
use sag_model::flow::RecordNo;
use sag_model::{DropReason, PortIdx};
use sag_packet::rewrite::FrameMut;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::tunnel::TunnelNo;
use sag_pipeline::{Emit, Frames};
use sag_xsk::{Frame, Umem};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

/// The port at which a frame on this device arrived, by its tag.
pub(super) fn ingress_of(snap: &Snapshot, dev: u8, frame: &Frame) -> PortIdx {
    let vlan = sag_packet::parse::link(frame.bytes()).map_or(0, |(vlan, ..)| vlan);
    snap.ingress.port(dev, vlan).or_else(|| snap.ingress.first(dev)).unwrap_or(PortIdx(0))
}

pub(super) struct Batch<'f>(pub(super) &'f mut Vec<Frame>);

impl Frames for Batch<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn frame(&mut self, i: usize) -> FrameMut<'_> {
        let (buf, start, len) = self.0[i].packet_mut();
        FrameMut::new(buf, start, len)
    }

    fn hint(&self, i: usize) -> Option<RecordNo> {
        let note = note(&self.0[i])?;
        (note.record != 0).then_some(RecordNo(note.record))
    }
}

/// What XDP noted in front of a frame.
fn note(frame: &Frame) -> Option<PuntMeta> {
    PuntMeta::read(*frame.front(PuntMeta::LEN)?.first_chunk()?)
}

pub(super) fn is_revalidation(frame: &Frame) -> bool {
    note(frame).is_some_and(|n| n.reason == PuntReason::Epoch)
}

/// Egress: packet memory and the sockets that send.
pub(super) struct EgressSockets<'w> {
    pub(super) umem: &'w mut Umem,
    pub(super) sockets: &'w mut Vec<Queue>,
    pub(super) by_dev: &'w [Option<u8>; 64],
    pub(super) snap: &'w Snapshot,
    pub(super) injector: &'w Injector,
    pub(super) tunnel_devices: &'w [Option<Arc<File>>],
}

impl EgressSockets<'_> {
    /// The device of a port, if its frames may be sent in bulk.
    #[inline]
    pub(super) fn bulk_device(&self, port: PortIdx) -> Option<u32> {
        let dev = self.snap.port(port).map(|p| usize::from(p.dev))?;
        let q = self.sockets.get(usize::from(self.by_dev.get(dev).copied().flatten()?))?;
        (q.bulk && !q.broken).then(|| q.socket.ifindex())
    }

    pub(super) fn send(
        &mut self,
        port: PortIdx,
        mut frame: Frame,
        start: usize,
        len: usize,
    ) -> Result<(), (Frame, DropReason)> {
        let dev = self.snap.port(port).map(|p| usize::from(p.dev));
        let slot = dev.and_then(|d| self.by_dev.get(d).copied().flatten());
        let Some(q) = slot.and_then(|i| self.sockets.get_mut(usize::from(i))).filter(|q| !q.broken) else {
            return Err((frame, DropReason::EgressDown));
        };
        if !frame.set_range(start, len) {
            return Err((frame, DropReason::FrameTooBig));
        }
        q.socket.send(self.umem, frame).map_err(|f| (f, DropReason::TxRingFull))
    }
}

impl Emit for EgressSockets<'_> {
    fn to_kernel(&mut self, dev: u8, frame: &[u8]) -> bool {
        let port = self.snap.ingress.first(dev).and_then(|p| self.snap.port(p));
        port.is_some_and(|p| self.injector.inject(p.ifindex, frame).is_ok())
    }

    fn to_tunnel_device(&mut self, tunnel: TunnelNo, packet: &[u8]) -> bool {
        let device = self.tunnel_devices.get(tunnel.index()).and_then(Option::as_deref);
        device.is_some_and(|mut d| d.write(packet).is_ok())
    }

    fn emit(&mut self, port: PortIdx, bytes: &[u8]) -> bool {
        let Some(mut frame) = self.umem.alloc() else { return false };
        let (buf, start, _) = frame.packet_mut();
        let Some(room) = buf.get_mut(start..start + bytes.len()) else {
            self.umem.release(frame);
            return false;
        };
        room.copy_from_slice(bytes);
        match self.send(port, frame, start, bytes.len()) {
            Ok(()) => true,
            Err((frame, _)) => {
                self.umem.release(frame);
                false
            }
        }
    }
}
