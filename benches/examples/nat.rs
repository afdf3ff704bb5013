//! All cases of NAT, and the same without, in turns: `nat [rounds] [milliseconds a case] [word of the
//! case's name]`. Prints the quickest batch of all rounds and the medians over the rounds of their 10th
//! and 50th percentile, in nanoseconds a packet; cycles by the processor's nominal clock.

#![forbid(unsafe_code)]

use sag_benches::nat::CASES;
use std::time::{Duration, Instant};

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (rounds, span) = (number(5), Duration::from_millis(number(300)));
    let word = args.next().unwrap_or_default();
    let cases: Vec<_> = CASES.into_iter().filter(|c| c.name.contains(&word)).collect();
    let mut found: Vec<[Vec<f64>; 3]> = cases.iter().map(|_| Default::default()).collect();
    for round in 1..=rounds {
        for (case, found) in cases.iter().zip(&mut found) {
            let mut run = case.start();
            let end = Instant::now() + span;
            let mut times = Vec::with_capacity(100_000);
            while Instant::now() < end {
                times.push(run.batch());
            }
            times.sort_unstable();
            for (f, percent) in found.iter_mut().zip([0, 10, 50]) {
                f.push(times[times.len() * percent / 100].as_nanos() as f64 / 64.0);
            }
        }
        eprintln!("round {round} of {rounds}");
    }
    let cycles = sag_benches::cycles_per_ns();
    println!("{:<52} quickest   p10    p50  ns/packet{}", "case", cycles.map_or("", |_| "   p50 cycles"));
    for (case, [quickest, p10, p50]) in cases.iter().zip(&mut found) {
        let least = quickest.iter().copied().fold(f64::MAX, f64::min);
        let p50 = median(p50);
        let cycles = cycles.map(|c| format!("             {:6.0}", p50 * c)).unwrap_or_default();
        println!("{:<52} {least:8.1} {:5.0} {p50:6.0}{cycles}", case.name, median(p10));
    }
}

fn median(v: &mut [f64]) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}
