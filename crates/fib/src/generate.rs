//! Routing tables for tests and measurements, the same for the same seed on every machine.
//!
//! Prefix lengths have the shares that the Internet's tables have (CIDR report and potaroo.net, 2024): of
//! IPv4 60 % are /24, of IPv6 46 % /48. Half of the prefixes lie in a shorter one of the table, as
//! announcements of customers and for traffic engineering do. IPv4 prefixes are in the unicast space, IPv6
//! ones in the blocks that the registries hand out.

use std::collections::HashSet;
use std::hash::Hash;

/// A generator of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// With a seed.
    pub const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.roll()) * n as u128) >> 64) as usize
    }

    /// 128 random bits.
    pub fn wide(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }
}

/// Of 10,000 prefixes so many have a length.
const LENGTHS4: [(u8, usize); 19] = [
    (8, 1),
    (10, 1),
    (11, 1),
    (12, 3),
    (13, 6),
    (14, 12),
    (15, 20),
    (16, 135),
    (17, 80),
    (18, 140),
    (19, 255),
    (20, 440),
    (21, 500),
    (22, 1_080),
    (23, 950),
    (24, 6_346),
    (27, 10),
    (29, 10),
    (32, 10),
];

const LENGTHS6: [(u8, usize); 20] = [
    (20, 2),
    (24, 5),
    (28, 70),
    (29, 300),
    (30, 60),
    (32, 1_150),
    (33, 200),
    (34, 170),
    (35, 100),
    (36, 400),
    (38, 150),
    (40, 900),
    (42, 200),
    (44, 1_150),
    (45, 150),
    (46, 250),
    (47, 260),
    (48, 4_463),
    (64, 15),
    (128, 5),
];

/// What registries hand out, by the first 12 bits.
const BLOCKS6: [u128; 8] = [0x200, 0x240, 0x260, 0x261, 0x262, 0x280, 0x2a0, 0x2c0];

/// Prefixes that a larger part of the table lies in are at most so long.
const COVERS: usize = 2;

fn length(rng: &mut Rng, shares: &[(u8, usize)]) -> u8 {
    let all = shares.iter().map(|s| s.1).sum();
    let mut at = rng.below(all);
    for &(len, share) in shares {
        if at < share {
            return len;
        }
        at -= share;
    }
    shares[0].0
}

fn table<A: Copy + Eq + Hash>(
    (seed, count, hops): (u64, usize, u32),
    shares: &[(u8, usize)],
    new: impl Fn(&mut Rng) -> A,
    cut: impl Fn(A, u8) -> A,
    within: impl Fn(&mut Rng, A, u8) -> A,
) -> Vec<(A, u8, u32)> {
    let mut rng = Rng::new(seed);
    let mut known = HashSet::with_capacity(count);
    let mut all: Vec<(A, u8, u32)> = Vec::with_capacity(count);
    while all.len() < count {
        let len = length(&mut rng, shares);
        let parent = (rng.below(COVERS) == 0 && !all.is_empty())
            .then(|| all[rng.below(all.len())])
            .filter(|p| p.1 < len);
        let addr = match parent {
            Some((addr, parent_len, _)) => within(&mut rng, addr, parent_len),
            None => new(&mut rng),
        };
        let addr = cut(addr, len);
        if known.insert((addr, len)) {
            all.push((addr, len, rng.below(hops as usize) as u32));
        }
    }
    all
}

/// So many IPv4 prefixes with one of `hops` next hops each, in no order.
pub fn ipv4(seed: u64, count: usize, hops: u32) -> Vec<(u32, u8, u32)> {
    let cut = |addr: u32, len: u8| addr & u32::MAX << (32 - u32::from(len));
    let unicast = |rng: &mut Rng| (1 + rng.below(223) as u32) << 24 | (rng.roll() as u32 >> 8);
    let within = |rng: &mut Rng, addr: u32, len: u8| addr | (rng.roll() as u32) >> len;
    table((seed, count, hops), &LENGTHS4, unicast, cut, within)
}

/// So many IPv6 prefixes with one of `hops` next hops each, in no order.
pub fn ipv6(seed: u64, count: usize, hops: u32) -> Vec<(u128, u8, u32)> {
    let cut = |addr: u128, len: u8| addr & u128::MAX << (128 - u32::from(len));
    let global = |rng: &mut Rng| BLOCKS6[rng.below(BLOCKS6.len())] << 116 | rng.wide() >> 12;
    let within = |rng: &mut Rng, addr: u128, len: u8| addr | rng.wide() >> len;
    table((seed, count, hops), &LENGTHS6, global, cut, within)
}

/// So many IPv6 prefixes of 40 to 128 bits that have nothing in common: the worst for a tree.
pub fn scattered6(seed: u64, count: usize, hops: u32) -> Vec<(u128, u8, u32)> {
    let mut rng = Rng::new(seed);
    let cut = |addr: u128, len: u8| addr & u128::MAX << (128 - u32::from(len));
    (0..count)
        .map(|_| {
            let len = 40 + rng.below(89) as u8;
            (cut(0x2 << 124 | rng.wide() >> 3, len), len, rng.below(hops as usize) as u32)
        })
        .collect()
}

/// Addresses to look up: each in a prefix that the table has.
pub fn addresses<A: Copy>(
    seed: u64,
    count: usize,
    table: &[(A, u8, u32)],
    host: impl Fn(A, u8, u128) -> A,
) -> Vec<A> {
    let mut rng = Rng::new(seed);
    let one = |_| {
        let (addr, len, _) = table[rng.below(table.len())];
        host(addr, len, rng.wide())
    };
    (0..count).map(one).collect()
}

/// An address of an IPv4 prefix.
pub fn host4(addr: u32, len: u8, random: u128) -> u32 {
    addr | (random as u32).checked_shr(len.into()).unwrap_or(0)
}

/// An address of an IPv6 prefix.
pub fn host6(addr: u128, len: u8, random: u128) -> u128 {
    addr | random.checked_shr(len.into()).unwrap_or(0)
}
