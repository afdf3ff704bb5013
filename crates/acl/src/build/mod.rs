//! Compiling rules into trees.
//!
//! A node cuts its part of the key space by up to two windows of key bits ([`cut`]), each rule goes
//! to every child that it touches, and a child with few rules becomes a leaf ([`tree`]). Two
//! allowances bound what a rule set can cost, whatever it looks like: the rule copies that a subtree
//! may make, and the steps that finding its cuts may take. Both are split among children by size, so
//! a difficult corner takes nothing from the rest; where one runs out, the leaf is simply longer.
//!
//! Rules that leave one address open and rules that leave the other open copy each other without end
//! in one tree. So the rules may be split over two trees, if that costs less: [`build`] tries.

mod cell;
mod cut;
mod span;
mod tree;

use std::collections::HashSet;

use crate::family::AddrFamily;
use crate::forest::Forest;
use crate::generate::{self, Rng};
use crate::rule::{Key, Rule};
use span::{MAX_DIMS, Span, spans};
use tree::Builder;

/// Which rules share a tree.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Split {
    /// All.
    None,
    /// Those whose source is narrow, and the others.
    Source,
    /// The same by destination.
    Destination,
}

/// Splits are tried on at most this many rules.
const TRIAL_RULES: usize = 3000;

/// Keys that a trial classifies.
const TRIAL_KEYS: usize = 512;

/// Costs of a lookup in nanoseconds, as measured on one machine: only their proportions matter.
/// A tree with its first step and block, a further step, a further block, a megabyte.
const TREE_COST: f64 = 7.5;
const STEP_COST: f64 = 5.0;
const BLOCK_COST: f64 = 6.0;
const MEGABYTE_COST: f64 = 0.5;
/// For each block a rule takes: each doubling from the trial's rules to all of them. Where rules are
/// copied much, they are copied more the more there are.
const GROWTH_COST: f64 = 5.0;

pub fn build<A: AddrFamily>(rules: &[Rule<A>]) -> Forest<A> {
    // Only the first of equal rules can match first.
    let mut seen = HashSet::with_capacity(rules.len());
    let ids: Vec<u32> = (0..rules.len() as u32)
        .filter(|&id| {
            let rule = &rules[id as usize];
            !rule.is_unmatchable() && seen.insert(rule)
        })
        .collect();
    drop(seen);
    let spans: Vec<_> = rules.iter().map(spans).collect();

    let every = ids.len().div_ceil(TRIAL_RULES).max(1);
    let mut rng = Rng::new(ids.len() as u64);
    let sample: Vec<u32> = ids.chunks(every).map(|few| few[rng.below(few.len())]).collect();
    let keys = generate::inside_each(rules, &sample, TRIAL_KEYS);
    let mut best: Option<(f64, Split, Forest<A>)> = None;
    for split in [Split::None, Split::Destination, Split::Source] {
        let forest = build_trees(rules, &spans, &sample, split);
        let copies = forest.blocks.len() as f64 / sample.len().max(1) as f64;
        let cost = cost(&forest, &keys, every) + (every as f64).log2() * copies * GROWTH_COST;
        if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
            best = Some((cost, split, forest));
        }
    }
    let mut forest = match best {
        Some((_, _, forest)) if every == 1 => forest,
        Some((_, split, _)) => build_trees(rules, &spans, &ids, split),
        None => build_trees(rules, &spans, &ids, Split::None),
    };
    forest.tune(&keys);
    forest
}

/// What a lookup costs in a trial with one of `every` rules.
fn cost<A: AddrFamily>(forest: &Forest<A>, keys: &[Key<A>], every: usize) -> f64 {
    let trees = forest.roots.len();
    let (mut steps, mut blocks) = (0, 0);
    for key in keys {
        let lookup_cost = forest.lookup_cost(key);
        steps += lookup_cost.steps.saturating_sub(trees);
        blocks += lookup_cost.blocks.saturating_sub(trees);
    }
    let each = |n: usize| n as f64 / keys.len().max(1) as f64;
    let megabytes = (forest.memory() * every) as f64 / 1e6;
    trees as f64 * TREE_COST + each(steps) * STEP_COST + each(blocks) * BLOCK_COST + megabytes * MEGABYTE_COST
}

/// Builds the trees of the rules `ids`.
fn build_trees<A: AddrFamily>(
    rules: &[Rule<A>],
    spans: &[[Span; MAX_DIMS]],
    ids: &[u32],
    split: Split,
) -> Forest<A> {
    // Less than half of the prefixes' bits that matter: a /12 in IPv4, a /52 or so in IPv6.
    let narrow = if A::BITS == 32 { 13 } else { 53 };
    let (inside, others) = ids.iter().partition(|&&id| {
        let rule = &rules[id as usize];
        match split {
            Split::None => true,
            Split::Source => rule.src.prefix_len() >= narrow,
            Split::Destination => rule.dst.prefix_len() >= narrow,
        }
    });
    let mut builder = Builder::new(rules, spans);
    builder.tree(inside);
    builder.tree(others);
    builder.finish()
}
