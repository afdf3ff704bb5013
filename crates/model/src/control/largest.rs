//! The largest few of very many, in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub(super) struct Largest<T> {
    wanted: usize,
    total: u64,
    // The least of the kept ones is on top, ready to give way. Items break ties, so that the
    // answer does not depend on the heap's inner order.
    kept: BinaryHeap<Reverse<(u64, Reverse<T>)>>,
}

impl<T: Ord> Largest<T> {
    pub(super) fn new(wanted: usize) -> Largest<T> {
        Largest { wanted, total: 0, kept: BinaryHeap::new() }
    }

    pub(super) fn offer(&mut self, rank: u64, item: T) {
        self.total += 1;
        let entry = Reverse((rank, Reverse(item)));
        if self.kept.len() < self.wanted {
            self.kept.push(entry);
        } else if let Some(mut least) = self.kept.peek_mut()
            && entry < *least
        {
            *least = entry;
        }
    }

    /// The kept ones, largest first and equals in their own order, and how many were offered.
    pub(super) fn finish(self) -> (Vec<T>, u64) {
        let items = self.kept.into_sorted_vec().into_iter().map(|Reverse((_, Reverse(t)))| t).collect();
        (items, self.total)
    }
}
