//! A million translated sessions made, refreshed and aged, on a clock of its own: `million [sessions]
//! [eim|overlap]`. Fails if anything stays bound, or if a session takes more than 256 bytes.
//!
//! Inside endpoints are 20,000, so that one address has ports for them; each talks to 50 remotes.

#![forbid(unsafe_code)]

use sag_benches::nat::{Ports, outbound, snat_default, snat_overlapping};
use sag_benches::*;

use sag_model::flow::FlowRecord4;
use sag_pipeline::Tables;
use sag_pipeline::nat::NatState;
use sag_pipeline::table::{FlowTable, Grace};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const ENDPOINTS: usize = 20_000;
/// Flows that go on while the others age out.
const LASTING: usize = 10_000;
/// Longer than the timeout of UDP.
const IDLE: Duration = Duration::from_secs(310);
const BYTES: usize = 256;

fn main() {
    let mut args = std::env::args().skip(1);
    let sessions = args.next().and_then(|a| a.parse().ok()).unwrap_or(1_000_000usize);
    let overlap = args.next().is_some_and(|a| a == "overlap");
    let frames = Frozen::of((0..sessions).map(|n| outbound(n, ENDPOINTS, Ports::Apart)));
    let before = resident();
    // Below its last 64th a table makes room for newcomers by ending the unanswered.
    let capacity = (sessions as u32).div_ceil(63) * 64;
    let tables = Tables {
        v4: FlowTable::<FlowRecord4>::private(capacity, Grace::immediate()),
        v6: FlowTable::private(1, Grace::immediate()),
        nat: Arc::new(NatState::private(capacity)),
        first_fragments: Default::default(),
    };
    let net = if overlap { snat_overlapping() } else { snat_default() };
    let mut load = Load::over(net, tables);

    let mut made = Times::default();
    for chunk in (0..sessions).collect::<Vec<_>>().chunks(64) {
        // A million a second.
        load.now.0 += 64_000;
        made.add(load.batch(chunk.iter().map(|&n| frames.get(n))));
        assert!(load.all_sent(), "every packet makes a session");
        made.total += load.poll();
    }
    let nat = load.pipe.tables.nat.clone();
    assert_eq!(load.pipe.tables.v4.live() as usize, sessions);
    println!(
        "made       {sessions} sessions in {:.2} s: {:.0} a second, {:.0} ns each with housekeeping; batches of 64: {made} ns a packet",
        made.total.as_secs_f64(),
        sessions as f64 / made.total.as_secs_f64(),
        made.total.as_nanos() as f64 / sessions as f64,
    );
    println!(
        "           {} bindings, {} hosts, {} permits, {} not noted for lack of room",
        nat.totals.bindings.load(Relaxed),
        nat.hosts().all().count(),
        nat.filter_entries().all().count(),
        nat.totals.uncounted.load(Relaxed)
    );
    let grown = resident().saturating_sub(before);
    let (all, flows) =
        (load.pipe.tables.memory() - load.pipe.tables.v6.memory(), load.pipe.tables.v4.memory());
    let each = all.div_ceil(capacity as usize);
    println!(
        "memory     {each} bytes a session of the capacity (records, index, state {}; NAT {}), {} of those alive by the process's own count",
        flows / capacity as usize,
        (all - flows) / capacity as usize,
        grown / sessions
    );
    assert!(each <= BYTES, "{each} bytes a session, {BYTES} are allowed");

    let mut refreshed = Times::default();
    for chunk in shuffled(sessions).chunks(64) {
        load.now.0 += 64_000;
        refreshed.add(load.batch(chunk.iter().map(|&n| frames.get(n))));
        refreshed.total += load.poll();
    }
    println!("refreshed  all of them, in random order: {refreshed} ns a packet");

    let mut traffic = Traffic { frames: &frames, order: shuffled(LASTING.min(sessions)), at: 0 };
    let calm = traffic.seconds(&mut load, 2, |_| false);
    println!("calm       {LASTING} flows go on, none ends\n{calm}");
    load.now = load.now + IDLE;
    // They are not idle.
    for _ in 0..traffic.order.len().div_ceil(64) {
        traffic.batch(&mut load);
    }
    let from = load.now;
    let lasting = traffic.order.len() as u32;
    let ageing = traffic.seconds(&mut load, 60, |l| l.pipe.tables.v4.live() <= lasting);
    let took = (load.now - from).as_secs_f64();
    assert_eq!(load.pipe.tables.v4.live(), lasting, "all others have ended");
    println!(
        "ageing     {} sessions end in {took:.1} s while those go on\n{ageing}",
        sessions - lasting as usize
    );

    load.now = load.now + IDLE;
    while load.pipe.tables.v4.live() > 0 {
        load.now.0 += 1_000_000;
        load.poll();
    }
    let left =
        (nat.totals.bindings.load(Relaxed), nat.hosts().all().count(), nat.filter_entries().all().count());
    assert_eq!(left, (0, 0, 0), "bindings, hosts and permits are given back");
    assert_eq!(load.pipe.counters.sessions_ended.get(), sessions as u64);
    println!("over       no session, binding, host or permit is left");
}

/// Flows that go on, half a million packets a second of them.
struct Traffic<'f> {
    frames: &'f Frozen,
    order: Vec<usize>,
    at: usize,
}

impl Traffic<'_> {
    fn batch(&mut self, load: &mut Load) -> Duration {
        let (order, frames, at) = (&self.order, self.frames, self.at);
        self.at += 64;
        let spent = load.batch((at..at + 64).map(|n| frames.get(order[n % order.len()])));
        assert!(load.all_sent());
        spent
    }

    /// Runs for so many seconds, or until it is enough.
    fn seconds(&mut self, load: &mut Load, seconds: u32, enough: impl Fn(&Load) -> bool) -> Life {
        let mut life = Life::default();
        for _ in 0..seconds * 1000 {
            if enough(load) {
                break;
            }
            let end = load.now + Duration::from_millis(1);
            for _ in 0..8 {
                life.batches.add(self.batch(load));
            }
            load.now = end;
            life.polls.add(load.poll());
        }
        life
    }
}

#[derive(Default)]
struct Life {
    batches: Times,
    polls: Times,
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let us = |t: &Times| [50.0, 99.0, 99.9, 100.0].map(|p| t.at(p).as_nanos() as f64 / 1e3);
        for (name, times) in [("batch of 64", &self.batches), ("sweep of a millisecond", &self.polls)] {
            let [p50, p99, p999, most] = us(times);
            writeln!(
                f,
                "           {name:<23} p50 {p50:6.1}  p99 {p99:6.1}  p99.9 {p999:6.1}  longest {most:6.1} µs"
            )?;
        }
        let busy = self.polls.total.as_nanos() as f64 / self.polls.list.len() as f64 / 1e6;
        write!(f, "           sweeps take {:.1} % of the time", busy * 100.0)
    }
}

#[derive(Default)]
struct Times {
    list: Vec<Duration>,
    total: Duration,
}

impl Times {
    fn add(&mut self, t: Duration) {
        self.list.push(t);
        self.total += t;
    }

    fn at(&self, percent: f64) -> Duration {
        let mut sorted = self.list.clone();
        sorted.sort_unstable();
        sorted[((sorted.len() - 1) as f64 * percent / 100.0) as usize]
    }
}

/// Quickest, 10th and 50th percentile, a packet of 64.
impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, p10, p50] = [0.0, 10.0, 50.0].map(|p| self.at(p).as_nanos() as f64 / 64.0);
        write!(f, "quickest {least:.0}, p10 {p10:.0}, p50 {p50:.0}")
    }
}

/// Bytes of memory that the process really has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0);
    pages * 4096
}
