//! Fields of messages, without a panic where they are too short.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So many bytes from a place on.
pub(crate) fn array<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

pub(crate) fn u16_at(from: &[u8], at: usize) -> Option<u16> {
    array(from, at).map(u16::from_be_bytes)
}

pub(crate) fn u32_at(from: &[u8], at: usize) -> Option<u32> {
    array(from, at).map(u32::from_be_bytes)
}

/// An address of 16 bytes, of IPv4 as `::ffff:a.b.c.d` (RFC 6887 section 5).
pub(crate) fn address_at(from: &[u8], at: usize) -> Option<IpAddr> {
    array::<16>(from, at).map(|a| Ipv6Addr::from(a).to_canonical())
}

/// An IPv4 address as 16 bytes.
pub(crate) fn mapped(a: Ipv4Addr) -> [u8; 16] {
    a.to_ipv6_mapped().octets()
}
