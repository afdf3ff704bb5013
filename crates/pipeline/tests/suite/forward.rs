//! Every packet class that is forwarded, handed to the kernel or dropped with a reason.

use super::{check_forward, forwarded};
use sag_model::{DropReason, MacAddr, Zone};
use sag_packet::proto::*;
use sag_pipeline::snapshot::{Member, Route};
use sag_testkit::*;
use std::collections::HashMap;

#[test]
fn every_protocol_in_both_families() {
    let mut rig = Rig::branch();
    let (a4, b4) = ("192.168.1.10", "198.51.100.7");
    let (a6, b6) = ("2001:db8:1::10", "2001:db8:99::7");
    for (a, b, router) in [(a4, b4, "203.0.113.1"), (a6, b6, "2001:db8:2::1")] {
        check_forward(&mut rig, &Pkt::udp(a, b, 5000, 53), WAN, router);
        check_forward(&mut rig, &Pkt::tcp(a, b, 5000, 80, TCP_ACK), WAN, router);
        check_forward(&mut rig, &Pkt::tcp(a, b, 5001, 80, TCP_SYN), WAN, router);
        check_forward(&mut rig, &Pkt::tcp(a, b, 5001, 80, TCP_FIN | TCP_ACK), WAN, router);
        check_forward(&mut rig, &Pkt::tcp(a, b, 5002, 80, TCP_RST), WAN, router);
        check_forward(&mut rig, &Pkt::echo(a, b, 77, false), WAN, router);
        check_forward(&mut rig, &Pkt::echo(a, b, 78, true), WAN, router);
        for proto in [47, 50, 51, 4, 41, 132, 136, 89, 255] {
            check_forward(&mut rig, &Pkt::new(a, b, proto, vec![7; 33]), WAN, router);
        }
        check_forward(&mut rig, &Pkt::new(a, b, 47, vec![]), WAN, router);
    }
    // Other ICMP: timestamp, node information query.
    check_forward(&mut rig, &Pkt::icmp(a4, b4, 13, 0, 9, &[0; 12]), WAN, "203.0.113.1");
    check_forward(&mut rig, &Pkt::icmp(a6, b6, 139, 0, 9, &[0; 12]), WAN, "2001:db8:2::1");
    // ICMP of the other family is a protocol like any other.
    check_forward(&mut rig, &Pkt::new(a4, b4, ICMPV6, vec![1; 4]), WAN, "203.0.113.1");
    check_forward(&mut rig, &Pkt::new(a6, b6, ICMP, vec![3; 4]), WAN, "2001:db8:2::1");
}

#[test]
fn every_icmp_error_kind_passes() {
    let mut rig = Rig::branch();
    let quoted = Pkt::udp("198.51.100.7", "192.168.1.10", 53, 9).ip();
    for kind in [3, 4, 11, 12] {
        for code in 0..16 {
            let p = Pkt::icmp("192.168.1.10", "198.51.100.7", kind, code, 0x0000_0578, &quoted);
            check_forward(&mut rig, &p, WAN, "203.0.113.1");
        }
    }
    let quoted = Pkt::udp("2001:db8:99::7", "2001:db8:1::10", 53, 9).ip();
    for kind in [1, 2, 3, 4, 100, 127] {
        let p = Pkt::icmp("2001:db8:1::10", "2001:db8:99::7", kind, 0, 1280, &quoted);
        check_forward(&mut rig, &p, WAN, "2001:db8:2::1");
    }
    assert_eq!(rig.sessions(), (0, 0), "an error about something makes no session");
}

#[test]
fn ttl_is_counted_down_and_the_checksum_follows() {
    let mut rig = Rig::branch();
    // Many headers with many checksums, every TTL: incremental update against full computation.
    for ttl in 2..=255u8 {
        for id in [0u16, 1, 0x1234, 0x7FFF, 0xFFFE, 0xFFFF].into_iter().chain([u16::from(ttl) * 257]) {
            let mut p = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2).ttl(ttl).tos(ttl ^ 0x5A);
            p.id = id;
            assert_eq!(rig.send(&p), Outcome::Tx(WAN, forwarded(&p, WAN, "203.0.113.1")));
            let p = Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2).ttl(ttl).tos(ttl);
            assert_eq!(rig.send(&p), Outcome::Tx(WAN, forwarded(&p, WAN, "2001:db8:2::1")));
        }
    }
    // Every checksum value there is.
    let mut seen = vec![false; 1 << 16];
    for id in 0..=u16::MAX {
        let mut p = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2);
        p.id = id;
        let out = rig.send(&p);
        assert_eq!(out, Outcome::Tx(WAN, forwarded(&p, WAN, "203.0.113.1")), "identification {id:#x}");
        let f = out.frame();
        seen[usize::from(u16::from_be_bytes([f[24], f[25]]))] = true;
    }
    assert_eq!(seen.iter().filter(|s| !**s).count(), 1, "all but 0xFFFF, which is written as 0");
}

#[test]
fn vlan_in_out_and_between() {
    let mut rig = Rig::branch();
    let out = Pkt::udp("192.168.2.10", "198.51.100.7", 1, 2).into_port(LAN2);
    check_forward(&mut rig, &out, WAN, "203.0.113.1");
    let back = Pkt::udp("198.51.100.7", "192.168.2.10", 2, 1).into_port(WAN);
    check_forward(&mut rig, &back, LAN2, "192.168.2.10");
    let across = Pkt::udp("192.168.1.10", "192.168.2.11", 1, 2);
    check_forward(&mut rig, &across, LAN2, "192.168.2.11");
    let across = Pkt::udp("2001:db8:4::10", "2001:db8:1::11", 1, 2).into_port(LAN2);
    check_forward(&mut rig, &across, LAN, "2001:db8:1::11");
    // Priority and drop-eligible bits do not change the VLAN; VLAN 0 is a priority tag only.
    let urgent = out.clone().tagged(0xF000 | LAN2_VLAN);
    assert_eq!(rig.send(&urgent), Outcome::Tx(WAN, forwarded(&out, WAN, "203.0.113.1")));
    let prio = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2).tagged(0xE000);
    assert_eq!(rig.send(&prio), Outcome::Tx(WAN, forwarded(&prio, WAN, "203.0.113.1")));
    // A tag that nobody configured, on a device with and on one without tagged ports.
    for (dev, tci) in [(DEV_LAN, 101), (DEV_LAN, 4095), (DEV_WAN, LAN2_VLAN), (DEV_LINE, 1)] {
        let f = out.clone().tagged(tci).build();
        assert_eq!(rig.frame(dev, &f), Outcome::Drop(DropReason::VlanUnknown));
    }
    // The VLAN port answers to its own address, not to the untagged port's.
    let wrong = out.clone().link(GATEWAY_MACS[0], MacAddr([2; 6]), LAN2_VLAN);
    assert_eq!(rig.send(&wrong), Outcome::Kernel);
    assert_eq!(rig.frame(9, &out.build()), Outcome::Drop(DropReason::VlanUnknown));
    assert_eq!(rig.frame(9, &across.tagged(0).build()), Outcome::Drop(DropReason::PortNotReady));
}

#[test]
fn link_padding_is_cut() {
    let mut rig = Rig::branch();
    let p = Pkt::new("192.168.1.10", "198.51.100.7", 47, vec![1; 3]).padded(23);
    check_forward(&mut rig, &p, WAN, "203.0.113.1");
}

#[test]
fn ipv4_options_and_ipv6_extension_headers_are_kept() {
    let mut rig = Rig::branch();
    let base = || Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2);
    for options in [&[1, 1, 1, 1][..], &[148, 4, 0, 0], &[7, 7, 4, 0, 0, 0, 0, 0], &[0, 9, 9, 9], &[1; 40]] {
        check_forward(&mut rig, &base().options(options), WAN, "203.0.113.1");
    }
    for (options, reason) in [
        (&[131, 7, 4, 0, 0, 0, 0, 0][..], DropReason::Ip4SourceRoute),
        (&[1, 137, 3, 4], DropReason::Ip4SourceRoute),
        (&[7, 1, 0, 0], DropReason::Ip4BadOptions),
        (&[7, 5, 0, 0], DropReason::Ip4BadOptions),
        (&[1, 1, 1, 7], DropReason::Ip4BadOptions),
    ] {
        assert_eq!(rig.send(&base().options(options)), Outcome::Drop(reason), "{options:?}");
    }
    let base = || Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2);
    let pad6 = [0, 1, 4, 0, 0, 0, 0];
    check_forward(&mut rig, &base().ext(HOP_BY_HOP, &pad6), WAN, "2001:db8:2::1");
    check_forward(&mut rig, &base().ext(DEST_OPTIONS, &pad6), WAN, "2001:db8:2::1");
    // A segment routing header that is used up, then destination options.
    let routing = [0, 4, 0, 0, 0, 0, 0];
    let p = base().ext(HOP_BY_HOP, &pad6).ext(ROUTING, &routing).ext(DEST_OPTIONS, &pad6);
    check_forward(&mut rig, &p, WAN, "2001:db8:2::1");
    // An atomic fragment is a whole packet.
    check_forward(&mut rig, &base().ext(FRAGMENT, &[0, 0, 0, 0, 0, 0, 9]), WAN, "2001:db8:2::1");
    let p = base().ext(ROUTING, &[0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::Ip6RoutingHeader0));
    let p = base().ext(DEST_OPTIONS, &pad6).ext(HOP_BY_HOP, &pad6);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::Ip6BadExtHeaders));
    let many = (0..9).fold(base(), |p, _| p.ext(DEST_OPTIONS, &pad6));
    assert_eq!(rig.send(&many), Outcome::Drop(DropReason::Ip6BadExtHeaders));
    assert_eq!(rig.sessions(), (1, 1), "headers in between do not change the flow");
}

#[test]
fn cut_off_at_every_byte() {
    use DropReason::*;
    let pad6 = [0, 1, 4, 0, 0, 0, 0];
    let frames = [
        Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2),
        Pkt::tcp("192.168.1.10", "198.51.100.7", 1, 2, TCP_SYN).options(&[148, 4, 0, 0]),
        Pkt::echo("192.168.1.10", "198.51.100.7", 1, false),
        Pkt::udp("192.168.2.10", "198.51.100.7", 1, 2).into_port(LAN2),
        Pkt::tcp("2001:db8:1::10", "2001:db8:99::7", 1, 2, TCP_SYN),
        Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2).ext(HOP_BY_HOP, &pad6),
        Pkt::echo("2001:db8:1::10", "2001:db8:99::7", 1, false),
    ];
    for p in frames {
        let f = p.build();
        let link = if p.tag.is_some() { 18 } else { 14 };
        let (cut, bad_len, header) = match p.src.is_ipv4() {
            true => (Ip4Truncated, Ip4BadTotalLength, 20),
            false => (Ip6Truncated, Ip6BadPayloadLength, 40),
        };
        let mut rig = Rig::branch();
        for n in 0..f.len() {
            let want = match n {
                n if n < link => EthTruncated,
                n if n < link + header => cut,
                _ => bad_len,
            };
            // Shorter than an address: nobody's, and cut off.
            assert_eq!(rig.frame(DEV_LAN, &f[..n]), Outcome::Drop(want), "{n} bytes of {p:?}");
        }
        assert_eq!(rig.sessions(), (0, 0));
        assert!(rig.frame(DEV_LAN, &f).is_tx());
    }
}

/// The IP packet is cut, and says so: its length fields are right.
#[test]
fn transport_header_cut_short() {
    use DropReason::*;
    let mut rig = Rig::branch();
    for (a, b) in [("192.168.1.10", "198.51.100.7"), ("2001:db8:1::10", "2001:db8:99::7")] {
        for (proto, header) in [(TCP, 20), (UDP, 8), (if a.contains(':') { ICMPV6 } else { ICMP }, 8)] {
            for n in 0..header {
                let mut p = Pkt::new(a, b, proto, vec![0; n]);
                p.l4 = vec![0x50; n];
                assert_eq!(rig.send(&p), Outcome::Drop(L4Truncated), "{proto} {n}");
            }
        }
        let mut p = Pkt::tcp(a, b, 1, 2, 0);
        for (offset, want) in [(0x40, false), (0x50, true), (0x60, true), (0x70, false), (0xF0, false)] {
            p.l4[12] = offset;
            match want {
                true => assert!(rig.send(&p).is_tx(), "{offset:#x}"),
                false => assert_eq!(rig.send(&p), Outcome::Drop(TcpBadOffset), "{offset:#x}"),
            }
        }
        let mut p = Pkt::udp(a, b, 1, 2);
        for (len, want) in [(0u16, false), (7, false), (8, true), (24, true), (25, false), (65535, false)] {
            p.l4[4..6].copy_from_slice(&len.to_be_bytes());
            match want {
                true => assert!(rig.send(&p).is_tx(), "{len}"),
                false => assert_eq!(rig.send(&p), Outcome::Drop(UdpBadLength), "{len}"),
            }
        }
    }
}

#[test]
fn spoilt_headers() {
    use DropReason::*;
    let mut rig = Rig::branch();
    let good = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2).build();
    let mut spoil = |at: usize, b: u8, want: DropReason| {
        let mut f = good.clone();
        f[at] = b;
        if want != Ip4BadChecksum {
            f[24..26].fill(0);
            let c = checksum(&[&f[14..34]]);
            f[24..26].copy_from_slice(&c.to_be_bytes());
        }
        assert_eq!(rig.frame(DEV_LAN, &f), Outcome::Drop(want), "byte {at} = {b:#x}");
    };
    spoil(14, 0x65, Ip4BadVersion);
    spoil(14, 0x44, Ip4BadIhl);
    spoil(14, 0x40, Ip4BadIhl);
    spoil(17, 19, Ip4BadTotalLength);
    spoil(17, 0xFF, Ip4BadTotalLength);
    spoil(24, good[24] ^ 1, Ip4BadChecksum);
    for at in [15, 18, 19, 22, 23, 26, 29, 30, 33] {
        spoil(at, good[at] ^ 0x10, Ip4BadChecksum);
    }
    let good = Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 1, 2).build();
    let mut f = good.clone();
    f[14] = 0x45;
    assert_eq!(rig.frame(DEV_LAN, &f), Outcome::Drop(Ip6BadVersion));
    let mut f = good.clone();
    f[19] += 1;
    assert_eq!(rig.frame(DEV_LAN, &f), Outcome::Drop(Ip6BadPayloadLength));
}

#[test]
fn what_the_kernel_gets() {
    let mut rig = Rig::branch();
    let mut kernel = |p: Pkt, why: &str| assert_eq!(rig.send(&p), Outcome::Kernel, "{why}");
    kernel(Pkt::echo("192.168.1.10", "192.168.1.1", 1, false), "own address");
    kernel(Pkt::tcp("192.168.1.10", "203.0.113.2", 1, 22, TCP_SYN), "own address of another port");
    kernel(Pkt::udp("192.168.1.10", "192.168.1.255", 1, 2), "subnet broadcast");
    kernel(Pkt::udp("192.168.1.10", "255.255.255.255", 1, 2), "limited broadcast");
    kernel(Pkt::udp("192.168.1.10", "224.0.0.5", 1, 2), "multicast to our own MAC");
    kernel(Pkt::udp("2001:db8:1::10", "ff02::1:2", 1, 2), "IPv6 multicast");
    kernel(Pkt::udp("fe80::10", "fe80::1", 1, 2), "link-local to us");
    kernel(Pkt::udp("fe80::10", "fe80::77", 1, 2), "link-local to somebody");
    kernel(Pkt::echo("192.168.1.10", "192.168.1.1", 1, false).ttl(1), "TTL 1 to us is not in transit");
    kernel(Pkt::udp("192.168.1.10", "192.168.1.1", 1, 2).fragment(8, 8), "fragments for us");
    let broadcast = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2);
    kernel(broadcast.clone().link(MacAddr([0xFF; 6]), MacAddr([2; 6]), 0), "link broadcast");
    kernel(broadcast.clone().link(MacAddr([1, 0, 0x5E, 0, 0, 5]), MacAddr([2; 6]), 0), "link multicast");
    kernel(broadcast.link(MacAddr([2, 9, 9, 9, 9, 9]), MacAddr([2; 6]), 0), "another host's MAC");
    for ethertype in [0x0806u16, 0x88CC, 0x88A8, 0x0026] {
        let mut f = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2).build();
        f[12..14].copy_from_slice(&ethertype.to_be_bytes());
        assert_eq!(rig.frame(DEV_LAN, &f), Outcome::Kernel, "{ethertype:#x}");
    }
    rig.change(|n| {
        n.route("198.51.100.0/24", Route::Local);
    });
    assert_eq!(rig.send(&Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2)), Outcome::Kernel, "local route");
    assert!(rig.emitted().is_empty());
}

#[test]
fn promiscuous_takes_what_is_for_others_but_not_groups() {
    let mut net = Net::branch();
    net.options.promiscuous = true;
    let mut rig = Rig::new(net);
    let p = Pkt::udp("192.168.1.10", "198.51.100.7", 1, 2);
    let other = p.clone().link(MacAddr([2, 9, 9, 9, 9, 9]), MacAddr([2; 6]), 0);
    assert_eq!(rig.send(&other), Outcome::Tx(WAN, forwarded(&p, WAN, "203.0.113.1")));
    assert_eq!(rig.send(&p.link(MacAddr([0xFF; 6]), MacAddr([2; 6]), 0)), Outcome::Kernel);
}

#[test]
fn martians_and_scopes() {
    use DropReason::*;
    let mut rig = Rig::branch();
    let mut check = |src: &str, dst: &str, want: DropReason| {
        assert_eq!(rig.send(&Pkt::udp(src, dst, 1, 2)), Outcome::Drop(want), "{src} to {dst}");
    };
    let (h4, d4) = ("192.168.1.10", "198.51.100.7");
    for src in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        check(src, d4, SourceMartian);
    }
    check(d4, d4, SourceMartian);
    for dst in ["0.0.0.0", "0.9.9.9", "127.0.0.1", "240.0.0.1", "254.1.1.1"] {
        check(h4, dst, DestMartian);
    }
    check("169.254.1.1", d4, LinkLocalScope);
    check(h4, "169.254.1.1", LinkLocalScope);
    check("192.168.1.1", d4, SourceIsOurs);
    check("203.0.113.2", d4, SourceIsOurs);
    check("192.168.1.255", d4, SourceIsOurs);
    let (h6, d6) = ("2001:db8:1::10", "2001:db8:99::7");
    for src in ["::", "::1", "ff02::1"] {
        check(src, d6, SourceMartian);
    }
    check(d6, d6, SourceMartian);
    check(h6, "::", DestMartian);
    check(h6, "::1", DestMartian);
    check("fe80::10", d6, LinkLocalScope);
    check("2001:db8:1::1", d6, SourceIsOurs);
    assert!(rig.emitted().is_empty(), "nobody is notified of any of these");
    assert_eq!(rig.sessions(), (0, 0));
}

#[test]
fn hairpin_on_the_lan() {
    let mut rig = Rig::branch();
    check_forward(&mut rig, &Pkt::udp("192.168.1.10", "192.168.1.11", 1, 2), LAN, "192.168.1.11");
    check_forward(&mut rig, &Pkt::udp("2001:db8:1::10", "2001:db8:1::11", 1, 2), LAN, "2001:db8:1::11");
    check_forward(&mut rig, &Pkt::udp("192.168.1.11", "192.168.1.10", 2, 1), LAN, "192.168.1.10");
    assert_eq!(rig.sessions(), (1, 1));
}

fn two_uplinks(weights: [u16; 3]) -> Net {
    let mut n = Net::branch();
    let members: Vec<_> = weights
        .into_iter()
        .zip(["203.0.113.1", "203.0.113.3", "192.0.2.1"])
        .map(|(weight, via)| {
            let port = if via.starts_with("192") { LINE } else { WAN };
            Member::port(port, Some(via.parse().unwrap()), weight)
        })
        .collect();
    n.neighbor(WAN, "203.0.113.3");
    n.route("100.64.0.0/10", Route::Via(members));
    n
}

/// Where each of so many flows leaves: next hop's MAC.
fn spread(rig: &mut Rig, flows: u16) -> HashMap<MacAddr, usize> {
    let mut seen = HashMap::new();
    for f in 0..flows {
        let p = Pkt::udp("192.168.1.10", "100.64.3.4", 1000 + f, 53);
        let macs: Vec<MacAddr> = (0..3)
            .map(|_| {
                let out = rig.send(&p);
                MacAddr(out.frame()[..6].try_into().unwrap())
            })
            .collect();
        assert!(macs.iter().all(|m| *m == macs[0]), "a flow keeps its way");
        *seen.entry(macs[0]).or_default() += 1;
    }
    seen
}

#[test]
fn multipath_by_weight_and_around_dead_members() {
    let mut rig = Rig::sized(two_uplinks([1, 2, 1]), 20_000);
    let (a, b, c) = (host_mac(WAN, "203.0.113.1"), host_mac(WAN, "203.0.113.3"), host_mac(LINE, "192.0.2.1"));
    let seen = spread(&mut rig, 4000);
    let near = |n: usize, want: usize| n.abs_diff(want) < want / 10;
    assert!(near(seen[&a], 1000) && near(seen[&b], 2000) && near(seen[&c], 1000), "{seen:?}");
    rig.commit(|n| n.ports[LINE.index()].up = false);
    let seen = spread(&mut rig, 3000);
    assert!(near(seen[&a], 1000) && near(seen[&b], 2000) && !seen.contains_key(&c), "{seen:?}");
    // Weight zero counts as one; with every member down the packet meets a port that is down.
    rig.commit(|n| {
        n.ports[WAN.index()].up = false;
        n.ports[LINE.index()].up = false;
    });
    let p = Pkt::udp("192.168.1.10", "100.64.3.4", 1, 53);
    assert_eq!(rig.send(&p), Outcome::Drop(DropReason::EgressDown));
    let mut rig = Rig::sized(two_uplinks([0, 0, 0]), 20_000);
    assert_eq!(spread(&mut rig, 1000).len(), 3);
}

#[test]
fn transit_between_wan_and_line() {
    let mut rig = Rig::branch();
    check_forward(&mut rig, &Pkt::udp("198.51.100.7", "10.20.1.1", 1, 2).into_port(WAN), LINE, "192.0.2.1");
    assert_eq!(rig.snap.port(LINE).map(|p| p.zone), Some(Zone::Overlay));
}
