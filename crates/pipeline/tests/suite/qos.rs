//! The QoS stage: which direction of which session is metered by what, and what that does to
//! packets, sessions and books.

use sag_acl::{PortRange, Prefix, Rule};
use sag_model::{DropReason, Dscp};
use sag_packet::proto::{TCP_ACK, TCP_FIN, TCP_SYN};
use sag_pipeline::nat::Behavior;
use sag_pipeline::qos::{Direction, MeterCounts, Owner, Rate};
use sag_testkit::*;
use std::time::Duration;

const LAN_HOST: &str = "192.168.1.10";
const WAN_HOST: &str = "198.51.100.7";
const LINE_HOST: &str = "10.20.3.4";
const ANY: Rule<u32> = Rule::ANY;

fn from_lan() -> Rule<u32> {
    Rule { src: Prefix::new(u32::from_be_bytes([192, 168, 1, 0]), 24).unwrap(), ..ANY }
}

fn to_lan() -> Rule<u32> {
    Rule { dst: Prefix::new(u32::from_be_bytes([192, 168, 1, 0]), 24).unwrap(), ..ANY }
}

/// A branch whose LAN is metered by `car` on its way out, at 1 Mbit/s.
fn limited() -> Net {
    let mut net = Net::branch();
    net.car("car", 1, 0, 1).meter(from_lan(), "car");
    net
}

fn counted(rig: &Rig, owner: &Owner) -> MeterCounts {
    let found = rig.net.meters().owners().find(|(o, _)| *o == owner);
    found.map_or_else(MeterCounts::default, |(_, n)| rig.net.meters().counted(n))
}

fn up(rig: &Rig) -> MeterCounts {
    counted(rig, &Owner::Car("car".into(), Direction::Up))
}

fn down(rig: &Rig) -> MeterCounts {
    counted(rig, &Owner::Car("car".into(), Direction::Down))
}

/// 1028 bytes of IP.
fn out(sport: u16) -> Pkt {
    Pkt::udp(LAN_HOST, WAN_HOST, sport, 2000).payload(1000)
}

fn back(dport: u16) -> Pkt {
    Pkt::udp(WAN_HOST, LAN_HOST, 2000, dport).payload(1000).into_port(WAN)
}

/// Sends until a meter refuses; how many passed, and the reason.
fn exhaust(rig: &mut Rig, p: &Pkt) -> (u64, DropReason) {
    for n in 0..10_000 {
        match rig.send(p) {
            Outcome::Tx(..) => {}
            Outcome::Drop(reason) => return (n, reason),
            other => panic!("{other:?}"),
        }
    }
    panic!("never refused");
}

#[test]
fn a_ceiling_drops_what_is_over_it_and_time_gives_it_back() {
    let mut rig = Rig::new(limited());
    // 200 ms of 1 Mbit/s are 25,000 bytes.
    let (passed, reason) = exhaust(&mut rig, &out(1000));
    assert_eq!((passed, reason), (24, DropReason::CarExceeded));
    assert_eq!(rig.drops(LAN, DropReason::CarExceeded), 1);
    assert_eq!(up(&rig), MeterCounts { passed: 24 * 1028, over_car: 1028, over_link: 0 });
    rig.now = rig.now + Duration::from_millis(17);
    assert_eq!(exhaust(&mut rig, &out(1000)).0, 2, "8224 us each, and 328 bytes were left");
}

#[test]
fn each_direction_is_classified_by_its_own_tuple() {
    let mut rig = Rig::new(limited());
    for _ in 0..100 {
        rig.send(&out(1000));
        assert!(rig.send(&back(1000)).is_tx(), "no policy for the way back");
    }
    assert_eq!(down(&rig), MeterCounts::default());
    let mut net = limited();
    net.meter(to_lan(), "car");
    let mut rig = Rig::new(net);
    rig.send(&out(1000));
    let (passed, reason) = exhaust(&mut rig, &back(1000));
    assert_eq!((passed, reason), (24, DropReason::CarExceeded), "a meter of its own");
    assert_eq!((up(&rig).passed, down(&rig).passed), (1028, 24 * 1028));
}

#[test]
fn policies_see_the_branchs_own_addresses() {
    let mut net = limited();
    net.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    net.meter(Rule { dport: PortRange::new(1000, 1000).unwrap(), ..to_lan() }, "car");
    let mut rig = Rig::new(net);
    let sent = rig.send(&out(1000));
    let (src, dst) = ends4(sent.frame());
    assert_ne!(src.addr.to_string(), LAN_HOST, "translated");
    assert_eq!(up(&rig).passed, 1028);
    let answer = Pkt::udp("0.0.0.0", "0.0.0.0", 1, 1).payload(1000).into_port(WAN).between(dst, src);
    for n in 1..=3 {
        assert!(rig.send(&answer).is_tx());
        assert_eq!(down(&rig).passed, n * 1028, "the inside address and port");
    }
}

#[test]
fn what_is_over_its_rate_makes_no_session() {
    let mut rig = Rig::new(limited());
    exhaust(&mut rig, &out(1000));
    for sport in 2000..2100 {
        assert_eq!(rig.send(&out(sport)), Outcome::Drop(DropReason::CarExceeded));
    }
    assert_eq!(rig.sessions().0, 1);
}

#[test]
fn traffic_within_the_lan_passes_no_car() {
    let mut net = limited();
    net.meter(ANY, "car");
    let mut rig = Rig::new(net);
    let p = Pkt::udp(LAN_HOST, "192.168.2.10", 1, 2).payload(1000);
    for _ in 0..100 {
        assert!(rig.send(&p).is_tx());
    }
    assert_eq!(up(&rig), MeterCounts::default());
}

#[test]
fn bandwidths_are_metered_without_any_qos() {
    let owner = |name: &str, way| Owner::Port(name.into(), way);
    // (what is limited, packet out, packet back, whose meters)
    let mut wan = Net::branch();
    wan.port_rates.insert(WAN, Rate::mbps(1));
    let mut rig = Rig::new(wan);
    assert_eq!(exhaust(&mut rig, &out(1)), (24, DropReason::LinkExceeded), "port, up");
    assert_eq!(exhaust(&mut rig, &back(1)), (24, DropReason::LinkExceeded), "port, down");
    assert_eq!(counted(&rig, &owner("wan", Direction::Up)).passed, 24 * 1028);
    assert_eq!(counted(&rig, &owner("wan", Direction::Down)).over_link, 1028);

    let mut internet = Net::branch();
    internet.qos.internet_up = Some(Rate::mbps(1));
    let mut rig = Rig::new(internet);
    assert_eq!(exhaust(&mut rig, &out(1)), (24, DropReason::LinkExceeded), "uplink");
    for _ in 0..100 {
        assert!(rig.send(&back(1)).is_tx(), "the way down is free");
    }

    let mut overlay = Net::branch();
    overlay.qos.overlay = Some(Rate::mbps(1));
    let mut rig = Rig::new(overlay);
    let there = Pkt::udp(LAN_HOST, LINE_HOST, 1, 2).payload(1000);
    let here = Pkt::udp(LINE_HOST, LAN_HOST, 2, 1).payload(1000).into_port(LINE);
    assert_eq!(exhaust(&mut rig, &there), (24, DropReason::LinkExceeded), "overlay, up");
    assert_eq!(exhaust(&mut rig, &here), (24, DropReason::LinkExceeded), "overlay, down");
    assert!(rig.send(&out(1)).is_tx(), "the Internet is another link");
}

#[test]
fn what_no_policy_matches_goes_after_all_classes() {
    let mut net = Net::branch();
    net.port_rates.insert(WAN, Rate::mbps(1));
    net.car("car", 3, 0, 100).meter(Rule { proto: Some(17), ..from_lan() }, "car");
    let mut rig = Rig::new(net);
    let other = Pkt::tcp(LAN_HOST, WAN_HOST, 1, 2, 0x10).payload(988);
    assert_eq!(exhaust(&mut rig, &other), (12, DropReason::LinkExceeded), "half of the burst");
    assert_eq!(exhaust(&mut rig, &out(1)).0, 12, "what others cannot use up");
    assert!(!rig.send(&other).is_tx());
}

#[test]
fn a_new_epoch_classifies_live_flows_anew() {
    let mut rig = Rig::branch();
    for _ in 0..100 {
        assert!(rig.send(&out(1)).is_tx());
    }
    rig.commit(|n| {
        n.car("car", 1, 0, 1).meter(from_lan(), "car");
    });
    assert_eq!(exhaust(&mut rig, &out(1)).0, 24);
    rig.commit(|n| n.qos.v4.clear());
    for _ in 0..100 {
        assert!(rig.send(&out(1)).is_tx());
    }
    // Its meter was not forgotten meanwhile.
    rig.commit(|n| {
        n.meter(from_lan(), "car");
    });
    assert_eq!(exhaust(&mut rig, &out(1)).0, 0);
}

#[test]
fn a_changed_rate_holds_at_once() {
    let mut rig = Rig::new(limited());
    exhaust(&mut rig, &out(1));
    rig.commit(|n| n.qos.cars[0].peak = Some(Rate::mbps(10)));
    rig.now = rig.now + Duration::from_millis(1000);
    assert_eq!(exhaust(&mut rig, &out(1)).0, 243, "200 ms of 10 Mbit/s");
}

#[test]
fn the_bytes_of_fragments_and_errors_count_too() {
    let mut rig = Rig::new(limited());
    let whole = Pkt::udp(LAN_HOST, WAN_HOST, 1, 2).payload(1992);
    for part in [whole.fragment(0, 1000), whole.fragment(1000, 1000)] {
        assert!(rig.send(&part).is_tx());
    }
    assert_eq!(up(&rig).passed, 2 * 1020);
}

fn dscp(n: u8) -> Dscp {
    Dscp::new(n).expect("in range")
}

/// `EF` goes to `voice`, everything else to `car`.
fn by_mark() -> Net {
    let mut net = Net::branch();
    net.car("voice", 1, 0, 5).car("car", 2, 0, 5);
    net.meter_marked(ANY, dscp(46), "voice").meter(ANY, "car");
    net
}

fn voice(rig: &Rig) -> u64 {
    counted(rig, &Owner::Car("voice".into(), Direction::Up)).passed
}

#[test]
fn a_policy_asks_for_the_mark_of_the_packet_that_opens_the_session() {
    let mut rig = Rig::new(by_mark());
    // The ECN bits are none of the mark.
    for (n, tos) in [(1, 46 << 2), (2, 46 << 2 | 3)] {
        assert!(rig.send(&out(n).tos(tos)).is_tx());
    }
    assert_eq!((voice(&rig), up(&rig).passed), (2 * 1028, 0));
    assert!(rig.send(&out(3).tos(45 << 2)).is_tx());
    assert!(rig.send(&out(4)).is_tx());
    assert_eq!((voice(&rig), up(&rig).passed), (2 * 1028, 2 * 1028));
    // Each direction has a mark of its own.
    assert!(rig.send(&back(4).tos(46 << 2)).is_tx());
    assert_eq!(counted(&rig, &Owner::Car("voice".into(), Direction::Down)).passed, 1028);
    assert!(rig.send(&back(1)).is_tx());
    assert_eq!(down(&rig).passed, 1028);
}

#[test]
fn a_session_stays_in_its_class_until_the_next_epoch() {
    let mut rig = Rig::new(by_mark());
    let tcp = |flags, tos| Pkt::tcp(LAN_HOST, WAN_HOST, 7, 80, flags).tos(tos);
    rig.send(&tcp(TCP_SYN, 46 << 2));
    let len = voice(&rig);
    assert_ne!(len, 0);
    // Segments with SYN, FIN or RST go the long way, the others are established.
    for flags in [TCP_ACK, TCP_SYN, TCP_FIN | TCP_ACK, TCP_ACK] {
        assert!(rig.send(&tcp(flags, 0)).is_tx());
    }
    assert_eq!((voice(&rig), up(&rig).passed), (5 * len, 0));
    rig.commit(|_| {});
    assert!(rig.send(&tcp(TCP_ACK, 0)).is_tx());
    assert!(rig.send(&tcp(TCP_ACK, 46 << 2)).is_tx());
    assert_eq!((voice(&rig), up(&rig).passed), (5 * len, 2 * len), "the packet in hand decides");
}

#[test]
fn a_policy_with_a_mark_alone_leaves_the_rest_unmetered() {
    let mut net = Net::branch();
    net.car("voice", 1, 0, 5).meter_marked(ANY, dscp(46), "voice");
    let mut rig = Rig::new(net);
    assert!(rig.send(&out(1)).is_tx() && rig.send(&out(2).tos(46 << 2)).is_tx());
    assert_eq!(voice(&rig), 1028);
}

#[test]
fn what_a_car_lets_pass_is_marked() {
    let mut net = by_mark();
    net.qos.cars[0].remark = Some(dscp(10));
    net.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    let mut rig = Rig::new(net);
    let tos = |o: Outcome| {
        let frame = o.frame().to_vec();
        let ip = &frame[14..];
        let mut header = ip[..20].to_vec();
        (header[10], header[11]) = (0, 0);
        let sum = header.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
        let sum = (sum & 0xFFFF) + (sum >> 16);
        assert_eq!(
            !(((sum & 0xFFFF) + (sum >> 16)) as u16),
            u16::from_be_bytes([ip[10], ip[11]]),
            "checksum"
        );
        ip[1]
    };
    for _ in 0..3 {
        // The first opens the session, the others are established.
        assert_eq!(tos(rig.send(&out(1).tos(46 << 2 | 1))), 10 << 2 | 1);
        assert_eq!(tos(rig.send(&out(2).tos(12 << 2 | 2))), 12 << 2 | 2, "its CAR marks nothing");
    }
    // From one epoch to the next, and 0 is a mark too.
    rig.commit(|n| n.qos.cars[0].remark = Some(dscp(0)));
    for _ in 0..2 {
        assert_eq!(tos(rig.send(&out(1).tos(46 << 2 | 1))), 1);
    }
}
