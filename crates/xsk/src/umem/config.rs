//! Sizes of the packet memory.

use crate::error::UmemError;

/// Bytes that the kernel keeps free in front of every received packet, besides the headroom.
pub const XDP_HEADROOM: u16 = 256;

/// Size of the piece of memory that holds one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSize {
    /// 2048 bytes.
    B2048,
    /// 4096 bytes.
    B4096,
}

impl ChunkSize {
    /// The smaller size that holds frames of an MTU (with Ethernet header and two VLAN tags).
    ///
    /// # Errors
    /// [`UmemError::MtuTooBig`] if no size does.
    pub fn for_mtu(mtu: u32, headroom: u16) -> Result<ChunkSize, UmemError> {
        const LINK: u32 = 14 + 8;
        let front = u32::from(XDP_HEADROOM) + u32::from(headroom);
        let need = mtu.saturating_add(LINK);
        match need.saturating_add(front) {
            0..=2048 => Ok(ChunkSize::B2048),
            2049..=4096 => Ok(ChunkSize::B4096),
            _ => Err(UmemError::MtuTooBig { mtu, need, max: 4096 - LINK - front.min(4096 - LINK) }),
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            ChunkSize::B2048 => 2048,
            ChunkSize::B4096 => 4096,
        }
    }

    pub(super) const fn shift(self) -> u32 {
        self.bytes().trailing_zeros()
    }
}

/// Sizes of a packet memory.
#[derive(Debug, Clone)]
pub struct UmemConfig {
    /// Number of chunks. Each open socket needs its fill level plus what may wait in its TX
    /// ring; see `docs/decisions/0002-af-xdp-crate.md` for the sizing.
    pub frames: u32,
    /// Size of a chunk.
    pub chunk: ChunkSize,
    /// Room in front of received packets besides [`XDP_HEADROOM`]; a multiple of 8.
    pub headroom: u16,
    /// Try reserved huge pages (falls back to ordinary, possibly transparent huge, pages).
    pub huge_pages: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        UmemConfig { frames: 16384, chunk: ChunkSize::B2048, headroom: 128, huge_pages: false }
    }
}
