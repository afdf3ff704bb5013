//! The fast path with records installed by hand: exact bytes out, checksums recomputed in full, and
//! everything that must send a packet of a known flow to a worker instead.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{PortEntry, PuntReason, TestFrame, TestRun};
use sag_model::flow::*;
use sag_model::{DropReason, PortIdx, VlanId, Zone};
use std::sync::atomic::Ordering::Relaxed;

const HOST: [u8; 4] = [192, 168, 1, 10];
const FAR: [u8; 4] = [198, 51, 100, 7];
const PUBLIC: [u8; 4] = [203, 0, 113, 2];

fn raw(addr: [u8; 4]) -> u32 {
    u32::from_le_bytes(addr)
}

fn key4(src: [u8; 4], dst: [u8; 4], proto: u8, sport: u16, dport: u16) -> Key4 {
    Key4 {
        addrs: u64::from(raw(src)) | u64::from(raw(dst)) << 32,
        l4: l4_word(sport.to_be(), dport.to_be(), proto, Zone::Lan),
    }
}

fn forward(nexthop: u16, flags: u8) -> Action {
    Action { nexthop, meter: 0, act: FlowAct::Forward, flags, tunnel: 0, nh_gen: 9 }
}

/// Ones' complement sum of `old` words and the complements of `new` words, folded.
fn delta(old: &[u8], new: &[u8]) -> u16 {
    let words =
        |b: &[u8]| -> Vec<u32> { b.chunks(2).map(|c| u32::from(u16::from_le_bytes([c[0], c[1]]))).collect() };
    let mut s: u32 = words(old).iter().sum::<u32>() + words(new).iter().map(|w| !w & 0xFFFF).sum::<u32>();
    while s >> 16 != 0 {
        s = (s & 0xFFFF) + (s >> 16);
    }
    s as u16
}

/// What the worker writes for source NAT of `from` to `to`.
fn snat(r: &FlowRecord4, from: ([u8; 4], u16), to: ([u8; 4], u16), dst: ([u8; 4], u16), addrs_in_l4: bool) {
    let l3 = delta(&from.0, &to.0);
    let mut old = from.1.to_be_bytes().to_vec();
    let mut new = to.1.to_be_bytes().to_vec();
    if addrs_in_l4 {
        old.extend(from.0);
        new.extend(to.0);
    }
    r.new_addrs.store(u64::from(raw(to.0)) | u64::from(raw(dst.0)) << 32, Relaxed);
    let ports = u64::from(to.1.to_be()) | u64::from(dst.1.to_be()) << 16;
    r.new_ports.store(ports | u64::from(l3) << 32 | u64::from(delta(&old, &new)) << 48, Relaxed);
    r.action.store(forward(4, FLOW_SNAT).to_word(), Relaxed);
}

fn fixture() -> Option<Fixture> {
    let f = Fixture::new()?;
    f.nexthop(4, 0, 1500, 9, NH_VALID);
    Some(f)
}

/// A UDP flow HOST:1000 -> FAR:53 without NAT as record 2.
fn plain(f: &Fixture) -> Vec<u8> {
    f.install4(2, key4(HOST, FAR, 17, 1000, 53), |r| r.action.store(forward(4, 0).to_word(), Relaxed));
    v4(HOST, FAR, 17, udp(1000, 53, b"question")).frame(None)
}

fn worker(run: &TestRun) -> (u32, PuntReason) {
    let note = run.note.expect("a note");
    assert_eq!(run.action, XDP_REDIRECT);
    (note.record, note.reason)
}

/// The frame that the next hop must get: its own link header, one hop less, `edit` applied, all
/// checksums again.
fn expect4(p: &V4, vlan: Option<u16>) -> Vec<u8> {
    let p = V4 { ttl: p.ttl - 1, ..p.clone() };
    cat(&[&eth_to(NEXT_MAC, OUT_MAC, vlan, 0x0800), &p.build()])
}

#[test]
fn plain_forwarding_counts_everything_once() {
    let Some(f) = fixture() else { return };
    let frame = plain(&f);
    let run = f.run(&frame);
    assert_eq!((run.action, run.note), (XDP_REDIRECT, None));
    assert_eq!(run.frame, expect4(&v4(HOST, FAR, 17, udp(1000, 53, b"question")), None));
    assert_v4_sums(&run.frame[14..]);
    let padded = cat(&[&frame, &[0; 10]]);
    assert_eq!(f.run(&padded).frame, run.frame, "padding stays on its link");

    let (lan, wan) = (f.gw.stats(LAN).unwrap(), f.gw.stats(WAN).unwrap());
    assert_eq!((lan.fast, lan.punted, lan.to_kernel, lan.dropped()), (2, 0, 0, 0));
    assert_eq!((wan.tx_packets, wan.tx_bytes, wan.rx_packets), (2, 2 * frame.len() as u64, 0));
    assert_eq!(lan.rx_bytes, (frame.len() + padded.len()) as u64);
    let r = &f.gw.flows4()[2];
    assert_eq!((r.packets.load(Relaxed), r.bytes.load(Relaxed)), (2, 2 * (frame.len() as u64 - 14)));
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: u64 = uptime.split('.').next().unwrap().parse().unwrap();
    let ticks = (seconds * 1_000_000_000) >> 24;
    assert!(ticks.abs_diff(r.last_seen.load(Relaxed).into()) < 300, "last seen is now");
}

#[test]
fn every_ttl_keeps_the_header_checksum_right() {
    let Some(f) = fixture() else { return };
    plain(&f);
    for ttl in 2..=255u8 {
        // Header checksums of many kinds, among them those that wrap.
        for id_like in [0u8, 0x7F, 0xFF] {
            let p = V4 { ttl, ..v4(HOST, FAR, 17, udp(1000, 53, &vec![id_like; usize::from(ttl)])) };
            assert_eq!(f.run(&p.frame(None)).frame, expect4(&p, None), "ttl {ttl}");
        }
    }
}

#[test]
fn snat_of_udp_tcp_and_icmp() {
    let Some(f) = fixture() else { return };
    let to = (PUBLIC, 40_000);
    f.install4(2, key4(HOST, FAR, 17, 1000, 53), |r| snat(r, (HOST, 1000), to, (FAR, 53), true));
    f.install4(4, key4(HOST, FAR, 6, 1000, 80), |r| snat(r, (HOST, 1000), to, (FAR, 80), true));
    f.install4(6, key4(HOST, FAR, 1, 77, 0), |r| snat(r, (HOST, 77), to, (FAR, 0), false));
    f.install4(8, key4(HOST, FAR, 47, 0, 0), |r| snat(r, (HOST, 0), (PUBLIC, 0), (FAR, 0), false));
    let cases = [
        (17, udp(1000, 53, b"odd"), udp(40_000, 53, b"odd")),
        (6, tcp(1000, 80, 0x18, b"GET /"), tcp(40_000, 80, 0x18, b"GET /")),
        (1, icmp(8, 77, b"ping"), icmp(8, 40_000, b"ping")),
        (1, icmp(13, 77, &[9; 12]), icmp(13, 40_000, &[9; 12])),
        (47, vec![0, 0, 8, 0, 1, 2], vec![0, 0, 8, 0, 1, 2]),
    ];
    for (proto, before, after) in cases {
        let run = f.run(&v4(HOST, FAR, proto, before).frame(None));
        assert_eq!(run.frame, expect4(&v4(PUBLIC, FAR, proto, after), None), "protocol {proto}");
        assert_v4_sums(&run.frame[14..]);
    }
}

#[test]
fn the_way_back_of_a_query_carries_its_identifier_as_destination() {
    let Some(f) = fixture() else { return };
    f.install4(2, key4(FAR, PUBLIC, 1, 0, 40_000), |r| {
        r.new_addrs.store(u64::from(raw(FAR)) | u64::from(raw(HOST)) << 32, Relaxed);
        let l3 = u64::from(delta(&PUBLIC, &HOST)) << 32;
        let l4 = u64::from(delta(&40_000u16.to_be_bytes(), &77u16.to_be_bytes())) << 48;
        r.new_ports.store(u64::from(77u16.to_be()) << 16 | l3 | l4, Relaxed);
        r.action.store(forward(4, FLOW_DNAT).to_word(), Relaxed);
    });
    for kind in [0, 14] {
        let run = f.run(&v4(FAR, PUBLIC, 1, icmp(kind, 40_000, b"pong")).frame(None));
        assert_eq!(run.frame, expect4(&v4(FAR, HOST, 1, icmp(kind, 77, b"pong")), None));
    }
    // A query from there is another flow, and ICMPv6 has no timestamps.
    for kind in [8, 13] {
        assert_eq!(
            worker(&f.run(&v4(FAR, PUBLIC, 1, icmp(kind, 40_000, b"")).frame(None))),
            (0, PuntReason::Miss)
        );
    }
    for kind in [0, 8, 13, 14] {
        let six = v6("2001:db8::1", "2001:db8::2", 58, 64, &icmp(kind, 40_000, b""));
        assert_eq!(worker(&f.run(&v6_frame(None, &six))), (0, PuntReason::Icmp));
    }
}

/// A header whose other words sum to nothing may carry either zero as its checksum (RFC 1071), also
/// where the translation does not change the sum.
#[test]
fn both_zeros_of_a_header_checksum_are_added_to() {
    let Some(f) = fixture() else { return };
    // Source and destination change places.
    f.install4(2, key4(HOST, FAR, 17, 1000, 53), |r| {
        r.new_addrs.store(u64::from(raw(FAR)) | u64::from(raw(HOST)) << 32, Relaxed);
        let ports = u64::from(1000u16.to_be()) | u64::from(53u16.to_be()) << 16;
        r.new_ports.store(ports | 0xFFFF_FFFF << 32, Relaxed);
        r.action.store(forward(4, FLOW_SNAT | FLOW_DNAT).to_word(), Relaxed);
    });
    let mut frame = v4(HOST, FAR, 17, udp(1000, 53, b"nothing")).frame(None);
    frame[18..20].fill(0);
    frame[24..26].fill(0);
    let rest = !(ones_sum(&frame[14..34], 0) as u16);
    frame[18..20].copy_from_slice(&rest.to_be_bytes());
    for zero in [0, 0xFF] {
        frame[24..26].fill(zero);
        let run = f.run(&frame);
        assert_eq!((run.action, run.note), (XDP_REDIRECT, None));
        assert_eq!(run.frame[24..26], [1, 0], "one hop less is one more");
        assert_v4_sums(&run.frame[14..]);
    }
}

#[test]
fn udp_checksum_zero_stays_and_is_never_made() {
    let Some(f) = fixture() else { return };
    f.install4(2, key4(HOST, FAR, 17, 1000, 53), |r| {
        snat(r, (HOST, 1000), (PUBLIC, 40_000), (FAR, 53), true);
    });
    let p = v4(HOST, FAR, 17, udp(1000, 53, b"unsummed"));
    let mut frame = p.frame(None);
    frame[40..42].fill(0);
    let run = f.run(&frame);
    assert_eq!(run.frame[40..42], [0, 0]);

    // A payload for which the rewritten packet's sum comes out as zero: 0xFFFF must be sent.
    let mut found = 0;
    for w in 0..=u16::MAX {
        let after = v4(PUBLIC, FAR, 17, udp(40_000, 53, &w.to_be_bytes()));
        if after.build()[26..28] == [0xFF, 0xFF] {
            let run = f.run(&v4(HOST, FAR, 17, udp(1000, 53, &w.to_be_bytes())).frame(None));
            assert_eq!(run.frame, expect4(&after, None));
            found += 1;
        }
    }
    assert!(found > 0, "no such payload");
}

#[test]
fn tcp_sums_that_come_out_as_zero() {
    let Some(f) = fixture() else { return };
    f.install4(2, key4(HOST, FAR, 6, 1000, 80), |r| {
        snat(r, (HOST, 1000), (PUBLIC, 40_000), (FAR, 80), true);
    });
    let mut found = 0;
    for w in 0..=u16::MAX {
        let after = v4(PUBLIC, FAR, 6, tcp(40_000, 80, 0x10, &w.to_be_bytes()));
        if after.build()[36..38] == [0, 0] {
            let run = f.run(&v4(HOST, FAR, 6, tcp(1000, 80, 0x10, &w.to_be_bytes())).frame(None));
            assert_eq!(run.frame, expect4(&after, None));
            found += 1;
        }
    }
    assert!(found > 0, "no such payload");
}

#[test]
fn what_sends_a_known_flow_to_a_worker() {
    let Some(f) = fixture() else { return };
    use PuntReason::*;
    let frame = plain(&f);
    let r = &f.gw.flows4()[2];
    let p = v4(HOST, FAR, 17, udp(1000, 53, b"question"));
    let expect = |frame: &[u8], why, name: &str| {
        let run = f.run(frame);
        assert_eq!(worker(&run), (2, why), "{name}");
        assert_eq!(run.frame, frame, "{name}: unchanged");
    };

    r.epoch.store(6, Relaxed);
    expect(&frame, Epoch, "older epoch");
    r.epoch.store(7, Relaxed);
    for (name, a) in [
        ("not judged", Action::PUNT),
        ("by flag", Action { flags: FLOW_PUNT_ALL, ..forward(4, 0) }),
        ("tunnelled", Action { tunnel: 1, ..forward(4, 0) }),
    ] {
        r.action.store(a.to_word(), Relaxed);
        expect(&frame, Flow, name);
    }
    r.action.store(Action { nh_gen: 8, ..forward(4, 0) }.to_word(), Relaxed);
    expect(&frame, NextHop, "older generation of the next hop");
    r.action.store(forward(4, 0).to_word(), Relaxed);
    f.nexthop(4, 0, 1500, 9, 0);
    expect(&frame, NextHop, "unresolved next hop");
    f.nexthop(4, 0, 35, 9, NH_VALID);
    expect(&frame, Mtu, "one byte too long");
    f.nexthop(4, 0, 36, 9, NH_VALID);
    assert_eq!(f.run(&frame).note, None, "just fits");
    expect(&V4 { ttl: 1, ..p.clone() }.frame(None), Ttl, "ttl 1");
    expect(&V4 { ttl: 0, ..p.clone() }.frame(None), Ttl, "ttl 0");
    f.nexthop(4, 0, 1500, 9, NH_VALID);
    expect(&V4 { options: vec![1, 1, 1, 0], ..p.clone() }.frame(None), Options, "options");
    expect(&V4 { frag: 0x2000, ..p.clone() }.frame(None), Fragment, "first fragment");
    f.gw.clear_dev(0).unwrap();
    expect(&frame, NextHop, "device gone");
    f.gw.set_dev(0, LO).unwrap();

    // A later fragment has no ports, so no record either.
    assert_eq!(worker(&f.run(&V4 { frag: 3, ..p.clone() }.frame(None))), (0, Fragment));
    // Another zone's packet is another flow.
    f.gw.set_port(LO, &PortEntry { side: Zone::Wan.into(), ..port_entry() }).unwrap();
    assert_eq!(worker(&f.run(&frame)), (0, Miss));
    f.gw.set_port(LO, &port_entry()).unwrap();
    f.gw.control().fast_path.store(0, Relaxed);
    assert_eq!(worker(&f.run(&frame)), (0, Miss));
    f.gw.control().fast_path.store(1, Relaxed);
    assert_eq!(f.run(&frame).note, None);
    assert_eq!(r.packets.load(Relaxed), 2, "only what was forwarded counts");
}

/// A packet of the five-tuple that comes in by another port than the record's is a worker's, in both families, by the
/// fast path's look at the record and by the general path's.
#[test]
fn a_record_is_of_one_port() {
    let Some(f) = fixture() else { return };
    let four = plain(&f);
    let echo = v4(HOST, FAR, 1, [8, 0, 0xF7, 0xFF, 0, 0, 0, 0].to_vec()).frame(None);
    f.install4(4, key4(HOST, FAR, 1, 0, 0), |r| r.action.store(forward(4, 0).to_word(), Relaxed));
    let six = v6("2001:db8:1::10", "2001:db8:9::9", 17, 64, &udp(5, 6, b"x"));
    f.install6(2, key6(&six, Zone::Lan), |r| r.action.store(forward(4, 0).to_word(), Relaxed));
    let six = v6_frame(None, &six);
    let all = |ingress| {
        for n in [2, 4] {
            f.gw.flows4()[n].set_ingress(ingress);
        }
        f.gw.flows6()[2].set_ingress(ingress);
    };
    let others =
        [IngressId::port(WAN), IngressId::port(PortIdx(63)), IngressId::tunnel(1), IngressId::REVOKED];
    for frame in [&four, &echo, &six] {
        all(IngressId::port(LAN));
        assert_eq!(f.run(frame).note, None);
        for other in others {
            all(other);
            let run = f.run(frame);
            assert_eq!(worker(&run), (0, PuntReason::Ingress), "{other:?}");
            assert_eq!(run.frame, *frame);
        }
        all(IngressId::port(LAN));
        assert_eq!(f.run(frame).note, None);
    }
    let packets: u64 = [2, 4].map(|n| f.gw.flows4()[n].packets.load(Relaxed)).into_iter().sum();
    assert_eq!(packets + f.gw.flows6()[2].packets.load(Relaxed), 6, "only what was forwarded counts");
    // A flow that is refused is so wherever it comes in.
    all(IngressId::port(WAN));
    let drop = Action { nexthop: DropReason::AclDenied as u16, act: FlowAct::Drop, ..forward(4, 0) };
    f.gw.flows4()[2].action.store(drop.to_word(), Relaxed);
    assert_eq!(f.run(&four).action, XDP_DROP);
}

#[test]
fn tcp_flags_reach_the_worker() {
    let Some(f) = fixture() else { return };
    f.install4(2, key4(HOST, FAR, 6, 1000, 80), |r| r.action.store(forward(4, 0).to_word(), Relaxed));
    for flags in 0..=255u8 {
        let run = f.run(&v4(HOST, FAR, 6, tcp(1000, 80, flags, b"")).frame(None));
        // No segment of an open connection is without ACK (RFC 9293 3.10.7.4).
        if flags & 0b111 != 0 || flags & 0x10 == 0 {
            // A SYN may begin another connection: it goes without the record, as a packet of no session.
            let record = if flags & 0x12 == 0x02 { 0 } else { 2 };
            assert_eq!(worker(&run), (record, PuntReason::TcpFlags), "flags {flags:#x}");
        } else {
            assert_eq!(run.note, None, "flags {flags:#x}");
        }
    }
}

#[test]
fn a_session_wins_over_a_local_address() {
    let Some(f) = fixture() else { return };
    f.gw.set_local4(FAR.into(), true).unwrap();
    let frame = plain(&f);
    assert_eq!((f.run(&frame).action, f.gw.stats(LAN).unwrap().fast), (XDP_REDIRECT, 1));
    // ... also when it is not to be forwarded by XDP.
    f.gw.flows4()[2].epoch.store(1, Relaxed);
    assert_eq!(worker(&f.run(&frame)), (2, PuntReason::Epoch));
    assert_eq!(f.run(&v4(HOST, FAR, 17, udp(1001, 53, b"")).frame(None)).action, XDP_PASS);
}

#[test]
fn drop_records_drop_by_their_reason() {
    let Some(f) = fixture() else { return };
    let frame = plain(&f);
    let r = &f.gw.flows4()[2];
    let denied = Action { nexthop: DropReason::AclDenied as u16, act: FlowAct::Drop, ..forward(0, 0) };
    r.action.store(denied.to_word(), Relaxed);
    let run = f.run(&frame);
    assert_eq!(run.action, XDP_DROP);
    let s = f.gw.stats(LAN).unwrap();
    assert_eq!((s.drops(DropReason::AclDenied), s.dropped(), s.fast), (1, 1, 0));
    assert_eq!((r.packets.load(Relaxed), f.gw.stats(WAN).unwrap().tx_packets), (1, 0));
    assert_ne!(r.last_seen.load(Relaxed), 0);
}

#[test]
fn collisions_and_the_second_bucket() {
    let Some(f) = fixture() else { return };
    let key = key4(HOST, FAR, 17, 1000, 53);
    let c = f.gw.control();
    let p = Probe::new(key.hash(c.seed.load(Relaxed)), 63);
    assert_ne!(p.first, p.second, "the test needs two buckets");
    // The same tag in every word of the first bucket, all pointing at another flow's record.
    let other = &f.gw.flows4()[6];
    other.set_key(&key4(HOST, FAR, 17, 1000, 54));
    let first = &f.gw.index4()[64 + p.first as usize];
    first.word.iter().for_each(|w| w.store(p.tag << RECORD_BITS | 6, Relaxed));
    let frame = v4(HOST, FAR, 17, udp(1000, 53, b"question")).frame(None);
    assert_eq!(worker(&f.run(&frame)), (0, PuntReason::Miss));

    // The record itself in every word of the second bucket, one after another.
    let r = &f.gw.flows4()[2];
    r.set_key(&key);
    r.epoch.store(7, Relaxed);
    r.action.store(forward(4, 0).to_word(), Relaxed);
    let second = &f.gw.index4()[64 + p.second as usize];
    for (bucket, name) in [(second, "second"), (first, "first")] {
        for i in 0..BUCKET_WORDS {
            let old = bucket.word[i].swap(p.tag << RECORD_BITS | 2, Relaxed);
            assert_eq!(f.run(&frame).note, None, "word {i} of the {name} bucket");
            bucket.word[i].store(old, Relaxed);
        }
    }
    assert_eq!(r.packets.load(Relaxed), 2 * BUCKET_WORDS as u64);

    // Record numbers beyond the slab are nothing.
    first.word.iter().for_each(|w| w.store(p.tag << RECORD_BITS | 0xFF_FFFF, Relaxed));
    assert_eq!(worker(&f.run(&frame)), (0, PuntReason::Miss));
    // An index beyond its slab is empty.
    c.index4.store(Geometry { base: u32::MAX - 70, ..Geometry::sized(64) }.to_word(), Relaxed);
    assert_eq!(worker(&f.run(&frame)), (0, PuntReason::Miss));
}

#[test]
fn vlan_tags_are_pushed_popped_and_changed() {
    let Some(f) = fixture() else { return };
    let sub = PortIdx(9);
    f.gw.set_port(LO, &PortEntry { vlans: true, ..port_entry() }).unwrap();
    f.gw.set_vlan(LO, VlanId::new(100).unwrap(), &PortEntry { port: sub, ..port_entry() }).unwrap();
    plain(&f);
    f.install4(4, key4(HOST, FAR, 6, 1000, 80), |r| {
        snat(r, (HOST, 1000), (PUBLIC, 40_000), (FAR, 80), true);
    });
    let six = v6("2001:db8:1::10", "2001:db8:9::9", 17, 64, &udp(5, 6, b"x"));
    f.install6(2, key6(&six, Zone::Lan), |r| r.action.store(forward(4, 0).to_word(), Relaxed));
    for (into, out) in [
        (None, 0),
        (None, 7),
        (Some(100), 0),
        (Some(100), 100),
        (Some(100), 4094),
        (Some(0), 0),
        (Some(0), 7),
    ] {
        f.nexthop(4, out, 1500, 9, NH_VALID);
        let vlan = (out != 0).then_some(out);
        let before = f.gw.stats(WAN).unwrap().tx_bytes;
        let ingress = IngressId::port(if into == Some(100) { sub } else { LAN });
        for n in [2, 4] {
            f.gw.flows4()[n].set_ingress(ingress);
        }
        f.gw.flows6()[2].set_ingress(ingress);
        // Priority bits do not travel.
        let tag = into.map(|v| v | 0xA000);
        let p = v4(HOST, FAR, 17, udp(1000, 53, b"question"));
        let run = test_run(&f, &p.frame(tag));
        assert_eq!((run.action, run.note), (XDP_REDIRECT, None));
        assert_eq!(run.frame, expect4(&p, vlan), "{into:?} -> {out}");
        assert_eq!(f.gw.stats(WAN).unwrap().tx_bytes, before + run.frame.len() as u64);

        let run = test_run(&f, &v4(HOST, FAR, 6, tcp(1000, 80, 0x10, b"data")).frame(tag));
        assert_eq!(run.frame, expect4(&v4(PUBLIC, FAR, 6, tcp(40_000, 80, 0x10, b"data")), vlan));

        let run = test_run(&f, &v6_frame(tag, &six));
        let mut want = six.clone();
        want[7] -= 1;
        assert_eq!(run.frame, cat(&[&eth_to(NEXT_MAC, OUT_MAC, vlan, 0x86DD), &want]), "{into:?} -> {out}");
    }
    assert!(f.gw.stats(sub).unwrap().balanced());
    assert_eq!(f.gw.stats(sub).unwrap().fast, 9);
}

fn test_run(f: &Fixture, frame: &[u8]) -> TestRun {
    f.gw.test_run(TestFrame { bytes: frame, ifindex: 0, queue: 0 }).unwrap()
}

/// The key of an IPv6 packet with a transport header that has ports.
fn key6(p: &[u8], zone: Zone) -> Key6 {
    let w = |at: usize| u64::from_le_bytes(p[at..at + 8].try_into().unwrap());
    let ports = (u16::from_le_bytes([p[40], p[41]]), u16::from_le_bytes([p[42], p[43]]));
    Key6 { src: [w(8), w(16)], dst: [w(24), w(32)], l4: l4_word(ports.0, ports.1, p[6], zone) }
}

#[test]
fn ipv6_forwarding_and_translation() {
    let Some(f) = fixture() else { return };
    let (host, far, public) = ("2001:db8:1::10", "2001:db8:9::9", "2001:db8:ff::2");
    let send = |p: &[u8]| f.run(&v6_frame(None, p));
    let want = |p: &[u8]| {
        let mut p = p.to_vec();
        p[7] -= 1;
        assert_v6_sums(&p);
        cat(&[&eth_to(NEXT_MAC, OUT_MAC, None, 0x86DD), &p])
    };
    let plain = v6(host, far, 6, 64, &tcp(1000, 80, 0x10, b"data"));
    f.install6(2, key6(&plain, Zone::Lan), |r| r.action.store(forward(4, 0).to_word(), Relaxed));
    let run = send(&plain);
    assert_eq!(run.frame, want(&plain));
    let r = &f.gw.flows6()[2];
    assert_eq!((r.packets.load(Relaxed), r.bytes.load(Relaxed)), (1, plain.len() as u64));
    assert_ne!(r.last_seen.load(Relaxed), 0);

    // Source translation of UDP and of an echo request.
    let before = v6(host, far, 17, 64, &udp(1000, 53, b"odd"));
    let after = v6(public, far, 17, 64, &udp(40_000, 53, b"odd"));
    let fill = |r: &FlowRecord6, before: &[u8], after: &[u8], ports: u64, changed: [&[u8]; 2]| {
        let w = |at: usize| u64::from_le_bytes(after[at..at + 8].try_into().unwrap());
        for i in 0..2 {
            r.new_src[i].store(w(8 + 8 * i), Relaxed);
            r.new_dst[i].store(w(24 + 8 * i), Relaxed);
        }
        let d = delta(&cat(&[&before[8..24], changed[0]]), &cat(&[&after[8..24], changed[1]]));
        r.new_ports.store(ports | u64::from(d) << 32, Relaxed);
        r.action.store(forward(4, FLOW_SNAT).to_word(), Relaxed);
    };
    f.install6(4, key6(&before, Zone::Lan), |r| {
        let ports = u64::from(40_000u16.to_be()) | u64::from(53u16.to_be()) << 16;
        fill(r, &before, &after, ports, [&before[40..42], &after[40..42]]);
    });
    assert_eq!(send(&before).frame, want(&after));
    let before = v6(host, far, 58, 64, &icmp(128, 77, b"ping"));
    let after = v6(public, far, 58, 64, &icmp(128, 40_000, b"ping"));
    let key = Key6 { l4: l4_word(77u16.to_be(), 0, 58, Zone::Lan), ..key6(&before, Zone::Lan) };
    f.install6(6, key, |r| {
        fill(r, &before, &after, u64::from(40_000u16.to_be()), [&before[44..46], &after[44..46]]);
    });
    assert_eq!(send(&before).frame, want(&after));

    // And what does not go out.
    assert_eq!(worker(&send(&v6(host, far, 6, 1, &tcp(1000, 80, 0x10, b"")))), (2, PuntReason::Ttl));
    assert_eq!(worker(&send(&v6(host, far, 6, 64, &tcp(1000, 80, 0x11, b"")))), (2, PuntReason::TcpFlags));
    r.epoch.store(8, Relaxed);
    assert_eq!(worker(&send(&plain)), (2, PuntReason::Epoch));
    r.epoch.store(7, Relaxed);
    f.nexthop(4, 0, 40, 9, NH_VALID);
    assert_eq!(worker(&send(&plain)), (2, PuntReason::Mtu));
    r.action.store(
        Action { nexthop: DropReason::AclDenied as u16, act: FlowAct::Drop, ..forward(0, 0) }.to_word(),
        Relaxed,
    );
    assert_eq!(send(&plain).action, XDP_DROP);
}
