//! Measurements of the packet path, and what they share: a gateway under load, in memory.

#![forbid(unsafe_code)]

pub mod nat;

use sag_model::flow::{FlowRecord, FlowRecord4, FlowRecord6};
use sag_model::{Nanos, PortIdx, Zone};
use sag_packet::proto::{ETH_LEN, ETHERTYPE_IPV4};
use sag_packet::rewrite::FrameMut;
use sag_packet::{NetworkLayer, parse};
use sag_pipeline::nat::{Events, NatState};
use sag_pipeline::policy::Class;
use sag_pipeline::session::{self, Ending};
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::table::{DeferredFree, FlowTable, Grace, TableMemory};
use sag_pipeline::{Emit, Frames, Pipeline, Tables, Verdict};
use sag_testkit::{Acl, DEV_LAN, DEV_WAN, Net, Pkt, Rng};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Buffers of one worker's receive ring, as AF_XDP has them.
const RING: usize = 2048;
const CHUNK: usize = 2048;
const HEADROOM: usize = 256;

/// Frames in the buffers of a ring.
pub struct Ring {
    memory: Box<[u8]>,
    /// Buffer and frame length of the batch under way.
    batch: Vec<(usize, usize)>,
    next: usize,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { memory: vec![0; RING * CHUNK].into(), batch: Vec::with_capacity(64), next: 0 }
    }
}

impl Ring {
    /// Receives a batch: copies it into the next buffers, as a driver does.
    #[inline]
    pub fn receive<'f>(&mut self, frames: impl IntoIterator<Item = &'f [u8]>) {
        self.batch.clear();
        for f in frames {
            let at = self.next * CHUNK + HEADROOM;
            self.memory[at..at + f.len()].copy_from_slice(f);
            self.batch.push((at, f.len()));
            self.next = (self.next + 1) % RING;
        }
    }
}

impl Frames for Ring {
    fn len(&self) -> usize {
        self.batch.len()
    }

    #[inline]
    fn frame(&mut self, i: usize) -> FrameMut<'_> {
        let (at, len) = self.batch[i];
        let start = at - HEADROOM;
        FrameMut::new(&mut self.memory[start..start + CHUNK], HEADROOM, len)
    }
}

/// Takes what the pipeline makes and forgets it.
pub struct Nowhere;

impl Emit for Nowhere {
    fn emit(&mut self, _: PortIdx, _: &[u8]) -> bool {
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

/// A gateway with an ACL of this many rules that traffic from LAN to WAN has to pass; the last one
/// admits it.
pub fn gateway(rules: usize) -> Net {
    with_last_rule(rules, true)
}

/// The same, whose last rule denies.
pub fn closed_gateway(rules: usize) -> Net {
    with_last_rule(rules, false)
}

fn with_last_rule(rules: usize, accept: bool) -> Net {
    let mut net = Net::branch();
    let mut acl = Acl::new(false);
    let mut d = Rng::new(1);
    for i in 1..rules {
        let class = if i % 4 == 0 { Class::InWan } else { Class::OutWan };
        let (a, b) = (d.below(256), d.below(256));
        let port = d.below(60_000);
        let rule = match i % 3 {
            0 => format!("6 192.168.{a}.0/24 100.{b}.0.0/16 * {port}-{}", port + d.below(100)),
            1 => format!("17 192.168.{a}.{b}/32 198.51.100.0/24 * {port}-{port}"),
            _ => format!("17 * 203.{a}.{b}.0/24 * *"),
        };
        acl = acl.rule(class, d.once_in(2), &rule);
    }
    if rules > 0 {
        acl = acl.rule(Class::OutWan, accept, "* * * * *").rule(Class::InWan, false, "* * * * *");
        net.acl = acl;
    }
    net
}

/// Frame of flow number `n`: 64 bytes with IPv4 (without the FCS 60), 78 with IPv6.
pub fn frame(ip: Ip, n: usize) -> Vec<u8> {
    let port = 1024 + (n / 250 % 50_000) as u16;
    let (host, far) = (2 + n % 250, n / 12_500_000);
    match ip {
        Ip::V4 => Pkt::udp(&format!("192.168.1.{host}"), &format!("198.51.100.{far}"), port, 5000),
        Ip::V6 => Pkt::udp(&format!("2001:db8:1::{host:x}:9"), &format!("2001:db8:99::{far}"), port, 5000),
    }
    .payload(18)
    .build()
}

/// The daemon's default size: 2^20 sessions of IPv4, 2^17 of IPv6, whatever is alive. Made once: a
/// table's memory is never given back.
fn tables() -> (TableMemory<FlowRecord4>, TableMemory<FlowRecord6>) {
    static V4: OnceLock<TableMemory<FlowRecord4>> = OnceLock::new();
    static V6: OnceLock<TableMemory<FlowRecord6>> = OnceLock::new();
    // For the question what a smaller table would cost.
    let sessions =
        || std::env::var("SAG_BENCH_SESSIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1 << 20);
    (*V4.get_or_init(|| TableMemory::private(sessions())), *V6.get_or_init(|| TableMemory::private(1 << 17)))
}

fn over<R: FlowRecord>(memory: TableMemory<R>) -> FlowTable<R> {
    let t = FlowTable::new(memory, 0x5EED, memory.whole(), Grace::immediate());
    t.clear();
    t
}

/// A pipeline with a gateway and traffic, one worker.
pub struct Load {
    pub pipe: Pipeline,
    pub snap: Snapshot,
    pub now: Nanos,
    /// Where frames arrive: [`DEV_LAN`], unless said otherwise.
    pub dev: u8,
    ring: Ring,
    verdicts: Vec<Verdict>,
    deferred: DeferredFree,
    events: Events,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// Like the flow tables, one for all.
fn nat_state() -> Arc<NatState> {
    static NAT: OnceLock<Arc<NatState>> = OnceLock::new();
    NAT.get_or_init(|| Arc::new(NatState::private(1 << 20))).clone()
}

impl Load {
    /// Over the tables of `tables`: waits until no other uses them.
    pub fn new(net: Net) -> Load {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
        let (v4, v6) = tables();
        let shared =
            Tables { v4: over(v4), v6: over(v6), nat: nat_state(), first_fragments: Default::default() };
        let mut load = Load::over(net, shared);
        load._turn = Some(turn);
        load
    }

    pub fn over(mut net: Net, tables: Tables) -> Load {
        net.allocate_in(tables.nat.clone());
        Load {
            pipe: Pipeline::new(Arc::new(tables), 0, 1),
            snap: net.snapshot(),
            now: Nanos::from_secs(1000),
            dev: DEV_LAN,
            ring: Ring::default(),
            verdicts: Vec::with_capacity(64),
            deferred: DeferredFree::default(),
            events: Events::default(),
            _turn: None,
        }
    }

    /// Runs one batch; the time that the pipeline took.
    #[inline]
    pub fn batch<'f>(&mut self, frames: impl IntoIterator<Item = &'f [u8]>) -> Duration {
        self.ring.receive(frames);
        // A tick of the record clock every few thousand batches, as under real load.
        self.now.0 += 5_000;
        let start = Instant::now();
        self.pipe.batch(&self.snap, self.now, self.dev, &mut self.ring, &mut self.verdicts, &mut Nowhere);
        start.elapsed()
    }

    /// The worker's housekeeping between batches; the time that it took.
    pub fn poll(&mut self) -> Duration {
        let start = Instant::now();
        self.pipe.poll(&self.snap, self.now, &mut Nowhere);
        start.elapsed()
    }

    /// Every frame of the last batch was forwarded.
    pub fn all_sent(&self) -> bool {
        self.verdicts.iter().all(|v| matches!(v, Verdict::Tx { .. }))
    }

    /// The session of a frame that arrives.
    pub fn session(&self, frame: &[u8]) -> u32 {
        let t = &self.pipe.tables.v4;
        let Ok(NetworkLayer::Ip(p)) = parse(frame, ETHERTYPE_IPV4, ETH_LEN) else { return 0 };
        let key = p.key4(if self.dev == DEV_WAN { Zone::Wan } else { Zone::Lan });
        t.find(&key, t.hash(&key)).map_or(0, |no| no.session())
    }

    /// Ends these sessions and gives back what they hold.
    pub fn end(&mut self, sessions: impl IntoIterator<Item = u32>) {
        let t = &self.pipe.tables;
        for s in sessions {
            let ending = Ending { deferred: &mut self.deferred, events: &mut self.events, nat: &t.nat };
            session::end(&t.v4, s, &self.snap, ending);
        }
        t.v4.release(&mut self.deferred);
    }
}

impl Drop for Load {
    /// The next one gets the same tables: nothing may be bound.
    fn drop(&mut self) {
        self.end(1..self.pipe.tables.v4.used());
    }
}

/// Time of so many batches, from the median batch: a batch during which the machine did something
/// else says nothing about the pipeline.
pub fn typical(iters: u64, mut batch: impl FnMut() -> Duration) -> Duration {
    let n = iters.clamp(1, 20_000);
    let mut times: Vec<Duration> = (0..n).map(|_| batch()).collect();
    let (_, median, _) = times.select_nth_unstable(n as usize / 2);
    Duration::from_nanos((median.as_nanos() as u64).saturating_mul(iters))
}

/// Cycles of the processor's nominal clock in a nanosecond, where the kernel tells it.
pub fn cycles_per_ns() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("cpu MHz"))?;
    line.rsplit(':').next()?.trim().parse::<f64>().ok().map(|mhz| mhz / 1000.0)
}

/// Flow numbers in an order that no prefetcher guesses.
pub fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut d = Rng::new(7);
    for i in (1..n).rev() {
        order.swap(i, d.below(i + 1));
    }
    order
}

/// Frames end to end, all of one length: compact, so that the sender's memory does not matter.
pub struct Frozen {
    bytes: Vec<u8>,
    len: usize,
}

impl Frozen {
    pub fn new(ip: Ip, flows: usize) -> Frozen {
        Frozen::of((0..flows).map(|n| frame(ip, n)))
    }

    /// Of these frames.
    pub fn of(frames: impl IntoIterator<Item = Vec<u8>>) -> Frozen {
        let mut bytes = Vec::new();
        let mut len = 0;
        for f in frames {
            len = f.len();
            bytes.extend(f);
        }
        Frozen { bytes, len }
    }

    #[inline]
    pub fn get(&self, n: usize) -> &[u8] {
        &self.bytes[n * self.len..(n + 1) * self.len]
    }
}
