//! ICMP errors: when, to whom, from which address, with which quote, how often, and when not.

use sag_model::{DropReason, MacAddr, PortIdx};
use sag_packet::proto::*;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;
use std::time::Duration;

const HOST4: &str = "192.168.1.10";
const HOST6: &str = "2001:db8:1::10";
const FAR4: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";

/// The error that must come back to `about`'s sender.
fn error(about: &Pkt, from: &str, (kind, code, word): (u8, u8, u32), port: PortIdx, next: &str) -> Vec<u8> {
    let v4 = about.src.is_ipv4();
    let packet = about.ip();
    let room = if v4 { 576 - 28 } else { 1280 - 48 };
    let quote = &packet[..packet.len().min(room)];
    let mut e = Pkt::icmp(from, &about.src.to_string(), kind, code, word, quote);
    e.id = 0;
    if v4 {
        (e.frag, e.tos) = (0x4000, 0xC0);
    }
    let vlan = if port == LAN2 { LAN2_VLAN } else { 0 };
    e.link(host_mac(port, next), GATEWAY_MACS[port.index()], vlan).build()
}

#[track_caller]
fn expect(rig: &mut Rig, pkt: &Pkt, reason: DropReason, port: PortIdx, want: Vec<u8>) {
    assert_eq!(rig.send(pkt), Outcome::Drop(reason));
    assert_eq!(rig.emitted(), [(port, want)]);
    assert_eq!(rig.sessions(), (0, 0), "a packet that is not forwarded makes no session");
}

#[test]
fn time_exceeded() {
    let mut rig = Rig::branch();
    for ttl in [0, 1] {
        let p = Pkt::udp(HOST4, FAR4, 33434, 33434).ttl(ttl);
        let want = error(&p, "192.168.1.1", (11, 0, 0), LAN, HOST4);
        expect(&mut rig, &p, DropReason::TtlExpired, LAN, want);
        let p = Pkt::udp(HOST6, FAR6, 33434, 33434).ttl(ttl);
        let want = error(&p, "2001:db8:1::1", (3, 0, 0), LAN, HOST6);
        expect(&mut rig, &p, DropReason::TtlExpired, LAN, want);
        let p = Pkt::udp("192.168.2.10", FAR4, 1, 2).ttl(ttl).into_port(LAN2);
        let want = error(&p, "192.168.2.1", (11, 0, 0), LAN2, "192.168.2.10");
        expect(&mut rig, &p, DropReason::TtlExpired, LAN2, want);
    }
    // An established flow's packet that runs out is reported as well.
    assert!(rig.send(&Pkt::udp(HOST4, FAR4, 5, 6)).is_tx());
    let p = Pkt::udp(HOST4, FAR4, 5, 6).ttl(1);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::TtlExpired));
    assert_eq!(rig.emitted(), [(LAN, error(&p, "192.168.1.1", (11, 0, 0), LAN, HOST4))]);
}

#[test]
fn from_beyond_a_router_with_a_link_local_address() {
    // The way back to the sender leads over a next hop known by its link-local address only; the
    // error must still come from an address that the sender can place.
    let mut net = Net::branch();
    net.via("2001:db8:77::/48", WAN, "fe80::77");
    net.neighbor(WAN, "fe80::77");
    let mut rig = Rig::new(net);
    let p = Pkt::udp("2001:db8:77::5", HOST6, 1, 2).ttl(1).into_port(WAN);
    let want = error(&p, "2001:db8:2::2", (3, 0, 0), WAN, "fe80::77");
    expect(&mut rig, &p, DropReason::TtlExpired, WAN, want);
}

#[test]
fn unreachable_by_route() {
    let mut net = Net::branch();
    net.route("100.64.1.0/24", Route::Blackhole);
    net.route("100.64.2.0/24", Route::Unreachable);
    net.route("100.64.3.0/24", Route::Prohibit);
    net.route("100.64.4.0/24", Route::NotOurs);
    net.route("100.64.5.0/24", Route::Via(vec![]));
    net.route("100.64.6.0/24", Route::Via(vec![Member::port(PortIdx(40), None, 1)]));
    net.route("100.64.7.0/24", Route::Throw);
    for (i, kind) in [Route::Blackhole, Route::Unreachable, Route::Prohibit, Route::NotOurs, Route::Throw]
        .into_iter()
        .enumerate()
    {
        net.route(&format!("2001:db8:64:{}::/64", i + 1), kind);
    }
    net.routes.retain(|r| r.0.1 != 0);
    let mut rig = Rig::new(net);
    use DropReason::*;
    for (dst, reason, told) in [
        ("100.64.1.1", RouteBlackhole, None),
        ("100.64.2.1", RouteUnreachable, Some((3, 1, 0))),
        ("100.64.3.1", RouteProhibit, Some((3, 13, 0))),
        ("100.64.4.1", EgressNotOurs, None),
        ("100.64.5.1", NoRoute, Some((3, 0, 0))),
        ("100.64.6.1", EgressNotOurs, None),
        ("100.64.7.1", NoRoute, Some((3, 0, 0))),
        ("8.8.8.8", NoRoute, Some((3, 0, 0))),
        ("2001:db8:64:1::1", RouteBlackhole, None),
        ("2001:db8:64:2::1", RouteUnreachable, Some((1, 0, 0))),
        ("2001:db8:64:3::1", RouteProhibit, Some((1, 1, 0))),
        ("2001:db8:64:4::1", EgressNotOurs, None),
        ("2001:db8:64:5::1", NoRoute, Some((1, 0, 0))),
        (FAR6, NoRoute, Some((1, 0, 0))),
    ] {
        let (host, own) = if dst.contains(':') { (HOST6, "2001:db8:1::1") } else { (HOST4, "192.168.1.1") };
        let p = Pkt::udp(host, dst, 1, 2);
        assert_eq!(rig.send(&p), Outcome::Drop(reason), "{dst}");
        let want: Vec<_> = told.map(|k| (LAN, error(&p, own, k, LAN, host))).into_iter().collect();
        assert_eq!(rig.emitted(), want, "{dst}");
    }
}

#[test]
fn egress_down() {
    let mut net = Net::branch();
    net.ports[WAN.index()].up = false;
    let mut rig = Rig::new(net);
    let p = Pkt::udp(HOST4, FAR4, 1, 2);
    let want = error(&p, "192.168.1.1", (3, 1, 0), LAN, HOST4);
    expect(&mut rig, &p, DropReason::EgressDown, LAN, want);
    let p = Pkt::udp(HOST6, FAR6, 1, 2);
    let want = error(&p, "2001:db8:1::1", (1, 3, 0), LAN, HOST6);
    expect(&mut rig, &p, DropReason::EgressDown, LAN, want);
}

#[test]
fn too_big() {
    let mut net = Net::branch();
    net.set_mtu(WAN, 1400);
    let mut rig = Rig::new(net);
    let fits = Pkt::udp(HOST4, FAR4, 1, 2).df().payload(1372);
    assert!(rig.send(&fits).is_tx());
    // First and established packets alike.
    for len in [1373, 1472] {
        let p = Pkt::udp(HOST4, FAR4, 1, 2).df().payload(len);
        assert_eq!(rig.send(&p), Outcome::Drop(DropReason::MtuExceeded));
        assert_eq!(rig.emitted(), [(LAN, error(&p, "192.168.1.1", (3, 4, 1400), LAN, HOST4))]);
        let p = Pkt::udp(HOST6, FAR6, 1, 2).payload(len - 20);
        assert_eq!(rig.send(&p), Outcome::Drop(DropReason::MtuExceeded));
        assert_eq!(rig.emitted(), [(LAN, error(&p, "2001:db8:1::1", (2, 0, 1400), LAN, HOST6))]);
    }
    // A fragment of a larger datagram with DF set is reported like any other.
    let p = Pkt::udp(HOST4, FAR4, 1, 2).df().payload(3000).fragment(0, 1480);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::MtuExceeded));
    assert_eq!(rig.emitted().len(), 1);
}

#[test]
fn a_route_can_have_a_smaller_mtu_than_its_port() {
    let mut net = Net::branch();
    let via = Some("203.0.113.1".parse().unwrap());
    net.route("198.51.100.0/24", Route::Via(vec![Member { mtu: 1300, ..Member::port(WAN, via, 1) }]));
    let mut rig = Rig::new(net);
    assert!(rig.send(&Pkt::udp(HOST4, FAR4, 1, 2)).is_tx());
    assert!(rig.send(&Pkt::udp(HOST4, FAR4, 1, 2)).is_tx());
    // The flow is established now; its large packet must still be refused.
    let p = Pkt::udp(HOST4, FAR4, 1, 2).df().payload(1273);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::MtuExceeded));
    assert_eq!(rig.emitted(), [(LAN, error(&p, "192.168.1.1", (3, 4, 1300), LAN, HOST4))]);
    assert!(rig.send(&Pkt::udp(HOST4, FAR4, 1, 2).df().payload(1272)).is_tx());
}

#[test]
fn quotes_are_as_long_as_they_may_be() {
    let mut rig = Rig::branch();
    for len in [0, 1, 500, 519, 520, 521, 1400] {
        let p = Pkt::udp(HOST4, FAR4, 1, 2).payload(len).ttl(1);
        rig.send(&p);
        assert_eq!(rig.emitted(), [(LAN, error(&p, "192.168.1.1", (11, 0, 0), LAN, HOST4))], "{len}");
        let p = Pkt::udp(HOST6, FAR6, 1, 2).payload(len).ttl(1).padded(5);
        let want = error(&p.clone().padded(0), "2001:db8:1::1", (3, 0, 0), LAN, HOST6);
        rig.send(&p);
        assert_eq!(rig.emitted(), [(LAN, want)], "{len}");
    }
}

#[test]
fn never_about_these() {
    let mut rig = Rig::branch();
    let quoted = Pkt::udp(FAR4, HOST4, 1, 2).ip();
    let quoted6 = Pkt::udp(FAR6, HOST6, 1, 2).ip();
    for kind in [3, 4, 11, 12] {
        let p = Pkt::icmp(HOST4, FAR4, kind, 0, 0, &quoted).ttl(1);
        assert_eq!(rig.send(&p), Outcome::Drop(DropReason::TtlExpired));
    }
    for kind in [1, 2, 3, 4, 127] {
        let p = Pkt::icmp(HOST6, FAR6, kind, 0, 0, &quoted6).ttl(1);
        assert_eq!(rig.send(&p), Outcome::Drop(DropReason::TtlExpired));
    }
    let big = Pkt::udp(HOST4, FAR4, 1, 2).payload(64);
    assert!(rig.send(&big.fragment(0, 16)).is_tx());
    assert_eq!(rig.send(&big.fragment(16, 16).ttl(1)), Outcome::Drop(DropReason::TtlExpired));
    assert_eq!(rig.send(&Pkt::udp("127.0.0.1", FAR4, 1, 2).ttl(1)), Outcome::Drop(DropReason::SourceMartian));
    assert_eq!(rig.emitted(), [], "no error about any of these");
    // Echo requests and replies and first fragments are told.
    let first = Pkt { id: 9, ..big }.fragment(0, 16);
    for p in [Pkt::echo(HOST4, FAR4, 1, false), Pkt::echo(HOST6, FAR6, 1, true), first] {
        rig.send(&p.ttl(1));
        assert_eq!(rig.emitted().len(), 1);
    }
}

#[test]
fn no_more_than_the_rate_allows() {
    let mut net = Net::branch();
    net.options.icmp_rate = 100;
    let mut rig = Rig::new(net);
    let p = Pkt::udp(HOST4, FAR4, 1, 2).ttl(1);
    let other = Pkt::udp("192.168.2.10", FAR4, 1, 2).ttl(1).into_port(LAN2);
    for _ in 0..100 {
        rig.send(&p);
    }
    let burst = rig.emitted().len() as u64;
    assert!((10..=12).contains(&burst), "{burst}");
    assert_eq!(rig.pipe.counters.port(LAN).icmp_suppressed.get(), 100 - burst);
    rig.send(&other);
    assert_eq!(rig.emitted().len(), 1, "every port has a rate of its own");
    for _ in 0..1000 {
        rig.now = rig.now + Duration::from_millis(1);
        rig.send(&p);
    }
    let steady = rig.emitted().len();
    assert!((99..=111).contains(&steady), "{steady}");
    rig.change(|n| n.options.icmp_rate = 0);
    rig.now = rig.now + Duration::from_secs(10);
    rig.send(&p);
    assert_eq!(rig.emitted(), [], "rate 0 turns them off");
}

#[test]
fn with_nowhere_to_send_it() {
    // The sender's address leads nowhere: back to where the packet came from. A reverse-path check would refuse it.
    let mut net = Net::branch();
    net.routes.retain(|r| r.0.1 != 0);
    net.ports[LAN.index()].reverse_path = sag_model::config::ReversePath::Off;
    let mut rig = Rig::new(net);
    let p = Pkt::udp("100.64.9.9", "100.65.1.1", 1, 2);
    rig.send(&p);
    let mut want = Pkt::icmp("192.168.1.1", "100.64.9.9", 3, 0, 0, &p.ip()).df().tos(0xC0);
    want.id = 0;
    let want = want.link(MacAddr([2, 0xFE, 0, 0, 0, 1]), GATEWAY_MACS[0], 0);
    assert_eq!(rig.emitted(), [(LAN, want.build())]);
    // The way back leads over a next hop that is not resolved: no error, counted.
    rig.change(|n| {
        n.via("100.64.0.0/16", WAN, "203.0.113.9");
    });
    rig.send(&p);
    assert_eq!(rig.emitted(), []);
    assert_eq!(rig.pipe.counters.port(LAN).icmp_suppressed.get(), 1);
    // ... or over a port that is down.
    rig.change(|n| {
        n.neighbor(WAN, "203.0.113.9");
        n.ports[WAN.index()].up = false;
    });
    rig.send(&p);
    assert_eq!(rig.emitted(), []);
    assert_eq!(rig.pipe.counters.port(LAN).icmp_suppressed.get(), 2);
    // A gateway without an address has nothing to speak from.
    rig.change(|n| {
        for p in &mut n.ports {
            p.addrs4.clear();
        }
        n.ports[WAN.index()].up = true;
    });
    rig.send(&p);
    assert_eq!(rig.emitted(), []);
}

#[test]
fn refused_by_the_device() {
    let mut rig = Rig::branch();
    rig.sent.refuse = true;
    rig.send(&Pkt::udp(HOST4, FAR4, 1, 2).ttl(1));
    assert_eq!(rig.pipe.counters.port(LAN).originated.get(), 0);
    assert_eq!(rig.pipe.counters.port(LAN).tx_packets.get(), 0);
}

#[test]
fn acl_denials_are_for_lan_hosts_to_know() {
    use sag_pipeline::policy::Class;
    let mut net = Net::branch();
    let port53 = "17 * * * 53-53";
    net.acl = Acl::new(true).rule(Class::OutWan, false, port53).rule(Class::InWan, false, port53);
    let mut rig = Rig::new(net);
    assert_eq!(rig.send(&Pkt::udp(HOST4, FAR4, 1, 53)), Outcome::Drop(DropReason::AclDenied));
    assert_eq!(rig.emitted().len(), 1);
    let from_outside = Pkt::udp(FAR4, HOST4, 1, 53).into_port(WAN);
    assert_eq!(rig.send(&from_outside), Outcome::Drop(DropReason::AclDenied));
    assert_eq!(rig.emitted(), []);
    rig.commit(|n| n.options.acl_reject = false);
    assert_eq!(rig.send(&Pkt::udp(HOST4, FAR4, 2, 53)), Outcome::Drop(DropReason::AclDenied));
    assert_eq!(rig.emitted(), []);
    let p = Pkt::tcp(HOST4, FAR4, 1, 53, TCP_SYN);
    assert!(rig.send(&p).is_tx());
}
