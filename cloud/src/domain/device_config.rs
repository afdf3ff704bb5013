//! The configuration of a device as it is stored: a section for each family of operations that sets it. The names are
//! those of the device document; secrets are sealed and have the prefix `Sealed`.

use std::collections::BTreeMap;

use sag_southbound::{CommandOutcome, IssuedCommand, wire_field};
use serde::{Deserialize, Serialize};

use super::diagnosis::Diagnosis;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceConfig {
    /// When the device was added, in milliseconds since 1970.
    pub create_time: i64,
    pub ports: Vec<Port>,
    /// By port name, as the next ones.
    pub wan: BTreeMap<String, Wan>,
    pub lan: BTreeMap<String, Lan>,
    /// The port itself (VLAN 0) or its VLANs.
    pub ecc: BTreeMap<String, Vec<EccInterface>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,
    pub route_protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp: Option<Bgp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ospf: Option<Ospf>,
    /// By port name, with a dot and the VLAN for one of a leased line; what is not here has static routes.
    pub port_protocols: BTreeMap<String, PortProtocol>,
    pub static_routes: Vec<StaticRoute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_forwards: Vec<DnsForward>,
    /// Addresses that the device has for its probes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_addresses: Vec<String>,
    pub ha: Ha,
    /// `ENABLE` or `DISABLE`.
    pub snat: String,
    /// Empty: no remote access.
    pub remote_access_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_admin_password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_policy: Option<UpgradePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi_upgrade_policy: Option<UpgradePolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi_version: Option<String>,
    /// The last change of each section, by its name.
    pub tasks: BTreeMap<String, Task>,
    /// Commands without a result.
    pub commands: Vec<IssuedCommand>,
    /// How the last command of each name went.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub command_results: BTreeMap<String, CommandRecord>,
    /// The last probe of access points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The last diagnosis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
}

/// Older versions stored `null` for what no agent had reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    pub port_name: String,
    /// `WAN`, `LAN`, `MGT`, `ECC` or `NONE`.
    #[serde(deserialize_with = "wire_field")]
    pub role: String,
    /// `Up` or `Down`.
    #[serde(deserialize_with = "wire_field")]
    pub status: String,
    #[serde(deserialize_with = "wire_field")]
    pub mac: String,
}

impl Port {
    pub fn is_up(&self) -> bool {
        self.status.eq_ignore_ascii_case("up")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Wan {
    /// `DHCP`, `STATIC` or `PPPOE`.
    #[serde(rename = "IPType")]
    pub ip_type: String,
    pub priority: i64,
    pub weight: i64,
    #[serde(rename = "ISP", skip_serializing_if = "Option::is_none")]
    pub isp: Option<String>,
    /// Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<i64>,
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_password: Option<String>,
}

impl Default for Wan {
    fn default() -> Wan {
        Wan {
            ip_type: "DHCP".to_owned(),
            priority: 10,
            weight: 100,
            isp: None,
            bandwidth: None,
            ip: None,
            mask: None,
            gateway: None,
            username: None,
            sealed_password: None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Lan {
    /// `STATIC`, or `DHCP` for a DHCP server on the port.
    #[serde(rename = "IPType")]
    pub ip_type: String,
    #[serde(rename = "IP")]
    pub ip: String,
    pub mask: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}

/// A leased line: a whole port (VLAN 0) or one VLAN of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EccInterface {
    pub vlan: String,
    #[serde(rename = "IP")]
    pub ip: String,
    pub mask: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Management {
    #[serde(rename = "IP")]
    pub ip: String,
    pub mask: String,
    pub gateway: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Bgp {
    pub router_id: String,
    pub local_as: i64,
    /// Seconds.
    pub hold_time: i64,
    /// Seconds.
    pub keep_alive: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ospf {
    pub area_id: i64,
    /// `NONE`, `CLEARTEXT` or `MD5`.
    pub authentication_type: String,
    /// Seconds.
    pub dead_time: i64,
    /// Seconds.
    pub hello_time: i64,
    pub router_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5_key_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_md5_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_password: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortProtocol {
    pub route_protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_as: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct StaticRoute {
    pub port_name: String,
    /// `0`: none.
    pub vlan: String,
    pub destination_cidr: String,
    pub next_hop: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Dns {
    pub master_dns: String,
    pub slave_dns: String,
}

/// A domain with DNS servers of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsForward {
    /// Its identifier.
    pub instance_id: String,
    /// `*.` in front stands for every name below it.
    pub domain: String,
    pub master_ip: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slave_ip: Option<String>,
    /// `Tunnel` or `PhysicalPort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_port_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_port_index: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_port_name: Option<String>,
    /// Answered as it was sent; nothing depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ha {
    /// `NONE`, `STATIC` or `DYNAMIC`.
    pub mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_ip: Option<String>,
}

impl Ha {
    /// Whether a LAN port has an address that another device takes over.
    pub fn has_virtual_address(&self) -> bool {
        self.mode == "STATIC"
    }
}

/// When the device may upgrade itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpgradePolicy {
    pub cron_expression: String,
    /// Minutes.
    pub duration: i64,
    pub time_zone: String,
    pub upgrade_type: String,
}

/// A change of a section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    /// The revision that brought it.
    pub revision: i64,
    /// Milliseconds since 1970.
    pub create_time: i64,
}

/// A probe of access points (ProbeAccessPointNetworkQuality).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Probe {
    pub id: String,
    /// The revision that brought the command.
    pub revision: i64,
    /// When it was asked for, in milliseconds since 1970.
    pub time: i64,
    /// The access points that it is about.
    pub points: Vec<i64>,
}

/// How a command went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CommandRecord {
    /// The revision that brought it.
    pub revision: i64,
    /// When the result came, in milliseconds since 1970.
    pub time: i64,
    /// None: the agent reported the revision, and of the command nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<CommandOutcome>,
    /// Why it was not carried out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The VLAN of an interface that is the whole port, which is meant if a request names none.
pub const WHOLE_PORT: &str = "0";

impl DeviceConfig {
    /// Forgets the routing protocols of a port, or of one of its VLANs. An older version wrote down only one for each
    /// port, with the VLAN in the entry alone.
    pub fn forget_protocols(&mut self, port: &str, vlan: Option<&str>) {
        self.port_protocols.retain(|name, entry| {
            let of_port =
                name.strip_prefix(port).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            let of_vlan = vlan.is_none_or(|vlan| entry.vlan.as_deref().unwrap_or(WHOLE_PORT) == vlan);
            !(of_port && of_vlan)
        });
    }

    /// The routing protocol of a port or of one of its VLANs.
    pub fn protocol(&self, port: &str, vlan: &str) -> Option<&PortProtocol> {
        let of_vlan = |entry: &&PortProtocol| entry.vlan.as_deref().unwrap_or(WHOLE_PORT) == vlan;
        let named = self.port_protocols.get(&protocol_name(port, vlan)).filter(of_vlan);
        named.or_else(|| self.port_protocols.get(port).filter(of_vlan))
    }
}

/// The name of the entry of a port or of one of its VLANs.
pub fn protocol_name(port: &str, vlan: &str) -> String {
    if vlan == WHOLE_PORT { port.to_owned() } else { format!("{port}.{vlan}") }
}

const PORT_ROLES: [&str; 6] = ["WAN", "LAN", "MGT", "ECC", "NONE", "NONE"];

impl DeviceConfig {
    /// What a device starts with.
    pub fn initial(now: i64) -> DeviceConfig {
        let port = |(i, role): (usize, &&str)| Port {
            port_name: i.to_string(),
            role: (*role).to_owned(),
            status: "Down".to_owned(),
            mac: String::new(),
        };
        DeviceConfig {
            create_time: now,
            ports: PORT_ROLES.iter().enumerate().map(port).collect(),
            wan: BTreeMap::from([("0".to_owned(), Wan::default())]),
            route_protocol: "STATIC".to_owned(),
            snat: "DISABLE".to_owned(),
            ha: Ha { mode: "NONE".to_owned(), ..Ha::default() },
            ..DeviceConfig::default()
        }
    }
}
