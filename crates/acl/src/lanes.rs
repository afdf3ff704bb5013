//! Eight numbers at once: the few vector operations that a leaf block needs.
//!
//! On x86-64 they are SSE2, which every such machine has, so that no part of a comparison falls back
//! to one number at a time; elsewhere plain arrays, left to the compiler. Comparisons are signed (all
//! that SSE2 has) and give all ones for true.

pub const LANES: usize = 8;

#[cfg(target_arch = "x86_64")]
pub use sse2::{Lanes16, Lanes32};

#[cfg(not(target_arch = "x86_64"))]
pub use portable::{Lanes16, Lanes32};

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use safe_arch::*;

    use super::LANES;

    #[derive(Clone, Copy)]
    pub struct Lanes32(m128i, m128i);

    impl Lanes32 {
        #[inline(always)]
        pub fn splat(n: i32) -> Self {
            let all = set_splat_i32_m128i(n);
            Lanes32(all, all)
        }

        #[inline(always)]
        pub fn load(a: &[i32; LANES]) -> Self {
            Lanes32(
                set_reversed_i32_m128i(a[0], a[1], a[2], a[3]),
                set_reversed_i32_m128i(a[4], a[5], a[6], a[7]),
            )
        }

        #[inline(always)]
        fn zip(self, other: Self, op: impl Fn(m128i, m128i) -> m128i) -> Self {
            Lanes32(op(self.0, other.0), op(self.1, other.1))
        }

        #[inline(always)]
        pub fn sub(self, other: Self) -> Self {
            self.zip(other, sub_i32_m128i)
        }

        #[inline(always)]
        pub fn and(self, other: Self) -> Self {
            self.zip(other, bitand_m128i)
        }

        #[inline(always)]
        pub fn or(self, other: Self) -> Self {
            self.zip(other, bitor_m128i)
        }

        #[inline(always)]
        pub fn xor(self, other: Self) -> Self {
            self.zip(other, bitxor_m128i)
        }

        #[inline(always)]
        pub fn above(self, other: Self) -> Self {
            self.zip(other, cmp_gt_mask_i32_m128i)
        }

        #[inline(always)]
        pub fn equal(self, other: Self) -> Self {
            self.zip(other, cmp_eq_mask_i32_m128i)
        }

        /// The results of comparisons, half as wide.
        #[inline(always)]
        pub fn narrow(self) -> Lanes16 {
            Lanes16(pack_i32_to_i16_m128i(self.0, self.1))
        }
    }

    #[derive(Clone, Copy)]
    pub struct Lanes16(m128i);

    impl Lanes16 {
        #[inline(always)]
        pub fn splat(n: i16) -> Self {
            Lanes16(set_splat_i16_m128i(n))
        }

        #[inline(always)]
        pub fn load(a: &[i16; LANES]) -> Self {
            Lanes16(set_reversed_i16_m128i(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]))
        }

        #[inline(always)]
        pub fn sub(self, other: Self) -> Self {
            Lanes16(sub_i16_m128i(self.0, other.0))
        }

        #[inline(always)]
        pub fn and(self, other: Self) -> Self {
            Lanes16(bitand_m128i(self.0, other.0))
        }

        #[inline(always)]
        pub fn or(self, other: Self) -> Self {
            Lanes16(bitor_m128i(self.0, other.0))
        }

        /// Without the lanes where `other` is set.
        #[inline(always)]
        pub fn except(self, other: Self) -> Self {
            Lanes16(bitandnot_m128i(other.0, self.0))
        }

        #[inline(always)]
        pub fn above(self, other: Self) -> Self {
            Lanes16(cmp_gt_mask_i16_m128i(self.0, other.0))
        }

        #[inline(always)]
        pub fn equal(self, other: Self) -> Self {
            Lanes16(cmp_eq_mask_i16_m128i(self.0, other.0))
        }

        /// The results of comparisons, lane 0 in bit 0.
        #[inline(always)]
        pub fn bits(self) -> u32 {
            move_mask_i8_m128i(pack_i16_to_i8_m128i(self.0, zeroed_m128i())) as u32
        }
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::LANES;

    macro_rules! lanes {
        ($name:ident, $int:ty) => {
            #[derive(Clone, Copy)]
            pub struct $name([$int; LANES]);

            impl $name {
                #[inline(always)]
                pub fn splat(n: $int) -> Self {
                    $name([n; LANES])
                }

                #[inline(always)]
                pub fn load(a: &[$int; LANES]) -> Self {
                    $name(*a)
                }

                #[inline(always)]
                fn zip(self, other: Self, op: impl Fn($int, $int) -> $int) -> Self {
                    $name(std::array::from_fn(|i| op(self.0[i], other.0[i])))
                }

                #[inline(always)]
                pub fn sub(self, other: Self) -> Self {
                    self.zip(other, <$int>::wrapping_sub)
                }

                #[inline(always)]
                pub fn and(self, other: Self) -> Self {
                    self.zip(other, |a, b| a & b)
                }

                #[inline(always)]
                pub fn or(self, other: Self) -> Self {
                    self.zip(other, |a, b| a | b)
                }

                #[inline(always)]
                pub fn above(self, other: Self) -> Self {
                    self.zip(other, |a, b| -<$int>::from(a > b))
                }

                #[inline(always)]
                pub fn equal(self, other: Self) -> Self {
                    self.zip(other, |a, b| -<$int>::from(a == b))
                }
            }
        };
    }

    lanes!(Lanes32, i32);
    lanes!(Lanes16, i16);

    impl Lanes32 {
        #[inline(always)]
        pub fn xor(self, other: Self) -> Self {
            self.zip(other, |a, b| a ^ b)
        }

        /// The results of comparisons, half as wide.
        #[inline(always)]
        pub fn narrow(self) -> Lanes16 {
            Lanes16(self.0.map(|n| n as i16))
        }
    }

    impl Lanes16 {
        /// Without the lanes where `other` is set.
        #[inline(always)]
        pub fn except(self, other: Self) -> Self {
            self.zip(other, |a, b| a & !b)
        }

        /// The results of comparisons, lane 0 in bit 0.
        #[inline(always)]
        pub fn bits(self) -> u32 {
            self.0.iter().enumerate().map(|(i, &n)| u32::from(n != 0) << i).sum()
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use proptest::prelude::*;

    use super::{portable, sse2};

    proptest! {
        #[test]
        fn both_ways_agree(
            a: [i32; 8], b: [i32; 8], c: [i16; 8], d: [i16; 8], n: i32, m: i16, same in 0usize..8
        ) {
            let (mut b, mut d) = (b, d);
            b[same] = a[same];
            d[same] = c[same];
            macro_rules! results {
                ($way:ident) => {{
                    use $way::{Lanes16, Lanes32};
                    let (a, b) = (Lanes32::load(&a), Lanes32::load(&b));
                    let (c, d) = (Lanes16::load(&c), Lanes16::load(&d));
                    let wide = Lanes32::splat(n).sub(a).above(b).or(a.xor(b).and(b).equal(a)).or(a.equal(b));
                    let narrow = Lanes16::splat(m).sub(c).above(d).or(c.and(d).equal(c)).or(c.equal(d));
                    (wide.narrow().bits(), narrow.bits(), narrow.except(wide.narrow()).bits())
                }};
            }
            prop_assert_eq!(results!(sse2), results!(portable));
        }
    }
}
