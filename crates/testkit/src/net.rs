//! A gateway described in a few lines.

use crate::*;
use ipnet::IpNet;
use sag_acl::Rule;
use sag_compile::{
    GatewaySpec, NeighborLinks, NextHopTable, Numbers, Problem, RoutingTables, SharedRecords, assemble,
};
use sag_model::config::ReversePath;
use sag_model::flow::NextHopRecord;
use sag_model::time::Tick;
use sag_model::{Dscp, MacAddr, Nanos, VrfNo, Zone};
use sag_packet::nat64::Prefix64;
use sag_pipeline::nat::{
    Behavior, EntryHits, InsideHost, Kind, Nat64Spec, NatSpec, NatState, PoolSnat, Pooling, Service,
    StaticDnat, StaticPrefix, WanAddr, WanSnat,
};
use sag_pipeline::policy::Verdict;
use sag_pipeline::qos::{self, MeterTable, MeteredPort, QosSpec, Rate};
use sag_pipeline::resolution::RequestRates;
use sag_pipeline::snapshot::{
    AddrSet, Member, NhIdx, Options, Port, Route, SessionLimits, Snapshot, Timeouts,
};
use sag_pipeline::syn_cookie::SynCookies;
use sag_pipeline::tunnel::{Tunnel, Tunnels};
use std::collections::{BTreeMap, HashMap};
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

/// The MAC address that [`Net`] gives a neighbor.
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

fn entry(id: &str) -> Arc<EntryHits> {
    Arc::new(EntryHits { id: id.into(), ..EntryHits::default() })
}

/// A gateway: edit it, then take a [`Net::snapshot`].
#[derive(Debug)]
pub struct Net {
    /// Policy epoch.
    pub epoch: u32,
    /// By number.
    pub ports: Vec<Port>,
    /// The last one of a prefix counts.
    pub routes: Vec<((IpAddr, u8), Route)>,
    /// Those of other VRFs than the default one.
    pub vrf_routes: Vec<(VrfNo, (IpAddr, u8), Route)>,
    /// Ways out that a prefix of `routes` has and does not use.
    pub unused: Vec<((IpAddr, u8), Vec<Member>)>,
    /// Rules and their counters.
    pub acl: Acl,
    /// Addresses of WAN ports and the gateway's own are filled in.
    pub nat: NatSpec,
    /// What is metered; ports are filled in, with the rates of `port_rates`.
    pub qos: qos::QosSpec,
    /// Of ports with a bandwidth.
    pub port_rates: HashMap<PortIdx, Rate>,
    /// When the meters were idle.
    pub began: Nanos,
    /// Services that SYN cookies protect.
    pub syn_cookies: SynCookies,
    /// Timeouts and switches.
    pub options: Options,
    /// Their routes are in `routes`.
    pub tunnels: Vec<Tunnel>,
    /// Resolved neighbors.
    neighbors: NeighborLinks,
    /// What a compiler carries from one compilation to the next.
    numbers: Numbers,
    records: SharedRecords,
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
        let records = SharedRecords {
            nexthops: NextHopTable::private(NEXTHOPS),
            nat: Arc::new(NatState::private(1)),
            meters: MeterTable::private_of(256, 256),
        };
        Net {
            epoch: 1,
            ports: Vec::new(),
            routes: Vec::new(),
            vrf_routes: Vec::new(),
            unused: Vec::new(),
            acl: Acl::new(true),
            nat: NatSpec { hairpin: true, ..NatSpec::default() },
            qos: qos::QosSpec { link_burst_ms: 200, largest: 1500, ..qos::QosSpec::default() },
            port_rates: HashMap::new(),
            began: Nanos::from_secs(1),
            syn_cookies: SynCookies::default(),
            options: Options {
                acl_stateful: true,
                acl_reject: true,
                timeouts: Timeouts {
                    tcp_established: secs(7440),
                    tcp_transitory: secs(240),
                    tcp_syn: secs(30),
                    tcp_refused: secs(240),
                    udp: secs(300),
                    icmp: secs(60),
                    other: secs(600),
                },
                sessions: SessionLimits::default(),
                requests: RequestRates::default(),
                icmp_rate: 1000,
                promiscuous: false,
            },
            tunnels: Vec::new(),
            neighbors: NeighborLinks::new(),
            numbers: Numbers::of(&records),
            records,
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
        self.records.nexthops = NextHopTable::over(records);
        let old = std::mem::replace(&mut self.numbers.nexthops, self.records.nexthops.numbers());
        // The same numbers again, in the order in which they were given.
        let mut known: Vec<_> = old.iter().map(|(key, n)| (n, key)).collect();
        known.sort_unstable();
        for (n, (port, ip)) in known {
            assert_eq!(self.numbers.nexthops.number(port, ip), Some(n));
        }
        self.write_nexthops(|_, _| true);
        self
    }

    /// The gateway allocates its NAT ports here: in what its workers share.
    pub fn allocate_in(&mut self, nat: Arc<NatState>) {
        self.numbers.nat = nat.clone();
        self.records.nat = nat;
    }

    /// The meters that the gateway meters by.
    pub fn meters(&self) -> &MeterTable {
        &self.records.meters
    }

    /// The gateway meters by these, as the memory that XDP reads.
    pub fn meter_by(&mut self, meters: MeterTable) {
        self.numbers.meters = meters.numbers();
        self.records.meters = meters;
    }

    /// A branch with source NAT on WAN and line, and forwards of every kind.
    pub fn translating() -> Net {
        use sag_pipeline::nat::Behavior::{AddressDependent, EndpointIndependent};
        let mut n = Net::branch();
        n.wan_snat(WAN, EndpointIndependent, AddressDependent);
        n.snat("192.168.0.0/16", "192.0.2.77", EndpointIndependent, EndpointIndependent);
        n.dnat(Kind::Internet, "", "192.168.1.10", Some((6, 80, 80, 1000)));
        n.dnat(Kind::Internet, "203.0.113.50", "192.168.1.11", None);
        n.dnat(Kind::Intranet, "192.0.2.50", "192.168.2.10", None);
        n.static_nat(Kind::Internet, "2001:db8:1::/64", "2001:db8:f1::/64");
        n.static_nat(Kind::Internet, "192.168.2.0/24", "198.18.2.0/24");
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
            vrf: VrfNo::DEFAULT,
            dev,
            ifindex: 100 + u32::from(idx.0),
            vlan,
            mac,
            macs: Vec::new(),
            mtu: 1500,
            up: true,
            addrs4: Vec::new(),
            addrs6: Vec::new(),
            reverse_path: match zone {
                Zone::Lan => ReversePath::Strict,
                Zone::Wan | Zone::Overlay => ReversePath::Feasible,
            },
            mss_clamp: false,
            failed: false,
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

    /// Adds a port of a VRF, with the routes of its links there.
    pub fn port_in(
        &mut self,
        vrf: VrfNo,
        name: &str,
        zone: Zone,
        (dev, vlan): (u8, u16),
        addrs: &[&str],
    ) -> PortIdx {
        let before = self.routes.len();
        let idx = self.port(name, zone, dev, vlan, addrs);
        self.ports[idx.index()].vrf = vrf;
        let links: Vec<_> = self.routes.drain(before..).collect();
        self.vrf_routes.extend(links.into_iter().map(|(to, route)| (vrf, to, route)));
        idx
    }

    /// Adds a route of a VRF.
    pub fn route_in(&mut self, vrf: VrfNo, to: &str, route: Route) -> &mut Net {
        self.vrf_routes.push((vrf, prefix(to), route));
        self
    }

    /// Adds a route of a VRF by one gateway: by a port of another VRF it is a leak.
    pub fn via_in(&mut self, vrf: VrfNo, to: &str, port: PortIdx, gateway: &str) -> &mut Net {
        let via = Some(gateway.parse().expect("gateway"));
        self.route_in(vrf, to, Route::Via(vec![Member::port(port, via, 1)]))
    }

    /// Adds a route.
    pub fn route(&mut self, to: &str, route: Route) -> &mut Net {
        self.routes.push((prefix(to), route));
        self
    }

    /// Adds a route by one gateway.
    pub fn via(&mut self, to: &str, port: PortIdx, gateway: &str) -> &mut Net {
        let via = Some(gateway.parse().expect("gateway"));
        self.route(to, Route::Via(vec![Member::port(port, via, 1)]))
    }

    /// Resolves a neighbor, or resolves it again after a change of its port. Packets that wait can go on at once, without
    /// a new snapshot.
    pub fn neighbor(&mut self, port: PortIdx, ip: &str) -> NhIdx {
        let ip = ip.parse().expect("address");
        self.neighbors.insert((port, ip), mac_of(port, ip));
        self.write_nexthops(|p, a| (p, a) == (port, ip));
        self.numbers.nexthops.get(&(port, ip)).expect("a number")
    }

    /// The neighbor no longer answers.
    pub fn unresolve(&mut self, port: PortIdx, ip: &str) {
        self.neighbors.remove(&(port, ip.parse().expect("address")));
        self.write_nexthops(|_, _| false);
    }

    /// Flows look their route up again, as when the daemon has published new routes. Snapshots taken before go by
    /// older ones.
    pub fn reroute(&mut self) {
        let version = self.records.nexthops.next_version();
        self.records.nexthops.begin_routes(version);
        self.records.nexthops.raise_generations(|_, _| true);
    }

    /// Changes a port's MTU, next hops included.
    pub fn set_mtu(&mut self, port: PortIdx, mtu: u16) {
        self.ports[port.index()].mtu = mtu;
        self.write_nexthops(|_, _| false);
    }

    /// Writes the records of next hops alone, as the daemon does after a change of neighbors. Flows over the
    /// selected ones look their route up again.
    fn write_nexthops(&mut self, renewed: impl FnMut(PortIdx, IpAddr) -> bool) {
        let (plan, complete) = self.numbers.nexthops.plan(&self.ports, &self.neighbors, self.began);
        assert!(complete, "too many next hops");
        self.records.nexthops.apply(&plan);
        self.records.nexthops.raise_generations(renewed);
    }

    /// Source NAT to a port's own address.
    pub fn wan_snat(&mut self, port: PortIdx, mapping: Behavior, filtering: Behavior) -> &mut Net {
        let hits = entry(&format!("port {}", port.0));
        self.nat.wan.push(WanSnat { port, addrs: Vec::new(), default: None, mapping, filtering, hits });
        self
    }

    /// Source NAT of a prefix towards overlay and leased line.
    pub fn snat(&mut self, block: &str, to: &str, mapping: Behavior, filtering: Behavior) -> &mut Net {
        let (IpAddr::V4(a), len) = prefix(block) else { panic!("an IPv4 prefix: {block}") };
        let addrs = vec![to.parse().expect("address")];
        let hits = entry(&format!("snat {block}"));
        let (pooling, overflow, kind, port) = (Pooling::Paired, false, Kind::Intranet, None);
        let prefix = (a, len);
        self.nat.pools.push(PoolSnat {
            kind,
            port,
            prefix,
            addrs,
            pooling,
            overflow,
            mapping,
            filtering,
            hits,
        });
        self
    }

    /// A prefix behind which IPv6 hosts reach IPv4 ones, by these addresses or those of the WAN ports; endpoint-independent
    /// mapping.
    pub fn nat64(&mut self, within: &str, addrs: &[&str], filtering: Behavior) -> &mut Net {
        let (IpAddr::V6(network), len) = prefix(within) else { panic!("an IPv6 prefix: {within}") };
        self.nat.nat64.push(Nat64Spec {
            prefix: Prefix64::new(network, len).expect("a prefix of RFC 6052"),
            addrs: addrs.iter().map(|a| a.parse().expect("address")).collect(),
            mapping: Behavior::EndpointIndependent,
            filtering,
            hits: entry(&format!("nat64 {within}")),
        });
        self
    }

    /// Translation of a network address by address, of either family.
    pub fn static_nat(&mut self, kind: Kind, inside: &str, external: &str) -> &mut Net {
        let hits = entry(&format!("static {inside}"));
        let (inside, external) = (prefix(inside), prefix(external));
        self.nat.prefixes.push(StaticPrefix {
            kind,
            port: None,
            inside,
            external,
            vrf: VrfNo::DEFAULT,
            hits,
        });
        self
    }

    /// Source NAT of a prefix by all WAN ports, to several addresses, endpoint-independent.
    pub fn wan_pool(&mut self, block: &str, to: &[&str], pooling: Pooling, overflow: bool) -> &mut Net {
        use Behavior::EndpointIndependent;
        self.snat(block, to[0], EndpointIndependent, EndpointIndependent);
        let made = self.nat.pools.last_mut().expect("just pushed");
        made.addrs = to.iter().map(|a| a.parse().expect("address")).collect();
        (made.kind, made.pooling, made.overflow) = (Kind::Internet, pooling, overflow);
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
            inside: InsideHost { addr: to.parse().expect("address"), vrf: VrfNo::DEFAULT },
            service,
            own_address: !from.is_empty(),
            hits: entry(&format!("dnat {from} {ports:?}")),
        });
        self
    }

    /// Whether there is any NAT.
    pub fn translates(&self) -> bool {
        !(self.nat.wan.is_empty() && self.nat.pools.is_empty() && self.nat.dnat.is_empty())
    }

    /// The NAT configuration with the addresses that the ports have.
    fn nat_spec(&mut self) -> NatSpec {
        for w in &mut self.nat.wan {
            let own = self.ports[w.port.index()].addrs4.iter().enumerate();
            let source = |(i, &(addr, len)): (usize, &(Ipv4Addr, u8))| WanAddr {
                addr,
                network: Some((addr, len)),
                in_use: i == 0 || len < 32,
            };
            w.addrs = own.map(source).collect();
            let any = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
            let default = self.routes.iter().rev().find(|(to, _)| *to == any).map(|r| &r.1);
            w.default = match default {
                Some(Route::Via(members)) => {
                    members.iter().find(|m| m.port == w.port).map(|m| (m.via, m.source))
                }
                _ => None,
            };
        }
        let wans = self.ports.iter().filter(|p| p.zone == Zone::Wan);
        self.nat.wan_addrs = wans.flat_map(|p| &p.addrs4).map(|a| a.0).collect();
        self.nat.local = self.ports.iter().flat_map(|p| &p.addrs4).map(|a| a.0).collect();
        self.nat.clone()
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

    /// The same for packets from one VRF.
    pub fn meter_from(&mut self, vrf: VrfNo, rule: Rule<u32>, car: &str) -> &mut Net {
        self.qos.vrf4.insert(self.qos.v4.len(), vrf);
        self.meter(rule, car)
    }

    /// The same for packets of one DSCP.
    pub fn meter_marked(&mut self, rule: Rule<u32>, dscp: Dscp, car: &str) -> &mut Net {
        self.qos.dscp4.insert(self.qos.v4.len(), dscp);
        self.meter(rule, car)
    }

    /// The QoS configuration with the rates of the ports.
    fn qos_spec(&mut self) -> QosSpec {
        let port = |(i, p): (usize, &Port)| MeteredPort {
            name: p.name.clone(),
            zone: Some(p.zone),
            rate: self.port_rates.get(&PortIdx(i as u8)).copied(),
        };
        let tunnels = self.ports.iter().enumerate().map(port);
        let tunnels: Vec<_> = tunnels.map(|m| MeteredPort { zone: Some(Zone::Overlay), ..m }).collect();
        self.qos.ports = self.ports.iter().enumerate().map(port).chain(tunnels).collect();
        self.qos.clone()
    }

    fn local_addresses(&self) -> BTreeMap<VrfNo, AddrSet> {
        let mut local: BTreeMap<VrfNo, AddrSet> = BTreeMap::new();
        for p in &self.ports {
            let v4 = p.addrs4.iter().flat_map(|&(a, len)| {
                let broadcast = a.to_bits() | u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
                [IpAddr::V4(a), IpAddr::V4(Ipv4Addr::from_bits(broadcast))]
            });
            local.entry(p.vrf).or_default().extend(v4.chain(p.addrs6.iter().map(|&(a, _)| IpAddr::V6(a))));
        }
        for t in &self.tunnels {
            let v4 = t.addrs4.iter().map(|a| IpAddr::V4(a.0));
            local.entry(t.vrf).or_default().extend(v4.chain(t.addrs6.iter().map(|a| IpAddr::V6(a.0))));
        }
        local
    }

    fn all_routes(&self) -> impl Iterator<Item = (VrfNo, IpNet, Route, Vec<Member>)> + '_ {
        let unused = |to: &(IpAddr, u8)| {
            self.unused.iter().filter(|(p, _)| p == to).flat_map(|(_, members)| members.clone()).collect()
        };
        let default = self.routes.iter().map(move |(to, r)| (VrfNo::DEFAULT, to, r, unused(to)));
        let all = default.chain(self.vrf_routes.iter().map(|(vrf, to, r)| (*vrf, to, r, Vec::new())));
        all.map(|(vrf, (a, l), r, unused)| (vrf, network(*a, *l), r.clone(), unused))
    }

    /// Compiles the gateway as the daemon does, and writes the records that the snapshot names.
    pub fn snapshot(&mut self) -> Snapshot {
        let spec = GatewaySpec {
            epoch: self.epoch,
            now: self.began,
            ports: self.ports.clone(),
            local: self.local_addresses(),
            neighbors: self.neighbors.clone(),
            acl: self.acl.build(),
            nat: self.nat_spec(),
            qos: self.qos_spec(),
            syn_cookies: self.syn_cookies.clone(),
            tunnels: Tunnels::new(self.tunnels.iter().cloned()),
            options: self.options,
        };
        let mut problems = Vec::new();
        let (snapshot, plan) =
            assemble(spec, &RoutingTables::of(self.all_routes()), &mut self.numbers, &mut problems);
        assert!(!problems.iter().any(Problem::is_error), "{problems:?}");
        self.records.apply(&plan, self.began);
        snapshot
    }
}

fn network(addr: IpAddr, len: u8) -> IpNet {
    IpNet::new(addr, len).expect("prefix length").trunc()
}
