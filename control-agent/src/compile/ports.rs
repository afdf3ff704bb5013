//! Ports, their addresses, and bandwidth.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use sag_frr::{Key, PppoeDevices, PppoeLine};
use sag_model::Role;
use sag_southbound::{AddressMode, Effect, PortRole, Switch};
use toml::Value;

use super::isolation::{Object, deviation};
use super::{Compiler, LOOPBACK, OWN_PORT_KEYS, PortAddress, optional, port_name, table};
use crate::config::Wiring;
use crate::desired::{HealthCheck, Wan};
use crate::health::Verdict;

/// Of a WAN port without one.
pub const WAN_PRIORITY: i64 = 10;

/// Of a WAN port without one.
pub(super) const WAN_WEIGHT: i64 = 100;

/// What is added to the metric of the kernel's default route by a line that was found to lead nowhere.
const FAILED_METRIC: u32 = 1 << 20;

/// What is dialed on a port.
fn pppoe_line(port: &str, device: &str, wan: &Wan, forwards: bool) -> PppoeLine {
    let priority = wan.priority.unwrap_or(WAN_PRIORITY).max(0);
    PppoeLine {
        port: port.to_owned(),
        device: device.to_owned(),
        user: wan.username.clone(),
        password: Key::new(wan.password.reveal()),
        metric: forwards.then(|| u32::try_from(priority).unwrap_or(u32::MAX)),
    }
}

/// The order of ports: 2 before 10.
pub fn by_name(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

impl Compiler<'_> {
    pub(super) fn bandwidth(&mut self) {
        let object = Object::Bandwidth;
        let with = |key: &str| self.excluded.without(&object, key).is_none();
        let mut b = table! {
            "ccn": self.desired.bandwidth.filter(|n| *n > 0 && with("ccn")),
            "internet_up": self.desired.up_bandwidth.filter(|n| *n > 0 && with("internet_up")),
        };
        for why in self.excluded.against(&object) {
            self.deviate(&object, Effect::Partial, why);
        }
        if let Some(overhead) = &self.base.overhead {
            b.insert("overhead".into(), overhead.clone());
        }
        if !b.is_empty() {
            self.out.insert("bandwidth".into(), Value::Table(b));
            self.origins.push(("bandwidth".into(), object));
        }
    }

    /// The role of a port: that of agent.toml, else the cloud's.
    fn role(&mut self, name: &str, wired: Option<Role>) -> Option<Role> {
        let assigned = self.desired.roles.get(name);
        let theirs = match assigned {
            None | Some(PortRole::None) => None,
            Some(PortRole::Wan) => Some(Role::Wan),
            Some(PortRole::Lan) => Some(Role::Lan),
            Some(PortRole::Ecc) => Some(Role::Express),
            Some(PortRole::Mgt) => Some(Role::Mgmt),
            Some(PortRole::Unknown(word)) => {
                let why = format!("role {word:?} is unknown to this version; update sag-agent");
                self.deviate(&Object::Port(name.to_owned()), Effect::LeftOut, why);
                None
            }
        };
        let Some(ours) = wired else { return theirs };
        if let Some(assigned) = assigned.filter(|_| theirs != Some(ours)) {
            self.notices.push(format!(
                "port {name}: the cloud's role is {assigned}, agent.toml's wins; change it there or call ModifySagPortRole"
            ));
        }
        Some(ours)
    }

    /// The device of a port whose line is dialed by PPPoE.
    fn pppoe_device(&mut self, name: &str, ethernet: &str, role: Role) -> Option<String> {
        let dials = self.desired.wans.get(name).is_some_and(|w| w.ip_type == Some(AddressMode::Pppoe));
        if !dials || !(role == Role::Wan || self.does_not_forward(name)) {
            return None;
        }
        let devices = PppoeDevices::of(ethernet);
        if devices.is_none() {
            let why = format!("PPPoE: the name {ethernet:?} is longer than 11 characters; rename the device");
            self.part_of_port("Wan", name, why);
        }
        devices.map(|d| d.port)
    }

    pub(super) fn all_ports(&mut self) -> (Vec<PortAddress>, Vec<String>) {
        let (mut addresses, mut dhcp) = (Vec::new(), Vec::new());
        // In the order of the gateway's own file: its ports keep their numbers.
        let mut wired: Vec<(String, Wiring)> = self.wiring.clone().into_iter().collect();
        wired.sort_by_key(|(_, w)| self.base.position(&w.device));
        for (name, w) in wired {
            let Some(mut role) = self.role(&name, w.role) else { continue };
            if role == Role::Wan && self.does_not_forward(&name) {
                // The port stays the kernel's: nothing is forwarded by it.
                role = Role::Mgmt;
            }
            if role == Role::Express {
                self.leased_line(&name, &w.device, &mut addresses);
                continue;
            }
            let pppoe = self.pppoe_device(&name, &w.device, role);
            if !self.port(&name, pppoe.as_ref().unwrap_or(&w.device), role, 0) {
                continue;
            }
            let desired = self.desired;
            if let (Role::Lan, Some(lan)) = (role, desired.lans.get(&name)) {
                self.address("Lan", (&name, &w.device), (&lan.ip, &lan.mask), None, &mut addresses);
            }
            let forwards = role == Role::Wan;
            if let (true, Some(wan)) = (forwards || self.does_not_forward(&name), desired.wans.get(&name)) {
                match &wan.ip_type {
                    Some(AddressMode::Static) => {
                        let gateway = Some((wan.gateway.as_str(), wan.priority)).filter(|_| forwards);
                        let ip = (wan.ip.as_str(), wan.mask.as_str());
                        self.address("Wan", (&name, &w.device), ip, gateway, &mut addresses);
                    }
                    Some(AddressMode::Dhcp) => dhcp.push(w.device.clone()),
                    Some(AddressMode::Unknown(word)) => {
                        let why = format!(
                            "IPType {word:?} is unknown to this version, so its address stays as it is"
                        );
                        self.part_of_port("Wan", &name, format!("{why}; update sag-agent"));
                    }
                    Some(AddressMode::Pppoe) => {
                        let fits = pppoe.is_some();
                        self.pppoe.extend(fits.then(|| pppoe_line(&name, &w.device, wan, forwards)));
                    }
                    None => {}
                }
            }
        }
        self.lines();
        let mut pppoe = std::mem::take(&mut self.pppoe);
        self.one_metric_each(&mut addresses, &mut pppoe);
        self.pppoe = pppoe;
        (addresses, dhcp)
    }

    /// Addresses of no port. One that is none is left out with a notice.
    pub(super) fn service_addresses(&mut self) -> Vec<PortAddress> {
        let mut out = Vec::new();
        for text in &self.desired.service_addresses {
            match text.parse::<Ipv4Addr>() {
                Ok(address) => out.push(PortAddress {
                    port: "service address".to_owned(),
                    device: LOOPBACK.to_owned(),
                    address: address.into(),
                    gateway: None,
                }),
                Err(_) => self.notices.push(format!("service address {text:?} is no IPv4 address")),
            }
        }
        out
    }

    /// Priority -1 of a WAN port: it is not used for traffic.
    fn does_not_forward(&self, name: &str) -> bool {
        let wan = self.desired.wans.get(name).and_then(|w| w.priority);
        self.desired.roles.get(name) == Some(&PortRole::Wan) && wan.is_some_and(|p| p < 0)
    }

    /// The kernel has one default route of a metric: of ports of one priority that of the first by name is what the machine's
    /// own connections go by. The gateway shares by the ports' priorities. A line that was found to lead nowhere comes last.
    fn one_metric_each(&self, addresses: &mut [PortAddress], pppoe: &mut [PppoeLine]) {
        let fixed = addresses.iter_mut().filter_map(|a| {
            let (_, metric) = a.gateway.as_mut()?;
            Some((a.port.clone(), metric))
        });
        let dialed = pppoe.iter_mut().filter_map(|l| Some((l.port.clone(), l.metric.as_mut()?)));
        let mut routes: Vec<(String, &mut u32)> = fixed.chain(dialed).collect();
        routes.sort_by_key(|(port, metric)| (**metric, by_name(port)));
        let mut before: Option<u32> = None;
        for (port, metric) in routes {
            *metric = before.map_or(*metric, |last| (*metric).max(last.saturating_add(1)));
            before = Some(*metric);
            // The others keep theirs: a route that is set anew is not there for a moment.
            if self.failed.contains(&port) {
                *metric = metric.saturating_add(FAILED_METRIC);
            }
        }
    }

    /// Priorities and weights of several WAN ports, and which of them were found to lead nowhere.
    fn lines(&mut self) {
        let wans: Vec<_> = self.ports.iter().filter(|(.., role)| *role == Role::Wan).cloned().collect();
        if wans.len() < 2 {
            // Nothing can stand in for it.
            return;
        }
        for (name, device, _) in wans {
            let wan = self.desired.wans.get(&name).cloned().unwrap_or_default();
            let priority = wan.priority.unwrap_or(WAN_PRIORITY).clamp(0, 65_535);
            self.port_key(&name, "priority", Value::Integer(priority));
            if let Some(weight) = wan.weight {
                self.port_key(&name, "weight", Value::Integer(weight.clamp(1, 100)));
            }
            if let Some(checks) = self.failed_checks(&name, &device) {
                self.port_key(&name, "failed", Value::Boolean(true));
                self.notices.push(format!("port {name}: others are preferred, since {checks} failed"));
                self.failed.insert(name);
            }
        }
    }

    /// The health checks from an address of a port, if there are some and all of them fail.
    fn failed_checks(&self, name: &str, device: &str) -> Option<String> {
        let planned = self.desired.wans.get(name).and_then(|w| w.ip.parse::<Ipv4Addr>().ok());
        let present = self.base.present.iter().filter(|(d, _)| d == device).map(|(_, a)| a.addr());
        let present6 = self.base.present6.iter().filter(|(d, _)| d == device).map(|(_, a)| IpAddr::V6(*a));
        let own: Vec<IpAddr> = present.chain(planned).map(IpAddr::V4).chain(present6).collect();
        let from_here = |c: &&HealthCheck| c.src.parse().is_ok_and(|src| own.contains(&src));
        let checks: Vec<_> = self.desired.health_checks.iter().filter(from_here).collect();
        let fails = |c: &&HealthCheck| self.health.get(&c.id) == Some(&Verdict::Failed);
        let ids: Vec<_> = checks.iter().map(|c| c.id.as_str()).collect();
        (!checks.is_empty() && checks.iter().all(fails)).then(|| format!("health check {}", ids.join(", ")))
    }

    /// A leased line is one port, or one for each of its VLANs.
    fn leased_line(&mut self, name: &str, device: &str, addresses: &mut Vec<PortAddress>) {
        let interfaces = self.desired.eccs.get(name).cloned().unwrap_or_default();
        if interfaces.is_empty() {
            self.port(name, device, Role::Express, 0);
        }
        for i in interfaces {
            let own = port_name(name, i.vlan);
            if !self.port(&own, device, Role::Express, i.vlan) {
                continue;
            }
            let object = Object::Port(own.clone());
            if i.vlan == 0 {
                self.address("Ecc", (&own, device), (&i.ip, &i.mask), None, addresses);
            } else if self.excluded.without(&object, "addresses").is_none()
                && let Some(net) = self.network("Ecc", &own, (&i.ip, &i.mask))
            {
                // The kernel need not know the VLAN.
                self.port_key(&own, "addresses", Value::Array(vec![Value::String(net.to_string())]));
            }
        }
    }

    fn port_key(&mut self, name: &str, key: &str, value: Value) {
        let rows = self.out.get_mut("port").and_then(Value::as_array_mut).into_iter().flatten();
        for row in rows.filter_map(Value::as_table_mut) {
            if row.get("name").and_then(Value::as_str) == Some(name) {
                row.insert(key.to_owned(), value.clone());
            }
        }
    }

    /// Something of a port has no effect.
    fn part_of_port(&mut self, section: &str, port: &str, why: impl Into<String>) {
        self.deviations.push(deviation(section, format!("port {port}"), Effect::Partial, why));
    }

    /// Adds a port; `false`: it is left out.
    fn port(&mut self, name: &str, device: &str, role: Role, vlan: i64) -> bool {
        let object = Object::Port(name.to_owned());
        if self.is_left_out(&object) {
            return false;
        }
        for why in self.excluded.against(&object) {
            self.deviate(&object, Effect::Partial, why);
        }
        let wan = (role == Role::Wan).then(|| self.desired.wans.get(name)).flatten();
        let word = match role {
            Role::Lan => "lan",
            Role::Wan => "wan",
            Role::Express => "express",
            Role::Mgmt => "mgmt",
        };
        let mut t = table! {
            "name": name,
            "device": device,
            "vlan": Some(vlan).filter(|v| *v > 0),
            "role": word,
            "bandwidth": wan.and_then(|w| w.bandwidth).filter(|n| *n > 0),
            // Its default route, as of a DHCP client, is none of the gateway's.
            "priority": Some(-1).filter(|_| role == Role::Mgmt && self.does_not_forward(name)),
        };
        let translates = matches!(self.desired.wan_snat, Some(Switch::Enable | Switch::Unknown(_)));
        let snat = role == Role::Wan && translates;
        if snat {
            t.insert("snat".into(), Value::Boolean(true));
        }
        let ethernet = PppoeDevices::ethernet(device);
        for key in OWN_PORT_KEYS {
            // What frames have and what the session gives are of different devices.
            if ethernet.is_some() && ["mac", "mtu", "addresses"].contains(&key) {
                continue;
            }
            let own = self.base.port(ethernet.unwrap_or(device), vlan).and_then(|p| p.get(key));
            if let Some(v) = own.filter(|_| snat || !key.starts_with("snat")) {
                t.insert(key.into(), v.clone());
            }
        }
        if ethernet.is_some() && role != Role::Mgmt {
            // Few on the Internet hear of a smaller MTU than that of Ethernet.
            t.insert("mss_clamp".into(), Value::Boolean(true));
        }
        t.retain(|key, _| self.excluded.without(&object, key).is_none());
        self.ports.push((name.to_owned(), device.to_owned(), role));
        self.push("port", t, object);
        true
    }

    fn network(&mut self, section: &str, port: &str, (ip, mask): (&str, &str)) -> Option<Ipv4Net> {
        let net = match (ip.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>()) {
            (Ok(ip), Ok(mask)) => Ipv4Net::with_netmask(ip, mask).ok(),
            _ => None,
        };
        if net.is_none() {
            let why = format!("{ip:?} with mask {mask:?} is no address, so its address stays as it is");
            self.part_of_port(section, port, why);
        }
        net
    }

    /// The address that a port shall have, and the default route by it. An address without a right gateway is set without
    /// one: others may have a route, and who is in its network reaches the gateway.
    fn address(
        &mut self,
        section: &str,
        (port, device): (&str, &str),
        ip: (&str, &str),
        gateway: Option<(&str, Option<i64>)>,
        out: &mut Vec<PortAddress>,
    ) {
        if ip.0.is_empty() {
            return;
        }
        let Some(address) = self.network(section, port, ip) else { return };
        let gateway = match gateway.filter(|(g, _)| !g.is_empty()) {
            None => None,
            Some((g, priority)) => match g.parse::<Ipv4Addr>() {
                Ok(g) if address.contains(&g) && g != address.addr() => {
                    let priority = priority.unwrap_or(WAN_PRIORITY).max(0);
                    Some((g, u32::try_from(priority).unwrap_or(u32::MAX)))
                }
                _ => {
                    let why = format!("gateway {g:?} is not in {}: no default route", address.trunc());
                    self.part_of_port(section, port, why);
                    None
                }
            },
        };
        out.push(PortAddress { port: port.to_owned(), device: device.to_owned(), address, gateway });
    }
}
