//! From configuration and kernel tables to what the workers forward by. Pure: no socket, no clock;
//! the daemon and the replayer call the same code.

mod acl;
mod esp;
mod nat;
mod nexthops;
mod ports;
mod qos;
mod routes;
mod tunnels;

pub use acl::{AclCompiler, FamilyRule, class_of, compile_rule};
pub use esp::{InstallError, Keymat, has_keys};
pub use nat::NatCompiler;
pub use nexthops::NextHops;
pub use ports::{Devices, PortBinding};
pub use qos::{Moment, QosCompiler, limit_of};
pub use routes::{RouteRow, RouteSource};
pub use tunnels::TunnelCompiler;

use sag_model::config::{Config, Policy};
use sag_model::time::Tick;
use sag_pipeline::fib::Fib;
use sag_pipeline::nat::NatState;
use sag_pipeline::qos::MeterTable;
use sag_pipeline::snapshot::{Ingress, Options, Snapshot, Timeouts};
use sag_rtnl::Tables;
use std::sync::Arc;
use std::time::Duration;

/// What survives from one compilation to the next, so that numbers stay the same.
#[derive(Debug)]
pub struct Compiler {
    pub devices: Devices,
    pub nexthops: NextHops,
    pub acl: AclCompiler,
    pub nat: NatCompiler,
    pub qos: QosCompiler,
    pub tunnels: TunnelCompiler,
    /// Take frames for any destination MAC (replay).
    pub promiscuous: bool,
}

/// A compiled world.
#[derive(Debug)]
pub struct Compiled {
    pub snapshot: Snapshot,
    pub bindings: Vec<PortBinding>,
    pub routes: Vec<RouteRow>,
}

impl Compiler {
    pub fn new(nexthops: NextHops, nat: Arc<NatState>, meters: MeterTable, promiscuous: bool) -> Compiler {
        Compiler {
            devices: Devices::default(),
            nexthops,
            acl: AclCompiler::default(),
            nat: NatCompiler::new(nat),
            qos: QosCompiler::new(meters),
            tunnels: TunnelCompiler::default(),
            promiscuous,
        }
    }

    /// Compiles the whole world for an epoch.
    pub fn compile(&mut self, config: &Config, tables: &Tables, epoch: u32, moment: Moment) -> Compiled {
        let bindings = ports::bind(config, tables, &mut self.devices);
        let ports: Vec<_> = bindings.iter().map(|b| b.port.clone()).collect();
        let local = ports::local_addresses(config, tables);
        let tunnels = self.tunnels.compile(config);
        let rows = routes::collect(config, tables, &bindings, &self.tunnels);
        let (fib4, fib6, routes) = routes::build(&rows);
        self.nexthops.refresh(config, tables, &bindings);
        let nat = Arc::new(self.nat.compile(config, &ports, &local));
        let qos = Arc::new(self.qos.compile(config, &ports, moment));
        let snapshot = Snapshot {
            epoch,
            ingress: Ingress::new(&ports),
            ports,
            local,
            routes,
            fib4: Fib::build(fib4),
            fib6: Fib::build(fib6),
            neighbors: self.nexthops.map().clone(),
            nexthops: self.nexthops.records(),
            acl: self.acl.compile(config),
            nat,
            qos,
            tunnels,
            options: Options {
                acl_stateful: config.dataplane.acl_stateful,
                timeouts: timeouts(config),
                icmp_rate: config.dataplane.icmp_rate,
                promiscuous: self.promiscuous,
            },
        };
        tunnels::settle(&snapshot);
        Compiled { snapshot, bindings, routes: rows }
    }
}

fn timeouts(config: &Config) -> Timeouts {
    let ticks = |s: u32| Tick::of(Duration::from_secs(u64::from(s)));
    let t = &config.timeouts;
    Timeouts {
        tcp_established: ticks(t.tcp_established),
        tcp_transitory: ticks(t.tcp_transitory),
        tcp_syn: ticks(t.tcp_syn),
        udp: ticks(t.udp),
        icmp: ticks(t.icmp),
        other: ticks(t.other),
    }
}

/// Whether a verdict of the configuration lets the packet pass.
pub(crate) fn accepts(p: Policy) -> bool {
    p == Policy::Accept
}

#[cfg(test)]
mod tests;
