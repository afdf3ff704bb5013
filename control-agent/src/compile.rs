//! From what the cloud wants to the device configuration: one document, judged by the rules of
//! `crates/model`. Every complaint names the cloud's object. All of it or nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_model::config::{Errors, Secrets};
use toml::{Table, Value};

use crate::config::{Wiring, role_word};
use crate::desired::{Desired, Distribution, Policy, Qos, Tuple};
use crate::health::Verdict;

/// What of the gateway's own file the agent leaves as it is.
const KEPT: [&str; 4] = ["dataplane", "timeouts", "nat", "neighbor"];
const KEPT_OF_PORTS: [&str; 5] = ["mac", "mtu", "addresses", "snat_mapping", "snat_filtering"];

/// The gateway's own part of the document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Base {
    sections: Table,
    overhead: Option<Value>,
    ports: Vec<Table>,
}

impl Base {
    pub fn from_toml(text: &str) -> Result<Base, String> {
        let all: Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let sections = KEPT.iter().filter_map(|k| Some(((*k).to_owned(), all.get(*k)?.clone()))).collect();
        let ports = all.get("port").and_then(Value::as_array).into_iter().flatten();
        Ok(Base {
            sections,
            overhead: all.get("bandwidth").and_then(|b| b.get("overhead")).cloned(),
            ports: ports.filter_map(|p| p.as_table().cloned()).collect(),
        })
    }

    fn port(&self, device: &str, vlan: i64) -> Option<&Table> {
        self.ports.iter().find(|p| {
            let tag = p.get("vlan").and_then(Value::as_integer).unwrap_or(0);
            p.get("device").and_then(Value::as_str) == Some(device) && tag == vlan
        })
    }

    fn position(&self, device: &str) -> usize {
        let is = |p: &Table| p.get("device").and_then(Value::as_str) == Some(device);
        self.ports.iter().position(is).unwrap_or(usize::MAX)
    }

    /// Ports of the file, for an agent whose own file wires none.
    fn wiring(&self) -> BTreeMap<String, Wiring> {
        let word = |p: &Table, k: &str| p.get(k).and_then(Value::as_str).map(str::to_owned);
        let untagged = self.ports.iter().filter(|p| !p.contains_key("vlan"));
        untagged
            .filter_map(|p| {
                let role = word(p, "role").as_deref().and_then(role_word);
                Some((word(p, "name")?, Wiring { device: word(p, "device")?, role }))
            })
            .collect()
    }
}

/// An address that a device shall have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortAddress {
    pub port: String,
    pub device: String,
    pub address: Ipv4Net,
    /// The default route, with its metric.
    pub gateway: Option<(Ipv4Addr, u32)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    pub text: String,
    /// As `config-show` shows it.
    pub shown: String,
    pub addresses: Vec<PortAddress>,
    /// Devices that get their address by DHCP.
    pub dhcp: Vec<String>,
    /// What is set and has no effect, and why.
    pub notices: Vec<String>,
    /// Ports with their devices and roles.
    pub ports: Vec<(String, String, Role)>,
}

pub struct Compiler<'a> {
    desired: &'a Desired,
    base: &'a Base,
    wiring: BTreeMap<String, Wiring>,
    health: &'a BTreeMap<String, Verdict>,
    out: Table,
    /// Object of the cloud by key path.
    origins: Vec<(String, String)>,
    problems: Vec<String>,
    notices: Vec<String>,
    ports: Vec<(String, String, Role)>,
}

/// Compiles; the error has a line for each problem.
pub fn compile(
    desired: &Desired,
    base: &Base,
    wiring: &BTreeMap<String, Wiring>,
    health: &BTreeMap<String, Verdict>,
) -> Result<Compiled, Vec<String>> {
    let wiring = if wiring.is_empty() { base.wiring() } else { wiring.clone() };
    let notices =
        desired.ignored.iter().map(|what| format!("{what}: not supported by this version")).collect();
    let mut c = Compiler {
        desired,
        base,
        wiring,
        health,
        out: base.sections.clone(),
        origins: Vec::new(),
        problems: Vec::new(),
        notices,
        ports: Vec::new(),
    };
    c.bandwidth();
    let (addresses, dhcp) = c.all_ports();
    c.routes();
    c.acls();
    c.qos();
    c.nat();
    c.finish(addresses, dhcp)
}

macro_rules! table {
    ($($key:literal: $value:expr),* $(,)?) => {{
        let mut t = Table::new();
        $(if let Some(v) = optional($value) { t.insert($key.to_owned(), v); })*
        t
    }};
}

/// Empty texts and absent numbers are left out.
fn optional(v: impl Into<Entry>) -> Option<Value> {
    match v.into() {
        Entry::Text(s) => (!s.is_empty()).then_some(Value::String(s)),
        Entry::Number(n) => n.map(Value::Integer),
    }
}

enum Entry {
    Text(String),
    Number(Option<i64>),
}

impl From<&String> for Entry {
    fn from(s: &String) -> Entry {
        Entry::Text(s.clone())
    }
}
impl From<&str> for Entry {
    fn from(s: &str) -> Entry {
        Entry::Text(s.to_owned())
    }
}
impl From<Option<i64>> for Entry {
    fn from(n: Option<i64>) -> Entry {
        Entry::Number(n)
    }
}
impl From<i64> for Entry {
    fn from(n: i64) -> Entry {
        Entry::Number(Some(n))
    }
}

impl Compiler<'_> {
    /// Adds an entry to a list of the document and remembers whose it is.
    fn push(&mut self, list: &str, entry: Table, origin: String) {
        let rows = self.out.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(rows) = rows {
            self.origins.push((format!("{list}[{}]", rows.len()), origin));
            rows.push(Value::Table(entry));
        }
    }

    fn bandwidth(&mut self) {
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

    fn role(&mut self, name: &str, wired: Option<Role>) -> Option<Role> {
        let word = self.desired.roles.get(name).cloned();
        let wanted = word.as_deref().and_then(role_word);
        match (wired, wanted) {
            (Some(ours), _) if word.is_some() && wanted != Some(ours) => {
                let theirs = word.unwrap_or_default();
                self.notices.push(format!(
                    "port {name}: the cloud's role is {theirs}, agent.toml's wins; change it there or call ModifySagPortRole"
                ));
                Some(ours)
            }
            (Some(ours), _) => Some(ours),
            (None, wanted) => wanted,
        }
    }

    fn all_ports(&mut self) -> (Vec<PortAddress>, Vec<String>) {
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
                match wan.ip_type.as_str() {
                    "STATIC" => {
                        let gateway = Some((wan.gateway.as_str(), wan.priority));
                        self.address(&name, &w.device, &wan.ip, &wan.mask, gateway, &mut addresses);
                    }
                    "DHCP" => dhcp.push(w.device.clone()),
                    _ => {}
                }
            }
        }
        (addresses, dhcp)
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
        let snat = role == Role::Wan && self.desired.wan_snat;
        if snat {
            t.insert("snat".into(), Value::Boolean(true));
        }
        for key in KEPT_OF_PORTS {
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

    fn routes(&mut self) {
        let desired = self.desired;
        for r in &desired.routes {
            let origin = format!("static route {} by port {}", r.destination, r.port);
            let port = port_name(&r.port, r.vlan);
            if !self.ports.iter().any(|(name, ..)| *name == port) {
                self.problems.push(format!(
                    "{origin}: port {port} has no network device here; wire it in [ports] of agent.toml"
                ));
                continue;
            }
            let strategy = desired.distributions.iter().find(|d| {
                d.source_type == "local" && d.source == "STATIC" && same_net(&d.destination, &r.destination)
            });
            if strategy.is_some_and(|s| !in_force(s, self.health)) {
                continue;
            }
            let entry = table! { "destination": &r.destination, "next_hop": &r.next_hop, "port": &port };
            self.push("route", entry, origin);
        }
    }

    fn acls(&mut self) {
        let desired = self.desired;
        for acl in &desired.acls {
            let mut rules = Vec::new();
            let at = self.out.get("acl").and_then(Value::as_array).map_or(0, Vec::len);
            for r in &acl.rules {
                let origin = format!("rule {} of ACL {}", r.id, acl.id);
                if r.dpi {
                    self.problems
                        .push(format!("{origin}: applications (DPI) are not supported by this version"));
                    continue;
                }
                let mut t = table! {
                    "id": &r.id, "direction": &r.direction, "type": &r.kind, "policy": &r.policy,
                    "priority": r.priority,
                };
                self.tuple(&mut t, &r.tuple);
                self.origins.push((format!("acl[{at}].rule[{}]", rules.len()), origin));
                rules.push(Value::Table(t));
            }
            let mut t = table! { "id": &acl.id };
            t.insert("rule".into(), Value::Array(rules));
            self.push("acl", t, format!("ACL {}", acl.id));
        }
    }

    fn tuple(&mut self, t: &mut Table, from: &Tuple) {
        t.extend(table! {
            "ip_protocol": &from.protocol, "source_cidr": &from.source, "dest_cidr": &from.dest,
            "source_port_range": &from.source_ports, "dest_port_range": &from.dest_ports,
        });
    }

    fn qos(&mut self) {
        let desired = self.desired;
        for qos in &desired.qos {
            let at = self.out.get("qos").and_then(Value::as_array).map_or(0, Vec::len);
            let mut cars = Vec::new();
            for c in &qos.cars {
                let percent = c.limit_type == "Percent";
                let t = table! {
                    "id": &c.id, "priority": c.priority, "limit_type": &c.limit_type,
                    "min_bandwidth_abs": c.min_abs.filter(|_| !percent),
                    "max_bandwidth_abs": c.max_abs.filter(|_| !percent),
                    "min_bandwidth_percent": c.min_percent.filter(|_| percent),
                    "max_bandwidth_percent": c.max_percent.filter(|_| percent),
                    "percent_source_type": c.source.as_deref().filter(|_| percent).unwrap_or(""),
                };
                self.origins.push((
                    format!("qos[{at}].car[{}]", cars.len()),
                    format!("CAR {} of QoS {}", c.id, qos.id),
                ));
                cars.push(Value::Table(t));
            }
            let policies = self.policies(qos, at);
            let mut t = table! { "id": &qos.id };
            t.insert("car".into(), Value::Array(cars));
            t.insert("policy".into(), Value::Array(policies));
            self.push("qos", t, format!("QoS {}", qos.id));
        }
    }

    fn policies(&mut self, qos: &Qos, at: usize) -> Vec<Value> {
        let mut out = Vec::new();
        for p in &qos.policies {
            let origin = format!("policy {} of QoS {}", p.id, qos.id);
            if p.dpi {
                self.problems.push(format!("{origin}: applications (DPI) are not supported by this version"));
                continue;
            }
            // A class is made before its limit, or the other way round.
            if !qos.cars.iter().any(|c| c.priority == p.priority) {
                self.notices
                    .push(format!("{origin}: no CAR has priority {}, so it limits nothing", p.priority));
                continue;
            }
            let Policy { id, priority, start, end, .. } = p;
            let mut t = table! {
                "id": id, "priority": *priority,
                "start_time": start.as_deref().unwrap_or(""), "end_time": end.as_deref().unwrap_or(""),
            };
            self.tuple(&mut t, &p.tuple);
            self.origins.push((format!("qos[{at}].policy[{}]", out.len()), origin));
            out.push(Value::Table(t));
        }
        out
    }

    fn nat(&mut self) {
        let desired = self.desired;
        for s in &desired.snat {
            let t = table! { "id": &s.id, "cidr_block": &s.cidr, "snat_ip": &s.ip };
            self.push("snat", t, format!("SNAT entry {}", s.id));
        }
        for d in &desired.dnat {
            let any = d.protocol == "any";
            let port = |p: &String| if any { "any".to_owned() } else { p.clone() };
            let t = table! {
                "id": &d.id, "type": &d.kind, "ip_protocol": &d.protocol,
                "external_ip": &d.external_ip, "external_port": &port(&d.external_port),
                "internal_ip": &d.internal_ip, "internal_port": &port(&d.internal_port),
            };
            self.push("dnat", t, format!("DNAT entry {}", d.id));
        }
    }

    fn finish(mut self, addresses: Vec<PortAddress>, dhcp: Vec<String>) -> Result<Compiled, Vec<String>> {
        if self.ports.iter().all(|(_, _, role)| *role == Role::Mgmt) {
            self.problems.push(
                "no port has a network device and a role; wire them in [ports] of agent.toml, give roles by ModifySagPortRole"
                    .into(),
            );
        }
        let text = toml::to_string(&self.out).map_err(|e| vec![e.to_string()])?;
        let mut shown = String::new();
        match sag_model::config::parse(&text, "configuration") {
            Ok(checked) => {
                shown = checked.config.to_toml(Secrets::Masked).map_err(|e| vec![e.to_string()])?
            }
            Err(errors) => self.complain(&errors),
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        Ok(Compiled { text, shown, addresses, dhcp, notices: self.notices, ports: self.ports })
    }

    fn complain(&mut self, errors: &Errors) {
        for e in &errors.0 {
            let key = e.path.rsplit('.').next().unwrap_or_default();
            let code = e.code.as_ref().map_or(String::new(), |c| format!(" [{c}]"));
            self.problems.push(format!("{}: {key}: {}; {}{code}", self.origin(&e.path), e.problem, e.remedy));
        }
    }

    /// The cloud's object behind a key path: the longest prefix that is one.
    fn origin(&self, path: &str) -> String {
        let of = |o: &&(String, String)| {
            path == o.0 || path.strip_prefix(&o.0).is_some_and(|r| r.starts_with('.'))
        };
        let best = self.origins.iter().filter(of).max_by_key(|(prefix, _)| prefix.len());
        best.map_or_else(|| path.to_owned(), |(_, origin)| origin.clone())
    }
}

fn port_name(port: &str, vlan: i64) -> String {
    if vlan > 0 { format!("{port}.{vlan}") } else { port.to_owned() }
}

fn same_net(a: &str, b: &str) -> bool {
    let net = |s: &str| s.parse::<Ipv4Net>().ok().map(|n| n.trunc());
    net(a).is_some() && net(a) == net(b)
}

/// Whether a strategy lets its route live. One that looks at no health check concerns the other end
/// only.
pub fn in_force(s: &Distribution, health: &BTreeMap<String, Verdict>) -> bool {
    let Some(check) = &s.check else { return true };
    let verdict = health.get(check).copied().unwrap_or(Verdict::Unknown);
    match s.mode.as_str() {
        "no_publish_and_publish_on_health_success" => verdict == Verdict::Ok,
        "no_publish_and_publish_on_health_fail" => verdict == Verdict::Failed,
        "publish_and_revoke_on_health_success" => verdict != Verdict::Ok,
        "publish_and_revoke_on_health_fail" => verdict != Verdict::Failed,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
