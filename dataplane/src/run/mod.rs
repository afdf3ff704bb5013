//! The daemon: one control thread (this one) and the workers.
//!
//! The control thread owns configuration, kernel mirror, XDP maps and the control socket. Workers
//! get immutable snapshots and tell about sockets and unresolved next hops; nothing else is shared
//! but the flow table, the next-hop records and counters.

mod books;
mod devices;
mod drift;
mod epochs;
mod explain;
mod floods;
mod journal;
mod keys;
mod listeners;
mod nat;
mod neighbors;
mod qos;
mod report;
mod sessions;
mod start;
mod tunnels;
mod worker;

use crate::compile::{Compiled, Compiler, Moment, PortBinding, RouteRow};
use crate::config_file;
use crate::server::{Handler, MetricsServer, MetricsSnapshot, Server};
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, Sender};
use devices::Device;
use mio::net::UnixStream as MioStream;
use mio::{Events, Interest, Poll, Token, Waker};
use sag_bpf::{Gateway, LocalAddr, PortStats, TunnelStats};
use sag_model::config::{self, Config};
use sag_model::control::Finding;
use sag_model::flow::{ControlBlock, Geometry, next_epoch};
use sag_model::{Nanos, PortIdx};
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::table::{DeferredFree, Grace, Resizer};
use sag_pipeline::{Pipeline, Tables};
use sag_rtnl::{Changes, Mirror};
use sag_xsk::sys;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use worker::{FromWorker, Shared, ToWorker};

pub use start::unload;

const NETLINK: Token = Token(0);
const WAKE: Token = Token(1);
const TERM: Token = Token(2);
const HUP: Token = Token(3);
const SERVER: Token = Token(16);

/// Housekeeping interval.
const TICK: Duration = Duration::from_millis(50);
/// The same while an index is being changed.
const TICK_RESIZING: Duration = Duration::from_millis(1);
/// How long flows may go by their verdict of an earlier daemon: longer than XDP asks for a new one
/// (`GW_REVALIDATION_TICKS`).
const PREDECESSOR: Duration = Duration::from_secs(5);
/// Neighbours in use that the kernel has not confirmed are probed this often.
const PROBE: Duration = Duration::from_secs(15);
/// New listening sockets of the gateway are noticed within this.
const LISTEN: Duration = Duration::from_secs(1);
/// Age of the numbers that the metrics endpoint shows, at the most.
const PUBLISH: Duration = Duration::from_millis(500);

/// A running worker, seen from the control thread.
struct WorkerHandle {
    to: Sender<ToWorker>,
    kick: UnixStream,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// For the busy percentage: (when, busy time then, percentage of the last interval).
    busy: (Instant, u64, f64),
}

impl WorkerHandle {
    fn send(&self, message: ToWorker) {
        if self.to.send(message).is_err() {
            tracing::error!(worker = self.shared.id, "a worker thread has ended; restart the daemon");
        }
        self.kick();
    }

    /// Ends the worker's sleep.
    fn kick(&self) {
        // A full pipe means that the worker has been called already.
        let _ = (&self.kick).write(&[1]);
    }
}

struct Daemon {
    path: PathBuf,
    config: Config,
    text: String,
    /// Where the running configuration came from.
    source: String,
    applied: SystemTime,
    warnings: Vec<String>,
    epoch: u32,
    started: Instant,
    mirror: Mirror,
    compiler: Compiler,
    snapshot: Arc<Snapshot>,
    bindings: Vec<PortBinding>,
    routes: Vec<RouteRow>,
    gateway: Gateway,
    tables: Arc<Tables>,
    grace: Arc<Grace>,
    epochs: epochs::GraceKeeper,
    /// Of the IPv4 and the IPv6 table's index.
    resizers: (Resizer, Resizer),
    devices: BTreeMap<u8, Device>,
    workers: Vec<WorkerHandle>,
    journal: journal::JournalKeeper,
    events: Receiver<FromWorker>,
    /// Ports that the gateway's own services have, when it was last looked, and when.
    listeners: listeners::Listeners,
    listened: Instant,
    /// Answers `explain`; never sees traffic.
    explainer: Pipeline,
    /// XDP's counters when this daemon started: its own books begin there.
    base: Vec<PortStats>,
    tunnel_base: Vec<TunnelStats>,
    /// Packets left in the rings of sockets that were closed.
    closed_loss: BTreeMap<PortIdx, u64>,
    floods: floods::Floods,
    flushed4: DeferredFree,
    flushed6: DeferredFree,
    /// What the metrics endpoint shows.
    metrics_data: Arc<Mutex<MetricsSnapshot>>,
    /// Rates of the last second.
    rates: qos::Rates,
    probed: Instant,
    /// When XDP's maps were last looked at.
    tended: Instant,
    published: Instant,
    /// What the ACL analysis found in the running configuration.
    findings: Option<Vec<Finding>>,
    /// Something that was asked for at start cannot be had.
    fatal: Option<String>,
    /// Since when XDP follows this daemon's epoch; until then, its predecessor's flows go on.
    live: Option<Instant>,
    /// Whether tunnels were up when it was last told.
    tunnels_up: std::collections::HashMap<String, bool>,
}

/// `sag-vcpe run`.
pub fn run(path: &Path, detach_on_exit: bool) -> Result<()> {
    let (checked, text) = config_file::load(path)?;
    start::logging(&checked.config.dataplane.log)?;
    start::preflight(&checked.config)?;
    let mut poll = Poll::new().context("cannot make a poll descriptor")?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE).context("cannot make a waker")?);
    let mut term = signal_stream(&poll, TERM, &[signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT])?;
    let mut hup = signal_stream(&poll, HUP, &[signal_hook::consts::SIGHUP])?;
    let mut daemon = start::open(path, checked, text, waker)?;
    let mut server = Server::bind(&daemon.config.dataplane.control)
        .with_context(|| format!("control socket {}", daemon.config.dataplane.control.display()))?;
    poll.registry().register(&mut daemon.mirror, NETLINK, Interest::READABLE)?;
    let metrics = daemon.config.dataplane.metrics.map(|a| a.to_string()).unwrap_or_default();
    let data = daemon.metrics_data.clone();
    let _metrics = MetricsServer::start(&metrics, move || match data.lock() {
        Ok(d) => d.clone(),
        Err(e) => e.into_inner().clone(),
    })?;
    daemon.reconcile();

    let mut events = Events::with_capacity(128);
    let mut ticked = Instant::now();
    let mut answering = false;
    loop {
        let pace = daemon.pace();
        if let Err(e) = poll.poll(&mut events, Some(pace))
            && e.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(e).context("poll failed");
        }
        for event in &events {
            match event.token() {
                NETLINK => daemon.kernel_changed(),
                WAKE => {
                    daemon.hear_workers();
                    daemon.go_live();
                    daemon.resize_indexes();
                    if let Some(why) = daemon.fatal.take() {
                        daemon.stop(true)?;
                        return Err(anyhow!(why));
                    }
                }
                TERM if drained(&mut term) => return daemon.stop(detach_on_exit),
                HUP if drained(&mut hup) => match daemon.reload() {
                    Ok(applied) => tracing::info!(epoch = applied.epoch, "configuration read anew"),
                    Err(error) => tracing::error!("{error}; the running configuration stays"),
                },
                token if server.owns(token) => server.handle(poll.registry(), token, &mut daemon),
                _ => {}
            }
        }
        // Who asks is answered when the gateway forwards, so that a start script can wait for it.
        if !answering && daemon.live.is_some() {
            server.register(poll.registry(), SERVER)?;
            answering = true;
        }
        if ticked.elapsed() >= pace {
            ticked = Instant::now();
            daemon.tick();
        }
    }
}

/// XDP holds records of other epochs for stale from now on.
fn begin_epoch(control: &ControlBlock, epoch: u32) {
    if control.epoch.load(Ordering::Relaxed) != epoch {
        control.epoch_since.store(Nanos(sys::now()).tick().0, Ordering::Relaxed);
        control.epoch.store(epoch, Ordering::Release);
    }
}

fn signal_stream(poll: &Poll, token: Token, signals: &[i32]) -> Result<MioStream> {
    let (read, write) = UnixStream::pair().context("cannot make a signal pipe")?;
    read.set_nonblocking(true)?;
    for &s in signals {
        signal_hook::low_level::pipe::register(s, write.try_clone()?).context("cannot catch a signal")?;
    }
    let mut read = MioStream::from_std(read);
    poll.registry().register(&mut read, token, Interest::READABLE)?;
    Ok(read)
}

/// Reads all that waits; true if there was something.
fn drained(s: &mut MioStream) -> bool {
    let mut buf = [0u8; 64];
    let mut any = false;
    while matches!(s.read(&mut buf), Ok(n) if n > 0) {
        any = true;
    }
    any
}

impl Daemon {
    /// Once every socket is there (or two seconds have passed), XDP follows this daemon's epoch: from
    /// now on flows of an earlier one come to the workers, which are there to judge them.
    fn go_live(&mut self) {
        match self.live {
            None if self.devices.values().all(Device::ready)
                || self.started.elapsed() > Duration::from_secs(2) =>
            {
                let control = self.gateway.control();
                control.nexthops_from.store(self.compiler.nexthops.first(), Ordering::Relaxed);
                begin_epoch(control, self.epoch);
                control.fast_path.store(u32::from(self.config.dataplane.fast_path), Ordering::Release);
                self.live = Some(Instant::now());
                self.leave_predecessors();
                tracing::info!(epoch = self.epoch, workers = self.workers.len(), "forwarding");
            }
            Some(since) if since.elapsed() > PREDECESSOR => self.compiler.nexthops.forget_predecessor(),
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.hear_workers();
        self.go_live();
        self.kernel_changed();
        self.epochs.step_workers(&self.grace, self.workers.iter().map(|w| &*w.shared));
        // To wait for XDP takes milliseconds, in which a flood would fill the index that is to be left.
        if self.resizers.0.idle() && self.resizers.1.idle() {
            self.epochs.step(&self.grace, self.workers.iter().map(|w| &*w.shared));
        }
        self.resize_indexes();
        self.tables.v4.release(&mut self.flushed4);
        self.tables.v6.release(&mut self.flushed6);
        self.retry_devices();
        self.look_for_floods();
        if self.listened.elapsed() >= LISTEN {
            self.listened = Instant::now();
            self.keep_own_ports();
        }
        if self.probed.elapsed() >= PROBE {
            self.probed = Instant::now();
            self.probe_neighbors();
        }
        for w in &mut self.workers {
            let elapsed = w.busy.0.elapsed();
            if elapsed >= Duration::from_secs(1) {
                let busy = w.shared.counters.busy_ns.get();
                let share = (busy - w.busy.1) as f64 / elapsed.as_nanos() as f64;
                w.busy = (Instant::now(), busy, (share * 100.0).clamp(0.0, 100.0));
            }
        }
        self.tend_maps();
        self.keep_meters();
        self.keep_tunnels();
        if self.published.elapsed() >= PUBLISH {
            self.published = Instant::now();
            self.publish_metrics();
        }
    }

    /// As large as the live sessions want them.
    fn resize_indexes(&mut self) {
        let control = self.gateway.control();
        let switch = |what: &str, word: &AtomicU64, to: Geometry| {
            word.store(to.to_word(), Ordering::Release);
            tracing::debug!(buckets = to.buckets(), "another index of the {what} table");
        };
        self.resizers.0.step(&self.tables.v4, |to| switch("IPv4", &control.index4, to));
        self.resizers.1.step(&self.tables.v6, |to| switch("IPv6", &control.index6, to));
    }

    /// The time between two looks at everything; short while one step waits for the one before.
    fn pace(&self) -> Duration {
        if self.resizers.0.idle() && self.resizers.1.idle() { TICK } else { TICK_RESIZING }
    }

    /// Takes the kernel's changes in and passes on what they mean.
    fn kernel_changed(&mut self) {
        let changes = match self.mirror.poll() {
            Ok(c) => c,
            Err(error) => {
                tracing::error!(%error, "cannot follow the kernel's tables; trying again");
                return;
            }
        };
        if !changes.any() {
            return;
        }
        if changes.resynced {
            tracing::warn!("kernel notifications were lost; all tables were read anew");
        }
        let neighbors_only = !changes.links && !changes.addrs && !changes.routes;
        if neighbors_only && !self.concerns_us(&changes) {
            return;
        }
        if neighbors_only {
            let known = self.compiler.nexthops.map().len();
            self.compiler.nexthops.refresh(&self.config, self.mirror.tables(), &self.bindings);
            if self.compiler.nexthops.map().len() == known {
                // The records are shared: packets that wait need no new snapshot, only a call.
                self.workers.iter().for_each(WorkerHandle::kick);
                return;
            }
        }
        let stale = self.flows_to_resolve(&changes);
        self.recompile(self.epoch);
        if !stale.is_empty() {
            let n = self.compiler.nexthops.bump(|port, ip| stale.iter().any(|s| s.covers(port, ip)));
            tracing::debug!(nexthops = n, "flows resolve their route anew");
        }
        // A port that has lost its last address takes DHCP offers, and one that has got one does not any more.
        if changes.links || changes.addrs {
            self.reconcile();
        }
    }

    /// NAT lends no port of the gateway's own addresses on which the gateway itself listens.
    fn keep_own_ports(&mut self) {
        if self.snapshot.nat.externals.is_empty() {
            return;
        }
        let now = listeners::Listeners::now();
        let news = now != self.listeners;
        for pool in self.tables.nat.pools() {
            let local = self.snapshot.local.contains(&pool.addr().into());
            pool.reserve(if local { &now.0 } else { &[] });
            if news && local {
                for port in now.udp_ports_of(&pool.forwarded()) {
                    tracing::warn!(
                        addr = %pool.addr(), port,
                        "a UDP socket of the gateway has a port that a [[dnat]] entry forwards: the socket gets the packets"
                    );
                }
            }
        }
        self.listeners = now;
    }

    fn concerns_us(&self, changes: &Changes) -> bool {
        let ours = |ifindex| self.bindings.iter().any(|b| b.ours() && b.l3_ifindex == Some(ifindex));
        changes.neighbors.iter().any(|(ifindex, _)| ours(*ifindex))
    }

    /// Compiles and publishes the world under an epoch. If NAT's own addresses have changed (DHCP),
    /// it is a new one: sessions that were translated to an old address begin anew.
    fn recompile(&mut self, epoch: u32) {
        let moment = Moment::at(Nanos(sys::now()));
        // Other policies match from now on: flows are classified anew.
        let windows = epoch == self.epoch && self.compiler.qos.is_due(&self.config, moment.wall);
        let epoch = if windows { next_epoch(epoch) } else { epoch };
        let mut compiled = self.compiler.compile(&self.config, self.mirror.tables(), epoch, moment);
        if epoch == self.epoch && !compiled.snapshot.nat.same_addresses(&self.snapshot.nat) {
            compiled.snapshot.epoch = next_epoch(epoch);
            tracing::info!(epoch = compiled.snapshot.epoch, "NAT addresses have changed");
        }
        self.publish(compiled);
    }

    fn publish(&mut self, compiled: Compiled) {
        let Compiled { snapshot, bindings, routes } = compiled;
        let addresses_changed =
            snapshot.local != self.snapshot.local || !snapshot.nat.same_externals(&self.snapshot.nat);
        let addresses_changed = addresses_changed || !snapshot.tunnels.same_ends(&self.snapshot.tunnels);
        self.snapshot = Arc::new(snapshot);
        self.bindings = bindings;
        self.routes = routes;
        self.publish_tunnels(addresses_changed);
        if addresses_changed {
            self.publish_addresses();
        }
        for w in &self.workers {
            w.send(ToWorker::Snapshot(self.snapshot.clone()));
        }
        start::settle(self.gateway.control(), &self.config.dataplane);
        if self.live.is_some() {
            let control = self.gateway.control();
            control.fast_path.store(u32::from(self.config.dataplane.fast_path), Ordering::Release);
            begin_epoch(control, self.snapshot.epoch);
        }
        self.epoch = self.snapshot.epoch;
    }

    /// XDP's view of the gateway's own addresses; true if it lacked one.
    fn publish_addresses(&self) -> bool {
        use std::net::IpAddr;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let ends = self.snapshot.tunnels.iter().filter_map(|t| match t.local {
            IpAddr::V6(a) => Some(a),
            IpAddr::V4(_) => None,
        });
        let ends: Vec<_> = ends.collect();
        // Inside tunnels a worker answers for the gateway.
        let outside = |a: &&IpAddr| !self.snapshot.tunnels.owns(**a);
        for a in self.snapshot.local.iter().filter(outside) {
            match a {
                IpAddr::V4(addr) => {
                    let external = self.snapshot.nat.externals.get(&addr.to_bits());
                    let pool = external.and_then(|_| self.tables.nat.pool_of(*addr));
                    let any = external.is_some_and(|e| e.internet.has_any() || e.intranet.has_any());
                    let tunnel = self.snapshot.tunnels.end_at((*addr).into());
                    v4.push(LocalAddr { addr: *addr, nat_slot: pool.map(|p| p.no), any, tunnel });
                }
                IpAddr::V6(a) => v6.push(*a),
            }
        }
        let mut lacked = false;
        for done in [self.gateway.replace_local4(&v4), self.gateway.replace_local6(&v6, &ends)] {
            match done {
                Ok(new) => lacked |= new,
                Err(error) => tracing::error!(%error, "cannot tell XDP the gateway's own addresses"),
            }
        }
        lacked
    }

    fn hear_workers(&mut self) {
        while let Ok(message) = self.events.try_recv() {
            match message {
                FromWorker::Opened { dev, queue, socket, binding } => {
                    self.socket_opened(dev, queue, socket, binding);
                }
                FromWorker::Failed { dev, queue, error, final_word } => {
                    self.socket_failed(dev, queue, error, final_word);
                }
                FromWorker::Gone { worker, dev, queue, error } => {
                    tracing::warn!(worker, dev, queue, %error, "socket stopped working");
                    self.socket_gone(dev, error);
                }
                FromWorker::Resolve(wanted) => self.resolve(&wanted),
            }
        }
    }

    /// Replaces the running configuration, whole or not at all.
    fn apply(&mut self, text: String, name: &str) -> Result<(bool, Vec<String>)> {
        let mut checked = config::parse(&text, name).map_err(|e| anyhow!("{e}"))?;
        checked.config.keep_numbers(|p| self.config.port_by_name(&p.name));
        let mut warnings: Vec<String> = checked.warnings.iter().map(|w| w.to_string()).collect();
        let fixed = self.config.needs_restart(&checked.config);
        warnings.extend(fixed.iter().map(|key| format!("{key} changes with the next start of the daemon")));
        let changed = checked.config != self.config;
        self.config = checked.config;
        start::guard_keys(&self.config);
        self.text = text;
        self.source = name.to_owned();
        self.applied = SystemTime::now();
        self.warnings = warnings.clone();
        self.findings = None;
        self.recompile(next_epoch(self.epoch));
        self.reconcile();
        self.journal.write_to(self.config.nat.log_file.clone());
        start::keep_last_good(&self.config, &self.text);
        Ok((changed, warnings))
    }

    /// Ends the daemon. Traffic goes on by XDP unless everything is to be removed.
    fn stop(mut self, detach: bool) -> Result<()> {
        tracing::info!(detach, "ending");
        for w in &self.workers {
            w.send(ToWorker::Stop);
        }
        for w in &mut self.workers {
            if let Some(t) = w.thread.take()
                && t.join().is_err()
            {
                tracing::error!(worker = w.shared.id, "the worker had panicked");
            }
        }
        self.close_sockets();
        if detach {
            let dataplane = self.config.dataplane.clone();
            drop(self.gateway);
            start::remove(&dataplane)?;
        }
        Ok(())
    }
}
