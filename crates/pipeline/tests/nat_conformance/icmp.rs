//! RFC 5508.

use crate::kit::*;
use sag_model::{DropReason, config};
use sag_packet::proto::*;
use sag_pipeline::nat::{Kind, NatProtocol};
use sag_pipeline::policy::Class;

const QUERIES: [(u8, u8); 2] = [(8, 0), (13, 14)];

/// An ICMP query or its answer, with 20 bytes of data.
fn query(src: &str, dst: &str, kind: u8, id: u16) -> Pkt {
    Pkt::icmp(src, dst, kind, 0, u32::from(id) << 16 | 7, &[0x5A; 20])
}

#[test]
pub fn queries_pass_with_their_answers() {
    for (ask, answer) in QUERIES {
        let mut r = nat();
        out(&mut r, &query(HOST2, FAR, ask, 77));
        for _ in 0..3 {
            let e = out(&mut r, &query(HOST, FAR, ask, 77));
            assert_ne!(e.port, 77, "the identifier is another host's");
            becomes(&mut r, &query(FAR, WAN_IP, answer, e.port), end(FAR, 0), end(HOST, 77));
        }
        // Nobody else answers.
        let e = out(&mut r, &query(HOST, FAR, ask, 77));
        assert_eq!(r.send(&query(FAR2, WAN_IP, answer, e.port).into_port(WAN)), Outcome::Kernel);
    }
}

#[test]
pub fn query_mapping_does_not_depend_on_the_host_asked() {
    let mut r = nat();
    out(&mut r, &query(HOST2, FAR, 8, 77));
    let e = out(&mut r, &query(HOST, FAR, 8, 77));
    assert_eq!(out(&mut r, &query(HOST, FAR2, 8, 77)), e);
    assert_eq!(out(&mut r, &query(HOST, CORE, 13, 77)), e);
}

#[test]
pub fn query_sessions_last_a_minute() {
    assert!(config::Timeouts::default().icmp >= 60);
    let mut r = nat();
    out(&mut r, &query(HOST, FAR, 8, 77));
    assert!(still(&mut r, NatProtocol::Icmp, 77, secs(59)));
    becomes(&mut r, &query(FAR, WAN_IP, 0, 77), end(FAR, 0), end(HOST, 77));
    assert!(still(&mut r, NatProtocol::Icmp, 77, secs(59)));
    assert!(!still(&mut r, NatProtocol::Icmp, 77, secs(2)));
}

#[test]
pub fn the_query_timer_is_configurable() {
    let mut n = net();
    n.options.timeouts = timeouts(config::Timeouts { icmp: 90, ..config::Timeouts::default() });
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    out(&mut r, &query(HOST, FAR, 8, 77));
    assert!(still(&mut r, NatProtocol::Icmp, 77, secs(89)));
    assert!(!still(&mut r, NatProtocol::Icmp, 77, secs(2)));
}

/// A session of each protocol: the packet that made it, and the same as it went out.
fn sessions(r: &mut Rig) -> Vec<(Pkt, Pkt)> {
    let flows = |host| {
        [
            Pkt::udp(host, FAR, 4000, 53),
            Pkt::tcp(host, FAR, 4000, 80, SYN),
            query(host, FAR, 8, 4000),
            query(host, FAR, 13, 4001),
        ]
    };
    // FlowPorts and identifiers are taken, so that all of it has to change.
    flows(HOST2).iter().for_each(|p| {
        out(r, p);
    });
    let mut all = Vec::new();
    for p in flows(HOST) {
        let e = out(r, &p);
        let (src, dst) = ends4(&p.build());
        assert_ne!(e.port, src.port);
        all.push((p.clone(), p.between(e, dst)));
    }
    all
}

#[test]
pub fn errors_with_a_wrong_checksum_are_dropped() {
    let mut r = nat();
    for (_, wire) in sessions(&mut r) {
        let mut e = error_about(&wire, CORE, (3, 1, 0), 28);
        for at in [0, 1, 2, 3] {
            let mut bad = e.clone();
            bad.l4[at] ^= if at == 0 { 8 } else { 1 };
            silently_refused(&mut r, &bad, DropReason::IcmpBadChecksum);
        }
        // The quoted header's own checksum, with the message's right.
        e.l4[8 + 8] ^= 1;
        e.fix_l4();
        silently_refused(&mut r, &e, DropReason::IcmpBadChecksum);
    }
}

#[test]
pub fn a_wrong_checksum_of_the_quoted_header_is_refused() {
    let mut r = nat();
    for (_, wire) in sessions(&mut r) {
        for at in [10, 11] {
            let mut e = error_about(&wire, CORE, (11, 0, 0), 576);
            e.l4[8 + at] ^= 0x40;
            e.fix_l4();
            silently_refused(&mut r, &e, DropReason::IcmpBadChecksum);
        }
    }
}

#[test]
pub fn options_of_the_quoted_packet_are_stepped_over() {
    let mut r = nat();
    for options in [
        &[1u8; 4][..],
        &[148, 4, 0, 0],
        &[
            7, 39, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,
        ],
    ] {
        for (p, wire) in sessions(&mut r) {
            let (p, wire) = (p.options(options), wire.options(options));
            for quote in [28 + options.len(), 576] {
                let k = (11, 0, 0);
                error_becomes(&mut r, &error_about(&wire, CORE, k, quote), &error_about(&p, CORE, k, quote));
            }
        }
    }
}

#[test]
pub fn the_quoted_transport_checksum_is_not_judged() {
    let mut r = nat();
    for (p, wire) in sessions(&mut r) {
        let at = match p.proto {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let (mut p, mut wire) = (p, wire);
        // As wrong afterwards as before: the difference is what translation makes of it.
        let spoil = |x: &mut Pkt| {
            let old = u16::from_be_bytes([x.l4[at], x.l4[at + 1]]);
            let sum = u32::from(old) + 0x0101;
            x.l4[at..at + 2].copy_from_slice(&((sum & 0xFFFF) as u16 + (sum >> 16) as u16).to_be_bytes());
        };
        spoil(&mut p);
        spoil(&mut wire);
        let k = (3, 3, 0);
        error_becomes(&mut r, &error_about(&wire, FAR, k, 576), &error_about(&p, FAR, k, 576));
    }
}

#[test]
pub fn extensions_pass_as_they_are() {
    let mut r = nat();
    for (p, wire) in sessions(&mut r) {
        // RFC 4884: the quote padded with zeros to 128 bytes, its length in words in the second word,
        // then an MPLS label stack.
        let with_extension = |about: &Pkt, to: &str| {
            let mut about = about.clone();
            about.ttl -= 1;
            let mut data = about.ip();
            data.resize(128, 0);
            data.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0x12, 0x34, 0x51, 0xFE]);
            let sum = checksum(&[&data[128..]]);
            data[130..132].copy_from_slice(&sum.to_be_bytes());
            Pkt::icmp(CORE, to, 11, 0, 32 << 16, &data)
        };
        error_becomes(&mut r, &with_extension(&wire, WAN_IP), &with_extension(&p, HOST));
    }
}

#[test]
pub fn errors_from_outside_reach_who_sent_the_packet() {
    let mut r = nat();
    for (p, wire) in sessions(&mut r) {
        let kinds = [
            (3, 0, 0),
            (3, 1, 0),
            (3, 3, 0),
            (3, 4, 1400),
            (3, 13, 0),
            (11, 0, 0),
            (11, 1, 0),
            (12, 0, 9 << 24),
        ];
        for k in kinds {
            // Eight bytes of the transport header, a few more, all.
            for quote in [28, 29, 36, 39, 40, 45, 576] {
                for from in [CORE, FAR] {
                    error_becomes(
                        &mut r,
                        &error_about(&wire, from, k, quote),
                        &error_about(&p, from, k, quote),
                    );
                }
            }
        }
    }
}

#[test]
pub fn errors_about_a_datagram_without_checksum() {
    let mut r = nat();
    let (mut p, mut wire) = sessions(&mut r).remove(0);
    p.l4[6..8].fill(0);
    wire.l4[6..8].fill(0);
    let k = (3, 3, 0);
    error_becomes(&mut r, &error_about(&wire, FAR, k, 576), &error_about(&p, FAR, k, 576));
}

#[test]
pub fn errors_about_nothing_are_dropped() {
    let mut n = net();
    n.snat("192.168.0.0/16", "10.99.0.1", Ei, Ad);
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST, "10.20.0.5", 4000, 53));
    for about in [
        Pkt::udp("10.99.0.1", "10.20.0.5", 4001, 53),
        Pkt::udp("10.99.0.1", "10.20.0.6", 4000, 53),
        Pkt::tcp("10.99.0.1", "10.20.0.5", 4000, 53, SYN),
        query("10.99.0.1", "10.20.0.5", 8, 4000),
    ] {
        let e = error_about(&about, "10.20.0.5", (3, 3, 0), 28).into_port(LINE);
        assert_eq!(r.send(&e), Outcome::Drop(DropReason::IcmpUnmatched));
        assert_eq!(r.emitted(), []);
    }
    // A quote too short to tell whose it is.
    let mut r = nat();
    let (_, wire) = sessions(&mut r).remove(0);
    let e = error_about(&wire, CORE, (3, 3, 0), 27);
    assert_eq!(r.send(&from_its_side(&e)), Outcome::Kernel, "for the gateway, if for anybody");
}

#[test]
pub fn errors_from_inside_about_nothing_are_dropped() {
    let mut r = nat();
    for about in
        [Pkt::udp(FAR, HOST, 53, 4000), Pkt::tcp(FAR, HOST, 80, 4000, ACK), query(FAR, HOST, 0, 4000)]
    {
        silently_refused(&mut r, &error_about(&about, HOST, (3, 3, 0), 28), DropReason::IcmpUnmatched);
    }
}

#[test]
pub fn errors_from_inside_come_from_the_outside_address() {
    let mut r = nat();
    for (p, wire) in sessions(&mut r) {
        let (inside, far) = ends4(&p.build());
        let external = ends4(&wire.build()).0;
        // What comes back cannot be delivered: as it came from outside, and as it went inside.
        let came = match p.proto {
            TCP => Pkt::tcp(FAR, WAN_IP, 80, external.port, ACK),
            UDP => Pkt::udp(FAR, WAN_IP, 53, external.port),
            _ => query(FAR, WAN_IP, if p.l4[0] == 8 { 0 } else { 14 }, external.port),
        };
        becomes(&mut r, &came, far, inside);
        let (mut came, mut went) = (came.clone(), came.between(far, inside));
        (came.ttl, went.ttl) = (63, 63);
        // By the host itself, and by a router on the way to it, which nobody outside knows.
        for from in [HOST, "192.168.1.77", "172.16.9.9"] {
            for (k, quote) in [((3, 3, 0), 28), ((3, 1, 0), 576), ((3, 4, 1280), 40), ((11, 0, 0), 576)] {
                let e = error_about(&went, from, k, quote).into_port(LAN);
                let want = error_about(&came, WAN_IP, k, quote);
                match r.send(&e) {
                    Outcome::Tx(port, f) => {
                        let want = left(&e, want, &f).forwarded(WAN, ISP);
                        assert_eq!((port, f), (WAN, want), "{e:?}");
                    }
                    other => panic!("{other:?}: {e:?}"),
                }
            }
        }
    }
}

#[test]
pub fn errors_refresh_and_end_no_query() {
    let mut r = nat();
    let p = query(HOST, FAR, 8, 77);
    out(&mut r, &p);
    let wire = p.clone().between(end(WAN_IP, 77), end(FAR, 0));
    for _ in 0..5 {
        assert!(still(&mut r, NatProtocol::Icmp, 77, secs(11)));
        for k in [(3, 1, 0), (11, 0, 0)] {
            error_becomes(&mut r, &error_about(&wire, CORE, k, 28), &error_about(&p, CORE, k, 28));
        }
    }
    // 55 s are over, and a few more make a minute from the query, not from the errors.
    assert!(!still(&mut r, NatProtocol::Icmp, 77, secs(7)));
}

#[test]
pub fn queries_and_errors_hairpin() {
    let mut n = net();
    // Basic NAT: an address to itself.
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "203.0.113.50", HOST, None);
    let mut r = Rig::new(n);
    for (ask, answer) in QUERIES {
        for client in [HOST2, HOST3] {
            let q = query(client, "203.0.113.50", ask, 77);
            let Outcome::Tx(_, f) = r.send(&from_its_side(&q)) else { panic!("{q:?}") };
            let e = ends4(&f).0;
            assert_eq!(e.addr.to_string(), WAN_IP, "the sender's own outside address");
            becomes(&mut r, &q, e, end(HOST, 0));
            let a = query(HOST, WAN_IP, answer, e.port);
            becomes(&mut r, &a, end("203.0.113.50", 0), end(client, 77));
        }
    }
}

#[test]
pub fn hairpinned_errors() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((UDP, 8000, 8000, 53)));
    n.dnat(Kind::Internet, "", HOST, Some((TCP, 8000, 8000, 80)));
    let mut r = Rig::new(n);
    for client in [HOST2, HOST3] {
        for (p, inside) in [
            (Pkt::udp(client, WAN_IP, 4000, 8000), end(HOST, 53)),
            (Pkt::tcp(client, WAN_IP, 4000, 8000, SYN), end(HOST, 80)),
        ] {
            let f = r.send(&from_its_side(&p));
            let e = ends4(f.frame()).0;
            // The server has seen another identification, and quotes that.
            let went = p.clone().ttl(63).between(e, inside).numbered_as(f.frame());
            for (k, quote) in [((3, 3, 0), 28), ((3, 4, 1280), 576)] {
                // The server refuses what it got; the client sees the server's outside address refuse
                // what it sent.
                let error = error_about(&went, HOST, k, quote);
                let want = error_about(&p.clone().ttl(63).numbered_as(f.frame()), WAN_IP, k, quote);
                error_becomes(&mut r, &error, &want);
            }
        }
    }
}

#[test]
pub fn who_gets_no_session_is_told() {
    let prohibited = |r: &mut Rig, p: &Pkt, reason, from: &str| {
        refused(r, p, reason);
        let (port, via) = way_to(&p.src.to_string());
        let mut want = Pkt::icmp(from, &p.src.to_string(), 3, 13, 0, &p.ip());
        (want.id, want.frag, want.tos, want.ttl) = (0, 0x4000, 0xC0, 65);
        assert_eq!(r.emitted(), [(port, want.forwarded(port, &via))]);
    };
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.nat.limits.host_sessions = Some(2);
    n.nat.limits.range = 2000..=2002;
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 1));
    out(&mut r, &Pkt::udp(HOST, FAR, 4001, 1));
    for p in [Pkt::udp(HOST, FAR, 4002, 1), Pkt::tcp(HOST, FAR, 1, 1, SYN), query(HOST, FAR, 8, 3)] {
        prohibited(&mut r, &p, DropReason::SnatHostLimit, "192.168.1.1");
    }
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 1));
    prohibited(&mut r, &Pkt::udp(HOST3, FAR, 4000, 1), DropReason::SnatExhausted, "192.168.2.1");
}

#[test]
pub fn a_full_table_is_told_too() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::sized(n, 4);
    // Answered sessions do not make room.
    for port in 4000..4004 {
        out(&mut r, &Pkt::udp(HOST, FAR, port, 53));
        becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 53, port), end(FAR, 53), end(HOST, port));
    }
    refused(&mut r, &Pkt::udp(HOST, FAR, 4004, 53), DropReason::SessionTableFull);
    let told = r.emitted();
    assert_eq!(told.iter().map(|(_, f)| (f[34], f[35])).collect::<Vec<_>>(), [(3, 13)]);
    assert_eq!(pool(&r).bindings(NatProtocol::Udp).count(), 4, "and what was taken for it is given back");
}

#[test]
pub fn who_is_denied_by_the_acl_is_told() {
    for (by_rule, reason) in [(true, DropReason::AclDenied), (false, DropReason::AclDefaultDenied)] {
        let net = || {
            let mut n = net();
            n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, WAN_IP, HOST, Some((TCP, 80, 80, 80)));
            n.acl = match by_rule {
                true => Acl::new(true).rule(Class::OutWan, false, "* * * * *").rule(
                    Class::InWan,
                    false,
                    "* * * * *",
                ),
                false => Acl::new(false).rule(Class::OutLan, true, "* * * * *"),
            };
            n
        };
        let mut r = Rig::new(net());
        for p in [Pkt::udp(HOST, FAR, 4002, 1), Pkt::tcp(HOST, FAR, 1, 1, SYN), query(HOST, FAR, 8, 3)] {
            refused(&mut r, &p, reason);
            let mut want = Pkt::icmp("192.168.1.1", HOST, 3, 13, 0, &p.ip());
            (want.id, want.frag, want.tos, want.ttl) = (0, 0x4000, 0xC0, 65);
            assert_eq!(r.emitted(), [(LAN, want.forwarded(LAN, HOST))]);
        }
        let v6 = Pkt::udp("2001:db8:1::10", "2001:db8:9::1", 1, 2);
        assert_eq!(r.send(&v6), Outcome::Drop(reason));
        let told: Vec<_> = r.emitted().iter().map(|(port, f)| (*port, f[54], f[55])).collect();
        assert_eq!(told, [(LAN, 1, 1)], "RFC 4443 3.1");
        // Once the flow has a record, its packets are dropped in silence until it is judged again.
        let again = Pkt::udp(HOST, FAR, 4002, 1);
        refused(&mut r, &again, reason);
        assert_eq!(r.emitted().len(), 1);
        refused(&mut r, &again, reason);
        assert_eq!(r.emitted(), []);
        // Nobody outside learns of it.
        silently_refused(&mut r, &Pkt::tcp(FAR, WAN_IP, 1, 80, SYN), reason);
        silently_refused(&mut r, &Pkt::udp("2001:db8:9::1", "2001:db8:1::10", 1, 2), reason);
        let mut off = net();
        off.options.acl_reject = false;
        silently_refused(&mut Rig::new(off), &Pkt::udp(HOST, FAR, 4002, 1), reason);
    }
}

#[test]
pub fn errors_that_the_gateway_sends() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad).route("100.64.0.0/16", sag_pipeline::snapshot::Route::Unreachable);
    let mut r = Rig::new(n);
    let mut told = |p: &Pkt| {
        assert!(matches!(r.send(&from_its_side(p)), Outcome::Drop(_)));
        let e = r.emitted();
        assert_eq!(e.len(), 1, "{p:?}");
        let f = &e[0].1;
        assert_eq!(&f[42..], &p.ip()[..p.ip().len().min(548)], "the packet as its sender knows it");
        (f[34], f[35], f[15])
    };
    // Precedence "internetwork control".
    assert_eq!(told(&Pkt::udp(HOST, FAR, 4000, 33434).ttl(1)), (11, 0, 0xC0));
    assert_eq!(told(&Pkt::udp(HOST, "100.64.0.1", 4000, 1)), (3, 1, 0xC0));
    assert_eq!(told(&query(HOST, FAR, 8, 5).ttl(1)), (11, 0, 0xC0));
}

#[test]
pub fn a_translated_packet_that_expires_is_quoted_as_it_came() {
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 53));
    let e = out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    let late = Pkt::udp(FAR, WAN_IP, 53, e.port).ttl(1);
    refused(&mut r, &late, DropReason::TtlExpired);
    let mut want = Pkt::icmp(WAN_IP, FAR, 11, 0, 0, &late.ip());
    (want.id, want.frag, want.tos, want.ttl) = (0, 0x4000, 0xC0, 65);
    assert_eq!(r.emitted(), [(WAN, want.forwarded(WAN, ISP))]);
}

#[test]
pub fn no_errors_about_errors() {
    let mut r = nat();
    let (p, wire) = sessions(&mut r).remove(0);
    silently_refused(&mut r, &error_about(&wire, CORE, (3, 1, 0), 28).ttl(1), DropReason::TtlExpired);
    let p = p.payload(1000);
    assert!(r.send(&p.fragment(0, 480)).is_tx());
    silently_refused(&mut r, &p.fragment(480, 480).ttl(1), DropReason::TtlExpired);
}

#[test]
pub fn the_rate_of_errors_is_limited() {
    let mut n = net();
    n.options.icmp_rate = 100;
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    for i in 0..1000 {
        refused(&mut r, &Pkt::udp(HOST, FAR, 1000 + i, 33434).ttl(1), DropReason::TtlExpired);
    }
    let burst = r.emitted().len();
    assert!((10..20).contains(&burst), "{burst} at once");
}

#[test]
pub fn errors_can_be_switched_off() {
    let mut n = net();
    n.options.icmp_rate = 0;
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    silently_refused(&mut r, &Pkt::udp(HOST, FAR, 1, 33434).ttl(1), DropReason::TtlExpired);
}

#[test]
pub fn other_messages_are_translated_by_address() {
    // Neither query nor error that NAT knows: Photuris, extended echo requests.
    for kind in [40, 42] {
        let mut r = nat();
        let p = Pkt::icmp(HOST, FAR, kind, 0, 0x0001_0203, b"data");
        for _ in 0..2 {
            becomes(&mut r, &p, end(WAN_IP, 0), end(FAR, 0));
            let back = Pkt::icmp(FAR, WAN_IP, kind + 1, 0, 0x0001_0203, b"data");
            becomes(&mut r, &back, end(FAR, 0), end(HOST, 0));
        }
        // Without an identifier, one host at a time can talk to one address.
        refused(&mut r, &Pkt::icmp(HOST2, FAR, kind, 0, 0, b"data"), DropReason::SnatExhausted);
    }
}

#[test]
pub fn nothing_is_translated_against_the_acl() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.acl = Acl::new(true).rule(Class::OutWan, false, "1 * * * *");
    let mut r = Rig::new(n);
    refused(&mut r, &query(HOST, FAR, 8, 77), DropReason::AclDenied);
    assert_eq!(r.sessions().0, 0);
    assert!(!bound(&r, NatProtocol::Icmp, 77));
}

#[test]
pub fn source_routes_are_refused() {
    let mut r = nat();
    for option in [131, 137] {
        let p = Pkt::udp(HOST, FAR, 4000, 53).options(&[option, 3, 4, 0]);
        silently_refused(&mut r, &p, DropReason::Ip4SourceRoute);
    }
}
