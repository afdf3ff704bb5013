//! TCP segments that a gateway makes or changes for a connection that it has opened on behalf of a client: options,
//! segments from scratch, and the translation of sequence numbers between the two sides (as `nf_conntrack_seqadj` of
//! Linux does for its SYNPROXY).

use crate::checksum::{self, delta16, delta32, fold};
use crate::parse::{Fragment, L4, Parsed};
use crate::proto::*;
use std::net::IpAddr;

const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// Bytes of the options that [`Offer::options`] writes.
pub const OFFER_LEN: usize = 12;

/// What the options of a SYN offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Maximum segment size; 0: none is named.
    pub mss: u16,
    /// Window scale (RFC 7323 2.2), at most 14.
    pub window_scale: Option<u8>,
    /// Selective acknowledgments may be sent (RFC 2018).
    pub sack: bool,
}

impl Offer {
    /// What a TCP header offers, which begins with the first byte.
    pub fn read(tcp: &[u8]) -> Offer {
        let mut out = Offer::default();
        for (at, kind, len) in options(tcp) {
            match (kind, len) {
                (MSS, 4) => out.mss = u16::from_be_bytes([tcp[at + 2], tcp[at + 3]]),
                (WINDOW_SCALE, 3) => out.window_scale = Some(tcp[at + 2].min(14)),
                (SACK_PERMITTED, 2) => out.sack = true,
                _ => {}
            }
        }
        out
    }

    /// The options of a SYN that offers this; without a place in the packet for more.
    pub fn options(&self) -> [u8; OFFER_LEN] {
        let mut out = [NOP; OFFER_LEN];
        let [a, b] = self.mss.to_be_bytes();
        out[..4].copy_from_slice(&[MSS, 4, a, b]);
        if self.sack {
            out[6..8].copy_from_slice(&[SACK_PERMITTED, 2]);
        }
        if let Some(scale) = self.window_scale {
            out[9..].copy_from_slice(&[WINDOW_SCALE, 3, scale]);
        }
        out
    }
}

/// The options of a TCP header: where each begins, its kind and its length. Ends at what is malformed.
fn options(tcp: &[u8]) -> impl Iterator<Item = (usize, u8, usize)> + '_ {
    let end = tcp.get(12).map_or(0, |b| usize::from(b >> 4) * 4).min(tcp.len());
    let mut at = TCP_LEN;
    std::iter::from_fn(move || {
        loop {
            let kind = *tcp.get(at).filter(|k| at < end && **k != 0)?;
            if kind == NOP {
                at += 1;
                continue;
            }
            let len = usize::from(*tcp.get(at + 1)?);
            if len < 2 || at + len > end {
                return None;
            }
            let found = (at, kind, len);
            at += len;
            return Some(found);
        }
    })
}

/// A segment without data.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Address and port of the sender.
    pub from: (IpAddr, u16),
    /// Address and port of the receiver.
    pub to: (IpAddr, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// The flags.
    pub flags: u8,
    /// The window as it stands in the header.
    pub window: u16,
    /// Whole words of options.
    pub options: &'a [u8],
    /// TTL or hop limit.
    pub ttl: u8,
}

impl Segment<'_> {
    /// Writes the IP packet to the front of `out` and returns its length. `None`: no room, or addresses of two families.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let l4 = TCP_LEN + self.options.len();
        let at = match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let h: &mut [u8; IPV4_LEN] = out.get_mut(..IPV4_LEN + l4)?.first_chunk_mut()?;
                *h = [0x45, 0, 0, 0, 0, 0, 0x40, 0, self.ttl, TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                h[2..4].copy_from_slice(&((IPV4_LEN + l4) as u16).to_be_bytes());
                h[12..16].copy_from_slice(&from.octets());
                h[16..20].copy_from_slice(&to.octets());
                let check = checksum::finish(checksum::sum(h));
                h[10..12].copy_from_slice(&check.to_ne_bytes());
                IPV4_LEN
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let h: &mut [u8; IPV6_LEN] = out.get_mut(..IPV6_LEN + l4)?.first_chunk_mut()?;
                h.fill(0);
                h[0] = 0x60;
                h[4..6].copy_from_slice(&(l4 as u16).to_be_bytes());
                (h[6], h[7]) = (TCP, self.ttl);
                h[8..24].copy_from_slice(&from.octets());
                h[24..40].copy_from_slice(&to.octets());
                IPV6_LEN
            }
            _ => return None,
        };
        let (head, tcp) = out.get_mut(..at + l4)?.split_at_mut(at);
        tcp.fill(0);
        tcp[0..2].copy_from_slice(&self.from.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.1.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
        (tcp[12], tcp[13]) = ((l4 / 4) as u8 * 16, self.flags);
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        tcp[TCP_LEN..].copy_from_slice(self.options);
        let addrs = if at == IPV4_LEN { &head[12..20] } else { &head[8..40] };
        let check = checksum::finish(checksum::pseudo(addrs, TCP, l4) + checksum::sum(tcp));
        tcp[16..18].copy_from_slice(&check.to_ne_bytes());
        Some(at + l4)
    }
}

/// The TCP header of a packet, with what follows.
fn header<'f>(frame: &'f mut [u8], p: &Parsed) -> Option<&'f mut [u8]> {
    if !matches!(p.l4, L4::Tcp { .. }) || matches!(p.fragment, Fragment::Later { .. }) {
        return None;
    }
    let end = usize::from(p.l3) + usize::from(p.ip_len);
    frame.get_mut(usize::from(p.l4_at)..end).filter(|t| t.len() >= TCP_LEN)
}

/// Adds to the stored checksum what a change of the bytes at `at` amounts to.
fn fix(tcp: &mut [u8], at: usize, delta: u64) {
    // What begins at an odd offset has its bytes in other halves of the words that are summed.
    let delta = if at.is_multiple_of(2) { delta } else { u64::from(fold(delta).swap_bytes()) };
    let check = checksum::apply(u16::from_ne_bytes([tcp[16], tcp[17]]), delta);
    tcp[16..18].copy_from_slice(&check.to_ne_bytes());
}

fn add32(tcp: &mut [u8], at: usize, by: u32) {
    let Some(word) = tcp.get_mut(at..).and_then(|t| t.first_chunk_mut::<4>()) else { return };
    let (old, new) = (*word, u32::from_be_bytes(*word).wrapping_add(by).to_be_bytes());
    *word = new;
    fix(tcp, at, delta32(u32::from_ne_bytes(old), u32::from_ne_bytes(new)));
}

/// Adds to the sequence number of a segment.
pub fn add_sequence(frame: &mut [u8], p: &Parsed, by: u32) {
    if let Some(tcp) = header(frame, p) {
        add32(tcp, 4, by);
    }
}

/// Adds to what a segment acknowledges, selectively too (RFC 2018).
pub fn add_acknowledgment(frame: &mut [u8], p: &Parsed, by: u32) {
    let Some(tcp) = header(frame, p) else { return };
    if tcp[13] & TCP_ACK == 0 {
        return;
    }
    add32(tcp, 8, by);
    // As many blocks as fit the options at most: four.
    let mut edges = [0; 8];
    let mut n = 0;
    for (at, kind, len) in options(tcp) {
        for edge in (at + 2..at + len).step_by(4).filter(|e| kind == SACK && e + 4 <= at + len) {
            if let Some(place) = edges.get_mut(n) {
                *place = edge;
                n += 1;
            }
        }
    }
    for at in &edges[..n] {
        add32(tcp, *at, by);
    }
}

/// Makes the acknowledgment number zero, whatever the flags say.
pub fn clear_acknowledgment(frame: &mut [u8], p: &Parsed) {
    let Some(tcp) = header(frame, p) else { return };
    let old = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
    add32(tcp, 8, old.wrapping_neg());
}

/// The window of a segment, as it stands in the header.
pub fn window(frame: &[u8], p: &Parsed) -> Option<u16> {
    let at = usize::from(p.l4_at) + 14;
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

/// Another window in the header of a segment.
pub fn set_window(frame: &mut [u8], p: &Parsed, window: u16) {
    let Some(tcp) = header(frame, p) else { return };
    let (old, new) = ([tcp[14], tcp[15]], window.to_be_bytes());
    tcp[14..16].copy_from_slice(&new);
    fix(tcp, 14, delta16(u16::from_ne_bytes(old), u16::from_ne_bytes(new)));
}

/// A window that one side has scaled, in the scale of the other: what does not fit is left out.
pub fn rescale(window: u16, from: u8, to: u8) -> u16 {
    let bytes = u32::from(window) << from.min(14);
    u16::try_from(bytes >> to.min(14)).unwrap_or(u16::MAX)
}

/// Adds to the sequence number of the TCP segment that an ICMP error quotes; the error's checksum follows.
pub fn add_quoted_sequence(frame: &mut [u8], p: &Parsed, by: u32) {
    let L4::IcmpError { .. } = p.l4 else { return };
    let Some(icmp) = frame.get_mut(usize::from(p.l4_at)..) else { return };
    let inner = match icmp.get(ICMP_LEN).map(|b| b >> 4) {
        Some(4) if icmp.get(ICMP_LEN + 9) == Some(&TCP) => usize::from(icmp[ICMP_LEN] & 15) * 4,
        Some(6) if icmp.get(ICMP_LEN + 6) == Some(&TCP) => IPV6_LEN,
        _ => return,
    };
    let at = ICMP_LEN + inner + 4;
    let Some(word) = icmp.get_mut(at..).and_then(|q| q.first_chunk_mut::<4>()) else { return };
    let (old, new) = (*word, u32::from_be_bytes(*word).wrapping_add(by).to_be_bytes());
    *word = new;
    let delta = delta32(u32::from_ne_bytes(old), u32::from_ne_bytes(new));
    let check = checksum::apply(u16::from_ne_bytes([icmp[2], icmp[3]]), delta);
    icmp[2..4].copy_from_slice(&check.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{NetworkLayer, parse};

    const ENDS: [(&str, &str); 2] = [("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8:9::7")];

    fn frame(ends: (&str, &str), options: &[u8], flags: u8, data: &[u8]) -> (Vec<u8>, Parsed) {
        let (from, to): (IpAddr, IpAddr) = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
        let ethertype = if from.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let segment = Segment {
            from: (from, 1000),
            to: (to, 443),
            seq: 0xFFFF_FFF0,
            ack: 7,
            flags,
            window: 500,
            options,
            ttl: 64,
        };
        let mut f = vec![0; 14 + 200];
        let len = segment.write(&mut f[14..]).unwrap();
        f.truncate(14 + len);
        f.extend(data);
        // Data behind the header: lengths and checksum are made anew.
        let ip_len = len + data.len();
        let (addrs, l4) = if ethertype == ETHERTYPE_IPV4 {
            f[16..18].copy_from_slice(&(ip_len as u16).to_be_bytes());
            f[24..26].fill(0);
            let check = checksum::finish(checksum::sum(&f[14..34]));
            f[24..26].copy_from_slice(&check.to_ne_bytes());
            (26..34, 34)
        } else {
            f[18..20].copy_from_slice(&((ip_len - 40) as u16).to_be_bytes());
            (22..54, 54)
        };
        f[l4 + 16..l4 + 18].fill(0);
        let sum = checksum::pseudo(&f[addrs], TCP, f.len() - l4) + checksum::sum(&f[l4..]);
        f[l4 + 16..l4 + 18].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
        let Ok(NetworkLayer::Ip(p)) = parse(&f, ethertype, 14) else { panic!() };
        (f, p)
    }

    fn sound(f: &[u8], p: &Parsed) -> bool {
        let l4 = usize::from(p.l4_at);
        let addrs = if l4 == 34 { &f[26..34] } else { &f[22..54] };
        checksum::fold(checksum::pseudo(addrs, TCP, f.len() - l4) + checksum::sum(&f[l4..])) == 0xFFFF
    }

    fn word(f: &[u8], p: &Parsed, at: usize) -> u32 {
        u32::from_be_bytes(f[usize::from(p.l4_at) + at..][..4].try_into().unwrap())
    }

    #[test]
    fn offers_are_read_as_written() {
        for mss in [536, 1460] {
            for window_scale in [None, Some(0), Some(7), Some(14)] {
                for sack in [false, true] {
                    let offer = Offer { mss, window_scale, sack };
                    for ends in ENDS {
                        let (f, p) = frame(ends, &offer.options(), TCP_SYN, &[]);
                        assert!(sound(&f, &p));
                        assert_eq!(Offer::read(&f[usize::from(p.l4_at)..]), offer);
                    }
                }
            }
        }
        // A scale beyond 14 counts as 14 (RFC 7323 2.3); what is cut off or has no length ends the list.
        let (f, p) = frame(ENDS[0], &[3, 3, 99, 1, 2, 9, 5, 180], TCP_SYN, &[]);
        let offer = Offer { mss: 0, window_scale: Some(14), sack: false };
        assert_eq!(Offer::read(&f[usize::from(p.l4_at)..]), offer);
        let (f, p) = frame(ENDS[0], &[2, 0, 5, 180], TCP_SYN, &[]);
        assert_eq!(Offer::read(&f[usize::from(p.l4_at)..]), Offer::default());
    }

    #[test]
    fn numbers_wrap_around_and_checksums_follow() {
        for ends in ENDS {
            for data in [&b""[..], b"odd", b"even"] {
                let (mut f, p) = frame(ends, &[], TCP_ACK, data);
                add_sequence(&mut f, &p, 0x20);
                assert_eq!((word(&f, &p, 4), word(&f, &p, 8)), (0x10, 7));
                add_acknowledgment(&mut f, &p, 8u32.wrapping_neg());
                assert_eq!((word(&f, &p, 4), word(&f, &p, 8)), (0x10, u32::MAX));
                set_window(&mut f, &p, 77);
                assert_eq!(window(&f, &p), Some(77));
                assert!(sound(&f, &p));
                add_sequence(&mut f, &p, 0x20u32.wrapping_neg());
                add_acknowledgment(&mut f, &p, 8);
                set_window(&mut f, &p, 500);
                assert_eq!(f, frame(ends, &[], TCP_ACK, data).0);
            }
        }
    }

    #[test]
    fn selective_acknowledgments_are_translated_wherever_they_stand() {
        let edges = [0xFFFF_FF00u32, 0xFFFF_FFFF, 0x10, 0x20];
        for pad in [[1, 1].as_slice(), &[1], &[]] {
            let mut options = pad.to_vec();
            options.extend([SACK, 2 + 16]);
            options.extend(edges.iter().flat_map(|e| e.to_be_bytes()));
            options.resize(options.len().next_multiple_of(4), 0);
            for ends in ENDS {
                let (before, p) = frame(ends, &options, TCP_ACK, b"data");
                let mut f = before.clone();
                add_acknowledgment(&mut f, &p, 0x100);
                let at = TCP_LEN + pad.len() + 2;
                let got: Vec<_> = (0..4).map(|i| word(&f, &p, at + 4 * i)).collect();
                assert_eq!(got, [0, 0xFF, 0x110, 0x120]);
                assert_eq!(word(&f, &p, 8), 0x107);
                assert!(sound(&f, &p));
                add_acknowledgment(&mut f, &p, 0x100u32.wrapping_neg());
                assert_eq!(f, before);
            }
        }
        // Without the flag the field means nothing.
        let (mut f, p) = frame(ENDS[0], &[], TCP_RST, &[]);
        let before = f.clone();
        add_acknowledgment(&mut f, &p, 5);
        assert_eq!(f, before);
    }

    #[test]
    fn windows_in_other_scales() {
        assert_eq!(rescale(501, 7, 7), 501);
        assert_eq!(rescale(64_240, 0, 7), 501);
        assert_eq!(rescale(501, 7, 0), 64_128);
        assert_eq!(rescale(40_000, 7, 0), u16::MAX, "as much as can be said");
        assert_eq!(rescale(100, 0, 7), 0);
        assert_eq!(rescale(u16::MAX, 14, 14), u16::MAX);
    }

    #[test]
    fn what_an_error_quotes_is_translated() {
        let (quoted, _) = frame(ENDS[0], &[], TCP_ACK, b"data");
        let mut f = vec![0; 14];
        f.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0, 203, 0, 113, 1, 198, 51, 100, 7]);
        f.extend([3, 4, 0, 0, 0, 0, 5, 0]);
        f.extend(&quoted[14..]);
        let len = (f.len() - 14) as u16;
        f[16..18].copy_from_slice(&len.to_be_bytes());
        let check = checksum::finish(checksum::sum(&f[14..34]));
        f[24..26].copy_from_slice(&check.to_ne_bytes());
        let check = checksum::finish(checksum::sum(&f[34..]));
        f[36..38].copy_from_slice(&check.to_ne_bytes());
        let Ok(NetworkLayer::Ip(p)) = parse(&f, ETHERTYPE_IPV4, 14) else { panic!() };
        add_quoted_sequence(&mut f, &p, 0x11);
        assert_eq!(f[66..70], 1u32.to_be_bytes());
        assert_eq!(checksum::fold(checksum::sum(&f[34..])), 0xFFFF);
    }
}
