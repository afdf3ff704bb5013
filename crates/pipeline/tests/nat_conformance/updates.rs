//! RFC 7857.

use crate::kit::*;
use sag_model::{DropReason, config};
use sag_packet::proto::{TCP, UDP_LITE};
use sag_pipeline::nat::{Kind, NatProtocol};
use sag_pipeline::policy::Class;
use std::collections::BTreeSet;

const ISN: u32 = 0xFFFF_8000;
const THEIRS: u32 = 0x1234_0000;

fn ask(flags: u8, (seq, ack): (u32, u32)) -> Pkt {
    segment(HOST, FAR, (4000, 80), flags, (ISN.wrapping_add(seq), THEIRS.wrapping_add(ack)))
}

fn answer(flags: u8, (seq, ack): (u32, u32)) -> Pkt {
    segment(FAR, WAN_IP, (80, 4000), flags, (THEIRS.wrapping_add(seq), ISN.wrapping_add(ack)))
}

#[track_caller]
fn goes_out(r: &mut Rig, p: &Pkt) {
    becomes(r, p, end(WAN_IP, 4000), end(FAR, 80));
}

#[track_caller]
fn comes_in(r: &mut Rig, p: &Pkt) {
    becomes(r, p, end(FAR, 80), end(HOST, 4000));
}

fn established() -> Rig {
    let mut r = nat();
    goes_out(&mut r, &ask(SYN, (0, 0)));
    comes_in(&mut r, &answer(SYNACK, (0, 1)));
    goes_out(&mut r, &ask(ACK, (1, 1)));
    r
}

#[test]
pub fn tcp_states_have_their_times() {
    // RFC 6146 3.5.2: SYN, established, FIN of one side (still the long time), of both, RST; a new SYN
    // after that.
    let t = config::Timeouts::default();
    let ends_after = |r: &mut Rig, time: u32| {
        assert!(still(r, NatProtocol::Tcp, 4000, secs(u64::from(time) - 1)), "{time} s");
        assert!(!still(r, NatProtocol::Tcp, 4000, secs(2)), "{time} s");
    };
    let mut r = nat();
    goes_out(&mut r, &ask(SYN, (0, 0)));
    ends_after(&mut r, t.tcp_syn);
    ends_after(&mut established(), t.tcp_established);
    let mut r = established();
    comes_in(&mut r, &answer(FIN, (1, 1)));
    ends_after(&mut r, t.tcp_established);
    let mut r = established();
    comes_in(&mut r, &answer(FIN, (1, 1)));
    goes_out(&mut r, &ask(FIN, (1, 2)));
    ends_after(&mut r, t.tcp_transitory);
    let mut r = established();
    comes_in(&mut r, &answer(RST, (1, 1)));
    ends_after(&mut r, t.tcp_transitory);
    let mut r = established();
    comes_in(&mut r, &answer(RST, (1, 1)));
    goes_out(&mut r, &ask(SYN, (0, 0)));
    comes_in(&mut r, &answer(SYNACK, (0, 1)));
    goes_out(&mut r, &ask(ACK, (1, 1)));
    ends_after(&mut r, t.tcp_established);
    // Half open: the other side has answered, the initiator has said no more.
    let mut r = nat();
    goes_out(&mut r, &ask(SYN, (0, 0)));
    comes_in(&mut r, &answer(SYNACK, (0, 1)));
    ends_after(&mut r, t.tcp_syn);
    // Refused.
    let mut r = nat();
    goes_out(&mut r, &ask(SYN, (0, 0)));
    comes_in(&mut r, &answer(RST | ACK, (0, 1)));
    ends_after(&mut r, t.tcp_refused);
}

#[test]
pub fn opening_and_closing_have_timers_of_their_own() {
    let mut n = net();
    let t = config::Timeouts { tcp_syn: 30, tcp_transitory: 400, ..config::Timeouts::default() };
    n.options.timeouts = timeouts(t);
    n.wan_snat(WAN, Ei, Ad);
    let mut r = Rig::new(n);
    goes_out(&mut r, &ask(SYN, (0, 0)));
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(29)));
    assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(2)), "less than four minutes if so configured");
    goes_out(&mut r, &ask(SYN, (0, 0)));
    comes_in(&mut r, &answer(SYNACK, (0, 1)));
    goes_out(&mut r, &ask(ACK, (1, 1)));
    comes_in(&mut r, &answer(RST | ACK, (1, 1)));
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(399)));
    assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(2)));
}

#[test]
pub fn both_default_to_four_minutes() {
    let t = config::Timeouts::default();
    assert!(t.tcp_syn >= 240 && t.tcp_transitory >= 240);
}

#[test]
pub fn a_reset_is_translated() {
    let mut r = established();
    for (seq, ack) in [(1, 1), (2, 1)] {
        comes_in(&mut r, &answer(RST | ACK, (seq, ack)));
        goes_out(&mut r, &ask(RST, (seq, ack)));
    }
}

#[test]
pub fn a_reset_ends_nothing_for_four_minutes() {
    for from_outside in [false, true] {
        let mut r = established();
        match from_outside {
            true => comes_in(&mut r, &answer(RST, (1, 1))),
            false => goes_out(&mut r, &ask(RST, (1, 1))),
        }
        assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(4 * MINUTE - 1)));
        // Lost on its last stretch and sent again: there is still a way.
        match from_outside {
            true => comes_in(&mut r, &answer(RST, (1, 1))),
            false => goes_out(&mut r, &ask(RST, (1, 1))),
        }
        assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(4 * MINUTE + 1)));
    }
}

#[test]
pub fn a_connection_that_outlives_a_reset_goes_on() {
    let mut r = established();
    comes_in(&mut r, &answer(RST, (1, 1)));
    r.wait(secs(60));
    goes_out(&mut r, &ask(ACK, (1, 1)));
    comes_in(&mut r, &answer(ACK, (1, 1)));
    assert!(
        still(&mut r, NatProtocol::Tcp, 4000, secs(7439)),
        "it was not the connection's: two hours again"
    );
    assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(2)));
}

#[test]
pub fn forged_resets_are_dropped() {
    let mut r = established();
    for far in [0x0100_0000, 0x4000_0000, 0x8000_0000, 0xC000_0000] {
        for flags in [RST, RST | ACK] {
            silently_refused(&mut r, &answer(flags, (far, 1)), DropReason::TcpOutOfWindow);
            silently_refused(&mut r, &ask(flags, (far, 1)), DropReason::TcpOutOfWindow);
        }
    }
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(7439)));
    // The refusal of a SYN has no sequence number to go by: it must acknowledge the SYN.
    let mut r = nat();
    goes_out(&mut r, &ask(SYN, (0, 0)));
    silently_refused(&mut r, &answer(RST | ACK, (0x5555, 0x4000_0000)), DropReason::TcpOutOfWindow);
    comes_in(&mut r, &answer(RST | ACK, (0x5555, 1)));
}

#[test]
pub fn a_reset_begins_nothing() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ei).dnat(Kind::Internet, "", HOST, Some((TCP, 8080, 8080, 80)));
    let mut r = Rig::new(n);
    out(&mut r, &Pkt::tcp(HOST2, FAR2, 4000, 443, SYN));
    for flags in [RST, RST | ACK, RST | SYN] {
        for port in [8080, 4000] {
            silently_refused(&mut r, &Pkt::tcp(FAR, WAN_IP, 80, port, flags), DropReason::NatNoSession);
            silently_refused(&mut r, &Pkt::tcp(HOST3, WAN_IP, 80, port, flags), DropReason::NatNoSession);
        }
        silently_refused(&mut r, &Pkt::tcp(HOST, FAR, 4001, 80, flags), DropReason::NatNoSession);
    }
    assert_eq!(r.sessions().0, 1);
}

#[test]
pub fn one_port_may_serve_several_hosts() {
    let mut r = nat_as(Apd, Apd);
    // Towards different places everybody keeps the port; towards the same one they are told apart.
    for (host, far) in [(HOST, FAR), (HOST2, FAR2), (HOST3, CORE)] {
        for p in [Pkt::udp(host, far, 4000, 53), Pkt::tcp(host, far, 4000, 80, SYN)] {
            assert_eq!(out(&mut r, &p), end(WAN_IP, 4000));
        }
        becomes(&mut r, &Pkt::udp(far, WAN_IP, 53, 4000), end(far, 53), end(host, 4000));
    }
    assert_ne!(out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 53)), end(WAN_IP, 4000));
    assert_eq!(out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 54)), end(WAN_IP, 4000));
    becomes(&mut r, &Pkt::udp(FAR, WAN_IP, 54, 4000), end(FAR, 54), end(HOST2, 4000));
    // Not with the default mapping, for which REQ-1 rules it out.
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    assert_ne!(out(&mut r, &Pkt::udp(HOST2, FAR2, 4000, 53)).port, 4000);
}

#[test]
pub fn a_shared_port_keeps_its_parity() {
    let mut r = nat_as(Apd, Apd);
    for port in 4000..4020 {
        out(&mut r, &Pkt::udp(HOST, FAR, port, 53));
        let other = out(&mut r, &Pkt::udp(HOST2, FAR, port, 53)).port;
        assert_ne!(other, port);
        assert_eq!(other % 2, port % 2);
    }
}

#[test]
pub fn what_cannot_be_translated_does_not_pass() {
    // A checksum over addresses that is not recomputed would arrive wrong.
    let mut n = net();
    n.wan_snat(WAN, Ei, Ei).dnat(Kind::Internet, "203.0.113.50", HOST, None);
    let mut r = Rig::new(n);
    for (src, dst) in [(HOST2, FAR), (FAR, "203.0.113.50"), (HOST2, "203.0.113.50")] {
        let p = Pkt::new(src, dst, UDP_LITE, vec![0; 16]);
        silently_refused(&mut r, &p, DropReason::NatProtocol);
    }
}

#[test]
pub fn a_host_takes_a_block_when_its_own_are_full() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ad);
    n.nat.limits.port_block = Some(64);
    n.nat.limits.range = 1024..=1343;
    let mut r = Rig::new(n);
    let hosts: Vec<_> = (20..25).map(|i| format!("192.168.1.{i}")).collect();
    let block = |r: &mut Rig, host: &str, port| out(r, &Pkt::udp(host, FAR, port, 53)).port / 64;
    for stays in &hosts {
        // As many hosts as blocks: most do not get the one that they look at first.
        let blocks: BTreeSet<_> = hosts.iter().map(|h| block(&mut r, h, 5000)).collect();
        assert_eq!(blocks.len(), 5);
        let own = block(&mut r, stays, 5000);
        for _ in 0..2 {
            r.wait(secs(200));
            block(&mut r, stays, 5000);
        }
        // The others are gone, their blocks are free.
        for port in 5001..5064 {
            assert_eq!(block(&mut r, stays, port), own, "{stays} takes another block");
        }
        assert_ne!(block(&mut r, stays, 5064), own);
        r.wait(secs(400));
    }
}

#[test]
pub fn a_host_whose_address_has_no_port_left_is_refused() {
    let mut n = net();
    n.snat("192.168.1.0/24", "10.99.0.1", Ei, Ad).snat("192.168.2.0/24", "10.99.0.2", Ei, Ad);
    n.nat.limits.range = 2000..=2001;
    let mut r = Rig::new(n);
    for make in [|a, p| Pkt::udp(a, "10.20.0.5", p, 9), |a, p| Pkt::tcp(a, "10.20.0.5", p, 9, SYN)] {
        for port in [5000, 5001] {
            assert_eq!(out(&mut r, &make(HOST, port)).addr.to_string(), "10.99.0.1");
        }
        // The other address has ports, but the host is not moved to it.
        refused(&mut r, &make(HOST, 5002), DropReason::SnatExhausted);
        assert_eq!(out(&mut r, &make(HOST3, 5000)).addr.to_string(), "10.99.0.2");
    }
}

#[test]
pub fn mappings_are_of_one_protocol() {
    let mut r = nat();
    out(&mut r, &Pkt::tcp(HOST2, FAR, 4000, 80, SYN));
    let tcp = out(&mut r, &Pkt::tcp(HOST, FAR, 4000, 80, SYN));
    let udp = out(&mut r, &Pkt::udp(HOST, FAR, 4000, 80));
    let icmp = out(&mut r, &Pkt::echo(HOST, FAR, 4000, false));
    assert_ne!(tcp.port, 4000);
    assert_eq!((udp.port, icmp.port), (4000, 4000), "what TCP has taken is free for the others");
}

#[test]
pub fn filters_are_of_one_protocol() {
    for filtering in [Ei, Ad] {
        let mut r = nat_as(Ei, filtering);
        out(&mut r, &Pkt::tcp(HOST, FAR, 4000, 80, SYN));
        let udp = Pkt::udp(FAR, WAN_IP, 80, 4000).into_port(WAN);
        assert_eq!(r.send(&udp), Outcome::Kernel, "nobody has that UDP port");
        out(&mut r, &Pkt::udp(HOST, FAR2, 4000, 80));
        match filtering {
            Ei => assert!(r.send(&udp).is_tx()),
            _ => assert_eq!(r.send(&udp), Outcome::Drop(DropReason::NatFiltered)),
        }
    }
}

#[test]
pub fn a_refused_syn_refreshes_nothing() {
    let mut n = net();
    n.wan_snat(WAN, Ei, Ei);
    n.acl = Acl::new(true).rule(Class::InWan, false, "6 198.51.100.8/32 * * *");
    let forbidden = (Rig::new(n), DropReason::AclDenied);
    for (mut r, reason) in [forbidden, (nat(), DropReason::NatFiltered)] {
        out(&mut r, &Pkt::tcp(HOST, FAR, 4000, 80, SYN));
        for _ in 0..2 {
            assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(80)));
            refused(&mut r, &Pkt::tcp(FAR2, WAN_IP, 1, 4000, SYN), reason);
        }
        assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(81)));
    }
}

#[test]
pub fn errors_sent_out_refresh_nothing() {
    let mut r = nat_as(Ei, Ei);
    out(&mut r, &Pkt::udp(HOST, FAR, 4000, 53));
    let came = Pkt::udp(FAR, WAN_IP, 53, 4000);
    becomes(&mut r, &came, end(FAR, 53), end(HOST, 4000));
    let went = came.clone().between(end(FAR, 53), end(HOST, 4000));
    for _ in 0..3 {
        assert!(still(&mut r, NatProtocol::Udp, 4000, secs(90)));
        let k = (3, 3, 0);
        error_becomes(&mut r, &error_about(&went, HOST, k, 28), &error_about(&came, WAN_IP, k, 28));
    }
    assert!(!still(&mut r, NatProtocol::Udp, 4000, secs(31)));
    // A reset is the last packet that counts: four minutes from it the connection is over, however
    // much longer it would have been without.
    let mut r = established();
    goes_out(&mut r, &ask(RST, (1, 1)));
    assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(4 * MINUTE + 1)));
}

/// The packet from outside that a reset answers has given the session as long as the reset does.
#[test]
pub fn a_reset_sent_out_prolongs_nothing() {
    let life = |reset: bool| {
        let mut r = established();
        goes_out(&mut r, &ask(FIN, (1, 1)));
        comes_in(&mut r, &answer(FIN, (1, 2)));
        goes_out(&mut r, &ask(ACK, (2, 2)));
        r.wait(secs(200));
        comes_in(&mut r, &answer(ACK, (2, 2)));
        if reset {
            goes_out(&mut r, &ask(RST, (2, 2)));
        }
        (1..100).find(|_| !still(&mut r, NatProtocol::Tcp, 4000, secs(5))).expect("it ends")
    };
    let (with, without) = (life(true), life(false));
    assert!(with <= without && without >= 48, "{with} and {without} times 5 s");
}

#[test]
pub fn a_refused_handshake_waits_as_long() {
    let mut r = nat();
    out(&mut r, &segment(HOST, FAR, (4000, 80), SYN, (0, 0)));
    let refusal = segment(FAR, WAN_IP, (80, 4000), RST | ACK, (0, 1));
    becomes(&mut r, &refusal, end(FAR, 80), end(HOST, 4000));
    assert!(still(&mut r, NatProtocol::Tcp, 4000, secs(4 * MINUTE - 1)));
    assert!(!still(&mut r, NatProtocol::Tcp, 4000, secs(2)));
}

#[test]
pub fn the_port_of_a_refused_handshake_goes_to_who_needs_it() {
    let rig = |ports: std::ops::RangeInclusive<u16>| {
        let mut n = net();
        n.wan_snat(WAN, Ei, Ad);
        n.nat.limits.host_share = 100;
        n.nat.limits.range = ports;
        Rig::new(n)
    };
    let refuse = |r: &mut Rig, port| {
        let used = out(r, &segment(HOST, FAR, (port, 80), SYN, (0, 0))).port;
        let refusal = segment(FAR, WAN_IP, (80, used), RST | ACK, (0, 1));
        becomes(r, &refusal, end(FAR, 80), end(HOST, port));
        used
    };
    // With the last port taken.
    let mut r = rig(2000..=2003);
    for port in 5000..5003 {
        refuse(&mut r, port);
    }
    let alive = out(&mut r, &segment(HOST2, FAR, (6000, 80), SYN, (0, 0))).port;
    let ports: BTreeSet<u16> =
        (0..3).map(|n| out(&mut r, &segment(HOST2, FAR, (7000 + n, 80), SYN, (0, 0))).port).collect();
    assert_eq!(ports.len(), 3);
    assert!(!ports.contains(&alive), "an open connection makes no room");
    refused(&mut r, &segment(HOST2, FAR, (8000, 80), SYN, (0, 0)), DropReason::SnatExhausted);
    // Four fifths taken: half the time.
    let mut r = rig(2000..=2009);
    let all: Vec<u16> = (0..8).map(|n| refuse(&mut r, 5000 + n)).collect();
    let left = |r: &mut Rig| all.iter().filter(|p| bound(r, NatProtocol::Tcp, **p)).count();
    r.wait(secs(2 * MINUTE - 5));
    assert_eq!(left(&mut r), 8);
    r.wait(secs(10));
    assert!(left(&mut r) < 8);
}

#[test]
pub fn a_host_may_be_given_another_address() {
    let mut n = net();
    n.wan_pool("192.168.0.0/16", &["198.18.7.1", "198.18.7.2"], Pooling::Paired, true);
    n.nat.limits.range = 2000..=2001;
    n.nat.limits.host_share = 100;
    let mut r = Rig::new(n);
    let of = |r: &mut Rig, port| out(r, &Pkt::udp(HOST, FAR, port, 9)).addr;
    let home = of(&mut r, 5000);
    assert_eq!(of(&mut r, 5001), home);
    let other = of(&mut r, 5002);
    assert_ne!(other, home);
    assert_eq!(of(&mut r, 5003), other);
    refused(&mut r, &Pkt::udp(HOST, FAR, 5004, 9), DropReason::SnatExhausted);
}

#[test]
pub fn ports_that_must_change_are_random() {
    // Hosts that all want one port: what they get has no order, covers the range, and is another in
    // each daemon's life (the seed is the process's; here one generator goes on).
    let mut r = nat();
    out(&mut r, &Pkt::udp(HOST2, FAR, 4000, 53));
    let mut got = Vec::new();
    for i in 0..200u16 {
        let host = format!("192.168.1.{}", 20 + i % 200);
        let p = Pkt::udp(&host, FAR, 4000, 53);
        let f = r.send(&p);
        got.push(ends4(f.frame()).0.port);
    }
    let distinct: BTreeSet<_> = got.iter().collect();
    assert_eq!(distinct.len(), 200);
    assert!(got.iter().all(|p| p % 2 == 0 && *p >= 1024));
    let steps: BTreeSet<_> = got.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    assert!(steps.len() > 180, "steps repeat: {}", steps.len());
    let rising = got.windows(2).filter(|w| w[1] > w[0]).count();
    assert!((60..140).contains(&rising), "{rising} of 199 rise");
    let quarters: BTreeSet<_> = got.iter().map(|p| p / 16384).collect();
    assert_eq!(quarters.len(), 4);
}

#[test]
pub fn query_mappings_end_with_their_last_session() {
    let mut r = nat();
    out(&mut r, &Pkt::echo(HOST, FAR, 77, false));
    r.wait(secs(30));
    out(&mut r, &Pkt::echo(HOST, FAR2, 77, false));
    assert!(still(&mut r, NatProtocol::Icmp, 77, secs(59)), "the first session is over, the second has it");
    assert!(!still(&mut r, NatProtocol::Icmp, 77, secs(2)));
}

#[test]
pub fn atomic_datagrams_keep_their_identification() {
    let mut r = nat();
    for id in [0, 1, 0xFFFF] {
        let mut p = Pkt::udp(HOST, FAR, 4000, 53).df();
        p.id = id;
        // Compared byte for byte, identification included.
        out(&mut r, &p);
    }
}
