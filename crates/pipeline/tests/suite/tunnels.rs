//! Tunnels: in, out, and what may go wrong with either.

use proptest::prelude::*;
use sag_model::DropReason;
use sag_model::config::{FragmentAt, OuterDf, OuterDscp, ReversePath};
use sag_model::tunnel::TUNNEL_WORKER;
use sag_packet::encap::Encap;
use sag_packet::parse::{self, Family, Fragment, NetworkLayer};
use sag_packet::proto::*;
use sag_pipeline::nat::Behavior;
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::*;
use std::net::IpAddr;

const LOCAL: [&str; 2] = [TUNNEL_ENDS[0].0, TUNNEL_ENDS[1].0];

const GRE_PLAIN: Encap = Encap::Gre { key: None, checksum: false, sequence: false };
const GRE_FULL: Encap = Encap::Gre { key: Some(7), checksum: true, sequence: true };

/// Every kind over both families.
fn kinds() -> Vec<(Encap, usize)> {
    let all = [vxlan(100), GRE_PLAIN, GRE_FULL, Encap::Ipip];
    all.into_iter().flat_map(|e| [(e, 0), (e, 1)]).collect()
}

fn tunnel(encap: Encap, outer: usize) -> Tunnel {
    test_tunnel(1, encap, [Family::V4, Family::V6][outer])
}

/// A branch with the tunnel.
fn rig(t: Tunnel) -> Rig {
    let mut net = Net::branch();
    net.tunnel(t);
    Rig::new(net)
}

fn parsed(frame: &[u8]) -> parse::Parsed {
    let (_, ethertype, l3) = parse::link(frame).unwrap();
    match parse::parse(frame, ethertype, l3) {
        Ok(NetworkLayer::Ip(p)) => p,
        other => panic!("{other:?}"),
    }
}

/// From the LAN into the tunnel.
fn outward(v6: bool, data: usize) -> Pkt {
    match v6 {
        false => Pkt::udp("192.168.1.10", "10.30.0.1", 1000, 2000).payload(data),
        true => Pkt::udp("2001:db8:1::10", "2001:db8:30::1", 1000, 2000).payload(data),
    }
}

fn inward(t: &Tunnel, inner: &[u8], tos: u8) -> Vec<u8> {
    frame_from_peer(t, inner, tos, true)
}

/// An answer to what [`outward`] sends.
fn reply(v6: bool) -> Vec<u8> {
    let p = match v6 {
        false => Pkt::udp("10.30.0.1", "192.168.1.10", 2000, 1000),
        true => Pkt::udp("2001:db8:30::1", "2001:db8:1::10", 2000, 1000),
    };
    p.payload(6).ip()
}

#[test]
fn there_and_back_through_every_kind() {
    for (encap, outer) in kinds() {
        for v6 in [false, true] {
            let t = tunnel(encap, outer);
            let mut rig = rig(t.clone());
            for n in 0..3 {
                let mut want = outward(v6, 100).ip();
                let out = rig.send(&outward(v6, 100));
                let Outcome::Tx(port, frame) = &out else { panic!("{encap:?} over {outer}: {out:?}") };
                assert_eq!(*port, WAN);
                let p = parsed(frame);
                assert_eq!((p.src(frame), p.dst(frame), p.ttl), (t.local, t.remote, 64));
                assert_eq!(usize::from(p.ip_len), want.len() + usize::from(t.overhead()));
                let inner = &p.ip(frame)[usize::from(t.overhead())..];
                // One hop less, and the header's sum with it.
                let at = if v6 { 7 } else { 8 };
                want[at] -= 1;
                if !v6 {
                    want[10..12].copy_from_slice(&inner[10..12]);
                }
                assert_eq!(inner, want, "packet {n} of {encap:?}");
                let back = rig.frame(DEV_WAN, &inward(&t, &reply(v6), 0));
                let Outcome::Tx(port, frame) = &back else { panic!("{encap:?} over {outer}: {back:?}") };
                assert_eq!(*port, LAN);
                let p = parsed(frame);
                assert_eq!(p.ip(frame)[20..], reply(v6)[20..]);
                assert_eq!(p.ttl, 63);
            }
            assert_eq!(rig.sessions(), if v6 { (0, 1) } else { (1, 0) }, "both ways are one session");
            let c = rig.pipe.counters.tunnel(sag_testkit::tunnel_no(1));
            assert_eq!((c.tx_packets.get(), c.rx_packets.get(), c.drops.get()), (3, 3, 0));
        }
    }
}

#[test]
fn who_is_not_the_peer_is_the_kernels() {
    let t = tunnel(vxlan(100), 0);
    let mut rig = rig(t.clone());
    let mut stranger = inward(&t, &reply(false), 0);
    stranger[29] ^= 1;
    let sum = checksum(&[&{
        let mut h = stranger[14..34].to_vec();
        h[10..12].fill(0);
        h
    }]);
    stranger[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(rig.frame(DEV_WAN, &stranger), Outcome::Kernel);
    let [mac, remote_mac] = TUNNEL_MACS;
    let other_port = tunnel(Encap::Vxlan { vni: 100, port: 8472, mac, remote_mac }, 0);
    let other_port = inward(&other_port, &reply(false), 0);
    assert_eq!(rig.frame(DEV_WAN, &other_port), Outcome::Kernel);
}

#[test]
fn what_is_wrong_is_named() {
    use DropReason::*;
    let t = tunnel(vxlan(100), 0);
    let mut r = rig(t.clone());
    let good = inward(&t, &reply(false), 0);
    assert_eq!(
        r.frame(DEV_WAN, &inward(&tunnel(vxlan(101), 0), &reply(false), 0)),
        Outcome::Drop(TunnelUnknown)
    );
    let broken = |at: usize, to: u8| {
        let mut f = good.clone();
        f[at] = to;
        f
    };
    let vx = 14 + 20 + 8;
    assert_eq!(r.frame(DEV_WAN, &broken(vx, 0)), Outcome::Drop(TunnelBadHeader), "no valid VNI");
    assert_eq!(r.frame(DEV_WAN, &broken(vx + 8 + 5, 9)), Outcome::Drop(TunnelBadHeader), "another's MAC");
    assert_eq!(
        r.frame(DEV_WAN, &broken(vx + 8 + 12, 0x81)),
        Outcome::Drop(TunnelBadHeader),
        "neither IP nor ARP"
    );
    assert_eq!(r.frame(DEV_WAN, &broken(vx + 22, 0x55)), Outcome::Drop(Ip4BadVersion), "inside");
    assert_eq!(r.frame(DEV_WAN, &inward(&t, &reply(false), 3)), Outcome::Drop(TunnelEcn));
    assert_eq!(r.pipe.counters.tunnel(sag_testkit::tunnel_no(1)).drops.get(), 2, "those of a known tunnel");

    let t = tunnel(GRE_FULL, 0);
    let mut r = rig(t.clone());
    let other_key = Encap::Gre { key: Some(8), checksum: false, sequence: false };
    assert_eq!(
        r.frame(DEV_WAN, &inward(&tunnel(other_key, 0), &reply(false), 0)),
        Outcome::Drop(TunnelUnknown)
    );
    assert_eq!(
        r.frame(DEV_WAN, &inward(&tunnel(GRE_PLAIN, 0), &reply(false), 0)),
        Outcome::Drop(TunnelUnknown)
    );
    let mut f = inward(&t, &reply(false), 0);
    *f.last_mut().unwrap() ^= 1;
    assert_eq!(r.frame(DEV_WAN, &f), Outcome::Drop(TunnelBadHeader), "checksum");
    t.state.set_up(false);
    assert_eq!(r.send(&outward(false, 10)), Outcome::Drop(TunnelDown));
}

#[test]
fn congestion_and_code_points() {
    let tos_of = |o: &Outcome| parsed(o.frame()).tos;
    let marked = |tos: u8| {
        let mut inner = reply(false);
        inner[1] = tos;
        inner[10..12].fill(0);
        let sum = checksum(&[&inner[..20]]);
        inner[10..12].copy_from_slice(&sum.to_be_bytes());
        inner
    };
    let t = tunnel(Encap::Ipip, 0);
    let mut r = rig(t.clone());
    assert_eq!(tos_of(&r.send(&outward(false, 10).tos(0xB9))), 0xB9, "copied in");
    assert_eq!(
        tos_of(&r.frame(DEV_WAN, &inward(&t, &marked(0x2A), 0xB8 | 3))),
        0x28 | 3,
        "marked, class kept"
    );
    assert_eq!(tos_of(&r.frame(DEV_WAN, &inward(&t, &marked(0x2A), 0xB8 | 1))), 0x28 | 1);
    let uniform = Tunnel { dscp: OuterDscp::Uniform, ..t.clone() };
    let mut r = rig(uniform);
    assert_eq!(tos_of(&r.frame(DEV_WAN, &inward(&t, &marked(0x2A), 0xB8 | 2))), 0xB8 | 2);
    let fixed = Tunnel { dscp: OuterDscp::Fixed(46), ..t.clone() };
    let mut r = rig(fixed);
    assert_eq!(tos_of(&r.send(&outward(false, 10).tos(0x29))), 46 << 2 | 1);
}

#[test]
fn too_big_is_told_or_split() {
    for v6 in [false, true] {
        let t = tunnel(vxlan(100), 0);
        let mut r = rig(t.clone());
        let room = 1500 - 50 - if v6 { 48 } else { 28 };
        assert!(r.send(&outward(v6, room).df()).is_tx(), "it fits exactly");
        assert_eq!(r.send(&outward(v6, room + 1).df()), Outcome::Drop(DropReason::MtuExceeded));
        let [(port, told)] = &r.emitted()[..] else { panic!("one error") };
        assert_eq!(*port, LAN);
        let icmp = &parsed(told).ip(told)[if v6 { 40 } else { 20 }..];
        let mtu = u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]);
        assert_eq!((icmp[0], mtu), (if v6 { 2 } else { 3 }, 1450));
    }
    let t = tunnel(vxlan(100), 0);
    let mut r = rig(t.clone());
    assert_eq!(r.send(&outward(false, 1472)), Outcome::Emitted);
    let pieces = r.emitted();
    assert_eq!(pieces.len(), 2);
    for (_, piece) in &pieces {
        let p = parsed(piece);
        assert!(p.ip_len <= 1500 && p.dont_fragment && p.fragment == Fragment::Whole, "split inside");
    }
}

#[test]
fn a_narrow_path_is_learned_and_carries_all_of_ipv6() {
    for outer in [0, 1] {
        let t = tunnel(GRE_PLAIN, outer);
        let mut r = rig(t.clone());
        let out = r.send(&outward(false, 1300).df());
        // A router on the way says that it was too big.
        let quote = parsed(out.frame()).ip(out.frame()).to_vec();
        let (router, kind, code) = [("203.0.113.1", 3, 4), ("2001:db8:2::1", 2, 0)][outer];
        let error =
            |quote: &[u8]| Pkt::icmp(router, LOCAL[outer], kind, code, 1290, &quote[..128]).into_port(WAN);
        let mut stranger = quote.clone();
        stranger[if outer == 0 { 19 } else { 39 }] ^= 1;
        assert_eq!(r.send(&error(&stranger)), Outcome::Kernel);
        assert_eq!(t.state.path_mtu(), 1500, "about a packet that nobody sent");
        assert_eq!(r.send(&error(&quote)), Outcome::Kernel);
        assert_eq!(t.state.path_mtu(), 1290, "over {outer}");
        assert_eq!(r.send(&outward(false, 1300).df()), Outcome::Drop(DropReason::MtuExceeded));
        r.emitted();
        // 1280 bytes of IPv6 are never too big: the outer packet is split, and put together again.
        let v6 = outward(true, 1280 - 48);
        assert_eq!(r.send(&v6), Outcome::Emitted);
        let pieces = r.emitted();
        assert_eq!(pieces.len(), 2);
        let mut peer = rig(Tunnel { reverse_path: ReversePath::Off, ..t.clone() });
        let turned: Vec<Vec<u8>> = pieces.iter().map(|(_, f)| turn(f)).collect();
        assert_eq!(peer.frame(DEV_WAN, &turned[1]), Outcome::Held, "later ones may come first");
        assert_eq!(peer.frame(DEV_WAN, &turned[0]), Outcome::Emitted, "whole, and on by the same tunnel");
        assert_eq!(peer.pipe.counters.tunnel(sag_testkit::tunnel_no(1)).rx_packets.get(), 1);
        assert_eq!(peer.frame(DEV_WAN, &turned[0]), Outcome::Held);
        peer.wait(std::time::Duration::from_secs(3));
        assert_eq!(peer.drops(WAN, DropReason::FragmentNoFirst), 1, "its rest did not come");
    }
}

/// What is sent to the peer, as if the peer had sent it.
fn turn(frame: &[u8]) -> Vec<u8> {
    let mut f = frame.to_vec();
    let (n, at) = if f[14] >> 4 == 4 { (4, 26) } else { (16, 22) };
    let (src, dst) = (f[at..at + n].to_vec(), f[at + n..at + 2 * n].to_vec());
    f[at..at + n].copy_from_slice(&dst);
    f[at + n..at + 2 * n].copy_from_slice(&src);
    f[..6].copy_from_slice(&GATEWAY_MACS[WAN.index()].0);
    f
}

#[test]
fn the_gateway_answers_inside() {
    let t = tunnel(vxlan(100), 0);
    let mut r = rig(t.clone());
    let ping = |to: &str| Pkt::echo("10.30.0.1", to, 7, false).ip();
    for own in ["10.255.0.1", "192.168.1.1"] {
        assert_eq!(r.frame(DEV_WAN, &inward(&t, &ping(own), 0)), Outcome::Emitted);
        let [(WAN, out)] = &r.emitted()[..] else { panic!("an answer through the tunnel") };
        let inner = &parsed(out).ip(out)[50..];
        assert_eq!(
            (inner[20], &inner[12..16]),
            (0, &own.parse::<std::net::Ipv4Addr>().unwrap().octets()[..])
        );
    }
    let ssh = Pkt::tcp("10.30.0.1", "192.168.1.1", 1, 22, TCP_SYN).ip();
    assert_eq!(r.frame(DEV_WAN, &inward(&t, &ssh, 0)), Outcome::Drop(DropReason::TunnelLocal));
    // An ARP request for the address inside.
    let mut arp = inward(&t, &[0x45; 28], 0);
    let eth = 14 + 20 + 16;
    arp[eth..eth + 6].fill(0xFF);
    arp[eth + 12..eth + 14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    let body = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0xAA, 2, 10, 255, 0, 2, 0, 0, 0, 0, 0, 0, 10, 255, 0, 1];
    arp[eth + 14..].copy_from_slice(&body);
    assert_eq!(r.frame(DEV_WAN, &arp), Outcome::Emitted);
    let [(WAN, out)] = &r.emitted()[..] else { panic!("an answer") };
    let frame = &parsed(out).ip(out)[36..];
    assert_eq!(frame[..14], [2, 0, 0, 0, 0xAA, 2, 2, 0, 0, 0, 0xAA, 1, 8, 6]);
    assert_eq!(frame[14 + 6..14 + 18], [0, 2, 2, 0, 0, 0, 0xAA, 1, 10, 255, 0, 1]);
}

#[test]
fn a_peer_that_speaks_from_another_address_is_answered_there() {
    let t = Tunnel { learns_mac: true, ..tunnel(vxlan(100), 0) };
    let mut r = rig(t.clone());
    // XDP does not send to another address than workers: not before the peer's is known, and then to that one.
    let record = |r: &Rig| r.snap.tunnel(Some(t.no)).expect("just configured").entry();
    assert_eq!(record(&r).flags & TUNNEL_WORKER, TUNNEL_WORKER);
    let mut f = inward(&t, &reply(false), 0);
    f[14 + 36 + 6..14 + 36 + 12].copy_from_slice(&[2, 7, 7, 7, 7, 7]);
    assert!(r.frame(DEV_WAN, &f).is_tx());
    let out = r.send(&outward(false, 10));
    assert_eq!(out.frame()[14 + 36..14 + 42], [2, 7, 7, 7, 7, 7]);
    let learned = record(&r);
    assert_eq!((learned.flags & TUNNEL_WORKER, &learned.header[36..42]), (0, &[2, 7, 7, 7, 7, 7][..]));
}

#[test]
fn what_waits_for_a_neighbour_has_left_its_tunnel() {
    let t = tunnel(GRE_PLAIN, 1);
    let mut r = rig(t.clone());
    r.change(|n| n.unresolve(LAN, "192.168.1.10"));
    assert_eq!(r.frame(DEV_WAN, &inward(&t, &reply(false), 0)), Outcome::Held);
    r.change(|n| {
        n.neighbor(LAN, "192.168.1.10");
    });
    r.poll();
    let [(LAN, out)] = &r.emitted()[..] else { panic!("sent when the neighbour is there") };
    assert_eq!(parsed(out).dst(out), "192.168.1.10".parse::<IpAddr>().unwrap());
}

#[test]
fn fragments_outside_if_so_configured() {
    let t = Tunnel { fragment: FragmentAt::Outer, df: OuterDf::Clear, ..tunnel(Encap::Ipip, 0) };
    let mut r = rig(t.clone());
    assert_eq!(r.send(&outward(false, 1472).df()), Outcome::Emitted);
    let pieces = r.emitted();
    let [(_, a), (_, b)] = &pieces[..] else { panic!("two pieces") };
    assert!(matches!(parsed(a).fragment, Fragment::First { .. }) && parsed(a).ip_len <= 1500);
    assert!(matches!(parsed(b).fragment, Fragment::Later { .. }));
    assert_eq!(r.send(&outward(false, 1473).df()), Outcome::Drop(DropReason::MtuExceeded));
}

#[test]
fn segments_are_asked_to_fit() {
    let t = tunnel(vxlan(100), 0);
    let mut r = rig(t.clone());
    let syn = |src: &str, dst: &str, flags| {
        let mut p = Pkt::tcp(src, dst, 1, 2, flags);
        p.l4.splice(20..20, [2, 4, 5, 0xB4]);
        p.l4[12] = 0x60;
        p.fix_l4();
        p
    };
    let mss = |f: &[u8]| {
        let p = parsed(f);
        let tcp = &f[usize::from(p.l4_at)..];
        u16::from_be_bytes([tcp[22], tcp[23]])
    };
    let out = r.send(&syn("192.168.1.10", "10.30.0.1", TCP_SYN));
    let inner = &out.frame()[14 + 50..];
    assert_eq!(u16::from_be_bytes([inner[42], inner[43]]), 1410);
    let back = syn("10.30.0.1", "192.168.1.10", TCP_SYN | TCP_ACK).ip();
    let mut back = back;
    back[20..24].copy_from_slice(&[0, 2, 0, 1]);
    let back = r.frame(DEV_WAN, &inward(&t, &back, 0));
    assert_eq!(mss(back.frame()), 1410);
}

/// An IPv6 host calls an IPv4 one behind a tunnel (RFC 6146): what is inside is of IPv4, and sizes are those of the
/// tunnel, 20 bytes more where the packet is of IPv6.
#[test]
fn nat64_goes_through_every_kind() {
    const HOST: &str = "2001:db8:1::10";
    const FAR: &str = "2001:db8:64::a1e:1";
    const OWN: &str = "203.0.113.50";
    for (encap, outer) in kinds() {
        let t = tunnel(encap, outer);
        let mut net = Net::branch();
        net.tunnel(t.clone());
        net.nat64("2001:db8:64::/96", &[OWN], Behavior::AddressDependent);
        let mut r = Rig::new(net);
        let inside = |out: &Outcome| {
            let Outcome::Tx(WAN, frame) = out else { panic!("{encap:?} over {outer}: {out:?}") };
            parsed(frame).ip(frame)[usize::from(t.overhead())..].to_vec()
        };
        let came = |r: &mut Rig, p: &Pkt| match r.frame(DEV_WAN, &inward(&t, &p.ip(), 0)) {
            Outcome::Tx(LAN, frame) => frame,
            other => panic!("{encap:?} over {outer}: {other:?}"),
        };
        // By the slow path, and by the record.
        for n in 0..3 {
            let got = inside(&r.send(&Pkt::udp(HOST, FAR, 1000, 2000).payload(100)));
            let mut want = Pkt::udp(OWN, "10.30.0.1", 1000, 2000).payload(100).ttl(63);
            want.id = u16::from_be_bytes([got[4], got[5]]);
            assert_eq!(got, want.ip(), "{encap:?} over {outer}, packet {n}");
            let frame = came(&mut r, &Pkt::udp("10.30.0.1", OWN, 2000, 1000).payload(60));
            let want = Pkt::udp(FAR, HOST, 2000, 1000).payload(60);
            assert_eq!(frame, want.forwarded(LAN, HOST), "{encap:?} over {outer}, answer {n}");
        }
        let syn = |src: &str, dst: &str, ports: (u16, u16), flags| {
            let mut p = Pkt::tcp(src, dst, ports.0, ports.1, flags);
            p.l4.splice(20..20, [2, 4, 5, 0xB4]);
            p.l4[12] = 0x60;
            p.fix_l4();
            p
        };
        // Of both directions, for a segment and its headers are in the tunnel as IPv4.
        let most = (t.inner_mtu() - 40).min(1460);
        let got = inside(&r.send(&syn(HOST, FAR, (1, 2), TCP_SYN)));
        assert_eq!(u16::from_be_bytes([got[42], got[43]]), most, "{encap:?} over {outer}");
        let answer = syn("10.30.0.1", OWN, (2, 1), TCP_SYN | TCP_ACK);
        let frame = {
            let mut answer = answer;
            answer.l4[8..12].copy_from_slice(&2u32.to_be_bytes());
            answer.fix_l4();
            came(&mut r, &answer)
        };
        let tcp = &frame[usize::from(parsed(&frame).l4_at)..];
        assert_eq!(u16::from_be_bytes([tcp[22], tcp[23]]), most, "{encap:?} over {outer}");
        // One byte too many is the sender's to know.
        let fits = usize::from(t.inner_mtu()) + 20;
        assert!(r.send(&Pkt::udp(HOST, FAR, 1000, 2000).payload(fits - 48)).is_tx());
        assert_eq!(
            r.send(&Pkt::udp(HOST, FAR, 1000, 2000).payload(fits - 47)),
            Outcome::Drop(DropReason::MtuExceeded)
        );
        let (_, error) = r.emitted().pop().expect("an error");
        let icmp = &error[usize::from(parsed(&error).l4_at)..];
        assert_eq!(icmp[0], 2);
        assert_eq!(
            u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]]),
            fits as u32,
            "{encap:?} over {outer}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_comes_every_packet_is_accounted_for(
        kind in 0..8usize, at in 0usize..140, to in any::<u8>(), cut in 0usize..160, v6 in any::<bool>(), tos in any::<u8>(),
    ) {
        let (encap, outer) = kinds()[kind];
        let t = tunnel(encap, outer);
        let mut r = rig(t.clone());
        let mut f = inward(&t, &reply(v6), tos);
        if let Some(b) = f.get_mut(at) {
            *b = to;
        }
        f.truncate(f.len().saturating_sub(cut % 3 * cut));
        // The runner checks the packet accounting after every frame.
        r.frame(DEV_WAN, &f);
    }
}
