//! Answers that describe the gateway: status, ports, drops, ACLs, routes, configuration.

use crate::{DropReason, MacAddr, Role, VlanId};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;

/// Answer to `status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_s: u64,
    pub config_epoch: u32,
    /// File (or name given by `config-apply`) that the running configuration came from.
    pub config_file: String,
    /// RFC 3339, UTC.
    pub config_applied: String,
    pub workers: Vec<Worker>,
    pub sessions: SessionTotals,
    pub fastpath_packets: u64,
    pub punted_packets: u64,
    pub punts: Vec<PuntRow>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub id: u32,
    pub cpu: Option<u32>,
    pub batches: u64,
    pub packets: u64,
    /// Share of the last second spent on packets, 0..=100.
    #[serde(deserialize_with = "number_or_zero")]
    pub busy_percent: f64,
}

/// JSON knows no NaN and writes `null`; that must not spoil the whole answer.
fn number_or_zero<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionTotals {
    pub ipv4: u64,
    pub ipv6: u64,
    pub capacity_ipv4: u64,
    pub capacity_ipv6: u64,
    /// Since start.
    pub created: u64,
    /// Since start, unanswered sessions that gave way to new ones in a full table.
    #[serde(default)]
    pub evicted: u64,
    /// Memory of the tables.
    pub memory_bytes: u64,
}

/// Packets that XDP handed to a worker, by reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PuntRow {
    pub reason: String,
    pub packets: u64,
}

/// Packets of a port that XDP handed to a worker for one reason, as metrics tell them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PortPunt {
    pub port: String,
    pub reason: String,
    pub packets: u64,
}

/// What a CAR let pass and what not, as metrics tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CarCounters {
    pub car: String,
    pub passed_bytes: u64,
    pub dropped_bytes: u64,
}

/// Answer to `ports`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ports {
    pub ports: Vec<Port>,
}

/// A `[[port]]` of the configuration and its books: `rx_packets` equals the sum of `forwarded`,
/// `to_kernel`, `held` and `dropped`, once no packet is on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    pub device: String,
    pub vlan: Option<VlanId>,
    pub role: Role,
    pub up: bool,
    pub mac: Option<MacAddr>,
    pub mtu: u32,
    pub addresses: Vec<IpNet>,
    /// Driver, queues, modes, and the reason of every downgrade, in one line.
    pub capability: String,
    /// `native`, `generic` or `none`.
    pub xdp_mode: String,
    /// `zero-copy`, `copy` or `none`.
    pub xsk_mode: String,
    pub queues: u32,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Arrived here and left by another port.
    pub forwarded: u64,
    pub to_kernel: u64,
    /// Waiting for the answer of a neighbour.
    pub held: u64,
    pub dropped: u64,
    /// Sent by the gateway itself (ICMP errors).
    pub originated: u64,
    /// Of the received, handed to a worker by XDP.
    pub punted: u64,
    /// Of the received, finished by XDP.
    pub fast: u64,
}

impl Port {
    /// A port of which nothing but the configuration is known.
    pub fn new(name: impl Into<String>, device: impl Into<String>, role: Role) -> Port {
        Port {
            name: name.into(),
            device: device.into(),
            vlan: None,
            role,
            up: false,
            mac: None,
            mtu: 0,
            addresses: Vec::new(),
            capability: String::new(),
            xdp_mode: "none".into(),
            xsk_mode: "none".into(),
            queues: 0,
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            forwarded: 0,
            to_kernel: 0,
            held: 0,
            dropped: 0,
            originated: 0,
            punted: 0,
            fast: 0,
        }
    }
}

/// Answer to `drops`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drops {
    pub drops: Vec<DropRow>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DropRow {
    pub port: String,
    pub reason: String,
    pub text: String,
    pub packets: u64,
}

impl DropRow {
    pub fn new(port: impl Into<String>, reason: DropReason, packets: u64) -> DropRow {
        DropRow { port: port.into(), reason: reason.name().into(), text: reason.text().into(), packets }
    }
}

/// Arguments of `acl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclQuery {
    /// Only the ACL of this identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<String>,
}

/// Answer to `acl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AclReport {
    pub acls: Vec<Acl>,
    /// Verdict when no rule matches: `accept` or `drop`.
    pub default: String,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Acl {
    pub id: String,
    pub rules: Vec<AclRule>,
}

/// A rule, written as in the configuration, and what it has matched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AclRule {
    pub id: String,
    pub direction: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub policy: String,
    pub ip_protocol: String,
    pub source_cidr: String,
    pub dest_cidr: String,
    pub source_port_range: String,
    pub dest_port_range: String,
    pub priority: u32,
    pub hits: u64,
    pub bytes: u64,
    /// Seconds since the last match; `null` if there was none.
    pub last_hit_s: Option<u64>,
}

/// A rule that cannot do what it seems to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `shadowed`, `redundant` or `conflict`.
    pub kind: String,
    pub acl: String,
    pub rule: String,
    /// The rules that make it so.
    pub by: Vec<String>,
    /// A packet that shows it.
    pub witness: Option<String>,
    pub text: String,
}

/// Arguments of `routes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteQuery {
    /// Only routes that cover this address, the most specific first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covers: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answer to `routes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    pub routes: Vec<Route>,
    /// Number of routes before `limit`.
    #[serde(default)]
    pub total: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub destination: IpNet,
    /// `unicast`, `local`, `blackhole`, `unreachable`, `prohibit`.
    #[serde(rename = "type")]
    pub kind: String,
    pub protocol: String,
    pub metric: u32,
    /// `kernel` or `config`.
    pub source: String,
    pub next_hops: Vec<NextHop>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NextHop {
    /// `null`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// `null`: the device is no port of the gateway.
    pub port: Option<String>,
    pub device: String,
    pub mac: Option<MacAddr>,
    /// State of the neighbour: `reachable`, `stale`, `incomplete`, `failed`, …
    pub state: String,
    pub weight: u32,
}

/// Arguments of `config-apply` and `config-diff`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// The whole document, TOML.
    pub text: String,
    /// Name of the file it came from, for messages.
    pub name: String,
}

/// Answer to `config-show`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigShow {
    pub name: String,
    pub epoch: u32,
    /// RFC 3339, UTC.
    pub applied: String,
    /// The running document.
    pub text: String,
}

/// Answer to `config-apply` and `reload`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigApplied {
    pub epoch: u32,
    /// False: the document says what was running already.
    pub changed: bool,
    pub warnings: Vec<String>,
}

/// Answer to `config-diff`: what applying the document would change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigDiff {
    pub changes: Vec<Change>,
    pub warnings: Vec<String>,
}

/// One key of the configuration that differs. Values are TOML.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// As in `acl[acl-1].rule[acr-1].policy`.
    pub path: String,
    /// `null`: added.
    pub old: Option<String>,
    /// `null`: removed.
    pub new: Option<String>,
}
