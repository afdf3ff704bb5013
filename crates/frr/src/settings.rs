//! What the routing daemons shall do, as the agent says it to the service.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// BGP and OSPF of a device. Nothing of both: no daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// BGP-4 (RFC 4271).
    pub bgp: Option<Bgp>,
    /// OSPF version 2 (RFC 2328).
    pub ospf: Option<Ospf>,
    /// Whether neighbors are watched by BFD (RFC 5880), too.
    pub bfd: bool,
    /// A virtual address that another device has when this one is gone (RFC 5798).
    pub vrrp: Option<Vrrp>,
    /// Lines to the Internet by PPPoE.
    pub pppoe: Vec<PppoeLine>,
}

/// A line to the Internet by PPPoE (RFC 2516).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PppoeLine {
    /// The port, for messages.
    pub port: String,
    /// The Ethernet device behind which the access concentrator is.
    pub device: String,
    /// The name by which the subscriber is known.
    pub user: String,
    /// The password that belongs to it.
    pub password: Key,
    /// Metric of the default route in the kernel; none: there is no default route by it.
    pub metric: Option<u32>,
}

/// The devices of a line beside its Ethernet device, by which their names are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PppoeDevices {
    /// The gateway's port.
    pub port: String,
    /// The other end of the port.
    pub link: String,
    /// pppd's device, while there is a session.
    pub session: String,
}

/// The longest name of a network device, in bytes.
const IFNAMSIZ: usize = 15;
const PORT_PREFIX: &str = "ppp-";

impl PppoeDevices {
    /// Those of an Ethernet device; `None`: its name is longer than 11 bytes.
    pub fn of(device: &str) -> Option<PppoeDevices> {
        let fits = !device.is_empty() && device.len() + PORT_PREFIX.len() <= IFNAMSIZ;
        fits.then(|| PppoeDevices {
            port: format!("{PORT_PREFIX}{device}"),
            link: format!("ppl-{device}"),
            session: format!("pps-{device}"),
        })
    }

    /// The Ethernet device of a port's device, if the port is one of PPPoE.
    pub fn ethernet(port: &str) -> Option<&str> {
        port.strip_prefix(PORT_PREFIX)
    }
}

/// A virtual address of a LAN port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vrrp {
    /// The port, for messages.
    pub port: String,
    /// Its device.
    pub device: String,
    /// The virtual address.
    pub address: Ipv4Addr,
    /// Number of the virtual router, 1..255: the same on both devices, and another one for every other pair on the network.
    pub router: u8,
    /// Who has more is the master, 1..254. Of equals it is the one that was there first.
    pub priority: u8,
    /// Whether the address has the Ethernet address of the virtual router (RFC 5798 section 7.3), on a device of its own.
    #[serde(default)]
    pub virtual_mac: bool,
    /// Virtual addresses of IPv6 that move with it, a link-local one first; none: only IPv4 moves. They need `virtual_mac`.
    #[serde(default)]
    pub ipv6: Vec<Ipv6Net>,
}

/// The device of the virtual addresses of IPv4, above that of the port, if they have an Ethernet address of their own.
pub const DEVICE4: &str = "sag-vrrp4";
/// The same of IPv6, which hosts know their router by.
pub const DEVICE6: &str = "sag-vrrp6";

impl Settings {
    /// Whether no daemon of FRR has anything to do.
    pub fn is_off(&self) -> bool {
        self.bgp.is_none() && self.ospf.is_none()
    }

    /// Whether nothing at all is to be done.
    pub fn is_idle(&self) -> bool {
        self.is_off() && self.vrrp.is_none() && self.pppoe.is_empty()
    }
}

/// BGP of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bgp {
    /// Router identifier.
    pub router_id: Ipv4Addr,
    /// The device's autonomous system, not 0.
    pub local_as: u32,
    /// Seconds of silence after which a neighbor counts as lost, 3..65535.
    pub hold_time: u16,
    /// Seconds between signs of life.
    pub keepalive: u16,
    /// Prefixes that a neighbor may announce of each family; with more its session ends for a minute.
    pub max_prefixes: u32,
    /// Who is talked to.
    pub neighbors: Vec<Neighbor>,
    /// The branch's own networks: announced to every neighbor, taken from none outside.
    pub branch: Vec<IpNet>,
    /// Networks of other branches that are reached through this gateway: announced inside.
    pub beyond: Vec<IpNet>,
}

/// Where a neighbor is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// On a LAN port, in the branch.
    Inside,
    /// On any other port.
    #[default]
    Outside,
}

/// A neighbor of BGP. Its family is that of the routes which are exchanged with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The port on which it is, for messages; empty: a neighbor of the device's own file.
    pub port: String,
    /// Its address.
    pub address: IpAddr,
    /// Its autonomous system, not 0.
    pub remote_as: u32,
    /// Key of its TCP segments (RFC 2385).
    pub key: Option<Key>,
    /// Where it is.
    pub side: Side,
    /// Hops that it may be away; 1: it is in a network of the device.
    pub hops: u8,
}

/// OSPF of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ospf {
    /// Router identifier.
    pub router_id: Ipv4Addr,
    /// The only area.
    pub area: u32,
    /// Seconds between hello packets.
    pub hello: u16,
    /// Seconds of silence after which a neighbor counts as lost.
    pub dead: u16,
    /// How packets are authenticated.
    pub authentication: Authentication,
    /// Ports on which OSPF is spoken, with their devices.
    pub interfaces: Vec<Interface>,
    /// Devices whose networks are announced, and on which OSPF is not spoken.
    pub passive: Vec<String>,
    /// Networks of other branches that are announced while the kernel has a route to them.
    pub beyond: Vec<Ipv4Net>,
}

/// A port with its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The port.
    pub port: String,
    /// The device.
    pub device: String,
}

/// How packets of OSPF are authenticated (RFC 2328, appendix D).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    /// Not at all.
    #[default]
    None,
    /// By a password of 1..8 characters in each packet.
    Password(Key),
    /// By a keyed MD5 digest.
    Md5 {
        /// Number of the key: the field has 8 bits.
        id: u8,
        /// 1..16 characters.
        key: Key,
    },
}

/// A secret; it is not printed, and wiped at the end.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Key {
        Key(text.into())
    }

    /// The secret in clear.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
