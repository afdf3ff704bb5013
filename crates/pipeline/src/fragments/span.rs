//! Which part of its datagram a fragment is.

use sag_packet::proto::*;
use sag_packet::{Family, Fragment, Parsed};

/// Bytes `start..end` of the datagram's data; not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u16,
    /// The byte after the last one.
    pub end: u16,
    /// Nothing comes after it.
    pub last: bool,
}

impl Span {
    /// Of a parsed fragment. None: it is empty, it is not the last and does not end on a multiple of
    /// eight, or the datagram would be larger than 65535 bytes (RFC 791 3.2, RFC 8200 4.5).
    pub fn of(p: &Parsed, frame: &[u8]) -> Option<Span> {
        let ip = p.ip(frame);
        let (more, header, limit) = match p.family {
            Family::V4 => (ip.get(6)? & 0x20 != 0, usize::from(p.l4_at - p.l3), usize::from(u16::MAX)),
            Family::V6 => {
                let at = fragment_header(ip)?;
                // The length field does not count the fixed header, the whole datagram has no
                // fragment header.
                (ip.get(at + 3)? & 1 != 0, at + 8, usize::from(u16::MAX) + IPV6_LEN + 8)
            }
        };
        let start = match p.fragment {
            Fragment::Later { offset, .. } => offset,
            Fragment::First { .. } | Fragment::Whole => 0,
        };
        let len = ip.len().checked_sub(header)?;
        let end = usize::from(start) + len;
        let good = len > 0 && !(more && len % 8 != 0) && header + end <= limit;
        let end = u16::try_from(end).ok().filter(|_| good)?;
        Some(Span { start, end, last: !more })
    }

    /// Whether the datagram begins with it.
    pub fn is_first(&self) -> bool {
        self.start == 0
    }
}

/// Where the fragment header is that counted for the parser: the last one in the chain, which ends
/// with a later fragment's.
fn fragment_header(ip: &[u8]) -> Option<usize> {
    let (mut at, mut kind, mut found) = (IPV6_LEN, *ip.get(6)?, None);
    while matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DEST_OPTIONS) {
        let h = ip.get(at..at + 8)?;
        let mut len = 8;
        if kind == FRAGMENT {
            found = Some(at);
            if u16::from_be_bytes([h[2], h[3]]) & 0xFFF8 != 0 {
                break;
            }
        } else {
            len += usize::from(h[1]) * 8;
        }
        (at, kind) = (at + len, h[0]);
    }
    found
}
