//! Network address translation of a frame (RFC 3022): addresses, ports and checksums of a packet as
//! its flow record says, and of what an ICMP error quotes (RFC 5508 4). Of IPv6 the addresses alone change (RFC 6296).

use crate::checksum::{self, delta32};
use crate::parse::{Family, Fragment, L4, Parsed};
use crate::proto::*;

/// New addresses and ports of an IPv4 packet and the sums to add to its checksums, as a flow record holds
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words4 {
    /// Source | destination << 32, as loaded from a packet.
    pub addrs: u64,
    /// Source port | destination port << 16 | sum for the header << 32 | sum for the transport << 48.
    pub ports: u64,
}

impl Words4 {
    /// The words that turn a packet of `from` into one of `to`: addresses and ports as in a flow key.
    #[inline]
    pub const fn between(from: (u64, u32), to: (u64, u32), proto: u8) -> Words4 {
        let addrs = delta32(from.0 as u32, to.0 as u32) + delta32((from.0 >> 32) as u32, (to.0 >> 32) as u32);
        let ports = delta32(from.1, to.1);
        let l4 = match proto {
            // ICMP has no pseudo-header: the checksum covers the identifier alone.
            ICMP => ports,
            _ => addrs + ports,
        };
        let (l3, l4) = (checksum::fold(addrs) as u64, checksum::fold(l4) as u64);
        Words4 { addrs: to.0, ports: to.1 as u64 | l3 << 32 | l4 << 48 }
    }
}

/// Translates the packet of a frame. Later fragments have no transport header: their addresses alone.
#[inline]
pub fn packet4(frame: &mut [u8], p: &Parsed, w: Words4) {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4_at));
    let Some(h) = frame.get_mut(l3..).and_then(|f| f.first_chunk_mut::<IPV4_LEN>()) else { return };
    h[12..20].copy_from_slice(&w.addrs.to_le_bytes());
    add(h, 10, (w.ports >> 32) as u16);
    if matches!(p.fragment, Fragment::Later { .. }) {
        return;
    }
    let Some(t) = frame.get_mut(l4..) else { return };
    let (ports, sum) = ((w.ports as u32).to_le_bytes(), (w.ports >> 48) as u16);
    match p.l4 {
        L4::Tcp { .. } if t.len() >= TCP_LEN => {
            t[0..4].copy_from_slice(&ports);
            add(t, 16, sum);
        }
        L4::Udp if t.len() >= UDP_LEN => {
            t[0..4].copy_from_slice(&ports);
            add_udp(t, sum);
        }
        L4::Echo { reply } if t.len() >= ICMP_LEN => {
            let new = if reply { [ports[2], ports[3]] } else { [ports[0], ports[1]] };
            // A query and an answer with the identifier 0 have the same key, but not the same identifier after translation:
            // the sum that the record holds may be the other one's.
            let old = u16::from_le_bytes([t[4], t[5]]);
            let sum = checksum::fold(checksum::delta16(old, u16::from_le_bytes(new)));
            t[4..6].copy_from_slice(&new);
            add(t, 2, sum);
        }
        _ => {}
    }
}

/// Adds to the checksum at `at`.
#[inline]
fn add(b: &mut [u8], at: usize, sum: u16) {
    let old = u16::from_ne_bytes([b[at], b[at + 1]]);
    b[at..at + 2].copy_from_slice(&checksum::apply(old, u64::from(sum)).to_ne_bytes());
}

/// The same for UDP, where zero means that there is none (RFC 768).
#[inline]
fn add_udp(t: &mut [u8], sum: u16) {
    let old = u16::from_ne_bytes([t[6], t[7]]);
    if old != 0 {
        let new = match checksum::apply(old, u64::from(sum)) {
            0 => 0xFFFF,
            c => c,
        };
        t[6..8].copy_from_slice(&new.to_ne_bytes());
    }
}

/// Why an ICMP error cannot be translated (RFC 5508 REQ-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadError {
    /// The checksum of the message or of the quoted header.
    Checksum,
    /// The quote is too short or is no IPv4 packet.
    Quote,
}

/// Checks an ICMPv4 error: its own checksum, and that of the header that it quotes. The transport
/// checksum of the quote is not checked: most quotes are cut short.
///
/// # Errors
/// [`BadError`] if the message must be dropped.
pub fn check_error4(frame: &[u8], p: &Parsed) -> Result<(), BadError> {
    let message = p.ip(frame).get(usize::from(p.l4_at - p.l3)..).ok_or(BadError::Quote)?;
    if checksum::fold(checksum::sum(message)) != 0xFFFF {
        return Err(BadError::Checksum);
    }
    let quote = message.get(ICMP_LEN..).ok_or(BadError::Quote)?;
    let ihl = header_len(quote).ok_or(BadError::Quote)?;
    if checksum::fold(checksum::sum(&quote[..ihl])) != 0xFFFF {
        return Err(BadError::Checksum);
    }
    Ok(())
}

/// Header length of a quoted packet whose first eight transport bytes are there.
fn header_len(quote: &[u8]) -> Option<usize> {
    let ihl = usize::from(quote.first()? & 0x0F) * 4;
    (quote[0] >> 4 == 4 && ihl >= IPV4_LEN && quote.len() >= ihl + 8).then_some(ihl)
}

/// Translates an ICMPv4 error: the outer addresses become `outer` (source | destination << 32), the
/// quoted packet becomes one with the addresses and ports of `quoted`. Call [`check_error4`] first.
pub fn error4(frame: &mut [u8], p: &Parsed, outer: u64, quoted: (u64, u32)) {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4_at));
    let end = l3 + usize::from(p.ip_len);
    let Some(h) = frame.get_mut(l3..).and_then(|f| f.first_chunk_mut::<IPV4_LEN>()) else { return };
    let old: [u8; 8] = std::array::from_fn(|i| h[12 + i]);
    let old = u64::from_le_bytes(old);
    h[12..20].copy_from_slice(&outer.to_le_bytes());
    let delta = delta32(old as u32, outer as u32) + delta32((old >> 32) as u32, (outer >> 32) as u32);
    add(h, 10, checksum::fold(delta));
    let Some(message) = frame.get_mut(l4..end) else { return };
    let Some((head, quote)) = message.split_at_mut_checked(ICMP_LEN) else { return };
    let Some(ihl) = header_len(quote) else { return };
    // All that changes lies in the first words of the quote: the message's checksum follows its sum.
    let span = quote.len().min(ihl + TCP_LEN) & !1;
    let before = checksum::sum(&quote[..span]);
    quote_addresses(quote, ihl, quoted);
    let after = checksum::sum(&quote[..span]);
    add(head, 2, checksum::fold(u64::from(checksum::fold(before)) + u64::from(!checksum::fold(after))));
}

fn quote_addresses(quote: &mut [u8], ihl: usize, (addrs, ports): (u64, u32)) {
    let proto = quote[9];
    let old: [u8; 8] = std::array::from_fn(|i| quote[12 + i]);
    let t = &quote[ihl..];
    let echo = proto == ICMP && matches!(t[0], 0 | 8 | 13 | 14);
    let old_ports = match proto {
        TCP | UDP => u32::from_le_bytes([t[0], t[1], t[2], t[3]]),
        // The identifier takes the place of the port of the side that sent the request.
        _ if echo && matches!(t[0], 8 | 13) => u32::from(u16::from_le_bytes([t[4], t[5]])),
        _ if echo => u32::from(u16::from_le_bytes([t[4], t[5]])) << 16,
        _ => ports,
    };
    let w = Words4::between((u64::from_le_bytes(old), old_ports), (addrs, ports), proto);
    quote[12..20].copy_from_slice(&w.addrs.to_le_bytes());
    add(quote, 10, (w.ports >> 32) as u16);
    let (t, sum) = (&mut quote[ihl..], (w.ports >> 48) as u16);
    match proto {
        TCP => {
            t[0..4].copy_from_slice(&ports.to_le_bytes());
            if t.len() >= 18 {
                add(t, 16, sum);
            }
        }
        UDP => {
            t[0..4].copy_from_slice(&ports.to_le_bytes());
            add_udp(t, sum);
        }
        _ if echo => {
            let id = if matches!(t[0], 8 | 13) { ports as u16 } else { (ports >> 16) as u16 };
            // As in [`packet4`]: with the identifier 0 the sum above may be that of the other direction.
            let sum = checksum::fold(checksum::delta16(u16::from_le_bytes([t[4], t[5]]), id));
            t[4..6].copy_from_slice(&id.to_le_bytes());
            add(t, 2, sum);
        }
        _ => {}
    }
}

/// The sum to add to a checksum of which an IPv6 address is part: words as loaded from a packet.
#[inline]
pub const fn delta6(old: [u64; 2], new: [u64; 2]) -> u64 {
    delta32(old[0] as u32, new[0] as u32)
        + delta32((old[0] >> 32) as u32, (new[0] >> 32) as u32)
        + delta32(old[1] as u32, new[1] as u32)
        + delta32((old[1] >> 32) as u32, (new[1] >> 32) as u32)
}

/// Source and destination of an IPv6 packet, as loaded.
type Addrs6 = [[u64; 2]; 2];

fn addrs6(h: &[u8; IPV6_LEN]) -> Addrs6 {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| h[at + i]));
    [[word(8), word(16)], [word(24), word(32)]]
}

fn set_addrs6(h: &mut [u8; IPV6_LEN], addrs: Addrs6) {
    for (at, word) in (8..IPV6_LEN).step_by(8).zip(addrs.into_iter().flatten()) {
        h[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

/// Gives an IPv6 packet other addresses. `sum` is what its transport checksum gets added; later fragments have none.
#[inline]
pub fn packet6(frame: &mut [u8], p: &Parsed, addrs: Addrs6, sum: u16) {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4_at));
    let Some(h) = frame.get_mut(l3..).and_then(|f| f.first_chunk_mut::<IPV6_LEN>()) else { return };
    set_addrs6(h, addrs);
    if matches!(p.fragment, Fragment::Later { .. }) {
        return;
    }
    let Some(t) = frame.get_mut(l4..) else { return };
    match p.l4 {
        L4::Tcp { .. } if t.len() >= TCP_LEN => add(t, 16, sum),
        L4::Udp if t.len() >= UDP_LEN => add_udp(t, sum),
        L4::Echo { .. } | L4::IcmpOther { .. } | L4::IcmpError { .. } if t.len() >= ICMP_LEN => {
            add(t, 2, sum)
        }
        _ => {}
    }
}

/// Gives an IPv6 packet another source by which no checksum changes (RFC 6296).
pub fn set_source6(frame: &mut [u8], p: &Parsed, src: std::net::Ipv6Addr) {
    if let Some(at) = frame.get_mut(usize::from(p.l3) + 8..).and_then(|f| f.first_chunk_mut::<16>()) {
        *at = src.octets();
    }
}

/// Checks the checksum of an ICMPv6 error (RFC 4443 2.3).
///
/// # Errors
/// [`BadError`] if the message must be dropped.
pub fn check_error6(frame: &[u8], p: &Parsed) -> Result<(), BadError> {
    let ip = p.ip(frame);
    let message = ip.get(usize::from(p.l4_at - p.l3)..).ok_or(BadError::Quote)?;
    let addrs = ip.get(8..IPV6_LEN).ok_or(BadError::Quote)?;
    let sum = checksum::sum(message) + checksum::pseudo(addrs, ICMPV6, message.len());
    if checksum::fold(sum) == 0xFFFF { Ok(()) } else { Err(BadError::Checksum) }
}

/// Translates an ICMPv6 error: its destination becomes `dst`, the quoted packet one with the addresses `quoted`.
///
/// # Errors
/// [`BadError`] if there is no IPv6 packet in it.
pub fn error6(frame: &mut [u8], p: &Parsed, dst: [u64; 2], quoted: Addrs6) -> Result<(), BadError> {
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4_at));
    let end = l3 + usize::from(p.ip_len);
    let message = frame.get_mut(l4..end).ok_or(BadError::Quote)?;
    let (head, quote) = message.split_at_mut_checked(ICMP_LEN).ok_or(BadError::Quote)?;
    let quote = quote.first_chunk_mut::<IPV6_LEN>().filter(|q| q[0] >> 4 == 6).ok_or(BadError::Quote)?;
    let was = addrs6(quote);
    // The transport checksum of the quote counts its addresses and does not change with them: prefixes are translated so.
    let mut sum = delta6(was[0], quoted[0]) + delta6(was[1], quoted[1]);
    set_addrs6(quote, quoted);
    sum = u64::from(checksum::fold(sum));
    let check = [head[2], head[3]];
    let Some(h) = frame.get_mut(l3..).and_then(|f| f.first_chunk_mut::<IPV6_LEN>()) else {
        return Err(BadError::Quote);
    };
    let [src, old] = addrs6(h);
    set_addrs6(h, [src, dst]);
    sum += delta6(old, dst);
    let check = checksum::apply(u16::from_ne_bytes(check), u64::from(checksum::fold(sum)));
    if let Some(at) = frame.get_mut(l4 + 2..l4 + 4) {
        at.copy_from_slice(&check.to_ne_bytes());
    }
    Ok(())
}

/// Whether NAT supports this protocol: those with a pseudo-header checksum that is not rewritten
/// would arrive broken (DCCP, UDP-Lite).
pub const fn supports(family: Family, proto: u8) -> bool {
    matches!(family, Family::V4) && !matches!(proto, DCCP | UDP_LITE)
}
