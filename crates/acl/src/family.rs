//! What differs between IPv4 and IPv6: the address type, how a key splits into the 32-bit words that
//! the tree cuts, and the leaf block.

use std::fmt::Debug;
use std::hash::Hash;
use std::ops::{BitAnd, BitOr, Not};

use crate::block::{Block, Block4, Block6};
use crate::rule::{Key, Prefix, Rule};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u128 {}
}

/// The address of a family: `u32` for IPv4, `u128` for IPv6, both as numbers (first octet highest).
pub trait Addr:
    sealed::Sealed
    + Copy
    + Debug
    + Eq
    + Ord
    + Hash
    + Send
    + Sync
    + 'static
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
{
    const ZERO: Self;
    const BITS: u8;

    /// Leaf of the classifier.
    #[doc(hidden)]
    type Block: Block<Self>;
    /// A key as words, padded to a power of two.
    #[doc(hidden)]
    type Words: Copy + Send + Sync;

    fn prefix_mask(len: u8) -> Self;
    fn from_u128(n: u128) -> Self;
    fn to_u128(self) -> u128;
    #[doc(hidden)]
    fn words(key: &Key<Self>) -> Self::Words;
    /// `index` is taken modulo the padded length.
    #[doc(hidden)]
    fn word(words: &Self::Words, index: usize) -> u32;
}

/// 32-bit words of an address.
const fn addr_words<A: Addr>() -> usize {
    A::BITS as usize / 32
}

/// Number of words in a key: the addresses, source port, destination port, protocol.
pub(crate) const fn dims<A: Addr>() -> usize {
    2 * addr_words::<A>() + 3
}

/// Most words that a key of any family has.
pub(crate) const MAX_DIMS: usize = 11;

pub(crate) const fn sport_dim<A: Addr>() -> usize {
    2 * addr_words::<A>()
}

/// Significant bits of word `dim`.
pub(crate) const fn dim_bits<A: Addr>(dim: usize) -> u32 {
    let ports = sport_dim::<A>();
    if dim < ports {
        32
    } else if dim < ports + 2 {
        16
    } else if dim == ports + 2 {
        8
    } else {
        0
    }
}

/// The values from `lo` to `hi`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub lo: u32,
    pub hi: u32,
}

impl Span {
    pub fn covers(self, other: Span) -> bool {
        self.lo <= other.lo && other.hi <= self.hi
    }

    pub fn meets(self, other: Span) -> bool {
        self.lo <= other.hi && other.lo <= self.hi
    }

    pub fn clip(self, to: Span) -> Span {
        Span { lo: self.lo.max(to.lo), hi: self.hi.min(to.hi) }
    }
}

/// The rule as one range a word. It holds every key that the rule matches; of the others only
/// packets without ports, which `Rule::needs_ports` decides.
pub(crate) fn spans<A: Addr>(rule: &Rule<A>) -> [Span; MAX_DIMS] {
    let mut out = [Span { lo: 0, hi: 0 }; MAX_DIMS];
    let words = addr_words::<A>();
    let mut address = |prefix: &Prefix<A>, at: usize| {
        let (first, last) = (prefix.first().to_u128(), prefix.last().to_u128());
        for w in 0..words {
            let shift = 32 * (words - 1 - w);
            out[at + w] = Span { lo: (first >> shift) as u32, hi: (last >> shift) as u32 };
        }
    };
    address(&rule.src, 0);
    address(&rule.dst, words);
    let ports = sport_dim::<A>();
    out[ports] = Span { lo: rule.sport.lo().into(), hi: rule.sport.hi().into() };
    out[ports + 1] = Span { lo: rule.dport.lo().into(), hi: rule.dport.hi().into() };
    out[ports + 2] = match rule.proto {
        Some(p) => Span { lo: p.into(), hi: p.into() },
        None => Span { lo: 0, hi: 255 },
    };
    out
}

impl Addr for u32 {
    const ZERO: u32 = 0;
    const BITS: u8 = 32;
    type Block = Block4;
    type Words = [u32; 8];

    fn prefix_mask(len: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
    }

    fn from_u128(n: u128) -> u32 {
        n as u32
    }

    fn to_u128(self) -> u128 {
        self.into()
    }

    #[inline(always)]
    fn words(k: &Key<u32>) -> [u32; 8] {
        [k.src, k.dst, k.sport.into(), k.dport.into(), (k.class & 0xff).into(), 0, 0, 0]
    }

    #[inline(always)]
    fn word(words: &[u32; 8], index: usize) -> u32 {
        words[index & 7]
    }
}

impl Addr for u128 {
    const ZERO: u128 = 0;
    const BITS: u8 = 128;
    type Block = Block6;
    type Words = [u32; 16];

    fn prefix_mask(len: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
    }

    fn from_u128(n: u128) -> u128 {
        n
    }

    fn to_u128(self) -> u128 {
        self
    }

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
            (k.class & 0xff).into(),
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
