//! Source and destination translation.

use sag_model::DropReason;
use sag_packet::Family;
use sag_packet::encap::Encap;
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Kind, NatProtocol, NatState, POOL_WORDS};
use sag_pipeline::snapshot::{Member, Route};
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

/// SCTP's checksum covers no addresses (RFC 9260 6.8): the packet stays as it is behind the IP header, ports included. So one
/// host at a time can talk to a remote address.
#[test]
fn sctp_keeps_its_ports_and_its_checksum() {
    const SCTP: u8 = 132;
    // Ports, verification tag, checksum, an INIT chunk.
    let init =
        [&[0x13, 0x88, 0x0b, 0x59, 0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef, 1, 0, 0, 20][..], &[7; 16]].concat();
    let packet = |src, dst| Pkt::new(src, dst, SCTP, init.clone());
    let mut r = masquerade(Ei, Ad);
    // The first finds its way, the next ones go by the record.
    for _ in 0..3 {
        let out = r.send(&packet(HOST, FAR));
        assert_eq!((out.frame()[26..30].to_vec(), &out.frame()[34..]), (vec![203, 0, 113, 2], &init[..]));
        let back = r.send(&packet(FAR, WAN_IP).into_port(WAN));
        assert_eq!((out.frame().len(), &back.frame()[34..]), (back.frame().len(), &init[..]));
        assert_eq!(back.frame()[30..34], [192, 168, 1, 10]);
    }
    assert_eq!(r.send(&packet(HOST2, FAR)), Outcome::Drop(DropReason::SnatExhausted));
    assert!(r.send(&packet(HOST2, FAR2)).is_tx());
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
fn ports_that_the_gateways_sockets_hold_are_taken() {
    // Whether ports are bound or the session table alone keeps sessions apart.
    for (m, f) in [(Ei, Ad), (Ad, Ad), (Apd, Apd)] {
        let mut r = masquerade(m, f);
        let pool = r.snap.nat.sources[0].pool.clone();
        let mut held = vec![0u64; POOL_WORDS];
        for (protocol, port) in [(NatProtocol::Tcp, 41000usize), (NatProtocol::Udp, 41001)] {
            held[protocol as usize * POOL_WORDS / 2 + port / 64] |= 1 << (port % 64);
        }
        pool.reserve(&held);
        let outside = |r: &mut Rig, p: Pkt| ends(&r.send(&p)).0.1;
        assert_ne!(outside(&mut r, Pkt::tcp(HOST, FAR, 41000, 80, TCP_SYN)), 41000);
        assert_eq!(outside(&mut r, Pkt::tcp(HOST, FAR, 41001, 80, TCP_SYN)), 41001);
        assert_ne!(outside(&mut r, Pkt::udp(HOST, FAR, 41001, 80)), 41001);
        pool.reserve(&[]);
        assert_eq!(outside(&mut r, Pkt::tcp(HOST2, FAR, 41000, 80, TCP_SYN)), 41000, "{m:?} {f:?}");
    }
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

/// A WAN port with a second network, whose router is 198.18.0.1.
fn two_networks() -> Net {
    let mut n = Net::branch();
    n.wan_snat(WAN, Ei, Ad);
    let own = [("198.18.0.9", 24), ("203.0.113.2", 24), ("203.0.113.200", 32)];
    n.ports[WAN.index()].addrs4 = own.into_iter().map(|(a, len)| (a.parse().unwrap(), len)).collect();
    n.neighbor(WAN, "198.18.0.1");
    n
}

#[test]
fn the_next_hop_and_the_route_choose_the_address() {
    let mut n = two_networks();
    n.via("100.64.0.0/16", WAN, "198.18.0.1");
    let preferring = |source: &str| Member {
        source: Some(source.parse().unwrap()),
        ..Member::port(WAN, Some("203.0.113.1".parse().unwrap()), 1)
    };
    n.route("100.65.0.0/16", Route::Via(vec![preferring("203.0.113.200")]));
    n.route("100.66.0.0/16", Route::Via(vec![preferring("192.0.2.99")]));
    let member = Member::port(WAN, Some("203.0.113.1".parse().unwrap()), 1);
    n.route(
        "100.67.0.0/16",
        Route::Via(vec![Member { via: Some("2001:db8:2::1".parse().unwrap()), ..member }]),
    );
    let mut r = Rig::new(n);
    for (dst, source) in [
        (FAR, "203.0.113.2"),
        ("100.64.0.1", "198.18.0.9"),
        ("100.65.0.1", "203.0.113.200"),
        // Not an address of the port: it says nothing.
        ("100.66.0.1", "203.0.113.2"),
        // No network of IPv4 has the next hop: the first.
        ("100.67.0.1", "198.18.0.9"),
    ] {
        assert_eq!(ends(&r.send(&Pkt::udp(HOST, dst, 4000, 53))), (end(source, 4000), end(dst, 53)));
        let back = r.send(&Pkt::udp(dst, source, 53, 4000).into_port(WAN));
        assert_eq!(ends(&back).1, end(HOST, 4000));
    }
}

#[test]
fn live_sessions_keep_their_address_while_it_exists() {
    let mut n = two_networks();
    n.ports[WAN.index()].addrs4.truncate(1);
    let mut r = Rig::new(n);
    let (udp, tcp) = (Pkt::udp(HOST, FAR, 4000, 53), Pkt::tcp(HOST, FAR, 4001, 80, TCP_SYN));
    let first = end("198.18.0.9", 4000);
    assert_eq!(ends(&r.send(&udp)).0, first);
    assert_eq!(ends(&r.send(&tcp)).0.0, "198.18.0.9");
    // One that new sessions prefer, since the router is in its network.
    r.commit(|n| n.ports[WAN.index()].addrs4.push(("203.0.113.2".parse().unwrap(), 24)));
    assert_eq!(ends(&r.send(&udp)).0, first);
    assert_eq!(
        ends(&r.send(&Pkt { l4: Pkt::tcp(HOST, FAR, 4001, 80, TCP_ACK).l4, ..tcp })).0.0,
        "198.18.0.9"
    );
    let back = r.send(&Pkt::udp(FAR, "198.18.0.9", 53, 4000).into_port(WAN));
    assert_eq!(ends(&back).1, end(HOST, 4000));
    assert_eq!(r.sessions().0, 2, "none of them is new");
    assert_eq!(ends(&r.send(&Pkt::udp(HOST, FAR, 5000, 53))).0, end("203.0.113.2", 5000));
    // It is no choice any more, but there: as an address with no network of its own, behind the other.
    r.commit(|n| {
        let old = ("198.18.0.9".parse().unwrap(), 32);
        n.ports[WAN.index()].addrs4 = vec![("203.0.113.2".parse().unwrap(), 24), old];
    });
    assert_eq!(ends(&r.send(&udp)).0, first);
    let back = r.send(&Pkt::udp(FAR, "198.18.0.9", 99, 4000).into_port(WAN));
    assert_eq!(ends(&back).1, end(HOST, 4000), "its binding too");
    // It goes, and its sessions with it.
    r.commit(|n| n.ports[WAN.index()].addrs4.truncate(1));
    assert_eq!(ends(&r.send(&udp)).0, end("203.0.113.2", 4000));
    let stray = r.send(&Pkt::udp(FAR, "198.18.0.9", 99, 4000).into_port(WAN));
    assert_eq!(ends(&stray).1, end("198.18.0.9", 4000), "nobody's");
}

#[test]
fn a_restart_keeps_addresses_that_new_sessions_do_not_get() {
    let mut n = two_networks();
    n.ports[WAN.index()].addrs4.truncate(1);
    let mut r = Rig::new(n);
    assert_eq!(ends(&r.send(&Pkt::udp(HOST, FAR, 4000, 53))).0, end("198.18.0.9", 4000));
    r.commit(|n| {
        let old = ("198.18.0.9".parse().unwrap(), 32);
        n.ports[WAN.index()].addrs4 = vec![("203.0.113.2".parse().unwrap(), 24), old];
    });
    let policy = r.snap.nat.clone();
    let nat = NatState::private(1024);
    let (planned, pools, errors) = {
        let spec = r.net.nat.clone();
        spec.plan(&nat)
    };
    assert!(errors.is_empty() && planned.same_addresses(&policy));
    nat.apply(&pools);
    assert_eq!(nat.adopt_sessions(&r.pipe.tables.v4, &planned, 1), 1);
    let pool = nat.pool_of("198.18.0.9".parse().unwrap()).unwrap();
    assert_eq!(pool.inside(NatProtocol::Udp, 4000).unwrap().0.addr.to_string(), HOST);
}

#[test]
fn forwards_without_an_address_hold_for_all_addresses() {
    let mut n = two_networks();
    n.dnat(Kind::Internet, "", HOST, Some((TCP, 8080, 8080, 80)));
    let mut r = Rig::new(n);
    for own in ["198.18.0.9", "203.0.113.2", "203.0.113.200"] {
        let o = r.send(&Pkt::tcp(FAR, own, 9000, 8080, TCP_SYN).into_port(WAN));
        assert_eq!(ends(&o), (end(FAR, 9000), end(HOST, 80)));
        let o = r.send(&Pkt::tcp(HOST, FAR, 80, 9000, TCP_SYN | TCP_ACK));
        assert_eq!(ends(&o).0, end(own, 8080), "the answer comes from where the question went");
        r.send(&Pkt::tcp(FAR, own, 9000, 8080, TCP_RST).into_port(WAN));
        r.wait(Duration::from_secs(300));
    }
}

#[test]
fn zero_is_a_port_and_an_identifier() {
    for (m, f) in [(Ei, Ad), (Ad, Ad), (Apd, Apd)] {
        for block in [None, Some(64)].into_iter().filter(|b| b.is_none() || m == Ei) {
            let mut n = Net::branch();
            n.wan_snat(WAN, m, f);
            n.nat.limits.port_block = block;
            let mut r = Rig::new(n);
            let pkts = |host| {
                let tcp = Pkt::tcp(host, FAR, 0, 80, TCP_SYN);
                [Pkt::udp(host, FAR, 0, 53), tcp, Pkt::echo(host, FAR, 0, false)]
            };
            let mut seen = Vec::new();
            for host in [HOST, HOST2] {
                for (i, p) in pkts(host).into_iter().enumerate() {
                    let ((addr, port), _) = ends(&r.send(&p));
                    assert_eq!(addr, WAN_IP);
                    assert!(port != 0 && !seen.contains(&(i, port)), "{m:?} {host} {i}: {port}");
                    seen.push((i, port));
                    let answer = match i {
                        0 => Pkt::udp(FAR, WAN_IP, 53, port),
                        1 => Pkt::tcp(FAR, WAN_IP, 80, port, TCP_SYN | TCP_ACK),
                        _ => Pkt::echo(FAR, WAN_IP, port, true),
                    };
                    let o = r.send(&answer.into_port(WAN));
                    let ((_, id), to) = ends(&o);
                    if i == 2 {
                        assert_eq!((id, to.0.as_str()), (0, host));
                    } else {
                        assert_eq!(to, end(host, 0));
                    }
                }
            }
            assert_eq!(r.sessions().0, 6);
        }
    }
}

#[test]
fn port_zero_of_a_host_with_an_address_of_its_own() {
    let mut n = Net::branch();
    n.wan_snat(WAN, Ei, Ad);
    n.dnat(Kind::Internet, "203.0.113.50", HOST, None);
    let mut r = Rig::new(n);
    let o = r.send(&Pkt::udp(FAR, "203.0.113.50", 0, 0).into_port(WAN));
    assert_eq!(ends(&o), (end(FAR, 0), end(HOST, 0)));
    assert_eq!(ends(&r.send(&Pkt::udp(HOST, FAR, 0, 0))), (end("203.0.113.50", 0), end(FAR, 0)));
    assert_eq!(ends(&r.send(&Pkt::udp(HOST, FAR2, 0, 5))), (end("203.0.113.50", 0), end(FAR2, 5)));
}

#[test]
fn messages_without_an_identifier_get_none() {
    let mut r = masquerade(Ei, Ad);
    // An information request (RFC 792), which is no query to NAT: its identifier, 0 or not, stays.
    let o = r.send(&Pkt::icmp(HOST, FAR, 15, 0, 0x1234_0001, &[]));
    assert_eq!(o.frame()[38..42], [0x12, 0x34, 0, 1]);
    assert_eq!(r.snap.nat.sources[0].pool.bindings(NatProtocol::Icmp).count(), 0);
}

/// A tunnel of each kind between the WAN address and the peer, and what the peer's packets are.
fn tunnels_to_the_peer() -> [(Encap, u8, u16); 5] {
    [
        (vxlan(7), UDP, 4789),
        (Encap::Gre { key: None, checksum: false, sequence: false }, 47, 0),
        (Encap::Ipip, 4, 0),
        (Encap::Esp { udp: Some(4500) }, UDP, 4500),
        (Encap::Esp { udp: None }, 50, 0),
    ]
}

#[test]
fn no_session_has_a_tunnels_packets_as_its_answers() {
    let peer = TUNNEL_ENDS[0].1;
    for (encap, proto, port) in tunnels_to_the_peer() {
        for (m, f) in [(Ei, Ad), (Apd, Apd)] {
            let to_peer = |port| match proto {
                UDP => Pkt::udp(HOST, peer, port, port),
                _ => Pkt::new(HOST, peer, proto, vec![8; 16]),
            };
            let elsewhere = |port| match proto {
                UDP => Pkt::udp(HOST2, FAR, port, port),
                _ => Pkt::new(HOST2, FAR, proto, vec![8; 16]),
            };
            let mut r = masquerade(m, f);
            // Before there is a tunnel it is a session as any other.
            assert_eq!(ends(&r.send(&to_peer(port))).0.0, WAN_IP);
            r.commit(|n| {
                n.tunnel(test_tunnel(1, encap, Family::V4));
            });
            let o = r.send(&to_peer(port));
            if proto == UDP {
                assert!(o.is_tx() && ends(&o).0.1 != port, "{encap:?}: {o:?}");
                let answer = Pkt::udp(peer, WAN_IP, port, ends(&o).0.1).into_port(WAN);
                assert_eq!(ends(&r.send(&answer)).1, end(HOST, port));
            } else {
                assert_eq!(o, Outcome::Drop(DropReason::SnatExhausted), "{encap:?}");
            }
            // Other destinations are no concern of the tunnel's.
            assert!(r.send(&elsewhere(port)).is_tx(), "{encap:?}");
        }
    }
}

#[test]
fn forwards_leave_a_tunnels_packets_alone() {
    let peer = TUNNEL_ENDS[0].1;
    for (encap, port) in [(vxlan(7), 4789), (Encap::Esp { udp: Some(4500) }, 4500)] {
        let mut n = Net::branch();
        n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((UDP, port, port, port)));
        n.tunnel(test_tunnel(1, encap, Family::V4));
        let mut r = Rig::new(n);
        // Neither VXLAN nor ESP (RFC 3948 2.2), but from where the tunnel's packets come.
        let zeros = |src, sport| {
            let mut p = Pkt::udp(src, WAN_IP, sport, port).into_port(WAN);
            p.l4.truncate(8);
            p.l4.extend([0; 12]);
            p.fix_l4();
            p
        };
        let o = r.send(&zeros(peer, port));
        assert!(!o.is_tx(), "{encap:?}: {o:?}");
        assert_eq!(r.sessions().0, 0);
        let o = r.send(&zeros(FAR, 9));
        assert_eq!(ends(&o).1, end(HOST, port), "from others it is forwarded");
    }
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
