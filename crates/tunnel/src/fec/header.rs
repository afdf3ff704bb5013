//! What is in front of sources and repairs.

use super::{MAX_PACKET, MAX_REPAIRS, MAX_SOURCES, REPAIR_HEADER, SOURCE_HEADER};

const VERSION: u8 = 1;
const SOURCE: u8 = VERSION << 4;
const REPAIR: u8 = VERSION << 4 | 1;

/// A header that has been read; all numbers are in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Source { stream: u8, window: u32, index: u8 },
    Repair { stream: u8, window: u32, index: u8, code: BlockInfo },
}

/// What all repairs of a window say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    /// Packets that were sent.
    pub sources: u8,
    /// Of the code.
    pub size: u8,
    pub repairs: u8,
    /// Bytes of a repair.
    pub len: u16,
}

/// Reads the header, and says where the rest begins. `None`: it has none of this version, or one that
/// contradicts itself.
#[inline]
pub fn read(text: &[u8]) -> Option<(Header, usize)> {
    let h: &[u8; SOURCE_HEADER] = text.first_chunk()?;
    let (stream, index) = (h[1], h[2]);
    let window = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    match h[0] {
        SOURCE if usize::from(index) < MAX_SOURCES && h[3] == 0 => {
            Some((Header::Source { stream, window, index }, SOURCE_HEADER))
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
            sound.then_some((Header::Repair { stream, window, index, code }, REPAIR_HEADER))
        }
        _ => None,
    }
}

impl Header {
    /// Writes the header to the first bytes of `out`, which has room for it.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        match *self {
            Header::Source { stream, window, index } => {
                let h: &mut [u8; SOURCE_HEADER] = out.first_chunk_mut()?;
                *h = [SOURCE, stream, index, 0, 0, 0, 0, 0];
                h[4..].copy_from_slice(&window.to_be_bytes());
                Some(SOURCE_HEADER)
            }
            Header::Repair { stream, window, index, code } => {
                let h: &mut [u8; REPAIR_HEADER] = out.first_chunk_mut()?;
                h[..4].copy_from_slice(&[REPAIR, stream, index, code.sources]);
                h[4..8].copy_from_slice(&window.to_be_bytes());
                h[8..10].copy_from_slice(&[code.size, code.repairs]);
                h[10..].copy_from_slice(&code.len.to_be_bytes());
                Some(REPAIR_HEADER)
            }
        }
    }
}
