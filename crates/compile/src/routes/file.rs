//! Routes of the configuration.

use super::candidates::{Candidates, Liveness, Rank};
use super::{RouteRow, RouteSource};
use crate::ports::PortBinding;
use crate::problem::Problem;
use crate::tunnels::TunnelCompiler;
use ipnet::IpNet;
use sag_model::PortIdx;
use sag_model::config::{self, Config, RejectKind, RouteTarget, TunnelIdx};
use sag_pipeline::snapshot::{Member, Route};
use sag_rtnl::{RouterPreference, Table};
use std::net::IpAddr;

/// What the file says, among the kernel's routes, which are there already.
pub(super) fn offer(
    candidates: &mut Candidates,
    config: &Config,
    bindings: &[PortBinding],
    tunnels: &TunnelCompiler,
    problems: &mut Vec<Problem>,
) {
    for row in connected(config).chain(connected_inside(config, tunnels)) {
        offer_row(candidates, row, bindings, tunnels);
    }
    let is_searched = |r: &&config::Route| matches!(r.target, RouteTarget::Via { port: None, .. });
    for r in config.routes.iter().filter(|r| !is_searched(r)) {
        if let Some(route) = target(config, r, tunnels) {
            offer_row(candidates, row_of(r, route), bindings, tunnels);
        }
    }
    // Last those whose next hop may be behind one of the others. None is behind another one of its kind, whatever their order.
    let found: Vec<_> =
        config.routes.iter().filter(is_searched).map(|r| (r, search(candidates, bindings, r))).collect();
    for (r, members) in found {
        if members.is_empty() {
            if let RouteTarget::Via { next_hop, .. } = r.target {
                problems.push(Problem::NextHopNotFound { destination: r.destination, next_hop });
            }
            continue;
        }
        offer_row(candidates, row_of(r, Route::Via(members)), bindings, tunnels);
    }
}

fn offer_row(candidates: &mut Candidates, row: RouteRow, bindings: &[PortBinding], tunnels: &TunnelCompiler) {
    // A tunnel that is down is the last choice. Where there is no other, its packets are dropped: they never
    // leave in the clear.
    let (penalty, up) = match &row.route {
        Route::Via(members) => (
            members.iter().map(|m| m.tunnel.map_or(0, |no| tunnels.metric_penalty(no))).max().unwrap_or(0),
            members.iter().any(|m| m.tunnel.is_some() || is_up(bindings, m.port)),
        ),
        _ => (0, true),
    };
    let rank = Rank {
        liveness: if up { Liveness::Usable } else { Liveness::LinkDown },
        table: Table::Main,
        metric: row.metric.saturating_add(penalty),
        preference: RouterPreference::High,
        source: RouteSource::Config,
    };
    candidates.offer(rank, row);
}

fn is_up(bindings: &[PortBinding], port: PortIdx) -> bool {
    bindings.get(port.index()).is_some_and(|b| b.port.up)
}

fn row_of(r: &config::Route, route: Route) -> RouteRow {
    RouteRow {
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
fn connected(config: &Config) -> impl Iterator<Item = RouteRow> + '_ {
    config.ports().flat_map(|(idx, p)| {
        let networks = p.addresses.iter().filter(move |_| p.zone().is_some());
        networks.map(move |net| network(net, Member::port(idx, None, 1)))
    })
}

/// The networks of addresses that the file gives to tunnels.
fn connected_inside<'c>(
    config: &'c Config,
    tunnels: &'c TunnelCompiler,
) -> impl Iterator<Item = RouteRow> + 'c {
    let number = |i: usize| tunnels.number(config, TunnelIdx(i as u16));
    config.tunnels.iter().enumerate().filter_map(move |(i, t)| Some((number(i)?, t))).flat_map(|(no, t)| {
        let has_network = |n: &&IpNet| n.prefix_len() < n.max_prefix_len();
        t.addresses.iter().filter(has_network).map(move |net| network(net, Member::tunnel(no, 1)))
    })
}

fn network(net: &IpNet, member: Member) -> RouteRow {
    RouteRow {
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
fn search(candidates: &Candidates, bindings: &[PortBinding], r: &config::Route) -> Vec<Member> {
    let RouteTarget::Via { next_hop, .. } = r.target else { return Vec::new() };
    let members = match candidates.towards(next_hop).map(|row| &row.route) {
        Some(Route::Via(members)) => members.as_slice(),
        _ => &[],
    };
    // On the link by a route of its own (a host route) or of a network: nearer than what the addresses say.
    let on_link = members.iter().any(|m| m.via.is_none());
    if let (false, Some(port)) = (on_link, port_towards(bindings, next_hop)) {
        return vec![Member::port(port, Some(next_hop), r.weight)];
    }
    let by = |m: &Member| Member {
        via: m.tunnel.is_none().then(|| m.via.unwrap_or(next_hop)),
        weight: r.weight.saturating_mul(m.weight.max(1)),
        ..m.clone()
    };
    members.iter().map(by).collect()
}

/// The port whose network holds an address.
fn port_towards(bindings: &[PortBinding], to: IpAddr) -> Option<PortIdx> {
    let holds = |b: &&PortBinding| match to {
        IpAddr::V4(to) => {
            b.port.addrs4.iter().any(|(a, l)| ipnet::Ipv4Net::new(*a, *l).is_ok_and(|n| n.contains(&to)))
        }
        IpAddr::V6(to) => {
            b.port.addrs6.iter().any(|(a, l)| ipnet::Ipv6Net::new(*a, *l).is_ok_and(|n| n.contains(&to)))
        }
    };
    bindings.iter().filter(|b| b.ours()).find(holds).map(|b| b.idx)
}
