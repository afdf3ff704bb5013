//! How sessions are given out and come back: a free list, and the rest that a removed session takes
//! until nobody can still be reading it.

use super::{FlowTable, prefetch};
use sag_model::flow::{FlowRecord, RecordNo};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Lets removed sessions be reused only when nobody can still be reading them. The control thread
/// counts `started` up, waits for workers and XDP to pass, and sets `done` to it.
#[derive(Debug, Default)]
pub struct Grace {
    /// Number of the last period that began.
    pub started: AtomicU64,
    /// Number of the last period that is over.
    pub done: AtomicU64,
    /// `started` and `done` of periods that wait for the workers alone, which are much shorter.
    pub workers_started: AtomicU64,
    /// See [`Grace::workers_started`].
    pub workers_done: AtomicU64,
    /// Something rests since the last period began: there is a reason for another one.
    pub requested: AtomicBool,
}

impl Grace {
    /// For shells with one reader: nothing needs to wait.
    pub fn immediate() -> Arc<Grace> {
        let never = || AtomicU64::new(u64::MAX);
        Arc::new(Grace { done: never(), workers_done: never(), ..Grace::default() })
    }
}

/// Removed sessions of one worker, chained through `SessionMeta::link`.
#[derive(Debug)]
pub struct DeferredFree {
    chains: VecDeque<Chain>,
}

#[derive(Debug)]
struct Chain {
    /// May be reused when this grace period is done.
    after: u64,
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for DeferredFree {
    fn default() -> Self {
        DeferredFree { chains: VecDeque::with_capacity(8) }
    }
}

impl<R: FlowRecord> FlowTable<R> {
    /// A free session: reused if one is, else the next never used.
    pub(super) fn allocate(&self, deferred: &mut DeferredFree) -> Option<u32> {
        self.release(deferred);
        let mut head = self.free.load(Ordering::Acquire);
        while head as u32 != 0 {
            let next = self.meta(head as u32).link.load(Ordering::Relaxed);
            let new = ((head >> 32).wrapping_add(1)) << 32 | u64::from(next);
            match self.free.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.prefetch_session(next);
                    return Some(head as u32);
                }
                Err(now) => head = now,
            }
        }
        let limit = self.meta.len() as u32;
        let fresh =
            self.fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        fresh.inspect(|n| self.prefetch_session(n + 1)).ok()
    }

    /// This session comes next: brings what is written at its birth into the cache.
    fn prefetch_session(&self, session: u32) {
        prefetch(self.meta(session));
        for no in RecordNo::both(session) {
            self.prefetch_record(no);
        }
    }

    pub(super) fn retire(&self, session: u32, deferred: &mut DeferredFree) {
        // The end of a chain, and no longer confirmed.
        self.meta(session).link.store(0, Ordering::Release);
        self.resting.fetch_add(1, Ordering::Relaxed);
        let after = self.grace.started.load(Ordering::SeqCst) + 1;
        let full = deferred.chains.len() == deferred.chains.capacity();
        match deferred.chains.back_mut() {
            Some(c) if c.after == after || full => {
                self.meta(c.tail).link.store(session, Ordering::Relaxed);
                c.tail = session;
                c.after = after;
                c.len += 1;
            }
            _ => deferred.chains.push_back(Chain { after, head: session, tail: session, len: 1 }),
        }
        if !self.grace.requested.load(Ordering::Relaxed) {
            self.grace.requested.store(true, Ordering::SeqCst);
        }
    }

    /// Gives what has rested long enough back to the free list.
    pub fn release(&self, deferred: &mut DeferredFree) {
        let done = self.grace.done.load(Ordering::Acquire);
        while deferred.chains.front().is_some_and(|c| c.after <= done) {
            let Some(chain) = deferred.chains.pop_front() else { return };
            let mut head = self.free.load(Ordering::Acquire);
            loop {
                self.meta(chain.tail).link.store(head as u32, Ordering::Relaxed);
                let new = ((head >> 32).wrapping_add(1)) << 32 | u64::from(chain.head);
                match self.free.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(now) => head = now,
                }
            }
            self.resting.fetch_sub(chain.len, Ordering::Relaxed);
        }
    }
}
