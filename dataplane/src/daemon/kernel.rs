//! The kernel as the daemon sees it: its tables, followed live, and the ports on which it listens.

use super::listening_ports::ListeningPorts;
use anyhow::{Context, Result};
use sag_compile::{PortBinding, RouteRow};
use sag_model::PortIdx;
use sag_pipeline::nat::NatState;
use sag_pipeline::snapshot::{NeighborMap, Route, Snapshot};
use sag_rtnl::{Changes, Mirror, NeighborState, Tables};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Neighbors that are probed at a time, at most.
const MAX_PROBES: usize = 512;

/// Mirror of the kernel's tables.
pub struct KernelView {
    mirror: Mirror,
    listening: ListeningPorts,
}

impl KernelView {
    pub fn open() -> Result<KernelView> {
        let mirror = Mirror::open().context("cannot read the kernel's tables (netlink)")?;
        Ok(KernelView { mirror, listening: ListeningPorts::default() })
    }

    pub fn tables(&self) -> &Tables {
        self.mirror.tables()
    }

    /// The netlink socket, to wait for changes.
    pub fn event_source(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    /// Takes the changes in that have come. `None`: nothing has changed.
    pub fn take_changes(&mut self) -> Option<Changes> {
        let changes = match self.mirror.poll() {
            Ok(c) => c,
            Err(error) => {
                tracing::error!(%error, "cannot follow the kernel's tables; trying again");
                return None;
            }
        };
        if changes.resynced && changes.any() {
            tracing::warn!("kernel notifications were lost; all tables were read again");
        }
        changes.any().then_some(changes)
    }

    /// Requests from the kernel the next hops for which packets wait. The kernel keeps routers resolved; hosts are resolved once.
    pub fn resolve(
        &mut self,
        next_hops: &[(PortIdx, IpAddr)],
        bindings: &[PortBinding],
        routes: &[RouteRow],
    ) {
        let routers: BTreeSet<(PortIdx, IpAddr)> = routes
            .iter()
            .filter_map(|r| match &r.route {
                Route::Via(members) => Some(members.iter().filter_map(|m| Some((m.port, m.via?)))),
                _ => None,
            })
            .flatten()
            .collect();
        for &(port, ip) in next_hops {
            let l3 = bindings.get(port.index()).and_then(|b| b.l3_ifindex);
            let Some(ifindex) = l3 else { continue };
            let router = routers.contains(&(port, ip));
            let requested =
                if router { self.mirror.manage(ifindex, ip) } else { self.mirror.resolve(ifindex, ip) };
            if let Err(error) = requested {
                tracing::debug!(%error, "the kernel would not resolve a neighbor");
            }
        }
    }

    /// Has the kernel probe those next hops that have gone stale. What XDP forwards does not pass the kernel's neighbor code, so
    /// nothing else confirms them.
    pub fn probe_stale_neighbors(&mut self, bindings: &[PortBinding], known: &NeighborMap) {
        let of_port: BTreeMap<u32, PortIdx> =
            bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
        let in_use = |ifindex: u32, ip| of_port.get(&ifindex).is_some_and(|p| known.contains_key(&(*p, ip)));
        let stale: Vec<(u32, IpAddr)> = self
            .tables()
            .neighbors()
            .filter(|n| n.state == NeighborState::Stale && in_use(n.ifindex, n.ip))
            .map(|n| (n.ifindex, n.ip))
            .take(MAX_PROBES)
            .collect();
        for (ifindex, ip) in stale {
            if let Err(error) = self.mirror.resolve(ifindex, ip) {
                tracing::debug!(%error, "the kernel would not probe a neighbor");
            }
        }
    }

    /// Keeps NAT from giving sessions a port of the gateway's own addresses on which the gateway itself listens.
    pub fn reserve_listening_ports(&mut self, snapshot: &Snapshot, nat: &NatState) {
        if snapshot.nat.externals.is_empty() {
            return;
        }
        let now = ListeningPorts::now();
        let changed = now != self.listening;
        for pool in nat.pools() {
            let local = snapshot.local.contains(&pool.addr().into());
            pool.reserve(if local { &now.0 } else { &[] });
            if changed && local {
                for port in now.udp_ports_of(&pool.forwarded()) {
                    tracing::warn!(
                        addr = %pool.addr(), port,
                        "a UDP socket of the gateway has a port that a [[dnat]] entry forwards: the socket gets the packets"
                    );
                }
            }
        }
        self.listening = now;
    }
}
