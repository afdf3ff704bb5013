use super::*;
use crate::checksum;
use crate::parse::{Family, Fragment, NetworkLayer, Parsed, parse};
use crate::proto::*;
use crate::rewrite::FrameMut;
use etherparse::PacketBuilder;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const ROOM: usize = 128;
const CLIENT6: &str = "2001:db8:1::10";
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
const POOL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

fn v6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

fn server6() -> Ipv6Addr {
    Prefix64::WELL_KNOWN.embed(SERVER)
}

fn ports(s: u16, d: u16) -> (u16, u16) {
    (s.to_be(), d.to_be())
}

fn parsed(frame: &[u8]) -> Parsed {
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    match parse(frame, ethertype, 14) {
        Ok(NetworkLayer::Ip(p)) => p,
        other => panic!("{other:?}: {frame:02x?}"),
    }
}

/// An Ethernet frame around a packet.
fn framed(ip: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xDD] };
    [&[2u8; 12][..], &ethertype, ip].concat()
}

/// Translates a frame, checks that what comes out parses to what the translation says, and gives its packet.
fn translated(
    frame: &[u8],
    by: impl Fn(&mut FrameMut<'_>, &Parsed) -> Result<Parsed, Untranslatable>,
) -> Result<Vec<u8>, Untranslatable> {
    let mut buf = vec![0xEE; ROOM];
    buf.extend_from_slice(frame);
    let mut f = FrameMut::new(&mut buf, ROOM, frame.len());
    let p = by(&mut f, &parsed(frame))?;
    let ethertype = if p.family == Family::V4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    f.bytes_mut()[12..14].copy_from_slice(&ethertype.to_be_bytes());
    let again = parsed(f.bytes());
    // Of a later fragment the caller alone knows the ports.
    let known = match again.fragment {
        Fragment::Later { .. } => {
            Parsed { sport: again.sport, dport: again.dport, message: again.message, l4: again.l4, ..p }
        }
        _ => p,
    };
    assert_eq!(known, again);
    Ok(p.ip(f.bytes()).to_vec())
}

fn out4(frame: &[u8]) -> Result<Vec<u8>, Untranslatable> {
    let ends = Ends4 { src: POOL, dst: SERVER, ports: ports(40001, 80) };
    translated(frame, |f, p| to_v4(f, p, &ends, 0x1234))
}

fn out6(frame: &[u8]) -> Result<Vec<u8>, Untranslatable> {
    let ends = Ends6 { src: server6(), dst: v6(CLIENT6), ports: ports(80, 5000) };
    translated(frame, |f, p| to_v6(f, p, &ends))
}

/// The full checksum of what a packet carries, computed afresh, is right.
fn sound(ip: &[u8]) -> bool {
    let (addrs, proto, payload) = match ip[0] >> 4 {
        4 => {
            assert_eq!(checksum::fold(checksum::sum(&ip[..20])), 0xFFFF, "header checksum");
            (&ip[12..20], ip[9], &ip[20..])
        }
        _ => (&ip[8..40], ip[6], &ip[40..]),
    };
    let sum = checksum::sum(payload);
    checksum::fold(if proto == ICMP { sum } else { sum + checksum::pseudo(addrs, proto, payload.len()) })
        == 0xFFFF
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(v6(CLIENT6).octets(), server6().octets(), 64)
        .udp(5000, 80)
        .write(&mut out, payload)
        .unwrap();
    out
}

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(SERVER.octets(), POOL.octets(), 64)
        .udp(80, 40001)
        .write(&mut out, payload)
        .unwrap();
    out
}

#[test]
fn addresses_of_rfc_6052_section_2_4() {
    let examples = [
        ("2001:db8::", 32, "2001:db8:c000:221::"),
        ("2001:db8:100::", 40, "2001:db8:1c0:2:21::"),
        ("2001:db8:122::", 48, "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::", 56, "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::", 64, "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::", 96, "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::", 96, "64:ff9b::192.0.2.33"),
    ];
    for (network, len, address) in examples {
        let prefix = Prefix64::new(v6(network), len).unwrap();
        assert_eq!(prefix.embed(SERVER), v6(address), "{network}/{len}");
        assert_eq!(prefix.extract(v6(address)), Some(SERVER), "{network}/{len}");
        assert_eq!(prefix.extract(v6("2001:db9::1")), None);
        assert_eq!(prefix.is_well_known(), network == "64:ff9b::");
    }
    // A suffix says nothing (section 2.3), lengths between are none, and bits 64 to 71 are zero.
    let prefix = Prefix64::new(v6("2001:db8::"), 32).unwrap();
    assert_eq!(prefix.extract(v6("2001:db8:c000:221::77")), Some(SERVER));
    for (network, len) in [("2001:db8::", 33), ("2001:db8::", 128), ("::", 0), ("2001:db8:0:0:ff00::", 96)] {
        assert_eq!(Prefix64::new(v6(network), len), None, "{network}/{len}");
    }
}

#[test]
fn what_is_global() {
    for a in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255"] {
        assert!(is_global(a.parse().unwrap()), "{a}");
    }
    for a in [
        "0.1.2.3",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.168.1.1",
        "198.19.1.1",
        "198.51.100.7",
        "203.0.113.1",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        assert!(!is_global(a.parse().unwrap()), "{a}");
    }
    assert!(is_host("10.1.2.3".parse().unwrap()) && is_host("203.0.113.1".parse().unwrap()));
    for a in ["0.0.0.1", "127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        assert!(!is_host(a.parse().unwrap()), "{a}");
    }
}

#[test]
fn udp_to_ipv4_byte_for_byte() {
    let mut frame = udp6(b"hello, world");
    // Traffic class 0xB9, flow label 0xABCDE.
    frame[14..18].copy_from_slice(&[0x6B, 0x9A, 0xBC, 0xDE]);
    let got = out4(&frame).unwrap();
    let want = {
        let mut out = Vec::new();
        PacketBuilder::ipv4(POOL.octets(), SERVER.octets(), 64)
            .udp(40001, 80)
            .write(&mut out, b"hello, world")
            .unwrap();
        out[1] = 0xB9;
        out[4..8].copy_from_slice(&[0x12, 0x34, 0, 0]);
        out[10..12].fill(0);
        let sum = checksum::finish(checksum::sum(&out[..20]));
        out[10..12].copy_from_slice(&sum.to_ne_bytes());
        out
    };
    assert_eq!(got, want);
}

#[test]
fn udp_to_ipv6_byte_for_byte() {
    let mut frame = udp4(b"hello, world");
    frame[15] = 0xB9;
    frame[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    let mut want = Vec::new();
    PacketBuilder::ipv6(server6().octets(), v6(CLIENT6).octets(), 64)
        .udp(80, 5000)
        .write(&mut want, b"hello, world")
        .unwrap();
    want[..2].copy_from_slice(&[0x6B, 0x90]);
    assert_eq!(out6(&frame).unwrap(), want);
    // Without a checksum: the same, since IPv6 wants one.
    frame[40..42].fill(0);
    assert_eq!(out6(&frame).unwrap(), want);
}

#[test]
fn dont_fragment_follows_the_size() {
    // RFC 7915 section 5.1: up to 1260 bytes it may be fragmented.
    for (payload, flags) in [(1260 - 28, 0), (1260 - 27, 0x40)] {
        let got = out4(&udp6(&vec![7; payload])).unwrap();
        assert_eq!((got.len(), got[6]), (payload + 28, flags));
        assert!(sound(&got));
    }
}

#[test]
fn fragments_both_ways() {
    let whole = udp6(&[9; 64]);
    let datagram = &whole[54..];
    // Header, fragment header (offset, more), data.
    let piece6 = |offset: u16, more: u16, data: &[u8], id: u32| {
        let mut ip = whole[14..54].to_vec();
        ip[4..6].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
        ip[6] = FRAGMENT;
        ip.extend([UDP, 0]);
        ip.extend((offset | more).to_be_bytes());
        ip.extend(id.to_be_bytes());
        ip.extend(data);
        framed(&ip)
    };
    let first = out4(&piece6(0, 1, &datagram[..40], 0xABCD_1234)).unwrap();
    let last = out4(&piece6(40, 0, &datagram[40..], 0xABCD_1234)).unwrap();
    // The low half of the identification, the offset, and DF cleared (section 5.1.1).
    assert_eq!(&first[4..8], &[0x12, 0x34, 0x20, 0]);
    assert_eq!(&last[4..8], &[0x12, 0x34, 0, 5]);
    let joined = [&first[20..], &last[20..]].concat();
    assert_eq!(joined.len(), datagram.len());
    let sum = checksum::pseudo(&first[12..20], UDP, joined.len()) + checksum::sum(&joined);
    assert_eq!(checksum::fold(sum), 0xFFFF);

    // And back: identification and offsets are the same (section 4.1).
    let back = [out6(&framed(&first)).unwrap(), out6(&framed(&last)).unwrap()];
    assert_eq!(&back[0][40..48], &[UDP, 0, 0, 1, 0, 0, 0x12, 0x34]);
    assert_eq!(&back[1][40..48], &[UDP, 0, 0, 40, 0, 0, 0x12, 0x34]);
    let joined = [&back[0][48..], &back[1][48..]].concat();
    let sum = checksum::pseudo(&back[0][8..40], UDP, joined.len()) + checksum::sum(&joined);
    assert_eq!(checksum::fold(sum), 0xFFFF);

    // A first fragment without a checksum cannot get one.
    let mut bare = first.clone();
    bare[26..28].fill(0);
    assert_eq!(out6(&framed(&bare)), Err(Untranslatable::Kind));
    // An atomic fragment is a whole packet.
    let atomic = out4(&piece6(0, 0, datagram, 0xABCD_1234)).unwrap();
    assert!(sound(&atomic) && atomic[6..8] == [0, 0]);
}

#[test]
fn extension_headers() {
    let whole = udp6(b"options");
    let with = |kind: u8, header: &[u8]| {
        let mut ip = whole[14..].to_vec();
        ip[6] = kind;
        let len = u16::from_be_bytes([ip[4], ip[5]]) + header.len() as u16;
        ip[4..6].copy_from_slice(&len.to_be_bytes());
        ip.splice(40..40, header.iter().copied());
        framed(&ip)
    };
    // Padding options are passed over, a routing header that is used up too (section 5.1).
    for header in [[UDP, 0, 1, 4, 0, 0, 0, 0], [UDP, 0, 4, 0, 0, 0, 0, 0]] {
        let kind = if header[2] == 1 { DEST_OPTIONS } else { ROUTING };
        assert_eq!(out4(&with(kind, &header)).unwrap(), out4(&whole).unwrap());
    }
    let left = with(ROUTING, &[UDP, 0, 4, 1, 0, 0, 0, 0]);
    assert_eq!(out4(&left), Err(Untranslatable::SegmentsLeft { at: 43 }));
}

fn echo(family: Family, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0x77, 0x66, 0, 5];
    message.extend(data);
    let mut out = Vec::new();
    match family {
        Family::V4 => {
            let sum = checksum::finish(checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
            PacketBuilder::ipv4(SERVER.octets(), POOL.octets(), 9)
                .write(&mut out, 1.into(), &message)
                .unwrap();
        }
        Family::V6 => {
            let addrs = [v6(CLIENT6).octets(), server6().octets()].concat();
            let sum = checksum::finish(checksum::pseudo(&addrs, 58, message.len()) + checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
            PacketBuilder::ipv6(v6(CLIENT6).octets(), server6().octets(), 9)
                .write(&mut out, 58.into(), &message)
                .unwrap();
        }
    }
    framed(&out)
}

#[test]
fn echo_both_ways_and_no_other_query() {
    for (kind, other) in [(128, 8), (129, 0)] {
        let got = out4(&echo(Family::V6, kind, b"odd")).unwrap();
        let id = if kind == 128 { 40001u16 } else { 80 };
        assert_eq!((got[9], got[20], u16::from_be_bytes([got[24], got[25]])), (ICMP, other, id));
        assert!(sound(&got) && got.ends_with(b"\x00\x05odd"));
    }
    for (kind, other) in [(8, 128), (0, 129)] {
        let got = out6(&echo(Family::V4, kind, b"even")).unwrap();
        assert_eq!((got[6], got[40]), (ICMPV6, other));
        assert!(sound(&got));
    }
    // Timestamps and the like, and neighbour discovery (sections 4.2 and 5.2).
    for kind in [13, 14, 15, 16, 17, 18, 9, 10] {
        assert_eq!(out6(&echo(Family::V4, kind, b"12345678")), Err(Untranslatable::Kind), "{kind}");
    }
    for kind in [130, 131, 132, 133, 135, 137] {
        assert_eq!(out4(&echo(Family::V6, kind, b"12345678")), Err(Untranslatable::Kind), "{kind}");
    }
}

/// An ICMP error of a family from a router, about `quote`.
fn error(family: Family, (kind, code, word): (u8, u8, u32), quote: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quote);
    let mut out = Vec::new();
    match family {
        Family::V4 => {
            let sum = checksum::finish(checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
            PacketBuilder::ipv4([198, 51, 100, 1], POOL.octets(), 60)
                .write(&mut out, 1.into(), &message)
                .unwrap();
        }
        Family::V6 => {
            let router = v6("2001:db8:1::1").octets();
            let addrs = [router, server6().octets()].concat();
            let sum = checksum::finish(checksum::pseudo(&addrs, 58, message.len()) + checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_ne_bytes());
            PacketBuilder::ipv6(router, server6().octets(), 60).write(&mut out, 58.into(), &message).unwrap();
        }
    }
    framed(&out)
}

/// An error about a packet of the client, as it comes from the IPv4 Internet.
fn error6(message: (u8, u8, u32), quote: &[u8]) -> Result<Vec<u8>, Untranslatable> {
    let outer = Ends6 {
        src: Prefix64::WELL_KNOWN.embed(Ipv4Addr::new(198, 51, 100, 1)),
        dst: v6(CLIENT6),
        ports: (0, 0),
    };
    let quoted = Ends6 { src: v6(CLIENT6), dst: server6(), ports: ports(5000, 80) };
    translated(&error(Family::V4, message, quote), |f, p| error_to_v6(f, p, &outer, &quoted, 1500))
}

fn error4(message: (u8, u8, u32), quote: &[u8]) -> Result<Vec<u8>, Untranslatable> {
    let outer = Ends4 { src: POOL, dst: SERVER, ports: (0, 0) };
    let quoted = Ends4 { src: SERVER, dst: POOL, ports: ports(80, 40001) };
    translated(&error(Family::V6, message, quote), |f, p| error_to_v4(f, p, &outer, &quoted, (1480, 7)))
}

#[test]
fn errors_of_ipv4_by_the_table() {
    let sent = out4(&udp6(b"a question")).unwrap();
    let table = [
        ((3, 0, 0), Some((1, 0, 0))),
        ((3, 1, 0), Some((1, 0, 0))),
        ((3, 2, 0), Some((4, 1, 6))),
        ((3, 3, 0), Some((1, 4, 0))),
        ((3, 4, 1400), Some((2, 0, 1420))),
        // What the gateway's own link takes, and what every link of IPv6 takes.
        ((3, 4, 9000), Some((2, 0, 1500))),
        ((3, 4, 576), Some((2, 0, 1280))),
        ((3, 4, 0), Some((2, 0, 1280))),
        ((3, 5, 0), Some((1, 0, 0))),
        ((3, 9, 0), Some((1, 1, 0))),
        ((3, 10, 0), Some((1, 1, 0))),
        ((3, 12, 0), Some((1, 0, 0))),
        ((3, 13, 0), Some((1, 1, 0))),
        ((3, 14, 0), None),
        ((3, 15, 0), Some((1, 1, 0))),
        ((3, 16, 0), None),
        ((4, 0, 0), None),
        ((5, 0, 0), None),
        ((11, 0, 0), Some((3, 0, 0))),
        ((11, 1, 0), Some((3, 1, 0))),
        ((12, 0, 0), Some((4, 0, 0))),
        ((12, 0, 2 << 24), Some((4, 0, 4))),
        ((12, 0, 9 << 24), Some((4, 0, 6))),
        ((12, 2, 16 << 24), Some((4, 0, 24))),
        ((12, 0, 4 << 24), None),
        ((12, 1, 0), None),
    ];
    for (message, want) in table {
        let got = error6(message, &sent).ok();
        let seen = got.as_deref().map(|m| (m[40], m[41], u32::from_be_bytes([m[44], m[45], m[46], m[47]])));
        assert_eq!(seen, want, "{message:?}");
        let Some(got) = got else { continue };
        assert!(sound(&got));
        // What is quoted is what the client has sent, but for the flow label and the hop limit.
        assert_eq!(&got[48..], &udp6(b"a question")[14..]);
    }
}

#[test]
fn errors_of_ipv6_by_the_table() {
    let answer = out6(&udp4(b"an answer")).unwrap();
    let table = [
        ((1, 0, 0), Some((3, 1, 0))),
        ((1, 1, 0), Some((3, 10, 0))),
        ((1, 2, 0), Some((3, 1, 0))),
        ((1, 3, 0), Some((3, 1, 0))),
        ((1, 4, 0), Some((3, 3, 0))),
        ((1, 5, 0), None),
        ((2, 0, 1400), Some((3, 4, 1380))),
        ((2, 0, 9000), Some((3, 4, 1480))),
        ((3, 0, 0), Some((11, 0, 0))),
        ((3, 1, 0), Some((11, 1, 0))),
        ((4, 0, 4), Some((12, 0, 2 << 24))),
        ((4, 0, 8), Some((12, 0, 12 << 24))),
        ((4, 0, 39), Some((12, 0, 16 << 24))),
        ((4, 0, 2), None),
        ((4, 1, 0), Some((3, 2, 0))),
        ((4, 2, 0), None),
    ];
    for (message, want) in table {
        let got = error4(message, &answer).ok();
        let seen = got.as_deref().map(|m| (m[20], m[21], u32::from_be_bytes([m[24], m[25], m[26], m[27]])));
        assert_eq!(seen, want, "{message:?}");
        let Some(got) = got else { continue };
        assert!(sound(&got));
        assert_eq!(&got[48..], &udp4(b"an answer")[34..], "ports and payload as the server sent them");
        assert_eq!(&got[40..48], &[SERVER.octets(), POOL.octets()].concat());
    }
}

#[test]
fn errors_about_echo_and_cut_tcp() {
    let ping = out4(&echo(Family::V6, 128, b"ping")).unwrap();
    let got = error6((11, 0, 0), &ping[..28]).unwrap();
    assert_eq!(&got[88..90], &[128, 0]);
    let mut tcp = Vec::new();
    PacketBuilder::ipv4(POOL.octets(), SERVER.octets(), 9)
        .tcp(40001, 80, 1, 2)
        .write(&mut tcp, b"xx")
        .unwrap();
    let got = error6((3, 1, 0), &tcp[..28]).unwrap();
    assert_eq!(&got[88..], &[0x13, 0x88, 0, 80, 0, 0, 0, 1]);
    // A wrong checksum of the message is not made right (RFC 5508 REQ-3).
    let mut frame = error(Family::V4, (3, 1, 0), &tcp);
    frame[37] ^= 1;
    let ends = Ends6 { src: server6(), dst: v6(CLIENT6), ports: (0, 0) };
    assert_eq!(
        translated(&frame, |f, p| error_to_v6(f, p, &ends, &ends, 1500)),
        Err(Untranslatable::Checksum)
    );
    // Extensions go, the length of what was quoted with them (RFC 4884).
    let mut extended = tcp.clone();
    extended.resize(128, 0);
    extended.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 1, 2, 3]);
    let got = error6((11, 0, 32 << 16), &extended).unwrap();
    assert_eq!((got.len(), &got[44..48]), (40 + 8 + 40 + 108, &[0u8; 4][..]));
}

#[test]
fn long_quotes_are_cut_to_what_errors_may_be() {
    let sent = out4(&udp6(&[1; 1200])).unwrap();
    let got = error6((3, 3, 0), &sent).unwrap();
    assert_eq!(got.len(), 1280);
    assert!(sound(&got));
    let answer = out6(&udp4(&[2; 1100])).unwrap();
    let got = error4((1, 4, 0), &answer).unwrap();
    assert_eq!(got.len(), 576);
    assert!(sound(&got));
}

#[test]
fn hosts_inside_by_their_external_addresses() {
    let ends =
        Ends6 { src: Prefix64::WELL_KNOWN.embed(POOL), dst: v6("2001:db8:1::11"), ports: ports(40001, 53) };
    let got = translated(&udp6(b"a question"), |f, p| readdressed(f, p, &ends)).unwrap();
    let mut want = Vec::new();
    PacketBuilder::ipv6(ends.src.octets(), ends.dst.octets(), 64)
        .udp(40001, 53)
        .write(&mut want, b"a question")
        .unwrap();
    assert_eq!(got, want);
    // The other host refuses: the caller hears of the packet that it has sent.
    let frame = {
        let (router, to) = (ends.dst.octets(), ends.src.octets());
        let mut message = vec![1, 4, 0, 0, 0, 0, 0, 0];
        message.extend(&got);
        let sum = checksum::pseudo(&[router, to].concat(), 58, message.len()) + checksum::sum(&message);
        message[2..4].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
        let mut out = Vec::new();
        PacketBuilder::ipv6(router, to, 60).write(&mut out, 58.into(), &message).unwrap();
        framed(&out)
    };
    let outer = Ends6 { src: server6(), dst: v6(CLIENT6), ports: (0, 0) };
    let quoted = Ends6 { src: v6(CLIENT6), dst: server6(), ports: ports(5000, 80) };
    let got = translated(&frame, |f, p| error_readdressed(f, p, &outer, &quoted)).unwrap();
    assert!(sound(&got));
    assert_eq!(&got[48..], &udp6(b"a question")[14..]);
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Another implementation makes the same of the same packets, but for what a translator is free to choose.
#[test]
fn tayga_translates_alike() {
    let (host, far) = (v6("2001:db8:1::10"), v6("2001:db8:64::c633:6407"));
    let (own, peer) = (Ipv4Addr::new(203, 0, 113, 2), Ipv4Addr::new(198, 51, 100, 7));
    let mut compared = 0;
    for line in include_str!("tayga.txt").lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<_> = line.split('|').collect();
        let (name, packet, want) = (fields[0], bytes(fields[1]), bytes(fields[2]));
        let frame = framed(&packet);
        let p = parsed(&frame);
        let error = matches!(p.l4, crate::L4::IcmpError { .. });
        // Ports stay: those of UDP, TCP or echo, here or in what is quoted.
        let at = if packet[0] >> 4 == 6 { 40 } else { 20 };
        let quoted_at = at + 8 + at;
        let word = |at: usize| u16::from_le_bytes([packet[at], packet[at + 1]]);
        let ports = if error { (word(quoted_at), word(quoted_at + 2)) } else { (p.sport, p.dport) };
        let mut got = translated(&frame, |f, p| {
            let (e4, q4) = (Ends4 { src: own, dst: peer, ports }, Ends4 { src: peer, dst: own, ports });
            let (e6, q6) = (Ends6 { src: far, dst: host, ports }, Ends6 { src: host, dst: far, ports });
            match (p.family, error) {
                (Family::V6, true) => error_to_v4(f, p, &e4, &q4, (1500, 0)),
                (Family::V6, false) => to_v4(f, p, &e4, 0),
                (Family::V4, true) => error_to_v6(f, p, &e6, &q6, 1500),
                (Family::V4, false) => to_v6(f, p, &e6),
            }
        })
        .unwrap();
        let mut want = want;
        for ip in [&mut got, &mut want] {
            free_choices(ip, error);
        }
        assert_eq!(got, want, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 25);
}

/// Clears the hop count, which a router lowers, and of IPv4 packets that are no fragments the identification and DF.
fn free_choices(ip: &mut [u8], error: bool) {
    if error && ip[0] >> 4 == 4 {
        // The quoted header; its checksum makes up for it, so that of the message is the same.
        ip[28 + 4..28 + 8].fill(0);
        ip[28 + 10..28 + 12].fill(0);
    }
    if ip[0] >> 4 == 6 {
        ip[7] = 0;
        return;
    }
    ip[8] = 0;
    if ip[6] & 0x3F == 0 && ip[7] == 0 {
        ip[4..8].fill(0);
    }
    ip[10..12].fill(0);
}

proptest! {
    #[test]
    fn there_and_back_with_right_checksums(
        proto in prop::sample::select(vec![TCP, UDP, ICMPV6]),
        payload in prop::collection::vec(any::<u8>(), 0..1400),
        (sport, dport, tos, hops) in (1u16.., 1u16.., any::<u8>(), any::<u8>()),
    ) {
        let mut ip = Vec::new();
        let head = PacketBuilder::ipv6(v6(CLIENT6).octets(), server6().octets(), hops);
        match proto {
            TCP => head.tcp(sport, dport, 1, 9).write(&mut ip, &payload).unwrap(),
            UDP => head.udp(sport, dport).write(&mut ip, &payload).unwrap(),
            _ => head.icmpv6_echo_request(sport, 1).write(&mut ip, &payload).unwrap(),
        }
        (ip[0], ip[1]) = (0x60 | tos >> 4, tos << 4);
        let to = Ends4 { src: POOL, dst: SERVER, ports: ports(dport, sport) };
        let there = translated(&framed(&ip), |f, p| to_v4(f, p, &to, 1)).unwrap();
        prop_assert!(sound(&there));
        // Fields of a header change places on the way back: source for destination and port for port.
        let back = Ends6 { src: v6(CLIENT6), dst: server6(), ports: ports(sport, dport) };
        let again = translated(&framed(&there), |f, p| to_v6(f, p, &back)).unwrap();
        prop_assert!(sound(&again));
        prop_assert_eq!(again, ip);
    }

    #[test]
    fn nothing_that_parses_is_too_much(mut bytes in prop::collection::vec(any::<u8>(), 20..300), v4 in any::<bool>(), sane in 0u8..8) {
        // Often enough the version, lengths and checksum are right.
        if v4 {
            bytes[0] = 0x45;
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[9] = [1, 6, 17, 1, 1, 58, 44, 0][usize::from(sane)];
            bytes[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&bytes[..20]));
            bytes[10..12].copy_from_slice(&sum.to_ne_bytes());
        } else if bytes.len() > 40 {
            bytes[0] = 0x60;
            let len = bytes.len() as u16 - 40;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes[6] = [58, 6, 17, 0, 43, 44, 60, 58][usize::from(sane)];
        }
        let frame = framed(&bytes);
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        let Ok(NetworkLayer::Ip(p)) = parse(&frame, ethertype, 14) else { return Ok(()) };
        let (e4, e6) = (
            Ends4 { src: POOL, dst: SERVER, ports: (1, 2) },
            Ends6 { src: server6(), dst: v6(CLIENT6), ports: (1, 2) },
        );
        let mut buf = vec![0; ROOM];
        buf.extend(&frame);
        let f = &mut FrameMut::new(&mut buf, ROOM, frame.len());
        let error = matches!(p.l4, crate::L4::IcmpError { .. });
        let _ = match (p.family, error) {
            (Family::V6, false) => to_v4(f, &p, &e4, 1),
            (Family::V6, true) => error_to_v4(f, &p, &e4, &e4, (1500, 1)),
            (Family::V4, false) => to_v6(f, &p, &e6),
            (Family::V4, true) => error_to_v6(f, &p, &e6, &e6, 1500),
        };
    }
}
