//! The kernel as the daemon sees it: its tables, followed live, and the ports that its sockets hold.

use super::neighbors::{Admission, Resolver};
use super::own_ports::OwnPorts;
use anyhow::{Context, Result};
use sag_compile::{PortBinding, kernel_tables};
use sag_model::config::Config;
use sag_model::{Nanos, PortIdx};
use sag_pipeline::nat::NatState;
use sag_pipeline::snapshot::{NeighborKey, NeighborTable, Snapshot};
use sag_rtnl::{Changes, Mirror, NeighborState, OwnSocket, SocketReader, SourceRoute, SourceRoutes, Tables};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

/// Neighbors that are probed at a time, at most.
const MAX_PROBES: usize = 512;

/// Mirror of the kernel's tables.
pub struct KernelView {
    mirror: Mirror,
    sockets: Option<SocketReader>,
    own: OwnPorts,
    /// Sockets are not read before.
    next_read: Instant,
    pub resolver: Resolver,
    /// The interface at which each port's neighbors were asked for.
    ifindexes: BTreeMap<PortIdx, u32>,
    /// More changes wait than were taken in at a time.
    more: bool,
    /// Announcements about links that were looked at.
    link_notices: u64,
    /// Announcements about settings that were looked at.
    setting_notices: u64,
    /// `None`: the kernel's rules cannot be read.
    source_routes: Option<SourceRoutes>,
    /// Why they could not be set, if so; it is in the log.
    source_routes_error: Option<String>,
}

impl KernelView {
    pub fn open() -> Result<KernelView> {
        let mirror = Mirror::open().context("cannot read the kernel's tables (netlink)")?;
        let sockets = SocketReader::open()
            .inspect_err(|error| tracing::warn!(%error, "sockets of this machine are read from /proc/net"))
            .ok();
        // A kernel without policy routing (CONFIG_IP_MULTIPLE_TABLES) has none.
        let source_routes = SourceRoutes::open()
            .inspect_err(|error| {
                tracing::warn!(
                    %error, "the kernel's rules cannot be read: answers of the box itself go by the default route"
                );
            })
            .ok();
        Ok(KernelView {
            mirror,
            sockets,
            own: OwnPorts::default(),
            next_read: Instant::now(),
            resolver: Resolver::default(),
            ifindexes: BTreeMap::new(),
            more: false,
            link_notices: 0,
            setting_notices: 0,
            source_routes,
            source_routes_error: None,
        })
    }

    pub fn tables(&self) -> &Tables {
        self.mirror.tables()
    }

    /// Has the mirror follow the tables of the configuration's VRFs.
    pub fn follow_tables(&mut self, config: &Config) {
        let numbers = kernel_tables(config, self.tables()).into_keys().collect();
        if let Err(error) = self.mirror.follow_tables(numbers) {
            tracing::error!(%error, "cannot read the kernel's tables of VRFs; trying again");
        }
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
                self.more = false;
                return None;
            }
        };
        if changes.resynced && changes.any() {
            tracing::warn!("kernel notifications were lost; all tables were read again");
        }
        self.more = changes.more;
        changes.any().then_some(changes)
    }

    /// Whether more changes wait than were taken in the last time.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Has the kernel send what it says from these addresses by their lines. `links`: links have changed, and routes may have
    /// gone with them.
    pub fn set_source_routes(&mut self, wanted: &BTreeSet<SourceRoute>, links: bool) {
        let Some(source_routes) = &mut self.source_routes else { return };
        if links {
            source_routes.forget_routes();
        }
        let error = source_routes.set(wanted).err().map(|e| e.to_string());
        if let Some(error) = &error
            && self.source_routes_error.as_ref() != Some(error)
        {
            tracing::warn!(%error, "some answers of the box itself go by the default route, not by the line of the question");
        }
        self.source_routes_error = error;
    }

    /// Whether somebody else has removed rules that [`KernelView::set_source_routes`] has made, as network managers do at their
    /// start.
    pub fn lacks_source_routes(&mut self) -> bool {
        let Some(source_routes) = self.source_routes.as_mut().filter(|s| !s.is_empty()) else { return false };
        let lacks_some = source_routes.reread().unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel's rules are not known");
            false
        });
        if lacks_some {
            tracing::warn!(
                event = "source-rules-lost",
                "rules for answers of the box itself were removed from outside; made again"
            );
        }
        lacks_some
    }

    /// Whether the kernel has announced anything about a link since the last call.
    pub fn take_link_notices(&mut self) -> bool {
        let now = self.mirror.link_notices();
        std::mem::replace(&mut self.link_notices, now) != now
    }

    /// Whether the kernel has announced that a setting of a device has changed since the last call.
    pub fn take_setting_notices(&mut self) -> bool {
        let now = self.mirror.setting_notices();
        std::mem::replace(&mut self.setting_notices, now) != now
    }

    /// Requests from the kernel a next hop for which packets wait. The kernel keeps routers resolved; hosts are resolved once, and
    /// as many at a time as [`Resolver`] admits.
    pub fn resolve(&mut self, key: NeighborKey, ifindex: u32, router: bool, now: Nanos) {
        let ip = key.1;
        let requested = if router {
            self.mirror.manage(ifindex, ip)
        } else {
            match self.resolver.admit(key, now) {
                Admission::Pending | Admission::Refused => return,
                Admission::Ask { instead_of } => {
                    if let Some(old) = instead_of {
                        self.forget(old);
                    }
                    self.ifindexes.insert(key.0, ifindex);
                    self.mirror.resolve(ifindex, ip)
                }
            }
        };
        if let Err(error) = requested {
            self.resolver.settle(&key);
            tracing::debug!(%error, "the kernel would not resolve a neighbor");
        }
    }

    /// Has the kernel keep these routers resolved, as far as their ports are up and it does not yet.
    pub fn keep_routers(
        &mut self,
        routers: impl Iterator<Item = NeighborKey>,
        bindings: &[PortBinding],
        now: Nanos,
    ) {
        for key in routers {
            let port = bindings.get(key.0.index()).filter(|b| b.port.up);
            if let Some(ifindex) = port.and_then(|b| b.l3_ifindex)
                && !self.mirror.is_managed(ifindex, key.1)
            {
                self.resolve(key, ifindex, true, now);
            }
        }
    }

    /// Neighbors have changed: those that were asked for and have an answer are no longer waited for, and those that have
    /// failed are forgotten by the kernel too.
    pub fn settle_neighbors(&mut self, changed: &[(u32, IpAddr)], bindings: &[PortBinding]) {
        for &(ifindex, ip) in changed {
            let port = bindings.iter().find(|b| b.ours() && b.l3_ifindex == Some(ifindex));
            let Some(key) = port.map(|b| (b.idx, ip)) else { continue };
            match self.mirror.tables().neighbor(ifindex, ip) {
                Some(n) if n.failed() => {
                    if self.resolver.settle(&key) {
                        self.forget(key);
                    }
                }
                Some(n) if !n.usable() => {}
                _ => {
                    self.resolver.settle(&key);
                }
            }
        }
    }

    /// Gives up neighbors that were asked for and of which nothing was heard.
    pub fn expire_neighbors(&mut self, now: Nanos) {
        for key in self.resolver.take_given_up(now) {
            self.forget(key);
        }
    }

    fn forget(&mut self, (port, ip): NeighborKey) {
        let Some(&ifindex) = self.ifindexes.get(&port) else { return };
        if let Err(error) = self.mirror.forget(ifindex, ip) {
            tracing::debug!(%error, "the kernel would not forget a neighbor");
        }
    }

    /// Leaves routers that no route names any more to the kernel's ordinary ageing.
    pub fn release_routers(&mut self, bindings: &[PortBinding], is_router: impl Fn(&NeighborKey) -> bool) {
        for (ifindex, ip) in self.mirror.managed() {
            let port = bindings.iter().find(|b| b.ours() && b.l3_ifindex == Some(ifindex));
            if port.is_some_and(|b| is_router(&(b.idx, ip))) {
                continue;
            }
            if let Err(error) = self.mirror.unmanage(ifindex, ip) {
                tracing::debug!(%error, "the kernel would not let go of a router");
            }
        }
    }

    /// Has the kernel probe those next hops that have gone stale. What XDP forwards does not pass the kernel's neighbor code, so
    /// nothing else confirms them.
    pub fn probe_stale_neighbors(&mut self, bindings: &[PortBinding], known: &NeighborTable) {
        let of_port: BTreeMap<u32, PortIdx> =
            bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
        let in_use = |ifindex: u32, ip| of_port.get(&ifindex).is_some_and(|p| known.get(&(*p, ip)).is_some());
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

    /// Keeps NAT from giving sessions a port of the gateway's own addresses that a socket of the gateway holds. Returns the
    /// connected sockets that were not there the last time. A machine with so many sockets that this takes a twentieth of
    /// the time is read more seldom.
    pub fn reserve_own_ports(&mut self, snapshot: &Snapshot, nat: &NatState) -> Vec<OwnSocket> {
        let began = Instant::now();
        if snapshot.nat.externals.is_empty() || began < self.next_read {
            return Vec::new();
        }
        let now = OwnPorts::now(self.sockets.as_mut());
        self.next_read = began + began.elapsed() * 20;
        let changed = now != self.own;
        for pool in nat.pools() {
            let local = snapshot.is_local_somewhere(pool.addr().into());
            if !local {
                pool.reserve(&[]);
                continue;
            }
            pool.reserve(&now.on(pool.addr()));
            if changed {
                for port in now.open_udp_of(&pool.forwarded()) {
                    if !self.own.open_udp_of(&pool.forwarded()).contains(&port) {
                        tracing::warn!(
                            addr = %pool.addr(), port,
                            "a UDP socket of the gateway has a port that a [[dnat]] entry forwards: the socket gets the packets"
                        );
                    }
                }
            }
        }
        let new = now.connected.difference(&self.own.connected).copied().collect();
        self.own = now;
        new
    }
}
