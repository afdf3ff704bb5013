//! From the desired state to the device configuration: one document, validated by `crates/model`. Every complaint names
//! the cloud's object, and costs that object alone (`isolation`).

mod isolation;
mod lan;
mod policy;
mod ports;
mod protocols;
mod routes;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_model::config::{Diagnostic, Secrets};
use sag_southbound::{Deviation, Effect, Identity, Line, ProbeKind, PublishStrategy, RouteOrigin, Switch};
use toml::{Table, Value};

use crate::config::{Wiring, role_word};
use crate::desired::{Desired, Distribution};
use crate::health::Verdict;
use crate::overlay::{LocalEndpoint, Tunnel};
use isolation::{Exclusions, Object, deviation, longest_prefix};
pub use lan::LanServices;
pub use ports::{WAN_PRIORITY, by_name};
pub use protocols::announced;
pub use sessions::SessionPeers;

/// Sections of the gateway's own file that the agent leaves as they are.
const OWN_SECTIONS: [&str; 5] = ["dataplane", "timeouts", "nat", "neighbor", "ha"];
const OWN_PORT_KEYS: [&str; 6] = ["mac", "mtu", "mss_clamp", "addresses", "snat_mapping", "snat_filtering"];

/// The gateway's own part of the document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Base {
    sections: Table,
    overhead: Option<Value>,
    ports: Vec<Table>,
    /// IPv4 addresses that devices have, by device: those by DHCP are not in the document.
    present: Vec<(String, Ipv4Net)>,
    /// The other devices of the instance.
    peers: SessionPeers,
    /// IPv6 addresses, likewise.
    present6: Vec<(String, Ipv6Addr)>,
}

impl Base {
    /// The same on a machine that has these addresses.
    pub fn having(self, present: Vec<(String, Ipv4Net)>, present6: Vec<(String, Ipv6Addr)>) -> Base {
        Base { present, present6, ..self }
    }

    pub fn from_toml(text: &str) -> Result<Base, String> {
        let all: Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
        let sections =
            OWN_SECTIONS.iter().filter_map(|k| Some(((*k).to_owned(), all.get(*k)?.clone()))).collect();
        let ports = all.get("port").and_then(Value::as_array).into_iter().flatten();
        Ok(Base {
            sections,
            overhead: all.get("bandwidth").and_then(|b| b.get("overhead")).cloned(),
            ports: ports.filter_map(|p| p.as_table().cloned()).collect(),
            present: Vec::new(),
            peers: Vec::new(),
            present6: Vec::new(),
        })
    }

    /// The port of a device; one of PPPoE is that of its Ethernet device.
    fn port(&self, device: &str, vlan: i64) -> Option<&Table> {
        self.ports.iter().find(|p| {
            let tag = p.get("vlan").and_then(Value::as_integer).unwrap_or(0);
            ethernet(p) == Some(device) && tag == vlan
        })
    }

    fn neighbors(&self) -> usize {
        self.sections.get("neighbor").and_then(Value::as_array).map_or(0, Vec::len)
    }

    fn position(&self, device: &str) -> usize {
        let is = |p: &Table| ethernet(p) == Some(device);
        self.ports.iter().position(is).unwrap_or(usize::MAX)
    }

    /// Ports of the file, for an agent whose own file wires none.
    fn wiring(&self) -> BTreeMap<String, Wiring> {
        let word = |p: &Table, k: &str| p.get(k).and_then(Value::as_str).map(str::to_owned);
        let untagged = self.ports.iter().filter(|p| !p.contains_key("vlan"));
        untagged
            .filter_map(|p| {
                let role = word(p, "role").as_deref().and_then(role_word);
                Some((word(p, "name")?, Wiring { device: ethernet(p)?.to_owned(), role }))
            })
            .collect()
    }
}

/// The Ethernet device of a port of the file. A gateway that has started with what was in force has the device that PPPoE
/// gives to it.
fn ethernet(port: &Table) -> Option<&str> {
    let device = port.get("device").and_then(Value::as_str)?;
    Some(sag_frr::PppoeDevices::ethernet(device).unwrap_or(device))
}

/// The device of addresses that belong to no port. Others may have some there too.
pub const LOOPBACK: &str = "lo";

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
    pub tunnels: Vec<Tunnel>,
    /// Devices and blocks of the network that have no tunnel or route, and why; among the notices too.
    pub refused: Vec<String>,
    /// Objects that are not in force as they are; among the notices too.
    pub deviations: Vec<Deviation>,
    /// Every port with a network device, whatever its role.
    pub wired: Vec<String>,
    /// Where they end on this side.
    pub local: Option<Ipv4Addr>,
    /// The lines to the Internet at which tunnels end.
    pub lines: Vec<Line>,
    /// BGP and OSPF, as far as the cloud says it.
    pub routing: sag_frr::Settings,
    /// What LAN ports are served with, as far as the cloud says it.
    pub lan: LanServices,
    /// WAN ports that were found to lead nowhere.
    pub failed: BTreeSet<String>,
    /// Where this end of the link is by which sessions follow to another device; none: the cloud wants no such link.
    pub session_end: Option<Ipv4Addr>,
    /// The device at the other end of that link.
    pub session_peer: Option<(String, Identity)>,
}

pub struct Compiler<'a> {
    desired: &'a Desired,
    base: &'a Base,
    wiring: BTreeMap<String, Wiring>,
    health: &'a BTreeMap<String, Verdict>,
    endpoint: Option<&'a LocalEndpoint>,
    tunnels: Vec<Tunnel>,
    refused: Vec<String>,
    local: Option<Ipv4Addr>,
    lines: Vec<Line>,
    /// What the gateway's rules have refused before.
    excluded: &'a Exclusions,
    /// Static routes that are in force, with their ports.
    static_routes: Vec<StaticRoute>,
    /// Blocks of other members of the network that have a route.
    member_routes: Vec<String>,
    /// WAN ports that were found to lead nowhere.
    failed: BTreeSet<String>,
    /// The device to which sessions follow.
    session_peer: Option<(String, Identity)>,
    pppoe: Vec<sag_frr::PppoeLine>,
    out: Table,
    /// Object of the cloud by key path.
    origins: Vec<(String, Object)>,
    deviations: Vec<Deviation>,
    notices: Vec<String>,
    ports: Vec<(String, String, Role)>,
}

/// A static route that is in force.
#[derive(Debug, Clone)]
struct StaticRoute {
    net: Ipv4Net,
    port: String,
    /// By a leased line: the overlay may stand in for it.
    leased: bool,
}

/// How often objects that the gateway's rules refuse are left out one by one. All of them are found at once, unless one
/// hides another.
const ROUNDS: usize = 16;

/// Compiles; the error has a line for each problem. Without `endpoint` the gateway has no tunnels.
///
/// What the gateway's rules refuse of an object, or of another member of the network, is left out and named; it is no reason
/// to refuse the rest.
///
/// # Errors
/// What is wrong with the gateway's own part of the document, or that no port is left. Nothing may be used then.
pub fn compile(
    desired: &Desired,
    base: &Base,
    wiring: &BTreeMap<String, Wiring>,
    health: &BTreeMap<String, Verdict>,
    endpoint: Option<&LocalEndpoint>,
) -> Result<Compiled, Vec<String>> {
    let wiring = if wiring.is_empty() { base.wiring() } else { wiring.clone() };
    let mut excluded = Exclusions::default();
    let mut round = 0;
    loop {
        let compiler = Compiler::new(desired, base, wiring.clone(), health, endpoint, &excluded);
        let complaints = match compiler.run()? {
            Attempt::Fits(compiled) => return Ok(*compiled),
            Attempt::Complaints(complaints) => complaints,
        };
        // What is wrong with a route may follow from what is wrong with its tunnel.
        let of_tunnel = complaints.iter().any(|c| matches!(c.object, Some(Object::Device(_))));
        let mut learned = false;
        for c in &complaints {
            match &c.object {
                Some(Object::Block(..)) if of_tunnel => {}
                Some(object) => learned |= excluded.learn(object, &c.key, &c.text, desired),
                None => {}
            }
        }
        round += 1;
        if round == ROUNDS {
            excluded.give_up(desired, base.neighbors());
            learned = true;
        }
        if !learned {
            let said = |c: &Complaint| match &c.object {
                Some(object) => format!("{}: {}", object.name(desired).1, c.text),
                None => format!("{}: {}", c.path, c.text),
            };
            return Err(complaints.iter().map(said).collect());
        }
    }
}

/// A key of the document that the gateway's rules refuse.
struct Complaint {
    path: String,
    /// Whose entry it is in; none: the gateway's own.
    object: Option<Object>,
    key: String,
    text: String,
}

enum Attempt {
    Fits(Box<Compiled>),
    Complaints(Vec<Complaint>),
}

macro_rules! table {
    ($($key:literal: $value:expr),* $(,)?) => {{
        let mut t = toml::Table::new();
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

use table;

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

impl<'a> Compiler<'a> {
    fn new(
        desired: &'a Desired,
        base: &'a Base,
        wiring: BTreeMap<String, Wiring>,
        health: &'a BTreeMap<String, Verdict>,
        endpoint: Option<&'a LocalEndpoint>,
        excluded: &'a Exclusions,
    ) -> Compiler<'a> {
        let unsupported = |what: &String| format!("{what}: not supported by this version");
        Compiler {
            desired,
            base,
            wiring,
            health,
            endpoint,
            tunnels: Vec::new(),
            refused: Vec::new(),
            local: None,
            lines: Vec::new(),
            excluded,
            static_routes: Vec::new(),
            member_routes: Vec::new(),
            failed: BTreeSet::new(),
            session_peer: None,
            pppoe: Vec::new(),
            out: base.sections.clone(),
            origins: Vec::new(),
            deviations: desired.unreadable.clone(),
            notices: desired.ignored.iter().map(unsupported).collect(),
            ports: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Attempt, Vec<String>> {
        self.unknown_words();
        self.bandwidth();
        let (mut addresses, dhcp) = self.all_ports();
        self.neighbors();
        self.routes();
        self.overlay(&addresses);
        let mut routing = self.protocols();
        routing.pppoe = std::mem::take(&mut self.pppoe);
        self.acls();
        self.qos();
        self.nat();
        addresses.extend(self.service_addresses());
        let lan = self.lan_services();
        let session_end = self.session_link();
        self.finish(addresses, dhcp, routing, lan, session_end)
    }

    /// Adds an entry to a list of the document and remembers whose it is.
    fn push(&mut self, list: &str, entry: Table, origin: Object) {
        let rows = self.out.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(rows) = rows {
            self.origins.push((format!("{list}[{}]", rows.len()), origin));
            rows.push(Value::Table(entry));
        }
    }

    fn deviate(&mut self, object: &Object, effect: Effect, reason: impl Into<String>) {
        self.deviations.push(object.deviation(self.desired, effect, reason));
    }

    /// Whether the object is left out, which is then said.
    fn is_left_out(&mut self, object: &Object) -> bool {
        let Some(why) = self.excluded.reason(object).cloned() else { return false };
        self.deviate(object, Effect::LeftOut, why);
        true
    }

    /// A word that this version does not know must not be taken for another one. Where it may stand for something stricter,
    /// the strictest is meant.
    fn unknown_words(&mut self) {
        let desired = self.desired;
        let mut unknown = |section, object: String, effect, key: &str, word: &str, so: &str| {
            let why = format!("{key} {word:?} is unknown to this version, so {so}; update sag-agent");
            self.deviations.push(deviation(section, object, effect, why));
        };
        if let Some(Switch::Unknown(word)) = &desired.wan_snat {
            let so = "what leaves by a WAN port is translated";
            unknown("Snat", "WAN SNAT".into(), Effect::Stricter, "Snat", word, so);
        }
        for check in &desired.health_checks {
            if let Some(ProbeKind::Unknown(word)) = &check.kind {
                let object = format!("health check {}", check.id);
                unknown("HealthChecks", object, Effect::LeftOut, "Type", word, "nothing is probed");
            }
        }
        for d in &desired.distributions {
            let object = || format!("route distribution of {} from {}", d.destination, d.source);
            if let Some(PublishStrategy::Unknown(word)) = &d.mode {
                let so = "the route is not published";
                unknown("RouteDistribution", object(), Effect::Stricter, "RouteDistribution", word, so);
            }
            if let Some(RouteOrigin::Unknown(word)) = &d.source_type {
                let so = "it concerns no route";
                unknown("RouteDistribution", object(), Effect::LeftOut, "SourceType", word, so);
            }
        }
    }

    /// Neighbors of the gateway's own file, as far as their ports are there.
    fn neighbors(&mut self) {
        let Some(Value::Array(all)) = self.out.remove("neighbor") else { return };
        for (n, entry) in all.into_iter().enumerate() {
            let object = Object::Neighbor(n);
            if !self.is_left_out(&object)
                && let Value::Table(entry) = entry
            {
                self.push("neighbor", entry, object);
            }
        }
    }

    fn finish(
        mut self,
        addresses: Vec<PortAddress>,
        dhcp: Vec<String>,
        routing: sag_frr::Settings,
        lan: LanServices,
        session_end: Option<Ipv4Addr>,
    ) -> Result<Attempt, Vec<String>> {
        if self.ports.iter().all(|(_, _, role)| *role == Role::Mgmt) {
            let mut why = vec![
                "no port has a network device and a role; wire them in [ports] of agent.toml, give roles by ModifySagPortRole"
                    .to_owned(),
            ];
            why.extend(self.deviations.iter().map(Deviation::to_string));
            return Err(why);
        }
        let text = toml::to_string(&self.out).map_err(|e| vec![e.to_string()])?;
        let checked = match sag_model::config::parse(&text, "configuration") {
            Ok(checked) => checked,
            Err(errors) => {
                return Ok(Attempt::Complaints(errors.0.iter().map(|e| self.complaint(e)).collect()));
            }
        };
        for w in &checked.warnings {
            if let Some((object, _)) = self.origin(&w.path) {
                self.notices.push(format!("{}: {}; {}", object.name(self.desired).1, w.problem, w.remedy));
            }
        }
        let shown = checked.config.to_toml(Secrets::Masked).map_err(|e| vec![e.to_string()])?;
        self.notices.extend(self.refused.iter().cloned());
        self.notices.extend(self.deviations.iter().map(Deviation::to_string));
        Ok(Attempt::Fits(Box::new(Compiled {
            text,
            shown,
            addresses,
            dhcp,
            notices: self.notices,
            ports: self.ports,
            wired: self.wiring.into_keys().collect(),
            tunnels: self.tunnels,
            refused: self.refused,
            deviations: self.deviations,
            local: self.local,
            lines: self.lines,
            routing,
            lan,
            failed: self.failed,
            session_end,
            session_peer: self.session_peer,
        })))
    }

    /// The object behind a key path, and the path that is its own.
    fn origin(&self, path: &str) -> Option<(&Object, &str)> {
        let (prefix, object) = longest_prefix(&self.origins, path)?;
        Some((object, prefix))
    }

    fn complaint(&self, e: &Diagnostic) -> Complaint {
        let key = e.path.rsplit('.').next().unwrap_or_default();
        let code = e.code.as_ref().map_or(String::new(), |c| format!(" [{c}]"));
        let text = format!("{key}: {}; {}{code}", e.problem, e.remedy);
        let (object, key) = match self.origin(&e.path) {
            Some((object, prefix)) => {
                (Some(object.clone()), e.path[prefix.len()..].trim_start_matches('.').to_owned())
            }
            None => (None, String::new()),
        };
        Complaint { path: e.path.clone(), object, key, text }
    }
}

/// The gateway's name of a port, or of a VLAN of a leased line.
pub fn port_name(port: &str, vlan: i64) -> String {
    if vlan > 0 { format!("{port}.{vlan}") } else { port.to_owned() }
}

fn same_net(a: &str, b: &str) -> bool {
    let net = |s: &str| s.parse::<Ipv4Net>().ok().map(|n| n.trunc());
    net(a).is_some() && net(a) == net(b)
}

/// Whether a strategy publishes its route now.
pub fn publishes(s: &Distribution, health: &BTreeMap<String, Verdict>) -> bool {
    let Some(strategy) = &s.mode else { return true };
    let verdict = s.check.as_ref().and_then(|check| health.get(check)).copied();
    verdict.unwrap_or(Verdict::Unknown).status().publishes(strategy)
}

#[cfg(test)]
pub(crate) mod tests;
