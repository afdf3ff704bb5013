//! The daemon's control thread: it wires the parts and dispatches what happens to them.

use super::devices::{Devices, Surroundings};
use super::environment;
use super::flow_tables::FlowTables;
use super::kernel::KernelView;
use super::kernel_settings::{self, SettingsThread};
use super::port_mapping::PortMapping;
use super::publisher::{Context, Publisher};
use super::route_changes::{BATCH, RouteChanges};
use super::running_config::{Applied, RunningConfig};
use super::session_sync::{self, SessionSync};
use super::stale_flows::{StaleFlows, stale_flows};
use super::telemetry::Telemetry;
use super::timers::Timers;
use super::tunnel_devices::TunnelDevices;
use super::view::View;
use super::vrf_numbers;
use super::worker::{FromWorker, Shared};
use super::workers::Workers;
use crate::esp::EspKeys;
use anyhow::Result;
use ipnet::IpNet;
use sag_compile::{ClockReading, Compiler};
use sag_model::flow::next_epoch;
use sag_model::{DropReason, Nanos, PortIdx};
use sag_pipeline::nat::{Endpoint, Events};
use sag_pipeline::snapshot::NeighborKey;
use sag_rtnl::Neighbor;
use sag_xsk::sys;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Time between two rounds of housekeeping.
const TICK: Duration = Duration::from_millis(50);
/// The same while an index is replaced, step by step.
const TICK_RESIZING: Duration = Duration::from_millis(1);
/// XDP follows this daemon's epoch after this time even if sockets are missing.
const MAX_START: Duration = Duration::from_secs(2);
/// What waits for a slow disk at the end is waited for so long.
const MAX_FINISH: Duration = Duration::from_secs(1);
/// How long a learned path MTU is used before the path is searched again (RFC 1191 6.3).
const PATH_MTU_LIFETIME: Nanos = Nanos::from_secs(600);

/// The parts of a running daemon.
pub struct Daemon {
    pub running: RunningConfig,
    pub kernel: KernelView,
    pub compiler: Compiler,
    pub keys: EspKeys,
    pub publisher: Publisher,
    pub route_changes: RouteChanges,
    pub flows: FlowTables,
    pub workers: Workers,
    pub devices: Devices,
    pub telemetry: Telemetry,
    pub timers: Timers,
    pub settings: SettingsThread,
    pub port_mapping: PortMapping,
    pub tunnel_devices: TunnelDevices,
    pub session_sync: SessionSync,
}

/// What both clocks show.
pub fn read_clocks() -> ClockReading {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    ClockReading {
        monotonic: Nanos(sys::now()),
        wall: sag_model::config::Timestamp(since_1970.as_secs() as i64),
    }
}

impl Daemon {
    /// What reports read.
    pub fn view(&self) -> View<'_> {
        View {
            running: &self.running,
            kernel: &self.kernel,
            compiler: &self.compiler,
            keys: &self.keys,
            publisher: &self.publisher,
            flows: &self.flows,
            workers: &self.workers,
            devices: &self.devices,
            telemetry: &self.telemetry,
            settings: &self.settings,
            port_mapping: &self.port_mapping,
            tunnel_devices: &self.tunnel_devices,
            session_sync: &self.session_sync,
        }
    }

    /// The devices, and what they are brought in line with.
    fn devices(&mut self) -> (&mut Devices, Surroundings<'_>) {
        let surroundings = Surroundings {
            dataplane: &self.running.config.dataplane,
            tables: self.kernel.tables(),
            gateway: &self.publisher.gateway,
            bindings: &self.publisher.bindings,
            workers: &self.workers,
        };
        (&mut self.devices, surroundings)
    }

    /// Time between two rounds of housekeeping; short while one step waits for the one before.
    pub fn tick_interval(&self) -> Duration {
        if self.flows.is_idle() { TICK } else { TICK_RESIZING }
    }

    /// One round of housekeeping.
    pub fn tick(&mut self) {
        self.drain_worker_events();
        self.go_live_when_ready();
        self.apply_kernel_changes();
        self.publisher.drop_retired();
        self.flows.step(self.publisher.gateway.control(), &self.workers);
        self.expire_neighbors();
        let (devices, surroundings) = self.devices();
        devices.retry(&surroundings);
        if self.timers.floods.is_due() {
            self.check_floods();
            self.check_neighbors();
            self.keep_shared_routers();
            self.set_source_routes(false);
        }
        if self.timers.syn_cookies.is_due() {
            let (config, gateway) = (&self.running.config, &self.publisher.gateway);
            self.telemetry.syn_cookies.check(config, gateway, Instant::now());
        }
        if self.timers.own_ports.is_due() {
            self.reserve_own_ports();
        }
        if self.timers.port_mapping.is_due() {
            self.update_port_mapping();
        }
        if self.timers.port_requests.is_due() {
            self.resume_port_requests();
        }
        if self.timers.neighbors.is_due() {
            let (bindings, known) = (&self.publisher.bindings, &self.publisher.snapshot.neighbors);
            self.kernel.probe_stale_neighbors(bindings, known);
        }
        self.workers.measure_load();
        if self.publisher.is_live() && self.timers.attachments.is_due() {
            let began = Instant::now();
            self.repair_attachments();
            self.timers.attachments.took(began.elapsed());
        }
        if self.timers.source_rules.is_due() && self.kernel.lacks_source_routes() {
            self.set_source_routes(true);
        }
        if self.publisher.is_live() && self.timers.maps.is_due() {
            self.repair_maps();
            self.telemetry.repairs.repair_pins(&self.publisher.gateway);
        }
        self.update_meters();
        self.update_tunnels();
        if self.timers.metrics.is_due() {
            self.telemetry.publish_metrics(self.view().metrics());
        }
    }

    /// Work that does not wait for the next tick: a worker has called.
    pub fn handle_wakeup(&mut self) {
        self.drain_worker_events();
        while let Some((no, device)) = self.tunnel_devices.next_change() {
            self.workers.set_tunnel_device(no, device.as_ref());
        }
        self.go_live_when_ready();
        self.flows.resize_indexes(self.publisher.gateway.control());
    }

    /// Handles what workers have reported.
    fn drain_worker_events(&mut self) {
        while let Some(event) = self.workers.next_event() {
            match event {
                FromWorker::Opened { request, dev, queue, socket, binding } => {
                    if self.devices.has_no_socket(dev) {
                        self.telemetry.note_closed_sockets(dev, &self.publisher, &self.workers);
                    }
                    let (devices, surroundings) = self.devices();
                    devices.socket_opened(&surroundings, request, (dev, queue), socket, binding);
                }
                FromWorker::Failed { request, dev, queue, error, permanent } => {
                    let fatal = permanent && !self.publisher.is_live();
                    self.devices.socket_failed(request, (dev, queue), error, fatal);
                }
                FromWorker::Gone { worker, request, dev, queue, error } => {
                    tracing::warn!(worker, dev, queue, %error, "socket stopped working");
                    self.devices.socket_gone(request, dev, error);
                }
                FromWorker::Resolve(next_hops) => self.resolve(next_hops),
            }
        }
    }

    /// Requests next hops for which workers hold packets from the kernel. None of them gets a number before it has answered.
    fn resolve(&mut self, next_hops: Vec<NeighborKey>) {
        let now = Nanos(sys::now());
        self.kernel.resolver.set_rates(self.publisher.snapshot.options.requests);
        for key in next_hops {
            let Some(ifindex) = self.publisher.bindings.get(key.0.index()).and_then(|b| b.l3_ifindex) else {
                continue;
            };
            if self.kernel.tables().neighbor(ifindex, key.1).is_some_and(Neighbor::usable) {
                // It has answered meanwhile, or there was no number for it.
                self.publish_neighbors(&[(ifindex, key.1)]);
            } else {
                let router = self.compiler.numbers.nexthops.is_router(&key);
                self.kernel.resolve(key, ifindex, router, now);
            }
        }
    }

    /// Ends what was asked for in vain, and the rest of numbers that no neighbor has any more.
    fn expire_neighbors(&mut self) {
        let now = Nanos(sys::now());
        self.kernel.expire_neighbors(now);
        let plan = self.compiler.numbers.nexthops.expire(now);
        if !plan.is_empty() {
            self.publisher.records.nexthops.apply(&plan);
        }
        if self.publisher.records.nexthops.is_worn() && self.publisher.is_live() {
            tracing::info!("a next hop has changed so often that all flows are evaluated again");
            self.recompile(next_epoch(self.publisher.epoch()), &[], &[]);
        }
    }

    fn check_neighbors(&mut self) {
        let dropped = |idx: PortIdx| -> u64 {
            let of = |w: &Shared| w.counters.port(idx).drops[DropReason::NeighborRateLimit.index()].get();
            self.workers.shared().map(of).sum()
        };
        let ours = self.publisher.bindings.iter().filter(|b| b.ours());
        let limited: Vec<_> =
            ours.map(|b| (b.idx, dropped(b.idx) + self.kernel.resolver.limited(b.idx))).collect();
        let refused = self.compiler.numbers.nexthops.refused();
        self.telemetry.neighbors.check(&self.running.config, &limited, refused, Instant::now());
    }

    /// Once every socket is open (or two seconds have passed), XDP follows this daemon's epoch: flows of the predecessor come to
    /// the workers from then on.
    fn go_live_when_ready(&mut self) {
        if self.publisher.is_live() {
            self.publisher.end_predecessor();
        } else if self.devices.all_ready() || self.telemetry.started.elapsed() > MAX_START {
            self.publisher.go_live(&self.running.config.dataplane);
            self.devices.detach_predecessors(&self.publisher.gateway, self.kernel.tables());
            tracing::info!(epoch = self.publisher.epoch(), workers = self.workers.count(), "forwarding");
        }
    }

    /// Whether changes of the kernel wait that are to be taken in before the next round of housekeeping.
    pub fn has_more_changes(&self) -> bool {
        self.kernel.has_more() || self.route_changes.has_more() || self.compiler.has_undecided()
    }

    /// Takes the kernel's changes in and publishes what they mean.
    pub fn apply_kernel_changes(&mut self) {
        let changes = self.kernel.take_changes();
        // What is attached to a link is no part of the tables, but a reason for the kernel to say that the link has changed.
        if self.kernel.take_link_notices() && self.publisher.is_live() {
            self.repair_attachments();
        }
        if self.kernel.take_setting_notices() {
            self.settings.look();
        }
        let Some(changes) = changes else { return self.apply_route_changes() };
        self.kernel.settle_neighbors(&changes.neighbors, &self.publisher.bindings);
        if !changes.links && !changes.addrs {
            self.publish_neighbors(&changes.neighbors);
            self.route_changes.note(changes.prefixes);
            return self.apply_route_changes();
        }
        let stale = stale_flows(&changes, &self.compiler.routes);
        let at_once = changes.prefixes.get(..changes.prefixes.len().min(BATCH)).unwrap_or_default();
        self.route_changes.note(changes.prefixes.iter().skip(BATCH).copied());
        self.recompile(self.publisher.epoch(), &stale, at_once);
        self.set_source_routes(changes.links);
        // A macvlan device above a port brings another Ethernet address.
        if changes.links || changes.addrs {
            self.reconcile_devices();
            self.tunnel_devices.look();
        }
    }

    /// Publishes these neighbors and nothing else: a record and a place in the table of numbers each.
    fn publish_neighbors(&mut self, changed: &[(u32, IpAddr)]) {
        let now = Nanos(sys::now());
        let mut resolved = false;
        for &neighbor in changed {
            let (publisher, tables) = (&mut self.publisher, self.kernel.tables());
            let ports = &publisher.snapshot.ports;
            let planned = self.compiler.plan_neighbor(tables, &publisher.bindings, neighbor, ports, now);
            // Without a number it stays unresolved; `check_neighbors` says so.
            let Some((plan, _)) = planned else { continue };
            publisher.records.nexthops.apply(&plan);
            resolved |= plan.resolves();
        }
        if resolved {
            // Packets that wait for a neighbor can go on.
            self.workers.kick();
        }
    }

    /// Keeps NAT from the ports of the gateway's own sockets. Of a session that got a new connection's very tuple before the
    /// socket was seen, the socket wins: the session ends, and its host begins again by another port.
    fn reserve_own_ports(&mut self) {
        let new = self.kernel.reserve_own_ports(&self.publisher.snapshot, &self.flows.tables.nat);
        let mut events = Events::default();
        for s in new {
            let (SocketAddr::V4(own), Some(SocketAddr::V4(remote))) = (s.local, s.remote) else { continue };
            let answers = (s.protocol, endpoint(remote), endpoint(own));
            if self.flows.end_translated(answers, &self.publisher.snapshot, &mut events) {
                tracing::info!(%own, %remote, "a connection of the gateway takes its port back from NAT");
            }
        }
        self.telemetry.journal.journal.take(&mut events);
    }

    /// Compiles and publishes under an epoch. A time window of QoS that has begun or ended raises it, so that flows are
    /// classified again; so do other NAT addresses (DHCP), because sessions that were translated to an old address cannot go on, and routes by
    /// which sources may come in elsewhere than before (`reverse_path`).
    ///
    /// The kernel's routes to `prefixes` may have changed; others are not looked at, if nothing else requires it.
    pub(super) fn recompile(&mut self, epoch: u32, stale: &[StaleFlows], prefixes: &[IpNet]) {
        let clock = read_clocks();
        let current = self.publisher.epoch();
        let windows = epoch == current && self.compiler.qos.is_due(&self.running.config, clock.wall);
        let epoch = if windows { next_epoch(epoch) } else { epoch };
        self.kernel.follow_tables(&self.running.config);
        let kernel = (self.kernel.tables(), prefixes);
        let mut plan = self.compiler.compile_changes(&self.running.config, kernel, epoch, clock);
        if plan.all_routes {
            self.route_changes.forget();
        }
        self.telemetry.journal.vrfs.set(&self.compiler.vrfs);
        if epoch == current && !plan.snapshot.nat.same_addresses(&self.publisher.snapshot.nat) {
            plan.snapshot.epoch = next_epoch(epoch);
            tracing::info!(epoch = plan.snapshot.epoch, "NAT addresses have changed");
            self.session_sync.addresses_move(clock.monotonic.tick());
        } else if epoch == current && plan.snapshot.source_checks != self.publisher.snapshot.source_checks {
            plan.snapshot.epoch = next_epoch(epoch);
            tracing::debug!(epoch = plan.snapshot.epoch, "sources may come in by other ports than before");
        }
        let mut cx = Context {
            keys: &mut self.keys,
            workers: &self.workers,
            dataplane: &self.running.config.dataplane,
        };
        self.publisher.publish(plan, &self.route_changes.take_stale(stale), &mut cx);
        self.keep_kernel_routes();
        self.session_sync.send_snapshot(&self.publisher.snapshot);
        // A pool whose address is gone is free for another one when nobody holds its ports.
        self.update_port_mapping();
        self.keep_routers();
    }

    /// Brings devices, sockets and XDP's port table in line with configuration and links.
    pub fn reconcile_devices(&mut self) {
        let (devices, surroundings) = self.devices();
        devices.reconcile(&surroundings);
        let (dataplane, bindings) = (&self.running.config.dataplane, &self.publisher.bindings);
        let inside = self.tunnel_devices.names();
        self.settings.keep(kernel_settings::order(dataplane, bindings, inside, self.kernel.tables()));
    }

    /// Puts the XDP program back on devices that have lost it.
    pub fn repair_attachments(&mut self) {
        let lost = self.devices.repair_attachments(&self.publisher.gateway);
        self.telemetry.repairs.note_attachments(&lost);
    }

    /// Writes again what somebody has removed from XDP's maps from outside.
    fn repair_maps(&mut self) {
        let mut missing = self.devices.repair(&self.publisher.gateway, &self.publisher.bindings);
        missing.extend(self.publisher.repair_addresses());
        if !missing.is_empty() {
            missing.dedup();
            self.telemetry.repairs.note_maps(missing.len());
            tracing::warn!(lost = missing.join(", "), "XDP's maps were changed from outside; put right");
        }
    }

    fn check_floods(&mut self) {
        let (gateway, telemetry) = (&self.publisher.gateway, &mut self.telemetry);
        let dropped: Vec<_> = self
            .publisher
            .bindings
            .iter()
            .filter(|b| b.ours())
            .filter_map(|b| {
                let now = gateway.stats(b.idx).ok()?.drops(DropReason::FloodGuard);
                Some((b.idx, now, telemetry.xdp_base(b.idx).drops(DropReason::FloodGuard)))
            })
            .collect();
        telemetry.floods.check(&self.running.config, &dropped);
    }

    /// Time windows of QoS policies, and measured rates.
    fn update_meters(&mut self) {
        let clock = read_clocks();
        if self.compiler.qos.is_due(&self.running.config, clock.wall) {
            self.recompile(self.publisher.epoch(), &[], &[]);
            tracing::info!(epoch = self.publisher.epoch(), "a time window of a QoS policy began or ended");
        }
        self.telemetry.rates.sample(&self.publisher.records.meters, clock.monotonic);
    }

    /// Keys that are due, tunnels that have gone down or come back, and what was learned of the paths.
    fn update_tunnels(&mut self) {
        if self.publisher.snapshot.tunnels.is_empty() {
            return;
        }
        self.keys.poll();
        let now = Nanos(sys::now());
        if self.compiler.tunnels.poll(&self.publisher.snapshot.tunnels, now) {
            self.telemetry.log_tunnel_changes(&self.publisher.snapshot.tunnels);
            self.recompile(self.publisher.epoch(), &[StaleFlows::All], &[]);
        }
        for t in self.publisher.snapshot.tunnels.iter() {
            if let Some((mtu, since)) = t.state.learned()
                && now.saturating_sub(since) > PATH_MTU_LIFETIME
            {
                tracing::debug!(tunnel = t.name, mtu, "the path MTU is searched again");
                t.state.forget_path();
            }
        }
        self.publisher.refresh_tunnel_records();
        self.keep_tunnel_devices(false);
    }

    /// Has the kernel's devices of tunnels brought in line. `first`: there may be some of a predecessor.
    pub fn keep_tunnel_devices(&mut self, first: bool) {
        self.tunnel_devices.keep(&self.running.config, &self.publisher.snapshot.tunnels, first);
    }

    /// Replaces the running configuration, whole or not at all.
    pub fn apply_config(&mut self, text: String, name: &str) -> Result<Applied> {
        let applied = self.running.replace(text, name)?;
        self.recompile(next_epoch(self.publisher.epoch()), &[], &[]);
        self.keep_tunnel_devices(false);
        self.reconcile_devices();
        self.telemetry.journal.write_to(self.running.config.nat.log_file.clone());
        self.telemetry.journal.rules.name_ports(&self.running.config);
        self.configure_session_sync();
        self.running.save_last_good(&self.telemetry.saver);
        vrf_numbers::save(
            &self.compiler.vrfs,
            &self.telemetry.saver,
            &self.running.config.dataplane.state_dir,
        );
        Ok(applied)
    }

    /// The peer to which sessions follow, and what VRFs and ports are called.
    pub fn configure_session_sync(&mut self) {
        let vrfs = self.compiler.vrfs.all().map(|(name, no)| (name.to_owned(), no.get())).collect();
        let ports = self.running.config.ports().map(|(idx, p)| (p.name.clone(), idx.0)).collect();
        self.session_sync.set_names(sag_ha::Names { vrfs, ports });
        self.session_sync.configure(session_sync::settings(self.running.config.ha.as_ref()));
    }

    /// Ends the daemon. XDP goes on forwarding unless everything is to be removed.
    pub fn stop(mut self, detach: bool) -> Result<()> {
        tracing::info!(detach, "ending");
        self.session_sync.stop();
        self.workers.stop();
        self.keys.finish();
        self.devices.close_sockets();
        self.telemetry.journal.finish(MAX_FINISH);
        self.telemetry.saver.finish(MAX_FINISH);
        if detach {
            self.settings.put_back(MAX_FINISH);
            let dataplane = self.running.config.dataplane.clone();
            drop(self.publisher);
            environment::remove(&dataplane)?;
        }
        Ok(())
    }
}

fn endpoint(a: SocketAddrV4) -> Endpoint {
    Endpoint::new(*a.ip(), a.port())
}
