//! ESP in tunnel mode (RFC 4303) with AES-GCM (RFC 4106) or ChaCha20-Poly1305 (RFC 7634), plain or
//! in UDP (RFC 3948).
//!
//! ```text
//! | outer IP | UDP | SPI 4 | sequence 4 | IV 8 | inner packet, padding, 2 | ICV 16 |
//!                                              '------- encrypted -------'
//! ```
//!
//! Packets are sealed and opened in place. Nothing here allocates for a packet or takes a lock: a
//! security association (SA) may be used by any number of workers at once.

mod inbound;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod outbound;
mod set;
mod suite;
#[cfg(test)]
mod tests;
mod udp;
mod window;

pub use inbound::{Inbound, OpenError, Opened};
pub use ledger::{
    Lease, Ledger, LedgerError, MAX_KEYS, SaId, Withheld, fingerprint, receive_ahead, send_ahead,
};
pub use outbound::{Batch, Outbound, SealError, Sealed};
pub use set::{InstallError, MAX_INBOUND, SaSet, Switchover};
pub use suite::{Cipher, KeyError, Suite};
pub use udp::{Datagram, KEEPALIVE, UDP_HEADER, classify, write_udp};
pub use window::{Arrival, MAX_WINDOW, MIN_WINDOW, ReplayWindow, infer_sequence};

/// Bytes of SPI and sequence number.
pub const HEADER: usize = 8;
/// Bytes of the initialization vector: the explicit part of the nonce of all ciphers.
pub const IV: usize = 8;
/// Bytes of the integrity check value of all ciphers.
pub const ICV: usize = 16;
/// Bytes in front of the inner packet.
pub const HEADROOM: usize = HEADER + IV;
/// Bytes behind the inner packet at the most: padding to four bytes, its length, the next header, the ICV.
pub const TAILROOM: usize = 3 + 2 + ICV;

/// Bytes of an ESP packet (from the SPI on) around an inner packet of `inner` bytes.
pub const fn sealed_len(inner: usize) -> usize {
    HEADROOM + (inner + 2).next_multiple_of(4) + ICV
}

/// The largest inner packet whose ESP packet (from the SPI on) is no longer than `room`.
pub const fn inner_room(room: usize) -> usize {
    (room.saturating_sub(HEADROOM + ICV) & !3).saturating_sub(2)
}

/// What an ESP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// An IPv4 packet.
    V4,
    /// An IPv6 packet.
    V6,
    /// A source or repair packet with the header of [`crate::fec`].
    Fec,
}

impl Inner {
    /// The next header field of the ESP trailer (RFC 4303 2.6).
    pub const fn next_header(self) -> u8 {
        match self {
            Inner::V4 => 4,
            Inner::V6 => 41,
            Inner::Fec => FEC_NEXT_HEADER,
        }
    }
}

/// Next header of forward error correction: a number for experiments (RFC 3692), since none is assigned.
pub const FEC_NEXT_HEADER: u8 = 253;
/// Next header of a dummy packet (RFC 4303 2.6), sent to hide the pattern of traffic.
pub const NO_NEXT_HEADER: u8 = 59;
