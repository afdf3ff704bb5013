//! The packet path allocates nothing once it is warm.

use sag_benches::*;
use sag_model::DropReason;
use sag_pipeline::testkit::{LAN, Pkt, WAN};

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
    net.acl = sag_pipeline::testkit::Acl::new(true);
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
