use super::*;
use sag_model::config;
use sag_model::ids::Zone;
use sag_model::{MacAddr, PortIdx};
use sag_pipeline::policy::{AclVerdict, Tuple};
use sag_pipeline::snapshot::Route;
use sag_rtnl::{
    Address, Link, Neighbor, NeighborState, Nexthop, Route as KernelRoute, RouteKind, RouteProtocol, Scope,
    Table,
};
use std::net::IpAddr;

const NOW: Moment = Moment { now: sag_model::Nanos::from_secs(1000), wall: config::Timestamp(1_800_000_000) };

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
        ifindex,
        name: name.into(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, ifindex as u8])),
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        kind: Some("veth".into()),
        parent: None,
        vlan: None,
        rx_queues: 1,
        tx_queues: 1,
        master: None,
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
    KernelRoute {
        dst: dst.parse().unwrap(),
        table: if kind == RouteKind::Local { Table::Local } else { Table::Main },
        tos: 0,
        priority,
        kind,
        protocol: RouteProtocol(3),
        prefsrc: None,
        nexthops,
        nexthop_id: None,
        mtu: None,
    }
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

fn compiler() -> Compiler {
    let records = NextHops::inventing(64).records();
    Compiler::new(NextHops::new(records, 0), Arc::new(NatState::private(1000)), MeterTable::private(), false)
}

#[test]
fn kernel_tables_become_routes_ports_and_local_addresses() {
    let got = compiler().compile(&config(""), &tables(), 7, NOW);
    let s = &got.snapshot;
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
    assert!(s.local.contains(&ip("198.51.100.9")) && s.local.contains(&ip("203.0.113.2")));
    assert!(s.route(ip("2001:db8::1")).is_none());
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
    let got = compiler().compile(&config(more), &t, 1, NOW);
    let gateway = |a: &str| match got.snapshot.route(ip(a)) {
        Some(Route::Via(m)) => m.iter().map(|m| (m.via, m.weight)).collect(),
        _ => vec![],
    };
    assert_eq!(gateway("10.9.0.1"), vec![(Some(ip("203.0.113.1")), 1)], "the kernel's metric 20 beats 50");
    assert_eq!(got.snapshot.route(ip("10.1.0.1")), Some(&Route::Blackhole));
    assert_eq!(gateway("10.2.0.1"), vec![(Some(ip("203.0.113.8")), 3), (Some(ip("203.0.113.9")), 1)]);
}

#[test]
fn neighbors_become_next_hops_and_keep_their_numbers() {
    let mut c = compiler();
    let mut t = tables();
    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Reachable));
    t.insert_neighbor(neighbor(4, "203.0.113.3", NeighborState::Incomplete));
    t.insert_neighbor(neighbor(5, "198.51.100.1", NeighborState::Reachable));
    let key = (PortIdx(1), ip("203.0.113.1"));
    let s = c.compile(&config(""), &t, 1, NOW).snapshot;
    let n = s.neighbors[&key];
    assert_eq!(s.neighbors.len(), 1, "unresolved ones and those of mgmt ports are left out");
    let nh = s.nexthop(n).unwrap();
    assert!(nh.valid() && nh.dmac == MacAddr([2, 9, 9, 9, 9, 9]) && nh.smac == s.ports[1].mac);
    assert_eq!((nh.ifindex, nh.mtu, nh.port), (4, 1500, PortIdx(1)));

    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Failed));
    let s = c.compile(&config(""), &t, 1, NOW).snapshot;
    assert_eq!(s.neighbors[&key], n);
    assert!(!s.nexthop(n).unwrap().valid());

    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Stale));
    let mut down = link(4, "eth0");
    down.running = false;
    t.insert_link(down);
    let s = c.compile(&config(""), &t, 1, NOW).snapshot;
    assert!(!s.nexthop(n).unwrap().valid() && !s.ports[1].up, "no carrier");
    assert_eq!(c.nexthops.bump(|p, a| (p, a) == key), 1);
    assert_ne!(s.nexthop(n).unwrap().generation, nh.generation);
}

#[test]
fn a_successor_leaves_the_records_of_its_predecessor_alone() {
    let records = NextHops::inventing(64).records();
    let mut t = tables();
    t.insert_neighbor(neighbor(4, "203.0.113.1", NeighborState::Reachable));
    let key = (PortIdx(1), ip("203.0.113.1"));
    let over = |last: u32| {
        let nat = Arc::new(NatState::private(1000));
        Compiler::new(NextHops::new(records, last), nat, MeterTable::private(), false)
    };
    let mut first = over(0);
    let a = first.compile(&config(""), &t, 1, NOW).snapshot.neighbors[&key];
    let mut second = over(first.nexthops.first());
    let s = second.compile(&config(""), &t, 2, NOW).snapshot;
    let b = s.neighbors[&key];
    assert_ne!(a, b);
    assert!(s.nexthop(a).unwrap().valid() && s.nexthop(b).unwrap().valid());
    let (was, generation) = (s.nexthop(b).unwrap(), s.nexthop(a).unwrap().generation);
    // It ends before it has ended its predecessor's records: the third one leaves it alone all the same, and
    // flows of the first one do not take the third one's records for theirs.
    let mut third = over(second.nexthops.first());
    let s = third.compile(&config(""), &t, 3, NOW).snapshot;
    assert_eq!(s.neighbors[&key], a);
    assert_eq!(s.nexthop(b), Some(was));
    assert!(s.nexthop(a).unwrap().valid() && s.nexthop(a).unwrap().generation != generation);
    third.nexthops.forget_predecessor();
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

fn judge(c: &mut Compiler, config: &Config, src: &str, to: Zone) -> AclVerdict {
    let s = c.compile(config, &tables(), 1, NOW).snapshot;
    let t = Tuple { proto: 6, src: ip(src), dst: ip("198.51.100.80"), sport: 999, dport: 80 };
    s.acl.check(Zone::Lan, to, &t)
}

#[test]
fn all_bound_acls_are_one_list_by_priority() {
    let (mut c, config) = (compiler(), config(ACLS));
    assert!(matches!(judge(&mut c, &config, "192.0.2.7", Zone::Wan), AclVerdict::Accept { slot: Some(_) }));
    assert!(matches!(judge(&mut c, &config, "192.0.2.8", Zone::Wan), AclVerdict::Deny { slot: Some(_) }));
    assert_eq!(judge(&mut c, &config, "192.0.2.8", Zone::Overlay), AclVerdict::Accept { slot: None });
    assert_eq!(judge(&mut c, &config, "192.0.2.8", Zone::Lan), AclVerdict::Accept { slot: None });
}

#[test]
fn hits_survive_the_edit_of_another_rule_and_end_with_their_own() {
    let (mut c, before) = (compiler(), config(ACLS));
    judge(&mut c, &before, "192.0.2.8", Zone::Wan);
    c.acl.info("a1", "r1").unwrap().stats.hit(5, 500, 1);
    let hits = |c: &Compiler| {
        c.acl.info("a1", "r1").unwrap().stats.packets.load(std::sync::atomic::Ordering::Relaxed)
    };
    let other = config(&ACLS.replace("192.0.2.7/32", "192.0.2.9/32"));
    judge(&mut c, &other, "192.0.2.8", Zone::Wan);
    assert_eq!(hits(&c), 5);
    let own = config(&ACLS.replace("priority = 5", "priority = 6"));
    judge(&mut c, &own, "192.0.2.8", Zone::Wan);
    assert_eq!(hits(&c), 0);
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
    let mut c = compiler();
    let mut car_at = |wall| {
        let moment = Moment { wall: config::Timestamp(wall), ..NOW };
        let policy = c.compile(&config, &tables(), 1, moment).snapshot.qos;
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
            assert_ne!(of.group, 0);
            policy.car(of.car.unwrap()).unwrap().to_owned()
        };
        (car(17), car(6))
    };
    let late = || ("late".to_owned(), "late".to_owned());
    assert_eq!(car_at(BEGIN - 1), late());
    assert_eq!(car_at(BEGIN), ("early".to_owned(), "late".to_owned()), "the lowest priority number wins");
    assert_eq!(car_at(BEGIN + 3599), ("early".to_owned(), "late".to_owned()));
    assert_eq!(car_at(BEGIN + 3600), late());
    let due = |wall| c.qos.is_due(&config, config::Timestamp(wall));
    assert!(!due(BEGIN - 1) && !due(BEGIN + 9999) && due(BEGIN) && due(BEGIN + 3599));
}

#[test]
fn a_device_keeps_its_slot_whatever_the_order_of_the_ports() {
    let mut d = Devices::default();
    d.keep("eth0", 1);
    d.keep("eth1", 0);
    d.keep("eth2", 1);
    assert_eq!([d.slot("eth3"), d.slot("eth0"), d.slot("eth1"), d.slot("eth2")], [2, 1, 0, 3]);
    d.keep("eth0", 9);
    assert_eq!(d.slot("eth0"), 1);
}

#[test]
fn percentages_become_rates() {
    use sag_pipeline::qos::{Direction, Owner, Rate};
    use std::sync::atomic::Ordering::Relaxed;
    let (meters, sets) = (
        Vec::leak((0..64).map(|_| sag_model::meter::Meter::default()).collect()) as &'static [_],
        Vec::leak((0..64).map(|_| sag_model::meter::MeterGroup::default()).collect()) as &'static [_],
    );
    let book = MeterTable::over(meters, sets, &[]);
    let records = Vec::leak((0..64).map(|_| Default::default()).collect());
    let mut c = Compiler::new(NextHops::new(records, 0), Arc::new(NatState::private(1000)), book, false);
    c.compile(&config(QOS), &tables(), 1, NOW);
    let of = |owner: Owner| {
        let (_, n) = c.qos.book.owners().find(|(o, _)| **o == owner).expect("a meter");
        let m: &sag_model::meter::Meter = &meters[usize::from(n)];
        (m.committed_cost.load(Relaxed), m.cost.load(Relaxed))
    };
    let cost = |mbps| Rate::mbps(mbps).cost();
    assert_eq!(of(Owner::Car("late".into(), Direction::Up)), (cost(10), cost(20)));
    assert_eq!(of(Owner::Car("early".into(), Direction::Up)), (cost(2), cost(6)));
    assert_eq!(of(Owner::Internet), (0, cost(40)));
}

#[test]
fn the_files_keys_are_in_force_after_a_reload_whatever_their_spis() {
    let keyed = |spi: u32, key_in: char, key_out: char| {
        let key = |c: char| c.to_string().repeat(40);
        config(&format!(
            "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
             spi_in = {spi}\nspi_out = {}\nkey_in = \"{}\"\nkey_out = \"{}\"\n",
            spi + 1,
            key(key_in),
            key(key_out)
        ))
    };
    let mut c = compiler();
    let esp = &mut c.tunnels.esp;
    let mut load = |config: Config| {
        esp.configure(std::iter::once((1, &config.tunnels[0])));
        let facts = esp.facts("t").unwrap();
        let sas = esp.book.load();
        let _ = sas.outbound(1).unwrap().reserve(5);
        (facts.spi_in, facts.spi_out, facts.sequence, facts.waits)
    };
    assert_eq!(load(keyed(0x1001, 'a', 'b')), (vec![0x1001], 0x1002, 1, false));
    // Other SPIs: both are received by, and sending waits for the peer.
    assert_eq!(load(keyed(0x2001, 'c', 'd')), (vec![0x1001, 0x2001], 0x1002, 6, true));
    // While that waits the file changes again.
    assert_eq!(load(keyed(0x3001, 'e', 'f')), (vec![0x3001], 0x3002, 1, false));
    // The same SPIs with one other key: the other direction's numbers go on.
    assert_eq!(load(keyed(0x3001, 'a', 'f')), (vec![0x3001], 0x3002, 6, false));
    assert_eq!(load(keyed(0x3001, 'a', 'b')), (vec![0x3001], 0x3002, 1, false));
}

/// Keepers of two gateways with one tunnel between them whose keys are agreed.
fn agreeing() -> [crate::compile::esp::EspKeeper; 2] {
    let text = "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nkeying = \"agreed\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";
    std::array::from_fn(|_| {
        let mut esp = crate::compile::esp::EspKeeper::default();
        esp.configure(std::iter::once((1, &config(text).tunnels[0])));
        esp
    })
}

/// One packet by what a keeper sends by; whether the other receives by it.
fn carries(from: &crate::compile::esp::EspKeeper, to: &crate::compile::esp::EspKeeper) -> bool {
    use sag_tunnel::esp::{HEADROOM, Inner, TAILROOM};
    let mut buf = vec![0u8; HEADROOM + 20 + TAILROOM];
    buf[HEADROOM] = 0x45;
    buf[HEADROOM + 3] = 20;
    let out = from.book.load();
    let sealed = out.outbound(1).unwrap().seal(&mut buf, HEADROOM..HEADROOM + 20, Inner::V4).unwrap();
    let spi = u32::from_be_bytes(buf[sealed.at.start..sealed.at.start + 4].try_into().unwrap());
    let known = to.facts("t").unwrap().spi_in.contains(&spi);
    known && to.opens(&mut buf[sealed.at.clone()], spi)
}

#[test]
fn keys_that_cross_on_their_way_leave_the_old_ones_in_use() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.hear("t", &b1, "").unwrap() && b.hear("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    // Both make new keys, and each is told the other's old one again before it hears of the new.
    let (a2, b2) = (a.announce("a", true).unwrap(), b.announce("b", true).unwrap());
    assert!(!a.hear("t", &b1, "").unwrap() && !b.hear("t", &a1, "").unwrap());
    let before = (a.facts("t").unwrap().spi_out, b.facts("t").unwrap().spi_out);
    for (who, news) in [(0, &b2), (1, &a2)] {
        let end = if who == 0 { &mut a } else { &mut b };
        assert!(end.hear("t", news, "").unwrap());
        assert!(carries(&a, &b) && carries(&b, &a), "by the keys before");
        a.poll();
        b.poll();
    }
    assert_eq!((a.facts("t").unwrap().spi_out, b.facts("t").unwrap().spi_out), before);
    let (fa, fb) = (a.facts("t").unwrap(), b.facts("t").unwrap());
    assert!(fa.waits && fb.waits && fa.spi_in.len() == 3 && fb.spi_in.len() == 3);
}

#[test]
fn who_has_made_a_new_key_receives_by_it_before_the_peer_has_heard() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.hear("t", &b1, "").unwrap() && b.hear("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    let before = a.facts("t").unwrap().spi_out;
    let b2 = b.announce("b", true).unwrap();
    assert!(carries(&b, &a), "still by the keys before");
    assert!(a.hear("t", &b2, "").unwrap());
    assert_ne!(a.facts("t").unwrap().spi_out, before, "the peer has the pair");
    assert!(carries(&a, &b));
    b.poll();
    assert!(carries(&b, &a) && !b.facts("t").unwrap().waits);
}

#[test]
fn a_new_key_is_made_after_half_of_the_bytes_and_not_again_before_it_is_used() {
    use sag_tunnel::keys::Lifetime;
    let [mut a, mut b] = agreeing();
    a.live_for(Lifetime { time: u64::MAX, bytes: 2_000 });
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.hear("t", &b1, "").unwrap() && b.hear("t", &a1, "").unwrap());
    while a.facts("t").unwrap().bytes < 1_000 {
        assert_eq!(a.announce("a", false).unwrap(), a1);
        assert!(carries(&a, &b) && carries(&b, &a));
    }
    let a2 = a.announce("a", false).unwrap();
    assert_eq!(a2.epoch, a1.epoch + 1);
    // It is on its way to the peer: asked again and again, the gateway does not make another.
    assert_eq!(a.announce("a", false).unwrap(), a2);
    assert!(!a.hear("t", &b1, "").unwrap());
    assert_eq!(a.announce("a", false).unwrap(), a2);
    assert!(carries(&a, &b) && a.facts("t").unwrap().waits);
    // The peer hears, and sends by it at once; then so do we.
    assert!(b.hear("t", &a2, "").unwrap());
    assert!(carries(&b, &a));
    a.poll();
    let f = a.facts("t").unwrap();
    assert!(!f.waits && f.bytes == 0 && carries(&a, &b));
    assert_eq!(a.announce("a", false).unwrap(), a2);
}
