//! Lookups: down each tree to a leaf, then through its blocks.
//!
//! [`Classifier::classify_batch`] moves a group of keys level by level: their memory accesses are
//! independent and overlap.

use std::fmt;

use crate::block::Block;
use crate::build;
use crate::family::AddrFamily;
use crate::forest::{Forest, LookupCost, NodeRef, Root, Shape};
use crate::rule::{Key, NO_MATCH, Rule};

/// Keys that move through a tree together.
const GROUP: usize = 32;

/// The same for what is left of a batch.
const SMALL_GROUP: usize = 8;

/// Finds the first rule of a set that matches a key. Immutable; lookups allocate nothing.
///
/// A lookup costs a few table accesses and, typically, one block of eight rules per tree. The worst
/// case is a rule set in which thousands of rules overlap in one place without one covering another:
/// there the leaves are long and a lookup compares up to the whole set, eight rules at a time. The
/// memory and the work of a build are bounded by the number of rules, whatever they are.
pub struct Classifier<A: AddrFamily> {
    forest: Forest<A>,
}

impl<A: AddrFamily> fmt::Debug for Classifier<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier").field("shape", &self.shape()).finish_non_exhaustive()
    }
}

impl<A: AddrFamily> Classifier<A> {
    /// Compiles `rules`; index 0 wins. There is room for 2^32 - 1 rules.
    pub fn build(rules: &[Rule<A>]) -> Self {
        Classifier { forest: build::build(rules) }
    }

    /// Index of the first rule that matches.
    #[inline]
    pub fn classify(&self, key: &Key<A>) -> Option<u32> {
        let words = A::words(key);
        let mut best = NO_MATCH;
        for root in &self.forest.roots {
            // Trees are in order of their first rule.
            if root.first >= best {
                break;
            }
            // A loop, not an adaptor: the comparison is to become part of it in builds for tests too.
            for block in self.forest.blocks_of(self.forest.leaf(root, &words)) {
                let found = block.find(key);
                if found != NO_MATCH {
                    best = best.min(found);
                    break;
                }
            }
        }
        (best != NO_MATCH).then_some(best)
    }

    /// [`Classifier::classify`] for each of `keys`, into `found`: the index, or [`NO_MATCH`]. Keys
    /// without a place in `found`, and places without a key, are left alone.
    pub fn classify_batch(&self, keys: &[Key<A>], found: &mut [u32]) {
        let n = keys.len().min(found.len());
        let (keys, keys_left) = keys[..n].as_chunks::<GROUP>();
        let (found, found_left) = found[..n].as_chunks_mut::<GROUP>();
        for (keys, found) in keys.iter().zip(found) {
            self.classify_group(keys, found);
        }
        let (keys, keys_left) = keys_left.as_chunks::<SMALL_GROUP>();
        let (found, found_left) = found_left.as_chunks_mut::<SMALL_GROUP>();
        for (keys, found) in keys.iter().zip(found) {
            self.classify_group(keys, found);
        }
        for (key, found) in keys_left.iter().zip(found_left) {
            *found = self.classify(key).unwrap_or(NO_MATCH);
        }
    }

    #[inline(always)]
    fn classify_group<const N: usize>(&self, keys: &[Key<A>; N], found: &mut [u32; N]) {
        let words: [A::Words; N] = std::array::from_fn(|i| A::words(&keys[i]));
        *found = [NO_MATCH; N];
        for root in &self.forest.roots {
            let steps = self.descend(root, &words);
            self.scan(&steps, keys, found);
        }
    }

    /// The leaf of each key, all keys one level at a time.
    #[inline(always)]
    fn descend<const N: usize>(&self, root: &Root, words: &[A::Words; N]) -> [NodeRef; N] {
        let entries = &self.forest.entries[..];
        let mut steps = [root.step; N];
        if !root.step.is_inner() {
            return steps;
        }
        for (step, words) in steps.iter_mut().zip(words) {
            *step = entries[root.step.entry::<A>(words)];
        }
        // Levels that most keys reach: all take the step, those at a leaf stay where
        // they are. That is cheaper than a list of the keys that go on.
        for _ in 0..root.batch_levels {
            for (step, words) in steps.iter_mut().zip(words) {
                let inner = step.is_inner();
                let next = entries[if inner { step.entry::<A>(words) } else { 0 }];
                *step = if inner { next } else { *step };
            }
        }
        // From there on, a list of the keys that are not at a leaf yet, updated without a branch.
        let mut going = [0u8; N];
        let mut count = 0;
        for (i, step) in steps.iter().enumerate() {
            going[count % N] = i as u8;
            count += usize::from(step.is_inner());
        }
        while count > 0 {
            let mut left = 0;
            for j in 0..count {
                let i = usize::from(going[j % N]) % N;
                let step = entries[steps[i].entry::<A>(&words[i])];
                steps[i] = step;
                going[left % N] = i as u8;
                left += usize::from(step.is_inner());
            }
            count = left;
        }
        steps
    }

    /// Lowers each `found` to the first match in the key's leaf.
    #[inline(always)]
    fn scan<const N: usize>(&self, leaves: &[NodeRef; N], keys: &[Key<A>; N], found: &mut [u32; N]) {
        let blocks = &self.forest.blocks[..];
        let mut going = [0u8; N];
        let mut count = 0;
        for i in 0..N {
            let answer = blocks[leaves[i].first()].find(&keys[i]);
            found[i] = found[i].min(answer);
            going[count % N] = i as u8;
            count += usize::from(answer == NO_MATCH && leaves[i].count() > 1);
        }
        for &i in &going[..count.min(N)] {
            let i = usize::from(i) % N;
            let answer = self.forest.blocks_of(leaves[i])[1..]
                .iter()
                .map(|block| block.find(&keys[i]))
                .find(|&a| a != NO_MATCH);
            found[i] = found[i].min(answer.unwrap_or(NO_MATCH));
        }
    }

    /// The work that [`Classifier::classify`] does at most for `key`, counted instead of timed.
    pub fn lookup_cost(&self, key: &Key<A>) -> LookupCost {
        self.forest.lookup_cost(key)
    }

    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        self.forest.memory()
    }

    /// The sizes of the compiled structure.
    pub fn shape(&self) -> Shape {
        self.forest.shape
    }
}
