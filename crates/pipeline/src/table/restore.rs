//! Taking over a table that an earlier daemon left in shared memory.

use super::index::number;
use super::{CONFIRMED, FlowTable};
use sag_model::flow::{Bucket, FlowRecord, RecordNo};
use std::collections::HashMap;
use std::sync::atomic::Ordering;

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions that go on.
    pub sessions: u32,
    /// Index words of half-made or damaged sessions, taken out.
    pub discarded: u32,
}

impl<R: FlowRecord> FlowTable<R> {
    /// Rebuilds the daemon's side from records and index. To be called before any worker runs; the
    /// XDP program may be forwarding by the table meanwhile. `word` gives the state word of a session
    /// from its two records; `None`: it ends.
    pub fn restore(&self, tick: u32, word: impl Fn(&R, &R) -> Option<u32>) -> Restored {
        let mut out = Restored::default();
        self.clear_other_indexes();
        let index = self.index();
        let mut directions: HashMap<u32, u8> = HashMap::new();
        for b in index.all() {
            for w in &b.word {
                let no = number(w.load(Ordering::Relaxed));
                if no.0 != 0 && no.session() <= self.mem.sessions && no.session() != 0 {
                    *directions.entry(no.session()).or_default() |= 1 << no.direction();
                }
            }
        }
        let of = |session: u32| {
            let [forward, reverse] = RecordNo::both(session).map(|no| self.record(no));
            word(forward, reverse)
        };
        directions.retain(|_, both| *both == 0b11);
        let words: HashMap<u32, u32> = directions.keys().filter_map(|s| Some((*s, of(*s)?))).collect();
        for b in index.all() {
            for w in &b.word {
                let word = w.load(Ordering::Relaxed);
                if word != 0 && !words.contains_key(&number(word).session()) {
                    w.store(0, Ordering::Relaxed);
                    out.discarded += 1;
                }
            }
        }
        let mut highest = 0;
        for (&session, &word) in &words {
            let meta = self.meta(session);
            meta.created.store(tick, Ordering::Relaxed);
            meta.link.store(CONFIRMED, Ordering::Relaxed);
            meta.state.store(word, Ordering::Release);
            highest = highest.max(session);
            out.sessions += 1;
        }
        // Numbers between live sessions are free; the lowest are taken first.
        let mut head = 0u32;
        for session in (1..=highest).rev().filter(|s| !words.contains_key(s)) {
            self.meta(session).link.store(head, Ordering::Relaxed);
            head = session;
        }
        self.free.store(u64::from(head), Ordering::Release);
        self.fresh.store(highest + 1, Ordering::Release);
        self.sessions.store(out.sessions, Ordering::Release);
        out
    }

    /// Forgets every session that an earlier daemon left. To be called before any worker runs.
    pub fn clear(&self) {
        self.index().all().iter().for_each(empty);
        self.clear_other_indexes();
    }

    /// What a predecessor left that was about to change to another index, or had just done so.
    fn clear_other_indexes(&self) {
        let live = self.geometry();
        let (before, rest) = self.mem.buckets.split_at(live.base as usize);
        before.iter().chain(&rest[live.buckets() as usize..]).for_each(empty);
    }
}

/// Writes only where something is: an index that was never used stays without memory of its own.
pub(super) fn empty(b: &Bucket) {
    for w in b.word.iter().filter(|w| w.load(Ordering::Relaxed) != 0) {
        w.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{DeferredFree, Grace, NotCreated, State, TableMemory};
    use sag_model::flow::{FlowRecord4, Key4};

    fn keys(n: u64) -> (Key4, Key4) {
        let l4 = |zone: u64| 17 << 32 | zone << 40;
        (Key4 { addrs: n | 99 << 32, l4: l4(1) }, Key4 { addrs: 99 | n << 32, l4: l4(2) })
    }

    #[test]
    fn a_successor_finds_the_sessions_and_reuses_the_gaps() {
        let mem = TableMemory::<FlowRecord4>::private(50);
        let open = || FlowTable::new(mem, 7, mem.whole(), Grace::immediate());
        let mut q = DeferredFree::default();
        let make = |t: &FlowTable<FlowRecord4>, q: &mut DeferredFree, n| {
            let (a, b) = keys(n);
            t.create(&a, &b, q, |_, _, m| m.state.store(State::Udp as u32, Ordering::Release))
        };
        let old = open();
        let made: Vec<_> = (1..=30).map(|n| make(&old, &mut q, n).unwrap()).collect();
        for no in made.iter().step_by(3) {
            old.remove(no.session(), &mut q);
        }
        // A worker died between its two index words.
        let half = make(&old, &mut q, 1000).unwrap();
        let (_, reverse) = keys(1000);
        old.withdraw(&reverse, half.peer());

        let new = open();
        let got = new.restore(5, |_, _| Some(State::Udp as u32));
        assert_eq!(got, Restored { sessions: 20, discarded: 1 });
        assert_eq!(new.live(), 20);
        let mut q = DeferredFree::default();
        for n in 1..=30u64 {
            let (a, b) = keys(n);
            let discarded = (n - 1) % 3 == 0;
            assert_eq!(new.find(&a, new.hash(&a)).is_none(), discarded);
            assert_eq!(new.find(&b, new.hash(&b)).is_none(), discarded);
        }
        let more = (2000..).take_while(|&n| make(&new, &mut q, n) != Err(NotCreated::Full)).count();
        assert_eq!(more, 30, "every number that was free is used again");
    }
}
