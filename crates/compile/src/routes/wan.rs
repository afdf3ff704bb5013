//! Several lines to the Internet: default routes by ports with a priority have it in place of their metric, and those of one
//! priority share what begins by the weights of their ports.

use super::candidates::{Candidates, Liveness, Rank};
use super::{RouteRow, RouteSource};
use sag_model::config::Config;
use sag_model::{PortIdx, VrfNo};
use sag_pipeline::snapshot::{Member, Route};
use sag_rtnl::{RouterPreference, Table};
use std::collections::BTreeMap;

/// A port's default routes of one table and family, in the order in which they are preferred.
type Place = (VrfNo, bool, Table, PortIdx);

/// Collects the default routes by ports with a priority.
pub(super) struct WanRoutes<'c> {
    config: &'c Config,
    found: BTreeMap<Place, Vec<(Rank, RouteRow)>>,
}

impl<'c> WanRoutes<'c> {
    pub fn new(config: &'c Config) -> WanRoutes<'c> {
        WanRoutes { config, found: BTreeMap::new() }
    }

    fn priority(&self, m: &Member) -> Option<u32> {
        let port = self.config.ports.get(m.port.index()).filter(|_| m.tunnel.is_none())?;
        port.priority.and_then(|p| u32::try_from(p).ok())
    }

    /// Takes what of a route its ports give a place to; what is left of it is for the other candidates.
    pub fn take(&mut self, rank: Rank, mut row: RouteRow) -> Option<RouteRow> {
        if row.dst.prefix_len() != 0 {
            return Some(row);
        }
        let Route::Via(members) = &mut row.route else { return Some(row) };
        let members = std::mem::take(members);
        let (used, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|m| self.priority(m).is_some());
        // Next hops of one route that are worse than its others come last by themselves.
        let (failed, unused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut row.unused).into_iter().partition(|m| self.priority(m).is_some());
        (row.route, row.unused) = (Route::Via(others), unused);
        let taken = !used.is_empty();
        for (rank, members) in [(rank, used), (Rank { liveness: Liveness::Failed, ..rank }, failed)] {
            let mut by_port: BTreeMap<PortIdx, Vec<Member>> = BTreeMap::new();
            for m in members {
                by_port.entry(m.port).or_default().push(m);
            }
            for (port, members) in by_port {
                let place = (row.vrf, row.dst.addr().is_ipv6(), rank.table, port);
                let (route, foreign, unused) = (Route::Via(members), Vec::new(), Vec::new());
                let part = RouteRow { route, foreign, unused, ..row.clone() };
                self.found.entry(place).or_default().push((rank, part));
            }
        }
        let is_left = !matches!(&row.route, Route::Via(others) if taken && others.is_empty());
        is_left.then_some(row)
    }

    /// Offers them: of each port the one that is preferred, those of equal priority together.
    pub fn offer(self, candidates: &mut BTreeMap<VrfNo, Candidates<'_>>) {
        let mut together: BTreeMap<(VrfNo, bool, Table, Liveness, u32), RouteRow> = BTreeMap::new();
        let config = self.config;
        for ((vrf, v6, table, port), mut of_port) in self.found {
            of_port.sort_by_key(|(rank, _)| *rank);
            let mut of_port = of_port.into_iter();
            let (Some((rank, mut row)), Some(port)) = (of_port.next(), config.ports.get(port.index())) else {
                continue;
            };
            let priority = port.priority.and_then(|p| u32::try_from(p).ok()).unwrap_or(rank.metric);
            row.metric = priority;
            if let Route::Via(members) = &mut row.route {
                for m in members {
                    m.weight = m.weight.max(1).saturating_mul(port.weight);
                }
            }
            row.unused.extend(of_port.flat_map(|(_, loser)| loser.take_members()));
            match together.entry((vrf, v6, table, rank.liveness, priority)) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(row);
                }
                std::collections::btree_map::Entry::Occupied(mut place) => {
                    let first = place.get_mut();
                    first.unused.append(&mut row.unused);
                    if let (Route::Via(members), Route::Via(more)) = (&mut first.route, row.route) {
                        members.extend(more);
                    }
                }
            }
        }
        for ((vrf, _, table, liveness, metric), row) in together {
            let (preference, source) = (RouterPreference::High, RouteSource::Config);
            let rank = Rank { liveness, table, metric, preference, source };
            candidates.entry(vrf).or_default().offer(rank, row);
        }
    }
}
