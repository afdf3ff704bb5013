//! Devices: attached when they are there, left when they go, taken up again when they return; and
//! the kernel's part in finding neighbours.

use super::Daemon;
use super::worker::{ToWorker, socket_mode};
use crate::compile::RouteRow;
use ipnet::IpNet;
use sag_bpf::{AttachMode, Attached, Mode, PortEntry};
use sag_model::config::XdpMode;
use sag_model::{PortIdx, VlanId};
use sag_pipeline::snapshot::Route;
use sag_rtnl::{Changes, NeighborState};
use sag_xsk::{Binding, XDP_HEADROOM, nic};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
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

/// Flows that must look their route up again: those over these next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    All,
    Gateway(PortIdx, IpAddr),
    OnLink(PortIdx, IpNet),
}

impl Stale {
    pub fn covers(&self, port: PortIdx, ip: IpAddr) -> bool {
        match self {
            Stale::All => true,
            Stale::Gateway(p, via) => *p == port && *via == ip,
            Stale::OnLink(p, net) => *p == port && net.contains(&ip),
        }
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
        let mode = match self.config.dataplane.mode {
            XdpMode::Auto => AttachMode::Auto,
            XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        };
        let attached = self.gateway.attach(d.ifindex, &d.name, mode)?;
        let native = attached.mode == Mode::Native;
        d.attached = Some(attached);
        self.gateway.set_dev(slot, d.ifindex)?;
        let workers = self.workers.len() as u32;
        for queue in 0..d.queues {
            let Some(w) = self.workers.get((queue % workers.max(1)) as usize) else { continue };
            w.send(ToWorker::Open {
                dev: slot,
                device: d.name.clone(),
                queue,
                mode: socket_mode(self.config.dataplane.zero_copy, native),
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
        d.binding = Some(binding);
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

    /// Which flows a change of routes concerns: those over the ways out that the changed prefixes
    /// had until now.
    pub(super) fn flows_to_resolve(&self, changes: &Changes) -> Vec<Stale> {
        if !changes.routes && !changes.links && !changes.addrs {
            return Vec::new();
        }
        if changes.resynced || changes.links || changes.prefixes.len() > 256 {
            return vec![Stale::All];
        }
        let mut out = Vec::new();
        for prefix in &changes.prefixes {
            let covering = |r: &&RouteRow| r.dst.contains(prefix);
            let Some(row) = self.routes.iter().filter(covering).max_by_key(|r| r.dst.prefix_len()) else {
                continue;
            };
            if let Route::Via(members) = &row.route {
                out.extend(members.iter().map(|m| match m.via {
                    _ if m.tunnel != 0 => Stale::All,
                    Some(via) => Stale::Gateway(m.port, via),
                    None => Stale::OnLink(m.port, *prefix),
                }));
            }
        }
        out
    }

    /// Asks the kernel for next hops that workers wait for.
    pub(super) fn resolve(&mut self, wanted: &[(PortIdx, IpAddr)]) {
        let mut new = false;
        let routers: BTreeSet<(PortIdx, IpAddr)> = self
            .routes
            .iter()
            .filter_map(|r| match &r.route {
                Route::Via(members) => Some(members.iter().filter_map(|m| Some((m.port, m.via?)))),
                _ => None,
            })
            .flatten()
            .collect();
        for &(port, ip) in wanted {
            let known = self.compiler.nexthops.map().contains_key(&(port, ip));
            if !known && self.compiler.nexthops.number(port, ip).is_none() {
                tracing::error!("more next hops than the table has numbers for");
                continue;
            }
            new |= !known;
            let l3 = self.bindings.get(port.index()).and_then(|b| b.l3_ifindex);
            let Some(ifindex) = l3 else { continue };
            // Routers are kept resolved by the kernel; hosts are asked for when there is traffic.
            let router = routers.contains(&(port, ip));
            let asked =
                if router { self.mirror.manage(ifindex, ip) } else { self.mirror.resolve(ifindex, ip) };
            if let Err(error) = asked {
                tracing::debug!(%error, "the kernel would not resolve a neighbour");
            }
        }
        if new {
            self.recompile(self.epoch);
        }
    }

    /// XDP traffic does not pass the kernel's neighbour code, so nothing confirms its entries: ask
    /// for those in use that have gone stale.
    pub(super) fn probe_neighbors(&mut self) {
        let of_port: BTreeMap<u32, PortIdx> =
            self.bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
        let stale: Vec<(u32, IpAddr)> = self
            .mirror
            .tables()
            .neighbors()
            .filter(|n| n.state == NeighborState::Stale)
            .filter(|n| {
                of_port
                    .get(&n.ifindex)
                    .is_some_and(|p| self.compiler.nexthops.map().contains_key(&(*p, n.ip)))
            })
            .map(|n| (n.ifindex, n.ip))
            .take(512)
            .collect();
        for (ifindex, ip) in stale {
            if let Err(error) = self.mirror.resolve(ifindex, ip) {
                tracing::debug!(%error, "the kernel would not probe a neighbour");
            }
        }
    }
}
