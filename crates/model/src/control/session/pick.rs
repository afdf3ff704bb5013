//! Picks the first few of very many sessions, in order, in one pass and bounded memory.

use super::{SessionFacts, SessionFilter, SessionQuery, SessionSort};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Offer every session of the table with a token to find it again; [`Picker::finish`] gives back
/// the tokens to list, in order, and how many the filter admitted.
#[derive(Debug)]
pub struct Picker<'q, T> {
    filter: &'q SessionFilter,
    sort: SessionSort,
    wanted: usize,
    total: u64,
    // The least of the kept ones is on top, ready to give way. Tokens break ties, so that the
    // answer does not depend on the heap's inner order.
    kept: BinaryHeap<Reverse<(u64, Reverse<T>)>>,
}

impl<'q, T: Copy + Ord> Picker<'q, T> {
    pub fn new(query: &'q SessionQuery) -> Picker<'q, T> {
        Picker {
            filter: &query.filter,
            sort: query.sort,
            wanted: query.wanted(),
            total: 0,
            kept: BinaryHeap::new(),
        }
    }

    pub fn offer(&mut self, s: &SessionFacts<'_>, token: T) {
        if !self.filter.matches(s) {
            return;
        }
        self.total += 1;
        let rank = match self.sort {
            SessionSort::Bytes => s.bytes.saturating_add(s.reply_bytes),
            SessionSort::Packets => s.packets.saturating_add(s.reply_packets),
            SessionSort::Idle => s.idle_s,
        };
        let entry = Reverse((rank, Reverse(token)));
        if self.kept.len() < self.wanted {
            self.kept.push(entry);
        } else if let Some(mut least) = self.kept.peek_mut()
            && entry < *least
        {
            *least = entry;
        }
    }

    pub fn finish(self) -> (Vec<T>, u64) {
        let tokens = self.kept.into_sorted_vec().into_iter().map(|Reverse((_, Reverse(t)))| t).collect();
        (tokens, self.total)
    }
}
