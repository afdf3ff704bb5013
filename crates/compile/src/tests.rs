//! Compiling, and what it writes: nothing.

mod kernel_routes;
mod route_changes;
mod route_inputs;
mod routes;
mod tunnel_devices;
mod vrfs;
mod wans;

use super::*;
use sag_model::config::{self, Config};
use sag_model::flow::NextHopRecord;
use sag_model::ids::Zone;
use sag_model::meter::{METER_GROUPS, METERS, Meter, MeterGroup};
use sag_model::{MacAddr, PortIdx};
use sag_pipeline::nat::{Identifications, NatState, POOL_WORDS, POOLS};
use sag_pipeline::policy::{AclVerdict, Header, Tuple};
use sag_pipeline::qos::MeterTable;
use sag_pipeline::snapshot::Route;
use sag_rtnl::{
    Address, Link, Neighbor, NeighborState, Nexthop, Route as KernelRoute, RouteKind, RouteProtocol, Scope,
    Table, Tables,
};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NOW: ClockReading =
    ClockReading { monotonic: sag_model::Nanos::from_secs(1000), wall: config::Timestamp(1_800_000_000) };

const PORTS: &str = r#"
[[port]]
name = "0"
device = "eth1"
role = "lan"

[[port]]
name = "1"
device = "eth0"
role = "wan"

[[port]]
name = "m"
device = "eth9"
role = "mgmt"
"#;

fn config(more: &str) -> Config {
    config::parse(&format!("{PORTS}{more}"), "test.toml").unwrap().config
}

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

fn link(ifindex: u32, name: &str) -> Link {
    Link {
        mac: Some(MacAddr([2, 0, 0, 0, 0, ifindex as u8])),
        kind: Some("veth".into()),
        ..Link::new(ifindex, name)
    }
}

fn address(ifindex: u32, net: &str) -> Address {
    let net: ipnet::IpNet = net.parse().unwrap();
    Address {
        ifindex,
        addr: net.addr(),
        prefix_len: net.prefix_len(),
        scope: Scope::Global,
        secondary: false,
        peer: None,
        tentative: false,
        duplicate: false,
        deprecated: false,
    }
}

fn hop(ifindex: u32, gateway: Option<&str>) -> Nexthop {
    Nexthop {
        ifindex,
        gateway: gateway.map(ip),
        weight: 1,
        dead: false,
        linkdown: false,
        onlink: false,
        encap: false,
    }
}

fn route(dst: &str, kind: RouteKind, priority: u32, nexthops: Vec<Nexthop>) -> KernelRoute {
    let attributes = sag_rtnl::RouteAttributes {
        from: None,
        table: if kind == RouteKind::Local { Table::Local } else { Table::Main },
        tos: 0,
        priority,
        preference: sag_rtnl::RouterPreference::Medium,
        kind,
        protocol: RouteProtocol(3),
        prefsrc: None,
        nexthops,
        nexthop_id: None,
        mtu: None,
    };
    KernelRoute { dst: dst.parse().unwrap(), attributes }
}

fn neighbor(ifindex: u32, addr: &str, state: NeighborState) -> Neighbor {
    Neighbor {
        ifindex,
        ip: ip(addr),
        mac: Some(MacAddr([2, 9, 9, 9, 9, 9])),
        state,
        router: false,
        ext_learned: false,
        managed: false,
    }
}

/// eth1 = 3 with 192.0.2.1/24, eth0 = 4 with 203.0.113.2/24, eth9 = 5.
fn tables() -> Tables {
    let mut t = Tables::default();
    for l in [link(3, "eth1"), link(4, "eth0"), link(5, "eth9")] {
        t.insert_link(l);
    }
    for a in [address(3, "192.0.2.1/24"), address(4, "203.0.113.2/24"), address(5, "198.51.100.9/24")] {
        t.insert_address(a);
    }
    t.insert_route(route("192.0.2.0/24", RouteKind::Unicast, 0, vec![hop(3, None)]));
    t.insert_route(route("203.0.113.0/24", RouteKind::Unicast, 0, vec![hop(4, None)]));
    t.insert_route(route("198.51.100.0/24", RouteKind::Unicast, 0, vec![hop(5, None)]));
    t.insert_route(route("0.0.0.0/0", RouteKind::Unicast, 0, vec![hop(4, Some("203.0.113.1"))]));
    t.insert_route(route("192.0.2.1/32", RouteKind::Local, 0, vec![hop(3, None)]));
    t
}

/// A compiler and the records that its plans are applied to.
struct Gateway {
    records: SharedRecords,
    compiler: Compiler,
}

impl Gateway {
    fn new() -> Gateway {
        Gateway::over(NextHopTable::open(records(64), 0), MeterTable::private())
    }

    fn over(nexthops: NextHopTable, meters: MeterTable) -> Gateway {
        let records = SharedRecords { nexthops, nat: Arc::new(NatState::private(1000)), meters };
        Gateway { compiler: Compiler::new(&records, Arc::default()), records }
    }

    /// Compiles and applies.
    fn compile(&mut self, config: &Config, tables: &Tables, epoch: u32, clock: ClockReading) -> Plan {
        let plan = self.compiler.compile(config, tables, epoch, clock);
        self.records.apply(&plan.records, clock.monotonic);
        plan
    }

    fn snapshot(&mut self, config: &Config, tables: &Tables, epoch: u32) -> sag_pipeline::snapshot::Snapshot {
        self.compile(config, tables, epoch, NOW).snapshot
    }
}

fn records(count: usize) -> &'static [NextHopRecord] {
    Vec::leak((0..count).map(|_| NextHopRecord::default()).collect())
}

#[test]
fn kernel_tables_become_routes_ports_and_local_addresses() {
    let s = &Gateway::new().snapshot(&config(""), &tables(), 7);
    assert_eq!(s.epoch, 7);
    assert_eq!((s.ports[0].zone, s.ports[0].ifindex, s.ports[0].mtu), (Zone::Lan, 3, 1500));
    assert_eq!(s.ingress.port(s.ports[1].dev, 0), Some(PortIdx(1)));
    let via = |a: &str| match s.route(ip(a)) {
        Some(Route::Via(m)) => Some((m[0].port, m[0].via)),
        _ => None,
    };
    assert_eq!(via("192.0.2.77"), Some((PortIdx(0), None)));
    assert_eq!(via("8.8.8.8"), Some((PortIdx(1), Some(ip("203.0.113.1")))));
    assert_eq!(s.route(ip("198.51.100.1")), Some(&Route::NotOurs), "mgmt is the kernel's");
    assert_eq!(s.route(ip("192.0.2.1")), Some(&Route::Local));
    let own = |a| s.is_local(sag_model::VrfNo::DEFAULT, ip(a));
    assert!(own("198.51.100.9") && own("203.0.113.2"));
    assert!(s.route(ip("2001:db8::1")).is_none());
}

/// Whoever speaks to a routing daemon cannot make the gateway look up routes without bound; the operator's own always count.
#[test]
fn wan_sources_are_chosen_as_the_kernel_chooses() {
    let snat = r#"
[[port]]
name = "1"
device = "eth0"
role = "wan"
snat = true
"#;
    let config = config::parse(snat, "test.toml").unwrap().config;
    let mut t = Tables::default();
    t.insert_link(link(4, "eth0"));
    t.insert_link(link(1, "lo"));
    // Neither the order of the numbers nor that of the interfaces counts.
    for (net, scope, secondary) in [
        ("169.254.9.9/16", Scope::Global, false),
        ("10.0.0.9/24", Scope::Link, false),
        ("203.0.113.9/24", Scope::Global, false),
        ("203.0.113.1/24", Scope::Global, true),
        ("198.51.100.7/32", Scope::Global, false),
        ("192.0.2.3/32", Scope::Global, false),
    ] {
        let peer = (net == "192.0.2.3/32").then(|| ip("192.0.2.4"));
        t.insert_address(Address { scope, secondary, peer, ..address(4, net) });
    }
    t.insert_address(address(1, "198.18.0.1/32"));
    let preferring = |dst: &str, source: &str| {
        let mut r = route(dst, RouteKind::Unicast, 0, vec![hop(4, Some("203.0.113.254"))]);
        r.prefsrc = Some(ip(source));
        r
    };
    for (dst, source) in [("100.64.0.0/16", "198.18.0.1"), ("100.65.0.0/16", "8.8.8.8")] {
        t.insert_route(preferring(dst, source));
    }
    let mut c = Gateway::new();
    let snap = c.snapshot(&config, &t, 1);
    let wan = snap.nat.wan[0].as_ref().unwrap();
    let order =
        ["203.0.113.9", "198.51.100.7", "192.0.2.3", "203.0.113.1", "10.0.0.9", "169.254.9.9", "198.18.0.1"];
    assert_eq!(wan.addrs().map(|a| a.to_string()).collect::<Vec<_>>(), order);
    let chosen = |dst: &str| {
        let Some(Route::Via(members)) = snap.route(ip(dst)) else { panic!("{dst}") };
        members[0].source.map(|a| a.to_string())
    };
    assert_eq!(chosen("100.64.0.1").as_deref(), Some("198.18.0.1"));
    assert_eq!(snap.nat.sources.len(), order.len());
    // Ports are allocated on those alone that new sessions can get.
    let used = ["203.0.113.9", "192.0.2.3", "169.254.9.9", "198.18.0.1"];
    let has_slots = snap.nat.sources.iter().filter(|s| s.pool.has_slots());
    let mut has_slots: Vec<_> = has_slots.map(|s| s.addr.to_string()).collect();
    has_slots.sort();
    let mut used = used.map(String::from);
    used.sort();
    assert_eq!(has_slots, used);
    // The first of the subnet goes: the kernel makes another one the first, behind the others.
    let mut without = Tables::default();
    without.insert_link(link(4, "eth0"));
    for (net, secondary) in [
        ("203.0.113.1/24", true),
        ("198.51.100.7/24", false),
        ("203.0.113.1/24", false),
        ("10.9.9.9/24", false),
    ] {
        without.insert_address(Address { secondary, ..address(4, net) });
    }
    let order: Vec<_> = without.sources_of(4).iter().map(|a| a.addr.to_string()).collect();
    assert_eq!(order, ["198.51.100.7", "203.0.113.1", "10.9.9.9"]);
}

#[test]
fn forwards_to_the_gateway_itself_are_left_out() {
    let entries = r#"
[[dnat]]
id = "self"
type = "Internet"
ip_protocol = "tcp"
external_port = "8443"
internal_port = "443"
internal_ip = "192.0.2.1"
[[dnat]]
id = "server"
type = "Internet"
ip_protocol = "tcp"
external_port = "8444"
internal_port = "443"
internal_ip = "192.0.2.10"
"#;
    let (config, t) = (config(entries), tables());
    let plan = Gateway::new().compile(&config, &t, 1, NOW);
    assert_eq!(
        plan.problems,
        [Problem::DnatToSelf { id: "self".into(), addr: "192.0.2.1".parse().unwrap() }]
    );
    assert!(plan.problems[0].is_error());
    let forward = |port| plan.snapshot.nat.forward(Zone::Wan, "203.0.113.2".parse().unwrap(), 6, port);
    assert!(forward(8443).is_none() && forward(8444).is_some());
    let own = port_addresses(&config, &t);
    assert_eq!(
        dnat_to_self(&config, |_, a| own.contains(&(None, a))),
        [("self", "192.0.2.1".parse().unwrap())]
    );
    // On a machine without these devices nothing is known.
    assert!(port_addresses(&config, &Tables::default()).is_empty());
}

#[test]
fn learned_routes_are_bounded() {
    let mut c = Gateway::new();
    c.compiler.max_learned = 100;
    let mut t = tables();
    let learned = |dst: &str, protocol| {
        let mut r = route(dst, RouteKind::Unicast, 20, vec![hop(4, Some("203.0.113.1"))]);
        r.protocol = RouteProtocol(protocol);
        r
    };
    for n in 0..100 {
        t.insert_route(learned(&format!("10.0.{n}.0/24"), 186));
        t.insert_route(learned(&format!("2001:db8:{n:x}::/48"), 188));
    }
    let plan = c.compile(&config(""), &t, 1, NOW);
    assert!(plan.problems.is_empty(), "{:?}", plan.problems);
    let before = c.compiler.routes.len();
    for n in 0..50 {
        t.insert_route(learned(&format!("10.1.{n}.0/24"), 186));
    }
    t.insert_route(route("10.2.0.0/16", RouteKind::Unicast, 20, vec![hop(4, Some("203.0.113.1"))]));
    let plan = c.compile(&config(""), &t, 2, NOW);
    assert_eq!(plan.problems, [Problem::TooManyRoutes { limit: 100 }]);
    assert_eq!(c.compiler.routes.len(), before + 1, "the operator's alone");
    // Withdrawn routes make room.
    let mut t = tables();
    t.insert_route(learned("10.1.1.0/24", 186));
    let plan = c.compile(&config(""), &t, 3, NOW);
    assert!(plan.problems.is_empty() && c.compiler.routes.ways().any(|w| w.protocol == "bgp"));
}

#[test]
fn the_lowest_metric_wins_and_the_file_wins_ties() {
    let more = r#"
        [[route]]
        destination = "10.0.0.0/8"
        next_hop = "203.0.113.7"
        metric = 50
        [[route]]
        destination = "10.1.0.0/16"
        type = "blackhole"
        [[route]]
        destination = "10.2.0.0/16"
        next_hop = "203.0.113.8"
        weight = 3
        [[route]]
        destination = "10.2.0.0/16"
        next_hop = "203.0.113.9"
    "#;
    let mut t = tables();
    t.insert_route(route("10.0.0.0/8", RouteKind::Unicast, 20, vec![hop(4, Some("203.0.113.1"))]));
    t.insert_route(route("10.1.0.0/16", RouteKind::Unicast, 20, vec![hop(4, Some("203.0.113.1"))]));
    let s = Gateway::new().snapshot(&config(more), &t, 1);
    let gateway = |a: &str| match s.route(ip(a)) {
        Some(Route::Via(m)) => m.iter().map(|m| (m.via, m.weight)).collect(),
        _ => vec![],
    };
    assert_eq!(gateway("10.9.0.1"), vec![(Some(ip("203.0.113.1")), 1)], "the kernel's metric 20 beats 50");
    assert_eq!(s.route(ip("10.1.0.1")), Some(&Route::Blackhole));
    assert_eq!(gateway("10.2.0.1"), vec![(Some(ip("203.0.113.8")), 3), (Some(ip("203.0.113.9")), 1)]);
}

#[test]
fn neighbors_become_next_hops_whose_numbers_stay() {
    let mut c = Gateway::new();
    let mut t = tables();
    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Reachable));
    t.insert_neighbor(neighbor(4, "203.0.113.3", NeighborState::Incomplete));
    t.insert_neighbor(neighbor(5, "198.51.100.1", NeighborState::Reachable));
    let key = (PortIdx(1), ip("203.0.113.1"));
    let s = c.snapshot(&config(""), &t, 1);
    let n = s.neighbors.get(&key).unwrap();
    assert_eq!(s.neighbors.len(), 1, "unresolved ones and those of mgmt ports are left out");
    let nh = s.nexthop(n).unwrap();
    assert!(nh.valid() && nh.dmac == MacAddr([2, 9, 9, 9, 9, 9]) && nh.smac == s.ports[1].mac);
    assert_eq!((nh.ifindex, nh.mtu, nh.port), (4, 1500, PortIdx(1)));

    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Failed));
    let s = c.snapshot(&config(""), &t, 1);
    assert_eq!(s.neighbors.get(&key), Some(n));
    assert!(!s.nexthop(n).unwrap().valid());

    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Stale));
    let mut down = link(4, "eth0");
    down.running = false;
    t.insert_link(down);
    let s = c.snapshot(&config(""), &t, 1);
    assert!(!s.nexthop(n).unwrap().valid() && !s.ports[1].up, "no carrier");
    assert_eq!(c.records.nexthops.raise_generations(|p, a| (p, a) == key), 1);
    assert_ne!(s.nexthop(n).unwrap().generation, nh.generation);
}

#[test]
fn a_successor_leaves_the_records_of_its_predecessor_alone() {
    let records = records(64);
    let mut t = tables();
    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Reachable));
    let key = (PortIdx(1), ip("203.0.113.1"));
    let over = |last: u32| Gateway::over(NextHopTable::open(records, last), MeterTable::private());
    let mut first = over(0);
    let a = first.snapshot(&config(""), &t, 1).neighbors.get(&key).unwrap();
    let mut second = over(first.records.nexthops.first());
    let s = second.snapshot(&config(""), &t, 2);
    let b = s.neighbors.get(&key).unwrap();
    assert_ne!(a, b);
    assert!(s.nexthop(a).unwrap().valid() && s.nexthop(b).unwrap().valid());
    let (was, generation) = (s.nexthop(b).unwrap(), s.nexthop(a).unwrap().generation);
    // It ends before it has ended its predecessor's records: the third one leaves it alone all the same, and
    // flows of the first one do not take the third one's records for theirs.
    let mut third = over(second.records.nexthops.first());
    let s = third.snapshot(&config(""), &t, 3);
    assert_eq!(s.neighbors.get(&key), Some(a));
    assert_eq!(s.nexthop(b), Some(was));
    assert!(s.nexthop(a).unwrap().valid() && s.nexthop(a).unwrap().generation != generation);
    third.records.nexthops.end_predecessor();
    assert!(!s.nexthop(b).unwrap().valid() && s.nexthop(a).unwrap().valid());
}

const ACLS: &str = r#"
    [[acl]]
    id = "a1"
    [[acl.rule]]
    id = "r1"
    direction = "out"
    type = "WAN"
    policy = "drop"
    ip_protocol = "tcp"
    source_cidr = "192.0.2.0/24"
    dest_cidr = "0.0.0.0/0"
    source_port_range = "-1/-1"
    dest_port_range = "80/80"
    priority = 5
    [[acl]]
    id = "a2"
    [[acl.rule]]
    id = "r2"
    direction = "out"
    type = "WAN"
    policy = "accept"
    ip_protocol = "tcp"
    source_cidr = "192.0.2.7/32"
    dest_cidr = "0.0.0.0/0"
    source_port_range = "-1/-1"
    dest_port_range = "80/80"
    priority = 4
"#;

fn judge(c: &mut Gateway, config: &Config, src: &str, to: Zone) -> AclVerdict {
    let s = c.snapshot(config, &tables(), 1);
    let t = Tuple { proto: 6, src: ip(src), dst: ip("198.51.100.80"), sport: 999, dport: 80 };
    s.acl.check(Zone::Lan, to, &t, Header::default()).0
}

/// A rule stands for every pair of its groups' members, and for nothing else.
#[test]
fn groups_are_the_networks_and_ports_in_them() {
    let text = |members: &str| {
        format!(
            r#"
            [[group]]
            id = "hosts"
            networks = {members}
            [[group]]
            id = "web"
            ports = ["80", "443/444"]
            [[acl]]
            id = "a"
            [[acl.rule]]
            id = "r"
            direction = "out"
            policy = "accept"
            type = "WAN"
            ip_protocol = "tcp"
            source_cidr = "@hosts"
            dest_cidr = "198.51.100.0/24"
            dest_port_range = "@web"
            "#
        )
    };
    let mut c = Gateway::new();
    let mut before = None;
    for (members, hosts) in [
        (r#"["192.0.2.4/31", "192.0.2.9/32"]"#, [4, 5, 9].as_slice()),
        (r#"["192.0.2.0/30"]"#, &[0, 1, 2, 3]),
    ] {
        let config = config(&(text(members) + "[dataplane]\nacl_default = \"drop\"\n"));
        let set = c.compiler.acl.compile(&config, &c.compiler.vrfs, &mut Vec::new());
        for host in 0..12u8 {
            for port in [79, 80, 81, 442, 443, 444, 445] {
                let src = IpAddr::from([192, 0, 2, host]);
                let tuple = Tuple { proto: 6, src, dst: ip("198.51.100.80"), sport: 999, dport: port };
                let (verdict, _) = set.check(Zone::Lan, Zone::Wan, &tuple, Header::default());
                let named = hosts.contains(&host) && matches!(port, 80 | 443 | 444);
                assert_eq!(matches!(verdict, AclVerdict::Accept { .. }), named, "{members} {host} {port}");
            }
        }
        let stats = c.compiler.acl.stats("a", "r").expect("counters");
        let same = before.replace(stats.clone()).is_none_or(|old| Arc::ptr_eq(&old, &stats));
        assert!(same, "other members, the same rule: its counters go on");
    }
}

#[test]
fn qos_policies_name_groups_too() {
    let groups = "[[group]]\nid = \"far\"\nnetworks = [\"198.51.100.6/31\", \"198.51.100.9/32\"]\n\
                  [[group]]\nid = \"few\"\nports = [\"2\", \"7/9\"]\n";
    let named = "dest_cidr = \"@far\"\ndest_port_range = \"@few\"\nip_protocol = \"udp\"";
    let text = QOS.replacen("dest_cidr = \"0.0.0.0/0\"\nip_protocol = \"udp\"", named, 1);
    assert!(text.contains("@far"));
    let policy = Gateway::new().compile(
        &config(&(text + groups)),
        &tables(),
        1,
        ClockReading { wall: config::Timestamp(BEGIN), ..NOW },
    );
    let qos = policy.snapshot.qos;
    for host in 5..11u8 {
        for dport in 1..11 {
            let dst = IpAddr::from([198, 51, 100, host]);
            let tuple = || Tuple { proto: 17, src: ip("192.168.1.10"), dst, sport: 1, dport };
            let of = qos.classify(PortIdx(0), PortIdx(1), sag_pipeline::qos::Mark::default(), tuple);
            let in_groups = matches!(host, 6 | 7 | 9) && matches!(dport, 2 | 7..=9);
            let car = of.car.and_then(|c| qos.car(c));
            assert_eq!(car, Some(if in_groups { "early" } else { "late" }), "{host} {dport}");
        }
    }
}

#[test]
fn all_bound_acls_are_one_list_by_priority() {
    let (mut c, config) = (Gateway::new(), config(ACLS));
    assert!(matches!(judge(&mut c, &config, "192.0.2.7", Zone::Wan), AclVerdict::Accept { slot: Some(_) }));
    assert!(matches!(judge(&mut c, &config, "192.0.2.8", Zone::Wan), AclVerdict::Deny { slot: Some(_) }));
    assert_eq!(judge(&mut c, &config, "192.0.2.8", Zone::Overlay), AclVerdict::Accept { slot: None });
    assert_eq!(judge(&mut c, &config, "192.0.2.8", Zone::Lan), AclVerdict::Accept { slot: None });
}

#[test]
fn hits_survive_the_edit_of_another_rule_and_end_with_their_own() {
    let (mut c, before) = (Gateway::new(), config(ACLS));
    judge(&mut c, &before, "192.0.2.8", Zone::Wan);
    c.compiler.acl.stats("a1", "r1").unwrap().hit(5, 500, 1);
    let hits = |c: &Gateway| c.compiler.acl.stats("a1", "r1").unwrap().packets.load(Ordering::Relaxed);
    let other = config(&ACLS.replace("192.0.2.7/32", "192.0.2.9/32"));
    judge(&mut c, &other, "192.0.2.8", Zone::Wan);
    assert_eq!(hits(&c), 5);
    let own = config(&ACLS.replace("priority = 5", "priority = 6"));
    judge(&mut c, &own, "192.0.2.8", Zone::Wan);
    assert_eq!(hits(&c), 0);
}

/// An entry stands for every member of its group, and for nothing else.
#[test]
fn nat_names_groups_too() {
    let config = config(
        r#"
        [[group]]
        id = "branch"
        networks = ["10.1.0.0/17", "10.1.128.0/17", "10.3.0.0/16"]
        [[group]]
        id = "web"
        ports = ["80", "8000/8010"]
        [[snat]]
        id = "s1"
        cidr_block = "@branch"
        snat_ip = "198.51.100.9"
        [[dnat]]
        id = "d1"
        type = "Internet"
        ip_protocol = "tcp"
        external_ip = "198.51.100.9"
        external_port = "@web"
        internal_ip = "10.1.0.9"
        "#,
    );
    let mut c = Gateway::new();
    let s = c.snapshot(&config, &tables(), 1);
    let external: Ipv4Addr = "198.51.100.9".parse().unwrap();
    let inside = |port| s.nat.forward(Zone::Wan, external, 6, port).map(|t| (t.addr.to_string(), t.port));
    for (port, forwarded) in [(79, false), (80, true), (81, false), (8000, true), (8010, true), (8011, false)]
    {
        assert_eq!(inside(port), forwarded.then(|| ("10.1.0.9".to_owned(), port)), "{port}");
    }
    let spec = c.compiler.nat.compile(
        &config,
        (&tables(), &[]),
        &RoutingTables::default(),
        (&Default::default(), &Default::default()),
        &mut Vec::new(),
    );
    let prefixes: Vec<_> = spec.pools.iter().map(|p| format!("{}/{}", p.prefix.0, p.prefix.1)).collect();
    assert_eq!(prefixes, ["10.1.0.0/16", "10.3.0.0/16"]);
    assert!(Arc::ptr_eq(&spec.pools[0].hits, &spec.pools[1].hits), "one entry to the operator");
}

#[test]
fn a_slot_that_sessions_count_for_is_not_given_to_another_rule() {
    let (mut c, limited) =
        (Gateway::new(), ACLS.replacen("priority = 5", "priority = 5\nmax_sessions = 3", 1));
    let limited = limited.replacen("policy = \"drop\"", "policy = \"accept\"", 1);
    let set = c.snapshot(&config(&limited), &tables(), 1).acl;
    let t = Tuple { proto: 6, src: ip("192.0.2.8"), dst: ip("198.51.100.80"), sport: 999, dport: 80 };
    let AclVerdict::Accept { slot: Some(slot) } = set.check(Zone::Lan, Zone::Wan, &t, Header::default()).0
    else {
        panic!("no rule accepts");
    };
    assert_eq!((set.has_limits(), set.limit(slot).map(|l| l.live())), (true, Some(0)));
    let same = c.snapshot(&config(&limited), &tables(), 2).acl;
    assert!(std::ptr::eq(set.limit(slot).unwrap(), same.limit(slot).unwrap()), "a reload goes on counting");
    let without = c.snapshot(&config(""), &tables(), 3).acl;
    assert!(without.limit(slot).is_some(), "sessions of the rule can end");
}

/// A CAR of 2 to 6 Mbit/s of which the floor is half of the Internet uplink's.
const QOS: &str = r#"
[bandwidth]
internet_up = 40
[[qos]]
[[qos.car]]
id = "late"
priority = 2
limit_type = "Percent"
min_bandwidth_percent = 25
max_bandwidth_percent = 50
percent_source_type = "InternetUpBandwidth"
[[qos.car]]
id = "early"
priority = 1
limit_type = "Absolute"
min_bandwidth_abs = 2
max_bandwidth_abs = 6
[[qos.policy]]
priority = 2
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
ip_protocol = "all"
[[qos.policy]]
priority = 1
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
ip_protocol = "udp"
start_time = "2027-01-15T08:00:00Z"
end_time = "2027-01-15T09:00:00Z"
"#;

/// 2027-01-15T08:00:00Z.
const BEGIN: i64 = 1_800_000_000;

#[test]
fn time_windows_choose_the_policies_of_the_moment() {
    let config = config(QOS);
    let mut c = Gateway::new();
    let mut car_at = |wall| {
        let clock = ClockReading { wall: config::Timestamp(wall), ..NOW };
        let policy = c.compile(&config, &tables(), 1, clock).snapshot.qos;
        let tuple = |proto| Tuple {
            proto,
            src: "192.168.1.10".parse().unwrap(),
            dst: "198.51.100.7".parse().unwrap(),
            sport: 1,
            dport: 2,
        };
        let car = |proto| {
            let of =
                policy.classify(PortIdx(0), PortIdx(1), sag_pipeline::qos::Mark::default(), || tuple(proto));
            assert!(of.group.is_some());
            policy.car(of.car.unwrap()).unwrap().to_owned()
        };
        (car(17), car(6))
    };
    let late = || ("late".to_owned(), "late".to_owned());
    assert_eq!(car_at(BEGIN - 1), late());
    assert_eq!(car_at(BEGIN), ("early".to_owned(), "late".to_owned()), "the lowest priority number wins");
    assert_eq!(car_at(BEGIN + 3599), ("early".to_owned(), "late".to_owned()));
    assert_eq!(car_at(BEGIN + 3600), late());
    let due = |wall| c.compiler.qos.is_due(&config, config::Timestamp(wall));
    assert!(!due(BEGIN - 1) && !due(BEGIN + 9999) && due(BEGIN) && due(BEGIN + 3599));
}

#[test]
fn a_device_has_one_slot_whatever_the_order_of_the_ports() {
    let mut d = DeviceSlots::default();
    d.reserve("eth0", 1);
    d.reserve("eth1", 0);
    d.reserve("eth2", 1);
    assert_eq!([d.slot("eth3"), d.slot("eth0"), d.slot("eth1"), d.slot("eth2")], [2, 1, 0, 3]);
    d.reserve("eth0", 9);
    assert_eq!(d.slot("eth0"), 1);
}

/// Devices come and go with reloads: their slots are used again.
#[test]
fn virtual_routers_above_a_port_have_addresses_if_they_are_masters() {
    let virtual_mac = MacAddr([0, 0, 0x5E, 0, 2, 0x36]);
    let with = |addresses: &[&str]| {
        let mut t = tables();
        let port = t.link_named("eth1").unwrap().ifindex;
        let above = Link {
            kind: Some("macvlan".into()),
            parent: Some(port),
            mac: Some(virtual_mac),
            ..link(54, "vrrp.54")
        };
        t.insert_link(above);
        t.insert_address(address(port, "fe80::1:2:3:4/64"));
        for a in addresses {
            t.insert_address(address(54, a));
        }
        let snapshot = Gateway::new().snapshot(&config(""), &t, 1);
        snapshot.ports.iter().find(|p| p.name == "0").unwrap().macs.clone()
    };
    // What the device has of itself: made of its own address or of the port's, or the very one of the port.
    let port_mac = format!("fe80::ff:fe00:{:x}/64", tables().link_named("eth1").unwrap().ifindex);
    for backup in
        [&[][..], &["fe80::200:5eff:fe00:236/64"], &[&port_mac], &["fe80::1:2:3:4/64"], &["169.254.1.1/16"]]
    {
        assert_eq!(with(backup), [], "{backup:?}");
    }
    for master in ["fe80::54/64", "2001:db8:1::54/128", "192.168.1.54/32"] {
        assert_eq!(with(&["fe80::200:5eff:fe00:236/64", master]), [virtual_mac], "{master}");
    }
}

#[test]
fn slots_of_devices_that_are_gone_are_used_again() {
    let mut d = DeviceSlots::default();
    let stays = "eth0".to_owned();
    for n in 0..500 {
        let tap = format!("tap{n}");
        d.begin([stays.clone(), tap.clone()].into_iter());
        assert_eq!(d.slot(&stays), 0);
        assert!((1..64).contains(&d.slot(&tap)), "{tap}");
        d.begin([stays.clone()].into_iter());
    }
    // As many as there are slots, and not one more.
    let many: Vec<_> = (0..65).map(|n| format!("eth{n}")).collect();
    for _ in 0..2 {
        d.begin(many.iter().cloned());
    }
    let slots: std::collections::BTreeSet<_> = many[..64].iter().map(|device| d.slot(device)).collect();
    assert_eq!(slots.len(), 64);
    assert_eq!(d.slot(&many[64]), NO_DEVICE);
}

/// Rules and entries come and go with commits, thousands of them a day: what is kept of them is bounded.
#[test]
fn rules_that_are_gone_are_forgotten() {
    let mut c = Gateway::new();
    let mut slots = std::collections::BTreeSet::new();
    for n in 0..6000 {
        let text = format!(
            r#"
            [[acl]]
            id = "a1"
            [[acl.rule]]
            id = "r{n}"
            direction = "out"
            type = "WAN"
            policy = "drop"
            ip_protocol = "tcp"
            source_cidr = "192.0.2.0/24"
            dest_cidr = "0.0.0.0/0"
            source_port_range = "-1/-1"
            dest_port_range = "80/80"
            priority = 5
            [[snat]]
            id = "s{n}"
            cidr_block = "10.0.0.0/8"
            snat_ip = "198.51.100.9"
            "#
        );
        let mut problems = Vec::new();
        let config = config(&text);
        let set = c.compiler.acl.compile(&config, &c.compiler.vrfs, &mut problems);
        let tuple = Tuple { proto: 6, src: ip("192.0.2.7"), dst: ip("203.0.113.9"), sport: 1, dport: 80 };
        let judged = set.check(Zone::Lan, Zone::Wan, &tuple, Header::default()).0;
        let AclVerdict::Deny { slot: Some(slot) } = judged else {
            panic!("rule {n} does not deny");
        };
        assert_eq!(set.name(slot), Some(&*format!("a1/r{n}")));
        slots.insert(slot.0);
        c.compiler.nat.compile(
            &config,
            (&Tables::default(), &[]),
            &RoutingTables::default(),
            (&Default::default(), &Default::default()),
            &mut Vec::new(),
        );
    }
    assert!(slots.len() < 4200, "{} slots for one rule", slots.len());
    assert!(c.compiler.acl.stats("a1", "r1").is_none() && c.compiler.acl.stats("a1", "r5999").is_some());
    assert!(format!("{:?}", c.compiler.nat).len() < 1000, "one entry is left");
}

#[test]
fn percentages_become_rates() {
    use sag_pipeline::qos::{Direction, Owner, Rate};
    use std::sync::atomic::Ordering::Relaxed;
    let (meters, sets) = meter_memory(64, 64);
    let book = MeterTable::over(meters, sets, &[]);
    let mut c = Gateway::over(NextHopTable::open(records(64), 0), book);
    c.compile(&config(QOS), &tables(), 1, NOW);
    let of = |owner: Owner| {
        let (_, n) = c.records.meters.owners().find(|(o, _)| **o == owner).expect("a meter");
        let m: &sag_model::meter::Meter = &meters[usize::from(n)];
        (m.committed_cost.load(Relaxed), m.cost.load(Relaxed))
    };
    let cost = |mbps| Rate::mbps(mbps).cost();
    assert_eq!(of(Owner::Car("late".into(), Direction::Up)), (cost(10), cost(20)));
    assert_eq!(of(Owner::Car("early".into(), Direction::Up)), (cost(2), cost(6)));
    assert_eq!(of(Owner::Internet), (0, cost(40)));
}

fn meter_memory(meters: usize, sets: usize) -> (&'static [Meter], &'static [MeterGroup]) {
    let meters = Vec::leak((0..meters).map(|_| Meter::default()).collect());
    let sets = Vec::leak((0..sets).map(|_| MeterGroup::default()).collect());
    (meters, sets)
}

/// Every word that workers or XDP read and that a plan may change.
#[derive(Debug, PartialEq)]
struct SharedWords {
    numbers: Vec<(sag_pipeline::snapshot::NeighborKey, sag_pipeline::snapshot::NhIdx)>,
    nexthops: Vec<Option<sag_pipeline::snapshot::NextHop>>,
    meters: String,
    meter_sets: String,
    pools: Vec<(std::net::Ipv4Addr, bool)>,
    ports_shown: Vec<u64>,
    link_mtus: Vec<u16>,
    esp: *const sag_pipeline::tunnel::EspSas,
}

const EVERYTHING: &str = r#"
[bandwidth]
internet_up = 40
[[qos]]
[[qos.car]]
id = "c"
priority = 1
limit_type = "Absolute"
min_bandwidth_abs = 2
max_bandwidth_abs = 6
[[qos.policy]]
priority = 1
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
ip_protocol = "all"
[[snat]]
id = "s"
cidr_block = "192.0.2.0/24"
snat_ip = "198.51.100.77"
[[dnat]]
id = "d"
type = "Internet"
external_ip = "203.0.113.2"
internal_ip = "192.0.2.9"
ip_protocol = "tcp"
external_port = "80"
internal_port = "80"
[[tunnel]]
name = "t"
kind = "gre"
local = "203.0.113.2"
remote = "203.0.113.200"
[[neighbor]]
port = "1"
address = "203.0.113.1"
mac = "02:00:00:00:00:07"
"#;

#[test]
fn compiling_leaves_shared_memory_as_it_is() {
    let nexthops = records(64);
    let (meters, sets) = meter_memory(METERS, METER_GROUPS);
    let shown: &'static [AtomicU64] = Vec::leak((0..POOLS * POOL_WORDS).map(|_| AtomicU64::new(0)).collect());
    let mut gateway = Gateway::over(NextHopTable::open(nexthops, 0), MeterTable::over(meters, sets, &[]));
    gateway.records.nat = Arc::new(NatState::new(1000, shown, Identifications::private(1), 1));
    gateway.compiler = Compiler::new(&gateway.records, Arc::default());
    let (nat, esp) = (gateway.records.nat.clone(), Arc::<sag_pipeline::tunnel::EspSaTable>::default());
    gateway.compiler.tunnels = TunnelCompiler::new(esp.clone());
    let numbers = gateway.compiler.numbers.nexthops.table().clone();
    let words = |plans: &[&Plan]| SharedWords {
        numbers: numbers.iter().collect(),
        nexthops: nexthops.iter().map(|r| Some(sag_pipeline::snapshot::NextHop::load(r))).collect(),
        meters: format!("{meters:?}"),
        meter_sets: format!("{sets:?}"),
        pools: nat.pools().map(|p| (p.addr(), p.has_slots())).collect(),
        ports_shown: shown.iter().map(|w| w.load(Ordering::Relaxed)).collect(),
        link_mtus: plans.iter().flat_map(|p| p.snapshot.tunnels.iter().map(|t| t.state.link_mtu())).collect(),
        esp: Arc::as_ptr(&*esp.load()),
    };
    let compile =
        |g: &mut Gateway, text: &str, tables: &Tables| g.compiler.compile(&config(text), tables, 1, NOW);

    let before = words(&[]);
    let first = compile(&mut gateway, EVERYTHING, &tables());
    assert_eq!(words(&[]), before, "the first compilation");

    let compiled = words(&[&first]);
    gateway.records.apply(&first.records, NOW.monotonic);
    let applied = words(&[&first]);
    assert_ne!(applied.nexthops, compiled.nexthops);
    assert_ne!(applied.meters, compiled.meters);
    assert_ne!(applied.meter_sets, compiled.meter_sets);
    assert_ne!(applied.pools, compiled.pools);
    assert_ne!(applied.ports_shown, compiled.ports_shown, "the forwarded port");

    // Everything changes: rates, addresses, the link, the neighbor, the tunnel's link MTU.
    let other = EVERYTHING
        .replace("= 6", "= 9")
        .replace("external_port = \"80\"", "external_port = \"81\"")
        .replace(":07", ":08");
    let mut t = tables();
    t.insert_link(Link { mtu: 1400, ..link(4, "eth0") });
    let second = compile(&mut gateway, &other, &t);
    assert_eq!(words(&[&first]), applied, "a later compilation");
    gateway.records.apply(&second.records, NOW.monotonic);
    let last = words(&[&first]);
    assert_ne!(last.nexthops, applied.nexthops);
    assert_ne!(last.meters, applied.meters);
    assert_eq!(last.link_mtus, [1400]);
    assert_eq!(last.esp, before.esp, "keys are not the compiler's");
    assert!(second.problems.is_empty() && first.problems.is_empty(), "{:?}", second.problems);
}
