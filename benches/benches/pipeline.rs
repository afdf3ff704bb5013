//! The whole chain: parse, find, decide, rewrite, count. Only `Pipeline::batch` is timed; frames are
//! copied into their buffers before, as a driver does.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sag_benches::*;
use std::collections::VecDeque;
use std::time::Duration;

/// Established flows in random order.
fn established(c: &mut Criterion) {
    let mut g = c.benchmark_group("established");
    for (ip, flows, batch, rules) in [
        (Ip::V4, 10_000, 64, 1000),
        (Ip::V4, 10_000, 32, 1000),
        (Ip::V4, 1, 64, 1000),
        (Ip::V4, 100_000, 64, 1000),
        (Ip::V4, 1_000_000, 64, 1000),
        (Ip::V6, 10_000, 64, 1000),
        (Ip::V6, 100_000, 64, 1000),
    ] {
        g.throughput(Throughput::Elements(batch as u64));
        g.bench_function(BenchmarkId::new(format!("{ip:?}/{flows} flows"), format!("batch {batch}")), |b| {
            let frames = Frozen::new(ip, flows);
            let order = shuffled(flows);
            let mut load = Load::new(gateway(rules));
            for chunk in order.chunks(64) {
                load.batch(chunk.iter().map(|&n| frames.get(n)));
                assert!(load.all_sent());
            }
            let mut next = order.iter().cycle();
            b.iter_custom(|iters| {
                let mut spent = Duration::ZERO;
                for _ in 0..iters {
                    spent += load.batch((0..batch).filter_map(|_| next.next()).map(|&n| frames.get(n)));
                }
                assert!(load.all_sent());
                spent
            });
        });
    }
    g.finish();
}

/// First packets: every one makes a session while 10,000 others are alive and the oldest end.
fn first_packet(c: &mut Criterion) {
    let mut g = c.benchmark_group("first packet");
    for rules in [0, 1000] {
        g.throughput(Throughput::Elements(64));
        g.bench_function(BenchmarkId::new("V4", format!("{rules} rules")), |b| {
            let flows = 1 << 17;
            let frames = Frozen::new(Ip::V4, flows);
            let mut load = Load::new(gateway(rules));
            let mut next = (0..flows).cycle();
            let mut alive: VecDeque<u32> = VecDeque::new();
            b.iter_custom(|iters| {
                let mut spent = Duration::ZERO;
                for _ in 0..iters {
                    let batch: Vec<_> = (0..64).filter_map(|_| next.next()).collect();
                    let before = load.pipe.counters.sessions_created.get();
                    spent += load.batch(batch.iter().map(|&n| frames.get(n)));
                    assert_eq!(load.pipe.counters.sessions_created.get() - before, 64);
                    alive.extend(batch.iter().map(|&n| load.session(frames.get(n))));
                    let old = alive.len().saturating_sub(10_000);
                    load.end(alive.drain(..old));
                }
                assert!(load.all_sent());
                spent
            });
        });
    }
    g.finish();
}

/// Packets that are refused: no record is kept of them.
fn denied(c: &mut Criterion) {
    let mut g = c.benchmark_group("denied");
    g.throughput(Throughput::Elements(64));
    g.bench_function("V4/1000 rules", |b| {
        let frames = Frozen::new(Ip::V4, 10_000);
        let mut load = Load::new(closed_gateway(1000));
        let mut next = (0..10_000).cycle();
        b.iter_custom(|iters| {
            typical(iters, || load.batch((0..64).filter_map(|_| next.next()).map(|n| frames.get(n))))
        });
    });
    g.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = established, first_packet, denied
}
criterion_main!(benches);
