//! Transport checksums that a sender has left to an offload (Linux: `CHECKSUM_PARTIAL`). A host on the same machine hands
//! over frames that no wire has seen: the field of TCP and UDP holds the sum of the pseudo header, not complemented, and
//! the device was to do the rest.
//!
//! ```
//! use sag_packet::{NetworkLayer, checksum, parse, parse::link, partial};
//!
//! // A UDP datagram of one byte from 192.0.2.1 to 198.51.100.7.
//! let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
//! frame.extend([0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
//! frame.extend([0, 7, 0, 9, 0, 9, 0, 0, b'x']);
//! let header = checksum::finish(checksum::sum(&frame[14..34]));
//! frame[24..26].copy_from_slice(&header.to_ne_bytes());
//! let pseudo = checksum::pseudo(&frame[26..34], 17, 9);
//! frame[40..42].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
//!
//! let (_, ethertype, l3) = link(&frame)?;
//! let NetworkLayer::Ip(packet) = parse(&frame, ethertype, l3)? else { panic!("not IP") };
//! assert!(partial::is_partial(&frame, &packet));
//! assert!(partial::complete(&mut frame, &packet));
//! assert_eq!(checksum::fold(pseudo + checksum::sum(&frame[34..])), 0xFFFF);
//! # Ok::<(), sag_model::DropReason>(())
//! ```

use crate::checksum;
use crate::parse::{Family, Fragment, Parsed};
use crate::proto::*;

/// Where the checksum is in the transport header.
#[inline]
const fn field(proto: u8) -> Option<usize> {
    match proto {
        TCP => Some(16),
        UDP => Some(6),
        _ => None,
    }
}

/// Whether the checksum of a whole TCP or UDP packet is that of its pseudo header alone. One in 65,536 complete ones looks
/// the same; to complete it changes nothing.
#[inline]
pub fn is_partial(frame: &[u8], p: &Parsed) -> bool {
    let Some(field) = field(p.proto) else { return false };
    if p.fragment != Fragment::Whole {
        return false;
    }
    let (l3, l4) = (usize::from(p.l3), usize::from(p.l4_at));
    let len = usize::from(p.ip_len) - (l4 - l3);
    let pseudo = match p.family {
        Family::V4 => {
            (p.addrs4 & 0xFFFF_FFFF)
                + (p.addrs4 >> 32)
                + u64::from(u16::from(p.proto).to_be())
                + u64::from((len as u16).to_be())
        }
        Family::V6 => match frame.get(l3 + 8..l3 + IPV6_LEN) {
            Some(addrs) => checksum::pseudo(addrs, p.proto, len),
            None => return false,
        },
    };
    let stored = frame.get(l4 + field..l4 + field + 2);
    stored.is_some_and(|b| b == checksum::fold(pseudo).to_ne_bytes())
}

/// Completes the checksum of a packet that [`is_partial`]: the sum over the segment is taken with what the field holds.
/// False: it was a complete one, and is as it was.
#[cold]
pub fn complete(frame: &mut [u8], p: &Parsed) -> bool {
    let Some(field) = field(p.proto) else { return false };
    let segment = usize::from(p.l4_at)..usize::from(p.l3) + usize::from(p.ip_len);
    let Some(segment) = frame.get_mut(segment) else { return false };
    let mut sum = checksum::finish(checksum::sum(segment));
    if p.proto == UDP && sum == 0 {
        // Zero says that there is none (RFC 768).
        sum = 0xFFFF;
    }
    let Some(stored) = segment.get_mut(field..field + 2) else { return false };
    let changed = stored != sum.to_ne_bytes();
    stored.copy_from_slice(&sum.to_ne_bytes());
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{self, NetworkLayer};
    use proptest::prelude::*;

    /// A frame whose transport checksum is `check` of (pseudo header, segment), and where it stands.
    fn frame(v6: bool, proto: u8, payload: &[u8], check: impl Fn(u64, &[u8]) -> u16) -> (Vec<u8>, usize) {
        let head = if proto == TCP { 20 } else { 8 };
        let mut l4 = vec![0; head];
        l4.extend_from_slice(payload);
        l4[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
        if proto == TCP {
            l4[12..14].copy_from_slice(&[0x50, 0x10]);
        } else {
            l4[4..6].copy_from_slice(&(head as u16 + payload.len() as u16).to_be_bytes());
        }
        let mut f = vec![0; ETH_LEN];
        if v6 {
            f.extend([0x60, 0, 0, 0, 0, 0, proto, 64]);
            f[18..20].copy_from_slice(&(l4.len() as u16).to_be_bytes());
            f.extend((1..=32).map(|b| b * 7));
        } else {
            f.extend([0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
            f[16..18].copy_from_slice(&(l4.len() as u16 + 20).to_be_bytes());
            let sum = checksum::finish(checksum::sum(&f[ETH_LEN..]));
            f[24..26].copy_from_slice(&sum.to_ne_bytes());
        }
        let addrs = if v6 { &f[22..54] } else { &f[26..34] };
        let sum = check(checksum::pseudo(addrs, proto, l4.len()), &l4);
        let at = f.len() + field(proto).unwrap();
        f.extend(l4);
        f[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        (f, at)
    }

    fn parsed(f: &[u8], v6: bool) -> Parsed {
        match parse::parse(f, if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }, ETH_LEN) {
            Ok(NetworkLayer::Ip(p)) => p,
            other => panic!("{other:?}"),
        }
    }

    fn whole(pseudo: u64, l4: &[u8], proto: u8) -> u16 {
        match checksum::finish(pseudo + checksum::sum(l4)) {
            0 if proto == UDP => 0xFFFF,
            sum => sum,
        }
    }

    proptest! {
        #[test]
        fn a_partial_checksum_becomes_the_whole_one(
            payload in prop::collection::vec(any::<u8>(), 0..1500), v6: bool, tcp: bool, padding in 0usize..20,
        ) {
            let proto = if tcp { TCP } else { UDP };
            let (mut f, _) = frame(v6, proto, &payload, |pseudo, _| checksum::fold(pseudo));
            let (mut right, _) = frame(v6, proto, &payload, |pseudo, l4| whole(pseudo, l4, proto));
            // What the link puts behind the packet is no part of it.
            f.extend(vec![0xA5; padding]);
            right.extend(vec![0xA5; padding]);
            let p = parsed(&f, v6);
            prop_assert!(is_partial(&f, &p));
            let changes = f != right;
            prop_assert_eq!(complete(&mut f, &p), changes);
            prop_assert_eq!(f, right);
        }
    }

    #[test]
    fn a_whole_checksum_that_looks_partial_stays() {
        for (v6, proto) in [(false, TCP), (true, TCP), (false, UDP), (true, UDP)] {
            // One word of the payload makes the checksum that of the pseudo header.
            let (same, at) = (0..=u16::MAX)
                .map(|w| frame(v6, proto, &w.to_be_bytes(), |pseudo, l4| whole(pseudo, l4, proto)))
                .find(|(f, _)| is_partial(f, &parsed(f, v6)))
                .expect("one of all words");
            let mut f = same.clone();
            let p = parsed(&f, v6);
            assert!(!complete(&mut f, &p), "field at {at}");
            assert_eq!(f, same);
        }
    }

    #[test]
    fn neither_fragments_nor_other_protocols_nor_udp_without_a_checksum_are_partial() {
        let (mut f, _) = frame(false, UDP, b"abc", |_, _| 0);
        assert!(!is_partial(&f, &parsed(&f, false)));
        f[23] = 47;
        f[24..26].fill(0);
        let sum = checksum::finish(checksum::sum(&f[14..34]));
        f[24..26].copy_from_slice(&sum.to_ne_bytes());
        let p = parsed(&f, false);
        assert!(!is_partial(&f, &p) && !complete(&mut f, &p));
        let (f, _) = frame(false, UDP, b"abc", |pseudo, _| checksum::fold(pseudo));
        let first = Parsed { fragment: Fragment::First { id: 1 }, ..parsed(&f, false) };
        assert!(!is_partial(&f, &first));
    }
}
