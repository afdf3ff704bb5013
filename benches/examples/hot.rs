//! One case in a loop, for a profiler or a quick look: `hot established|first|denied [flows] [seconds]`.
//! Prints nanoseconds a packet of the quickest, the 10th and the 50th of 100 batches of 64.

#![forbid(unsafe_code)]

use sag_benches::*;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

fn main() {
    let mut args = std::env::args().skip(1);
    let case = args.next().unwrap_or_else(|| "established".into());
    let number = |a: Option<String>, default: u64| a.and_then(|a| a.parse().ok()).unwrap_or(default);
    let flows = number(args.next(), 10_000) as usize;
    let end = Duration::from_secs(number(args.next(), 5));
    let ip = if case.ends_with('6') { Ip::V6 } else { Ip::V4 };
    let first = case.starts_with("first");
    let frames = Frozen::new(ip, if first { flows * 4 } else { flows });
    let order = if first { (0..flows * 4).collect() } else { shuffled(flows) };
    let mut load = Load::new(if case.starts_with("denied") { closed_gateway(1000) } else { gateway(1000) });
    for chunk in order.chunks(64).filter(|_| !first) {
        load.batch(chunk.iter().map(|&n| frames.get(n)));
    }
    let mut alive = VecDeque::new();
    let mut next = order.iter().cycle();
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < end {
        let batch: Vec<usize> = (0..64).filter_map(|_| next.next().copied()).collect();
        times.push(load.batch(batch.iter().map(|&n| frames.get(n))));
        if first {
            alive.extend(batch.iter().map(|&n| load.session(frames.get(n))));
            let old = alive.len().saturating_sub(flows);
            load.end(alive.drain(..old));
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_nanos() as f64 / 64.0;
    let cycles = cycles_per_ns().map(|c| format!(" (p50 {:.0} cycles)", at(50) * c)).unwrap_or_default();
    println!(
        "{case} {flows}: min {:.1} p10 {:.1} p50 {:.1} ns/packet{cycles} over {} batches",
        at(0),
        at(10),
        at(50),
        times.len()
    );
}
