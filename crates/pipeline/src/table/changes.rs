//! Which sessions have changed since somebody looked: a bit for each, set where a worker changes a session anyway. Nothing
//! is queued, so nothing can overflow: who looks finds what a session is by then.

use super::FlowTable;
use sag_model::flow::FlowRecord;
use sag_model::time::Tick;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Sessions of a word.
const BITS: u32 = u64::BITS;

/// How long packets whose translation does not fit wait for addresses that go from one gateway to the other.
pub(crate) const ADDRESS_WAIT: u32 = Tick::of(Duration::from_secs(5));

/// The bits of a table.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Whether anybody looks.
    on: AtomicBool,
    /// When the addresses that sessions are translated to have changed while another gateway was linked; 0: not.
    moved: AtomicU32,
    /// Made when first needed.
    words: OnceLock<Box<[AtomicU64]>>,
}

/// Whether a wait that has begun at a tick goes on. Who has read the clock earlier may see it begin later than now.
pub(crate) fn is_within_wait(began: u32, now: Tick) -> bool {
    let since = now.since(Tick(began));
    since <= ADDRESS_WAIT || since > u32::MAX / 2
}

impl<R: FlowRecord> FlowTable<R> {
    /// Notes changes from now on, or no more.
    pub fn track_changes(&self, on: bool) {
        if on {
            let words = (self.meta.len() as u32).div_ceil(BITS);
            self.changes.words.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        }
        self.changes.on.store(on, Ordering::SeqCst);
    }

    /// Whether changes are noted.
    #[inline]
    pub fn tracks_changes(&self) -> bool {
        self.changes.on.load(Ordering::Relaxed)
    }

    /// Addresses have changed, perhaps because they go to the other gateway, with the sessions. `None`: there is no other one
    /// any more.
    pub fn set_addresses_moved(&self, at: Option<Tick>) {
        self.changes.moved.store(at.map_or(0, |t| t.0.max(1)), Ordering::Release);
    }

    /// Whether they have just changed.
    pub(crate) fn addresses_moved(&self, now: Tick) -> bool {
        let at = self.changes.moved.load(Ordering::Acquire);
        at != 0 && is_within_wait(at, now)
    }

    /// Notes that a session has changed, begun or ended. To be called after the change.
    #[inline]
    pub fn mark_changed(&self, session: u32) {
        if self.tracks_changes() {
            self.set_changed(session);
        }
    }

    #[cold]
    fn set_changed(&self, session: u32) {
        let word = self.changes.words.get().and_then(|w| w.get((session / BITS) as usize));
        if let Some(word) = word {
            word.fetch_or(1 << (session % BITS), Ordering::AcqRel);
        }
    }

    /// Takes the changed sessions among the 64 from `block * 64` on, as bits.
    pub fn take_changes(&self, block: u32) -> u64 {
        let word = self.changes.words.get().and_then(|w| w.get(block as usize));
        // Most have none: nothing is written then.
        word.filter(|w| w.load(Ordering::Relaxed) != 0).map_or(0, |w| w.swap(0, Ordering::AcqRel))
    }

    /// Blocks that have ever had sessions.
    pub fn change_blocks(&self) -> u32 {
        self.used().div_ceil(BITS)
    }

    pub(super) fn changes_memory(&self) -> usize {
        self.changes.words.get().map_or(0, |w| size_of_val(&**w))
    }
}
