//! What changes cost beside a full Internet table: of one route, of a port, of a tunnel, of a route of the file.
//!
//! Usage: `full_table [--routes4 N] [--routes6 N] [--changes N]`. Prints a line of JSON for each case: milliseconds or
//! microseconds of the control thread, and what the longest step takes during which nobody else is answered.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sag_compile::{ClockReading, Compiler, PortBinding, RouteUpdate, SharedRecords};
use sag_fib::generate::{self, Rng};
use sag_model::config::{self, Config, Timestamp};
use sag_model::{MacAddr, Nanos};
use sag_pipeline::snapshot::Snapshot;
use sag_rtnl::{
    Address, Link, Nexthop, Route, RouteAttributes, RouteKind, RouteProtocol, RouterPreference, Scope, Table,
    Tables,
};
use std::env;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

const NOW: ClockReading = ClockReading { monotonic: Nanos::from_secs(1000), wall: Timestamp(1_800_000_000) };
/// Prefixes that the daemon decides at a time (`dataplane/src/daemon/route_changes.rs`).
const BATCH: usize = 256;
/// Routers, half of them behind each of two ports.
const ROUTERS: u32 = 64;

const FILE: &str = r#"
[[port]]
name = "a"
device = "eth0"
role = "wan"
[[port]]
name = "b"
device = "eth1"
role = "wan"
[[tunnel]]
name = "t"
kind = "gre"
local = "192.0.2.1"
remote = "192.0.2.9"
[[route]]
destination = "203.0.113.0/24"
tunnel = "t"
"#;

/// The kernel's interface of a router, and its address.
fn router(no: u32, v6: bool) -> (u32, IpAddr) {
    let (ifindex, host) = (2 + no % 2, 100 + no as u16);
    let third = if ifindex == 2 { 2 } else { 3 };
    let via = if v6 {
        IpAddr::from([0x2001, 0xdb8, third, 0, 0, 0, 0, host])
    } else {
        IpAddr::from([192, 0, third as u8, host as u8])
    };
    (ifindex, via)
}

fn route(dst: IpNet, no: u32) -> Route {
    let (ifindex, gateway) = router(no, dst.addr().is_ipv6());
    let (dead, linkdown, onlink, encap) = (false, false, false, false);
    let hop = Nexthop { ifindex, gateway: Some(gateway), weight: 1, dead, linkdown, onlink, encap };
    let attributes = RouteAttributes {
        from: None,
        table: Table::Main,
        tos: 0,
        priority: 20,
        preference: RouterPreference::Medium,
        kind: RouteKind::Unicast,
        protocol: RouteProtocol(186),
        prefsrc: None,
        nexthops: vec![hop],
        nexthop_id: None,
        mtu: None,
    };
    Route { dst, attributes }
}

fn link(ifindex: u32, name: &str, running: bool) -> Link {
    Link { mac: Some(MacAddr([2, 0, 0, 0, 0, ifindex as u8])), running, ..Link::new(ifindex, name) }
}

/// Two ports with their networks, and the table.
fn tables(routes: impl Iterator<Item = (IpNet, u32)>) -> Tables {
    let mut t = Tables::default();
    for (ifindex, name, nets) in
        [(2, "eth0", ["192.0.2.1/24", "2001:db8:2::1/64"]), (3, "eth1", ["192.0.3.1/24", "2001:db8:3::1/64"])]
    {
        t.insert_link(link(ifindex, name, true));
        for net in nets.iter().filter_map(|n| n.parse::<IpNet>().ok()) {
            t.insert_address(Address {
                ifindex,
                addr: net.addr(),
                prefix_len: net.prefix_len(),
                scope: Scope::Global,
                secondary: false,
                peer: None,
                tentative: false,
                duplicate: false,
                deprecated: false,
            });
        }
    }
    routes.for_each(|(dst, no)| t.insert_route(route(dst, no)));
    t
}

struct Gateway {
    compiler: Compiler,
    records: SharedRecords,
    tables: Tables,
    config: Config,
    snapshot: Snapshot,
    bindings: Vec<PortBinding>,
}

impl Gateway {
    fn new(tables: Tables, config: Config) -> Gateway {
        let mut records = SharedRecords::private(1_000);
        let mut compiler = Compiler::new(&records, Arc::default());
        let plan = compiler.compile(&config, &tables, 1, NOW);
        records.apply(&plan.records, NOW.monotonic);
        Gateway { compiler, records, tables, config, snapshot: plan.snapshot, bindings: plan.bindings }
    }

    /// Everything but routes that have not changed; returns whether these too.
    fn compile(&mut self) -> bool {
        let plan = self.compiler.compile_changes(&self.config, (&self.tables, &[]), 1, NOW);
        self.records.apply(&plan.records, NOW.monotonic);
        (self.snapshot, self.bindings) = (plan.snapshot, plan.bindings);
        plan.all_routes
    }

    fn change(&mut self, prefixes: &[IpNet]) -> Result<(), String> {
        let published = (&self.bindings[..], &self.snapshot);
        match self.compiler.change_routes(&self.config, &self.tables, published, prefixes, NOW.monotonic) {
            RouteUpdate::Routes(change) => {
                self.records.nexthops.apply(&change.nexthops);
                self.snapshot = change.snapshot;
                Ok(())
            }
            other => Err(format!("no change of routes alone: {other:?}")),
        }
    }

    /// Something else than routes has changed: all that follows, step by step. Milliseconds in all, and of the longest
    /// step.
    fn follow(&mut self) -> Result<(f64, f64), String> {
        let (mut all, mut longest) = (0.0f64, 0.0f64);
        let mut count = |began: Instant| {
            let took = began.elapsed().as_secs_f64() * 1e3;
            all += took;
            longest = longest.max(took);
        };
        let began = Instant::now();
        let whole = self.compile();
        count(began);
        if whole {
            return Err("all routes were looked at".to_owned());
        }
        while self.compiler.has_undecided() {
            let began = Instant::now();
            let found = self.compiler.next_undecided(&self.tables);
            count(began);
            for batch in found.chunks(BATCH) {
                let began = Instant::now();
                self.change(batch)?;
                count(began);
            }
        }
        Ok((all, longest))
    }
}

fn print(case: &str, unit: &str, values: &[f64]) {
    let values: Vec<_> = values.iter().map(|v| format!("{v:.3}")).collect();
    println!("{{\"case\": \"{case}\", \"unit\": \"{unit}\", \"values\": [{}]}}", values.join(", "));
}

/// Withdraws, announces and moves single routes.
fn single(g: &mut Gateway, routes: &[(IpNet, u32)], count: usize) -> Result<(), String> {
    let mut rng = Rng::new(17);
    let mut took: [Vec<f64>; 3] = Default::default();
    for _ in 0..count {
        let (dst, no) = routes[rng.below(routes.len())];
        for (case, new) in [None, Some(no), Some((no + 1) % ROUTERS)].into_iter().enumerate() {
            let began = Instant::now();
            g.tables.remove_routes_to(&dst);
            new.into_iter().for_each(|no| g.tables.insert_route(route(dst, no)));
            g.change(&[dst])?;
            took[case].push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    for (case, values) in ["withdrawn", "announced", "moved"].iter().zip(&mut took) {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[(values.len() as f64 * share) as usize];
        print(&format!("a route is {case}"), "µs", &[at(0.5), at(0.9), at(0.99), values[values.len() - 1]]);
    }
    Ok(())
}

fn run() -> Result<(), String> {
    let (mut counts, mut changes) = ([1_000_000, 200_000], 5_000);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or(format!("{arg} needs a number"));
        match arg.as_str() {
            "--routes4" => counts[0] = number()?,
            "--routes6" => counts[1] = number()?,
            "--changes" => changes = number()?,
            _ => return Err(format!("unknown: {arg}")),
        }
    }
    let v4 = |(a, len, no): (u32, u8, u32)| Some((IpNet::V4(Ipv4Net::new(a.into(), len).ok()?), no));
    let v6 = |(a, len, no): (u128, u8, u32)| Some((IpNet::V6(Ipv6Net::new(a.into(), len).ok()?), no));
    let mut routes: Vec<(IpNet, u32)> =
        generate::ipv4(1, counts[0], ROUTERS).into_iter().filter_map(v4).collect();
    routes.extend(generate::ipv6(2, counts[1], ROUTERS).into_iter().filter_map(v6));
    // A default route that comes or goes concerns more than routes.
    routes.retain(|(dst, _)| dst.prefix_len() > 0);
    let parse = |text: &str| config::parse(text, "full_table").map(|c| c.config).map_err(|e| e.to_string());
    let started = rss();
    let tables = tables(routes.iter().copied());
    let mirror = rss();
    let began = Instant::now();
    let mut g = Gateway::new(tables, parse(FILE)?);
    print("all routes are compiled", "ms", &[began.elapsed().as_secs_f64() * 1e3]);
    let count = routes.len() as f64;
    print("memory of the mirror, a route", "bytes", &[(mirror - started) / count]);
    print("memory of the routing tables, a route", "bytes", &[(rss() - mirror) / count]);
    single(&mut g, &routes, changes)?;

    let mut follow = |case: &str, change: &dyn Fn(&mut Gateway) -> Result<(), String>| {
        change(&mut g)?;
        let (all, longest) = g.follow()?;
        print(&format!("{case}, in all"), "ms", &[all]);
        print(&format!("{case}, the longest step"), "ms", &[longest]);
        Ok::<(), String>(())
    };
    follow("nothing", &|_| Ok(()))?;
    for (running, case) in [(false, "a port goes down"), (true, "a port comes up")] {
        follow(case, &|g| {
            g.tables.insert_link(link(2, "eth0", running));
            Ok(())
        })?;
    }
    follow("a tunnel goes down", &|g| {
        g.snapshot.tunnels.iter().for_each(|t| t.state.set_up(false));
        Ok(())
    })?;
    follow("a route of the file changes", &|g| {
        g.config = parse(&FILE.replace("203.0.113.0/24", "198.51.100.0/24"))?;
        Ok(())
    })
}

/// Bytes of memory that the process has.
fn rss() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
    pages * 4096.0
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("full_table: {error}");
            ExitCode::FAILURE
        }
    }
}
