//! Routes: the kernel's tables and the file's, merged by prefix and metric.

mod candidates;
mod file;
mod inputs;
mod wan;

use crate::kernel_vrfs::kernel_tables;
use crate::ports::PortBinding;
use crate::problem::{Problem, UnusedRoute};
use crate::tunnels::TunnelCompiler;
use crate::vrfs::VrfNumbers;
use candidates::{Candidates, Liveness, Rank};
pub(crate) use inputs::{Affected, Inputs, Only};
use ipnet::IpNet;
use sag_model::config::{Config, TunnelIdx};
use sag_model::{PortIdx, VrfNo};
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::TunnelNo;
use sag_rtnl::{Nexthop, RouteKind, RouteRef, Table, Tables};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use wan::WanRoutes;

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteSource {
    /// The configuration.
    Config,
    /// The kernel's tables.
    Kernel,
}

/// The route that wins for a prefix, as compiled and as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRow {
    /// The VRF whose packets go by it.
    pub vrf: VrfNo,
    /// The prefix.
    pub dst: IpNet,
    /// What packets to it are handed to.
    pub route: Route,
    /// Where the route comes from.
    pub source: RouteSource,
    /// The table that it is in; those of the configuration count as in `main`.
    pub table: Table,
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

/// Routes of a family that others may have the gateway look up: whoever speaks to a routing daemon, or sends router
/// advertisements. Those of this machine's operator have room in any case.
pub(crate) const MAX_LEARNED: usize = 1_500_000;

/// Counts what is learned, for each family.
struct Learned {
    room: [usize; 2],
    full: bool,
}

impl Learned {
    /// Whether there is room for a route.
    fn admits(&mut self, route: RouteRef<'_>) -> bool {
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

/// What routes are decided by.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'c> {
    pub config: &'c Config,
    pub tables: &'c Tables,
    pub bindings: &'c [PortBinding],
    pub tunnels: &'c TunnelCompiler,
    pub vrfs: &'c VrfNumbers,
    /// Learned routes of a family.
    pub max_learned: usize,
}

/// Winning routes.
#[derive(Default)]
pub(crate) struct Collected {
    /// Of each prefix of each VRF, ordered by VRF and prefix.
    pub rows: Vec<RouteRow>,
    /// Of IPv4 and of IPv6, whether a table hides prefixes of another one.
    pub layered: [bool; 2],
    pub problems: Vec<Problem>,
}

/// The winning route of each prefix of each VRF, or of `only` these. Of learned routes so many of a family are considered,
/// in the order of their addresses, and there is a problem if there are more.
///
/// A prefix is decided by itself, unless tables are layered; [`Inputs::only`] adds what a route of the file is searched by.
pub(crate) fn collect(from: Sources<'_>, only: Option<&Only>) -> Collected {
    let Sources { config, tables, bindings, tunnels, vrfs, max_learned } = from;
    let mut out = Collected::default();
    let problems = &mut out.problems;
    let mut candidates: BTreeMap<VrfNo, Candidates<'_>> = BTreeMap::new();
    let mut learned = Learned { room: [max_learned; 2], full: false };
    let mut unused = UnusedRoutes::default();
    let mut lines = WanRoutes::new(config);
    let left_alone = left_alone(config, bindings);
    let by_l3: HashMap<u32, PortIdx> =
        bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
    let of_table = kernel_tables(config, tables);
    let devices = TunnelDevices::of(config, tables, tunnels);
    let routes: Box<dyn Iterator<Item = RouteRef<'_>>> = match only {
        None => Box::new(tables.routes_sorted()),
        Some(only) => Box::new(only.iter().flat_map(|dst| tables.routes_to(dst))),
    };
    for r in routes {
        // All routes of a VRF's own table are the VRF's, and are asked for as those of the main one.
        let (level, of_vrf) = match r.table {
            Table::Other(number) => match of_table.get(&number) {
                Some(name) => (Table::Main, Some(vrfs.number(Some(name)))),
                None => continue,
            },
            table => (table, None),
        };
        // Link-local destinations and multicast never get as far as a route lookup.
        let link_scope =
            matches!(r.dst.addr(), IpAddr::V6(a) if a.is_unicast_link_local() || a.is_multicast());
        let is_default = r.dst.prefix_len() == 0;
        if is_default
            && tables.nexthops_of(r).iter().all(|h| left_alone.contains(&h.ifindex))
            && r.kind == RouteKind::Unicast
        {
            continue;
        }
        if link_scope || !Candidates::asks(level, &r.dst) || unused.matches(r) || !learned.admits(r) {
            continue;
        }
        let mut way = KernelWay::default();
        let route = match tables.kind_of(r) {
            RouteKind::Unicast => {
                way = kernel_way((tables, r), &by_l3, bindings, &devices, &mut unused);
                if way.members.is_empty() { Route::NotOurs } else { Route::Via(way.members) }
            }
            // A VRF has its own addresses from its ports.
            RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast
                if of_vrf.is_some() || !vrf_of_interface(tables, r, &by_l3, bindings).is_default() =>
            {
                continue;
            }
            RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast | RouteKind::Multicast => {
                Route::Local
            }
            RouteKind::Blackhole => Route::Blackhole,
            RouteKind::Unreachable => Route::Unreachable,
            RouteKind::Prohibit => Route::Prohibit,
            RouteKind::Throw => Route::Throw,
            RouteKind::Other(_) => continue,
        };
        let rank = Rank {
            liveness: way.liveness,
            table: level,
            metric: r.priority,
            preference: r.preference,
            source: RouteSource::Kernel,
        };
        let row = RouteRow {
            vrf: of_vrf.unwrap_or_default(),
            dst: r.dst.trunc(),
            route,
            source: RouteSource::Kernel,
            table: level,
            protocol: r.protocol.to_string(),
            metric: r.priority,
            foreign: way.foreign,
            unused: way.unused,
        };
        let rows = if of_vrf.is_some() { vec![row] } else { by_vrf(row, bindings) };
        for row in rows {
            if let Some(row) = lines.take(rank, row) {
                candidates.entry(row.vrf).or_insert_with(|| Candidates::of(only)).offer(rank, row);
            }
        }
    }
    if learned.full {
        problems.push(Problem::TooManyRoutes { limit: max_learned });
    }
    problems.extend(unused.problems());
    for v in vrfs.current().chain([VrfNo::DEFAULT]) {
        let of_vrf = file::OfVrf { config, bindings, tunnels, vrfs, vrf: v };
        of_vrf.offer(candidates.entry(v).or_insert_with(|| Candidates::of(only)), &mut lines, problems);
    }
    lines.offer(&mut candidates);
    for (vrf, all) in candidates {
        for (family, layered) in all.layered().into_iter().enumerate() {
            out.layered[family] |= layered;
        }
        let rows = all.finish().into_iter().filter(|row| only.is_none_or(|o| o.prefixes.contains(&row.dst)));
        out.rows.extend(rows.map(|row| RouteRow { vrf, ..row }));
    }
    out
}

/// A route of the kernel's is that of the VRF of the port by which it leads.
fn by_vrf(row: RouteRow, bindings: &[PortBinding]) -> Vec<RouteRow> {
    let vrf = |m: &Member| bindings.get(m.port.index()).map_or(VrfNo::DEFAULT, |b| b.port.vrf);
    let members = match &row.route {
        Route::Via(members) if members.iter().any(|m| !vrf(m).is_default()) => members,
        _ => return vec![row],
    };
    let mut split: BTreeMap<VrfNo, Vec<Member>> = BTreeMap::new();
    for m in members {
        split.entry(vrf(m)).or_default().push(m.clone());
    }
    split
        .into_iter()
        .map(|(of, members)| RouteRow {
            vrf: of,
            route: Route::Via(members),
            unused: row.unused.iter().filter(|m| vrf(m) == of).cloned().collect(),
            ..row.clone()
        })
        .collect()
}

/// The VRF of the interface of a route to the gateway itself.
fn vrf_of_interface(
    tables: &Tables,
    r: RouteRef<'_>,
    by_l3: &HashMap<u32, PortIdx>,
    bindings: &[PortBinding],
) -> VrfNo {
    let port = tables.nexthops_of(r).first().and_then(|h| by_l3.get(&h.ifindex).copied());
    port.and_then(|p| bindings.get(p.index())).map_or(VrfNo::DEFAULT, |b| b.port.vrf)
}

/// The kernel's devices of tunnels: a route by one of them is a route into its tunnel.
struct TunnelDevices<'c> {
    by_ifindex: HashMap<u32, TunnelNo>,
    tunnels: &'c TunnelCompiler,
}

impl<'c> TunnelDevices<'c> {
    fn of(config: &Config, tables: &Tables, tunnels: &'c TunnelCompiler) -> TunnelDevices<'c> {
        let by_ifindex = config.tunnels.iter().enumerate().filter_map(|(i, t)| {
            let link = tables.link_named(t.device.as_deref()?)?;
            let no = tunnels.number(config, TunnelIdx(i as u16))?;
            (link.kind.as_deref() == Some("tun")).then_some((link.ifindex, no))
        });
        TunnelDevices { by_ifindex: by_ifindex.collect(), tunnels }
    }

    /// How far a next hop by such a device can be used. That is the tunnel's to say: the device has no carrier while no
    /// daemon runs, which the tunnel survives.
    fn liveness(&self, tables: &Tables, h: &Nexthop) -> Option<Liveness> {
        let no = *self.by_ifindex.get(&h.ifindex)?;
        let up = tables.link(h.ifindex).is_some_and(|l| l.up);
        Some(match (up, self.tunnels.is_down(no)) {
            (false, _) => Liveness::Dead,
            (true, false) => Liveness::Usable,
            (true, true) if h.dead => Liveness::Dead,
            (true, true) => Liveness::LinkDown,
        })
    }
}

/// Interfaces of ports by which nothing is forwarded and whose default routes are the kernel's alone.
fn left_alone(config: &Config, bindings: &[PortBinding]) -> BTreeSet<u32> {
    let ports = config.ports().filter(|(_, p)| p.priority == Some(-1));
    ports.filter_map(|(idx, _)| bindings.get(idx.index())?.l3_ifindex).collect()
}

/// Where a route of the kernel leads.
#[derive(Default)]
struct KernelWay {
    liveness: Liveness,
    members: Vec<Member>,
    /// Those that are worse than the members, and alive.
    unused: Vec<Member>,
    /// By devices that are no ports.
    foreign: Vec<(u32, Option<IpAddr>, u16)>,
}

/// The next hops of a unicast route: those that are alive, else those by links without carrier, else the dead ones.
fn kernel_way(
    (tables, r): (&Tables, RouteRef<'_>),
    by_l3: &HashMap<u32, PortIdx>,
    bindings: &[PortBinding],
    devices: &TunnelDevices<'_>,
    unused: &mut UnusedRoutes,
) -> KernelWay {
    let hops = tables.nexthops_of(r);
    let of = |h: &Nexthop| {
        let port = by_l3.get(&h.ifindex).and_then(|p| bindings.get(p.index())).map(|b| &b.port);
        devices.liveness(tables, h).unwrap_or_else(|| match h {
            h if h.dead => Liveness::Dead,
            h if h.linkdown || port.is_some_and(|p| !p.up) => Liveness::LinkDown,
            _ if port.is_some_and(|p| p.failed) => Liveness::Failed,
            _ => Liveness::Usable,
        })
    };
    let liveness = hops.iter().map(of).min().unwrap_or(Liveness::Usable);
    let mut way = KernelWay { liveness, ..KernelWay::default() };
    let source = match r.prefsrc {
        Some(IpAddr::V4(source)) => Some(source),
        _ => None,
    };
    let member =
        |port, h: &Nexthop| Member { mtu: mtu(r), source, ..Member::port(port, h.gateway, h.weight) };
    for h in hops.iter().filter(|h| of(h) != liveness && of(h) == Liveness::Failed && !h.encap) {
        way.unused.extend(by_l3.get(&h.ifindex).map(|&port| member(port, h)));
    }
    for h in hops.iter().filter(|h| of(h) == liveness) {
        if let Some(&no) = devices.by_ifindex.get(&h.ifindex).filter(|_| !h.encap) {
            way.members.push(Member::tunnel(no, h.weight));
            continue;
        }
        match by_l3.get(&h.ifindex) {
            Some(&port) if !h.encap => way.members.push(member(port, h)),
            port => {
                if port.is_some() || devices.by_ifindex.contains_key(&h.ifindex) {
                    unused.note(UnusedRoute::Encapsulation, r.dst);
                }
                way.foreign.push((h.ifindex, h.gateway, h.weight));
            }
        }
    }
    way
}

/// The route's own MTU, 0: it has none. No link carries less of IPv6 than 1,280 (RFC 8200 5).
fn mtu(r: RouteRef<'_>) -> u16 {
    let least = if r.dst.addr().is_ipv6() { 1280 } else { 0 };
    r.mtu.map_or(0, |mtu| mtu.max(least).min(u32::from(u16::MAX)) as u16)
}

/// Routes of the kernel by which no packet is forwarded: an example of each kind.
#[derive(Default)]
struct UnusedRoutes(BTreeMap<UnusedRoute, IpNet>);

impl UnusedRoutes {
    fn note(&mut self, kind: UnusedRoute, dst: IpNet) {
        self.0.entry(kind).or_insert(dst);
    }

    /// Whether a route holds for some packets to its destination only; the gateway looks destinations up.
    fn matches(&mut self, r: RouteRef<'_>) -> bool {
        let kind = match r {
            r if r.tos != 0 => UnusedRoute::TypeOfService,
            r if r.from.is_some() => UnusedRoute::Source,
            _ => return false,
        };
        self.note(kind, r.dst);
        true
    }

    fn problems(self) -> impl Iterator<Item = Problem> {
        self.0.into_iter().map(|(kind, example)| Problem::UnusedRoutes { kind, example })
    }
}
