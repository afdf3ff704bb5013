//! An index that is as large as the live sessions want it: a larger or smaller one takes over while
//! workers and XDP go on. Driven by one thread (the daemon's control thread), a step at a time.
//!
//! 1. From now on workers write every session into both indexes. Wait until all of them know.
//! 2. Copy the sessions that only the old one has.
//! 3. Switch: readers look in the new one. Wait until nobody looks in the old one.
//! 4. Workers write into the new one alone. Wait until all of them know.
//! 5. Empty the old one.
//!
//! "Wait" is until every worker has begun another round ([`Grace::workers_done`](super::Grace)). Nothing waits for
//! XDP: a program that still looks in the old index finds records that rest or nothing, and what it does not
//! find is a worker's, which looks in the new one. So a larger index is there before a flood of new sessions
//! has filled the old one; [`FlowTable::rings`] says when it is high time.

use super::restore::empty;
use super::{FlowTable, Index, TableMemory, index_buckets};
use sag_model::flow::{BUCKET_WORDS, FlowRecord, Geometry, RecordNo};
use std::sync::atomic::Ordering;

/// Buckets of the smallest index: 256 KiB. Between the mark at which a larger one is made and the first
/// bucket that overflows is room for 13,000 sessions, which is more than come before it is there.
const SMALLEST: u32 = 4096;
/// Sessions that one step copies: some milliseconds, in which a worker on the same processor may have to wait.
const SESSIONS: u32 = 1 << 13;
/// Buckets that one step empties.
const BUCKETS: u32 = 1 << 16;
/// Steps without much change after which the index may become smaller: two seconds of the daemon's.
const CALM: u32 = 40;

/// Changes the size of a table's index step by step, while packets pass.
#[derive(Debug, Default)]
pub struct Resizer {
    phase: Phase,
    /// Sessions when there was much change, and steps since.
    mark: u32,
    calm: u32,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Announced {
        to: Geometry,
        period: u64,
    },
    Copying {
        to: Geometry,
        next: u32,
    },
    /// Workers write into both still; `out` is the one that nobody will look in.
    Leaving {
        out: Geometry,
        period: u64,
    },
    Left {
        out: Geometry,
        period: u64,
    },
    Emptying {
        out: Geometry,
        next: u32,
    },
}

impl<R: FlowRecord> TableMemory<R> {
    /// Whether an index of this geometry, which an earlier daemon may have left, can be used.
    pub fn has_room_for(&self, g: Geometry) -> bool {
        g.buckets().is_power_of_two()
            && g.base == g.buckets()
            && g.buckets() >= self.smallest().buckets()
            && g.buckets() <= self.largest()
    }

    /// The index that a table begins with.
    pub fn smallest(&self) -> Geometry {
        Geometry::sized(SMALLEST.min(self.largest()))
    }

    /// Buckets of the index for as many sessions as there are records.
    fn largest(&self) -> u32 {
        let room = (self.buckets.len() / 2).max(1) as u32;
        index_buckets(self.sessions).min(1 << room.ilog2())
    }
}

impl Resizer {
    /// Nothing is under way.
    pub fn idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Begins the change to an index of this geometry, whatever the sessions want. Nothing is under way.
    pub fn begin<R: FlowRecord>(&mut self, t: &FlowTable<R>, to: Geometry) {
        t.written[1].store(to.to_word(), Ordering::SeqCst);
        self.phase = Phase::Announced { to, period: t.grace.workers_started.load(Ordering::SeqCst) + 1 };
    }

    /// Whether the number of sessions has been much the same for a while.
    fn is_calm<R: FlowRecord>(&mut self, t: &FlowTable<R>) -> bool {
        let now = t.occupied();
        if u64::from(now.abs_diff(self.mark)) * 64 > t.geometry().words() {
            (self.mark, self.calm) = (now, 0);
        } else {
            self.calm = self.calm.saturating_add(1);
        }
        self.calm >= CALM
    }

    /// Starts a change of size if one is due, or brings the change on. `switch` tells XDP where to look.
    pub fn step<R: FlowRecord>(&mut self, t: &FlowTable<R>, switch: impl FnOnce(Geometry)) {
        let passed = |period: u64| t.grace.workers_done.load(Ordering::SeqCst) >= period;
        let next_round = || t.grace.workers_started.load(Ordering::SeqCst) + 1;
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Idle => {
                t.alarm.store(t.crowd(), Ordering::Relaxed);
                let calm = self.is_calm(t);
                if let Some(to) = t.wanted(calm) {
                    self.begin(t, to);
                }
                return;
            }
            Phase::Announced { to, period } if passed(period) => Phase::Copying { to, next: 1 },
            Phase::Copying { to, next } => {
                let end = t.used().min(next.saturating_add(SESSIONS));
                let fits = (next..end).all(|session| t.copy(session, to));
                if !fits {
                    // Back to the old one.
                    Phase::Leaving { out: to, period: 0 }
                } else if end < t.used() {
                    Phase::Copying { to, next: end }
                } else {
                    let out = t.geometry();
                    t.live.store(to.to_word(), Ordering::SeqCst);
                    switch(to);
                    Phase::Leaving { out, period: next_round() }
                }
            }
            Phase::Leaving { out, period } if passed(period) => {
                t.written[0].store(t.live.load(Ordering::SeqCst), Ordering::SeqCst);
                t.written[1].store(0, Ordering::SeqCst);
                Phase::Left { out, period: next_round() }
            }
            Phase::Left { out, period } if passed(period) => Phase::Emptying { out, next: 0 },
            Phase::Emptying { out, next } => {
                let all = Index::new(t.mem.buckets, out).all();
                let end = all.len().min((next + BUCKETS) as usize);
                all[next as usize..end].iter().for_each(empty);
                if end < all.len() { Phase::Emptying { out, next: end as u32 } } else { Phase::Idle }
            }
            waiting => waiting,
        };
    }
}

impl<R: FlowRecord> FlowTable<R> {
    /// Sessions from which on a larger index is made, if there is one: half of the words are used.
    pub(super) fn crowd(&self) -> u32 {
        match self.geometry() {
            g if g.buckets() < self.mem.largest() => (g.words() / 4).min(u64::from(u32::MAX)) as u32,
            _ => u32::MAX,
        }
    }

    /// True once when there are so many sessions that a larger index should be made at once. For workers,
    /// who wake the thread that makes it.
    #[inline]
    pub fn rings(&self) -> bool {
        self.occupied() >= self.alarm.load(Ordering::Relaxed)
            && self.alarm.swap(u32::MAX, Ordering::Relaxed) != u32::MAX
    }

    /// The index that the live sessions want, if it is another one. A larger one has an eighth of its words
    /// used: in a flood one change is better than two. When all is calm it becomes smaller, with two fifths
    /// at most, so that more of it stays in the cache.
    fn wanted(&self, calm: bool) -> Option<Geometry> {
        let used = u64::from(self.occupied()) * 2;
        let now = self.geometry().buckets();
        let fitting = |words: u64| {
            let n = words.div_ceil(BUCKET_WORDS as u64).next_power_of_two();
            n.min(u64::from(self.mem.largest())).max(u64::from(self.mem.smallest().buckets())) as u32
        };
        let to = match calm {
            _ if self.occupied() >= self.crowd() => fitting(used * 8),
            true => fitting(used * 5 / 2).min(now),
            false => now,
        };
        (to != now).then(|| Geometry::sized(to))
    }

    /// Sees to it that a session is in the index `to`, if it is in the table. False: there is no room.
    fn copy(&self, session: u32, to: Geometry) -> bool {
        let index = Index::new(self.mem.buckets, to);
        let meta = self.meta(session);
        let alive = || meta.is_confirmed() && meta.state.load(Ordering::SeqCst) != 0;
        if !alive() {
            // One in the making is written into both by its worker.
            return true;
        }
        let both = RecordNo::both(session).map(|no| (no, self.hash(&self.record(no).key())));
        for (no, hash) in both.into_iter().filter(|(no, _)| no.direction() == 0 || !self.is_denied(*no)) {
            let p = index.probe(hash);
            if index.find(&p, |found| found == no).is_none() && !index.place(&p, no) {
                return false;
            }
        }
        // Removed meanwhile: its worker may have been here before the words were. The number is not
        // used again before the next grace period, which this thread does not end meanwhile.
        if !alive() {
            both.into_iter().for_each(|(no, hash)| index.withdraw(&index.probe(hash), no));
        }
        true
    }
}

#[cfg(test)]
mod tests;
