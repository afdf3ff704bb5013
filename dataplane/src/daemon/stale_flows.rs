//! Which flows a change of the kernel's routes concerns.

use ipnet::IpNet;
use sag_compile::RouteRow;
use sag_model::{PortIdx, VrfNo};
use sag_pipeline::snapshot::Route;
use sag_rtnl::{Changes, Table};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// More changed prefixes than these concern all flows.
const MAX_PREFIXES: usize = 256;

/// Flows that must look their route up again: those over these next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleFlows {
    All,
    Gateway(PortIdx, IpAddr),
    OnLink(PortIdx, IpNet),
}

impl StaleFlows {
    pub fn covers(&self, port: PortIdx, ip: IpAddr) -> bool {
        match self {
            StaleFlows::All => true,
            StaleFlows::Gateway(p, via) => *p == port && *via == ip,
            StaleFlows::OnLink(p, net) => *p == port && net.contains(&ip),
        }
    }
}

/// The flows that a change concerns: those over the next hops that the changed prefixes had until now.
pub fn stale_flows(changes: &Changes, routes: &[RouteRow]) -> Vec<StaleFlows> {
    if !changes.routes && !changes.links && !changes.addrs {
        return Vec::new();
    }
    if changes.resynced || changes.links || changes.prefixes.len() > MAX_PREFIXES {
        return vec![StaleFlows::All];
    }
    let mut out = Vec::new();
    for prefix in &changes.prefixes {
        // A route of the kernel's is of the VRF of its port, whichever that was until now.
        let mut longest: BTreeMap<VrfNo, &RouteRow> = BTreeMap::new();
        for r in routes.iter().filter(|r| r.dst.contains(prefix)) {
            let known = longest.entry(r.vrf).or_insert(r);
            if r.dst.prefix_len() >= known.dst.prefix_len() {
                *known = r;
            }
        }
        // What table `main` says hides longer prefixes of table `default`, which is asked afterwards.
        let later = routes.iter().filter(|r| r.table == Table::Default && prefix.contains(&r.dst));
        for row in longest.into_values().chain(later) {
            let used = if let Route::Via(members) = &row.route { members.as_slice() } else { &[] };
            // Answers may go by ways that are not in use.
            out.extend(used.iter().chain(&row.unused).map(|m| match m.via {
                _ if m.tunnel.is_some() => StaleFlows::All,
                Some(via) => StaleFlows::Gateway(m.port, via),
                None => StaleFlows::OnLink(m.port, *prefix),
            }));
        }
    }
    out
}
