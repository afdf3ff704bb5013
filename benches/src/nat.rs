//! Gateways that translate, and traffic for them.

use crate::{Frozen, Load, gateway};
use sag_acl::Rule;
use sag_pipeline::nat::{Behavior, Kind};
use sag_testkit::{DEV_WAN, LAN, Net, Pkt, WAN};
use std::collections::VecDeque;
use std::time::Duration;

/// Source NAT to one address; an ACL of 1,000 rules.
pub fn snat(mapping: Behavior, filtering: Behavior) -> Net {
    let mut net = gateway(1000);
    net.wan_snat(WAN, mapping, filtering);
    // Of the first flow's host, for answers.
    net.neighbor(LAN, "192.168.1.2");
    net
}

/// The gateway's default: an inside endpoint keeps its port, who was sent to may answer.
pub fn snat_default() -> Net {
    snat(Behavior::EndpointIndependent, Behavior::AddressDependent)
}

/// A port for each remote endpoint, as the kernel does it: sessions alone are kept.
pub fn snat_overlapping() -> Net {
    snat(Behavior::AddressAndPortDependent, Behavior::AddressAndPortDependent)
}

/// The same, and IPv6 hosts reach IPv4 ones behind 64:ff9b::/96.
pub fn nat64() -> Net {
    let mut net = snat_default();
    net.nat64("64:ff9b::/96", &[], Behavior::AddressDependent);
    net
}

/// The whole chain: ACL of 1,000 rules, source NAT, a CAR that all traffic conforms to, route.
pub fn chain() -> Net {
    let mut net = snat_default();
    net.car("bench", 1, 0, 1_000_000).meter(Rule::ANY, "bench");
    net
}

/// Port 8080 of the WAN address is port 80 of a server inside.
pub fn dnat() -> Net {
    let mut net = Net::branch();
    net.dnat(Kind::Internet, "", "192.168.1.10", Some((17, 8080, 8080, 80)));
    net
}

/// How the port numbers of inside endpoints are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// No two endpoints have the same: each can keep its own outside.
    Apart,
    /// All hosts use the same few: one of them can keep its own.
    Same,
}

/// Flow number `n` of so many inside endpoints (at most 64,000): to the first remote address from
/// each of them, then to the next one.
pub fn outbound(n: usize, endpoints: usize, ports: Ports) -> Vec<u8> {
    let (e, far) = (n % endpoints, n / endpoints);
    let host = format!("192.168.1.{}", 2 + e % 250);
    let remote = format!("198.51.{}.{}", 100 + far / 250, 1 + far % 250);
    let port = match ports {
        Ports::Apart => 1024 + e * 7919 % 64_000,
        Ports::Same => 1024 + e / 250,
    };
    Pkt::udp(&host, &remote, port as u16, 5000).payload(18).build()
}

/// As [`outbound`], from IPv6 hosts to global IPv4 ones.
pub fn outbound64(n: usize, endpoints: usize, ports: Ports) -> Vec<u8> {
    let (e, far) = (n % endpoints, n / endpoints);
    let host = format!("2001:db8:1::{:x}", 0x10 + e % 250);
    let remote = format!("64:ff9b::808:{:x}", 1 + far);
    let port = match ports {
        Ports::Apart => 1024 + e * 7919 % 64_000,
        Ports::Same => 1024 + e / 250,
    };
    Pkt::udp(&host, &remote, port as u16, 5000).payload(18).build()
}

/// Client number `n` of a server inside.
pub fn inbound(n: usize) -> Vec<u8> {
    let client = format!("198.51.{}.{}", 100 + n / 10_000_000, 1 + n % 250);
    let port = 1024 + (n / 250 % 40_000) as u16;
    Pkt::udp(&client, "203.0.113.2", port, 8080).payload(18).into_port(WAN).build()
}

/// Where a case's packets come from.
#[derive(Debug, Clone, Copy)]
pub enum From {
    /// So many endpoints inside.
    Inside(usize, Ports),
    /// The same, of IPv6.
    Inside6(usize),
    Outside,
}

/// A measured situation.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub net: fn() -> Net,
    pub from: From,
    /// Flows that take turns; for first packets, sessions that are alive.
    pub flows: usize,
    pub first: bool,
}

const fn established(name: &'static str, net: fn() -> Net, from: From, flows: usize) -> Case {
    Case { name, net, from, flows, first: false }
}

const fn first(name: &'static str, net: fn() -> Net, from: From, flows: usize) -> Case {
    Case { name, net, from, flows, first: true }
}

fn plain() -> Net {
    gateway(1000)
}

fn snat_open() -> Net {
    snat(Behavior::EndpointIndependent, Behavior::EndpointIndependent)
}

const FEW: From = From::Inside(1_000, Ports::Apart);
const SOME: From = From::Inside(20_000, Ports::Apart);
const MANY: From = From::Inside(64_000, Ports::Apart);
const SAME: From = From::Inside(64_000, Ports::Same);

/// What `examples/nat.rs` measures. One address has 64,512 ports of a protocol to lend, so more flows
/// than that share endpoints.
pub const CASES: [Case; 20] = [
    established("established, no NAT, 10,000 flows", plain, SOME, 10_000),
    established("established, SNAT, 10,000 flows", snat_default, SOME, 10_000),
    established("established, no NAT, 100,000 flows", plain, SOME, 100_000),
    established("established, SNAT, 100,000 flows", snat_default, SOME, 100_000),
    established("established, no NAT, 1,000,000 flows", plain, SOME, 1_000_000),
    established("established, SNAT, 1,000,000 flows", snat_default, SOME, 1_000_000),
    established("established, whole chain, 10,000 flows", chain, SOME, 10_000),
    established("established, DNAT, 10,000 flows", dnat, From::Outside, 10_000),
    established("established, NAT64, 10,000 flows", nat64, From::Inside6(20_000), 10_000),
    established("established, NAT64, 100,000 flows", nat64, From::Inside6(20_000), 100_000),
    first("first packet, no NAT", plain, MANY, 10_000),
    first("first packet, SNAT, new binding", snat_default, MANY, 10_000),
    first("first packet, SNAT, new binding, another port", snat_default, SAME, 10_000),
    first("first packet, SNAT, known binding", snat_default, FEW, 10_000),
    first("first packet, SNAT, new binding, open filter", snat_open, MANY, 10_000),
    first("first packet, SNAT, overlapping", snat_overlapping, MANY, 10_000),
    first("first packet, SNAT, overlapping, another port", snat_overlapping, SAME, 10_000),
    first("first packet, SNAT, new binding, 30,000 alive", snat_default, MANY, 30_000),
    first("first packet, SNAT, known binding, 500,000 alive", snat_default, SOME, 500_000),
    first("first packet, DNAT", dnat, From::Outside, 10_000),
];

/// A case under way.
pub struct Running {
    case: Case,
    load: Load,
    frames: Frozen,
    order: Vec<usize>,
    at: usize,
    alive: VecDeque<u32>,
}

impl Case {
    pub fn start(self) -> Running {
        let mut load = Load::new((self.net)());
        // Of first packets more than are alive, so that each is new when its turn comes again.
        let distinct = if self.first { self.flows * 2 + 64 * 64 } else { self.flows };
        let frames = Frozen::of((0..distinct).map(|n| match self.from {
            From::Outside => inbound(n),
            From::Inside(endpoints, ports) => outbound(n, endpoints, ports),
            From::Inside6(endpoints) => outbound64(n, endpoints, Ports::Apart),
        }));
        if let From::Outside = self.from {
            load.dev = DEV_WAN;
        }
        // First packets come in the order of their numbers: each by another endpoint.
        let order = if self.first { (0..distinct).collect() } else { crate::shuffled(distinct) };
        let mut r = Running { case: self, load, frames, order, at: 0, alive: VecDeque::new() };
        for _ in 0..self.flows.div_ceil(64) {
            r.batch();
        }
        r
    }
}

impl Running {
    /// One batch of 64; the time that it took.
    pub fn batch(&mut self) -> Duration {
        let mut batch = [0; 64];
        for n in &mut batch {
            *n = self.order[self.at];
            self.at = (self.at + 1) % self.order.len();
        }
        let before = self.load.pipe.counters.sessions_created.get();
        let spent = self.load.batch(batch.iter().map(|&n| self.frames.get(n)));
        assert!(self.load.all_sent(), "{}", self.case.name);
        if self.case.first {
            assert_eq!(self.load.pipe.counters.sessions_created.get() - before, 64, "{}", self.case.name);
            let Running { load, frames, alive, .. } = self;
            alive.extend(batch.iter().map(|&n| load.session(frames.get(n))));
            let old = alive.len().saturating_sub(self.case.flows);
            load.end(alive.drain(..old));
        }
        spent
    }
}
