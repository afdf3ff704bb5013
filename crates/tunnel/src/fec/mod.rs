//! Forward error correction: after every few packets some repairs, of which each can take the place
//! of any one of them that was lost. Packets leave at once and as they are (the code is systematic);
//! only what was lost waits for a repair.
//!
//! A packet (source) has in front of it
//!
//! ```text
//! 0        1        2        3        4                                  8
//! | 1 |  0 | stream | index  |   0    | window                           | packet …
//! ```
//!
//! and a repair
//!
//! ```text
//! 0        1        2        3        4                 8        9        10                12
//! | 1 |  1 | stream | index  | sources| window          | size   | repairs| length          | repair …
//! ```
//!
//! The first byte is the version and the kind, four bits each. A stream is what one worker of the
//! sender's sends. Sources of a window are numbered from 0, and so are its repairs. The code is that of
//! `size` sources and `repairs` repairs; of a window that was closed early the packets from `sources`
//! on are all zeros and are not sent. `length` is that of the longest source: shorter ones count as
//! filled up with zeros. With one repair the code is the exclusive or, with more it is Reed and
//! Solomon's over GF(2^8) (see [`code`]).

pub mod code;
mod header;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

pub use header::{BlockInfo, Header, read};
pub use receiver::{BLOCK_TIMEOUT, ReceiveError, Received, Receiver, Stats, decode_only};
pub use sender::{Repair, Sender};

/// Sources of a window at the most.
pub const MAX_SOURCES: usize = 32;
/// Repairs of a window at the most.
pub const MAX_REPAIRS: usize = 8;
/// Bytes in front of a source.
pub const SOURCE_HEADER: usize = 8;
/// Bytes in front of a repair, which is as long as the longest source.
pub const REPAIR_HEADER: usize = 12;
/// Bytes of a packet that can be protected.
pub const MAX_PACKET: usize = 2048;

/// What a sender does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Sources of a window, 2..=[`MAX_SOURCES`].
    pub window: u8,
    /// Repairs for them, 1..=[`MAX_REPAIRS`].
    pub repairs: u8,
    /// Nanoseconds after which a window is closed, full or not.
    pub delay: u64,
}
