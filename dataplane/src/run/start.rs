//! From a configuration to a running daemon, and the way back.

use super::epochs::GraceKeeper;
use super::journal::JournalKeeper;
use super::listeners::Listeners;
use super::qos::Rates;
use super::worker::{Sizes, ToWorker, Worker};
use super::{Daemon, WorkerHandle};
use crate::compile::{Compiler, Devices, Moment, NextHops, has_keys};
use crate::config_file;
use crate::server::MetricsSnapshot;
use anyhow::{Context, Result, anyhow, bail};
use mio::Waker;
use sag_bpf::{Gateway, LoadError, OpenOptions};
use sag_model::config::{Checked, Config, Dataplane, FailAction};
use sag_model::flow::{ControlBlock, FlowRecord, FlowRecord4, FlowRecord6, Geometry, next_epoch};
use sag_model::{Nanos, PortIdx};
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::NatState;
use sag_pipeline::qos::MeterTable;
use sag_pipeline::session::State;
use sag_pipeline::table::{DeferredFree, FlowTable, Grace, TableMemory};
use sag_pipeline::{Pipeline, Tables};
use sag_rtnl::Mirror;
use sag_xsk::{ChunkSize, IfName, nic, sys};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Frames that a worker keeps for each of its sockets: receive ring, transmit ring, and slack.
const FRAMES_PER_SOCKET: u32 = 4096;

pub fn logging(filter: &str) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("dataplane.log: {filter:?} is no log filter (try \"info\")"))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()) && !plain)
        .try_init()
        .map_err(|e| anyhow!("cannot start logging: {e}"))
}

/// Names everything that the machine lacks before anything is touched.
pub fn preflight(config: &Config) -> Result<()> {
    let missing = sag_bpf::preflight(&config.dataplane.pin_dir);
    for m in missing.iter().filter(|m| !m.required) {
        tracing::warn!("{}: {}; {}", m.name, m.found, m.remedy);
    }
    let required: Vec<_> = missing
        .iter()
        .filter(|m| m.required)
        .map(|m| format!("{}: {}; {}", m.name, m.found, m.remedy))
        .collect();
    if required.is_empty() {
        Ok(())
    } else {
        bail!("this machine cannot run the gateway:\n  {}", required.join("\n  "))
    }
}

fn lock_file(d: &Dataplane) -> PathBuf {
    let name = d.pin_dir.to_string_lossy().trim_matches('/').replace('/', "-");
    PathBuf::from("/run/sag").join(format!("{name}.lock"))
}

/// Memory with keys in it is not written to a core file, nor read by other processes.
pub fn guard_keys(config: &Config) {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    if !has_keys(config) {
        return;
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let done = setrlimit(Resource::Core, none).and(set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = done {
        tracing::warn!(%error, "a core file of this process would have the keys of tunnels in it");
    }
}

pub fn open(path: &Path, checked: Checked, text: String, waker: Arc<Waker>) -> Result<Daemon> {
    let warnings: Vec<String> = checked.warnings.iter().map(|w| w.to_string()).collect();
    for w in &warnings {
        tracing::warn!("{w}");
    }
    let mut config = checked.config;
    let d = &config.dataplane;
    let mirror = Mirror::open().context("cannot read the kernel's tables (netlink)")?;
    let lock = lock_file(d);
    if let Some(dir) = lock.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let options = OpenOptions {
        pin_dir: d.pin_dir.clone(),
        lock_file: lock,
        sessions4: d.flows,
        sessions6: d.flows_v6(),
    };
    let gateway = patiently(|| Gateway::open(&options))?;
    let control = gateway.control();
    let found = predecessor(&mut config, &gateway, mirror.tables());
    let d = &config.dataplane;
    let grace = Arc::new(Grace::default());
    let tables = Arc::new(tables(&gateway, d, &grace));
    let epoch = next_epoch(control.epoch.load(Ordering::Relaxed));
    settle(control, d);
    let meters = MeterTable::over(gateway.meters(), gateway.meter_groups(), gateway.passed_bytes());
    let mut compiler = Compiler::new(
        NextHops::new(gateway.nexthops(), control.nexthops_from.load(Ordering::Relaxed)),
        tables.nat.clone(),
        meters,
        false,
    );
    compiler.devices = found;
    // XDP's clock is that of the jiffies, and looked at once in each.
    compiler.qos.slack = u32::try_from(sys::coarse_resolution()).unwrap_or(u32::MAX / 2).saturating_mul(2);
    guard_keys(&config);
    compiler.tunnels.esp.begin(&config.dataplane.state_dir);
    let moment = Moment::at(Nanos(sys::now()));
    let compiled = compiler.compile(&config, mirror.tables(), epoch, moment);
    let snapshot = Arc::new(compiled.snapshot);
    let bindings = tables.nat.adopt_sessions(&tables.v4, &snapshot.nat, Nanos(sys::now()).tick().0);
    if bindings > 0 {
        tracing::info!(bindings, "NAT bindings taken over");
    }

    let base = (0..PortIdx::MAX as u8).map(|i| gateway.stats(PortIdx(i)).unwrap_or_default()).collect();
    let tunnel_base = (0..=u8::MAX).map(|no| gateway.tunnel_stats(no).unwrap_or_default()).collect();
    let (outbox, events) = crossbeam_channel::unbounded();
    let cpus = sys::allowed_cpus().context("cannot tell which cores this process may use")?;
    let queues = config
        .ports
        .iter()
        .filter(|p| p.zone().is_some())
        .filter_map(|p| IfName::new(&p.device).map(nic::queue_count))
        .filter(|&n| n > 0)
        .min()
        .unwrap_or(1);
    let wanted = d.workers.map_or(cpus.len() as u32, u32::from);
    let count = wanted.min(queues).clamp(1, 64);
    if count < wanted {
        tracing::info!(workers = count, "one worker per queue at most: fewer than {wanted}");
    }
    let devices =
        config.ports.iter().map(|p| &p.device).collect::<std::collections::BTreeSet<_>>().len() as u32;
    let per_worker = queues_per_worker(&config, count).max(devices);
    let mtu = snapshot.ports.iter().map(|p| u32::from(p.mtu)).max().unwrap_or(1500);
    let sizes = Sizes {
        frames: (per_worker * FRAMES_PER_SOCKET).next_power_of_two().min(1 << 18),
        chunk: ChunkSize::for_mtu(mtu, 128)
            .context("an interface's MTU is beyond what AF_XDP frames hold")?,
    };
    let journal = JournalKeeper::start().context("cannot start the thread of the NAT log")?;
    journal.write_to(config.nat.log_file.clone());
    if let Some(why) = gateway.injector().why_not() {
        tracing::warn!(
            "{why}; fragments and ICMP errors for the gateway's own NAT addresses do not reach it"
        );
    }
    let mut workers = Vec::new();
    for id in 0..count {
        let (to, inbox) = crossbeam_channel::unbounded();
        let (kick, ear) = UnixStream::pair().context("cannot make a pipe to a worker")?;
        ear.set_nonblocking(true)?;
        kick.set_nonblocking(true)?;
        let cpu = cpus.get(id as usize % cpus.len().max(1)).copied();
        let (tables, snap) = (tables.clone(), snapshot.clone());
        let (journal, injector) = (journal.journal.clone(), gateway.injector());
        let (outbox, waker) = (outbox.clone(), waker.clone());
        let w = Worker::new(
            id,
            count,
            cpu,
            sizes,
            tables,
            snap,
            inbox,
            outbox,
            waker,
            ear,
            journal,
            injector,
            gateway.revalidations(),
        )
        .with_context(|| format!("worker {id}"))?;
        let shared = w.shared();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || w.run())
            .context("cannot start a worker thread")?;
        workers.push(WorkerHandle { to, kick, shared, thread: Some(thread), busy: (Instant::now(), 0, 0.0) });
    }
    let mut daemon = Daemon {
        path: path.to_owned(),
        text,
        source: path.display().to_string(),
        applied: SystemTime::now(),
        warnings,
        epoch,
        started: Instant::now(),
        mirror,
        compiler,
        snapshot,
        bindings: compiled.bindings,
        routes: compiled.routes,
        listeners: Listeners::default(),
        listened: Instant::now(),
        explainer: Pipeline::new(tables.clone(), 0, 1),
        gateway,
        tables,
        grace,
        epochs: GraceKeeper::default(),
        resizers: Default::default(),
        devices: BTreeMap::new(),
        workers,
        journal,
        events,
        base,
        tunnel_base,
        closed_loss: BTreeMap::new(),
        floods: Default::default(),
        flushed4: DeferredFree::default(),
        flushed6: DeferredFree::default(),
        metrics_data: Arc::new(Mutex::new(MetricsSnapshot::default())),
        rates: Rates::default(),
        probed: Instant::now(),
        tended: Instant::now(),
        published: Instant::now(),
        findings: None,
        fatal: None,
        live: None,
        tunnels_up: Default::default(),
        config,
    };
    daemon.keep_own_ports();
    daemon.publish_tunnels(true);
    daemon.publish_addresses();
    keep_last_good(&daemon.config, &daemon.text);
    Ok(daemon)
}

/// Ports keep the numbers, and devices the slots, under which the flows of an earlier daemon know them: XDP goes
/// on by its records and counts for its ports until this one has taken over.
fn predecessor(config: &mut Config, gateway: &Gateway, tables: &sag_rtnl::Tables) -> Devices {
    let ifindex = |device: &str| tables.link_named(device).map(|l| l.ifindex);
    config.keep_numbers(|p| gateway.port_of(ifindex(&p.device)?, p.vlan).map(|(port, _)| port));
    let mut devices = Devices::default();
    for i in gateway.ports() {
        if let (Some(link), Some(slot)) = (tables.link(i), gateway.dev_of(i)) {
            devices.keep(&link.name, slot);
        }
    }
    devices
}

/// A predecessor that was killed holds its lock until the kernel has taken its sockets down.
fn patiently<T>(mut attempt: impl FnMut() -> Result<T, LoadError>) -> Result<T, LoadError> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match attempt() {
            Err(LoadError::AlreadyRunning { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

fn queues_per_worker(config: &Config, workers: u32) -> u32 {
    let mut seen = std::collections::BTreeSet::new();
    config
        .ports
        .iter()
        .filter(|p| p.zone().is_some() && seen.insert(&p.device))
        .filter_map(|p| IfName::new(&p.device).map(nic::queue_count))
        .map(|q| q.max(1).div_ceil(workers.max(1)))
        .sum()
}

/// The flow tables over the shared memory; sessions of an earlier daemon go on.
fn tables(gateway: &Gateway, d: &Dataplane, grace: &Arc<Grace>) -> Tables {
    let control = gateway.control();
    let seed = match control.seed.load(Ordering::Relaxed) {
        0 => {
            // Random per table: nobody can aim flows at one bucket.
            let seed = std::collections::hash_map::RandomState::new().build_hasher().finish() | 1;
            control.seed.store(seed, Ordering::Relaxed);
            seed
        }
        known => known,
    };
    let v4 = TableMemory { records: gateway.flows4(), sessions: d.flows, buckets: gateway.index4() };
    let v6 = TableMemory { records: gateway.flows6(), sessions: d.flows_v6(), buckets: gateway.index6() };
    let v4 = table::<FlowRecord4>("IPv4", v4, seed, &control.index4, grace);
    let v6 = table::<FlowRecord6>("IPv6", v6, seed, &control.index6, grace);
    let nat = Arc::new(NatState::new(v4.capacity(), gateway.nat_ports(), seed));
    Tables { v4, v6, nat, first_fragments: Default::default() }
}

fn table<R: FlowRecord + FlowFamily>(
    what: &str,
    mem: TableMemory<R>,
    seed: u64,
    live: &AtomicU64,
    grace: &Arc<Grace>,
) -> FlowTable<R> {
    let left = Geometry::from_word(live.load(Ordering::Relaxed));
    let known = mem.has_room_for(left);
    let index = if known { left } else { mem.smallest() };
    let table = FlowTable::new(mem, seed, index, grace.clone());
    if known {
        let tick = Nanos(sys::now()).tick().0;
        let found = table.restore(tick, |key| State::first(R::tuple(key).proto, 0));
        if found.sessions > 0 || found.discarded > 0 {
            tracing::info!(
                sessions = found.sessions,
                discarded = found.discarded,
                "{what} sessions taken over"
            );
        }
    } else {
        table.clear();
        live.store(index.to_word(), Ordering::Release);
    }
    table
}

/// Keeps the running document where the next start finds it if its source is gone.
pub fn keep_last_good(config: &Config, text: &str) {
    let dir = &config.dataplane.state_dir;
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let (new, path) = (dir.join("last-good.toml.new"), dir.join("last-good.toml"));
        write_private(&new, text)?;
        std::fs::rename(new, path)
    };
    if let Err(error) = write() {
        tracing::warn!(dir = %dir.display(), %error, "cannot keep the last good configuration");
    }
}

/// The document may hold keys: only its owner reads it.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut f = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    f.write_all(text.as_bytes())?;
    f.sync_all()
}

/// What XDP does with packets of no known flow.
pub(super) fn settle(control: &ControlBlock, d: &Dataplane) {
    let loss = match d.fail_action {
        FailAction::Drop => 1,
        FailAction::PassToKernel => 2,
    };
    control.fail_action.store(loss, Ordering::Relaxed);
    let interval = 1_000_000_000u32.checked_div(d.new_flow_rate).unwrap_or(0);
    control.guard_burst.store(FLOOD_BURST_NS.max(interval), Ordering::Relaxed);
    control.guard_interval.store(interval, Ordering::Relaxed);
    control.revalidation_credit.store(d.revalidation_credit, Ordering::Relaxed);
}

/// Worth of `new_flow_rate` that may come at once.
const FLOOD_BURST_NS: u32 = 20_000_000;

/// `sag-vcpe unload`.
pub fn unload(path: Option<&Path>) -> Result<()> {
    let dataplane = match path {
        Some(p) => config_file::load(p)?.0.config.dataplane,
        None => Dataplane::default(),
    };
    remove(&dataplane)
}

pub fn remove(d: &Dataplane) -> Result<()> {
    let lock = lock_file(d);
    if let Some(dir) = lock.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    match patiently(|| sag_bpf::unload(&d.pin_dir, &lock))? {
        true => println!("removed programs, links and maps of {}", d.pin_dir.display()),
        false => println!("nothing is loaded in {}", d.pin_dir.display()),
    }
    Ok(())
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        // An error on the way up: the threads must not outlive the daemon's memory of them.
        if self.thread.is_some() {
            self.send(ToWorker::Stop);
        }
    }
}
