//! Frames of large batches for veth devices go by a BPF program instead of AF_XDP, which in copy mode runs the NAPI of
//! the device's peer for each frame ([`FrameSender`], decision 24).

use super::Worker;
use super::frames::EgressSockets;
use sag_bpf::FrameSender;
use sag_model::{DropReason, PortIdx};
use sag_xsk::Frame;
use sag_xsk::nic::Facts;

/// Received frames of a batch from which on it is quicker than AF_XDP: the system call sets up more.
const LEAST: usize = 8;
/// Only where it was measured to be quicker: other devices have no peer whose NAPI would run.
const DRIVER: &str = "veth";

/// Sends batches, if there is a device for it.
#[derive(Debug, Default)]
pub(super) struct BulkSender {
    sender: Option<FrameSender>,
    /// It cannot be had, which has been logged.
    failed: bool,
    /// The frames that wait: ingress, egress, bytes.
    sent: Vec<(PortIdx, PortIdx, usize)>,
}

impl BulkSender {
    /// Whether frames for a device may be sent by it; made ready for the first such device.
    pub(super) fn open_for(&mut self, device: &str) -> bool {
        if !Facts::read(device).is_ok_and(|f| f.driver == DRIVER) {
            return false;
        }
        if self.sender.is_none() && !self.failed {
            match FrameSender::open() {
                Ok(sender) => {
                    self.sender = Some(sender);
                    self.sent.reserve(FrameSender::FRAMES);
                }
                Err(error) => {
                    self.failed = true;
                    tracing::warn!(%error, "what workers send by veth devices goes by AF_XDP alone, which is slower");
                }
            }
        }
        self.sender.is_some()
    }

    /// Whether a batch of so many received frames is sent by it.
    #[inline]
    pub(super) fn is_worth_it(&self, frames: usize) -> bool {
        frames >= LEAST && self.sender.is_some()
    }

    /// Takes a frame that is to be sent by a device, or has the port's socket send what is too long for it.
    pub(super) fn send(
        &mut self,
        emit: &mut EgressSockets<'_>,
        device: u32,
        (ingress, port): (PortIdx, PortIdx),
        mut frame: Frame,
        (start, len): (usize, usize),
    ) -> Result<(), (Frame, DropReason)> {
        if !frame.set_range(start, len) {
            return Err((frame, DropReason::FrameTooBig));
        }
        if !self.sender.as_mut().is_some_and(|s| s.push(device, frame.bytes())) {
            return emit.send(port, frame, start, len);
        }
        self.sent.push((ingress, port, len));
        emit.umem.release(frame);
        Ok(())
    }
}

impl Worker {
    /// Sends what waits. What a device has not taken is counted as is what a full transmit ring does not take.
    pub(super) fn flush_bulk(&mut self) {
        let BulkSender { sender: Some(sender), sent, failed } = &mut self.bulk else { return };
        if sender.is_empty() {
            return;
        }
        let mut lost = None;
        let done = sender.flush(|n| {
            if let Some((ingress, port, len)) = sent.get(n).copied() {
                self.pipeline.untransmit(ingress, port, len, DropReason::TxRingFull);
                lost = Some(port);
            }
        });
        sent.clear();
        if let Err(error) = done {
            tracing::warn!(%error, "the kernel does not send what workers give it in bulk: by AF_XDP from now on");
            *failed = true;
            self.bulk.sender = None;
            return;
        }
        // No other sign of a device that is gone is seen by who only sends.
        if let Some(dev) = lost.and_then(|port| self.snapshot.port(port)).map(|p| usize::from(p.dev))
            && let Some(i) = self.by_dev.get(dev).copied().flatten().map(usize::from)
            && let Some(Err(error)) = self.sockets.get(i).map(|q| q.socket.probe())
        {
            self.report_gone(i, error.to_string());
        }
    }
}
