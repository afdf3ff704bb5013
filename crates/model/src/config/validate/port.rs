//! `[[port]]` and `[[neighbor]]`.

use super::dataplane::{flag, mbps};
use super::scope::{Scope, one_of};
use super::{Names, Seen};
use crate::config::raw::{RawNeighbor, RawPort};
use crate::config::read::Opt;
use crate::config::report::{Path, Report};
use crate::config::types::{NatBehaviors, Neighbor, Port};
use crate::config::value::{self, Fault, fault, quote};
use crate::ids::{MacAddr, PortIdx, Role, VlanId};
use ipnet::IpNet;
use std::net::IpAddr;

const ROLES: &[(&str, Role)] =
    &[("lan", Role::Lan), ("wan", Role::Wan), ("express", Role::Express), ("mgmt", Role::Mgmt)];

pub(super) fn role(text: &str) -> Option<Role> {
    one_of(text, ROLES).ok()
}

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
    let name = s
        .need("name", &raw.name, "name the port, as in name = \"0\"", "")
        .and_then(|v| s.identifier("name", v));
    let device = s
        .need("device", &raw.device, "name the Linux network device, as in device = \"eth0\"", "")
        .and_then(|v| s.parse("device", v, "", |t| netdev(t)));
    let vlan = vlan(s, &raw.vlan);
    let role = s.word("role", &raw.role, ROLES, None, "Sag.PortRoleInvalid");
    let addresses = addresses(s, &raw.addresses, names);
    let mac = s.maybe("mac", &raw.mac, "", |t| unicast_mac(t));
    let mtu = s.number_opt("mtu", &raw.mtu, 68..=65_535, "");
    let bandwidth = mbps(s, "bandwidth", &raw.bandwidth);
    let snat = flag(&raw.snat, false);
    let snat_behavior = snat_behavior(raw, snat, s);
    if let (true, Some(at), Some(role)) = (snat, &raw.snat, role)
        && role != Role::Wan
    {
        let problem = format!("only a wan port translates to its own address; this one is {role}");
        s.error(&at.span(), "snat", problem, "remove the key, or use [[snat]]", "Sag.PortRoleInvalid");
    }
    if let (Some(device), Some(vlan), Some(at)) = (&device, vlan, &raw.device)
        && let Some(first) = devices.repeated((device.clone(), vlan), s.place(&at.span(), "device"))
    {
        let what = match vlan {
            Some(v) => format!("VLAN {} of device {}", v.get(), quote(device)),
            None => format!("untagged traffic of device {}", quote(device)),
        };
        let remedy = "give each port a device or a vlan of its own";
        s.error(&at.span(), "device", format!("{what} already belongs to {first}"), remedy, "");
    }
    Some(Port {
        name: name?,
        device: device?,
        vlan: vlan?,
        role: role?,
        addresses: addresses?,
        mac: mac?,
        mtu: mtu?,
        snat,
        snat_behavior: snat_behavior?,
        bandwidth: bandwidth?,
    })
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
    let [mapping, filtering] = keys;
    super::snat::behaviors(s, mapping, filtering, "")
}

/// Device names as the kernel's `dev_valid_name` accepts them.
fn netdev(text: &str) -> Result<String, Fault> {
    const MAX: usize = 15;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > MAX || text == "." || text == ".." || text.chars().any(odd) {
        return fault(
            format!("{}: cannot be the name of a network device", quote(text)),
            format!("write a name of 1 to {MAX} bytes as `ip link` shows it"),
        );
    }
    Ok(text.to_owned())
}

fn vlan(s: &mut Scope<'_, '_>, v: &Opt<i64>) -> Option<Option<VlanId>> {
    s.maybe("vlan", v, "Sag.EccVlanNotExist", |n| match u16::try_from(*n).ok().and_then(VlanId::new) {
        Some(v) => Ok(v),
        None if *n == 0 => fault("0 is the untagged device", "leave the key out for untagged traffic"),
        None => fault("is out of range", "write a number from 1 to 4094"),
    })
}

fn addresses(
    s: &mut Scope<'_, '_>,
    v: &Opt<Vec<toml::Spanned<String>>>,
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
        if let Some(first) = names.addresses.repeated(net.addr(), place) {
            s.repeated(&item.span(), key, quote(item.get_ref()), &first, "");
        }
        out.push(net);
    }
    (out.len() == v.get_ref().len()).then_some(out)
}

/// A host's address with the prefix length of its network.
fn interface_address(text: &str) -> Result<IpNet, Fault> {
    let net = value::network(text)?;
    value::unicast(&net.addr().to_string())?;
    if let IpNet::V4(n) = net
        && n.prefix_len() < 31
        && (n.addr() == n.network() || n.addr() == n.broadcast())
    {
        return fault(
            format!("{}: is the network's own or broadcast address", quote(text)),
            "write the port's address in that network, as in \"192.168.1.1/24\"",
        );
    }
    Ok(net)
}

pub(super) fn unicast_mac(text: &str) -> Result<MacAddr, Fault> {
    let form = "write six hex bytes as in \"02:00:00:00:00:01\"";
    match text.parse::<MacAddr>() {
        Err(_) => fault(format!("{}: is not an Ethernet address", quote(text)), form),
        Ok(m) if m.is_multicast() || m == MacAddr::ZERO => {
            fault(format!("{}: is not the address of one interface", quote(text)), form)
        }
        Ok(m) => Ok(m),
    }
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
    let port = s.need("port", &raw.port, "name the port", "").and_then(|_| names.port(s, "port", &raw.port));
    let at = s.need("address", &raw.address, "write the neighbour's IP address", "");
    let address = at.and_then(|v| s.parse("address", v, "", |t| value::unicast(t)));
    let mac = s
        .need("mac", &raw.mac, "write the neighbour's Ethernet address", "")
        .and_then(|v| s.parse("mac", v, "", |t| unicast_mac(t)));
    let (port, address, at) = (port?, address?, at?);
    if let Some(own) = names.addresses.0.get(&address) {
        let problem = format!("{address} is the gateway's own address, see {own}");
        s.error(&at.span(), "address", problem, "write the address of the neighbour", "");
    }
    if let Some(first) = seen.repeated((port, address), s.place(&at.span(), "address")) {
        s.repeated(&at.span(), "address", address, &first, "");
    }
    Some(Neighbor { port, address, mac: mac? })
}
