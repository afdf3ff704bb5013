//! The routes that packets go by, kept from one compilation to the next.
//!
//! [`RoutingTables`] has for each VRF the prefixes with the numbers of their ways. Prefixes that lead the same way share a
//! number, so that a table of a million prefixes behind a few routers has few ways. What depends on routes is found out
//! once for each way, and a change of some prefixes costs in proportion to them.

mod vrf;

use crate::problem::Problem;
use crate::routes::{Inputs, RouteRow, RouteSource};
use crate::undecided::Undecided;
use ipnet::IpNet;
use sag_fib::{Fib, TableError};
use sag_model::{PortIdx, VrfNo};
use sag_pipeline::snapshot::{Member, Route, RouteList, prefix_hash};
use sag_pipeline::tunnel::TunnelNo;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use vrf::{FAMILIES, Prefixes, VrfTables};

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

/// A way, and what there is to know of its prefixes.
#[derive(Debug)]
struct Numbered {
    way: Arc<Way>,
    prefixes: usize,
    /// The sums of their hashes, of IPv4 and of IPv6.
    hashes: [u64; 2],
}

/// Ways by their numbers. A number that no prefix has is given out again: older snapshots have their own lists.
#[derive(Debug, Default)]
struct Ways {
    by_no: Vec<Option<Numbered>>,
    by_way: HashMap<Arc<Way>, u32>,
    free: Vec<u32>,
    /// The same for workers.
    list: RouteList,
    /// Counts ways that have come or gone.
    version: u64,
}

impl Ways {
    fn get(&self, no: u32) -> Option<&Way> {
        self.by_no.get(no as usize)?.as_ref().map(|of| &*of.way)
    }

    /// The number of a way, for one more prefix of a VRF.
    fn take(&mut self, way: Way, prefix: (VrfNo, IpNet)) -> u32 {
        let v6 = usize::from(prefix.1.addr().is_ipv6());
        let hash = prefix_hash(&prefix);
        if let Some(&no) = self.by_way.get(&way) {
            if let Some(Some(of)) = self.by_no.get_mut(no as usize) {
                of.prefixes += 1;
                of.hashes[v6] = of.hashes[v6].wrapping_add(hash);
            }
            return no;
        }
        self.version += 1;
        let no = self.free.pop().unwrap_or(self.by_no.len() as u32);
        self.list.set(no, way.route.clone(), way.unused.clone());
        let way = Arc::new(way);
        self.by_way.insert(way.clone(), no);
        let mut hashes = [0; 2];
        hashes[v6] = hash;
        let place = Some(Numbered { way, prefixes: 1, hashes });
        match self.by_no.get_mut(no as usize) {
            Some(free) => *free = place,
            None => self.by_no.push(place),
        }
        no
    }

    /// A prefix has this one no longer.
    fn give_back(&mut self, no: u32, prefix: (VrfNo, IpNet)) {
        let Some(place) = self.by_no.get_mut(no as usize) else { return };
        if let Some(of) = place {
            let v6 = usize::from(prefix.1.addr().is_ipv6());
            of.hashes[v6] = of.hashes[v6].wrapping_sub(prefix_hash(&prefix));
            of.prefixes -= 1;
            if of.prefixes == 0 {
                self.by_way.remove(&*of.way);
                *place = None;
                self.free.push(no);
                self.version += 1;
            }
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
    /// What is still to be decided anew.
    pub(crate) undecided: Undecided,
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
        let mut ways = Ways { version: self.ways.version + 1, ..Ways::default() };
        let mut vrfs: BTreeMap<VrfNo, Prefixes> = BTreeMap::new();
        for row in rows {
            let (vrf, dst, way) = Way::of(row);
            let (v4, v6) = vrfs.entry(vrf).or_default();
            match dst {
                IpNet::V4(n) => v4.push((n.addr().to_bits(), n.prefix_len(), ways.take(way, (vrf, dst)))),
                IpNet::V6(n) => v6.push((n.addr().to_bits(), n.prefix_len(), ways.take(way, (vrf, dst)))),
            }
        }
        self.ways = ways;
        self.problems.clear();
        self.undecided = Undecided::default();
        let built = |(vrf, prefixes)| (vrf, VrfTables::of(&prefixes, &mut self.problems));
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
                let no = way.map(|way| self.ways.take(way, (vrf, *dst)));
                if no != old {
                    let before = tables.longest(dst).map(|(_, no)| no);
                    changed.prefixes.push(Change { vrf, dst: *dst, own: [old, no], longest: [before, None] });
                } else if let Some(no) = no {
                    self.ways.give_back(no, (vrf, *dst));
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
        for (no, prefix) in changed.prefixes.iter().filter_map(|c| Some((c.own[0]?, (c.vrf, c.dst)))) {
            let way = self.ways.get(no);
            changed.of_file |= way.is_some_and(|w| w.source == RouteSource::Config);
            self.ways.give_back(no, prefix);
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
        self.vrfs.get(&vrf).map(VrfTables::fibs).unwrap_or_default()
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
        self.ways.by_no.iter().flatten().map(|of| &*of.way)
    }

    /// Of each way and family the sum of its prefixes' hashes, for [`sag_pipeline::snapshot::Snapshot::finish`].
    pub(crate) fn prefix_hashes(&self) -> impl Iterator<Item = (u64, bool, u32)> + '_ {
        let numbered = (0u32..).zip(&self.ways.by_no).filter_map(|(no, of)| Some((no, of.as_ref()?)));
        numbered.flat_map(|(no, of)| [(of.hashes[0], false, no), (of.hashes[1], true, no)])
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
        self.vrfs.values().map(VrfTables::len).sum()
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

    /// The same as [`RoutingTables::iter`]: the prefixes within one, itself included, or all; and of these those behind a
    /// prefix of a VRF, which need not be there.
    pub fn select<'t>(
        &'t self,
        within: Option<IpNet>,
        after: Option<(VrfNo, IpNet)>,
    ) -> impl Iterator<Item = (VrfNo, IpNet, &'t Way)> {
        let vrfs = self.vrfs.iter().filter(move |(vrf, _)| after.is_none_or(|(first, _)| **vrf >= first));
        let of = move |(&vrf, tables): (&'t VrfNo, &'t VrfTables)| {
            let after = after.filter(|(first, _)| *first == vrf).map(|(_, dst)| dst);
            tables.select(within, after).map(move |(dst, no)| (vrf, dst, no))
        };
        vrfs.flat_map(of).filter_map(|(vrf, dst, no)| Some((vrf, dst, self.ways.get(no)?)))
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
        let of = |vrf| FAMILIES.map(move |dst| (vrf, dst));
        self.vrfs().flat_map(of).filter_map(|(vrf, dst)| self.get(vrf, &dst))
    }

    /// Whether a route leads into a tunnel, in use or not.
    pub(crate) fn uses_tunnel(&self, no: TunnelNo) -> bool {
        self.ways().flat_map(|w| w.members().iter().chain(&w.unused)).any(|m| m.tunnel == Some(no))
    }

    /// Sources that routes prefer, with the ports by which these lead.
    pub(crate) fn preferred_sources(&self) -> BTreeSet<(PortIdx, Ipv4Addr)> {
        let by_ports = self.ways().flat_map(Way::members).filter(|m| m.tunnel.is_none());
        by_ports.filter_map(|m| Some((m.port, m.source?))).collect()
    }
}

#[cfg(test)]
mod tests;
