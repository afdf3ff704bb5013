//! What becomes of each class of packet that has no session: kernel, worker, or dropped, and how it
//! is counted.

mod common;

use common::packet::*;
use common::*;
use sag_bpf::{LocalAddr, PortEntry, PuntReason, TestFrame};
use sag_model::{DropReason, MacAddr, PortIdx, VlanId, VrfNo, VrfZone, Zone};
use std::sync::atomic::Ordering::Relaxed;

const HOST: [u8; 4] = [192, 168, 1, 10];
const FAR: [u8; 4] = [198, 51, 100, 7];
const SELF4: [u8; 4] = [192, 168, 1, 1];

fn udp4(dst: [u8; 4]) -> V4 {
    v4(HOST, dst, 17, udp(1000, 2000, b"payload"))
}

fn fixture() -> Option<Fixture> {
    let f = Fixture::new()?;
    f.gw.set_local4(SELF4.into(), true).unwrap();
    f.gw.set_local4([192, 168, 1, 255].into(), true).unwrap();
    f.gw.set_local6("2001:db8:1::1".parse().unwrap(), true).unwrap();
    Some(f)
}

#[test]
fn what_is_the_kernels() {
    let Some(f) = fixture() else { return };
    let udp6 = |dst: &str| v6("2001:db8:1::10", dst, 17, 64, &udp(1, 2, b"x"));
    let to = |mac: MacAddr, frame: Vec<u8>| cat(&[&mac.0, &frame[6..]]);
    let forwardable = udp4(FAR).frame(None);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("arp request", to(MacAddr([0xFF; 6]), cat(&[&eth(None, 0x0806), &[0; 28]]))),
        ("arp reply to us", cat(&[&eth(None, 0x0806), &[0; 28]])),
        ("lldp", to(MacAddr([1, 0x80, 0xC2, 0, 0, 0x0E]), cat(&[&eth(None, 0x88CC), &[0; 40]]))),
        ("broadcast mac", to(MacAddr([0xFF; 6]), forwardable.clone())),
        ("multicast mac", to(MacAddr([1, 0, 0x5E, 0, 0, 5]), forwardable.clone())),
        ("other unicast mac", to(MacAddr([2, 0, 0x5E, 0, 0, 2]), forwardable.clone())),
        ("qinq", cat(&[&eth(None, 0x88A8), &[0, 5], &[0x08, 0x00], &udp4(FAR).build()])),
        ("mpls", cat(&[&eth(None, 0x8847), &[0, 1, 1, 64], &udp4(FAR).build()])),
        ("pppoe", cat(&[&eth(None, 0x8864), &[0x11, 0, 0, 1, 0, 30, 0, 0x21], &udp4(FAR).build()])),
        ("tag without sub-ports", udp4(FAR).frame(Some(100))),
        ("priority tag, to us", udp4(SELF4).frame(Some(0))),
        ("priority tag, broadcast", to(MacAddr([0xFF; 6]), udp4(FAR).frame(Some(0)))),
        ("arp behind a priority tag", cat(&[&eth(Some(0), 0x0806), &[0; 28]])),
        ("ipv4 to us", udp4(SELF4).frame(None)),
        ("ipv4 subnet broadcast", udp4([192, 168, 1, 255]).frame(None)),
        ("ipv4 multicast", udp4([224, 0, 0, 5]).frame(None)),
        ("ipv4 multicast, last", udp4([239, 255, 255, 255]).frame(None)),
        ("ipv4 limited broadcast", udp4([255; 4]).frame(None)),
        ("ipv4 to us, protocol 89", v4(HOST, SELF4, 89, vec![2, 1]).frame(None)),
        ("ipv4 to us, later fragment", V4 { frag: 5, ..udp4(SELF4) }.frame(None)),
        ("ipv4 to us, bad checksum", {
            let mut fr = udp4(SELF4).frame(None);
            fr[24] ^= 1;
            fr
        }),
        ("ipv4 to us, icmp error", v4(HOST, SELF4, 1, icmp(3, 0, &[0; 28])).frame(None)),
        ("ipv6 to us", v6_frame(None, &udp6("2001:db8:1::1"))),
        ("ipv6 multicast", v6_frame(None, &udp6("ff02::5"))),
        ("ipv6 link-local", v6_frame(None, &udp6("fe80::1"))),
        ("ipv6 link-local, last", v6_frame(None, &udp6("febf:ffff::1"))),
        ("nd to us", v6_frame(None, &v6("fe80::9", "2001:db8:1::1", 58, 255, &icmp(135, 0, &[0; 16])))),
    ];
    for (name, frame) in cases {
        assert_eq!(outcome(&f, &frame), Outcome::Kernel, "{name}");
    }
}

#[test]
fn what_is_a_workers_and_why() {
    let Some(f) = fixture() else { return };
    use PuntReason::*;
    let far6 = "2001:db8:9::9";
    let six = |next, payload: &[u8]| v6_frame(None, &v6("2001:db8:1::10", far6, next, 64, payload));
    let spoil = |mut frame: Vec<u8>, at: usize, to: u8| {
        frame[at] = to;
        frame
    };
    let good = udp4(FAR).frame(None);
    let cases: Vec<(&str, Vec<u8>, PuntReason)> = vec![
        ("udp", good.clone(), Miss),
        ("udp with padding", cat(&[&good, &[0; 20]]), Miss),
        ("priority tag", udp4(FAR).frame(Some(0)), Miss),
        ("priority tag with a priority", udp4(FAR).frame(Some(0xE000)), Miss),
        ("priority tag of 802.1ad", spoil(spoil(udp4(FAR).frame(Some(0)), 12, 0x88), 13, 0xA8), Miss),
        ("priority tag, ipv6", v6_frame(Some(0), &v6("2001:db8:1::10", far6, 17, 64, &udp(1, 2, b""))), Miss),
        ("tcp syn", v4(HOST, FAR, 6, tcp(1, 2, 2, b"")).frame(None), Miss),
        ("gre", v4(HOST, FAR, 47, vec![0, 0, 8, 0]).frame(None), Miss),
        ("unknown protocol without payload", v4(HOST, FAR, 253, vec![]).frame(None), Miss),
        ("echo request", v4(HOST, FAR, 1, icmp(8, 7, b"abc")).frame(None), Miss),
        ("timestamp request", v4(HOST, FAR, 1, icmp(13, 7, &[0; 12])).frame(None), Miss),
        ("timestamp reply", v4(HOST, FAR, 1, icmp(14, 7, &[0; 12])).frame(None), Miss),
        ("address mask request", v4(HOST, FAR, 1, icmp(17, 7, &[0; 4])).frame(None), Icmp),
        ("class E destination", udp4([240, 0, 0, 1]).frame(None), Miss),
        ("icmp error", v4(HOST, FAR, 1, icmp(3, 0, &[0; 28])).frame(None), Icmp),
        ("options", V4 { options: vec![1, 1, 1, 0], ..udp4(FAR) }.frame(None), Options),
        ("first fragment", V4 { frag: 0x2000, ..udp4(FAR) }.frame(None), Fragment),
        ("later fragment", V4 { frag: 0x0010, ..udp4(FAR) }.frame(None), Fragment),
        (
            "first fragment with options",
            V4 { frag: 0x2000, options: vec![1, 1, 1, 0], ..udp4(FAR) }.frame(None),
            Fragment,
        ),
        ("version", spoil(good.clone(), 14, 0x55), Malformed),
        ("header length", spoil(good.clone(), 14, 0x44), Malformed),
        ("total length beyond the frame", spoil(good.clone(), 17, 0xFF), Malformed),
        ("total length below the header", spoil(good.clone(), 17, 10), Malformed),
        ("header checksum", spoil(good.clone(), 24, !good[24]), Malformed),
        ("udp length too long", v4(HOST, FAR, 17, spoil(udp(1, 2, b""), 5, 9)).frame(None), Malformed),
        ("udp length too short", v4(HOST, FAR, 17, spoil(udp(1, 2, b""), 5, 7)).frame(None), Malformed),
        ("udp header cut", v4(HOST, FAR, 17, vec![0; 7]).frame(None), Malformed),
        ("tcp header cut", v4(HOST, FAR, 47, vec![0; 19]).frame(None), Miss),
        (
            "tcp offset too small",
            v4(HOST, FAR, 6, spoil(tcp(1, 2, 16, b""), 12, 0x40)).frame(None),
            Malformed,
        ),
        (
            "tcp offset too large",
            v4(HOST, FAR, 6, spoil(tcp(1, 2, 16, b""), 12, 0x60)).frame(None),
            Malformed,
        ),
        ("udp over ipv6", six(17, &udp(1, 2, b"")), Miss),
        ("tcp over ipv6", six(6, &tcp(1, 2, 16, b"")), Miss),
        ("no next header", six(59, &[]), Miss),
        ("icmpv6 error", six(58, &icmp(1, 0, &[0; 48])), Icmp),
        ("icmpv6 echo", six(58, &icmp(128, 5, b"")), Miss),
        ("hop by hop", six(0, &[17, 0, 1, 4, 0, 0, 0, 0]), Options),
        ("routing", six(43, &[17, 0, 1, 4, 0, 0, 0, 0]), Options),
        ("destination options", six(60, &[17, 0, 1, 4, 0, 0, 0, 0]), Options),
        ("ipv6 fragment", six(44, &[17, 0, 0, 1, 0, 0, 0, 1]), Fragment),
        ("ipv6 version", spoil(six(59, &[]), 14, 0x40), Malformed),
        ("ipv6 payload length", spoil(six(59, &[]), 19, 1), Malformed),
    ];
    for (name, frame, why) in cases {
        assert_eq!(outcome(&f, &frame), Outcome::Worker(why), "{name}");
    }
}

#[test]
fn cut_anywhere_is_never_an_error() {
    let Some(f) = fixture() else { return };
    let frames = [
        v4(HOST, FAR, 6, tcp(1, 2, 16, b"payload")).frame(None),
        v6_frame(None, &v6("2001:db8:1::10", "2001:db8:9::9", 17, 64, &udp(1, 2, b"payload"))),
    ];
    for frame in frames {
        for n in 14..frame.len() {
            assert_eq!(outcome(&f, &frame[..n]), Outcome::Worker(PuntReason::Malformed), "cut at {n}");
        }
        assert_eq!(outcome(&f, &frame), Outcome::Worker(PuntReason::Miss));
    }
    for n in 14..18 {
        let tagged = udp4(FAR).frame(Some(5));
        assert_eq!(outcome(&f, &tagged[..n]), Outcome::Dropped(DropReason::EthTruncated), "cut at {n}");
    }
}

#[test]
fn devices_and_sub_ports() {
    let Some(f) = fixture() else { return };
    let sub = PortIdx(9);
    let sub_mac = MacAddr([2, 0, 0x5e, 0, 0, 0x50]);
    let vlan = VlanId::new(100).unwrap();
    let entry = PortEntry { port: sub, side: Zone::Overlay.into(), mac: sub_mac, ..port_entry() };
    let tagged = |id| cat(&[&sub_mac.0, &udp4(FAR).frame(Some(id))[6..]]);
    let run = |frame: &[u8]| f.gw.test_run(TestFrame { bytes: frame, ifindex: 0, queue: 0 }).unwrap();

    // The sub-port is there, but the device does not say that it has any.
    f.gw.set_vlan(LO, vlan, &entry).unwrap();
    assert_eq!(outcome(&f, &tagged(100)), Outcome::Kernel);

    f.gw.set_port(LO, &PortEntry { vlans: true, ..port_entry() }).unwrap();
    let r = run(&tagged(100));
    let note = r.note.unwrap();
    assert_eq!((r.action, note.port, note.vlan, note.reason), (XDP_REDIRECT, sub, 100, PuntReason::Miss));
    assert_eq!(r.frame, tagged(100), "the tag stays in the frame");
    // The priority bits are no part of the identifier.
    assert_eq!(run(&tagged(100 | 0xE000)).note.unwrap().vlan, 100);
    let s = f.gw.stats(sub).unwrap();
    assert_eq!((s.rx_packets, s.punted, s.balanced()), (2, 2, true));
    // A tag that nobody claims is the kernel's, counted at the device's port.
    assert_eq!(outcome(&f, &tagged(101)), Outcome::Kernel);

    // Only the sub-port is ours: the rest of the device is invisible.
    f.gw.set_port(LO, &PortEntry { on: false, vlans: true, ..port_entry() }).unwrap();
    let before = f.gw.stats(LAN).unwrap();
    assert_eq!(run(&udp4(FAR).frame(None)).action, XDP_PASS);
    assert_eq!(run(&tagged(101)).action, XDP_PASS);
    assert_eq!(run(&tagged(101)[..16]).action, XDP_PASS);
    assert_eq!(f.gw.stats(LAN).unwrap(), before);
    assert_eq!(run(&tagged(100)).action, XDP_REDIRECT);

    f.gw.clear_vlan(LO, vlan).unwrap();
    assert_eq!(run(&tagged(100)).action, XDP_PASS);
    f.gw.clear_port(LO);
    assert_eq!(run(&udp4(FAR).frame(None)).action, XDP_PASS);
    assert_eq!(f.gw.stats(LAN).unwrap(), before);
    assert_eq!(f.gw.stats(sub).unwrap().rx_packets, 3);
}

/// The kernel takes priority tags off wherever they stand: two tags must not make a frame there that is none here.
#[test]
fn priority_tags_hide_nothing() {
    let Some(f) = fixture() else { return };
    let tagged = |tags: &[(u16, u16)]| {
        let plain = udp4(FAR).frame(None);
        let tags: Vec<u8> =
            tags.iter().flat_map(|t| [t.0.to_be_bytes(), t.1.to_be_bytes()].concat()).collect();
        cat(&[&plain[..12], &tags, &plain[12..]])
    };
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88A8;
    let vlan = VlanId::new(100).unwrap();
    f.gw.set_vlan(LO, vlan, &port_entry()).unwrap();
    f.gw.set_port(LO, &PortEntry { vlans: true, ..port_entry() }).unwrap();
    let hidden = Outcome::Dropped(DropReason::VlanUnknown);
    let both = [[(Q, 0), (Q, 100)], [(AD, 0), (Q, 100)], [(Q, 0), (Q, 0)], [(Q, 0xE000), (AD, 0)]];
    for tags in both.iter().chain(&[[(Q, 100), (Q, 0)], [(Q, 100), (AD, 0)]]) {
        assert_eq!(outcome(&f, &tagged(tags)), hidden, "{tags:x?}");
        assert_eq!(outcome(&f, &tagged(tags)[..20]), hidden, "{tags:x?}, cut");
    }
    // Two VLANs, or one that is no port: the kernel has a device for them, or no use for the frame.
    for tags in [[(Q, 100), (Q, 200)], [(AD, 100), (Q, 100)], [(Q, 101), (Q, 0)]] {
        assert_eq!(outcome(&f, &tagged(&tags)), Outcome::Kernel, "{tags:x?}");
    }
    // The same where untagged frames are no port's: behind a priority tag may be the sub-port's.
    f.gw.set_port(LO, &PortEntry { on: false, vlans: true, ..port_entry() }).unwrap();
    for tags in &both {
        assert_eq!(outcome(&f, &tagged(tags)), hidden, "{tags:x?}");
    }
    let run = f.gw.test_run(TestFrame { bytes: &tagged(&[(Q, 0)]), ifindex: 0, queue: 0 }).unwrap();
    assert_eq!((run.action, run.note), (XDP_PASS, None), "as without the tag");
}

#[test]
fn without_a_worker_the_policy_decides() {
    let Some(f) = fixture() else { return };
    let frame = udp4(FAR).frame(None);
    f.gw.clear_xsk(0, 0).unwrap();
    assert_eq!(outcome(&f, &frame), Outcome::Dropped(DropReason::NoWorker));
    f.gw.control().fail_action.store(2, Relaxed);
    assert_eq!(outcome(&f, &frame), Outcome::Kernel);
    // Nonsense in shared memory is the safe choice.
    f.gw.control().fail_action.store(77, Relaxed);
    assert_eq!(outcome(&f, &frame), Outcome::Dropped(DropReason::NoWorker));
    // Clearing an empty slot is no error.
    f.gw.clear_xsk(0, 0).unwrap();
    assert_eq!(f.gw.stats(LAN).unwrap().punted, 0);
}

/// A message of a DHCP server: what becomes of it is in its kind, the address offered, and the client's Ethernet address.
fn dhcp(ports: (u16, u16), to: [u8; 4], op: u8, yiaddr: [u8; 4], chaddr: MacAddr) -> V4 {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[op, 1, 6, 0]);
    message[16..20].copy_from_slice(&yiaddr);
    message[28..34].copy_from_slice(&chaddr.0);
    v4([192, 168, 1, 254], to, 17, udp(ports.0, ports.1, &message))
}

#[test]
fn dhcp_offers_to_the_box_are_the_kernels_whatever_addresses_it_has() {
    let Some(f) = fixture() else { return };
    const NEW: [u8; 4] = [192, 168, 1, 77];
    let virtual_mac = MacAddr([0, 0, 0x5e, 0, 1, 9]);
    let to = |mac: MacAddr, frame: Vec<u8>| cat(&[&mac.0, &frame[6..]]);
    let offer = |chaddr| dhcp((67, 68), NEW, 2, NEW, chaddr).frame(None);
    for addresses in [vec![], vec![LocalAddr::plain(SELF4.into()), LocalAddr::plain([169, 254, 3, 4].into())]]
    {
        f.gw.replace_local4(&addresses).unwrap();
        assert_eq!(outcome(&f, &offer(GW_MAC)), Outcome::Kernel, "{addresses:?}");
        assert_eq!(outcome(&f, &dhcp((67, 68), NEW, 2, NEW, GW_MAC).frame(Some(0))), Outcome::Kernel);
        // To a macvlan device above the port.
        f.gw.replace_macs(&[(LO, 0, virtual_mac)]).unwrap();
        assert_eq!(outcome(&f, &to(virtual_mac, offer(virtual_mac))), Outcome::Kernel, "{addresses:?}");
        // What passes on its way to others, and what is none, is judged like all traffic.
        let miss = Outcome::Worker(PuntReason::Miss);
        for (what, frame) in [
            ("another client's", offer(HOST_MAC)),
            ("another port's", offer(virtual_mac)),
            ("a request", dhcp((67, 68), NEW, 1, NEW, GW_MAC).frame(None)),
            ("another address", dhcp((67, 68), NEW, 2, SELF4, GW_MAC).frame(None)),
            ("to a relay", dhcp((67, 67), NEW, 2, NEW, GW_MAC).frame(None)),
            ("of a client", dhcp((68, 68), NEW, 2, NEW, GW_MAC).frame(None)),
            ("too short", v4([192, 168, 1, 254], NEW, 17, udp(67, 68, &[2; 20])).frame(None)),
        ] {
            assert_eq!(outcome(&f, &frame), miss, "{what}");
        }
        let options = V4 { options: vec![1, 1, 1, 0], ..dhcp((67, 68), NEW, 2, NEW, GW_MAC) };
        assert_eq!(outcome(&f, &options.frame(None)), Outcome::Worker(PuntReason::Options));
        f.gw.replace_macs(&[]).unwrap();
    }
}

/// Hosts send to a virtual router's own Ethernet address (VRRP): what is not for the machine itself is judged as if it had
/// been sent to the port's.
#[test]
fn macvlan_devices_above_a_port_are_the_port() {
    let Some(f) = fixture() else { return };
    let (mac, other) = (MacAddr([0, 0, 0x5e, 0, 1, 9]), MacAddr([0, 0, 0x5e, 0, 1, 10]));
    let to = |mac: MacAddr, frame: Vec<u8>| cat(&[&mac.0, &frame[6..]]);
    let six = |dst: &str| v6_frame(None, &v6("2001:db8:1::10", dst, 17, 64, &udp(1, 2, b"x")));
    let vlan = VlanId::new(100).unwrap();
    f.gw.set_vlan(LO, vlan, &port_entry()).unwrap();
    f.gw.set_port(LO, &PortEntry { vlans: true, ..port_entry() }).unwrap();
    assert!(f.gw.replace_macs(&[(LO, 0, mac)]).unwrap());
    for frame in [udp4(FAR).frame(None), udp4(FAR).frame(Some(0)), six("2001:db8:9::9")] {
        assert_eq!(outcome(&f, &to(mac, frame.clone())), Outcome::Worker(PuntReason::Miss));
        assert_eq!(outcome(&f, &to(other, frame)), Outcome::Kernel);
    }
    for frame in [udp4(SELF4).frame(None), six("2001:db8:1::1"), cat(&[&eth(None, 0x0806), &[0; 28]])] {
        assert_eq!(outcome(&f, &to(mac, frame)), Outcome::Kernel);
    }
    // One of a VLAN is another device, and a group's address is nobody's own.
    assert_eq!(outcome(&f, &to(mac, udp4(FAR).frame(Some(100)))), Outcome::Kernel);
    assert!(f.gw.replace_macs(&[(LO, 100, mac), (LO, 0, MacAddr([0xFF; 6]))]).unwrap());
    assert_eq!(outcome(&f, &to(mac, udp4(FAR).frame(Some(100)))), Outcome::Worker(PuntReason::Miss));
    assert_eq!(outcome(&f, &to(mac, udp4(FAR).frame(None))), Outcome::Kernel);
    assert_eq!(outcome(&f, &to(MacAddr([0xFF; 6]), udp4(FAR).frame(None))), Outcome::Kernel);
    assert!(!f.gw.replace_macs(&[(LO, 100, mac)]).unwrap(), "nothing was missing");
}

#[test]
fn local_addresses_are_replaced_as_a_set() {
    let Some(f) = fixture() else { return };
    f.gw.replace_local4(&[LocalAddr::plain([10, 0, 0, 1].into()), LocalAddr::plain(SELF4.into())]).unwrap();
    assert_eq!(outcome(&f, &udp4([10, 0, 0, 1]).frame(None)), Outcome::Kernel);
    assert_eq!(outcome(&f, &udp4(SELF4).frame(None)), Outcome::Kernel);
    assert_eq!(outcome(&f, &udp4([192, 168, 1, 255]).frame(None)), Outcome::Worker(PuntReason::Miss));
    f.gw.set_local4(SELF4.into(), false).unwrap();
    f.gw.set_local4(SELF4.into(), false).unwrap();
    assert_eq!(outcome(&f, &udp4(SELF4).frame(None)), Outcome::Worker(PuntReason::Miss));
    f.gw.replace_local6(&[(VrfNo::DEFAULT, "2001:db8:9::9".parse().unwrap())], &[]).unwrap();
    let to = |dst| v6_frame(None, &v6("2001:db8:1::10", dst, 17, 64, &udp(1, 2, b"")));
    assert_eq!(outcome(&f, &to("2001:db8:9::9")), Outcome::Kernel);
    assert_eq!(outcome(&f, &to("2001:db8:1::1")), Outcome::Worker(PuntReason::Miss));
}

/// Whatever becomes of the parts of a packet that XDP does not read: only what is addressed to this box in the VRF of the
/// packet is the kernel's.
#[test]
fn addresses_of_another_vrf_are_not_the_kernels() {
    let Some(f) = fixture() else { return };
    let frames = || {
        let spoil = |mut frame: Vec<u8>| {
            frame[24] ^= 1;
            frame
        };
        let six =
            |next, payload: &[u8]| v6_frame(None, &v6("2001:db8:1::10", "2001:db8:1::1", next, 64, payload));
        [
            ("whole", udp4(SELF4).frame(None)),
            ("first fragment", V4 { frag: 0x2000, ..udp4(SELF4) }.frame(None)),
            ("later fragment", V4 { frag: 5, ..udp4(SELF4) }.frame(None)),
            ("bad checksum", spoil(udp4(SELF4).frame(None))),
            ("options", V4 { options: vec![1, 1, 1, 0], ..udp4(SELF4) }.frame(None)),
            ("icmp error", v4(HOST, SELF4, 1, icmp(3, 0, &[0; 28])).frame(None)),
            ("ipv6, whole", six(17, &udp(1, 2, b"x"))),
            ("ipv6, fragment", six(44, &[17, 0, 0, 1, 0, 0, 0, 1])),
            ("ipv6, extension", six(60, &[17, 0, 1, 4, 0, 0, 0, 0])),
            ("ipv6, icmp error", six(58, &icmp(1, 0, &[0; 48]))),
        ]
    };
    let own6 = "2001:db8:1::1".parse().unwrap();
    for port_vrf in [VrfNo::DEFAULT, VrfNo::new(5).unwrap()] {
        f.gw.set_port(LO, &PortEntry { side: VrfZone::new(Zone::Lan, port_vrf), ..port_entry() }).unwrap();
        for own_vrf in [VrfNo::DEFAULT, VrfNo::new(5).unwrap()] {
            f.gw.replace_local4(&[LocalAddr { vrf: own_vrf, ..LocalAddr::plain(SELF4.into()) }]).unwrap();
            f.gw.replace_local6(&[(own_vrf, own6)], &[]).unwrap();
            for (name, frame) in frames() {
                let kernels = outcome(&f, &frame) == Outcome::Kernel;
                assert_eq!(kernels, port_vrf == own_vrf, "{name} from {port_vrf:?} to one of {own_vrf:?}");
            }
        }
    }
}
