//! Neighbours that shall stay resolved: a list, and when to ask the kernel for each again.

use crate::tables::Tables;
use crate::types::NeighborState;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After the kernel dropped an entry (its link went down and came back).
const WHEN_MISSING: Duration = Duration::from_secs(1);
/// Kernels that do not manage entries: one of them ages in half a minute, and a check takes five
/// seconds to start.
const WHEN_UNMANAGED: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Managed {
    /// When the kernel was last asked.
    asked: BTreeMap<(u32, IpAddr), Instant>,
}

impl Managed {
    pub fn insert(&mut self, ifindex: u32, ip: IpAddr, now: Instant) {
        self.asked.insert((ifindex, ip), now);
    }

    pub fn remove(&mut self, ifindex: u32, ip: IpAddr) -> bool {
        self.asked.remove(&(ifindex, ip)).is_some()
    }

    pub fn contains(&self, ifindex: u32, ip: IpAddr) -> bool {
        self.asked.contains_key(&(ifindex, ip))
    }

    /// The neighbours to ask for now; they count as asked.
    pub fn due(&mut self, tables: &Tables, now: Instant) -> Vec<(u32, IpAddr)> {
        let mut due = Vec::new();
        for (&(ifindex, ip), asked) in &mut self.asked {
            if !tables.link(ifindex).is_some_and(|l| l.running) {
                continue;
            }
            let wait = match tables.neighbor(ifindex, ip) {
                None => WHEN_MISSING,
                Some(n) if n.managed => continue,
                Some(n) => match n.state {
                    NeighborState::None | NeighborState::Stale | NeighborState::Failed => WHEN_UNMANAGED,
                    _ => continue,
                },
            };
            if now.saturating_duration_since(*asked) >= wait {
                *asked = now;
                due.push((ifindex, ip));
            }
        }
        due
    }
}
