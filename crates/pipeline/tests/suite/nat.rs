//! Source and destination translation.

use sag_model::DropReason;
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Kind, NatProtocol};
use sag_testkit::*;
use std::time::Duration;

use Behavior::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei};

const HOST: &str = "192.168.1.10";
const HOST2: &str = "192.168.1.11";
const WAN_IP: &str = "203.0.113.2";
const FAR: &str = "198.51.100.7";
const FAR2: &str = "198.51.100.8";

/// Source and destination of a sent frame, addresses and ports.
fn ends(o: &Outcome) -> ((String, u16), (String, u16)) {
    let f = o.frame();
    let at = if f[12..14] == ETHERTYPE_VLAN.to_be_bytes() { 18 } else { 14 };
    let ip = &f[at..];
    let l4 = at + usize::from(ip[0] & 15) * 4;
    let addr = |i: usize| format!("{}.{}.{}.{}", ip[i], ip[i + 1], ip[i + 2], ip[i + 3]);
    let port = |i: usize| u16::from_be_bytes([f[l4 + i], f[l4 + i + 1]]);
    match ip[9] {
        ICMP => ((addr(12), port(4)), (addr(16), 0)),
        _ => ((addr(12), port(0)), (addr(16), port(2))),
    }
}

fn end(a: &str, p: u16) -> (String, u16) {
    (a.to_owned(), p)
}

fn masquerade(mapping: Behavior, filtering: Behavior) -> Rig {
    let mut n = Net::branch();
    n.wan_snat(WAN, mapping, filtering);
    Rig::new(n)
}

#[test]
fn out_and_back() {
    for (m, f) in [(Ei, Ei), (Ei, Ad), (Ei, Apd), (Ad, Ad), (Apd, Apd), (Apd, Ei)] {
        let mut r = masquerade(m, f);
        for _ in 0..3 {
            let o = r.send(&Pkt::udp(HOST, FAR, 4000, 53));
            assert_eq!(ends(&o), (end(WAN_IP, 4000), end(FAR, 53)), "the port is kept");
            let o = r.send(&Pkt::udp(FAR, WAN_IP, 53, 4000).into_port(WAN));
            assert_eq!(ends(&o), (end(FAR, 53), end(HOST, 4000)));
        }
        assert_eq!(r.sessions().0, 1);
    }
}

#[test]
fn two_hosts_with_one_port() {
    let mut r = masquerade(Ei, Ad);
    r.send(&Pkt::udp(HOST, FAR, 4000, 53));
    let o = r.send(&Pkt::udp(HOST2, FAR, 4000, 53));
    let ((addr, port), _) = ends(&o);
    assert_eq!(addr, WAN_IP);
    assert!(port != 4000 && port % 2 == 0 && port >= 1024, "another port of the same parity: {port}");
    let o = r.send(&Pkt::udp(FAR, WAN_IP, 53, port).into_port(WAN));
    assert_eq!(ends(&o), (end(FAR, 53), end(HOST2, 4000)));
}

#[test]
fn mapping_behaviour() {
    for (m, same_addr, same_all) in [(Ei, true, true), (Ad, false, true), (Apd, false, false)] {
        let mut r = masquerade(m, Ei);
        // Taken, so that a second port shows.
        r.send(&Pkt::udp(HOST2, FAR, 4000, 1));
        let port = |r: &mut Rig, far: &str, dport| ends(&r.send(&Pkt::udp(HOST, far, 4000, dport))).0.1;
        let first = port(&mut r, FAR, 1000);
        assert_eq!(port(&mut r, FAR, 1000), first);
        assert_eq!(port(&mut r, FAR, 2000) == first, same_all, "{m:?} same address, other port");
        assert_eq!(port(&mut r, FAR2, 1000) == first, same_addr, "{m:?} other address");
    }
}

#[test]
fn filtering_behaviour() {
    for (f, same_addr, any) in [(Ei, true, true), (Ad, true, false), (Apd, false, false)] {
        let mut r = masquerade(Ei, f);
        r.send(&Pkt::udp(HOST, FAR, 4000, 1000));
        let mut comes_in = |far: &str, sport| r.send(&Pkt::udp(far, WAN_IP, sport, 4000).into_port(WAN));
        assert!(comes_in(FAR, 1000).is_tx());
        let (a, b) = (comes_in(FAR, 2000), comes_in(FAR2, 1000));
        for (o, admitted) in [(a, same_addr), (b, any)] {
            match admitted {
                true => assert_eq!(ends(&o).1, end(HOST, 4000)),
                false => assert_eq!(o, Outcome::Drop(DropReason::NatFiltered)),
            }
        }
    }
}

#[test]
fn the_gateways_own_ports_are_its_own() {
    let mut r = masquerade(Ei, Ei);
    assert_eq!(r.send(&Pkt::tcp(FAR, WAN_IP, 50000, 22, TCP_SYN).into_port(WAN)), Outcome::Kernel);
    assert_eq!(r.send(&Pkt::udp(FAR, WAN_IP, 53, 40000).into_port(WAN)), Outcome::Kernel);
}

#[test]
fn bindings_end_with_their_sessions() {
    let mut r = masquerade(Ei, Ad);
    let pool = r.pipe.tables.nat.pool_of(WAN_IP.parse().unwrap()).unwrap().clone();
    for dport in 0..5 {
        r.send(&Pkt::udp(HOST, FAR, 4000, 1000 + dport));
    }
    assert_eq!(pool.bindings(NatProtocol::Udp).collect::<Vec<_>>().len(), 1);
    assert_eq!(pool.bindings(NatProtocol::Udp).next().unwrap().2, 5, "one binding for five sessions");
    r.wait(Duration::from_secs(301));
    assert_eq!(r.sessions().0, 0);
    assert_eq!(pool.bindings(NatProtocol::Udp).count(), 0);
    assert_eq!(r.pipe.tables.nat.hosts().all().count(), 0);
    assert_eq!(r.send(&Pkt::udp(FAR, WAN_IP, 1000, 4000).into_port(WAN)), Outcome::Kernel);
}

#[test]
fn port_forward_and_its_answers() {
    let mut n = Net::branch();
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((TCP, 8080, 8090, 80)));
    let mut r = Rig::new(n);
    let o = r.send(&Pkt::tcp(FAR, WAN_IP, 5000, 8083, TCP_SYN).into_port(WAN));
    assert_eq!(ends(&o), (end(FAR, 5000), end(HOST, 83)));
    let o = r.send(&Pkt::tcp(HOST, FAR, 83, 5000, TCP_SYN | TCP_ACK));
    assert_eq!(ends(&o), (end(WAN_IP, 8083), end(FAR, 5000)));
    // The server's own connections leave by the forwarded port.
    let o = r.send(&Pkt::tcp(HOST, FAR2, 83, 6000, TCP_SYN));
    assert_eq!(ends(&o), (end(WAN_IP, 8083), end(FAR2, 6000)));
    assert_eq!(r.send(&Pkt::tcp(FAR, WAN_IP, 5000, 8091, TCP_SYN).into_port(WAN)), Outcome::Kernel);
}

#[test]
fn hairpin() {
    let mut n = Net::branch();
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((TCP, 8080, 8080, 80)));
    let mut r = Rig::new(n);
    let o = r.send(&Pkt::tcp(HOST2, WAN_IP, 4000, 8080, TCP_SYN));
    assert_eq!(ends(&o), (end(WAN_IP, 4000), end(HOST, 80)), "the source is the external one");
    let o = r.send(&Pkt::tcp(HOST, WAN_IP, 80, 4000, TCP_SYN | TCP_ACK));
    assert_eq!(ends(&o), (end(WAN_IP, 8080), end(HOST2, 4000)));
    // To itself.
    let o = r.send(&Pkt::tcp(HOST, WAN_IP, 4001, 8080, TCP_SYN));
    assert_eq!(ends(&o), (end(WAN_IP, 4001), end(HOST, 80)));
    // Two hosts behind bindings: filters keep the outside out, not the neighbours.
    r.send(&Pkt::udp(HOST, FAR, 7000, 1));
    let o = r.send(&Pkt::udp(HOST2, WAN_IP, 7001, 7000));
    assert_eq!(ends(&o), (end(WAN_IP, 7001), end(HOST, 7000)));
    let denied = r.send(&Pkt::udp(FAR2, WAN_IP, 1, 7000).into_port(WAN));
    assert_eq!(denied, Outcome::Drop(DropReason::NatFiltered));
}

#[test]
fn private_snat_and_intranet_dnat() {
    let mut n = Net::branch();
    n.snat("192.168.0.0/16", "10.99.0.1", Ei, Ad).snat("192.168.1.11/32", "10.99.0.2", Ei, Ad);
    n.dnat(Kind::Intranet, "10.99.0.7", HOST, None);
    let mut r = Rig::new(n);
    let far = "10.20.0.5";
    assert_eq!(ends(&r.send(&Pkt::udp("192.168.2.10", far, 1, 2).into_port(LAN2))).0.0, "10.99.0.1");
    assert_eq!(ends(&r.send(&Pkt::udp(HOST2, far, 1024, 2))).0, end("10.99.0.2", 1024), "longest prefix");
    assert_eq!(ends(&r.send(&Pkt::udp(HOST, far, 99, 2))).0, end("10.99.0.7", 99), "its own address");
    let o = r.send(&Pkt::tcp(far, "10.99.0.7", 5, 22, TCP_SYN).into_port(LINE));
    assert_eq!(ends(&o).1, end(HOST, 22));
    let o = r.send(&Pkt::echo(far, "10.99.0.7", 7, false).into_port(LINE));
    assert_eq!(ends(&o).1.0, HOST);
    // Towards the Internet nothing is translated here, and nothing comes in by that address.
    assert_eq!(ends(&r.send(&Pkt::udp(HOST, FAR, 9, 9))).0, end(HOST, 9));
    let o = r.send(&Pkt::tcp(FAR, "10.99.0.7", 5, 22, TCP_SYN).into_port(WAN));
    assert_eq!(o, Outcome::Drop(DropReason::NatFiltered));
    let o = r.send(&Pkt::tcp(far, "10.99.0.1", 5, 22, TCP_SYN).into_port(LINE));
    assert_eq!(o, Outcome::Drop(DropReason::NatFiltered), "nobody has that port");
}

#[test]
fn host_limit_and_exhaustion() {
    let mut n = Net::branch();
    n.wan_snat(WAN, Ei, Ad);
    n.nat.limits.host_sessions = Some(3);
    n.nat.limits.range = 2000..=2007;
    let mut r = Rig::new(n);
    for p in 0..3 {
        assert!(r.send(&Pkt::udp(HOST, FAR, 4000 + p, 1)).is_tx());
    }
    assert_eq!(r.send(&Pkt::udp(HOST, FAR, 4003, 1)), Outcome::Drop(DropReason::SnatHostLimit));
    let told = r.emitted();
    assert_eq!((told.len(), told[0].1[34..36].to_vec()), (1, vec![3, 13]), "administratively prohibited");
    for (p, host) in [(0, HOST2), (1, HOST2), (2, HOST2), (0, "192.168.2.10"), (1, "192.168.2.10")] {
        let pkt = Pkt::udp(host, FAR, 5000 + p, 1);
        let pkt = if host == "192.168.2.10" { pkt.into_port(LAN2) } else { pkt };
        assert!(r.send(&pkt).is_tx(), "port {p} of {host}");
    }
    let pkt = Pkt::udp("192.168.2.10", FAR, 5002, 1).into_port(LAN2);
    assert_eq!(r.send(&pkt), Outcome::Drop(DropReason::SnatExhausted));
    assert_eq!(r.emitted().len(), 1);
    r.wait(Duration::from_secs(301));
    assert!(r.send(&pkt).is_tx(), "free again");
}

#[test]
fn a_new_address_renews_the_bindings() {
    let mut r = masquerade(Ei, Ad);
    r.send(&Pkt::udp(HOST, FAR, 4000, 53));
    r.commit(|n| n.ports[WAN.index()].addrs4[0].0 = "203.0.113.77".parse().unwrap());
    let o = r.send(&Pkt::udp(HOST, FAR, 4000, 53));
    assert_eq!(ends(&o), (end("203.0.113.77", 4000), end(FAR, 53)));
    let o = r.send(&Pkt::udp(FAR, "203.0.113.77", 53, 4000).into_port(WAN));
    assert_eq!(ends(&o).1, end(HOST, 4000));
    assert_eq!(r.sessions().0, 1, "the old session is gone");
}

#[test]
fn a_commit_keeps_bindings() {
    let mut r = masquerade(Ei, Ad);
    r.send(&Pkt::udp(HOST2, FAR, 4000, 53));
    let before = ends(&r.send(&Pkt::udp(HOST, FAR, 4000, 53)));
    for _ in 0..3 {
        r.commit(|_| {});
        assert_eq!(ends(&r.send(&Pkt::udp(HOST, FAR, 4000, 53))), before);
        let o = r.send(&Pkt::udp(FAR, WAN_IP, 53, before.0.1).into_port(WAN));
        assert_eq!(ends(&o).1, end(HOST, 4000));
    }
    assert_eq!(r.sessions().0, 2);
}

#[test]
fn echo_identifiers() {
    let mut r = masquerade(Ei, Ad);
    let a = ends(&r.send(&Pkt::echo(HOST, FAR, 77, false)));
    let b = ends(&r.send(&Pkt::echo(HOST2, FAR, 77, false)));
    assert_eq!(a.0, end(WAN_IP, 77));
    assert_ne!(b.0.1, 77);
    let o = r.send(&Pkt::echo(FAR, WAN_IP, b.0.1, true).into_port(WAN));
    assert_eq!((ends(&o).0.1, ends(&o).1.0), (77, HOST2.into()));
    assert_eq!(r.send(&Pkt::echo(FAR2, WAN_IP, 77, true).into_port(WAN)), Outcome::Kernel);
}

#[test]
fn fragments_in_any_order_both_ways() {
    let big = |src: &str, dst: &str, sport, dport| Pkt::udp(src, dst, sport, dport).payload(3000);
    for (m, order) in [(Ei, [0, 1, 2]), (Ei, [2, 1, 0]), (Apd, [1, 2, 0])] {
        let mut r = masquerade(m, Ad);
        r.send(&Pkt::udp(HOST2, FAR, 4000, 53));
        for (p, port) in [(big(HOST, FAR, 4000, 53), LAN), (big(FAR, WAN_IP, 53, 0), WAN)] {
            let mut p = p;
            if port == WAN {
                let out = ends(&r.send(&Pkt::udp(HOST, FAR, 4000, 53))).0.1;
                p = big(FAR, WAN_IP, 53, out).into_port(WAN);
            }
            let pieces = [p.fragment(0, 1000), p.fragment(1000, 1000), p.fragment(2000, 1008)];
            let mut sent = Vec::new();
            for i in order {
                if let Outcome::Tx(_, f) = r.send(&pieces[i]) {
                    sent.push(f);
                }
                sent.extend(r.emitted().into_iter().map(|(_, f)| f));
            }
            assert_eq!(sent.len(), 3, "{m:?} {order:?} by {port:?}");
            // Put together, the datagram has a right checksum over the new addresses.
            sent.sort_by_key(|f| u16::from_be_bytes([f[20], f[21]]) & 0x1FFF);
            let data: Vec<u8> = sent.iter().flat_map(|f| f[34..].to_vec()).collect();
            let (src, dst) = (&sent[0][26..30], &sent[0][30..34]);
            let len = (data.len() as u16).to_be_bytes();
            assert_eq!(checksum(&[src, dst, &[0, UDP], &len, &data]), 0);
            let inside = if port == LAN { src } else { dst };
            assert_eq!(inside, if port == LAN { [203, 0, 113, 2] } else { [192, 168, 1, 10] });
            for f in &sent {
                assert_eq!(checksum(&[&f[14..34]]), 0);
                assert_eq!((&f[26..30], &f[30..34]), (src, dst));
            }
        }
    }
}
