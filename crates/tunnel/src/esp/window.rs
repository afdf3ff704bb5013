//! The replay window (RFC 4303 3.4.3), and the high half of an extended sequence number.

use std::sync::atomic::{AtomicU64, Ordering};

/// Packets of the smallest replay window.
pub const MIN_WINDOW: u32 = 64;
/// Packets of the largest replay window.
pub const MAX_WINDOW: u32 = 1 << 20;

/// Sequence numbers of one word.
const SPAN: u64 = 32;

/// Which sequence numbers were received (the anti-replay window of RFC 4303 3.4.3). Shared by all workers without a lock.
///
/// A ring of words. Each is the number of the block of 32 sequence numbers that it stands for
/// (high half, modulo 2^32) and a bit for each of them. To receive a number is one compare-and-swap
/// of its word, so of two workers with the same number exactly one succeeds; a word only ever advances
/// to a later block, so nothing received is forgotten while the window covers it. The highest number is in
/// the word of the newest block: another word is written only once in 32 numbers.
#[derive(Debug)]
pub struct ReplayWindow {
    /// Number of the newest block. Released after its word, so whoever reads it finds the word to be of that block or a
    /// later one.
    newest: AtomicU64,
    words: Box<[AtomicU64]>,
    size: u64,
    /// Where the highest number is written as well.
    mirror: Option<&'static AtomicU64>,
}

/// What the number of an authentic packet is to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Received before, or behind the window.
    Replay,
    /// Received for the first time, after a higher one.
    Older,
    /// Higher than all before.
    Newest,
}

impl ReplayWindow {
    /// Remembers at least `size` numbers ([`MIN_WINDOW`]..=[`MAX_WINDOW`]); `top` is the highest that
    /// counts as received, with all below it: 0 for a new association.
    pub fn new(size: u32, top: u64) -> ReplayWindow {
        let size = u64::from(size.clamp(MIN_WINDOW, MAX_WINDOW));
        // A word advances to a later block only when the window has left all of the one it stood for.
        let n = (size + SPAN - 1).div_ceil(SPAN).next_power_of_two();
        let first = (top / SPAN + 1).saturating_sub(n);
        let mut words: Vec<AtomicU64> = (0..n).map(|_| AtomicU64::new(0)).collect();
        for block in first..first + n {
            let bits = match top.checked_sub(block * SPAN) {
                None => 0,
                Some(last) if last >= SPAN - 1 => u32::MAX,
                Some(last) => (2u32 << last) - 1,
            };
            words[(block % n) as usize] = AtomicU64::new(word(block, bits));
        }
        let newest = AtomicU64::new(top / SPAN);
        ReplayWindow { newest, words: words.into_boxed_slice(), size, mirror: None }
    }

    /// Writes the highest number received to `mirror` too, from now on.
    pub fn mirror(&mut self, mirror: &'static AtomicU64) {
        mirror.fetch_max(self.top(), Ordering::Relaxed);
        self.mirror = Some(mirror);
    }

    /// Packets that the window covers.
    pub const fn size(&self) -> u32 {
        self.size as u32
    }

    /// The highest number received: the right edge of the window.
    #[inline]
    pub fn top(&self) -> u64 {
        let newest = self.newest.load(Ordering::Acquire);
        let word = self.word_of(newest).load(Ordering::Relaxed);
        // Another worker may be on the way to a later block, whose word is the same.
        let block = newest + u64::from(block_of(word).wrapping_sub(newest as u32));
        block * SPAN + u64::from((word as u32).checked_ilog2().unwrap_or(0))
    }

    /// Whether a number could still be received: a cheap check before the packet is decrypted.
    #[inline]
    pub fn may_receive(&self, sequence: u64) -> bool {
        self.may_receive_below(self.top(), sequence)
    }

    /// The same with the right edge at `top`, where that is known.
    #[inline]
    pub(super) fn may_receive_below(&self, top: u64, sequence: u64) -> bool {
        if self.has_left(top, sequence) {
            return false;
        }
        let (block, bit) = (sequence / SPAN, 1u32 << (sequence % SPAN));
        let old = self.word_of(block).load(Ordering::Relaxed);
        match age(old, block) {
            Age::Same => old as u32 & bit == 0,
            Age::Older => true,
            Age::Newer => false,
        }
    }

    /// Whether the window with this right edge is beyond a number. There is no number 0.
    #[inline]
    const fn has_left(&self, top: u64, sequence: u64) -> bool {
        sequence == 0 || sequence.saturating_add(self.size) <= top
    }

    /// Marks the number of an authenticated packet as received.
    #[inline]
    pub fn receive(&self, sequence: u64) -> Arrival {
        if self.has_left(self.top(), sequence) {
            return Arrival::Replay;
        }
        let (block, bit) = (sequence / SPAN, 1u32 << (sequence % SPAN));
        let shared = self.word_of(block);
        let mut old = shared.load(Ordering::Relaxed);
        let before = loop {
            let (new, before) = match age(old, block) {
                Age::Same if old as u32 & bit != 0 => return Arrival::Replay,
                Age::Same => (old | u64::from(bit), old as u32),
                Age::Older => (word(block, bit), 0),
                Age::Newer => return Arrival::Replay,
            };
            match shared.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break before,
                Err(now) => old = now,
            }
        };
        let mut newest = self.newest.load(Ordering::Relaxed);
        if newest < block {
            newest = self.newest.fetch_max(block, Ordering::Release);
        }
        // Another worker may have a higher number that it has not mirrored yet: what this one goes on with is covered.
        if let Some(mirror) = self.mirror
            && mirror.load(Ordering::Relaxed) < sequence
        {
            mirror.fetch_max(sequence, Ordering::Relaxed);
        }
        if newest <= block && before < bit { Arrival::Newest } else { Arrival::Older }
    }

    #[inline]
    fn word_of(&self, block: u64) -> &AtomicU64 {
        // The number of words is a power of two.
        &self.words[block as usize & (self.words.len() - 1)]
    }
}

const fn word(block: u64, bits: u32) -> u64 {
    (block as u32 as u64) << 32 | bits as u64
}

/// The low half of the number of the block that a word stands for.
const fn block_of(word: u64) -> u32 {
    (word >> 32) as u32
}

enum Age {
    Same,
    /// The word stands for an earlier block.
    Older,
    Newer,
}

#[inline]
const fn age(old: u64, block: u64) -> Age {
    match (block as u32).wrapping_sub(block_of(old)) {
        0 => Age::Same,
        d if d < 1 << 31 => Age::Older,
        _ => Age::Newer,
    }
}

/// The whole sequence number of a packet that carries its low half (RFC 4303 A2): the one that
/// lies in the window of `window` packets below `top`, or is next above it.
#[inline]
pub const fn infer_sequence(top: u64, window: u32, low: u32) -> u64 {
    let (th, tl) = ((top >> 32) as u32, top as u32);
    let bottom = tl.wrapping_sub(window - 1);
    let high = if tl >= window - 1 {
        // The window lies within one run of the low half.
        if low >= bottom { th } else { th.wrapping_add(1) }
    } else if low >= bottom {
        // The window begins in the run before; there is none before the first.
        th.saturating_sub(1)
    } else {
        th
    };
    (high as u64) << 32 | low as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn takes(w: &ReplayWindow, sequence: u64) -> bool {
        w.receive(sequence) != Arrival::Replay
    }

    #[test]
    fn once_each_and_none_below_the_window() {
        let w = ReplayWindow::new(1024, 0);
        assert!(!takes(&w, 0));
        assert!(takes(&w, 1) && !takes(&w, 1));
        assert!(takes(&w, 2000));
        assert!(!takes(&w, 2000 - 1024));
        assert!(takes(&w, 2000 - 1023) && !takes(&w, 2000 - 1023));
        assert_eq!(w.top(), 2000);
    }

    #[test]
    fn a_window_that_begins_later_has_received_all_before() {
        for top in [0, 1, 31, 32, 33, 1000, u64::from(u32::MAX) + 7] {
            let w = ReplayWindow::new(64, top);
            for back in 0..200 {
                assert!(!takes(&w, top.saturating_sub(back)), "{top} - {back}");
            }
            assert!(takes(&w, top + 1) && !takes(&w, top + 1));
            assert!(takes(&w, top + 40) && takes(&w, top + 39));
        }
    }

    /// The definition: a set of all numbers ever received.
    fn oracle(size: u64, top: u64, numbers: &[u64]) -> Vec<bool> {
        let (begin, mut seen, mut top) = (top, HashSet::new(), top);
        let accept = |&n: &u64| {
            let fresh = n > begin && n + size > top && seen.insert(n);
            top = if fresh { n.max(top) } else { top };
            fresh
        };
        numbers.iter().map(accept).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_what_was_received(
            size in 64u32..2100,
            start in 0u64..1 << 40,
            steps in proptest::collection::vec((-2500i64..2500, 0u8..8), 1..400),
        ) {
            let mut at = start.max(1);
            let mut numbers = vec![at];
            for (step, kind) in steps {
                // Mostly near the top, now and then far ahead.
                let step = if kind == 0 { step.abs() * 40_000 } else { step };
                let n = at.saturating_add_signed(step).max(1);
                numbers.push(n);
                at = at.max(n);
            }
            let w = ReplayWindow::new(size, numbers[0] - 1);
            let expected = oracle(u64::from(size), numbers[0] - 1, &numbers);
            let mut top = w.top();
            prop_assert_eq!(top, numbers[0] - 1);
            for (n, fresh) in numbers.into_iter().zip(expected) {
                let arrival = match (fresh, n > top) {
                    (false, _) => Arrival::Replay,
                    (true, false) => Arrival::Older,
                    (true, true) => Arrival::Newest,
                };
                prop_assert_eq!((w.may_receive(n), w.receive(n)), (fresh, arrival));
                top = if fresh { top.max(n) } else { top };
                prop_assert_eq!(w.top(), top);
            }
        }

        #[test]
        fn a_number_in_reach_is_recovered(top in 1u64..1 << 50, size in 64u32..70_000, ahead in -70_000i64..1 << 31) {
            let ahead = ahead.max(1 - i64::from(size));
            if let Some(n) = top.checked_add_signed(ahead).filter(|n| *n > 0) {
                prop_assert_eq!(infer_sequence(top, size, n as u32), n);
            }
        }
    }

    #[test]
    fn only_a_higher_number_is_the_newest() {
        static MIRROR: AtomicU64 = AtomicU64::new(0);
        let mut w = ReplayWindow::new(64, 9);
        w.mirror(&MIRROR);
        assert_eq!(MIRROR.load(Ordering::Relaxed), 9);
        assert_eq!(
            [12, 11, 12, 13].map(|n| w.receive(n)),
            [Arrival::Newest, Arrival::Older, Arrival::Replay, Arrival::Newest]
        );
        assert_eq!(MIRROR.load(Ordering::Relaxed), 13);
    }

    #[test]
    fn of_workers_with_the_same_number_one_wins() {
        let w = ReplayWindow::new(1024, 0);
        const N: u64 = 40_000;
        let won: u64 = std::thread::scope(|s| {
            let run = || (1..=N).filter(|n| takes(&w, *n)).count() as u64;
            let threads: Vec<_> = (0..3).map(|_| s.spawn(run)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        // A thread may fall behind the window, so the others take its numbers: none is taken twice.
        assert_eq!((won, w.top()), (N, N));
    }
}
