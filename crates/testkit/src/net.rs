//! A gateway described in a few lines.

use super::*;
use crate::fib::Fib;
use crate::ids::NhIdx;
use crate::nat::{
    Behavior, EntryHits, Kind, NatConfigError, NatPolicy, NatSpec, NatState, PrivateSnat, Service,
    StaticDnat, WanSnat,
};
use crate::policy::{AclSet, Class, RuleList, RuleStats, Verdict};
use crate::qos::{self, MeterTable, MeteredPort, QosPolicy, Rate};
use crate::snapshot::{Ingress, Member, NextHop, Options, Port, Route, Snapshot, Timeouts};
use crate::tunnel::{Tunnel, Tunnels};
use sag_acl::{PortRange, Prefix, Rule};
use sag_model::flow::{NH_VALID, NextHopRecord};
use sag_model::time::Tick;
use sag_model::{Dscp, MacAddr, Nanos, Zone};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Next-hop records of a gateway.
const NEXTHOPS: usize = 512;

/// `a.b.c.d/len`, `a::b/len`.
pub fn prefix(s: &str) -> (IpAddr, u8) {
    let (a, l) = s.split_once('/').expect("prefix length");
    (a.parse().expect("address"), l.parse().expect("length"))
}

/// The MAC address that [`Net`] gives a neighbour.
pub fn host_mac(port: PortIdx, ip: &str) -> MacAddr {
    mac_of(port, ip.parse().expect("address"))
}

fn mac_of(port: PortIdx, ip: IpAddr) -> MacAddr {
    let tail = match ip {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(a) => {
            let o = a.octets();
            [o[5] ^ 0x60, o[7], o[14], o[15]]
        }
    };
    MacAddr([2, port.0 + 0x10, tail[0], tail[1], tail[2], tail[3]])
}

/// Rules of an ACL in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub struct Acl {
    rules: Vec<(Class, String, bool)>,
    pub default_accept: bool,
    stats: HashMap<String, (u32, Arc<RuleStats>)>,
}

impl Acl {
    pub fn new(default_accept: bool) -> Acl {
        Acl { default_accept, ..Acl::default() }
    }

    /// Adds a rule: `proto|* source/len|* dest/len|* source ports lo-hi|* dest ports lo-hi|*`. The
    /// text is also the name under which its counters are kept.
    pub fn rule(mut self, class: Class, accept: bool, text: &str) -> Acl {
        self.rules.push((class, text.to_owned(), accept));
        self
    }

    /// The same ACL without its rules, but with their counters.
    pub fn cleared(mut self) -> Acl {
        self.rules.clear();
        self
    }

    /// (packets, bytes) of a rule.
    pub fn hits(&self, text: &str) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        self.stats.get(text).map_or((0, 0), |(_, s)| (s.packets.load(Relaxed), s.bytes.load(Relaxed)))
    }

    fn build(&mut self) -> AclSet {
        if self.rules.is_empty() && self.default_accept {
            return AclSet::default();
        }
        let mut v4: [Vec<_>; 4] = Default::default();
        let mut v6: [Vec<_>; 4] = Default::default();
        for (class, text, accept) in &self.rules {
            let next = self.stats.len() as u32;
            let name = text.clone();
            let (slot, _) = self
                .stats
                .entry(text.clone())
                .or_insert_with(|| (next, Arc::new(RuleStats { name, ..RuleStats::default() })));
            let verdict = Verdict { accept: *accept, slot: *slot };
            let f: Vec<&str> = text.split_whitespace().collect();
            let [proto, src, dst, sport, dport] = f[..] else { panic!("five fields: {text}") };
            let proto = (proto != "*").then(|| proto.parse().expect("protocol number"));
            let range = |s: &str| match s.split_once('-') {
                None => PortRange::ANY,
                Some((lo, hi)) => {
                    PortRange::new(lo.parse().expect("port"), hi.parse().expect("port")).expect("range")
                }
            };
            let (sport, dport) = (range(sport), range(dport));
            let ends = [src, dst].map(|s| (s != "*").then(|| prefix(s)));
            if ends.iter().flatten().all(|e| e.0.is_ipv4()) {
                let [src, dst] = ends.map(|e| match e {
                    Some((IpAddr::V4(a), l)) => Prefix::new(a.to_bits(), l).expect("length"),
                    _ => Prefix::ANY,
                });
                v4[*class as usize].push((Rule { proto, src, dst, sport, dport }, verdict.clone()));
            }
            if ends.iter().flatten().all(|e| e.0.is_ipv6()) {
                let [src, dst] = ends.map(|e| match e {
                    Some((IpAddr::V6(a), l)) => Prefix::new(a.to_bits(), l).expect("length"),
                    _ => Prefix::ANY,
                });
                v6[*class as usize].push((Rule { proto, src, dst, sport, dport }, verdict));
            }
        }
        let lists = std::array::from_fn(|i| Some(Arc::new(RuleList::build(&v4[i], &v6[i]))));
        let mut stats: Vec<_> = self.stats.values().cloned().collect();
        stats.sort_by_key(|s| s.0);
        AclSet::new(self.default_accept, lists, stats.into_iter().map(|s| s.1).collect())
    }
}

fn entry(id: &str) -> Arc<EntryHits> {
    Arc::new(EntryHits { id: id.into(), ..EntryHits::default() })
}

/// A gateway: edit it, then take a [`Net::snapshot`].
#[derive(Debug)]
pub struct Net {
    pub epoch: u32,
    pub ports: Vec<Port>,
    pub routes: Vec<((IpAddr, u8), Route)>,
    pub acl: Acl,
    /// Addresses of WAN ports and the gateway's own are filled in.
    pub nat: NatSpec,
    /// Where its ports are allocated; set by the rig.
    pub nat_state: Option<Arc<NatState>>,
    /// What is metered; ports are filled in, with the rates of `port_rates`.
    pub qos: qos::QosSpec,
    pub port_rates: HashMap<PortIdx, Rate>,
    /// Whose meters they are.
    pub meters: MeterTable,
    /// When the meters were idle.
    pub began: Nanos,
    pub options: Options,
    pub tunnels: Vec<Tunnel>,
    neighbors: HashMap<(PortIdx, IpAddr), u16>,
    nexthops: &'static [NextHopRecord],
}

impl Default for Net {
    fn default() -> Net {
        Net::empty()
    }
}

impl Net {
    /// No ports, no routes, no ACL.
    pub fn empty() -> Net {
        let secs = |s| Tick::of(Duration::from_secs(s));
        Net {
            epoch: 1,
            ports: Vec::new(),
            routes: Vec::new(),
            acl: Acl::new(true),
            nat: NatSpec { hairpin: true, ..NatSpec::default() },
            nat_state: None,
            qos: qos::QosSpec { link_burst_ms: 200, largest: 1500, ..qos::QosSpec::default() },
            port_rates: HashMap::new(),
            meters: MeterTable::private(),
            began: Nanos::from_secs(1),
            options: Options {
                acl_stateful: true,
                timeouts: Timeouts {
                    tcp_established: secs(7440),
                    tcp_transitory: secs(240),
                    tcp_syn: secs(30),
                    udp: secs(300),
                    icmp: secs(60),
                    other: secs(600),
                },
                icmp_rate: 1000,
                promiscuous: false,
            },
            tunnels: Vec::new(),
            neighbors: HashMap::new(),
            nexthops: Vec::leak((0..NEXTHOPS).map(|_| NextHopRecord::default()).collect()),
        }
    }

    /// A branch office: see the constants beside this module; hosts `.10` and `.11` on both LANs,
    /// routers `.1` on WAN and line, both families.
    pub fn branch() -> Net {
        let mut n = Net::empty();
        n.port("lan", Zone::Lan, DEV_LAN, 0, &["192.168.1.1/24", "2001:db8:1::1/64", "fe80::1/64"]);
        n.port("wan", Zone::Wan, DEV_WAN, 0, &["203.0.113.2/24", "2001:db8:2::2/64", "fe80::2/64"]);
        n.port("line", Zone::Overlay, DEV_LINE, 0, &["192.0.2.2/24", "2001:db8:3::2/64", "fe80::3/64"]);
        n.port("lan2", Zone::Lan, DEV_LAN, LAN2_VLAN, &["192.168.2.1/24", "2001:db8:4::1/64"]);
        n.via("0.0.0.0/0", WAN, "203.0.113.1");
        n.via("::/0", WAN, "2001:db8:2::1");
        n.via("10.20.0.0/16", LINE, "192.0.2.1");
        n.via("2001:db8:20::/48", LINE, "2001:db8:3::1");
        for ip in ["192.168.1.10", "192.168.1.11", "2001:db8:1::10", "2001:db8:1::11"] {
            n.neighbor(LAN, ip);
        }
        for ip in ["192.168.2.10", "192.168.2.11", "2001:db8:4::10", "2001:db8:4::11"] {
            n.neighbor(LAN2, ip);
        }
        for (port, ip) in
            [(WAN, "203.0.113.1"), (WAN, "2001:db8:2::1"), (LINE, "192.0.2.1"), (LINE, "2001:db8:3::1")]
        {
            n.neighbor(port, ip);
        }
        n
    }

    /// The same gateway with its next hops in these records, as the memory that XDP reads.
    pub fn over(mut self, records: &'static [NextHopRecord]) -> Net {
        for &n in self.neighbors.values() {
            NextHop::load(&self.nexthops[usize::from(n)]).store(&records[usize::from(n)]);
        }
        self.nexthops = records;
        self
    }

    /// A branch with source NAT on WAN and line, and forwards of every kind.
    pub fn translating() -> Net {
        use crate::nat::Behavior::{AddressDependent, EndpointIndependent};
        let mut n = Net::branch();
        n.wan_snat(WAN, EndpointIndependent, AddressDependent);
        n.snat("192.168.0.0/16", "192.0.2.77", EndpointIndependent, EndpointIndependent);
        n.dnat(Kind::Internet, "", "192.168.1.10", Some((6, 80, 80, 1000)));
        n.dnat(Kind::Internet, "203.0.113.50", "192.168.1.11", None);
        n.dnat(Kind::Intranet, "192.0.2.50", "192.168.2.10", None);
        n.nat.limits.host_sessions = Some(6);
        n
    }

    /// Adds a port and the routes of its links.
    pub fn port(&mut self, name: &str, zone: Zone, dev: u8, vlan: u16, addrs: &[&str]) -> PortIdx {
        let idx = PortIdx(self.ports.len() as u8);
        let mac = GATEWAY_MACS.get(idx.index()).copied().unwrap_or(MacAddr([2, 0, 0, 0, 1, idx.0]));
        let mut p = Port {
            name: name.into(),
            zone,
            dev,
            ifindex: 100 + u32::from(idx.0),
            vlan,
            mac,
            mtu: 1500,
            up: true,
            addrs4: Vec::new(),
            addrs6: Vec::new(),
        };
        for (addr, len) in addrs.iter().map(|a| prefix(a)) {
            match addr {
                IpAddr::V4(a) => p.addrs4.push((a, len)),
                IpAddr::V6(a) => p.addrs6.push((a, len)),
            }
            let on_link = Member::port(idx, None, 1);
            self.routes.push(((addr, len), Route::Via(vec![on_link])));
        }
        self.ports.push(p);
        idx
    }

    pub fn route(&mut self, to: &str, route: Route) -> &mut Net {
        self.routes.push((prefix(to), route));
        self
    }

    pub fn via(&mut self, to: &str, port: PortIdx, gateway: &str) -> &mut Net {
        let via = Some(gateway.parse().expect("gateway"));
        self.route(to, Route::Via(vec![Member::port(port, via, 1)]))
    }

    /// Resolves a neighbour, or resolves it again after a change of its port.
    pub fn neighbor(&mut self, port: PortIdx, ip: &str) -> u16 {
        let ip = ip.parse().expect("address");
        let next = self.neighbors.len() as u16;
        let n = *self.neighbors.entry((port, ip)).or_insert(next);
        let p = &self.ports[port.index()];
        let record = &self.nexthops[usize::from(n)];
        let nh = NextHop {
            dmac: mac_of(port, ip),
            smac: p.mac,
            vlan: p.vlan,
            mtu: p.mtu,
            ifindex: p.ifindex,
            dev: p.dev,
            port,
            generation: NextHop::load(record).generation.wrapping_add(1),
            flags: NH_VALID,
        };
        nh.store(record);
        n
    }

    /// The neighbour no longer answers.
    pub fn unresolve(&mut self, port: PortIdx, ip: &str) {
        let ip = ip.parse().expect("address");
        if let Some(&n) = self.neighbors.get(&(port, ip)) {
            let record = &self.nexthops[usize::from(n)];
            let mut nh = NextHop::load(record);
            nh.flags = 0;
            nh.store(record);
        }
    }

    /// Changes a port's MTU, next hops included.
    pub fn set_mtu(&mut self, port: PortIdx, mtu: u16) {
        self.ports[port.index()].mtu = mtu;
        for (&(p, _), &n) in &self.neighbors {
            if p == port {
                let record = &self.nexthops[usize::from(n)];
                NextHop { mtu, ..NextHop::load(record) }.store(record);
            }
        }
    }

    /// Source NAT to a port's own address.
    pub fn wan_snat(&mut self, port: PortIdx, mapping: Behavior, filtering: Behavior) -> &mut Net {
        let hits = entry(&format!("port {}", port.0));
        self.nat.wan.push(WanSnat { port, addr: None, mapping, filtering, hits });
        self
    }

    /// Source NAT of a prefix towards overlay and leased line.
    pub fn snat(&mut self, block: &str, to: &str, mapping: Behavior, filtering: Behavior) -> &mut Net {
        let (IpAddr::V4(a), len) = prefix(block) else { panic!("an IPv4 prefix: {block}") };
        let addr = to.parse().expect("address");
        let hits = entry(&format!("snat {block}"));
        self.nat.private.push(PrivateSnat { prefix: (a, len), addr, mapping, filtering, hits });
        self
    }

    /// A port forward, from `"a.b.c.d"` or the WAN ports' own addresses (`""`) to `"a.b.c.d"`;
    /// `ports`: protocol, first and last external port, first inside port; `None`: everything.
    pub fn dnat(&mut self, kind: Kind, from: &str, to: &str, ports: Option<(u8, u16, u16, u16)>) -> &mut Net {
        let service = match ports {
            None => Service::Any,
            Some((proto, first, last, inside_first)) => {
                Service::Port { proto, external: first..=last, inside_first }
            }
        };
        self.nat.dnat.push(StaticDnat {
            kind,
            external: from.parse().into_iter().collect(),
            inside: to.parse().expect("address"),
            service,
            own_address: !from.is_empty(),
            hits: entry(&format!("dnat {from} {ports:?}")),
        });
        self
    }

    /// Whether there is any NAT.
    pub fn translates(&self) -> bool {
        !(self.nat.wan.is_empty() && self.nat.private.is_empty() && self.nat.dnat.is_empty())
    }

    fn nat_policy(&mut self) -> NatPolicy {
        let Some(state) = &self.nat_state else { return NatPolicy::default() };
        let own = |p: &Port| p.addrs4.first().map(|a| a.0);
        for w in &mut self.nat.wan {
            w.addr = own(&self.ports[w.port.index()]);
        }
        self.nat.wan_addrs = self.ports.iter().filter(|p| p.zone == Zone::Wan).filter_map(own).collect();
        self.nat.local = self.ports.iter().flat_map(|p| &p.addrs4).map(|a| a.0).collect();
        let (policy, pools, troubles) = self.nat.plan(state);
        state.apply(&pools);
        let lacking = troubles.iter().any(|t| matches!(t, NatConfigError::NoPool { .. }));
        assert!(!lacking, "{troubles:?}");
        policy
    }

    /// A CAR; committed and peak rate in Mbit/s.
    pub fn car(&mut self, id: &str, priority: u8, committed: u64, peak: u64) -> &mut Net {
        let committed = (committed != 0).then(|| Rate::mbps(committed));
        let peak = Some(Rate::mbps(peak));
        self.qos.cars.push(qos::Car {
            id: id.into(),
            priority,
            committed,
            peak,
            burst_ms: 200,
            remark: None,
        });
        self
    }

    /// A policy: IPv4 packets that the rule matches are metered by the CAR.
    pub fn meter(&mut self, rule: Rule<u32>, car: &str) -> &mut Net {
        let slot = self.qos.cars.iter().position(|c| c.id == car).expect("a CAR") as u32;
        self.qos.v4.push((rule, Verdict { accept: true, slot }));
        self
    }

    /// The same for packets of one DSCP.
    pub fn meter_marked(&mut self, rule: Rule<u32>, dscp: Dscp, car: &str) -> &mut Net {
        self.qos.dscp4.insert(self.qos.v4.len(), dscp);
        self.meter(rule, car)
    }

    fn qos_policy(&mut self) -> QosPolicy {
        let port = |(i, p): (usize, &Port)| MeteredPort {
            name: p.name.clone(),
            zone: Some(p.zone),
            rate: self.port_rates.get(&PortIdx(i as u8)).copied(),
        };
        let tunnels = self.ports.iter().enumerate().map(port);
        let tunnels: Vec<_> = tunnels.map(|m| MeteredPort { zone: Some(Zone::Overlay), ..m }).collect();
        self.qos.ports = self.ports.iter().enumerate().map(port).chain(tunnels).collect();
        let (policy, plan) = self.meters.numbers().plan(&self.qos);
        assert!(plan.is_complete(), "too few meters");
        self.meters.apply(&plan, self.began);
        policy
    }

    pub fn snapshot(&mut self) -> Snapshot {
        let nat = Arc::new(self.nat_policy());
        let local = self.ports.iter().flat_map(|p| {
            let v4 = p.addrs4.iter().flat_map(|&(a, len)| {
                let broadcast = a.to_bits() | u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                [IpAddr::V4(a), IpAddr::V4(Ipv4Addr::from_bits(broadcast))]
            });
            v4.chain(p.addrs6.iter().map(|&(a, _)| IpAddr::V6(a)))
        });
        let inside = self.tunnels.iter().flat_map(|t| {
            let v4 = t.addrs4.iter().map(|a| IpAddr::V4(a.0));
            v4.chain(t.addrs6.iter().map(|a| IpAddr::V6(a.0)))
        });
        let numbered = || self.routes.iter().enumerate().map(|(i, ((a, l), _))| (*a, *l, i as u32));
        Snapshot {
            epoch: self.epoch,
            ingress: Ingress::new(&self.ports),
            local: local.chain(inside).collect(),
            fib4: Fib::build(numbered().filter_map(|(a, l, i)| match a {
                IpAddr::V4(a) => Some((a.to_bits(), l, i)),
                IpAddr::V6(_) => None,
            })),
            fib6: Fib::build(numbered().filter_map(|(a, l, i)| match a {
                IpAddr::V6(a) => Some((a.to_bits(), l, i)),
                IpAddr::V4(_) => None,
            })),
            routes: self.routes.iter().map(|r| r.1.clone()).collect(),
            ports: self.ports.clone(),
            neighbors: self.neighbors.iter().map(|(k, v)| (*k, NhIdx(*v))).collect(),
            nexthops: self.nexthops,
            acl: self.acl.build(),
            nat,
            qos: Arc::new(self.qos_policy()),
            tunnels: Tunnels::new(self.tunnels.iter().cloned()),
            options: self.options,
        }
    }
}
