//! Changes to a frame in its buffer: link header, TTL, DSCP.

use crate::checksum;
use crate::parse::{Family, Parsed};
use crate::proto::*;
use sag_model::Dscp;
use sag_model::ids::MacAddr;

/// A frame inside its buffer: it can grow at the front into the headroom.
#[derive(Debug)]
pub struct FrameMut<'a> {
    buf: &'a mut [u8],
    start: usize,
    end: usize,
}

/// The buffer has no room in front of the frame, or behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHeadroom;

impl<'a> FrameMut<'a> {
    /// `start..start + len` of `buf` holds the frame; out-of-range values give an empty frame.
    #[inline]
    pub fn new(buf: &'a mut [u8], start: usize, len: usize) -> Self {
        let end = start.saturating_add(len).min(buf.len());
        let start = start.min(end);
        FrameMut { buf, start, end }
    }

    /// The frame.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or(&[])
    }

    /// The frame, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(self.start..self.end).unwrap_or(&mut [])
    }

    /// Where in the buffer the frame begins.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes of the frame.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the frame has no bytes.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes bytes off the front.
    #[inline]
    pub fn skip(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Cuts the frame off behind its first `len` bytes.
    #[inline]
    pub fn cut(&mut self, len: usize) {
        self.end = (self.start + len).min(self.end);
    }

    /// Lets the frame grow by `n` bytes at its end; the bytes are whatever the buffer holds.
    ///
    /// # Errors
    /// [`NoHeadroom`] if the buffer ends before.
    #[inline]
    pub fn extend(&mut self, n: usize) -> Result<(), NoHeadroom> {
        let end = self.end + n;
        if end > self.buf.len() {
            return Err(NoHeadroom);
        }
        self.end = end;
        Ok(())
    }

    /// Makes the frame `n` bytes followed by the packet of `ip_len` bytes at `l3`: what was in front of the
    /// packet and behind it is cut off. The `n` bytes are whatever the buffer holds.
    ///
    /// # Errors
    /// [`NoHeadroom`] if fewer than `n` bytes are in front of the packet.
    #[inline]
    pub fn push(&mut self, l3: usize, ip_len: usize, n: usize) -> Result<(), NoHeadroom> {
        let ip_at = self.start + l3;
        self.end = (ip_at + ip_len).min(self.end);
        self.start = ip_at.checked_sub(n).ok_or(NoHeadroom)?;
        Ok(())
    }

    /// Replaces `l3` bytes of link header by a new one: Ethernet, with an 802.1Q tag if `vlan` is not
    /// zero, and cuts link-layer padding after `ip_len`.
    ///
    /// # Errors
    /// [`NoHeadroom`] if the new header is longer than what is in front of the packet.
    #[inline]
    pub fn set_link(&mut self, l3: usize, ip_len: usize, link: &LinkHeader) -> Result<(), NoHeadroom> {
        self.set_link_words(l3, ip_len, &LinkWords::from(link))
    }

    /// As [`FrameMut::set_link`], from words: three stores where there is no tag.
    ///
    /// # Errors
    /// As [`FrameMut::set_link`].
    #[inline]
    pub fn set_link_words(&mut self, l3: usize, ip_len: usize, link: &LinkWords) -> Result<(), NoHeadroom> {
        let ip_at = self.start + l3;
        let tagged = link.vlan != 0;
        let need = if tagged { ETH_LEN + VLAN_LEN } else { ETH_LEN };
        let start = ip_at.checked_sub(need).ok_or(NoHeadroom)?;
        let end = (ip_at + ip_len).min(self.end);
        let Some(h) = self.buf.get_mut(start..ip_at) else { return Err(NoHeadroom) };
        let Some(eth) = h.first_chunk_mut::<ETH_LEN>() else { return Err(NoHeadroom) };
        // Each store ends with two bytes that the next one writes over.
        eth[0..8].copy_from_slice(&link.dst.to_le_bytes());
        eth[6..14].copy_from_slice(&link.src.to_le_bytes());
        let ethertype = link.ethertype.to_be_bytes();
        if tagged {
            eth[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
            h[14..16].copy_from_slice(&link.vlan.to_be_bytes());
            h[16..18].copy_from_slice(&ethertype);
        } else {
            eth[12..14].copy_from_slice(&ethertype);
        }
        self.start = start;
        self.end = end;
        Ok(())
    }
}

/// A link header whose addresses are the low six bytes of little-endian words, as next-hop records
/// hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkWords {
    /// Destination address.
    pub dst: u64,
    /// Source address.
    pub src: u64,
    /// 802.1Q VLAN; 0 is untagged.
    pub vlan: u16,
    /// EtherType.
    pub ethertype: u16,
}

impl From<&LinkHeader> for LinkWords {
    fn from(l: &LinkHeader) -> LinkWords {
        let word = |m: MacAddr| u64::from_le_bytes([m.0[0], m.0[1], m.0[2], m.0[3], m.0[4], m.0[5], 0, 0]);
        LinkWords { dst: word(l.dst), src: word(l.src), vlan: l.vlan, ethertype: l.ethertype }
    }
}

/// The link header of an outgoing frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkHeader {
    /// Destination address.
    pub dst: MacAddr,
    /// Source address.
    pub src: MacAddr,
    /// 802.1Q VLAN; 0 is untagged.
    pub vlan: u16,
    /// EtherType.
    pub ethertype: u16,
}

/// Lowers TTL or hop limit by one, which the caller has checked to be above one, and updates the
/// checksum of an IPv4 header.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], p: &Parsed) {
    let l3 = usize::from(p.l3);
    match p.family {
        Family::V4 => {
            let Some(h) = frame.get_mut(l3..).and_then(|f| f.first_chunk_mut::<IPV4_LEN>()) else { return };
            let old = u16::from_ne_bytes([h[8], h[9]]);
            h[8] = h[8].wrapping_sub(1);
            let new = u16::from_ne_bytes([h[8], h[9]]);
            let check = u16::from_ne_bytes([h[10], h[11]]);
            let check = checksum::apply(check, checksum::delta16(old, new));
            h[10..12].copy_from_slice(&check.to_ne_bytes());
        }
        Family::V6 => {
            if let Some(hop) = frame.get_mut(l3 + 7) {
                *hop = hop.wrapping_sub(1);
            }
        }
    }
}

/// Sets the identification of an IPv4 header; its checksum follows (RFC 1624).
#[inline]
pub fn set_identification(frame: &mut [u8], p: &Parsed, id: u16) {
    let ip = frame.get_mut(usize::from(p.l3)..);
    let (Family::V4, Some(h)) = (p.family, ip.and_then(|ip| ip.first_chunk_mut::<IPV4_LEN>())) else {
        return;
    };
    let (old, new) = (u16::from_ne_bytes([h[4], h[5]]), id.to_be());
    h[4..6].copy_from_slice(&new.to_ne_bytes());
    let check = u16::from_ne_bytes([h[10], h[11]]);
    h[10..12].copy_from_slice(&checksum::apply(check, checksum::delta16(old, new)).to_ne_bytes());
}

/// Sets the DSCP. The ECN bits stay as they are (RFC 3168 5), the IPv4 header's checksum
/// follows (RFC 1624).
#[inline]
pub fn set_dscp(frame: &mut [u8], p: &Parsed, dscp: Dscp) {
    let Some(ip) = frame.get_mut(usize::from(p.l3)..) else { return };
    match p.family {
        Family::V4 => {
            let Some(h) = ip.first_chunk_mut::<IPV4_LEN>() else { return };
            let old = u16::from_ne_bytes([h[0], h[1]]);
            h[1] = dscp.get() << 2 | h[1] & 3;
            let new = u16::from_ne_bytes([h[0], h[1]]);
            if new != old {
                let check = u16::from_ne_bytes([h[10], h[11]]);
                let check = checksum::apply(check, checksum::delta16(old, new));
                h[10..12].copy_from_slice(&check.to_ne_bytes());
            }
        }
        Family::V6 => {
            if let Some(h) = ip.first_chunk_mut::<2>() {
                // Version, traffic class and the head of the flow label.
                let word = u16::from_be_bytes(*h) & 0xF03F | u16::from(dscp.get()) << 6;
                *h = word.to_be_bytes();
            }
        }
    }
}

/// Sets the whole traffic class to that of `p`.
#[inline]
pub fn set_tos(frame: &mut [u8], p: &Parsed) {
    let l3 = usize::from(p.l3);
    let Some(h) = frame.get_mut(l3..) else { return };
    match p.family {
        Family::V4 => {
            let Some(h) = h.first_chunk_mut::<IPV4_LEN>() else { return };
            let old = u16::from_ne_bytes([h[0], h[1]]);
            h[1] = p.tos;
            let new = u16::from_ne_bytes([h[0], h[1]]);
            let check = u16::from_ne_bytes([h[10], h[11]]);
            let check = checksum::apply(check, checksum::delta16(old, new));
            h[10..12].copy_from_slice(&check.to_ne_bytes());
        }
        Family::V6 => {
            if let Some(h) = h.first_chunk_mut::<2>() {
                h[0] = h[0] & 0xF0 | p.tos >> 4;
                h[1] = h[1] & 0x0F | p.tos << 4;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn link_header_grows_and_shrinks() {
        let mut buf = [0xAAu8; 64];
        let link =
            |vlan| LinkHeader { dst: MacAddr([2; 6]), src: MacAddr([4; 6]), vlan, ethertype: ETHERTYPE_IPV4 };
        let mut f = FrameMut::new(&mut buf, 8, 40);
        f.set_link(14, 20, &link(100)).unwrap();
        assert_eq!((f.start(), f.len()), (4, 38));
        assert_eq!(&f.bytes()[12..18], &[0x81, 0, 0, 100, 8, 0]);
        f.set_link(18, 20, &link(0)).unwrap();
        assert_eq!((f.start(), f.len()), (8, 34));
        let mut f = FrameMut::new(&mut buf, 0, 40);
        assert_eq!(f.set_link(14, 20, &link(5)), Err(NoHeadroom));
        let f = FrameMut::new(&mut buf, 100, 40);
        assert!(f.is_empty());
    }

    fn parsed(frame: &[u8], ethertype: u16) -> Parsed {
        match parse::parse(frame, ethertype, 0) {
            Ok(parse::NetworkLayer::Ip(p)) => p,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mark_changes_the_dscp_and_nothing_else() {
        for tos in 0..=255u8 {
            for n in 0..64u8 {
                let dscp = Dscp::new(n).unwrap();
                let mut v4 =
                    [0x45, tos, 0, 20, tos, n, 0x40, 0, 64, 253, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7];
                let sum = checksum::finish(checksum::sum(&v4)).to_ne_bytes();
                v4[10..12].copy_from_slice(&sum);
                let mut want = v4;
                (want[1], want[10], want[11]) = (n << 2 | tos & 3, 0, 0);
                let sum = checksum::finish(checksum::sum(&want)).to_ne_bytes();
                want[10..12].copy_from_slice(&sum);
                let p = parsed(&v4, ETHERTYPE_IPV4);
                set_dscp(&mut v4, &p, dscp);
                assert_eq!(v4, want, "{tos:#x} {n}");

                let mut v6 = [0u8; 40];
                (v6[0], v6[1], v6[2], v6[3]) = (0x60 | tos >> 4, tos << 4 | 0xA, 0xBC, 0xDE);
                (v6[6], v6[7], v6[8], v6[24]) = (59, 64, 0x20, 0x20);
                let mut want = v6;
                let class = n << 2 | tos & 3;
                (want[0], want[1]) = (0x60 | class >> 4, class << 4 | 0xA);
                let p = parsed(&v6, ETHERTYPE_IPV6);
                set_dscp(&mut v6, &p, dscp);
                assert_eq!(v6, want, "{tos:#x} {n}");
                assert_eq!(parsed(&v6, ETHERTYPE_IPV6).tos, class);
            }
        }
    }
}
