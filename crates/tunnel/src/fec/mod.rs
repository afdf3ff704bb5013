//! Forward error correction (FEC) with a block code, in the terms of RFC 6363: a few source packets are a
//! source block, and the repair packets that follow them can each replace any one that was lost. Source
//! packets are sent at once and unchanged (the code is systematic); only a lost one waits for a repair.
//! The configuration calls the length of a block `fec_window`.
//!
//! A source packet has in front of it
//!
//! ```text
//! 0        1        2        3        4                                  8
//! | 1 |  0 | stream | index  |   0    | block                           | packet …
//! ```
//!
//! and a repair packet
//!
//! ```text
//! 0        1        2        3        4                 8        9        10                12
//! | 1 |  1 | stream | index  | sources| block          | size   | repairs| length          | repair …
//! ```
//!
//! The first byte is the version and the kind, four bits each. A stream is what one worker of
//! the sender sends. Source packets of a block are numbered from 0, and so are its repair packets. The code is
//! that of `size` source and `repairs` repair symbols; of a block that was closed early the source symbols from
//! `sources` on are all zeros and are not sent. `length` is that of the longest source packet: shorter ones count
//! as padded with zeros. With one repair symbol the code is the exclusive or, with more it is Reed-Solomon over
//! GF(2^8) (see [`code`]).

pub mod code;
mod field;
mod header;
mod receiver;
mod reed_solomon;
mod sender;
#[cfg(test)]
mod tests;

pub use header::{BlockInfo, Header, read};
pub use receiver::{BLOCK_TIMEOUT, ReceiveError, Received, Receiver, Stats, decode_only};
pub use sender::{Repair, Sender};

/// Source packets of a block at the most.
pub const MAX_SOURCES: usize = 32;
/// Repair packets of a block at the most.
pub const MAX_REPAIRS: usize = 8;
/// Bytes of the header of a source packet.
pub const SOURCE_HEADER: usize = 8;
/// Bytes of the header of a repair packet, whose payload is as long as the longest source packet.
pub const REPAIR_HEADER: usize = 12;
/// Bytes of the longest packet that can be protected.
pub const MAX_PACKET: usize = 2048;

/// The code and timing of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Source packets of a block, 2..=[`MAX_SOURCES`].
    pub sources: u8,
    /// Repair packets of a block, 1..=[`MAX_REPAIRS`].
    pub repairs: u8,
    /// Nanoseconds after which a block is closed, full or not.
    pub delay: u64,
}
