//! A worker thread: pinned to a core, runs to completion in batches over the AF_XDP sockets of its
//! queues. It owns its packet memory; nothing on its path is shared but the flow table and counters.

mod bulk;
mod frames;
mod requests;
mod sockets;

pub use sockets::socket_mode;

use super::journal::Journal;
use super::tunnel_devices::RingReceiver;
use bulk::BulkSender;
use crossbeam_channel::{Receiver, Sender};
use frames::{Batch, EgressSockets, ingress_of, is_revalidation};
use mio::Waker;
use requests::hand_over;
use sag_bpf::Injector;
use sag_model::flow::{ControlBlock, RevalidationQueue};
use sag_model::{DropReason, Nanos};
use sag_pipeline::counters::Counters;
use sag_pipeline::snapshot::{NeighborKey, Snapshot};
use sag_pipeline::tunnel::TunnelNo;
use sag_pipeline::worker::BATCH;
use sag_pipeline::{Emit, Pipeline, Tables, Verdict};
use sag_xsk::{Binding, BusyPoll, ChunkSize, Frame, Mode, Socket, SocketConfig, Umem, UmemConfig, sys};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Messages of the control thread to a worker.
pub enum ToWorker {
    Snapshot(Arc<Snapshot>),
    /// Open a socket; answered by [`FromWorker::Opened`] or [`FromWorker::Failed`] with the number of the request.
    Open {
        request: u64,
        dev: u8,
        device: String,
        queue: u32,
        /// How many sockets on this device the worker gets in all.
        siblings: u32,
        mode: Mode,
        busy_poll: bool,
    },
    /// The device is gone or no longer ours.
    Close {
        dev: u8,
    },
    /// What comes out of the tunnel for the machine itself is written to this device of the kernel; `None`: there is none.
    TunnelDevice {
        no: TunnelNo,
        device: Option<Arc<File>>,
    },
    Stop,
}

/// Messages of a worker to the control thread.
#[derive(Debug)]
pub enum FromWorker {
    Opened {
        request: u64,
        dev: u8,
        queue: u32,
        socket: OwnedFd,
        binding: Binding,
    },
    /// `permanent`: the same attempt can never succeed.
    Failed {
        request: u64,
        dev: u8,
        queue: u32,
        error: String,
        permanent: bool,
    },
    /// A socket stopped working: its device vanished or went down.
    Gone {
        worker: u32,
        request: u64,
        dev: u8,
        queue: u32,
        error: String,
    },
    /// Resolve these next hops.
    Resolve(Vec<NeighborKey>),
}

/// What others may read of a running worker.
#[derive(Debug)]
pub struct Shared {
    pub id: u32,
    pub cpu: Option<usize>,
    pub counters: Arc<Counters>,
    /// Counts rounds of the loop: once it has changed, the worker holds no reference from before.
    pub rounds: AtomicU64,
    /// In `poll`: holds no reference.
    pub asleep: AtomicBool,
    /// Frames that AF_XDP dropped before the worker saw them: ring full, or no chunk to fill.
    pub rx_lost: Box<[AtomicU64]>,
    pub free_frames: AtomicU64,
}

/// Memory sizes of a worker.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub frames: u32,
    pub chunk: ChunkSize,
}

/// After so long without a packet nothing of the last ones waits any more: fragments do for 2 s, packets whose neighbor is
/// not resolved for 3.2 s.
const QUIET: Nanos = Nanos(5_000_000_000);

pub struct Worker {
    umem: Umem,
    sockets: Vec<Queue>,
    /// The socket that sends for a device.
    by_dev: [Option<u8>; 64],
    pipeline: Pipeline,
    snapshot: Arc<Snapshot>,
    inbox: Receiver<ToWorker>,
    outbox: Sender<FromWorker>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
    kick: UnixStream,
    batch: Vec<Frame>,
    verdicts: Vec<Verdict>,
    journal: Journal,
    injector: Injector,
    bulk: BulkSender,
    revalidations: &'static [RevalidationQueue],
    control: &'static ControlBlock,
    /// What the kernel sends by devices of tunnels.
    from_devices: RingReceiver,
    /// Devices of tunnels, by number.
    tunnel_devices: Vec<Option<Arc<File>>>,
}

struct Queue {
    dev: u8,
    /// By which the control thread knows it.
    request: u64,
    /// How many sockets the worker has on the device, with those that are still to be opened.
    siblings: u32,
    /// Where XDP reads how many revalidations the worker has taken.
    revalidation: Option<&'static RevalidationQueue>,
    socket: Socket,
    /// What is sent may go by [`BulkSender`] instead.
    bulk: bool,
    broken: bool,
    lost: u64,
}

/// What a worker is made of.
pub struct WorkerParts {
    pub id: u32,
    /// How many workers there are.
    pub count: u32,
    pub cpu: Option<usize>,
    pub sizes: Sizes,
    pub tables: Arc<Tables>,
    pub snapshot: Arc<Snapshot>,
    pub inbox: Receiver<ToWorker>,
    pub outbox: Sender<FromWorker>,
    /// Wakes the control thread.
    pub waker: Arc<Waker>,
    /// Bytes in it end the worker's sleep.
    pub kick: UnixStream,
    pub journal: Journal,
    pub injector: Injector,
    pub revalidations: &'static [RevalidationQueue],
    pub control: &'static ControlBlock,
    pub from_devices: RingReceiver,
}

impl Worker {
    pub fn new(p: WorkerParts) -> anyhow::Result<Worker> {
        let umem =
            Umem::new(&UmemConfig { frames: p.sizes.frames, chunk: p.sizes.chunk, ..UmemConfig::default() })?;
        let pipeline = Pipeline::new(p.tables, p.id, p.count);
        let shared = Arc::new(Shared {
            id: p.id,
            cpu: p.cpu,
            counters: pipeline.counters.clone(),
            rounds: AtomicU64::new(0),
            asleep: AtomicBool::new(true),
            rx_lost: (0..64).map(|_| AtomicU64::new(0)).collect(),
            free_frames: AtomicU64::new(0),
        });
        Ok(Worker {
            umem,
            sockets: Vec::with_capacity(64),
            by_dev: [None; 64],
            pipeline,
            snapshot: p.snapshot,
            inbox: p.inbox,
            outbox: p.outbox,
            waker: p.waker,
            shared,
            kick: p.kick,
            batch: Vec::with_capacity(BATCH),
            verdicts: Vec::with_capacity(BATCH),
            journal: p.journal,
            injector: p.injector,
            bulk: BulkSender::default(),
            revalidations: p.revalidations,
            control: p.control,
            from_devices: p.from_devices,
            tunnel_devices: vec![None; usize::from(TunnelNo::MAX) + 1],
        })
    }

    pub fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Runs until [`ToWorker::Stop`].
    pub fn run(mut self) {
        if let Some(cpu) = self.shared.cpu
            && let Err(error) = sys::pin_to_cpu(cpu)
        {
            tracing::warn!(worker = self.shared.id, cpu, %error, "cannot pin the worker to its core");
        }
        let mut idle = 0u32;
        let mut last_stats = 0u64;
        let mut last_packet = Nanos(sys::now());
        let mut fds = Vec::with_capacity(65);
        loop {
            self.shared.rounds.fetch_add(1, Ordering::Release);
            if !self.inbox.is_empty() && !self.read_inbox() {
                break;
            }
            let now = Nanos(sys::now());
            let got = self.round(now);
            if got > 0 {
                last_packet = now;
                let spent = sys::now().saturating_sub(now.0);
                self.shared.counters.busy_ns.add(spent);
            }
            self.between_rounds(now);
            if now.0.saturating_sub(last_stats) > 100_000_000 {
                last_stats = now.0;
                self.read_stats();
            }
            idle = if got > 0 { 0 } else { idle.saturating_add(1) };
            // A few empty rounds are cheaper than going to sleep and being woken.
            if idle > 4 {
                self.sleep(&mut fds, now.saturating_sub(last_packet) >= QUIET);
            }
        }
        for q in self.sockets.drain(..) {
            q.socket.close(&mut self.umem);
        }
    }

    /// One batch from every socket. Returns the number of packets.
    fn round(&mut self, now: Nanos) -> usize {
        let mut got = self.send_from_devices(now);
        for i in 0..self.sockets.len() {
            let Some(q) = self.sockets.get_mut(i) else { break };
            q.socket.complete(&mut self.umem);
            if q.broken {
                continue;
            }
            q.socket.refill(&mut self.umem);
            if let Err(error) = q.socket.wake_if_needed() {
                self.report_gone(i, error.to_string());
                continue;
            }
            let Some(q) = self.sockets.get_mut(i) else { break };
            let dev = q.dev;
            let n = q.socket.rx(&mut self.umem, &mut self.batch, BATCH);
            if n == 0 {
                continue;
            }
            got += n;
            if let Some(queue) = q.revalidation {
                let revalidating = self.batch.iter().filter(|f| is_revalidation(f)).count();
                if revalidating > 0 {
                    queue.taken.fetch_add(revalidating as u32, Ordering::Relaxed);
                }
            }
            self.process(now, dev);
        }
        got
    }

    /// Sends what the kernel has given to devices of tunnels. Returns the number of packets.
    fn send_from_devices(&mut self, now: Nanos) -> usize {
        let mut got = 0;
        while got < BATCH
            && let Some(mut packet) = self.from_devices.next()
        {
            let mut emit = EgressSockets {
                umem: &mut self.umem,
                sockets: &mut self.sockets,
                by_dev: &self.by_dev,
                snap: &self.snapshot,
                injector: &self.injector,
                tunnel_devices: &self.tunnel_devices,
            };
            let at = (&mut packet.buf[..], packet.len);
            self.pipeline.send_from_device(&self.snapshot, now, packet.tunnel, at, &mut emit);
            self.from_devices.give_back(packet);
            got += 1;
        }
        if got > 0 {
            self.flush();
        }
        got
    }

    fn process(&mut self, now: Nanos, dev: u8) {
        let mut emit = EgressSockets {
            umem: &mut self.umem,
            sockets: &mut self.sockets,
            by_dev: &self.by_dev,
            snap: &self.snapshot,
            injector: &self.injector,
            tunnel_devices: &self.tunnel_devices,
        };
        let mut frames = Batch(&mut self.batch);
        self.pipeline.batch(&self.snapshot, now, dev, &mut frames, &mut self.verdicts, &mut emit);
        // Before the first packet of a flow is sent: the next ones may be XDP's.
        if self.pipeline.take_partial_checksums() {
            self.control.look_for_partial_checksums();
        }
        let bulk = self.bulk.is_worth_it(self.batch.len());
        for (i, (frame, verdict)) in self.batch.drain(..).zip(&self.verdicts).enumerate() {
            let ingress =
                || self.pipeline.ingress(i).unwrap_or_else(|| ingress_of(&self.snapshot, dev, &frame));
            match *verdict {
                Verdict::Tx { port, start, len } => {
                    let ingress = ingress();
                    let sent = match emit.bulk_device(port).filter(|_| bulk) {
                        Some(device) => {
                            self.bulk.send(&mut emit, device, (ingress, port), frame, (start, len))
                        }
                        None => emit.send(port, frame, start, len),
                    };
                    if let Err((frame, reason)) = sent {
                        self.pipeline.untransmit(ingress, port, len, reason);
                        emit.umem.release(frame);
                    }
                }
                Verdict::Kernel => {
                    // XDP gives the kernel its packets before they get here, but for those that
                    // could have been a NAT session's.
                    if !emit.to_kernel(dev, frame.bytes()) {
                        let ingress = ingress();
                        self.pipeline.counters.port(ingress).to_kernel.sub(1);
                        self.pipeline.counters.count_drop(ingress, DropReason::NoKernelPath);
                    }
                    emit.umem.release(frame);
                }
                Verdict::Drop(_) | Verdict::Held | Verdict::Emitted => emit.umem.release(frame),
            }
        }
        // What the pipeline has emitted goes before the frames of the batch.
        self.flush();
        self.flush_bulk();
    }

    fn flush(&mut self) {
        for i in 0..self.sockets.len() {
            let Some(q) = self.sockets.get_mut(i) else { break };
            if q.broken {
                continue;
            }
            if let Err(error) = q.socket.flush() {
                self.report_gone(i, error.to_string());
            }
        }
    }

    /// Work between rounds: held packets, ageing, requests for neighbours.
    fn between_rounds(&mut self, now: Nanos) {
        let mut emit = EgressSockets {
            umem: &mut self.umem,
            sockets: &mut self.sockets,
            by_dev: &self.by_dev,
            snap: &self.snapshot,
            injector: &self.injector,
            tunnel_devices: &self.tunnel_devices,
        };
        self.pipeline.poll(&self.snapshot, now, &mut emit);
        self.flush();
        if self.pipeline.take_tunnels_changed() || self.pipeline.table_rings() {
            self.wake_control();
        }
        if !self.pipeline.events().is_empty() {
            self.journal.take(self.pipeline.events());
        }
        if hand_over(&self.outbox, || self.pipeline.take_requests().collect()) {
            self.wake_control();
        }
    }

    fn wake_control(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the control thread");
        }
    }

    fn report_gone(&mut self, i: usize, error: String) {
        let Some(q) = self.sockets.get_mut(i) else { return };
        if q.broken {
            return;
        }
        q.broken = true;
        let (worker, queue) = (self.shared.id, q.socket.queue());
        let gone = FromWorker::Gone { worker, request: q.request, dev: q.dev, queue, error };
        if self.outbox.send(gone).is_ok() {
            self.wake_control();
        }
    }

    /// False: stop.
    fn read_inbox(&mut self) -> bool {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                ToWorker::Snapshot(s) => self.snapshot = s,
                ToWorker::Open { request, dev, device, queue, siblings, mode, busy_poll } => {
                    let config = SocketConfig {
                        mode,
                        busy_poll: busy_poll.then_some(BusyPoll { microseconds: 20, budget: BATCH as u16 }),
                        ..SocketConfig::new(&device, queue)
                    };
                    let answer = self.open(request, (dev, siblings), &config);
                    if self.outbox.send(answer).is_ok() {
                        self.wake_control();
                    }
                }
                ToWorker::Close { dev } => self.close(dev),
                ToWorker::TunnelDevice { no, device } => self.tunnel_devices[no.index()] = device,
                ToWorker::Stop => return false,
            }
        }
        true
    }

    fn read_stats(&mut self) {
        for q in &mut self.sockets {
            if let Ok(s) = q.socket.stats() {
                // A fill ring without chunks shows in `rx_dropped`.
                let lost = s.rx_dropped + s.rx_ring_full;
                if let Some(total) = self.shared.rx_lost.get(usize::from(q.dev)) {
                    total.fetch_add(lost.saturating_sub(q.lost), Ordering::Relaxed);
                }
                q.lost = lost;
            }
        }
        self.umem.reclaim(sys::now());
        self.shared.free_frames.store(self.umem.free_count() as u64, Ordering::Relaxed);
    }

    /// Sleeps until a packet, a message or a few milliseconds; `quiet`: longer where no timer runs, as each wake-up costs an
    /// idle machine processor time.
    fn sleep(&mut self, fds: &mut Vec<sys::PollFd>, quiet: bool) {
        use std::os::fd::AsFd;
        fds.clear();
        fds.push(sys::readable(self.kick.as_fd()));
        fds.extend(self.sockets.iter().filter(|q| !q.broken).map(|q| sys::readable(q.socket.fd())));
        self.shared.asleep.store(true, Ordering::SeqCst);
        let waiting = self.sockets.iter().any(|q| q.socket.in_flight() > 0);
        let timeout_ms = match quiet && !self.pipeline.awaits_timers(&self.snapshot) {
            _ if waiting || self.pipeline.holds() => 1,
            true => 100,
            false => 20,
        };
        if let Err(error) = sys::poll(fds, timeout_ms)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            tracing::error!(worker = self.shared.id, %error, "poll failed");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        self.shared.asleep.store(false, Ordering::SeqCst);
        // However many bytes there are, they mean one look at the inbox.
        let mut byte = [0u8; 64];
        while matches!((&self.kick).read(&mut byte), Ok(n) if n == byte.len()) {}
    }
}
