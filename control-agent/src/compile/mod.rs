//! From the desired state to the device configuration: one document, validated by `crates/model`. Every complaint names the cloud's object. All of it or nothing.

mod policy;
mod ports;
mod routes;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_model::config::{Errors, Secrets};
use sag_southbound::{ProbeKind, PublishStrategy, RouteOrigin, Switch};
use toml::{Table, Value};

use crate::config::{Wiring, role_word};
use crate::desired::{Desired, Distribution};
use crate::health::Verdict;
use crate::overlay::{Excluded, LocalEndpoint, Tunnel};

/// Sections of the gateway's own file that the agent leaves as they are.
const OWN_SECTIONS: [&str; 4] = ["dataplane", "timeouts", "nat", "neighbor"];
const OWN_PORT_KEYS: [&str; 5] = ["mac", "mtu", "addresses", "snat_mapping", "snat_filtering"];

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
        let sections =
            OWN_SECTIONS.iter().filter_map(|k| Some(((*k).to_owned(), all.get(*k)?.clone()))).collect();
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
    /// Where they end on this side.
    pub local: Option<Ipv4Addr>,
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
    /// What the gateway's rules have refused of other members before.
    excluded: &'a Excluded,
    /// Whose entries of the document are another member's, by key path.
    foreign: Vec<(String, Foreign)>,
    /// Static routes that are in force, with their ports.
    static_routes: Vec<(String, String)>,
    out: Table,
    /// Object of the cloud by key path.
    origins: Vec<(String, String)>,
    problems: Vec<String>,
    notices: Vec<String>,
    ports: Vec<(String, String, Role)>,
}

/// An entry of the document that another member of the network has caused.
#[derive(Debug, Clone)]
enum Foreign {
    /// The tunnel to the device of this serial number.
    Device(String),
    /// The route to a block of a gateway.
    Block(String, String),
}

/// How often entries of other members are left out that the gateway's rules refuse. All of them are found at once, unless one
/// hides another.
const ROUNDS: usize = 8;

/// Compiles; the error has a line for each problem. Without `endpoint` the gateway has no tunnels.
///
/// What the gateway's rules refuse of another member of the network is left out and named; it is no reason to refuse the rest.
///
/// # Errors
/// Every problem, by the cloud's object; nothing of the configuration may be used then.
pub fn compile(
    desired: &Desired,
    base: &Base,
    wiring: &BTreeMap<String, Wiring>,
    health: &BTreeMap<String, Verdict>,
    endpoint: Option<&LocalEndpoint>,
) -> Result<Compiled, Vec<String>> {
    let wiring = if wiring.is_empty() { base.wiring() } else { wiring.clone() };
    let mut excluded = Excluded::default();
    let mut round = 0;
    loop {
        match compile_without(desired, base, &wiring, health, endpoint, &excluded) {
            Err(Unfit::Members(more)) => {
                excluded.devices.extend(more.devices);
                excluded.blocks.extend(more.blocks);
            }
            Err(Unfit::Problems(problems)) => return Err(problems),
            Ok(compiled) => return Ok(compiled),
        }
        round += 1;
        if round == ROUNDS {
            let members = desired.ccn.iter().flat_map(|c| &c.members);
            for device in members.flat_map(|m| &m.devices) {
                let why = || "too much of its network is refused by the gateway's rules".to_owned();
                excluded.devices.entry(device.sn.clone()).or_insert_with(why);
            }
        }
    }
}

/// Why a document cannot be used.
enum Unfit {
    Problems(Vec<String>),
    /// Only because of entries of other members.
    Members(Excluded),
}

fn compile_without(
    desired: &Desired,
    base: &Base,
    wiring: &BTreeMap<String, Wiring>,
    health: &BTreeMap<String, Verdict>,
    endpoint: Option<&LocalEndpoint>,
    excluded: &Excluded,
) -> Result<Compiled, Unfit> {
    let notices =
        desired.ignored.iter().map(|what| format!("{what}: not supported by this version")).collect();
    let mut c = Compiler {
        desired,
        base,
        wiring: wiring.clone(),
        health,
        endpoint,
        tunnels: Vec::new(),
        refused: Vec::new(),
        local: None,
        excluded,
        foreign: Vec::new(),
        static_routes: Vec::new(),
        out: base.sections.clone(),
        origins: Vec::new(),
        problems: Vec::new(),
        notices,
        ports: Vec::new(),
    };
    c.refuse_unknown_words();
    c.bandwidth();
    let (mut addresses, dhcp) = c.all_ports();
    c.routes();
    c.overlay(&addresses);
    c.acls();
    c.qos();
    c.nat();
    addresses.extend(c.service_addresses());
    c.finish(addresses, dhcp)
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

impl Compiler<'_> {
    /// Adds an entry that another member of the network has caused.
    fn push_foreign(&mut self, list: &str, entry: Table, of: Foreign) {
        let rows = self.out.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(rows) = rows {
            self.foreign.push((format!("{list}[{}]", rows.len()), of));
            rows.push(Value::Table(entry));
        }
    }

    /// Adds an entry to a list of the document and remembers whose it is.
    fn push(&mut self, list: &str, entry: Table, origin: String) {
        let rows = self.out.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(rows) = rows {
            self.origins.push((format!("{list}[{}]", rows.len()), origin));
            rows.push(Value::Table(entry));
        }
    }

    /// A word that this version does not know must not be taken for another one.
    fn refuse_unknown_words(&mut self) {
        let desired = self.desired;
        let unknown = |origin: String, key: &str, word: &str| {
            format!("{origin}: {key} {word:?} is unknown to this version; update sag-agent")
        };
        if let Some(Switch::Unknown(word)) = &desired.wan_snat {
            self.problems.push(unknown("WAN SNAT".into(), "Snat", word));
        }
        for check in &desired.health_checks {
            if let Some(ProbeKind::Unknown(word)) = &check.kind {
                self.problems.push(unknown(format!("health check {}", check.id), "Type", word));
            }
        }
        for d in &desired.distributions {
            let origin = || format!("route distribution of {} from {}", d.destination, d.source);
            if let Some(PublishStrategy::Unknown(word)) = &d.mode {
                self.problems.push(unknown(origin(), "RouteDistribution", word));
            }
            if let Some(RouteOrigin::Unknown(word)) = &d.source_type {
                self.problems.push(unknown(origin(), "SourceType", word));
            }
        }
    }

    fn finish(mut self, addresses: Vec<PortAddress>, dhcp: Vec<String>) -> Result<Compiled, Unfit> {
        if self.ports.iter().all(|(_, _, role)| *role == Role::Mgmt) {
            self.problems.push(
                "no port has a network device and a role; wire them in [ports] of agent.toml, give roles by ModifySagPortRole"
                    .into(),
            );
        }
        let unwritten = |e: toml::ser::Error| Unfit::Problems(vec![e.to_string()]);
        let text = toml::to_string(&self.out).map_err(unwritten)?;
        let mut shown = String::new();
        let mut members = Excluded::default();
        match sag_model::config::parse(&text, "configuration") {
            Ok(checked) => shown = checked.config.to_toml(Secrets::Masked).map_err(unwritten)?,
            Err(errors) => self.complain(&errors, &mut members),
        }
        if !self.problems.is_empty() {
            return Err(Unfit::Problems(self.problems));
        }
        if !members.devices.is_empty() {
            // What is wrong with a route may follow from what is wrong with its tunnel.
            members.blocks.clear();
        }
        if !(members.devices.is_empty() && members.blocks.is_empty()) {
            return Err(Unfit::Members(members));
        }
        self.notices.extend(self.refused.iter().cloned());
        Ok(Compiled {
            text,
            shown,
            addresses,
            dhcp,
            notices: self.notices,
            ports: self.ports,
            tunnels: self.tunnels,
            refused: self.refused,
            local: self.local,
        })
    }

    fn complain(&mut self, errors: &Errors, members: &mut Excluded) {
        for e in &errors.0 {
            let key = e.path.rsplit('.').next().unwrap_or_default();
            let code = e.code.as_ref().map_or(String::new(), |c| format!(" [{c}]"));
            let text = format!("{key}: {}; {}{code}", e.problem, e.remedy);
            match longest_prefix(&self.foreign, &e.path) {
                Some(Foreign::Device(sn)) => {
                    members.devices.insert(sn.clone(), text);
                }
                Some(Foreign::Block(gateway, block)) => {
                    members.blocks.insert((gateway.clone(), block.clone()), text);
                }
                None => {
                    // The cloud's object behind the key path.
                    let origin = longest_prefix(&self.origins, &e.path).unwrap_or(&e.path);
                    self.problems.push(format!("{origin}: {text}"));
                }
            }
        }
    }
}

/// What stands at the longest key path that the path begins with.
fn longest_prefix<'a, T>(all: &'a [(String, T)], path: &str) -> Option<&'a T> {
    let of =
        |o: &&(String, T)| path == o.0 || path.strip_prefix(&o.0).is_some_and(|rest| rest.starts_with('.'));
    all.iter().filter(of).max_by_key(|(prefix, _)| prefix.len()).map(|(_, of)| of)
}

fn port_name(port: &str, vlan: i64) -> String {
    if vlan > 0 { format!("{port}.{vlan}") } else { port.to_owned() }
}

fn same_net(a: &str, b: &str) -> bool {
    let net = |s: &str| s.parse::<Ipv4Net>().ok().map(|n| n.trunc());
    net(a).is_some() && net(a) == net(b)
}

/// Whether a strategy leaves its route in force. One without a health check concerns the other end only.
pub fn in_force(s: &Distribution, health: &BTreeMap<String, Verdict>) -> bool {
    let Some(check) = &s.check else { return true };
    let verdict = health.get(check).copied().unwrap_or(Verdict::Unknown);
    match s.mode {
        Some(PublishStrategy::OnHealthSuccess) => verdict == Verdict::Ok,
        Some(PublishStrategy::OnHealthFail) => verdict == Verdict::Failed,
        Some(PublishStrategy::RevokeOnHealthSuccess) => verdict != Verdict::Ok,
        Some(PublishStrategy::RevokeOnHealthFail) => verdict != Verdict::Failed,
        // An unknown strategy refuses the configuration (`refuse_unknown_words`).
        None | Some(PublishStrategy::Publish | PublishStrategy::NoPublish | PublishStrategy::Unknown(_)) => {
            true
        }
    }
}

#[cfg(test)]
mod tests;
