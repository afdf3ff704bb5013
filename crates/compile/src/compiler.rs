//! The first half of compiling: from a configuration and the kernel's tables to a gateway in the pipeline's terms.

use crate::acl::AclCompiler;
use crate::assemble::{GatewaySpec, Numbers, assemble};
use crate::clock::ClockReading;
use crate::kernel_vrfs::disagreements;
use crate::nat::NatCompiler;
use crate::nexthops::{NeighborLinks, NextHopPlan};
use crate::plan::Plan;
use crate::ports::{self, DeviceSlots, PortBinding};
use crate::qos::QosCompiler;
use crate::records::SharedRecords;
use crate::routes;
use crate::routing_tables::RoutingTables;
use crate::syn_cookies;
use crate::tunnels::TunnelCompiler;
use crate::vrfs::VrfNumbers;
use ipnet::IpNet;
use sag_model::config::Config;
use sag_model::flow::SynCookieControl;
use sag_model::time::Tick;
use sag_model::{MacAddr, Nanos, PortIdx};
use sag_pipeline::resolution::RequestRates;
use sag_pipeline::snapshot::{Options, Port, SessionLimits, Timeouts};
use sag_pipeline::tunnel::EspSaTable;
use sag_rtnl::{Neighbor, Tables};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Compiles configurations. It carries numbers and counters from one compilation to the next, so that they stay with
/// their owners, and writes no memory that workers or XDP read.
#[derive(Debug)]
pub struct Compiler {
    /// Slots of devices.
    pub devices: DeviceSlots,
    /// Next hops, meters, pools.
    pub numbers: Numbers,
    /// Rules and their counters.
    pub acl: AclCompiler,
    /// NAT entries and their counters.
    pub nat: NatCompiler,
    /// Which QoS policies match at the moment.
    pub qos: QosCompiler,
    /// Numbers of VRFs.
    pub vrfs: VrfNumbers,
    /// Tunnels and their state.
    pub tunnels: TunnelCompiler,
    /// What SYN cookies are made by; `None`: there is no XDP that answers with them.
    pub syn_cookies: Option<&'static SynCookieControl>,
    /// For a replay: frames are taken whatever their destination MAC, and a neighbor that is not known gets an Ethernet address
    /// derived from its IP address.
    pub replay: bool,
    /// The routes as last compiled.
    pub routes: RoutingTables,
    /// Learned routes of a family.
    pub(crate) max_learned: usize,
}

impl Compiler {
    /// A compiler for these records. The associations of ESP tunnels are those that workers look up in `esp`.
    pub fn new(records: &SharedRecords, esp: Arc<EspSaTable>) -> Compiler {
        Compiler {
            devices: DeviceSlots::default(),
            numbers: Numbers::of(records),
            acl: AclCompiler::default(),
            nat: NatCompiler::default(),
            qos: QosCompiler::default(),
            vrfs: VrfNumbers::default(),
            tunnels: TunnelCompiler::new(esp),
            syn_cookies: None,
            replay: false,
            routes: RoutingTables::default(),
            max_learned: routes::MAX_LEARNED,
        }
    }

    /// Compiles a configuration and the kernel's tables for an epoch.
    pub fn compile(&mut self, config: &Config, tables: &Tables, epoch: u32, clock: ClockReading) -> Plan {
        self.routes.inputs = None;
        self.compile_changes(config, (tables, &[]), epoch, clock)
    }

    /// The same, while the kernel's routes to other prefixes than these are those of the last compilation. They are not
    /// looked at if what they were decided by is the same.
    pub fn compile_changes(
        &mut self,
        config: &Config,
        (tables, prefixes): (&Tables, &[IpNet]),
        epoch: u32,
        clock: ClockReading,
    ) -> Plan {
        let mut problems = Vec::new();
        self.vrfs.assign(config);
        let bindings = ports::bind(config, tables, &mut self.devices, &self.vrfs);
        let ports: Vec<_> = bindings.iter().map(|b| b.port.clone()).collect();
        let local = ports::local_addresses(config, tables, &bindings, &self.vrfs);
        let (tunnels, esp) = self.tunnels.compile(config, &self.vrfs, clock.monotonic, &mut problems);
        disagreements(config, tables, &mut problems);
        let all_routes = self.update_routes(config, tables, &bindings, prefixes);
        problems.extend(self.routes.problems.iter().cloned());
        self.numbers.nexthops.set_fixed(config.neighbors.iter().map(|n| (n.port, n.address)));
        let spec = GatewaySpec {
            epoch,
            now: clock.monotonic,
            neighbors: self.neighbors(config, tables, &bindings),
            acl: self.acl.compile(config, &self.vrfs, &mut problems),
            nat: self.nat.compile(
                config,
                (tables, &bindings),
                &self.routes,
                (&local, &self.vrfs),
                &mut problems,
            ),
            qos: self.qos.compile(config, (&ports, &self.vrfs), clock.wall, &mut problems),
            tunnels,
            syn_cookies: syn_cookies::compile(config, &ports, self.syn_cookies),
            options: Options {
                acl_stateful: config.dataplane.acl_stateful,
                acl_reject: config.dataplane.acl_reject,
                timeouts: timeouts(config),
                sessions: SessionLimits {
                    host_share: config.dataplane.host_share,
                    host_half_open: config.dataplane.host_half_open,
                },
                requests: RequestRates {
                    source: config.dataplane.neighbor_host_rate,
                    port: config.dataplane.neighbor_rate,
                },
                icmp_rate: config.dataplane.icmp_rate,
                promiscuous: self.replay,
            },
            ports,
            local,
        };
        let (snapshot, records) = assemble(spec, &self.routes, &mut self.numbers, &mut problems);
        Plan { snapshot, records, bindings, all_routes, esp, problems }
    }

    /// The record of one neighbor of the kernel that has changed, for the ports last compiled, and whether there is a number for
    /// it. `None`: it is not one that packets are handed to. Nothing else is compiled.
    pub fn plan_neighbor(
        &mut self,
        tables: &Tables,
        bindings: &[PortBinding],
        (ifindex, ip): (u32, IpAddr),
        ports: &[Port],
        now: Nanos,
    ) -> Option<(NextHopPlan, bool)> {
        let port = bindings.iter().find(|b| b.ours() && b.l3_ifindex == Some(ifindex))?.idx;
        let key = (port, ip);
        if self.numbers.nexthops.is_fixed(&key) {
            return None;
        }
        let mac = tables.neighbor(ifindex, ip).and_then(link_address);
        Some(self.numbers.nexthops.plan_one(ports, key, mac, now))
    }

    /// The kernel's usable neighbors, and those of the configuration, which win.
    fn neighbors(&self, config: &Config, tables: &Tables, bindings: &[PortBinding]) -> NeighborLinks {
        let mut macs = NeighborLinks::new();
        if self.replay {
            macs.extend(self.numbers.nexthops.iter().map(|(key, _)| (key, invented_mac(key.1))));
        }
        let by_l3: HashMap<u32, PortIdx> =
            bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
        for n in tables.neighbors() {
            if let (Some(&port), Some(mac)) = (by_l3.get(&n.ifindex), link_address(n)) {
                macs.insert((port, n.ip), mac);
            }
        }
        macs.extend(config.neighbors.iter().map(|n| ((n.port, n.address), n.mac)));
        macs
    }
}

/// Where frames to a neighbor go, if it is resolved and a host of its own.
pub(crate) fn link_address(n: &Neighbor) -> Option<MacAddr> {
    n.mac.filter(|mac| n.usable() && !n.ip.is_multicast() && !mac.is_multicast())
}

fn timeouts(config: &Config) -> Timeouts {
    let ticks = |s: u32| Tick::of(Duration::from_secs(u64::from(s)));
    let t = &config.timeouts;
    Timeouts {
        tcp_established: ticks(t.tcp_established),
        tcp_transitory: ticks(t.tcp_transitory),
        tcp_syn: ticks(t.tcp_syn),
        tcp_refused: ticks(t.tcp_refused),
        udp: ticks(t.udp),
        icmp: ticks(t.icmp),
        other: ticks(t.other),
    }
}

/// 02:00 and the last four bytes of the address: recognizable in a capture.
fn invented_mac(ip: IpAddr) -> MacAddr {
    let tail = match ip {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(a) => {
            let o = a.octets();
            [o[12], o[13], o[14], o[15]]
        }
    };
    MacAddr([0x02, 0x00, tail[0], tail[1], tail[2], tail[3]])
}
