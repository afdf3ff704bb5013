//! A worker's sockets: opened and closed as the control thread says.

use super::{FromWorker, Queue, Worker};
use sag_bpf::QUEUES_PER_DEV;
use sag_model::config::ZeroCopy;
use sag_xsk::{Mode, OpenError, Socket, SocketConfig};

impl Worker {
    pub(super) fn open(
        &mut self,
        request: u64,
        (dev, siblings): (u8, u32),
        config: &SocketConfig,
    ) -> FromWorker {
        let queue = config.queue;
        // What is posted when the socket is opened does not come back until something arrives.
        let others = self.receivers().filter(|q| q.dev != dev).map(|q| q.siblings);
        let config = &SocketConfig {
            fill_level: fill_level(self.umem.frame_count(), siblings + others.sum::<u32>()),
            ..config.clone()
        };
        let failed = |error: String, permanent| FromWorker::Failed { request, dev, queue, error, permanent };
        let socket = match Socket::open(&mut self.umem, config) {
            Ok(s) => s,
            Err(e) => return failed(e.to_string(), matches!(e, OpenError::ZeroCopyRefused { .. })),
        };
        let binding = socket.binding();
        let bulk = !binding.is_zero_copy() && self.bulk.open_for(&config.device);
        match socket.fd().try_clone_to_owned() {
            Ok(fd) => {
                let revalidation =
                    self.revalidations.get(usize::from(dev) * QUEUES_PER_DEV as usize + queue as usize);
                self.sockets.push(Queue {
                    dev,
                    request,
                    siblings,
                    revalidation,
                    socket,
                    bulk,
                    broken: false,
                    lost: 0,
                });
                self.index_sockets();
                FromWorker::Opened { request, dev, queue, socket: fd, binding }
            }
            Err(e) => {
                socket.close(&mut self.umem);
                failed(e.to_string(), false)
            }
        }
    }

    pub(super) fn close(&mut self, dev: u8) {
        self.read_stats();
        let mut i = 0;
        while i < self.sockets.len() {
            if self.sockets[i].dev == dev {
                let q = self.sockets.swap_remove(i);
                q.socket.close(&mut self.umem);
            } else {
                i += 1;
            }
        }
        self.index_sockets();
    }

    /// By which socket each device is sent to: that of the lowest queue, for the kernel sends nothing by sockets of queues that a
    /// driver has for XDP alone, which are the highest.
    fn index_sockets(&mut self) {
        self.sockets.sort_by_key(|q| (q.dev, q.socket.queue()));
        self.by_dev = [None; 64];
        for (i, q) in self.sockets.iter().enumerate() {
            if let Some(slot) = self.by_dev.get_mut(usize::from(q.dev))
                && slot.is_none()
            {
                *slot = u8::try_from(i).ok();
            }
        }
        // Those that are still to be opened count, too.
        let level = fill_level(self.umem.frame_count(), self.receivers().map(|q| q.siblings).sum());
        self.sockets.iter_mut().for_each(|q| q.socket.set_fill_level(level));
    }

    /// A socket of each device.
    fn receivers(&self) -> impl Iterator<Item = &Queue> {
        self.by_dev.iter().flatten().filter_map(|i| self.sockets.get(usize::from(*i)))
    }
}

/// Chunks that each socket keeps posted for what arrives: half of the packet memory for all of them together. The memory is
/// made for the devices of the start; one that comes later may have more queues, and what is sent needs chunks as well.
fn fill_level(frames: usize, sockets: u32) -> u32 {
    u32::try_from(frames / 2).unwrap_or(u32::MAX).checked_div(sockets).unwrap_or(u32::MAX).max(64)
}

/// The mode in which sockets are bound.
pub fn socket_mode(zero_copy: ZeroCopy, native: bool) -> Mode {
    match zero_copy {
        // Generic XDP hands over socket buffers: there is nothing to map.
        _ if !native => Mode::Copy,
        ZeroCopy::Auto => Mode::Auto,
        ZeroCopy::On => Mode::ZeroCopy,
        ZeroCopy::Off => Mode::Copy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_memory_is_left_to_send_from() {
        for (frames, sockets) in [(16384, 4), (16384, 10), (4096, 20), (4096, 1)] {
            assert!(fill_level(frames, sockets) * sockets <= frames as u32 / 2, "{sockets} of {frames}");
        }
        assert_eq!(fill_level(4096, 1), 2048, "as many as the ring takes");
        assert!(fill_level(4096, 0) >= 2048);
        assert_eq!(fill_level(4096, 1000), 64, "none would receive");
    }
}
