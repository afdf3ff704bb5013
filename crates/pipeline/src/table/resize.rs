//! An index that is as large as the live sessions want it: a larger or smaller one takes over while
//! workers and XDP go on. Driven by one thread (the daemon's control thread), a step at a time.
//!
//! 1. From now on workers write every session into both indexes. Wait until all of them know.
//! 2. Copy the sessions that only the old one has.
//! 3. Switch: readers look in the new one. Wait until nobody looks in the old one.
//! 4. Workers write into the new one alone. Wait until all of them know.
//! 5. Empty the old one.
//!
//! "Wait" is a grace period ([`Grace`](super::Grace)): every worker has begun another round, and every
//! XDP program that ran has ended.

use super::restore::empty;
use super::{FlowTable, Index, TableMemory, index_buckets};
use crate::session;
use sag_model::flow::{BUCKET_WORDS, FlowRecord, Geometry, RecordNo};
use std::sync::atomic::Ordering;

/// Buckets of the smallest index: 1 MiB. Between the mark at which a larger one is wanted and the first
/// bucket that overflows is room for 69,000 sessions, which is more than come before it is there.
const SMALLEST: u32 = 16384;
/// Sessions, or buckets, that one step takes.
const STEP: u32 = 1 << 16;

#[derive(Debug, Default)]
pub struct Resizer {
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    Announced {
        to: Geometry,
        grace: u64,
    },
    Copying {
        to: Geometry,
        next: u32,
    },
    /// Workers write into both still; `out` is the one that nobody will look in.
    Leaving {
        out: Geometry,
        grace: u64,
    },
    Left {
        out: Geometry,
        grace: u64,
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
        self.phase = Phase::Announced { to, grace: t.grace.started.load(Ordering::SeqCst) + 1 };
    }

    /// Looks whether another size is wanted, or brings the change on. `switch` tells XDP where to look.
    pub fn step<R: FlowRecord>(&mut self, t: &FlowTable<R>, switch: impl FnOnce(Geometry)) {
        let passed = |grace: u64| t.grace.done.load(Ordering::SeqCst) >= grace;
        let next_grace = || t.grace.started.load(Ordering::SeqCst) + 1;
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Idle => {
                if let Some(to) = t.wanted() {
                    self.begin(t, to);
                }
                return;
            }
            Phase::Announced { to, grace } if passed(grace) => Phase::Copying { to, next: 1 },
            Phase::Copying { to, next } => {
                let end = t.used().min(next.saturating_add(STEP));
                let fits = (next..end).all(|session| t.copy(session, to));
                if !fits {
                    // Back to the old one.
                    Phase::Leaving { out: to, grace: 0 }
                } else if end < t.used() {
                    Phase::Copying { to, next: end }
                } else {
                    let out = t.geometry();
                    t.live.store(to.to_word(), Ordering::SeqCst);
                    switch(to);
                    Phase::Leaving { out, grace: next_grace() }
                }
            }
            Phase::Leaving { out, grace } if passed(grace) => {
                t.written[0].store(t.live.load(Ordering::SeqCst), Ordering::SeqCst);
                t.written[1].store(0, Ordering::SeqCst);
                Phase::Left { out, grace: next_grace() }
            }
            Phase::Left { out, grace } if passed(grace) => Phase::Emptying { out, next: 0 },
            Phase::Emptying { out, next } => {
                let all = Index::new(t.mem.buckets, out).all();
                let end = all.len().min((next + STEP) as usize);
                all[next as usize..end].iter().for_each(empty);
                if end < all.len() { Phase::Emptying { out, next: end as u32 } } else { Phase::Idle }
            }
            waiting => waiting,
        };
    }
}

impl<R: FlowRecord> FlowTable<R> {
    /// The index that the live sessions want, if it is another one: a quarter of its words used. Not
    /// before three eighths are, or not one in fifty is.
    fn wanted(&self) -> Option<Geometry> {
        let used = u64::from(self.occupied()) * 2;
        let words = |buckets: u32| u64::from(buckets) * BUCKET_WORDS as u64;
        let now = self.geometry().buckets();
        let crowded = used * 8 > words(now) * 3;
        let deserted = used * 50 < words(now);
        if !crowded && !deserted {
            return None;
        }
        let (least, most) = (self.mem.smallest().buckets(), self.mem.largest());
        let fitting = (used * 4 / BUCKET_WORDS as u64).next_power_of_two().min(u64::from(most)) as u32;
        let to = fitting.max(least);
        (if crowded { to > now } else { to < now }).then(|| Geometry::sized(to))
    }

    /// Sees to it that a session is in the index `to`, if it is in the table. False: there is no room.
    fn copy(&self, session: u32, to: Geometry) -> bool {
        let index = Index::new(self.mem.buckets, to);
        let meta = self.meta(session);
        let alive = || meta.confirmed.load(Ordering::SeqCst) != 0 && meta.state.load(Ordering::SeqCst) != 0;
        if !alive() {
            // One in the making is written into both by its worker.
            return true;
        }
        let both = RecordNo::both(session).map(|no| (no, self.hash(&self.record(no).key())));
        for (no, hash) in both.into_iter().filter(|(no, _)| no.way() == 0 || !session::denied(self, *no)) {
            let p = index.probe(hash);
            if index.find(&p, |found| found == no).is_none() && !index.place(&p, no) {
                return false;
            }
        }
        // Removed meanwhile: its worker may have been here before the words were. The number is not
        // used anew before the next grace period, which this thread does not end meanwhile.
        if !alive() {
            both.into_iter().for_each(|(no, hash)| index.withdraw(&index.probe(hash), no));
        }
        true
    }
}

#[cfg(test)]
mod tests;
