//! One rate: never more than rate × time + burst, never much less than the rate.

use super::*;
use proptest::prelude::*;
use sag_pipeline::qos::meter::{before, charge, fits, time_of};
use std::sync::atomic::AtomicU64;

/// From 1 Mbit/s to 40 Gbit/s, all magnitudes alike.
fn rates() -> impl Strategy<Value = u64> {
    (0.0f64..=4.602).prop_map(|e| 10f64.powf(e).round() as u64)
}

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![20u64..=1500, Just(64), Just(1500), 20u64..=65_535]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// In any interval: an exact bucket, which is the same statement, never goes below zero.
    #[test]
    fn never_more_than_rate_and_burst(
        mbps in rates(),
        burst_ms in 1u64..500,
        packets in prop::collection::vec((sizes(), 0u64..3_000_000), 1..400),
        crowd in 1u64..2000,
    ) {
        let b = Bucket::new(mbps, burst_ms);
        let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
        let (mut exact, mut now) = (Exact::new(b, START), START);
        for (len, pause) in packets {
            now += pause / crowd;
            exact.advance(now);
            if passes(&s, &meters, len, now) {
                prop_assert!(exact.take(len) >= 0, "{} too much", exact.level);
            }
        }
    }

    /// The same while every core has a clock of its own that is behind by up to `slack`.
    #[test]
    fn clocks_that_are_behind_let_no_more_pass(
        mbps in rates(),
        burst_ms in 30u64..500,
        packets in prop::collection::vec((sizes(), 0u64..1_000_000, 0u64..8_000_000), 1..400),
    ) {
        const SLACK: u64 = 8_000_000;
        let b = Bucket::new(mbps, burst_ms);
        let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
        let (mut exact, mut now) = (Exact::new(b, START), START);
        for (len, pause, behind) in packets {
            now += pause;
            exact.advance(now);
            if police(&s, &meters, len, now - behind, SLACK) == Policed::Pass {
                prop_assert!(exact.take(len) >= 0, "{} too much", exact.level);
            }
        }
    }

    /// A line that always has something to send gets the rate: rounding starves nobody.
    #[test]
    fn never_much_less_than_the_rate(mbps in rates(), len in 64u64..=1500) {
        let b = Bucket::new(mbps, 200);
        let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
        // Twice the rate, for as long as 4000 packets of the rate take.
        let gap = (Rate(b.rate.0 * 2).nanos(len)).max(1);
        let (mut now, mut passed, end) = (START, 0, START + b.rate.nanos(len * 4000));
        while now < end {
            passed += len * u64::from(passes(&s, &meters, len, now));
            now += gap;
        }
        let fair = (now - START) as u128 * u128::from(b.rate.0) / 8_000_000_000;
        // Half a thousandth, and the packet at the end.
        prop_assert!(u128::from(passed + len) * 2000 >= fair * 1999, "{passed} of {fair}");
    }

    /// Whatever the moments are, comparing them is telling which came first.
    #[test]
    fn moments_wrap(at in any::<u64>(), ahead in 1u64..1 << 62) {
        prop_assert!(before(at, at.wrapping_add(ahead)));
        prop_assert!(!before(at.wrapping_add(ahead), at));
        prop_assert!(!before(at, at));
    }

    /// A look and a charge that follows say the same.
    #[test]
    fn a_look_foretells_the_charge(tat in any::<u64>(), ahead in -1i64 << 40..1i64 << 40, burst in 0u64..1 << 40, time in 0u64..1 << 40) {
        let base = tat.wrapping_add_signed(ahead);
        let word = AtomicU64::new(tat);
        let limit = base.wrapping_add(burst);
        let would = fits(&word, time, base, limit);
        prop_assert_eq!(word.load(Relaxed), tat, "a look changes nothing");
        prop_assert_eq!(charge(&word, time, base, limit), would);
        prop_assert_eq!(word.load(Relaxed) != tat, would && (time != 0 || before(tat, base)));
    }
}

#[test]
fn both_ends_of_the_range_keep_their_rate() {
    for (mbps, len, count) in
        [(1, 1500, 2_000u64), (1, 64, 20_000), (40_000, 64, 2_000_000), (1_000_000, 64, 2_000_000)]
    {
        let b = Bucket::new(mbps, 200);
        let time = time_of(len, b.rate.cost()) * count;
        let exact = u128::from(len * count) * 8_000_000_000 * 256 / u128::from(b.rate.0);
        let ratio = time as f64 / exact as f64;
        // Slower than ordered by as much as the last unit of each packet.
        let most = if mbps > 40_000 { 1.008 } else { 1.0004 };
        assert!((1.0..most).contains(&ratio), "{mbps} Mbit/s in packets of {len}: {ratio}");
    }
}

#[test]
fn a_year_without_a_packet_is_a_full_bucket() {
    let b = Bucket::new(50, 200);
    let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
    let year = 365 * 86_400 * 1_000_000_000u64;
    for now in [START, START + year, START + 2 * year] {
        let at_once = (0..2000).filter(|_| passes(&s, &meters, 1500, now)).count();
        assert_eq!(at_once, 50_000_000 / 5 / 8 / 1500);
    }
}

#[test]
fn overhead_counts_for_every_packet() {
    let b = Bucket::new(8, 8);
    let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
    s.overhead.store(20, Relaxed);
    // 8000 bytes at once: ten packets of 780 and 20.
    assert_eq!((0..20).filter(|_| passes(&s, &meters, 780, START)).count(), 10);
}

#[test]
fn the_slowest_rate_takes_the_largest_packet() {
    let rate = Rate::MIN;
    let b = Bucket { rate, burst: rate.nanos(65_535) };
    let (meters, s) = ([Meter::default(), link(b)], set(0, &[(1, b.burst)]));
    assert!(passes(&s, &meters, 65_535, START));
    assert!(!passes(&s, &meters, 20, START));
    assert!(passes(&s, &meters, 65_535, START + b.burst + 1));
}
