//! Which VRF a network, an address and a route of the kernel or the file belongs to.

use super::*;
use sag_model::{VrfNo, VrfZone};
use sag_pipeline::qos::Mark;
use sag_pipeline::snapshot::Snapshot;

const VRFS: &str = r#"
[[vrf]]
name = "a"
[[vrf]]
name = "b"
[[port]]
name = "a"
device = "eth2"
role = "lan"
vrf = "a"
[[port]]
name = "b"
device = "eth3"
role = "lan"
vrf = "b"
addresses = ["2001:db8:a::1/64"]
[[route]]
vrf = "a"
destination = "0.0.0.0/0"
port = "1"
next_hop = "203.0.113.1"
[[route]]
vrf = "b"
destination = "10.9.0.0/16"
next_hop = "10.0.0.9"
[[tunnel]]
name = "t"
kind = "gre"
local = "203.0.113.2"
remote = "203.0.113.9"
vrf = "b"
addresses = ["10.255.0.1/30"]
[[route]]
vrf = "a"
destination = "10.8.0.0/16"
tunnel = "t"
[[dnat]]
type = "Internet"
ip_protocol = "any"
vrf = "b"
internal_ip = "10.0.0.5"
"#;

/// The kernel's tables with the same network on two more devices, 6 and 7, and a route by each.
fn overlapping() -> Tables {
    let mut t = tables();
    for (ifindex, name) in [(6, "eth2"), (7, "eth3")] {
        t.insert_link(link(ifindex, name));
        t.insert_address(address(ifindex, "10.0.0.1/24"));
    }
    t.insert_route(route("10.0.0.0/24", RouteKind::Unicast, 0, vec![hop(6, None)]));
    t.insert_route(route("10.0.0.0/24", RouteKind::Unicast, 1, vec![hop(7, None)]));
    t.insert_route(route("10.0.0.1/32", RouteKind::Local, 0, vec![hop(6, None)]));
    t.insert_route(route("10.7.0.0/16", RouteKind::Unicast, 20, vec![hop(7, Some("10.0.0.7"))]));
    t.insert_route(route("0.0.0.0/0", RouteKind::Unicast, 100, vec![hop(7, Some("10.0.0.254"))]));
    // By two lines at once, of which each VRF has its own.
    let both = vec![hop(6, Some("10.0.0.66")), hop(7, Some("10.0.0.77"))];
    t.insert_route(route("10.6.0.0/16", RouteKind::Unicast, 0, both));
    t
}

fn ways(s: &Snapshot, vrf: u8, to: &str) -> Vec<(u8, Option<IpAddr>)> {
    match s.route_in(VrfNo::new(vrf).unwrap(), ip(to)) {
        Some(Route::Via(members)) => members.iter().map(|m| (m.port.0, m.via)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn routes_and_addresses_are_those_of_the_ports_vrf() {
    let mut g = Gateway::new();
    let s = g.snapshot(&config(VRFS), &overlapping(), 1);
    let via = |port: u8, gateway: &str| vec![(port, Some(ip(gateway)))];
    // Ports 0 (lan), 1 (wan) and 2 (mgmt) are of the default VRF, 3 of a, 4 of b.
    assert_eq!([0, 1, 3, 4].map(|p: usize| s.ports[p].vrf.get()), [0, 0, 1, 2]);
    for (vrf, to, want) in [
        (0, "10.0.0.5", via(1, "203.0.113.1")),
        (1, "10.0.0.5", vec![(3, None)]),
        (2, "10.0.0.5", vec![(4, None)]),
        (0, "10.7.0.1", via(1, "203.0.113.1")),
        (1, "10.7.0.1", via(1, "203.0.113.1")),
        (2, "10.7.0.1", via(4, "10.0.0.7")),
        (2, "8.8.8.8", via(4, "10.0.0.254")),
        (1, "10.6.0.1", via(3, "10.0.0.66")),
        (2, "10.6.0.1", via(4, "10.0.0.77")),
        (2, "10.9.0.1", via(4, "10.0.0.9")),
        (2, "192.0.2.5", via(4, "10.0.0.254")),
        (2, "2001:db8:a::5", vec![(4, None)]),
        (0, "2001:db8:a::5", vec![]),
    ] {
        assert_eq!(ways(&s, vrf, to), want, "{to} in VRF {vrf}");
    }
    let local = |vrf: u8, a: &str| s.is_local(VrfNo::new(vrf).unwrap(), ip(a));
    for (a, of) in [
        ("10.0.0.1", [false, true, true]),
        ("192.0.2.1", [true, false, false]),
        ("2001:db8:a::1", [false, false, true]),
        ("10.255.0.1", [false, false, true]),
    ] {
        assert_eq!([0, 1, 2].map(|vrf| local(vrf, a)), of, "{a}");
    }
    // The tunnel's network is b's, and a leaks into it.
    let tunnel = s.tunnels.iter().next().unwrap();
    assert_eq!(tunnel.vrf.get(), 2);
    let members = |vrf: u8, to: &str| match s.route_in(VrfNo::new(vrf).unwrap(), ip(to)) {
        Some(Route::Via(members)) => members.iter().map(|m| m.tunnel).collect(),
        _ => Vec::new(),
    };
    assert_eq!(
        (members(2, "10.255.0.2"), members(1, "10.8.0.1")),
        (vec![Some(tunnel.no)], vec![Some(tunnel.no)])
    );
    let forward = s.nat.forward(Zone::Wan, "203.0.113.2".parse().unwrap(), 6, 80).unwrap();
    assert_eq!((forward.addr.to_string().as_str(), forward.vrf.get()), ("10.0.0.5", 2));
}

#[test]
fn a_vrf_keeps_its_number() {
    let mut g = Gateway::new();
    g.snapshot(&config(VRFS), &overlapping(), 1);
    // Another order, and one more in front.
    let swapped = VRFS.replace(r#"name = "a""#, r#"name = "x""#).replace(r#"vrf = "a""#, r#"vrf = "x""#);
    let s = g.snapshot(&config(&swapped), &overlapping(), 2);
    assert_eq!((s.ports[3].vrf.get(), s.ports[4].vrf.get()), (3, 2), "a's number is not given to x");
    assert!(s.vrf(VrfNo::new(1).unwrap()).is_none());
    let s = g.snapshot(&config(VRFS), &overlapping(), 3);
    assert_eq!((s.ports[3].vrf.get(), s.ports[4].vrf.get()), (1, 2));
}

/// Rules that name a VRF hold for what comes from there, in their order among those that name none.
#[test]
fn rules_name_the_vrf_from_which_packets_come() {
    let rule = |id: &str, vrf: &str, policy: &str, source: &str, ports: &str| {
        let vrf = if vrf.is_empty() { String::new() } else { format!("vrf = '{vrf}'\n") };
        format!(
            "[[acl.rule]]\nid = '{id}'\ndirection = 'out'\ntype = 'WAN'\npolicy = '{policy}'\nip_protocol = 'tcp'\n\
             source_cidr = '{source}'\ndest_cidr = '{}/0'\ndest_port_range = '{ports}'\n{vrf}",
            if source.contains(':') { "::" } else { "0.0.0.0" }
        )
    };
    let rules = [
        rule("ours", "default", "drop", "0.0.0.0/0", "25/25"),
        rule("a-mail", "a", "accept", "0.0.0.0/0", "25/25"),
        rule("mail", "", "drop", "0.0.0.0/0", "25/25"),
        rule("b-web", "b", "drop", "10.0.0.0/24", "80/80"),
        rule("b-web6", "b", "drop", "2001:db8::/32", "80/80"),
    ];
    let text = format!("{VRFS}[[acl]]\nid = 'x'\n{}", rules.concat());
    let mut g = Gateway::new();
    let verdicts = |s: &Snapshot, src: &str, dport: u16| {
        [0, 1, 2, 3].map(|vrf| {
            let dst = ip(if src.contains(':') { "2001:db8:99::80" } else { "198.51.100.80" });
            let tuple = Tuple { proto: 6, src: ip(src), dst, sport: 999, dport };
            let from = VrfZone::new(Zone::Lan, VrfNo::new(vrf).unwrap());
            match s.acl.check(from, Zone::Wan, &tuple, Header::default()).0 {
                AclVerdict::Deny { slot: Some(slot) } => s.acl.name(slot).unwrap().to_owned(),
                AclVerdict::Deny { slot: None } => "default".to_owned(),
                AclVerdict::Accept { .. } => "accept".to_owned(),
            }
        })
    };
    let s = g.snapshot(&config(&text), &overlapping(), 1);
    assert_eq!(verdicts(&s, "10.0.0.5", 25), ["x/ours", "accept", "x/mail", "x/mail"]);
    assert_eq!(verdicts(&s, "10.0.0.5", 80), ["accept", "accept", "x/b-web", "accept"]);
    assert_eq!(verdicts(&s, "2001:db8:a::5", 80), ["accept", "accept", "x/b-web6", "accept"]);
    // The same names, other numbers.
    let renamed =
        text.replace("name = \"a\"", "name = \"y\"").replace("\"a\"", "\"y\"").replace("'a'", "'y'");
    let s = g.snapshot(&config(&renamed), &overlapping(), 2);
    assert_eq!(verdicts(&s, "10.0.0.5", 25), ["x/ours", "x/mail", "x/mail", "accept"], "y is number 3");
    let qos = "[[qos]]\nid = 'q'\n[[qos.car]]\npriority = 1\nlimit_type = 'Absolute'\nmin_bandwidth_abs = 1\n\
               max_bandwidth_abs = 9\n[[qos.policy]]\npriority = 1\nsource_cidr = '10.0.0.0/24'\ndest_cidr = '0.0.0.0/0'\n\
               ip_protocol = 'all'\nvrf = 'b'\n";
    let s = g.snapshot(&config(&format!("{VRFS}{qos}")), &overlapping(), 3);
    let tuple = || Tuple { proto: 6, src: ip("10.0.0.5"), dst: ip("198.51.100.80"), sport: 999, dport: 80 };
    let metered = [0, 1, 2].map(|vrf| {
        let mark = Mark { vrf: VrfNo::new(vrf).unwrap(), ..Mark::default() };
        s.qos.classify(PortIdx(4), PortIdx(1), mark, tuple).car
    });
    assert_eq!(metered, [None, None, Some(0)]);
}

/// Routes of a table that is a VRF's are the VRF's, by whatever port they lead; those of others are nobody's.
#[test]
fn tables_of_the_kernel_are_those_of_vrfs() {
    let text = VRFS.replace("name = \"b\"\n[[port]]", "name = \"b\"\ntable = 77\n[[port]]").replace(
        "vrf = \"b\"\ndestination = \"10.9.0.0/16\"",
        "vrf = \"b\"\nmetric = 5\ndestination = \"10.9.0.0/16\"",
    );
    let in_table = |number: u32, mut route: KernelRoute| {
        route.table = Table::Other(number);
        route
    };
    let unicast = |dst: &str, metric: u32, dev: u32, via: &str| {
        route(dst, RouteKind::Unicast, metric, vec![hop(dev, Some(via))])
    };
    let mut t = overlapping();
    // A leak, as `ip route add ... dev eth1 table 77`; one by its own port; a local address, which is no host.
    t.insert_route(in_table(77, unicast("10.5.0.0/16", 0, 4, "203.0.113.1")));
    t.insert_route(in_table(77, unicast("10.9.0.0/16", 0, 7, "10.0.0.99")));
    t.insert_route(in_table(77, route("10.0.0.1/32", RouteKind::Local, 0, vec![hop(7, None)])));
    t.insert_route(in_table(77, route("10.4.0.0/16", RouteKind::Blackhole, 0, vec![])));
    t.insert_route(in_table(88, unicast("10.3.0.0/16", 0, 7, "10.0.0.3")));
    let mut g = Gateway::new();
    let s = g.snapshot(&config(&text), &t, 1);
    let via = |port: u8, gateway: &str| vec![(port, Some(ip(gateway)))];
    for (vrf, to, want) in [
        (2, "10.5.0.1", via(1, "203.0.113.1")),
        (0, "10.5.0.1", via(1, "203.0.113.1")),
        (1, "10.5.0.1", via(1, "203.0.113.1")),
        (2, "10.9.0.1", via(4, "10.0.0.99")),
        (1, "10.9.0.1", via(1, "203.0.113.1")),
        (2, "10.3.0.1", via(4, "10.0.0.254")),
        (2, "10.7.0.1", via(4, "10.0.0.7")),
    ] {
        assert_eq!(ways(&s, vrf, to), want, "{to} in VRF {vrf}");
    }
    assert_eq!(s.route_in(VrfNo::new(2).unwrap(), ip("10.4.0.1")), Some(&Route::Blackhole));
    assert!(
        s.is_local(VrfNo::new(2).unwrap(), ip("10.0.0.1")) && !s.is_local(VrfNo::DEFAULT, ip("10.0.0.1"))
    );
    assert_eq!(kernel_tables(&config(&text), &t), [(77, "b".to_owned())].into());
}

/// A VRF has the table of the kernel's VRF device in which its ports are, and the device's addresses. The kernel and the
/// configuration may disagree.
#[test]
fn vrf_devices_of_the_kernel() {
    let mut t = overlapping();
    t.insert_link(Link { kind: Some("vrf".into()), vrf_table: Some(88), ..link(9, "vrf-b") });
    t.insert_link(Link { master: Some(9), ..link(7, "eth3") });
    t.insert_address(address(9, "10.255.255.1/32"));
    let mut out = route("10.3.0.0/16", RouteKind::Unicast, 0, vec![hop(7, Some("10.0.0.3"))]);
    out.table = Table::Other(88);
    t.insert_route(out);
    let mut g = Gateway::new();
    let b = VrfNo::new(2).unwrap();
    let s = g.snapshot(&config(VRFS), &t, 1);
    assert_eq!(kernel_tables(&config(VRFS), &t), [(88, "b".to_owned())].into());
    assert_eq!(ways(&s, 2, "10.3.0.1"), vec![(4, Some(ip("10.0.0.3")))]);
    assert!(s.is_local(b, ip("10.255.255.1")) && !s.is_local(VrfNo::DEFAULT, ip("10.255.255.1")));
    let problems = |g: &mut Gateway, text: &str, t: &Tables| -> Vec<String> {
        let plan = g.compiler.compile(&config(text), t, 1, NOW);
        plan.problems
            .iter()
            .filter(|p| matches!(p, Problem::KernelVrf { .. }))
            .map(Problem::to_string)
            .collect()
    };
    assert_eq!(problems(&mut g, VRFS, &t), Vec::<String>::new());
    // A port of no VRF in a VRF device; a VRF with another table than its port's device.
    t.insert_link(Link { master: Some(9), ..link(3, "eth1") });
    let found = problems(&mut g, VRFS, &t);
    assert!(
        matches!(&found[..], [one] if one.contains("port 0 in its VRF vrf-b with table 88") && one.contains("the default VRF")),
        "{found:?}"
    );
    let other = VRFS.replace("name = \"b\"\n[[port]]", "name = \"b\"\ntable = 77\n[[port]]");
    assert_eq!(problems(&mut g, &other, &t).len(), 2);
}
