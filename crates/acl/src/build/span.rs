//! A rule as one range for each 32-bit word of a key: what the tree cuts.

use crate::addr::Addr;
use crate::rule::{Prefix, Rule};

/// 32-bit words of an address.
const fn addr_words<A: Addr>() -> usize {
    A::BITS as usize / 32
}

/// Number of words in a key: the addresses, source port, destination port, protocol.
pub const fn dims<A: Addr>() -> usize {
    2 * addr_words::<A>() + 3
}

/// Most words that a key of any family has.
pub const MAX_DIMS: usize = 11;

pub const fn sport_dim<A: Addr>() -> usize {
    2 * addr_words::<A>()
}

/// Significant bits of word `dim`.
pub const fn dim_bits<A: Addr>(dim: usize) -> u32 {
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
pub struct Span {
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
/// packets that `Rule::header_test` tells apart: those without ports, of another DSCP, with other TCP flags.
pub fn spans<A: Addr>(rule: &Rule<A>) -> [Span; MAX_DIMS] {
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
    for (word, range) in out[ports..].iter_mut().zip(rule.port_words()) {
        *word = Span { lo: range.lo().into(), hi: range.hi().into() };
    }
    out[ports + 2] = match rule.proto {
        Some(p) => Span { lo: p.into(), hi: p.into() },
        None => Span { lo: 0, hi: 255 },
    };
    out
}
