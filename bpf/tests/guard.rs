//! The flood guard: packets of no known flow have a rate, all others have none.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::PuntReason;
use sag_model::DropReason;
use sag_model::Zone;
use sag_model::flow::{
    Action, FLOW_PUNT_ALL, FLOW_SNAT, FlowAct, FlowRecord, FlowRecord6, IngressId, Key4, l4_word,
};
use sag_pipeline::family::key_of_v4;
use std::sync::atomic::Ordering::Relaxed;

const HERE: [u8; 4] = [10, 0, 0, 2];
const FAR: [u8; 4] = [198, 51, 100, 7];

fn guard(f: &Fixture, interval_s: u32, burst_s: u32) {
    f.gw.control().guard_burst.store(burst_s * 1_000_000_000, Relaxed);
    f.gw.control().guard_interval.store(interval_s * 1_000_000_000, Relaxed);
}

#[test]
fn what_is_over_the_rate_is_dropped_by_name() {
    let Some(f) = Fixture::new() else { return };
    guard(&f, 1, 3);
    let got: Vec<_> =
        (0..1000).map(|n| outcome(&f, &v4(HERE, FAR, 17, udp(1000 + n, 53, b"new")).frame(None))).collect();
    let passed = got.iter().filter(|o| **o == Outcome::Worker(PuntReason::Miss)).count();
    let dropped = got.iter().filter(|o| **o == Outcome::Dropped(DropReason::FloodGuard)).count();
    assert_eq!(passed + dropped, got.len());
    // Each core has a share of its own; the thread may have moved, and a second or two have passed.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!((3..=3 * cores + 60).contains(&passed), "{passed} passed");
    assert_eq!(got[0], Outcome::Worker(PuntReason::Miss), "the burst is there from the start");
}

/// A session of port 1000, whose packets go to a worker.
fn tcp_session(f: &Fixture) {
    let key = Key4 {
        addrs: u64::from(u32::from_le_bytes(HERE)) | u64::from(u32::from_le_bytes(FAR)) << 32,
        l4: l4_word(1000u16.to_be(), 80u16.to_be(), 6, Zone::Lan),
    };
    f.install4(2, key, |r| {
        let act = Action {
            nexthop: 4,
            meter: 0,
            act: FlowAct::Forward,
            flags: FLOW_PUNT_ALL,
            tunnel: 0,
            nh_gen: 9,
        };
        r.action.store(act.to_word(), Relaxed);
    });
}

#[test]
fn sessions_are_not_held_up_by_a_flood() {
    let Some(f) = Fixture::new() else { return };
    tcp_session(&f);
    guard(&f, 4, 4);
    let fin = v4(HERE, FAR, 6, tcp(1000, 80, 0x11, b"")).frame(None);
    for n in 0..1000 {
        outcome(&f, &v4(HERE, FAR, 17, udp(2000 + n, 53, b"new")).frame(None));
        assert_eq!(f.run(&fin).action, XDP_REDIRECT, "after {n} new flows");
    }
}

/// SYNs and resets in turn, each SYN for a connection of its own, have the rate of other SYNs.
#[test]
fn syns_beside_a_session_are_a_flood() {
    let Some(f) = Fixture::new() else { return };
    tcp_session(&f);
    guard(&f, 4, 4);
    let syn = v4(HERE, FAR, 6, tcp(1000, 80, 0x02, b"")).frame(None);
    let rst = v4(HERE, FAR, 6, tcp(1000, 80, 0x04, b"")).frame(None);
    let syn_ack = v4(HERE, FAR, 6, tcp(1000, 80, 0x12, b"")).frame(None);
    let mut passed = 0;
    for _ in 0..1000 {
        passed += u64::from(f.run(&syn).action == XDP_REDIRECT);
        for answer in [&rst, &syn_ack] {
            assert_eq!(f.run(answer).action, XDP_REDIRECT);
        }
    }
    assert_eq!(f.gw.stats(LAN).unwrap().drops(DropReason::FloodGuard), 1000 - passed);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    assert!((1..=3 * cores + 60).contains(&passed), "{passed} of 1000 passed");
}

/// IPv4 packets of NAT64 sessions, which the table of IPv6 has.
#[test]
fn sessions_of_nat64_are_not_held_up_either() {
    let Some(f) = Fixture::new() else { return };
    let key = |proto, sport: u16, dport: u16| {
        key_of_v4(&Key4 {
            addrs: u64::from(u32::from_le_bytes(HERE)) | u64::from(u32::from_le_bytes(FAR)) << 32,
            l4: l4_word(sport.to_be(), dport.to_be(), proto, Zone::Lan),
        })
    };
    let translated = |r: &FlowRecord6| {
        let act = Action { nexthop: 4, meter: 0, act: FlowAct::Punt, flags: FLOW_SNAT, tunnel: 0, nh_gen: 9 };
        r.action.store(act.to_word(), Relaxed);
    };
    f.install6(2, key(6, 1000, 80), translated);
    f.install6(3, key(1, 0, 77), translated);
    guard(&f, 4, 4);
    let ack = v4(HERE, FAR, 6, tcp(1000, 80, 0x10, b"")).frame(None);
    let reply = v4(HERE, FAR, 1, icmp(0, 77, b"pong")).frame(None);
    let syn = v4(HERE, FAR, 6, tcp(1000, 80, 0x02, b"")).frame(None);
    let other = v4(HERE, FAR, 6, tcp(1001, 80, 0x10, b"")).frame(None);
    let passed = |frame: &[u8]| (0..500).filter(|_| f.run(frame).action == XDP_REDIRECT).count();
    let bounds = 0..=3 * std::thread::available_parallelism().map_or(1, usize::from) + 60;
    assert!(bounds.contains(&passed(&ack)), "not looked for");
    f.gw.control().switch_nat64(true);
    assert_eq!((passed(&ack), passed(&reply)), (500, 500));
    for frame in [syn, other] {
        let n = passed(&frame);
        assert!(bounds.contains(&n), "{n} of 500 passed");
    }
}

/// Copies of a session's packets at another port do not get past the guard on the session's ticket.
#[test]
fn copies_from_elsewhere_are_a_flood() {
    let Some(f) = Fixture::new() else { return };
    let key = Key4 {
        addrs: u64::from(u32::from_le_bytes(HERE)) | u64::from(u32::from_le_bytes(FAR)) << 32,
        l4: l4_word(1000u16.to_be(), 80u16.to_be(), 6, Zone::Lan),
    };
    f.install4(2, key, |r| {
        r.set_ingress(IngressId::port(WAN));
        let act = Action { nexthop: 4, meter: 0, act: FlowAct::Forward, flags: 0, tunnel: 0, nh_gen: 9 };
        r.action.store(act.to_word(), Relaxed);
    });
    guard(&f, 4, 4);
    let copy = v4(HERE, FAR, 6, tcp(1000, 80, 0x10, b"")).frame(None);
    let passed = (0..1000).filter(|_| f.run(&copy).action == XDP_REDIRECT).count();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert!((1..=3 * cores + 60).contains(&passed), "{passed} of 1000 passed");
}

#[test]
fn without_a_rate_and_without_the_fast_path_all_pass() {
    let Some(f) = Fixture::new() else { return };
    let new = |n: u16| v4(HERE, FAR, 17, udp(1000 + n, 53, b"new")).frame(None);
    for n in 0..200 {
        assert_eq!(outcome(&f, &new(n)), Outcome::Worker(PuntReason::Miss));
    }
    guard(&f, 4, 4);
    f.gw.control().fast_path.store(0, Relaxed);
    for n in 0..200 {
        assert_eq!(outcome(&f, &new(n)), Outcome::Worker(PuntReason::Miss), "workers alone forward");
    }
}
