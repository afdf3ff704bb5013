//! Which flows a change of the kernel's routes concerns.

use ipnet::IpNet;
use sag_compile::{Rerouted, RoutingTables};
use sag_model::PortIdx;
use sag_pipeline::snapshot::Member;
use sag_rtnl::{Changes, Table};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// More changed prefixes or next hops than these concern all flows.
const MAX_PREFIXES: usize = 256;

/// Flows that must look their route up again: those over these next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
pub fn stale_flows(changes: &Changes, routes: &RoutingTables) -> Vec<StaleFlows> {
    if !changes.routes && !changes.links && !changes.addrs {
        return Vec::new();
    }
    if changes.resynced || changes.links {
        return vec![StaleFlows::All];
    }
    of_prefixes(&changes.prefixes, routes)
}

/// The flows over the next hops that these prefixes have.
pub fn of_prefixes(prefixes: &[IpNet], routes: &RoutingTables) -> Vec<StaleFlows> {
    if prefixes.len() > MAX_PREFIXES {
        return vec![StaleFlows::All];
    }
    let mut out = BTreeSet::new();
    for prefix in prefixes {
        // A route of the kernel's is of the VRF of its port, whichever that was until now.
        for (_, _, way) in routes.longest(*prefix) {
            // Answers may go by ways that are not in use.
            out.extend(way.members().iter().chain(&way.unused).map(|m| by_member(m, *prefix)));
        }
        // What table `main` says hides longer prefixes of table `default`, which is asked afterwards.
        if routes.is_layered(prefix.addr().is_ipv6()) {
            for (_, _, way) in routes.within(*prefix).filter(|(_, _, way)| way.table == Table::Default) {
                out.extend(way.members().iter().chain(&way.unused).map(|m| by_member(m, *prefix)));
            }
        }
    }
    out.into_iter().collect()
}

/// The flows to prefixes that go other ways than before.
pub fn of_rerouted(prefixes: &[Rerouted]) -> BTreeSet<StaleFlows> {
    let mut out = BTreeSet::new();
    for p in prefixes {
        out.extend(p.before.iter().map(|m| by_member(m, p.dst)));
        if out.len() > MAX_PREFIXES {
            return BTreeSet::from([StaleFlows::All]);
        }
    }
    out
}

fn by_member(m: &Member, prefix: IpNet) -> StaleFlows {
    match m.via {
        _ if m.tunnel.is_some() => StaleFlows::All,
        Some(via) => StaleFlows::Gateway(m.port, via),
        None => StaleFlows::OnLink(m.port, prefix),
    }
}
