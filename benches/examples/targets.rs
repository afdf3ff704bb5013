//! What the design demands of the pipeline and of the classifier in memory: `targets [rounds]`. A line of
//! JSON for each, with a value of each round; `scripts/bench.sh --only memory` makes a table of them.

#![forbid(unsafe_code)]

use sag_acl::Classifier;
use sag_acl::generate::{self, Style};
use sag_benches::nat::CASES;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Cases of [`CASES`].
const PACKETS: [&str; 2] = ["established, whole chain, 10,000 flows", "first packet, no NAT"];
/// Number of rules.
const COMPILED: [usize; 2] = [10_000, 100_000];
const STYLES: [(Style, &str); 3] = [(Style::Acl, "acl"), (Style::Fw, "fw"), (Style::Ipc, "ipc")];
const SPAN: Duration = Duration::from_millis(200);

fn main() {
    let rounds = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(9usize);
    print("a dependent multiplication", "ns", (0..rounds).map(|_| multiplication()).collect());
    for name in PACKETS {
        let values = (0..rounds).map(|_| packets(name)).collect();
        print(name, "ns", values);
    }
    for count in COMPILED {
        for (style, name) in STYLES {
            // The large ones take seconds.
            let rounds = if count > 20_000 { rounds.div_ceil(4) } else { rounds };
            let values = (0..rounds as u64).map(|seed| compile(style, count, seed)).collect();
            print(&format!("compile {count} rules, {name}"), "ms", values);
        }
    }
}

/// Nanoseconds. Tells what the machine was worth meanwhile.
fn multiplication() -> f64 {
    const TIMES: u32 = 10_000_000;
    let start = Instant::now();
    let product = (0..TIMES).fold(3u64, |x, _| black_box(x).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    black_box(product);
    start.elapsed().as_nanos() as f64 / f64::from(TIMES)
}

/// Nanoseconds a packet in the median batch.
fn packets(name: &str) -> f64 {
    let Some(case) = CASES.iter().find(|c| c.name == name) else { panic!("no case {name}") };
    let mut run = case.start();
    let end = Instant::now() + SPAN;
    let mut times = Vec::with_capacity(100_000);
    while Instant::now() < end {
        times.push(run.batch());
    }
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64 / 64.0
}

/// Milliseconds.
fn compile(style: Style, count: usize, seed: u64) -> f64 {
    let rules = generate::rules::<u32>(style, count, seed);
    let start = Instant::now();
    black_box(Classifier::build(black_box(&rules)));
    start.elapsed().as_secs_f64() * 1e3
}

fn print(case: &str, unit: &str, values: Vec<f64>) {
    let values: Vec<String> = values.iter().map(|v| format!("{v:.2}")).collect();
    println!("{{\"case\": \"{case}\", \"unit\": \"{unit}\", \"values\": [{}]}}", values.join(", "));
}
