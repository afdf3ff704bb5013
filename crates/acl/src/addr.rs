//! The address types of the two IP versions.

use std::fmt::Debug;
use std::hash::Hash;
use std::ops::{BitAnd, BitOr, Not};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u128 {}
}

/// An IP address as a number, first octet highest: `u32` for IPv4, `u128` for IPv6. Sealed.
pub trait Addr:
    sealed::Sealed
    + Copy
    + Debug
    + Eq
    + Ord
    + Hash
    + Send
    + Sync
    + 'static
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
{
    /// The unspecified address.
    const ZERO: Self;
    /// Bits of an address: 32 or 128.
    const BITS: u8;

    /// The netmask of a prefix length; lengths above [`Addr::BITS`] count as that.
    fn prefix_mask(len: u8) -> Self;
    /// The low [`Addr::BITS`] bits of a number.
    fn from_u128(n: u128) -> Self;
    /// The address as a number.
    fn to_u128(self) -> u128;
}

impl Addr for u32 {
    const ZERO: u32 = 0;
    const BITS: u8 = 32;

    fn prefix_mask(len: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
    }

    fn from_u128(n: u128) -> u32 {
        n as u32
    }

    fn to_u128(self) -> u128 {
        self.into()
    }
}

impl Addr for u128 {
    const ZERO: u128 = 0;
    const BITS: u8 = 128;

    fn prefix_mask(len: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
    }

    fn from_u128(n: u128) -> u128 {
        n
    }

    fn to_u128(self) -> u128 {
        self
    }
}
