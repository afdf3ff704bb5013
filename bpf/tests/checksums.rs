//! Partial checksums: completed by XDP in frames that it sends, left to a worker in socket buffers, and never touched in
//! what is not sent.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{PortEntry, PuntReason};
use sag_model::flow::*;
use sag_model::{DropReason, Zone};
use std::sync::atomic::Ordering::Relaxed;

const HOST: [u8; 4] = [192, 168, 1, 10];
const FAR: [u8; 4] = [198, 51, 100, 7];
const PUBLIC: [u8; 4] = [203, 0, 113, 2];
const HOST6: &str = "2001:db8:1::10";
const FAR6: &str = "2001:db8:99::7";
/// Every number of words and bytes behind the last chunk, and frames as long as they get.
const LENGTHS: [usize; 16] = [0, 1, 2, 3, 4, 5, 7, 8, 63, 255, 511, 512, 1001, 1448, 2047, 3000];

fn addr4(a: [u8; 4]) -> u64 {
    u32::from_le_bytes(a).into()
}

fn segment(proto: u8, payload: &[u8]) -> Vec<u8> {
    if proto == 6 { tcp(1000, 80, 0x18, payload) } else { udp(1000, 80, payload) }
}

fn forward(flags: u8) -> u64 {
    let action = Action { nexthop: 4, meter: 0, act: FlowAct::Forward, flags, tunnel: 0, nh_gen: 9 };
    action.to_word()
}

/// Flows of TCP and UDP in both families, and of the latter with source NAT of the address alone.
fn fixture(control: u32) -> Option<Fixture> {
    let f = Fixture::new()?;
    f.nexthop(4, 0, 3400, 9, NH_VALID);
    for (n, proto) in [(2, 6), (4, 17)] {
        let l4 = l4_word(1000u16.to_be(), 80u16.to_be(), proto, Zone::Lan);
        let key = Key4 { addrs: addr4(HOST) | addr4(FAR) << 32, l4 };
        f.install4(n, key, |r| r.action.store(forward(0), Relaxed));
        let word = |a: &str| {
            let octets = a.parse::<std::net::Ipv6Addr>().unwrap().octets();
            [0, 8].map(|at| u64::from_le_bytes(octets[at..at + 8].try_into().unwrap()))
        };
        let key = Key6 { src: word(HOST6), dst: word(FAR6), l4 };
        f.install6(n, key, |r| r.action.store(forward(0), Relaxed));
    }
    f.gw.control().fast_path.store(control, Relaxed);
    Some(f)
}

/// The same packet with the sum of its pseudo header in place of the checksum.
fn partial(packet: &[u8]) -> Vec<u8> {
    let mut p = packet.to_vec();
    let (l4, proto, addrs) = if p[0] >> 4 == 4 { (20, p[9], 12..20) } else { (40, p[6], 8..40) };
    let mut sum = ones_sum(&p[addrs], 0);
    sum = ones_sum(&[0, proto], sum);
    sum = ones_sum(&((p.len() - l4) as u16).to_be_bytes(), sum);
    let at = l4 + if proto == 6 { 16 } else { 6 };
    p[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    p
}

fn packets() -> impl Iterator<Item = Vec<u8>> {
    LENGTHS.iter().flat_map(|len| [(6, *len), (17, *len)]).flat_map(|(proto, len)| {
        let payload: Vec<u8> = (0..len).map(|i| (i * 31 + 7) as u8).collect();
        [
            v4(HOST, FAR, proto, segment(proto, &payload)).build(),
            v6(HOST6, FAR6, proto, 64, &segment(proto, &payload)),
        ]
    })
}

fn frame(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86DD };
    cat(&[&eth(None, ethertype), packet])
}

#[test]
fn xdp_completes_what_it_sends() {
    let Some(f) = fixture(FAST_PATH_ON | FAST_PATH_SUMS) else { return };
    for packet in packets() {
        let whole = f.run(&frame(&packet));
        assert_eq!((whole.action, whole.note), (XDP_REDIRECT, None), "{} bytes", packet.len());
        let completed = f.run(&frame(&partial(&packet)));
        assert_eq!((completed.action, completed.note), (XDP_REDIRECT, None));
        assert_eq!(completed.frame, whole.frame, "{} bytes", packet.len());
        // What the link puts behind the packet is no part of the sum.
        let padded = cat(&[&frame(&partial(&packet)), &[0xA5; 7]]);
        assert_eq!(f.run(&padded).frame, whole.frame);
    }
}

#[test]
fn a_translation_follows_the_completed_checksum() {
    let Some(f) = fixture(FAST_PATH_ON | FAST_PATH_SUMS) else { return };
    for n in [2usize, 4] {
        let r = &f.gw.flows4()[n];
        let sum = |a: [u8; 4]| {
            u32::from(u16::from_le_bytes([a[0], a[1]])) + u32::from(u16::from_le_bytes([a[2], a[3]]))
        };
        // Old words and the complements of the new ones.
        let mut delta = sum(HOST) + 2 * 0xFFFF - sum(PUBLIC);
        delta = (delta & 0xFFFF) + (delta >> 16);
        delta = (delta & 0xFFFF) + (delta >> 16);
        r.new_addrs.store(addr4(PUBLIC) | addr4(FAR) << 32, Relaxed);
        let ports = u64::from(1000u16.to_be()) | u64::from(80u16.to_be()) << 16;
        r.new_ports.store(ports | u64::from(delta) << 32 | u64::from(delta) << 48, Relaxed);
        r.action.store(forward(FLOW_SNAT), Relaxed);
    }
    for packet in packets().filter(|p| p[0] >> 4 == 4) {
        let run = f.run(&frame(&partial(&packet)));
        assert_eq!((run.action, run.note), (XDP_REDIRECT, None));
        assert_eq!(run.frame[26..30], PUBLIC);
        assert_v4_sums(&run.frame[14..]);
    }
}

#[test]
fn socket_buffers_and_what_is_not_sent_stay_as_they_are() {
    let Some(f) = fixture(FAST_PATH_ON | FAST_PATH_SUMS) else { return };
    f.gw.set_port(LO, &PortEntry { skb: true, ..port_entry() }).unwrap();
    for packet in packets() {
        let sent = f.run(&frame(&packet));
        assert_eq!((sent.action, sent.note), (XDP_REDIRECT, None), "a whole checksum");
        let bytes = frame(&partial(&packet));
        let run = f.run(&bytes);
        assert_eq!(run.note.map(|n| n.reason), Some(PuntReason::Checksum));
        assert_eq!(run.frame, bytes);
    }
    f.gw.set_port(LO, &port_entry()).unwrap();
    let drop =
        Action { nexthop: DropReason::AclDenied as u16, act: FlowAct::Drop, ..Action::from_word(forward(0)) };
    for act in [drop, Action { flags: FLOW_PUNT_ALL, ..Action::from_word(forward(0)) }] {
        f.gw.flows4()[2].action.store(act.to_word(), Relaxed);
        let bytes = frame(&partial(&v4(HOST, FAR, 6, segment(6, b"x")).build()));
        assert_eq!(f.run(&bytes).frame, bytes);
    }
}

/// All records have seen so many packets.
fn after(f: &Fixture, packets: u64) {
    for n in [2usize, 4] {
        f.gw.flows4()[n].packets.store(packets, Relaxed);
        f.gw.flows6()[n].packets.store(packets, Relaxed);
    }
}

fn looks(f: &Fixture) -> bool {
    f.gw.control().fast_path.load(Relaxed) & FAST_PATH_SUMS != 0
}

#[test]
fn later_packets_are_not_looked_at_before_a_partial_one_was_seen() {
    let Some(f) = fixture(FAST_PATH_ON) else { return };
    for packet in packets() {
        after(&f, 8);
        let run = f.run(&frame(&partial(&packet)));
        assert_eq!((run.action, run.note), (XDP_REDIRECT, None));
        let l4 = if packet[0] >> 4 == 4 { 34 } else { 54 };
        assert_eq!(run.frame[l4..], partial(&packet)[l4 - 14..]);
    }
    assert!(!looks(&f));
}

/// As of a router that merges segments and takes them apart again: the worker saw whole checksums alone.
#[test]
fn the_first_packets_of_a_flow_are_looked_at_in_any_case() {
    let Some(f) = fixture(FAST_PATH_ON) else { return };
    for packet in packets() {
        after(&f, 0);
        let whole = f.run(&frame(&packet));
        assert_eq!((whole.action, whole.note), (XDP_REDIRECT, None));
        assert!(!looks(&f), "by a whole checksum of {} bytes", packet.len());
        after(&f, 7);
        assert_eq!(f.run(&frame(&partial(&packet))).frame, whole.frame, "{} bytes", packet.len());
        assert!(looks(&f));
        after(&f, 1000);
        assert_eq!(f.run(&frame(&partial(&packet))).frame, whole.frame, "from then on all are");
        f.gw.control().fast_path.store(FAST_PATH_ON, Relaxed);
    }
    f.gw.set_port(LO, &PortEntry { skb: true, ..port_entry() }).unwrap();
    for packet in packets() {
        after(&f, 1);
        let bytes = frame(&partial(&packet));
        let run = f.run(&bytes);
        assert_eq!((run.note.map(|n| n.reason), run.frame), (Some(PuntReason::Checksum), bytes));
        assert!(looks(&f));
        f.gw.control().fast_path.store(FAST_PATH_ON, Relaxed);
    }
}
