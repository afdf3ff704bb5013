//! The packet path allocates nothing once it is warm.

use sag_benches::nat::{Ports, dnat, inbound, nat64, outbound, outbound64, snat_default, snat_overlapping};
use sag_benches::*;
use sag_model::{DropReason, Nanos};
use sag_pipeline::nat::Event;
use sag_testkit::{DEV_LAN, DEV_WAN, LAN, Net, Pkt, WAN};

fn allocations(load: &mut Load, frames: &[Vec<u8>]) -> u64 {
    let run = |load: &mut Load| {
        for chunk in frames.chunks(64) {
            load.batch(chunk.iter().map(Vec::as_slice));
        }
    };
    run(load);
    allocation_counter::measure(|| run(load)).count_total
}

#[test]
fn established_flows() {
    for ip in [Ip::V4, Ip::V6] {
        let mut load = Load::new(gateway(100));
        let frames: Vec<_> = (0..1000).map(|n| frame(ip, n)).collect();
        assert_eq!(allocations(&mut load, &frames), 0, "{ip:?}");
        assert!(load.all_sent());
    }
}

#[test]
fn new_flows() {
    let mut load = Load::new(gateway(100));
    let warm: Vec<_> = (0..64).map(|n| frame(Ip::V4, n)).collect();
    load.batch(warm.iter().map(Vec::as_slice));
    let fresh: Vec<_> = (1000..3000).map(|n| frame(Ip::V4, n)).collect();
    let count = allocation_counter::measure(|| {
        for chunk in fresh.chunks(64) {
            load.batch(chunk.iter().map(Vec::as_slice));
        }
    });
    assert_eq!(count.count_total, 0);
    assert_eq!(load.pipe.counters.sessions_created.get(), 2064);
}

#[test]
fn denied_odd_and_held_packets() {
    let mut net = closed_gateway(100);
    net.unresolve(WAN, "203.0.113.1");
    net.acl = sag_testkit::Acl::new(true);
    let mut load = Load::new(net);
    let (host, far) = ("192.168.1.10", "198.51.100.7");
    let frames = [
        Pkt::udp(host, far, 1, 2),
        Pkt::udp(host, far, 1, 2).ttl(1),
        Pkt::udp(host, far, 1, 2).df().payload(2000),
        Pkt::udp(host, far, 1, 2).payload(200).fragment(0, 64),
        Pkt::udp(host, far, 1, 2).payload(200).fragment(64, 64),
        Pkt::udp("127.0.0.1", far, 1, 2),
        Pkt::echo(host, "192.168.1.1", 1, false),
        Pkt::icmp(host, far, 3, 1, 0, &Pkt::udp(far, host, 2, 1).ip()),
        Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2).ttl(1),
    ]
    .map(|p| p.build());
    assert_eq!(allocations(&mut load, &frames), 0);
    drop(load);
    let mut load = Load::new(closed_gateway(100));
    let denied: Vec<_> = (0..200).map(|n| frame(Ip::V4, n)).collect();
    assert_eq!(allocations(&mut load, &denied), 0);
    assert!(!load.all_sent());
}

#[test]
fn fragments_in_any_order() {
    let mut load = Load::new(gateway(100));
    let (host, far) = ("192.168.1.10", "198.51.100.7");
    let datagram = |id: u16| {
        let mut p = Pkt::udp(host, far, 1, 2).payload(1000);
        p.id = id;
        p
    };
    let mut frames = Vec::new();
    for id in 0..8 {
        // In order, backwards, repeated, and with one that overlaps.
        let p = datagram(id);
        frames.extend([0, 400, 800].map(|at| p.fragment(at, 400)));
        frames.extend([800, 800, 400, 0].map(|at| p.fragment(at, 400)));
        frames.extend([400, 392].map(|at| p.fragment(at, 400)));
    }
    // More datagrams, and more that wait, than there is room for.
    frames.extend((100..1500).map(|id| datagram(id).fragment(400, 400)));
    frames.extend((100..1500).map(|id| datagram(id).fragment(0, 400)));
    let frames: Vec<_> = frames.iter().map(Pkt::build).collect();
    assert_eq!(allocations(&mut load, &frames), 0);
    let drops = |reason: DropReason| load.pipe.counters.port(LAN).drops[reason.index()].get();
    for reason in [DropReason::FragmentOverlap, DropReason::FragmentTableFull] {
        assert!(drops(reason) > 0, "{reason}");
    }
    assert!(load.pipe.counters.port(LAN).forwarded.get() > 1400);
}

/// Batches of these frames, from the LAN or the WAN.
fn send(load: &mut Load, dev: u8, frames: &[Vec<u8>]) {
    load.dev = dev;
    for chunk in frames.chunks(64) {
        load.batch(chunk.iter().map(Vec::as_slice));
    }
}

/// Begin, life and end of translated sessions.
fn translated(mut net: Net, log: bool) {
    net.nat.limits.log_sessions = log;
    net.nat.limits.host_sessions = Some(100_000);
    let mut load = Load::new(net);
    let warm: Vec<_> = (0..64).map(|n| outbound(n, 1000, Ports::Same)).collect();
    send(&mut load, DEV_LAN, &warm);
    // As many new bindings as known ones.
    let fresh: Vec<_> = (64..2000).map(|n| outbound(n, 1000, Ports::Same)).collect();
    let host = warm[0].clone();
    let port = u16::from_be_bytes([host[34], host[35]]);
    let answer = Pkt::udp("198.51.100.1", "203.0.113.2", 5000, port).into_port(WAN);
    let quote = Pkt::udp("203.0.113.2", "198.51.100.1", port, 5000);
    let error = Pkt::icmp("203.0.113.1", "203.0.113.2", 3, 1, 0, &quote.ip()).into_port(WAN);
    let from_wan = [answer, error].map(|p| p.build());
    let count = allocation_counter::measure(|| {
        send(&mut load, DEV_LAN, &fresh);
        send(&mut load, DEV_LAN, &fresh);
        send(&mut load, DEV_WAN, &from_wan);
        assert!(load.all_sent(), "an answer and an error find their session");
        load.now = Nanos::from_secs(2000);
        for _ in 0..1000 {
            load.now.0 += 1_000_000;
            load.poll();
        }
    });
    assert_eq!(count.count_total, 0);
    assert_eq!(load.pipe.counters.sessions_created.get(), 2000);
    assert_eq!(load.pipe.counters.sessions_ended.get(), 2000, "all aged out");
    let nat = load.pipe.tables.nat.clone();
    assert_eq!(
        (nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), nat.hosts().all().count()),
        (0, 0)
    );
    let told =
        load.pipe.events().drain().filter(|e| matches!(e, Event::Created { .. } | Event::Ended { .. }));
    assert_eq!(told.count(), if log { 4000 } else { 0 });
}

#[test]
fn source_nat() {
    translated(snat_default(), false);
    translated(snat_default(), true);
    translated(snat_overlapping(), false);
}

#[test]
fn nat64_in_both_directions() {
    let mut load = Load::new(nat64());
    let out: Vec<_> = (0..1000).map(|n| outbound64(n, 1000, Ports::Same)).collect();
    send(&mut load, DEV_LAN, &out[..64]);
    let port = u16::from_be_bytes([out[0][54], out[0][55]]);
    let answer = Pkt::udp("8.8.0.1", "203.0.113.2", 5000, port).into_port(WAN).payload(1300);
    let error = Pkt::icmp(
        "203.0.113.1",
        "203.0.113.2",
        3,
        1,
        0,
        &Pkt::udp("203.0.113.2", "8.8.0.1", port, 5000).ip(),
    );
    let from_wan = [answer.clone().df().build(), answer.build(), error.into_port(WAN).build()];
    let count = allocation_counter::measure(|| {
        send(&mut load, DEV_LAN, &out);
        send(&mut load, DEV_LAN, &out);
        send(&mut load, DEV_WAN, &from_wan);
        load.now = Nanos::from_secs(2000);
        for _ in 0..1000 {
            load.now.0 += 1_000_000;
            load.poll();
        }
    });
    assert_eq!(count.count_total, 0);
    let counters = &load.pipe.counters;
    assert_eq!(
        (counters.sessions_created.get(), counters.sessions_ended.get()),
        (1000, 1000),
        "all aged out"
    );
    assert_eq!(counters.port(WAN).forwarded.get(), 3, "an answer, one in fragments, and an error");
}

#[test]
fn destination_nat_filters_and_an_empty_pool() {
    let mut load = Load::new(dnat());
    let frames: Vec<_> = (0..1000).map(inbound).collect();
    load.dev = DEV_WAN;
    assert_eq!(allocations(&mut load, &frames), 0);
    assert!(load.all_sent());
    drop(load);

    let mut net = snat_default();
    net.nat.limits.range = 2000..=2063;
    let mut load = Load::new(net);
    let out: Vec<_> = (0..200).map(|n| outbound(n, 1000, Ports::Same)).collect();
    assert_eq!(allocations(&mut load, &out), 0);
    assert!(!load.all_sent(), "64 ports for 200 endpoints");
    load.dev = DEV_WAN;
    let stranger: Vec<_> = (2000..2064)
        .map(|port| Pkt::udp("192.0.2.99", "203.0.113.2", 9, port).into_port(WAN).build())
        .collect();
    assert_eq!(allocations(&mut load, &stranger), 0);
    let drops = &load.pipe.counters.port(WAN).drops;
    assert_eq!(drops[DropReason::NatFiltered.index()].get(), 128);
}
