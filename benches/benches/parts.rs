//! Single parts of the packet path: parsing, longest-prefix match, the flow table, the checksum.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sag_benches::*;
use sag_fib::Fib;
use sag_model::Zone;
use sag_model::flow::{FlowRecord4, Key4};
use sag_packet::parse::{self, NetworkLayer};
use sag_pipeline::table::{DeferredFree, FlowTable, Grace};
use sag_testkit::{Pkt, Rng};
use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

fn parsing(c: &mut Criterion) {
    let mut g = c.benchmark_group("parse");
    let tcp = Pkt::tcp("192.168.1.10", "198.51.100.7", 1, 2, 0x10);
    for (name, frame) in [
        ("V4 udp", frame(Ip::V4, 5)),
        ("V4 tcp tagged", tcp.tagged(100).build()),
        ("V6 udp", frame(Ip::V6, 5)),
    ] {
        g.throughput(Throughput::Elements(1));
        g.bench_function(name, |b| {
            b.iter(|| {
                let f = black_box(&frame[..]);
                let Ok((_, ethertype, l3)) = parse::link(f) else { return 0 };
                match parse::parse(f, ethertype, l3) {
                    Ok(NetworkLayer::Ip(p)) => p.key4(Zone::Lan).l4,
                    _ => 0,
                }
            })
        });
    }
    g.finish();
}

/// Prefix lengths as in the Internet's table: half of them /24, few shorter than /16.
fn routes(d: &mut Rng, n: usize) -> Vec<(u32, u8, u32)> {
    let mut out = vec![(0, 0, 0)];
    for i in 1..n as u32 {
        let len = d.pick(&[24, 24, 24, 24, 24, 22, 23, 20, 21, 19, 16, 18, 32, 28, 8]);
        out.push(((d.roll() as u32) & (u32::MAX << (32 - len)), len as u8, i));
    }
    out
}

fn lookup(c: &mut Criterion) {
    let mut g = c.benchmark_group("fib");
    for n in [1, 1_000, 100_000] {
        let mut d = Rng::new(3);
        let table = routes(&mut d, n);
        let fib4 = Fib::build(table.iter().copied()).unwrap();
        // Destinations inside the prefixes, in random order.
        let probes: Vec<u32> = (0..4096).map(|_| table[d.below(n)].0 | (d.roll() as u32 & 0xFF)).collect();
        g.throughput(Throughput::Elements(probes.len() as u64));
        g.bench_function(BenchmarkId::new("V4", format!("{n} routes")), |b| {
            b.iter(|| probes.iter().fold(0u32, |x, &a| x ^ fib4.lookup(black_box(a)).unwrap_or(0)))
        });
        let wide = |a: u32| 0x2001_0db8 << 96 | u128::from(a) << 64;
        let v6 = table.iter().map(|&(a, len, r)| (wide(a), if len == 0 { 0 } else { len + 32 }, r));
        let fib6 = Fib::build(v6).unwrap();
        let probes: Vec<u128> = probes.iter().map(|&a| wide(a) | 0x1234).collect();
        g.bench_function(BenchmarkId::new("V6", format!("{n} routes")), |b| {
            b.iter(|| probes.iter().fold(0u32, |x, &a| x ^ fib6.lookup(black_box(a)).unwrap_or(0)))
        });
    }
    g.finish();
}

fn table(c: &mut Criterion) {
    let mut g = c.benchmark_group("flow table");
    for n in [1_000u64, 100_000, 1_000_000] {
        let t = FlowTable::<FlowRecord4>::private(1 << 20, Grace::immediate());
        let mut q = DeferredFree::default();
        let key = |i: u64| Key4 { addrs: 7 | i << 32, l4: 17 << 32 | 1 << 40 };
        for i in 0..n {
            let back = Key4 { addrs: key(i).addrs.rotate_left(32), l4: 17 << 32 | 2 << 40 };
            let made = t.create(&key(i), &back, &mut q, |_, _, m| m.state.store(5, Ordering::Release));
            assert!(made.is_ok());
        }
        let mut d = Rng::new(5);
        let probes: Vec<Key4> = (0..8192).map(|_| key(d.below(n as usize) as u64)).collect();
        g.throughput(Throughput::Elements(probes.len() as u64));
        g.bench_function(BenchmarkId::new("find", format!("{n} sessions")), |b| {
            b.iter(|| probes.iter().filter(|k| t.find(k, t.hash(k)).is_some()).count())
        });
    }
    g.finish();
}

fn checksum(c: &mut Criterion) {
    let mut g = c.benchmark_group("checksum");
    for len in [20, 64, 1500] {
        let data = vec![0x5A; len];
        g.throughput(Throughput::Bytes(len as u64));
        g.bench_function(format!("{len} bytes"), |b| {
            b.iter(|| sag_packet::checksum::finish(sag_packet::checksum::sum(black_box(&data))))
        });
    }
    g.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    targets = parsing, lookup, table, checksum
}
criterion_main!(benches);
