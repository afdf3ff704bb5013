//! Port blocks: contiguous external ports that are allocated to one host as a whole, so that a record of
//! the block stands for every session in it (RFC 6888 section 4).

use std::sync::atomic::{AtomicU64, Ordering};

/// Who has each block of a pool, and how many of its ports are in use: one word a block.
#[derive(Debug)]
pub(super) struct Blocks {
    pub size: u16,
    words: Box<[AtomicU64]>,
}

/// A port was taken from a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Took {
    /// Of a block that the host had.
    Known,
    /// The first one: the block is the host's from now on.
    New,
    /// The block is another host's.
    No,
}

impl Blocks {
    pub fn new(size: u16) -> Blocks {
        Blocks { size, words: (0..65536 / usize::from(size)).map(|_| AtomicU64::new(0)).collect() }
    }

    pub fn of(&self, port: u16) -> u16 {
        port / self.size
    }

    pub fn ports(&self, block: u16) -> std::ops::RangeInclusive<u16> {
        block * self.size..=block * self.size + (self.size - 1)
    }

    /// The host that has a block.
    pub fn owner(&self, block: u16) -> Option<u32> {
        let w = self.words[usize::from(block)].load(Ordering::Relaxed);
        (w != 0).then_some((w >> 32) as u32)
    }

    /// Counts a port of a block for a host, which takes the block if nobody has it.
    pub fn take(&self, block: u16, host: u32) -> Took {
        let word = &self.words[usize::from(block)];
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let (new, took) = match old {
                0 => (u64::from(host) << 32 | 1, Took::New),
                w if (w >> 32) as u32 == host => (w + 1, Took::Known),
                _ => return Took::No,
            };
            match word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return took,
                Err(now) => old = now,
            }
        }
    }

    /// A port of the block is given back. True: it was the last, the block is free.
    pub fn give_back(&self, block: u16) -> bool {
        let word = &self.words[usize::from(block)];
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let new = match old as u32 {
                0 => return false,
                1 => 0,
                _ => old - 1,
            };
            match word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return new == 0,
                Err(now) => old = now,
            }
        }
    }
}
