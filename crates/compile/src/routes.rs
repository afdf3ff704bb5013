//! Routes: the kernel's tables and the file's, merged by prefix and metric.

use crate::ports::PortBinding;
use crate::problem::Problem;
use crate::tunnels::TunnelCompiler;
use ipnet::IpNet;
use sag_model::PortIdx;
use sag_model::config::{Config, RejectKind, RouteTarget, TunnelIdx};
use sag_pipeline::snapshot::{Member, Route};
use sag_rtnl::{RouteKind, Table, Tables};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteSource {
    /// The configuration.
    Config,
    /// The kernel's tables.
    Kernel,
}

/// The route that wins for a prefix, as compiled and as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRow {
    /// The prefix.
    pub dst: IpNet,
    /// What packets to it are handed to.
    pub route: Route,
    /// Where the route comes from.
    pub source: RouteSource,
    /// Who made it: `static`, `connected`, or the kernel's name of the routing protocol.
    pub protocol: String,
    /// The lowest metric wins.
    pub metric: u32,
    /// Next hops by devices that are no ports: (ifindex, gateway, weight).
    pub foreign: Vec<(u32, Option<IpAddr>, u16)>,
    /// The ways out of the prefix's other routes, which this one wins over. Packets may come in by them.
    pub unused: Vec<Member>,
}

impl RouteRow {
    fn take_members(self) -> Vec<Member> {
        let mut members = self.unused;
        if let Route::Via(used) = self.route {
            members.extend(used);
        }
        members
    }
}

/// A prefix's candidates are tried in this order.
type Rank = (u8, u32, RouteSource);

/// The kernel asks its local table first, then main, then default.
fn table_rank(t: Table) -> Option<u8> {
    match t {
        Table::Local => Some(0),
        Table::Main => Some(1),
        Table::Default => Some(2),
    }
}

/// Routes of a family that others may have the gateway look up: whoever speaks to a routing daemon, or sends router
/// advertisements. Those of this machine's operator have room in any case.
pub(crate) const MAX_LEARNED: usize = 262_144;

/// Counts what is learned, for each family.
struct Learned {
    room: [usize; 2],
    full: bool,
}

impl Learned {
    /// Whether there is room for a route.
    fn admits(&mut self, route: &sag_rtnl::Route) -> bool {
        // The kernel's own, and the operator's (`boot` is what `ip route add` says).
        if matches!(route.protocol.name(), Some("kernel" | "boot" | "static")) {
            return true;
        }
        let room = &mut self.room[usize::from(route.dst.addr().is_ipv6())];
        self.full |= *room == 0;
        let admitted = *room > 0;
        *room = room.saturating_sub(1);
        admitted
    }
}

/// The winning route of each prefix, ordered by prefix. Of learned routes so many of a family are considered, in the order of
/// their addresses, and there is a problem if there are more.
pub(crate) fn collect(
    config: &Config,
    (tables, max_learned): (&Tables, usize),
    bindings: &[PortBinding],
    tunnels: &TunnelCompiler,
    problems: &mut Vec<Problem>,
) -> Vec<RouteRow> {
    let mut learned = Learned { room: [max_learned; 2], full: false };
    let mut best: BTreeMap<IpNet, (Rank, RouteRow)> = BTreeMap::new();
    let mut offer = |rank: Rank, row: RouteRow| match best.get_mut(&row.dst) {
        Some((have, old)) if rank < *have => {
            let loser = std::mem::replace(old, row);
            old.unused.extend(loser.take_members());
            *have = rank;
        }
        // Several routes of one rank in the file share the load.
        Some((have, old)) if rank == *have && row.source == RouteSource::Config => {
            if let (Route::Via(members), Route::Via(more)) = (&mut old.route, row.route) {
                members.extend(more);
            }
        }
        Some((_, old)) => old.unused.extend(row.take_members()),
        None => {
            best.insert(row.dst, (rank, row));
        }
    };
    let by_l3: HashMap<u32, PortIdx> =
        bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
    for r in tables.routes_sorted() {
        let Some(table) = table_rank(r.table) else { continue };
        // Link-local destinations and multicast never get as far as a route lookup.
        let link_scope =
            matches!(r.dst.addr(), IpAddr::V6(a) if a.is_unicast_link_local() || a.is_multicast());
        if link_scope || r.tos != 0 || !learned.admits(r) {
            continue;
        }
        let mut foreign = Vec::new();
        let route = match tables.kind_of(r) {
            RouteKind::Unicast => {
                let mut members = Vec::new();
                let hops = tables.nexthops_of(r);
                // Dead next hops are left out, unless all are dead: then packets are dropped because the port is down.
                let all_dead = hops.iter().all(|h| h.dead);
                for h in hops.iter().filter(|h| !h.dead || all_dead) {
                    match by_l3.get(&h.ifindex) {
                        Some(&port) if !h.encap => {
                            members.push(Member::port(port, h.gateway, h.weight));
                        }
                        _ => foreign.push((h.ifindex, h.gateway, h.weight)),
                    }
                }
                if members.is_empty() { Route::NotOurs } else { Route::Via(members) }
            }
            RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast | RouteKind::Multicast => {
                Route::Local
            }
            RouteKind::Blackhole => Route::Blackhole,
            RouteKind::Unreachable => Route::Unreachable,
            RouteKind::Prohibit => Route::Prohibit,
            RouteKind::Throw | RouteKind::Other(_) => continue,
        };
        let row = RouteRow {
            dst: r.dst.trunc(),
            route,
            source: RouteSource::Kernel,
            protocol: r.protocol.to_string(),
            metric: r.priority,
            foreign,
            unused: Vec::new(),
        };
        offer((table, r.priority, RouteSource::Kernel), row);
    }
    if learned.full {
        problems.push(Problem::TooManyRoutes { limit: max_learned });
    }
    let inside = connected_inside(config, tunnels);
    for row in connected(config).chain(inside).chain(configured(config, bindings, tunnels)) {
        // A tunnel that is down is the last choice. Where there is no other, its packets are dropped: they never
        // leave in the clear.
        let penalty = match &row.route {
            Route::Via(members) => {
                members.iter().map(|m| m.tunnel.map_or(0, |no| tunnels.metric_penalty(no))).max().unwrap_or(0)
            }
            _ => 0,
        };
        offer((1, row.metric.saturating_add(penalty), RouteSource::Config), row);
    }
    best.into_values().map(|(_, row)| row).collect()
}

/// The networks of addresses that the file gives to ports.
fn connected(config: &Config) -> impl Iterator<Item = RouteRow> + '_ {
    config.ports().flat_map(|(idx, p)| {
        p.addresses.iter().filter(move |_| p.zone().is_some()).map(move |net| RouteRow {
            dst: net.trunc(),
            route: Route::Via(vec![Member::port(idx, None, 1)]),
            source: RouteSource::Config,
            protocol: "connected".into(),
            metric: 0,
            foreign: Vec::new(),
            unused: Vec::new(),
        })
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
        t.addresses.iter().filter(has_network).map(move |net| RouteRow {
            dst: net.trunc(),
            route: Route::Via(vec![Member::tunnel(no, 1)]),
            source: RouteSource::Config,
            protocol: "connected".into(),
            metric: 0,
            foreign: Vec::new(),
            unused: Vec::new(),
        })
    })
}

fn configured<'c>(
    config: &'c Config,
    bindings: &'c [PortBinding],
    tunnels: &'c TunnelCompiler,
) -> impl Iterator<Item = RouteRow> + 'c {
    config.routes.iter().filter_map(move |r| {
        let via = |port, via| Route::Via(vec![Member::port(port, via, r.weight)]);
        let route = match r.target {
            RouteTarget::Via { next_hop, port: Some(port) } => via(port, Some(next_hop)),
            RouteTarget::Via { next_hop, port: None } => {
                via(port_towards(bindings, next_hop)?, Some(next_hop))
            }
            RouteTarget::OnLink(port) => via(port, None),
            RouteTarget::Reject(RejectKind::Blackhole) => Route::Blackhole,
            RouteTarget::Reject(RejectKind::Unreachable) => Route::Unreachable,
            RouteTarget::Reject(RejectKind::Prohibit) => Route::Prohibit,
            RouteTarget::Tunnel(t) => Route::Via(vec![Member::tunnel(tunnels.number(config, t)?, r.weight)]),
        };
        Some(RouteRow {
            dst: r.destination,
            route,
            source: RouteSource::Config,
            protocol: "static".into(),
            metric: r.metric,
            foreign: Vec::new(),
            unused: Vec::new(),
        })
    })
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
