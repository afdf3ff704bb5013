//! Numbers of flow records.

/// Records of one direction that lie side by side: a page of IPv4's. Where traffic goes one way, its records
/// then share neither pages nor pairs of cache lines, which processors fetch together, with those of the other.
pub const RECORD_BLOCK: u32 = 1 << RECORD_BLOCK_BITS;
const RECORD_BLOCK_BITS: u32 = 6;

/// Number of a flow record. [`RECORD_BLOCK`] sessions have their forward directions side by side, and behind
/// them their reverse directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNo(pub u32);

impl RecordNo {
    /// The record of the forward direction: that of the packet which began the session.
    pub const fn forward(session: u32) -> RecordNo {
        let (block, at) = (session >> RECORD_BLOCK_BITS, session & (RECORD_BLOCK - 1));
        RecordNo(block << (RECORD_BLOCK_BITS + 1) | at)
    }

    /// The record of the reverse direction: that of the replies.
    pub const fn reverse(session: u32) -> RecordNo {
        RecordNo::forward(session).peer()
    }

    /// Both records of a session: forward, reverse.
    pub const fn both(session: u32) -> [RecordNo; 2] {
        [RecordNo::forward(session), RecordNo::reverse(session)]
    }

    /// The other direction of the same session.
    pub const fn peer(self) -> RecordNo {
        RecordNo(self.0 ^ RECORD_BLOCK)
    }

    /// Number of the session, from 1.
    pub const fn session(self) -> u32 {
        self.0 >> (RECORD_BLOCK_BITS + 1) << RECORD_BLOCK_BITS | self.0 & (RECORD_BLOCK - 1)
    }

    /// 0: forward; 1: reverse.
    pub const fn direction(self) -> usize {
        (self.0 >> RECORD_BLOCK_BITS & 1) as usize
    }

    /// Records of a table for so many sessions, whose numbers begin at 1.
    pub const fn needed(sessions: u32) -> u32 {
        (sessions + 1).next_multiple_of(RECORD_BLOCK) * 2
    }

    /// As an index of the table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
