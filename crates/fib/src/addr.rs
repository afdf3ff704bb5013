//! Addresses as numbers, most significant bit first.

use std::fmt::Debug;

/// An address family's address as a number.
pub trait FibAddr: Copy + Ord + Debug + Default + Send + Sync + 'static {
    /// Bits of an address.
    const BITS: u32;

    /// `count` bits (1 to 24) starting `at` bits from the top; those beyond the end are 0.
    fn bits(self, at: u32, count: u32) -> usize;

    /// The network address of the prefix of this length.
    #[must_use]
    fn truncate(self, len: u32) -> Self;

    /// The last address of the prefix of this length.
    #[must_use]
    fn last(self, len: u32) -> Self;

    /// How many bits from the top two addresses share.
    fn common(self, other: Self) -> u32;

    /// The address whose `count` bits `at` bits from the top are these, and all others 0.
    fn with_bits(bits: usize, at: u32, count: u32) -> Self;

    /// Four words of 32 bits, the first one the most significant; IPv4 has one.
    fn words(self) -> [u32; 4];

    /// The address of such words.
    fn from_words(words: [u32; 4]) -> Self;
}

impl FibAddr for u32 {
    const BITS: u32 = 32;

    #[inline]
    fn bits(self, at: u32, count: u32) -> usize {
        ((self << at) >> (32 - count)) as usize
    }

    #[inline]
    fn truncate(self, len: u32) -> u32 {
        if len == 0 { 0 } else { self & (u32::MAX << (32 - len.min(32))) }
    }

    #[inline]
    fn last(self, len: u32) -> u32 {
        self | u32::MAX.checked_shr(len).unwrap_or(0)
    }

    #[inline]
    fn common(self, other: u32) -> u32 {
        (self ^ other).leading_zeros()
    }

    #[inline]
    fn with_bits(bits: usize, at: u32, count: u32) -> u32 {
        ((bits as u32) << (32 - count)) >> at
    }

    #[inline]
    fn words(self) -> [u32; 4] {
        [self, 0, 0, 0]
    }

    #[inline]
    fn from_words(words: [u32; 4]) -> u32 {
        words[0]
    }
}

impl FibAddr for u128 {
    const BITS: u32 = 128;

    #[inline]
    fn bits(self, at: u32, count: u32) -> usize {
        ((self << at) >> (128 - count)) as usize
    }

    #[inline]
    fn truncate(self, len: u32) -> u128 {
        if len == 0 { 0 } else { self & (u128::MAX << (128 - len.min(128))) }
    }

    #[inline]
    fn last(self, len: u32) -> u128 {
        self | u128::MAX.checked_shr(len).unwrap_or(0)
    }

    #[inline]
    fn common(self, other: u128) -> u32 {
        (self ^ other).leading_zeros()
    }

    #[inline]
    fn with_bits(bits: usize, at: u32, count: u32) -> u128 {
        ((bits as u128) << (128 - count)) >> at
    }

    #[inline]
    fn words(self) -> [u32; 4] {
        [(self >> 96) as u32, (self >> 64) as u32, (self >> 32) as u32, self as u32]
    }

    #[inline]
    fn from_words(w: [u32; 4]) -> u128 {
        w.into_iter().fold(0, |sum, word| sum << 32 | u128::from(word))
    }
}
