//! The ACL stage: classes by zones, order, defaults, answers, related errors, policy changes and
//! hit counters.

use super::forwarded;
use sag_model::{DropReason, Zone};
use sag_packet::proto::*;
use sag_pipeline::nat::Event;
use sag_pipeline::policy::Class;
use sag_testkit::*;
use std::time::Duration;

const LAN_HOST: &str = "192.168.1.10";
const WAN_HOST: &str = "198.51.100.7";
const LINE_HOST: &str = "10.20.3.4";
const DENIED: Outcome = Outcome::Drop(DropReason::AclDenied);
const DEFAULT: Outcome = Outcome::Drop(DropReason::AclDefaultDenied);
const ALL: &str = "* * * * *";

fn with(acl: Acl) -> Rig {
    let mut net = Net::branch();
    net.acl = acl;
    Rig::new(net)
}

fn udp(src: &str, dst: &str) -> Pkt {
    let port = if src == WAN_HOST {
        WAN
    } else if src == LINE_HOST {
        LINE
    } else {
        LAN
    };
    Pkt::udp(src, dst, 1000, 2000).into_port(port)
}

#[test]
fn classes_follow_the_zones() {
    let pairs = [
        (LAN_HOST, WAN_HOST, Some(Class::OutWan)),
        (WAN_HOST, LAN_HOST, Some(Class::InWan)),
        (LAN_HOST, LINE_HOST, Some(Class::OutLan)),
        (LINE_HOST, LAN_HOST, Some(Class::InLan)),
        (LAN_HOST, "192.168.1.11", None),
        (LAN_HOST, "192.168.2.10", None),
        (WAN_HOST, LINE_HOST, None),
        (LINE_HOST, WAN_HOST, None),
    ];
    for class in Class::ALL {
        for (src, dst, judged_by) in pairs {
            let mut rig = with(Acl::new(true).rule(class, false, ALL));
            let out = rig.send(&udp(src, dst));
            match judged_by == Some(class) {
                true => assert_eq!(out, DENIED, "{class:?} {src} {dst}"),
                false => assert!(out.is_tx(), "{class:?} {src} {dst}: {out:?}"),
            }
        }
    }
    let zones = [Zone::Lan, Zone::Wan, Zone::Overlay];
    let judged = zones.iter().flat_map(|&a| zones.map(|b| Class::of(a, b))).flatten().count();
    assert_eq!(judged, 4, "nothing else is judged");
}

#[test]
fn the_first_match_decides_and_the_default_the_rest() {
    for default in [true, false] {
        let acl = Acl::new(default)
            .rule(Class::OutWan, true, "17 192.168.1.10/32 * * 2000-2000")
            .rule(Class::OutWan, false, "17 192.168.1.0/24 * * 2000-2000")
            .rule(Class::OutWan, true, "17 192.168.1.11/32 * * 2000-2000")
            .rule(Class::OutWan, false, "6 * * * 80-443")
            .rule(Class::OutWan, true, "6 * * * 443-443");
        let mut rig = with(acl);
        let rest = |out: Outcome| match default {
            true => assert!(out.is_tx(), "{out:?}"),
            false => assert_eq!(out, DEFAULT),
        };
        assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx());
        assert_eq!(rig.send(&udp("192.168.1.11", WAN_HOST)), DENIED, "the tie goes to the earlier rule");
        assert_eq!(rig.send(&Pkt::tcp(LAN_HOST, WAN_HOST, 1, 443, TCP_SYN)), DENIED);
        rest(rig.send(&udp("192.168.2.10", WAN_HOST).into_port(LAN2)));
        rest(rig.send(&Pkt::tcp(LAN_HOST, WAN_HOST, 1, 444, TCP_SYN)));
        rest(rig.send(&Pkt::echo(LAN_HOST, WAN_HOST, 1, false)));
        rest(rig.send(&Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 53)));
    }
    // Bound without a single rule: the default is all there is. Unfiltered traffic passes still.
    let mut rig = with(Acl::new(false));
    assert_eq!(rig.send(&udp(LAN_HOST, WAN_HOST)), DEFAULT);
    assert!(rig.send(&udp(LAN_HOST, "192.168.2.10")).is_tx());
}

#[test]
fn protocols_ports_and_families() {
    let acl = Acl::new(true)
        .rule(Class::OutWan, false, "1 * * * *")
        .rule(Class::OutWan, false, "58 * * * *")
        .rule(Class::OutWan, false, "47 192.168.0.0/16 * * *")
        .rule(Class::OutWan, false, "17 2001:db8:1::/64 * 5000-5999 *")
        .rule(Class::OutWan, false, "* * 203.0.113.64/26 1-65535 *");
    let mut rig = with(acl);
    assert_eq!(rig.send(&Pkt::echo(LAN_HOST, WAN_HOST, 1, false)), DENIED);
    assert_eq!(rig.send(&Pkt::icmp(LAN_HOST, WAN_HOST, 13, 0, 0, &[])), DENIED);
    assert_eq!(rig.send(&Pkt::echo("2001:db8:1::10", "2001:db8:99::7", 1, false)), DENIED);
    assert_eq!(rig.send(&Pkt::new(LAN_HOST, WAN_HOST, 47, vec![0; 9])), DENIED);
    assert!(rig.send(&Pkt::new(LAN_HOST, WAN_HOST, 50, vec![0; 9])).is_tx());
    let v6 = |port| Pkt::udp("2001:db8:1::10", "2001:db8:99::7", port, 53);
    assert!(rig.send(&v6(4999)).is_tx());
    assert_eq!(rig.send(&v6(5000)), DENIED);
    assert_eq!(rig.send(&v6(5999)), DENIED);
    assert!(rig.send(&v6(6000)).is_tx());
    // A rule about ports does not speak of packets without ports.
    let near = "203.0.113.70";
    rig.change(|n| {
        n.neighbor(WAN, near);
    });
    assert_eq!(rig.send(&Pkt::udp(LAN_HOST, near, 1, 2)), DENIED);
    assert!(rig.send(&Pkt::udp(LAN_HOST, near, 0, 2)).is_tx());
    assert!(rig.send(&Pkt::new(LAN_HOST, near, 50, vec![0; 9])).is_tx());
}

#[test]
fn answers_pass_with_their_session() {
    let mut rig = with(Acl::new(true).rule(Class::InWan, false, ALL));
    let answer = udp(WAN_HOST, LAN_HOST);
    let answer = Pkt::udp(WAN_HOST, LAN_HOST, 2000, 1000).link(answer.dmac, answer.smac, 0);
    assert_eq!(rig.send(&answer), DENIED, "nobody asked yet");
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx());
    for _ in 0..3 {
        assert_eq!(rig.send(&answer), Outcome::Tx(LAN, forwarded(&answer, LAN, LAN_HOST)));
    }
    // Not from another side of the gateway, another host, another port.
    let spoofed = Outcome::Drop(DropReason::ReversePath);
    assert_eq!(rig.send(&answer.clone().into_port(LINE)), spoofed, "it does not live there");
    assert_eq!(rig.send(&Pkt::udp("198.51.100.8", LAN_HOST, 2000, 1000).into_port(WAN)), DENIED);
    assert_eq!(rig.send(&Pkt::udp(WAN_HOST, LAN_HOST, 2001, 1000).into_port(WAN)), DENIED);
    // Echo: by identifier.
    assert!(rig.send(&Pkt::echo(LAN_HOST, WAN_HOST, 7, false)).is_tx());
    assert!(rig.send(&Pkt::echo(WAN_HOST, LAN_HOST, 7, true).into_port(WAN)).is_tx());
    assert_eq!(rig.send(&Pkt::echo(WAN_HOST, LAN_HOST, 8, true).into_port(WAN)), DENIED);
    assert_eq!(rig.send(&Pkt::echo(WAN_HOST, LAN_HOST, 7, false).into_port(WAN)), DENIED);
}

#[test]
fn stateless_answers_are_judged_by_themselves() {
    let ok = "17 * * 2000-2000 *";
    let mut net = Net::branch();
    net.options.acl_stateful = false;
    net.acl = Acl::new(true).rule(Class::OutWan, true, ALL).rule(Class::InWan, false, ALL);
    let mut rig = Rig::new(net);
    let (ask, answer) = (udp(LAN_HOST, WAN_HOST), Pkt::udp(WAN_HOST, LAN_HOST, 2000, 1000).into_port(WAN));
    assert!(rig.send(&ask).is_tx());
    for _ in 0..3 {
        assert_eq!(rig.send(&answer), DENIED);
        assert!(rig.send(&ask).is_tx());
    }
    assert_eq!(rig.pipe.counters.sessions_created.get(), 1, "a denied answer does not end the session");
    rig.commit(|n| {
        let acl = std::mem::take(&mut n.acl).cleared();
        n.acl =
            acl.rule(Class::OutWan, true, ALL).rule(Class::InWan, true, ok).rule(Class::InWan, false, ALL);
    });
    for _ in 0..5 {
        assert!(rig.send(&answer).is_tx());
    }
    assert!(rig.send(&ask).is_tx());
    assert_eq!(rig.sessions(), (1, 0));
    rig.wait(Duration::from_millis(50));
    let len = |p: &Pkt| p.ip().len() as u64;
    assert_eq!(rig.net.acl.hits(ok), (5, 5 * len(&answer)), "answers count for the rule that let them in");
    assert_eq!(rig.net.acl.hits(ALL), (5 + 3, 5 * len(&ask) + 3 * len(&answer)));
}

#[test]
fn related_errors_pass_with_their_session() {
    let deny_in = |n: &mut Net| n.acl = Acl::new(true).rule(Class::InWan, false, ALL);
    let mut rig = Rig::branch();
    rig.commit(deny_in);
    let pad6 = [0, 1, 4, 0, 0, 0, 0];
    let about = [
        udp(LAN_HOST, WAN_HOST),
        Pkt::tcp(LAN_HOST, WAN_HOST, 1, 80, TCP_SYN),
        Pkt::echo(LAN_HOST, WAN_HOST, 9, false),
        Pkt::new(LAN_HOST, WAN_HOST, 47, vec![1; 20]),
        Pkt::udp(LAN_HOST, WAN_HOST, 3, 4).options(&[148, 4, 0, 0]),
        Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2),
        Pkt::echo("2001:db8:1::10", "2001:db8:99::7", 9, false),
        Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 3, 4).ext(HOP_BY_HOP, &pad6).ext(DEST_OPTIONS, &pad6),
        Pkt::tcp("2001:db8:1::10", "2001:db8:99::7", 3, 4, TCP_SYN).ext(FRAGMENT, &[0, 0, 0, 0, 0, 0, 9]),
    ];
    // From a router on the way, not from the other end.
    let error = |p: &Pkt, quote: &[u8]| match p.src.is_ipv4() {
        true => Pkt::icmp("100.64.0.1", LAN_HOST, 11, 0, 0, quote).into_port(WAN),
        false => Pkt::icmp("2001:db8:64::1", "2001:db8:1::10", 3, 0, 0, quote).into_port(WAN),
    };
    for p in &about {
        let quote = p.clone().ttl(1).ip();
        assert_eq!(rig.send(&error(p, &quote)), DENIED, "before the session: {p:?}");
        assert!(rig.send(p).is_tx());
        let e = error(p, &quote);
        let (port, via) = (LAN, if p.src.is_ipv4() { LAN_HOST } else { "2001:db8:1::10" });
        assert_eq!(rig.send(&e), Outcome::Tx(port, forwarded(&e, port, via)), "{p:?}");
        // Eight bytes of transport header are enough, seven are not.
        let at = quote.len() - p.l4.len();
        assert!(rig.send(&error(p, &quote[..at + 8])).is_tx());
        assert_eq!(rig.send(&error(p, &quote[..at + 7])), DENIED);
        assert_eq!(rig.send(&error(p, &quote[..4])), DENIED);
    }
    let strange = Pkt::udp(LAN_HOST, WAN_HOST, 1, 9).ip();
    assert_eq!(rig.send(&error(&about[0], &strange)), DENIED);
    let mut broken = about[0].ip();
    broken[0] = 0x4F;
    assert_eq!(rig.send(&error(&about[0], &broken)), DENIED);
    broken[0] = 0x44;
    assert_eq!(rig.send(&error(&about[0], &broken)), DENIED);
    let later = about[0].clone().payload(64).fragment(16, 24).ip();
    assert_eq!(rig.send(&error(&about[0], &later)), DENIED);
    // The session's own right ends with a new policy, and so does that of what is related to it.
    let before = rig.sessions();
    rig.commit(|n| {
        let acl = std::mem::take(&mut n.acl);
        n.acl = acl.rule(Class::OutWan, false, "17 * * * 2000-2000");
    });
    assert_eq!(rig.send(&error(&about[0], &about[0].ip())), DENIED);
    assert!(rig.send(&error(&about[1], &about[1].ip())).is_tx());
    assert_eq!(rig.sessions(), before, "an error is no packet of the session");
}

#[test]
fn errors_about_answers_pass_too() {
    let mut rig = with(Acl::new(true).rule(Class::OutWan, false, "1 * * * *"));
    // A session opened from outside; the inside host refuses the datagram.
    let ask = Pkt::udp(WAN_HOST, LAN_HOST, 4000, 53).into_port(WAN);
    let refuse = Pkt::icmp(LAN_HOST, WAN_HOST, 3, 3, 0, &ask.ip());
    assert_eq!(rig.send(&refuse), DENIED);
    assert!(rig.send(&ask).is_tx());
    assert!(rig.send(&refuse).is_tx());
}

#[test]
fn an_error_never_touches_a_session_of_other_icmp() {
    // Both have a key without ports between the same two hosts.
    let mut rig = with(Acl::new(true).rule(Class::InWan, false, ALL));
    assert!(rig.send(&Pkt::icmp(LAN_HOST, WAN_HOST, 13, 0, 0, &[0; 12])).is_tx());
    let stray = Pkt::icmp(WAN_HOST, LAN_HOST, 3, 1, 0, &udp(LAN_HOST, "192.0.2.99").ip()).into_port(WAN);
    assert_eq!(rig.send(&stray), DENIED);
    assert_eq!(rig.sessions(), (1, 0));
    assert!(rig.send(&Pkt::icmp(WAN_HOST, LAN_HOST, 14, 0, 0, &[0; 12]).into_port(WAN)).is_tx());
}

fn deny_udp(n: &mut Net) {
    let acl = std::mem::take(&mut n.acl).cleared();
    n.acl = acl.rule(Class::OutWan, false, "17 * * * 2000-2000").rule(Class::OutWan, true, ALL);
}

fn allow_all(n: &mut Net) {
    let acl = std::mem::take(&mut n.acl).cleared();
    n.acl = acl.rule(Class::OutWan, true, ALL).rule(Class::InWan, false, "17 * * * *");
}

#[test]
fn a_changed_rule_bites_at_once() {
    let (ask, answer) = (udp(LAN_HOST, WAN_HOST), Pkt::udp(WAN_HOST, LAN_HOST, 2000, 1000).into_port(WAN));
    for answer_first in [false, true] {
        let mut rig = Rig::branch();
        rig.commit(allow_all);
        for _ in 0..3 {
            assert!(rig.send(&ask).is_tx());
            assert!(rig.send(&answer).is_tx());
        }
        let other = Pkt::tcp(LAN_HOST, WAN_HOST, 1, 80, TCP_SYN);
        assert!(rig.send(&other).is_tx());
        rig.commit(deny_udp);
        // Either direction ends the session; the policy of its first packet decides.
        let next = if answer_first { &answer } else { &ask };
        assert_eq!(rig.send(next), DENIED);
        assert_eq!(rig.sessions(), (1, 0), "ended at once");
        assert_eq!(rig.send(&ask), DENIED);
        assert!(rig.send(&other).is_tx(), "others are not disturbed");
        rig.commit(allow_all);
        assert_eq!(rig.send(&answer), DENIED, "no session, and nobody asks from outside");
        assert!(rig.send(&ask).is_tx());
        assert!(rig.send(&answer).is_tx());
        assert_eq!(rig.sessions(), (2, 0));
    }
}

#[test]
fn an_unchanged_verdict_keeps_the_session() {
    let mut rig = Rig::branch();
    rig.commit(allow_all);
    let (ask, answer) = (udp(LAN_HOST, WAN_HOST), Pkt::udp(WAN_HOST, LAN_HOST, 2000, 1000).into_port(WAN));
    assert!(rig.send(&ask).is_tx());
    assert!(rig.send(&answer).is_tx());
    for epoch in 0..5 {
        rig.commit(allow_all);
        let (first, second) = if epoch % 2 == 0 { (&answer, &ask) } else { (&ask, &answer) };
        assert!(rig.send(first).is_tx());
        assert!(rig.send(second).is_tx());
        assert!(rig.send(first).is_tx());
    }
    assert_eq!(rig.pipe.counters.sessions_created.get(), 1);
    assert_eq!(rig.pipe.counters.sessions_ended.get(), 0);
}

#[test]
fn hit_counters_settle_and_follow_the_rule() {
    let (a, b) = ("17 192.168.1.0/24 * * *", "17 192.168.0.0/16 * * *");
    let mut rig = with(Acl::new(true).rule(Class::OutWan, true, a));
    let ask = udp(LAN_HOST, WAN_HOST);
    let answer = Pkt::udp(WAN_HOST, LAN_HOST, 2000, 1000).into_port(WAN);
    let bytes = ask.ip().len() as u64;
    for _ in 0..7 {
        assert!(rig.send(&ask).is_tx());
        assert!(rig.send(&answer).is_tx());
    }
    rig.wait(Duration::from_millis(20));
    assert_eq!(rig.net.acl.hits(a), (14, 14 * bytes));
    rig.wait(Duration::from_millis(20));
    assert_eq!(rig.net.acl.hits(a), (14, 14 * bytes), "nothing is counted twice");
    for _ in 0..3 {
        assert!(rig.send(&ask).is_tx());
    }
    // A commit that puts another rule in charge: what was counted before belongs to the old one.
    rig.commit(|n| {
        let acl = std::mem::take(&mut n.acl).cleared();
        n.acl = acl.rule(Class::OutWan, true, b).rule(Class::OutWan, true, a);
    });
    for _ in 0..5 {
        assert!(rig.send(&answer).is_tx());
    }
    rig.wait(Duration::from_millis(20));
    assert_eq!(rig.net.acl.hits(a), (17, 17 * bytes));
    assert_eq!(rig.net.acl.hits(b), (5, 5 * bytes));
    // Denials count at once, and so does what was not counted yet when a session ends by one.
    for _ in 0..2 {
        assert!(rig.send(&ask).is_tx());
    }
    rig.commit(|n| {
        let acl = std::mem::take(&mut n.acl).cleared();
        n.acl = acl.rule(Class::OutWan, false, a).rule(Class::OutWan, true, b);
    });
    assert_eq!(rig.send(&ask), DENIED);
    assert_eq!(rig.net.acl.hits(b), (7, 7 * bytes));
    assert_eq!(rig.net.acl.hits(a), (18, 18 * bytes));
    // What ends by age has been counted by then.
    rig.commit(|n| {
        let acl = std::mem::take(&mut n.acl).cleared();
        n.acl = acl.rule(Class::OutWan, true, b);
    });
    assert!(rig.send(&ask).is_tx());
    rig.wait(Duration::from_secs(400));
    assert_eq!(rig.sessions(), (0, 0));
    assert_eq!(rig.net.acl.hits(b), (8, 8 * bytes));
}

#[test]
fn rerouted_across_another_border() {
    // Accepted towards the Internet; the line's class denies it.
    let mut rig = with(Acl::new(true).rule(Class::OutLan, false, "17 * * * 2000-2000"));
    let ask = udp(LAN_HOST, WAN_HOST);
    assert!(rig.send(&ask).is_tx());
    assert!(rig.send(&ask).is_tx());
    rig.commit(|n| {
        n.via("198.51.100.0/24", LINE, "192.0.2.1");
    });
    assert_eq!(rig.send(&ask), DENIED, "judged as what it is now");
    // Another flow is admitted there: its answers come from the line now.
    let ask = Pkt::udp(LAN_HOST, WAN_HOST, 5, 6);
    rig.commit(|n| {
        n.routes.pop();
    });
    assert!(rig.send(&ask).is_tx());
    rig.commit(|n| {
        n.via("198.51.100.0/24", LINE, "192.0.2.1");
        n.acl = Acl::new(true).rule(Class::InLan, false, ALL).rule(Class::InWan, false, ALL);
    });
    assert_eq!(rig.send(&ask), Outcome::Tx(LINE, forwarded(&ask, LINE, "192.0.2.1")));
    let answer = Pkt::udp(WAN_HOST, LAN_HOST, 6, 5);
    assert!(rig.send(&answer.clone().into_port(LINE)).is_tx());
    let spoofed = Outcome::Drop(DropReason::ReversePath);
    assert_eq!(rig.send(&answer.into_port(WAN)), spoofed, "it lives behind the line now");
}

const SYN_ONLY: &str = "6 * * * * flags=syn/syn,ack";

fn tcp(dport: u16, flags: u8) -> Pkt {
    Pkt::tcp(LAN_HOST, WAN_HOST, 1000, dport, flags)
}

const V6: [&str; 2] = ["2001:db8:1::10", "2001:db8:ffff::7"];

/// Both families of what the tests of headers send.
fn both(of: impl Fn(&str, &str) -> Pkt) -> [Pkt; 2] {
    [of(LAN_HOST, WAN_HOST), of(V6[0], V6[1])]
}

#[test]
fn tcp_flags_of_the_packet_that_opens_a_session() {
    let mut rig = with(Acl::new(false).rule(Class::OutWan, true, SYN_ONLY));
    for (port, flags) in [(1, TCP_ACK), (2, TCP_SYN | TCP_ACK), (3, 0), (4, TCP_FIN | TCP_ACK)] {
        assert_eq!(rig.send(&tcp(port, flags)), DEFAULT, "{flags:#x}");
    }
    for syn in both(|a, b| Pkt::tcp(a, b, 1000, 80, TCP_SYN)) {
        assert!(rig.send(&syn).is_tx());
        // Later packets pass with the session, whatever their flags.
        for flags in [TCP_ACK, TCP_ACK | 0x08, TCP_FIN | TCP_ACK] {
            let (src, dst) = (syn.src.to_string(), syn.dst.to_string());
            assert!(rig.send(&Pkt::tcp(&src, &dst, 1000, 80, flags)).is_tx(), "{flags:#x}");
        }
    }
    rig.wait(Duration::from_millis(50));
    assert_eq!(rig.net.acl.hits(SYN_ONLY).0, 8);
}

#[test]
fn a_refused_packet_does_not_speak_for_others_of_its_flow() {
    for (rule, bad, good) in [
        ("6 * * * * flags=fin,psh,urg/all", tcp(80, 0x29), tcp(80, TCP_SYN)),
        ("* * * * * dscp=8", udp(LAN_HOST, WAN_HOST).tos(8 << 2), udp(LAN_HOST, WAN_HOST)),
        (
            "1 * * * * icmp=13",
            Pkt::icmp(LAN_HOST, WAN_HOST, 13, 0, 7 << 16, &[0; 12]),
            Pkt::echo(LAN_HOST, WAN_HOST, 7, false),
        ),
    ] {
        let mut rig = with(Acl::new(true).rule(Class::OutWan, false, rule));
        for _ in 0..4 {
            assert_eq!(rig.send(&bad), DENIED, "{rule}");
        }
        assert!(rig.send(&good).is_tx(), "{rule}: no record of the refused packets is in the way");
        assert_eq!(rig.send(&bad), DENIED, "{rule}: and none of the session lets them through");
        assert!(rig.send(&good).is_tx(), "{rule}: which has not ended");
        assert_eq!(rig.net.acl.hits(rule).0, 5);
    }
}

/// A verdict that no header changes is remembered, as before.
#[test]
fn a_flow_that_is_refused_whatever_its_header_has_a_record() {
    let acl = Acl::new(true).rule(Class::OutWan, false, "17 * * * 53-53").rule(
        Class::OutWan,
        false,
        "* * * * * dscp=8",
    );
    let mut rig = with(acl);
    let dns = Pkt::udp(LAN_HOST, WAN_HOST, 1000, 53);
    for _ in 0..3 {
        assert_eq!(rig.send(&dns), DENIED);
    }
    let denied = |rig: &Rig| rig.pipe.tables.v4.denied();
    assert_eq!(denied(&rig), 1);
    let marked = udp(LAN_HOST, WAN_HOST).tos(8 << 2);
    for _ in 0..3 {
        assert_eq!(rig.send(&marked), DENIED);
    }
    assert_eq!(denied(&rig), 1, "others of this flow may pass");
}

#[test]
fn a_drop_rule_names_packets_of_admitted_sessions() {
    let text = "* * * * * dscp=46";
    let mut rig = with(Acl::new(true).rule(Class::OutWan, false, text));
    for plain in both(|a, b| Pkt::udp(a, b, 1000, 2000)) {
        assert!(rig.send(&plain).is_tx());
        assert!(rig.send(&plain).is_tx());
        assert_eq!(rig.send(&plain.clone().tos(46 << 2)), DENIED);
        // The two bits of ECN are none of the code point's.
        assert_eq!(rig.send(&plain.clone().tos(46 << 2 | 1)), DENIED);
        assert!(rig.send(&plain.clone().tos(45 << 2)).is_tx());
        assert!(rig.send(&plain).is_tx());
    }
    // Answers pass with their session, as with any other rule.
    let mut rig = with(Acl::new(true).rule(Class::InWan, false, text));
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx());
    let answer = Pkt::udp(WAN_HOST, LAN_HOST, 2000, 1000).into_port(WAN).tos(46 << 2);
    assert!(rig.send(&answer).is_tx());
    assert!(rig.send(&answer).is_tx());
    assert_eq!(rig.send(&Pkt::udp(WAN_HOST, LAN_HOST, 2001, 1000).into_port(WAN).tos(46 << 2)), DENIED);
}

#[test]
fn segments_without_ack_are_judged_in_a_connection_too() {
    let mut rig = with(Acl::new(true).rule(Class::OutWan, false, "6 * * * * flags=none/fin,syn,rst,ack"));
    assert!(rig.send(&tcp(80, TCP_SYN)).is_tx());
    assert!(rig.send(&tcp(80, TCP_ACK)).is_tx());
    assert_eq!(rig.send(&tcp(80, 0)), DENIED);
    assert_eq!(rig.send(&tcp(80, 0x28)), DENIED);
    assert!(rig.send(&tcp(80, TCP_ACK)).is_tx());
}

#[test]
fn sessions_outlive_a_change_that_leaves_their_rule() {
    let marked = "17 * * * * dscp=46";
    let acl = Acl::new(false).rule(Class::OutWan, true, SYN_ONLY).rule(Class::OutWan, true, marked);
    let mut rig = with(acl.clone());
    assert!(rig.send(&tcp(80, TCP_SYN)).is_tx());
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST).tos(46 << 2)).is_tx());
    rig.commit(|net| net.acl = acl.rule(Class::InWan, true, ALL));
    // Whose first packets had the flag and the mark; these have not.
    assert!(rig.send(&tcp(80, TCP_ACK)).is_tx());
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx());
    rig.commit(|net| net.acl = Acl::new(false).rule(Class::OutWan, true, marked));
    assert_eq!(rig.send(&tcp(80, TCP_ACK)), DEFAULT, "the rule that admitted it is gone");
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx());
    rig.commit(|net| net.acl = Acl::new(true).rule(Class::OutWan, false, marked));
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx(), "dropped packets end no session");
    assert_eq!(rig.send(&udp(LAN_HOST, WAN_HOST).tos(46 << 2)), DENIED);
    assert!(rig.send(&udp(LAN_HOST, WAN_HOST)).is_tx());
}

#[test]
fn icmp_messages_by_type_and_code() {
    let ping = "1 * * * * icmp=8";
    let acl = Acl::new(false)
        .rule(Class::OutWan, true, ping)
        .rule(Class::OutWan, true, "58 * * * * icmp=128/0")
        .rule(Class::OutWan, true, "17 * * * *")
        .rule(Class::InWan, false, "1 * * * * icmp=3/3");
    let mut rig = with(acl);
    for echo in both(|a, b| Pkt::echo(a, b, 9, false)) {
        assert!(rig.send(&echo).is_tx());
    }
    assert!(rig.send(&Pkt::echo(WAN_HOST, LAN_HOST, 9, true).into_port(WAN)).is_tx(), "the answer");
    assert_eq!(rig.send(&Pkt::icmp(LAN_HOST, WAN_HOST, 13, 0, 1 << 16, &[0; 12])), DEFAULT);
    assert_eq!(rig.send(&Pkt::icmp(V6[0], V6[1], 128, 1, 1 << 16, b"code")), DEFAULT);
    // Errors about a session pass with it, unless a rule names them.
    let datagram = udp(LAN_HOST, WAN_HOST);
    assert!(rig.send(&datagram).is_tx());
    let quote = |code: u8| {
        let quoted = &datagram.clone().ttl(63).build()[14..];
        Pkt::icmp(WAN_HOST, LAN_HOST, 3, code, 0, quoted).into_port(WAN)
    };
    assert!(rig.send(&quote(1)).is_tx());
    assert_eq!(rig.send(&quote(3)), DENIED);
}

/// Later fragments are judged as their datagram's first, which alone says what message it is.
#[test]
fn fragments_are_judged_by_what_their_first_says() {
    let mut rig = with(Acl::new(true).rule(Class::OutWan, false, "1 * * * * icmp=8"));
    let whole = |kind| Pkt::icmp(LAN_HOST, WAN_HOST, kind, 0, 3 << 16, &[7; 1600]);
    for (kind, passes) in [(8, false), (13, true)] {
        for (at, len) in [(0, 800), (800, 400), (1200, 408)] {
            let out = rig.send(&whole(kind).fragment(at, len));
            assert_eq!(out.is_tx(), passes, "{kind}: {out:?}");
        }
    }
}

/// What rules that log have judged since the last call: accepted or not, source port, destination port.
fn logged(rig: &mut Rig) -> Vec<(bool, u16, u16)> {
    let entry = |e| match e {
        Event::Rule(e) => Some((e.accept, e.sport, e.dport)),
        _ => None,
    };
    rig.pipe.events().drain().filter_map(entry).collect()
}

#[test]
fn rules_log_what_they_judge() {
    let (dns, web) = ("17 * * * 53-53", "6 * * * 80-80");
    let acl = Acl::new(true)
        .rule(Class::OutWan, false, dns)
        .rule(Class::OutWan, true, web)
        .rule(Class::OutWan, false, "17 * * * 54-54")
        .logging(dns)
        .logging(web);
    let mut rig = with(acl);
    for _ in 0..5 {
        assert_eq!(rig.send(&Pkt::udp(LAN_HOST, WAN_HOST, 7, 53)), DENIED);
        assert_eq!(rig.send(&Pkt::udp(LAN_HOST, WAN_HOST, 7, 54)), DENIED);
    }
    assert_eq!(logged(&mut rig), [(false, 7, 53); 2], "then a record drops them");
    for flags in [TCP_SYN, TCP_ACK, TCP_ACK] {
        assert!(rig.send(&tcp(80, flags)).is_tx());
    }
    assert_eq!(logged(&mut rig), [(true, 1000, 80)], "the packet that opens the session");
    // A scan is over the rate; the packets are dropped all the same.
    for port in 1001..1500 {
        assert_eq!(rig.send(&Pkt::udp(LAN_HOST, WAN_HOST, port, 53)), DENIED);
    }
    assert_eq!(logged(&mut rig).len(), 48);
    assert_eq!(rig.net.acl.hits(dns).0, 2 + 499);
}
