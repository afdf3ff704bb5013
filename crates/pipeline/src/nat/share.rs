//! What one inside host may have of an external address' ports.

use super::{InsideHost, Limits, NatProtocol, NatState, Pool};
use crate::table::over_share;
use std::sync::atomic::Ordering;

impl NatState {
    /// Whether an inside host has its share of a pool's ports, of which few are left.
    pub(super) fn has_port_share(
        &self,
        pool: &Pool,
        limits: &Limits,
        protocol: NatProtocol,
        host: InsideHost,
    ) -> bool {
        let used = u64::from(pool.uses[protocol as usize].used.load(Ordering::Relaxed));
        let (all, percent) = (limits.capacity(protocol), u64::from(limits.host_share));
        let free = all.saturating_sub(used);
        // While so many are free nobody can have too many.
        free * 100 < all * 100u64.saturating_sub(percent) && {
            let held = self.ports.get(port_key(pool, protocol, host)).sessions;
            over_share(held, free as u32, limits.host_share)
        }
    }
}

/// A host's ports are counted for each pool and protocol.
pub(super) fn port_key(pool: &Pool, protocol: NatProtocol, host: InsideHost) -> u64 {
    host.word() | u64::from(pool.no) << 40 | (protocol as u64) << 48
}
