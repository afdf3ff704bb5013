//! Latencies: sixteen buckets for every power of two nanoseconds, as `pg_sink.h` counts them.

use serde::Serialize;

pub const BUCKETS: usize = 640;

/// Nanoseconds. Percentiles are the upper ends of their buckets: at most 6.25 % too much.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    #[serde(rename = "p99.9")]
    pub p999: u64,
    pub max: u64,
}

/// The largest value of a bucket.
pub fn upper(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let (octave, part) = (bucket / 16 - 1, (bucket % 16) as u64);
    (((16 + part + 1) << octave) - 1).max(1)
}

/// None if nothing was counted.
pub fn summary(counts: &[u64], sum: u64, max: u64) -> Option<Latency> {
    let count: u64 = counts.iter().sum();
    if count == 0 {
        return None;
    }
    let at = |share: f64| {
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let bucket = counts.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        bucket.map_or(max, |b| upper(b).min(max))
    };
    Some(Latency {
        count,
        mean: sum as f64 / count as f64,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pg_bucket()`.
    fn bucket(v: u64) -> usize {
        if v < 16 {
            return v as usize;
        }
        let log = v.ilog2() as usize;
        ((log - 3) * 16 + ((v >> (log - 4)) & 15) as usize).min(BUCKETS - 1)
    }

    #[test]
    fn every_value_is_in_its_bucket() {
        for v in (0..5_000).chain((13..40).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 12_345])) {
            let b = bucket(v);
            assert!(v <= upper(b), "{v} in {b}");
            assert!(b == 0 || v > upper(b - 1), "{v} in {b}");
            assert!(upper(b) as f64 <= v as f64 * 1.0625 + 1.0, "{v} in {b}: {}", upper(b));
        }
    }

    #[test]
    fn percentiles() {
        let mut counts = vec![0; BUCKETS];
        for v in 1..=1000u64 {
            counts[bucket(v * 1000)] += 1;
        }
        let l = summary(&counts, 500_500_000, 1_000_000).unwrap();
        assert_eq!((l.count, l.mean), (1000, 500_500.0));
        for (got, want) in [(l.p50, 500e3), (l.p90, 900e3), (l.p99, 990e3), (l.p999, 999e3)] {
            assert!((want..=want * 1.0625).contains(&(got as f64)), "{got} for {want}");
        }
        assert_eq!(l.max, 1_000_000);
        assert_eq!(summary(&[0; 4], 0, 0), None);
    }

    #[test]
    fn one_value() {
        let mut counts = vec![0; BUCKETS];
        counts[bucket(777)] = 1;
        let l = summary(&counts, 777, 777).unwrap();
        assert_eq!([l.p50, l.p90, l.p99, l.p999, l.max], [777; 5]);
    }
}
