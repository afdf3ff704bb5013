//! Grace periods: when a removed session may be reused.

use super::worker::Shared;
use sag_pipeline::table::Grace;
use std::sync::atomic::Ordering;

/// Runs one grace period after the other, never waiting.
#[derive(Debug, Default)]
pub struct GraceKeeper {
    /// Rounds of each worker when the current period began.
    began: Option<Vec<u64>>,
}

impl GraceKeeper {
    /// Looks whether all workers have passed a round since the period began; ends it and begins the
    /// next.
    pub fn step<'w>(&mut self, grace: &Grace, workers: impl Iterator<Item = &'w Shared> + Clone) {
        match &self.began {
            None => {
                grace.started.fetch_add(1, Ordering::SeqCst);
                self.began = Some(workers.map(|w| w.rounds.load(Ordering::SeqCst)).collect());
            }
            Some(began) => {
                let passed = workers.zip(began).all(|(w, then)| {
                    w.asleep.load(Ordering::SeqCst) || w.rounds.load(Ordering::SeqCst) != *then
                });
                if !passed {
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
