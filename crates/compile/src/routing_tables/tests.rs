use super::*;

fn row(dst: &str, port: u8, unused: &[u8]) -> RouteRow {
    let by = |port: u8| Member::port(PortIdx(port), None, 1);
    RouteRow {
        vrf: VrfNo::DEFAULT,
        dst: dst.parse().unwrap(),
        route: Route::Via(vec![by(port)]),
        source: RouteSource::Kernel,
        table: sag_rtnl::Table::Main,
        protocol: "bgp".into(),
        metric: 20,
        foreign: Vec::new(),
        unused: unused.iter().map(|p| by(*p)).collect(),
    }
}

fn numbers(t: &RoutingTables) -> Vec<u32> {
    t.prefixes().map(|p| p.2).collect()
}

#[test]
fn what_leads_the_same_way_has_one_number() {
    for nets in [
        ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"],
        ["2001:db8::/32", "2001:db8:1::/48", "2001:db8:2::/48"],
    ] {
        let [a, b, c] = nets;
        let mut t = RoutingTables::default();
        t.replace([row(a, 1, &[]), row(b, 2, &[]), row(c, 1, &[])]);
        assert_eq!(numbers(&t), [0, 1, 0]);
        assert_eq!(t.ways().count(), 2);
        // Sources may come in by what is not in use, so it is another one.
        let set = |nets: &[&str]| nets.iter().map(|n| n.parse().unwrap()).collect::<BTreeSet<IpNet>>();
        let list = t.list();
        let changed = t.change(&set(&[b, c]), [row(b, 1, &[]), row(c, 1, &[3])]).unwrap();
        assert!(changed.ways && !changed.of_file);
        assert_eq!(numbers(&t), [0, 0, 2]);
        assert_eq!((t.list().unused(2).len(), list.get(2)), (1, Some(&Route::Throw)));
        // A number without prefixes is given out again, and snapshots of before do not see it.
        let changed = t.change(&set(&[b]), [row(b, 9, &[])]).unwrap();
        assert_eq!(changed.prefixes[0].own, [Some(0), Some(1)]);
        assert_eq!(list.get(1), Some(&Route::Via(vec![Member::port(PortIdx(2), None, 1)])));
        let changed = t.change(&set(&[b, a]), [row(a, 1, &[])]).unwrap();
        assert_eq!(changed.prefixes.len(), 1, "the other is as it was");
        assert_eq!(changed.prefixes[0].longest, [Some(1), Some(0)]);
        assert_eq!((t.len(), t.get(VrfNo::DEFAULT, &b.parse().unwrap())), (2, None));
    }
}

#[test]
fn a_part_of_the_routes_begins_behind_any_place() {
    let (a, b) = (VrfNo::DEFAULT, VrfNo::new(3).unwrap());
    let nets =
        ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "::/0", "2001:db8::/32", "2001:db8:1::/48"];
    let of = |vrf| nets.map(|dst| RouteRow { vrf, ..row(dst, 1, &[]) });
    let mut t = RoutingTables::default();
    t.replace(of(a).into_iter().chain(of(b)));
    let all: Vec<(VrfNo, IpNet)> = t.iter().map(|(vrf, dst, _)| (vrf, dst)).collect();
    assert_eq!(all.len(), 14);
    let select = |within: Option<&str>, after| -> Vec<(VrfNo, IpNet)> {
        t.select(within.map(|n| n.parse().unwrap()), after).map(|(vrf, dst, _)| (vrf, dst)).collect()
    };
    assert_eq!(select(None, None), all);
    // Places that are there, and some that are not.
    let places = nets.iter().chain(&["10.0.128.0/17", "0.0.0.0/1", "255.255.255.255/32", "ffff::/16"]);
    for place in places.flat_map(|dst| [(a, *dst), (b, *dst)]).chain([(VrfNo::new(2).unwrap(), "10.0.0.0/8")])
    {
        let after = (place.0, place.1.parse::<IpNet>().unwrap());
        let is_behind = |r: &&(VrfNo, IpNet)| **r > after;
        assert_eq!(
            select(None, Some(after)),
            all.iter().filter(is_behind).copied().collect::<Vec<_>>(),
            "{place:?}"
        );
        for net in nets {
            let within = net.parse::<IpNet>().unwrap();
            let wanted = all.iter().filter(is_behind).filter(|r| within.contains(&r.1));
            assert_eq!(
                select(Some(net), Some(after)),
                wanted.copied().collect::<Vec<_>>(),
                "{net} {place:?}"
            );
        }
    }
}
