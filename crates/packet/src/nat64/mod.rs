//! Translation between IPv6 and IPv4: addresses (RFC 6052), headers (RFC 7915 sections 4.1 and 5.1) and ICMP errors with
//! the packets that they quote (sections 4.2, 4.3, 5.2 and 5.3). What becomes of addresses and ports is the caller's: a
//! stateful NAT64 (RFC 6146).

mod error;
mod header;
mod prefix;

pub use error::{error_readdressed, error_to_v4, error_to_v6};
pub use header::{Ends4, Ends6, length_in_v4, length_in_v6, readdressed, segments_left, to_v4, to_v6};
pub use prefix::{Prefix64, is_global, is_host};

/// Why a packet cannot be translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untranslatable {
    /// A checksum of an ICMP error, or of the header that it quotes, is wrong.
    Checksum,
    /// The other family has no such message or protocol, or the packet is a fragment whose checksum cannot be computed.
    Kind,
    /// An IPv6 routing header with segments left: the byte of the packet at which they stand (RFC 7915 section 5.1).
    SegmentsLeft {
        /// Offset from the start of the IPv6 header.
        at: u16,
    },
    /// The buffer has no room for the longer header, or the packet would be longer than 65535 bytes.
    Room,
}

/// The length up to which translated IPv4 packets may be fragmented on their way: what IPv6 carries at least, less the
/// difference of the headers (RFC 7915 section 5.1).
pub const MAY_FRAGMENT: u16 = 1260;

/// What every IPv6 link carries in one piece (RFC 8200 section 5).
pub const MIN_MTU6: u16 = 1280;

#[cfg(test)]
mod tests;
