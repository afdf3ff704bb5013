//! The machine's own traffic through tunnels whose device the kernel has.

use sag_model::config::{FragmentAt, OuterDf};
use sag_model::{DropReason, PortIdx};
use sag_packet::encap::Encap;
use sag_packet::parse::Family;
use sag_packet::proto::*;
use sag_pipeline::counters::DEVICE_DROPS;
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::*;

const OWN: [&str; 2] = ["10.255.0.1", "fd00::1"];
const FAR: [&str; 2] = ["10.30.0.1", "2001:db8:30::1"];
const LAN_SIDE: [&str; 2] = ["192.168.1.1", "2001:db8:1::1"];

fn tunnel(encap: Encap, outer: Family) -> Tunnel {
    Tunnel { device: true, ..test_tunnel(1, encap, outer) }
}

fn rig(t: Tunnel) -> Rig {
    let mut net = Net::branch();
    net.tunnel(t);
    Rig::new(net)
}

/// Every plain kind over both families.
fn kinds() -> Vec<Tunnel> {
    let gre = Encap::Gre { key: Some(7), checksum: true, sequence: true };
    let all = [vxlan(100), gre, Encap::Ipip];
    all.into_iter().flat_map(|e| [tunnel(e, Family::V4), tunnel(e, Family::V6)]).collect()
}

fn udp(src: &str, dst: &str) -> Pkt {
    Pkt::udp(src, dst, 1000, 2000).payload(64)
}

/// The frame in which the peer sends a packet to the gateway.
fn from_peer(r: &mut Rig, t: &Tunnel, packet: &[u8]) -> Outcome {
    r.frame(DEV_WAN, &frame_from_peer(t, packet, 0, true))
}

#[test]
fn what_is_for_the_machine_goes_to_the_device_and_back() {
    for t in kinds() {
        let mut r = rig(t.clone());
        for v in [0, 1] {
            for own in [OWN[v], LAN_SIDE[v]] {
                for packet in [
                    udp(FAR[v], own).ip(),
                    Pkt::tcp(FAR[v], own, 1, 22, TCP_SYN).ip(),
                    Pkt::echo(FAR[v], own, 7, false).ip(),
                ] {
                    assert_eq!(
                        from_peer(&mut r, &t, &packet),
                        Outcome::Emitted,
                        "{:?} {own}",
                        t.template.encap
                    );
                    assert_eq!(r.to_devices(), [(t.no, packet)]);
                    assert!(r.emitted().is_empty(), "the kernel answers, no worker");
                }
            }
            let answer = udp(OWN[v], FAR[v]).ip();
            assert!(r.from_device(t.no, &answer));
            let [(WAN, out)] = &r.emitted()[..] else { panic!("one packet by the WAN port") };
            assert!(out.ends_with(&answer), "{:?}: it is inside as it was", t.template.encap);
            assert_eq!(out.len(), 14 + usize::from(t.overhead()) + answer.len());
        }
        assert_eq!(r.sessions(), (0, 0), "as of the machine's own traffic by a port");
        let c = r.pipe.counters.tunnel(t.no);
        assert_eq!((c.rx_packets.get(), c.tx_packets.get(), c.drops.get()), (12, 2, 0));
    }
}

/// Routing daemons speak to groups and from link-local addresses.
#[test]
fn what_stays_on_the_link_goes_to_the_device() {
    let t = tunnel(Encap::Ipip, Family::V4);
    let mut r = rig(t.clone());
    for (src, dst) in
        [(FAR[0], "224.0.0.5"), ("fe80::2", "ff02::5"), ("fe80::2", "fe80::1"), ("::", "ff02::16")]
    {
        let packet = Pkt::new(src, dst, 89, vec![2; 44]).ttl(1).ip();
        assert_eq!(from_peer(&mut r, &t, &packet), Outcome::Emitted, "{src} to {dst}");
        assert_eq!(r.to_devices(), [(t.no, packet)]);
    }
}

#[test]
fn sources_that_are_not_behind_the_tunnel_do_not_reach_the_machine() {
    let t = tunnel(Encap::Ipip, Family::V4);
    let mut r = rig(t.clone());
    for (src, own, reason) in [
        ("192.168.1.10", OWN[0], DropReason::ReversePath),
        ("2001:db8:1::10", OWN[1], DropReason::ReversePath),
        ("192.168.1.1", OWN[0], DropReason::SourceIsOurs),
        ("127.0.0.1", OWN[0], DropReason::SourceMartian),
        ("224.0.0.1", OWN[0], DropReason::SourceMartian),
        ("::1", OWN[1], DropReason::SourceMartian),
        ("fe80::77", OWN[1], DropReason::ReversePath),
    ] {
        assert_eq!(from_peer(&mut r, &t, &udp(src, own).ip()), Outcome::Drop(reason), "{src}");
    }
    assert!(r.to_devices().is_empty());
    assert_eq!(r.pipe.counters.tunnel(t.no).drops.get(), 7);
}

/// The machine may be spoken to from where no route leads; nobody else.
#[test]
fn sources_of_the_device_reach_the_machine_alone() {
    let nets = [("192.0.2.0".parse().unwrap(), 24), ("2001:db8:99::".parse().unwrap(), 48)];
    let device_sources = std::sync::Arc::new(sag_pipeline::networks::Networks::new(nets));
    let t = Tunnel { device_sources, ..tunnel(Encap::Ipip, Family::V4) };
    let mut r = rig(t.clone());
    for (src, v, host) in [("192.0.2.7", 0, "192.168.1.10"), ("2001:db8:99::7", 1, "2001:db8:1::10")] {
        let packet = udp(src, OWN[v]).ip();
        assert_eq!(from_peer(&mut r, &t, &packet), Outcome::Emitted, "{src}");
        assert_eq!(r.to_devices(), [(t.no, packet)]);
        assert_eq!(
            from_peer(&mut r, &t, &udp(src, host).ip()),
            Outcome::Drop(DropReason::ReversePath),
            "{src} to the LAN"
        );
    }
    for (src, own) in [("192.168.1.10", OWN[0]), ("192.168.1.1", OWN[0]), ("2001:db8:98::7", OWN[1])] {
        assert!(matches!(from_peer(&mut r, &t, &udp(src, own).ip()), Outcome::Drop(_)), "{src}");
    }
}

#[test]
fn a_peer_does_not_spend_a_worker_on_the_machine() {
    let t = Tunnel { device_rate: 100, ..tunnel(Encap::Ipip, Family::V4) };
    let mut r = rig(t.clone());
    let packet = udp(FAR[0], OWN[0]).ip();
    let sent = (0..50).filter(|_| from_peer(&mut r, &t, &packet) == Outcome::Emitted).count();
    assert_eq!(sent, 11, "a burst of ten and one");
    assert_eq!(r.drops(WAN, DropReason::TunnelLocalRate), 39);
    r.wait(std::time::Duration::from_secs(1));
    assert_eq!(from_peer(&mut r, &t, &packet), Outcome::Emitted);
    // A device that takes nothing, as one that is down.
    r.sent.refuse = true;
    assert_eq!(from_peer(&mut r, &t, &packet), Outcome::Drop(DropReason::NoKernelPath));
}

/// The kernel forwards nothing into the tunnel, past ACL and NAT.
#[test]
fn only_the_machines_own_packets_enter() {
    let t = tunnel(Encap::Ipip, Family::V4);
    let mut r = rig(t.clone());
    let foreign = [
        udp("192.168.1.10", FAR[0]).ip(),
        udp("2001:db8:1::10", FAR[1]).ip(),
        udp("0.0.0.0", FAR[0]).ip(),
        vec![0x45; 3],
        vec![0; 40],
        Vec::new(),
    ];
    for packet in &foreign {
        assert!(!r.from_device(t.no, packet), "{packet:?}");
    }
    assert!(r.emitted().is_empty());
    assert_eq!(r.pipe.counters.tunnel(t.no).drops.get(), 6);
    assert_eq!(dropped(&r, &t), [("tunnel-source", 3), ("malformed", 3)]);
    assert!(r.from_device(t.no, &Pkt::new("::", "ff02::16", 58, vec![143, 0, 0, 0, 0, 0, 0, 0]).ip()));
    assert_eq!(r.emitted().len(), 1, "a membership report");
    assert!(!r.from_device(tunnel_no(2), &udp(OWN[0], FAR[0]).ip()), "no such tunnel");
    t.state.set_up(false);
    assert!(!r.from_device(t.no, &udp(OWN[0], FAR[0]).ip()), "it is down");
    assert_eq!(dropped(&r, &t), [("tunnel-down", 1), ("tunnel-source", 3), ("malformed", 3)]);
}

/// Drops of what the kernel has sent, by reason.
fn dropped(r: &Rig, t: &Tunnel) -> Vec<(&'static str, u64)> {
    let c = &r.pipe.counters.tunnel(t.no).device;
    let named = DEVICE_DROPS.iter().map(|reason| reason.name()).zip(&c.drops);
    let all = named.chain([("malformed", &c.malformed)]).map(|(name, n)| (name, n.get()));
    all.filter(|(_, n)| *n > 0).collect()
}

/// Whatever becomes of a packet of the machine's own is counted once, and named.
#[test]
fn every_packet_by_the_device_is_accounted_for() {
    for v in [0, 1] {
        let t = tunnel(Encap::Ipip, Family::V4);
        let mut r = rig(t.clone());
        let packet = udp(OWN[v], FAR[v]).ip();
        assert!(r.from_device(t.no, &packet));
        assert_eq!(from_peer(&mut r, &t, &udp(FAR[v], OWN[v]).ip()), Outcome::Emitted);
        let c = &r.pipe.counters.tunnel(t.no).device;
        assert_eq!((c.tx_packets.get(), c.rx_packets.get()), (1, 1));
        let long = Pkt::udp(OWN[v], FAR[v], 1, 2).payload(1500).ip();
        assert!(!r.from_device(t.no, &long));
        r.emitted();
        r.sent.refuse = true;
        assert!(!r.from_device(t.no, &packet), "the port takes nothing");
        assert_eq!(dropped(&r, &t), [("mtu-exceeded", 1), ("tx-ring-full", 1)]);
        let c = r.pipe.counters.tunnel(t.no);
        assert_eq!((c.tx_packets.get(), c.drops.get(), c.device.tx_packets.get()), (1, 2, 1));
        assert_eq!(r.pipe.counters.port(WAN).originated.get(), 1);
    }
}

/// The device's MTU is the tunnel's, but never so small that the kernel has no IPv6.
#[test]
fn packets_up_to_the_devices_mtu_pass() {
    let t = tunnel(Encap::Ipip, Family::V4);
    assert_eq!(t.device_mtu(), 1480);
    let small = Tunnel { mtu: Some(576), ..t.clone() };
    assert_eq!(small.device_mtu(), 1280);
    let outer = Tunnel { fragment: FragmentAt::Outer, df: OuterDf::Clear, mtu: Some(9000), ..t.clone() };
    assert_eq!(outer.device_mtu(), sag_pipeline::worker::DEVICE_MAX_MTU);
    for (t, pieces) in [(t, 1), (outer.clone(), 3)] {
        let mut r = rig(t.clone());
        for v in [0, 1] {
            let header = [28, 48][v];
            let fits = Pkt::udp(OWN[v], FAR[v], 1, 2).payload(usize::from(t.device_mtu()) - header).ip();
            assert!(r.from_device(t.no, &fits));
            assert_eq!(r.emitted().len(), pieces);
            let longer = Pkt::udp(OWN[v], FAR[v], 1, 2).payload(usize::from(t.device_mtu()) - header + 1);
            if pieces == 1 {
                assert!(!r.from_device(t.no, &longer.ip()), "the kernel has yet to see the new MTU");
            }
        }
        assert_eq!(r.pipe.counters.port(WAN).originated.get(), 2 * pieces as u64);
    }
}

#[test]
fn hosts_of_the_lan_reach_the_address_inside_by_the_kernel() {
    for (device, expected) in [(true, Outcome::Kernel), (false, Outcome::Emitted)] {
        let t = Tunnel { device, ..tunnel(Encap::Ipip, Family::V4) };
        let mut r = rig(t);
        let ping = Pkt::echo("192.168.1.10", OWN[0], 7, false);
        assert_eq!(r.send(&ping), expected, "device: {device}");
        let known = r.snap.kernel_addresses().any(|(_, a)| a.to_string() == OWN[0]);
        assert_eq!(known, device, "XDP leaves it to the kernel");
    }
}

#[test]
fn a_router_that_is_not_resolved_is_asked_for() {
    let t = tunnel(Encap::Ipip, Family::V4);
    let mut r = rig(t.clone());
    r.change(|net| net.unresolve(WAN, "203.0.113.1"));
    assert!(!r.from_device(t.no, &udp(OWN[0], FAR[0]).ip()));
    let asked: Vec<(PortIdx, _)> = r.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
}
