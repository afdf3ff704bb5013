//! Devices: attached when they appear, detached when they go, attached again when they return.

mod lost;
mod mode;
mod pair;
mod redirects;
mod sockets;

use super::workers::Workers;
use pair::Pair;
pub use pair::{is_pair_end, remove_pairs};
use sag_bpf::{Attached, Attachment, Gateway, Mode, PortEntry};
use sag_compile::PortBinding;
use sag_model::VlanId;
use sag_model::config::{Dataplane, XdpMode};
use sag_rtnl::Tables;
use sag_xsk::{Binding, XDP_HEADROOM, nic};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes in front of a received frame: XDP's own and ours.
const HEADROOM: usize = XDP_HEADROOM as usize + 128;
/// A failed device is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// A device gets its program back so often at most.
const REATTACH: Duration = Duration::from_secs(1);

/// A device of the gateway's ports.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub ifindex: u32,
    pub attached: Option<Attached>,
    /// In tc mode: the devices by which XDP gets what tc leaves. XDP and the sockets are on one of them.
    pair: Option<Pair>,
    pub facts: Option<nic::Facts>,
    pub binding: Option<Binding>,
    /// XDP sends by it; else workers do. `None`: not decided yet.
    pub redirects: Option<bool>,
    /// When it has refused XDP's frames as such, if the kernel does not say in advance whether it takes them.
    refused: Option<Instant>,
    pub queues: u32,
    /// The number of the request by which workers open a socket of each queue.
    request: Option<u64>,
    /// Those that are open, by queue: XDP's map forgets them when somebody flushes it.
    pub sockets: BTreeMap<u32, OwnedFd>,
    /// Why it does not work. It is tried again at `retry`.
    pub error: Option<String>,
    retry: Option<Instant>,
    /// The last line about it in the log, which is not repeated.
    logged: String,
    /// Somebody has taken the program off it while it was a port. Whatever is there now has no right to it.
    reclaim: bool,
    /// When that was noticed last. Two who fight for a device do not fill the log.
    lost: Option<Instant>,
}

impl Device {
    /// Its sockets are open, or there is an error.
    pub fn ready(&self) -> bool {
        self.sockets.len() >= self.queues as usize || self.error.is_some()
    }

    /// The device that has XDP and the workers' sockets: interface number and name.
    pub fn xdp_device(&self) -> (u32, &str) {
        self.pair.as_ref().map_or((self.ifindex, &self.name), Pair::xdp_end)
    }

    /// The devices whose numbers XDP and tc look ports up by.
    fn ifindexes(&self) -> impl Iterator<Item = u32> + use<> {
        let xdp = self.xdp_device().0;
        [self.ifindex, xdp].into_iter().take(if xdp == self.ifindex { 1 } else { 2 })
    }

    /// How packets are taken from the device: a word for operators.
    pub fn mode_name(&self) -> &'static str {
        match &self.attached {
            _ if self.pair.is_some() => "tc",
            Some(a) => a.mode.name(),
            None => "none",
        }
    }

    /// XDP sees socket buffers, always or (as a tap device) of frames that its driver does not give it otherwise.
    fn has_socket_buffers(&self) -> bool {
        let generic = self.attached.as_ref().is_none_or(|a| a.mode == Mode::Generic);
        generic || (self.pair.is_none() && self.facts.as_ref().is_some_and(|f| f.driver == "tun"))
    }

    /// The driver reports that it has none, so it is not tried.
    fn lacks_zero_copy(&self) -> bool {
        self.attached.as_ref().is_some_and(|a| a.mode == Mode::Native && a.zero_copy == Some(false))
    }

    /// One line: driver, queues, modes, obstacles, and the reason of every downgrade.
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
            match &self.pair {
                Some(pair) => line += &pair.line(),
                None => line += &format!(", XDP {}", a.mode.name()),
            }
            if let Some(reason) = &a.reason {
                line += &format!(" ({reason})");
            }
            if self.redirects == Some(false) {
                line += ", takes no XDP redirects, so workers send";
                if self.facts.as_ref().is_some_and(|f| f.driver == "veth") {
                    line += " (a veth takes them while its far end has GRO on)";
                }
            }
        }
        if let Some(e) = &self.error {
            line += &format!("; {e}");
        }
        line
    }
}

/// What the devices are brought in line with, and whom that concerns.
pub struct Surroundings<'s> {
    pub dataplane: &'s Dataplane,
    /// The kernel's tables.
    pub tables: &'s Tables,
    pub gateway: &'s Gateway,
    pub bindings: &'s [PortBinding],
    pub workers: &'s Workers,
}

/// All devices, by their slots in XDP's maps.
#[derive(Debug, Default)]
pub struct Devices {
    by_slot: BTreeMap<u8, Device>,
    /// How many workers have queues; 0: no device yet.
    serving: u32,
    /// Requests for sockets so far.
    requests: u64,
    /// Why the daemon cannot go on: a setting that the configuration requires cannot be had.
    fatal: Option<String>,
    lost: lost::LostByDevice,
}

impl Devices {
    pub fn get(&self, slot: u8) -> Option<&Device> {
        self.by_slot.get(&slot)
    }

    /// Whether every device has its sockets, or an error.
    pub fn all_ready(&self) -> bool {
        self.by_slot.values().all(Device::ready)
    }

    /// Why the daemon cannot go on.
    pub fn take_fatal(&mut self) -> Option<String> {
        self.fatal.take()
    }

    /// Devices that have lost the XDP program and cannot get it back, or frames that XDP sent, as warnings.
    pub fn warnings(&self) -> Vec<String> {
        let bad = self.by_slot.values().filter(|d| d.reclaim && d.attached.is_none() && d.ifindex != 0);
        let mut warnings: Vec<_> =
            bad.filter_map(|d| Some(format!("port device {}: {}", d.name, d.error.as_ref()?))).collect();
        warnings.extend(self.lost_warnings());
        warnings
    }

    /// Brings devices, sockets and XDP's port table in line with configuration and links.
    pub fn reconcile(&mut self, s: &Surroundings<'_>) {
        let mut configured: BTreeMap<u8, String> = BTreeMap::new();
        for b in s.bindings.iter().filter(|b| b.ours()) {
            configured.insert(b.port.dev, b.device.clone());
        }
        let gone: Vec<u8> = self
            .by_slot
            .iter()
            .filter(|(slot, d)| {
                let link = s.tables.link_named(&d.name);
                !configured.contains_key(slot)
                    || (d.ifindex != 0 && link.is_none_or(|l| l.ifindex != d.ifindex))
            })
            .map(|(slot, _)| *slot)
            .collect();
        for slot in gone {
            self.detach(s, slot, configured.contains_key(&slot));
        }
        for (slot, name) in configured {
            self.attach(s, slot, &name);
        }
        self.open_sockets(s);
        self.write_ports(s.gateway, s.bindings);
        self.set_redirects(s.gateway);
    }

    /// Tries failed devices again.
    pub fn retry(&mut self, s: &Surroundings<'_>) {
        let due: Vec<(u8, String)> = self
            .by_slot
            .iter()
            .filter(|(_, d)| d.retry.is_some_and(|t| Instant::now() >= t))
            .map(|(s, d)| (*s, d.name.clone()))
            .collect();
        let any = !due.is_empty();
        for (slot, name) in due {
            self.detach(s, slot, true);
            if let Some(link) = s.tables.link_named(&name)
                && self.by_slot.get(&slot).is_some_and(|d| d.reclaim)
            {
                s.gateway.displace(link.ifindex);
            }
            self.attach(s, slot, &name);
        }
        if any {
            self.open_sockets(s);
            self.write_ports(s.gateway, s.bindings);
            self.set_redirects(s.gateway);
        }
    }

    /// Gives a device back to the kernel. With `keep_entry` it stays a device of the gateway that is missing.
    fn detach(&mut self, s: &Surroundings<'_>, slot: u8, keep_entry: bool) {
        // Before the worker takes its memory back: the last descriptor keeps a socket alive.
        if let Some(d) = self.by_slot.get_mut(&slot) {
            d.sockets.clear();
        }
        s.workers.close_device(slot);
        let Some(d) = self.by_slot.remove(&slot) else { return };
        if d.ifindex != 0 {
            tracing::info!(device = d.name, "left");
            d.ifindexes().for_each(|ifindex| s.gateway.clear_port(ifindex));
            let _ = s.gateway.clear_dev(slot);
            for q in 0..d.queues {
                let _ = s.gateway.clear_xsk(slot, q);
            }
        }
        if let Err(error) = s.gateway.detach(d.xdp_device().1) {
            tracing::debug!(device = d.name, %error, "detaching");
        }
        if let Some(pair) = &d.pair {
            pair.detach(s.gateway, &d.name);
        }
        if keep_entry {
            let missing = Device {
                ifindex: 0,
                attached: None,
                pair: None,
                facts: None,
                binding: None,
                redirects: None,
                refused: None,
                retry: None,
                queues: 0,
                request: None,
                ..d
            };
            self.by_slot.insert(slot, missing);
        }
    }

    fn attach(&mut self, s: &Surroundings<'_>, slot: u8, name: &str) {
        if self.by_slot.get(&slot).is_some_and(|d| d.ifindex != 0) {
            return;
        }
        let before = self.by_slot.get(&slot);
        let logged = before.map(|d| d.logged.clone()).unwrap_or_default();
        let reclaim = before.is_some_and(|d| d.reclaim);
        let lost = before.and_then(|d| d.lost);
        let mut d = Device {
            name: name.to_owned(),
            ifindex: 0,
            attached: None,
            pair: None,
            facts: None,
            binding: None,
            redirects: None,
            refused: None,
            queues: 0,
            request: None,
            sockets: BTreeMap::new(),
            error: None,
            retry: None,
            logged,
            reclaim,
            lost,
        };
        if let Err(error) = try_device(s, &mut d) {
            let text = error.to_string();
            if d.logged != text {
                tracing::error!(device = name, "{text}; trying again");
                d.logged.clone_from(&text);
            }
            d.error = Some(text);
            if s.tables.link_named(name).is_some() {
                d.retry = Some(Instant::now() + RETRY);
            }
        }
        self.by_slot.insert(slot, d);
    }

    /// Gives the kernel back the devices that were ports of an earlier daemon and are none of this one.
    pub fn detach_predecessors(&self, gateway: &Gateway, tables: &Tables) {
        for ifindex in gateway.ports() {
            if self.by_slot.values().any(|d| d.ifindexes().any(|i| i == ifindex)) {
                continue;
            }
            let slot = gateway.dev_of(ifindex);
            gateway.clear_port(ifindex);
            if let Some(slot) = slot {
                let _ = gateway.clear_dev(slot);
            }
            let Some(link) = tables.link(ifindex) else { continue };
            tracing::info!(device = link.name, "left: no port any more");
            if let Err(error) = gateway.detach(&link.name) {
                tracing::debug!(device = link.name, %error, "detaching");
            }
            if let Err(error) = gateway.detach_tc(&link.name) {
                tracing::debug!(device = link.name, %error, "detaching");
            }
        }
        pair::remove_unused(
            gateway,
            &self.by_slot.values().filter_map(|d| d.pair.as_ref()).collect::<Vec<_>>(),
        );
    }

    /// Puts the XDP program back on devices that have lost it to somebody else. Returns what has happened, by devices.
    pub fn repair_attachments(&mut self, gateway: &Gateway) -> Vec<(String, Attachment)> {
        let mut lost = Vec::new();
        let recently = |d: &Device| d.lost.is_some_and(|t| t.elapsed() < REATTACH);
        let attached = |d: &&mut Device| d.ifindex != 0 && d.attached.is_some() && !recently(d);
        for d in self.by_slot.values_mut().filter(attached) {
            let (ifindex, name) = d.xdp_device();
            let (found, name) = (gateway.attachment(ifindex, name), name.to_owned());
            if let Some(why) = d.pair.as_ref().and_then(|p| p.broken(gateway, (d.ifindex, &d.name))) {
                tracing::warn!(event = "tc-lost", device = d.name, "{why}; attaching the gateway's again");
                d.lost = Some(Instant::now());
                d.error = Some(why.to_owned());
                d.retry = Some(Instant::now());
                continue;
            }
            match found {
                Attachment::Intact => continue,
                // Netlink tells as much in a moment.
                Attachment::NoDevice => continue,
                Attachment::Detached | Attachment::Exchanged(_) | Attachment::Foreign(_) => {}
            }
            tracing::warn!(event = "xdp-lost", device = d.name, "{found}; attaching the gateway's again");
            (d.reclaim, d.lost) = (true, Some(Instant::now()));
            if let Err(error) = gateway.reattach(ifindex, &name) {
                let text = format!("{error}; {found}");
                tracing::error!(device = d.name, "{text}; trying again");
                d.logged.clone_from(&text);
                d.error = Some(text);
                d.attached = None;
                d.retry = Some(Instant::now() + RETRY);
            }
            lost.push((d.name.clone(), found));
        }
        if self.read_redirects(gateway) | self.read_lost() {
            self.set_redirects(gateway);
        }
        lost
    }

    /// Writes devices, sockets and ports again where somebody has changed XDP's maps from outside. Returns what was
    /// missing.
    pub fn repair(&mut self, gateway: &Gateway, bindings: &[PortBinding]) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.set_redirects(gateway) {
            missing.push("devices");
        }
        for (slot, d) in self.by_slot.iter().filter(|(_, d)| d.ifindex != 0 && d.attached.is_some()) {
            let known = |b: &PortBinding| {
                let of = |ifindex| gateway.port_of(ifindex, VlanId::new(b.port.vlan));
                d.ifindexes().all(|ifindex| of(ifindex) == Some((b.idx, *slot)))
            };
            if bindings.iter().any(|b| b.ours() && b.port.dev == *slot && !known(b)) {
                missing.push("ports");
            }
            // This map cannot be read, so the sockets are always written.
            for (queue, socket) in &d.sockets {
                if let Err(error) = gateway.set_xsk(*slot, *queue, socket.as_fd()) {
                    tracing::debug!(device = d.name, queue, %error, "the socket cannot be set again");
                }
            }
        }
        if self.write_macs(gateway, bindings) {
            missing.push("Ethernet addresses");
        }
        if missing.contains(&"ports") {
            self.write_ports(gateway, bindings);
        }
        missing
    }

    /// XDP's view of the Ethernet addresses of ports beside their own; true if one was missing.
    fn write_macs(&self, gateway: &Gateway, bindings: &[PortBinding]) -> bool {
        let ours = bindings.iter().filter(|b| b.ours() && b.port.ifindex != 0);
        let of_port = |b: &PortBinding| {
            let (macs, vlan) = (b.port.macs.clone(), b.port.vlan);
            let devices = self.ifindexes_of(b);
            devices.flat_map(move |ifindex| macs.clone().into_iter().map(move |mac| (ifindex, vlan, mac)))
        };
        gateway.replace_macs(&ours.flat_map(of_port).collect::<Vec<_>>()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot write the Ethernet addresses of macvlan devices to XDP's map");
            false
        })
    }

    /// The devices whose numbers XDP and tc look a port up by.
    fn ifindexes_of(&self, b: &PortBinding) -> impl Iterator<Item = u32> + use<> {
        let end = self
            .by_slot
            .get(&b.port.dev)
            .map(|d| d.xdp_device().0)
            .filter(|i| *i != b.port.ifindex && *i != 0);
        std::iter::once(b.port.ifindex).chain(end)
    }

    /// XDP's view of the ports.
    fn write_ports(&self, gateway: &Gateway, bindings: &[PortBinding]) {
        self.write_macs(gateway, bindings);
        for (ifindex, vlan) in gateway.vlans() {
            let is_it =
                |b: &PortBinding| b.port.vlan == vlan.get() && self.ifindexes_of(b).any(|i| i == ifindex);
            if !bindings.iter().any(|b| b.ours() && is_it(b))
                && let Err(error) = gateway.clear_vlan(ifindex, vlan)
            {
                tracing::error!(%error, "cannot remove a VLAN that is no port any more from XDP's map");
            }
        }
        let mut by_dev: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (i, b) in bindings.iter().enumerate().filter(|(_, b)| b.ours()) {
            by_dev.entry(b.port.dev).or_default().push(i);
        }
        for (slot, ports) in by_dev {
            let Some(d) = self.by_slot.get(&slot).filter(|d| d.ifindex != 0) else { continue };
            let entry = |b: &PortBinding, on: bool, vlans: bool| PortEntry {
                port: b.idx,
                side: b.port.side(),
                dev: slot,
                mac: b.port.mac,
                on,
                vlans,
                skb: d.has_socket_buffers(),
            };
            let ports: Vec<_> = ports.into_iter().filter_map(|i| bindings.get(i)).collect();
            let vlans = ports.iter().any(|b| b.port.vlan != 0);
            let untagged = ports.iter().find(|b| b.port.vlan == 0);
            let Some(base) = untagged.or(ports.first()) else { continue };
            let mut done = Vec::new();
            for ifindex in d.ifindexes() {
                done.push(gateway.set_port(ifindex, &entry(base, untagged.is_some(), vlans)));
                for b in &ports {
                    if let Some(vlan) = VlanId::new(b.port.vlan) {
                        done.push(gateway.set_vlan(ifindex, vlan, &entry(b, true, false)));
                    }
                }
            }
            for result in done {
                if let Err(error) = result {
                    tracing::error!(device = d.name, %error, "cannot write the port to XDP's map");
                }
            }
        }
    }
}

/// Attaches XDP to a device.
fn try_device(s: &Surroundings<'_>, d: &mut Device) -> anyhow::Result<()> {
    let facts = nic::Facts::read(&d.name)?;
    d.ifindex = facts.ifindex;
    d.facts = Some(facts);
    if s.dataplane.mode == XdpMode::Tc {
        return pair::attach(s, d);
    }
    s.gateway.detach_tc(&d.name)?;
    let is_bond = s.tables.link(d.ifindex).is_some_and(|l| l.kind.as_deref() == Some("bond"));
    let attach = mode::attach_mode(s.dataplane.mode, is_bond)?;
    let mut attached = s.gateway.attach(d.ifindex, &d.name, attach)?;
    if is_bond && s.dataplane.mode == XdpMode::Auto {
        attached.reason = Some("no native XDP: it would see the frames of the bond's members".to_owned());
    }
    // Drivers may give XDP queues of its own, on which packets arrive, too.
    let facts = nic::Facts::read(&d.name)?;
    let facts = if attached.mode == Mode::Native { facts.with_native_xdp() } else { facts };
    d.queues = facts.rx_queues.max(1);
    d.facts = Some(facts);
    d.attached = Some(attached);
    Ok(())
}
