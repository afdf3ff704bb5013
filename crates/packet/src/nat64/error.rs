//! ICMP errors, each with the packet that it quotes (RFC 7915 sections 4.2, 4.3, 5.2 and 5.3). Extensions (RFC 4884) are
//! left off: what they describe are the links of the other family.

use super::header::{
    Ends4, Ends6, Pseudo, fragment_header, header_of, header4, header6, proto_in_v4, proto_in_v6,
    protocol_and_length, quoted_transport, set_addresses,
};
use super::{MIN_MTU6, Untranslatable};
use crate::checksum;
use crate::icmp::{MAX_V4, MAX_V6};
use crate::parse::{Family, Fragment, L4, Parsed};
use crate::proto::*;
use crate::rewrite::FrameMut;
use crate::translate::{self, BadError};

/// Type, code and second word of a message.
type Message = (u8, u8, u32);

/// Bytes of the fragment header.
const FRAGMENT_LEN: usize = 8;

/// Datagram sizes to try when a router does not say which one fits (RFC 1191 section 7).
const PLATEAUS: [u16; 9] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508];

/// An ICMPv6 error becomes an ICMP error of these addresses that quotes a packet of those. `mtu`: what an IPv4 packet of
/// the flow may be large by the links of the gateway itself.
///
/// # Errors
/// Why it cannot be translated; the frame may be changed in part then.
pub fn error_to_v4(
    f: &mut FrameMut<'_>,
    p: &Parsed,
    outer: &Ends4,
    quoted: &Ends4,
    (mtu, id): (u16, u16),
) -> Result<Parsed, Untranslatable> {
    translate::check_error6(f.bytes(), p).map_err(refused)?;
    let L4::IcmpError { kind, code } = p.l4 else { return Err(Untranslatable::Kind) };
    let ip = p.ip(f.bytes());
    let message = ip.get(usize::from(p.l4_at - p.l3)..).ok_or(Untranslatable::Kind)?;
    let head: &[u8; ICMP_LEN] = message.first_chunk().ok_or(Untranslatable::Kind)?;
    let (kind, code, word) = message_in_v4((kind, code), head, mtu)?;
    let length = usize::from(head[4]) * 8;
    let quote = original(&message[ICMP_LEN..], if extends6(head[0]) { length } else { 0 });
    let inner: &[u8; IPV6_LEN] = quote.first_chunk().ok_or(Untranslatable::Kind)?;
    if inner[0] >> 4 != 6 {
        return Err(Untranslatable::Kind);
    }
    let (proto, inner_l4, fragment) = inner_transport(quote)?;
    let payload = usize::from(u16::from_be_bytes([inner[4], inner[5]]));
    let payload = (IPV6_LEN + payload).checked_sub(inner_l4).ok_or(Untranslatable::Kind)?;
    let total = u16::try_from(IPV4_LEN + payload).map_err(|_| Untranslatable::Kind)?;
    let addrs = quoted.octets();
    let old = checksum::sum(&inner[8..IPV6_LEN]);
    let pseudo = Pseudo { old, new: checksum::sum(&addrs), of: old + protocol_and_length(ICMPV6, payload) };
    let tos = inner[0] << 4 | inner[1] >> 4;
    let dont_fragment = if total <= super::MAY_FRAGMENT { 0 } else { 0x4000 };
    let (inner_id, flags) = fragment.unwrap_or((0, dont_fragment));
    let quoted_header = header4((tos, total), (inner_id, flags), (inner[7], proto_in_v4(proto)), &addrs);
    let rest_at = usize::from(p.l4_at) + ICMP_LEN + inner_l4;
    let most = MAX_V4 - IPV4_LEN - ICMP_LEN - IPV4_LEN;
    let rest = (quote.len() - inner_l4).min(most);
    let bytes = f.bytes_mut().get_mut(rest_at..rest_at + rest).ok_or(Untranslatable::Kind)?;
    quoted_transport(bytes, (Family::V6, proto), quoted.ports, &pseudo)?;
    const HEADERS: usize = IPV4_LEN + ICMP_LEN + IPV4_LEN;
    f.push(rest_at, rest, ETH_LEN + HEADERS).map_err(|_| Untranslatable::Room)?;
    let total = (HEADERS + rest) as u16;
    // An error is never larger than what goes anywhere in one piece.
    let outer_addrs = outer.octets();
    let outer_header = header4((p.tos, total), (id, 0), (p.ttl, ICMP), &outer_addrs);
    let h: &mut [u8; HEADERS] = header_of(f)?;
    h[..IPV4_LEN].copy_from_slice(&outer_header);
    put_message(&mut h[IPV4_LEN..IPV4_LEN + ICMP_LEN], (kind, code, word));
    h[IPV4_LEN + ICMP_LEN..].copy_from_slice(&quoted_header);
    let message = f.bytes_mut().get_mut(ETH_LEN + IPV4_LEN..).ok_or(Untranslatable::Room)?;
    let sum = checksum::finish(checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    Ok(Parsed {
        family: Family::V4,
        fragment: Fragment::Whole,
        l4: L4::IcmpError { kind, code },
        proto: ICMP,
        options: false,
        dont_fragment: false,
        l3: ETH_LEN as u16,
        l4_at: (ETH_LEN + IPV4_LEN) as u16,
        ip_len: total,
        message: u16::from_be_bytes([kind, code]),
        addrs4: u64::from_le_bytes(outer_addrs),
        ..*p
    })
}

/// An ICMP error becomes an ICMPv6 error of these addresses that quotes a packet of those. `mtu`: what an IPv6 packet of
/// the flow may be large by the links of the gateway itself.
///
/// # Errors
/// Why it cannot be translated; the frame may be changed in part then.
pub fn error_to_v6(
    f: &mut FrameMut<'_>,
    p: &Parsed,
    outer: &Ends6,
    quoted: &Ends6,
    mtu: u16,
) -> Result<Parsed, Untranslatable> {
    translate::check_error4(f.bytes(), p).map_err(refused)?;
    let L4::IcmpError { kind, code } = p.l4 else { return Err(Untranslatable::Kind) };
    let ip = p.ip(f.bytes());
    let message = ip.get(usize::from(p.l4_at - p.l3)..).ok_or(Untranslatable::Kind)?;
    let head: &[u8; ICMP_LEN] = message.first_chunk().ok_or(Untranslatable::Kind)?;
    let length = usize::from(head[5]) * 4;
    let quote = original(&message[ICMP_LEN..], if extends4(head[0]) { length } else { 0 });
    let inner: &[u8; IPV4_LEN] = quote.first_chunk().ok_or(Untranslatable::Kind)?;
    let inner_l4 = usize::from(inner[0] & 0x0F) * 4;
    let inner_total = usize::from(u16::from_be_bytes([inner[2], inner[3]]));
    let (kind, code, word) = message_in_v6((kind, code), head, (mtu, inner_total as u16))?;
    let payload = inner_total.checked_sub(inner_l4).ok_or(Untranslatable::Kind)?;
    let (word4, id4) = (u16::from_be_bytes([inner[6], inner[7]]), u16::from_be_bytes([inner[4], inner[5]]));
    let fragment = word4 & 0x3FFF != 0;
    let inner_header = if fragment { IPV6_LEN + FRAGMENT_LEN } else { IPV6_LEN };
    let inner_payload = u16::try_from(payload + inner_header - IPV6_LEN).map_err(|_| Untranslatable::Kind)?;
    let proto = inner[9];
    let addrs = quoted.octets();
    let new = checksum::sum(&addrs);
    let pseudo =
        Pseudo { old: checksum::sum(&inner[12..]), new, of: new + protocol_and_length(ICMPV6, payload) };
    let next = if fragment { FRAGMENT } else { proto_in_v6(proto) };
    let quoted_header = header6((inner[1], inner_payload), (next, inner[8]), &addrs);
    let rest_at = usize::from(p.l4_at) + ICMP_LEN + inner_l4;
    let headers = IPV6_LEN + ICMP_LEN + inner_header;
    let rest = quote.len().checked_sub(inner_l4).ok_or(Untranslatable::Kind)?.min(MAX_V6 - headers);
    let bytes = f.bytes_mut().get_mut(rest_at..rest_at + rest).ok_or(Untranslatable::Kind)?;
    quoted_transport(bytes, (Family::V4, proto), quoted.ports, &pseudo)?;
    f.push(rest_at, rest, ETH_LEN + headers).map_err(|_| Untranslatable::Room)?;
    let outer_addrs = outer.octets();
    let length = ICMP_LEN + inner_header + rest;
    let h: &mut [u8; IPV6_LEN] = header_of(f)?;
    *h = header6((p.tos, length as u16), (ICMPV6, p.ttl), &outer_addrs);
    let at = ETH_LEN + IPV6_LEN;
    let message = f.bytes_mut().get_mut(at..).ok_or(Untranslatable::Room)?;
    put_message(&mut message[..ICMP_LEN], (kind, code, word));
    message[ICMP_LEN..ICMP_LEN + IPV6_LEN].copy_from_slice(&quoted_header);
    if fragment {
        let h = fragment_header(proto_in_v6(proto), word4, id4);
        message[ICMP_LEN + IPV6_LEN..ICMP_LEN + inner_header].copy_from_slice(&h);
    }
    let sum = checksum::pseudo(&outer_addrs, ICMPV6, length) + checksum::sum(message);
    message[2..4].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
    Ok(Parsed {
        family: Family::V6,
        fragment: Fragment::Whole,
        l4: L4::IcmpError { kind, code },
        proto: ICMPV6,
        options: false,
        dont_fragment: true,
        l3: ETH_LEN as u16,
        l4_at: at as u16,
        ip_len: (IPV6_LEN + length) as u16,
        message: u16::from_be_bytes([kind, code]),
        addrs4: 0,
        ..*p
    })
}

/// An ICMPv6 error of these addresses that quotes a packet of those, and stays one of IPv6.
///
/// # Errors
/// Why it cannot be translated; the frame may be changed in part then.
pub fn error_readdressed(
    f: &mut FrameMut<'_>,
    p: &Parsed,
    outer: &Ends6,
    quoted: &Ends6,
) -> Result<Parsed, Untranslatable> {
    translate::check_error6(f.bytes(), p).map_err(refused)?;
    let (at, end) = (usize::from(p.l4_at), usize::from(p.l3) + usize::from(p.ip_len));
    let quote =
        f.bytes().get(at + ICMP_LEN..end).filter(|q| q.len() >= IPV6_LEN).ok_or(Untranslatable::Kind)?;
    let (proto, inner_l4, _) = inner_transport(quote)?;
    if !matches!(proto, TCP | UDP) {
        return Err(Untranslatable::Kind);
    }
    set_addresses(f.bytes_mut(), usize::from(p.l3), outer)?;
    let old = set_addresses(f.bytes_mut(), at + ICMP_LEN, quoted)?;
    let pseudo = Pseudo { old, new: checksum::sum(&quoted.octets()), of: 0 };
    let message = f.bytes_mut().get_mut(at..end).ok_or(Untranslatable::Kind)?;
    let inner = message.get_mut(ICMP_LEN + inner_l4..).ok_or(Untranslatable::Kind)?;
    quoted_transport(inner, (Family::V6, proto), quoted.ports, &pseudo)?;
    message[2..4].fill(0);
    let sum = checksum::pseudo(&outer.octets(), ICMPV6, message.len()) + checksum::sum(message);
    message[2..4].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
    Ok(*p)
}

const fn refused(why: BadError) -> Untranslatable {
    match why {
        BadError::Checksum => Untranslatable::Checksum,
        BadError::Quote => Untranslatable::Kind,
    }
}

/// Type, code and second word, with room for the checksum.
fn put_message(h: &mut [u8], (kind, code, word): Message) {
    h[..4].copy_from_slice(&[kind, code, 0, 0]);
    h[4..8].copy_from_slice(&word.to_be_bytes());
}

/// What is quoted, without the extensions behind it. `length`: where they begin; 0: there are none.
fn original(quote: &[u8], length: usize) -> &[u8] {
    if length == 0 { quote } else { quote.get(..length).unwrap_or(quote) }
}

/// Messages that may have a length of what they quote (RFC 4884 section 4).
const fn extends4(kind: u8) -> bool {
    matches!(kind, 3 | 11 | 12)
}

const fn extends6(kind: u8) -> bool {
    matches!(kind, 1 | 3)
}

/// What [`inner_transport`] says.
type Inner = (u8, usize, Option<(u16, u16)>);

/// Protocol and start of the transport header of a quoted IPv6 packet, and identification and flags with offset if it is
/// a fragment, as IPv4 has them.
fn inner_transport(quote: &[u8]) -> Result<Inner, Untranslatable> {
    let (mut proto, mut at, mut fragment) = (quote[6], IPV6_LEN, None);
    for _ in 0..8 {
        if !matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | DEST_OPTIONS) {
            return Ok((proto, at, fragment));
        }
        let h: &[u8; 8] = quote.get(at..).and_then(|b| b.first_chunk()).ok_or(Untranslatable::Kind)?;
        if proto == FRAGMENT {
            let word = u16::from_be_bytes([h[2], h[3]]);
            if word & 0xFFF8 != 0 {
                // Nothing of it says which flow it is of.
                return Err(Untranslatable::Kind);
            }
            fragment = Some((u16::from_be_bytes([h[6], h[7]]), (word & 1) << 13));
        }
        at += if proto == FRAGMENT { FRAGMENT_LEN } else { (usize::from(h[1]) + 1) * 8 };
        proto = h[0];
    }
    Err(Untranslatable::Kind)
}

/// RFC 7915 section 5.2.
fn message_in_v4((kind, code): (u8, u8), h: &[u8; ICMP_LEN], mtu: u16) -> Result<Message, Untranslatable> {
    let word = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    Ok(match (kind, code) {
        (1, 0 | 2 | 3) => (3, 1, 0),
        (1, 1) => (3, 10, 0),
        (1, 4) => (3, 3, 0),
        (2, _) => {
            let theirs = u16::try_from(word).unwrap_or(u16::MAX).saturating_sub(20);
            (3, 4, theirs.min(mtu).into())
        }
        (3, code @ 0..=1) => (11, code, 0),
        (4, 0) => {
            let pointer = match word {
                0 | 1 => word,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return Err(Untranslatable::Kind),
            };
            (12, 0, pointer << 24)
        }
        (4, 1) => (3, 2, 0),
        _ => return Err(Untranslatable::Kind),
    })
}

/// RFC 7915 section 4.2. `total`: the length of the packet that is quoted.
fn message_in_v6(
    (kind, code): (u8, u8),
    h: &[u8; ICMP_LEN],
    (mtu, total): (u16, u16),
) -> Result<Message, Untranslatable> {
    Ok(match (kind, code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0, 0),
        (3, 2) => (4, 1, 6),
        (3, 3) => (1, 4, 0),
        (3, 4) => {
            let theirs = match u16::from_be_bytes([h[6], h[7]]) {
                // A router that does not know RFC 1191.
                0 => PLATEAUS.into_iter().find(|n| *n < total).unwrap_or(0),
                n => n,
            };
            (2, 0, theirs.saturating_add(20).min(mtu).max(MIN_MTU6).into())
        }
        (3, 9 | 10 | 13 | 15) => (1, 1, 0),
        (11, code @ 0..=1) => (3, code, 0),
        (12, 0 | 2) => {
            let pointer = match h[4] {
                n @ 0..=1 => n,
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return Err(Untranslatable::Kind),
            };
            (4, 0, pointer.into())
        }
        _ => return Err(Untranslatable::Kind),
    })
}
