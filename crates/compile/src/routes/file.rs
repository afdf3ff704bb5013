//! Routes of the configuration.

use super::candidates::{Candidates, Liveness, Rank};
use super::wan::WanRoutes;
use super::{RouteRow, RouteSource};
use crate::ports::PortBinding;
use crate::problem::Problem;
use crate::tunnels::TunnelCompiler;
use crate::vrfs::VrfNumbers;
use ipnet::IpNet;
use sag_model::config::{self, Config, RejectKind, RouteTarget, TunnelIdx};
use sag_model::{PortIdx, VrfNo};
use sag_pipeline::snapshot::{Member, Route};
use sag_rtnl::{RouterPreference, Table};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the file says of one VRF.
pub(super) struct OfVrf<'c> {
    pub config: &'c Config,
    pub bindings: &'c [PortBinding],
    pub tunnels: &'c TunnelCompiler,
    pub vrfs: &'c VrfNumbers,
    pub vrf: VrfNo,
}

impl OfVrf<'_> {
    fn has(&self, name: &Option<String>) -> bool {
        self.vrfs.number(name.as_deref()) == self.vrf
    }

    fn vrf(&self, row: RouteRow) -> RouteRow {
        RouteRow { vrf: self.vrf, ..row }
    }

    /// What the file says, among the kernel's routes, which are there already.
    pub fn offer(
        &self,
        candidates: &mut Candidates<'_>,
        lines: &mut WanRoutes<'_>,
        problems: &mut Vec<Problem>,
    ) {
        let OfVrf { config, bindings, tunnels, vrf, .. } = *self;
        // Of the default VRF the kernel's tables have the networks of the kernel's addresses.
        let networks: Vec<_> = match vrf.is_default() {
            true => connected(config, |p| self.has(&p.vrf)).collect(),
            false => bindings.iter().filter(|b| b.ours() && b.port.vrf == vrf).flat_map(attached).collect(),
        };
        let inside = connected_inside(config, tunnels, |t| self.has(&t.vrf));
        for row in networks.into_iter().chain(inside) {
            offer_row(candidates, lines, self.vrf(row), (bindings, tunnels));
        }
        let routes = || config.routes.iter().filter(|r| self.has(&r.vrf));
        let is_searched = |r: &&config::Route| matches!(r.target, RouteTarget::Via { port: None, .. });
        for r in routes().filter(|r| !is_searched(r)) {
            if candidates.has(&r.destination)
                && let Some(route) = target(config, r, tunnels)
            {
                offer_row(candidates, lines, self.vrf(row_of(r, route)), (bindings, tunnels));
            }
        }
        // Last those whose next hop may be behind one of the others. None is behind another one of its kind, whatever their
        // order.
        let searched = routes().filter(|r| is_searched(r) && candidates.decides(&r.destination));
        let found: Vec<_> = searched.map(|r| (r, search(candidates, (bindings, vrf), r))).collect();
        for (r, members) in found {
            if members.is_empty() {
                if let RouteTarget::Via { next_hop, .. } = r.target {
                    problems.push(Problem::NextHopNotFound { destination: r.destination, next_hop });
                }
                continue;
            }
            offer_row(candidates, lines, self.vrf(row_of(r, Route::Via(members))), (bindings, tunnels));
        }
    }
}

fn offer_row(
    candidates: &mut Candidates<'_>,
    lines: &mut WanRoutes<'_>,
    row: RouteRow,
    (bindings, tunnels): (&[PortBinding], &TunnelCompiler),
) {
    // A tunnel that is down is the last choice. Where there is no other, its packets are dropped: they never
    // leave in the clear.
    let (penalty, liveness) = match &row.route {
        Route::Via(members) => (
            members.iter().map(|m| m.tunnel.map_or(0, |no| tunnels.metric_penalty(no))).max().unwrap_or(0),
            members.iter().map(|m| liveness(bindings, m)).min().unwrap_or(Liveness::LinkDown),
        ),
        _ => (0, Liveness::Usable),
    };
    let rank = Rank {
        liveness,
        table: Table::Main,
        metric: row.metric.saturating_add(penalty),
        preference: RouterPreference::High,
        source: RouteSource::Config,
    };
    if let Some(row) = lines.take(rank, row) {
        candidates.offer(rank, row);
    }
}

fn liveness(bindings: &[PortBinding], m: &Member) -> Liveness {
    match bindings.get(m.port.index()).map(|b| &b.port) {
        _ if m.tunnel.is_some() => Liveness::Usable,
        Some(port) if port.up && port.failed => Liveness::Failed,
        Some(port) if port.up => Liveness::Usable,
        _ => Liveness::LinkDown,
    }
}

fn row_of(r: &config::Route, route: Route) -> RouteRow {
    RouteRow {
        vrf: VrfNo::DEFAULT,
        dst: r.destination,
        route,
        source: RouteSource::Config,
        table: Table::Main,
        protocol: "static".into(),
        metric: r.metric,
        foreign: Vec::new(),
        unused: Vec::new(),
    }
}

/// The networks of addresses that the file gives to ports.
fn connected<'c>(
    config: &'c Config,
    here: impl Fn(&config::Port) -> bool + 'c,
) -> impl Iterator<Item = RouteRow> + 'c {
    config.ports().filter(move |(_, p)| here(p)).flat_map(|(idx, p)| {
        let networks = p.addresses.iter().filter(move |_| p.zone().is_some());
        networks.map(move |net| network(net, Member::port(idx, None, 1)))
    })
}

/// The networks of all addresses that a port has.
pub(super) fn networks_of(b: &PortBinding) -> BTreeSet<IpNet> {
    let v4 = b.port.addrs4.iter().filter_map(|(a, len)| IpNet::new((*a).into(), *len).ok());
    let v6 = b.port.addrs6.iter().filter(|(a, _)| !a.is_unicast_link_local());
    let v6 = v6.filter_map(|(a, len)| IpNet::new((*a).into(), *len).ok());
    v4.chain(v6).map(|n| n.trunc()).collect()
}

fn attached(b: &PortBinding) -> impl Iterator<Item = RouteRow> + use<> {
    let port = b.idx;
    networks_of(b).into_iter().map(move |net| network(&net, Member::port(port, None, 1)))
}

/// The networks of addresses that the file gives to tunnels.
fn connected_inside<'c>(
    config: &'c Config,
    tunnels: &'c TunnelCompiler,
    here: impl Fn(&config::Tunnel) -> bool + 'c,
) -> impl Iterator<Item = RouteRow> + 'c {
    let number = |i: usize| tunnels.number(config, TunnelIdx(i as u16));
    let here = config.tunnels.iter().enumerate().filter(move |(_, t)| here(t));
    here.filter_map(move |(i, t)| Some((number(i)?, t))).flat_map(|(no, t)| {
        let has_network = |n: &&IpNet| n.prefix_len() < n.max_prefix_len();
        t.addresses.iter().filter(has_network).map(move |net| network(net, Member::tunnel(no, 1)))
    })
}

fn network(net: &IpNet, member: Member) -> RouteRow {
    RouteRow {
        vrf: VrfNo::DEFAULT,
        dst: net.trunc(),
        route: Route::Via(vec![member]),
        source: RouteSource::Config,
        table: Table::Main,
        protocol: "connected".into(),
        metric: 0,
        foreign: Vec::new(),
        unused: Vec::new(),
    }
}

/// What a route leads to; `None` if that is a tunnel without a number, which is a problem of its own, or has to be searched.
fn target(config: &Config, r: &config::Route, tunnels: &TunnelCompiler) -> Option<Route> {
    let via = |port, via| Route::Via(vec![Member::port(port, via, r.weight)]);
    Some(match r.target {
        RouteTarget::Via { next_hop, port } => via(port?, Some(next_hop)),
        RouteTarget::OnLink(port) => via(port, None),
        RouteTarget::Reject(RejectKind::Blackhole) => Route::Blackhole,
        RouteTarget::Reject(RejectKind::Unreachable) => Route::Unreachable,
        RouteTarget::Reject(RejectKind::Prohibit) => Route::Prohibit,
        RouteTarget::Tunnel(t) => Route::Via(vec![Member::tunnel(tunnels.number(config, t)?, r.weight)]),
    })
}

/// The ways to a next hop without a port: by the port whose network holds it, or by the routes to it, as far as they lead
/// out by ports. The default route is none of them.
fn search(
    candidates: &Candidates<'_>,
    (bindings, vrf): (&[PortBinding], VrfNo),
    r: &config::Route,
) -> Vec<Member> {
    let RouteTarget::Via { next_hop, .. } = r.target else { return Vec::new() };
    let members = match candidates.towards(next_hop).map(|row| &row.route) {
        Some(Route::Via(members)) => members.as_slice(),
        _ => &[],
    };
    // On the link by a route of its own (a host route) or of a network: nearer than what the addresses say.
    let on_link = members.iter().any(|m| m.via.is_none());
    if let (false, Some(port)) = (on_link, port_towards(bindings, vrf, next_hop)) {
        return vec![Member::port(port, Some(next_hop), r.weight)];
    }
    let by = |m: &Member| Member {
        via: m.tunnel.is_none().then(|| m.via.unwrap_or(next_hop)),
        weight: r.weight.saturating_mul(m.weight.max(1)),
        ..m.clone()
    };
    members.iter().map(by).collect()
}

/// The port of a VRF whose network holds an address.
fn port_towards(bindings: &[PortBinding], vrf: VrfNo, to: IpAddr) -> Option<PortIdx> {
    let holds = |b: &&PortBinding| match to {
        IpAddr::V4(to) => {
            b.port.addrs4.iter().any(|(a, l)| ipnet::Ipv4Net::new(*a, *l).is_ok_and(|n| n.contains(&to)))
        }
        IpAddr::V6(to) => {
            b.port.addrs6.iter().any(|(a, l)| ipnet::Ipv6Net::new(*a, *l).is_ok_and(|n| n.contains(&to)))
        }
    };
    bindings.iter().filter(|b| b.ours() && b.port.vrf == vrf).find(holds).map(|b| b.idx)
}
