//! What the classifier needs to know of an IP version: how a key splits into the 32-bit words that the
//! tree cuts, and the leaf block.

use crate::addr::Addr;
use crate::block::{Block, Block4, Block6};
use crate::rule::Key;

/// An IP version that rules can be compiled for: `u32` is IPv4, `u128` is IPv6. Sealed by [`Addr`].
pub trait AddrFamily: Addr {
    /// Leaf of the classifier.
    #[doc(hidden)]
    type Block: Block<Self>;
    /// A key as words, padded to a power of two.
    #[doc(hidden)]
    type Words: Copy + Send + Sync;

    #[doc(hidden)]
    fn words(key: &Key<Self>) -> Self::Words;
    /// `index` is taken modulo the padded length.
    #[doc(hidden)]
    fn word(words: &Self::Words, index: usize) -> u32;
}

impl AddrFamily for u32 {
    type Block = Block4;
    type Words = [u32; 8];

    #[inline(always)]
    fn words(k: &Key<u32>) -> [u32; 8] {
        [k.src, k.dst, k.sport.into(), k.dport.into(), k.proto().into(), 0, 0, 0]
    }

    #[inline(always)]
    fn word(words: &[u32; 8], index: usize) -> u32 {
        words[index & 7]
    }
}

impl AddrFamily for u128 {
    type Block = Block6;
    type Words = [u32; 16];

    #[inline(always)]
    fn words(k: &Key<u128>) -> [u32; 16] {
        let (s, d) = (k.src, k.dst);
        [
            (s >> 96) as u32,
            (s >> 64) as u32,
            (s >> 32) as u32,
            s as u32,
            (d >> 96) as u32,
            (d >> 64) as u32,
            (d >> 32) as u32,
            d as u32,
            k.sport.into(),
            k.dport.into(),
            k.proto().into(),
            0,
            0,
            0,
            0,
            0,
        ]
    }

    #[inline(always)]
    fn word(words: &[u32; 16], index: usize) -> u32 {
        words[index & 15]
    }
}
