//! A small generator of pseudo-random numbers (SplitMix64), the same everywhere.

/// A generator of pseudo-random numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator that a seed stands for.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next 128 bits.
    pub fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// Below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Below `n`, small numbers much more often than large ones.
    pub fn skewed(&mut self, n: usize) -> usize {
        let limit = self.below(n) + 1;
        self.below(limit)
    }

    /// An item, chosen with a probability in proportion to its weight.
    ///
    /// # Panics
    /// If the table is empty or all its weights are 0.
    pub fn weighted<'a, T>(&mut self, table: &'a [(u32, T)]) -> &'a T {
        let total: u32 = table.iter().map(|(w, _)| w).sum();
        let mut at = self.below(total as usize) as u32;
        for (weight, item) in table {
            if at < *weight {
                return item;
            }
            at -= weight;
        }
        &table[0].1
    }
}
