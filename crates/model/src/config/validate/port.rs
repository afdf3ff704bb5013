//! `[[port]]` and `[[neighbor]]`.

use super::{Names, Seen};
use crate::config::keys::{Neighbor, Port, RawNeighbor, RawPort};
use crate::config::report::{Path, Report};
use crate::config::scope::{Opt, Scope};
use crate::config::types::NatBehaviors;
use crate::config::value::{interface_address, quote};
use crate::ids::{PortIdx, Role, VlanId};
use ipnet::IpNet;
use std::net::IpAddr;

pub(super) fn ports(raw: &[RawPort], names: &mut Names, report: &mut Report<'_>) -> Vec<Port> {
    if raw.is_empty() && !report.is_mistyped(&Path::ROOT.key("port")) {
        report.error(
            &(0..0),
            &Path::ROOT.key("port"),
            "there is no port",
            "add a [[port]] with name, device and role for each device",
            "",
        );
    }
    if let Some(extra) = raw.get(PortIdx::MAX) {
        let problem = format!("{} ports, which is above the limit of {}", raw.len(), PortIdx::MAX);
        report.error(&extra.span, &Path::ROOT.item("port", PortIdx::MAX), problem, "remove some", "");
    }
    let mut devices = Seen::new();
    let mut out = Vec::with_capacity(raw.len());
    for (i, p) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("port", i), &p.span);
        out.extend(port(p, &mut s, names, &mut devices));
    }
    out
}

fn port(
    raw: &RawPort,
    s: &mut Scope<'_, '_>,
    names: &mut Names,
    devices: &mut Seen<(String, Option<VlanId>)>,
) -> Option<Port> {
    let read = raw.read(s);
    let vrf = names.check_vrf(s, &raw.vrf);
    let addresses = addresses(s, &raw.addresses, read.vrf.as_ref(), names);
    let snat = read.snat.unwrap_or(false);
    let snat_behavior = snat_behavior(raw, snat, s);
    if let (true, Some(at), Some(role)) = (snat, &raw.snat, read.role)
        && role != Role::Wan
    {
        let problem = format!("only a wan port translates to its own address; this one is {role}");
        s.error(&at.span(), "snat", problem, "remove the key, or use [[snat]]", "Sag.PortRoleInvalid");
    }
    if let (Some(true), Some(at), Some(Role::Mgmt)) = (read.mss_clamp, &raw.mss_clamp, read.role) {
        let problem = "nothing is forwarded by a mgmt port";
        s.error(&at.span(), "mss_clamp", problem, "remove the key", "Sag.PortRoleInvalid");
    }
    line_keys(raw, read.role, s);
    if let (Some(device), Some(vlan), Some(at)) = (&read.device, read.vlan, &raw.device)
        && let Some(first) = devices.repeated((device.clone(), vlan), s.place(&at.span(), "device"))
    {
        let what = match vlan {
            Some(v) => format!("VLAN {} of device {}", v.get(), quote(device)),
            None => format!("untagged traffic of device {}", quote(device)),
        };
        let remedy = "give each port a device or a vlan of its own";
        s.error(&at.span(), "device", format!("{what} already belongs to {first}"), remedy, "");
    }
    vrf?;
    read.finish(addresses?, snat_behavior?)
}

/// Keys of lines to the Internet.
fn line_keys(raw: &RawPort, role: Option<Role>, s: &mut Scope<'_, '_>) {
    let Some(role) = role else { return };
    let keys = [
        ("priority", raw.priority.as_ref().map(|v| v.span())),
        // What they are by default is written for every port.
        ("weight", raw.weight.as_ref().filter(|v| *v.get_ref() != 100).map(|v| v.span())),
        ("failed", raw.failed.as_ref().filter(|v| *v.get_ref()).map(|v| v.span())),
    ];
    let forwards_nothing = raw.priority.as_ref().is_some_and(|v| *v.get_ref() == -1);
    for (key, at) in keys {
        let Some(at) = at else { continue };
        let (problem, remedy) = match (role, key, forwards_nothing) {
            (Role::Mgmt, "priority", true) => continue,
            (Role::Wan, "priority", true) => (
                "a port by which nothing is forwarded is no wan port".to_owned(),
                "write role = \"mgmt\", or a number from 0 on",
            ),
            (Role::Wan, ..) => continue,
            _ => (format!("only a wan port has it; this one is {role}"), "remove the key"),
        };
        s.error(&at, key, problem, remedy, "Sag.PortRoleInvalid");
    }
}

fn snat_behavior(raw: &RawPort, snat: bool, s: &mut Scope<'_, '_>) -> Option<NatBehaviors> {
    let keys = [("snat_mapping", &raw.snat_mapping), ("snat_filtering", &raw.snat_filtering)];
    if !snat && !s.is_mistyped("snat") {
        for (key, v) in keys {
            if let Some(v) = v {
                s.error(
                    &v.span(),
                    key,
                    "has no meaning without source NAT",
                    "set snat = true or remove it",
                    "",
                );
            }
        }
    }
    Some(NatBehaviors {
        mapping: Port::KEYS.snat_mapping.read(s, &raw.snat_mapping)?,
        filtering: Port::KEYS.snat_filtering.read(s, &raw.snat_filtering)?,
    })
}

fn addresses(
    s: &mut Scope<'_, '_>,
    v: &Opt<Vec<toml::Spanned<String>>>,
    vrf: Option<&Option<String>>,
    names: &mut Names,
) -> Option<Vec<IpNet>> {
    let Some(v) = v else {
        return Some(Vec::new());
    };
    let mut out = Vec::with_capacity(v.get_ref().len());
    for (i, item) in v.get_ref().iter().enumerate() {
        let key = &format!("addresses[{i}]");
        let Some(net) = s.parse(key, item, "", |t| interface_address(t)) else {
            continue;
        };
        let place = s.place(&item.span(), key);
        if let Some(first) = names.addresses.repeated((vrf.cloned().flatten(), net.addr()), place) {
            s.repeated(&item.span(), key, quote(item.get_ref()), &first, "");
        }
        out.push(net);
    }
    (out.len() == v.get_ref().len()).then_some(out)
}

pub(super) fn neighbors(raw: &[RawNeighbor], names: &Names, report: &mut Report<'_>) -> Vec<Neighbor> {
    let mut seen = Seen::new();
    let mut out = Vec::with_capacity(raw.len());
    for (i, n) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("neighbor", i), &n.span);
        out.extend(neighbor(n, &mut s, names, &mut seen));
    }
    out
}

fn neighbor(
    raw: &RawNeighbor,
    s: &mut Scope<'_, '_>,
    names: &Names,
    seen: &mut Seen<(PortIdx, IpAddr)>,
) -> Option<Neighbor> {
    let port = Neighbor::KEYS.port.need(s, &raw.port).and_then(|_| names.port(s, "port", &raw.port));
    let read = raw.read(s);
    let (port, address, at) = (port?, read.address?, raw.address.as_ref()?);
    if let Some(own) = names.addresses.0.get(&(names.vrf_of(port), address)) {
        let problem = format!("{address} is the gateway's own address, see {own}");
        s.error(&at.span(), "address", problem, "write the address of the neighbour", "");
    }
    if let Some(first) = seen.repeated((port, address), s.place(&at.span(), "address")) {
        s.repeated(&at.span(), "address", address, &first, "");
    }
    read.finish(port)
}
