//! Compiling rules into trees.
//!
//! A node cuts its part of the key space by up to two windows of key bits ([`cut`]), each rule goes
//! to every child that it touches, and a child with few rules becomes a leaf. Two allowances bound
//! what a rule set can cost, whatever it looks like: `room`, the rule copies that a subtree may make,
//! and `work`, the steps that finding its cuts may take. Both are split among children by size, so a
//! difficult corner takes nothing from the rest; where one runs out, the leaf is simply longer.

mod cell;
mod cut;

use std::collections::HashMap;

use crate::block::{Block, LANES};
use crate::classifier::{NO_MATCH, Shape, Step};
use crate::family::{Addr, MAX_DIMS, Span, dims, spans};
use crate::rule::Rule;
use cell::Cell;
use cut::{Cut, Cutter};

/// Rule copies that the trees may hold for each rule given.
const ROOM_PER_RULE: usize = 12;
const ROOM_MIN: usize = 4096;

/// Comparisons of a rule with a candidate cut, for each rule given.
const WORK_PER_RULE: u64 = 4000;
const WORK_MIN: u64 = 4_000_000;

/// Levels of a tree.
const MAX_DEPTH: usize = 24;

/// Longest list in which rules hidden behind a single earlier one are looked for.
const HIDDEN_MAX: usize = 64;

pub struct Root {
    pub step: Step,
    /// Lowest rule number in the tree.
    pub first: u32,
}

pub struct Forest<A: Addr> {
    pub roots: Vec<Root>,
    pub slots: Vec<Step>,
    pub blocks: Vec<A::Block>,
    pub shape: Shape,
}

impl<A: Addr> Forest<A> {
    pub fn memory(&self) -> usize {
        self.roots.capacity() * size_of::<Root>()
            + self.slots.capacity() * size_of::<Step>()
            + self.blocks.capacity() * size_of::<A::Block>()
    }
}

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

pub struct Builder<'a, A: Addr> {
    rules: &'a [Rule<A>],
    spans: Vec<[Span; MAX_DIMS]>,
    cutter: Cutter,
    slots: Vec<Step>,
    blocks: Vec<A::Block>,
    /// Leaves already made, by their rules.
    leaves: HashMap<Box<[u32]>, Step>,
    shape: Shape,
}

pub fn build<A: Addr>(rules: &[Rule<A>]) -> Forest<A> {
    let mut builder = Builder {
        rules,
        spans: rules.iter().map(spans).collect(),
        cutter: Cutter::new::<A>(),
        slots: Vec::new(),
        blocks: Vec::new(),
        leaves: HashMap::new(),
        shape: Shape::default(),
    };
    let all: Vec<u32> = (0..rules.len() as u32).filter(|&i| !builder.rule(i).is_unmatchable()).collect();
    let mut roots = Vec::new();
    for ids in [all] {
        let Some(&first) = ids.first() else { continue };
        let allowance = Allowance {
            room: ids.len() * ROOM_PER_RULE + ROOM_MIN,
            work: ids.len() as u64 * WORK_PER_RULE + WORK_MIN,
        };
        let step = builder.node(ids, &Cell::whole::<A>(), allowance, 0);
        roots.push(Root { step, first });
    }
    roots.sort_by_key(|r| r.first);
    let Builder { mut slots, mut blocks, mut shape, .. } = builder;
    slots.shrink_to_fit();
    blocks.shrink_to_fit();
    shape.trees = roots.len();
    shape.slots = slots.len();
    shape.blocks = blocks.len();
    Forest { roots, slots, blocks, shape }
}

impl<A: Addr> Builder<'_, A> {
    fn rule(&self, id: u32) -> &Rule<A> {
        &self.rules[id as usize]
    }

    fn node(&mut self, mut ids: Vec<u32>, cell: &Cell, allowance: Allowance, depth: usize) -> Step {
        self.drop_hidden(&mut ids, cell);
        if ids.len() <= LANES || depth == MAX_DEPTH {
            return self.leaf(&ids, depth);
        }
        let mut work = allowance.work;
        let hull = cell.hull();
        let Some(cut) = self.cutter.choose(&self.spans, &ids, cell, &hull, allowance.room, &mut work) else {
            return self.leaf(&ids, depth);
        };
        let children = self.distribute(&ids, cell, cut);
        let copies: usize = children.iter().map(Vec::len).sum();
        drop(ids);
        let left = Allowance { work, ..allowance };
        let table = self.slots.len();
        self.slots.resize(table + children.len(), Step::NOTHING);
        for (slot, list) in children.into_iter().enumerate() {
            let share = left.share(list.len(), copies);
            let inside = cell.child(cut, slot);
            self.slots[table + slot] = self.node(list, &inside, share, depth + 1);
        }
        Step::inner(table, cut.a, cut.b)
    }

    /// Removes rules that cannot answer in this cell because one earlier rule answers first.
    fn drop_hidden(&self, ids: &mut Vec<u32>, cell: &Cell) {
        let n = dims::<A>();
        let hull = cell.hull();
        // Two windows of one word can each touch a range that misses them together.
        ids.retain(|&id| self.spans[id as usize][..n].iter().zip(&hull).all(|(a, b)| a.meets(*b)));
        // Packets without ports are outside the reach of a rule that needs ports, though their
        // ports of 0 may be inside its ranges.
        let covers = |a: u32, b: &[Span; MAX_DIMS], b_needs_ports: bool| {
            (b_needs_ports || !self.rule(a).needs_ports())
                && self.spans[a as usize][..n].iter().zip(b).all(|(a, b)| a.covers(*b))
        };
        if let Some(at) = ids.iter().position(|&id| covers(id, &hull, false)) {
            ids.truncate(at + 1);
        }
        if ids.len() > HIDDEN_MAX {
            return;
        }
        let mut kept = 0;
        for i in 0..ids.len() {
            let id = ids[i];
            let mut inside = self.spans[id as usize];
            for d in 0..n {
                inside[d] = inside[d].clip(hull[d]);
            }
            let needs_ports = self.rule(id).needs_ports();
            if !ids[..kept].iter().any(|&earlier| covers(earlier, &inside, needs_ports)) {
                ids[kept] = id;
                kept += 1;
            }
        }
        ids.truncate(kept);
    }

    /// The rules of each child, in match order.
    fn distribute(&self, ids: &[u32], cell: &Cell, cut: Cut) -> Vec<Vec<u32>> {
        let hull = cell.hull();
        let mut children = vec![Vec::new(); cut.children()];
        for &id in ids {
            let spans = &self.spans[id as usize];
            let clipped = |dim: u8| spans[usize::from(dim)].clip(hull[usize::from(dim)]);
            cut.touched(clipped(cut.a.dim), clipped(cut.b.dim), |slot| children[slot].push(id));
        }
        children
    }

    fn leaf(&mut self, ids: &[u32], depth: usize) -> Step {
        if ids.is_empty() {
            return Step::NOTHING;
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
        let step = Step::leaf(first, count);
        self.leaves.insert(ids.into(), step);
        step
    }
}
