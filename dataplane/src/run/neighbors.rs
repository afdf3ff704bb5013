//! Next hops: the kernel's part in finding neighbours, and the flows that look their route up again.

use super::Daemon;
use crate::compile::RouteRow;
use ipnet::IpNet;
use sag_model::PortIdx;
use sag_pipeline::snapshot::Route;
use sag_rtnl::{Changes, NeighborState};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Flows that must look their route up again: those over these next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    All,
    Gateway(PortIdx, IpAddr),
    OnLink(PortIdx, IpNet),
}

impl Stale {
    pub fn covers(&self, port: PortIdx, ip: IpAddr) -> bool {
        match self {
            Stale::All => true,
            Stale::Gateway(p, via) => *p == port && *via == ip,
            Stale::OnLink(p, net) => *p == port && net.contains(&ip),
        }
    }
}

impl Daemon {
    /// Which flows a change of routes concerns: those over the ways out that the changed prefixes
    /// had until now.
    pub(super) fn flows_to_resolve(&self, changes: &Changes) -> Vec<Stale> {
        if !changes.routes && !changes.links && !changes.addrs {
            return Vec::new();
        }
        if changes.resynced || changes.links || changes.prefixes.len() > 256 {
            return vec![Stale::All];
        }
        let mut out = Vec::new();
        for prefix in &changes.prefixes {
            let covering = |r: &&RouteRow| r.dst.contains(prefix);
            let Some(row) = self.routes.iter().filter(covering).max_by_key(|r| r.dst.prefix_len()) else {
                continue;
            };
            if let Route::Via(members) = &row.route {
                out.extend(members.iter().map(|m| match m.via {
                    _ if m.tunnel != 0 => Stale::All,
                    Some(via) => Stale::Gateway(m.port, via),
                    None => Stale::OnLink(m.port, *prefix),
                }));
            }
        }
        out
    }

    /// Asks the kernel for next hops that workers wait for.
    pub(super) fn resolve(&mut self, wanted: &[(PortIdx, IpAddr)]) {
        let mut new = false;
        let routers: BTreeSet<(PortIdx, IpAddr)> = self
            .routes
            .iter()
            .filter_map(|r| match &r.route {
                Route::Via(members) => Some(members.iter().filter_map(|m| Some((m.port, m.via?)))),
                _ => None,
            })
            .flatten()
            .collect();
        for &(port, ip) in wanted {
            let known = self.compiler.nexthops.map().contains_key(&(port, ip));
            if !known && self.compiler.nexthops.number(port, ip).is_none() {
                tracing::error!("more next hops than the table has numbers for");
                continue;
            }
            new |= !known;
            let l3 = self.bindings.get(port.index()).and_then(|b| b.l3_ifindex);
            let Some(ifindex) = l3 else { continue };
            // Routers are kept resolved by the kernel; hosts are asked for when there is traffic.
            let router = routers.contains(&(port, ip));
            let asked =
                if router { self.mirror.manage(ifindex, ip) } else { self.mirror.resolve(ifindex, ip) };
            if let Err(error) = asked {
                tracing::debug!(%error, "the kernel would not resolve a neighbour");
            }
        }
        if new {
            self.recompile(self.epoch);
        }
    }

    /// XDP traffic does not pass the kernel's neighbour code, so nothing confirms its entries: ask
    /// for those in use that have gone stale.
    pub(super) fn probe_neighbors(&mut self) {
        let of_port: BTreeMap<u32, PortIdx> =
            self.bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
        let stale: Vec<(u32, IpAddr)> = self
            .mirror
            .tables()
            .neighbors()
            .filter(|n| n.state == NeighborState::Stale)
            .filter(|n| {
                of_port
                    .get(&n.ifindex)
                    .is_some_and(|p| self.compiler.nexthops.map().contains_key(&(*p, n.ip)))
            })
            .map(|n| (n.ifindex, n.ip))
            .take(512)
            .collect();
        for (ifindex, ip) in stale {
            if let Err(error) = self.mirror.resolve(ifindex, ip) {
                tracing::debug!(%error, "the kernel would not probe a neighbour");
            }
        }
    }
}
