//! Replies of the gateway on a tunnel's inner link: to ARP requests (RFC 826), to neighbour solicitations
//! (RFC 4861) and to echo requests.

use crate::checksum;
use crate::proto::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ARP_LEN: usize = 28;

/// What an address is to the gateway that is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Its own on the link.
    Own,
    /// Another's, to whom it forwards (RFC 1027, RFC 4861 7.2.8).
    Proxy,
    /// None of its business.
    Foreign,
}

/// Writes the reply to an ARP request for one of the gateway's addresses to `out`, as a whole frame; returns
/// its length. `None`: it is no such request, or `out` is too short. `mac` is the gateway's address on the link,
/// `claim` says what an address is to it.
pub fn arp_reply(
    frame: &[u8],
    mac: [u8; 6],
    claim: &dyn Fn(IpAddr) -> Claim,
    out: &mut [u8],
) -> Option<usize> {
    let arp: &[u8; ARP_LEN] = frame.get(ETH_LEN..)?.first_chunk()?;
    // Ethernet, IPv4, their lengths, request.
    if arp[..8] != [0, 1, 8, 0, 6, 4, 0, 1] {
        return None;
    }
    let target = Ipv4Addr::new(arp[24], arp[25], arp[26], arp[27]);
    let sender = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    match claim(target.into()) {
        Claim::Own => {}
        // Who probes for an address, or announces it, has it or is about to take it (RFC 5227 1.1).
        Claim::Proxy if !sender.is_unspecified() && sender != target => {}
        _ => return None,
    }
    let out = out.get_mut(..ETH_LEN + ARP_LEN)?;
    out[..6].copy_from_slice(&arp[8..14]);
    out[6..12].copy_from_slice(&mac);
    out[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    let reply = &mut out[ETH_LEN..];
    reply[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    reply[8..14].copy_from_slice(&mac);
    reply[14..18].copy_from_slice(&arp[24..28]);
    reply[18..28].copy_from_slice(&arp[8..18]);
    Some(ETH_LEN + ARP_LEN)
}

/// The IPv4 address of who sent an ARP packet about Ethernet, whose Ethernet address is the frame's source.
pub fn arp_sender(frame: &[u8]) -> Option<Ipv4Addr> {
    let arp: &[u8; ARP_LEN] = frame.get(ETH_LEN..)?.first_chunk()?;
    let honest = arp[..6] == [0, 1, 8, 0, 6, 4] && frame.get(6..12) == Some(&arp[8..14]);
    honest.then(|| Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]))
}

/// Writes an ARP request to everybody on the link to `out`, as a whole frame; returns its length.
pub fn arp_request(mac: [u8; 6], own: Ipv4Addr, target: Ipv4Addr, out: &mut [u8]) -> Option<usize> {
    let out = out.get_mut(..ETH_LEN + ARP_LEN)?;
    out[..6].fill(0xFF);
    out[6..12].copy_from_slice(&mac);
    out[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    let arp = &mut out[ETH_LEN..];
    arp[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    arp[8..14].copy_from_slice(&mac);
    arp[14..18].copy_from_slice(&own.octets());
    arp[18..24].fill(0);
    arp[24..28].copy_from_slice(&target.octets());
    Some(ETH_LEN + ARP_LEN)
}

/// Writes the advertisement that replies to a neighbour solicitation; as [`arp_reply`].
pub fn advertisement(
    frame: &[u8],
    mac: [u8; 6],
    claim: &dyn Fn(IpAddr) -> Claim,
    out: &mut [u8],
) -> Option<usize> {
    const LEN: usize = IPV6_LEN + 32;
    let ip = frame.get(ETH_LEN..)?;
    let icmp = ip.get(IPV6_LEN..)?;
    let target: &[u8; 16] = icmp.get(8..)?.first_chunk()?;
    // RFC 4861 7.1.1: a solicitation has the hop limit with which it was sent.
    if ip.first()? >> 4 != 6 || *ip.get(7)? != 255 || *icmp.first()? != SOLICITATION {
        return None;
    }
    let source: &[u8; 16] = ip.get(8..)?.first_chunk()?;
    // From no address: who asks wants to take the target (RFC 4862 5.4.2).
    if *source == [0; 16] {
        return None;
    }
    // Router, solicited, override. Another's advertisement would have the last word, and says itself whether it is a router.
    let flags = match claim(Ipv6Addr::from(*target).into()) {
        Claim::Own => 0xE0,
        Claim::Proxy => 0x40,
        Claim::Foreign => return None,
    };
    let out = out.get_mut(..ETH_LEN + LEN)?;
    out[..6].copy_from_slice(frame.get(6..12)?);
    out[6..12].copy_from_slice(&mac);
    out[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    let h = &mut out[ETH_LEN..];
    h[..4].copy_from_slice(&0x6000_0000u32.to_be_bytes());
    h[4..6].copy_from_slice(&32u16.to_be_bytes());
    (h[6], h[7]) = (ICMPV6, 255);
    h[8..24].copy_from_slice(target);
    h[24..40].copy_from_slice(source);
    let body = &mut h[IPV6_LEN..];
    body[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    body[8..24].copy_from_slice(target);
    body[24..26].copy_from_slice(&[2, 1]);
    body[26..32].copy_from_slice(&mac);
    let sum = checksum::pseudo(&h[8..40], ICMPV6, 32) + checksum::sum(&h[IPV6_LEN..]);
    h[IPV6_LEN + 2..IPV6_LEN + 4].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
    Some(ETH_LEN + LEN)
}

/// Writes the reply to an echo request without options or extension headers. `out` has the packet's
/// length.
pub fn echo_reply(packet: &[u8], out: &mut [u8]) -> bool {
    if packet.len() != out.len() || packet.is_empty() {
        return false;
    }
    out.copy_from_slice(packet);
    let (icmp, addr, at) = match packet[0] >> 4 {
        4 => (IPV4_LEN, 4, 12),
        _ => (IPV6_LEN, 16, 8),
    };
    if packet.len() < icmp + ICMP_LEN {
        return false;
    }
    out[at..at + addr].copy_from_slice(&packet[at + addr..at + 2 * addr]);
    out[at + addr..at + 2 * addr].copy_from_slice(&packet[at..at + addr]);
    let old = u16::from_ne_bytes([out[icmp], out[icmp + 1]]);
    out[icmp] = if icmp == IPV4_LEN { 0 } else { 129 };
    let new = u16::from_ne_bytes([out[icmp], out[icmp + 1]]);
    let check = u16::from_ne_bytes([out[icmp + 2], out[icmp + 3]]);
    let check = checksum::apply(check, checksum::delta16(old, new));
    out[icmp + 2..icmp + 4].copy_from_slice(&check.to_ne_bytes());
    if icmp == IPV4_LEN {
        out[8] = 64;
        out[10..12].fill(0);
        let check = checksum::finish(checksum::sum(&out[..IPV4_LEN]));
        out[10..12].copy_from_slice(&check.to_ne_bytes());
    } else {
        out[7] = 64;
    }
    true
}
