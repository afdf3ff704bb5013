//! The headers of source and repair packets (FEC payload IDs in RFC 6363).

use super::{MAX_PACKET, MAX_REPAIRS, MAX_SOURCES, REPAIR_HEADER, SOURCE_HEADER};

const VERSION: u8 = 1;
const SOURCE: u8 = VERSION << 4;
const REPAIR: u8 = VERSION << 4 | 1;

/// A header that has been read; all numbers are in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Of a source packet.
    Source {
        /// The stream.
        stream: u8,
        /// Number of the source block.
        block: u32,
        /// Number of the packet in the block.
        index: u8,
    },
    /// Of a repair packet.
    Repair {
        /// The stream.
        stream: u8,
        /// Number of the source block.
        block: u32,
        /// Number of the repair packet.
        index: u8,
        /// The block and its code.
        code: BlockInfo,
    },
}

/// The parameters of a block, which all its repair packets carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Source packets that were sent.
    pub sources: u8,
    /// Source symbols of the code.
    pub size: u8,
    /// Repair symbols of the code.
    pub repairs: u8,
    /// Bytes of a repair symbol.
    pub len: u16,
}

/// Reads the header at the front of a packet, and where the payload begins. `None`: there is none of this
/// version, or one that contradicts itself.
#[inline]
pub fn read(text: &[u8]) -> Option<(Header, usize)> {
    let h: &[u8; SOURCE_HEADER] = text.first_chunk()?;
    let (stream, index) = (h[1], h[2]);
    let block = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    match h[0] {
        SOURCE if usize::from(index) < MAX_SOURCES && h[3] == 0 => {
            Some((Header::Source { stream, block, index }, SOURCE_HEADER))
        }
        REPAIR => {
            let h: &[u8; REPAIR_HEADER] = text.first_chunk()?;
            let len = u16::from_be_bytes([h[10], h[11]]);
            let code = BlockInfo { sources: h[3], size: h[8], repairs: h[9], len };
            let sound = (1..=code.size).contains(&code.sources)
                && usize::from(code.size) <= MAX_SOURCES
                && usize::from(code.repairs) <= MAX_REPAIRS
                && index < code.repairs
                && (1..=MAX_PACKET.min(text.len() - REPAIR_HEADER)).contains(&usize::from(len));
            sound.then_some((Header::Repair { stream, block, index, code }, REPAIR_HEADER))
        }
        _ => None,
    }
}

impl Header {
    /// Writes the header to the first bytes of `out`, which has room for it.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        match *self {
            Header::Source { stream, block, index } => {
                let h: &mut [u8; SOURCE_HEADER] = out.first_chunk_mut()?;
                *h = [SOURCE, stream, index, 0, 0, 0, 0, 0];
                h[4..].copy_from_slice(&block.to_be_bytes());
                Some(SOURCE_HEADER)
            }
            Header::Repair { stream, block, index, code } => {
                let h: &mut [u8; REPAIR_HEADER] = out.first_chunk_mut()?;
                h[..4].copy_from_slice(&[REPAIR, stream, index, code.sources]);
                h[4..8].copy_from_slice(&block.to_be_bytes());
                h[8..10].copy_from_slice(&[code.size, code.repairs]);
                h[10..].copy_from_slice(&code.len.to_be_bytes());
                Some(REPAIR_HEADER)
            }
        }
    }
}
