//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are in the byte order of the packet: a `u16` here is two bytes of the packet loaded natively, so
//! that words are added without swapping.

/// Ones' complement sum of `data`, not yet folded to 16 bits or complemented.
#[inline]
pub fn sum(data: &[u8]) -> u64 {
    let mut acc: u64 = 0;
    let (chunks, rest) = data.as_chunks::<8>();
    for c in chunks {
        let w = u64::from_ne_bytes(*c);
        // Two 32-bit halves cannot overflow 64 bits before 2^32 additions.
        acc += (w & 0xFFFF_FFFF) + (w >> 32);
    }
    let (words, tail) = rest.as_chunks::<2>();
    for w in words {
        acc += u64::from(u16::from_ne_bytes(*w));
    }
    if let [b] = tail {
        acc += u64::from(u16::from_ne_bytes([*b, 0]));
    }
    acc
}

/// Folds a sum to 16 bits.
#[inline]
pub const fn fold(mut s: u64) -> u16 {
    s = (s & 0xFFFF_FFFF) + (s >> 32);
    s = (s & 0xFFFF) + ((s >> 16) & 0xFFFF) + (s >> 32);
    s = (s & 0xFFFF) + (s >> 16);
    s = (s & 0xFFFF) + (s >> 16);
    s as u16
}

/// The checksum (native load) of a block with the given sum.
#[inline]
pub const fn finish(s: u64) -> u16 {
    !fold(s)
}

/// Sum to add to a stored checksum when a 16-bit word changes from `old` to `new` (RFC 1624 eqn. 3,
/// turned round: add `!new + old` to the stored value).
#[inline]
pub const fn delta16(old: u16, new: u16) -> u64 {
    old as u64 + (!new) as u64
}

/// As [`delta16`], for a 32-bit word.
#[inline]
pub const fn delta32(old: u32, new: u32) -> u64 {
    let inv = !new;
    (old & 0xFFFF) as u64 + (old >> 16) as u64 + (inv & 0xFFFF) as u64 + (inv >> 16) as u64
}

/// Applies a delta to a stored checksum.
#[inline]
pub const fn apply(check: u16, delta: u64) -> u16 {
    // Stored value is !sum; adding the delta to it keeps it the complement of the new sum.
    let c = fold(check as u64 + delta);
    // 0xFFFF and 0x0000 are the same sum. A header with any set bit sums to 0xFFFF, whose
    // complement is 0: store what a full computation would.
    if c == 0xFFFF { 0 } else { c }
}

/// Pseudo-header sum of IPv4 (RFC 793 3.1) or IPv6 (RFC 8200 8.1): the addresses as they stand in
/// the packet, the upper-layer length and the protocol.
#[inline]
pub fn pseudo(addrs: &[u8], proto: u8, len: usize) -> u64 {
    sum(addrs)
        + u64::from(u16::from(proto).to_be())
        + u64::from((len as u16).to_be())
        + ((len >> 16) as u16).to_be() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(data: &[u8]) -> u16 {
        let mut s: u32 = 0;
        for c in data.chunks(2) {
            s += u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
            s = (s & 0xFFFF) + (s >> 16);
        }
        !(s as u16)
    }

    #[test]
    fn rfc1071_example() {
        let d = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(u16::from_be(!finish(sum(&d))), 0xddf2);
    }

    proptest! {
        #[test]
        fn equals_the_textbook(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(u16::from_be(finish(sum(&data))), slow(&data));
        }

        #[test]
        fn incremental_equals_full(mut data in prop::collection::vec(any::<u8>(), 20..200), at in 0usize..7, new in any::<u32>()) {
            data[0] |= 0x45;
            let at = 4 + at * 2;
            let check = finish(sum(&data));
            let old = u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
            data[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            prop_assert_eq!(apply(check, delta32(old, new)), finish(sum(&data)));
            let old = u16::from_ne_bytes(data[at..at + 2].try_into().unwrap());
            let check = finish(sum(&data));
            data[at..at + 2].copy_from_slice(&(new as u16).to_ne_bytes());
            prop_assert_eq!(apply(check, delta16(old, new as u16)), finish(sum(&data)));
        }
    }
}
