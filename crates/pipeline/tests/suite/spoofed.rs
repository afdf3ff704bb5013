//! Forged sources: packets from where their source does not live, and what quotes or copies a session of somebody else.

use sag_model::config::ReversePath;
use sag_model::{DropReason, MacAddr, PortIdx, Zone};
use sag_packet::Family;
use sag_packet::encap::Encap;
use sag_packet::proto::*;
use sag_pipeline::nat::Behavior;
use sag_pipeline::networks::Networks;
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::{Tunnel, TunnelState};
use sag_testkit::*;
use std::sync::Arc;
use std::time::Duration;

const SPOOFED: Outcome = Outcome::Drop(DropReason::ReversePath);

/// A host of the LAN, one of the second LAN, one behind the leased line, and one on the Internet.
const HOSTS: [[&str; 4]; 2] = [
    ["192.168.1.10", "192.168.2.10", "10.20.0.7", "198.51.100.7"],
    ["2001:db8:1::10", "2001:db8:4::10", "2001:db8:20::7", "2001:db8:99::7"],
];

/// In both families.
fn each_family(mut check: impl FnMut([&'static str; 4])) {
    HOSTS.into_iter().for_each(&mut check);
}

fn udp(src: &str, dst: &str) -> Pkt {
    Pkt::udp(src, dst, 1000, 2000)
}

#[test]
fn sources_come_in_where_the_routes_to_them_lead() {
    each_family(|[near, other, far, internet]| {
        let mut rig = Rig::branch();
        // From where they live.
        for (src, dst, port) in
            [(near, internet, LAN), (other, internet, LAN2), (far, near, LINE), (internet, near, WAN)]
        {
            assert!(rig.send(&udp(src, dst).into_port(port)).is_tx(), "{src} by port {}", port.0);
        }
        // From anywhere else: the LAN's out of the Internet, all the world's out of the LAN.
        let lies = [
            (near, internet, LAN2),
            (near, far, WAN),
            (near, internet, LINE),
            (other, near, LAN),
            (other, near, WAN),
            (far, internet, LAN),
            (far, near, WAN),
            (internet, far, LAN),
            (internet, near, LINE),
        ];
        for (src, dst, port) in lies {
            let before = (rig.sessions(), rig.drops(port, DropReason::ReversePath));
            for _ in 0..3 {
                let p = Pkt::udp(src, dst, 3000, 4000).into_port(port);
                assert_eq!(rig.send(&p), SPOOFED, "{src} by port {}", port.0);
            }
            let after = (rig.sessions(), rig.drops(port, DropReason::ReversePath));
            assert_eq!(after, (before.0, before.1 + 3), "no session, and counted");
        }
        assert!(rig.emitted().is_empty(), "nobody is told");
    });
}

/// A record is of one direction of a session and of the port for which it was checked.
#[test]
fn a_session_admits_nobody_else() {
    each_family(|[near, _, _, internet]| {
        let mut rig = Rig::branch();
        let (there, back) = (udp(near, internet), Pkt::udp(internet, near, 2000, 1000).into_port(WAN));
        for _ in 0..2 {
            assert!(rig.send(&there).is_tx() && rig.send(&back).is_tx());
        }
        let sessions = rig.sessions();
        for _ in 0..3 {
            assert_eq!(rig.send(&there.clone().into_port(LAN2)), SPOOFED, "the same five-tuple, next door");
            assert!(rig.send(&there).is_tx(), "and the session goes on");
            assert_eq!(rig.send(&back.clone().into_port(LAN)), SPOOFED);
            assert!(rig.send(&back).is_tx());
        }
        assert_eq!(rig.sessions(), sessions);
    });
}

/// Line of the leased lines' kind, over which answers come back although requests went by another.
#[test]
fn answers_may_come_back_by_another_line_of_the_same_kind() {
    each_family(|[near, _, _, internet]| {
        let mut net = Net::branch();
        let mac = GATEWAY_MACS[WAN.index()];
        let wan2 = net.port("wan2", Zone::Wan, 7, 0, &["203.0.114.2/24", "2001:db8:5::2/64"]);
        net.ports[wan2.index()].mac = mac;
        let mut rig = Rig::new(net);
        let back = Pkt::udp(internet, near, 2000, 1000).into_port(WAN);
        assert!(rig.send(&udp(near, internet)).is_tx());
        for _ in 0..2 {
            assert!(rig.frame(7, &back.build()).is_tx(), "feasible");
            assert!(rig.send(&back).is_tx());
        }
        rig.commit(|n| n.ports[wan2.index()].reverse_path = ReversePath::Strict);
        assert_eq!(rig.frame(7, &back.build()), SPOOFED, "strict");
        // A route that is not in use is a way all the same, if it is asked for.
        let default = if near.contains(':') { "::/0" } else { "0.0.0.0/0" };
        let unused = |n: &mut Net| n.unused.push((prefix(default), vec![Member::port(wan2, None, 1)]));
        rig.commit(unused);
        assert_eq!(rig.frame(7, &back.build()), SPOOFED, "strict");
        for mode in [ReversePath::Feasible, ReversePath::Loose, ReversePath::Off] {
            rig.commit(|n| n.ports[wan2.index()].reverse_path = mode);
            assert!(rig.frame(7, &back.build()).is_tx(), "{mode}");
        }
    });
}

#[test]
fn the_modes_differ_in_what_they_admit() {
    each_family(|[near, other, far, internet]| {
        let at = |mode: ReversePath| {
            let mut net = Net::branch();
            net.ports[LAN.index()].reverse_path = mode;
            // Nobody has these.
            for (to, route) in
                [("203.0.113.128/25", Route::Blackhole), ("2001:db8:bad::/48", Route::Blackhole)]
            {
                net.route(to, route);
            }
            Rig::new(net)
        };
        let bad = if near.contains(':') { "2001:db8:bad::1" } else { "203.0.113.200" };
        use ReversePath::*;
        let table = [
            (Strict, [true, false, false, false, false]),
            (Feasible, [true, true, false, false, false]),
            (Loose, [true, true, true, true, false]),
            (Off, [true, true, true, true, true]),
        ];
        for (mode, admits) in table {
            for (src, admit) in [near, other, far, internet, bad].into_iter().zip(admits) {
                let dst = if src == far { other } else { far };
                let out = at(mode).send(&udp(src, dst));
                assert_eq!(out.is_tx(), admit, "{mode}: {src}: {out:?}");
            }
        }
    });
}

/// Without a default route there are sources to which no route leads.
#[test]
fn a_source_without_a_route_is_none() {
    each_family(|[near, _, far, internet]| {
        let mut net = Net::branch();
        net.routes.retain(|((_, len), _)| *len != 0);
        let mut rig = Rig::new(net);
        assert_eq!(rig.send(&udp(internet, near).into_port(WAN)), SPOOFED);
        rig.commit(|n| n.ports[WAN.index()].reverse_path = ReversePath::Loose);
        assert_eq!(rig.send(&udp(internet, near).into_port(WAN)), SPOOFED);
        assert!(rig.send(&udp(far, near).into_port(LINE)).is_tx());
    });
}

/// A route has moved to another port, and with it the source of running flows.
#[test]
fn flows_are_checked_again_after_a_change() {
    each_family(|[near, other, _, internet]| {
        let mut rig = Rig::branch();
        let there = udp(near, internet);
        for _ in 0..2 {
            assert!(rig.send(&there).is_tx());
        }
        let checks = rig.snap.source_checks;
        let net = if near.contains(':') { "2001:db8:1::/64" } else { "192.168.1.0/24" };
        let old = rig.net.routes.clone();
        rig.commit(|n| {
            n.via(net, LAN2, other);
        });
        assert_ne!(rig.snap.source_checks, checks, "which is how the daemon knows");
        for _ in 0..3 {
            assert_eq!(rig.send(&there), SPOOFED);
        }
        for _ in 0..3 {
            assert!(rig.send(&there.clone().into_port(LAN2)).is_tx(), "the session has moved");
            assert_eq!(rig.send(&there), SPOOFED);
        }
        rig.commit(|n| n.routes = old);
        assert_eq!(rig.snap.source_checks, checks);
        for _ in 0..3 {
            assert!(rig.send(&there).is_tx());
            assert_eq!(rig.send(&there.clone().into_port(LAN2)), SPOOFED);
        }
        assert_eq!(rig.sessions().0 + rig.sessions().1, 1);
    });
}

/// What comes and goes among the routes of the Internet revalidates nothing.
#[test]
fn routes_of_the_internet_change_no_checks() {
    let mut rig = Rig::branch();
    let checks = rig.snap.source_checks;
    rig.change(|n| {
        n.via("198.51.100.0/24", WAN, "203.0.113.1").via("2001:db8:99::/48", WAN, "2001:db8:2::1");
    });
    assert_eq!(rig.snap.source_checks, checks);
    rig.change(|n| {
        n.via("198.51.100.0/24", LINE, "192.0.2.1");
    });
    assert_ne!(rig.snap.source_checks, checks);
}

#[test]
fn martians_stay_out_whatever_the_mode() {
    let mut net = Net::branch();
    for p in &mut net.ports {
        p.reverse_path = ReversePath::Off;
    }
    let mut rig = Rig::new(net);
    let [[_, _, far4, _], [_, _, far6, _]] = HOSTS;
    for src in ["0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"] {
        assert_eq!(rig.send(&udp(src, far4)), Outcome::Drop(DropReason::SourceMartian), "{src}");
    }
    for src in ["::", "::1", "ff02::1", "::ffff:192.168.1.10"] {
        assert_eq!(rig.send(&udp(src, far6)), Outcome::Drop(DropReason::SourceMartian), "{src}");
    }
    for (src, dst) in
        [("192.168.1.10", "0.1.2.3"), ("192.168.1.10", "127.0.0.1"), ("192.168.1.10", "250.0.0.1")]
    {
        assert_eq!(rig.send(&udp(src, dst)), Outcome::Drop(DropReason::DestMartian), "{dst}");
    }
    for dst in ["::", "::1", "::ffff:198.51.100.7"] {
        assert_eq!(rig.send(&udp("2001:db8:1::10", dst)), Outcome::Drop(DropReason::DestMartian), "{dst}");
    }
    // A broadcast of the LAN's.
    assert_eq!(rig.send(&udp("192.168.1.255", far4)), Outcome::Drop(DropReason::SourceIsOurs));
    // What a host without an address says, and neighbours among themselves, is the kernel's.
    assert_eq!(rig.send(&Pkt::udp("0.0.0.0", "255.255.255.255", 68, 67)), Outcome::Kernel);
    assert_eq!(rig.send(&udp("fe80::10", "fe80::1")), Outcome::Kernel);
    assert_eq!(rig.send(&udp("192.168.1.10", "224.0.0.5")), Outcome::Kernel);
}

#[test]
fn redirects_do_not_cross_the_gateway() {
    let mut rig = Rig::branch();
    let quoted = udp("192.168.1.10", "198.51.100.7").ip();
    assert!(rig.send(&udp("192.168.1.10", "198.51.100.7")).is_tx());
    for code in 0..4 {
        let p = Pkt::icmp("198.51.100.1", "192.168.1.10", 5, code, 0xC0A8_0166, &quoted).into_port(WAN);
        assert_eq!(rig.send(&p), Outcome::Drop(DropReason::IcmpRedirect));
    }
}

/// Every kind of tunnel whose packets prove nothing, over both families.
fn tunnels() -> Vec<Tunnel> {
    let gre = Encap::Gre { key: Some(7), checksum: true, sequence: false };
    let kinds = [vxlan(100), Encap::Gre { key: None, checksum: false, sequence: false }, gre, Encap::Ipip];
    kinds.into_iter().flat_map(|e| [test_tunnel(1, e, Family::V4), test_tunnel(1, e, Family::V6)]).collect()
}

fn through(t: &Tunnel) -> Rig {
    let mut net = Net::branch();
    net.tunnel(t.clone());
    Rig::new(net)
}

/// Behind the peer of [`Net::tunnel`].
const BEHIND: [&str; 2] = ["10.30.0.1", "2001:db8:30::1"];

#[test]
fn out_of_a_tunnel_come_its_peers_sources_alone() {
    for t in tunnels() {
        for ([near, other, far, internet], behind) in HOSTS.into_iter().zip(BEHIND) {
            let mut rig = through(&t);
            let mut from = |src: &str, dst: &str, sport: u16| {
                let inner = Pkt::udp(src, dst, sport, 9).ip();
                rig.frame(DEV_WAN, &frame_from_peer(&t, &inner, 0, true))
            };
            assert!(from(behind, near, 1).is_tx(), "{:?}", t.template.encap);
            assert!(from(behind, internet, 1).is_tx(), "an uplink for its peer");
            for (src, dst) in [
                (near, other),
                (near, internet),
                (other, near),
                (far, near),
                (internet, near),
                (internet, internet),
            ] {
                // The last one would be a relay.
                let dst = if src == dst { far } else { dst };
                assert_eq!(from(src, dst, 2), SPOOFED, "{src} out of {:?}", t.template.encap);
            }
            // Nor does the gateway answer to who did not ask.
            let ping = Pkt::echo(
                internet,
                ["192.168.1.1", "2001:db8:1::1"][usize::from(near.contains(':'))],
                7,
                false,
            );
            assert_eq!(rig.frame(DEV_WAN, &frame_from_peer(&t, &ping.ip(), 0, true)), SPOOFED);
            assert!(rig.emitted().is_empty());
        }
    }
}

#[test]
fn a_tunnel_may_have_sources_of_its_own() {
    let sources = ["10.77.0.0/16", "2001:db8:77::/48"].map(prefix);
    let t =
        Tunnel { sources: Some(Arc::new(Networks::new(sources))), ..test_tunnel(1, Encap::Ipip, Family::V4) };
    let mut rig = through(&t);
    let mut from =
        |src: &str, dst: &str| rig.frame(DEV_WAN, &frame_from_peer(&t, &udp(src, dst).ip(), 0, true));
    assert!(from("10.77.1.2", "192.168.1.10").is_tx() && from("2001:db8:77::1", "2001:db8:1::10").is_tx());
    for (src, dst) in [("10.30.0.1", "192.168.1.10"), ("2001:db8:30::1", "2001:db8:1::10")] {
        assert_eq!(from(src, dst), Outcome::Drop(DropReason::TunnelSource));
    }
}

/// Two tunnels lead to the same networks, and each end chooses by itself which one it uses.
#[test]
fn a_tunnel_that_is_not_in_use_may_be_the_peers_choice() {
    let t = test_tunnel(1, Encap::Ipip, Family::V4);
    let second = Tunnel { name: "pop2".into(), ..test_tunnel(2, vxlan(7), Family::V4) };
    let mut net = Net::branch();
    net.tunnel(t.clone());
    net.tunnels.push(second.clone());
    let mut rig = Rig::new(net);
    for (behind, [near, ..]) in BEHIND.into_iter().zip(HOSTS) {
        let frame = frame_from_peer(&second, &udp(behind, near).ip(), 0, true);
        assert_eq!(rig.frame(DEV_WAN, &frame), SPOOFED, "no route leads there");
    }
    rig.commit(|n| {
        for to in ["10.30.0.0/16", "2001:db8:30::/48"] {
            n.unused.push((prefix(to), vec![Member::tunnel(tunnel_no(2), 1)]));
        }
    });
    for (behind, [near, ..]) in BEHIND.into_iter().zip(HOSTS) {
        let frame = frame_from_peer(&second, &udp(behind, near).ip(), 0, true);
        assert!(rig.frame(DEV_WAN, &frame).is_tx(), "a route with a higher metric does");
    }
    rig.commit(|n| n.tunnels[1].reverse_path = ReversePath::Strict);
    for (behind, [near, ..]) in BEHIND.into_iter().zip(HOSTS) {
        let frame = frame_from_peer(&second, &udp(behind, near).ip(), 0, true);
        assert_eq!(rig.frame(DEV_WAN, &frame), SPOOFED, "strict");
    }
}

/// Somebody on the LAN, or behind the leased line, writes the peer's address outside.
#[test]
fn the_peer_comes_from_where_it_lives() {
    for t in tunnels() {
        for (behind, [near, ..]) in BEHIND.into_iter().zip(HOSTS) {
            let mut rig = through(&t);
            let honest = frame_from_peer(&t, &udp(behind, near).ip(), 0, true);
            assert!(rig.frame(DEV_WAN, &honest).is_tx() && rig.frame(DEV_WAN, &honest).is_tx());
            for (dev, port) in [(DEV_LAN, LAN), (DEV_LINE, LINE)] {
                let mut forged = honest.clone();
                forged[..6].copy_from_slice(&GATEWAY_MACS[port.index()].0);
                assert_eq!(rig.frame(dev, &forged), SPOOFED, "{:?} by port {}", t.template.encap, port.0);
                assert_eq!(rig.drops(port, DropReason::ReversePath), 1);
            }
            assert!(rig.frame(DEV_WAN, &honest).is_tx());
            // The session inside is the tunnel's: the same packet without one is not.
            let bare = udp(behind, near).into_port(LINE);
            assert_eq!(rig.send(&bare), SPOOFED);
        }
    }
}

/// An ICMP error that quotes a segment which the connection has not sent.
#[test]
fn errors_about_a_connection_quote_what_it_has_sent() {
    let nat = |n: &mut Net| {
        n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
    };
    for (v6, translated) in [(false, false), (false, true), (true, false)] {
        let mut net = Net::branch();
        if translated {
            nat(&mut net);
        }
        let mut rig = Rig::new(net);
        let [near, _, _, internet] = HOSTS[usize::from(v6)];
        let mut syn = Pkt::tcp(near, internet, 1000, 80, TCP_SYN);
        syn.l4[4..8].copy_from_slice(&0x8000_1000u32.to_be_bytes());
        syn.fix_l4();
        let out = rig.send(&syn);
        let sent = out.frame()[14..].to_vec();
        let src = if translated { "203.0.113.2" } else { near };
        let seq_at = if v6 { 44 } else { 24 };
        let mut error = |seq: u32| {
            let mut quote = sent.clone();
            quote[seq_at..seq_at + 4].copy_from_slice(&seq.to_be_bytes());
            let (kind, code, router) = if v6 { (2, 0, "2001:db8:2::1") } else { (3, 4, "203.0.113.1") };
            rig.send(&Pkt::icmp(router, src, kind, code, 1300, &quote).into_port(WAN))
        };
        for seq in [0, 0x7FF0_0000, 0x8100_0000, u32::MAX] {
            assert_eq!(error(seq), Outcome::Drop(DropReason::TcpOutOfWindow), "{seq:#x}");
        }
        assert!(error(0x8000_1000).is_tx(), "what was sent");
        assert!(error(0x8000_1000 + 1400).is_tx());
    }
}

fn too_big(t: &Tunnel, quote: &[u8], mtu: u32) -> Pkt {
    match t.template.outer {
        Family::V4 => Pkt::icmp("203.0.113.1", TUNNEL_ENDS[0].0, 3, 4, mtu, quote),
        Family::V6 => Pkt::icmp("2001:db8:2::1", TUNNEL_ENDS[1].0, 2, 0, mtu, quote),
    }
    .into_port(WAN)
}

/// Errors about outer packets that somebody has made up who knows the tunnel's addresses, and its VNI or key.
#[test]
fn the_path_is_not_talked_down() {
    for t in tunnels() {
        for ([near, ..], behind) in HOSTS.into_iter().zip(BEHIND) {
            let t = Tunnel { state: Arc::new(TunnelState::default()), ..t.clone() };
            let mut rig = through(&t);
            let sent = |rig: &mut Rig, p: Pkt| {
                let out = rig.send(&p);
                out.frame()[14..].to_vec()
            };
            // 1,300 bytes outside.
            let headers = usize::from(t.overhead()) + if behind.contains(':') { 48 } else { 28 };
            let real = sent(&mut rig, udp(near, behind).payload(1300 - headers));
            // As it would be sent for a flow that there is not.
            let mut strange = through(&Tunnel { state: Arc::default(), ..t.clone() });
            let made_up = sent(&mut strange, Pkt::udp(near, behind, 5, 6).payload(1300 - headers));
            let short = &real[..if t.template.outer == Family::V4 { 28 } else { 48 }];
            for n in 0..50 {
                for quote in [&made_up[..], short] {
                    for mtu in [68, 576, 1000, 1279, 1280] {
                        assert_eq!(rig.send(&too_big(&t, quote, mtu)), Outcome::Kernel);
                    }
                }
                assert_eq!(t.state.path_mtu(), 1500, "{:?}, round {n}", t.template.encap);
            }
            assert_eq!(t.state.refused_errors(), 500);
            // A real one counts, as far as a plausible path goes.
            rig.send(&too_big(&t, &real, 1290));
            assert_eq!(t.state.path_mtu(), 1290);
            rig.send(&too_big(&t, &real, 576));
            assert_eq!(t.state.path_mtu(), 1280, "no less than any path has");
        }
    }
}

/// A peer that answers probes: what ICMP says is probed, and believed only then.
#[test]
fn a_probed_path_goes_by_its_probes() {
    let t = test_tunnel(1, vxlan(100), Family::V4);
    let mut rig = through(&t);
    t.state.set_probes_sizes(true);
    let out = rig.send(&udp("192.168.1.10", "10.30.0.1").payload(1400));
    let real = out.frame()[14..].to_vec();
    rig.send(&too_big(&t, &real, 1290));
    assert_eq!((t.state.path_mtu(), t.state.learned()), (1500, None));
}

/// Where a VXLAN frame of [`frame_from_peer`] over IPv4 has its inner source address.
const INNER_SMAC: usize = 14 + 36 + 6;

#[test]
fn one_frame_does_not_replace_the_peer() {
    for v6 in [0, 1] {
        let t = Tunnel { learns_mac: true, ..test_tunnel(1, vxlan(100), Family::V4) };
        let mut rig = through(&t);
        let from = |mac: u8, src: &str| {
            let mut f = frame_from_peer(&t, &udp(src, HOSTS[v6][0]).ip(), 0, true);
            f[INNER_SMAC..INNER_SMAC + 6].copy_from_slice(&[2, 7, 7, 7, 7, mac]);
            f
        };
        let is = |mac: u8| t.state.peer_mac() == Some(MacAddr([2, 7, 7, 7, 7, mac]));
        // From whom the tunnel has no business with, nothing is learned.
        rig.frame(DEV_WAN, &from(9, HOSTS[v6][3]));
        assert_eq!(t.state.peer_mac(), None);
        assert!(rig.frame(DEV_WAN, &from(1, BEHIND[v6])).is_tx() && is(1));
        assert!(rig.frame(DEV_WAN, &from(2, BEHIND[v6])).is_tx() && is(1));
        // The peer is asked, by everybody's address.
        let [(WAN, question)] = &rig.emitted()[..] else { panic!("a question") };
        assert_eq!(question[14 + 36..14 + 42], [0xFF; 6]);
        assert_eq!(question[14 + 36 + 12..14 + 36 + 14], ETHERTYPE_ARP.to_be_bytes());
        assert_eq!(
            question[14 + 36 + 14 + 24..14 + 36 + 14 + 28],
            [10, 255, 0, 2],
            "the peer of 10.255.0.1/30"
        );
        // Forged ones at any rate, while the peer speaks now and then.
        for n in 0..200 {
            rig.wait(Duration::from_millis(100));
            if n % 10 == 0 {
                rig.frame(DEV_WAN, &from(1, BEHIND[v6]));
            }
            rig.frame(DEV_WAN, &from(2, BEHIND[v6]));
            assert!(is(1), "after {n} frames");
        }
        assert!(rig.emitted().len() <= 60, "questions have a rate");
        assert!(rig.pipe.events().is_empty());
        // The peer has another card: it speaks, and the old one does not.
        for _ in 0..60 {
            rig.wait(Duration::from_millis(100));
            rig.frame(DEV_WAN, &from(3, BEHIND[v6]));
        }
        assert!(is(3));
        assert_eq!(rig.pipe.events().drain().count(), 1, "and the operator hears of it");
    }
}

/// Which port a packet of the branch's comes in by is no matter of chance.
#[test]
fn ports_have_their_defaults_by_role() {
    let modes: Vec<_> = Net::branch().ports.iter().map(|p| p.reverse_path).collect();
    use ReversePath::*;
    assert_eq!(modes, [Strict, Feasible, Feasible, Strict]);
    assert_eq!(PortIdx::MAX, 64, "a bit of a word for each, in XDP");
}
