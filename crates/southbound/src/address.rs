//! Addresses at which tunnels can end.

use std::net::{IpAddr, Ipv6Addr};

/// Why a text is no such address.
pub(crate) enum AddressError {
    /// What should be an address is none; the text, cut.
    None(String),
    /// No host on another network can have it.
    Unreachable(IpAddr, &'static str),
}

/// Reads a unicast address that others can reach.
pub(crate) fn endpoint_address(text: &str) -> Result<IpAddr, AddressError> {
    let address: IpAddr = text.parse().map_err(|_| AddressError::None(text.chars().take(60).collect()))?;
    match unreachable(address) {
        Some(what) => Err(AddressError::Unreachable(address, what)),
        None => Ok(address),
    }
}

/// What keeps the address from being that of a host on another network.
fn unreachable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(a) => match a.octets() {
            [0, ..] => Some("an unspecified address"),
            [127, ..] => Some("a loopback address"),
            [169, 254, ..] => Some("a link-local address"),
            [224..=239, ..] => Some("a multicast address"),
            [255, 255, 255, 255] => Some("the broadcast address"),
            [240..=255, ..] => Some("a reserved address (RFC 1112, 4)"),
            _ => None,
        },
        IpAddr::V6(a) if a.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(a) if a.is_loopback() => Some("the loopback address"),
        IpAddr::V6(a) if a.is_multicast() => Some("a multicast address"),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(a) if is_embedded(a) => Some("an IPv4 address in the form of an IPv6 address"),
        IpAddr::V6(_) => None,
    }
}

/// IPv4-mapped and IPv4-compatible addresses (RFC 4291, 2.5.5) never stand on a wire.
fn is_embedded(a: Ipv6Addr) -> bool {
    matches!(a.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, _, _])
}
