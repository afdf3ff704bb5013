//! Grace periods: when a removed session may be reused.

use super::worker::Shared;
use sag_pipeline::table::Grace;
use std::sync::atomic::Ordering;

/// Runs grace periods: one after the other while sessions are removed.
#[derive(Debug, Default)]
pub struct GracePeriods {
    /// Rounds of each worker when the current period began.
    began: Option<Vec<u64>>,
    /// The same of the period that waits for workers alone.
    workers_began: Option<Vec<u64>>,
}

fn rounds<'w>(workers: impl Iterator<Item = &'w Shared>) -> Vec<u64> {
    workers.map(|w| w.rounds.load(Ordering::SeqCst)).collect()
}

/// Whether every worker has begun another round since, or sleeps: it holds no reference from before.
fn passed<'w>(workers: impl Iterator<Item = &'w Shared>, began: &[u64]) -> bool {
    workers
        .zip(began)
        .all(|(w, then)| w.asleep.load(Ordering::SeqCst) || w.rounds.load(Ordering::SeqCst) != *then)
}

impl GracePeriods {
    /// Moves on the periods that wait for workers alone. Makes no system call.
    pub fn step_workers<'w>(&mut self, grace: &Grace, workers: impl Iterator<Item = &'w Shared> + Clone) {
        if self.workers_began.as_ref().is_some_and(|began| passed(workers.clone(), began)) {
            grace.workers_done.store(grace.workers_started.load(Ordering::SeqCst), Ordering::SeqCst);
            self.workers_began = None;
        }
        if self.workers_began.is_none() {
            grace.workers_started.fetch_add(1, Ordering::SeqCst);
            self.workers_began = Some(rounds(workers));
        }
    }

    /// Ends the period once all workers have passed a round and XDP has left its RCU sections, and begins the next one if
    /// sessions wait for it.
    pub fn step<'w>(&mut self, grace: &Grace, workers: impl Iterator<Item = &'w Shared> + Clone) {
        match &self.began {
            // Cleared before the period begins: sessions that are removed from now on request the next one.
            None if !grace.requested.swap(false, Ordering::SeqCst) => (),
            None => {
                grace.started.fetch_add(1, Ordering::SeqCst);
                self.began = Some(rounds(workers));
            }
            Some(began) => {
                if !passed(workers, began) {
                    return;
                }
                // XDP programs run in RCU read sections: one RCU grace period ends every one that
                // began before the removal.
                if let Err(error) = sag_xsk::sys::rcu_barrier() {
                    tracing::debug!(%error, "no membarrier: removed sessions wait for the next try");
                    return;
                }
                grace.done.store(grace.started.load(Ordering::SeqCst), Ordering::SeqCst);
                self.began = None;
            }
        }
    }
}
