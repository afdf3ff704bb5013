//! Neighbours that stay resolved: the list, and when to repeat the request for each.

use crate::tables::Tables;
use crate::types::NeighborState;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After the kernel dropped an entry (its link went down and came back).
const WHEN_MISSING: Duration = Duration::from_millis(200);
/// Kernels that do not manage entries: one of them ages in half a minute, and a check takes five
/// seconds to start.
const WHEN_UNMANAGED: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Managed {
    /// When each was last requested.
    requested: BTreeMap<(u32, IpAddr), Instant>,
}

impl Managed {
    pub fn insert(&mut self, ifindex: u32, ip: IpAddr, now: Instant) {
        self.requested.insert((ifindex, ip), now);
    }

    pub fn remove(&mut self, ifindex: u32, ip: IpAddr) -> bool {
        self.requested.remove(&(ifindex, ip)).is_some()
    }

    pub fn all(&self) -> impl Iterator<Item = (u32, IpAddr)> + '_ {
        self.requested.keys().copied()
    }

    pub fn contains(&self, ifindex: u32, ip: IpAddr) -> bool {
        self.requested.contains_key(&(ifindex, ip))
    }

    /// The neighbours to request now; they count as requested.
    pub fn due(&mut self, tables: &Tables, now: Instant) -> Vec<(u32, IpAddr)> {
        let mut due = Vec::new();
        for (&(ifindex, ip), requested) in &mut self.requested {
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
            if now.saturating_duration_since(*requested) >= wait {
                *requested = now;
                due.push((ifindex, ip));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Link, Neighbor};

    fn link(running: bool) -> Link {
        Link { running, ..Link::new(7, "a0") }
    }

    fn neighbor(ip: IpAddr, state: NeighborState, managed: bool) -> Neighbor {
        Neighbor { ifindex: 7, ip, mac: None, state, router: false, ext_learned: false, managed }
    }

    /// A kernel before 5.16 ignores the flag to manage the entry.
    #[test]
    fn requests_again_where_the_kernel_does_not_manage() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut managed = Managed::default();
        let mut tables = Tables::default();
        managed.insert(7, ip, start);
        assert!(managed.due(&tables, at(100)).is_empty(), "no such link");
        tables.insert_link(link(false));
        assert!(managed.due(&tables, at(100)).is_empty(), "no carrier");
        tables.insert_link(link(true));
        assert_eq!(managed.due(&tables, at(100)), [(7, ip)], "entry missing");
        assert!(managed.due(&tables, at(100)).is_empty(), "just requested");
        assert_eq!(managed.due(&tables, at(101)).len(), 1, "still missing");
        for (state, expected) in [
            (NeighborState::Reachable, 0),
            (NeighborState::Incomplete, 0),
            (NeighborState::Permanent, 0),
            (NeighborState::Stale, 1),
            (NeighborState::Failed, 1),
        ] {
            let mut managed = Managed::default();
            managed.insert(7, ip, start);
            tables.insert_neighbor(neighbor(ip, state, false));
            assert!(managed.due(&tables, at(4)).is_empty());
            assert_eq!(managed.due(&tables, at(5)).len(), expected, "{state}");
            tables.insert_neighbor(neighbor(ip, state, true));
            assert!(managed.due(&tables, at(60)).is_empty(), "{state}, managed by the kernel");
        }
        assert!(managed.remove(7, ip) && !managed.remove(7, ip));
    }
}
