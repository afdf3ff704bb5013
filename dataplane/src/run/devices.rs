//! Devices: attached when they are there, left when they go, taken up again when they return.

use super::Daemon;
use super::worker::{ToWorker, socket_mode};
use rustix::io::Errno;
use sag_bpf::{AttachMode, Attached, Mode, PortEntry};
use sag_model::VlanId;
use sag_model::config::{XdpMode, ZeroCopy};
use sag_xsk::{Binding, Mode as SocketMode, XDP_HEADROOM, nic};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes in front of a received frame: XDP's own and ours.
const HEADROOM: usize = XDP_HEADROOM as usize + 128;
/// A failed device is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// What the daemon has made of a device.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub ifindex: u32,
    pub attached: Option<Attached>,
    pub facts: Option<nic::Facts>,
    pub binding: Option<Binding>,
    pub queues: u32,
    /// Queues with a socket.
    pub open: u32,
    /// Those sockets, by queue: XDP's map forgets them when somebody flushes it.
    pub sockets: BTreeMap<u32, OwnedFd>,
    /// Why it does not work; tried again at `retry`.
    pub error: Option<String>,
    retry: Option<Instant>,
    said: String,
}

impl Device {
    /// Its sockets are open, or it cannot be had.
    pub fn ready(&self) -> bool {
        self.open >= self.queues || self.error.is_some()
    }

    /// The driver says that it has none, so it is not tried.
    fn lacks_zero_copy(&self) -> bool {
        self.attached.as_ref().is_some_and(|a| a.mode == Mode::Native && a.zero_copy == Some(false))
    }

    /// One line: driver, queues, modes, what gets in the way, and the reason of every downgrade.
    pub fn capability(&self) -> String {
        let mut line = match (&self.facts, self.binding) {
            (Some(f), Some(b)) => f.line(b).to_string(),
            (Some(f), None) => f.to_string(),
            (None, _) => format!("{}: no such device", self.name),
        };
        if self.binding.is_some() {
            line += &format!(", headroom {HEADROOM}");
        }
        if let Some(a) = &self.attached {
            line += &format!(", XDP {}", a.mode.name());
            if let Some(reason) = &a.reason {
                line += &format!(" ({reason})");
            }
            if a.can_transmit == Some(false) {
                line += ", cannot transmit for XDP (on veth: the peer needs GRO or an XDP program)";
            }
        }
        if let Some(e) = &self.error {
            line += &format!("; {e}");
        }
        line
    }
}

impl Daemon {
    /// Brings devices, sockets and XDP's port table in line with configuration and links.
    pub(super) fn reconcile(&mut self) {
        let mut wanted: BTreeMap<u8, String> = BTreeMap::new();
        for b in self.bindings.iter().filter(|b| b.ours()) {
            wanted.insert(b.port.dev, b.device.clone());
        }
        let gone: Vec<u8> = self
            .devices
            .iter()
            .filter(|(slot, d)| {
                let link = self.mirror.tables().link_named(&d.name);
                !wanted.contains_key(slot) || (d.ifindex != 0 && link.is_none_or(|l| l.ifindex != d.ifindex))
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in gone {
            self.leave(slot, wanted.contains_key(&slot));
        }
        for (slot, name) in wanted {
            self.take_up(slot, &name);
        }
        self.publish_ports();
    }

    pub(super) fn retry_devices(&mut self) {
        let due: Vec<(u8, String)> = self
            .devices
            .iter()
            .filter(|(_, d)| d.retry.is_some_and(|t| Instant::now() >= t))
            .map(|(s, d)| (*s, d.name.clone()))
            .collect();
        let any = !due.is_empty();
        for (slot, name) in due {
            self.leave(slot, true);
            self.take_up(slot, &name);
        }
        if any {
            self.publish_ports();
        }
    }

    fn leave(&mut self, slot: u8, keep_entry: bool) {
        // Before the worker takes its memory back: the last descriptor keeps a socket alive.
        if let Some(d) = self.devices.get_mut(&slot) {
            d.sockets.clear();
        }
        for w in &self.workers {
            w.send(ToWorker::Close { dev: slot });
        }
        let Some(d) = self.devices.remove(&slot) else { return };
        if d.ifindex != 0 {
            tracing::info!(device = d.name, "left");
            self.gateway.clear_port(d.ifindex);
            let _ = self.gateway.clear_dev(slot);
            for q in 0..d.queues {
                let _ = self.gateway.clear_xsk(slot, q);
            }
        }
        if let Err(error) = self.gateway.detach(&d.name) {
            tracing::debug!(device = d.name, %error, "detaching");
        }
        if keep_entry {
            let missing = Device {
                ifindex: 0,
                attached: None,
                facts: None,
                binding: None,
                retry: None,
                open: 0,
                queues: 0,
                ..d
            };
            self.devices.insert(slot, missing);
        }
    }

    fn take_up(&mut self, slot: u8, name: &str) {
        if self.devices.get(&slot).is_some_and(|d| d.ifindex != 0) {
            return;
        }
        let said = self.devices.get(&slot).map(|d| d.said.clone()).unwrap_or_default();
        let mut d = Device {
            name: name.to_owned(),
            ifindex: 0,
            attached: None,
            facts: None,
            binding: None,
            queues: 0,
            open: 0,
            sockets: BTreeMap::new(),
            error: None,
            retry: None,
            said,
        };
        if let Err(error) = self.try_device(slot, &mut d) {
            let text = error.to_string();
            if d.said != text {
                tracing::error!(device = name, "{text}; trying again");
                d.said.clone_from(&text);
            }
            d.error = Some(text);
            if self.mirror.tables().link_named(name).is_some() {
                d.retry = Some(Instant::now() + RETRY);
            }
        }
        self.devices.insert(slot, d);
    }

    fn try_device(&mut self, slot: u8, d: &mut Device) -> anyhow::Result<()> {
        let facts = nic::Facts::read(&d.name)?;
        d.ifindex = facts.ifindex;
        d.queues = facts.rx_queues.max(1);
        d.facts = Some(facts);
        let attach = match self.config.dataplane.mode {
            XdpMode::Auto => AttachMode::Auto,
            XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        };
        let attached = self.gateway.attach(d.ifindex, &d.name, attach)?;
        let native = attached.mode == Mode::Native;
        let mode = match socket_mode(self.config.dataplane.zero_copy, native) {
            // Each try costs the kernel a grace period.
            SocketMode::Auto if attached.zero_copy == Some(false) => SocketMode::Copy,
            mode => mode,
        };
        d.attached = Some(attached);
        self.gateway.set_dev(slot, d.ifindex)?;
        let workers = self.workers.len() as u32;
        for queue in 0..d.queues {
            let Some(w) = self.workers.get((queue % workers.max(1)) as usize) else { continue };
            w.send(ToWorker::Open {
                dev: slot,
                device: d.name.clone(),
                queue,
                mode,
                busy_poll: self.config.dataplane.busy_poll,
            });
        }
        Ok(())
    }

    pub(super) fn socket_opened(&mut self, dev: u8, queue: u32, socket: OwnedFd, binding: Binding) {
        if self.devices.get(&dev).is_some_and(|d| d.open == 0) {
            self.write_off(dev);
        }
        let Some(d) = self.devices.get_mut(&dev) else { return };
        if let Err(error) = self.gateway.set_xsk(dev, queue, socket.as_fd()) {
            d.error = Some(error.to_string());
            d.retry = Some(Instant::now() + RETRY);
            return;
        }
        let auto = self.config.dataplane.zero_copy == ZeroCopy::Auto;
        d.binding = Some(match binding {
            Binding::Copy { refused: None } if auto && d.lacks_zero_copy() => {
                Binding::Copy { refused: Some(Errno::OPNOTSUPP.raw_os_error()) }
            }
            other => other,
        });
        d.sockets.insert(queue, socket);
        d.open += 1;
        if d.open == d.queues {
            let line = d.capability();
            if d.said != line {
                tracing::info!("port device {line}");
                d.said = line;
            }
        }
    }

    pub(super) fn socket_failed(&mut self, dev: u8, queue: u32, error: String, final_word: bool) {
        let Some(d) = self.devices.get_mut(&dev) else { return };
        if final_word && self.live.is_none() {
            self.fatal =
                Some(format!("port device {}: {error}; set dataplane.zero_copy to \"auto\"", d.name));
        }
        let text = format!("no AF_XDP socket on queue {queue}: {error}");
        if d.said != text {
            tracing::error!(device = d.name, "{text}; trying again");
            d.said.clone_from(&text);
        }
        d.error = Some(text);
        d.retry = Some(Instant::now() + RETRY);
    }

    /// A socket broke. If the device is gone netlink tells; else try it anew.
    pub(super) fn socket_gone(&mut self, dev: u8, error: String) {
        let Some(d) = self.devices.get_mut(&dev) else { return };
        d.error = Some(error);
        d.retry = Some(Instant::now() + RETRY);
    }

    /// All of them at once, after the workers have ended: the kernel waits out a grace period for each.
    pub(super) fn close_sockets(&mut self) {
        let sockets = self.devices.values_mut().flat_map(|d| std::mem::take(&mut d.sockets).into_values());
        std::thread::scope(|s| {
            for socket in sockets {
                // Without a thread for it, it is closed here.
                let _ = std::thread::Builder::new().spawn_scoped(s, move || drop(socket));
            }
        });
    }

    /// Devices that were ports of an earlier daemon and are none of this one.
    pub(super) fn leave_predecessors(&self) {
        for ifindex in self.gateway.ports() {
            if self.devices.values().any(|d| d.ifindex == ifindex) {
                continue;
            }
            let slot = self.gateway.dev_of(ifindex);
            self.gateway.clear_port(ifindex);
            if let Some(slot) = slot {
                let _ = self.gateway.clear_dev(slot);
            }
            let Some(link) = self.mirror.tables().link(ifindex) else { continue };
            tracing::info!(device = link.name, "left: no port any more");
            if let Err(error) = self.gateway.detach(&link.name) {
                tracing::debug!(device = link.name, %error, "detaching");
            }
        }
    }

    /// XDP's view of the ports.
    pub(super) fn publish_ports(&self) {
        for (ifindex, vlan) in self.gateway.vlans() {
            let port = |b: &crate::compile::PortBinding| (b.port.ifindex, b.port.vlan);
            if !self.bindings.iter().any(|b| b.ours() && port(b) == (ifindex, vlan.get()))
                && let Err(error) = self.gateway.clear_vlan(ifindex, vlan)
            {
                tracing::error!(%error, "cannot tell XDP that a VLAN is no port any more");
            }
        }
        let mut by_dev: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (i, b) in self.bindings.iter().enumerate().filter(|(_, b)| b.ours()) {
            by_dev.entry(b.port.dev).or_default().push(i);
        }
        for (slot, ports) in by_dev {
            let Some(d) = self.devices.get(&slot).filter(|d| d.ifindex != 0) else { continue };
            let entry = |b: &crate::compile::PortBinding, on: bool, vlans: bool| PortEntry {
                port: b.idx,
                zone: b.port.zone,
                dev: slot,
                mac: b.port.mac,
                on,
                vlans,
                dhcp: b.port.addrs4.is_empty(),
            };
            let ports: Vec<_> = ports.into_iter().filter_map(|i| self.bindings.get(i)).collect();
            let vlans = ports.iter().any(|b| b.port.vlan != 0);
            let untagged = ports.iter().find(|b| b.port.vlan == 0);
            let Some(base) = untagged.or(ports.first()) else { continue };
            let mut done = vec![self.gateway.set_port(d.ifindex, &entry(base, untagged.is_some(), vlans))];
            for b in &ports {
                if let Some(vlan) = VlanId::new(b.port.vlan) {
                    done.push(self.gateway.set_vlan(d.ifindex, vlan, &entry(b, true, false)));
                }
            }
            for result in done {
                if let Err(error) = result {
                    tracing::error!(device = d.name, %error, "cannot tell XDP about the port");
                }
            }
        }
    }
}
