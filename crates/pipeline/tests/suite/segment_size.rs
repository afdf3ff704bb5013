//! The segment size that SYNs ask for by a port with `mss_clamp` (RFC 9293 3.7.1).

use sag_packet::Family;
use sag_packet::encap::Encap;
use sag_packet::parse::{self, NetworkLayer};
use sag_packet::proto::*;
use sag_pipeline::nat::Behavior;
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::Tunnel;
use sag_testkit::*;

const HOST: &str = "192.168.1.10";
const HOST6: &str = "2001:db8:1::10";
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";

/// The WAN port has the MTU of PPPoE (RFC 2516 section 7).
fn line(mss_clamp: bool) -> Net {
    let mut net = Net::branch();
    (net.ports[WAN.index()].mtu, net.ports[WAN.index()].mss_clamp) = (1492, mss_clamp);
    net
}

/// A SYN, or the answer to one, that asks for segments of `mss` bytes.
fn syn((src, dst): (&str, &str), (sport, dport): (u16, u16), answers: bool, mss: u16) -> Pkt {
    let flags = if answers { TCP_SYN | TCP_ACK } else { TCP_SYN };
    let mut p = Pkt::tcp(src, dst, sport, dport, flags);
    let [a, b] = mss.to_be_bytes();
    p.l4.splice(20..20, [2, 4, a, b]);
    p.l4[12] = 0x60;
    if answers {
        p.l4[8..12].copy_from_slice(&2u32.to_be_bytes());
    }
    p.fix_l4();
    if answers { p.into_port(WAN) } else { p }
}

fn mss(out: &Outcome) -> u16 {
    let f = out.frame();
    let (_, ethertype, l3) = parse::link(f).unwrap();
    let Ok(NetworkLayer::Ip(p)) = parse::parse(f, ethertype, l3) else { panic!("{out:?}") };
    let tcp = &f[usize::from(p.l4_at)..];
    u16::from_be_bytes([tcp[22], tcp[23]])
}

#[test]
fn both_directions_fit_the_port_and_nothing_else_is_changed() {
    for (host, far, via, fits) in [(HOST, FAR, "203.0.113.1", 1452), (HOST6, FAR6, "2001:db8:2::1", 1432)] {
        let mut rig = Rig::new(line(true));
        // The whole packet is what it would be had the host asked for less: checksums included. Repeated SYNs too.
        for _ in 0..2 {
            let Outcome::Tx(WAN, got) = rig.send(&syn((host, far), (1, 2), false, 1460)) else {
                panic!("{host}")
            };
            assert_eq!(got, syn((host, far), (1, 2), false, fits).forwarded(WAN, via));
        }
        let Outcome::Tx(LAN, got) = rig.send(&syn((far, host), (2, 1), true, 8960)) else { panic!("{host}") };
        assert_eq!(got, syn((far, host), (2, 1), true, fits).forwarded(LAN, host));
        // What is small stays small.
        assert_eq!(mss(&rig.send(&syn((host, far), (3, 2), false, 536))), 536);

        let mut rig = Rig::new(line(false));
        assert_eq!(mss(&rig.send(&syn((host, far), (1, 2), false, 1460))), 1460);
        assert_eq!(mss(&rig.send(&syn((far, host), (2, 1), true, 1460))), 1460);
    }
}

/// Translated packets are of the session's addresses and of the port's segment size. They keep their identification, as
/// what must not be fragmented does (RFC 6864 5.1).
#[test]
fn with_source_nat() {
    let mut net = line(true);
    net.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::EndpointIndependent);
    let mut rig = Rig::new(net);
    let Outcome::Tx(WAN, got) = rig.send(&syn((HOST, FAR), (4000, 80), false, 1460).df()) else { panic!() };
    assert_eq!(got, syn(("203.0.113.2", FAR), (4000, 80), false, 1452).df().forwarded(WAN, "203.0.113.1"));
    let Outcome::Tx(LAN, got) = rig.send(&syn((FAR, "203.0.113.2"), (80, 4000), true, 1460).df()) else {
        panic!()
    };
    assert_eq!(got, syn((FAR, HOST), (80, 4000), true, 1452).df().forwarded(LAN, HOST));
}

/// A route may have a smaller MTU than its port.
#[test]
fn a_routes_mtu_counts() {
    let mut net = line(true);
    let via = Member::port(WAN, Some("203.0.113.1".parse().unwrap()), 1);
    net.route("0.0.0.0/0", Route::Via(vec![Member { mtu: 1400, ..via }]));
    let mut rig = Rig::new(net);
    assert_eq!(mss(&rig.send(&syn((HOST, FAR), (1, 2), false, 1460).df())), 1360);
    // Whatever the route says, the port takes no more.
    let mut net = line(true);
    let via = Member::port(WAN, Some("203.0.113.1".parse().unwrap()), 1);
    net.route("0.0.0.0/0", Route::Via(vec![Member { mtu: 1500, ..via }]));
    assert_eq!(mss(&Rig::new(net).send(&syn((HOST, FAR), (1, 2), false, 1460).df())), 1452);
}

/// An IPv6 host calls an IPv4 one by the port (RFC 6146): on the line the packet is of IPv4, whose header is shorter.
#[test]
fn of_the_family_on_the_line() {
    const FAR64: &str = "2001:db8:64::c633:6407";
    const OWN: &str = "203.0.113.50";
    let mut net = line(true);
    net.nat64("2001:db8:64::/96", &[OWN], Behavior::AddressDependent);
    let mut rig = Rig::new(net);
    assert_eq!(mss(&rig.send(&syn((HOST6, FAR64), (1, 2), false, 1460).df())), 1452);
    assert_eq!(mss(&rig.send(&syn((FAR, OWN), (2, 1), true, 1460).df())), 1452);
}

/// A tunnel over the port has its own bound, and its own switch.
#[test]
fn what_goes_into_a_tunnel_is_the_tunnels() {
    for (clamps, asked) in [(true, 1492 - 20 - 40), (false, 1460)] {
        let mut net = line(true);
        let t = test_tunnel(1, Encap::Ipip, Family::V4);
        net.tunnel(Tunnel { mss_clamp: clamps, ..t });
        let out = Rig::new(net).send(&syn((HOST, "10.30.0.1"), (1, 2), false, 1460).df());
        let inner = &out.frame()[14 + 20..];
        assert_eq!(u16::from_be_bytes([inner[42], inner[43]]), asked);
    }
}
