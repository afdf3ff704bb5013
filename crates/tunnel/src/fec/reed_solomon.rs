//! Reed-Solomon erasure codes over GF(2^8) with polynomial 0x11D: a Vandermonde matrix, made systematic by the inverse of
//! its upper square; its lower rows make the repair symbols. The numbers are those of the crate `reed-solomon-erasure`,
//! with which earlier versions were built.

use super::field::{add_multiples, inverse, mul, mul_add};
use super::{MAX_REPAIRS, MAX_SOURCES};

/// A square matrix of at most so many rows, on the stack.
struct Square<const MAX: usize> {
    rows: [[u8; MAX]; MAX],
    size: usize,
}

impl<const MAX: usize> Square<MAX> {
    fn identity(size: usize) -> Self {
        let mut rows = [[0; MAX]; MAX];
        rows.iter_mut().enumerate().take(size).for_each(|(i, r)| r[i] = 1);
        Square { rows, size }
    }

    /// By Gauss and Jordan. `None`: it has no inverse.
    fn inverted(mut self) -> Option<Self> {
        let mut result = Square::identity(self.size);
        for column in 0..self.size {
            let pivot = (column..self.size).find(|r| self.rows[*r][column] != 0)?;
            self.rows.swap(column, pivot);
            result.rows.swap(column, pivot);
            let factor = inverse(self.rows[column][column]);
            for matrix in [&mut self.rows, &mut result.rows] {
                matrix[column].iter_mut().for_each(|v| *v = mul(*v, factor));
            }
            for row in (0..self.size).filter(|r| *r != column) {
                let factor = self.rows[row][column];
                for matrix in [&mut self.rows, &mut result.rows] {
                    let from = matrix[column];
                    mul_add(factor, &from, &mut matrix[row]);
                }
            }
        }
        Some(result)
    }
}

/// The code of a number of source and repair symbols.
#[derive(Debug)]
pub struct ReedSolomon {
    sources: usize,
    /// For each repair symbol the factors of the source symbols.
    factors: Vec<[u8; MAX_SOURCES]>,
}

impl ReedSolomon {
    /// `None`: a number is 0 or above its limit.
    pub fn new(sources: usize, repairs: usize) -> Option<ReedSolomon> {
        if !(1..=MAX_SOURCES).contains(&sources) || !(1..=MAX_REPAIRS).contains(&repairs) {
            return None;
        }
        // Row r of the Vandermonde matrix has the powers r^0, r^1, …; 0^0 is 1.
        let row = |r: usize| {
            let mut powers = [0; MAX_SOURCES];
            let mut power = 1;
            for p in powers.iter_mut().take(sources) {
                *p = power;
                power = mul(power, r as u8);
            }
            powers
        };
        let mut upper = Square { rows: [[0; MAX_SOURCES]; MAX_SOURCES], size: sources };
        upper.rows.iter_mut().enumerate().take(sources).for_each(|(r, to)| *to = row(r));
        let upper = upper.inverted()?;
        let factors = (sources..sources + repairs).map(|r| {
            let mut product = [0; MAX_SOURCES];
            for (factor, from) in row(r).iter().zip(&upper.rows).take(sources) {
                mul_add(*factor, from, &mut product);
            }
            product
        });
        Some(ReedSolomon { sources, factors: factors.collect() })
    }

    /// Adds source symbol `index` to the repair symbols.
    pub fn add(&self, index: usize, source: &[u8], repairs: &mut [&mut [u8]]) {
        add_multiples(source, repairs, |r| self.factor(r, index));
    }

    /// The factor of a source symbol in a repair symbol; 0 where there is no such symbol.
    fn factor(&self, repair: usize, source: usize) -> u8 {
        self.factors.get(repair).and_then(|f| f.get(source)).copied().unwrap_or(0)
    }

    /// Computes the source symbols that are missing. `shards`: the source symbols, then the repair symbols, all of one
    /// length, and whether each is present. The repair symbols are used up. False: too few are present.
    pub fn recover(&self, shards: &mut [(&mut [u8], bool)]) -> bool {
        let Some((sources, repairs)) = shards.split_at_mut_checked(self.sources) else { return false };
        // The n-th missing source symbol is computed with the n-th repair symbol that is there.
        let mut lost = [0; MAX_REPAIRS];
        let mut sums: [&mut [u8]; MAX_REPAIRS] = Default::default();
        let mut rows = [0; MAX_REPAIRS];
        let mut count = 0;
        let mut there = repairs.iter_mut().enumerate().filter(|(_, (_, there))| *there);
        for (at, _) in sources.iter().enumerate().filter(|(_, (_, there))| !there) {
            let Some((row, (symbol, _))) = there.next().filter(|_| count < MAX_REPAIRS) else { return false };
            (lost[count], rows[count], sums[count]) = (at, row, symbol);
            count += 1;
        }
        let (lost, rows, sums) = (&lost[..count], &rows[..count], &mut sums[..count]);
        let mut matrix = Square { rows: [[0; MAX_REPAIRS]; MAX_REPAIRS], size: count };
        for (values, row) in matrix.rows.iter_mut().zip(rows) {
            values.iter_mut().zip(lost).for_each(|(value, at)| *value = self.factor(*row, *at));
        }
        let Some(inverse) = matrix.inverted() else { return false };
        // What is left of the repair symbols is what the missing symbols have added.
        for (at, (symbol, _)) in sources.iter().enumerate().filter(|(_, (_, there))| *there) {
            add_multiples(symbol, sums, |n| self.factor(rows[n], at));
        }
        let mut missing: [&mut [u8]; MAX_REPAIRS] = Default::default();
        for (to, (symbol, there)) in missing.iter_mut().zip(sources.iter_mut().filter(|(_, there)| !there)) {
            symbol.fill(0);
            *there = true;
            *to = symbol;
        }
        for (n, sum) in sums.iter().enumerate() {
            add_multiples(sum, &mut missing[..count], |m| inverse.rows[m][n]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factors of `reed-solomon-erasure` 6.0: an end of an earlier version understands them.
    #[test]
    fn the_numbers_are_those_of_earlier_versions() {
        let factors = |sources, repairs| -> Vec<Vec<u8>> {
            let code = ReedSolomon::new(sources, repairs).unwrap();
            code.factors.iter().map(|f| f[..sources].to_vec()).collect()
        };
        assert_eq!(factors(3, 2), [[1, 1, 1], [15, 8, 6]]);
        let three = [
            [129, 150, 175, 184, 210, 196, 254, 232, 3, 2],
            [150, 129, 184, 175, 196, 210, 232, 254, 2, 3],
            [191, 214, 98, 10, 6, 111, 223, 183, 5, 4],
        ];
        assert_eq!(factors(10, 3), three);
        let last = [
            114, 246, 73, 43, 21, 127, 5, 196, 147, 105, 215, 224, 36, 159, 212, 169, 8, 50, 164, 211, 161,
            54, 128, 115, 234, 137, 239, 206, 153, 75, 78, 176,
        ];
        assert_eq!(factors(32, 8)[7], last);
    }

    #[test]
    fn any_so_many_symbols_give_the_others() {
        for (sources, repairs) in [(1, 2), (2, 2), (5, 3), (MAX_SOURCES, MAX_REPAIRS)] {
            let code = ReedSolomon::new(sources, repairs).unwrap();
            let data: Vec<Vec<u8>> =
                (0..sources).map(|s| (0..40).map(|i| (s * 89 + i * 31 + i * i) as u8).collect()).collect();
            let mut parity = vec![vec![0; 40]; repairs];
            for (i, d) in data.iter().enumerate() {
                let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
                code.add(i, d, &mut out);
            }
            let all: Vec<Vec<u8>> = data.iter().chain(&parity).cloned().collect();
            for first in 0..sources + repairs {
                for lost in 1..=repairs + 1 {
                    let mut shards = all.clone();
                    let gone: Vec<usize> = (0..lost).map(|n| (first + n * 3) % (sources + repairs)).collect();
                    let mut distinct = gone.clone();
                    distinct.sort_unstable();
                    distinct.dedup();
                    let mut marked: Vec<(&mut [u8], bool)> = shards
                        .iter_mut()
                        .enumerate()
                        .map(|(i, s)| (s.as_mut_slice(), !gone.contains(&i)))
                        .collect();
                    marked.iter_mut().filter(|(_, there)| !there).for_each(|(s, _)| s.fill(0xEE));
                    let done = code.recover(&mut marked);
                    let missing = distinct.iter().any(|g| *g < sources);
                    assert_eq!(
                        done,
                        distinct.len() <= repairs || !missing,
                        "{sources}+{repairs} without {distinct:?}"
                    );
                    if done {
                        assert_eq!(shards[..sources], data, "{sources}+{repairs} without {distinct:?}");
                    }
                }
            }
        }
        assert!(ReedSolomon::new(0, 1).is_none() && ReedSolomon::new(1, MAX_REPAIRS + 1).is_none());
    }
}
