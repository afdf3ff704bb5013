//! What words and blocks mean.
//!
//! A word is the number of a route, [`NONE`], or the place of a block with the kind of the block in its
//! highest bits:
//!
//! | block | words |
//! |---|---|
//! | node | a bitmap of its 64 slots, low half first; a word for each slot that differs from the one before it |
//! | skip | a prefix length; the word for addresses that are not in the prefix; the one for those that are; the prefix |
//!
//! A skip stands for a chain of nodes in each of which one slot alone leads on, and all others have the same
//! word.

use crate::addr::FibAddr;
use crate::pages::{PAGE, PAGE_BITS, Page};

/// Bits that index the first array.
pub const ROOT_BITS: u32 = 24;
/// Bits of these that say which page of the array.
pub const ROOT_PAGE_BITS: u32 = ROOT_BITS - PAGE_BITS;
/// Bits that a node takes.
pub const STRIDE: u32 = 6;
/// Slots of a node.
pub const SLOTS: usize = 1 << STRIDE;

/// Words from here on are places of nodes.
pub const NODE: u32 = 1 << 30;
/// Words from here on are places of skips.
pub const SKIP: u32 = 1 << 31;
/// No route.
pub const NONE: u32 = NODE - 1;
/// Words that blocks can have.
pub const MAX_WORDS: usize = 1 << 30;

/// The slots of a node, one word each.
pub type Slots = [u32; SLOTS];

/// Where the block of a word is.
#[inline]
pub const fn place(word: u32) -> usize {
    (word & (NODE - 1)) as usize
}

/// Whether a word leads on.
#[inline]
pub const fn leads_on(word: u32) -> bool {
    word >= NODE
}

/// The bitmap of a node.
#[inline]
pub fn bitmap(page: &Page, at: usize) -> u64 {
    u64::from(page[at]) | u64::from(page[(at + 1) % PAGE]) << 32
}

/// The word of a slot of a node.
#[inline]
pub fn slot(page: &Page, at: usize, slot: usize) -> u32 {
    // The first slot's bit is always set, so there is at least one.
    let nth = (bitmap(page, at) << (63 - slot)).count_ones() as usize;
    page[(at + 1 + nth) % PAGE]
}

/// All slots of a node.
pub fn slots(page: &Page, at: usize) -> Slots {
    let bits = bitmap(page, at);
    let mut next = at + 1;
    std::array::from_fn(|i| {
        next += (bits >> i & 1) as usize;
        page[next % PAGE]
    })
}

/// The bitmap that these slots make.
pub fn bitmap_of(slots: &Slots) -> u64 {
    (1..SLOTS).fold(1, |bits, i| bits | u64::from(slots[i] != slots[i - 1]) << i)
}

/// A chain of nodes in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip<A> {
    /// Bits of the prefix.
    pub len: u32,
    /// For addresses that are not in the prefix; leads nowhere on.
    pub miss: u32,
    /// For those that are.
    pub hit: u32,
    /// The prefix.
    pub prefix: A,
}

impl<A: FibAddr> Skip<A> {
    /// Words of the block.
    pub const WORDS: usize = 3 + A::BITS as usize / 32;

    /// Reads a block.
    #[inline]
    pub fn read(page: &Page, at: usize) -> Skip<A> {
        let word = |i: usize| page[(at + i) % PAGE];
        let words = if A::BITS == 32 { [word(3), 0, 0, 0] } else { [word(3), word(4), word(5), word(6)] };
        Skip { len: word(0), miss: word(1), hit: word(2), prefix: A::from_words(words) }
    }

    /// Writes a block.
    pub fn write(&self, page: &mut Page, at: usize) {
        page[at..at + 3].copy_from_slice(&[self.len, self.miss, self.hit]);
        page[at + 3..at + Self::WORDS].copy_from_slice(&self.prefix.words()[..A::BITS as usize / 32]);
    }
}
