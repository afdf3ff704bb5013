//! The index by which a key finds its record.

use std::sync::atomic::AtomicU32;

/// Bits of an index word that hold the record number; the rest is the tag.
pub const RECORD_BITS: u32 = 24;
/// Words in an index bucket (one cache line).
pub const BUCKET_WORDS: usize = 16;

/// Where a hash looks: two buckets of the live index, and the tag of its word.
///
/// The second bucket follows from the first and the tag, never from the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The first bucket.
    pub first: u32,
    /// The second bucket.
    pub second: u32,
    /// Eight bits that the index word has above the record number.
    pub tag: u32,
    /// The word of a bucket that is tried first, by readers and when a place is sought.
    pub slot: usize,
}

impl Probe {
    /// For an index of `mask + 1` buckets.
    #[inline]
    pub const fn new(hash: u64, mask: u32) -> Probe {
        let tag = (hash >> 56) as u32;
        let first = hash as u32 & mask;
        let second = (hash >> 24) as u32 & mask;
        let slot = (hash >> 52) as usize & (BUCKET_WORDS - 1);
        Probe { first, second, tag, slot }
    }
}

/// Where an index lies in the memory for indexes: its first bucket, and its number of buckets less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// First bucket.
    pub base: u32,
    /// Number of buckets less one.
    pub mask: u32,
}

impl Geometry {
    /// An index of `buckets` buckets, a power of two, lies at offset `buckets`: every size has its place.
    pub const fn sized(buckets: u32) -> Geometry {
        Geometry { base: buckets, mask: buckets - 1 }
    }

    /// Words that it has.
    pub const fn words(self) -> u64 {
        (self.mask as u64 + 1) * BUCKET_WORDS as u64
    }

    /// As one word.
    #[inline]
    pub const fn to_word(self) -> u64 {
        self.base as u64 | (self.mask as u64) << 32
    }

    /// From one word.
    #[inline]
    pub const fn from_word(w: u64) -> Geometry {
        Geometry { base: w as u32, mask: (w >> 32) as u32 }
    }

    /// Number of buckets.
    pub const fn buckets(self) -> u32 {
        self.mask.saturating_add(1)
    }
}

/// `struct gw_bucket`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket {
    /// Index words: tag above [`RECORD_BITS`], record number below; 0: free.
    pub word: [AtomicU32; BUCKET_WORDS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Key4, l4_word};
    use crate::ids::Zone;

    #[test]
    fn hash_spreads_sequential_ports() {
        let mut buckets = [0u32; 64];
        for p in 0..6400u16 {
            let k =
                Key4 { addrs: 0x0a00_0001_0a00_0002, l4: l4_word(p.to_be(), 80u16.to_be(), 17, Zone::Lan) };
            buckets[Probe::new(k.hash(1), 63).first as usize] += 1;
        }
        let (min, max) = (buckets.iter().min().unwrap(), buckets.iter().max().unwrap());
        assert!(*min > 50 && *max < 150, "uneven: {min}..{max}");
    }
}
