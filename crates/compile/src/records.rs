//! The memory that a snapshot refers to and that workers share: with XDP in the daemon, private elsewhere.

use crate::nexthops::NextHopTable;
use crate::plan::RecordPlan;
use sag_model::Nanos;
use sag_pipeline::nat::NatState;
use sag_pipeline::qos::MeterTable;
use std::sync::Arc;

/// The shared records that plans write.
#[derive(Debug)]
pub struct SharedRecords {
    /// Next hops.
    pub nexthops: NextHopTable,
    /// Port pools and bindings.
    pub nat: Arc<NatState>,
    /// Meters.
    pub meters: MeterTable,
}

impl SharedRecords {
    /// Private memory for a replay or a test, with room for NAT bindings of so many sessions.
    pub fn private(sessions: u32) -> SharedRecords {
        SharedRecords {
            nexthops: NextHopTable::private(usize::from(u16::MAX)),
            nat: Arc::new(NatState::private(sessions)),
            meters: MeterTable::private(),
        }
    }

    /// Writes all records of a plan. Afterwards the plan's snapshot may be used. `now` is the monotonic clock; new meters have been
    /// idle until then.
    ///
    /// The daemon takes the same steps one by one, with those of XDP between them.
    pub fn apply(&mut self, plan: &RecordPlan, now: Nanos) {
        self.nexthops.apply(&plan.nexthops);
        self.nat.apply(&plan.nat_pools);
        self.meters.apply(&plan.meters, now);
        plan.apply_link_mtus();
    }
}

impl RecordPlan {
    /// Writes the link MTUs into the states of the tunnels.
    pub fn apply_link_mtus(&self) {
        for (state, mtu) in &self.link_mtus {
            state.set_link_mtu(*mtu);
        }
    }
}
