//! VRFs of the kernel: its VRF devices, the ports in them, and their tables, whose routes are those of the gateway's VRFs.

use crate::problem::Problem;
use sag_model::config::{Config, Port};
use sag_rtnl::{Link, Tables};
use std::collections::BTreeMap;

/// The interface on which the kernel has the addresses of a port.
pub(crate) fn l3_link<'t>(tables: &'t Tables, device: &'t Link, vlan: Option<u16>) -> Option<&'t Link> {
    match vlan {
        None => Some(device),
        Some(id) => tables.links().find(|l| l.parent == Some(device.ifindex) && l.vlan == Some(id)),
    }
}

/// The interface on which the kernel has the addresses of a port of the configuration.
fn interface<'t>(tables: &'t Tables, port: &Port) -> Option<&'t Link> {
    l3_link(tables, tables.link_named(&port.device)?, port.vlan.map(|v| v.get()))
}

/// The kernel's tables whose routes are those of VRFs, with the names of these: as the configuration has them, else those of
/// the kernel's VRF devices in which the ports of a VRF are.
pub fn kernel_tables(config: &Config, tables: &Tables) -> BTreeMap<u32, String> {
    let mut out: BTreeMap<u32, String> =
        config.vrfs.iter().filter_map(|v| Some((v.table?, v.name.clone()))).collect();
    for p in own_ports(config) {
        let Some(name) = &p.vrf else { continue };
        let has_own = config.vrfs.iter().any(|v| v.name == *name && v.table.is_some());
        let of_port =
            interface(tables, p).and_then(|link| kernel_vrf(tables, link)).and_then(|d| d.vrf_table);
        if let (Some(table), false) = (of_port, has_own) {
            out.entry(table).or_insert_with(|| name.clone());
        }
    }
    out
}

/// The ports by which the gateway forwards; the others are in whatever VRF the kernel has them.
fn own_ports(config: &Config) -> impl Iterator<Item = &Port> {
    config.ports.iter().filter(|p| p.zone().is_some())
}

/// The kernel's VRF device in which an interface is.
fn kernel_vrf<'t>(tables: &'t Tables, link: &Link) -> Option<&'t Link> {
    tables.link(link.master?).filter(|master| master.vrf_table.is_some())
}

/// Ports that are in a VRF device of the kernel's whose table is not that of their VRF: the gateway looks elsewhere for their
/// routes than the kernel.
pub(crate) fn disagreements(config: &Config, tables: &Tables, problems: &mut Vec<Problem>) {
    let known = kernel_tables(config, tables);
    for p in own_ports(config) {
        let Some(device) = interface(tables, p).and_then(|link| kernel_vrf(tables, link)) else { continue };
        let agreed = |table: &u32| known.get(table).is_some_and(|name| Some(name) == p.vrf.as_ref());
        let Some(table) = device.vrf_table.filter(|table| !agreed(table)) else { continue };
        problems.push(Problem::KernelVrf {
            port: p.name.clone(),
            device: device.name.clone(),
            table,
            vrf: p.vrf.clone(),
        });
    }
}
