//! Ports, tunnels and the file change, and routes with them: what comes out step by step is what compiling everything anew
//! says.

use super::route_changes::{FILE, Follower, Rng, Taken, answers, next_hops, random_route, tables_of};
use super::*;
use ipnet::IpNet;
use std::collections::BTreeSet;

/// What the file says instead: text in place of other text.
const EDITS: [(&str, &str); 9] = [
    ("role = \"wan\"", "role = \"wan\"\nfailed = true"),
    ("role = \"wan\"", "role = \"wan\"\npriority = 7"),
    ("metric = 30", "metric = 10"),
    ("destination = \"10.2.0.0/16\"", "destination = \"10.6.7.0/24\""),
    ("next_hop = \"10.5.0.1\"", "next_hop = \"10.4.0.9\""),
    ("next_hop = \"2001:db8:a::7\"\nport = \"0\"", "next_hop = \"2001:db8:6:7::1\""),
    ("addresses = [\"10.251.0.1/24\"]", "addresses = [\"10.6.7.1/24\"]"),
    ("vrf = \"a\"\nnext_hop = \"10.250.0.9\"\nport = \"a\"", "vrf = \"a\"\ntype = \"blackhole\""),
    ("[[neighbor]]", "[[route]]\ndestination = \"10.6.0.0/16\"\nnext_hop = \"10.1.2.9\"\n[[neighbor]]"),
];

/// Everything that may change.
#[derive(Debug, Default)]
struct World {
    routes: Vec<KernelRoute>,
    edits: BTreeSet<usize>,
    without_carrier: BTreeSet<u32>,
    tunnel_down: bool,
    /// An address more, and one of the VRF's.
    addresses: [bool; 2],
}

impl World {
    fn config(&self) -> Config {
        let mut text = format!("{PORTS}{FILE}");
        for &(from, to) in self.edits.iter().map(|n| &EDITS[*n]) {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        config::parse(&text, "test.toml").unwrap().config
    }

    fn tables(&self) -> Tables {
        let mut t = tables_of(&self.routes);
        for ifindex in &self.without_carrier {
            let link = t.link(*ifindex).unwrap().clone();
            t.insert_link(Link { running: false, ..link });
        }
        for (net, ifindex) in [("10.5.0.7/24", 4), ("10.6.7.1/24", 6)]
            .into_iter()
            .zip(self.addresses)
            .filter_map(|(a, on)| on.then_some(a))
        {
            t.insert_address(address(ifindex, net));
        }
        t
    }

    /// Something changes that is no route.
    fn change(&mut self, rng: &mut Rng) {
        fn toggle<T: Ord>(set: &mut BTreeSet<T>, what: T) {
            if !set.remove(&what) {
                set.insert(what);
            }
        }
        match rng.below(8) {
            0..3 => toggle(&mut self.without_carrier, rng.pick(&[3, 4, 6])),
            // The first two are of one place.
            3..6 => match rng.below(EDITS.len() as u64) as usize {
                n @ (0 | 1) => {
                    self.edits.remove(&(1 - n));
                    toggle(&mut self.edits, n);
                }
                n => toggle(&mut self.edits, n),
            },
            6 => self.addresses[rng.below(2) as usize] ^= true,
            // One that comes back waits before it takes over, so it stays down.
            _ => self.tunnel_down = true,
        }
    }

    fn set_tunnel(&self, s: &sag_pipeline::snapshot::Snapshot) {
        s.tunnels.iter().for_each(|t| t.state.set_up(!self.tunnel_down));
    }
}

#[test]
fn what_routes_are_decided_by_changes_step_by_step() {
    let (mut taken, mut steps, mut whole) = (Taken::default(), 0, 0);
    for seed in 1..=12u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::default();
        let mut follower = Follower::new(&world.config(), &world.tables());
        for step in 0..100 {
            let mut prefixes = BTreeSet::new();
            for _ in 0..rng.below(3) {
                if world.routes.len() > 12 {
                    let old = rng.below(world.routes.len() as u64) as usize;
                    prefixes.insert(world.routes.remove(old).dst);
                }
                let new = random_route(&mut rng);
                // Tables that are asked one after the other are compiled as a whole, of which another test is.
                if new.table != Table::Default {
                    prefixes.insert(new.dst);
                    world.routes.push(new);
                }
            }
            world.change(&mut rng);
            let (config, t) = (world.config(), world.tables());
            world.set_tunnel(&follower.snapshot);
            let mut prefixes: Vec<IpNet> = prefixes.into_iter().collect();
            // Some of the changed routes come later.
            let later = prefixes.split_off(rng.below(prefixes.len() as u64 + 1) as usize);
            whole += usize::from(follower.recompile(&config, &t, &prefixes));
            follower.change(&config, &t, &later, &mut taken);
            while follower.gateway.compiler.has_undecided() {
                let found = follower.gateway.compiler.next_undecided(&t);
                steps += 1;
                for some in found.chunks(2) {
                    follower.change(&config, &t, some, &mut taken);
                }
            }
            let mut oracle = Gateway::new();
            world.set_tunnel(&oracle.compile(&config, &t, 1, NOW).snapshot);
            let plan = oracle.compile(&config, &t, 1, NOW);
            let what = format!("seed {seed}, step {step}: {world:#?}");
            let rows = |g: &Gateway| g.compiler.routes.rows().map(|r| format!("{r:?}")).collect::<Vec<_>>();
            assert_eq!(rows(&follower.gateway), rows(&oracle), "{what}");
            assert_eq!(answers(&follower.snapshot), answers(&plan.snapshot), "{what}");
            assert_eq!(
                next_hops(&follower.gateway, &follower.snapshot),
                next_hops(&oracle, &plan.snapshot),
                "{what}"
            );
        }
    }
    assert!(
        steps > 300 && whole == 0 && taken.routes > 500 && taken.everything == 0,
        "{steps} {whole} {taken:?}"
    );
}

/// However many routes lead by a port: nobody waits for all of them.
#[test]
fn a_port_that_goes_down_costs_bounded_steps() {
    const COUNT: u32 = 30_000;
    let mut t = tables();
    for n in 0..COUNT {
        let dst = format!("{}/32", Ipv4Addr::from_bits((16 << 24) + n));
        let (ifindex, via) = if n % 3 == 0 { (3, "192.0.2.7") } else { (4, "203.0.113.1") };
        t.insert_route(route(&dst, RouteKind::Unicast, 20, vec![hop(ifindex, Some(via))]));
        // There is another way.
        t.insert_route(route(&dst, RouteKind::Unicast, 30, vec![hop(4, Some("203.0.113.9"))]));
    }
    let config = config("");
    let (mut follower, mut taken) = (Follower::new(&config, &t), Taken::default());
    t.insert_link(Link { running: false, ..link(3, "eth1") });
    assert!(!follower.recompile(&config, &t, &[]));
    let (mut steps, mut found) = (0, 0);
    while follower.gateway.compiler.has_undecided() {
        let some = follower.gateway.compiler.next_undecided(&t);
        assert!(some.len() <= 8192);
        follower.change(&config, &t, &some, &mut taken);
        (steps, found) = (steps + 1, found + some.len());
    }
    // The port's network, its address, and the third of the routes that leads by it.
    assert_eq!((steps, found, taken.everything), (COUNT as usize / 8192 + 1, COUNT as usize / 3 + 2, 0));
    let by = |n: u32| match follower.snapshot.route(IpAddr::V4(Ipv4Addr::from_bits((16 << 24) + n))) {
        Some(Route::Via(members)) => members[0].via,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [by(0), by(1), by(COUNT - 3)],
        [Some(ip("203.0.113.9")), Some(ip("203.0.113.1")), Some(ip("203.0.113.9"))]
    );
}
