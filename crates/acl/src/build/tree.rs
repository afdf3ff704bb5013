//! One tree after the other, from the root down.

use std::collections::HashMap;

use super::cell::Cell;
use super::cut::{Cut, Cutter};
use super::span::{MAX_DIMS, Span, dims};
use crate::block::Block;
use crate::family::AddrFamily;
use crate::forest::{Forest, NodeRef, Root, Shape};
use crate::lanes::LANES;
use crate::rule::{NO_MATCH, Rule};

/// Rule copies that a tree may hold for each rule given.
const ROOM_PER_RULE: usize = 12;
const ROOM_MIN: usize = 4096;

/// Comparisons of a rule with a candidate cut, for each rule given.
const WORK_PER_RULE: u64 = 4000;
const WORK_MIN: u64 = 4_000_000;

/// Levels of a tree.
const MAX_DEPTH: usize = 24;

/// A list of rules that is not cut. Half a block more than one: the second is seldom reached, a
/// further level always is.
const LEAF: usize = LANES + LANES / 2;

/// Longest list in which rules hidden behind a single earlier one are looked for.
const HIDDEN_MAX: usize = 64;

/// What a subtree may use.
#[derive(Clone, Copy)]
struct Allowance {
    room: usize,
    work: u64,
}

impl Allowance {
    fn share(self, part: usize, whole: usize) -> Allowance {
        let of = |n: u128| n * part as u128 / whole.max(1) as u128;
        Allowance { room: of(self.room as u128) as usize, work: of(self.work as u128) as u64 }
    }
}

pub struct Builder<'a, A: AddrFamily> {
    rules: &'a [Rule<A>],
    spans: &'a [[Span; MAX_DIMS]],
    cutter: Cutter,
    entries: Vec<NodeRef>,
    blocks: Vec<A::Block>,
    /// Leaves already made, by their rules.
    leaves: HashMap<Box<[u32]>, NodeRef>,
    roots: Vec<Root>,
    shape: Shape,
}

impl<'a, A: AddrFamily> Builder<'a, A> {
    /// `spans` are those of `rules`.
    pub fn new(rules: &'a [Rule<A>], spans: &'a [[Span; MAX_DIMS]]) -> Self {
        Builder {
            rules,
            spans,
            cutter: Cutter::new::<A>(),
            entries: Vec::new(),
            // What `NodeRef::EMPTY_LEAF` points at.
            blocks: vec![A::Block::EMPTY],
            leaves: HashMap::new(),
            roots: Vec::new(),
            shape: Shape::default(),
        }
    }

    /// Adds a tree of the rules `ids`, which are in match order.
    pub fn tree(&mut self, ids: Vec<u32>) {
        let Some(&first) = ids.first() else { return };
        let allowance = Allowance {
            room: ids.len() * ROOM_PER_RULE + ROOM_MIN,
            work: ids.len() as u64 * WORK_PER_RULE + WORK_MIN,
        };
        let step = self.node(ids, &Cell::whole::<A>(), allowance, 0);
        self.roots.push(Root { step, first, batch_levels: 0 });
    }

    pub fn finish(self) -> Forest<A> {
        let Builder { mut roots, mut entries, mut blocks, mut shape, .. } = self;
        roots.sort_by_key(|r| r.first);
        entries.shrink_to_fit();
        blocks.shrink_to_fit();
        shape.trees = roots.len();
        shape.entries = entries.len();
        shape.blocks = blocks.len();
        Forest { roots, entries, blocks, shape }
    }

    fn rule(&self, id: u32) -> &Rule<A> {
        &self.rules[id as usize]
    }

    fn node(&mut self, mut ids: Vec<u32>, cell: &Cell, allowance: Allowance, depth: usize) -> NodeRef {
        self.drop_hidden(&mut ids, cell);
        // Every packet goes through a tree that is one leaf: there the second block counts.
        let enough = if depth == 0 { LANES } else { LEAF };
        if ids.len() <= enough || depth == MAX_DEPTH {
            return self.leaf(&ids, depth);
        }
        let mut work = allowance.work;
        let hull = cell.hull();
        let Some(cut) = self.cutter.choose(self.spans, &ids, cell, &hull, allowance.room, &mut work) else {
            return self.leaf(&ids, depth);
        };
        let children = self.distribute(&ids, cell, cut);
        let copies: usize = children.iter().map(Vec::len).sum();
        drop(ids);
        let left = Allowance { work, ..allowance };
        let table = self.entries.len();
        self.entries.resize(table + children.len(), NodeRef::EMPTY_LEAF);
        for (entry, list) in children.into_iter().enumerate() {
            let share = left.share(list.len(), copies);
            let inside = cell.child(cut, entry);
            self.entries[table + entry] = self.node(list, &inside, share, depth + 1);
        }
        NodeRef::inner(table, cut.a, cut.b)
    }

    /// Removes rules that cannot match first in this cell because one earlier rule covers them.
    fn drop_hidden(&self, ids: &mut Vec<u32>, cell: &Cell) {
        let n = dims::<A>();
        let hull = cell.hull();
        // Two windows of one word can each touch a range that misses them together.
        ids.retain(|&id| self.spans[id as usize][..n].iter().zip(&hull).all(|(a, b)| a.meets(*b)));
        // The ranges do not say all: packets without ports are outside the reach of a rule that needs ports, though
        // their ports of 0 may be inside its ranges. `b_test`: what the header of every packet in `b` passes.
        let covers = |a: u32, b: &[Span; MAX_DIMS], b_test: (u16, u16)| {
            let (mask, value) = self.rule(a).header_test();
            mask & !b_test.0 == 0
                && b_test.1 & mask == value
                && self.spans[a as usize][..n].iter().zip(b).all(|(a, b)| a.covers(*b))
        };
        if let Some(at) = ids.iter().position(|&id| covers(id, &hull, (0, 0))) {
            ids.truncate(at + 1);
        }
        if ids.len() > HIDDEN_MAX {
            return;
        }
        let mut count = 0;
        for i in 0..ids.len() {
            let id = ids[i];
            let mut inside = self.spans[id as usize];
            for d in 0..n {
                inside[d] = inside[d].clip(hull[d]);
            }
            let test = self.rule(id).header_test();
            if !ids[..count].iter().any(|&earlier| covers(earlier, &inside, test)) {
                ids[count] = id;
                count += 1;
            }
        }
        ids.truncate(count);
    }

    /// The rules of each child, in match order.
    fn distribute(&self, ids: &[u32], cell: &Cell, cut: Cut) -> Vec<Vec<u32>> {
        let hull = cell.hull();
        let mut children = vec![Vec::new(); cut.children()];
        for &id in ids {
            let spans = &self.spans[id as usize];
            let clipped = |dim: u8| spans[usize::from(dim)].clip(hull[usize::from(dim)]);
            cut.touched(clipped(cut.a.dim), clipped(cut.b.dim), |entry| children[entry].push(id));
        }
        children
    }

    fn leaf(&mut self, ids: &[u32], depth: usize) -> NodeRef {
        if ids.is_empty() {
            return NodeRef::EMPTY_LEAF;
        }
        self.shape.depth = self.shape.depth.max(depth);
        if let Some(step) = self.leaves.get(ids) {
            return *step;
        }
        let first = self.blocks.len();
        for chunk in ids.chunks(LANES) {
            let mut block = A::Block::EMPTY;
            for (lane, &id) in chunk.iter().enumerate() {
                debug_assert!(id != NO_MATCH);
                block.put(lane, &self.rules[id as usize], id);
            }
            self.blocks.push(block);
        }
        let count = self.blocks.len() - first;
        self.shape.longest_leaf = self.shape.longest_leaf.max(count);
        let step = NodeRef::leaf(first, count);
        self.leaves.insert(ids.into(), step);
        step
    }
}
