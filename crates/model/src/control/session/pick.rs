//! Picks the first few of very many sessions, in order, in one pass and bounded memory.

use super::facts::SessionFacts;
use super::filter::SessionFilter;
use super::query::{SessionQuery, SessionSort};
use crate::control::largest::Largest;

/// Offer every session of the table with a token to find it again; [`Picker::finish`] gives back
/// the tokens to list, in order, and how many the filter admitted.
#[derive(Debug)]
pub struct Picker<'q, T> {
    filter: &'q SessionFilter,
    sort: SessionSort,
    kept: Largest<T>,
}

impl<'q, T: Copy + Ord> Picker<'q, T> {
    /// For one query.
    pub fn new(query: &'q SessionQuery) -> Picker<'q, T> {
        Picker { filter: &query.filter, sort: query.sort, kept: Largest::new(query.wanted()) }
    }

    /// Takes the session if it is selected; `token` is what the caller finds it by.
    pub fn offer(&mut self, s: &SessionFacts<'_>, token: T) {
        if !self.filter.matches(s) {
            return;
        }
        let rank = match self.sort {
            SessionSort::Bytes => s.bytes.saturating_add(s.reply_bytes),
            SessionSort::Packets => s.packets.saturating_add(s.reply_packets),
            SessionSort::Age => s.age_s,
            SessionSort::Idle => s.idle_s,
        };
        self.kept.offer(rank, token);
    }

    /// The tokens in the order of the query, and how many sessions the filter admits.
    pub fn finish(self) -> (Vec<T>, u64) {
        self.kept.finish()
    }
}
