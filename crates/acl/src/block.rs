//! The leaf of the tree: eight rules side by side, field by field, compared with a key all at once.
//!
//! An IPv4 block is four cache lines. Nothing in a comparison branches.

use crate::addr::Addr;
use crate::lanes::{LANES, Lanes16, Lanes32};
use crate::rule::{Key, NO_MATCH, Rule};

/// Mask and class of unused lanes: no key has a bit under an empty mask.
const UNUSED: (i16, i16) = (0, 1);

/// Eight rules that are compared with a key at once.
pub trait Block<A>: Copy + Send + Sync {
    /// A block whose lanes match nothing.
    const EMPTY: Self;

    /// Puts `rule`, number `id` of its set, into `lane`. Lanes are filled in match order.
    fn put(&mut self, lane: usize, rule: &Rule<A>, id: u32);

    /// Number of the first lane's rule that matches, or [`NO_MATCH`].
    fn find(&self, key: &Key<A>) -> u32;
}

/// Flips the top bit, so that signed comparison (all that SSE2 has) orders unsigned numbers.
const fn bias32(n: u32) -> i32 {
    (n ^ 0x8000_0000) as i32
}

const fn bias16(n: u16) -> i16 {
    (n ^ 0x8000) as i16
}

/// Lanes where `key`, less `lo`, is over the biased `width`. Biasing the key biases the difference.
#[inline(always)]
fn outside32(key: u32, lo: &[i32; LANES], width: &[i32; LANES]) -> Lanes32 {
    Lanes32::splat(bias32(key)).sub(Lanes32::load(lo)).above(Lanes32::load(width))
}

#[inline(always)]
fn outside16(key: u16, lo: &[i16; LANES], width: &[i16; LANES]) -> Lanes16 {
    Lanes16::splat(bias16(key)).sub(Lanes16::load(lo)).above(Lanes16::load(width))
}

/// An IPv4 block. `lo..=hi` is stored as `lo` and the biased width: one subtraction and one comparison test it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Block4 {
    src_lo: [i32; LANES],
    src_width: [i32; LANES],
    dst_lo: [i32; LANES],
    dst_width: [i32; LANES],
    sport_lo: [i16; LANES],
    sport_width: [i16; LANES],
    dport_lo: [i16; LANES],
    dport_width: [i16; LANES],
    class_mask: [i16; LANES],
    class: [i16; LANES],
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
        class_mask: [UNUSED.0; LANES],
        class: [UNUSED.1; LANES],
        id: [NO_MATCH; LANES],
    };

    fn put(&mut self, lane: usize, rule: &Rule<u32>, id: u32) {
        self.src_lo[lane] = rule.src.first() as i32;
        self.src_width[lane] = bias32(rule.src.last() - rule.src.first());
        self.dst_lo[lane] = rule.dst.first() as i32;
        self.dst_width[lane] = bias32(rule.dst.last() - rule.dst.first());
        let [sport, dport] = rule.port_words();
        self.sport_lo[lane] = sport.lo() as i16;
        self.sport_width[lane] = bias16(sport.hi() - sport.lo());
        self.dport_lo[lane] = dport.lo() as i16;
        self.dport_width[lane] = bias16(dport.hi() - dport.lo());
        let (mask, value) = rule.class_test();
        (self.class_mask[lane], self.class[lane]) = (mask as i16, value as i16);
        self.id[lane] = id;
    }

    #[inline(always)]
    fn find(&self, key: &Key<u32>) -> u32 {
        let miss = outside32(key.src, &self.src_lo, &self.src_width)
            .or(outside32(key.dst, &self.dst_lo, &self.dst_width))
            .narrow()
            .or(outside16(key.sport, &self.sport_lo, &self.sport_width))
            .or(outside16(key.dport, &self.dport_lo, &self.dport_width));
        let class = same_class(key.class, &self.class_mask, &self.class);
        first(class.except(miss), &self.id)
    }
}

#[inline(always)]
fn same_class(class: u16, mask: &[i16; LANES], value: &[i16; LANES]) -> Lanes16 {
    Lanes16::splat(class as i16).and(Lanes16::load(mask)).equal(Lanes16::load(value))
}

/// The id of the first lane that is set.
#[inline(always)]
fn first(lanes: Lanes16, id: &[u32; LANES]) -> u32 {
    let lanes = lanes.bits();
    let none = 0u32.wrapping_sub(u32::from(lanes == 0));
    id[lanes.trailing_zeros() as usize % LANES] | none
}

/// Words of an IPv6 address.
const WORDS6: usize = 4;

/// An IPv6 block: addresses are compared as masked words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Block6 {
    mask: [[i32; LANES]; 2 * WORDS6],
    value: [[i32; LANES]; 2 * WORDS6],
    sport_lo: [i16; LANES],
    sport_width: [i16; LANES],
    dport_lo: [i16; LANES],
    dport_width: [i16; LANES],
    class_mask: [i16; LANES],
    class: [i16; LANES],
    id: [u32; LANES],
}

/// The address words of a key, source first, high word first.
#[inline(always)]
fn words6(src: u128, dst: u128) -> [i32; 2 * WORDS6] {
    let w = |a: u128, i: usize| (a >> (96 - 32 * i)) as i32;
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
        class_mask: [UNUSED.0; LANES],
        class: [UNUSED.1; LANES],
        id: [NO_MATCH; LANES],
    };

    fn put(&mut self, lane: usize, rule: &Rule<u128>, id: u32) {
        let value = words6(rule.src.addr(), rule.dst.addr());
        let mask = words6(u128::prefix_mask(rule.src.prefix_len()), u128::prefix_mask(rule.dst.prefix_len()));
        for w in 0..2 * WORDS6 {
            self.mask[w][lane] = mask[w];
            self.value[w][lane] = value[w];
        }
        let [sport, dport] = rule.port_words();
        self.sport_lo[lane] = sport.lo() as i16;
        self.sport_width[lane] = bias16(sport.hi() - sport.lo());
        self.dport_lo[lane] = dport.lo() as i16;
        self.dport_width[lane] = bias16(dport.hi() - dport.lo());
        let (mask, value) = rule.class_test();
        (self.class_mask[lane], self.class[lane]) = (mask as i16, value as i16);
        self.id[lane] = id;
    }

    #[inline(always)]
    fn find(&self, key: &Key<u128>) -> u32 {
        let words = words6(key.src, key.dst);
        let mut differ = Lanes32::splat(0);
        for ((word, mask), value) in words.iter().zip(&self.mask).zip(&self.value) {
            let bits = Lanes32::splat(*word).and(Lanes32::load(mask)).xor(Lanes32::load(value));
            differ = differ.or(bits);
        }
        let same = differ.equal(Lanes32::splat(0)).narrow();
        let miss = outside16(key.sport, &self.sport_lo, &self.sport_width).or(outside16(
            key.dport,
            &self.dport_lo,
            &self.dport_width,
        ));
        let class = same_class(key.class, &self.class_mask, &self.class);
        first(same.and(class).except(miss), &self.id)
    }
}
