//! The index: buckets of words, each a tag and a number. Lock-free; a number is found once its word
//! is stored, and gone once it is cleared. What a number stands for is the caller's.

use super::prefetch;
use sag_model::flow::{BUCKET_WORDS, Bucket, Geometry, Probe, RECORD_BITS, RecordNo};
use std::sync::atomic::{AtomicU32, Ordering};

/// Words in a bucket from which on a new one rather goes to the emptier bucket.
const CROWDED: u32 = 12;

/// Why a number is not in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clash {
    Full,
    /// This one stands for the same key.
    Twin(RecordNo),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Index {
    buckets: &'static [Bucket],
    base: u32,
    mask: u32,
}

impl Index {
    /// The index of this geometry, which lies in `buckets`.
    #[inline]
    pub fn new(buckets: &'static [Bucket], g: Geometry) -> Index {
        Index { buckets, base: g.base, mask: g.mask }
    }

    #[inline]
    pub fn probe(&self, hash: u64) -> Probe {
        Probe::new(hash, self.mask)
    }

    #[inline]
    pub fn bucket(&self, n: u32) -> &'static Bucket {
        &self.buckets[self.base as usize + n as usize]
    }

    /// All buckets of this index.
    pub fn all(&self) -> &'static [Bucket] {
        &self.buckets[self.base as usize..=(self.base + self.mask) as usize]
    }

    /// The words of a bucket, the preferred one first.
    #[inline]
    fn words(&self, bucket: u32, slot: usize) -> impl Iterator<Item = &'static AtomicU32> {
        let words = &self.bucket(bucket).word;
        (0..BUCKET_WORDS).map(move |i| &words[(slot + i) % BUCKET_WORDS])
    }

    /// A number of a bucket with the probe's tag that is the right one.
    #[inline]
    pub(super) fn find_in(&self, bucket: u32, p: &Probe, is: &impl Fn(RecordNo) -> bool) -> Option<RecordNo> {
        let words = &self.bucket(bucket).word;
        let tag = p.tag << RECORD_BITS;
        let right = |w: &AtomicU32| {
            let w = w.load(Ordering::SeqCst);
            (w ^ tag < 1 << RECORD_BITS && w != 0 && is(number(w))).then(|| number(w))
        };
        let preferred = right(&words[p.slot % BUCKET_WORDS]);
        if preferred.is_some() {
            return preferred;
        }
        let mut same = tagged(words, p.tag);
        while same != 0 {
            let found = right(&words[same.trailing_zeros() as usize]);
            if found.is_some() {
                return found;
            }
            same &= same - 1;
        }
        None
    }

    /// The number that a look for this probe will likely end at, without asking whether it is right.
    #[inline]
    pub fn guess(&self, p: &Probe) -> Option<RecordNo> {
        let found = self.find_in(p.first, p, &|_| true);
        if found.is_none() {
            prefetch(self.bucket(p.second));
        }
        found
    }

    #[inline]
    pub fn find(&self, p: &Probe, is: impl Fn(RecordNo) -> bool) -> Option<RecordNo> {
        self.find_in(p.first, p, &is).or_else(|| self.find_in(p.second, p, &is))
    }

    /// The same where [`Index::guess`] has found nothing and this worker has stored nothing since.
    #[inline]
    pub fn find_second(&self, p: &Probe, is: impl Fn(RecordNo) -> bool) -> Option<RecordNo> {
        self.find_in(p.second, p, &is)
    }

    /// Stores the word, then looks whether the key is there a second time; if so takes the word
    /// back. Store-then-look on both sides, in the one order of all `SeqCst` accesses: of two racing
    /// workers at least one sees the other, and whoever sees the other steps back, so a key is never
    /// left in the index twice.
    pub fn publish(&self, p: &Probe, no: RecordNo, is: impl Fn(RecordNo) -> bool) -> Result<(), Clash> {
        if !self.place(p, no) {
            return Err(Clash::Full);
        }
        match self.find(p, |other| other != no && is(other)) {
            None => Ok(()),
            Some(twin) => {
                self.withdraw(p, no);
                Err(Clash::Twin(twin))
            }
        }
    }

    /// Stores the word where it fits. False: nowhere.
    pub fn place(&self, p: &Probe, no: RecordNo) -> bool {
        let word = p.tag << RECORD_BITS | no.0;
        self.choose(p).into_iter().any(|b| {
            self.words(b, p.slot).any(|w| {
                w.load(Ordering::Relaxed) == 0
                    && w.compare_exchange(0, word, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            })
        })
    }

    /// The buckets of a new word, the one to try first in front. The first choice, so that a look
    /// there is enough for most, until it is crowded: then the emptier one, so that none overflows.
    fn choose(&self, p: &Probe) -> [u32; 2] {
        let used = |b| used(&self.bucket(b).word);
        let first = used(p.first);
        if first >= CROWDED && used(p.second) < first { [p.second, p.first] } else { [p.first, p.second] }
    }

    pub fn withdraw(&self, p: &Probe, no: RecordNo) {
        let word = p.tag << RECORD_BITS | no.0;
        for w in self.words(p.first, p.slot).chain(self.words(p.second, p.slot)) {
            if w.load(Ordering::SeqCst) == word
                && w.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            {
                return;
            }
        }
    }
}

/// Words that are not 0; all looked at, which takes no branches.
#[inline]
fn used(words: &[AtomicU32; BUCKET_WORDS]) -> u32 {
    words.iter().map(|w| u32::from(w.load(Ordering::Relaxed) != 0)).sum()
}

/// A bit for every word with this tag. All at once, without a branch for each: most looks that get
/// here find nothing.
#[cfg(target_arch = "x86_64")]
#[inline]
fn tagged(words: &[AtomicU32; BUCKET_WORDS], tag: u32) -> u32 {
    use safe_arch::*;
    let wanted = set_splat_i32_m128i(tag as i32);
    let four = |i: usize| {
        let w = |n: usize| words[i + n].load(Ordering::SeqCst) as i32;
        let tags = shr_imm_u32_m128i::<{ RECORD_BITS as i32 }>(set_i32_m128i(w(3), w(2), w(1), w(0)));
        cmp_eq_mask_i32_m128i(tags, wanted)
    };
    let low = pack_i32_to_i16_m128i(four(0), four(4));
    let high = pack_i32_to_i16_m128i(four(8), four(12));
    move_mask_i8_m128i(pack_i16_to_i8_m128i(low, high)) as u32
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn tagged(words: &[AtomicU32; BUCKET_WORDS], tag: u32) -> u32 {
    let bit = |(i, w): (usize, &AtomicU32)| u32::from(w.load(Ordering::SeqCst) >> RECORD_BITS == tag) << i;
    words.iter().enumerate().map(bit).sum()
}

/// The number in a word.
#[inline]
pub(crate) const fn number(word: u32) -> RecordNo {
    RecordNo(word & ((1 << RECORD_BITS) - 1))
}
