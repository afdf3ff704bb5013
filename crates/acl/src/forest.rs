//! What a compiled rule set is made of: trees of direct-indexed cuts whose leaves are rows of blocks.
//!
//! A node is one 64-bit word in the table of its parent, so every level costs one memory access.

use crate::block::Block;
use crate::family::AddrFamily;
use crate::rule::{Key, NO_MATCH};

/// Bits `shift..shift + bits` of a word of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub dim: u8,
    pub shift: u8,
    pub bits: u8,
}

/// A node, packed: an inner node says which key bits index which table, a leaf which blocks it has.
///
/// Inner: bit 63 set; bits 0..32 first entry of its table; 32..36 first word, 36..41 its shift;
/// 41..45 second word, 45..50 how far it is rotated right; 50..54 bits of the first window, 54..59
/// bits of both. Leaf: bits 0..32 first block, 32..63 number of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeRef(u64);

const INNER: u64 = 1 << 63;

/// `LOW[n]` has the low `n` bits set.
static LOW: [u32; 32] = {
    let mut low = [0; 32];
    let mut n = 0;
    while n < 32 {
        low[n] = (1 << n) - 1;
        n += 1;
    }
    low
};

impl NodeRef {
    /// The leaf without rules: the first block, which is empty. So every leaf has a block, and a lookup
    /// need not test for one without.
    pub const EMPTY_LEAF: NodeRef = NodeRef(1 << 32);

    pub fn leaf(first: usize, count: usize) -> NodeRef {
        NodeRef(first as u64 | (count as u64) << 32)
    }

    pub fn inner(table: usize, a: Window, b: Window) -> NodeRef {
        let rotate = (32 + u64::from(b.shift) - u64::from(a.bits)) % 32;
        NodeRef(
            INNER
                | table as u64
                | u64::from(a.dim) << 32
                | u64::from(a.shift) << 36
                | u64::from(b.dim) << 41
                | rotate << 45
                | u64::from(a.bits) << 50
                | u64::from(a.bits + b.bits) << 54,
        )
    }

    #[inline(always)]
    pub fn is_inner(self) -> bool {
        self.0 & INNER != 0
    }

    #[inline(always)]
    pub fn entry<A: AddrFamily>(self, words: &A::Words) -> usize {
        let field = |at: u32, mask: usize| (self.0 >> at) as usize & mask;
        let a = A::word(words, field(32, 15)) >> field(36, 31);
        let b = A::word(words, field(41, 15)).rotate_right(field(45, 31) as u32);
        let low = LOW[field(50, 15)];
        let all = LOW[field(54, 31)];
        (self.0 as u32 as usize) + ((a & low) | (b & (all ^ low))) as usize
    }

    /// First block of a leaf.
    #[inline(always)]
    pub fn first(self) -> usize {
        self.0 as u32 as usize
    }

    /// Blocks of a leaf.
    #[inline(always)]
    pub fn count(self) -> usize {
        (self.0 >> 32) as usize
    }
}

/// Limit of [`Root::batch_levels`].
const BATCH_LEVELS_MAX: usize = 6;

/// A tree, of some of the rules.
pub(crate) struct Root {
    pub step: NodeRef,
    /// Lowest rule number in the tree.
    pub first: u32,
    /// Levels below the first that a batch takes all its keys through.
    pub batch_levels: u32,
}

pub(crate) struct Forest<A: AddrFamily> {
    /// In order of their first rules.
    pub roots: Vec<Root>,
    pub entries: Vec<NodeRef>,
    pub blocks: Vec<A::Block>,
    pub shape: Shape,
}

/// Sizes of a compiled classifier, for reports and measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Trees that the rules are split over.
    pub trees: usize,
    /// Table entries of inner nodes, 8 bytes each.
    pub entries: usize,
    /// Blocks of eight rules, including the empty one.
    pub blocks: usize,
    /// Blocks of the longest leaf.
    pub longest_leaf: usize,
    /// Levels of the deepest tree.
    pub depth: usize,
}

/// The work of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LookupCost {
    /// Table accesses, over all trees.
    pub steps: usize,
    /// Blocks compared, eight rules each.
    pub blocks: usize,
}

impl<A: AddrFamily> Forest<A> {
    /// The leaf that a key leads to in a tree.
    #[inline(always)]
    pub fn leaf(&self, root: &Root, words: &A::Words) -> NodeRef {
        let mut step = root.step;
        while step.is_inner() {
            step = self.entries[step.entry::<A>(words)];
        }
        step
    }

    #[inline(always)]
    pub fn blocks_of(&self, leaf: NodeRef) -> &[A::Block] {
        &self.blocks[leaf.first()..][..leaf.count()]
    }

    pub fn memory(&self) -> usize {
        self.roots.capacity() * size_of::<Root>()
            + self.entries.capacity() * size_of::<NodeRef>()
            + self.blocks.capacity() * size_of::<A::Block>()
    }

    pub fn lookup_cost(&self, key: &Key<A>) -> LookupCost {
        let words = A::words(key);
        let mut lookup_cost = LookupCost::default();
        for root in &self.roots {
            lookup_cost.steps += self.depth_for(root, &words);
            let leaf = self.blocks_of(self.leaf(root, &words));
            let found = leaf.iter().position(|block| block.find(key) != NO_MATCH);
            lookup_cost.blocks += found.map_or(leaf.len(), |at| at + 1);
        }
        lookup_cost
    }

    fn depth_for(&self, root: &Root, words: &A::Words) -> usize {
        let (mut step, mut steps) = (root.step, 0);
        while step.is_inner() {
            step = self.entries[step.entry::<A>(words)];
            steps += 1;
        }
        steps
    }

    /// Sets [`Root::batch_levels`] for traffic like `keys`.
    pub fn tune(&mut self, keys: &[Key<A>]) {
        let batch_levels: Vec<u32> = self
            .roots
            .iter()
            .map(|root| {
                let mut beyond = [0usize; BATCH_LEVELS_MAX + 2];
                for key in keys {
                    let steps = self.depth_for(root, &A::words(key)).min(BATCH_LEVELS_MAX + 1);
                    beyond[..=steps].iter_mut().for_each(|n| *n += 1);
                }
                (1..=BATCH_LEVELS_MAX).take_while(|&level| beyond[level + 1] * 5 >= keys.len() * 3).count()
                    as u32
            })
            .collect();
        for (root, levels) in self.roots.iter_mut().zip(batch_levels) {
            root.batch_levels = levels;
        }
    }
}
