//! Port blocks: contiguous external ports that are allocated to one host as a whole, so that a record of
//! the block stands for every session in it (RFC 6888 section 4).

use super::pool::{Endpoint, InsideHost, NatProtocol, Pool};
use super::{NatState, Random};
use sag_model::flow::HASH_M1;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

/// Low bits of a block's word that count its ports; the host is above.
const COUNT_BITS: u32 = 26;

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

    pub fn ports(&self, block: u16) -> RangeInclusive<u16> {
        block * self.size..=block * self.size + (self.size - 1)
    }

    /// The host that has a block.
    pub fn owner(&self, block: u16) -> Option<InsideHost> {
        let w = self.words[usize::from(block)].load(Ordering::Relaxed);
        if w == 0 { None } else { InsideHost::from_word(w >> COUNT_BITS) }
    }

    /// Counts a port of a block for a host, which takes the block if nobody has it.
    pub fn take(&self, block: u16, host: InsideHost) -> Took {
        let word = &self.words[usize::from(block)];
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let (new, took) = match old {
                0 => (host.word() << COUNT_BITS | 1, Took::New),
                w if w >> COUNT_BITS == host.word() => (w + 1, Took::Known),
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
            let new = match old & ((1 << COUNT_BITS) - 1) {
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

impl NatState {
    /// A port of a block that the host has, or else of the next free block from a place of its own on.
    pub(super) fn choose_in_block(
        &self,
        pool: &Pool,
        (blocks, range): (&Blocks, &RangeInclusive<u16>),
        protocol: NatProtocol,
        inside: Endpoint,
        random: &mut Random,
        tick: u32,
    ) -> Option<(u16, Option<u16>)> {
        let host = inside.host();
        let (first, last) = (blocks.of(*range.start()), blocks.of(*range.end()));
        let count = u32::from(last - first) + 1;
        let start = (host.word().wrapping_mul(HASH_M1) >> 40) as u32 % count;
        // One that the host has, then one that nobody has.
        let whose = [Some(host), None].into_iter().flat_map(|owner| (0..count).map(move |n| (owner, n)));
        for (owner, n) in whose {
            let block = first + ((start + n) % count) as u16;
            if blocks.owner(block) != owner {
                continue;
            }
            let took = blocks.take(block, host);
            if took == Took::No {
                continue;
            }
            let ports = blocks.ports(block);
            let ports = *ports.start().max(range.start())..=*ports.end().min(range.end());
            let same = ports.contains(&inside.port).then_some(inside.port);
            let free = |like: u16, r: u64| pool.free_port(protocol, &ports, like, r);
            let tries = same
                .into_iter()
                .chain(free(inside.port, random.draw()))
                .chain(free(inside.port ^ 1, random.draw()));
            for port in tries {
                if pool.claim(protocol, port, inside.word(), 0, tick) {
                    return Some((port, (took == Took::New).then_some(block)));
                }
            }
            blocks.give_back(block);
        }
        None
    }

    pub(super) fn give_back_block(&self, pool: &Pool, port: u16) -> bool {
        pool.blocks.get().is_some_and(|b| b.give_back(b.of(port)))
    }
}
