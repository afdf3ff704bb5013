//! The workers' sockets on the devices, and which worker has which queue.
//!
//! A worker sends by its own sockets alone, so it needs a queue of every device. A device with fewer queues than there are
//! workers (a VLAN device, a card with one queue) leaves the others without: then only so many workers have queues at all,
//! of every device, and the rest are idle until that device is gone.

use super::{Device, Devices, RETRY, Surroundings};
use crate::daemon::worker::{ToWorker, socket_mode};
use rustix::io::Errno;
use sag_bpf::Mode;
use sag_model::config::ZeroCopy;
use sag_xsk::{Binding, Mode as SocketMode};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl Device {
    /// Queues on which sockets both receive and send.
    fn worker_queues(&self) -> Option<u32> {
        let facts = self.facts.as_ref().filter(|_| self.attached.is_some())?;
        if self.pair.is_some() {
            return Some(self.queues);
        }
        Some(facts.rx_queues.min(facts.tx_queues))
    }
}

/// How many of the workers have queues.
fn serving(workers: u32, queues: impl Iterator<Item = u32>) -> u32 {
    queues.min().unwrap_or(workers).min(workers).max(1)
}

impl Devices {
    /// Whether no socket of the device is open.
    pub fn has_no_socket(&self, slot: u8) -> bool {
        self.by_slot.get(&slot).is_some_and(|d| d.sockets.is_empty())
    }

    /// Has the workers open the sockets of devices that have none, and move those that are other workers' now.
    pub(super) fn open_sockets(&mut self, s: &Surroundings<'_>) {
        let now = serving(s.workers.count(), self.by_slot.values().filter_map(Device::worker_queues));
        let before = std::mem::replace(&mut self.serving, now);
        if before != now && before != 0 {
            tracing::info!(
                workers = now,
                before,
                "workers that have queues: at most one per queue of each device"
            );
            self.withdraw_sockets(s);
        }
        for (dev, d) in self.by_slot.iter_mut().filter(|(_, d)| d.attached.is_some() && d.request.is_none()) {
            self.requests += 1;
            let (request, dev, mode, busy_poll) = (self.requests, *dev, mode_of(s, d), s.dataplane.busy_poll);
            d.request = Some(request);
            for queue in 0..d.queues {
                if let Some(w) = s.workers.get(queue % now) {
                    let (device, siblings) =
                        (d.xdp_device().1.to_owned(), (d.queues - queue % now).div_ceil(now));
                    w.send(ToWorker::Open { request, dev, device, queue, siblings, mode, busy_poll });
                }
            }
        }
    }

    /// The device of a request. A report on a socket that is closed meanwhile concerns none.
    fn requested(&mut self, dev: u8, request: u64) -> Option<&mut Device> {
        self.by_slot.get_mut(&dev).filter(|d| d.request == Some(request))
    }

    /// Has the workers close all sockets. XDP goes on by itself meanwhile.
    fn withdraw_sockets(&mut self, s: &Surroundings<'_>) {
        for (slot, d) in self.by_slot.iter_mut().filter(|(_, d)| d.request.is_some()) {
            d.request = None;
            // Before the worker takes its memory back: the last descriptor keeps a socket alive.
            d.sockets.clear();
            for queue in 0..d.queues {
                let _ = s.gateway.clear_xsk(*slot, queue);
            }
            s.workers.close_device(*slot);
        }
    }

    /// A worker has opened a socket.
    pub fn socket_opened(
        &mut self,
        s: &Surroundings<'_>,
        request: u64,
        (dev, queue): (u8, u32),
        socket: OwnedFd,
        binding: Binding,
    ) {
        let Some(d) = self.requested(dev, request) else { return };
        if let Err(error) = s.gateway.set_xsk(dev, queue, socket.as_fd()) {
            d.error = Some(error.to_string());
            d.retry = Some(Instant::now() + RETRY);
            return;
        }
        let auto = s.dataplane.zero_copy == ZeroCopy::Auto;
        d.binding = Some(match binding {
            Binding::Copy { refused: None } if auto && d.lacks_zero_copy() => {
                Binding::Copy { refused: Some(Errno::OPNOTSUPP.raw_os_error()) }
            }
            other => other,
        });
        d.sockets.insert(queue, socket);
        if d.sockets.len() == d.queues as usize {
            let line = d.capability();
            if d.logged != line {
                tracing::info!("port device {line}");
                d.logged = line;
            }
        }
    }

    /// A worker could not open a socket. `fatal`: nor will it ever, and the gateway does not forward yet.
    pub fn socket_failed(&mut self, request: u64, (dev, queue): (u8, u32), error: String, fatal: bool) {
        let Some(d) = self.requested(dev, request) else { return };
        let hopeless =
            fatal.then(|| format!("port device {}: {error}; set dataplane.zero_copy to \"auto\"", d.name));
        let text = format!("no AF_XDP socket on queue {queue}: {error}");
        if d.logged != text {
            tracing::error!(device = d.name, "{text}; trying again");
            d.logged.clone_from(&text);
        }
        d.error = Some(text);
        d.retry = Some(Instant::now() + RETRY);
        self.fatal = hopeless.or(self.fatal.take());
    }

    /// A socket broke. It is tried again; if the device is gone, netlink will say so.
    pub fn socket_gone(&mut self, request: u64, dev: u8, error: String) {
        let Some(d) = self.requested(dev, request) else { return };
        d.error = Some(error);
        d.retry = Some(Instant::now() + RETRY);
    }

    /// Closes all sockets at once, after the workers have ended: the kernel waits out a grace period for each.
    pub fn close_sockets(&mut self) {
        let sockets = self.by_slot.values_mut().flat_map(|d| std::mem::take(&mut d.sockets).into_values());
        std::thread::scope(|s| {
            for socket in sockets {
                // Without a thread for it, it is closed here.
                let _ = std::thread::Builder::new().spawn_scoped(s, move || drop(socket));
            }
        });
    }
}

fn mode_of(s: &Surroundings<'_>, d: &Device) -> SocketMode {
    let attached = d.attached.as_ref();
    let native = attached.is_some_and(|a| a.mode == Mode::Native);
    match socket_mode(s.dataplane.zero_copy, native) {
        // Each try costs the kernel a grace period.
        SocketMode::Auto if attached.is_some_and(|a| a.zero_copy == Some(false)) => SocketMode::Copy,
        mode => mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_with_the_fewest_queues_says_how_many_workers_have_any() {
        for (workers, queues, want) in
            [(4, &[4, 8][..], 4), (4, &[4, 1], 1), (4, &[2], 2), (2, &[], 2), (2, &[0], 1)]
        {
            assert_eq!(serving(workers, queues.iter().copied()), want, "{workers} of {queues:?}");
        }
    }
}
