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

/// What the cores let pass together, and how many packets they had looked at when another came between.
fn race(meters: &[Meter], s: &MeterGroup, len: u64, packets: u64, step: u64) -> (u64, u64) {
    let clock = AtomicU64::new(START);
    let passed = thread::scope(|t| {
        let core = || {
            let tick = || clock.fetch_add(step, SeqCst);
            (0..packets).filter(|_| passes(s, meters, len, tick())).count() as u64
        };
        let cores: Vec<_> = (0..CORES).map(|_| t.spawn(core)).collect();
        cores.into_iter().map(|c| c.join().unwrap()).sum()
    });
    (passed, clock.load(SeqCst) - START)
}

/// A ceiling with a floor under a link that has room. The exact bucket over the interval is the upper bound, and
/// what is missing to it is a packet for each core: the ceiling is charged last, so that a lost race costs nothing
/// of it, and the last packets of each core are by a clock that is behind that of the others.
#[test]
fn a_ceiling_under_a_link_is_exact_but_for_a_packet_a_core() {
    const LEN: u64 = 500;
    let (ceiling, floor, wire) = (Bucket::new(40, 20), Bucket::new(10, 20), Bucket::new(50, 20));
    for _ in 0..10 {
        let meters = [Meter::default(), car(ceiling, Some(floor)), link(wire)];
        let (passed, time) = race(&meters, &set(1, &[(2, wire.burst)]), LEN, 40_000, 1_000);
        // 40 Mbit/s are 5 bytes in a microsecond; 20 ms of it at once.
        let most = (time / 1000 * 5 + 100_000) / LEN;
        assert!(passed <= most, "{passed} of at most {most}");
        assert!(passed + CORES >= most, "{passed} of {most}: what races lost");
    }
}

/// A link that all cores fill. Neither the link nor a ceiling is ever exceeded; what is missing is
/// less than a thousandth, although every packet contends.
#[test]
fn a_link_that_all_cores_fill_loses_less_than_a_thousandth() {
    const LEN: u64 = 500;
    let (ceiling, wire, port) = (Bucket::new(40, 20), Bucket::new(30, 20), Bucket::new(35, 20));
    for _ in 0..10 {
        let meters = [Meter::default(), car(ceiling, None), link(wire), link(port)];
        let s = set(1, &[(2, wire.burst), (3, port.burst)]);
        let (passed, time) = race(&meters, &s, LEN, 40_000, 1_000);
        let most = (time * 30 / 8_000 + 75_000) / LEN;
        println!("{passed} of {most}");
        assert!(passed <= most, "{passed} of at most {most}");
        assert!(passed + CORES + most / 1000 >= most, "{passed} of {most}: what races lost");
    }
}
