//! A worker's sockets: opened and closed as the control thread says.

use super::{FromWorker, Queue, Worker};
use sag_bpf::QUEUES_PER_DEV;
use sag_model::config::ZeroCopy;
use sag_xsk::{Mode, OpenError, Socket, SocketConfig};

impl Worker {
    pub(super) fn open(&mut self, request: u64, dev: u8, config: &SocketConfig) -> FromWorker {
        let queue = config.queue;
        let failed = |error: String, permanent| FromWorker::Failed { request, dev, queue, error, permanent };
        let socket = match Socket::open(&mut self.umem, config) {
            Ok(s) => s,
            Err(e) => return failed(e.to_string(), matches!(e, OpenError::ZeroCopyRefused { .. })),
        };
        let binding = socket.binding();
        match socket.fd().try_clone_to_owned() {
            Ok(fd) => {
                let revalidation =
                    self.revalidations.get(usize::from(dev) * QUEUES_PER_DEV as usize + queue as usize);
                self.sockets.push(Queue { dev, request, revalidation, socket, broken: false, lost: 0 });
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
        let level = fill_level(self.umem.frame_count(), self.sockets.len());
        self.sockets.iter_mut().for_each(|q| q.socket.set_fill_level(level));
        self.sockets.sort_by_key(|q| (q.dev, q.socket.queue()));
        self.by_dev = [None; 64];
        for (i, q) in self.sockets.iter().enumerate() {
            if let Some(slot) = self.by_dev.get_mut(usize::from(q.dev))
                && slot.is_none()
            {
                *slot = u8::try_from(i).ok();
            }
        }
    }
}

/// Chunks that each socket keeps posted for what arrives: half of the packet memory for all of them together. The memory is
/// made for the devices of the start; one that comes later may have more queues, and what is sent needs chunks as well.
fn fill_level(frames: usize, sockets: usize) -> u32 {
    u32::try_from(frames / 2 / sockets.max(1)).unwrap_or(u32::MAX).max(64)
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
            assert!(fill_level(frames, sockets) as usize * sockets <= frames / 2, "{sockets} of {frames}");
        }
        assert_eq!(fill_level(4096, 1), 2048, "as many as the ring takes");
        assert_eq!(fill_level(4096, 0), 2048);
        assert_eq!(fill_level(4096, 1000), 64, "none would receive");
    }
}
