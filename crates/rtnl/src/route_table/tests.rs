use super::*;
use crate::route::{Nexthop, RouteKind, RouteProtocol, RouterPreference, Table};

fn route(dst: &str, via: &str) -> Route {
    let hop = Nexthop {
        ifindex: 2,
        gateway: Some(via.parse().unwrap()),
        weight: 1,
        dead: false,
        linkdown: false,
        onlink: false,
        encap: false,
    };
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
    Route { dst: dst.parse().unwrap(), attributes }
}

fn shown(t: &RouteTable) -> Vec<String> {
    t.iter().map(|r| format!("{} {}", r.dst, r.nexthops[0].gateway.unwrap())).collect()
}

/// In steps of two.
fn swept(t: &mut RouteTable, unreliable: bool) -> (Vec<String>, bool) {
    let (mut key, mut all, mut doubtful) = (None, Vec::new(), false);
    loop {
        let swept = t.sweep(key, 2, [unreliable; 2]);
        all.extend(swept.gone.iter().map(IpNet::to_string));
        doubtful |= swept.doubtful;
        key = swept.last;
        if key.is_none() {
            return (all, doubtful);
        }
    }
}

#[test]
fn what_is_read_takes_the_place_of_what_was_known() {
    for nets in [
        ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"],
        ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::/48"],
    ] {
        let [a, b, c] = nets;
        let mut t = RouteTable::default();
        [a, b, c].iter().for_each(|n| t.append(route(n, "192.0.2.1")));
        t.begin();
        assert!(!t.read(route(a, "192.0.2.1")), "as before");
        assert!(t.read(route(b, "192.0.2.2")));
        assert_eq!(swept(&mut t, false), (vec![c.to_owned()], false));
        t.end();
        assert_eq!(shown(&t), [format!("{a} 192.0.2.1"), format!("{b} 192.0.2.2")]);
        // A dump that was disturbed may have missed what is there: it takes two to remove it.
        for gone in [vec![], vec![a.to_owned()]] {
            t.begin();
            t.read(route(b, "192.0.2.2"));
            let doubtful = gone.is_empty();
            assert_eq!(swept(&mut t, true), (gone, doubtful));
            t.end();
        }
    }
}

#[test]
fn what_the_kernel_says_meanwhile_is_newer_than_what_is_read() {
    let mut t = RouteTable::default();
    let (a, b, c) = ("10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16");
    [a, b].iter().for_each(|n| t.append(route(n, "192.0.2.1")));
    t.begin();
    // `a` goes, `b` moves, `c` comes; the dump has them as they were.
    for n in [a, b, c] {
        t.speak_of(route(n, "192.0.2.1").key());
    }
    t.remove(&route(a, "192.0.2.1").key());
    t.set(route(b, "192.0.2.1").key(), route(b, "192.0.2.2"));
    t.append(route(c, "192.0.2.3"));
    assert!(![a, b].iter().any(|n| t.read(route(n, "192.0.2.1"))));
    assert_eq!(swept(&mut t, false), (Vec::new(), false));
    t.end();
    assert_eq!(shown(&t), [format!("{b} 192.0.2.2"), format!("{c} 192.0.2.3")]);
}

#[test]
fn routes_of_one_key_keep_their_order() {
    let mut t = RouteTable::default();
    let net = "10.0.0.0/8";
    let gateways = |t: &RouteTable| shown(t).iter().map(|s| s[s.len() - 1..].to_owned()).collect::<String>();
    for (read, changed) in [("123", 3), ("4123", 4), ("413", 1), ("413", 0), ("", 0), ("12", 2)] {
        t.begin();
        let via = |n: char| route(net, &format!("192.0.2.{n}"));
        assert_eq!(read.chars().filter(|n| t.read(via(*n))).count(), changed, "{read}");
        swept(&mut t, false);
        t.end();
        assert_eq!(gateways(&t), read);
    }
}

#[test]
fn what_is_read_twice_is_there_once() {
    for net in ["10.0.0.0/8", "2001:db8::/32"] {
        let mut t = RouteTable::default();
        t.begin();
        assert!(t.read(route(net, "192.0.2.1")) && !t.read(route(net, "192.0.2.1")));
        assert_eq!(shown(&t).len(), 1);
    }
}

#[test]
fn users_of_nexthop_objects_are_found_in_steps() {
    let mut t = RouteTable::default();
    let by = |dst: &str, id: Option<u32>| {
        let mut r = route(dst, "192.0.2.1");
        r.nexthop_id = id;
        r
    };
    for n in 0..9 {
        t.append(by(&format!("10.{n}.0.0/16"), (n % 3 == 0).then_some(7)));
    }
    for count in 1..12 {
        let (mut all, mut last) = t.users(&BTreeSet::from([7]), None, count);
        while last.is_some() {
            let (more, next) = t.users(&BTreeSet::from([7]), last, count);
            (last, all) = (next, [all, more].concat());
        }
        assert_eq!(
            all.iter().map(IpNet::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/16", "10.3.0.0/16", "10.6.0.0/16"]
        );
    }
    assert!(t.uses(7) && !t.uses(8));
    for n in [0, 3] {
        t.remove(&by(&format!("10.{n}.0.0/16"), None).key());
    }
    assert!(t.uses(7));
    t.set(by("10.6.0.0/16", None).key(), by("10.6.0.0/16", Some(8)));
    assert!(!t.uses(7) && t.uses(8));
    t.begin();
    assert!(t.read(by("10.6.0.0/16", None)) && !t.uses(8));
}

#[test]
fn attributes_are_there_once_and_go_with_their_last_route() {
    let mut t = RouteTable::default();
    for n in 0..100 {
        t.append(route(&format!("10.{n}.0.0/16"), ["192.0.2.1", "192.0.2.2"][n % 2]));
    }
    assert_eq!((t.len(), t.attributes.len()), (100, 2));
    for n in 0..100 {
        assert!(t.remove(&route(&format!("10.{n}.0.0/16"), "192.0.2.9").key()));
        assert!(!t.remove(&route(&format!("10.{n}.0.0/16"), "192.0.2.9").key()));
    }
    assert_eq!((t.len(), t.attributes.len(), t.by_dst.len()), (0, 0, 0));
    assert_eq!(size_of::<Entries>(), 16);
}

#[test]
fn routes_of_a_destination_stand_in_the_kernels_order() {
    let mut t = RouteTable::default();
    let net = "10.0.0.0/8";
    let of = |via: &str, priority: u32, table: Table| {
        let mut r = route(net, via);
        (r.priority, r.table) = (priority, table);
        r
    };
    for (n, (priority, table)) in
        [(20, Table::Main), (5, Table::Main), (20, Table::Local), (20, Table::Main), (7, Table::Default)]
            .into_iter()
            .enumerate()
    {
        t.append(of(&format!("192.0.2.{n}"), priority, table));
    }
    let order = |t: &RouteTable| {
        t.to(net.parse().unwrap())
            .map(|r| r.nexthops[0].gateway.unwrap().to_string().split_off(8))
            .collect::<String>()
    };
    assert_eq!(order(&t), "21034");
    let key = of("192.0.2.0", 20, Table::Main).key();
    assert_eq!(t.like(key).count(), 2);
    assert!(t.set(RouteKey { nth: 1, ..key }, of("192.0.2.9", 20, Table::Main)));
    assert_eq!(order(&t), "21094");
    for left in ["2194", "214"] {
        assert!(t.remove(&key));
        assert_eq!(order(&t), left);
    }
    assert!(!t.remove(&key));
    assert_eq!((t.len(), t.clone() == t, t == RouteTable::default()), (3, true, false));
}

#[test]
fn destinations_by_interfaces_are_found_in_steps() {
    let nets: Vec<String> =
        (0..5).map(|n| format!("10.{n}.0.0/16")).chain(["2001:db8::/32".to_owned()]).collect();
    let mut t = RouteTable::default();
    for (n, net) in (0u32..).zip(&nets) {
        let mut r = route(net, "192.0.2.1");
        r.attributes.nexthops[0].ifindex = 2 + n % 2;
        t.append(r);
    }
    let asked = std::cell::Cell::new(0);
    let by = |r: RouteRef<'_>| {
        asked.set(asked.get() + 1);
        r.nexthops[0].ifindex == 3
    };
    let (mut found, mut after, mut steps) = (Vec::new(), None, 0);
    loop {
        let (some, last) = t.matching(after, 4, by);
        found.extend(some.iter().map(IpNet::to_string));
        (after, steps) = (last, steps + 1);
        if last.is_none() {
            break;
        }
    }
    assert_eq!(found, [&*nets[1], &*nets[3], &*nets[5]]);
    assert_eq!((steps, asked.get()), (2, 4), "each kind of route once in a step");
    t.remove_to(nets[1].parse().unwrap());
    t.remove_to(nets[1].parse().unwrap());
    assert_eq!((t.len(), t.matching(None, 9, by).0.len()), (5, 2));
}
