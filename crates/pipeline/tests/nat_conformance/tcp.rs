//! RFC 5382.

use crate::kit::*;
use sag_model::{DropReason, config};
use sag_packet::proto::*;
use sag_pipeline::nat::{Kind, NatProtocol};

const HOURS_2_MINUTES_4: u64 = 2 * 3600 + 4 * 60;

fn ask(flags: u8) -> Pkt {
    Pkt::tcp(HOST, FAR, 4000, 80, flags)
}

fn answer(flags: u8) -> Pkt {
    Pkt::tcp(FAR, WAN_IP, 80, 4000, flags)
}

/// Segments in order, `true` from outside; each must be translated.
#[track_caller]
fn talk(r: &mut Rig, segments: &[(u8, bool)]) {
    for &(flags, inbound) in segments {
        match inbound {
            true => becomes(r, &answer(flags), end(FAR, 80), end(HOST, 4000)),
            false => becomes(r, &ask(flags), end(WAN_IP, 4000), end(FAR, 80)),
        }
    }
}

const HANDSHAKE: [(u8, bool); 3] = [(SYN, false), (SYNACK, true), (ACK, false)];

#[test]
pub fn mapping_is_endpoint_independent() {
    assert_eq!(default_behavior().0, Ei);
    let mut r = nat();
    out(&mut r, &Pkt::tcp(HOST2, FAR, 4000, 80, SYN));
    let first = out(&mut r, &Pkt::tcp(HOST, FAR, 4000, 80, SYN));
    assert_ne!(first.port, 4000);
    for (far, port) in [(FAR, 80), (FAR, 443), (FAR2, 80), (FAR2, 22)] {
        assert_eq!(out(&mut r, &Pkt::tcp(HOST, far, 4000, port, SYN)), first);
    }
}

#[test]
pub fn connections_from_inside() {
    let mut r = nat();
    talk(&mut r, &HANDSHAKE);
    // Data both ways, a keep-alive, a retransmitted SYN+ACK, closing from either side, late ACKs.
    talk(&mut r, &[(ACK, false), (ACK, true), (ACK | PSH, true), (SYNACK, true), (ACK, false)]);
    talk(&mut r, &[(FIN, true), (ACK, false), (ACK, false), (ACK, true), (FIN, false), (ACK, true)]);
    talk(&mut r, &[(FIN, false), (ACK, true)]);
    // The same endpoints again, refused this time; and once more.
    talk(&mut r, &[(SYN, false), (RST | ACK, true)]);
    talk(&mut r, &HANDSHAKE);
    talk(&mut r, &[(FIN, false), (FIN, true), (ACK, false)]);
    assert_eq!(r.sessions().0, 1);
}

#[test]
pub fn segments_in_any_order() {
    // Overtaken on the way: data before the handshake's last ACK, FIN before data, all flags.
    let mut r = nat();
    talk(&mut r, &[(SYN, false), (SYN, false), (SYNACK, true), (FIN, true), (ACK, true), (ACK, false)]);
    talk(&mut r, &[(FIN | PSH, false), (ACK, false), (FIN, true), (ACK, true), (ACK, false)]);
    let mut r = nat();
    talk(&mut r, &[(SYN | TCP_FIN, false), (SYNACK, true), (ACK, false)]);
}

#[test]
pub fn connections_from_outside() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((TCP, 8080, 8080, 4000)));
    let mut r = Rig::new(n);
    let from_far = |flags| Pkt::tcp(FAR, WAN_IP, 80, 8080, flags);
    for (flags, inbound) in [
        (SYN, true),
        (SYNACK, false),
        (ACK, true),
        (ACK, false),
        (ACK, true),
        (FIN, false),
        (ACK, true),
        (FIN, true),
        (ACK, false),
    ] {
        match inbound {
            true => becomes(&mut r, &from_far(flags), end(FAR, 80), end(HOST, 4000)),
            false => becomes(&mut r, &ask(flags), end(WAN_IP, 8080), end(FAR, 80)),
        }
    }
    // Where the filter lets everybody in, to a host's own port too.
    let mut r = nat_as(Ei, Ei);
    out(&mut r, &Pkt::tcp(HOST, FAR2, 4000, 443, SYN));
    talk(&mut r, &[(SYN, true), (SYNACK, false), (ACK, true), (ACK, false)]);
}

#[test]
pub fn simultaneous_open() {
    for filtering in [Ei, Ad, Apd] {
        let mut r = nat_as(Ei, filtering);
        // Both SYNs cross, then both SYN+ACKs.
        talk(
            &mut r,
            &[(SYN, false), (SYN, true), (SYNACK, false), (SYNACK, true), (ACK, false), (ACK, true)],
        );
        assert!(
            still(&mut r, NatProtocol::Tcp, 4000, secs(HOURS_2_MINUTES_4 - 1)),
            "it counts as established"
        );
        // The other's SYN comes first and is dropped; ours opens the way for its repetition.
        let mut r = nat_as(Ei, filtering);
        out(&mut r, &Pkt::tcp(HOST, FAR2, 4000, 443, SYN));
        if filtering != Ei {
            silently_refused(&mut r, &answer(SYN), DropReason::NatFiltered);
        }
        talk(&mut r, &[(SYN, false), (SYN, true), (SYNACK, false), (SYNACK, true)]);
    }
}

#[test]
pub fn filtering_is_one_of_the_recommended() {
    assert_eq!(default_behavior().1, Ad);
    let mut r = nat();
    out(&mut r, &ask(SYN));
    for port in [1000, 2000] {
        becomes(&mut r, &Pkt::tcp(FAR, WAN_IP, port, 4000, SYN), end(FAR, port), end(HOST, 4000));
    }
    silently_refused(&mut r, &Pkt::tcp(FAR2, WAN_IP, 1000, 4000, SYN), DropReason::NatFiltered);
    out(&mut r, &Pkt::tcp(HOST, FAR2, 4000, 7, SYN));
    becomes(&mut r, &Pkt::tcp(FAR2, WAN_IP, 1000, 4000, SYN), end(FAR2, 1000), end(HOST, 4000));
}

#[test]
pub fn filtering_is_configurable() {
    for (filtering, other_port, other_address) in [(Ei, true, true), (Ad, true, false), (Apd, false, false)] {
        let mut r = nat_as(Ei, filtering);
        out(&mut r, &ask(SYN));
        for (far, port, admitted) in [(FAR, 2000, other_port), (FAR2, 80, other_address)] {
            let p = Pkt::tcp(far, WAN_IP, port, 4000, SYN);
            match admitted {
                true => becomes(&mut r, &p, end(far, port), end(HOST, 4000)),
                false => silently_refused(&mut r, &p, DropReason::NatFiltered),
            }
        }
    }
}

#[test]
pub fn unsolicited_syns_get_no_answer() {
    let mut n = net();
    // An address of its own beside the gateway's.
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "203.0.113.50", HOST, Some((TCP, 80, 80, 80)));
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::tcp(HOST, FAR2, 4000, 443, SYN));
    for (to, port) in [(WAN_IP, 4000), ("203.0.113.50", 81), ("203.0.113.50", 1)] {
        let p = Pkt::tcp(FAR, to, 80, port, SYN);
        silently_refused(&mut r, &p, DropReason::NatFiltered);
        // Nor later, when it might.
        for _ in 0..10 {
            r.wait(secs(1));
            assert_eq!(r.emitted(), []);
        }
    }
    // Within those six seconds the host sends its own: the connection comes about.
    silently_refused(&mut r, &answer(SYN), DropReason::NatFiltered);
    r.wait(secs(3));
    talk(&mut r, &[(SYN, false), (SYNACK, true), (ACK, false)]);
    assert_eq!(r.emitted(), []);
}

#[test]
pub fn unsolicited_syns_to_the_gateway_get_no_answer() {
    let mut r = nat();
    let syn = |port| Pkt::tcp(FAR, WAN_IP, 80, port, SYN);
    // A port on which the gateway itself listens is its own.
    let mut listens = vec![0; sag_pipeline::nat::POOL_WORDS];
    listens[0] |= 1 << 22;
    pool(&r).reserve(&listens);
    for port in [1, 23, 4000, 65_535] {
        silently_refused(&mut r, &syn(port), DropReason::NatFiltered);
        for _ in 0..7 {
            r.wait(secs(1));
            assert_eq!(r.emitted(), []);
        }
    }
    assert_eq!(r.send(&from_its_side(&syn(22))), Outcome::Kernel);
    // Both open at once.
    silently_refused(&mut r, &answer(SYN), DropReason::NatFiltered);
    r.wait(secs(3));
    talk(&mut r, &[(SYN, false), (SYNACK, true), (ACK, false)]);
    // What else comes to the gateway is its own, and so is what comes from inside.
    for flags in [ACK, RST, SYNACK, FIN] {
        assert_eq!(r.send(&from_its_side(&Pkt::tcp(FAR, WAN_IP, 80, 1, flags))), Outcome::Kernel);
    }
    assert_eq!(r.send(&from_its_side(&Pkt::udp(FAR, WAN_IP, 80, 1))), Outcome::Kernel);
    assert_eq!(r.send(&Pkt::tcp(HOST, WAN_IP, 80, 1, SYN)), Outcome::Kernel);
    r.commit(|n| n.nat.drops_unsolicited = false);
    assert_eq!(r.send(&from_its_side(&syn(1))), Outcome::Kernel);
}

#[test]
pub fn unsolicited_syns_to_a_pool_get_no_answer() {
    let mut n = net();
    n.wan_pool("192.168.0.0/16", &["198.18.7.1", "198.18.7.2"], Pooling::Paired, false);
    for p in &mut n.nat.pools {
        (p.mapping, p.filtering) = (Ei, Ad);
    }
    let mut r = Rig::new(n);
    let mine = out(&mut r, &Pkt::tcp(HOST, FAR2, 4000, 443, SYN));
    for (to, port) in [("198.18.7.1", 1), ("198.18.7.2", 22), (&*mine.addr.to_string(), 4000)] {
        silently_refused(&mut r, &Pkt::tcp(FAR, to, 80, port, SYN), DropReason::NatFiltered);
        for _ in 0..7 {
            r.wait(secs(1));
            assert_eq!(r.emitted(), []);
        }
    }
}

#[test]
pub fn idle_timeouts() {
    let t = config::Timeouts::default();
    assert!(u64::from(t.tcp_established) >= HOURS_2_MINUTES_4);
    assert!(u64::from(t.tcp_transitory) >= 4 * MINUTE && u64::from(t.tcp_syn) >= 4 * MINUTE);
    let lasts = |segments: &[(u8, bool)], time: u64| {
        let mut r = nat();
        talk(&mut r, segments);
        assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(time - 1)), "{segments:?} for {time} s");
        assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(2)), "{segments:?} not longer than {time} s");
    };
    // The phases of section 5: partially open, established (which it is until both have sent a FIN),
    // closing.
    lasts(&[(SYN, false)], 4 * MINUTE);
    lasts(&HANDSHAKE, HOURS_2_MINUTES_4);
    for first in [false, true] {
        let half = [&HANDSHAKE[..], &[(FIN, first), (ACK, !first)]].concat();
        lasts(&half, HOURS_2_MINUTES_4);
        lasts(&[&half[..], &[(FIN, !first)]].concat(), 4 * MINUTE);
        lasts(&[&half[..], &[(FIN, !first), (ACK, first)]].concat(), 4 * MINUTE);
    }
}

#[test]
pub fn the_timers_are_configurable() {
    let mut n = net();
    let t = config::Timeouts { tcp_established: 9000, tcp_transitory: 300, ..config::Timeouts::default() };
    n.options.timeouts = timeouts(t);
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    talk(&mut r, &HANDSHAKE);
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(8999)));
    talk(&mut r, &[(FIN, true), (FIN, false)]);
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(299)));
    assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(2)));
}

#[test]
pub fn no_port_has_two_hosts() {
    let mut r = nat();
    let mut seen = std::collections::BTreeSet::new();
    for host in [HOST, HOST2, HOST3] {
        for port in 4000..4050 {
            let e = out(&mut r, &Pkt::tcp(host, FAR, port, 80, SYN));
            assert!(seen.insert(e), "{e:?} twice");
        }
    }
    for p in 4000..4050 {
        becomes(&mut r, &Pkt::tcp(FAR, WAN_IP, 80, p, SYNACK), end(FAR, 80), end(HOST, p));
    }
}

#[test]
pub fn hairpin() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad).dnat(Kind::Internet, "", HOST, Some((TCP, 8080, 8080, 80)));
    let mut r = Rig::new(n);
    for (client, port) in [(HOST2, 40001), (HOST3, 40002), (HOST, 40003)] {
        let e = end(WAN_IP, port);
        for (flags, back) in
            [(SYN, false), (SYNACK, true), (ACK, false), (ACK, true), (FIN, true), (FIN, false)]
        {
            let p = Pkt::tcp(client, WAN_IP, e.port, 8080, flags);
            let q = Pkt::tcp(HOST, WAN_IP, 80, e.port, flags);
            match back {
                false => becomes(&mut r, &p, e, end(HOST, 80)),
                true => becomes(&mut r, &q, end(WAN_IP, 8080), end(client, e.port)),
            }
        }
    }
    // Between two hosts that have outside ports.
    let mut r = nat();
    let a = out(&mut r, &Pkt::tcp(HOST, FAR, 4000, 443, SYN));
    let b = out(&mut r, &Pkt::tcp(HOST2, FAR, 4000, 443, SYN));
    becomes(&mut r, &Pkt::tcp(HOST, WAN_IP, 4000, b.port, SYN), a, end(HOST2, 4000));
    becomes(&mut r, &Pkt::tcp(HOST2, WAN_IP, 4000, a.port, SYNACK), b, end(HOST, 4000));
}

#[test]
pub fn unreachables_are_translated() {
    let mut r = nat();
    out(&mut r, &Pkt::tcp(HOST2, FAR, 4000, 80, SYN));
    let p = ask(SYN);
    let e = out(&mut r, &p);
    let wire = p.clone().between(e, end(FAR, 80));
    for code in 0..=15 {
        let word = if code == 4 { 1280 } else { 0 };
        for quote in [28, 40, 47, 576] {
            let kind = (3, code, word);
            error_becomes(
                &mut r,
                &error_about(&wire, CORE, kind, quote),
                &error_about(&p, CORE, kind, quote),
            );
        }
    }
}

#[test]
pub fn icmp_ends_no_connection() {
    let mut r = nat();
    talk(&mut r, &HANDSHAKE);
    let p = ask(ACK);
    let wire = p.clone().between(end(WAN_IP, 4000), end(FAR, 80));
    for kind in [3, 4, 11, 12] {
        for code in 0..=15 {
            let k = (kind, code, 0);
            error_becomes(&mut r, &error_about(&wire, CORE, k, 40), &error_about(&p, CORE, k, 40));
        }
    }
    talk(&mut r, &[(ACK, false), (ACK, true)]);
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(HOURS_2_MINUTES_4 - 1)), "still established");
}
