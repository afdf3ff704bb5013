//! Packets without a session to an address that NAT shares with the box: which are a worker's.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{LocalAddr, NAT_SLOT_WORDS, NAT_SLOTS, PuntReason};
use sag_model::flow::{Action, FlowAct, Key4, l4_word, nat_port_bit};
use sag_model::{DropReason, MacAddr, VrfNo, Zone};
use std::sync::atomic::Ordering::Relaxed;

const PEER: [u8; 4] = [198, 51, 100, 7];
/// Slots 0 and 63, and an address without NAT.
const FIRST: [u8; 4] = [203, 0, 113, 1];
const LAST: [u8; 4] = [203, 0, 113, 2];
const PLAIN: [u8; 4] = [203, 0, 113, 3];
/// Everything inside; slot 5, or none.
const ANY: [u8; 4] = [203, 0, 113, 4];
const ANY_BARE: [u8; 4] = [203, 0, 113, 5];
/// A set bit.
const PORT: u16 = 40_000;

fn addr(addr: [u8; 4], nat_slot: Option<u8>, any: bool) -> LocalAddr {
    LocalAddr { nat_slot, any, ..LocalAddr::plain(addr.into()) }
}

fn set(f: &Fixture, slot: u8, udp: bool, port: u16, on: bool) {
    let (word, bit) = nat_port_bit(slot, udp, port);
    if on {
        f.gw.nat_ports()[word].fetch_or(bit, Relaxed);
    } else {
        f.gw.nat_ports()[word].fetch_and(!bit, Relaxed);
    }
}

fn fixture() -> Option<Fixture> {
    let f = Fixture::new()?;
    f.gw.replace_local4(&[
        addr(FIRST, Some(0), false),
        addr(LAST, Some(63), false),
        addr(PLAIN, None, false),
        addr(ANY, Some(5), true),
        addr(ANY_BARE, None, true),
    ])
    .unwrap();
    for slot in [0, 63] {
        set(&f, slot, false, PORT, true);
        set(&f, slot, true, PORT, true);
    }
    Some(f)
}

fn udp_to(dst: [u8; 4], port: u16) -> V4 {
    v4(PEER, dst, 17, udp(1000, port, b"payload"))
}

fn tcp_to(dst: [u8; 4], port: u16) -> V4 {
    v4(PEER, dst, 6, tcp(1000, port, 2, b""))
}

#[test]
fn every_bit_is_one_port_of_one_protocol_and_slot() {
    let Some(f) = fixture() else { return };
    use Outcome::*;
    assert_eq!(f.gw.nat_ports().len(), NAT_SLOTS * NAT_SLOT_WORDS);
    for w in f.gw.nat_ports() {
        w.store(0, Relaxed);
    }
    let mut ports =
        vec![0, 1, 22, 63, 64, 65, 511, 512, 513, 1023, 1024, 0x7FFF, 0x8000, 0xFFC0, 0xFFFE, 0xFFFF];
    ports.extend((0..16).map(|n| 0x1234 ^ 1 << n));
    for &port in &ports {
        for (slot, dst, other) in [(0, FIRST, LAST), (63, LAST, FIRST)] {
            for udp in [false, true] {
                let make = |udp: bool, dst, port| if udp { udp_to(dst, port) } else { tcp_to(dst, port) };
                let run = |udp, dst, port| outcome(&f, &make(udp, dst, port).frame(None));
                assert_eq!(run(udp, dst, port), Kernel);
                set(&f, slot, udp, port, true);
                assert_eq!(run(udp, dst, port), Worker(PuntReason::Miss), "port {port}, slot {slot}");
                assert_eq!(run(!udp, dst, port), Kernel, "the other protocol's port {port}");
                assert_eq!(run(udp, other, port), Kernel, "port {port} of another address");
                assert_eq!(run(udp, PLAIN, port), Kernel);
                for n in 0..16 {
                    assert_eq!(run(udp, dst, port ^ 1 << n), Kernel, "port {port} with bit {n} changed");
                }
                set(&f, slot, udp, port, false);
            }
        }
    }
    assert!(f.gw.nat_ports().iter().all(|w| w.load(Relaxed) == 0));
}

#[test]
fn whose_is_what() {
    let Some(f) = fixture() else { return };
    use Outcome::*;
    use PuntReason::*;
    let to = |proto, payload| v4(PEER, FIRST, proto, payload);
    let of = |kind| to(1, icmp(kind, PORT, &[0; 28]));
    let options = |p: V4| V4 { options: vec![1, 1, 1, 0], ..p };
    let first = |p: V4| V4 { frag: 0x2000, ..p };
    let later = |p: V4| V4 { frag: 0x0010, ..p };
    let (mapped_udp, other_udp) = (udp_to(FIRST, PORT), udp_to(FIRST, 53));
    let (mapped_tcp, other_tcp) = (tcp_to(FIRST, PORT), tcp_to(FIRST, 22));
    // To an address with bits; to one with everything mapped inside.
    let cases: Vec<(&str, V4, Outcome, Outcome)> = vec![
        ("udp, mapped", mapped_udp.clone(), Worker(Miss), Worker(Miss)),
        ("udp, not mapped", other_udp.clone(), Kernel, Worker(Miss)),
        ("tcp, mapped", mapped_tcp, Worker(Miss), Worker(Miss)),
        ("tcp, not mapped", other_tcp.clone(), Kernel, Worker(Miss)),
        ("tcp ack, mapped", to(6, tcp(1, PORT, 0x10, b"x")), Worker(Miss), Worker(Miss)),
        ("udp, mapped port as source", to(17, udp(PORT, 9, b"")), Kernel, Worker(Miss)),
        ("options, mapped", options(mapped_udp.clone()), Worker(Options), Worker(Options)),
        ("options, not mapped", options(other_tcp), Kernel, Worker(Options)),
        ("first fragment, mapped", first(mapped_udp.clone()), Worker(Fragment), Worker(Fragment)),
        ("first fragment, not mapped", first(other_udp.clone()), Worker(Fragment), Worker(Fragment)),
        ("later fragment", later(other_udp), Worker(Fragment), Worker(Fragment)),
        ("fragmented icmp", first(of(0)), Worker(Fragment), Worker(Fragment)),
        ("fragmented esp", first(to(50, vec![0; 16])), Worker(Fragment), Worker(Fragment)),
        ("echo request", of(8), Kernel, Worker(Miss)),
        ("echo reply", of(0), Kernel, Worker(Miss)),
        ("timestamp request", of(13), Kernel, Worker(Miss)),
        ("timestamp reply", of(14), Kernel, Worker(Miss)),
        ("address mask request", of(17), Kernel, Worker(Icmp)),
        ("icmp type 35, 3 modulo 32", of(35), Kernel, Worker(Icmp)),
        ("icmp type 255", of(255), Kernel, Worker(Icmp)),
        ("esp", to(50, vec![0; 16]), Kernel, Worker(Miss)),
        ("gre", to(47, vec![0, 0, 8, 0]), Kernel, Worker(Miss)),
        ("cut short", to(17, udp(1000, PORT, b"")[..7].to_vec()), Kernel, Kernel),
    ];
    for (name, p, bits, any) in cases {
        for (dst, want) in [(FIRST, &bits), (LAST, &bits), (ANY, &any), (ANY_BARE, &any), (PLAIN, &Kernel)] {
            let p = V4 { dst: dst.into(), ..p.clone() };
            assert_eq!(outcome(&f, &p.frame(None)), *want, "{name} to {dst:?}");
        }
    }
    for dst in [FIRST, ANY] {
        let mut frame = V4 { dst: dst.into(), ..mapped_udp.clone() }.frame(None);
        frame[24] ^= 1;
        assert_eq!(outcome(&f, &frame), Kernel, "wrong checksum");
    }
    for kind in [3, 4, 5, 11, 12] {
        for (options, name) in [(vec![], "plain"), (vec![1, 1, 1, 0], "options")] {
            for (dst, want) in [(FIRST, Worker(Icmp)), (ANY, Worker(Icmp)), (PLAIN, Kernel)] {
                let error = V4 { dst: dst.into(), options: options.clone(), ..of(kind) };
                assert_eq!(outcome(&f, &error.frame(None)), want, "icmp {kind}, {name}, to {dst:?}");
            }
        }
    }
}

#[test]
fn nobody_is_locked_out_while_no_worker_is_there() {
    let Some(f) = fixture() else { return };
    f.gw.clear_xsk(0, 0).unwrap();
    for policy in [1, 2, 77] {
        f.gw.control().fail_action.store(policy, Relaxed);
        for frame in [
            tcp_to(FIRST, PORT).frame(None),
            V4 { frag: 0x2000, ..udp_to(LAST, 53) }.frame(None),
            v4(PEER, FIRST, 1, icmp(3, 0, &[0; 28])).frame(None),
            tcp_to(ANY, 22).frame(None),
        ] {
            assert_eq!(outcome(&f, &frame), Outcome::Kernel, "fail_action {policy}");
        }
    }
    assert_eq!(
        outcome(&f, &tcp_to([192, 0, 2, 9], PORT).frame(None)),
        Outcome::Dropped(DropReason::NoWorker)
    );
}

/// The record of an inside host's flow, reply direction, at an outside address.
fn reply_session(f: &Fixture, proto: u8, sport: u16, dport: u16) {
    let addrs = u64::from(u32::from_le_bytes(PEER)) | u64::from(u32::from_le_bytes(FIRST)) << 32;
    let key = Key4 { addrs, l4: l4_word(sport.to_be(), dport.to_be(), proto, Zone::Lan) };
    f.install4(2, key, |r| {
        let act = Action { nexthop: 4, meter: 0, act: FlowAct::Forward, flags: 0, tunnel: 0, nh_gen: 9 };
        r.action.store(act.to_word(), Relaxed);
    });
    f.nexthop(4, 0, 1500, 9, sag_model::flow::NH_VALID);
}

#[test]
fn a_session_needs_no_bit() {
    let Some(f) = fixture() else { return };
    for (proto, sport, dport, p) in [
        (17, 1000, 53, udp_to(FIRST, 53)),
        (1, 0, PORT, v4(PEER, FIRST, 1, icmp(0, PORT, b"pong"))),
        (47, 0, 0, v4(PEER, FIRST, 47, vec![0, 0, 8, 0])),
    ] {
        f.gw.index4().iter().flat_map(|b| &b.word).for_each(|w| w.store(0, Relaxed));
        assert_eq!(outcome(&f, &p.frame(None)), Outcome::Kernel, "protocol {proto} without a session");
        reply_session(&f, proto, sport, dport);
        let run = f.run(&p.frame(None));
        assert_eq!((run.action, run.note), (XDP_REDIRECT, None), "protocol {proto}");
        // Workers alone forward: the session is still not the kernel's.
        f.gw.control().fast_path.store(0, Relaxed);
        assert_eq!(outcome(&f, &p.frame(None)), Outcome::Worker(PuntReason::Miss), "protocol {proto}");
        let options = V4 { options: vec![1, 1, 1, 0], ..p.clone() }.frame(None);
        assert_eq!(outcome(&f, &options), Outcome::Worker(PuntReason::Options), "protocol {proto}");
        f.gw.control().fast_path.store(1, Relaxed);
    }
}

#[test]
fn a_dhcp_answer_is_the_kernels_whatever_is_mapped() {
    let Some(f) = fixture() else { return };
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[2, 1, 6, 0]);
    message[16..20].copy_from_slice(&ANY);
    let offer = |m: &[u8]| v4(PEER, ANY, 17, udp(67, 68, m)).frame(None);
    assert_eq!(outcome(&f, &offer(&message)), Outcome::Worker(PuntReason::Miss));
    message[28..34].copy_from_slice(&GW_MAC.0);
    assert_eq!(outcome(&f, &offer(&message)), Outcome::Kernel);
}

#[test]
fn a_full_table_of_own_addresses_is_an_error_and_keeps_what_it_has() {
    let Some(f) = Fixture::new() else { return };
    let some = |n: u32| (0..n).map(|i| LocalAddr::plain((0x0A00_0000 + i).into())).collect::<Vec<_>>();
    f.gw.replace_local4(&some(4096)).unwrap();
    let full = f.gw.replace_local4(&some(4097)).unwrap_err().to_string();
    assert!(full.contains("gw_local4"), "{full}");
    let arrives = |a: [u8; 4]| outcome(&f, &udp_to(a, PORT).frame(None));
    assert_eq!(arrives([10, 0, 15, 255]), Outcome::Kernel);
    // What did not fit goes to a worker, which knows every own address.
    assert_eq!(arrives([10, 0, 16, 0]), Outcome::Worker(PuntReason::Miss));
    f.gw.replace_local4(&some(1)).unwrap();
    assert_eq!(arrives([10, 0, 15, 255]), Outcome::Worker(PuntReason::Miss), "addresses go");
    let one = |i: u32| (VrfNo::DEFAULT, (0x2001_0DB8_u128 << 96 | u128::from(i)).into());
    let v6 = |n: u32| (0..n).map(one).collect::<Vec<_>>();
    f.gw.replace_local6(&v6(4096), &[]).unwrap();
    let full = f.gw.replace_local6(&v6(4097), &[]).unwrap_err().to_string();
    assert!(full.contains("gw_local6"), "{full}");
    let macs =
        |n: u16| (0..n).map(|i| (LO, 0, MacAddr([2, 0, 0, 1, (i >> 8) as u8, i as u8]))).collect::<Vec<_>>();
    f.gw.replace_macs(&macs(1024)).unwrap();
    let full = f.gw.replace_macs(&macs(1025)).unwrap_err().to_string();
    assert!(full.contains("gw_other_macs"), "{full}");
    f.gw.replace_macs(&[]).unwrap();
}

#[test]
fn what_an_address_means_changes_in_place() {
    let Some(f) = fixture() else { return };
    let frame = udp_to(FIRST, PORT).frame(None);
    assert_eq!(outcome(&f, &frame), Outcome::Worker(PuntReason::Miss));
    f.gw.replace_local4(&[addr(FIRST, None, false)]).unwrap();
    assert_eq!(outcome(&f, &frame), Outcome::Kernel);
    f.gw.replace_local4(&[addr(FIRST, Some(62), false)]).unwrap();
    assert_eq!(outcome(&f, &frame), Outcome::Kernel, "no bit in that slot");
    f.gw.replace_local4(&[addr(FIRST, Some(63), false)]).unwrap();
    assert_eq!(outcome(&f, &frame), Outcome::Worker(PuntReason::Miss));
    let e = f.gw.replace_local4(&[addr(FIRST, Some(64), false)]).unwrap_err().to_string();
    assert!(e.contains("NAT slot 64"), "{e}");
    assert_eq!(outcome(&f, &frame), Outcome::Worker(PuntReason::Miss), "nothing was changed");

    // While the values change over and over, no packet finds the address missing: an echo request to
    // an address that is not the box's is a worker's.
    let ping = v4(PEER, FIRST, 1, icmp(8, 7, b"")).frame(None);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            for n in 0..2000 {
                f.gw.replace_local4(&[addr(FIRST, Some(n as u8 % 64), false), addr(PLAIN, None, false)])
                    .unwrap();
            }
            done.store(true, Relaxed);
        });
        let mut runs = 0;
        while !done.load(Relaxed) || runs < 100 {
            assert_eq!(outcome(&f, &ping), Outcome::Kernel);
            runs += 1;
        }
    });
}
