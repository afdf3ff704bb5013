//! The result of a compilation.

use crate::nexthops::NextHopPlan;
use crate::ports::PortBinding;
use crate::routes::RouteRow;
use sag_model::config;
use sag_pipeline::nat::PoolPlan;
use sag_pipeline::qos::MeterPlan;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::tunnel::{TunnelNo, TunnelState};
use sag_tunnel::keys::Lifetime;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A compiled configuration. Nothing of it is in force until it is published.
#[derive(Debug)]
pub struct Plan {
    /// What workers forward by.
    pub snapshot: Snapshot,
    /// The contents of the shared records that the snapshot names.
    pub records: RecordPlan,
    /// The ports and the interfaces of the kernel behind them, by port number.
    pub bindings: Vec<PortBinding>,
    /// The winning route of each prefix, ordered by prefix.
    pub routes: Vec<RouteRow>,
    /// The tunnels whose keys are installed before a snapshot names them.
    pub esp: EspPlan,
    /// What the configuration asks for and cannot have.
    pub problems: Vec<Problem>,
}

/// The contents of shared records: next hops, port pools, meters, tunnels.
#[derive(Debug)]
pub struct RecordPlan {
    /// The records of all next hops that have a number.
    pub nexthops: NextHopPlan,
    /// The port pools of the NAT policy.
    pub nat_pools: PoolPlan,
    /// The meters of the QoS policy.
    pub meters: MeterPlan,
    /// For each tunnel the MTU in bytes of the link by which its outer packets leave.
    pub link_mtus: Vec<(Arc<TunnelState>, u16)>,
}

/// The tunnels of a configuration as far as keys are concerned.
#[derive(Debug, Clone, Default)]
pub struct EspPlan {
    /// How long a key by agreement is in use.
    pub lifetime: Lifetime,
    /// Every enforced tunnel and its number. Tunnels of other kinds than ESP are among them.
    pub tunnels: Vec<(TunnelNo, config::Tunnel)>,
}

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
