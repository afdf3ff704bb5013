//! The tc program beside the XDP program, on the same records: the same packet comes out, and buffers of several segments
//! count as their segments.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{TcRun, TestFrame};
use sag_model::flow::*;
use sag_model::{DropReason, Zone};
use std::sync::atomic::Ordering::Relaxed;

const HOST: [u8; 4] = [192, 168, 1, 10];
const FAR: [u8; 4] = [198, 51, 100, 7];
const PUBLIC: [u8; 4] = [203, 0, 113, 2];
const SELF4: [u8; 4] = [192, 168, 1, 1];
const TO_KERNEL: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;
const ACK: u8 = 0x10;
const LIMIT: u32 = 3414;

fn raw(addr: [u8; 4]) -> u32 {
    u32::from_le_bytes(addr)
}

fn key4(proto: u8, sport: u16, dport: u16) -> Key4 {
    Key4 {
        addrs: u64::from(raw(HOST)) | u64::from(raw(FAR)) << 32,
        l4: l4_word(sport.to_be(), dport.to_be(), proto, Zone::Lan),
    }
}

fn action(flags: u8) -> u64 {
    Action { nexthop: 4, meter: 0, act: FlowAct::Forward, flags, tunnel: 0, nh_gen: 9 }.to_word()
}

/// Ones' complement sum of `old` words and the complements of `new` words, folded.
fn delta(old: &[u8], new: &[u8]) -> u64 {
    let words = |b: &[u8], flip: u32| -> u32 {
        b.chunks(2).map(|c| u32::from(u16::from_le_bytes([c[0], c[1]])) ^ flip).sum()
    };
    let mut s = words(old, 0) + words(new, 0xFFFF);
    while s >> 16 != 0 {
        s = (s & 0xFFFF) + (s >> 16);
    }
    s.into()
}

/// Flows of HOST:1000 to FAR: UDP to port 53 and TCP to 80 without NAT, UDP to 54 and TCP to 81 as PUBLIC:2000.
fn fixture() -> Option<Fixture> {
    let f = Fixture::new()?;
    f.nexthop(4, 0, 1500, 9, NH_VALID);
    let nat = |r: &FlowRecord4, dport: u16| {
        let (old, new) =
            ([&HOST[..], &1000u16.to_be_bytes()].concat(), [&PUBLIC[..], &2000u16.to_be_bytes()].concat());
        r.new_addrs.store(u64::from(raw(PUBLIC)) | u64::from(raw(FAR)) << 32, Relaxed);
        let ports = u64::from(2000u16.to_be()) | u64::from(dport.to_be()) << 16;
        r.new_ports.store(ports | delta(&HOST, &PUBLIC) << 32 | delta(&old, &new) << 48, Relaxed);
        r.action.store(action(FLOW_SNAT), Relaxed);
    };
    f.install4(2, key4(17, 1000, 53), |r| r.action.store(action(0), Relaxed));
    f.install4(3, key4(6, 1000, 80), |r| r.action.store(action(0), Relaxed));
    f.install4(4, key4(17, 1000, 54), |r| nat(r, 54));
    f.install4(5, key4(6, 1000, 81), |r| nat(r, 81));
    Some(f)
}

/// Runs the tc program on a buffer; the packet accounting holds.
fn tc(f: &Fixture, bytes: &[u8], gso_size: u32) -> TcRun {
    let run = f.gw.test_run_tc(TestFrame { bytes, ifindex: LO, queue: 0 }, gso_size, LIMIT).unwrap();
    let after = f.gw.stats(LAN).unwrap();
    assert!(after.balanced(), "{after:?}");
    run
}

fn udp_to(dport: u16, len: usize) -> Vec<u8> {
    v4(HOST, FAR, 17, udp(1000, dport, &vec![0xA5; len])).frame(None)
}

fn tcp_to(dport: u16, flags: u8, len: usize) -> Vec<u8> {
    v4(HOST, FAR, 6, tcp(1000, dport, flags, &vec![0x5A; len])).frame(None)
}

#[test]
fn what_is_forwarded_comes_out_as_from_xdp() {
    let Some(f) = fixture() else { return };
    for len in [0, 1, 2, 101, 1400] {
        for frame in [udp_to(53, len), udp_to(54, len), tcp_to(80, ACK, len), tcp_to(81, ACK, len)] {
            let no_sum = {
                let mut other = frame.clone();
                other[40..42].fill(0);
                other
            };
            let padded = cat(&[&frame, &[0; 6]]);
            let is_udp = frame[23] == 17;
            for frame in [Some(frame), Some(padded), is_udp.then_some(no_sum)].into_iter().flatten() {
                let before = f.gw.stats(LAN).unwrap().fast;
                let (xdp, tc) = (f.run(&frame), tc(&f, &frame, 0));
                assert_eq!((xdp.action, tc.action), (XDP_REDIRECT, REDIRECT));
                assert_eq!(tc.frame, xdp.frame, "{len} bytes");
                assert_eq!(f.gw.stats(LAN).unwrap().fast, before + 2);
            }
        }
    }
}

#[test]
fn what_xdp_does_not_forward_is_left_to_it() {
    let Some(f) = fixture() else { return };
    f.gw.set_local4(SELF4.into(), true).unwrap();
    let ttl = V4 { ttl: 1, ..v4(HOST, FAR, 17, udp(1000, 53, b"x")) }.frame(None);
    let fragment = V4 { frag: 0x2000, ..v4(HOST, FAR, 17, udp(1000, 53, &[1; 64])) }.frame(None);
    let options = V4 { options: vec![1; 4], ..v4(HOST, FAR, 17, udp(1000, 53, b"x")) }.frame(None);
    let own_fragment = V4 { frag: 0x2000, ..v4(HOST, SELF4, 17, udp(1000, 53, &[1; 64])) }.frame(None);
    let mut bad = udp_to(53, 10);
    bad[24] ^= 1;
    let left = [
        udp_to(5353, 10),
        tcp_to(80, 0x02, 0),
        tcp_to(80, ACK | 0x01, 10),
        tcp_to(80, ACK | 0x04, 0),
        tcp_to(80, 0, 10),
        udp_to(53, 1480),
        ttl,
        fragment,
        own_fragment,
        options,
        bad,
        v4(HOST, FAR, 1, icmp(8, 0, &[0; 8])).frame(None),
        v6_frame(None, &v6("2001:db8:1::10", "2001:db8:9::9", 17, 64, &udp(1, 2, b"x"))),
    ];
    for frame in left {
        let before = f.gw.stats(LAN).unwrap();
        let run = tc(&f, &frame, 0);
        assert_eq!((run.action, &run.frame), (REDIRECT, &frame), "{frame:?}");
        assert_eq!(f.gw.stats(LAN).unwrap().rx_packets, before.rx_packets, "XDP counts it: {frame:?}");
    }
    // Of another epoch, to be revalidated; without the fast path; by a next hop that is void.
    let known = udp_to(53, 10);
    f.gw.control().epoch.store(8, Relaxed);
    assert_eq!(tc(&f, &known, 0).frame, known);
    f.gw.control().epoch.store(7, Relaxed);
    f.gw.control().fast_path.store(0, Relaxed);
    assert_eq!(tc(&f, &known, 0).frame, known);
    f.gw.control().fast_path.store(1, Relaxed);
    f.nexthop(4, 0, 1500, 10, NH_VALID);
    assert_eq!(tc(&f, &known, 0).frame, known);
    f.nexthop(4, 0, 1500, 9, NH_VALID);
    assert_ne!(tc(&f, &known, 0).frame, known);
}

#[test]
fn what_is_the_kernels_goes_there_at_once() {
    let Some(f) = fixture() else { return };
    f.gw.set_local4(SELF4.into(), true).unwrap();
    let mut elsewhere = udp_to(53, 10);
    elsewhere[5] ^= 1;
    let arp = cat(&[&eth(None, 0x0806), &[0; 28]]);
    let own = v4(HOST, SELF4, 6, tcp(1000, 22, ACK, &[7; 3000])).frame(None);
    for (frame, gso, segments) in [(elsewhere, 0, 1), (arp, 0, 1), (own, 1000, 3)] {
        let before = f.gw.stats(LAN).unwrap();
        let run = tc(&f, &frame, gso);
        assert_eq!((run.action, &run.frame), (TO_KERNEL, &frame));
        assert_eq!(f.gw.stats(LAN).unwrap().to_kernel, before.to_kernel + segments);
    }
}

#[test]
fn a_buffer_counts_as_its_segments() {
    let Some(f) = fixture() else { return };
    // Six segments of 500 bytes and one of 1, each with headers of 40 bytes, of which XDP would not take the whole.
    let buffer = tcp_to(81, ACK, 3001);
    let run = tc(&f, &buffer, 500);
    assert_eq!((run.action, run.frame.len()), (REDIRECT, buffer.len()));
    assert_v4_sums(&run.frame[14..]);
    let (lan, wan) = (f.gw.stats(LAN).unwrap(), f.gw.stats(WAN).unwrap());
    let bytes = 3001 + 7 * 40;
    assert_eq!((lan.rx_packets, lan.fast, lan.rx_bytes), (7, 7, bytes + 7 * 14));
    assert_eq!((wan.tx_packets, wan.tx_bytes), (7, bytes + 7 * 14));
    let r = &f.gw.flows4()[5];
    assert_eq!((r.packets.load(Relaxed), r.bytes.load(Relaxed)), (7, bytes));
    // Segments, not the buffer, have to fit.
    assert_eq!(tc(&f, &buffer, 1461).frame, buffer, "1,501 bytes");
    assert_ne!(tc(&f, &buffer, 1460).frame, buffer);
}

#[test]
fn a_rule_that_drops_drops_all_segments() {
    let Some(f) = fixture() else { return };
    let reason = DropReason::AclDenied;
    let deny =
        Action { nexthop: reason as u16, meter: 0, act: FlowAct::Drop, flags: 0, tunnel: 0, nh_gen: 0 };
    f.gw.flows4()[3].action.store(deny.to_word(), Relaxed);
    let run = tc(&f, &tcp_to(80, ACK, 3000), 1000);
    assert_eq!(run.action, SHOT);
    assert_eq!(f.gw.stats(LAN).unwrap().drops(reason), 3);
}

#[test]
fn what_the_pair_does_not_carry_is_dropped_by_name() {
    let Some(f) = fixture() else { return };
    let buffer = tcp_to(8080, ACK, 3000);
    let run = f.gw.test_run_tc(TestFrame { bytes: &buffer, ifindex: LO, queue: 0 }, 0, 1514).unwrap();
    assert_eq!(run.action, SHOT);
    assert_eq!(f.gw.stats(LAN).unwrap().drops(DropReason::FrameTooBig), 1);
    let run = f.gw.test_run_tc(TestFrame { bytes: &buffer, ifindex: LO, queue: 0 }, 1000, 1514).unwrap();
    assert_eq!((run.action, run.frame), (REDIRECT, buffer));
}
