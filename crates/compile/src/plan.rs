//! The result of a compilation.

use crate::nexthops::NextHopPlan;
use crate::ports::PortBinding;
use crate::problem::Problem;
use crate::tunnels::EspPlan;
use sag_pipeline::nat::PoolPlan;
use sag_pipeline::qos::MeterPlan;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::tunnel::TunnelState;
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
    /// All routes of the kernel were looked at.
    pub all_routes: bool,
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
