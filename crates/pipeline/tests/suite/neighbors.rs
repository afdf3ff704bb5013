//! Packets whose next hop is not resolved: held, released in order, or told.

use super::forwarded;
use sag_model::config::ReversePath;
use sag_model::{DropReason, Nanos, PortIdx};
use sag_pipeline::pending::{MAX_PER_KEY, SLOTS};
use sag_pipeline::resolution::RequestRates;
use sag_pipeline::snapshot::Route;
use sag_testkit::*;
use std::time::Duration;

const HOST: &str = "192.168.1.10";
const FAR: &str = "198.51.100.7";
const ROUTER: &str = "203.0.113.1";

fn unresolved() -> Rig {
    let mut net = Net::branch();
    net.unresolve(WAN, ROUTER);
    net.unresolve(WAN, "2001:db8:2::1");
    Rig::new(net)
}

#[test]
fn held_then_sent_in_order() {
    let mut rig = unresolved();
    let pkts: Vec<Pkt> = (0..10).map(|i| Pkt::udp(HOST, FAR, 1000 + i % 3, i)).collect();
    for p in &pkts {
        assert_eq!(rig.send(p), Outcome::Held);
    }
    assert_eq!(rig.requests(), [(WAN, ROUTER.parse().unwrap())], "asked for once");
    assert_eq!(rig.pipe.counters.port(LAN).held.get(), 10);
    assert_eq!(rig.sessions(), (0, 0));
    rig.poll();
    assert_eq!(rig.emitted(), []);
    rig.now = rig.now + Duration::from_millis(300);
    rig.change(|n| {
        n.neighbor(WAN, ROUTER);
    });
    rig.poll();
    let want: Vec<_> = pkts.iter().map(|p| (WAN, forwarded(p, WAN, ROUTER))).collect();
    assert_eq!(rig.emitted(), want);
    assert_eq!(rig.pipe.counters.port(LAN).held.get(), 0);
    assert_eq!(rig.pipe.counters.port(LAN).rx_packets.get(), 10);
    assert_eq!(rig.pipe.counters.port(LAN).forwarded.get(), 10);
    assert_eq!(rig.sessions(), (10, 0));
    assert_eq!(rig.requests(), []);
}

#[test]
fn nobody_overtakes_the_held() {
    let mut rig = unresolved();
    let (first, second) = (Pkt::udp(HOST, FAR, 1, 1), Pkt::udp(HOST, FAR, 1, 2));
    assert_eq!(rig.send(&first), Outcome::Held);
    rig.change(|n| {
        n.neighbor(WAN, ROUTER);
    });
    // The next packet arrives before the housekeeping: the held one leaves with its batch, and what
    // a batch makes goes out before what it forwards.
    assert_eq!(rig.send(&second), Outcome::Tx(WAN, forwarded(&second, WAN, ROUTER)));
    assert_eq!(rig.emitted(), [(WAN, forwarded(&first, WAN, ROUTER))]);
}

#[test]
fn from_a_vlan_and_over_ipv6() {
    let mut rig = unresolved();
    let tagged = Pkt::udp("2001:db8:4::10", "2001:db8:99::7", 1, 2).into_port(LAN2).padded(9);
    assert_eq!(rig.send(&tagged), Outcome::Held);
    assert_eq!(rig.requests(), [(WAN, "2001:db8:2::1".parse().unwrap())]);
    // To the VLAN: the frame grows by a tag when it is released.
    let into = Pkt::udp(HOST, "192.168.2.99", 1, 2);
    assert_eq!(rig.send(&into), Outcome::Held);
    assert_eq!(rig.requests(), [(LAN2, "192.168.2.99".parse().unwrap())]);
    rig.change(|n| {
        n.neighbor(WAN, "2001:db8:2::1");
        n.neighbor(LAN2, "192.168.2.99");
    });
    rig.poll();
    let want =
        [(WAN, forwarded(&tagged, WAN, "2001:db8:2::1")), (LAN2, forwarded(&into, LAN2, "192.168.2.99"))];
    assert_eq!(rig.emitted(), want);
}

#[test]
fn given_up_after_a_while() {
    let mut rig = unresolved();
    let p = Pkt::udp(HOST, FAR, 1, 2);
    let p6 = Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2);
    assert_eq!(rig.send(&p), Outcome::Held);
    assert_eq!(rig.send(&p6), Outcome::Held);
    rig.requests();
    rig.wait(Duration::from_millis(3100));
    assert_eq!(rig.emitted(), []);
    assert_eq!(rig.pipe.counters.port(LAN).held.get(), 2);
    rig.wait(Duration::from_millis(200));
    assert_eq!(rig.drops(LAN, DropReason::NeighborFailed), 2);
    assert_eq!(rig.pipe.counters.port(LAN).held.get(), 0);
    let told = rig.emitted();
    assert_eq!(told.len(), 2);
    for ((port, f), (at, kind, quote)) in told.iter().zip([(34, [3, 1], p.ip()), (54, [1, 3], p6.ip())]) {
        assert_eq!(*port, LAN);
        assert_eq!(f[at..at + 2], kind, "host unreachable, address unreachable");
        assert_eq!(f[at + 8..], quote, "the packet as it came");
    }
    // Asked for again by the next packet.
    assert_eq!(rig.send(&p), Outcome::Held);
    assert_eq!(rig.requests().len(), 1);
}

/// The first few of a port's neighbours scan: a packet each to an address that nobody has.
fn scan(source: u8, n: u16) -> Pkt {
    let target = format!("192.168.1.{}", 20 + n);
    Pkt::udp(&format!("192.168.2.{source}"), &target, 1, 2).into_port(LAN2)
}

#[test]
fn room_for_a_few_per_next_hop_and_for_a_few_next_hops() {
    let mut rig = unresolved();
    // So many that all slots are taken, although some sources may share a place among the counters.
    for source in 20..30 {
        rig.net.neighbor(LAN2, &format!("192.168.2.{source}"));
    }
    for i in 0..MAX_PER_KEY as u16 {
        assert_eq!(rig.send(&Pkt::udp(HOST, FAR, 1, i)), Outcome::Held);
    }
    assert_eq!(rig.send(&Pkt::udp(HOST, FAR, 1, 99)), Outcome::Drop(DropReason::NeighborQueueFull));
    let mut asked = rig.requests().len();
    let mut held = MAX_PER_KEY;
    for i in 0..220 {
        match rig.send(&scan(20 + (i % 10) as u8, i)) {
            Outcome::Held => held += 1,
            Outcome::Drop(DropReason::NeighborQueueFull) => {}
            other => panic!("{other:?}"),
        }
        if i % 10 == 0 {
            asked += rig.requests().len();
        }
    }
    asked += rig.requests().len();
    assert_eq!(held, SLOTS);
    assert_eq!(asked, 221, "asked for though there is no room to wait: the next packet may find an answer");
}

#[test]
fn nothing_waits_for_an_answer_that_was_not_asked_for() {
    let mut rig = unresolved();
    rig.net.neighbor(LAN2, "192.168.2.20");
    // More next hops than can be asked for between two collections: the rest is refused at once.
    for i in 0..100 {
        rig.send(&scan(if i % 2 == 0 { 10 } else { 20 }, i));
    }
    let held = rig.pipe.counters.port(LAN2).held.get();
    assert_eq!(rig.requests().len() as u64, held);
    assert_eq!(rig.drops(LAN2, DropReason::NeighborQueueFull), 100 - held);
    // After the collection there is room to ask again.
    assert_eq!(rig.send(&scan(10, 199)), Outcome::Held);
    assert_eq!(rig.requests().len(), 1);
}

/// Sends `packets` a second for some seconds, each to another address that nobody has; `target` and `source` make their
/// addresses. In between a second host opens connections to hosts that have been silent: each must be asked for at once, and its
/// packet must wait.
fn beside_a_scan(
    v6: bool,
    packets: u32,
    source: impl Fn(u32) -> String,
    scanner_port: PortIdx,
) -> (u32, Rig) {
    let mut rig = Rig::branch();
    // Made-up sources would not get as far as a neighbour.
    rig.change(|n| n.ports[scanner_port.index()].reverse_path = ReversePath::Off);
    let mut asked = 0;
    let victim = if v6 { "2001:db8:4::10" } else { "192.168.2.10" };
    for ms in 0..2000u32 {
        rig.now = rig.now + Duration::from_millis(1);
        for k in 0..packets / 1000 {
            let n = ms * (packets / 1000) + k;
            let (src, dst) = (source(n), format!("192.168.1.{}", 20 + n % 230));
            let dst = if v6 { format!("2001:db8:1::{:x}:{:x}", 1 + n / 60_000, n % 60_000) } else { dst };
            rig.send(&Pkt::udp(&src, &dst, 7, n as u16).into_port(scanner_port));
        }
        let requests = rig.requests();
        asked += requests.len() as u32;
        if ms % 100 == 50 {
            let i = ms / 100;
            let dst = if v6 { format!("2001:db8:1::f:{i:x}") } else { format!("192.168.1.{}", 12 + i % 8) };
            let verdict = rig.send(&Pkt::udp(victim, &dst, 1000 + i as u16, 9).into_port(LAN2));
            let to = dst.parse().unwrap();
            assert_eq!(verdict, Outcome::Held, "{dst} after {ms} ms");
            assert!(rig.requests().contains(&(LAN, to)), "{dst} is asked for");
            // It answers.
            rig.net.neighbor(LAN, &dst);
            rig.poll();
            assert!(rig.emitted().iter().any(|(port, _)| *port == LAN), "{dst} gets its packet");
            rig.net.unresolve(LAN, &dst);
        }
        rig.poll();
        rig.emitted();
    }
    (asked, rig)
}

/// One host scans the others' networks: it is asked for its share of addresses, and others find theirs.
#[test]
fn a_scan_by_one_host_leaves_room_for_others() {
    for (v6, scanner) in [(false, "192.168.2.11"), (true, "2001:db8:4::11")] {
        let (asked, rig) = beside_a_scan(v6, 5_000, |_| scanner.into(), LAN2);
        let rate = RequestRates::default().of_source();
        assert!(asked <= rate.burst + 2 * rate.per_second + 30, "{asked} requests");
        assert!(rig.drops(LAN2, DropReason::NeighborRateLimit) > 0);
    }
}

/// Strangers with made-up sources scan by the WAN port, and by the very port of the victim.
#[test]
fn a_scan_by_strangers_leaves_room_for_neighbours() {
    let made_up4 = |n: u32| format!("198.18.{}.{}", n / 250 % 250, 1 + n % 250);
    let made_up6 = |n: u32| format!("2001:db8:{:x}::1", 0x100 + n % 60_000);
    let rate = RequestRates::default().of_port();
    for port in [WAN, LAN2] {
        let (asked, _) = beside_a_scan(false, 5_000, made_up4, port);
        assert!(asked <= rate.burst + 2 * rate.per_second + 30, "{asked} requests");
        let (asked, rig) = beside_a_scan(true, 5_000, made_up6, port);
        assert!(asked <= rate.burst + 2 * rate.per_second + 30, "{asked} requests");
        assert!(rig.drops(port, DropReason::NeighborRateLimit) > 0);
    }
}

/// Somebody on the Internet scans a LAN by made-up sources, one for each packet, and takes all that strangers may have. Hosts
/// there with sessions are asked for at once; those that have none come back after a second, as TCP does, and get through.
#[test]
fn a_scan_by_made_up_sources_leaves_room_for_other_strangers() {
    for (rate, known_host, server) in [(4, "2001:db8:5:1::7", "2001:db8:1::10"), (30, "198.51.100.7", HOST)] {
        let v6 = server.contains(':');
        let mut rig = Rig::branch();
        rig.change(|n| n.ports[WAN.index()].reverse_path = ReversePath::Off);
        let silent = |n: u32| match v6 {
            true => format!("2001:db8:1::f:{n:x}"),
            false => format!("192.168.1.{}", 12 + n % 8),
        };
        let fresh = |n: u32| match v6 {
            true => format!("2001:db8:6:{n:x}::9"),
            false => format!("100.64.{}.{}", n / 250, 1 + n % 250),
        };
        // One stranger has a session with an answer.
        assert!(rig.send(&Pkt::udp(known_host, server, 5, 6).into_port(WAN)).is_tx());
        assert!(rig.send(&Pkt::udp(server, known_host, 6, 5)).is_tx());
        let (mut n, mut waiting, mut opened, mut begun) = (0u32, Vec::<(u64, u32)>::new(), 0, 0);
        for ms in 0..6_500u64 {
            rig.now = rig.now + Duration::from_millis(1);
            for _ in 0..rate {
                n += 1;
                let (src, dst) = match v6 {
                    true => (
                        format!("2001:db8:7{:02x}:{:x}::1", n >> 16, n & 0xFFFF),
                        format!("2001:db8:1::{n:x}:1"),
                    ),
                    false => {
                        (format!("101.{}.{}.1", n >> 8 & 255, n & 255), format!("192.168.1.{}", 20 + n % 230))
                    }
                };
                rig.send(&Pkt::udp(&src, &dst, 7, 9).into_port(WAN));
            }
            if ms % 100 == 50 && (1_000..3_500).contains(&ms) {
                let i = (ms / 100) as u32;
                let to = silent(i);
                assert_eq!(
                    rig.send(&Pkt::udp(known_host, &to, 1000 + i as u16, 9).into_port(WAN)),
                    Outcome::Held
                );
                rig.net.neighbor(LAN, &to);
                rig.poll();
                rig.net.unresolve(LAN, &to);
                begun += 1;
                waiting.push((ms + 20, i));
            }
            rig.requests();
            let mut still = Vec::new();
            for (since, i) in waiting {
                let to = silent(i + if v6 { 1000 } else { 0 });
                let due = ms >= since && ms - since <= 3_000 && (ms - since) % 1000 == 0;
                let p = Pkt::udp(&fresh(i), &to, 1000, 9).into_port(WAN);
                if due && rig.send(&p) == Outcome::Held {
                    assert!(rig.requests().contains(&(LAN, to.parse().unwrap())));
                    rig.net.neighbor(LAN, &to);
                    rig.poll();
                    rig.net.unresolve(LAN, &to);
                    opened += 1;
                } else {
                    still.push((since, i));
                }
            }
            waiting = still;
            rig.poll();
            rig.emitted();
        }
        assert!(rig.drops(WAN, DropReason::NeighborRateLimit) > 1000);
        assert!(opened * 100 >= begun * 95, "{opened} of {begun} beside {rate},000 a second");
    }
}

/// A router, and the far end of a session, is asked for whatever is scanned.
#[test]
fn routers_are_asked_for_during_a_scan() {
    let mut rig = Rig::branch();
    let p = Pkt::udp("192.168.2.11", FAR, 1, 2).into_port(LAN2);
    assert!(rig.send(&p).is_tx());
    for i in 0..2000 {
        rig.send(&scan(11, i % 200));
        rig.requests();
    }
    assert!(rig.drops(LAN2, DropReason::NeighborRateLimit) > 0);
    rig.net.unresolve(WAN, ROUTER);
    // The scanner's own session: its place in the queue is taken, but its router is asked for.
    rig.send(&p);
    assert_eq!(rig.requests(), [(WAN, ROUTER.parse().unwrap())]);
}

/// A worker that still goes by old routes while generations are raised for new ones: what it writes must not count as
/// made by the new ones.
#[test]
fn old_routes_do_not_stamp_a_new_generation() {
    for (host, far, router) in [(HOST, FAR, ROUTER), ("2001:db8:1::10", "2001:db8:99::7", "2001:db8:2::1")] {
        let mut rig = Rig::branch();
        let p = Pkt::udp(host, far, 1, 2);
        assert!(rig.send(&p).is_tx());
        assert!(rig.send(&p).is_tx());
        let before = rig.pipe.counters.packets.get();
        // The new routes are published and generations raised, but this worker is in its round.
        rig.net.reroute();
        assert_eq!(rig.send(&p), Outcome::Tx(WAN, forwarded(&p, WAN, router)), "by the old route");
        assert!(rig.pipe.counters.packets.get() > before);
        // With its next round it has them: the flow must look its route up again.
        rig.net
            .route(if host.contains(':') { "2001:db8:99::/48" } else { "198.51.100.0/24" }, Route::Blackhole);
        rig.snap = rig.net.snapshot();
        assert_eq!(rig.send(&p), Outcome::Drop(DropReason::RouteBlackhole));
    }
}

#[test]
fn an_established_flow_whose_neighbour_goes_away() {
    let mut rig = Rig::branch();
    let p = Pkt::udp(HOST, FAR, 1, 2);
    assert!(rig.send(&p).is_tx());
    assert!(rig.send(&p).is_tx());
    rig.net.unresolve(WAN, ROUTER);
    assert_eq!(rig.send(&p), Outcome::Held);
    rig.net.neighbor(WAN, ROUTER);
    rig.poll();
    assert_eq!(rig.emitted(), [(WAN, forwarded(&p, WAN, ROUTER))]);
    assert!(rig.send(&p).is_tx());
    assert_eq!(rig.sessions(), (1, 0));
    assert_eq!(rig.pipe.counters.sessions_created.get(), 1);
}

#[test]
fn the_world_changes_while_a_packet_waits() {
    // The route moves to another unresolved next hop: it goes on waiting, for that one.
    let mut rig = unresolved();
    let p = Pkt::udp(HOST, FAR, 1, 2);
    assert_eq!(rig.send(&p), Outcome::Held);
    rig.requests();
    rig.commit(|n| {
        n.via("198.51.100.0/24", LINE, "192.0.2.77");
        n.neighbor(WAN, ROUTER);
    });
    rig.poll();
    assert_eq!(rig.emitted(), []);
    assert_eq!(rig.requests(), [(LINE, "192.0.2.77".parse().unwrap())]);
    rig.change(|n| {
        n.neighbor(LINE, "192.0.2.77");
    });
    rig.poll();
    assert_eq!(rig.emitted(), [(LINE, forwarded(&p, LINE, "192.0.2.77"))]);
    // The route goes away.
    let mut rig = unresolved();
    assert_eq!(rig.send(&p), Outcome::Held);
    rig.commit(|n| {
        n.neighbor(WAN, ROUTER);
        n.routes.retain(|r| r.0.1 != 0);
    });
    rig.poll();
    assert_eq!(rig.drops(LAN, DropReason::NoRoute), 1);
    assert_eq!(rig.emitted().len(), 1);
    // The destination becomes the gateway's own: the copy cannot go to the kernel any more.
    let mut rig = unresolved();
    assert_eq!(rig.send(&p), Outcome::Held);
    rig.commit(|n| {
        n.neighbor(WAN, ROUTER);
        n.ports[1].addrs4.push((FAR.parse().unwrap(), 32));
    });
    rig.poll();
    assert_eq!(rig.pipe.counters.port(LAN).to_kernel.get(), 0);
    assert_eq!(rig.drops(LAN, DropReason::NoKernelPath), 1);
}

#[test]
fn refused_by_the_device_when_released() {
    let mut rig = unresolved();
    assert_eq!(rig.send(&Pkt::udp(HOST, FAR, 1, 2)), Outcome::Held);
    rig.net.neighbor(WAN, ROUTER);
    rig.sent.refuse = true;
    rig.poll();
    assert_eq!(rig.drops(LAN, DropReason::TxRingFull), 1);
    assert_eq!(rig.pipe.counters.port(WAN).tx_packets.get(), 0);
}

#[test]
fn too_large_to_hold() {
    let mut net = Net::branch();
    for port in [LAN, WAN] {
        net.set_mtu(port, 9000);
    }
    net.unresolve(WAN, ROUTER);
    let mut rig = Rig::new(net);
    let p = Pkt::udp(HOST, FAR, 1, 2).payload(8000);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::NeighborQueueFull));
    assert!(rig.now > Nanos::ZERO);
}
