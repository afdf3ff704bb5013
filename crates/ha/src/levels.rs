//! How much of their bursts the meters have used up: each gateway says so once a second, so that the other one goes on from
//! there instead of with full bursts. A meter has the same id in both, since it is made of its name.

use crate::wire::{Item, write};
use sag_model::Nanos;
use sag_model::meter::{MAX_DEBT, Meter};
use sag_pipeline::qos::meter::{before, units};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Bytes of the item of one meter.
const ITEM: usize = 25;

/// The meters of this gateway, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Meters<'c> {
    /// By number.
    pub all: &'c [Meter],
    /// The clock by which they count.
    pub now: Nanos,
}

/// How far a rate is ahead of now.
fn debt(tat: &AtomicU64, now: u64) -> u64 {
    let tat = tat.load(Acquire);
    if before(tat, now) { 0 } else { tat.wrapping_sub(now).min(MAX_DEBT) }
}

/// Brings a rate so far ahead, unless it is further already.
fn raise(tat: &AtomicU64, now: u64, debt: u64) {
    let to = now.wrapping_add(debt.min(MAX_DEBT));
    let _ = tat.fetch_update(AcqRel, Acquire, |old| before(old, to).then_some(to));
}

impl Meters<'_> {
    /// Writes the levels of meters that have passed something just now, as many as fit.
    pub(crate) fn say(&self, out: &mut Vec<u8>, limit: usize) {
        let now = units(self.now.0);
        for m in self.all {
            let (id, peak, committed) = (m.id.load(Relaxed), debt(&m.tat, now), debt(&m.committed_tat, now));
            if id != 0 && (peak, committed) != (0, 0) && out.len() + ITEM <= limit {
                write(&Item::Level { id, peak, committed }, out);
            }
        }
    }

    /// Takes in what the peer says of one.
    pub(crate) fn hear(&self, id: u64, peak: u64, committed: u64) {
        let now = units(self.now.0);
        if let Some(m) = self.all.iter().find(|m| m.id.load(Relaxed) == id) {
            raise(&m.tat, now, peak);
            raise(&m.committed_tat, now, committed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Reader;

    fn meter(id: u64, tat: u64, committed: u64) -> Meter {
        Meter { id: id.into(), tat: tat.into(), committed_tat: committed.into(), ..Meter::default() }
    }

    #[test]
    fn levels_go_over_by_id_and_never_down() {
        let (there, here) = (Nanos::from_secs(100), Nanos::from_secs(7));
        let ms = |n: u64| units(n * 1_000_000);
        let (t, h) = (units(there.0), units(here.0));
        // Number 2 is idle, and number 3 is unknown at the other one.
        let theirs =
            [meter(0, t + 1, 0), meter(5, t + ms(40), t - 1), meter(6, t - ms(9), 0), meter(8, t + 9, 0)];
        let own = [meter(0, 0, 0), meter(6, h, h), meter(5, h - ms(3), h + ms(2))];
        let mut said = Vec::new();
        Meters { all: &theirs, now: there }.say(&mut said, 1000);
        assert_eq!(said.len(), 2 * ITEM);
        let us = Meters { all: &own, now: here };
        for item in Reader::new(&said) {
            let Ok(Item::Level { id, peak, committed }) = item else { panic!("{item:?}") };
            us.hear(id, peak, committed);
        }
        let level = |n: usize| (own[n].tat.load(Relaxed), own[n].committed_tat.load(Relaxed));
        assert_eq!((level(1), level(2)), ((h, h), (h + ms(40), h + ms(2))));
        us.hear(5, ms(10), 0);
        assert_eq!(level(2).0, h + ms(40));
        // Whatever is said, a rate is ahead by a bounded time.
        us.hear(6, u64::MAX, u64::MAX);
        assert_eq!(level(1), (h + MAX_DEBT, h + MAX_DEBT));
    }

    #[test]
    fn as_many_as_fit() {
        let all: Vec<Meter> = (1..100).map(|id| meter(id, u64::MAX / 4, 0)).collect();
        let mut said = Vec::new();
        Meters { all: &all, now: Nanos::from_secs(1) }.say(&mut said, 10 * ITEM + 3);
        assert_eq!(said.len(), 10 * ITEM);
    }
}
