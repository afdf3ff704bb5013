//! Whom the gateway answers for on the inner link of a VXLAN tunnel, whose far end may have routes that name no router.

use sag_packet::encap::Encap;
use sag_packet::parse::Family;
use sag_packet::proto::*;
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The peer's addresses inside.
const ASKER4: &str = "10.255.0.2";
const ASKER6: &str = "fd00::2";
/// Of an outer packet over IPv4 in front of the packet inside, link header included.
const FRONT: usize = ETH_LEN + 36 + ETH_LEN;

fn own_tunnel() -> Tunnel {
    test_tunnel(1, vxlan(100), Family::V4)
}

/// A branch with routes of every kind, and another tunnel.
fn rig(t: Tunnel) -> Rig {
    let mut net = Net::branch();
    let other = Tunnel {
        remote: "198.51.100.10".parse().unwrap(),
        addrs4: vec![],
        addrs6: vec![],
        ..test_tunnel(2, vxlan(200), Family::V4)
    };
    net.tunnel(t.clone());
    let into = |no: u8| Member::tunnel(tunnel_no(no), 1);
    for (v4, v6, route) in [
        ("10.255.0.0/30", "fd00::/64", Route::Via(vec![into(1)])),
        ("10.40.0.0/16", "2001:db8:40::/48", Route::Via(vec![into(2)])),
        ("10.41.0.0/16", "2001:db8:41::/48", Route::Via(vec![into(1), into(2)])),
        ("10.66.0.0/16", "2001:db8:66::/48", Route::Blackhole),
        ("10.67.0.0/16", "2001:db8:67::/48", Route::Unreachable),
        ("10.68.0.0/16", "2001:db8:68::/48", Route::Prohibit),
        ("10.69.0.0/16", "2001:db8:69::/48", Route::NotOurs),
        ("10.70.0.0/16", "2001:db8:70::/48", Route::Throw),
    ] {
        net.route(v4, route.clone()).route(v6, route);
    }
    net.tunnels.push(other);
    Rig::new(net)
}

fn bytes(a: IpAddr) -> Vec<u8> {
    match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn arp(t: &Tunnel, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut f = frame_from_peer(t, &[0x45; 28], 0, true);
    let eth = FRONT - ETH_LEN;
    f[eth..eth + 6].fill(0xFF);
    f[FRONT - 2..FRONT].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    let mac = TUNNEL_MACS[1].0;
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1], &mac[..], &sender.octets(), &[0; 6], &target.octets()].concat();
    f[FRONT..].copy_from_slice(&body);
    f
}

fn solicitation(t: &Tunnel, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}");
    let mut data = target.octets().to_vec();
    if !source.is_unspecified() {
        data.extend([1, 1].iter().chain(&TUNNEL_MACS[1].0));
    }
    let mut p = Pkt::icmp(&source.to_string(), &group, 135, 0, 0, &data);
    p.ttl = 255;
    frame_from_peer(t, &p.ip(), 0, true)
}

/// Asks through the tunnel. Whether there is an answer, and of what kind.
fn ask(r: &mut Rig, t: &Tunnel, from: &str, target: &str) -> Option<&'static str> {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), target.parse().unwrap());
    let frame = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => arp(t, from, to),
        (IpAddr::V6(from), IpAddr::V6(to)) => solicitation(t, from, to),
        _ => panic!("of one family"),
    };
    r.frame(DEV_WAN, &frame);
    let made = r.emitted();
    let [(WAN, out)] = &made[..] else {
        assert!(made.is_empty(), "{target}: {made:?}");
        return None;
    };
    let (peer, mac) = (TUNNEL_MACS[1].0, TUNNEL_MACS[0].0);
    assert_eq!((&out[FRONT - ETH_LEN..FRONT - 8], &out[FRONT - 8..FRONT - 2]), (&peer[..], &mac[..]));
    let inside = &out[FRONT..];
    if to.is_ipv4() {
        let body = [&[0, 1, 8, 0, 6, 4, 0, 2], &mac[..], &bytes(to), &peer, &bytes(from)].concat();
        assert_eq!(inside, body, "{target}");
        return Some("reply");
    }
    assert_eq!((inside[7], &inside[8..24], &inside[24..40]), (255, &bytes(to)[..], &bytes(from)[..]));
    let icmp = &inside[40..];
    assert_eq!((&icmp[8..24], &icmp[24..26], &icmp[26..]), (&bytes(to)[..], &[2, 1][..], &mac[..]));
    assert_eq!(checksum(&[&inside[8..40], &[0, 0, 0, 32, 0, 0, 0, ICMPV6], icmp]), 0, "{target}");
    // Router, solicited, override; of others neither the first nor the last.
    match (icmp[0], icmp[4]) {
        (136, 0xE0) => Some("own"),
        (136, 0x40) => Some("proxy"),
        other => panic!("{target}: {other:?}"),
    }
}

#[test]
fn hosts_that_the_gateway_forwards_to_are_answered_for() {
    let t = own_tunnel();
    let mut r = rig(t.clone());
    // LAN with and without a neighbor, the gateway's own there, Internet, line, another tunnel.
    for a in [
        "10.255.0.1",
        "192.168.1.10",
        "192.168.2.77",
        "192.168.1.1",
        "198.51.100.7",
        "10.20.3.4",
        "10.40.0.1",
    ] {
        assert_eq!(ask(&mut r, &t, ASKER4, a), Some("reply"), "{a}");
    }
    assert_eq!(ask(&mut r, &t, ASKER6, "fd00::1"), Some("own"));
    for a in ["1::10", "4::77", "1::1", "99::7", "20::4", "40::1"].map(|a| format!("2001:db8:{a}")) {
        assert_eq!(ask(&mut r, &t, ASKER6, &a), Some("proxy"), "{a}");
    }
}

#[test]
fn what_is_behind_the_tunnel_or_nowhere_is_not() {
    let t = own_tunnel();
    let mut r = rig(t.clone());
    // Back through the tunnel, alone or with another; no way; the outer addresses; what is of one link.
    let mut none = vec!["10.255.0.3", "10.30.0.7", "10.41.0.1", "203.0.113.2", "198.51.100.9"];
    none.extend(["10.66.0.1", "10.67.0.1", "10.68.0.1", "10.69.0.1", "10.70.0.1", "192.168.1.255"]);
    none.extend(["224.0.0.5", "127.0.0.1", "169.254.1.1", "255.255.255.255", "0.0.0.0"]);
    for a in none {
        assert_eq!(ask(&mut r, &t, ASKER4, a), None, "{a}");
    }
    for a in ["30::7", "41::1", "66::1", "67::1", "68::1", "69::1", "70::1"].map(|a| format!("2001:db8:{a}"))
    {
        assert_eq!(ask(&mut r, &t, ASKER6, &a), None, "{a}");
    }
    for a in ["fd00::9", "fe80::1", "fe80::77", "::1", "ff02::5"] {
        assert_eq!(ask(&mut r, &t, ASKER6, a), None, "{a}");
    }
    // A tunnel, then a line that is down.
    r.snap.tunnel(Some(tunnel_no(2))).unwrap().state.set_up(false);
    r.change(|n| n.ports[LINE.index()].up = false);
    for (from, a) in
        [(ASKER4, "10.40.0.1"), (ASKER6, "2001:db8:40::1"), (ASKER4, "10.20.3.4"), (ASKER6, "2001:db8:20::4")]
    {
        assert_eq!(ask(&mut r, &t, from, a), None, "{a}");
    }
}

/// RFC 5227, RFC 4862 5.4: an answer to who probes for its own address would keep it from taking it.
#[test]
fn nobody_is_kept_from_its_own_address() {
    let t = own_tunnel();
    let mut r = rig(t.clone());
    for a in ["192.168.1.10", "198.51.100.7"] {
        assert_eq!(ask(&mut r, &t, "0.0.0.0", a), None, "probe for {a}");
        assert_eq!(ask(&mut r, &t, a, a), None, "announcement of {a}");
    }
    assert_eq!(ask(&mut r, &t, "::", "2001:db8:1::10"), None);
    assert_eq!(ask(&mut r, &t, "0.0.0.0", "10.255.0.1"), Some("reply"), "that address is the gateway's");
}

#[test]
fn without_the_key_for_its_own_addresses_alone() {
    let t = Tunnel { proxy_arp: false, ..own_tunnel() };
    let mut r = rig(t.clone());
    assert_eq!(ask(&mut r, &t, ASKER4, "10.255.0.1"), Some("reply"));
    assert_eq!(ask(&mut r, &t, ASKER6, "fd00::1"), Some("own"));
    for (from, a) in [(ASKER4, "192.168.1.10"), (ASKER4, "192.168.1.1"), (ASKER6, "2001:db8:1::10")] {
        assert_eq!(ask(&mut r, &t, from, a), None, "{a}");
    }
}

/// Tunnels without Ethernet inside have no one to ask.
#[test]
fn there_are_no_questions_without_ethernet() {
    let t = test_tunnel(1, Encap::Gre { key: None, checksum: false, sequence: false }, Family::V4);
    let mut r = rig(t.clone());
    let mut p = Pkt::icmp(
        ASKER6,
        "ff02::1:ff00:10",
        135,
        0,
        0,
        &"2001:db8:1::10".parse::<Ipv6Addr>().unwrap().octets(),
    );
    p.ttl = 255;
    r.frame(DEV_WAN, &frame_from_peer(&t, &p.ip(), 0, true));
    assert_eq!(r.emitted(), []);
}
