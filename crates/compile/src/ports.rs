//! Ports: which device, which addresses, what state.

use crate::kernel_vrfs::{kernel_tables, l3_link};
use crate::vrfs::VrfNumbers;
use ipnet::IpNet;
use sag_model::config::Config;
use sag_model::{MacAddr, PortIdx, Role, VrfNo, Zone};
use sag_pipeline::snapshot::{AddrSet, Port};
use sag_rtnl::{Link, Tables};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Slots in XDP's maps.
const SLOTS: u8 = PortIdx::MAX as u8;

/// Slots of the devices in XDP's maps. A device keeps its slot, also while no port is on it; if all are taken, a device that no
/// port has been on for a while gives its slot to a new one.
#[derive(Debug, Default)]
pub struct DeviceSlots {
    slots: HashMap<String, u8>,
    /// Devices of the ports of this compilation, and of the last one.
    used: BTreeSet<String>,
    used_before: BTreeSet<String>,
}

impl DeviceSlots {
    /// The slot of a device: the one that it has, or the lowest that no device has.
    pub fn slot(&mut self, device: &str) -> u8 {
        if let Some(&slot) = self.slots.get(device) {
            return slot;
        }
        let free = (0..SLOTS).find(|s| !self.slots.values().any(|taken| taken == s));
        let Some(slot) = free.or_else(|| self.take_unused()) else { return NO_DEVICE };
        self.slots.insert(device.to_owned(), slot);
        slot
    }

    /// A configuration with ports on these devices is compiled.
    pub(crate) fn begin(&mut self, devices: impl Iterator<Item = String>) {
        self.used_before = std::mem::replace(&mut self.used, devices.collect());
    }

    /// Takes the slot of a device that had no port in the last configuration either: by now it is detached.
    fn take_unused(&mut self) -> Option<u8> {
        let unused = |d: &&String| !self.used.contains(*d) && !self.used_before.contains(*d);
        let device = self.slots.keys().filter(unused).min()?.clone();
        self.slots.remove(&device)
    }

    /// Reserves the slot under which the next hops of an earlier daemon know the device.
    pub fn reserve(&mut self, device: &str, slot: u8) {
        if slot != NO_DEVICE && !self.slots.values().any(|&taken| taken == slot) {
            self.slots.entry(device.to_owned()).or_insert(slot);
        }
    }
}

/// The slot of ports that are left to the kernel.
pub const NO_DEVICE: u8 = u8::MAX;

/// A port, and the interfaces of the kernel behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Its number.
    pub idx: PortIdx,
    /// What the configuration uses it for.
    pub role: Role,
    /// Name of the device.
    pub device: String,
    /// The port as workers know it.
    pub port: Port,
    /// The interface that has the port's addresses, routes and neighbours: the device, or the
    /// kernel's VLAN device on it.
    pub l3_ifindex: Option<u32>,
}

impl PortBinding {
    /// Whether the gateway forwards by this port.
    pub fn ours(&self) -> bool {
        self.role != Role::Mgmt
    }
}

/// Ethernet addresses beside `own` at which the kernel takes packets of a port: that of its VLAN device, and those of macvlan
/// devices above it. One without an address is a virtual router of which another machine is the master, which does not
/// forward (RFC 5798 6.4.2). An IPv6 virtual router may have a link-local address alone (5.1.1.2), but not one that a device
/// has by itself: made of its own or the port's Ethernet address, or the port's.
fn macs_above(tables: &Tables, l3: &Link, own: MacAddr) -> Vec<MacAddr> {
    let by_itself = |a: IpAddr, l: &Link| match a {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) if a.is_unicast_link_local() => {
            let made = [l.mac, l3.mac, Some(own)].into_iter().flatten().any(|mac| link_local_of(mac) == a);
            made || tables.addresses_of(l3.ifindex).any(|of_port| of_port.addr == a)
        }
        IpAddr::V6(_) => false,
    };
    let macvlan = |l: &&Link| l.kind.as_deref() == Some("macvlan") && l.parent == Some(l3.ifindex) && l.up;
    let addressed = |l: &&Link| tables.addresses_of(l.ifindex).any(|a| a.usable() && !by_itself(a.addr, l));
    let above = tables.links().filter(macvlan).filter(addressed);
    let macs: BTreeSet<MacAddr> = above.chain([l3]).filter_map(|l| l.mac).filter(|m| *m != own).collect();
    macs.into_iter().collect()
}

/// The link-local address that a device makes of its Ethernet address (RFC 4291 appendix A).
fn link_local_of(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xFE80, 0, 0, 0, word(a ^ 2, b), word(c, 0xFF), word(0xFE, d), word(e, f))
}

/// Every port of the configuration with its device, addresses and state in the kernel.
pub(crate) fn bind(
    config: &Config,
    tables: &Tables,
    devices: &mut DeviceSlots,
    vrfs: &VrfNumbers,
) -> Vec<PortBinding> {
    devices.begin(config.ports.iter().filter(|p| p.role != Role::Mgmt).map(|p| p.device.clone()));
    config
        .ports()
        .map(|(idx, p)| {
            let vlan = p.vlan.map(|v| v.get());
            let device = tables.link_named(&p.device);
            let l3 = device.and_then(|d| l3_link(tables, d, vlan));
            let mut nets: Vec<IpNet> = p.addresses.clone();
            if let Some(l3) = l3 {
                let usable = tables.sources_of(l3.ifindex).into_iter().filter(|a| a.usable());
                nets.extend(usable.filter_map(|a| IpNet::new(a.addr, a.prefix_len).ok()));
            }
            let mac = p.mac.or_else(|| device.and_then(|d| d.mac)).unwrap_or_else(|| invented_mac(idx));
            let device_mtu = l3.or(device).map_or(1500, |d| d.mtu.min(u32::from(u16::MAX)) as u16);
            let ours = p.role != Role::Mgmt;
            let running = device.is_none_or(|d| d.running) && l3.is_none_or(|l| l.up);
            let present = device.is_some() || tables.links().len() == 0;
            let port = Port {
                name: p.name.clone(),
                zone: p.zone().unwrap_or(Zone::Lan),
                vrf: vrfs.number(p.vrf.as_deref()),
                dev: if ours { devices.slot(&p.device) } else { NO_DEVICE },
                ifindex: device.map_or(0, |d| d.ifindex),
                vlan: vlan.unwrap_or(0),
                mac,
                macs: l3.filter(|_| ours).map_or_else(Vec::new, |l3| macs_above(tables, l3, mac)),
                mtu: p.mtu.unwrap_or(device_mtu),
                mss_clamp: p.mss_clamp,
                up: ours && present && running,
                addrs4: if ours { nets.iter().filter_map(v4).collect() } else { Vec::new() },
                addrs6: if ours { nets.iter().filter_map(v6).collect() } else { Vec::new() },
                reverse_path: p.reverse_path(),
                failed: p.failed,
            };
            PortBinding {
                idx,
                role: p.role,
                device: p.device.clone(),
                port,
                l3_ifindex: l3.map(|l| l.ifindex),
            }
        })
        .collect()
}

/// The IPv4 addresses that this machine has on the ports of a configuration, those of the file included, each with the name
/// of its VRF.
pub fn port_addresses(config: &Config, tables: &Tables) -> BTreeSet<(Option<String>, Ipv4Addr)> {
    let bindings = bind(config, tables, &mut DeviceSlots::default(), &VrfNumbers::default());
    let mut out = BTreeSet::new();
    for (b, p) in bindings.iter().zip(&config.ports) {
        let of_link = tables.addresses_of(b.l3_ifindex.unwrap_or(0)).map(|a| a.addr);
        out.extend(of_link.chain(p.addresses.iter().map(IpNet::addr)).filter_map(|a| match a {
            IpAddr::V4(a) => Some((p.vrf.clone(), a)),
            IpAddr::V6(_) => None,
        }));
    }
    out
}

/// Source address of a port without a device, as in a replay.
fn invented_mac(idx: PortIdx) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, idx.0.wrapping_add(1)])
}

fn v4(n: &IpNet) -> Option<(Ipv4Addr, u8)> {
    match n {
        IpNet::V4(n) => Some((n.addr(), n.prefix_len())),
        IpNet::V6(_) => None,
    }
}

fn v6(n: &IpNet) -> Option<(Ipv6Addr, u8)> {
    match n {
        IpNet::V6(n) => Some((n.addr(), n.prefix_len())),
        IpNet::V4(_) => None,
    }
}

/// The VRFs of the ports by the kernel's interfaces.
pub(crate) fn vrf_by_interface(bindings: &[PortBinding]) -> HashMap<u32, VrfNo> {
    bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.port.vrf))).collect()
}

/// Every address for which the kernel answers, broadcasts included, by VRF: that of the port that has it.
pub(crate) fn local_addresses(
    config: &Config,
    tables: &Tables,
    bindings: &[PortBinding],
    vrfs: &VrfNumbers,
) -> BTreeMap<VrfNo, AddrSet> {
    let by_interface = vrf_by_interface(bindings);
    let by_table = kernel_tables(config, tables);
    // Addresses of a VRF device itself are those of the VRF.
    let of_device = |ifindex: u32| {
        let name = by_table.get(&tables.link(ifindex)?.vrf_table?)?;
        Some(vrfs.number(Some(name)))
    };
    let vrf =
        |ifindex: u32| by_interface.get(&ifindex).copied().or_else(|| of_device(ifindex)).unwrap_or_default();
    let mut local: BTreeMap<VrfNo, AddrSet> = BTreeMap::from([(VrfNo::DEFAULT, AddrSet::default())]);
    for a in tables.addresses().filter(|a| !a.addr.is_loopback()) {
        local.entry(vrf(a.ifindex)).or_default().insert(a.addr);
    }
    for r in tables.own_routes() {
        let host = r.dst.prefix_len() == r.dst.max_prefix_len();
        if host && !r.dst.addr().is_loopback() {
            let hop = tables.nexthops_of(r).first().map_or(0, |h| h.ifindex);
            local.entry(vrf(hop)).or_default().insert(r.dst.addr());
        }
    }
    let of_ports = config.ports.iter().map(|p| (&p.vrf, &p.addresses));
    let of_tunnels = config.tunnels.iter().map(|t| (&t.vrf, &t.addresses));
    for (name, nets) in of_ports.chain(of_tunnels) {
        let own = local.entry(vrfs.number(name.as_deref())).or_default();
        for net in nets {
            own.insert(net.addr());
            if let IpNet::V4(n) = net
                && n.prefix_len() < 31
            {
                own.insert(n.broadcast().into());
            }
        }
    }
    local
}
