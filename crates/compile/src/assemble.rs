//! The second half of compiling: from a gateway in the pipeline's terms to a snapshot and the records that it names.

use crate::nexthops::{NeighborLinks, NextHopNumbers, RouterUse};
use crate::plan::RecordPlan;
use crate::problem::Problem;
use crate::records::SharedRecords;
use crate::routing_tables::{RoutingTables, Way};
use sag_model::{Nanos, VrfNo};
use sag_pipeline::nat::{self, NatConfigError, NatState, POOLS};
use sag_pipeline::policy::AclSet;
use sag_pipeline::qos::{self, MeterNumbers};
use sag_pipeline::snapshot::{AddrSet, Ingress, Member, Options, Port, Route, Snapshot, Vrf};
use sag_pipeline::syn_cookie::SynCookies;
use sag_pipeline::tunnel::Tunnels;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A gateway in the pipeline's terms, before anything of it has a number.
#[derive(Debug)]
pub struct GatewaySpec {
    /// The policy epoch of the snapshot.
    pub epoch: u32,
    /// The monotonic clock.
    pub now: Nanos,
    /// By port number.
    pub ports: Vec<Port>,
    /// The gateway's own addresses, subnet broadcasts included, by VRF.
    pub local: BTreeMap<VrfNo, AddrSet>,
    /// Resolved neighbors.
    pub neighbors: NeighborLinks,
    /// Compiled ACLs.
    pub acl: AclSet,
    /// What is to be translated.
    pub nat: nat::NatSpec,
    /// What is to be metered.
    pub qos: qos::QosSpec,
    /// Tunnels with their numbers and their state.
    pub tunnels: Tunnels,
    /// Services that SYN cookies protect.
    pub syn_cookies: SynCookies,
    /// Timeouts and switches.
    pub options: Options,
}

/// What numbers and pools are taken: the state that a compiler carries from one compilation to the next, so that they stay the
/// same.
#[derive(Debug)]
pub struct Numbers {
    /// Of next hops.
    pub nexthops: NextHopNumbers,
    /// Of meters and their sets.
    pub meters: MeterNumbers,
    /// Port pools; read while compiling, never written.
    pub nat: Arc<NatState>,
}

impl Numbers {
    /// The numbers that are taken in these records.
    pub fn of(records: &SharedRecords) -> Numbers {
        Numbers {
            nexthops: records.nexthops.numbers(),
            meters: records.meters.numbers(),
            nat: records.nat.clone(),
        }
    }
}

/// Builds the snapshot of a gateway and plans the records that it names. Writes no shared memory.
pub fn assemble(
    spec: GatewaySpec,
    routes: &RoutingTables,
    numbers: &mut Numbers,
    problems: &mut Vec<Problem>,
) -> (Snapshot, RecordPlan) {
    numbers.nexthops.set_routers(routes.ways().flat_map(routers_of));
    let (nexthops, complete) = numbers.nexthops.plan(&spec.ports, &spec.neighbors, spec.now);
    if !complete {
        problems.push(Problem::TooManyNextHops);
    }
    let v4 = |(addr, port)| match addr {
        IpAddr::V4(addr) => Some((addr, port)),
        IpAddr::V6(_) => None,
    };
    let tunnel_ports = spec.tunnels.udp_ports().filter_map(v4).collect();
    let (nat, nat_pools, errors) = nat::NatSpec { tunnel_ports, ..spec.nat }.plan(&numbers.nat);
    problems.extend(errors.into_iter().map(nat_problem));
    let (qos, meters) = numbers.meters.plan(&spec.qos);
    if !meters.is_complete() {
        problems.push(Problem::TooFewMeters);
    }
    let mut snapshot = Snapshot {
        epoch: spec.epoch,
        ingress: Ingress::new(&spec.ports),
        ports: spec.ports,
        vrfs: vrfs(spec.local, routes),
        routes: routes.list(),
        neighbors: numbers.nexthops.table().clone(),
        routes_version: numbers.nexthops.table().routes(),
        source_checks: 0,
        nexthops: numbers.nexthops.records(),
        acl: spec.acl,
        nat: Arc::new(nat),
        qos: Arc::new(qos),
        syn_cookies: spec.syn_cookies,
        tunnels: spec.tunnels,
        options: spec.options,
    };
    snapshot.finish(routes.prefix_hashes());
    let link_mtus = link_mtus(&snapshot);
    (snapshot, RecordPlan { nexthops, nat_pools, meters, link_mtus })
}

/// The routing tables, with the addresses that are the gateway's own in them. There is always one of the default VRF.
fn vrfs(mut local: BTreeMap<VrfNo, AddrSet>, routes: &RoutingTables) -> Vec<Option<Vrf>> {
    let numbers: BTreeSet<VrfNo> =
        local.keys().copied().chain(routes.vrfs()).chain([VrfNo::DEFAULT]).collect();
    let mut out = Vec::new();
    for vrf in numbers {
        out.resize_with(vrf.index() + 1, || None);
        let (fib4, fib6) = routes.fibs(vrf);
        out[vrf.index()] = Some(Vrf { local: local.remove(&vrf).unwrap_or_default(), fib4, fib6 });
    }
    out
}

/// The next hops that a way names, in use or not.
pub(crate) fn routers_of(way: &Way) -> impl Iterator<Item = RouterUse> + '_ {
    let members = way.members();
    routers(members, members.len() > 1).chain(routers(&way.unused, false))
}

fn routers(members: &[Member], shared: bool) -> impl Iterator<Item = RouterUse> + '_ {
    let of = move |m: &Member| Some(RouterUse { key: (m.port, m.via?), mtu: m.mtu, shared });
    members.iter().filter(|m| m.tunnel.is_none()).filter_map(of)
}

/// What the gateway's own links on the paths of the tunnels carry. Tunnels without a path are left out.
fn link_mtus(snap: &Snapshot) -> Vec<(Arc<sag_pipeline::tunnel::TunnelState>, u16)> {
    let of_tunnel = |t: &sag_pipeline::tunnel::Tunnel| {
        let Some(Route::Via(members)) = snap.route(t.remote) else { return None };
        let carries = |m: &sag_pipeline::snapshot::Member| {
            let port = snap.port(m.port).filter(|_| m.tunnel.is_none())?;
            Some(if m.mtu != 0 { m.mtu.min(port.mtu) } else { port.mtu })
        };
        let mtu = members.iter().filter_map(carries).min()?;
        Some((t.state.clone(), mtu))
    };
    snap.tunnels.iter().filter_map(of_tunnel).collect()
}

fn nat_problem(error: NatConfigError) -> Problem {
    match error {
        NatConfigError::NoPool { addr } => Problem::NoNatPool { addr, limit: POOLS },
        NatConfigError::Behaviors { addr, by } => Problem::NatBehaviors { addr, by },
    }
}
