//! Longest-prefix match: a trie of 16 bits, then 8 bits a step. A lookup reads one slot per level
//! and keeps the last route seen, so its cost is the prefix length, not the number of routes.

use std::fmt::Debug;

/// An address family's address as a number.
pub trait FibAddr: Copy + Ord + Debug {
    /// Bits of an address.
    const BITS: u32;
    /// `count` bits (at most 16) starting `at` bits from the top.
    fn bits(self, at: u32, count: u32) -> usize;
}

impl FibAddr for u32 {
    const BITS: u32 = 32;
    #[inline]
    fn bits(self, at: u32, count: u32) -> usize {
        ((self << at) >> (32 - count)) as usize
    }
}

impl FibAddr for u128 {
    const BITS: u32 = 128;
    #[inline]
    fn bits(self, at: u32, count: u32) -> usize {
        ((self << at) >> (128 - count)) as usize
    }
}

const ROOT_BITS: u32 = 16;
const STEP_BITS: u32 = 8;
const NONE: u32 = u32::MAX;

/// Route of the prefix that ends here, if any, and the node for longer prefixes.
#[derive(Debug, Clone, Copy)]
struct FibEntry {
    route: u32,
    child: u32,
}

const EMPTY: FibEntry = FibEntry { route: NONE, child: NONE };

/// Maps prefixes to route numbers.
#[derive(Debug, Clone)]
pub struct Fib<A> {
    root: Box<[FibEntry]>,
    nodes: Vec<[FibEntry; 1 << STEP_BITS]>,
    default: u32,
    _family: std::marker::PhantomData<A>,
}

impl<A: FibAddr> Fib<A> {
    /// Builds from `(address, prefix length, route)`; the last of equal prefixes wins.
    pub fn build(routes: impl IntoIterator<Item = (A, u8, u32)>) -> Fib<A> {
        let mut routes: Vec<_> = routes.into_iter().collect();
        // Shorter prefixes first: a longer one overwrites the slots that it shares with them.
        routes.sort_by_key(|&(_, len, _)| len);
        let mut fib = Fib {
            root: vec![EMPTY; 1 << ROOT_BITS].into_boxed_slice(),
            nodes: Vec::new(),
            default: NONE,
            _family: std::marker::PhantomData,
        };
        for (addr, len, route) in routes {
            fib.insert(addr, u32::from(len).min(A::BITS), route);
        }
        fib
    }

    fn insert(&mut self, addr: A, len: u32, route: u32) {
        if len == 0 {
            self.default = route;
            return;
        }
        let (mut at, mut width) = (0, ROOT_BITS);
        let mut node: Option<usize> = None;
        loop {
            let index = addr.bits(at, width);
            if len <= at + width {
                // The prefix ends in this node: it owns a run of slots.
                let run = 1usize << (at + width - len);
                let first = index & !(run - 1);
                for slot in &mut self.slots(node)[first..first + run] {
                    slot.route = route;
                }
                return;
            }
            let child = match self.slots(node)[index].child {
                NONE => {
                    let new = self.nodes.len();
                    self.nodes.push([EMPTY; 1 << STEP_BITS]);
                    self.slots(node)[index].child = new as u32;
                    new
                }
                c => c as usize,
            };
            node = Some(child);
            at += width;
            width = STEP_BITS;
        }
    }

    fn slots(&mut self, node: Option<usize>) -> &mut [FibEntry] {
        match node {
            None => &mut self.root,
            Some(n) => &mut self.nodes[n],
        }
    }

    /// The route of the longest prefix that holds `addr`.
    #[inline]
    pub fn lookup(&self, addr: A) -> Option<u32> {
        let mut slot = self.root[addr.bits(0, ROOT_BITS)];
        let mut best = if slot.route == NONE { self.default } else { slot.route };
        let mut at = ROOT_BITS;
        while slot.child != NONE && at < A::BITS {
            slot = self.nodes[slot.child as usize][addr.bits(at, STEP_BITS)];
            if slot.route != NONE {
                best = slot.route;
            }
            at += STEP_BITS;
        }
        if best == NONE { None } else { Some(best) }
    }

    /// The route of the prefix of length zero.
    pub fn default_route(&self) -> Option<u32> {
        if self.default == NONE { None } else { Some(self.default) }
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        size_of_val(&*self.root) + self.nodes.capacity() * size_of::<[FibEntry; 1 << STEP_BITS]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mask32(len: u8) -> u32 {
        if len == 0 { 0 } else { u32::MAX << (32 - len) }
    }

    fn mask128(len: u8) -> u128 {
        if len == 0 { 0 } else { u128::MAX << (128 - len) }
    }

    #[test]
    fn default_and_host_routes() {
        let f = Fib::build([(0u32, 0, 1), (0x0a00_0000, 8, 2), (0x0a01_0203, 32, 3), (0x0a01_0200, 24, 4)]);
        assert_eq!(f.lookup(0x0b00_0000), Some(1));
        assert_eq!(f.lookup(0x0a02_0000), Some(2));
        assert_eq!(f.lookup(0x0a01_0203), Some(3));
        assert_eq!(f.lookup(0x0a01_0204), Some(4));
        assert_eq!(Fib::<u32>::build([]).lookup(7), None);
    }

    proptest! {
        #[test]
        fn equals_a_linear_scan_v4(routes in prop::collection::vec((any::<u32>(), 0u8..=32), 0..60), probes in prop::collection::vec(any::<u32>(), 20)) {
            let routes: Vec<_> = routes.iter().enumerate().map(|(i, &(a, l))| (a & mask32(l), l, i as u32)).collect();
            let f = Fib::build(routes.iter().copied());
            let near = routes.iter().map(|r| r.0 | (!mask32(r.1) & 0x0101_0101));
            for a in probes.into_iter().chain(near) {
                let want = routes.iter().filter(|r| a & mask32(r.1) == r.0).max_by_key(|r| (r.1, r.2)).map(|r| r.2);
                prop_assert_eq!(f.lookup(a), want);
            }
        }

        #[test]
        fn equals_a_linear_scan_v6(routes in prop::collection::vec((any::<u128>(), 0u8..=128), 0..40), probes in prop::collection::vec(any::<u128>(), 20)) {
            let routes: Vec<_> = routes.iter().enumerate().map(|(i, &(a, l))| (a & mask128(l), l, i as u32)).collect();
            let f = Fib::build(routes.iter().copied());
            let near = routes.iter().map(|r| r.0 | (!mask128(r.1) & 0x1_0001));
            for a in probes.into_iter().chain(near) {
                let want = routes.iter().filter(|r| a & mask128(r.1) == r.0).max_by_key(|r| (r.1, r.2)).map(|r| r.2);
                prop_assert_eq!(f.lookup(a), want);
            }
        }
    }
}
