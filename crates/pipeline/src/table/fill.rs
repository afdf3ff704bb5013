//! How full a table is: what can be made at once, and marks at which an operator is warned.

use super::FlowTable;
use sag_model::flow::FlowRecord;
use std::sync::atomic::Ordering;

/// Marks of a table at which an operator is warned, in percent of its capacity.
const WARN_PERCENT: [u8; 2] = [75, 95];

impl<R: FlowRecord> FlowTable<R> {
    /// Sessions that can be made at once.
    #[inline]
    pub fn free(&self) -> u32 {
        let taken = self.occupied().saturating_add(self.resting());
        self.capacity().saturating_sub(taken)
    }

    /// Removed sessions that cannot be used again yet.
    #[inline]
    pub fn resting(&self) -> u32 {
        self.resting.load(Ordering::Relaxed)
    }

    /// The mark that the number of sessions has just passed, once on the way up: of how many percent it is.
    #[inline]
    pub fn passed_mark(&self) -> Option<u8> {
        let at = self.warn_at.load(Ordering::Relaxed);
        (self.occupied() >= at).then(|| self.next_mark(at)).flatten()
    }

    #[cold]
    fn next_mark(&self, at: u32) -> Option<u8> {
        let passed = WARN_PERCENT.into_iter().rev().find(|p| self.occupied() >= self.mark(*p))?;
        let next = WARN_PERCENT.into_iter().find(|p| *p > passed).map_or(u32::MAX, |p| self.mark(p));
        let mine = self.warn_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        mine.then_some(passed)
    }

    fn mark(&self, percent: u8) -> u32 {
        (u64::from(self.capacity()) * u64::from(percent)).div_ceil(100) as u32
    }

    /// Warns again when the table fills up again, if it is well below the first mark.
    pub(crate) fn rearm_warning(&self) {
        let first = self.mark(WARN_PERCENT[0]);
        if self.occupied() < first / 10 * 9 {
            self.warn_at.store(first, Ordering::Relaxed);
        }
    }
}
