//! Routes with several next hops: who takes part, and what becomes of flows when that changes.

use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;
use std::collections::BTreeMap;

/// Destination, source, and the routers of the two legs, in each family.
const FAMILIES: [(&str, &str, &str, [&str; 2]); 2] = [
    ("198.51.100.7", "192.168.1.10", "198.51.100.0/24", ["203.0.113.1", "192.0.2.1"]),
    ("2001:db8:99::7", "2001:db8:1::10", "2001:db8:99::/48", ["2001:db8:2::1", "2001:db8:3::1"]),
];

fn gateway(prefix: &str, routers: [&str; 2]) -> Rig {
    let mut net = Net::branch();
    let leg = |port, router: &str, weight| Member::port(port, Some(router.parse().unwrap()), weight);
    net.route(prefix, Route::Via(vec![leg(WAN, routers[0], 1), leg(LINE, routers[1], 3)]));
    // With room for all flows: none makes room for others.
    Rig::sized(net, 8000)
}

/// By which ports the flows of these source ports leave.
fn ways(rig: &mut Rig, src: &str, to: &str, flows: std::ops::Range<u16>) -> BTreeMap<u8, u32> {
    let mut by_port = BTreeMap::new();
    for flow in flows {
        match rig.send(&Pkt::udp(src, to, 1000 + flow, 9)) {
            Outcome::Tx(port, _) => *by_port.entry(port.0).or_default() += 1,
            other => panic!("flow {flow}: {other:?}"),
        }
    }
    by_port
}

/// As Linux with `fib_multipath_use_neigh`.
#[test]
fn a_router_that_does_not_answer_is_left_out_and_comes_back() {
    for (to, src, prefix, routers) in FAMILIES {
        let mut rig = gateway(prefix, routers);
        let both = ways(&mut rig, src, to, 0..400);
        assert!((60..140).contains(&both[&WAN.0]), "a quarter by weight: {both:?}");
        rig.change(|n| {
            n.unresolve(LINE, routers[1]);
        });
        // New flows and those that went by it, each at its next packet; nothing is held, and nothing is asked for.
        assert_eq!(ways(&mut rig, src, to, 0..800), [(WAN.0, 800)].into());
        assert_eq!(rig.requests(), []);
        rig.change(|n| {
            n.neighbor(LINE, routers[1]);
        });
        let again = ways(&mut rig, src, to, 800..1200);
        assert!((60..140).contains(&again[&WAN.0]), "{again:?}");
        assert_eq!(ways(&mut rig, src, to, 0..800), [(WAN.0, 800)].into(), "known flows stay where they are");
    }
}

/// With no router resolved packets wait for the one that their flow has, as with one next hop.
#[test]
fn without_any_router_all_are_asked_for() {
    for (to, src, prefix, routers) in FAMILIES {
        let mut rig = gateway(prefix, routers);
        rig.change(|n| {
            n.unresolve(WAN, routers[0]);
            n.unresolve(LINE, routers[1]);
        });
        for flow in 0..40 {
            assert_eq!(rig.send(&Pkt::udp(src, to, 1000 + flow, 9)), Outcome::Held);
        }
        let mut asked = rig.requests();
        asked.sort_unstable();
        assert_eq!(asked, [(WAN, routers[0].parse().unwrap()), (LINE, routers[1].parse().unwrap())]);
        // One answers: all that waits for it leaves, and what waits for the other goes by it too with its next packet.
        rig.change(|n| {
            n.neighbor(WAN, routers[0]);
        });
        assert_eq!(ways(&mut rig, src, to, 0..40), [(WAN.0, 40)].into());
    }
}

/// A leg whose link is down counts for less than one whose router is not resolved, and a leg on the link needs no router.
#[test]
fn links_count_before_routers() {
    for (to, src, prefix, routers) in FAMILIES {
        let mut rig = gateway(prefix, routers);
        rig.change(|n| {
            n.ports[WAN.index()].up = false;
            n.unresolve(LINE, routers[1]);
        });
        assert_eq!(rig.send(&Pkt::udp(src, to, 1, 9)), Outcome::Held, "for the leg that is up");
        assert_eq!(rig.requests(), [(LINE, routers[1].parse().unwrap())]);
        let mut rig = gateway(prefix, routers);
        let on_link = Member::port(WAN, None, 1);
        let router = Member::port(LINE, Some(routers[1].parse().unwrap()), 1);
        rig.change(|n| {
            n.route(prefix, Route::Via(vec![on_link.clone(), router.clone()]));
            n.neighbor(WAN, to);
            n.unresolve(LINE, routers[1]);
        });
        assert_eq!(ways(&mut rig, src, to, 0..50), [(WAN.0, 50)].into());
    }
}
