//! Which parts of a datagram were seen: two bits for each eight bytes, one for "seen" and one for
//! "here a fragment began". So any number of fragments fits, in any order, and an exact repetition
//! is distinguished from another overlap; the work is a few words per fragment.

use super::Span;

/// Eight-byte units of the largest datagram.
const UNITS: usize = 1 << 13;
pub const WORDS: usize = UNITS / 64;

/// How a fragment fits what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    New,
    /// Exactly this fragment was seen.
    Duplicate,
    /// It overlaps others, or there would be two ends.
    Contradiction,
}

/// The bits of 64 units: seen, and begun.
pub type Word = [u64; 2];
const SEEN: usize = 0;
const BEGUN: usize = 1;

/// What a map of [`WORDS`] amounts to. The two belong together; a map comes from the allocator as
/// zeros, so that what is never used of it takes no memory.
#[derive(Debug, Clone, Copy)]
pub struct Cover {
    /// Units seen.
    count: u16,
    /// End of the rearmost fragment, in units.
    high: u16,
    /// Bytes of the datagram; zero until the last fragment is seen.
    total: u16,
}

impl Cover {
    pub const NONE: Cover = Cover { count: 0, high: 0, total: 0 };

    pub fn clear(&mut self, map: &mut [Word]) {
        map[..usize::from(self.high).div_ceil(64)].fill([0; 2]);
        *self = Cover::NONE;
    }

    pub fn fit(&self, map: &[Word], span: &Span) -> Fit {
        let (from, to) = units(span);
        let two_ends = match self.total {
            0 => span.last && to < usize::from(self.high),
            total => span.end > total || (span.last && span.end != total),
        };
        if two_ends {
            return Fit::Contradiction;
        }
        if !words(from, to).any(|(w, mask)| map[w][SEEN] & mask != 0) {
            return Fit::New;
        }
        let whole = words(from, to).all(|(w, mask)| map[w][SEEN] & mask == mask);
        let one = bit(map, BEGUN, from) && !words(from + 1, to).any(|(w, mask)| map[w][BEGUN] & mask != 0);
        let ends = to == UNITS || !bit(map, SEEN, to) || bit(map, BEGUN, to);
        if whole && one && ends && span.last == (span.end == self.total) {
            Fit::Duplicate
        } else {
            Fit::Contradiction
        }
    }

    /// Notes a fragment that fits.
    pub fn add(&mut self, map: &mut [Word], span: &Span) {
        let (from, to) = units(span);
        for (w, mask) in words(from, to) {
            map[w][SEEN] |= mask;
        }
        map[from / 64][BEGUN] |= 1 << (from % 64);
        self.count += (to - from) as u16;
        self.high = self.high.max(to as u16);
        if span.last {
            self.total = span.end;
        }
    }

    pub fn complete(&self) -> bool {
        self.total != 0 && self.count == self.total.div_ceil(8)
    }
}

fn units(span: &Span) -> (usize, usize) {
    (usize::from(span.start) / 8, usize::from(span.end).div_ceil(8))
}

fn bit(map: &[Word], which: usize, at: usize) -> bool {
    map[at / 64][which] >> (at % 64) & 1 != 0
}

/// The words that units `from..to` lie in, and which bits of them.
fn words(from: usize, to: usize) -> impl Iterator<Item = (usize, u64)> {
    (from / 64..to.div_ceil(64)).map(move |w| {
        let low = from.saturating_sub(w * 64);
        let high = (to - w * 64).min(64);
        // `low` is below 64 and `high` above 0; nothing is left where they meet.
        (w, if low < high { (!0u64 << low) & (!0u64 >> (64 - high)) } else { 0 })
    })
}
