//! Changes of routes, one after the other: what comes out is what compiling everything anew says.

use super::*;
use sag_model::VrfNo;
use sag_pipeline::snapshot::Snapshot;
use std::collections::BTreeSet;

/// A generator of numbers that repeats itself.
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Two VRFs, a tunnel, routes of the file of every kind, and a neighbor of the file.
pub(super) const FILE: &str = r#"
[[vrf]]
name = "a"
table = 77
[[port]]
name = "a"
device = "eth2"
role = "lan"
vrf = "a"
addresses = ["10.250.0.1/24", "2001:db8:250::1/64"]
[[tunnel]]
name = "t"
kind = "gre"
local = "203.0.113.2"
remote = "10.4.0.1"
addresses = ["10.251.0.1/24"]
[[route]]
destination = "10.1.0.0/16"
next_hop = "192.0.2.7"
port = "0"
metric = 30
[[route]]
destination = "10.2.0.0/16"
tunnel = "t"
[[route]]
destination = "10.3.0.0/16"
next_hop = "10.5.0.1"
[[route]]
destination = "2001:db8:1::/48"
next_hop = "2001:db8:a::7"
port = "0"
[[route]]
destination = "10.1.0.0/16"
vrf = "a"
next_hop = "10.250.0.9"
port = "a"
[[neighbor]]
address = "192.0.2.7"
mac = "02:00:00:00:07:07"
port = "0"
"#;

/// Prefixes that cover each other, one of them with the end of the tunnel in it, one with a next hop that is looked for.
const NETS: [[&str; 9]; 2] = [
    [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.2.0.0/16",
        "10.3.0.0/16",
        "10.4.0.0/16",
        "10.6.0.0/16",
        "10.6.7.0/24",
    ],
    [
        "2001:db8::/32",
        "2001:db8:1::/48",
        "2001:db8:1:2::/64",
        "2001:db8:1:2::3/128",
        "2001:db8:2::/48",
        "2001:db8:3::/48",
        "2001:db8:4::/48",
        "2001:db8:6::/48",
        "2001:db8:6:7::/64",
    ],
];
/// Seldom: the default route, and one that holds the next hop that is looked for.
const RARE: [[&str; 2]; 2] = [["0.0.0.0/0", "10.5.0.0/16"], ["::/0", "2001:db8:5::/48"]];
const ROUTERS: [[&str; 4]; 2] = [
    ["192.0.2.7", "192.0.2.8", "203.0.113.1", "10.250.0.9"],
    ["2001:db8:a::7", "2001:db8:a::8", "2001:db8:b::1", "2001:db8:250::9"],
];

pub(super) fn random_route(rng: &mut Rng) -> KernelRoute {
    let family = rng.below(2) as usize;
    let dst = if rng.below(40) == 0 { rng.pick(&RARE[family]) } else { rng.pick(&NETS[family]) };
    let hop_by = |rng: &mut Rng| {
        let no = rng.below(5) as usize;
        // The last one leads by a device that is no port.
        let (ifindex, gateway) =
            if no == 4 { (5, None) } else { ([3, 3, 4, 6][no], Some(ROUTERS[family][no])) };
        let dead = rng.below(8) == 0;
        Nexthop {
            weight: 1 + rng.below(2) as u16,
            dead,
            linkdown: dead || rng.below(8) == 0,
            ..hop(ifindex, gateway)
        }
    };
    let kind = match rng.below(12) {
        0 => RouteKind::Blackhole,
        1 => RouteKind::Unreachable,
        _ => RouteKind::Unicast,
    };
    let hops = match kind {
        RouteKind::Unicast => (0..1 + rng.below(2)).map(|_| hop_by(rng)).collect(),
        _ => Vec::new(),
    };
    let mut r = route(dst, kind, [0, 20, 50][rng.below(3) as usize], hops);
    r.protocol = RouteProtocol([3, 186, 188][rng.below(3) as usize]);
    if rng.below(6) == 0 {
        r.table = Table::Other(77);
    }
    if rng.below(60) == 0 {
        r.table = Table::Default;
    }
    r.mtu = (rng.below(6) == 0).then_some(1400);
    if family == 0 && rng.below(10) == 0 {
        r.prefsrc = Some(ip("192.0.2.1"));
    }
    r
}

pub(super) fn tables_of(routes: &[KernelRoute]) -> Tables {
    let mut t = tables();
    t.insert_link(link(6, "eth2"));
    for net in ["2001:db8:a::1/64", "2001:db8:b::2/64"].iter().zip([3, 4]) {
        t.insert_address(address(net.1, net.0));
    }
    for (ifindex, addr) in [(3, "192.0.2.8"), (4, "203.0.113.1"), (3, "2001:db8:a::8"), (6, "10.250.0.9")] {
        t.insert_neighbor(neighbor(ifindex, addr, NeighborState::Reachable));
    }
    routes.iter().for_each(|r| t.insert_route(r.clone()));
    t
}

/// Everything that a snapshot says of routes, without the numbers.
pub(super) fn answers(s: &Snapshot) -> Vec<String> {
    let mut out = Vec::new();
    let nets = NETS.iter().flatten().chain(RARE.iter().flatten());
    let edges = nets.flat_map(|net| {
        let net: ipnet::IpNet = net.parse().unwrap();
        [net.network(), net.broadcast()]
    });
    let all: Vec<IpAddr> = edges.chain([ip("192.0.2.200"), ip("10.251.0.7"), ip("10.250.0.77")]).collect();
    for (no, vrf) in s.vrfs.iter().enumerate().filter(|(_, v)| v.is_some()) {
        let vrf_no = VrfNo::new(no as u8).unwrap();
        for to in &all {
            let of = s.route_no(vrf_no, *to);
            let way = of.map(|n| (s.routes.get(n).unwrap(), s.routes.unused(n)));
            let sources: Vec<bool> =
                (0..s.ports.len() as u8).map(|p| s.check_source(*to, PortIdx(p), None).is_ok()).collect();
            out.push(format!("{no} {to}: {way:?} {sources:?}"));
        }
        out.push(format!("{:?}", vrf.as_ref().unwrap().fib4.default_route().and_then(|n| s.routes.get(n))));
    }
    let ends: Vec<_> = s.tunnels.iter().map(|t| (t.no, t.ingress, s.outer_path(t, t.remote, 7))).collect();
    out.push(format!("{ends:?} {:?} {:?}", s.nat.internet, s.source_checks));
    out
}

/// Records of next hops by their addresses, without generations; and the routers.
pub(super) fn next_hops(g: &Gateway, s: &Snapshot) -> Vec<String> {
    let numbers = &g.compiler.numbers.nexthops;
    let known = s.neighbors.iter().map(|(key, no)| {
        let nh = s.nexthop(no).unwrap();
        format!("{key:?} {:?}", sag_pipeline::snapshot::NextHop { generation: 0, ..nh })
    });
    let routers = numbers.routers().map(|r| format!("router {r:?}"));
    let mut out: Vec<_> = known.chain(routers).collect();
    out.extend(numbers.shared_routers().map(|r| format!("shared {r:?}")));
    out.sort();
    out
}

/// A gateway that takes changes as the daemon does.
pub(super) struct Follower {
    pub gateway: Gateway,
    pub snapshot: Snapshot,
    bindings: Vec<PortBinding>,
}

/// How often each way was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub routes: usize,
    pub policy: usize,
    pub everything: usize,
}

impl Follower {
    pub fn new(config: &Config, tables: &Tables) -> Follower {
        let mut gateway = Gateway::new();
        let plan = gateway.compile(config, tables, 1, NOW);
        Follower { gateway, snapshot: plan.snapshot, bindings: plan.bindings }
    }

    /// Whether all routes were looked at.
    pub fn recompile(&mut self, config: &Config, tables: &Tables, prefixes: &[ipnet::IpNet]) -> bool {
        let plan = self.gateway.compiler.compile_changes(config, (tables, prefixes), 1, NOW);
        self.gateway.records.apply(&plan.records, NOW.monotonic);
        (self.snapshot, self.bindings) = (plan.snapshot, plan.bindings);
        plan.all_routes
    }

    pub fn change(&mut self, config: &Config, tables: &Tables, prefixes: &[ipnet::IpNet], taken: &mut Taken) {
        let published = (&self.bindings[..], &self.snapshot);
        match self.gateway.compiler.change_routes(config, tables, published, prefixes, NOW.monotonic) {
            RouteUpdate::Everything => {
                taken.everything += 1;
                self.recompile(config, tables, prefixes);
            }
            RouteUpdate::Policy(_) => {
                taken.policy += 1;
                self.recompile(config, tables, &[]);
            }
            RouteUpdate::Routes(change) => {
                taken.routes += 1;
                self.gateway.records.nexthops.apply(&change.nexthops);
                self.snapshot = change.snapshot;
            }
        }
    }
}

#[test]
fn changes_one_by_one_come_to_what_all_at_once_does() {
    let config = config(FILE);
    let mut taken = Taken::default();
    for seed in 1..=12u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut routes: Vec<KernelRoute> = Vec::new();
        let mut follower = Follower::new(&config, &tables_of(&routes));
        for step in 0..120 {
            let mut prefixes = BTreeSet::new();
            for _ in 0..1 + rng.below(3) {
                if !routes.is_empty() && rng.below(5) < 2 {
                    prefixes.insert(routes.remove(rng.below(routes.len() as u64) as usize).dst);
                } else {
                    routes.push(random_route(&mut rng));
                    prefixes.insert(routes.last().unwrap().dst);
                }
            }
            let t = tables_of(&routes);
            let prefixes: Vec<_> = prefixes.into_iter().collect();
            // Something else is compiled now and then, whether routes have changed or not.
            match rng.below(12) {
                0 => {
                    follower.recompile(&config, &t, &prefixes);
                }
                _ => follower.change(&config, &t, &prefixes, &mut taken),
            }
            let mut oracle = Gateway::new();
            let plan = oracle.compile(&config, &t, 1, NOW);
            let what = format!("seed {seed}, step {step}: {prefixes:?} of {routes:#?}");
            assert_eq!(answers(&follower.snapshot), answers(&plan.snapshot), "{what}");
            assert!(follower.gateway.compiler.routes.rows().eq(oracle.compiler.routes.rows()), "{what}");
            let (mine, theirs) = (&follower.gateway, &oracle);
            assert_eq!(next_hops(mine, &follower.snapshot), next_hops(theirs, &plan.snapshot), "{what}");
        }
    }
    assert!(taken.routes > 500 && taken.policy > 20 && taken.everything > 20, "{taken:?}");
}

/// What has to be looked at again is what packets went by before.
#[test]
fn a_change_says_which_packets_go_other_ways() {
    for [net, inside, first, second] in [
        ["10.0.0.0/8", "10.6.0.0/16", "192.0.2.8", "203.0.113.1"],
        ["2001:db8::/32", "2001:db8:6::/48", "2001:db8:a::8", "2001:db8:b::1"],
    ] {
        let by = |dst: &str, router: &str, protocol: u8, metric: u32| {
            let hop = hop(if router == first { 3 } else { 4 }, Some(router));
            let mut r = route(dst, RouteKind::Unicast, metric, vec![hop]);
            r.protocol = RouteProtocol(protocol);
            r
        };
        let short = || by(net, first, 186, 20);
        let config = config("");
        let mut g = Follower::new(&config, &tables_of(&[short()]));
        let mut change = |routes: &[KernelRoute], dst: &str| {
            let (t, published) = (tables_of(routes), (&g.bindings[..], &g.snapshot));
            let dst = [dst.parse().unwrap()];
            let update = g.gateway.compiler.change_routes(&config, &t, published, &dst, NOW.monotonic);
            let RouteUpdate::Routes(c) = update else { panic!("{update:?}") };
            assert!(
                !std::ptr::eq(&*c.snapshot.nat, &*Arc::default())
                    && Arc::ptr_eq(&c.snapshot.nat, &g.snapshot.nat)
            );
            g.snapshot = c.snapshot;
            let of = |r: Rerouted| (r.dst.to_string(), r.before.iter().filter_map(|m| m.via).collect());
            c.rerouted.into_iter().map(of).collect::<Vec<(String, Vec<IpAddr>)>>()
        };
        // A longer prefix by the router that packets go by anyway, by whatever protocol.
        assert_eq!(change(&[short(), by(inside, first, 188, 9)], inside), []);
        let moves = vec![(inside.to_owned(), vec![ip(first)])];
        assert_eq!(change(&[short(), by(inside, second, 186, 20)], inside), moves);
        // Withdrawn and announced again in between: nothing.
        assert_eq!(change(&[short(), by(inside, second, 186, 20)], inside), []);
        assert_eq!(change(&[short()], inside), vec![(inside.to_owned(), vec![ip(second)])]);
    }
}
