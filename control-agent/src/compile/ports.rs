//! Ports, their addresses, and bandwidth.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_southbound::{AddressMode, PortRole, Switch};
use toml::Value;

use super::{Compiler, LOOPBACK, OWN_PORT_KEYS, PortAddress, optional, port_name, table};
use crate::config::Wiring;

impl Compiler<'_> {
    pub(super) fn bandwidth(&mut self) {
        let mut b = table! {
            "ccn": self.desired.bandwidth.filter(|n| *n > 0),
            "internet_up": self.desired.up_bandwidth.filter(|n| *n > 0),
        };
        if let Some(overhead) = &self.base.overhead {
            b.insert("overhead".into(), overhead.clone());
        }
        if !b.is_empty() {
            self.out.insert("bandwidth".into(), Value::Table(b));
            self.origins.push(("bandwidth".into(), "bandwidth of the instance".into()));
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
                self.problems
                    .push(format!("port {name}: role {word:?} is unknown to this version; update sag-agent"));
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
            let Some(role) = self.role(&name, w.role) else { continue };
            if role == Role::Express {
                self.leased_line(&name, &w.device, &mut addresses);
                continue;
            }
            self.port(&name, &w.device, role, 0);
            let desired = self.desired;
            if let (Role::Lan, Some(lan)) = (role, desired.lans.get(&name)) {
                self.address(&name, &w.device, &lan.ip, &lan.mask, None, &mut addresses);
            }
            if let (Role::Wan, Some(wan)) = (role, desired.wans.get(&name)) {
                match &wan.ip_type {
                    Some(AddressMode::Static) => {
                        let gateway = Some((wan.gateway.as_str(), wan.priority));
                        self.address(&name, &w.device, &wan.ip, &wan.mask, gateway, &mut addresses);
                    }
                    Some(AddressMode::Dhcp) => dhcp.push(w.device.clone()),
                    Some(AddressMode::Unknown(word)) => self.problems.push(format!(
                        "port {name}: IPType {word:?} is unknown to this version; update sag-agent"
                    )),
                    // PPPoE is a notice.
                    Some(AddressMode::Pppoe) | None => {}
                }
            }
        }
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

    /// A leased line is one port, or one for each of its VLANs.
    fn leased_line(&mut self, name: &str, device: &str, addresses: &mut Vec<PortAddress>) {
        let interfaces = self.desired.eccs.get(name).cloned().unwrap_or_default();
        if interfaces.is_empty() {
            self.port(name, device, Role::Express, 0);
        }
        for i in interfaces {
            let own = port_name(name, i.vlan);
            self.port(&own, device, Role::Express, i.vlan);
            if i.vlan == 0 {
                self.address(&own, device, &i.ip, &i.mask, None, addresses);
            } else if let Some(net) = self.network(&own, &i.ip, &i.mask) {
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

    fn port(&mut self, name: &str, device: &str, role: Role, vlan: i64) {
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
        let snat = role == Role::Wan && self.desired.wan_snat == Some(Switch::Enable);
        if snat {
            t.insert("snat".into(), Value::Boolean(true));
        }
        for key in OWN_PORT_KEYS {
            let own = self.base.port(device, vlan).and_then(|p| p.get(key));
            if let Some(v) = own.filter(|_| snat || !key.starts_with("snat")) {
                t.insert(key.into(), v.clone());
            }
        }
        self.ports.push((name.to_owned(), device.to_owned(), role));
        self.push("port", t, format!("port {name}"));
    }

    fn network(&mut self, port: &str, ip: &str, mask: &str) -> Option<Ipv4Net> {
        let net = match (ip.parse::<Ipv4Addr>(), mask.parse::<Ipv4Addr>()) {
            (Ok(ip), Ok(mask)) => Ipv4Net::with_netmask(ip, mask).ok(),
            _ => None,
        };
        if net.is_none() {
            self.problems.push(format!("port {port}: {ip:?} with mask {mask:?} is no address"));
        }
        net
    }

    fn address(
        &mut self,
        port: &str,
        device: &str,
        ip: &str,
        mask: &str,
        gateway: Option<(&str, Option<i64>)>,
        out: &mut Vec<PortAddress>,
    ) {
        if ip.is_empty() {
            return;
        }
        let Some(address) = self.network(port, ip, mask) else { return };
        let gateway = match gateway.filter(|(g, _)| !g.is_empty()) {
            None => None,
            Some((g, priority)) => match g.parse::<Ipv4Addr>() {
                Ok(g) if address.contains(&g) && g != address.addr() => {
                    Some((g, u32::try_from(priority.unwrap_or(10).max(0)).unwrap_or(10)))
                }
                _ => {
                    self.problems.push(format!("port {port}: gateway {g:?} is not in {}", address.trunc()));
                    return;
                }
            },
        };
        out.push(PortAddress { port: port.to_owned(), device: device.to_owned(), address, gateway });
    }
}
