//! Checksums that a sender has left to an offload: whatever becomes of the packet, it becomes of it with the right one.

use sag_packet::encap::Encap;
use sag_packet::parse::Family;
use sag_packet::proto::*;
use sag_packet::{checksum, parse};
use sag_pipeline::nat::Behavior;
use sag_testkit::*;

/// The packet with the sum of its pseudo header in place of the checksum.
fn partial(mut frame: Vec<u8>) -> Vec<u8> {
    let (_, ethertype, l3) = parse::link(&frame).unwrap();
    let Ok(parse::NetworkLayer::Ip(p)) = parse::parse(&frame, ethertype, l3) else { panic!("not IP") };
    let (l4, len) = (usize::from(p.l4_at), usize::from(p.ip_len) - (usize::from(p.l4_at) - l3));
    let addrs = match p.family {
        Family::V4 => l3 + 12..l3 + 20,
        Family::V6 => l3 + 8..l3 + 40,
    };
    let sum = checksum::fold(checksum::pseudo(&frame[addrs], p.proto, len));
    let at = l4 + if p.proto == TCP { 16 } else { 6 };
    frame[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    frame
}

/// Both frames have the same outcome, of a new flow and of an established one.
#[track_caller]
fn same(rigs: &mut [Rig; 2], dev: u8, whole: &[u8], partial: &[u8]) {
    assert_ne!(whole, partial);
    for way in ["first", "second"] {
        let right = rigs[0].frame(dev, whole);
        assert!(matches!(right, Outcome::Tx(..)), "{way}: {right:?}");
        assert_eq!(rigs[1].frame(dev, partial), right, "{way}");
        assert_eq!([0, 1].map(|i| rigs[i].pipe.take_partial_checksums()), [false, true]);
    }
}

fn packets(a: &str, b: &str) -> [Pkt; 3] {
    [Pkt::tcp(a, b, 5000, 80, TCP_SYN), Pkt::tcp(a, b, 5001, 80, TCP_ACK), Pkt::udp(a, b, 5000, 53)]
}

#[test]
fn completed_when_forwarded() {
    let mut rigs = [Rig::branch(), Rig::branch()];
    for (a, b) in [("192.168.1.10", "198.51.100.7"), ("2001:db8:1::10", "2001:db8:99::7")] {
        for p in packets(a, b) {
            same(&mut rigs, DEV_LAN, &p.build(), &partial(p.build()));
            let p = Pkt { pad: 9, ..p };
            same(&mut rigs, DEV_LAN, &p.build(), &partial(p.build()));
        }
    }
    let port = rigs[1].pipe.counters.port(LAN);
    assert_eq!(port.partial_checksums.get(), 2 * 2 * 3 * 2);
    assert_eq!(rigs[0].pipe.counters.port(LAN).partial_checksums.get(), 0);
}

#[test]
fn completed_when_translated() {
    let rig = || {
        let mut net = Net::branch();
        let ei = Behavior::EndpointIndependent;
        net.wan_snat(WAN, ei, ei);
        Rig::new(net)
    };
    let mut rigs = [rig(), rig()];
    rigs.iter_mut().for_each(|r| r.pipe.seed(7));
    for p in packets("192.168.1.10", "198.51.100.7") {
        same(&mut rigs, DEV_LAN, &p.build(), &partial(p.build()));
    }
    // The way back, to the outside address and port.
    let p = Pkt::udp("198.51.100.7", "203.0.113.2", 53, 5000).into_port(WAN);
    same(&mut rigs, DEV_WAN, &p.build(), &partial(p.build()));
}

#[test]
fn completed_inside_tunnels() {
    for (encap, family) in [
        (vxlan(100), Family::V4),
        (vxlan(100), Family::V6),
        (Encap::Gre { key: None, checksum: false, sequence: false }, Family::V4),
        (Encap::Ipip, Family::V6),
    ] {
        let t = test_tunnel(1, encap, family);
        let rig = || {
            let mut net = Net::branch();
            net.tunnel(t.clone());
            Rig::new(net)
        };
        let mut rigs = [rig(), rig()];
        for (near, far) in [("192.168.1.10", "10.30.0.1"), ("2001:db8:1::10", "2001:db8:30::1")] {
            for p in packets(near, far) {
                same(&mut rigs, DEV_LAN, &p.build(), &partial(p.build()));
            }
            for p in packets(far, near) {
                let inside = |frame: Vec<u8>| frame_from_peer(&t, &frame[ETH_LEN..], 0, true);
                same(&mut rigs, DEV_WAN, &inside(p.build()), &inside(partial(p.build())));
            }
        }
    }
}
