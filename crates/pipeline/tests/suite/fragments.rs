//! Fragments passing through, and packets that are fragmented here.

use super::forwarded;
use sag_model::{DropReason, PortIdx};
use sag_packet::proto::*;
use sag_pipeline::policy::Class;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;

const HOST4: &str = "192.168.1.10";
const FAR4: &str = "198.51.100.7";
const HOST6: &str = "2001:db8:1::10";
const FAR6: &str = "2001:db8:99::7";

#[test]
fn pass_in_order_with_their_first() {
    let mut rig = Rig::branch();
    for (whole, router) in [
        (Pkt::udp(HOST4, FAR4, 4000, 53).payload(100), "203.0.113.1"),
        (Pkt::tcp(HOST4, FAR4, 4000, 80, TCP_ACK).payload(100), "203.0.113.1"),
        (Pkt::echo(HOST4, FAR4, 4, false).payload(100), "203.0.113.1"),
        (Pkt::new(HOST4, FAR4, 47, vec![3; 100]), "203.0.113.1"),
        (Pkt::udp(HOST6, FAR6, 4000, 53).payload(100), "2001:db8:2::1"),
        (Pkt::echo(HOST6, FAR6, 4, true).payload(100), "2001:db8:2::1"),
    ] {
        let before = rig.sessions();
        for at in [0, 48, 96] {
            let f = whole.fragment(at, 48);
            assert_eq!(rig.send(&f), Outcome::Tx(WAN, forwarded(&f, WAN, router)), "{at} of {whole:?}");
        }
        let after = rig.sessions();
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1, "all belong to one flow");
    }
}

#[test]
fn an_extension_header_behind_the_fragment_header() {
    let mut rig = Rig::branch();
    // Fragment header, then destination options, then UDP: a later fragment names the options as
    // what follows, the first one gets to UDP.
    let options = [UDP, 0, 1, 4, 0, 0, 0, 0];
    let mut whole = Pkt::udp(HOST6, FAR6, 4000, 53).payload(88);
    whole.l4 = [&options[..], &whole.l4].concat();
    whole.proto = DEST_OPTIONS;
    for at in [0, 48, 96] {
        let f = whole.fragment(at, 48);
        assert_eq!(rig.send(&f), Outcome::Tx(WAN, forwarded(&f, WAN, "2001:db8:2::1")), "{at}");
    }
    assert_eq!(rig.sessions(), (0, 1));
}

#[test]
fn tiny_and_overlapping() {
    let mut rig = Rig::branch();
    let tcp = Pkt::tcp(HOST4, FAR4, 1, 2, TCP_SYN).payload(100);
    assert_eq!(rig.send(&tcp.fragment(0, 16)), Outcome::Drop(DropReason::FragmentTiny));
    // After a good first fragment one that would overwrite the TCP flags (RFC 1858, RFC 3128).
    assert!(rig.send(&tcp.fragment(0, 48)).is_tx());
    for at in [8, 16] {
        assert_eq!(rig.send(&tcp.fragment(at, 16)), Outcome::Drop(DropReason::FragmentTiny), "{at}");
    }
    assert!(rig.send(&tcp.fragment(48, 16)).is_tx());
}

#[test]
fn later_fragments_are_judged_by_the_ports_of_their_first() {
    let mut net = Net::branch();
    net.acl = Acl::new(true).rule(Class::OutWan, false, "17 * * * 53-53");
    let mut rig = Rig::new(net);
    let denied = Pkt::udp(HOST4, FAR4, 4000, 53).payload(100);
    for at in [0, 48, 96] {
        assert_eq!(rig.send(&denied.fragment(at, 48)), Outcome::Drop(DropReason::AclDenied), "{at}");
    }
    let passed = Pkt::udp(HOST4, FAR4, 4000, 54).payload(100);
    for at in [0, 48, 96] {
        assert!(rig.send(&passed.fragment(at, 48)).is_tx(), "{at}");
    }
}

#[test]
fn many_datagrams_at_once() {
    let mut rig = Rig::branch();
    let mut lost = 0u64;
    for round in 0..2 {
        for id in 0..512 {
            let mut p = Pkt::udp(HOST4, FAR4, 4000, 53).payload(100);
            p.id = id;
            match rig.send(&p.fragment(round * 48, 48)) {
                Outcome::Tx(..) => {}
                Outcome::Held | Outcome::Drop(DropReason::FragmentTableFull) => lost += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(lost < 26, "half full: {lost} of 512 lost their first fragment");
}

/// Puts what was emitted together again and checks every header.
fn reassemble(frames: &[(PortIdx, Vec<u8>)], original: &Pkt, mtu: usize) -> Vec<u8> {
    let mut data = Vec::new();
    let mut more = true;
    for (port, f) in frames {
        assert_eq!(*port, WAN);
        assert!(f.len() <= 14 + mtu);
        assert!(more, "nothing after the last fragment");
        let (word, ihl) = (u16::from_be_bytes([f[20], f[21]]), usize::from(f[14] & 15) * 4);
        assert_eq!(usize::from(word & 0x1FFF) * 8, data.len() + usize::from(original.frag & 0x1FFF) * 8);
        more = word & 0x2000 != 0;
        let mut want = original.clone();
        want.ttl -= 1;
        want.frag = word;
        want.l4 = f[14 + ihl..].to_vec();
        want.options = f[34..14 + ihl].to_vec();
        let link = want.link(host_mac(WAN, "203.0.113.1"), GATEWAY_MACS[WAN.index()], 0);
        assert_eq!(*f, link.build());
        data.extend_from_slice(&f[14 + ihl..]);
    }
    assert_eq!(more, original.frag & 0x2000 != 0);
    data
}

#[test]
fn split_without_df() {
    for mtu in [68, 576, 1400, 1499] {
        let mut net = Net::branch();
        net.set_mtu(WAN, mtu);
        let mut rig = Rig::new(net);
        let p = Pkt::udp(HOST4, FAR4, 1, 2).payload(1472);
        for way in ["first", "established"] {
            assert_eq!(rig.send(&p), Outcome::Emitted, "{way}");
            let frames = rig.emitted();
            assert_eq!(reassemble(&frames, &p, usize::from(mtu)), p.l4, "{way}");
            assert!(frames.len() > 1);
        }
        assert_eq!(rig.pipe.counters.port(LAN).forwarded.get(), 2);
        // Record route (first fragment only) and router alert (in all).
        let p = p.payload(1472).options(&[148, 4, 0, 0, 7, 3, 4, 0]);
        assert_eq!(rig.send(&p), Outcome::Emitted);
        let frames = rig.emitted();
        assert_eq!(reassemble(&frames, &p, usize::from(mtu)), p.l4);
        assert_eq!(&frames[1].1[34..38], &[148, 4, 0, 0]);
        assert_eq!(frames[1].1[14], 0x46);
    }
}

#[test]
fn fragments_are_split_further() {
    let mut net = Net::branch();
    net.set_mtu(WAN, 576);
    let mut rig = Rig::new(net);
    let whole = Pkt::udp(HOST4, FAR4, 1, 2).payload(2952);
    for (at, len) in [(0, 1480), (1480, 1480)] {
        let p = whole.fragment(at, len);
        assert_eq!(rig.send(&p), Outcome::Emitted);
        assert_eq!(reassemble(&rig.emitted(), &p, 576), p.l4);
    }
    assert_eq!(rig.sessions(), (1, 0));
}

#[test]
fn a_route_mtu_splits_too() {
    let mut net = Net::branch();
    let via = Some("203.0.113.1".parse().unwrap());
    net.route("198.51.100.0/24", Route::Via(vec![Member { mtu: 1300, ..Member::port(WAN, via, 1) }]));
    let mut rig = Rig::new(net);
    assert!(rig.send(&Pkt::udp(HOST4, FAR4, 1, 2)).is_tx());
    let p = Pkt::udp(HOST4, FAR4, 1, 2).payload(1400);
    assert_eq!(rig.send(&p), Outcome::Emitted);
    assert_eq!(reassemble(&rig.emitted(), &p, 1300), p.l4);
}

#[test]
fn refused_by_the_device() {
    let mut net = Net::branch();
    net.set_mtu(WAN, 576);
    let mut rig = Rig::new(net);
    rig.sent.refuse = true;
    let p = Pkt::udp(HOST4, FAR4, 1, 2).payload(1472);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::TxRingFull));
}

#[test]
fn an_mtu_too_small_for_any_data() {
    let mut net = Net::branch();
    net.set_mtu(WAN, 27);
    let mut rig = Rig::new(net);
    let p = Pkt::udp(HOST4, FAR4, 1, 2);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::MtuExceeded));
}
