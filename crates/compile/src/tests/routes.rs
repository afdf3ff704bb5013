//! Which routes are used, and which are said not to be.

use super::*;
use crate::problem::UnusedRoute;
use sag_pipeline::snapshot::{Member, NextHop, Snapshot};
use sag_rtnl::RouterPreference;

/// What packets to an address are handed to.
fn ways(s: &Snapshot, to: &str) -> Vec<(u8, Option<IpAddr>)> {
    match s.route(ip(to)) {
        Some(Route::Via(members)) => members.iter().map(|m| (m.port.0, m.via)).collect(),
        _ => Vec::new(),
    }
}

fn via(port: u8, gateway: &str) -> Vec<(u8, Option<IpAddr>)> {
    vec![(port, Some(ip(gateway)))]
}

fn unicast(dst: &str, metric: u32, ifindex: u32, gateway: &str) -> KernelRoute {
    route(dst, RouteKind::Unicast, metric, vec![hop(ifindex, Some(gateway))])
}

fn with(state: impl Fn(&mut Nexthop), mut r: KernelRoute) -> KernelRoute {
    r.nexthops.iter_mut().for_each(state);
    r
}

/// Router addresses of the two ports in each family, and a destination with its prefix and a shorter one.
const FAMILIES: [[&str; 5]; 2] = [
    ["192.0.2.9", "203.0.113.9", "10.1.2.3", "10.1.0.0/16", "10.0.0.0/8"],
    ["2001:db8:a::9", "2001:db8:b::9", "2001:db8:1:2::3", "2001:db8:1::/48", "2001:db8::/32"],
];

#[test]
fn a_dead_next_hop_is_not_used_if_another_route_lives() {
    let dead = |h: &mut Nexthop| (h.dead, h.linkdown) = (true, true);
    let no_carrier = |h: &mut Nexthop| h.linkdown = true;
    for [first, second, to, long, short] in FAMILIES {
        let compile = |routes: Vec<KernelRoute>| {
            let mut t = tables();
            routes.into_iter().for_each(|r| t.insert_route(r));
            Gateway::new().snapshot(&config(""), &t, 1)
        };
        let shorter = || unicast(short, 0, 4, second);
        // The better metric while it lives, then the other one.
        let both = |state: &dyn Fn(&mut Nexthop)| {
            compile(vec![with(state, unicast(long, 5, 3, first)), unicast(long, 50, 4, second)])
        };
        assert_eq!(ways(&both(&|_| ()), to), via(0, first));
        assert_eq!(ways(&both(&dead), to), via(1, second));
        assert_eq!(ways(&both(&no_carrier), to), via(1, second));
        // Its ways are those by which packets may come in all the same.
        let s = both(&no_carrier);
        assert!((0..s.routes.places()).flat_map(|no| s.routes.unused(no)).any(|m| m.via == Some(ip(first))));
        // A leg of several.
        let hops = |state: &dyn Fn(&mut Nexthop)| {
            let mut gone = hop(3, Some(first));
            state(&mut gone);
            compile(vec![route(long, RouteKind::Unicast, 0, vec![gone, hop(4, Some(second))])])
        };
        assert_eq!(ways(&hops(&|_| ()), to).len(), 2);
        assert_eq!(ways(&hops(&dead), to), via(1, second));
        assert_eq!(ways(&hops(&no_carrier), to), via(1, second));
        // No other route of the prefix: a dead one is none, one without carrier stays, as in the kernel.
        let alone =
            |state: &dyn Fn(&mut Nexthop)| compile(vec![with(state, unicast(long, 5, 3, first)), shorter()]);
        assert_eq!(ways(&alone(&dead), to), via(1, second), "the shorter prefix");
        assert_eq!(ways(&alone(&no_carrier), to), via(0, first));
        // A route that rejects lives.
        let rejects = compile(vec![
            with(dead, unicast(long, 5, 3, first)),
            route(long, RouteKind::Unreachable, 60, vec![]),
            unicast(long, 70, 4, second),
        ]);
        assert_eq!(rejects.route(ip(to)), Some(&Route::Unreachable));
    }
}

/// A route of the file over a port without carrier gives way to one of the kernel, whatever its metric, and comes back.
#[test]
fn a_route_of_the_file_needs_a_link_too() {
    for [first, second, to, long, _] in FAMILIES {
        let file = format!("[[route]]\ndestination = \"{long}\"\nnext_hop = \"{first}\"\nport = \"0\"\n");
        for running in [true, false] {
            let mut t = tables();
            t.insert_route(unicast(long, 500, 4, second));
            t.insert_link(Link { running, ..link(3, "eth1") });
            let s = Gateway::new().snapshot(&config(&file), &t, 1);
            assert_eq!(ways(&s, to), if running { via(0, first) } else { via(1, second) });
        }
    }
}

#[test]
fn tables_are_asked_in_the_kernels_order() {
    let in_table = |table, mut r: KernelRoute| {
        r.table = table;
        r
    };
    let mut t = tables();
    // `default` is asked for what `main` does not answer: the default route answers everything.
    t.insert_route(in_table(Table::Default, unicast("10.1.0.0/16", 0, 3, "192.0.2.9")));
    let s = Gateway::new().snapshot(&config(""), &t, 1);
    assert_eq!(ways(&s, "10.1.2.3"), via(1, "203.0.113.1"));
    // What `main` throws, whether `default` has all of it, a part or nothing.
    t.insert_route(route("10.0.0.0/8", RouteKind::Throw, 0, vec![]));
    t.insert_route(route("10.8.0.0/16", RouteKind::Throw, 0, vec![]));
    t.insert_route(in_table(Table::Default, unicast("10.8.0.0/13", 0, 3, "192.0.2.8")));
    t.insert_route(unicast("10.9.0.0/16", 0, 4, "203.0.113.3"));
    let s = Gateway::new().snapshot(&config(""), &t, 1);
    assert_eq!(ways(&s, "10.1.2.3"), via(0, "192.0.2.9"));
    assert_eq!(ways(&s, "10.8.0.1"), via(0, "192.0.2.8"));
    assert_eq!(ways(&s, "10.9.0.1"), via(1, "203.0.113.3"), "main has a longer one");
    assert_eq!(ways(&s, "10.15.0.1"), via(0, "192.0.2.8"));
    assert_eq!(s.route(ip("10.200.0.1")), Some(&Route::Throw), "not the default route");
    assert_eq!(ways(&s, "11.0.0.1"), via(1, "203.0.113.1"));
    // IPv6 asks `local` before `main`, whatever the prefixes, and never `default`.
    t.insert_route(in_table(Table::Default, unicast("::/0", 0, 3, "2001:db8:a::9")));
    t.insert_route(route("2001:db8:7::/48", RouteKind::Local, 0, vec![]));
    t.insert_route(unicast("2001:db8:7:1::/64", 0, 3, "2001:db8:a::9"));
    t.insert_route(unicast("2001:db8::/32", 0, 3, "2001:db8:a::8"));
    t.insert_route(route("2001:db8:8::/48", RouteKind::Throw, 0, vec![]));
    let s = Gateway::new().snapshot(&config(""), &t, 1);
    assert_eq!(s.route(ip("2001:db8:7:1::1")), Some(&Route::Local));
    assert_eq!(s.route(ip("2001:db8:8::1")), Some(&Route::Throw));
    assert_eq!(ways(&s, "2001:db8:9::1"), via(0, "2001:db8:a::8"));
    assert_eq!(s.route(ip("2001:4860::1")), None);
    // Of IPv4 they are one.
    t.insert_route(route("172.16.0.0/12", RouteKind::Local, 0, vec![]));
    t.insert_route(unicast("172.16.1.0/24", 0, 3, "192.0.2.9"));
    let s = Gateway::new().snapshot(&config(""), &t, 1);
    assert_eq!(ways(&s, "172.16.1.1"), via(0, "192.0.2.9"));
    assert_eq!(s.route(ip("172.16.2.1")), Some(&Route::Local));
}

#[test]
fn the_preferred_router_wins_among_equal_metrics() {
    let mut t = tables();
    let prefer = |preference, mut r: KernelRoute| {
        r.preference = preference;
        r
    };
    t.insert_route(prefer(RouterPreference::Low, unicast("::/0", 1024, 3, "2001:db8:a::1")));
    t.insert_route(prefer(RouterPreference::High, unicast("::/0", 1024, 4, "2001:db8:b::2")));
    t.insert_route(prefer(RouterPreference::Medium, unicast("::/0", 1024, 4, "2001:db8:b::3")));
    let s = Gateway::new().snapshot(&config(""), &t, 1);
    assert_eq!(ways(&s, "2001:4860::1"), via(1, "2001:db8:b::2"));
    t.insert_route(prefer(RouterPreference::Low, unicast("::/0", 512, 3, "2001:db8:a::4")));
    let s = Gateway::new().snapshot(&config(""), &t, 1);
    assert_eq!(ways(&s, "2001:4860::1"), via(0, "2001:db8:a::4"), "the metric counts first");
}

/// The MTU of a route goes with its next hops and to the tunnels over it. A router whose routes agree has it in its record, so
/// that XDP forwards by it; otherwise the record has the largest.
#[test]
fn a_route_has_an_mtu_of_its_own() {
    let mut t = tables();
    let sized = |mtu, mut r: KernelRoute| {
        r.mtu = Some(mtu);
        r
    };
    t.insert_neighbor(neighbor(4, "203.0.113.9", NeighborState::Reachable));
    t.insert_route(sized(1300, unicast("10.0.0.0/8", 0, 4, "203.0.113.9")));
    t.insert_route(sized(70_000, unicast("11.0.0.0/8", 0, 3, "192.0.2.9")));
    t.insert_route(sized(600, unicast("2001:db8::/32", 0, 4, "2001:db8:b::9")));
    let tunnel = "[[tunnel]]\nname = \"t\"\nkind = \"gre\"\nlocal = \"203.0.113.2\"\nremote = \"10.1.1.1\"\n";
    let mut gateway = Gateway::new();
    let s = gateway.snapshot(&config(tunnel), &t, 1);
    let mtu = |s: &Snapshot, to: &str| match s.route(ip(to)) {
        Some(Route::Via(m)) => m[0].mtu,
        other => panic!("{other:?}"),
    };
    assert_eq!((mtu(&s, "10.0.0.1"), mtu(&s, "11.0.0.1"), mtu(&s, "8.8.8.8")), (1300, u16::MAX, 0));
    assert_eq!(mtu(&s, "2001:db8::1"), 1280, "what every link carries of IPv6");
    assert_eq!(s.tunnels.iter().map(|t| t.state.link_mtu()).collect::<Vec<_>>(), [1300]);
    let record = |s: &Snapshot| -> NextHop { s.resolved(PortIdx(1), ip("203.0.113.9")).unwrap() };
    let before = record(&s);
    assert_eq!(before.mtu, 1300);
    // One more route by the router, of full size: flows by the first one must not take the record's MTU for theirs.
    t.insert_route(unicast("12.0.0.0/8", 0, 4, "203.0.113.9"));
    let s = gateway.snapshot(&config(tunnel), &t, 1);
    assert_eq!(record(&s).mtu, 1500);
    assert_ne!(record(&s).generation, before.generation);
    // A neighbor that answers again keeps it.
    t.insert_route(sized(1300, unicast("12.0.0.0/8", 0, 4, "203.0.113.9")));
    let mut t2 = tables();
    t2.insert_neighbor(neighbor(4, "203.0.113.9", NeighborState::Reachable));
    t2.insert_route(sized(1300, unicast("12.0.0.0/8", 0, 4, "203.0.113.9")));
    let plan = gateway.compile(&config(tunnel), &t2, 1, NOW);
    assert_eq!(record(&plan.snapshot).mtu, 1300);
    let key = (4, ip("203.0.113.9"));
    let ports = &plan.snapshot.ports;
    let (one, _) = gateway.compiler.plan_neighbor(&t2, &plan.bindings, key, ports, NOW.monotonic).unwrap();
    gateway.records.nexthops.apply(&one);
    assert_eq!(record(&plan.snapshot).mtu, 1300);
}

#[test]
fn a_next_hop_is_found_behind_other_routes() {
    let file = r#"
        [[route]]
        destination = "10.1.0.0/16"
        next_hop = "198.18.0.1"
        [[route]]
        destination = "10.2.0.0/16"
        next_hop = "198.18.0.2"
        [[route]]
        destination = "10.3.0.0/16"
        next_hop = "198.18.0.3"
        [[route]]
        destination = "10.4.0.0/16"
        next_hop = "198.51.100.7"
        [[route]]
        destination = "10.5.0.0/16"
        next_hop = "198.19.0.1"
        [[route]]
        destination = "10.6.0.0/16"
        next_hop = "203.0.113.77"
        weight = 2
        [[route]]
        destination = "198.18.0.3/32"
        port = "0"
        [[route]]
        destination = "2001:db8:1::/48"
        next_hop = "2001:db8:ffff::1"
        [[route]]
        destination = "2001:db8:2::/48"
        next_hop = "2001:db8:ffff::2"
    "#;
    let mut t = tables();
    t.insert_route(route("198.18.0.1/32", RouteKind::Unicast, 0, vec![hop(4, None)]));
    t.insert_route(unicast("198.18.0.2/32", 0, 3, "192.0.2.9"));
    t.insert_route(route("203.0.113.77/32", RouteKind::Unicast, 0, vec![hop(3, None)]));
    t.insert_route(route("2001:db8:ffff::1/128", RouteKind::Unicast, 0, vec![hop(4, None)]));
    let plan = Gateway::new().compile(&config(file), &t, 1, NOW);
    let s = &plan.snapshot;
    assert_eq!(ways(s, "10.1.0.1"), via(1, "198.18.0.1"), "behind a host route of the kernel");
    assert_eq!(ways(s, "10.2.0.1"), via(0, "192.0.2.9"), "behind a router");
    assert_eq!(ways(s, "10.3.0.1"), via(0, "198.18.0.3"), "behind a host route of the file");
    assert_eq!(
        ways(s, "10.6.0.1"),
        via(0, "203.0.113.77"),
        "the host route, not the network of the other port"
    );
    assert_eq!(
        s.route(ip("10.6.0.1")),
        Some(&Route::Via(vec![Member {
            weight: 2,
            ..Member::port(PortIdx(0), Some(ip("203.0.113.77")), 1)
        }]))
    );
    assert_eq!(ways(s, "2001:db8:1::1"), via(1, "2001:db8:ffff::1"));
    // Behind a port of role mgmt, or by the default route alone: said, and left out.
    let lost = |destination: &str, next_hop: &str| Problem::NextHopNotFound {
        destination: destination.parse().unwrap(),
        next_hop: ip(next_hop),
    };
    let want = [
        lost("10.4.0.0/16", "198.51.100.7"),
        lost("10.5.0.0/16", "198.19.0.1"),
        lost("2001:db8:2::/48", "2001:db8:ffff::2"),
    ];
    assert_eq!(plan.problems, want);
    assert!(plan.problems.iter().all(Problem::is_error));
    assert_eq!(ways(s, "10.4.0.1"), via(1, "203.0.113.1"));
}

#[test]
fn routes_that_cannot_be_used_are_said() {
    let mut t = tables();
    let mut by_tos = unicast("10.1.0.0/16", 0, 4, "203.0.113.9");
    by_tos.tos = 0x10;
    t.insert_route(by_tos);
    let from = Some("2001:db8:5::/48".parse().unwrap());
    let mut by_source = unicast("2001:db8:1::/48", 0, 4, "2001:db8:b::9");
    by_source.from = from;
    t.insert_route(by_source);
    t.insert_route(with(|h| h.encap = true, unicast("10.2.0.0/16", 0, 4, "203.0.113.9")));
    t.insert_route(with(|h| h.encap = true, unicast("10.3.0.0/16", 0, 4, "203.0.113.9")));
    let plan = Gateway::new().compile(&config(""), &t, 1, NOW);
    let note = |kind, example: &str| Problem::UnusedRoutes { kind, example: example.parse().unwrap() };
    let want = [
        note(UnusedRoute::TypeOfService, "10.1.0.0/16"),
        note(UnusedRoute::Source, "2001:db8:1::/48"),
        note(UnusedRoute::Encapsulation, "10.2.0.0/16"),
    ];
    assert_eq!(plan.problems, want);
    assert!(!plan.problems.iter().any(Problem::is_error));
    assert_eq!(ways(&plan.snapshot, "10.1.0.1"), via(1, "203.0.113.1"));
    assert_eq!(plan.snapshot.route(ip("10.2.0.1")), Some(&Route::NotOurs));
    assert_eq!(plan.snapshot.route(ip("2001:db8:1::1")), None);
}
