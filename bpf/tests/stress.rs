//! XDP, a writer and readers at the same flow table at once: sessions come and go, the epoch and the
//! next hop's generation move on, and no packet ever leaves with another flow's translation. Every
//! packet carries its flow's number, and what leaves is checked against it, checksums included.
//!
//! `SAG_STRESS_SECONDS` says for how long (15), `SAG_SEED` where the rng begin.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::TestFrame;
use sag_model::Zone;
use sag_model::flow::*;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::table::{DeferredFree, FlowTable, Grace, Resizer, TableMemory, index_buckets};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

const FLOWS: u32 = 600;
/// Fewer than flows, so that a record changes hands often.
const SESSIONS: u32 = 400;
const NEXTHOP: u16 = 4;
const FAR: [u8; 4] = [198, 51, 100, 7];
const OUTSIDE: [u8; 4] = [203, 0, 113, 1];

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }
}

/// What flow `n` is: inside address and port, and the port that it has outside.
fn flow(n: u32) -> ([u8; 4], u16, u16) {
    let [.., a, b] = n.to_be_bytes();
    ([10, 0, a, b], 1000 + (n * 7 % 9000) as u16, 20_000 + n as u16)
}

fn key(src: [u8; 4], sport: u16) -> Key4 {
    Key4 {
        addrs: u64::from(u32::from_le_bytes(src)) | u64::from(u32::from_le_bytes(FAR)) << 32,
        l4: l4_word(sport.to_be(), 53u16.to_be(), 17, Zone::Lan),
    }
}

fn keys(n: u32) -> (Key4, Key4) {
    let (src, sport, outside) = flow(n);
    (key(src, sport), key(OUTSIDE, outside))
}

fn frame(n: u32) -> Vec<u8> {
    let (src, sport, _) = flow(n);
    v4(src, FAR, 17, udp(sport, 53, &[n.to_be_bytes(), (!n).to_be_bytes()].concat())).frame(None)
}

/// What flow `n`'s packet is after translation, whoever sends it.
fn translated(n: u32) -> Vec<u8> {
    let (_, _, outside) = flow(n);
    let mut p = v4(OUTSIDE, FAR, 17, udp(outside, 53, &[n.to_be_bytes(), (!n).to_be_bytes()].concat()));
    p.ttl -= 1;
    let mut f = p.frame(None);
    f[..6].copy_from_slice(&NEXT_MAC.0);
    f[6..12].copy_from_slice(&OUT_MAC.0);
    f
}

/// What all threads share.
struct World {
    f: Fixture,
    table: FlowTable<FlowRecord4>,
    grace: Arc<Grace>,
    end: AtomicBool,
    generation: AtomicU32,
    /// Looks of the reader, so that nothing is reused while it may hold it.
    looks: AtomicU64,
}

impl World {
    fn action(&self) -> Action {
        Action {
            nexthop: NEXTHOP,
            meter: 0,
            act: FlowAct::Forward,
            flags: FLOW_SNAT,
            tunnel: 0,
            nh_gen: self.generation.load(Relaxed) as u8,
        }
    }

    /// As a worker makes a session.
    fn create(&self, n: u32, deferred: &mut DeferredFree) -> Option<RecordNo> {
        let (k, new) = keys(n);
        let reverse = FlowRecord4::reverse(&new, Zone::Wan);
        let epoch = self.f.gw.control().epoch.load(Relaxed);
        let made = self.table.create(&k, &reverse, deferred, |fwd, rev, meta| {
            fwd.set_translation(&k, &new);
            rev.set_translation(&reverse, &FlowRecord4::reverse(&k, Zone::Wan));
            fwd.action.store(self.action().to_word(), Relaxed);
            rev.action.store(Action::PUNT.to_word(), Relaxed);
            fwd.epoch.store(epoch, Relaxed);
            rev.epoch.store(epoch, Relaxed);
            meta.state.store(1, Release);
        });
        made.ok()
    }
}

/// Makes, renews and removes sessions, and moves epoch and next hop on.
fn write(w: &World, seed: u64) -> [u64; 5] {
    let (mut rng, mut deferred) = (Rng(seed), DeferredFree::default());
    let mut live: Vec<Option<RecordNo>> = vec![None; FLOWS as usize];
    let [mut made, mut full, mut removed, mut epochs, mut switches] = [0; 5];
    let mut resizer = Resizer::default();
    let (mut round, mut grace_at, mut resting) = (0u64, u64::MAX, 0);
    while !w.end.load(Relaxed) {
        round += 1;
        let n = rng.below(FLOWS);
        let slot = &mut live[n as usize];
        match (*slot, rng.below(16)) {
            (None, _) => match w.create(n, &mut deferred) {
                Some(no) => {
                    made += 1;
                    *slot = Some(no);
                }
                None => full += 1,
            },
            // Some stay, so that packets have flows to follow while others rest.
            (Some(no), 0) if resting < SESSIONS / 4 => {
                resting += 1;
                assert!(w.table.remove(no.session(), &mut deferred));
                removed += 1;
                *slot = None;
            }
            (Some(no), _) => {
                let r = w.table.record(no);
                r.action.store(w.action().to_word(), Relaxed);
                r.epoch.store(w.f.gw.control().epoch.load(Relaxed), Release);
            }
        }
        if round % 4096 == 0 {
            let epoch = &w.f.gw.control().epoch;
            epoch.store(epoch.load(Relaxed) + 1, Release);
            epochs += 1;
        }
        if round % 65536 == 0 {
            let next = (w.generation.load(Relaxed) + 1) & 0xFF;
            w.f.nexthop(NEXTHOP, 0, 1500, next as u8, NH_VALID);
            w.generation.store(next, Relaxed);
        }
        // Grace periods, as the daemon runs them.
        let looks = w.looks.load(SeqCst);
        if grace_at == u64::MAX {
            w.grace.started.fetch_add(1, SeqCst);
            w.grace.workers_started.fetch_add(1, SeqCst);
            grace_at = looks;
        } else if looks > grace_at + 1 && rcu() {
            w.grace.done.store(w.grace.started.load(SeqCst), SeqCst);
            w.grace.workers_done.store(w.grace.workers_started.load(SeqCst), SeqCst);
            (grace_at, resting) = (u64::MAX, 0);
        }
        // To and fro between two sizes.
        if resizer.idle() {
            let all = index_buckets(SESSIONS);
            let now = w.table.geometry().buckets();
            resizer.begin(&w.table, Geometry::sized(if now == all { all / 2 } else { all }));
        }
        resizer.step(&w.table, |to| {
            w.f.gw.control().index4.store(to.to_word(), Release);
            switches += 1;
        });
    }
    [made, full, removed, epochs, switches]
}

/// All XDP runs that have begun are over when this returns.
#[allow(unsafe_code)]
fn rcu() -> bool {
    // SAFETY: takes integers only (MEMBARRIER_CMD_GLOBAL).
    unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) == 0 }
}

/// Finds flows and looks whether what their records say is theirs.
fn read(w: &World, seed: u64) -> u64 {
    let (mut rng, mut found) = (Rng(seed), 0);
    while !w.end.load(Relaxed) {
        let n = rng.below(FLOWS);
        let (k, new) = keys(n);
        if let Some(no) = w.table.find(&k, w.table.hash(&k)) {
            let r = w.table.record(no);
            let (seen, act) = (r.translated(), Action::from_word(r.action.load(Acquire)));
            // The key was this flow's when it was found; nobody reuses the record before the next look.
            assert!(r.matches(&k), "flow {n}: record {no:?} is another's");
            assert_eq!((seen, act.nexthop), (new, NEXTHOP), "flow {n} at {no:?}");
            found += 1;
        }
        w.looks.fetch_add(1, SeqCst);
    }
    found
}

/// Sends packets of all flows: (forwarded, left to a worker).
fn send(w: &World, seed: u64) -> (u64, u64) {
    let mut rng = Rng(seed);
    let packets: Vec<_> = (0..FLOWS).map(|n| (frame(n), translated(n))).collect();
    let [mut forwarded, mut punted] = [0; 2];
    while !w.end.load(Relaxed) {
        let n = rng.below(FLOWS);
        let (before, after) = &packets[n as usize];
        let run = w.f.gw.test_run(TestFrame { bytes: before, ifindex: 0, queue: 0 }).unwrap();
        assert_eq!(run.action, XDP_REDIRECT, "flow {n}");
        if run.frame == *before {
            assert!(run.note.is_some(), "flow {n}: neither forwarded nor noted");
            punted += 1;
        } else {
            assert_eq!(run.frame, *after, "flow {n} left with something else");
            forwarded += 1;
        }
    }
    (forwarded, punted)
}

#[test]
fn no_packet_leaves_with_another_flows_translation() {
    let Some(fs) = root() else { return };
    let options = sag_bpf::OpenOptions { sessions4: SESSIONS, ..fs.options() };
    let gw = sag_bpf::Gateway::open(&options).expect("open");
    gw.set_port(LO, &port_entry()).unwrap();
    gw.set_dev(0, LO).unwrap();
    let socket = af_xdp_socket();
    gw.set_xsk(0, 0, std::os::fd::AsFd::as_fd(&socket)).unwrap();
    let f = Fixture { gw, socket, fs };
    let seed = env("SAG_SEED", std::process::id().into());
    let grace = Arc::new(Grace::default());
    let buckets = index_buckets(SESSIONS);
    let c = f.gw.control();
    c.seed.store(seed, Relaxed);
    c.epoch.store(7, Relaxed);
    c.index4.store(Geometry::sized(buckets).to_word(), Relaxed);
    c.fail_action.store(1, Relaxed);
    c.fast_path.store(1, Relaxed);
    f.nexthop(NEXTHOP, 0, 1500, 1, NH_VALID);
    let memory = TableMemory {
        records: f.gw.flows4(),
        sessions: SESSIONS,
        buckets: f.gw.index4(),
        sequences: f.gw.sequences4(),
    };
    let table = FlowTable::new(memory, seed, Geometry::sized(buckets), grace.clone());
    let w = World {
        f,
        table,
        grace,
        end: AtomicBool::new(false),
        generation: AtomicU32::new(1),
        looks: AtomicU64::new(0),
    };
    let seconds = env("SAG_STRESS_SECONDS", 15);
    println!("SAG_SEED={seed} SAG_STRESS_SECONDS={seconds}");
    std::thread::scope(|s| {
        let threads = (
            s.spawn(|| write(&w, seed)),
            s.spawn(|| read(&w, seed ^ 1)),
            s.spawn(|| send(&w, seed ^ 2)),
            s.spawn(|| send(&w, seed ^ 3)),
        );
        let until = Instant::now() + Duration::from_secs(seconds);
        // A thread that has found something ends by a panic: then all end.
        while Instant::now() < until
            && !(threads.0.is_finished()
                || threads.1.is_finished()
                || threads.2.is_finished()
                || threads.3.is_finished())
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        w.end.store(true, Relaxed);
        let [made, full, removed, epochs, switches] = threads.0.join().expect("the writer");
        let found = threads.1.join().expect("the reader");
        let sent = [threads.2.join().expect("sender 1"), threads.3.join().expect("sender 2")];
        let (forwarded, punted) = (sent[0].0 + sent[1].0, sent[0].1 + sent[1].1);
        println!(
            "{made} sessions made, {removed} removed, {full} times none free, {epochs} epochs, \
             {switches} changes of the index, {found} looks, {forwarded} packets forwarded, {punted} left to a worker"
        );
        assert!(made > 1000 && removed > 1000 && epochs > 10 && switches > 10 && found > 1000);
        assert!(forwarded > 1000 && punted > 1000);
    });
}
