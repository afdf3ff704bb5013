//! ESP in UDP (RFC 3948).

/// Bytes of the UDP header before ESP. Its checksum is zero (RFC 3948, 2.1); over IPv6 that is allowed for
/// tunnels (RFC 6935) whose content checks itself.
pub const UDP_HEADER: usize = 8;

/// All that a NAT keepalive carries (RFC 3948, 2.3).
pub const KEEPALIVE: u8 = 0xFF;

/// What a datagram to the port of ESP carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    /// An ESP packet.
    Esp,
    /// A NAT keepalive (2.3), to be ignored.
    Keepalive,
    /// IKE, behind four zero bytes (2.2).
    NonEsp,
    /// Too short for any of them.
    Short,
}

/// What a datagram to the port of ESP carries; `payload` is what follows the UDP header.
#[inline]
pub fn classify(payload: &[u8]) -> Datagram {
    match payload {
        [KEEPALIVE] => Datagram::Keepalive,
        [0, 0, 0, 0, ..] => Datagram::NonEsp,
        [_, _, _, _, ..] => Datagram::Esp,
        _ => Datagram::Short,
    }
}

/// Writes the UDP header at the front of `packet`, which is all of the datagram. False: it does not
/// fit a UDP length.
#[inline]
pub fn write_udp(packet: &mut [u8], source: u16, dest: u16) -> bool {
    let Ok(len) = u16::try_from(packet.len()) else { return false };
    let Some(header) = packet.first_chunk_mut::<UDP_HEADER>() else { return false };
    header[..2].copy_from_slice(&source.to_be_bytes());
    header[2..4].copy_from_slice(&dest.to_be_bytes());
    header[4..6].copy_from_slice(&len.to_be_bytes());
    header[6..].fill(0);
    true
}
