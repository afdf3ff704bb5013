//! Lookups: down one or more trees of direct-indexed cuts to a leaf, then through its blocks.
//!
//! A node is one 64-bit word, read together with the step that reached it, so every level costs one
//! memory access. [`Classifier::classify_batch`] moves a group of keys level by level: their memory
//! accesses are independent and overlap.

use std::fmt;

use crate::block::Block;
use crate::build::{self, Forest};
use crate::family::Addr;
use crate::rule::{Key, Rule};

/// What [`Classifier::classify_batch`] writes for a key that no rule matches.
pub const NO_MATCH: u32 = u32::MAX;

/// Keys that move through a tree together.
const GROUP: usize = 32;

/// Bits `shift..shift + bits` of a word of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub dim: u8,
    pub shift: u8,
    pub bits: u8,
}

/// One step of a lookup, packed: which child of which table, or which blocks.
///
/// Inner: bit 63 set; bits 0..32 first slot of the table; 32..36 first word, 36..41 its shift;
/// 41..45 second word, 45..50 how far it is rotated right; 50..54 bits of the first window, 54..59
/// bits of both. Leaf: bits 0..32 first block, 32..63 number of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Step(u64);

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

impl Step {
    /// The leaf without rules.
    pub const NOTHING: Step = Step(0);

    pub fn leaf(first: usize, count: usize) -> Step {
        Step(first as u64 | (count as u64) << 32)
    }

    pub fn inner(table: usize, a: Window, b: Window) -> Step {
        let rotate = (32 + u64::from(b.shift) - u64::from(a.bits)) % 32;
        Step(
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
    fn is_inner(self) -> bool {
        self.0 & INNER != 0
    }

    #[inline(always)]
    fn slot<A: Addr>(self, words: &A::Words) -> usize {
        let field = |at: u32, mask: usize| (self.0 >> at) as usize & mask;
        let a = A::word(words, field(32, 15)) >> field(36, 31);
        let b = A::word(words, field(41, 15)).rotate_right(field(45, 31) as u32);
        let low = LOW[field(50, 15)];
        let all = LOW[field(54, 31)];
        (self.0 as u32 as usize) + ((a & low) | (b & (all ^ low))) as usize
    }

    #[inline(always)]
    fn blocks(self) -> std::ops::Range<usize> {
        let first = self.0 as u32 as usize;
        first..first + (self.0 >> 32) as usize
    }
}

/// Answers which rule of a set matches a key first. Immutable; lookups allocate nothing.
///
/// A lookup costs a few table steps and, typically, one block of eight rules per tree. The worst
/// case is a rule set in which thousands of rules overlap in one place without one covering another:
/// there the leaves are long and a lookup compares up to the whole set, eight rules at a time. What
/// it never does is blow up: the memory and the work of a build are bounded by the number of rules.
pub struct Classifier<A: Addr> {
    forest: Forest<A>,
}

/// What a classifier looks like inside, for reports and measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    pub trees: usize,
    pub slots: usize,
    pub blocks: usize,
    /// Blocks of the longest leaf.
    pub longest_leaf: usize,
    /// Most table steps before a leaf, over the trees.
    pub depth: usize,
}

impl<A: Addr> fmt::Debug for Classifier<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier").field("shape", &self.shape()).finish_non_exhaustive()
    }
}

impl<A: Addr> Classifier<A> {
    /// Compiles `rules`; index 0 wins. There is room for 2^32 - 1 rules.
    pub fn build(rules: &[Rule<A>]) -> Self {
        Classifier { forest: build::build(rules) }
    }

    /// Index of the first rule that matches.
    pub fn classify(&self, key: &Key<A>) -> Option<u32> {
        let words = A::words(key);
        let mut best = NO_MATCH;
        for root in &self.forest.roots {
            // Trees are in order of their first rule.
            if root.first >= best {
                break;
            }
            let mut step = root.step;
            while step.is_inner() {
                step = self.forest.slots[step.slot::<A>(&words)];
            }
            best = best.min(self.scan(step, key));
        }
        (best != NO_MATCH).then_some(best)
    }

    /// [`Classifier::classify`] for each of `keys`, into `found`: the index, or [`NO_MATCH`]. Keys
    /// without a place in `found`, and places without a key, are left alone.
    pub fn classify_batch(&self, keys: &[Key<A>], found: &mut [u32]) {
        for (keys, found) in keys.chunks(GROUP).zip(found.chunks_mut(GROUP)) {
            self.classify_group(keys, found);
        }
    }

    fn classify_group(&self, keys: &[Key<A>], found: &mut [u32]) {
        let n = keys.len().min(found.len()).min(GROUP);
        let (keys, found) = (&keys[..n], &mut found[..n]);
        let mut words = [A::NO_WORDS; GROUP];
        for (w, key) in words.iter_mut().zip(keys) {
            *w = A::words(key);
        }
        found.fill(NO_MATCH);
        for root in &self.forest.roots {
            let mut steps = [root.step; GROUP];
            if root.step.is_inner() {
                self.descend(&words, &mut steps, n);
            }
            for ((key, step), found) in keys.iter().zip(&steps).zip(&mut *found) {
                *found = self.scan(*step, key).min(*found);
            }
        }
    }

    /// Takes the first `n` steps to their leaves, one level at a time.
    #[inline(always)]
    fn descend(&self, words: &[A::Words; GROUP], steps: &mut [Step; GROUP], n: usize) {
        let slots = &self.forest.slots[..];
        let mut going = [0u8; GROUP];
        let mut count = 0;
        for i in 0..n {
            let step = slots[steps[i].slot::<A>(&words[i])];
            steps[i] = step;
            going[count % GROUP] = i as u8;
            count += usize::from(step.is_inner());
        }
        while count > 0 {
            let mut left = 0;
            for j in 0..count {
                let i = usize::from(going[j % GROUP]) % GROUP;
                let step = slots[steps[i].slot::<A>(&words[i])];
                steps[i] = step;
                going[left % GROUP] = i as u8;
                left += usize::from(step.is_inner());
            }
            count = left;
        }
    }

    #[inline(always)]
    fn scan(&self, leaf: Step, key: &Key<A>) -> u32 {
        for block in &self.forest.blocks[leaf.blocks()] {
            let found = block.find(key);
            if found != NO_MATCH {
                return found;
            }
        }
        NO_MATCH
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.forest.memory()
    }

    pub fn shape(&self) -> Shape {
        self.forest.shape
    }
}
