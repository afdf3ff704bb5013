//! Several lines to the Internet: priorities, weights, and lines that were found to lead nowhere.

use super::*;
use sag_pipeline::snapshot::{Member, Snapshot};

const LAN: &str = "[[port]]\nname = \"0\"\ndevice = \"eth1\"\nrole = \"lan\"\n";
/// Of a line, in each family.
const ROUTERS: [[&str; 2]; 3] =
    [["203.0.0.1", "2001:db8:a::1"], ["203.0.1.1", "2001:db8:b::1"], ["203.0.2.1", "2001:db8:c::1"]];
const OUT: [&str; 2] = ["9.9.9.9", "2620:fe::fe"];

/// A gateway with three lines: what the file says of each, and what is known of its link.
fn compile(lines: [(&str, bool); 3], more: &str, change: impl Fn(&mut Tables)) -> Snapshot {
    let mut text = LAN.to_owned();
    let mut t = Tables::default();
    t.insert_link(link(3, "eth1"));
    for (i, (keys, running)) in (0u32..).zip(lines) {
        let role = if keys.contains("-1") { "mgmt" } else { "wan" };
        text += &format!("[[port]]\nname = \"w{i}\"\ndevice = \"wan{i}\"\nrole = \"{role}\"\n{keys}\n");
        t.insert_link(Link { running, ..link(10 + i, &format!("wan{i}")) });
        t.insert_address(address(10 + i, &format!("203.0.{i}.2/24")));
        // As DHCP clients and router advertisements leave them: the first one is the kernel's choice.
        for (dst, router) in ["0.0.0.0/0", "::/0"].iter().zip(ROUTERS[i as usize]) {
            t.insert_route(route(dst, RouteKind::Unicast, i * 100, vec![hop(10 + i, Some(router))]));
        }
    }
    change(&mut t);
    let config = config::parse(&(text + more), "t").unwrap().config;
    Gateway::new().snapshot(&config, &t, 1)
}

/// The lines by which packets to the Internet go with their weights, and those that wait.
fn ways(s: &Snapshot, to: &str) -> (Vec<(u8, u16)>, Vec<u8>) {
    let Some(Route::Via(members)) = s.route(ip(to)) else { return (Vec::new(), Vec::new()) };
    let line = |m: &Member| m.port.0 - 1;
    let v6 = ip(to).is_ipv6();
    let of_family = |m: &&Member| m.via.is_some_and(|via| via.is_ipv6() == v6);
    let mut unused: Vec<u8> =
        (0..s.routes.places()).flat_map(|no| s.routes.unused(no)).filter(of_family).map(line).collect();
    unused.sort_unstable();
    let mut used: Vec<_> = members.iter().map(|m| (line(m), m.weight)).collect();
    used.sort_unstable();
    (used, unused)
}

#[test]
fn the_lowest_priority_wins_and_equal_ones_share_by_weight() {
    let nothing = |_: &mut Tables| ();
    for to in OUT {
        let of = |lines: [&str; 3]| ways(&compile(lines.map(|l| (l, true)), "", nothing), to);
        assert_eq!(of([""; 3]), (vec![(0, 1)], vec![1, 2]), "as in the kernel");
        assert_eq!(of(["priority = 20", "priority = 10", "priority = 30"]), (vec![(1, 100)], vec![0, 2]));
        let (a, b) = ("priority = 10\nweight = 25", "priority = 10\nweight = 75");
        assert_eq!(of([a, b, "priority = 30"]), (vec![(0, 25), (1, 75)], vec![2]));
        assert_eq!(of([a, a, b]), (vec![(0, 25), (1, 25), (2, 75)], vec![]));
        // One without a priority has the kernel's metric, here 100.
        assert_eq!(of(["priority = 200", "", "priority = 300"]), (vec![(1, 1)], vec![0, 2]));
        // -1: the kernel's metric of it is the best.
        assert_eq!(of(["priority = -1", "priority = 7", "priority = 7"]), (vec![(1, 100), (2, 100)], vec![]));
    }
}

#[test]
fn lines_without_carrier_or_found_dead_come_last() {
    let nothing = |_: &mut Tables| ();
    let (first, second) = ("priority = 1", "priority = 2");
    let failed = |keys: &str| format!("{keys}\nfailed = true");
    for to in OUT {
        let of = |lines: [(&str, bool); 3]| ways(&compile(lines, "", nothing), to);
        assert_eq!(of([(first, false), (second, true), (second, true)]), (vec![(1, 100), (2, 100)], vec![0]));
        assert_eq!(
            of([(&failed(first), true), (second, true), (second, true)]),
            (vec![(1, 100), (2, 100)], vec![0])
        );
        assert_eq!(of([(first, true), (&failed(first), true), (second, true)]), (vec![(0, 100)], vec![1, 2]));
        // Better than no link, and than nothing.
        assert_eq!(
            of([(first, false), (&failed(second), true), (first, false)]),
            (vec![(1, 100)], vec![0, 2])
        );
        let all = [(&*failed(first), true), (&*failed(first), true), (&*failed(second), true)];
        assert_eq!(of(all), (vec![(0, 100), (1, 100)], vec![2]));
        // Without a priority it is the same.
        assert_eq!(of([("failed = true", true), ("", true), ("", true)]), (vec![(1, 1)], vec![0, 2]));
    }
}

/// Several default routes of one line, one route of several lines, and those of the file.
#[test]
fn each_line_has_one_default_route() {
    let lines = [("priority = 5", true), ("priority = 5", true), ("priority = 9", true)];
    // A better and a worse one by the first line: it has its share once.
    let s = compile(lines, "", |t| {
        t.insert_route(route("0.0.0.0/0", RouteKind::Unicast, 7, vec![hop(10, Some("203.0.0.9"))]));
    });
    let Some(Route::Via(members)) = s.route(ip(OUT[0])) else { panic!() };
    let vias: Vec<_> = members.iter().map(|m| m.via.unwrap()).collect();
    assert_eq!(vias, [ip("203.0.0.1"), ip("203.0.1.1")]);
    assert_eq!(ways(&s, OUT[0]).1, [0, 2]);
    // The kernel's multipath route takes part by its ports' priorities, a failed leg comes last.
    let multipath = |t: &mut Tables| {
        let hops =
            (0..3).map(|i| hop(10 + i, Some(["203.0.0.7", "203.0.1.7", "203.0.2.7"][i as usize]))).collect();
        let mut own = Tables::default();
        t.links().for_each(|l| own.insert_link(l.clone()));
        t.addresses().for_each(|a| own.insert_address(a.clone()));
        own.insert_route(route("0.0.0.0/0", RouteKind::Unicast, 0, hops));
        *t = own;
    };
    assert_eq!(ways(&compile(lines, "", multipath), OUT[0]), (vec![(0, 100), (1, 100)], vec![2]));
    let one_failed = [("priority = 5\nfailed = true", true), ("priority = 5", true), ("priority = 9", true)];
    assert_eq!(ways(&compile(one_failed, "", multipath), OUT[0]), (vec![(1, 100)], vec![0, 2]));
    let failed = [("failed = true", true), ("", true), ("", true)];
    assert_eq!(ways(&compile(failed, "", multipath), OUT[0]), (vec![(1, 1), (2, 1)], vec![0]));
    // A default route of the file.
    let file = "[[route]]\ndestination = \"::/0\"\nnext_hop = \"2001:db8:c::9\"\nport = \"w2\"\nmetric = 0\n";
    let s = compile(
        [("priority = 5", true), ("priority = 6", true), ("priority = 5\nweight = 9", true)],
        file,
        |_| (),
    );
    assert_eq!(ways(&s, OUT[1]), (vec![(0, 100), (2, 9)], vec![1, 2]));
    // Other prefixes go by their metrics, and away from a line that is dead.
    for (keys, by) in [("priority = 9", 0), ("priority = 9\nfailed = true", 1)] {
        let s = compile([(keys, true), ("priority = 1", true), ("priority = 1", true)], "", |t| {
            t.insert_route(route("10.0.0.0/8", RouteKind::Unicast, 1, vec![hop(10, Some("203.0.0.1"))]));
            t.insert_route(route("10.0.0.0/8", RouteKind::Unicast, 2, vec![hop(11, Some("203.0.1.1"))]));
        });
        assert_eq!(ways(&s, "10.1.1.1").0, [(by, 1)]);
    }
}
