//! Answers that describe the gateway: status, ports, drops, ACLs, routes, configuration.

use super::{Deviation, RoutePlace};
use crate::config::Change;
use crate::{DropReason, MacAddr, Role, VlanId};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Answer to `status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process of the daemon.
    pub pid: u32,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Counts the configurations that were applied.
    pub config_epoch: u32,
    /// File (or name given by `config-apply`) that the running configuration came from.
    pub config_file: String,
    /// RFC 3339, UTC.
    pub config_applied: String,
    /// Worker threads.
    pub workers: Vec<Worker>,
    /// Sessions by address family.
    pub sessions: SessionTotals,
    /// Packets that XDP forwarded, since start.
    pub fastpath_packets: u64,
    /// Packets that XDP handed to a worker, since start.
    pub punted_packets: u64,
    /// The same by reason.
    pub punts: Vec<PuntRow>,
    /// Services of `[[syn_cookies]]`.
    #[serde(default)]
    pub syn_cookies: Vec<SynCookieRow>,
    /// Worth a look, a line each.
    pub warnings: Vec<String>,
    /// Objects of the controller that are not in force as they are.
    #[serde(default)]
    pub deviations: Vec<Deviation>,
}

/// A service that SYN cookies protect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SynCookieRow {
    /// Identifier, as in the configuration.
    pub id: String,
    /// As in the configuration; `null`: the IPv4 addresses of the WAN ports.
    pub address: Option<IpAddr>,
    /// TCP port.
    pub port: u16,
    /// `off`, `auto` or `always`.
    pub mode: String,
    /// SYNs are answered with cookies now.
    pub active: bool,
    /// SYNs without a session, since start.
    pub syns: u64,
    /// Of these, answered with a cookie.
    pub sent: u64,
    /// Packets with a valid cookie: their senders are connected to the server.
    pub accepted: u64,
    /// Packets without a session or a valid cookie, while cookies were sent.
    pub refused: u64,
}

/// A worker thread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Number, from 0.
    pub id: u32,
    /// Core that it is pinned to; `null`: none.
    pub cpu: Option<u32>,
    /// Rounds with packets, since start.
    pub batches: u64,
    /// Packets, since start.
    pub packets: u64,
    /// Share of the last second spent on packets, 0..=100.
    #[serde(deserialize_with = "number_or_zero")]
    pub busy_percent: f64,
}

/// JSON knows no NaN and writes `null`; that must not spoil the whole answer.
fn number_or_zero<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or_default())
}

/// Sessions by address family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionTotals {
    /// IPv4 sessions now.
    pub ipv4: u64,
    /// IPv6 sessions now.
    pub ipv6: u64,
    /// IPv4 sessions that the table can hold.
    pub capacity_ipv4: u64,
    /// IPv6 sessions that the table can hold.
    pub capacity_ipv6: u64,
    /// Since start.
    pub created: u64,
    /// Since start, sessions that gave way to new ones in a table that runs full.
    #[serde(default)]
    pub evicted: u64,
    /// Of these, with traffic in both directions, but none for a minute.
    #[serde(default)]
    pub evicted_established: u64,
    /// The host with most sessions of each family, where one has many.
    #[serde(default)]
    pub heaviest: Vec<HeaviestHost>,
    /// Memory of the tables.
    pub memory_bytes: u64,
}

/// The host with most sessions of a family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaviestHost {
    /// 4 or 6.
    pub family: u8,
    /// The prefix that counts as one host, as in `192.0.2.1/32`.
    pub host: String,
    /// Its VRF; `null`: the default one, and for IPv6 networks, which count in all VRFs together.
    #[serde(default)]
    pub vrf: Option<String>,
    /// Its sessions.
    pub sessions: u64,
}

/// Packets that XDP handed to a worker, by reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PuntRow {
    /// Name of the reason.
    pub reason: String,
    /// Packets, since start.
    pub packets: u64,
}

/// Packets of a port that XDP handed to a worker for one reason, as metrics tell them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PortPunt {
    /// Name of the port.
    pub port: String,
    /// Name of the reason.
    pub reason: String,
    /// Packets, since start.
    pub packets: u64,
}

/// How often something that was changed from outside was put right, as metrics tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RepairCount {
    /// `attachment` (an XDP program was detached), `program` (exchanged), `pin` or `map` (removed).
    pub kind: String,
    /// Since start.
    pub count: u64,
}

/// A file that the daemon writes and that it could not write, as metrics tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileState {
    /// What it is called, as in `NAT log`.
    pub file: String,
    /// Failed attempts, since start.
    pub errors: u64,
    /// The last attempt failed.
    pub failing: bool,
}

/// What a CAR let pass and what not, as metrics tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CarCounters {
    /// Identifier of the CAR.
    pub car: String,
    /// Bytes that passed.
    pub passed_bytes: u64,
    /// Bytes that were dropped.
    pub dropped_bytes: u64,
}

/// Answer to `ports`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ports {
    /// Every port of the configuration.
    pub ports: Vec<Port>,
}

/// A setting of the kernel for a port's interface, for a macvlan device above it, or for a card below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSetting {
    /// As `sysctl` has it; of an offload `ethtool.DEVICE.FEATURE`.
    pub name: String,
    /// What it is.
    pub value: i32,
    /// What a router needs; `null`: it is left as it is.
    pub wanted: Option<i32>,
    /// What it was before the gateway changed it; `null`: the gateway has not changed it.
    pub before: Option<i32>,
}

/// A `[[port]]` of the configuration and its books: `rx_packets` equals the sum of `forwarded`,
/// `to_kernel`, `held` and `dropped`, once no packet is on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Name, as in the configuration.
    pub name: String,
    /// Linux network device.
    pub device: String,
    /// 802.1Q VLAN; `null`: untagged.
    pub vlan: Option<VlanId>,
    /// What the port is connected to.
    pub role: Role,
    /// Whether the link is up.
    pub up: bool,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// The kernel's and the configuration's.
    pub addresses: Vec<IpNet>,
    /// Driver, queues, modes, and the reason of every downgrade, in one line.
    pub capability: String,
    /// `native`, `generic` or `none`.
    pub xdp_mode: String,
    /// `zero-copy`, `copy` or `none`.
    pub xsk_mode: String,
    /// Receive queues that are served.
    pub queues: u32,
    /// Packets received.
    pub rx_packets: u64,
    /// IP bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// IP bytes sent.
    pub tx_bytes: u64,
    /// Arrived here and left by another port.
    pub forwarded: u64,
    /// Handed to the kernel.
    pub to_kernel: u64,
    /// Waiting for the answer of a neighbour.
    pub held: u64,
    /// Dropped, for any reason.
    pub dropped: u64,
    /// Sent by the gateway itself (ICMP errors).
    pub originated: u64,
    /// Of the received, handed to a worker by XDP.
    pub punted: u64,
    /// Of the received, finished by XDP.
    pub fast: u64,
    /// Of those that XDP sent by the port's device, whichever of its ports they are: the device has not taken them. 0 at all
    /// but the device's first port.
    #[serde(default)]
    pub tx_lost: u64,
    /// Counters of the device's driver that tell of such losses and are not zero, by the driver's names, since the device
    /// is there. Empty at all but the device's first port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_losses: BTreeMap<String, u64>,
    /// Settings of the kernel for the port.
    #[serde(default)]
    pub kernel_settings: Vec<KernelSetting>,
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
            tx_lost: 0,
            driver_losses: BTreeMap::new(),
            kernel_settings: Vec::new(),
        }
    }
}

/// Answer to `drops`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drops {
    /// A row for each port and reason that occurred.
    pub drops: Vec<DropRow>,
}

/// Packets that a port dropped for one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DropRow {
    /// Name of the port.
    pub port: String,
    /// Name of the reason.
    pub reason: String,
    /// For people.
    pub text: String,
    /// Packets, since start.
    pub packets: u64,
}

impl DropRow {
    /// A row of a reason.
    pub fn new(port: impl Into<String>, reason: DropReason, packets: u64) -> DropRow {
        DropRow { port: port.into(), reason: reason.name().into(), text: reason.text().into(), packets }
    }
}

/// Arguments of `routes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteQuery {
    /// Only routes that cover this address, the most specific first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covers: Option<IpAddr>,
    /// Only routes to networks within this one, its own included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<IpNet>,
    /// Only routes behind this place: `next` of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<RoutePlace>,
    /// Most routes in the answer; without it 10,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answer to `routes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// The routes that were selected.
    pub routes: Vec<Route>,
    /// Number of routes before `after` and `limit`.
    #[serde(default)]
    pub total: u64,
    /// The place of the last one, if there are more behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RoutePlace>,
}

/// A route of the kernel or of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Network.
    pub destination: IpNet,
    /// VRF whose packets go by it; `null`: the default one.
    #[serde(default)]
    pub vrf: Option<String>,
    /// `unicast`, `local`, `blackhole`, `unreachable`, `prohibit`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What installed it: `kernel`, `static`, `bgp`, …
    pub protocol: String,
    /// The lowest wins.
    pub metric: u32,
    /// `kernel` or `config`.
    pub source: String,
    /// More than one share the traffic.
    pub next_hops: Vec<NextHop>,
}

/// One of the next hops of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NextHop {
    /// `null`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// `null`: the device is no port of the gateway.
    pub port: Option<String>,
    /// Linux network device.
    pub device: String,
    /// Ethernet address.
    pub mac: Option<MacAddr>,
    /// State of the neighbour: `reachable`, `stale`, `incomplete`, `failed`, …
    pub state: String,
    /// Share among the next hops.
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
    /// File, or name given by `config-apply`.
    pub name: String,
    /// Counts the configurations that were applied.
    pub epoch: u32,
    /// RFC 3339, UTC.
    pub applied: String,
    /// The running document.
    pub text: String,
}

/// Answer to `config-apply` and `reload`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigApplied {
    /// Counts the configurations that were applied.
    pub epoch: u32,
    /// False: the document says what was running already.
    pub changed: bool,
    /// Worth a look, a line each.
    pub warnings: Vec<String>,
}

/// Answer to `config-diff`: what applying the document would change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigDiff {
    /// Keys that differ.
    pub changes: Vec<Change>,
    /// Worth a look, a line each.
    pub warnings: Vec<String>,
}
