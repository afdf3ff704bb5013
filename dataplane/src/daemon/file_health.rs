//! What is wrong with the files that the daemon writes, by their names: one line in the log when it begins and one when it
//! is over, a warning in `status` in between, and counters.

use sag_model::control::FileState;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by the threads that write and the one that reports.
#[derive(Debug, Clone, Default)]
pub struct FileHealth(Arc<Mutex<BTreeMap<&'static str, State>>>);

#[derive(Debug, Default)]
struct State {
    errors: u64,
    trouble: Option<String>,
}

impl FileHealth {
    fn states(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        // Plain counters: a thread that panicked has not left them half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file could not be written. `trouble`: which, why, and what becomes of what belongs into it.
    pub fn failed(&self, name: &'static str, trouble: String) {
        let mut states = self.states();
        let state = states.entry(name).or_default();
        state.errors += 1;
        if state.trouble.as_ref() != Some(&trouble) {
            tracing::error!(event = "file-failed", file = name, "{trouble}");
            state.trouble = Some(trouble);
        }
    }

    /// A file was written, or is not needed any more.
    pub fn works(&self, name: &'static str) {
        let over = self.states().get_mut(name).and_then(|s| s.trouble.take());
        if over.is_some() {
            tracing::info!(event = "file-written", file = name, "can be written again");
        }
    }

    /// Files that cannot be written, as warnings.
    pub fn warnings(&self) -> Vec<String> {
        self.states().values().filter_map(|s| s.trouble.clone()).collect()
    }

    /// For the metrics.
    pub fn rows(&self) -> Vec<FileState> {
        let row = |(name, s): (&&str, &State)| FileState {
            file: (*name).to_owned(),
            errors: s.errors,
            failing: s.trouble.is_some(),
        };
        self.states().iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_until_it_is_over_and_is_counted() {
        let health = FileHealth::default();
        health.works("a");
        assert_eq!((health.warnings(), health.rows()), (vec![], vec![]));
        health.failed("a", "full".into());
        health.failed("a", "full".into());
        let row = |errors, failing| vec![FileState { file: "a".into(), errors, failing }];
        assert_eq!((health.warnings(), health.rows()), (vec!["full".to_owned()], row(2, true)));
        health.works("a");
        assert_eq!((health.warnings(), health.rows()), (vec![], row(2, false)));
    }
}
