//! The part of the key space that belongs to a node.

use super::cut::Cut;
use super::span::{MAX_DIMS, Span, dim_bits};
use crate::addr::Addr;
use crate::forest::Window;

/// The key bits that the cuts above a node have fixed.
#[derive(Clone)]
pub struct Cell {
    fixed: [u32; MAX_DIMS],
    value: [u32; MAX_DIMS],
}

impl Cell {
    pub fn whole<A: Addr>() -> Cell {
        // Bits above the width of a word are always zero.
        let fixed = std::array::from_fn(|d| u32::MAX.checked_shl(dim_bits::<A>(d)).unwrap_or(0));
        Cell { fixed, value: [0; MAX_DIMS] }
    }

    pub fn is_free(&self, dim: usize, bit: u32) -> bool {
        bit < 32 && self.fixed[dim] & (1 << bit) == 0
    }

    /// Child number `entry` of `cut`.
    pub fn child(&self, cut: Cut, entry: usize) -> Cell {
        let mut child = self.clone();
        let mut fix = |w: Window, index: usize| {
            let d = usize::from(w.dim);
            child.fixed[d] |= w.mask() << w.shift;
            child.value[d] |= (index as u32 & w.mask()) << w.shift;
        };
        fix(cut.a, entry);
        fix(cut.b, entry >> cut.a.bits);
        child
    }

    /// The smallest box of ranges that holds the cell, as far as the fixed high bits determine it.
    pub fn hull(&self) -> [Span; MAX_DIMS] {
        std::array::from_fn(|d| {
            let free = u32::MAX.checked_shr(self.fixed[d].leading_ones()).unwrap_or(0);
            let lo = self.value[d] & !free;
            Span { lo, hi: lo | free }
        })
    }
}
