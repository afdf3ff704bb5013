//! The leaf of the tree: eight rules side by side, field by field, compared with a key all at once.
//!
//! The loops have no branches and a fixed length, so that the compiler turns them into vector
//! instructions of whatever width the target has. An IPv4 block is four cache lines.

// Several arrays are walked in step: an index says it plainest, and vectorises.
#![allow(clippy::needless_range_loop)]

use crate::classifier::NO_MATCH;
use crate::family::Addr;
use crate::rule::{Key, NO_PORTS, Rule};

/// Rules in a block.
pub const LANES: usize = 8;

/// Set in the class of unused lanes and in no key.
const NEVER: u16 = 0x200;

pub trait Block<A>: Copy + Send + Sync {
    /// A block whose lanes match nothing.
    const EMPTY: Self;

    /// Puts `rule`, number `id` of its set, into `lane`. Lanes are filled in match order.
    fn put(&mut self, lane: usize, rule: &Rule<A>, id: u32);

    /// Number of the first lane's rule that matches, or [`NO_MATCH`].
    fn find(&self, key: &Key<A>) -> u32;
}

/// Bits of [`Key::class`] that a rule looks at, and their values.
fn class_test<A: Addr>(rule: &Rule<A>) -> (u16, u16) {
    let (mask, value) = match rule.proto {
        Some(p) => (0xff, u16::from(p)),
        None => (0, 0),
    };
    (if rule.needs_ports() { mask | NO_PORTS } else { mask }, value)
}

/// Flips the top bit, so that signed comparison (all that SSE2 has) orders unsigned numbers.
const fn bias32(n: u32) -> i32 {
    (n ^ 0x8000_0000) as i32
}

const fn bias16(n: u16) -> i16 {
    (n ^ 0x8000) as i16
}

/// `lo..=hi` is kept as `lo` and the biased width: one subtraction and one comparison test it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Block4 {
    src_lo: [u32; LANES],
    src_width: [i32; LANES],
    dst_lo: [u32; LANES],
    dst_width: [i32; LANES],
    sport_lo: [u16; LANES],
    sport_width: [i16; LANES],
    dport_lo: [u16; LANES],
    dport_width: [i16; LANES],
    class_mask: [u16; LANES],
    class: [u16; LANES],
    id: [u32; LANES],
}

impl Block<u32> for Block4 {
    const EMPTY: Self = Block4 {
        src_lo: [0; LANES],
        src_width: [0; LANES],
        dst_lo: [0; LANES],
        dst_width: [0; LANES],
        sport_lo: [0; LANES],
        sport_width: [0; LANES],
        dport_lo: [0; LANES],
        dport_width: [0; LANES],
        class_mask: [NEVER; LANES],
        class: [NEVER; LANES],
        id: [NO_MATCH; LANES],
    };

    fn put(&mut self, lane: usize, rule: &Rule<u32>, id: u32) {
        self.src_lo[lane] = rule.src.first();
        self.src_width[lane] = bias32(rule.src.last() - rule.src.first());
        self.dst_lo[lane] = rule.dst.first();
        self.dst_width[lane] = bias32(rule.dst.last() - rule.dst.first());
        self.sport_lo[lane] = rule.sport.lo();
        self.sport_width[lane] = bias16(rule.sport.hi() - rule.sport.lo());
        self.dport_lo[lane] = rule.dport.lo();
        self.dport_width[lane] = bias16(rule.dport.hi() - rule.dport.lo());
        (self.class_mask[lane], self.class[lane]) = class_test(rule);
        self.id[lane] = id;
    }

    #[inline(always)]
    fn find(&self, key: &Key<u32>) -> u32 {
        // Adding the bias to the key biases every difference.
        let src = bias32(key.src) as u32;
        let dst = bias32(key.dst) as u32;
        let sport = bias16(key.sport) as u16;
        let dport = bias16(key.dport) as u16;
        let mut hit = [0u8; LANES];
        for i in 0..LANES {
            let s = src.wrapping_sub(self.src_lo[i]) as i32 <= self.src_width[i];
            let d = dst.wrapping_sub(self.dst_lo[i]) as i32 <= self.dst_width[i];
            let sp = sport.wrapping_sub(self.sport_lo[i]) as i16 <= self.sport_width[i];
            let dp = dport.wrapping_sub(self.dport_lo[i]) as i16 <= self.dport_width[i];
            let c = key.class & self.class_mask[i] == self.class[i];
            hit[i] = u8::from(s & d & sp & dp & c);
        }
        first(&hit, &self.id)
    }
}

/// The id of the first lane that is set.
#[inline(always)]
fn first(hit: &[u8; LANES], id: &[u32; LANES]) -> u32 {
    let bits = u64::from_le_bytes(*hit);
    if bits == 0 { NO_MATCH } else { id[(bits.trailing_zeros() / 8) as usize & (LANES - 1)] }
}

/// Words of an IPv6 address.
const WORDS6: usize = 4;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Block6 {
    mask: [[u32; LANES]; 2 * WORDS6],
    value: [[u32; LANES]; 2 * WORDS6],
    sport_lo: [u16; LANES],
    sport_width: [i16; LANES],
    dport_lo: [u16; LANES],
    dport_width: [i16; LANES],
    class_mask: [u16; LANES],
    class: [u16; LANES],
    id: [u32; LANES],
}

/// The address words of a key, source first, high word first.
#[inline(always)]
fn words6(src: u128, dst: u128) -> [u32; 2 * WORDS6] {
    let w = |a: u128, i: usize| (a >> (96 - 32 * i)) as u32;
    [w(src, 0), w(src, 1), w(src, 2), w(src, 3), w(dst, 0), w(dst, 1), w(dst, 2), w(dst, 3)]
}

impl Block<u128> for Block6 {
    const EMPTY: Self = Block6 {
        mask: [[0; LANES]; 2 * WORDS6],
        value: [[0; LANES]; 2 * WORDS6],
        sport_lo: [0; LANES],
        sport_width: [0; LANES],
        dport_lo: [0; LANES],
        dport_width: [0; LANES],
        class_mask: [NEVER; LANES],
        class: [NEVER; LANES],
        id: [NO_MATCH; LANES],
    };

    fn put(&mut self, lane: usize, rule: &Rule<u128>, id: u32) {
        let value = words6(rule.src.addr(), rule.dst.addr());
        let mask = words6(u128::prefix_mask(rule.src.prefix_len()), u128::prefix_mask(rule.dst.prefix_len()));
        for w in 0..2 * WORDS6 {
            self.mask[w][lane] = mask[w];
            self.value[w][lane] = value[w];
        }
        self.sport_lo[lane] = rule.sport.lo();
        self.sport_width[lane] = bias16(rule.sport.hi() - rule.sport.lo());
        self.dport_lo[lane] = rule.dport.lo();
        self.dport_width[lane] = bias16(rule.dport.hi() - rule.dport.lo());
        (self.class_mask[lane], self.class[lane]) = class_test(rule);
        self.id[lane] = id;
    }

    #[inline(always)]
    fn find(&self, key: &Key<u128>) -> u32 {
        let words = words6(key.src, key.dst);
        let mut differ = [0u32; LANES];
        for w in 0..2 * WORDS6 {
            for i in 0..LANES {
                differ[i] |= (words[w] & self.mask[w][i]) ^ self.value[w][i];
            }
        }
        let sport = bias16(key.sport) as u16;
        let dport = bias16(key.dport) as u16;
        let mut hit = [0u8; LANES];
        for i in 0..LANES {
            let sp = sport.wrapping_sub(self.sport_lo[i]) as i16 <= self.sport_width[i];
            let dp = dport.wrapping_sub(self.dport_lo[i]) as i16 <= self.dport_width[i];
            let c = key.class & self.class_mask[i] == self.class[i];
            hit[i] = u8::from((differ[i] == 0) & sp & dp & c);
        }
        first(&hit, &self.id)
    }
}
