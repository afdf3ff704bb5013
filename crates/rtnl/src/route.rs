//! Routes and nexthop objects as the mirror shows them.

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

/// The protocol number of addresses and routes that the gateway takes from its configuration (`/etc/iproute2/rt_protos`
/// leaves it free).
pub const PROTOCOL_CONFIG: u8 = 0x5B;

/// A routing table. First those that the kernel consults under its default rules, in the order of these rules. Of others
/// (VRFs, policy routing) the mirror has those that it is to follow ([`crate::Mirror::follow_tables`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// The table of local and broadcast addresses.
    Local,
    /// The table of ordinary routes.
    Main,
    /// The table consulted last; usually empty.
    Default,
    /// Another one, by its number.
    Other(u32),
}

impl Table {
    /// The table of a number.
    pub const fn from_id(id: u32) -> Table {
        match id {
            255 => Table::Local,
            254 => Table::Main,
            253 => Table::Default,
            other => Table::Other(other),
        }
    }
}

/// What is done with a packet that matches the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Sent on by one of the nexthops.
    Unicast,
    /// An address of this machine.
    Local,
    /// A broadcast address.
    Broadcast,
    /// An IPv6 anycast address of this machine.
    Anycast,
    /// A multicast route.
    Multicast,
    /// Dropped silently.
    Blackhole,
    /// Dropped, answered with "host unreachable" (IPv4) or "no route" (IPv6).
    Unreachable,
    /// Dropped, answered with "administratively prohibited".
    Prohibit,
    /// The lookup goes on in the next table.
    Throw,
    /// Another kind, by its number.
    Other(u8),
}

impl From<u8> for RouteKind {
    fn from(v: u8) -> RouteKind {
        match v {
            1 => RouteKind::Unicast,
            2 => RouteKind::Local,
            3 => RouteKind::Broadcast,
            4 => RouteKind::Anycast,
            5 => RouteKind::Multicast,
            6 => RouteKind::Blackhole,
            7 => RouteKind::Unreachable,
            8 => RouteKind::Prohibit,
            9 => RouteKind::Throw,
            v => RouteKind::Other(v),
        }
    }
}

impl RouteKind {
    /// Routes without a nexthop; the device that IPv6 reports for them means nothing.
    pub const fn is_reject(self) -> bool {
        matches!(self, RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw)
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RouteKind::Unicast => "unicast",
            RouteKind::Local => "local",
            RouteKind::Broadcast => "broadcast",
            RouteKind::Anycast => "anycast",
            RouteKind::Multicast => "multicast",
            RouteKind::Blackhole => "blackhole",
            RouteKind::Unreachable => "unreachable",
            RouteKind::Prohibit => "prohibit",
            RouteKind::Throw => "throw",
            RouteKind::Other(v) => return write!(f, "kind-{v}"),
        })
    }
}

/// Who installed a route (`/etc/iproute2/rt_protos`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// The usual name, None for numbers without one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "unspec",
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static",
            8 => "gated",
            9 => "ra",
            10 => "mrt",
            11 => "zebra",
            12 => "bird",
            13 => "dnrouted",
            14 => "xorp",
            15 => "ntk",
            16 => "dhcp",
            17 => "mrouted",
            18 => "keepalived",
            42 => "babel",
            84 => "ovn",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            190 => "ripng",
            191 => "nhrp",
            192 => "eigrp",
            // FRR's own numbers.
            193 => "ldp",
            194 => "sharp",
            195 => "pbr",
            196 => "zstatic",
            197 => "openfabric",
            198 => "srte",
            _ => return None,
        })
    }
}

impl fmt::Display for RouteProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// What a router says of itself as a default router, or of its route (RFC 4191 2.1). The order is that in which the kernel
/// prefers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum RouterPreference {
    /// Before all others.
    High,
    /// What routes have of which nothing is said.
    #[default]
    Medium,
    /// After all others.
    Low,
}

/// One nexthop of a route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexthop {
    /// The interface.
    pub ifindex: u32,
    /// None: the destination itself is on the link. May be IPv6 for an IPv4 route.
    pub gateway: Option<IpAddr>,
    /// Share of the flows among the nexthops, from 1.
    pub weight: u16,
    /// The kernel does not use it: its interface is down.
    pub dead: bool,
    /// Its interface has no carrier.
    pub linkdown: bool,
    /// The gateway counts as on the link whatever the addresses say.
    pub onlink: bool,
    /// A lightweight tunnel (MPLS, SRv6, ip) wraps the packet: only the kernel can send it.
    pub encap: bool,
}

impl Nexthop {
    /// The same nexthop, whatever state it is in?
    pub(crate) fn same_leg(&self, other: &Nexthop) -> bool {
        self.ifindex == other.ifindex && self.gateway == other.gateway
    }
}

/// A route of one of the [`Table`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// All else.
    pub attributes: RouteAttributes,
}

/// A route but for its destination: what many routes of a large table have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteAttributes {
    /// The route holds for packets from this network only (IPv6).
    pub from: Option<IpNet>,
    /// The routing table.
    pub table: Table,
    /// The route holds for packets of this type of service only, unless 0 (IPv4).
    pub tos: u8,
    /// The metric; lower wins.
    pub priority: u32,
    /// Among IPv6 routes of one metric the preferred router wins (RFC 4191).
    pub preference: RouterPreference,
    /// Where `nexthop_id` is set, [`crate::Tables::kind_of`] has the effective kind.
    pub kind: RouteKind,
    /// Who installed the route.
    pub protocol: RouteProtocol,
    /// Source address for packets of this machine.
    pub prefsrc: Option<IpAddr>,
    /// The nexthops as the route names them. Where `nexthop_id` is set, the object's are used:
    /// see [`crate::Tables::nexthops_of`].
    pub nexthops: Vec<Nexthop>,
    /// The nexthop object that the route uses.
    pub nexthop_id: Option<u32>,
    /// The route's own MTU metric.
    pub mtu: Option<u32>,
}

impl Deref for Route {
    type Target = RouteAttributes;

    fn deref(&self) -> &RouteAttributes {
        &self.attributes
    }
}

impl DerefMut for Route {
    fn deref_mut(&mut self) -> &mut RouteAttributes {
        &mut self.attributes
    }
}

/// A route as [`crate::Tables`] have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRef<'t> {
    /// The destination.
    pub dst: IpNet,
    /// All else.
    pub attributes: &'t RouteAttributes,
}

impl Deref for RouteRef<'_> {
    type Target = RouteAttributes;

    fn deref(&self) -> &RouteAttributes {
        self.attributes
    }
}

impl Route {
    pub(crate) fn key(&self) -> RouteKey {
        RouteKey { dst: self.dst, class: self.class(), nth: 0 }
    }
}

impl RouteAttributes {
    pub(crate) fn class(&self) -> RouteClass {
        RouteClass { from: self.from, table: self.table, tos: self.tos, priority: self.priority }
    }

    /// Whether the route leads to the machine itself.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.kind, RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast)
    }

    /// The same route with its nexthops in another state?
    pub(crate) fn same_path(&self, other: &RouteAttributes) -> bool {
        self.kind == other.kind
            && self.nexthop_id == other.nexthop_id
            && self.nexthops.len() == other.nexthops.len()
            && self.nexthops.iter().zip(&other.nexthops).all(|(a, b)| a.same_leg(b) && a.weight == b.weight)
    }

    /// Two reports about one IPv6 route? Its nexthops come and go one by one, while routes through
    /// bare devices stand side by side under one key (`fe80::/64` of every interface).
    pub(crate) fn same_siblings(&self, other: &RouteAttributes) -> bool {
        if self.nexthop_id.is_some() || other.nexthop_id.is_some() {
            return self.nexthop_id == other.nexthop_id;
        }
        if self.nexthops.is_empty() || other.nexthops.is_empty() {
            return self.kind == other.kind && self.nexthops.is_empty() && other.nexthops.is_empty();
        }
        self.nexthops.iter().any(|a| other.nexthops.iter().any(|b| a.same_leg(b)))
    }
}

/// Which routes to a destination the kernel takes first: the order of the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteClass {
    pub from: Option<IpNet>,
    pub table: Table,
    pub tos: u8,
    pub priority: u32,
}

/// What the kernel tells routes apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RouteKey {
    pub dst: IpNet,
    pub class: RouteClass,
    /// The kernel allows several routes that agree in all of the above.
    pub nth: usize,
}

/// A nexthop object (`ip nexthop`), which routes refer to by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NexthopObject {
    /// The number of the object.
    pub id: u32,
    /// What it stands for.
    pub target: NexthopTarget,
}

/// What a nexthop object stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NexthopTarget {
    /// One nexthop.
    Single(Nexthop),
    /// Other objects with their weights.
    Group(Vec<(u32, u16)>),
    /// Packets are dropped.
    Blackhole,
    /// An entry for bridge forwarding (`fdb`): no route can use it.
    Bridge,
}
