//! RFC 4787.

use crate::kit::*;
use sag_model::{DropReason, config};
use sag_packet::proto::*;
use sag_pipeline::nat::{Kind, NatProtocol};
use sag_pipeline::policy::Class;

#[test]
pub fn mapping_is_endpoint_independent() {
    assert_eq!(default_behavior().0, Ei);
    let mut r = nat();
    // Taken, so that what follows is not the port that everybody keeps.
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 1));
    let first = out(&mut r, &Pkt::udp(HOST, FAR, 4000, 1000));
    assert_ne!(first.port, 4000);
    for (far, port) in [(FAR, 1000), (FAR, 2000), (FAR2, 1000), (FAR2, 9)] {
        assert_eq!(out(&mut r, &Pkt::udp(HOST, far, 4000, port)), first, "to {far}:{port}");
    }
    assert_eq!(pool(&r).bindings(NatProtocol::Udp).count(), 2, "a binding of each host");
}

#[test]
pub fn a_host_has_one_outside_address() {
    // Two entries with an address each: a host's sessions of every protocol use one of them.
    let mut n = net();
    n.snat("192.168.1.0/24", "10.99.0.1", Ei, Ad).snat("192.168.2.0/24", "10.99.0.2", Ei, Ad);
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    for (host, near) in [(HOST, "10.99.0.1"), (HOST2, "10.99.0.1"), (HOST3, "10.99.0.2")] {
        for i in 0..20 {
            for (to, addr) in [("10.20.0.5", near), (FAR, WAN_IP)] {
                let flows = [
                    Pkt::udp(host, to, 5000 + i, 53),
                    Pkt::tcp(host, to, 5000 + i, 80, SYN),
                    Pkt::echo(host, to, 5000 + i, false),
                ];
                for p in flows {
                    assert_eq!(out(&mut r, &p).addr.to_string(), addr);
                }
            }
        }
    }
}

#[test]
pub fn a_pool_pairs_hosts_with_addresses() {
    let mut n = net();
    n.wan_pool("192.168.0.0/16", &["198.18.7.1", "198.18.7.2", "198.18.7.3"], Pooling::Paired, false);
    let mut r = Rig::new(n);
    let mut used = std::collections::BTreeSet::new();
    for host in (20..40).map(|i| format!("192.168.1.{i}")) {
        let all: std::collections::BTreeSet<_> = (0..10)
            .flat_map(|i| {
                let to = format!("198.51.100.{i}");
                let udp = Pkt::udp(&host, &to, 5000 + i, 53);
                [udp, Pkt::tcp(&host, FAR, 5000 + i, 80, SYN), Pkt::echo(&host, &to, 5000 + i, false)]
            })
            .map(|p| out(&mut r, &p).addr)
            .collect();
        assert_eq!(all.len(), 1, "{host}: {all:?}");
        used.extend(all);
    }
    assert_eq!(used.len(), 3, "hosts are spread");
}

#[test]
pub fn no_port_has_two_hosts() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.nat.limits.range = 2000..=2063;
    let mut r = Rig::new(n);
    // One more than there are ports: every one of them wants the same.
    let mut given = Vec::new();
    for i in 0..64 {
        let p = Pkt::udp([HOST, HOST2, HOST3][i % 3], FAR, 2000 + i as u16 / 3, 53);
        given.push((p.clone(), out(&mut r, &p)));
    }
    let late = Pkt::udp(HOST, FAR, 7777, 53);
    refused(&mut r, &late, DropReason::SnatExhausted);
    let mut ports: Vec<_> = given.iter().map(|g| g.1).collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 64, "each port once");
    // Those that were there before keep what they have, in both directions.
    for (p, external) in &given {
        assert_eq!(out(&mut r, p), *external);
        let (inside, far) = ends4(&p.build());
        becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 53, external.port), far, inside);
    }
}

#[test]
pub fn port_ranges_are_kept_apart() {
    for port in [1, 123, 500, 1023, 1024, 5060, 49152, 65535] {
        // Each with a pool of its own: a port that is drawn for one may be another's.
        let mut r = nat();
        assert_eq!(out(&mut r, &Pkt::udp(HOST, FAR, port, 53)).port, port, "kept if it is free");
        for host in [HOST2, HOST3] {
            let other = out(&mut r, &Pkt::udp(host, FAR, port, 53)).port;
            assert_ne!(other, port);
            assert_eq!(other < 1024, port < 1024, "{other} for {port}");
        }
    }
}

#[test]
pub fn parity_is_preserved() {
    let mut r = nat();
    for i in 0..40 {
        let port = 16384 + i;
        for host in [HOST, HOST2, HOST3] {
            let external = out(&mut r, &Pkt::udp(host, FAR, port, 5004)).port;
            assert_eq!(external % 2, port % 2, "{external} for {port}");
        }
    }
}

#[test]
pub fn mappings_last_five_minutes() {
    assert!(config::Timeouts::default().udp >= 5 * 60);
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    assert!(still(&mut r, NatProtocol::Udp, 4000, secs(299)));
    assert!(!still(&mut r, NatProtocol::Udp, 4000, secs(2)));
    // Whatever the port: also towards well-known ones.
    out(&mut r, &Pkt::udp(HOST, FAR, 4001, 5000));
    assert!(still(&mut r, NatProtocol::Udp, 4001, secs(299)));
}

#[test]
pub fn the_timer_is_configurable() {
    let toml =
        |udp| format!("[timeouts]\nudp = {udp}\n[[port]]\nname = \"0\"\ndevice = \"eth1\"\nrole = \"lan\"\n");
    let read = |udp| config::parse(&toml(udp), "test.toml").expect("a valid file");
    let mut n = net();
    n.options.timeouts = timeouts(read(130).config.timeouts);
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    assert!(still(&mut r, NatProtocol::Udp, 4000, secs(129)));
    assert!(!still(&mut r, NatProtocol::Udp, 4000, secs(2)));
    assert!(read(120).warnings.is_empty());
    assert!(!read(119).warnings.is_empty(), "less than the RFC asks for is warned of");
}

#[test]
pub fn outbound_packets_refresh() {
    let mut r = nat();
    for _ in 0..5 {
        out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
        assert!(still(&mut r, NatProtocol::Udp, 4000, secs(200)));
    }
}

#[test]
pub fn inbound_packets_refresh() {
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    for _ in 0..5 {
        assert!(still(&mut r, NatProtocol::Udp, 4000, secs(200)));
        becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 53, 4000), end(FAR, 53), end(HOST, 4000));
    }
}

#[test]
pub fn filtering_is_one_of_the_recommended() {
    assert_eq!(default_behavior().1, Ad);
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 1000));
    for port in [1000, 2000, 53] {
        becomes(&mut r, &Pkt::udp(FAR, WAN_IP, port, 4000), end(FAR, port), end(HOST, 4000));
    }
    silently_refused(&mut r, &Pkt::udp(FAR2, WAN_IP, 1000, 4000), DropReason::NatFiltered);
    // It has been sent to now.
    out(&mut r, &Pkt::udp(HOST, FAR2, 4000, 7));
    becomes(&mut r, &Pkt::udp(FAR2, WAN_IP, 1000, 4000), end(FAR2, 1000), end(HOST, 4000));
}

#[test]
pub fn filtering_is_configurable() {
    for (filtering, other_port, other_address) in [(Ei, true, true), (Ad, true, false), (Apd, false, false)] {
        let mut r = nat_as(Ei, filtering);
        out(&mut r, &Pkt::udp(HOST, FAR, 4000, 1000));
        becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 1000, 4000), end(FAR, 1000), end(HOST, 4000));
        for (far, port, admitted) in [(FAR, 2000, other_port), (FAR2, 1000, other_address)] {
            let p = Pkt::udp(far, WAN_IP, port, 4000);
            match admitted {
                true => becomes(&mut r, &p, end(far, port), end(HOST, 4000)),
                false => silently_refused(&mut r, &p, DropReason::NatFiltered),
            }
        }
    }
}

#[test]
pub fn hairpin() {
    assert!(config::Nat::default().hairpin);
    // To a host that has sent to the Internet, whatever its filter says of the outside.
    for filter in [Ei, Ad, Apd] {
        hairpin_past(filter);
    }
}

fn hairpin_past(filter: sag_pipeline::nat::Behavior) {
    let mut r = nat_as(Ei, filter);
    let a = out(&mut r, &Pkt::udp(HOST, FAR, 4000, 3478));
    let b = out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 3478));
    assert_ne!(a, b);
    for _ in 0..2 {
        // Each sees the other's outside endpoint, the very one that the rest of the world sees.
        becomes(&mut r, &Pkt::udp(HOST, WAN_IP, 4000, b.port), a, end(HOST2, 4000));
        becomes(&mut r, &Pkt::udp(HOST2, WAN_IP, 4000, a.port), b, end(HOST, 4000));
    }
    // Across LANs, and to oneself.
    becomes(&mut r, &Pkt::udp(HOST3, WAN_IP, 5001, a.port), end(WAN_IP, 5001), end(HOST, 4000));
    becomes(&mut r, &Pkt::udp(HOST, WAN_IP, 6000, a.port), end(WAN_IP, 6000), end(HOST, 4000));
}

/// A gateway with two addresses on the WAN port, one of which the router is beside, a forward on both, hosts with addresses
/// of their own, and source NAT to the leased line.
fn several_addresses() -> Rig {
    let mut n = net();
    n.ports[WAN.index()].addrs4.insert(0, ("198.18.7.2".parse().unwrap(), 24));
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((UDP, 8000, 8010, 53)));
    n.dnat(Kind::Internet, "203.0.113.50", HOST2, None);
    n.dnat(Kind::Intranet, "192.0.2.50", HOST2, None);
    n.snat("192.168.2.0/24", "192.0.2.77", Ei, Ad);
    Rig::new(n)
}

#[test]
pub fn hairpin_shows_the_address_that_the_internet_sees() {
    let mut r = several_addresses();
    let c = out(&mut r, &Pkt::udp(HOST3, FAR, 4000, 3478));
    assert_eq!(c, end(WAN_IP, 4000));
    // By whichever address another host is called, and whether it is forwarded, bound or an address of its own.
    becomes(&mut r, &Pkt::udp(HOST3, "198.18.7.2", 4000, 8005), c, end(HOST, 58));
    becomes(&mut r, &Pkt::udp(HOST, WAN_IP, 58, 4000), end("198.18.7.2", 8005), end(HOST3, 4000));
    // The same endpoint by another address, so that its answers must go to another port.
    let p = Pkt::udp(HOST3, WAN_IP, 4000, 8005);
    let again = ends4(r.send(&from_its_side(&p)).frame()).0;
    assert!(again.addr == c.addr && again.port != c.port && again.port.is_multiple_of(2), "{again:?}");
    becomes(&mut r, &p, again, end(HOST, 58));
    becomes(&mut r, &Pkt::udp(HOST, WAN_IP, 58, again.port), end(WAN_IP, 8005), end(HOST3, 4000));
    becomes(&mut r, &Pkt::udp(HOST3, "203.0.113.50", 4000, 7), c, end(HOST2, 7));
    let a = out(&mut r, &Pkt::udp(HOST, FAR, 6000, 3478));
    becomes(&mut r, &Pkt::udp(HOST3, WAN_IP, 4000, a.port), c, end(HOST, 6000));
    // The answer goes back to that endpoint.
    becomes(&mut r, &Pkt::udp(HOST, WAN_IP, 6000, 4000), a, end(HOST3, 4000));
    // A forwarded server calls from its forwarded port.
    becomes(&mut r, &Pkt::udp(HOST, "203.0.113.50", 58, 7), end(WAN_IP, 8005), end(HOST2, 7));
}

#[test]
pub fn hairpin_from_a_host_with_its_own_address() {
    let mut r = several_addresses();
    for (called, port) in [(WAN_IP, 4000), ("198.18.7.2", 4001)] {
        becomes(&mut r, &Pkt::udp(HOST2, called, port, 8005), end("203.0.113.50", port), end(HOST, 58));
        becomes(&mut r, &Pkt::udp(HOST, "203.0.113.50", 58, port), end(called, 8005), end(HOST2, port));
    }
    // To itself.
    becomes(&mut r, &Pkt::udp(HOST2, "203.0.113.50", 4000, 7), end("203.0.113.50", 4000), end(HOST2, 7));
}

#[test]
pub fn hairpin_by_an_address_of_the_leased_line() {
    let mut r = several_addresses();
    becomes(&mut r, &Pkt::udp(HOST3, "192.0.2.50", 4000, 7), end("192.0.2.77", 4000), end(HOST2, 7));
    // A host that has no address there shows the one that it calls: the answer must come back by the gateway.
    becomes(&mut r, &Pkt::udp(HOST, "192.0.2.50", 4000, 8), end("192.0.2.50", 4000), end(HOST2, 8));
}

#[test]
pub fn hairpin_to_a_port_forward() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((UDP, 8000, 8010, 53)));
    let mut r = Rig::new(n);
    becomes(&mut r, &Pkt::udp(HOST2, WAN_IP, 4000, 8005), end(WAN_IP, 4000), end(HOST, 58));
    becomes(&mut r, &Pkt::udp(HOST, WAN_IP, 58, 4000), end(WAN_IP, 8005), end(HOST2, 4000));
}

#[test]
pub fn addresses_in_the_payload_stay() {
    let mut r = nat();
    let sip = b"INVITE sip:b@198.51.100.7 SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060\r\nContact: <sip:a@192.168.1.10>\r\nc=IN IP4 192.168.1.10\r\n";
    let mut p = Pkt::udp(HOST, FAR, 5060, 5060);
    p.l4.truncate(8);
    p.l4.extend(sip);
    p.fix_l4();
    // `out` compares the payload as well. No port but the session's own is opened.
    out(&mut r, &p);
    assert_eq!(pool(&r).bindings(NatProtocol::Udp).count(), 1);
    let ftp = {
        let mut p = Pkt::tcp(HOST, FAR, 40000, 21, ACK);
        p.l4.truncate(20);
        p.l4.extend(b"PORT 192,168,1,10,156,65\r\n");
        p.fix_l4();
        p
    };
    out(&mut r, &ftp);
    assert_eq!(pool(&r).bindings(NatProtocol::Tcp).count(), 1);
    assert_eq!(r.sessions().0, 2);
}

#[test]
pub fn behaviour_does_not_depend_on_the_moment() {
    // With a conflict, with a pool that is almost empty, after a commit, after expiry: mapping and
    // filtering are the same.
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.nat.limits.range = 4000..=4003;
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 1));
    for round in 0..4 {
        let e = out(&mut r, &Pkt::udp(HOST, FAR, 4000, 1));
        assert_eq!(out(&mut r, &Pkt::udp(HOST, FAR2, 4000, 99)), e, "mapping in round {round}");
        for far in [FAR, FAR2] {
            becomes(&mut r, &Pkt::udp(far, WAN_IP, 77, e.port), end(far, 77), end(HOST, 4000));
        }
        refused(&mut r, &Pkt::udp(CORE, WAN_IP, 1, e.port), DropReason::NatFiltered);
        match round {
            0 => {
                out(&mut r, &Pkt::udp(HOST3, FAR, 4000, 1));
            }
            1 => r.commit(|_| {}),
            _ => r.wait(secs(301)),
        }
    }
}

#[test]
pub fn icmp_ends_no_mapping() {
    let mut r = nat();
    let p = Pkt::udp(HOST, FAR, 4000, 33434);
    let e = out(&mut r, &p);
    let wire = p.clone().between(e, end(FAR, 33434));
    for kind in [3, 4, 11, 12] {
        for code in 0..=15 {
            let error = error_about(&wire, CORE, (kind, code, 0), 28);
            error_becomes(&mut r, &error, &error_about(&p, CORE, (kind, code, 0), 28));
        }
    }
    assert!(bound(&r, NatProtocol::Udp, e.port));
    assert_eq!(out(&mut r, &p), e);
    becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 33434, e.port), end(FAR, 33434), end(HOST, 4000));
}

#[test]
pub fn icmp_is_not_filtered_by_its_source() {
    let mut r = nat_as(Apd, Apd);
    let p = Pkt::udp(HOST, FAR, 4000, 33434);
    let e = out(&mut r, &p);
    let wire = p.clone().between(e, end(FAR, 33434));
    for from in [CORE, ISP, FAR2, FAR] {
        error_becomes(
            &mut r,
            &error_about(&wire, from, (11, 0, 0), 28),
            &error_about(&p, from, (11, 0, 0), 28),
        );
    }
}

#[test]
pub fn too_big_is_told_to_the_host() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.set_mtu(WAN, 1400);
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53).df());
    let big = Pkt::udp(HOST, FAR, 4000, 53).payload(1400).df();
    refused(&mut r, &big, DropReason::MtuExceeded);
    let told = r.emitted();
    assert_eq!(told.len(), 1);
    let (port, frame) = &told[0];
    // To the host, about its own packet as it sent it, not as it would have left.
    let mut want = Pkt::icmp("192.168.1.1", HOST, 3, 4, 1400, &big.ip()[..576 - 28]);
    (want.id, want.frag, want.tos) = (0, 0x4000, 0xC0);
    want = want.link(host_mac(LAN, HOST), GATEWAY_MACS[0], 0);
    assert_eq!((*port, frame), (LAN, &want.build()));
}

/// The fragments that a rig has made: put together, and in order.
fn reassembled(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut data = Vec::new();
    for (i, f) in frames.iter().enumerate() {
        let ip = &f[14..];
        assert_eq!(checksum(&[&ip[..20]]), 0);
        let word = u16::from_be_bytes([ip[6], ip[7]]);
        assert_eq!(usize::from(word & 0x1FFF) * 8, data.len(), "in order");
        assert_eq!(word & 0x2000 != 0, i + 1 < frames.len());
        data.extend_from_slice(&ip[20..]);
    }
    data
}

#[test]
pub fn too_big_is_split() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.set_mtu(WAN, 1400);
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 53));
    let big = Pkt::udp(HOST, FAR, 4000, 53).payload(3000);
    for _ in 0..2 {
        assert_eq!(r.send(&big), Outcome::Emitted);
        let frames: Vec<_> = r.emitted().into_iter().map(|(_, f)| f).collect();
        assert_eq!(frames.len(), 3);
        let external = ends4(&frames[0]).0;
        assert_ne!(external.port, 4000);
        for f in &frames {
            assert_eq!(ends4(f).0.addr, external.addr, "every fragment is translated");
            assert_eq!(&f[30..34], &[198, 51, 100, 7]);
        }
        assert_eq!(reassembled(&frames), big.clone().between(external, end(FAR, 53)).l4);
    }
}

/// The fragments of a datagram, each with what must become of it between other endpoints.
fn fragments(p: &Pkt, src: sag_pipeline::nat::Endpoint, dst: sag_pipeline::nat::Endpoint) -> Vec<(Pkt, Pkt)> {
    let whole = p.clone().between(src, dst);
    (0..p.l4.len()).step_by(480).map(|at| (p.fragment(at, 480), whole.fragment(at, 480))).collect()
}

#[track_caller]
fn fragment_becomes(r: &mut Rig, p: &Pkt, want: &Pkt) {
    let (port, via) = way_to(&want.dst.to_string());
    match r.send(&from_its_side(p)) {
        Outcome::Tx(to, f) => {
            let want = left(p, want.clone(), &f).forwarded(port, &via);
            assert_eq!((to, f), (port, want), "{p:?}");
        }
        other => panic!("{other:?}: {p:?}"),
    }
}

#[test]
pub fn fragments_in_order() {
    for proto in [UDP, TCP, ICMP] {
        let mut r = nat();
        let far = |port| end(FAR, if proto == ICMP { 0 } else { port });
        let kind = |src: &str, dst: &str, a, b, reply| match proto {
            UDP => Pkt::udp(src, dst, a, b).payload(2000),
            TCP => Pkt::tcp(src, dst, a, b, ACK).payload(2000),
            _ => Pkt::echo(src, dst, if reply { b } else { a }, reply).payload(2000),
        };
        out(&mut r, &kind(HOST2, FAR, 4000, 53, false).payload(8));
        let ask = kind(HOST, FAR, 4000, 53, false);
        let external = out(&mut r, &ask.clone().payload(8));
        assert_ne!(external.port, 4000);
        for (p, want) in fragments(&ask, external, far(53)) {
            fragment_becomes(&mut r, &p, &want);
        }
        let answer = kind(FAR, WAN_IP, 53, external.port, true);
        for (p, want) in fragments(&answer, far(53), end(HOST, 4000)) {
            fragment_becomes(&mut r, &p, &want);
        }
    }
}

/// Sends the fragments in this order; all must leave translated, none twice, the first one first.
#[track_caller]
fn in_order(r: &mut Rig, fragments: &[(Pkt, Pkt)], order: &[usize]) {
    let (port, via) = way_to(&fragments[0].1.dst.to_string());
    let mut sent = Vec::new();
    for &i in order {
        match r.send(&from_its_side(&fragments[i].0)) {
            Outcome::Tx(p, f) => sent.push((p, f)),
            Outcome::Held | Outcome::Emitted => {}
            other => panic!("fragment {i} of {order:?}: {other:?}"),
        }
        sent.extend(r.emitted());
    }
    let want = fragments.iter().map(|(p, w)| (port, left(p, w.clone(), &sent[0].1).forwarded(port, &via)));
    let mut want: Vec<_> = want.collect();
    assert_eq!(sent[0], want[0], "{order:?}");
    sent.sort();
    want.sort();
    assert_eq!(sent, want, "{order:?}");
}

#[test]
pub fn fragments_out_of_order() {
    for proto in [UDP, ICMP] {
        let mut r = nat();
        let far = end(FAR, if proto == ICMP { 0 } else { 53 });
        let ask = |host: &str| match proto {
            UDP => Pkt::udp(host, FAR, 4000, 53),
            _ => Pkt::echo(host, FAR, 4000, false),
        };
        out(&mut r, &ask(HOST2));
        let e = out(&mut r, &ask(HOST));
        let answer = match proto {
            UDP => Pkt::udp(FAR, WAN_IP, 53, e.port),
            _ => Pkt::echo(FAR, WAN_IP, e.port, true),
        };
        let orders = [[3, 2, 1, 0, 4], [4, 3, 2, 1, 0], [1, 0, 4, 3, 2], [0, 4, 1, 3, 2], [2, 0, 1, 4, 3]];
        for (n, order) in orders.iter().enumerate() {
            let (mut ask, mut answer) = (ask(HOST).payload(2000), answer.clone().payload(2000));
            (ask.id, answer.id) = (n as u16, n as u16);
            in_order(&mut r, &fragments(&ask, e, far), order);
            in_order(&mut r, &fragments(&answer, far, end(HOST, 4000)), order);
        }
    }
    // They may also begin the session.
    let mut r = nat();
    let ask = Pkt::udp(HOST, FAR, 4000, 53).payload(2000);
    in_order(&mut r, &fragments(&ask, end(WAN_IP, 4000), end(FAR, 53)), &[1, 2, 4, 3, 0]);
}

#[test]
pub fn fragments_begin_a_session() {
    let mut r = nat();
    let ask = Pkt::udp(HOST, FAR, 4000, 53).payload(2000);
    for (p, want) in fragments(&ask, end(WAN_IP, 4000), end(FAR, 53)) {
        fragment_becomes(&mut r, &p, &want);
    }
}

#[test]
pub fn a_flood_of_fragments_harms_nobody_else() {
    let mut r = nat();
    let whole = Pkt::udp(HOST, FAR, 4000, 53);
    let e = out(&mut r, &whole);
    // First fragments alone, later ones alone, from many senders.
    for id in 0..20_000 {
        let from = format!("198.18.{}.{}", id % 64, id % 50 + 1);
        let mut p = Pkt::udp(&from, WAN_IP, 9, e.port).payload(2000);
        p.id = id;
        r.send(&p.fragment(if id % 2 == 0 { 480 } else { 0 }, 480).into_port(WAN));
        if id % 100 == 0 {
            r.emitted();
            assert_eq!(out(&mut r, &whole), e);
            becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 53, e.port), end(FAR, 53), end(HOST, 4000));
            let mut answer = Pkt::udp(FAR, WAN_IP, 53, e.port).payload(2000);
            answer.id = id;
            for (p, want) in fragments(&answer, end(FAR, 53), end(HOST, 4000)) {
                fragment_becomes(&mut r, &p, &want);
            }
        }
    }
    assert_eq!(r.sessions().0, 1);
}

#[test]
pub fn a_checksum_that_is_not_there_is_not_made() {
    let mut r = nat();
    let mut p = Pkt::udp(HOST, FAR, 4000, 53);
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 53));
    let e = out(&mut r, &p);
    p.l4[6..8].fill(0);
    for _ in 0..2 {
        let o = r.send(&p);
        let mut want = p.clone().between(e, end(FAR, 53));
        want.l4[6..8].fill(0);
        assert_eq!(o.frame(), left(&p, want, o.frame()).forwarded(WAN, ISP));
    }
}

#[test]
pub fn a_refused_sender_refreshes_nothing() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ei);
    n.acl = Acl::new(true).rule(Class::InWan, false, "17 198.51.100.8/32 * * *");
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    for _ in 0..2 {
        assert!(still(&mut r, NatProtocol::Udp, 4000, secs(100)));
        refused(&mut r, &Pkt::udp(FAR2, WAN_IP, 1, 4000), DropReason::AclDenied);
    }
    assert!(!still(&mut r, NatProtocol::Udp, 4000, secs(101)));
    // Neither does one whom the filter does not admit.
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    for _ in 0..2 {
        assert!(still(&mut r, NatProtocol::Udp, 4000, secs(100)));
        refused(&mut r, &Pkt::udp(FAR2, WAN_IP, 1, 4000), DropReason::NatFiltered);
    }
    assert!(!still(&mut r, NatProtocol::Udp, 4000, secs(101)));
}
