//! ESP in tunnel mode (RFC 4303) with AES-GCM (RFC 4106) or ChaCha20-Poly1305 (RFC 7634), plain or
//! in UDP (RFC 3948).
//!
//! ```text
//! | outer IP | UDP | SPI 4 | sequence 4 | IV 8 | inner packet, padding, 2 | ICV 16 |
//!                                              '------- encrypted -------'
//! ```
//!
//! Packets are sealed and opened where they lie. Nothing here allocates for a packet or takes a
//! lock: an association may be used by any number of workers at once.

mod inbound;
mod outbound;
mod set;
mod suite;
#[cfg(test)]
mod tests;
mod udp;
mod window;

pub use inbound::{Inbound, OpenError, Opened};
pub use outbound::{Batch, Outbound, SealError, Sealed};
pub use set::{InstallError, MAX_INBOUND, SaSet, Switchover};
pub use suite::{Cipher, KeyError, Suite};
pub use udp::{Datagram, KEEPALIVE, UDP_HEADER, classify, write_udp};
pub use window::{MAX_WINDOW, MIN_WINDOW, ReplayWindow, infer_sequence};

/// SPI and sequence number.
pub const HEADER: usize = 8;
/// Both ciphers' explicit part of the nonce.
pub const IV: usize = 8;
/// Both ciphers' integrity check value.
pub const ICV: usize = 16;
/// What precedes the inner packet.
pub const HEADROOM: usize = HEADER + IV;
/// What may follow it: padding to four bytes, its length, the next header, the ICV.
pub const TAILROOM: usize = 3 + 2 + ICV;

/// Bytes of an ESP packet (from the SPI on) around an inner packet of `inner` bytes.
pub const fn sealed_len(inner: usize) -> usize {
    HEADROOM + (inner + 2).next_multiple_of(4) + ICV
}

/// The largest inner packet whose ESP packet (from the SPI on) is no longer than `room`.
pub const fn inner_room(room: usize) -> usize {
    (room.saturating_sub(HEADROOM + ICV) & !3).saturating_sub(2)
}

/// What is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    V4,
    V6,
    /// A packet or a repair with the header of [`crate::fec`].
    Fec,
}

impl Inner {
    pub const fn next_header(self) -> u8 {
        match self {
            Inner::V4 => 4,
            Inner::V6 => 41,
            Inner::Fec => FEC_NEXT_HEADER,
        }
    }
}

/// Forward error correction: a number for experiments (RFC 3692), since none is assigned.
pub const FEC_NEXT_HEADER: u8 = 253;
/// RFC 4303, 2.6: nothing inside, sent to hide the traffic's pattern.
pub const NO_NEXT_HEADER: u8 = 59;
