//! Links, addresses and neighbours as the mirror shows them. Plain values: no socket, no kernel
//! types, so that shells without a kernel (tests, replay) can fill [`crate::Tables`] as well.

use ipnet::IpNet;
use sag_model::MacAddr;
use std::fmt;
use std::net::IpAddr;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The index, from 1.
    pub ifindex: u32,
    /// The name, at most 15 bytes.
    pub name: String,
    /// None where the device has no link-layer address of six bytes (tun, ipip).
    pub mac: Option<MacAddr>,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Administratively up (`ip link set … up`).
    pub up: bool,
    /// Up, with carrier, and operational: frames can pass.
    pub running: bool,
    /// It is the loopback device.
    pub loopback: bool,
    /// The driver's name for virtual devices ("veth", "vlan", "bridge", "vxlan"); None for NICs.
    pub kind: Option<String>,
    /// The device underneath (VLAN, macvlan) or at the other end (veth), if it is in this namespace.
    pub parent: Option<u32>,
    /// 802.1Q tag of a VLAN device.
    pub vlan: Option<u16>,
    /// Receive queues.
    pub rx_queues: u32,
    /// Transmit queues.
    pub tx_queues: u32,
    /// The bridge, bond or VRF that has enslaved the device.
    pub master: Option<u32>,
    /// The routing table of a VRF device.
    pub vrf_table: Option<u32>,
}

impl Link {
    /// An interface that is up and runs, and of which no more is known.
    #[must_use]
    pub fn new(ifindex: u32, name: &str) -> Link {
        Link {
            ifindex,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            loopback: false,
            kind: None,
            parent: None,
            vlan: None,
            rx_queues: 1,
            tx_queues: 1,
            master: None,
            vrf_table: None,
        }
    }
}

/// How far an address is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// Within the site.
    Site,
    /// On the link.
    Link,
    /// On this machine.
    Host,
    /// Nowhere.
    Nowhere,
    /// Another scope, by its number.
    Other(u8),
}

impl From<u8> for Scope {
    fn from(v: u8) -> Scope {
        match v {
            0 => Scope::Global,
            200 => Scope::Site,
            253 => Scope::Link,
            254 => Scope::Host,
            255 => Scope::Nowhere,
            v => Scope::Other(v),
        }
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub addr: IpAddr,
    /// The prefix length of its subnet.
    pub prefix_len: u8,
    /// How far it is valid.
    pub scope: Scope,
    /// IPv4: not the first of its subnet, so never chosen as a source. IPv6: a temporary address.
    pub secondary: bool,
    /// The other end of a point-to-point address; the prefix is then the peer's.
    pub peer: Option<IpAddr>,
    /// IPv6 duplicate address detection still runs: the address must not be used yet.
    pub tentative: bool,
    /// IPv6 duplicate address detection found another owner.
    pub duplicate: bool,
    /// Preferred lifetime is over: valid, but not for new conversations.
    pub deprecated: bool,
}

impl Address {
    /// The subnet that the address puts on the link.
    pub fn subnet(&self) -> Option<IpNet> {
        IpNet::new(self.peer.unwrap_or(self.addr), self.prefix_len).ok().map(|n| n.trunc())
    }

    /// May the address be used as a source?
    pub fn usable(&self) -> bool {
        !self.tentative && !self.duplicate
    }
}

/// State of neighbour unreachability detection (`NUD_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighborState {
    /// New, without a state.
    None,
    /// Being resolved.
    Incomplete,
    /// Confirmed a short time ago.
    Reachable,
    /// Not confirmed for a while; usable.
    Stale,
    /// In use again; probed soon.
    Delay,
    /// Being probed.
    Probe,
    /// Resolution ended without an answer.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by an administrator.
    Permanent,
    /// Another state, by its number.
    Other(u16),
}

impl From<u16> for NeighborState {
    fn from(v: u16) -> NeighborState {
        match v {
            0x00 => NeighborState::None,
            0x01 => NeighborState::Incomplete,
            0x02 => NeighborState::Reachable,
            0x04 => NeighborState::Stale,
            0x08 => NeighborState::Delay,
            0x10 => NeighborState::Probe,
            0x20 => NeighborState::Failed,
            0x40 => NeighborState::NoArp,
            0x80 => NeighborState::Permanent,
            v => NeighborState::Other(v),
        }
    }
}

impl fmt::Display for NeighborState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NeighborState::None => "none",
            NeighborState::Incomplete => "incomplete",
            NeighborState::Reachable => "reachable",
            NeighborState::Stale => "stale",
            NeighborState::Delay => "delay",
            NeighborState::Probe => "probe",
            NeighborState::Failed => "failed",
            NeighborState::NoArp => "noarp",
            NeighborState::Permanent => "permanent",
            NeighborState::Other(v) => return write!(f, "state-{v:#x}"),
        })
    }
}

/// An entry of the ARP or ND table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// The interface.
    pub ifindex: u32,
    /// The IP address.
    pub ip: IpAddr,
    /// The link-layer address, once resolved.
    pub mac: Option<MacAddr>,
    /// The state.
    pub state: NeighborState,
    /// IPv6: the neighbour says that it is a router.
    pub router: bool,
    /// Put there by a control plane (EVPN), not by ARP or ND.
    pub ext_learned: bool,
    /// The kernel itself keeps the entry resolved (`NTF_EXT_MANAGED`).
    pub managed: bool,
}

impl Neighbor {
    /// Can frames be sent to this neighbour now? (They need [`Neighbor::mac`] on Ethernet.)
    pub fn usable(&self) -> bool {
        matches!(
            self.state,
            NeighborState::Reachable
                | NeighborState::Stale
                | NeighborState::Delay
                | NeighborState::Probe
                | NeighborState::Permanent
                | NeighborState::NoArp
        )
    }

    /// Did resolution end without an answer?
    pub fn failed(&self) -> bool {
        self.state == NeighborState::Failed
    }
}
