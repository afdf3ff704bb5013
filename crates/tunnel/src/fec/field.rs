//! Arithmetic in GF(2^8) with polynomial 0x11D: of single numbers by a table, of symbols in blocks of 64 bytes.
//!
//! Blocks have no table: the compiler makes vector instructions of their loops, with those that every processor of the
//! target has (SSE2 of x86-64), so nothing has to be detected and nothing is `unsafe`.

/// x^8 + x^4 + x^3 + x^2 + 1, without its highest term.
const POLYNOMIAL: u8 = 0x1D;

/// Products of all pairs.
static PRODUCTS: [[u8; 256]; 256] = products();

const fn products() -> [[u8; 256]; 256] {
    let mut table = [[0; 256]; 256];
    let mut a = 0;
    while a < 256 {
        // Row a by doubling and adding: a·2b = (a·b)·2, a·(2b + 1) = a·2b + a.
        let mut b = 1;
        while b < 256 {
            let even = double(table[a][b / 2]);
            table[a][b] = if b & 1 == 0 { even } else { even ^ a as u8 };
            b += 1;
        }
        a += 1;
    }
    table
}

/// a·x
const fn double(a: u8) -> u8 {
    a << 1 ^ if (a as i8) < 0 { POLYNOMIAL } else { 0 }
}

/// a·b
pub fn mul(a: u8, b: u8) -> u8 {
    PRODUCTS[usize::from(a)][usize::from(b)]
}

/// a^254; 0 has no inverse and gives 0.
pub fn inverse(a: u8) -> u8 {
    let (mut power, mut product) = (a, 1);
    for _ in 0..7 {
        power = mul(power, power);
        product = mul(product, power);
    }
    product
}

/// `to += factor · from`, for the short rows of a matrix.
pub fn mul_add(factor: u8, from: &[u8], to: &mut [u8]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t ^= mul(factor, *f));
}

/// Long enough that a block is worth its loops, short enough that its eight multiples stay in the nearest cache.
const BLOCK: usize = 64;

/// A block times x^0, x^1, … x^7. Each multiple of it is the sum of some of these.
struct Multiples([[u8; BLOCK]; 8]);

impl Multiples {
    #[inline(always)]
    fn of(block: &[u8; BLOCK]) -> Multiples {
        let mut powers = [*block; 8];
        for k in 1..8 {
            let (known, next) = powers.split_at_mut(k);
            next[0].iter_mut().zip(&known[k - 1]).for_each(|(to, from)| *to = double(*from));
        }
        Multiples(powers)
    }

    /// `to += factor · block`. The branches go the same way for all blocks of a symbol.
    #[inline(always)]
    fn add(&self, factor: u8, to: &mut [u8; BLOCK]) {
        let mut sum = *to;
        for (k, power) in self.0.iter().enumerate() {
            if factor >> k & 1 != 0 {
                sum.iter_mut().zip(power).for_each(|(sum, byte)| *sum ^= byte);
            }
        }
        *to = sum;
    }
}

/// `to[n] += factor(n) · from` for each of the symbols `to`. Bytes that one of the two does not have are left out.
pub fn add_multiples(from: &[u8], to: &mut [&mut [u8]], factor: impl Fn(usize) -> u8) {
    let (blocks, rest) = from.as_chunks::<BLOCK>();
    for (at, block) in blocks.iter().enumerate() {
        let multiples = Multiples::of(block);
        for (n, to) in to.iter_mut().enumerate() {
            let to = to.get_mut(at * BLOCK..).unwrap_or(&mut []);
            match to.first_chunk_mut() {
                Some(to) => multiples.add(factor(n), to),
                None => add_to_short(&multiples, factor(n), to),
            }
        }
    }
    if rest.is_empty() {
        return;
    }
    let mut block = [0; BLOCK];
    block[..rest.len()].copy_from_slice(rest);
    let multiples = Multiples::of(&block);
    for (n, to) in to.iter_mut().enumerate() {
        let to = to.get_mut(blocks.len() * BLOCK..).unwrap_or(&mut []);
        let len = to.len().min(rest.len());
        add_to_short(&multiples, factor(n), &mut to[..len]);
    }
}

/// Adds to less than a block.
#[cold]
fn add_to_short(multiples: &Multiples, factor: u8, to: &mut [u8]) {
    let mut sum = [0; BLOCK];
    sum[..to.len()].copy_from_slice(to);
    multiples.add(factor, &mut sum);
    to.copy_from_slice(&sum[..to.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_field_is_a_field() {
        for a in 1..=255u8 {
            assert_eq!((mul(a, inverse(a)), mul(a, 1), mul(a, 0)), (1, a, 0));
            assert_eq!(mul(a, 7), mul(7, a));
            assert_eq!(mul(a, 29 ^ 5), mul(a, 29) ^ mul(a, 5));
        }
        assert_eq!((mul(0x80, 2), inverse(0)), (POLYNOMIAL, 0));
    }

    proptest! {
        /// Blocks, what is left of a block, and symbols that are shorter than the source, as the table has it.
        #[test]
        fn symbols_are_multiplied_as_their_bytes_are(
            from in proptest::collection::vec(any::<u8>(), 0..200),
            to in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..5),
        ) {
            let mut expected = to.clone();
            expected.iter_mut().for_each(|(factor, t)| mul_add(*factor, &from, t));
            let factors: Vec<u8> = to.iter().map(|(factor, _)| *factor).collect();
            let mut sums = to.clone();
            let mut symbols: Vec<&mut [u8]> = sums.iter_mut().map(|(_, t)| t.as_mut_slice()).collect();
            add_multiples(&from, &mut symbols, |n| factors[n]);
            prop_assert_eq!(sums, expected);
        }
    }
}
