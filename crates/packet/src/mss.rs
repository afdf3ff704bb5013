//! The maximum segment size that a TCP SYN announces (RFC 9293 3.7.1), lowered on the way.

use crate::checksum;
use crate::parse::{Family, Fragment, L4, Parsed};
use crate::proto::*;

/// Lowers the MSS option of a SYN so that segments fit `mtu` bytes of IP. True: it was changed. A
/// SYN without the option is not changed: its receiver assumes 536 or 1220.
pub fn clamp(frame: &mut [u8], p: &Parsed, mtu: u16) -> bool {
    let L4::Tcp { flags } = p.l4 else { return false };
    if flags & TCP_SYN == 0 || p.fragment != Fragment::Whole {
        return false;
    }
    let headers = match p.family {
        Family::V4 => IPV4_LEN + TCP_LEN,
        Family::V6 => IPV6_LEN + TCP_LEN,
    };
    let Some(most) = usize::from(mtu).checked_sub(headers).map(|n| n as u16) else { return false };
    let end = usize::from(p.l3) + usize::from(p.ip_len);
    let Some(tcp) = frame.get_mut(usize::from(p.l4_at)..end) else { return false };
    let Some(offset) = tcp.get(12).map(|b| usize::from(b >> 4) * 4) else { return false };
    let mut at = TCP_LEN;
    while at < offset.min(tcp.len()) {
        let len = match (tcp[at], tcp.get(at + 1)) {
            (0, _) => return false,
            (1, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => return false,
        };
        if let (2, 4, Some(&[a, b])) = (tcp[at], len, tcp.get(at + 2..).and_then(|o| o.first_chunk())) {
            let old = u16::from_be_bytes([a, b]);
            if old <= most || at + 4 > offset {
                return false;
            }
            tcp[at + 2..at + 4].copy_from_slice(&most.to_be_bytes());
            // An option at an odd offset has its bytes in two words of the sum, swapped.
            let (old, new) = match at % 2 {
                0 => (old.to_be(), most.to_be()),
                _ => (old.to_le(), most.to_le()),
            };
            let check = u16::from_ne_bytes([tcp[16], tcp[17]]);
            let check = checksum::apply(check, checksum::delta16(old, new));
            tcp[16..18].copy_from_slice(&check.to_ne_bytes());
            return true;
        }
        at += len;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{NetworkLayer, parse};
    use etherparse::{PacketBuilder, TcpHeaderSlice, TcpOptionElement};

    fn syn(options: &[TcpOptionElement]) -> Vec<u8> {
        let mut out = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 9)
            .tcp(1, 2, 3, 4)
            .syn()
            .options(options)
            .unwrap()
            .write(&mut out, &[])
            .unwrap();
        out
    }

    fn mss_of(frame: &[u8]) -> Option<u16> {
        let tcp = TcpHeaderSlice::from_slice(&frame[34..]).unwrap();
        tcp.options_iterator().flatten().find_map(|o| match o {
            TcpOptionElement::MaximumSegmentSize(n) => Some(n),
            _ => None,
        })
    }

    fn sound(frame: &[u8]) -> bool {
        let sum = checksum::pseudo(&frame[26..34], TCP, frame.len() - 34) + checksum::sum(&frame[34..]);
        checksum::fold(sum) == 0xFFFF
    }

    #[test]
    fn lowered_and_never_raised() {
        use TcpOptionElement::*;
        for options in [&[MaximumSegmentSize(1460)][..], &[Noop, MaximumSegmentSize(1460), Noop]] {
            let mut f = syn(options);
            let Ok(NetworkLayer::Ip(p)) = parse(&f, ETHERTYPE_IPV4, 14) else { panic!() };
            assert!(!clamp(&mut f, &p, 1500) && mss_of(&f) == Some(1460));
            assert!(clamp(&mut f, &p, 1400));
            assert_eq!(mss_of(&f), Some(1360));
            assert!(sound(&f));
            assert!(!clamp(&mut f, &p, 1450), "it fits already");
        }
        let mut f = syn(&[WindowScale(3), Noop]);
        let Ok(NetworkLayer::Ip(p)) = parse(&f, ETHERTYPE_IPV4, 14) else { panic!() };
        assert!(!clamp(&mut f, &p, 600) && sound(&f));
    }
}
