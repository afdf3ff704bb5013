//! ICMP errors that a router sends (RFC 792, RFC 1812 4.3, RFC 4443).

use crate::checksum;
use crate::proto::*;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of the largest ICMP error over IPv4, IP header included (RFC 1812 4.3.2.3).
pub const MAX_V4: usize = 576;
/// Bytes of the largest ICMP error over IPv6, IP header included (RFC 4443 2.4 c).
pub const MAX_V6: usize = 1280;
/// Bytes that [`build_v4`] and [`build_v6`] write at most.
pub const MAX_ERROR: usize = MAX_V6;

/// The errors, each with its form in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpError {
    /// Time to live or hop limit exceeded in transit.
    TimeExceeded,
    /// No route to the destination.
    NetUnreachable,
    /// The next hop does not resolve.
    HostUnreachable,
    /// Nobody has the port any more.
    PortUnreachable,
    /// Prohibited by a rule.
    AdminProhibited,
    /// Fragmentation needed (IPv4), packet too big (IPv6).
    TooBig {
        /// MTU of the next hop, in bytes of IP.
        mtu: u16,
    },
    /// A byte of the packet that cannot be processed.
    ParameterProblem {
        /// Its offset in the packet.
        pointer: u16,
    },
}

impl IcmpError {
    /// Type, code and the second header word.
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            IcmpError::TimeExceeded => (11, 0, 0),
            IcmpError::NetUnreachable => (3, 0, 0),
            IcmpError::HostUnreachable => (3, 1, 0),
            IcmpError::PortUnreachable => (3, 3, 0),
            IcmpError::AdminProhibited => (3, 13, 0),
            IcmpError::TooBig { mtu } => (3, 4, mtu as u32),
            IcmpError::ParameterProblem { pointer } => (12, 0, (pointer as u32) << 24),
        }
    }

    const fn v6(self) -> (u8, u8, u32) {
        match self {
            IcmpError::TimeExceeded => (3, 0, 0),
            IcmpError::NetUnreachable => (1, 0, 0),
            IcmpError::HostUnreachable => (1, 3, 0),
            IcmpError::PortUnreachable => (1, 4, 0),
            IcmpError::AdminProhibited => (1, 1, 0),
            IcmpError::TooBig { mtu } => (2, 0, mtu as u32),
            IcmpError::ParameterProblem { pointer } => (4, 0, pointer as u32),
        }
    }
}

/// Writes an ICMPv4 error about `packet` (an IPv4 packet as it arrived) to the front of `out`;
/// returns its length, or `None` if `out` is too small for the headers.
pub fn build_v4(
    out: &mut [u8],
    from: Ipv4Addr,
    to: Ipv4Addr,
    error: IcmpError,
    packet: &[u8],
) -> Option<usize> {
    const HEADERS: usize = IPV4_LEN + 8;
    let room = out.len().min(MAX_V4).checked_sub(HEADERS)?;
    let quote = packet.get(..packet.len().min(room))?;
    let len = HEADERS + quote.len();
    let out = out.get_mut(..len)?;
    let (kind, code, word) = error.v4();
    out[0] = 0x45;
    out[1] = 0xC0; // precedence "internetwork control" (RFC 1812 4.3.2.5)
    out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    out[4..6].fill(0); // atomic datagram: the identification means nothing (RFC 6864)
    out[6..8].copy_from_slice(&0x4000u16.to_be_bytes());
    out[8] = 64;
    out[9] = ICMP;
    out[10..12].fill(0);
    out[12..16].copy_from_slice(&from.octets());
    out[16..20].copy_from_slice(&to.octets());
    let check = checksum::finish(checksum::sum(&out[..IPV4_LEN]));
    out[10..12].copy_from_slice(&check.to_ne_bytes());
    let body = &mut out[IPV4_LEN..];
    body[0] = kind;
    body[1] = code;
    body[2..4].fill(0);
    body[4..8].copy_from_slice(&word.to_be_bytes());
    body[8..].copy_from_slice(quote);
    let check = checksum::finish(checksum::sum(body));
    body[2..4].copy_from_slice(&check.to_ne_bytes());
    Some(len)
}

/// Writes an ICMPv6 error about `packet` (an IPv6 packet as it arrived) to the front of `out`;
/// returns its length, or `None` if `out` is too small for the headers.
pub fn build_v6(
    out: &mut [u8],
    from: Ipv6Addr,
    to: Ipv6Addr,
    error: IcmpError,
    packet: &[u8],
) -> Option<usize> {
    const HEADERS: usize = IPV6_LEN + 8;
    let room = out.len().min(MAX_V6).checked_sub(HEADERS)?;
    let quote = packet.get(..packet.len().min(room))?;
    let len = HEADERS + quote.len();
    let out = out.get_mut(..len)?;
    let (kind, code, word) = error.v6();
    out[0..4].copy_from_slice(&0x6000_0000u32.to_be_bytes());
    out[4..6].copy_from_slice(&((len - IPV6_LEN) as u16).to_be_bytes());
    out[6] = ICMPV6;
    out[7] = 64;
    out[8..24].copy_from_slice(&from.octets());
    out[24..40].copy_from_slice(&to.octets());
    let pseudo = checksum::pseudo(&out[8..40], ICMPV6, len - IPV6_LEN);
    let body = &mut out[IPV6_LEN..];
    body[0] = kind;
    body[1] = code;
    body[2..4].fill(0);
    body[4..8].copy_from_slice(&word.to_be_bytes());
    body[8..].copy_from_slice(quote);
    let check = checksum::finish(pseudo + checksum::sum(body));
    body[2..4].copy_from_slice(&check.to_ne_bytes());
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Slice, Icmpv6Slice, Ipv4HeaderSlice, Ipv6HeaderSlice};

    #[test]
    fn v4_is_what_another_parser_reads() {
        let quote: Vec<u8> = (0..1400).map(|i| i as u8).collect();
        let mut out = [0xEE; 1500];
        let (a, b) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
        let n = build_v4(&mut out, a, b, IcmpError::TooBig { mtu: 1400 }, &quote).unwrap();
        assert_eq!(n, MAX_V4);
        let ip = Ipv4HeaderSlice::from_slice(&out[..n]).unwrap();
        assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
        assert_eq!((ip.source_addr(), ip.destination_addr()), (a, b));
        let icmp = Icmpv4Slice::from_slice(&out[20..n]).unwrap();
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (3, 4));
        assert_eq!(icmp.bytes5to8(), [0, 0, 0x05, 0x78]);
        assert_eq!(icmp.payload(), &quote[..MAX_V4 - 28]);
        assert_eq!(checksum::fold(checksum::sum(&out[20..n])), 0xFFFF);
    }

    #[test]
    fn v6_is_what_another_parser_reads() {
        let quote = [0x60u8; 3000];
        let mut out = [0xEE; 1500];
        let (a, b): (Ipv6Addr, Ipv6Addr) = ("2001:db8::1".parse().unwrap(), "2001:db8:1::2".parse().unwrap());
        let n = build_v6(&mut out, a, b, IcmpError::HostUnreachable, &quote).unwrap();
        assert_eq!(n, MAX_V6);
        let ip = Ipv6HeaderSlice::from_slice(&out[..n]).unwrap();
        assert_eq!(usize::from(ip.payload_length()), n - 40);
        let icmp = Icmpv6Slice::from_slice(&out[40..n]).unwrap();
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (1, 3));
        assert!(icmp.is_checksum_valid(a.octets(), b.octets()));
    }

    #[test]
    fn short_quotes_and_small_buffers() {
        let mut out = [0; 40];
        assert_eq!(
            build_v4(&mut out, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, IcmpError::TimeExceeded, &[1, 2, 3]),
            Some(31)
        );
        assert_eq!(
            build_v4(&mut out[..27], Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, IcmpError::TimeExceeded, &[]),
            None
        );
    }
}
