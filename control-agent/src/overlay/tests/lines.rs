//! Devices with several lines to the Internet.

use super::*;
use sag_southbound::AnnouncedLine;

fn line(name: &str, address: &str, priority: i64, weight: i64) -> Line {
    Line::new(name, address.parse().expect("an address"), priority, weight).expect("a line")
}

/// This gateway with these lines.
fn own_with(lines: &[Line]) -> Own {
    let addresses = lines.iter().filter_map(|l| match l.address {
        IpAddr::V4(a) => Some(a),
        IpAddr::V6(_) => None,
    });
    let mut own = own();
    own.addresses.extend(addresses);
    own.lines = lines.to_vec();
    own
}

/// Member `n` with these lines, signed.
fn member_with(n: u8, lines: &[Line]) -> Member {
    let mut m = member(n);
    m.devices[0].lines = lines.iter().map(AnnouncedLine::from).collect();
    sign(&mut m, &key());
    m
}

fn two(n: u8, priorities: [i64; 2], weights: [i64; 2]) -> [Line; 2] {
    let second = format!("198.51.100.{n}");
    [
        line("0", &format!("203.0.113.{n}"), priorities[0], weights[0]),
        line("3", &second, priorities[1], weights[1]),
    ]
}

/// Name, ends, link, metric and weight of each tunnel.
fn rows(p: &Plan) -> Vec<(&str, String, &str, i64, i64)> {
    let ends = |t: &Tunnel| format!("{} {}", t.local, t.remote);
    p.tunnels.iter().map(|t| (t.name.as_str(), ends(t), t.link.as_str(), t.metric, t.weight)).collect()
}

fn planned_with(members: Vec<Member>, own: &Own, end: &LocalEndpoint) -> Plan {
    plan(&network(members), end, own, &Excluded::default())
}

#[test]
fn a_tunnel_by_each_pair_of_lines_by_priority_and_weight() {
    let own = own_with(&two(1, [10, 10], [75, 25]));
    let other = member_with(2, &two(2, [10, 20], [100, 50]));
    let p = planned_with(vec![other.clone()], &own, &end());
    assert!(p.refused.is_empty(), "{:?}", p.refused);
    let wanted = [
        ("ccn-sn2", "203.0.113.1 203.0.113.2", "", 0, 75),
        ("ccn-sn2:3:3", "198.51.100.1 198.51.100.2", "3|3", 10, 13),
        ("ccn-sn2:0:3", "203.0.113.1 198.51.100.2", "0|3", 10, 38),
        ("ccn-sn2:3:0", "198.51.100.1 203.0.113.2", "3|0", 0, 25),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(n, e, l, m, w)| (*n, (*e).to_owned(), *l, *m, *w)).collect();
    assert_eq!(rows(&p), wanted);
    assert!(p.tunnels.iter().all(|t| t.several && t.blocks.len() == 1));
    assert_eq!(peer_key(&p.tunnels[1]).peers[0].link, "3|3");
    // What does not get through comes after all that does; if nothing is known, nothing is preferred.
    let fit = |names: &[&str]| {
        let fit = names.iter().map(|n| (*n).to_owned()).collect();
        let p = planned_with(vec![other.clone()], &own, &LocalEndpoint { fit, ..end() });
        p.tunnels.iter().map(|t| t.metric).collect::<Vec<_>>()
    };
    assert_eq!(fit(&[]), [0, 10, 10, 0]);
    assert_eq!(fit(&["ccn-sn2:3:3"]), [UNFIT, 10, UNFIT + 10, UNFIT]);
    assert_eq!(fit(&["ccn-sn2", "ccn-sn2:0:3", "ccn-sn2:3:0"]), [0, UNFIT + 10, 10, 0]);
}

/// Both ends have the same tunnels with the same keys, whoever looks.
#[test]
fn the_far_end_plans_the_same() {
    let (mine, theirs) = (two(1, [10, 20], [75, 25]), two(2, [5, 1005], [100, 50]));
    let third = line("7", "192.0.2.2", 10, 100);
    for more in [&[][..], std::slice::from_ref(&third)] {
        let theirs = [&theirs[..], more].concat();
        let here = planned_with(vec![member_with(2, &theirs)], &own_with(&mine), &end());
        let far = LocalEndpoint { gateway: "sag-2".into(), sn: "sn2".into(), ..end() };
        let far_own = Own { lines: theirs.clone(), local: None, ..Own::default() };
        let there = planned_with(vec![member_with(1, &mine)], &far_own, &far);
        let of = |p: &Plan, swap: bool| {
            let mut all: Vec<_> = p
                .tunnels
                .iter()
                .map(|t| {
                    let ends = if swap { (t.remote, t.local) } else { (t.local, t.remote) };
                    (ends, t.link.clone(), t.metric, t.weight)
                })
                .collect();
            all.sort();
            all
        };
        assert_eq!(of(&here, false), of(&there, true));
        assert_eq!(here.tunnels.len(), 4, "{:?}", here.refused);
        assert!(theirs.iter().all(|l| here.tunnels.iter().any(|t| IpAddr::V4(t.remote) == l.address)));
    }
}

/// An agent before version 1.4, or behind a cloud before it.
#[test]
fn one_tunnel_to_a_device_that_announces_no_lines() {
    let p = planned_with(vec![member(2)], &own_with(&two(1, [10, 10], [75, 25])), &end());
    assert_eq!(rows(&p), [("ccn-sn2", "203.0.113.1 203.0.113.2".to_owned(), "", 0, 100)]);
    let p = planned_with(vec![member_with(2, &two(2, [1, 1], [1, 1]))], &own(), &end());
    assert_eq!(rows(&p), [("ccn-sn2", "203.0.113.1 203.0.113.2".to_owned(), "", 0, 100)]);
    assert!(!p.tunnels[0].several);
}

/// A line that cannot be used costs its own tunnels.
#[test]
fn a_bad_line_costs_its_own_tunnels() {
    let own = own_with(&two(1, [10, 10], [100, 100]));
    for (address, why) in [
        ("198.51.100.1", "is one of this gateway"),
        ("10.1.0.77", "inside of the network of port 1"),
        ("10.3.0.77", "inside of the block 10.3.0.0/16 of gateway sag-3"),
        ("203.0.113.3", "that of device sn3"),
        ("2001:db8::2", "another IP version"),
    ] {
        let lines = [line("0", "203.0.113.2", 10, 100), line("3", address, 10, 100)];
        let p = planned_with(vec![member_with(2, &lines), member(3)], &own, &end());
        let names: Vec<_> = p.tunnels.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["ccn-sn2", "ccn-sn2:3:0", "ccn-sn3"], "{address}");
        assert_eq!(p.refused.len(), 1, "{:?}", p.refused);
        assert!(
            p.refused[0].contains("line 3 of device sn2") && p.refused[0].contains(why),
            "{:?}",
            p.refused
        );
    }
    let mut forged = member_with(2, &two(2, [10, 10], [100, 100]));
    forged.devices[0].lines[1].address = "198.51.100.66".into();
    let p = planned_with(vec![forged, member(3)], &own, &end());
    assert_eq!(p.tunnels.len(), 1, "{:?}", p.refused);
    assert!(p.refused[0].contains("device sn2") && p.refused[0].contains("signature"), "{:?}", p.refused);
}

/// Second tunnels take what room first ones leave.
#[test]
fn every_device_has_its_first_tunnel_before_others_have_more() {
    let own = own_with(&two(1, [10, 10], [100, 100]));
    let count = MAX_TUNNELS - 10;
    let members = (0..count).map(|n| {
        let mut m = member(2);
        m.gateway = format!("sag-{n}x");
        m.blocks.clear();
        m.devices[0].sn = format!("zn-{n}");
        let address = |net: u8| format!("192.{net}.{}.{}", n / 200, 1 + n % 200);
        m.devices[0].address = address(1);
        let lines = [line("0", &address(1), 1, 1), line("3", &address(2), 1, 1)];
        m.devices[0].lines = lines.iter().map(AnnouncedLine::from).collect();
        sign(&mut m, &key());
        m
    });
    let p = planned_with(members.collect(), &own, &end());
    assert_eq!(p.tunnels.len(), MAX_TUNNELS);
    let first = p.tunnels.iter().filter(|t| !t.name.contains(':')).count();
    assert_eq!((first, p.refused.len()), (count, 0));
}
