//! Finding the rules that may overlap a rule, without looking at all of them.
//!
//! Prefixes overlap only if one holds the other. So by one address, the candidates are the rules of
//! its shorter prefixes, found by hash, and those of its longer ones, which are neighbours in order.
//! Of the two addresses, the one with fewer candidates is used.

use std::collections::{BTreeSet, HashMap};

use crate::addr::Addr;
use crate::rule::{Prefix, Rule};

pub struct Overlaps<A> {
    src: Index<A>,
    dst: Index<A>,
    by_both: HashMap<(Prefix<A>, Prefix<A>), Vec<u32>>,
    /// Pairs of prefix lengths that occur.
    lengths: BTreeSet<(u8, u8)>,
}

impl<A: Addr> Overlaps<A> {
    pub fn new<'a>(rules: impl Iterator<Item = &'a Rule<A>> + Clone) -> Self {
        let mut by_both: HashMap<_, Vec<u32>> = HashMap::new();
        for (id, rule) in rules.clone().enumerate() {
            by_both.entry((rule.src, rule.dst)).or_default().push(id as u32);
        }
        let lengths = by_both.keys().map(|(src, dst)| (src.prefix_len(), dst.prefix_len())).collect();
        let src = Index::new(rules.clone().map(|r| r.src));
        Overlaps { src, dst: Index::new(rules.map(|r| r.dst)), by_both, lengths }
    }

    /// Rules whose addresses hold those of `rule`, itself included, in no order.
    pub fn around(&self, rule: &Rule<A>) -> impl Iterator<Item = u32> {
        let (src, dst) = (rule.src, rule.dst);
        let shorter = move |&&(s, d): &&(u8, u8)| s <= src.prefix_len() && d <= dst.prefix_len();
        self.lengths
            .iter()
            .filter(shorter)
            .filter_map(move |&(s, d)| {
                let key = (Prefix::new(src.addr(), s).ok()?, Prefix::new(dst.addr(), d).ok()?);
                self.by_both.get(&key)
            })
            .flatten()
            .copied()
    }

    /// How many candidates [`Overlaps::of`] looks at.
    pub fn count(&self, rule: &Rule<A>) -> usize {
        self.src.count(&rule.src).min(self.dst.count(&rule.dst))
    }

    /// Candidates in match order: every rule that overlaps `rule`, itself included, and others.
    pub fn of(&self, rule: &Rule<A>) -> Vec<u32> {
        let mut ids = if self.src.count(&rule.src) < self.dst.count(&rule.dst) {
            self.src.of(&rule.src)
        } else {
            self.dst.of(&rule.dst)
        };
        ids.sort_unstable();
        ids
    }
}

struct Index<A> {
    by_prefix: HashMap<Prefix<A>, Vec<u32>>,
    /// By first address, then by length.
    in_order: Vec<(A, u8, u32)>,
}

impl<A: Addr> Index<A> {
    fn new(prefixes: impl Iterator<Item = Prefix<A>>) -> Self {
        let mut by_prefix: HashMap<_, Vec<u32>> = HashMap::new();
        let mut in_order = Vec::new();
        for (id, prefix) in prefixes.enumerate() {
            by_prefix.entry(prefix).or_default().push(id as u32);
            in_order.push((prefix.first(), prefix.prefix_len(), id as u32));
        }
        in_order.sort_unstable();
        Index { by_prefix, in_order }
    }

    /// Rules of `prefix` and of longer ones inside it, mixed with shorter ones that start there.
    fn inside(&self, prefix: &Prefix<A>) -> &[(A, u8, u32)] {
        let start = self.in_order.partition_point(|e| e.0 < prefix.first());
        let end = self.in_order.partition_point(|e| e.0 <= prefix.last());
        &self.in_order[start..end]
    }

    fn around(&self, prefix: &Prefix<A>) -> impl Iterator<Item = &Vec<u32>> {
        let prefix = *prefix;
        (0..prefix.prefix_len())
            .filter_map(move |len| self.by_prefix.get(&Prefix::new(prefix.addr(), len).ok()?))
    }

    fn count(&self, prefix: &Prefix<A>) -> usize {
        self.inside(prefix).len() + self.around(prefix).map(Vec::len).sum::<usize>()
    }

    fn of(&self, prefix: &Prefix<A>) -> Vec<u32> {
        let len = prefix.prefix_len();
        let inside = self.inside(prefix).iter().filter(|e| e.1 >= len).map(|e| e.2);
        inside.chain(self.around(prefix).flatten().copied()).collect()
    }
}
