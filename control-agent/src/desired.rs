//! What the cloud wants of this device, typed. Both sources, the one document of the long poll and
//! the answers of the documented operations, are read by the same functions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{int, list, text};
use crate::sign::hash_hex;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    /// Mbit/s of the instance; overlay and leased lines.
    pub bandwidth: Option<i64>,
    /// Mbit/s of the Internet uplink.
    pub up_bandwidth: Option<i64>,
    /// Role by port.
    pub roles: BTreeMap<String, String>,
    pub wans: BTreeMap<String, Wan>,
    pub lans: BTreeMap<String, Lan>,
    pub eccs: BTreeMap<String, Vec<EccInterface>>,
    pub routes: Vec<StaticRoute>,
    pub wan_snat: bool,
    pub acls: Vec<Acl>,
    pub qos: Vec<Qos>,
    pub snat: Vec<SnatEntry>,
    pub dnat: Vec<DnatEntry>,
    pub health_checks: Vec<HealthCheck>,
    pub distributions: Vec<Distribution>,
    /// The cloud connect network that the gateway is bound to.
    pub ccn: Option<Ccn>,
    /// Things that are set and that this version does not act upon.
    pub ignored: Vec<String>,
}

macro_rules! rows {
    ($($name:ident { $($field:ident: $kind:ty,)* })*) => { $(
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $(pub $field: $kind,)* }
    )* };
}

rows! {
    Wan { ip_type: String, ip: String, mask: String, gateway: String, priority: Option<i64>, bandwidth: Option<i64>, }
    Lan { ip_type: String, ip: String, mask: String, }
    EccInterface { vlan: i64, ip: String, mask: String, }
    StaticRoute { port: String, vlan: i64, destination: String, next_hop: String, }
    Acl { id: String, rules: Vec<Rule>, }
    Rule { id: String, direction: String, kind: String, policy: String, priority: Option<i64>, tuple: Tuple, dpi: bool, }
    Tuple { protocol: String, source: String, dest: String, source_ports: String, dest_ports: String, }
    Qos { id: String, cars: Vec<Car>, policies: Vec<Policy>, }
    Car {
        id: String, priority: i64, limit_type: String, min_abs: Option<i64>, max_abs: Option<i64>,
        min_percent: Option<i64>, max_percent: Option<i64>, source: Option<String>,
    }
    Policy { id: String, priority: i64, tuple: Tuple, start: Option<String>, end: Option<String>, dpi: bool, }
    SnatEntry { id: String, cidr: String, ip: String, }
    DnatEntry {
        id: String, kind: String, protocol: String, external_ip: String, external_port: String,
        internal_ip: String, internal_port: String,
    }
    HealthCheck {
        id: String, kind: String, dst: String, src: String, interval_ms: i64, count: i64, timeout_ms: i64,
        rtt_ms: i64, rtt_fails: i64, fails: i64,
    }
    Ccn { id: String, members: Vec<Member>, }
    Member { gateway: String, blocks: Vec<String>, devices: Vec<Peer>, }
    Peer { sn: String, address: String, epoch: i64, public_key: String, pop: bool, }
    Distribution { source_type: String, source: String, destination: String, mode: String, check: Option<String>, }
}

/// Something to do once.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub name: String,
    pub revision: i64,
    pub args: Value,
}

impl Desired {
    /// Tells two configurations apart, whatever their revisions.
    pub fn digest(&self) -> String {
        hash_hex(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The document of `PullSmartAGConfig`.
    pub fn from_document(doc: &Value) -> Desired {
        let mut d = Desired {
            bandwidth: int(&doc["Gateway"], "Bandwidth"),
            up_bandwidth: int(&doc["Gateway"], "UpBandwidthWan"),
            roles: roles(&list(doc, "Ports", "Port")),
            routes: list(doc, "StaticRoutes", "StaticRoute").iter().map(route).collect(),
            wan_snat: wan_snat(doc),
            snat: list(doc, "SnatEntries", "SnatEntry").iter().map(snat).collect(),
            dnat: list(doc, "DnatEntries", "DnatEntry").iter().map(dnat).collect(),
            health_checks: list(doc, "HealthChecks", "HealthCheck").iter().map(health_check).collect(),
            distributions: list(doc, "RouteDistribution", "Strategy").iter().map(distribution).collect(),
            ccn: doc["Ccn"].is_object().then(|| ccn(&doc["Ccn"])),
            ..Desired::default()
        };
        for (name, v) in doc["Wan"].as_object().into_iter().flatten() {
            d.wans.insert(name.clone(), wan(v));
        }
        for (name, v) in doc["Lan"].as_object().into_iter().flatten() {
            d.lans.insert(name.clone(), lan(v));
        }
        for (name, v) in doc["Ecc"].as_object().into_iter().flatten() {
            let rows = v.as_array().into_iter().flatten().map(ecc).collect();
            d.eccs.insert(name.clone(), rows);
        }
        for acl in list(doc, "Acls", "Acl") {
            let rules = list(&acl, "Rules", "Rule").iter().map(rule).collect();
            d.acls.push(Acl { id: text(&acl, "AclId").unwrap_or_default(), rules });
        }
        for qos in list(doc, "Qos", "Qos") {
            d.qos.push(Qos {
                id: text(&qos, "QosId").unwrap_or_default(),
                cars: list(&qos, "Cars", "Car").iter().map(car).collect(),
                policies: list(&qos, "Policies", "Policy").iter().map(policy).collect(),
            });
        }
        d.note_ignored(doc);
        d
    }

    /// Names what is set and has no effect.
    fn note_ignored(&mut self, doc: &Value) {
        let mut note = |yes: bool, what: &str| {
            if yes {
                self.ignored.push(what.to_owned());
            }
        };
        let set = |v: &Value| v.as_object().is_some_and(|m| !m.is_empty());
        note(
            matches!(doc["RouteProtocol"].as_str(), Some("BGP" | "OSPF")),
            "dynamic routing (RouteProtocol)",
        );
        note(set(&doc["Bgp"]), "BGP");
        note(set(&doc["Ospf"]), "OSPF");
        note(set(&doc["Dns"]), "DNS servers");
        note(doc["Ha"]["Mode"].as_str().is_some_and(|m| m != "NONE"), "high availability");
        note(set(&doc["FlowLog"]), "flow logs");
        note(doc["RemoteAccessIp"].as_str().is_some_and(|ip| !ip.is_empty()), "remote access");
        for (name, wan) in &self.wans {
            if wan.ip_type == "PPPOE" {
                self.ignored.push(format!("PPPoE on port {name}"));
            }
        }
        for (name, lan) in &self.lans {
            if lan.ip_type == "DHCP" {
                self.ignored.push(format!("the DHCP server on port {name}"));
            }
        }
    }
}

pub fn commands(doc: &Value) -> Vec<Command> {
    let rows = doc["Commands"].as_array().into_iter().flatten();
    rows.filter_map(|c| {
        Some(Command { name: text(c, "Name")?, revision: int(c, "Revision")?, args: c["Args"].clone() })
    })
    .collect()
}

pub fn roles(rows: &[Value]) -> BTreeMap<String, String> {
    rows.iter()
        .filter_map(|p| Some((text(p, "PortName")?, text(p, "Role").unwrap_or("NONE".into()))))
        .collect()
}

pub fn wan_snat(v: &Value) -> bool {
    v["Snat"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("ENABLE"))
}

fn word(v: &Value, field: &str) -> String {
    text(v, field).unwrap_or_default()
}

pub fn wan(v: &Value) -> Wan {
    Wan {
        ip_type: word(v, "IPType").to_ascii_uppercase(),
        ip: word(v, "IP"),
        mask: word(v, "Mask"),
        gateway: word(v, "Gateway"),
        priority: int(v, "Priority"),
        // Two spellings in the documents.
        bandwidth: int(v, "Bandwidth").or_else(|| int(v, "BandWidth")),
    }
}

pub fn lan(v: &Value) -> Lan {
    Lan { ip_type: word(v, "IPType").to_ascii_uppercase(), ip: word(v, "IP"), mask: word(v, "Mask") }
}

pub fn ecc(v: &Value) -> EccInterface {
    EccInterface { vlan: int(v, "Vlan").unwrap_or(0), ip: word(v, "IP"), mask: word(v, "Mask") }
}

pub fn route(v: &Value) -> StaticRoute {
    StaticRoute {
        port: word(v, "PortName"),
        vlan: int(v, "Vlan").unwrap_or(0),
        destination: word(v, "DestinationCidr"),
        next_hop: word(v, "NextHop"),
    }
}

fn tuple(v: &Value) -> Tuple {
    let range = |field| text(v, field).unwrap_or_else(|| "-1/-1".into());
    Tuple {
        protocol: word(v, "IpProtocol").to_ascii_lowercase(),
        source: word(v, "SourceCidr"),
        dest: word(v, "DestCidr"),
        source_ports: range("SourcePortRange"),
        dest_ports: range("DestPortRange"),
    }
}

/// Whether it asks for deep packet inspection.
fn dpi(v: &Value) -> bool {
    !list(v, "DpiGroupIds", "DpiGroupId").is_empty()
        || !list(v, "DpiSignatureIds", "DpiSignatureId").is_empty()
}

pub fn rule(v: &Value) -> Rule {
    Rule {
        id: word(v, "AcrId"),
        direction: word(v, "Direction").to_ascii_lowercase(),
        kind: text(v, "Type").unwrap_or("LAN".into()).to_ascii_uppercase(),
        policy: word(v, "Policy").to_ascii_lowercase(),
        priority: int(v, "Priority"),
        tuple: tuple(v),
        dpi: dpi(v),
    }
}

pub fn car(v: &Value) -> Car {
    Car {
        id: word(v, "QosCarId"),
        priority: int(v, "Priority").unwrap_or(0),
        limit_type: word(v, "LimitType"),
        min_abs: int(v, "MinBandwidthAbs"),
        max_abs: int(v, "MaxBandwidthAbs"),
        min_percent: int(v, "MinBandwidthPercent"),
        max_percent: int(v, "MaxBandwidthPercent"),
        source: text(v, "PercentSourceType"),
    }
}

pub fn policy(v: &Value) -> Policy {
    Policy {
        id: word(v, "QosPolicyId"),
        priority: int(v, "Priority").unwrap_or(0),
        tuple: tuple(v),
        start: moment(v, "StartTime"),
        end: moment(v, "EndTime"),
        dpi: dpi(v),
    }
}

/// A time as text, or milliseconds since 1970; 0 is none.
fn moment(v: &Value, field: &str) -> Option<String> {
    match int(v, field) {
        Some(0) => None,
        Some(ms) => Some(crate::clock::rfc3339(ms.div_euclid(1000))),
        None => text(v, field),
    }
}

pub fn snat(v: &Value) -> SnatEntry {
    SnatEntry { id: word(v, "InstanceId"), cidr: word(v, "CidrBlock"), ip: word(v, "SnatIp") }
}

pub fn dnat(v: &Value) -> DnatEntry {
    DnatEntry {
        id: word(v, "DnatEntryId"),
        kind: text(v, "Type").unwrap_or("Intranet".into()),
        protocol: word(v, "IpProtocol").to_ascii_lowercase(),
        external_ip: word(v, "ExternalIp"),
        external_port: word(v, "ExternalPort"),
        internal_ip: word(v, "InternalIp"),
        internal_port: word(v, "InternalPort"),
    }
}

pub fn health_check(v: &Value) -> HealthCheck {
    let number = |field, default| int(v, field).unwrap_or(default);
    HealthCheck {
        id: word(v, "HcInstanceId"),
        kind: word(v, "Type"),
        dst: word(v, "DstIpAddr"),
        src: word(v, "SrcIpAddr"),
        interval_ms: number("ProbeInterval", 2000),
        count: number("ProbeCount", 1),
        timeout_ms: number("ProbeTimeout", 1000),
        rtt_ms: number("RttThreshold", -1),
        rtt_fails: number("RttFailThreshold", 3),
        fails: number("FailCountThreshold", 3),
    }
}

fn ccn(v: &Value) -> Ccn {
    let peer = |d: &Value| Peer {
        sn: word(d, "SmartAGSn"),
        address: word(d, "Address"),
        epoch: int(d, "Epoch").unwrap_or(0),
        public_key: word(d, "PublicKey"),
        pop: d["Pop"] == true,
    };
    let member = |m: &Value| Member {
        gateway: word(m, "SmartAGId"),
        blocks: list(m, "CidrBlocks", "CidrBlock")
            .iter()
            .filter_map(|b| b.as_str().map(str::to_owned))
            .collect(),
        devices: list(m, "Devices", "Device").iter().map(peer).collect(),
    };
    Ccn { id: word(v, "CcnId"), members: list(v, "Members", "Member").iter().map(member).collect() }
}

pub fn distribution(v: &Value) -> Distribution {
    Distribution {
        source_type: word(v, "SourceType"),
        source: word(v, "RouteSource"),
        destination: word(v, "DestCidrBlock"),
        mode: word(v, "RouteDistribution"),
        check: text(v, "HcInstanceId"),
    }
}
