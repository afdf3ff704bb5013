//! Flows that a rule refuses: from the second packet on a record drops them, and it is in nobody's way.

use sag_model::DropReason;
use sag_packet::proto::TCP_SYN as SYN;
use sag_pipeline::policy::Class;
use sag_testkit::*;
use std::time::Duration;

const HOST: &str = "192.168.1.10";
const FAR: &str = "198.51.100.7";
const DENIED: Outcome = Outcome::Drop(DropReason::AclDenied);
const UDP: &str = "17 * * * *";

fn rig() -> Rig {
    let mut net = Net::branch();
    net.acl = Acl::new(true).rule(Class::OutWan, false, UDP);
    Rig::new(net)
}

fn ask() -> Pkt {
    Pkt::udp(HOST, FAR, 1000, 2000)
}

fn remembered(r: &Rig) -> u32 {
    r.pipe.tables.v4.denied()
}

#[test]
fn the_second_packet_makes_a_record_and_every_packet_counts() {
    let mut r = rig();
    for n in 0..10 {
        assert_eq!(remembered(&r), u32::from(n > 1), "{n}");
        assert_eq!(r.send(&ask()), DENIED);
    }
    assert_eq!((r.sessions(), r.drops(LAN, DropReason::AclDenied)), ((0, 0), 10));
    r.wait(Duration::from_millis(100));
    assert_eq!(r.net.acl.hits(UDP), (10, 10 * ask().ip().len() as u64));
    let c = &r.pipe.counters;
    assert_eq!((c.sessions_created.get(), c.sessions_ended.get()), (0, 0), "it is no session");
    r.check_accounting();
}

#[test]
fn in_ipv6_too() {
    let mut r = rig();
    let ask = Pkt::udp("2001:db8:1::10", "2001:db8:203::7", 1000, 2000);
    for _ in 0..5 {
        assert_eq!(r.send(&ask), DENIED);
    }
    assert_eq!((r.pipe.tables.v6.denied(), r.sessions()), (1, (0, 0)));
}

#[test]
fn a_scan_makes_none() {
    let mut r = rig();
    for port in 1..=2000 {
        assert_eq!(r.send(&Pkt::udp(HOST, FAR, 1000, port)), DENIED);
    }
    assert_eq!(remembered(&r), 0);
}

#[test]
fn they_take_no_more_than_a_sixteenth_of_the_room() {
    let mut net = Net::branch();
    net.acl = Acl::new(true).rule(Class::OutWan, false, UDP);
    let mut r = Rig::sized(net, 320);
    for port in 1..=100 {
        for _ in 0..3 {
            assert_eq!(r.send(&Pkt::udp(HOST, FAR, 1000, port)), DENIED);
        }
    }
    assert_eq!(remembered(&r), 20);
    let made = (1..=320).filter(|&p| r.send(&Pkt::tcp(HOST, FAR, 1000, p, SYN)).is_tx()).count();
    assert_eq!(made, 320, "sessions take their room back");
}

#[test]
fn a_changed_rule_bites_at_once() {
    let mut r = rig();
    for _ in 0..3 {
        assert_eq!(r.send(&ask()), DENIED);
    }
    r.commit(|n| n.acl = Acl::new(true).rule(Class::OutWan, true, UDP));
    assert!(r.send(&ask()).is_tx());
    assert_eq!((remembered(&r), r.sessions()), (0, (1, 0)));
    let back = Pkt::udp(FAR, HOST, 2000, 1000).into_port(WAN);
    assert!(r.send(&back).is_tx());
    // And back: the session ends.
    r.commit(|n| n.acl = Acl::new(true).rule(Class::OutWan, false, UDP));
    for _ in 0..3 {
        assert_eq!(r.send(&ask()), DENIED);
    }
    assert_eq!((remembered(&r), r.sessions()), (1, (0, 0)));
}

#[test]
fn it_is_judged_anew_after_a_second_however_busy() {
    let mut r = rig();
    let mut times = 0;
    for _ in 0..50 {
        let before = remembered(&r);
        assert_eq!(r.send(&ask()), DENIED);
        r.wait(Duration::from_millis(100));
        times += u32::from(before == 1 && remembered(&r) == 0);
    }
    assert!((4..=7).contains(&times), "{times} times in five seconds");
}

#[test]
fn the_other_side_may_begin_what_this_side_may_not() {
    let mut r = rig();
    for _ in 0..3 {
        assert_eq!(r.send(&ask()), DENIED);
    }
    assert_eq!(remembered(&r), 1);
    let begin = Pkt::udp(FAR, HOST, 2000, 1000).into_port(WAN);
    assert!(r.send(&begin).is_tx());
    assert_eq!((remembered(&r), r.sessions()), (0, (1, 0)));
    assert_eq!(r.net.acl.hits(UDP).0, 3, "what the record has dropped counts for its rule");
    assert!(r.send(&ask()).is_tx(), "the answer of a session that is admitted");
    assert!(r.send(&begin).is_tx());
}

#[test]
fn fragments_and_errors_do_not_follow_it() {
    let mut r = rig();
    for _ in 0..3 {
        assert_eq!(r.send(&ask()), DENIED);
    }
    let long = ask().payload(100);
    for at in [0, 48, 96] {
        assert_eq!(r.send(&long.fragment(at, 48)), DENIED, "{at}");
    }
    assert_eq!(r.send(&ask()), DENIED);
    r.check_accounting();
}

#[test]
fn a_record_in_the_place_of_a_session_counts_its_own_packets_alone() {
    let mut net = Net::branch();
    net.acl = Acl::new(true).rule(Class::OutWan, false, UDP);
    let mut r = Rig::sized(net, 64);
    for port in 1..=64 {
        assert!(r.send(&Pkt::tcp(HOST, FAR, 1000, port, SYN)).is_tx());
        for _ in 0..5 {
            assert!(r.send(&Pkt::tcp(FAR, HOST, port, 1000, SYN | 0x10).into_port(WAN)).is_tx());
        }
    }
    for _ in 0..2 {
        r.wait(Duration::from_secs(8_000));
    }
    assert_eq!(r.sessions(), (0, 0));
    for _ in 0..3 {
        assert_eq!(r.send(&ask()), DENIED);
    }
    r.wait(Duration::from_millis(100));
    assert_eq!((remembered(&r), r.net.acl.hits(UDP).0), (1, 3));
}
