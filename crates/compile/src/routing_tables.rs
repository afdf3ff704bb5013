//! The routes that packets go by, kept from one compilation to the next.
//!
//! [`RoutingTables`] has for each VRF the prefixes with the numbers of their ways. Prefixes that lead the same way share a
//! number, so that a table of a million prefixes behind a few routers has few ways. What depends on routes is found out
//! once for each way, and a change of some prefixes costs in proportion to them.

use crate::problem::Problem;
use crate::routes::{Inputs, RouteRow, RouteSource};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sag_fib::{Fib, FibAddr, Limits, Table, TableError};
use sag_model::{PortIdx, VrfNo};
use sag_pipeline::snapshot::{Member, Route, RouteList};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What wins for a prefix, as compiled and as shown: a [`RouteRow`] without its prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    /// What packets are handed to.
    pub route: Route,
    /// Where the route comes from.
    pub source: RouteSource,
    /// The table that it is in.
    pub table: sag_rtnl::Table,
    /// Who made it.
    pub protocol: String,
    /// The lowest metric wins.
    pub metric: u32,
    /// Next hops by devices that are no ports: (ifindex, gateway, weight).
    pub foreign: Vec<(u32, Option<IpAddr>, u16)>,
    /// Ways out that are not in use.
    pub unused: Vec<Member>,
}

impl Way {
    fn of(row: RouteRow) -> (VrfNo, IpNet, Way) {
        let RouteRow { vrf, dst, route, source, table, protocol, metric, foreign, unused } = row;
        (vrf, dst.trunc(), Way { route, source, table, protocol, metric, foreign, unused })
    }

    fn row(&self, vrf: VrfNo, dst: IpNet) -> RouteRow {
        let Way { route, source, table, protocol, metric, foreign, unused } = self.clone();
        RouteRow { vrf, dst, route, source, table, protocol, metric, foreign, unused }
    }

    /// The ways out in use.
    pub fn members(&self) -> &[Member] {
        match &self.route {
            Route::Via(members) => members,
            _ => &[],
        }
    }
}

/// Ways by their numbers. A number that no prefix has is given out again: older snapshots have their own lists.
#[derive(Debug, Default)]
struct Ways {
    by_no: Vec<Option<(Arc<Way>, usize)>>,
    by_way: HashMap<Arc<Way>, u32>,
    free: Vec<u32>,
    /// The same for workers.
    list: RouteList,
    /// Counts ways that have come or gone.
    version: u64,
}

impl Ways {
    fn get(&self, no: u32) -> Option<&Way> {
        self.by_no.get(no as usize)?.as_ref().map(|(way, _)| &**way)
    }

    /// The number of a way, for one more prefix.
    fn take(&mut self, way: Way) -> u32 {
        if let Some(&no) = self.by_way.get(&way) {
            if let Some(Some((_, prefixes))) = self.by_no.get_mut(no as usize) {
                *prefixes += 1;
            }
            return no;
        }
        self.version += 1;
        let no = self.free.pop().unwrap_or(self.by_no.len() as u32);
        self.list.set(no, way.route.clone(), way.unused.clone());
        let way = Arc::new(way);
        self.by_way.insert(way.clone(), no);
        let place = Some((way, 1));
        match self.by_no.get_mut(no as usize) {
            Some(free) => *free = place,
            None => self.by_no.push(place),
        }
        no
    }

    /// A prefix has this one no longer.
    fn give_back(&mut self, no: u32) {
        let Some(place) = self.by_no.get_mut(no as usize) else { return };
        if let Some((way, prefixes)) = place {
            *prefixes -= 1;
            if *prefixes == 0 {
                self.by_way.remove(&**way);
                *place = None;
                self.free.push(no);
                self.version += 1;
            }
        }
    }
}

/// The prefixes of a VRF.
#[derive(Debug, Default)]
struct VrfTables {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl VrfTables {
    fn get(&self, dst: &IpNet) -> Option<u32> {
        match dst {
            IpNet::V4(n) => self.v4.get(n.addr().to_bits(), n.prefix_len()),
            IpNet::V6(n) => self.v6.get(n.addr().to_bits(), n.prefix_len()),
        }
    }

    fn set(&mut self, dst: &IpNet, no: Option<u32>) -> Result<(), TableError> {
        let (len, added) = (dst.prefix_len(), no.is_some());
        let done = match (dst, no) {
            (IpNet::V4(n), Some(no)) => self.v4.insert(n.addr().to_bits(), len, no)?,
            (IpNet::V6(n), Some(no)) => self.v6.insert(n.addr().to_bits(), len, no)?,
            (IpNet::V4(n), None) => self.v4.remove(n.addr().to_bits(), len),
            (IpNet::V6(n), None) => self.v6.remove(n.addr().to_bits(), len),
        };
        debug_assert!(added || done.is_some(), "{dst} is there");
        Ok(())
    }

    fn longest(&self, dst: &IpNet) -> Option<(u8, u32)> {
        match dst {
            IpNet::V4(n) => self.v4.longest(n.addr().to_bits(), n.prefix_len()).map(|(_, len, no)| (len, no)),
            IpNet::V6(n) => self.v6.longest(n.addr().to_bits(), n.prefix_len()).map(|(_, len, no)| (len, no)),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (IpNet, u32)> + '_ {
        let nets = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        nets.into_iter().flat_map(|net| self.within(net))
    }

    fn within(&self, net: IpNet) -> Box<dyn Iterator<Item = (IpNet, u32)> + '_> {
        let v4 = |(a, len, no)| Some((IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(a), len).ok()?), no));
        let v6 = |(a, len, no)| Some((IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(a), len).ok()?), no));
        match net {
            IpNet::V4(n) => Box::new(self.v4.within(n.addr().to_bits(), n.prefix_len()).filter_map(v4)),
            IpNet::V6(n) => Box::new(self.v6.within(n.addr().to_bits(), n.prefix_len()).filter_map(v6)),
        }
    }
}

/// A prefix of a VRF whose way has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub vrf: VrfNo,
    pub dst: IpNet,
    /// The numbers of its own way, before and after.
    pub own: [Option<u32>; 2],
    /// The same of the longest prefix that holds it, which may be itself.
    pub longest: [Option<u32>; 2],
}

/// What has changed.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub prefixes: Vec<Change>,
    /// A way has come or gone.
    pub ways: bool,
    /// One of the prefixes goes by the file, or has done so.
    pub of_file: bool,
}

/// The routes that packets go by.
#[derive(Debug, Default)]
pub struct RoutingTables {
    vrfs: BTreeMap<VrfNo, VrfTables>,
    ways: Ways,
    /// What the routes were decided by, apart from the kernel's own; `None`: there are none yet.
    pub(crate) inputs: Option<Inputs>,
    /// Of IPv4 and of IPv6, whether a table hides prefixes of another one: then a prefix is not decided by itself.
    pub(crate) layered: [bool; 2],
    /// What was found when they were decided.
    pub(crate) problems: Vec<Problem>,
}

impl RoutingTables {
    /// Of these routes as if they were of the configuration, with the ways out that are not in use. The last one of a
    /// prefix counts.
    pub fn of(routes: impl IntoIterator<Item = (VrfNo, IpNet, Route, Vec<Member>)>) -> RoutingTables {
        let mut out = RoutingTables::default();
        out.replace(routes.into_iter().map(|(vrf, dst, route, unused)| RouteRow {
            vrf,
            dst,
            route,
            source: RouteSource::Config,
            table: sag_rtnl::Table::Main,
            protocol: "static".into(),
            metric: 0,
            foreign: Vec::new(),
            unused,
        }));
        out
    }

    /// Whether a table hides prefixes of another one in a family.
    pub fn is_layered(&self, v6: bool) -> bool {
        self.layered[usize::from(v6)]
    }

    /// Takes these winning routes in the place of all others.
    pub(crate) fn replace(&mut self, rows: impl IntoIterator<Item = RouteRow>) {
        type Prefixes = (Vec<(u32, u8, u32)>, Vec<(u128, u8, u32)>);
        let mut ways = Ways { version: self.ways.version + 1, ..Ways::default() };
        let mut vrfs: BTreeMap<VrfNo, Prefixes> = BTreeMap::new();
        for row in rows {
            let (vrf, dst, way) = Way::of(row);
            let (v4, v6) = vrfs.entry(vrf).or_default();
            match dst {
                IpNet::V4(n) => v4.push((n.addr().to_bits(), n.prefix_len(), ways.take(way))),
                IpNet::V6(n) => v6.push((n.addr().to_bits(), n.prefix_len(), ways.take(way))),
            }
        }
        self.ways = ways;
        self.problems.clear();
        let built = |(vrf, (v4, v6)): (VrfNo, Prefixes)| {
            (vrf, VrfTables { v4: build(&v4, &mut self.problems), v6: build(&v6, &mut self.problems) })
        };
        self.vrfs = vrfs.into_iter().map(built).collect();
    }

    /// Gives these prefixes the winning routes that they now have, in all VRFs.
    ///
    /// # Errors
    /// [`TableError`]; the tables are of no use any more and have to be replaced.
    pub(crate) fn change(
        &mut self,
        prefixes: &BTreeSet<IpNet>,
        rows: impl IntoIterator<Item = RouteRow>,
    ) -> Result<Changed, TableError> {
        let mut new: HashMap<(VrfNo, IpNet), Way> =
            rows.into_iter().map(Way::of).map(|(vrf, dst, way)| ((vrf, dst), way)).collect();
        for (vrf, _) in new.keys() {
            self.vrfs.entry(*vrf).or_default();
        }
        let version = self.ways.version;
        let mut changed = Changed::default();
        for (&vrf, tables) in &self.vrfs {
            for dst in prefixes {
                let old = tables.get(dst);
                let way = new.remove(&(vrf, *dst));
                changed.of_file |= way.as_ref().is_some_and(|w| w.source == RouteSource::Config);
                let no = way.map(|way| self.ways.take(way));
                if no != old {
                    let before = tables.longest(dst).map(|(_, no)| no);
                    changed.prefixes.push(Change { vrf, dst: *dst, own: [old, no], longest: [before, None] });
                } else if let Some(no) = no {
                    self.ways.give_back(no);
                }
            }
        }
        for c in &changed.prefixes {
            if let Some(tables) = self.vrfs.get_mut(&c.vrf) {
                tables.set(&c.dst, c.own[1])?;
            }
        }
        for c in &mut changed.prefixes {
            c.longest[1] = self.vrfs.get(&c.vrf).and_then(|t| t.longest(&c.dst)).map(|(_, no)| no);
        }
        // Numbers are given out again from the next change on, so that in this one equal numbers are equal ways.
        for no in changed.prefixes.iter().filter_map(|c| c.own[0]) {
            let way = self.ways.get(no);
            changed.of_file |= way.is_some_and(|w| w.source == RouteSource::Config);
            self.ways.give_back(no);
        }
        changed.ways = self.ways.version != version;
        Ok(changed)
    }

    /// The VRFs that have routes, or have had some.
    pub(crate) fn vrfs(&self) -> impl Iterator<Item = VrfNo> + '_ {
        self.vrfs.keys().copied()
    }

    /// What lookups in a VRF read.
    pub(crate) fn fibs(&self, vrf: VrfNo) -> (Fib<u32>, Fib<u128>) {
        self.vrfs.get(&vrf).map(|t| (t.v4.snapshot(), t.v6.snapshot())).unwrap_or_default()
    }

    /// Routes by the numbers that lookups find.
    pub(crate) fn list(&self) -> RouteList {
        self.ways.list.clone()
    }

    /// All prefixes, by VRF and family, with the numbers of their ways.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = (VrfNo, IpNet, u32)> + '_ {
        self.vrfs.iter().flat_map(|(vrf, t)| t.iter().map(move |(dst, no)| (*vrf, dst, no)))
    }

    /// The distinct ways, each once.
    pub fn ways(&self) -> impl Iterator<Item = &Way> {
        self.ways.by_no.iter().flatten().map(|(way, _)| &**way)
    }

    /// All prefixes by VRF and family, each before those that it covers, with their ways.
    pub fn iter(&self) -> impl Iterator<Item = (VrfNo, IpNet, &Way)> {
        self.prefixes().filter_map(|(vrf, dst, no)| Some((vrf, dst, self.ways.get(no)?)))
    }

    /// The same as rows.
    pub fn rows(&self) -> impl Iterator<Item = RouteRow> + '_ {
        self.iter().map(|(vrf, dst, way)| way.row(vrf, dst))
    }

    /// Prefixes of all VRFs.
    pub fn len(&self) -> usize {
        self.vrfs.values().map(|t| t.v4.len() + t.v6.len()).sum()
    }

    /// The prefixes within this one, itself included, with their ways.
    pub fn within<'t>(&'t self, net: IpNet) -> impl Iterator<Item = (VrfNo, IpNet, &'t Way)> {
        let of = move |(vrf, t): (&VrfNo, &'t VrfTables)| {
            let vrf = *vrf;
            t.within(net).map(move |(dst, no)| (vrf, dst, no))
        };
        let prefixes = self.vrfs.iter().flat_map(of);
        prefixes.filter_map(|(vrf, dst, no)| Some((vrf, dst, self.ways.get(no)?)))
    }

    /// The routes of this very prefix in all VRFs.
    pub fn of_prefix(&self, dst: IpNet) -> impl Iterator<Item = (VrfNo, IpNet, &Way)> {
        self.vrfs.iter().filter_map(move |(vrf, t)| Some((*vrf, dst, self.ways.get(t.get(&dst)?)?)))
    }

    /// Whether no VRF has a route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The route of this very prefix.
    pub fn get(&self, vrf: VrfNo, dst: &IpNet) -> Option<RouteRow> {
        let dst = dst.trunc();
        let way = self.ways.get(self.vrfs.get(&vrf)?.get(&dst)?)?;
        Some(way.row(vrf, dst))
    }

    /// In each VRF the longest prefix that holds this one, which may be itself, with its length.
    pub fn longest(&self, dst: IpNet) -> impl Iterator<Item = (VrfNo, u8, &Way)> {
        let dst = dst.trunc();
        self.vrfs.iter().filter_map(move |(vrf, t)| {
            let (len, no) = t.longest(&dst)?;
            Some((*vrf, len, self.ways.get(no)?))
        })
    }

    /// The default routes of all VRFs.
    pub fn default_routes(&self) -> impl Iterator<Item = RouteRow> + '_ {
        let of =
            |vrf| [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].map(move |dst| (vrf, dst));
        self.vrfs().flat_map(of).filter_map(|(vrf, dst)| self.get(vrf, &dst))
    }

    /// Sources that routes prefer, with the ports by which these lead.
    pub(crate) fn preferred_sources(&self) -> BTreeSet<(PortIdx, Ipv4Addr)> {
        let by_ports = self.ways().flat_map(Way::members).filter(|m| m.tunnel.is_none());
        by_ports.filter_map(|m| Some((m.port, m.source?))).collect()
    }
}

/// A table of prefixes, of so many as it takes.
fn build<A: FibAddr>(prefixes: &[(A, u8, u32)], problems: &mut Vec<Problem>) -> Table<A> {
    let limit = Limits::MAX.routes;
    let build = |count: usize| Table::build(prefixes.iter().take(count).copied());
    build(usize::MAX)
        .or_else(|_| {
            problems.push(Problem::TooManyRoutes { limit });
            build(limit)
        })
        // There are as many now as there may be.
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(dst: &str, port: u8, unused: &[u8]) -> RouteRow {
        let by = |port: u8| Member::port(PortIdx(port), None, 1);
        RouteRow {
            vrf: VrfNo::DEFAULT,
            dst: dst.parse().unwrap(),
            route: Route::Via(vec![by(port)]),
            source: RouteSource::Kernel,
            table: sag_rtnl::Table::Main,
            protocol: "bgp".into(),
            metric: 20,
            foreign: Vec::new(),
            unused: unused.iter().map(|p| by(*p)).collect(),
        }
    }

    fn numbers(t: &RoutingTables) -> Vec<u32> {
        t.prefixes().map(|p| p.2).collect()
    }

    #[test]
    fn what_leads_the_same_way_has_one_number() {
        for nets in [
            ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"],
            ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::/48"],
        ] {
            let [a, b, c] = nets;
            let mut t = RoutingTables::default();
            t.replace([row(a, 1, &[]), row(b, 2, &[]), row(c, 1, &[])]);
            assert_eq!(numbers(&t), [0, 1, 0]);
            assert_eq!(t.ways().count(), 2);
            // Sources may come in by what is not in use, so it is another one.
            let set = |nets: &[&str]| nets.iter().map(|n| n.parse().unwrap()).collect::<BTreeSet<IpNet>>();
            let list = t.list();
            let changed = t.change(&set(&[b, c]), [row(b, 1, &[]), row(c, 1, &[3])]).unwrap();
            assert!(changed.ways && !changed.of_file);
            assert_eq!(numbers(&t), [0, 0, 2]);
            assert_eq!((t.list().unused(2).len(), list.get(2)), (1, Some(&Route::Throw)));
            // A number without prefixes is given out again, and snapshots of before do not see it.
            let changed = t.change(&set(&[b]), [row(b, 9, &[])]).unwrap();
            assert_eq!(changed.prefixes[0].own, [Some(0), Some(1)]);
            assert_eq!(list.get(1), Some(&Route::Via(vec![Member::port(PortIdx(2), None, 1)])));
            let changed = t.change(&set(&[b, a]), [row(a, 1, &[])]).unwrap();
            assert_eq!(changed.prefixes.len(), 1, "the other is as it was");
            assert_eq!(changed.prefixes[0].longest, [Some(1), Some(0)]);
            assert_eq!((t.len(), t.get(VrfNo::DEFAULT, &b.parse().unwrap())), (2, None));
        }
    }
}
