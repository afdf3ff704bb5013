//! Ports, their addresses, and bandwidth.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_southbound::{AddressMode, Effect, PortRole, Switch};
use toml::Value;

use super::isolation::{Object, deviation};
use super::{Compiler, LOOPBACK, OWN_PORT_KEYS, PortAddress, optional, port_name, table};
use crate::config::Wiring;

/// Of a WAN port without one.
pub(super) const WAN_PRIORITY: i64 = 10;

/// The order of ports: 2 before 10.
pub(super) fn by_name(name: &str) -> (usize, String) {
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
            if !self.port(&name, &w.device, role, 0) {
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
                    // PPPoE is a notice.
                    Some(AddressMode::Pppoe) | None => {}
                }
            }
        }
        self.one_metric_each(&mut addresses);
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

    /// The kernel has one default route of a metric. Of WAN ports of one priority the first by name is preferred, and the
    /// others stand in for it in this order.
    fn one_metric_each(&mut self, addresses: &mut [PortAddress]) {
        let mut routes: Vec<_> = addresses.iter_mut().filter(|a| a.gateway.is_some()).collect();
        routes.sort_by_key(|a| (a.gateway.map(|(_, metric)| metric), by_name(&a.port)));
        let mut before: Option<(u32, String)> = None;
        for a in routes {
            let Some((gateway, metric)) = a.gateway else { continue };
            let metric = match &before {
                Some((last, other)) if metric <= *last => {
                    self.notices.push(format!(
                        "port {}: its priority is that of port {other} or is taken, so it stands in for that one",
                        a.port
                    ));
                    last.saturating_add(1)
                }
                _ => metric,
            };
            a.gateway = Some((gateway, metric));
            before = Some((metric, a.port.clone()));
        }
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
        };
        let translates = matches!(self.desired.wan_snat, Some(Switch::Enable | Switch::Unknown(_)));
        let snat = role == Role::Wan && translates;
        if snat {
            t.insert("snat".into(), Value::Boolean(true));
        }
        for key in OWN_PORT_KEYS {
            let own = self.base.port(device, vlan).and_then(|p| p.get(key));
            if let Some(v) = own.filter(|_| snat || !key.starts_with("snat")) {
                t.insert(key.into(), v.clone());
            }
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
