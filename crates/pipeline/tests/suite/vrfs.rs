//! VRFs: networks that overlap, routes that leak, and nothing that crosses otherwise.

use sag_acl::Rule;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_model::{DropReason, MacAddr, PortIdx, VrfNo, Zone};
use sag_packet::parse::{self, NetworkLayer, Parsed};
use sag_packet::proto::{ETHERTYPE_IPV4, ICMP, TCP, TCP_ACK, TCP_SYN, UDP};
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::{Behavior, InsideHost, Kind};
use sag_pipeline::policy::Class;
use sag_pipeline::session;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

const HOST: &str = "10.0.0.5";
const HOST6: &str = "2001:db8:a::5";
const SERVER: &str = "198.51.100.7";
const SERVER6: &str = "2001:db8:99::7";
const OUTSIDE: &str = "203.0.113.2";
const ROUTER: &str = "203.0.113.1";
const ROUTER6: &str = "2001:db8:2::1";
/// LANs with the same networks, of the default VRF and of two others.
const LANS: [PortIdx; 3] = [PortIdx(0), PortIdx(2), PortIdx(3)];

fn vrf(n: usize) -> VrfNo {
    VrfNo::new(n as u8).unwrap()
}

/// The device of a port: each has its own.
fn dev(port: PortIdx) -> u8 {
    port.0
}

fn mac(port: PortIdx) -> MacAddr {
    GATEWAY_MACS.get(port.index()).copied().unwrap_or(MacAddr([2, 0, 0, 0, 1, port.0]))
}

/// Sends a packet into a port.
fn into(rig: &mut Rig, port: PortIdx, p: &Pkt) -> Outcome {
    let frame = p.clone().link(mac(port), MacAddr([2, 0xFE, 0, 0, 0, 1]), 0).build();
    rig.frame(dev(port), &frame)
}

/// Three LANs of equal addresses, in VRFs of their own, and one line to the Internet, to which the routes of all leak.
fn gateway() -> Net {
    let mut n = Net::empty();
    let lan = ["10.0.0.1/24", "2001:db8:a::1/64"];
    n.port("lan", Zone::Lan, 0, 0, &lan);
    n.port("wan", Zone::Wan, 1, 0, &["203.0.113.2/24", "2001:db8:2::2/64"]);
    for (i, name) in [(1, "a"), (2, "b")] {
        n.port_in(vrf(i), name, Zone::Lan, (1 + i as u8, 0), &lan);
        n.via_in(vrf(i), "0.0.0.0/0", WAN, ROUTER);
        n.via_in(vrf(i), "::/0", WAN, ROUTER6);
    }
    n.via("0.0.0.0/0", WAN, ROUTER).via("::/0", WAN, ROUTER6);
    for port in LANS {
        n.neighbor(port, HOST);
        n.neighbor(port, HOST6);
    }
    n.neighbor(WAN, ROUTER);
    n.neighbor(WAN, ROUTER6);
    n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::EndpointIndependent);
    n
}

/// The same five-tuple from three VRFs at once: each has a port of its own outside, and its answers.
#[test]
fn equal_hosts_of_several_vrfs_share_a_line() {
    for proto in [TCP, UDP, ICMP] {
        let mut rig = Rig::new(gateway());
        let ask = match proto {
            TCP => Pkt::tcp(HOST, SERVER, 4000, 80, TCP_SYN),
            UDP => Pkt::udp(HOST, SERVER, 4000, 80),
            _ => Pkt::echo(HOST, SERVER, 4000, false),
        };
        let mut ports = HashSet::new();
        for _ in 0..2 {
            for lan in LANS {
                let Outcome::Tx(WAN, frame) = into(&mut rig, lan, &ask) else {
                    panic!("{proto}: by the line")
                };
                let (own, _) = ends4(&frame);
                let own = if proto == ICMP {
                    end(OUTSIDE, u16::from_be_bytes([frame[38], frame[39]]))
                } else {
                    own
                };
                assert_eq!(own.addr, OUTSIDE.parse::<Ipv4Addr>().unwrap());
                ports.insert(own.port);
                let answer = match proto {
                    TCP => Pkt::tcp(SERVER, OUTSIDE, 80, own.port, TCP_SYN | TCP_ACK),
                    UDP => Pkt::udp(SERVER, OUTSIDE, 80, own.port),
                    _ => Pkt::echo(SERVER, OUTSIDE, own.port, true),
                };
                for _ in 0..2 {
                    let Outcome::Tx(back, frame) = into(&mut rig, WAN, &answer) else {
                        panic!("{proto}: answer")
                    };
                    assert_eq!(back, lan, "{proto}: the answer comes back to the VRF that asked");
                    assert_eq!(frame[..6], host_mac(lan, HOST).0);
                    assert_eq!(ends4(&frame).1.addr, HOST.parse::<Ipv4Addr>().unwrap());
                }
            }
        }
        assert_eq!((ports.len(), rig.sessions().0), (3, 3), "{proto}: one session and one port for each");
        let host = |n| InsideHost { addr: HOST.parse().unwrap(), vrf: vrf(n) };
        assert_eq!([0, 1, 2].map(|n| rig.pipe.tables.nat.host_sessions(host(n))), [1; 3]);
    }
}

/// Fragments of equal datagrams from two VRFs are not mixed up, in whatever order they come.
#[test]
fn fragments_of_equal_datagrams_stay_apart() {
    let mut rig = Rig::new(gateway());
    let whole = Pkt::udp(HOST, SERVER, 4000, 80).payload(1000);
    let [first, last] = [whole.fragment(0, 504), whole.fragment(504, 600)];
    assert_eq!(into(&mut rig, LANS[1], &last), Outcome::Held);
    let Outcome::Tx(WAN, b) = into(&mut rig, LANS[2], &first) else { panic!("b's first fragment") };
    assert_eq!(rig.emitted().len(), 0, "a's last one waits for its own first");
    into(&mut rig, LANS[1], &first);
    let sent = rig.emitted();
    assert_eq!(sent.len(), 2, "a's datagram");
    assert_ne!(ends4(&sent[0].1).0.port, ends4(&b).0.port, "of two sessions");
    let Outcome::Tx(WAN, frame) = into(&mut rig, LANS[2], &last) else { panic!("b's last fragment") };
    assert_eq!(frame[26..30], OUTSIDE.parse::<Ipv4Addr>().unwrap().octets());
}

/// ICMP errors from outside come to the host of the VRF, and the gateway's own errors go back to the VRF of the packet.
#[test]
fn icmp_errors_know_the_vrf() {
    let mut rig = Rig::new(gateway());
    let ask = Pkt::udp(HOST, SERVER, 4000, 80).payload(1400).df();
    for lan in LANS {
        let Outcome::Tx(_, frame) = into(&mut rig, lan, &ask) else { panic!("sent") };
        // A router on the way speaks, whose address no route of the VRF has to have.
        let error = Pkt::icmp("192.0.2.254", OUTSIDE, 3, 4, 1280, &frame[14..42]);
        let Outcome::Tx(back, frame) = into(&mut rig, WAN, &error) else { panic!("the error goes on") };
        assert_eq!((back, &frame[..6]), (lan, &host_mac(lan, HOST).0[..]));
        assert_eq!(ends4(&frame[28..]).0.port, 4000, "what it quotes is translated back");
        // From the gateway itself.
        assert_eq!(into(&mut rig, lan, &ask.clone().ttl(1)), Outcome::Drop(DropReason::TtlExpired));
        let (port, frame) = rig.emitted().remove(0);
        assert_eq!((port, &frame[26..30], frame[34]), (lan, &[10, 0, 0, 1][..], 11));
        let six = Pkt::udp(HOST6, SERVER6, 1, 2).ttl(1);
        assert_eq!(into(&mut rig, lan, &six), Outcome::Drop(DropReason::TtlExpired));
        let (port, frame) = rig.emitted().remove(0);
        assert_eq!((port, &frame[..6]), (lan, &host_mac(lan, HOST6).0[..]));
    }
}

/// Each VRF's own addresses are the kernel's, those of another are not.
#[test]
fn own_addresses_are_those_of_the_vrf() {
    let mut rig = Rig::new(gateway());
    for lan in LANS {
        assert_eq!(into(&mut rig, lan, &Pkt::echo(HOST, "10.0.0.1", 1, false)), Outcome::Kernel);
        assert_eq!(into(&mut rig, lan, &Pkt::udp(HOST6, "2001:db8:a::1", 1, 2)), Outcome::Kernel);
        // The gateway's address as a source is forged.
        let forged = Pkt::udp("10.0.0.1", SERVER, 1, 2);
        assert_eq!(into(&mut rig, lan, &forged), Outcome::Drop(DropReason::SourceIsOurs));
    }
    let to_wan = Pkt::udp(HOST6, "2001:db8:2::2", 1, 2);
    assert_eq!(into(&mut rig, LANS[0], &to_wan), Outcome::Kernel);
    assert_ne!(into(&mut rig, LANS[1], &to_wan), Outcome::Kernel);
    let known: Vec<_> = rig.snap.kernel_addresses().collect();
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    assert!(known.contains(&(VrfNo::DEFAULT, ip(OUTSIDE))), "an address of one VRF is known to XDP");
    assert!(!known.iter().any(|(_, a)| *a == ip("10.0.0.1")), "one of several is a worker's");
}

/// A forward names the VRF of its server.
#[test]
fn forwards_lead_into_their_vrfs() {
    let mut net = gateway();
    for (i, port) in [(0u16, 8000), (1, 8001), (2, 8002)] {
        net.dnat(Kind::Internet, "", HOST, Some((TCP, port, port, 80)));
        net.nat.dnat.last_mut().unwrap().inside.vrf = vrf(i.into());
    }
    let mut rig = Rig::new(net);
    for (lan, port) in LANS.into_iter().zip([8000u16, 8001, 8002]) {
        let ask = Pkt::tcp(SERVER, OUTSIDE, 5000, port, TCP_SYN);
        let Outcome::Tx(by, frame) = into(&mut rig, WAN, &ask) else { panic!("the question") };
        assert_eq!((by, ends4(&frame).1.port, &frame[..6]), (lan, 80, &host_mac(lan, HOST).0[..]));
        let answer = Pkt::tcp(HOST, SERVER, 80, 5000, TCP_SYN | TCP_ACK);
        for _ in 0..2 {
            let Outcome::Tx(WAN, frame) = into(&mut rig, lan, &answer) else { panic!("the answer") };
            assert_eq!(ends4(&frame).0, end(OUTSIDE, port), "as the address that was asked");
        }
    }
    assert_eq!(rig.sessions().0, 3);
    // Hosts of one VRF do not reach another's through the outside.
    let hairpin = Pkt::tcp("10.0.0.5", OUTSIDE, 5001, 8002, TCP_SYN);
    assert!(!matches!(into(&mut rig, LANS[1], &hairpin), Outcome::Tx(p, _) if p != WAN));
    // Without the leak nothing comes in, and what came in before ends.
    rig.commit(|n| {
        n.vrf_routes.retain(|(v, (to, len), _)| *v != vrf(1) || (*len != 0 && !to.is_unspecified()))
    });
    let ask = Pkt::tcp(SERVER, OUTSIDE, 5002, 8001, TCP_SYN);
    assert!(!into(&mut rig, WAN, &ask).is_tx());
    let more = Pkt::tcp(SERVER, OUTSIDE, 5000, 8001, TCP_ACK);
    assert!(!into(&mut rig, WAN, &more).is_tx());
    assert!(into(&mut rig, WAN, &Pkt::tcp(SERVER, OUTSIDE, 5002, 8002, TCP_SYN)).is_tx(), "the others stay");
}

/// Two VRFs with the same IPv6 networks and lines of their own, whose addresses are equal, too.
#[test]
fn overlapping_lines_of_ipv6() {
    let mut n = Net::empty();
    let mut ports = Vec::new();
    for i in 1..3u8 {
        let lan =
            n.port_in(vrf(i.into()), &format!("lan{i}"), Zone::Lan, (2 * i - 2, 0), &["2001:db8:a::1/64"]);
        let wan =
            n.port_in(vrf(i.into()), &format!("wan{i}"), Zone::Wan, (2 * i - 1, 0), &["2001:db8:2::2/64"]);
        n.via_in(vrf(i.into()), "::/0", wan, ROUTER6);
        n.neighbor(lan, HOST6);
        n.neighbor(wan, ROUTER6);
        ports.push((lan, wan));
    }
    let mut rig = Rig::new(n);
    for _ in 0..2 {
        for &(lan, wan) in &ports {
            let Outcome::Tx(by, _) = into(&mut rig, lan, &Pkt::udp(HOST6, SERVER6, 1, 2)) else {
                panic!("out")
            };
            assert_eq!(by, wan);
            let Outcome::Tx(by, _) = into(&mut rig, wan, &Pkt::udp(SERVER6, HOST6, 2, 1)) else {
                panic!("back")
            };
            assert_eq!(by, lan);
        }
    }
    assert_eq!(rig.sessions().1, 2);
}

/// A rule that names a VRF is for packets from there, of new sessions and of those that are evaluated again.
#[test]
fn rules_of_a_vrf_are_for_packets_from_there() {
    let mut net = gateway();
    net.acl = Acl::new(true);
    let mut rig = Rig::new(net);
    let packets = [Pkt::udp(HOST, SERVER, 4000, 80), Pkt::udp(HOST6, SERVER6, 4000, 80)];
    let sends = |rig: &mut Rig| packets.each_ref().map(|p| LANS.map(|lan| into(rig, lan, p).is_tx()));
    rig.commit(|n| n.acl = Acl::new(true).rule_of(vrf(1), Class::OutWan, false, "17 * * * *"));
    assert_eq!(sends(&mut rig), [[true, false, true]; 2]);
    assert_eq!(rig.drops(LANS[1], DropReason::AclDenied), 2);
    // Sessions that are there, and their answers.
    let Outcome::Tx(WAN, b) = into(&mut rig, LANS[2], &packets[0]) else { panic!("b's session") };
    rig.commit(|n| {
        let acl = Acl::new(false).rule_of(vrf(1), Class::OutWan, true, "17 * * * *");
        n.acl = acl.rule_of(VrfNo::DEFAULT, Class::OutWan, true, "17 * * * *");
    });
    assert_eq!(sends(&mut rig), [[true, true, false]; 2]);
    let late = Pkt::udp(SERVER, OUTSIDE, 80, ends4(&b).0.port);
    assert!(!into(&mut rig, WAN, &late).is_tx(), "nobody asked by these rules");
    // In the order of the rules, whether they name a VRF or not.
    rig.commit(|n| {
        let acl = Acl::new(true).rule(Class::OutWan, true, "17 * * * 80-80");
        n.acl = acl.rule_of(vrf(2), Class::OutWan, false, "17 * * * *");
    });
    assert_eq!(sends(&mut rig), [[true; 3]; 2]);
    let other = Pkt::udp(HOST, SERVER, 4000, 81);
    assert_eq!(LANS.map(|lan| into(&mut rig, lan, &other).is_tx()), [true, true, false]);
}

/// So is a QoS policy: the hosts of others with the same address are not metered with it.
#[test]
fn policies_of_a_vrf_meter_packets_from_there() {
    let mut net = gateway();
    net.car("car", 1, 0, 1).meter_from(vrf(2), Rule::ANY, "car");
    let mut rig = Rig::new(net);
    let passed = LANS.map(|lan| {
        let p = Pkt::udp(HOST, SERVER, 4000, 80).payload(1000);
        (0..100).filter(|_| into(&mut rig, lan, &p).is_tx()).count()
    });
    assert_eq!(passed, [100, 100, 24], "200 ms of 1 Mbit/s for the one");
}

/// A port that moves to another VRF leaves its sessions behind.
#[test]
fn a_port_that_moves_leaves_its_sessions() {
    let mut rig = Rig::new(gateway());
    let ask = Pkt::tcp(HOST, SERVER, 4000, 80, TCP_SYN);
    let Outcome::Tx(WAN, frame) = into(&mut rig, LANS[1], &ask) else { panic!("out") };
    let outside = ends4(&frame).0.port;
    let answer = Pkt::tcp(SERVER, OUTSIDE, 80, outside, TCP_SYN | TCP_ACK);
    assert!(into(&mut rig, WAN, &answer).is_tx());
    rig.commit(|n| {
        n.ports[LANS[1].index()].vrf = vrf(5);
        for (v, _, _) in &mut n.vrf_routes {
            *v = if *v == vrf(1) { vrf(5) } else { *v };
        }
    });
    assert!(!into(&mut rig, WAN, &answer).is_tx(), "nobody is there in the VRF of the session");
    let more = Pkt::tcp(HOST, SERVER, 4000, 80, TCP_ACK);
    let before = rig.sessions().0;
    let Outcome::Tx(WAN, frame) = into(&mut rig, LANS[1], &more) else { panic!("a session of its own") };
    assert_ne!(ends4(&frame).0.port, outside);
    assert_eq!(rig.sessions().0, before + 1);
}

/// The next daemon takes over the sessions of VRFs whose numbers it knows.
#[test]
fn sessions_of_unknown_numbers_end_with_the_daemon() {
    let mut rig = Rig::new(gateway());
    for lan in LANS {
        assert!(into(&mut rig, lan, &Pkt::udp(HOST, SERVER, 4000, 80)).is_tx());
        assert!(into(&mut rig, lan, &Pkt::udp(HOST6, SERVER6, 4000 + u16::from(lan.0), 80)).is_tx());
    }
    let (tables, known) = (rig.pipe.tables.clone(), [vrf(2)].into());
    let v4 = session::take_over::<FlowRecord4>(&tables.v4, 1, &known);
    let v6 = session::take_over::<FlowRecord6>(&tables.v6, 1, &known);
    assert_eq!([v4, v6].map(|found| (found.sessions, found.discarded)), [(2, 2); 2]);
    for (lan, found) in LANS.into_iter().zip([true, false, true]) {
        let from = rig.snap.port(lan).unwrap().side();
        let key = FlowRecord4::flow_key(&parsed(&Pkt::udp(HOST, SERVER, 4000, 80)), &[], from);
        assert_eq!(tables.v4.find(&key, tables.v4.hash(&key)).is_some(), found);
    }
}

fn parsed(p: &Pkt) -> Parsed {
    let frame = p.build();
    match parse::parse(&frame, ETHERTYPE_IPV4, 14) {
        Ok(NetworkLayer::Ip(p)) => p,
        other => panic!("{other:?}"),
    }
}

/// A route of the reference.
#[derive(Clone, Copy)]
enum To {
    Wan(usize),
    Blackhole,
}

/// Random tables of four VRFs, each with a LAN of the same network and a line of its own, against a search through lists.
#[test]
fn nothing_crosses_without_a_leak() {
    const VRFS: usize = 4;
    const PREFIXES: [&str; 4] = ["0.0.0.0/0", "198.51.100.0/24", "198.51.100.128/25", "192.0.2.0/24"];
    let lan = |v: usize| PortIdx(v as u8);
    let wan = |v: usize| PortIdx((VRFS + v) as u8);
    for seed in 0..40 {
        let mut d = Rng::new(seed);
        let mut n = Net::empty();
        for v in 0..VRFS {
            n.port_in(vrf(v), &format!("lan{v}"), Zone::Lan, (v as u8, 0), &["10.0.0.1/24"]);
        }
        for v in 0..VRFS {
            let own = format!("203.0.{v}.2/24");
            n.port_in(vrf(v), &format!("wan{v}"), Zone::Wan, ((VRFS + v) as u8, 0), &[&own]);
            n.neighbor(wan(v), &format!("203.0.{v}.1"));
            n.neighbor(lan(v), HOST);
            n.wan_snat(wan(v), Behavior::EndpointIndependent, Behavior::EndpointIndependent);
        }
        n.ports.iter_mut().for_each(|p| p.reverse_path = sag_model::config::ReversePath::Off);
        let mut tables: Vec<Vec<(IpAddr, u8, To)>> = vec![Vec::new(); VRFS];
        for (v, table) in tables.iter_mut().enumerate() {
            for to in PREFIXES {
                let target = match d.below(4) {
                    0 => continue,
                    1 => To::Blackhole,
                    _ => To::Wan(if d.once_in(2) { v } else { d.below(VRFS) }),
                };
                let route = match target {
                    To::Blackhole => Route::Blackhole,
                    To::Wan(w) => {
                        let via = format!("203.0.{w}.1").parse().unwrap();
                        Route::Via(vec![Member::port(wan(w), Some(via), 1)])
                    }
                };
                n.route_in(vrf(v), to, route);
                let (addr, len) = prefix(to);
                table.push((addr, len, target));
            }
        }
        let covers = |(net, len, _): &(IpAddr, u8, To), a: IpAddr| {
            let (IpAddr::V4(net), IpAddr::V4(a)) = (net, a) else { return false };
            let mask = u32::MAX.checked_shl(32 - u32::from(*len)).unwrap_or(0);
            (net.to_bits() ^ a.to_bits()) & mask == 0
        };
        let look_up = |v: usize, a: &str| {
            let a = a.parse().unwrap();
            tables[v].iter().filter(|r| covers(r, a)).max_by_key(|r| r.1).map(|r| r.2)
        };
        // A VRF leads to an address in another one.
        let leads =
            |from: usize, a: &str, into: usize| matches!(look_up(from, a), Some(To::Wan(w)) if w == into);
        let mut rig = Rig::new(n);
        let mut ports: Vec<(usize, u16)> = Vec::new();
        for i in 0..60u16 {
            let v = d.below(VRFS);
            let dst = d.pick(&["198.51.100.7", "198.51.100.200", "192.0.2.9", "100.64.0.1"]);
            let sport = 2000 + d.below(3) as u16 + i / 20 * 10;
            let ask = Pkt::udp(HOST, dst, sport, 53);
            let outcome = into(&mut rig, lan(v), &ask);
            match (look_up(v, dst), &outcome) {
                (Some(To::Wan(w)), Outcome::Tx(port, frame)) => {
                    assert_eq!(*port, wan(w), "seed {seed}: from {v} to {dst}");
                    let (own, _) = ends4(frame);
                    assert_eq!(own.addr, Ipv4Addr::new(203, 0, w as u8, 2));
                    ports.push((w, own.port));
                    let answer = Pkt::udp(dst, &own.addr.to_string(), 53, own.port);
                    let Outcome::Tx(back, frame) = into(&mut rig, wan(w), &answer) else {
                        panic!("seed {seed}: answer")
                    };
                    assert_eq!((back, ends4(&frame).1), (lan(v), end(HOST, sport)), "seed {seed}");
                }
                (Some(To::Blackhole), Outcome::Drop(DropReason::RouteBlackhole))
                | (None, Outcome::Drop(DropReason::NoRoute)) => {}
                _ => panic!("seed {seed}: from {v} to {dst}: {outcome:?}"),
            }
            rig.emitted();
            // Whoever sends to what is outside, from wherever: it comes where a leak is, if anywhere.
            let Some(&(w, port)) = ports.get(d.below(ports.len() + 1)) else { continue };
            let (from, src) = (d.below(VRFS), d.pick(&["198.51.100.7", "192.0.2.9", HOST]));
            let by = if d.once_in(2) { lan(from) } else { wan(from) };
            let p = Pkt::udp(src, &format!("203.0.{w}.2"), 999, port);
            if let Outcome::Tx(out, _) = into(&mut rig, by, &p) {
                let to = out.index() % VRFS;
                let dst = format!("203.0.{w}.2");
                let leak = leads(to, src, from) || leads(from, &dst, to);
                assert!(to == from || leak, "seed {seed}: from VRF {from} to {to}");
            }
            rig.emitted();
        }
    }
}
