//! Two lines to the Internet and source NAT: a session stays with the line whose address it has while that line can be used,
//! and is ended when it cannot.

use sag_model::{DropReason, PortIdx, Zone};
use sag_packet::proto::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use sag_pipeline::nat::Behavior::EndpointIndependent;
use sag_pipeline::nat::Kind;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;

const HOST: &str = "192.168.1.10";
const HOST6: &str = "2001:db8:1::10";
const SERVER: &str = "198.51.100.7";
const SERVER6: &str = "2001:db8:99::7";
const DEV_WAN2: u8 = 7;
const WAN2: PortIdx = PortIdx(4);
const ROUTERS: [[&str; 2]; 2] = [["203.0.113.1", "203.0.114.1"], ["2001:db8:2::1", "2001:db8:5::1"]];
const DEFAULTS: [&str; 2] = ["0.0.0.0/0", "::/0"];

fn by(port: PortIdx, family: usize, weight: u16) -> Member {
    let router = ROUTERS[family][usize::from(port == WAN2)];
    Member::port(port, Some(router.parse().unwrap()), weight)
}

/// What the default routes prefer, and what they have beside it.
fn prefer(net: &mut Net, used: &[(PortIdx, u16)], unused: &[PortIdx]) {
    net.unused.clear();
    for (family, default) in DEFAULTS.iter().enumerate() {
        net.route(default, Route::Via(used.iter().map(|(p, w)| by(*p, family, *w)).collect()));
        net.unused.push((prefix(default), unused.iter().map(|p| by(*p, family, 1)).collect()));
    }
}

/// The branch with a second line; IPv4 ports are translated to the lines' addresses, IPv6 networks to their prefixes.
fn gateway() -> Rig {
    let mut net = Net::branch();
    let wan2 = net.port("wan2", Zone::Wan, DEV_WAN2, 0, &["203.0.114.2/24", "2001:db8:5::2/64"]);
    assert_eq!(wan2, WAN2);
    net.ports[wan2.index()].mac = GATEWAY_MACS[WAN.index()];
    for port in [WAN, WAN2] {
        net.wan_snat(port, EndpointIndependent, EndpointIndependent);
    }
    for (port, external) in [(WAN, "2001:db8:f1::/64"), (WAN2, "2001:db8:f2::/64")] {
        net.static_nat(Kind::Internet, "2001:db8:1::/64", external);
        net.nat.prefixes.last_mut().unwrap().port = Some(port);
    }
    for [first, second] in ROUTERS {
        net.neighbor(WAN, first);
        net.neighbor(WAN2, second);
    }
    prefer(&mut net, &[(WAN, 1)], &[WAN2]);
    Rig::new(net)
}

fn leaves(rig: &mut Rig, p: &Pkt) -> Result<PortIdx, DropReason> {
    match rig.send(p) {
        Outcome::Tx(port, _) => Ok(port),
        Outcome::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

/// A connection of each family, established by a line.
fn connect(rig: &mut Rig, sport: u16, line: PortIdx) {
    for (host, server) in [(HOST, SERVER), (HOST6, SERVER6)] {
        let syn = Pkt::tcp(host, server, sport, 80, TCP_SYN);
        let Outcome::Tx(port, frame) = rig.send(&numbered(syn, 1000, 0)) else { panic!("{host}: no SYN") };
        assert_eq!(port, line);
        let dev = if line == WAN { DEV_WAN } else { DEV_WAN2 };
        let answer = answer_to(&frame, TCP_SYN | TCP_ACK);
        assert!(rig.frame(dev, &answer).is_tx(), "{host}: SYN+ACK");
        assert_eq!(leaves(rig, &segment(host, server, sport)), Ok(line));
    }
}

fn segment(host: &str, server: &str, sport: u16) -> Pkt {
    numbered(Pkt::tcp(host, server, sport, 80, TCP_ACK), 1001, 7001)
}

/// Without payload, with these numbers.
fn numbered(p: Pkt, seq: u32, ack: u32) -> Pkt {
    let mut p = p.payload(0);
    p.l4[4..8].copy_from_slice(&seq.to_be_bytes());
    p.l4[8..12].copy_from_slice(&ack.to_be_bytes());
    p.fix_l4();
    p
}

/// The answer of the far end to a frame.
fn answer_to(frame: &[u8], flags: u8) -> Vec<u8> {
    let (src, dst, l4) = if is_v6(frame) { (22, 38, 54) } else { (26, 30, 34) };
    let text = |at: usize| match is_v6(frame) {
        false => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap()).to_string(),
        true => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap()).to_string(),
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (from, to, sport, dport) = (text(dst), text(src), port(l4 + 2), port(l4));
    let answer = match flags {
        0 => Pkt::udp(&from, &to, sport, dport),
        _ => numbered(Pkt::tcp(&from, &to, sport, dport, flags), 7000, 1001),
    };
    answer.into_port(WAN).build()
}

fn is_v6(frame: &[u8]) -> bool {
    frame[12] == 0x86
}

/// Sequence number, flags and ports of an emitted segment.
fn tcp_of(frame: &[u8]) -> (u32, u8, u16) {
    let l4 = if is_v6(frame) { 54 } else { 34 };
    let seq = u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().unwrap());
    (seq, frame[l4 + 13], u16::from_be_bytes([frame[l4], frame[l4 + 1]]))
}

const PAIRS: [(&str, &str); 2] = [(HOST, SERVER), (HOST6, SERVER6)];

#[test]
fn sessions_stay_with_their_line_while_it_can_be_used() {
    let mut rig = gateway();
    connect(&mut rig, 1000, WAN);
    rig.commit(|n| prefer(n, &[(WAN2, 1)], &[WAN]));
    connect(&mut rig, 1001, WAN2);
    // Back, and a part of the load each, whatever the weights: nobody moves.
    for (used, unused) in
        [(&[(WAN, 1)][..], &[WAN2][..]), (&[(WAN, 1), (WAN2, 100)], &[]), (&[(WAN, 100), (WAN2, 1)], &[])]
    {
        rig.commit(|n| prefer(n, used, unused));
        for (host, server) in PAIRS {
            for _ in 0..2 {
                assert_eq!(leaves(&mut rig, &segment(host, server, 1000)), Ok(WAN), "{used:?}");
                assert_eq!(leaves(&mut rig, &segment(host, server, 1001)), Ok(WAN2), "{used:?}");
            }
        }
    }
}

/// Why a session has to leave its line, what does it, and whether the far end can be reached by the line.
type LineEnd = (&'static str, fn(&mut Net), bool);

fn lines_that_end() -> [LineEnd; 5] {
    let moves = |n: &mut Net| {
        n.nat.limits.sticky_lines = false;
        prefer(n, &[(WAN2, 1)], &[WAN]);
    };
    let failed = |n: &mut Net| {
        n.ports[WAN.index()].failed = true;
        prefer(n, &[(WAN2, 1)], &[WAN]);
    };
    let down = |n: &mut Net| {
        n.ports[WAN.index()].up = false;
        prefer(n, &[(WAN2, 1)], &[WAN]);
    };
    let withdrawn = |n: &mut Net| prefer(n, &[(WAN2, 1)], &[]);
    let released = |n: &mut Net| {
        n.ports[WAN.index()].addrs4.clear();
        prefer(n, &[(WAN2, 1)], &[]);
    };
    [
        ("moves", moves, true),
        ("failed", failed, true),
        ("down", down, false),
        ("withdrawn", withdrawn, false),
        ("released", released, false),
    ]
}

#[test]
fn a_connection_that_has_to_leave_its_line_is_reset_at_both_ends() {
    for (why, change, far_end) in lines_that_end() {
        let mut rig = gateway();
        connect(&mut rig, 1000, WAN);
        rig.commit(change);
        rig.emitted();
        for (host, server) in PAIRS {
            let p = segment(host, server, 1000);
            assert_eq!(leaves(&mut rig, &p), Err(DropReason::NatWanChanged), "{why}: {host}");
            let sent = rig.emitted();
            let resets: Vec<_> = sent.iter().map(|(port, f)| (*port, tcp_of(f))).collect();
            // The host takes what it has acknowledged, the far end what comes next.
            let mut wanted = vec![(LAN, (7001, TCP_RST, 80))];
            if far_end {
                wanted.push((WAN, (1001, TCP_RST | TCP_ACK, 1000)));
            }
            assert_eq!(resets, wanted, "{why}: {host}");
            // The host begins anew by the other line, with the same port if it likes.
            let syn = numbered(Pkt::tcp(host, server, 1000, 80, TCP_SYN), 90_000, 0);
            assert_eq!(leaves(&mut rig, &syn), Ok(WAN2), "{why}");
        }
        assert_eq!(rig.drops(LAN, DropReason::NatWanChanged), 2);
        rig.check_accounting();
    }
}

#[test]
fn datagrams_of_an_answered_session_get_an_error_once() {
    for (why, change, _) in lines_that_end() {
        let mut rig = gateway();
        let out = |host, server| Pkt::udp(host, server, 2000, 443);
        for (host, server) in PAIRS {
            let Outcome::Tx(WAN, frame) = rig.send(&out(host, server)) else { panic!() };
            assert!(rig.frame(DEV_WAN, &answer_to(&frame, 0)).is_tx());
            // Nobody has answered this one.
            assert_eq!(leaves(&mut rig, &Pkt::udp(host, server, 2001, 443)), Ok(WAN));
        }
        rig.commit(change);
        rig.emitted();
        for (host, server) in PAIRS {
            assert_eq!(leaves(&mut rig, &out(host, server)), Err(DropReason::NatWanChanged), "{why}");
            let errors = rig.emitted();
            assert_eq!(errors.len(), 1, "{why}");
            let kind = if host == HOST {
                (errors[0].1[34], errors[0].1[35])
            } else {
                (errors[0].1[54], errors[0].1[55])
            };
            assert_eq!(kind, if host == HOST { (3, 3) } else { (1, 4) }, "port unreachable");
            assert_eq!(leaves(&mut rig, &out(host, server)), Ok(WAN2), "{why}: begins anew");
            assert_eq!(leaves(&mut rig, &Pkt::udp(host, server, 2001, 443)), Ok(WAN2), "{why}: unanswered");
        }
    }
}

#[test]
fn without_translation_flows_move_and_without_another_line_they_stay() {
    let mut rig = gateway();
    rig.commit(|n| (n.nat.wan, n.nat.prefixes) = Default::default());
    let flow = |(host, server): (&str, &str)| Pkt::udp(host, server, 5, 6);
    for pair in PAIRS {
        assert_eq!(leaves(&mut rig, &flow(pair)), Ok(WAN));
    }
    rig.commit(|n| prefer(n, &[(WAN2, 1)], &[WAN]));
    for pair in PAIRS {
        assert_eq!(leaves(&mut rig, &flow(pair)), Ok(WAN2));
    }
    let mut rig = gateway();
    connect(&mut rig, 1000, WAN);
    rig.commit(|n| {
        n.ports[WAN.index()].failed = true;
        prefer(n, &[(WAN, 1)], &[]);
    });
    for (host, server) in PAIRS {
        assert_eq!(leaves(&mut rig, &segment(host, server, 1000)), Ok(WAN), "the last resort");
        let fin = numbered(Pkt::tcp(host, server, 1000, 80, TCP_FIN | TCP_ACK), 1001, 7001);
        assert_eq!(leaves(&mut rig, &fin), Ok(WAN));
    }
}

/// An address that is routed to the gateway is carried by every line.
#[test]
fn sessions_with_an_address_of_a_pool_move_with_it() {
    let mut rig = gateway();
    rig.commit(|n| {
        n.wan_pool("192.168.0.0/16", &["203.0.113.200"], sag_pipeline::nat::Pooling::Paired, false);
    });
    let p = segment(HOST, SERVER, 1000);
    assert_eq!(leaves(&mut rig, &Pkt::tcp(HOST, SERVER, 1000, 80, TCP_SYN)), Ok(WAN));
    rig.commit(|n| prefer(n, &[(WAN2, 1)], &[WAN]));
    assert_eq!(leaves(&mut rig, &p), Ok(WAN), "it stays while it can");
    rig.commit(|n| {
        n.ports[WAN.index()].up = false;
        prefer(n, &[(WAN2, 1)], &[]);
    });
    assert_eq!(leaves(&mut rig, &p), Ok(WAN2), "and has its address there too");
}

/// The provider of one line carries no packets from the address of another.
#[test]
fn a_tunnel_leaves_by_the_line_whose_address_it_has() {
    use sag_packet::Family;
    use sag_packet::encap::{Encap, Template};
    let ends =
        [("203.0.114.2", "198.51.100.99", Family::V4), ("2001:db8:5::2", "2001:db8:99::99", Family::V6)];
    for (local, remote, outer) in ends {
        let mut rig = gateway();
        let encap = Encap::Gre { key: None, checksum: false, sequence: false };
        let (local, remote) = (local.parse().unwrap(), remote.parse().unwrap());
        rig.commit(|n| {
            let template = Template::new(local, remote, 64, encap);
            n.tunnels.push(sag_pipeline::tunnel::Tunnel {
                local,
                remote,
                template,
                ..test_tunnel(1, encap, outer)
            });
            n.route("10.30.0.0/16", Route::Via(vec![Member::tunnel(tunnel_no(1), 1)]));
        });
        let inside = |n: u16| Pkt::udp(HOST, "10.30.0.1", n, 7);
        for n in 0..8 {
            assert_eq!(leaves(&mut rig, &inside(n)), Ok(WAN2), "{outer:?}");
        }
        rig.commit(|n| prefer(n, &[(WAN, 1), (WAN2, 1)], &[]));
        for n in 0..8 {
            assert_eq!(leaves(&mut rig, &inside(n)), Ok(WAN2), "{outer:?}: whatever the hash of a flow");
        }
        rig.commit(|n| {
            n.ports[WAN2.index()].up = false;
            prefer(n, &[(WAN, 1)], &[]);
        });
        assert_eq!(leaves(&mut rig, &inside(0)), Ok(WAN), "{outer:?}: better than not at all");
    }
}

/// The same of IPv6 hosts that have an IPv4 port.
#[test]
fn sessions_by_nat64_hold_on_to_their_line_too() {
    let mut rig = gateway();
    rig.commit(|n| {
        n.nat64("2001:db8:64::/96", &[], EndpointIndependent);
        n.nat.prefixes.clear();
    });
    let called = "2001:db8:64::c633:6407";
    let syn = numbered(Pkt::tcp(HOST6, called, 1000, 80, TCP_SYN), 1000, 0);
    let Outcome::Tx(WAN, frame) = rig.send(&syn) else { panic!() };
    assert!(rig.frame(DEV_WAN, &answer_to(&frame, TCP_SYN | TCP_ACK)).is_tx());
    let p = segment(HOST6, called, 1000);
    assert_eq!(leaves(&mut rig, &p), Ok(WAN));
    rig.commit(|n| prefer(n, &[(WAN2, 1)], &[WAN]));
    assert_eq!(leaves(&mut rig, &p), Ok(WAN), "it stays");
    rig.commit(|n| n.ports[WAN.index()].failed = true);
    rig.emitted();
    assert_eq!(leaves(&mut rig, &p), Err(DropReason::NatWanChanged));
    assert_eq!(
        rig.emitted().iter().map(|(port, f)| (*port, tcp_of(f))).collect::<Vec<_>>(),
        [(LAN, (7001, TCP_RST, 80))]
    );
    assert_eq!(leaves(&mut rig, &numbered(syn, 90_000, 0)), Ok(WAN2));
}
