//! Gateways and packets of the differential test: mostly packets of sessions that are there, with the
//! odd and the broken among them.

use sag_model::flow::{Action, FlowRecord, Key4, Key6, RecordNo};
use sag_model::{PortIdx, VrfNo, VrfZone, Zone};
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Kind};
use sag_pipeline::snapshot::{Member, NextHop, Route, Snapshot};
use sag_pipeline::table::FlowTable;
use sag_testkit::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

const INSIDE4: [&str; 4] = ["192.168.1.10", "192.168.1.11", "192.168.2.10", "192.168.2.11"];
const INSIDE6: [&str; 4] = ["2001:db8:1::10", "2001:db8:1::11", "2001:db8:4::10", "2001:db8:4::11"];
const FAR4: [&str; 4] = ["198.51.100.7", "198.51.100.8", "100.64.3.4", "10.20.3.4"];
const FAR6: [&str; 3] = ["2001:db8:99::7", "2001:db8:64::8", "2001:db8:20::4"];
const EXTERNAL: [&str; 6] =
    ["203.0.113.2", "203.0.113.50", "203.0.113.60", "192.0.2.2", "192.0.2.77", "198.18.2.10"];
/// Hosts of both LANs by the prefixes of [`net`], as RFC 6296 maps them.
const EXTERNAL6: [&str; 4] = [
    "2001:db8:f1:ff0f::10",
    "2001:db8:f1:ff0f::11",
    "2001:db8:f4:1:ff0e::10",
    // The last one where LAN2 has the network of LAN.
    "2001:db8:f4:1:ff0b::10",
];
const BEHAVIORS: [Behavior; 3] =
    [Behavior::EndpointIndependent, Behavior::AddressDependent, Behavior::AddressAndPortDependent];
const SIZES: [usize; 9] = [0, 1, 7, 12, 40, 100, 1000, 1452, 2500];

/// A gateway with address translation of every kind, more or less.
pub fn net(d: &mut Rng) -> Net {
    let mut n = if d.once_in(3) { d.net() } else { Net::branch() };
    // XDP never sees what the hardware filters for another address.
    n.options.promiscuous = false;
    if !d.once_in(4) {
        n.wan_snat(WAN, d.pick(&BEHAVIORS), d.pick(&BEHAVIORS));
    }
    if d.once_in(2) {
        let to = d.pick(&["192.0.2.2", "192.0.2.77"]);
        n.snat("192.168.1.0/24", to, d.pick(&BEHAVIORS), d.pick(&BEHAVIORS));
    }
    if d.once_in(2) {
        let from = d.pick(&["", "203.0.113.50"]);
        n.dnat(Kind::Internet, from, "192.168.1.10", Some((TCP, 80, 90, 8080)));
        n.dnat(Kind::Internet, from, "192.168.2.11", Some((UDP, 53, 53, 53)));
    }
    if d.once_in(3) {
        n.dnat(Kind::Internet, "203.0.113.60", "192.168.1.11", None);
    }
    if d.once_in(3) {
        let from = d.pick(&["192.0.2.77", "192.0.2.2"]);
        n.dnat(Kind::Intranet, from, "192.168.2.10", Some((TCP, 1000, 1100, 1000)));
    }
    if d.once_in(2) {
        n.static_nat(Kind::Internet, "2001:db8:1::/48", "2001:db8:f1::/48");
        n.static_nat(Kind::Internet, "2001:db8:4::/64", "2001:db8:f4:1::/64");
        n.static_nat(Kind::Internet, "192.168.2.0/24", "198.18.2.0/24");
    }
    if d.once_in(3) {
        overlap(d, &mut n);
    }
    n
}

/// VRFs of both LANs where they overlap; what is outside is of the default one.
const VRFS: [VrfNo; 2] = [VrfNo::new(1).unwrap(), VrfNo::new(2).unwrap()];

/// Gives LAN2 the networks and hosts of LAN, each in a VRF of its own, with what NAT says of them. Most of the routes by
/// the WAN port and the line leak into both.
fn overlap(d: &mut Rng, n: &mut Net) {
    let links: Vec<_> = n.routes.extract_if(.., |(_, r)| leads_only_to(r, &[LAN, LAN2])).collect();
    let outside: Vec<_> = n.routes.iter().filter(|(_, r)| leads_only_to(r, &[WAN, LINE])).cloned().collect();
    let lan = n.ports[LAN.index()].clone();
    let lan2 = &mut n.ports[LAN2.index()];
    (lan2.addrs4, lan2.addrs6) = (lan.addrs4, lan.addrs6);
    for (vrf, port) in VRFS.into_iter().zip([LAN, LAN2]) {
        n.ports[port.index()].vrf = vrf;
        for (to, _) in links.iter().filter(|(_, r)| leads_only_to(r, &[LAN])) {
            n.vrf_routes.push((vrf, *to, Route::Via(vec![Member::port(port, None, 1)])));
        }
        for (to, route) in &outside {
            if !d.once_in(12) {
                n.vrf_routes.push((vrf, *to, route.clone()));
            }
        }
    }
    for ip in [INSIDE4[0], INSIDE4[1], INSIDE6[0], INSIDE6[1]] {
        n.neighbor(LAN2, ip);
    }
    for entry in &mut n.nat.dnat {
        (entry.inside.addr, entry.inside.vrf) = moved4(entry.inside.addr);
    }
    for entry in &mut n.nat.prefixes {
        (entry.inside.0, entry.vrf) = moved(entry.inside.0);
    }
}

fn leads_only_to(route: &Route, ports: &[PortIdx]) -> bool {
    matches!(route, Route::Via(m) if !m.is_empty() && m.iter().all(|m| ports.contains(&m.port)))
}

/// The address in LAN that a host of LAN2 has where they overlap, and the VRF of the host.
fn moved4(a: Ipv4Addr) -> (Ipv4Addr, VrfNo) {
    match a.octets() {
        [192, 168, 2, host] => (Ipv4Addr::new(192, 168, 1, host), VRFS[1]),
        _ => (a, VRFS[0]),
    }
}

fn moved(a: IpAddr) -> (IpAddr, VrfNo) {
    match a {
        IpAddr::V4(a) => {
            let (a, vrf) = moved4(a);
            (a.into(), vrf)
        }
        IpAddr::V6(a) => match a.segments() {
            [0x2001, 0xDB8, 4, rest @ ..] => {
                let [a, b, c, d, e] = rest;
                (Ipv6Addr::new(0x2001, 0xDB8, 1, a, b, c, d, e).into(), VRFS[1])
            }
            _ => (a.into(), VRFS[0]),
        },
    }
}

/// The device of a port of [`Net::branch`].
fn dev_of(p: &Pkt) -> u8 {
    match p.dmac {
        m if m == GATEWAY_MACS[WAN.index()] => DEV_WAN,
        m if m == GATEWAY_MACS[LINE.index()] => DEV_LINE,
        _ => DEV_LAN,
    }
}

/// The next frame and the device where it arrives.
pub fn frame(d: &mut Rng, rig: &Rig) -> (u8, Vec<u8>) {
    let (dev, frame) = match d.below(16) {
        0 | 1 => d.frame(),
        n => {
            let known = match n {
                2 => None,
                3 => Some(outside(d)),
                4..=11 => known(d, &rig.snap, &rig.pipe.tables.v4, key4),
                _ => known(d, &rig.snap, &rig.pipe.tables.v6, key6),
            };
            let p = known.unwrap_or_else(|| inside(d, overlapping(&rig.snap)));
            let mut p = vary(d, p);
            if d.once_in(10) {
                // A packet of the session, but not from where it lives.
                p = p.into_port(d.pick(&[LAN, LAN2, WAN, LINE]));
            }
            let mut f = p.build();
            if d.once_in(50) {
                second_tag(&mut f, d);
            }
            if d.once_in(12) {
                zero_sum(&mut f, d);
            }
            if d.once_in(12) {
                d.spoil(&mut f);
            }
            (dev_of(&p), f)
        }
    };
    // What is no device of the gateway has no program either; and what does not fit a test run.
    if dev > DEV_LINE || frame.len() < ETH_LEN || frame.len() > 3200 {
        return self::frame(d, rig);
    }
    (dev, frame)
}

fn transport(d: &mut Rng, src: &str, dst: &str, sport: u16, dport: u16) -> Pkt {
    match d.below(5) {
        0 | 1 => Pkt::tcp(src, dst, sport, dport, d.pick(&[TCP_SYN, TCP_SYN, TCP_ACK])),
        2 | 3 => Pkt::udp(src, dst, sport, dport),
        _ => Pkt::echo(src, dst, sport, false),
    }
}

fn overlapping(snap: &Snapshot) -> bool {
    snap.port(LAN2).is_some_and(|p| !p.vrf.is_default())
}

/// A first packet from inside.
fn inside(d: &mut Rng, overlapping: bool) -> Pkt {
    let (src, dst) = match d.once_in(3) {
        true => (d.pick(&INSIDE6), if d.once_in(8) { d.pick(&EXTERNAL6) } else { d.pick(&FAR6) }),
        false => (d.pick(&INSIDE4), if d.once_in(8) { d.pick(&EXTERNAL) } else { d.pick(&FAR4) }),
    };
    let (a, b) = (4000 + d.below(20) as u16, d.pick(&[53, 80, 1000]));
    let mut p = transport(d, src, dst, a, b);
    let lan2 = src.starts_with("192.168.2.") || src.starts_with("2001:db8:4:");
    if lan2 && overlapping {
        p.src = moved(p.src).0;
        p.fix_l4();
    }
    p.into_port(if lan2 { LAN2 } else { LAN })
}

/// A first packet from outside, to what may be forwarded inside.
fn outside(d: &mut Rng) -> Pkt {
    let port = d.pick(&[WAN, WAN, LINE]);
    if port == WAN && d.once_in(3) {
        let (far, to) = (d.pick(&FAR6[..2]), d.pick(&EXTERNAL6));
        let port = d.pick(&[53, 80]);
        return transport(d, far, to, 5000, port).into_port(WAN);
    }
    let far = if port == WAN { d.pick(&FAR4[..2]) } else { FAR4[3] };
    let to = d.pick(&EXTERNAL);
    let (a, b) = (5000 + d.below(10) as u16, d.pick(&[53, 80, 85, 1000, 1050, 4001]));
    transport(d, far, to, a, b).into_port(port)
}

/// Addresses, protocol, ports in host order, zone and VRF.
type Parts = (IpAddr, IpAddr, u8, (u16, u16), Option<VrfZone>);

fn l4_parts(l4: u64) -> (u8, (u16, u16), Option<VrfZone>) {
    let ports = (u16::from_be(l4 as u16), u16::from_be((l4 >> 16) as u16));
    ((l4 >> 32) as u8, ports, VrfZone::from_byte((l4 >> 40) as u8))
}

fn key4(k: &Key4) -> Parts {
    let addr = |w: u32| IpAddr::V4(Ipv4Addr::from(w.to_le_bytes()));
    let (proto, ports, zone) = l4_parts(k.l4);
    (addr(k.addrs as u32), addr((k.addrs >> 32) as u32), proto, ports, zone)
}

fn key6(k: &Key6) -> Parts {
    let addr = |w: [u64; 2]| {
        let [low, high] = w.map(|w| u128::from(w.swap_bytes()));
        IpAddr::V6(Ipv6Addr::from_bits(low << 64 | high))
    };
    let (proto, ports, zone) = l4_parts(k.l4);
    (addr(k.src), addr(k.dst), proto, ports, zone)
}

/// A packet of some session, one way or the other.
fn known<R: FlowRecord>(
    d: &mut Rng,
    snap: &Snapshot,
    t: &FlowTable<R>,
    parts: fn(&R::Key) -> Parts,
) -> Option<Pkt> {
    let mut some = || d.below(t.used() as usize) as u32;
    let session = (0..20).map(|_| some()).find(|&s| t.meta(s).state.load(Relaxed) != 0)?;
    let r = t.record(RecordNo::both(session)[d.below(2)]);
    let (src, dst, proto, (sport, dport), zone) = parts(&r.key());
    let (s, t) = (src.to_string(), dst.to_string());
    let mut size = d.pick(&SIZES);
    if d.once_in(6) {
        // About as much as the next hop takes.
        let nexthop = usize::from(Action::from_word(r.action().load(Relaxed)).nexthop);
        let mtu = snap.nexthops.get(nexthop).map_or(0, |r| NextHop::load(r).mtu);
        let header = if src.is_ipv4() { 20 } else { 40 } + if proto == TCP { 20 } else { 8 };
        size = (usize::from(mtu) + d.below(4)).saturating_sub(header + 2).min(2900);
    }
    let p = match proto {
        TCP => {
            let flags = match d.below(16) {
                0 => d.roll() as u8,
                1 => TCP_SYN | TCP_ACK,
                _ => d.pick(&[TCP_ACK, TCP_ACK | 8, TCP_ACK | 0xE0]),
            };
            let mut p = Pkt::tcp(&s, &t, sport, dport, flags).payload(size);
            if size >= 12 && d.once_in(4) {
                p.l4[12] = d.pick(&[0x60, 0x80]);
                p.fix_l4();
            }
            p
        }
        UDP => Pkt::udp(&s, &t, sport, dport).payload(size),
        ICMP | ICMPV6 if (proto == ICMP) == src.is_ipv4() => {
            let (query, answer) = if proto == ICMP { ([8, 13], [0, 14]) } else { ([128; 2], [129; 2]) };
            let kind = d.pick(if dport == 0 { &query } else { &answer });
            Pkt::icmp(&s, &t, kind, 0, u32::from(sport.max(dport)) << 16 | 7, &vec![5; size])
        }
        _ => Pkt::new(&s, &t, proto, vec![9; size]),
    };
    let lan2 = zone.is_some_and(|z| z.vrf() == VRFS[1])
        || s.starts_with("192.168.2.")
        || s.starts_with("2001:db8:4:");
    Some(p.into_port(match zone.map(VrfZone::zone) {
        Some(Zone::Wan) => WAN,
        Some(Zone::Overlay) => LINE,
        _ if lan2 != d.once_in(20) => LAN2,
        _ => LAN,
    }))
}

/// What a packet may be besides plain.
fn vary(d: &mut Rng, mut p: Pkt) -> Pkt {
    p.tos = d.roll() as u8;
    p.id = d.roll() as u16;
    p.ttl = d.pick(&[64, 64, 64, 64, 64, 64, 64, 255, 2, 128, 3, 200]);
    if d.once_in(2) {
        p.frag = 0x4000;
    }
    if d.once_in(30) {
        p.ttl = d.pick(&[0, 1]);
    }
    if d.once_in(5) {
        p = p.padded(d.below(47));
    }
    // Transport checksums of all kinds: none, the ends of the range, any.
    let at = match p.proto {
        TCP => 16,
        UDP => 6,
        _ => 2,
    };
    if matches!(p.proto, TCP | UDP | ICMP | ICMPV6) && d.once_in(4) && p.l4.len() >= at + 2 {
        let c = d.pick(&[0, 0xFFFF, 1, 0xFFFE, pseudo_sum(&p), pseudo_sum(&p), d.clone().roll() as u16]);
        p.l4[at..at + 2].copy_from_slice(&c.to_be_bytes());
    }
    match d.below(100) {
        0 if p.src.is_ipv4() => p.options = vec![1, 1, 1, 1],
        1 if p.src.is_ipv6() => p.ext.push((DEST_OPTIONS, vec![0, 1, 4, 0, 0, 0, 0])),
        2 if p.l4.len() > 32 => p = p.fragment(d.below(p.l4.len() / 8) * 8, 24),
        3 => p.dmac.0[5] ^= 0x40,
        4 => p.tag = Some(d.pick(&[0, 5, LAN2_VLAN, LAN2_VLAN | 0xE000])),
        5 => p.frag |= 0x8000,
        6 | 7 => p.tag = p.tag.or(Some(d.pick(&[0, 0xE000]))),
        _ => {}
    }
    p
}

/// Another tag in front.
fn second_tag(f: &mut Vec<u8>, d: &mut Rng) {
    let kind = d.pick(&[ETHERTYPE_VLAN, ETHERTYPE_VLAN, ETHERTYPE_QINQ]).to_be_bytes();
    let tci: u16 = d.pick(&[0, 0, 0xE000, 5, LAN2_VLAN]);
    f.splice(12..12, [kind, tci.to_be_bytes()].concat());
}

/// What is in place of a partial checksum.
fn pseudo_sum(p: &Pkt) -> u16 {
    let octets = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let len = (p.l4.len() as u16).to_be_bytes();
    !checksum(&[&octets(p.src), &octets(p.dst), &[0, p.proto], &len])
}

/// Makes the rest of an IPv4 header sum to nothing, so that both zeros are right as its checksum.
fn zero_sum(f: &mut [u8], d: &mut Rng) {
    let at = if f.get(12..14) == Some(&ETHERTYPE_VLAN.to_be_bytes()) { 18 } else { 14 };
    let Some(ip) = f.get_mut(at..at + IPV4_LEN) else { return };
    if ip[0] != 0x45 {
        return;
    }
    ip[4..6].fill(0);
    ip[10..12].fill(0);
    let id = checksum(&[ip]);
    ip[4..6].copy_from_slice(&id.to_be_bytes());
    ip[10..12].fill(d.pick(&[0, 0xFF]));
}
