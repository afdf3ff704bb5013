//! One meter on many cores: what all of them together let pass.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

const CORES: u64 = 8;

/// All cores at one moment: a rate alone is exact, whoever comes first.
#[test]
fn a_rate_alone_is_exact() {
    let b = Bucket::new(8, 100);
    for round in 0..20 {
        let len = 100 + round * 37;
        let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
        let passed: u64 = thread::scope(|t| {
            let core = || (0..2000).filter(|_| passes(&s, &meters, len, START)).count() as u64;
            let cores: Vec<_> = (0..CORES).map(|_| t.spawn(core)).collect();
            cores.into_iter().map(|c| c.join().unwrap()).sum()
        });
        assert_eq!(passed, 100_000 / len, "packets of {len}");
    }
}

/// While time goes on: the exact bucket over the interval is the upper bound, and what is missing to
/// it is less than a packet for each core.
#[test]
fn several_rates_are_exact_but_for_a_packet_a_core() {
    const LEN: u64 = 500;
    let (ceiling, floor, wire) = (Bucket::new(40, 20), Bucket::new(10, 20), Bucket::new(50, 20));
    for _ in 0..10 {
        let meters = [Meter::default(), car(ceiling, Some(floor)), link(wire)];
        let s = set(1, &[(2, wire.burst)]);
        let clock = AtomicU64::new(START);
        let passed: u64 = thread::scope(|t| {
            let core = || {
                let mut passed = 0;
                for _ in 0..40_000 {
                    let now = clock.fetch_add(1_000, SeqCst);
                    passed += u64::from(passes(&s, &meters, LEN, now));
                }
                passed
            };
            let cores: Vec<_> = (0..CORES).map(|_| t.spawn(core)).collect();
            cores.into_iter().map(|c| c.join().unwrap()).sum()
        });
        let time = clock.load(SeqCst) - START;
        // 40 Mbit/s are 5 bytes in a microsecond; 20 ms of it at once.
        let most = (time / 1000 * 5 + 100_000) / LEN;
        assert!(passed <= most, "{passed} of at most {most}");
        assert!(passed + CORES * 20 >= most, "{passed} of {most}: what races lost");
    }
}
