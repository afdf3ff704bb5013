//! The worker threads, seen from the control thread.

use super::journal::Journal;
use super::tunnel_devices::{RingSender, ring};
use super::worker::{FromWorker, Shared, Sizes, ToWorker, Worker, WorkerParts};
use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender};
use mio::Waker;
use sag_bpf::Gateway;
use sag_model::config::Config;
use sag_pipeline::Tables;
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::tunnel::TunnelNo;
use sag_xsk::{ChunkSize, IfName, nic, sys};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Frames of packet memory for each socket of a worker: receive ring, transmit ring, and slack.
const FRAMES_PER_SOCKET: u32 = 4096;

/// A running worker.
pub struct WorkerHandle {
    to: Sender<ToWorker>,
    kick: UnixStream,
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    load: Load,
}

/// How busy a worker is.
#[derive(Debug)]
struct Load {
    since: Instant,
    busy_then: u64,
    /// Of the last interval.
    percent: f64,
}

impl WorkerHandle {
    pub fn send(&self, message: ToWorker) {
        if self.to.send(message).is_err() {
            tracing::error!(worker = self.shared.id, "a worker thread has ended; restart the daemon");
        }
        self.kick();
    }

    /// EndpointPair the worker's sleep.
    fn kick(&self) {
        // A full pipe means that the worker has been called already.
        let _ = (&self.kick).write(&[1]);
    }

    /// Share of the last second in which the worker was not waiting.
    pub fn busy_percent(&self) -> f64 {
        self.load.percent
    }

    fn measure_load(&mut self) {
        let elapsed = self.load.since.elapsed();
        if elapsed >= Duration::from_secs(1) {
            let busy = self.shared.counters.busy_ns.get();
            let share = (busy - self.load.busy_then) as f64 / elapsed.as_nanos() as f64;
            let percent = (share * 100.0).clamp(0.0, 100.0);
            self.load = Load { since: Instant::now(), busy_then: busy, percent };
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        // After an error at the start: the threads must not outlive the daemon's memory of them.
        if self.thread.is_some() {
            self.send(ToWorker::Stop);
        }
    }
}

/// All workers, and what they report.
pub struct Workers {
    all: Vec<WorkerHandle>,
    inbox: Receiver<FromWorker>,
    outbox: Sender<FromWorker>,
    waker: Arc<Waker>,
    /// The other ends of the workers' rings, until somebody takes them.
    rings: Vec<RingSender>,
}

/// What a worker forwards by and with.
pub struct Resources<'r> {
    pub config: &'r Config,
    pub tables: &'r Arc<Tables>,
    pub snapshot: &'r Arc<Snapshot>,
    pub gateway: &'r Gateway,
    pub journal: &'r Journal,
}

impl Workers {
    /// None yet. They wake the control thread by `waker`.
    pub fn new(waker: Arc<Waker>) -> Workers {
        let (outbox, inbox) = crossbeam_channel::unbounded();
        Workers { all: Vec::new(), inbox, outbox, waker, rings: Vec::new() }
    }

    /// Starts as many as the configuration says, at most one for each queue of the device with the fewest.
    pub fn start(&mut self, r: &Resources<'_>) -> Result<()> {
        let cpus = sys::allowed_cpus().context("cannot tell which cores this process may use")?;
        let queues = queue_counts(r.config).filter(|&n| n > 0).min().unwrap_or(1);
        let requested = r.config.dataplane.workers.map_or(cpus.len() as u32, u32::from);
        let count = requested.min(queues).clamp(1, 64);
        if count < requested {
            tracing::info!(workers = count, "one worker per queue at most: fewer than {requested}");
        }
        let sizes = sizes(r, count)?;
        for id in 0..count {
            let cpu = cpus.get(id as usize % cpus.len().max(1)).copied();
            let worker =
                self.start_one(r, (id, count), cpu, sizes).with_context(|| format!("worker {id}"))?;
            self.all.push(worker);
        }
        Ok(())
    }

    fn start_one(
        &mut self,
        r: &Resources<'_>,
        (id, count): (u32, u32),
        cpu: Option<usize>,
        sizes: Sizes,
    ) -> Result<WorkerHandle> {
        let (to, inbox) = crossbeam_channel::unbounded();
        let (kick, woken_by) = UnixStream::pair().context("cannot make a pipe to a worker")?;
        woken_by.set_nonblocking(true)?;
        kick.set_nonblocking(true)?;
        let (to_ring, from_devices) = ring(kick.try_clone()?);
        let worker = Worker::new(WorkerParts {
            id,
            count,
            cpu,
            sizes,
            tables: r.tables.clone(),
            snapshot: r.snapshot.clone(),
            inbox,
            outbox: self.outbox.clone(),
            waker: self.waker.clone(),
            kick: woken_by,
            journal: r.journal.clone(),
            injector: r.gateway.injector(),
            revalidations: r.gateway.revalidations(),
            control: r.gateway.control(),
            from_devices,
        })?;
        self.rings.push(to_ring);
        let shared = worker.shared();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || worker.run())
            .context("cannot start a worker thread")?;
        let load = Load { since: Instant::now(), busy_then: 0, percent: 0.0 };
        Ok(WorkerHandle { to, kick, shared, thread: Some(thread), load })
    }

    /// Takes the rings to all workers, by which packets of devices of tunnels go.
    pub fn take_rings(&mut self) -> Vec<RingSender> {
        std::mem::take(&mut self.rings)
    }

    /// Has all write to another device of a tunnel from now on.
    pub fn set_tunnel_device(&self, no: TunnelNo, device: Option<&Arc<File>>) {
        self.all.iter().for_each(|w| w.send(ToWorker::TunnelDevice { no, device: device.cloned() }));
    }

    pub fn count(&self) -> u32 {
        self.all.len() as u32
    }

    pub fn iter(&self) -> impl Iterator<Item = &WorkerHandle> {
        self.all.iter()
    }

    pub fn get(&self, worker: u32) -> Option<&WorkerHandle> {
        self.all.get(worker as usize)
    }

    /// What may be read of each.
    pub fn shared(&self) -> impl Iterator<Item = &Shared> + Clone {
        self.all.iter().map(|w| &*w.shared)
    }

    pub fn send_snapshot(&self, snapshot: &Arc<Snapshot>) {
        self.all.iter().for_each(|w| w.send(ToWorker::Snapshot(snapshot.clone())));
    }

    /// Has all close their sockets on a device.
    pub fn close_device(&self, dev: u8) {
        self.all.iter().for_each(|w| w.send(ToWorker::Close { dev }));
    }

    /// EndpointPair the sleep of all, so that they look at the packets that wait.
    pub fn kick(&self) {
        self.all.iter().for_each(WorkerHandle::kick);
    }

    /// The next report that a worker has sent.
    pub fn next_event(&self) -> Option<FromWorker> {
        self.inbox.try_recv().ok()
    }

    pub fn measure_load(&mut self) {
        self.all.iter_mut().for_each(WorkerHandle::measure_load);
    }

    /// Stops all and waits until they have ended.
    pub fn stop(&mut self) {
        for w in &self.all {
            w.send(ToWorker::Stop);
        }
        for w in &mut self.all {
            if let Some(t) = w.thread.take()
                && t.join().is_err()
            {
                tracing::error!(worker = w.shared.id, "the worker had panicked");
            }
        }
    }
}

/// Queues for workers of the devices of the gateway's ports, a device once for each port.
fn queue_counts(config: &Config) -> impl Iterator<Item = u32> + '_ {
    let ours = config.ports.iter().filter(|p| p.zone().is_some());
    ours.filter_map(|p| IfName::new(&p.device).map(nic::worker_queue_count))
}

/// Packet memory of each worker.
fn sizes(r: &Resources<'_>, workers: u32) -> Result<Sizes> {
    let devices = r.config.ports.iter().map(|p| &p.device).collect::<BTreeSet<_>>().len() as u32;
    let per_worker = queues_per_worker(r.config, workers).max(devices);
    let mtu = r.snapshot.ports.iter().map(|p| u32::from(p.mtu)).max().unwrap_or(1500);
    Ok(Sizes {
        frames: (per_worker * FRAMES_PER_SOCKET).next_power_of_two().min(1 << 18),
        chunk: ChunkSize::for_mtu(mtu, 128)
            .context("an interface's MTU is beyond what AF_XDP frames hold")?,
    })
}

fn queues_per_worker(config: &Config, workers: u32) -> u32 {
    let mut seen = BTreeSet::new();
    config
        .ports
        .iter()
        .filter(|p| p.zone().is_some() && seen.insert(&p.device))
        .filter_map(|p| IfName::new(&p.device).map(nic::queue_count_with_xdp))
        .map(|q| q.max(1).div_ceil(workers.max(1)))
        .sum()
}
