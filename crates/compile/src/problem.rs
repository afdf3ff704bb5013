//! What a configuration asks for and cannot have.

use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Something that the configuration asks for and that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Problem {
    /// All port pools are in use by other addresses.
    #[error(
        "no port pool is left for the NAT address {addr} (there are {limit}): it is not translated; use fewer addresses"
    )]
    NoNatPool {
        /// The external address.
        addr: Ipv4Addr,
        /// Number of pools.
        limit: usize,
    },
    /// A port forward to the gateway itself.
    #[error(
        "dnat {id}: {addr} is an address of the gateway itself, and its answers would not be translated: the entry is left \
         out; have the service listen on the external address, or forward to a host in the branch"
    )]
    DnatToSelf {
        /// The entry.
        id: String,
        /// Its inside address.
        addr: Ipv4Addr,
    },
    /// Two entries ask for different behaviours of one address.
    #[error(
        "two entries translate to {addr} with different mapping or filtering: those of the first one, {by}, are in force"
    )]
    NatBehaviors {
        /// The external address.
        addr: Ipv4Addr,
        /// Id of the entry whose behaviour is in force.
        by: String,
    },
    /// More rates than meters.
    #[error("there are more CARs and links than meters: some traffic is not metered")]
    TooFewMeters,
    /// More tunnels than numbers for them.
    #[error("more tunnels than there are numbers for: {name} is left out")]
    TooManyTunnels {
        /// The tunnel that is not enforced.
        name: String,
    },
    /// A rule with addresses of both IP versions. Validation refuses these.
    #[error("{rule} mixes address families: left out")]
    MixedFamilies {
        /// The ACL rule or QoS policy.
        rule: String,
    },
    /// More routes from others than the gateway looks up.
    #[error(
        "more than {limit} routes of a family are learned: the others are left out, and packets to them go by less specific \
         routes; have the routing daemon take fewer (maximum-prefix)"
    )]
    TooManyRoutes {
        /// Learned routes of a family.
        limit: usize,
    },
    /// The next hop of a `[[route]]` is behind no port.
    #[error(
        "no network of a port holds the next hop {next_hop} of the route to {destination}, and no route but the default one \
         leads to it by a port: the route is left out; give it a port"
    )]
    NextHopNotFound {
        /// The destination of the route.
        destination: IpNet,
        /// Its next hop.
        next_hop: IpAddr,
    },
    /// Routes of the kernel by which the gateway does not forward.
    #[error("the kernel has routes {kind}, that to {example} for one")]
    UnusedRoutes {
        /// What is the matter with them.
        kind: UnusedRoute,
        /// The destination of one of them.
        example: IpNet,
    },
    /// The kernel and the configuration have a port in different VRFs.
    #[error(
        "the kernel has port {port} in its VRF {device} with table {table}, which is not the table of {}: the gateway does not \
         forward by the routes of that table; give the port the VRF with that table, or the other way round",
        .vrf.as_ref().map_or_else(|| "the default VRF".to_owned(), |name| format!("VRF {name}"))
    )]
    KernelVrf {
        /// Name of the port.
        port: String,
        /// The kernel's VRF device.
        device: String,
        /// Its table.
        table: u32,
        /// VRF of the port in the configuration.
        vrf: Option<String>,
    },
    /// More next hops than records for them.
    #[error("more next hops than the table has numbers for: some stay unresolved")]
    TooManyNextHops,
}

impl Problem {
    /// Whether something of the configuration is not in force. The others are in force in part.
    pub fn is_error(&self) -> bool {
        !matches!(
            self,
            Problem::NatBehaviors { .. } | Problem::UnusedRoutes { .. } | Problem::KernelVrf { .. }
        )
    }
}

/// Why the gateway does not forward by a route of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnusedRoute {
    /// It holds for a type of service.
    TypeOfService,
    /// It holds for some sources.
    Source,
    /// Only the kernel can wrap packets as it says.
    Encapsulation,
}

impl fmt::Display for UnusedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnusedRoute::TypeOfService => "for one type of service (tos), which are passed over",
            UnusedRoute::Source => "for some sources only (from), which are passed over",
            UnusedRoute::Encapsulation => {
                "that encapsulate (encap), whose packets are dropped as egress-not-ours; use a [[tunnel]]"
            }
        })
    }
}
