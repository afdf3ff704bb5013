//! Packets: IP header and transport checksum. Errors of ICMP are in [`super::error`].

use super::{MAY_FRAGMENT, Untranslatable};
use crate::checksum;
use crate::parse::{Family, Fragment, L4, Parsed};
use crate::proto::*;
use crate::rewrite::FrameMut;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Addresses of an IPv4 packet, and its ports as loaded (network byte order); an ICMP identifier stands in for the port
/// of the side that sent the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends4 {
    /// The source address.
    pub src: Ipv4Addr,
    /// The destination address.
    pub dst: Ipv4Addr,
    /// Source and destination port.
    pub ports: (u16, u16),
}

/// The same of an IPv6 packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends6 {
    /// The source address.
    pub src: Ipv6Addr,
    /// The destination address.
    pub dst: Ipv6Addr,
    /// Source and destination port.
    pub ports: (u16, u16),
}

impl Ends4 {
    /// Both addresses as they stand in a packet.
    pub(super) fn octets(&self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.src.octets());
        out[4..].copy_from_slice(&self.dst.octets());
        out
    }
}

impl Ends6 {
    /// Both addresses as they stand in a packet.
    pub(super) fn octets(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out[..16].copy_from_slice(&self.src.octets());
        out[16..].copy_from_slice(&self.dst.octets());
        out
    }
}

/// Bytes of the fragment header.
const FRAGMENT_LEN: usize = 8;

/// Bytes of an IPv6 packet as an IPv4 packet.
#[inline]
pub fn length_in_v4(p: &Parsed) -> u16 {
    (p.ip_len - (p.l4_at - p.l3).min(p.ip_len)).saturating_add(IPV4_LEN as u16)
}

/// Bytes of an IPv4 packet as an IPv6 packet.
#[inline]
pub fn length_in_v6(p: &Parsed) -> u16 {
    let header = if p.fragment == Fragment::Whole { IPV6_LEN } else { IPV6_LEN + FRAGMENT_LEN };
    (p.ip_len - (p.l4_at - p.l3).min(p.ip_len)).saturating_add(header as u16)
}

/// An IPv6 packet becomes an IPv4 packet. `id`: the identification of one that is no fragment. What was in front of the
/// packet is gone; there is room for an untagged Ethernet header.
///
/// # Errors
/// Why it cannot be translated; the frame may be changed in part then.
pub fn to_v4(f: &mut FrameMut<'_>, p: &Parsed, ends: &Ends4, id: u16) -> Result<Parsed, Untranslatable> {
    let ip = p.ip(f.bytes());
    let head: &[u8; IPV6_LEN] = ip.first_chunk().ok_or(Untranslatable::Kind)?;
    let old: [u8; 32] = std::array::from_fn(|i| head[8 + i]);
    let l4 = usize::from(p.l4_at);
    let payload = ip.len().checked_sub(l4 - usize::from(p.l3)).ok_or(Untranslatable::Kind)?;
    let total = IPV4_LEN + payload;
    let (id, flags) = match p.fragment {
        Fragment::Whole if total <= usize::from(MAY_FRAGMENT) => (id, 0),
        Fragment::Whole => (id, 0x4000),
        _ => fragment_of(ip, l4 - usize::from(p.l3))?,
    };
    if p.options {
        segments_left(ip)?;
    }
    let new = ends.octets();
    let old_sum = checksum::sum(&old);
    let new_sum = checksum::sum(&new);
    let bytes = f.bytes_mut().get_mut(l4..l4 + payload).ok_or(Untranslatable::Kind)?;
    let pseudo = Pseudo { old: old_sum, new: new_sum, of: old_sum + protocol_and_length(ICMPV6, payload) };
    transport(bytes, p, ends.ports, &pseudo)?;
    f.push(l4, payload, ETH_LEN + IPV4_LEN).map_err(|_| Untranslatable::Room)?;
    let proto = proto_in_v4(p.proto);
    let h = header_of::<IPV4_LEN>(f)?;
    *h = header4((p.tos, total as u16), (id, flags), (p.ttl, proto), &new);
    let frag_offset = flags & 0x1FFF;
    Ok(Parsed {
        family: Family::V4,
        fragment: match (frag_offset, flags & 0x2000 != 0) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First { id: id.into() },
            (n, _) => Fragment::Later { id: id.into(), offset: n << 3 },
        },
        proto,
        options: false,
        dont_fragment: flags & 0x4000 != 0,
        l3: ETH_LEN as u16,
        l4_at: (ETH_LEN + IPV4_LEN) as u16,
        ip_len: total as u16,
        addrs4: u64::from_le_bytes(new),
        ..with_ports(p, ends.ports)
    })
}

/// An IPv4 packet becomes an IPv6 packet. What was in front of the packet is gone; there is room for an untagged Ethernet
/// header.
///
/// # Errors
/// Why it cannot be translated; the frame may be changed in part then.
pub fn to_v6(f: &mut FrameMut<'_>, p: &Parsed, ends: &Ends6) -> Result<Parsed, Untranslatable> {
    let ip = p.ip(f.bytes());
    let head: &[u8; IPV4_LEN] = ip.first_chunk().ok_or(Untranslatable::Kind)?;
    let old: [u8; 8] = std::array::from_fn(|i| head[12 + i]);
    let (word, id) = (u16::from_be_bytes([head[6], head[7]]), u16::from_be_bytes([head[4], head[5]]));
    let l4 = usize::from(p.l4_at);
    let payload = ip.len().checked_sub(l4 - usize::from(p.l3)).ok_or(Untranslatable::Kind)?;
    let fragment = p.fragment != Fragment::Whole;
    let header = if fragment { IPV6_LEN + FRAGMENT_LEN } else { IPV6_LEN };
    let total = header + payload;
    if total > usize::from(u16::MAX) {
        return Err(Untranslatable::Room);
    }
    let new = ends.octets();
    let (old_sum, new_sum) = (checksum::sum(&old), checksum::sum(&new));
    let bytes = f.bytes_mut().get_mut(l4..l4 + payload).ok_or(Untranslatable::Kind)?;
    if p.l4 == L4::Udp && bytes.get(6..8) == Some(&[0, 0]) {
        udp_checksum(bytes, p, &old)?;
    }
    let pseudo = Pseudo { old: old_sum, new: new_sum, of: new_sum + protocol_and_length(ICMPV6, payload) };
    transport(bytes, p, ends.ports, &pseudo)?;
    f.push(l4, payload, ETH_LEN + header).map_err(|_| Untranslatable::Room)?;
    let proto = proto_in_v6(p.proto);
    let next = if fragment { FRAGMENT } else { proto };
    let h = header_of::<IPV6_LEN>(f)?;
    *h = header6((p.tos, (total - IPV6_LEN) as u16), (next, p.ttl), &new);
    if fragment {
        let at = ETH_LEN + IPV6_LEN;
        let h = f.bytes_mut().get_mut(at..at + FRAGMENT_LEN).ok_or(Untranslatable::Room)?;
        h.copy_from_slice(&fragment_header(proto, word, id));
    }
    Ok(Parsed {
        family: Family::V6,
        proto,
        options: fragment,
        dont_fragment: true,
        l3: ETH_LEN as u16,
        l4_at: (ETH_LEN + header) as u16,
        ip_len: total as u16,
        addrs4: 0,
        ..with_ports(p, ends.ports)
    })
}

/// A packet of the other family with these ports, the rest of it as it was. Of an echo one of the ports is its identifier.
fn with_ports(p: &Parsed, (sport, dport): (u16, u16)) -> Parsed {
    let L4::Echo { reply } = p.l4 else { return Parsed { sport, dport, ..*p } };
    let kind: u16 = match (p.family, reply) {
        (Family::V6, false) => 8,
        (Family::V6, true) => 0,
        (Family::V4, false) => 128,
        (Family::V4, true) => 129,
    };
    let (sport, dport) = if reply { (0, dport) } else { (sport, 0) };
    Parsed { sport, dport, message: kind << 8 | p.message & 0xFF, ..*p }
}

/// An IPv6 packet of TCP or UDP gets other addresses and ports, and stays one of IPv6.
///
/// # Errors
/// [`Untranslatable::Kind`]: it is of another protocol.
pub fn readdressed(f: &mut FrameMut<'_>, p: &Parsed, ends: &Ends6) -> Result<Parsed, Untranslatable> {
    if !matches!(p.proto, TCP | UDP) {
        return Err(Untranslatable::Kind);
    }
    let old = set_addresses(f.bytes_mut(), usize::from(p.l3), ends)?;
    let new = checksum::sum(&ends.octets());
    let end = usize::from(p.l3) + usize::from(p.ip_len);
    let t = f.bytes_mut().get_mut(usize::from(p.l4_at)..end).ok_or(Untranslatable::Kind)?;
    transport(t, p, ends.ports, &Pseudo { old, new, of: 0 })?;
    Ok(Parsed { sport: ends.ports.0, dport: ends.ports.1, ..*p })
}

/// Sets the addresses of the IPv6 header there; returns the sum of the old ones.
pub(super) fn set_addresses(bytes: &mut [u8], at: usize, ends: &Ends6) -> Result<u64, Untranslatable> {
    let addrs = bytes.get_mut(at + 8..at + IPV6_LEN).ok_or(Untranslatable::Kind)?;
    let old = checksum::sum(addrs);
    addrs.copy_from_slice(&ends.octets());
    Ok(old)
}

/// The header of the frame's packet behind room for a link header.
pub(super) fn header_of<'f, const N: usize>(
    f: &'f mut FrameMut<'_>,
) -> Result<&'f mut [u8; N], Untranslatable> {
    f.bytes_mut().get_mut(ETH_LEN..).and_then(|b| b.first_chunk_mut()).ok_or(Untranslatable::Room)
}

/// An IPv4 header without options, its checksum included. `flags`: with the offset below.
pub(super) fn header4(
    (tos, total): (u8, u16),
    (id, flags): (u16, u16),
    (ttl, proto): (u8, u8),
    addrs: &[u8; 8],
) -> [u8; IPV4_LEN] {
    let mut h = [0; IPV4_LEN];
    h[0] = 0x45;
    h[1] = tos;
    h[2..4].copy_from_slice(&total.to_be_bytes());
    h[4..6].copy_from_slice(&id.to_be_bytes());
    h[6..8].copy_from_slice(&flags.to_be_bytes());
    (h[8], h[9]) = (ttl, proto);
    h[12..].copy_from_slice(addrs);
    let sum = checksum::finish(checksum::sum(&h));
    h[10..12].copy_from_slice(&sum.to_ne_bytes());
    h
}

/// An IPv6 header; its flow label is zero (RFC 7915 section 4.1).
pub(super) fn header6(
    (class, payload): (u8, u16),
    (next, hops): (u8, u8),
    addrs: &[u8; 32],
) -> [u8; IPV6_LEN] {
    let mut h = [0; IPV6_LEN];
    (h[0], h[1]) = (0x60 | class >> 4, class << 4);
    h[4..6].copy_from_slice(&payload.to_be_bytes());
    (h[6], h[7]) = (next, hops);
    h[8..].copy_from_slice(addrs);
    h
}

/// A fragment header for the flags, offset and identification of an IPv4 header.
pub(super) fn fragment_header(proto: u8, word: u16, id: u16) -> [u8; FRAGMENT_LEN] {
    let offset = (word << 3 | word >> 13 & 1).to_be_bytes();
    let id = id.to_be_bytes();
    [proto, 0, offset[0], offset[1], 0, 0, id[0], id[1]]
}

pub(super) const fn proto_in_v4(proto: u8) -> u8 {
    if proto == ICMPV6 { ICMP } else { proto }
}

pub(super) const fn proto_in_v6(proto: u8) -> u8 {
    if proto == ICMP { ICMPV6 } else { proto }
}

/// What of the IP header the transport checksum counts.
pub(super) struct Pseudo {
    /// The sum of the old addresses.
    pub old: u64,
    /// That of the new ones.
    pub new: u64,
    /// The whole pseudo-header of the IPv6 side, which ICMPv6 counts and ICMP does not.
    pub of: u64,
}

/// Protocol and length, as a pseudo-header has them.
pub(super) fn protocol_and_length(proto: u8, len: usize) -> u64 {
    checksum::pseudo(&[], proto, len)
}

/// Ports, and the checksum that counts them and the addresses. The pseudo-header's length and protocol are the same on
/// both sides but for ICMP.
fn transport(t: &mut [u8], p: &Parsed, ports: (u16, u16), pseudo: &Pseudo) -> Result<(), Untranslatable> {
    if let Fragment::Later { .. } = p.fragment {
        return if matches!(p.proto, TCP | UDP) { Ok(()) } else { Err(Untranslatable::Kind) };
    }
    match p.l4 {
        L4::Tcp { .. } if t.len() >= TCP_LEN => {
            let by = set_ports(t, ports, pseudo);
            add(t, 16, by);
            Ok(())
        }
        L4::Udp if t.len() >= UDP_LEN => {
            let by = set_ports(t, ports, pseudo);
            add_udp(t, by);
            Ok(())
        }
        L4::Echo { reply } if t.len() >= ICMP_LEN && p.fragment == Fragment::Whole => {
            let id = if reply { ports.1 } else { ports.0 };
            echo(t, p.family, id, pseudo)
        }
        _ => Err(Untranslatable::Kind),
    }
}

/// What is added to the transport checksum.
fn set_ports(t: &mut [u8], (sport, dport): (u16, u16), pseudo: &Pseudo) -> u16 {
    let before = checksum::sum(&t[..4]);
    t[..2].copy_from_slice(&sport.to_le_bytes());
    t[2..4].copy_from_slice(&dport.to_le_bytes());
    difference(pseudo.old + before, pseudo.new + checksum::sum(&t[..4]))
}

/// What is added to a checksum if what it counts has changed from one sum to another.
fn difference(old: u64, new: u64) -> u16 {
    checksum::fold(u64::from(checksum::fold(old)) + u64::from(!checksum::fold(new)))
}

/// An echo message of a family becomes one of the other. ICMP's other queries are for one link (RFC 7915 section 4.2).
pub(super) fn echo(t: &mut [u8], from: Family, id: u16, pseudo: &Pseudo) -> Result<(), Untranslatable> {
    let kind = match (from, t[0]) {
        (Family::V6, 128) => 8,
        (Family::V6, 129) => 0,
        (Family::V4, 8) => 128,
        (Family::V4, 0) => 129,
        _ => return Err(Untranslatable::Kind),
    };
    let before = counted(t);
    t[0] = kind;
    t[4..6].copy_from_slice(&id.to_le_bytes());
    let after = counted(t);
    let by = match from {
        Family::V6 => difference(pseudo.of + before, after),
        Family::V4 => difference(before, pseudo.of + after),
    };
    add(t, 2, by);
    Ok(())
}

/// Kind, code and identifier.
fn counted(t: &[u8]) -> u64 {
    checksum::sum(&t[..2]) + checksum::sum(&t[4..6])
}

/// The ports of a quoted packet of which `t` is as much as was quoted, and its checksum if it is there.
pub(super) fn quoted_transport(
    t: &mut [u8],
    (from, proto): (Family, u8),
    ports: (u16, u16),
    pseudo: &Pseudo,
) -> Result<(), Untranslatable> {
    match proto {
        TCP if t.len() >= 8 => {
            let by = set_ports(t, ports, pseudo);
            if t.len() >= 18 {
                add(t, 16, by);
            }
            Ok(())
        }
        UDP if t.len() >= UDP_LEN => {
            let by = set_ports(t, ports, pseudo);
            add_udp(t, by);
            Ok(())
        }
        ICMP | ICMPV6 if t.len() >= ICMP_LEN => {
            let reply = matches!(t[0], 0 | 129);
            echo(t, from, if reply { ports.1 } else { ports.0 }, pseudo)
        }
        _ => Err(Untranslatable::Kind),
    }
}

/// Adds to the checksum at `at`.
fn add(b: &mut [u8], at: usize, by: u16) {
    let old = u16::from_ne_bytes([b[at], b[at + 1]]);
    b[at..at + 2].copy_from_slice(&checksum::apply(old, by.into()).to_ne_bytes());
}

/// The same for UDP, where zero means that there is none.
fn add_udp(t: &mut [u8], by: u16) {
    let old = u16::from_ne_bytes([t[6], t[7]]);
    if old != 0 {
        let new = match checksum::apply(old, by.into()) {
            0 => 0xFFFF,
            c => c,
        };
        t[6..8].copy_from_slice(&new.to_ne_bytes());
    }
}

/// The checksum of a UDP datagram over IPv4 that has none: over IPv6 it must (RFC 7915 section 4.5). That of a fragment
/// cannot be computed.
fn udp_checksum(t: &mut [u8], p: &Parsed, addrs: &[u8; 8]) -> Result<(), Untranslatable> {
    if p.fragment != Fragment::Whole {
        return Err(Untranslatable::Kind);
    }
    let len = usize::from(u16::from_be_bytes([t[4], t[5]])).min(t.len());
    let sum = checksum::pseudo(addrs, UDP, len) + checksum::sum(&t[..len]);
    let check = match checksum::finish(sum) {
        0 => 0xFFFF,
        c => c,
    };
    t[6..8].copy_from_slice(&check.to_ne_bytes());
    Ok(())
}

/// Identification, and flags with offset, of an IPv6 fragment, as an IPv4 header has them. Extension headers behind the
/// fragment header are part of what was fragmented: without them the offsets are wrong.
fn fragment_of(ip: &[u8], l4: usize) -> Result<(u16, u16), Untranslatable> {
    let at = l4.checked_sub(FRAGMENT_LEN).filter(|at| *at >= IPV6_LEN).ok_or(Untranslatable::Kind)?;
    if last_extension(ip) != Some(at) {
        return Err(Untranslatable::Kind);
    }
    let h: &[u8; FRAGMENT_LEN] = ip.get(at..).and_then(|b| b.first_chunk()).ok_or(Untranslatable::Kind)?;
    let word = u16::from_be_bytes([h[2], h[3]]);
    Ok((u16::from_be_bytes([h[6], h[7]]), word >> 3 | (word & 1) << 13))
}

/// Where the last extension header begins, if it is a fragment header.
fn last_extension(ip: &[u8]) -> Option<usize> {
    let (mut kind, mut at, mut last) = (*ip.get(6)?, IPV6_LEN, None);
    while matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DEST_OPTIONS) {
        last = (kind == FRAGMENT).then_some(at);
        let later = kind == FRAGMENT && (*ip.get(at + 2)? != 0 || *ip.get(at + 3)? & 0xF8 != 0);
        let len = if kind == FRAGMENT { FRAGMENT_LEN } else { (usize::from(*ip.get(at + 1)?) + 1) * 8 };
        kind = *ip.get(at)?;
        at += len;
        if later {
            break;
        }
    }
    last
}

/// Checks that no routing header of an IPv6 packet has segments left: such a packet is for a router, not for a translator.
///
/// # Errors
/// [`Untranslatable::SegmentsLeft`].
pub fn segments_left(ip: &[u8]) -> Result<(), Untranslatable> {
    let (mut kind, mut at) = (ip.get(6).copied().unwrap_or(0), IPV6_LEN);
    while matches!(kind, HOP_BY_HOP | ROUTING | DEST_OPTIONS) {
        let Some(h) = ip.get(at..at + 4) else { return Err(Untranslatable::Kind) };
        if kind == ROUTING && h[3] != 0 {
            return Err(Untranslatable::SegmentsLeft { at: at as u16 + 3 });
        }
        at += (usize::from(h[1]) + 1) * 8;
        kind = h[0];
    }
    Ok(())
}
