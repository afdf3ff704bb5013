//! Keeps the routing tables: as a whole, or the prefixes alone whose routes have changed.

use crate::assemble::routers_of;
use crate::compiler::{Compiler, link_address};
use crate::nexthops::NextHopPlan;
use crate::ports::PortBinding;
use crate::problem::Problem;
use crate::routes::{Affected, Inputs, Sources, collect};
use crate::routing_tables::{Change, Changed};
use ipnet::IpNet;
use sag_model::config::Config;
use sag_model::flow::next_epoch;
use sag_model::{MacAddr, Nanos, VrfNo};
use sag_pipeline::snapshot::{Member, NeighborKey, Route, RouteList, Snapshot, prefix_hash};
use sag_rtnl::Tables;

/// A prefix whose packets go other ways than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerouted {
    /// The prefix.
    pub dst: IpNet,
    /// The ways out that it had, by the longest prefix that held it, in use or not.
    pub before: Vec<Member>,
}

/// A snapshot with other routes, and what goes with it.
#[derive(Debug)]
pub struct RouteChange {
    /// What workers forward by.
    pub snapshot: Snapshot,
    /// Next hops whose records are to be written.
    pub nexthops: NextHopPlan,
    /// Prefixes that go other ways than before.
    pub rerouted: Vec<Rerouted>,
    /// Routers have come or gone.
    pub routers: bool,
    /// A route of the file wins, or has won, for one of the prefixes.
    pub of_file: bool,
    /// What the routes ask for and cannot have.
    pub problems: Vec<Problem>,
}

/// What a change of routes comes to.
#[derive(Debug)]
pub enum RouteUpdate {
    /// The prefixes cannot be decided by themselves: everything has to be compiled. Nothing has been done.
    Everything,
    /// The tables are up to date. More than routes depends on these prefixes, so [`Compiler::compile_changes`] is needed.
    Policy(Vec<Rerouted>),
    /// Routes alone.
    Routes(Box<RouteChange>),
}

impl Compiler {
    /// Brings the routing tables up to date. The kernel's routes to `prefixes` may be others than the last time; all others
    /// are not looked at, as far as these can be decided by themselves, and those of the kernel's that may be decided
    /// otherwise because of something else are left for [`Compiler::next_undecided`]. Returns whether all were.
    pub(crate) fn update_routes(
        &mut self,
        config: &Config,
        tables: &Tables,
        bindings: &[PortBinding],
        prefixes: &[IpNet],
    ) -> bool {
        let inputs = Inputs::of(self.route_sources(config, tables, bindings));
        let affected = match &self.routes.inputs {
            Some(old) if *old == inputs => Some(Affected::default()),
            Some(old) => old.affected_by(&inputs, |no| self.routes.uses_tunnel(no)),
            None => None,
        };
        if let Some(affected) = affected {
            self.routes.inputs = Some(inputs);
            let prefixes: Vec<IpNet> = prefixes.iter().copied().chain(affected.prefixes).collect();
            if self.change_tables(config, tables, bindings, &prefixes).is_some() {
                self.routes.undecided.add(affected.interfaces);
                return false;
            }
        }
        let inputs = Inputs::of(self.route_sources(config, tables, bindings));
        let all = collect(self.route_sources(config, tables, bindings), None);
        self.routes.replace(all.rows);
        self.routes.problems.extend(all.problems);
        (self.routes.layered, self.routes.inputs) = (all.layered, Some(inputs));
        true
    }

    fn route_sources<'c>(
        &'c self,
        config: &'c Config,
        tables: &'c Tables,
        bindings: &'c [PortBinding],
    ) -> Sources<'c> {
        let (tunnels, vrfs, max_learned) = (&self.tunnels, &self.vrfs, self.max_learned);
        Sources { config, tables, bindings, tunnels, vrfs, max_learned }
    }

    /// Decides these prefixes anew. `None`: they cannot be decided by themselves.
    fn change_tables(
        &mut self,
        config: &Config,
        tables: &Tables,
        bindings: &[PortBinding],
        prefixes: &[IpNet],
    ) -> Option<Changed> {
        let only = self.routes.inputs.as_ref()?.only(prefixes.iter().map(IpNet::trunc));
        let by_itself = |p: &IpNet| !self.routes.layered[usize::from(p.addr().is_ipv6())];
        // Which of too many learned routes are looked up depends on all of them.
        if tables.route_count() > self.max_learned || !only.prefixes.iter().all(by_itself) {
            return None;
        }
        if only.prefixes.is_empty() {
            return Some(Changed::default());
        }
        let collected = collect(self.route_sources(config, tables, bindings), Some(&only));
        if collected.layered != [false; 2] {
            return None;
        }
        let changed = self.routes.change(&only.prefixes, collected.rows).ok();
        if changed.is_none() {
            self.routes.inputs = None;
        }
        let problems = &mut self.routes.problems;
        let again = |p: &Problem| matches!(p, Problem::NextHopNotFound { destination, .. } if only.prefixes.contains(destination));
        problems.retain(|p| !again(p));
        for problem in collected.problems {
            let is_kind = |p: &Problem| std::mem::discriminant(p) == std::mem::discriminant(&problem);
            // One example of a kind is enough.
            let is_new = match problem {
                Problem::UnusedRoutes { .. } => !problems.iter().any(is_kind),
                Problem::NextHopNotFound { .. } => true,
                _ => false,
            };
            if is_new {
                problems.push(problem);
            }
        }
        changed
    }

    /// Whether there are routes of the kernel's to decide anew that [`Compiler::next_undecided`] is to find.
    pub fn has_undecided(&self) -> bool {
        !self.routes.undecided.is_empty()
    }

    /// Takes a bounded step in finding the prefixes that are to be decided anew, by [`Compiler::change_routes`], because
    /// something else than the kernel's routes has changed. It may find none of them.
    pub fn next_undecided(&mut self, tables: &Tables) -> Vec<IpNet> {
        self.routes.undecided.step(tables)
    }

    /// What a change of the kernel's routes to these prefixes means, while everything else is as it was when `old` was
    /// compiled: in the best case a snapshot that has other routes and all else in common with it.
    pub fn change_routes(
        &mut self,
        config: &Config,
        tables: &Tables,
        (bindings, old): (&[PortBinding], &Snapshot),
        prefixes: &[IpNet],
        now: Nanos,
    ) -> RouteUpdate {
        let sources = self.routes.preferred_sources();
        let Some(changed) = self.change_tables(config, tables, bindings, prefixes) else {
            return RouteUpdate::Everything;
        };
        let list = self.routes.list();
        let rerouted = changed.prefixes.iter().filter_map(|c| rerouted(c, &old.routes, &list)).collect();
        let mut snapshot = self.with_routes(old, list);
        let is_default = |c: &Change| c.dst.prefix_len() == 0;
        let same_path = |t: &sag_pipeline::tunnel::Tunnel| {
            old.route_no(VrfNo::DEFAULT, t.remote) == snapshot.route_no(VrfNo::DEFAULT, t.remote)
        };
        if changed.prefixes.iter().any(is_default)
            || !old.tunnels.iter().all(same_path)
            || changed.ways && self.routes.preferred_sources() != sources
            || self.routes.vrfs().any(|vrf| old.vrf(vrf).is_none())
        {
            return RouteUpdate::Policy(rerouted);
        }
        snapshot.source_checks = source_checks(old, &snapshot, &changed.prefixes);
        if snapshot.source_checks != old.source_checks {
            snapshot.epoch = next_epoch(old.epoch);
        }
        let mut nexthops = NextHopPlan::default();
        if changed.ways {
            for key in self.numbers.nexthops.change_routers(self.routes.ways().flat_map(routers_of)) {
                let mac = mac_of(config, tables, bindings, key);
                nexthops.append(self.numbers.nexthops.plan_one(&old.ports, key, mac, now).0);
            }
        }
        RouteUpdate::Routes(Box::new(RouteChange {
            snapshot,
            nexthops,
            rerouted,
            routers: changed.ways,
            of_file: changed.of_file,
            problems: self.routes.problems.clone(),
        }))
    }

    /// A snapshot with the routes of now.
    fn with_routes(&self, old: &Snapshot, routes: RouteList) -> Snapshot {
        let mut new = Snapshot { routes, ..old.clone() };
        for (no, vrf) in (0u8..).zip(&mut new.vrfs) {
            if let (Some(no), Some(vrf)) = (VrfNo::new(no), vrf) {
                (vrf.fib4, vrf.fib6) = self.routes.fibs(no);
            }
        }
        new
    }
}

/// What a change means for packets to the prefix.
fn rerouted(c: &Change, old: &RouteList, new: &RouteList) -> Option<Rerouted> {
    let way = |list: &RouteList, no: Option<u32>| {
        no.and_then(|no| Some((list.get(no)?.clone(), list.unused(no).to_vec())))
    };
    let (before, after) = (way(old, c.longest[0]), way(new, c.longest[1]));
    if before == after {
        return None;
    }
    let (route, unused) = before?;
    let mut members = if let Route::Via(members) = route { members } else { Vec::new() };
    members.extend(unused);
    Some(Rerouted { dst: c.dst, before: members })
}

/// The sum of the source checks, from that of the snapshot before.
fn source_checks(old: &Snapshot, new: &Snapshot, changes: &[Change]) -> u64 {
    let (mut usual, mut usual_now) = (old.usual_sources(), new.usual_sources());
    let mut sum = old.source_checks;
    for c in changes {
        let of = |no| (prefix_hash(&(c.vrf, c.dst)), c.dst.addr().is_ipv6(), no);
        if let Some(no) = c.own[0] {
            sum = sum.wrapping_sub(old.source_check(&mut usual, of(no)));
        }
        if let Some(no) = c.own[1] {
            sum = sum.wrapping_add(new.source_check(&mut usual_now, of(no)));
        }
    }
    sum
}

/// Where frames to a next hop go, if it is resolved.
fn mac_of(config: &Config, tables: &Tables, bindings: &[PortBinding], key: NeighborKey) -> Option<MacAddr> {
    let fixed = config.neighbors.iter().find(|n| (n.port, n.address) == key);
    fixed.map(|n| n.mac).or_else(|| {
        let binding = bindings.get(key.0.index()).filter(|b| b.ours())?;
        tables.neighbor(binding.l3_ifindex?, key.1).and_then(link_address)
    })
}
