//! The parser against etherparse, at every truncation, and on noise.

use etherparse::PacketBuilder;
use proptest::prelude::*;
use sag_model::DropReason;
use sag_packet::parse::{self, Fragment, L4, NetworkLayer};
use sag_packet::{Parsed, checksum};

fn see(frame: &[u8]) -> Result<NetworkLayer, DropReason> {
    let (_, ethertype, l3) = parse::link(frame)?;
    parse::parse(frame, ethertype, l3)
}

fn ip(frame: &[u8]) -> Parsed {
    match see(frame) {
        Ok(NetworkLayer::Ip(p)) => p,
        other => panic!("{other:?}"),
    }
}

fn tcp4() -> Vec<u8> {
    let b = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([192, 0, 2, 1], [198, 51, 100, 2], 64)
        .tcp(1234, 443, 7, 1000)
        .syn();
    let mut v = Vec::new();
    b.write(&mut v, &[9; 11]).unwrap();
    v
}

fn udp6_vlan() -> Vec<u8> {
    let b = PacketBuilder::ethernet2([2; 6], [4; 6])
        .single_vlan(100.try_into().unwrap())
        .ipv6([0x20; 16], [0x21; 16], 9)
        .udp(53, 5353);
    let mut v = Vec::new();
    b.write(&mut v, &[1, 2, 3]).unwrap();
    v
}

#[test]
fn tcp_over_ipv4() {
    let f = tcp4();
    let p = ip(&f);
    assert_eq!(p.l4, L4::Tcp { flags: 2 });
    assert_eq!((p.ttl, p.ip_len, p.l3, p.l4_at), (64, 51, 14, 34));
    assert_eq!(p.ports(), (1234, 443));
    assert_eq!(p.src4().octets(), [192, 0, 2, 1]);
    assert_eq!(p.dst4().octets(), [198, 51, 100, 2]);
    assert_eq!(p.fragment, Fragment::Whole);
}

#[test]
fn udp_over_ipv6_in_a_vlan() {
    let f = udp6_vlan();
    assert_eq!(parse::link(&f), Ok((100, 0x86DD, 18)));
    let p = ip(&f);
    assert_eq!((p.l4, p.ports(), p.ttl), (L4::Udp, (53, 5353), 9));
    assert_eq!(p.src6(&f).octets(), [0x20; 16]);
    assert_eq!(p.dst6(&f).octets(), [0x21; 16]);
}

/// What the kernel makes of tags, so that a frame is no other one there: priority tags are none, of 802.1Q and 802.1ad alike.
#[test]
fn priority_tags_are_no_tags() {
    let tagged = |tags: &[(u16, u16)]| {
        let plain = tcp4();
        let mut f = plain[..12].to_vec();
        tags.iter().for_each(|(kind, tci)| f.extend([kind.to_be_bytes(), tci.to_be_bytes()].concat()));
        f.extend(&plain[12..]);
        f
    };
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88A8;
    for tag in [(Q, 0), (Q, 0xE000), (AD, 0), (AD, 0x1000)] {
        let f = tagged(&[tag]);
        assert_eq!(parse::link(&f), Ok((0, 0x0800, 18)), "{tag:x?}");
        assert_eq!(ip(&f).ports(), (1234, 443));
        for n in 14..18 {
            assert_eq!(parse::link(&f[..n]), Err(DropReason::EthTruncated), "{tag:x?} at {n}");
        }
    }
    let unknown = Err(DropReason::VlanUnknown);
    for (tags, want) in [
        ([(Q, 0), (Q, 0)], unknown),
        ([(Q, 0), (Q, 100)], unknown),
        ([(Q, 100), (Q, 0xE000)], unknown),
        ([(AD, 0), (Q, 100)], unknown),
        ([(Q, 100), (AD, 0)], unknown),
        ([(Q, 100), (Q, 200)], Ok((100, Q, 18))),
        ([(AD, 100), (Q, 0)], Ok((0, AD, 14))),
    ] {
        assert_eq!(parse::link(&tagged(&tags)), want, "{tags:x?}");
    }
    assert_eq!(parse::link(&tagged(&[(Q, 100), (Q, 200)])[..21]), unknown);
}

#[test]
fn every_truncation_has_a_reason() {
    for (frame, l3, l4, min) in [(tcp4(), 14, 34, 54), (udp6_vlan(), 18, 58, 66)] {
        for n in 0..frame.len() {
            let got = see(&frame[..n]).expect_err(&format!("{n} bytes of {} parsed", frame.len()));
            let v6 = l3 == 18;
            let want = match n {
                n if n < l3 => DropReason::EthTruncated,
                n if n < l4 && v6 => DropReason::Ip6Truncated,
                n if n < l4 => DropReason::Ip4Truncated,
                _ if v6 => DropReason::Ip6BadPayloadLength,
                _ => DropReason::Ip4BadTotalLength,
            };
            assert_eq!(got, want, "at {n}");
        }
        // The same cuts with lengths that claim to fit: the transport header is short.
        for n in l4..min {
            let mut f = frame[..n].to_vec();
            if l3 == 14 {
                f[16..18].copy_from_slice(&((n - 14) as u16).to_be_bytes());
                f[24..26].fill(0);
                let c = checksum::finish(checksum::sum(&f[14..34]));
                f[24..26].copy_from_slice(&c.to_ne_bytes());
            } else {
                f[22..24].copy_from_slice(&((n - 58) as u16).to_be_bytes());
            }
            assert_eq!(see(&f), Err(DropReason::L4Truncated), "at {n}");
        }
    }
}

/// One field of a good packet is spoilt; the reason names it.
#[test]
fn spoilt_fields() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: &[(&str, Spoil, DropReason)] = &[
        ("version", |f| f[14] = 0x65, DropReason::Ip4BadVersion),
        ("ihl 4", |f| f[14] = 0x44, DropReason::Ip4BadIhl),
        ("ihl beyond the packet", |f| f[14] = 0x4F, DropReason::Ip4BadIhl),
        ("total length 19", |f| f[16..18].copy_from_slice(&[0, 19]), DropReason::Ip4BadTotalLength),
        ("total length beyond", |f| f[16..18].copy_from_slice(&[0, 52]), DropReason::Ip4BadTotalLength),
        ("checksum", |f| f[24] ^= 1, DropReason::Ip4BadChecksum),
        ("data offset 4", |f| f[46] = 0x40, DropReason::TcpBadOffset),
        ("data offset beyond", |f| f[46] = 0xF0, DropReason::TcpBadOffset),
    ];
    for (what, spoil, want) in cases {
        let mut f = tcp4();
        spoil(&mut f);
        if what.starts_with("ihl beyond") {
            f[16..18].copy_from_slice(&[0, 40]);
        }
        assert_eq!(see(&f), Err(*want), "{what}");
    }
    let mut f = udp6_vlan();
    f[18] = 0x40;
    assert_eq!(see(&f), Err(DropReason::Ip6BadVersion));
    let mut f = udp6_vlan();
    f[62..64].copy_from_slice(&[0, 7]);
    assert_eq!(see(&f), Err(DropReason::UdpBadLength));
    f[62..64].copy_from_slice(&[0, 12]);
    assert_eq!(see(&f), Err(DropReason::UdpBadLength));
}

fn ipv4_raw(flags_frag: u16, options: &[u8], proto: u8, payload: &[u8]) -> Vec<u8> {
    let ihl = 20 + options.len();
    let mut f = vec![0u8; 14];
    f[12..14].copy_from_slice(&[8, 0]);
    let mut h = vec![0u8; 20];
    h[0] = 0x40 | (ihl / 4) as u8;
    h[2..4].copy_from_slice(&((ihl + payload.len()) as u16).to_be_bytes());
    h[4..6].copy_from_slice(&[0x12, 0x34]);
    h[6..8].copy_from_slice(&flags_frag.to_be_bytes());
    h[8] = 64;
    h[9] = proto;
    h[12..20].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 2]);
    h.extend_from_slice(options);
    let c = checksum::finish(checksum::sum(&h));
    h[10..12].copy_from_slice(&c.to_ne_bytes());
    f.extend_from_slice(&h);
    f.extend_from_slice(payload);
    f
}

#[test]
fn fragments() {
    assert_eq!(
        ip(&ipv4_raw(0x2000, &[], 17, &[0, 53, 0, 53, 0, 99, 0, 0, 1])).fragment,
        Fragment::First { id: 0x1234 }
    );
    let later = ip(&ipv4_raw(0x2000 | 185, &[], 17, &[1, 2, 3]));
    assert_eq!(later.fragment, Fragment::Later { id: 0x1234, offset: 1480 });
    assert_eq!((later.sport, later.dport, later.l4), (0, 0, L4::Other));
    assert_eq!(see(&ipv4_raw(0x2000, &[], 17, &[0, 53, 0])), Err(DropReason::FragmentTiny));
    assert_eq!(see(&ipv4_raw(0x2000, &[], 6, &[0; 16])), Err(DropReason::FragmentTiny));
}

#[test]
fn ipv4_options() {
    let udp = [0, 53, 0, 53, 0, 8, 0, 0];
    let router_alert = ipv4_raw(0, &[148, 4, 0, 0], 17, &udp);
    assert!(ip(&router_alert).options);
    for (opts, want) in [
        ([131u8, 3, 4, 0], DropReason::Ip4SourceRoute),
        ([137, 3, 4, 0], DropReason::Ip4SourceRoute),
        ([1, 7, 9, 0], DropReason::Ip4BadOptions),
        ([7, 1, 0, 0], DropReason::Ip4BadOptions),
        ([1, 1, 1, 7], DropReason::Ip4BadOptions),
    ] {
        assert_eq!(see(&ipv4_raw(0, &opts, 17, &udp)), Err(want), "{opts:?}");
    }
    assert!(ip(&ipv4_raw(0, &[0, 131, 3, 4], 17, &udp)).options, "nothing is read after the end of the list");
}

fn ipv6_raw(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![0u8; 14];
    f[12..14].copy_from_slice(&[0x86, 0xDD]);
    f.extend_from_slice(&[0x60, 0, 0, 0]);
    f.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    f.extend_from_slice(&[next, 64]);
    f.extend_from_slice(&[0x20; 32]);
    f.extend_from_slice(payload);
    f
}

#[test]
fn ipv6_extension_headers() {
    let udp = [0u8, 53, 0, 53, 0, 8, 0, 0];
    let chain = |headers: &[&[u8]]| headers.concat();
    let opt = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let frag = |next: u8, word: u16| {
        let w = word.to_be_bytes();
        [next, 0, w[0], w[1], 0, 0, 0, 7]
    };
    let p = ip(&ipv6_raw(0, &chain(&[&opt(60), &opt(17), &udp])));
    assert_eq!((p.proto, p.options, p.l4_at), (17, true, 70));
    let p = ip(&ipv6_raw(44, &chain(&[&frag(17, 1), &[0, 53, 0, 53, 0, 99, 0, 0]])));
    assert_eq!((p.fragment, p.l4), (Fragment::First { id: 7 }, L4::Udp));
    let p = ip(&ipv6_raw(44, &chain(&[&frag(17, 1480), &[1]])));
    assert_eq!(p.fragment, Fragment::Later { id: 7, offset: 1480 });
    assert_eq!(
        ip(&ipv6_raw(44, &chain(&[&frag(17, 0), &udp]))).fragment,
        Fragment::Whole,
        "an atomic fragment"
    );
    let bad = Err(DropReason::Ip6BadExtHeaders);
    assert_eq!(see(&ipv6_raw(60, &chain(&[&opt(0), &opt(17), &udp]))), bad, "hop-by-hop after another");
    assert_eq!(see(&ipv6_raw(60, &[17, 9, 0, 0, 0, 0, 0, 0])), bad, "longer than the packet");
    assert_eq!(see(&ipv6_raw(60, &[17, 0, 0])), bad, "cut");
    let nine: Vec<u8> = [&opt(60)[..]; 9].concat();
    assert_eq!(see(&ipv6_raw(60, &nine)), bad, "too many");
    assert_eq!(
        see(&ipv6_raw(43, &chain(&[&[17, 0, 0, 1, 0, 0, 0, 0], &udp]))),
        Err(DropReason::Ip6RoutingHeader0)
    );
}

#[test]
fn icmp_kinds() {
    let kind = |t: u8| ip(&ipv4_raw(0, &[], 1, &[t, 3, 0, 0, 0x11, 0x22, 0, 1]));
    assert_eq!((kind(8).l4, kind(8).ports()), (L4::Echo { reply: false }, (0x1122, 0)));
    assert_eq!((kind(0).l4, kind(0).ports()), (L4::Echo { reply: true }, (0, 0x1122)));
    assert_eq!(kind(3).l4, L4::IcmpError { kind: 3, code: 3 });
    assert_eq!(
        (kind(13).l4, kind(13).ports()),
        (L4::Echo { reply: false }, (0x1122, 0)),
        "a timestamp request"
    );
    assert_eq!((kind(14).l4, kind(14).ports()), (L4::Echo { reply: true }, (0, 0x1122)));
    assert_eq!((kind(10).l4, kind(10).ports()), (L4::IcmpOther { kind: 10, code: 3 }, (0, 0)));
    let kind6 = |t: u8| ip(&ipv6_raw(58, &[t, 0, 0, 0, 0x11, 0x22, 0, 1])).l4;
    assert_eq!(kind6(128), L4::Echo { reply: false });
    assert_eq!(kind6(2), L4::IcmpError { kind: 2, code: 0 });
    assert_eq!(kind6(135), L4::IcmpOther { kind: 135, code: 0 });
}

#[test]
fn link_padding_is_not_payload() {
    let mut f = ipv4_raw(0, &[], 17, &[0, 53, 0, 53, 0, 8, 0, 0]);
    f.resize(60, 0xFF);
    let p = ip(&f);
    assert_eq!((p.ip_len, p.ip(&f).len()), (28, 28));
}

proptest! {
    #[test]
    fn noise_never_panics_and_offsets_stay_inside(mut f in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..4) {
        let types: [[u8; 2]; 4] = [[8, 0], [0x86, 0xDD], [0x81, 0], [0, 0]];
        if f.len() > 18 {
            f[12..14].copy_from_slice(&types[kind]);
            f[14] = if kind == 0 { 0x45 } else { 0x60 };
        }
        if let Ok(NetworkLayer::Ip(p)) = see(&f) {
            prop_assert!(usize::from(p.l3) + usize::from(p.ip_len) <= f.len());
            prop_assert!(usize::from(p.l4_at) <= f.len());
            prop_assert_eq!(p.ip(&f).len(), usize::from(p.ip_len));
        }
    }

    #[test]
    fn agrees_with_etherparse(src in any::<[u8; 4]>(), dst in any::<[u8; 4]>(), sport in any::<u16>(), dport in any::<u16>(), ttl in 1u8..255, data in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut f = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, ttl).udp(sport, dport).write(&mut f, &data).unwrap();
        let p = ip(&f);
        prop_assert_eq!((p.src4().octets(), p.dst4().octets(), p.ports(), p.ttl), (src, dst, (sport, dport), ttl));
        prop_assert_eq!(p.fragment, Fragment::Whole);
    }
}
