//! Networks that are translated as a whole: IPv4 by host bits, IPv6 by RFC 6296.

use crate::check_forward;
use sag_model::DropReason;
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Kind};
use sag_testkit::*;

const FAR: &str = "198.51.100.7";
const ISP: &str = "203.0.113.1";
const HOST: &str = "192.168.1.10";
const HOST2: &str = "192.168.1.11";
const EXT: &str = "198.18.5.10";
const EXT2: &str = "198.18.5.11";

const FAR6: &str = "2001:db8:f::7";
const ISP6: &str = "2001:db8:2::1";
const HOST6: &str = "2001:db8:1::10";
const HOST6B: &str = "2001:db8:4::11";
/// By RFC 6296: 0x2001 + 0x0db8 + 0x0001 less 0x2001 + 0x0db8 + 0xff01 is 0x00ff, added to subnet 0.
const EXT6: &str = "2001:db8:ff01:ff::10";

fn net() -> Net {
    let mut n = Net::branch();
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    n.static_nat(Kind::Internet, "192.168.1.0/24", "198.18.5.0/24");
    n.static_nat(Kind::Internet, "2001:db8:1::/48", "2001:db8:ff01::/48");
    n
}

/// A packet of each protocol from one address to another, and the answers.
fn each(src: &str, dst: &str) -> Vec<Pkt> {
    vec![
        Pkt::udp(src, dst, 4000, 53),
        Pkt::udp(src, dst, 0, 53),
        Pkt::tcp(src, dst, 5000, 80, TCP_SYN),
        Pkt::echo(src, dst, 77, false),
        Pkt::new(src, dst, 132, vec![7; 16]),
        Pkt::new(src, dst, 47, vec![0; 8]),
    ]
}

fn answers(src: &str, dst: &str) -> Vec<Pkt> {
    vec![
        Pkt::udp(src, dst, 53, 4000),
        Pkt::udp(src, dst, 53, 0),
        Pkt::tcp(src, dst, 80, 5000, TCP_SYN | TCP_ACK),
        Pkt::echo(src, dst, 77, true),
        Pkt::new(src, dst, 132, vec![7; 16]),
        Pkt::new(src, dst, 47, vec![0; 8]),
    ]
}

/// Sends packets that must leave as others, byte for byte: the first of a session, and the next by its record.
/// What must have left as `frame`, with its identification if `came` had another source.
fn left(came: &Pkt, want: &Pkt, frame: &[u8]) -> Pkt {
    if want.src == came.src { want.clone() } else { want.clone().numbered_as(frame) }
}

#[track_caller]
fn become_all(r: &mut Rig, sent: Vec<Pkt>, into: Vec<Pkt>, (port, via): (sag_model::PortIdx, &str)) {
    for (pkt, want) in sent.iter().zip(&into) {
        for _ in 0..2 {
            match r.send(pkt) {
                Outcome::Tx(p, f) => {
                    let want = left(pkt, want, &f).forwarded(port, via);
                    assert_eq!((p, f), (port, want), "{pkt:?}");
                }
                other => panic!("{other:?}: {pkt:?}"),
            }
        }
    }
}

fn from_wan(pkts: Vec<Pkt>) -> Vec<Pkt> {
    pkts.into_iter().map(|p| p.into_port(WAN)).collect()
}

#[test]
fn both_families_both_directions() {
    for (host, ext, far, isp) in [(HOST, EXT, FAR, ISP), (HOST6, EXT6, FAR6, ISP6)] {
        // From inside, with the answers.
        let mut r = Rig::new(net());
        become_all(&mut r, each(host, far), each(ext, far), (WAN, isp));
        become_all(&mut r, from_wan(answers(far, ext)), answers(far, host), (LAN, host));
        // From outside.
        let mut r = Rig::new(net());
        become_all(&mut r, from_wan(each(far, ext)), each(far, host), (LAN, host));
        become_all(&mut r, answers(host, far), answers(ext, far), (WAN, isp));
        assert_eq!(r.sessions().0 + r.sessions().1, 6);
    }
    // Hosts of other networks have the port's address, and IPv6 ones their own.
    let mut r = Rig::new(net());
    let o = r.send(&Pkt::udp("192.168.2.10", FAR, 4000, 53).into_port(LAN2));
    assert_eq!(ends4(o.frame()).0, end("203.0.113.2", 4000));
    check_forward(&mut r, &Pkt::udp(HOST6B, FAR6, 4000, 53).into_port(LAN2), WAN, ISP6);
    // Towards the leased line nothing is translated so.
    check_forward(&mut r, &Pkt::udp(HOST6, "2001:db8:20::1", 4000, 53), LINE, "2001:db8:3::1");
}

#[test]
fn fragments_of_both_families() {
    for (host, ext, far, isp) in [(HOST, EXT, FAR, ISP), (HOST6, EXT6, FAR6, ISP6)] {
        let (mut r, mut ids) = (Rig::new(net()), Vec::new());
        let (whole, want) =
            (Pkt::udp(host, far, 4000, 53).payload(1200), Pkt::udp(ext, far, 4000, 53).payload(1200));
        for (at, len) in [(0, 608), (608, 600)] {
            match r.send(&whole.fragment(at, len)) {
                Outcome::Tx(p, f) => {
                    let want = want.fragment(at, len).numbered_as(&f);
                    ids.push(want.id);
                    assert_eq!((p, f), (WAN, want.forwarded(WAN, isp)), "{host} from {at}");
                }
                other => panic!("{other:?}: {host} from {at}"),
            }
        }
        assert_eq!(ids[0], ids[1], "one datagram, one identification");
    }
}

#[test]
fn hairpin_shows_external_addresses() {
    let mut r = Rig::new(net());
    let o = r.send(&Pkt::udp(HOST, EXT2, 4000, 53));
    assert_eq!(ends4(o.frame()), (end(EXT, 4000), end(HOST2, 53)));
    let o = r.send(&Pkt::udp(HOST2, EXT, 53, 4000));
    assert_eq!(ends4(o.frame()), (end(EXT2, 53), end(HOST, 4000)));
    // Who has no address of its own there shows that of the port.
    let o = r.send(&Pkt::udp("192.168.2.10", EXT2, 4000, 53).into_port(LAN2));
    assert_eq!(ends4(o.frame()).0, end("203.0.113.2", 4000));
    let mut n = net();
    n.static_nat(Kind::Internet, "2001:db8:4::/48", "2001:db8:ff04::/48");
    let mut r = Rig::new(n);
    let ext_b = "2001:db8:ff04:ff::11";
    become_all(&mut r, each(HOST6, ext_b), each(EXT6, HOST6B), (LAN2, HOST6B));
    let back = answers(HOST6B, EXT6).into_iter().map(|p| p.into_port(LAN2)).collect();
    become_all(&mut r, back, answers(ext_b, HOST6), (LAN, HOST6));
}

#[test]
fn a_forwarded_port_and_an_own_address_go_before_the_network() {
    let mut n = net();
    n.dnat(Kind::Internet, EXT, HOST2, Some((TCP, 8080, 8080, 80)));
    n.dnat(Kind::Internet, "203.0.113.77", HOST2, None);
    let mut r = Rig::new(n);
    let o = r.send(&Pkt::tcp(FAR, EXT, 9000, 8080, TCP_SYN).into_port(WAN));
    assert_eq!(ends4(o.frame()).1, end(HOST2, 80));
    let o = r.send(&Pkt::tcp(FAR, EXT, 9000, 8081, TCP_SYN).into_port(WAN));
    assert_eq!(ends4(o.frame()).1, end(HOST, 8081));
    assert_eq!(ends4(r.send(&Pkt::udp(HOST2, FAR, 9, 9)).frame()).0, end("203.0.113.77", 9));
}

#[test]
fn the_gateways_own_addresses_stand_for_no_host() {
    let mut n = Net::branch();
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    n.static_nat(Kind::Internet, "192.168.1.0/24", "203.0.113.0/24");
    n.static_nat(Kind::Internet, "2001:db8:1::/64", "2001:db8:2::/64");
    let mut r = Rig::new(n);
    assert_eq!(ends4(r.send(&Pkt::udp(HOST, FAR, 9, 9)).frame()).0, end("203.0.113.10", 9));
    assert_eq!(ends4(r.send(&Pkt::udp("192.168.1.2", FAR, 9, 9)).frame()).0, end("203.0.113.2", 9));
    assert_eq!(r.send(&Pkt::tcp(FAR, "203.0.113.2", 9, 22, TCP_SYN).into_port(WAN)), Outcome::Kernel);
    assert_eq!(r.send(&Pkt::tcp(FAR6, "2001:db8:2::2", 9, 22, TCP_SYN).into_port(WAN)), Outcome::Kernel);
}

/// The kernel would send them back to where they came from: it does not know the external address.
#[test]
fn nobody_reaches_the_gateway_by_an_external_address() {
    let mut n = net();
    for to in ["192.168.1.1/32", "192.168.1.255/32", "2001:db8:1::1/128"] {
        n.route(to, sag_pipeline::snapshot::Route::Local);
    }
    let mut r = Rig::new(n);
    for ext in ["198.18.5.1", "198.18.5.255"] {
        for p in [Pkt::udp(FAR, ext, 9, 9), Pkt::tcp(FAR, ext, 9, 22, TCP_SYN), Pkt::echo(FAR, ext, 9, false)]
        {
            assert_eq!(r.send(&p.into_port(WAN)), Outcome::Drop(DropReason::NatFiltered), "{ext}");
        }
        let hairpin = r.send(&Pkt::udp(HOST, ext, 9, 9));
        assert_eq!(hairpin, Outcome::Drop(DropReason::NatFiltered), "{ext}");
    }
    let ext = "2001:db8:ff01:ff::1";
    for p in [Pkt::udp(FAR6, ext, 9, 9).into_port(WAN), Pkt::udp(HOST6, ext, 9, 9)] {
        assert_eq!(r.send(&p), Outcome::Drop(DropReason::NatFiltered), "{ext}");
    }
}

/// What a router says of a packet: its quote becomes what the host sent.
fn error(from: &str, to: &str, v6: bool, quoted: &Pkt) -> Pkt {
    let mut about = quoted.clone();
    about.ttl -= 1;
    match v6 {
        false => Pkt::icmp(from, to, 11, 0, 0, &about.ip()[..28]),
        true => Pkt::icmp(from, to, 2, 0, 1280, &about.ip()),
    }
}

#[test]
fn errors_are_translated_with_what_they_quote() {
    for (host, ext, far, isp, core, inner, outer) in [
        (HOST, EXT, FAR, ISP, "198.18.0.1", "192.168.1.77", EXT),
        (HOST6, EXT6, FAR6, ISP6, "2001:db8:c::1", "2001:db8:1::77", "2001:db8:ff01:ff::77"),
    ] {
        let v6 = host == HOST6;
        let mut r = Rig::new(net());
        for (sent, seen) in each(host, far).into_iter().zip(each(ext, far)) {
            r.send(&sent);
            let (said, want) = (error(core, ext, v6, &seen), error(core, host, v6, &sent));
            match r.send(&said.clone().into_port(WAN)) {
                Outcome::Tx(p, f) => assert_eq!((p, f), (LAN, want.forwarded(LAN, host)), "{said:?}"),
                other => panic!("{other:?}: {said:?}"),
            }
        }
        // From a router inside, about what came from outside: it has an external address too.
        let mut r = Rig::new(net());
        for (sent, seen) in each(far, ext).into_iter().zip(each(far, host)) {
            r.send(&sent.clone().into_port(WAN));
            let (said, want) = (error(inner, far, v6, &seen), error(outer, far, v6, &sent));
            match r.send(&said) {
                Outcome::Tx(p, f) => {
                    let want = left(&said, &want, &f).forwarded(WAN, isp);
                    assert_eq!((p, f), (WAN, want), "{said:?}");
                }
                other => panic!("{other:?}: {said:?}"),
            }
        }
        // One about nothing, and one that is broken.
        let stray = error(core, ext, v6, &Pkt::udp(ext, far, 9, 9));
        assert_eq!(r.send(&stray.into_port(WAN)), Outcome::Drop(DropReason::IcmpUnmatched));
        let mut broken = error(core, ext, v6, &answers(ext, far)[0]);
        broken.l4[2] ^= 1;
        assert_eq!(r.send(&broken.into_port(WAN)), Outcome::Drop(DropReason::IcmpBadChecksum));
    }
}

#[test]
fn addresses_without_another_one_are_refused() {
    let mut r = Rig::new(net());
    let odd = Pkt::udp("2001:db8:1:ffff::1", FAR6, 4000, 53);
    r.change(|n| {
        n.route(
            "2001:db8:1:ffff::/64",
            sag_pipeline::snapshot::Route::Via(vec![sag_pipeline::snapshot::Member::port(LAN, None, 1)]),
        );
    });
    assert_eq!(r.send(&odd), Outcome::Drop(DropReason::NatNoAddress));
    assert_eq!(r.emitted().len(), 1, "its sender is told");
    let odd = Pkt::udp(FAR6, "2001:db8:ff01:ffff::1", 4000, 53).into_port(WAN);
    assert_eq!(r.send(&odd), Outcome::Drop(DropReason::NatFiltered));
    // A reset begins nothing.
    for (host, ext, far) in [(HOST, EXT, FAR), (HOST6, EXT6, FAR6)] {
        let out = r.send(&Pkt::tcp(host, far, 9, 9, TCP_RST));
        assert_eq!(out, Outcome::Drop(DropReason::NatNoSession));
        let into = r.send(&Pkt::tcp(far, ext, 9, 9, TCP_RST).into_port(WAN));
        assert_eq!(into, Outcome::Drop(DropReason::NatNoSession));
    }
}

#[test]
fn sessions_follow_the_configuration() {
    for (host, ext, far, isp) in [(HOST, EXT, FAR, ISP), (HOST6, EXT6, FAR6, ISP6)] {
        let mut r = Rig::new(net());
        let (sent, seen) = (each(host, far), each(ext, far));
        become_all(&mut r, sent.clone(), seen.clone(), (WAN, isp));
        // The same again: nothing ends.
        r.commit(|_| {});
        become_all(&mut r, sent.clone(), seen, (WAN, isp));
        assert_eq!(r.pipe.counters.sessions_created.get(), 6);
        // Other networks: the sessions begin anew by them.
        r.commit(|n| {
            n.nat.prefixes.clear();
            n.static_nat(Kind::Internet, "192.168.1.0/24", "198.18.6.0/24");
            n.static_nat(Kind::Internet, "2001:db8:1::/48", "2001:db8:ff02::/48");
        });
        let now = if host == HOST { "198.18.6.10" } else { "2001:db8:ff02:fe::10" };
        become_all(&mut r, sent.clone(), each(now, far), (WAN, isp));
        assert_eq!(r.pipe.counters.sessions_created.get(), 12);
        let old = r.send(&Pkt::udp(far, ext, 53, 4000).into_port(WAN));
        assert!(!matches!(&old, Outcome::Tx(LAN, _)), "{old:?}");
        // None: IPv6 leaves as it is.
        r.commit(|n| n.nat.prefixes.clear());
        let plain = if host == HOST { "203.0.113.2" } else { host };
        let out = r.send(&sent[0]);
        let want = left(&sent[0], &Pkt::udp(plain, far, 4000, 53), out.frame());
        assert_eq!(out.frame(), want.forwarded(WAN, isp));
    }
}

#[test]
fn the_longest_network_and_the_port_come_first() {
    let mut n = net();
    n.static_nat(Kind::Internet, "192.168.1.10/32", "198.18.9.9/32");
    n.static_nat(Kind::Internet, "2001:db8:1::/64", "2001:db8:9:9::/64");
    n.static_nat(Kind::Internet, "192.168.1.11/32", "198.18.9.11/32");
    n.static_nat(Kind::Internet, "192.168.1.11/32", "198.18.9.12/32");
    n.nat.prefixes[5].port = Some(WAN);
    let mut r = Rig::new(n);
    assert_eq!(ends4(r.send(&Pkt::udp(HOST, FAR, 9, 9)).frame()).0, end("198.18.9.9", 9));
    assert_eq!(ends4(r.send(&Pkt::udp(HOST2, FAR, 9, 9)).frame()).0, end("198.18.9.12", 9));
    let o = r.send(&Pkt::udp(HOST6, FAR6, 9, 9));
    assert_eq!(o.frame()[22..30], [0x20, 0x01, 0x0d, 0xb8, 0, 9, 0, 9]);
    // Both lead in.
    for (ext, port) in [("198.18.9.11", 100), ("198.18.9.12", 101), (EXT2, 102)] {
        let o = r.send(&Pkt::udp(FAR, ext, port, 9).into_port(WAN));
        assert_eq!(ends4(o.frame()).1, end(HOST2, 9));
    }
}

/// As by a discard route of the inside network: what no route leads to the LAN does not go back by the default route.
#[test]
fn what_has_no_route_inside_is_discarded() {
    let mut n = net();
    n.static_nat(Kind::Internet, "192.168.77.0/24", "198.18.8.0/24");
    n.static_nat(Kind::Internet, "2001:db8:77::/48", "2001:db8:ff77::/48");
    n.static_nat(Kind::Intranet, "192.168.78.0/24", "192.0.2.128/24");
    let mut r = Rig::new(n);
    const NO_ROUTE: Outcome = Outcome::Drop(DropReason::NoRoute);
    let outside = |far: &str, ext: &str| Pkt::udp(far, ext, 53, 4000).into_port(WAN);
    for (far, ext, at, kind) in [(FAR, "198.18.8.5", 34, (3, 0)), (FAR6, "2001:db8:ff77::5", 54, (1, 0))] {
        assert_eq!(r.send(&outside(far, ext)), NO_ROUTE, "{ext}");
        let told: Vec<_> = r.emitted().iter().map(|(port, f)| (*port, (f[at], f[at + 1]))).collect();
        assert_eq!(told, [(WAN, kind)], "{ext}");
    }
    assert_eq!(r.sessions(), (0, 0));
    // A route to the LAN takes effect, and its end too, for sessions that live.
    r.commit(|n| {
        n.via("192.168.77.0/24", LAN, HOST);
        n.via("2001:db8:77::/48", LAN, HOST6);
    });
    let ask = [(FAR, "198.18.8.5"), (FAR6, "2001:db8:ff77::5")].map(|(far, ext)| outside(far, ext));
    for p in &ask {
        match r.send(p) {
            Outcome::Tx(port, _) => assert_eq!(port, LAN),
            other => panic!("{other:?}: {p:?}"),
        }
    }
    r.commit(|n| {
        n.routes.retain(|(to, _)| *to != prefix("192.168.77.0/24") && *to != prefix("2001:db8:77::/48"));
    });
    for p in &ask {
        assert_eq!(r.send(p), NO_ROUTE, "{p:?}");
    }
}
