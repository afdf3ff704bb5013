//! Hashing of addresses on the packet path: a few multiplications where the standard library's
//! hasher takes a few dozen steps. Seeded per process, since neighbours choose their addresses.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;

/// A set of addresses.
pub type AddrSet = HashSet<IpAddr, AddrHash>;

/// Builds [`AddrHasher`]s, all with the process's seed.
#[derive(Debug, Clone, Copy)]
pub struct AddrHash(u64);

impl Default for AddrHash {
    fn default() -> AddrHash {
        static SEED: OnceLock<u64> = OnceLock::new();
        AddrHash(*SEED.get_or_init(|| RandomState::new().hash_one(0)))
    }
}

impl AddrHash {
    /// The hash of a key that is three words.
    #[inline]
    pub(crate) fn words(&self, words: [u64; 3]) -> u64 {
        let mut h = AddrHasher(self.0);
        words.into_iter().for_each(|w| h.mix(w));
        h.finish()
    }
}

impl BuildHasher for AddrHash {
    type Hasher = AddrHasher;

    #[inline]
    fn build_hasher(&self) -> AddrHasher {
        AddrHasher(self.0)
    }
}

/// Multiplies to 128 bits and folds.
#[derive(Debug, Clone, Copy)]
pub struct AddrHasher(u64);

impl AddrHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        let m = u128::from(self.0 ^ word) * u128::from(sag_model::flow::HASH_M1);
        self.0 = (m as u64) ^ (m >> 64) as u64;
    }
}

impl Hasher for AddrHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for c in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..c.len()].copy_from_slice(c);
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.mix(n as u64);
        self.mix((n >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::PortIdx;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn neighbours_of_one_subnet_spread() {
        let build = AddrHash::default();
        let v4 = (0..4096u32).map(|i| IpAddr::V4(Ipv4Addr::from_bits(0xC0A8_0000 + i)));
        let v6 = (0..4096u128).map(|i| IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | i << 16)));
        // A hash table takes its place from the low bits and its tag from the top seven.
        for part in [|h: u64| h & 0xFF, |h: u64| h >> 57] {
            for addrs in [v4.clone().collect::<Vec<_>>(), v6.clone().collect()] {
                let mut seen = vec![0u32; 256];
                for a in addrs {
                    seen[part(build.hash_one((PortIdx(3), a))) as usize] += 1;
                }
                seen.retain(|n| *n > 0);
                assert!(seen.len() >= 120, "{} places", seen.len());
                assert!(*seen.iter().max().unwrap_or(&0) < 80);
            }
        }
    }
}
