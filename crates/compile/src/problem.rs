//! What a configuration asks for and cannot have.

use std::net::Ipv4Addr;

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
    /// More next hops than records for them.
    #[error("more next hops than the table has numbers for: some stay unresolved")]
    TooManyNextHops,
}

impl Problem {
    /// Whether something of the configuration is not in force. The others are in force in part.
    pub fn is_error(&self) -> bool {
        !matches!(self, Problem::NatBehaviors { .. })
    }
}
