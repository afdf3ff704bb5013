//! What processors pay that write the same cache line, beside lines of their own: `contention [rounds]`. A line of JSON
//! for each case, with a value of each round; `scripts/bench.sh --only cores` computes sixteen processors from them.
//!
//! Two threads on two processors, and one alone on each of them in turn. Between two accesses each thread computes for as
//! long as a packet takes. The meter's access is that of `gw_meter_one_rate()` and, where it loses the race, of
//! `gw_charge()` (bpf/include).

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

const SLICE: Duration = Duration::from_millis(30);
/// Races that `gw_charge()` loses before it adds first and looks afterwards.
const TRIES: u32 = 4;
/// Dependent multiplications between two accesses, by half of it more or less: two loops that take the same time for each
/// round fall into step, and the line is never wanted by both.
const WORK: [u32; 4] = [0, 40, 80, 240];

/// Two lines, as processors fetch them.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// Nothing: what the loop takes.
    None,
    /// A meter: load, compare-and-swap.
    Meter,
    /// Counters of a flow's record: load, store.
    Counter,
    /// The next identification of a datagram: one locked addition.
    Add,
}

impl Access {
    const ALL: [(Access, &str); 4] = [
        (Access::None, "none"),
        (Access::Meter, "meter"),
        (Access::Counter, "counter"),
        (Access::Add, "locked addition"),
    ];

    /// One access; the races it has lost.
    #[inline(always)]
    fn once(self, line: &AtomicU64) -> u32 {
        match self {
            Access::None => 0,
            Access::Meter => meter(line),
            Access::Counter => {
                line.store(line.load(Relaxed).wrapping_add(1), Relaxed);
                0
            }
            Access::Add => {
                line.fetch_add(1, AcqRel);
                0
            }
        }
    }
}

#[inline(always)]
fn meter(line: &AtomicU64) -> u32 {
    let mut old = line.load(Acquire);
    // The attempt of the fast path, then those of the general one.
    for lost in 0..=TRIES {
        match line.compare_exchange(old, old.wrapping_add(64), AcqRel, Acquire) {
            Ok(_) => return lost,
            Err(seen) => old = seen,
        }
    }
    line.fetch_add(64, AcqRel);
    TRIES + 1
}

/// Accesses and lost races of a slice, on this processor.
fn slice(
    cpu: usize,
    access: Access,
    work: u32,
    line: &AtomicU64,
    start: &Barrier,
    stop: &AtomicBool,
) -> (u64, u64, Duration) {
    if let Err(error) = sag_xsk::sys::pin_to_cpu(cpu) {
        eprintln!("processor {cpu}: {error}");
    }
    let (mut done, mut lost, mut x) = (0u64, 0u64, 3u64);
    let mut random = 0x9E37_79B9_7F4A_7C15u64 ^ cpu as u64;
    start.wait();
    let from = Instant::now();
    while !stop.load(Relaxed) {
        for _ in 0..64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let some = work / 2 + ((u64::from(work) * (random >> 32)) >> 32) as u32;
            for _ in 0..some {
                x = black_box(x).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
            lost += u64::from(access.once(line));
        }
        done += 64;
    }
    black_box(x);
    (done, lost, from.elapsed())
}

/// Nanoseconds an access on each of the processors at the same time (mean), and races lost an access.
fn run(cpus: &[usize], access: Access, work: u32, shared: bool) -> (f64, f64) {
    let lines = [Line::default(), Line::default()];
    let (start, stop) = (Barrier::new(cpus.len() + 1), AtomicBool::new(false));
    let (start, stop) = (&start, &stop);
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .enumerate()
            .map(|(n, &cpu)| {
                let line = &lines[if shared { 0 } else { n % 2 }].0;
                scope.spawn(move || slice(cpu, access, work, line, start, stop))
            })
            .collect();
        start.wait();
        std::thread::sleep(SLICE);
        stop.store(true, Relaxed);
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    // The rates add up.
    let rate: f64 = found.iter().map(|(done, _, time)| *done as f64 / time.as_nanos() as f64).sum();
    let (done, lost) = found.iter().fold((0, 0), |(d, l), f| (d + f.0, l + f.1));
    (cpus.len() as f64 / rate, lost as f64 / done as f64)
}

fn main() -> std::process::ExitCode {
    let rounds = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(9usize);
    let cpus = sag_xsk::sys::allowed_cpus().unwrap_or_default();
    let [.., second, first] = cpus[..] else {
        eprintln!("contention: this machine has one processor");
        return std::process::ExitCode::from(2);
    };
    for (access, name) in Access::ALL {
        for work in WORK {
            let (mut one, mut private, mut shared, mut lost) = (vec![], vec![], vec![], vec![]);
            for n in 0..rounds {
                one.push(run(&[if n % 2 == 0 { first } else { second }], access, work, false).0);
                private.push(run(&[first, second], access, work, false).0);
                let both = run(&[first, second], access, work, true);
                shared.push(both.0);
                lost.push(both.1);
            }
            println!(
                r#"{{"access": "{name}", "work": {work}, "one": {one:?}, "private": {private:?}, "shared": {shared:?}, "lost": {lost:?}}}"#
            );
        }
    }
    std::process::ExitCode::SUCCESS
}
