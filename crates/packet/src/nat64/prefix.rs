//! IPv4 addresses in IPv6 ones (RFC 6052).

use std::net::{Ipv4Addr, Ipv6Addr};

/// A prefix behind which IPv6 addresses stand for IPv4 ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix64 {
    bits: u128,
    len: u8,
}

impl Prefix64 {
    /// 64:ff9b::/96.
    pub const WELL_KNOWN: Prefix64 = Prefix64 { bits: 0x0064_ff9b << 96, len: 96 };

    /// Lengths that a prefix may have (section 2.2).
    pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

    /// Bits 64 to 71 of every such address, which are zero (section 2.2).
    const U: u128 = 0xFF << 56;

    /// A network and its length. `None`: no prefix of RFC 6052 has this length, or its bits 64 to 71 are not zero.
    pub fn new(network: Ipv6Addr, len: u8) -> Option<Prefix64> {
        let mask = u128::MAX.checked_shl(128 - u32::from(len))?;
        let bits = network.to_bits() & mask;
        (Prefix64::LENGTHS.contains(&len) && bits & Prefix64::U == 0).then_some(Prefix64 { bits, len })
    }

    /// Bits of the prefix.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Always false: there is no empty prefix.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether it is the prefix behind which private addresses are not translated (section 3.1).
    pub fn is_well_known(&self) -> bool {
        *self == Prefix64::WELL_KNOWN
    }

    /// Whether an address is in it.
    #[inline]
    pub fn contains(&self, addr: Ipv6Addr) -> bool {
        (addr.to_bits() ^ self.bits) >> (128 - u32::from(self.len)) == 0
    }

    /// The address that stands for an IPv4 one (section 2.3).
    #[inline]
    pub fn embed(&self, addr: Ipv4Addr) -> Ipv6Addr {
        let v4 = u128::from(addr.to_bits());
        let bits = match self.len {
            96 => v4,
            // The octet from bit 64 on stays free: what of the address is in front of it, and behind it.
            len => {
                let whole = v4 << (96 - u32::from(len));
                let (high, low) = (whole >> 64 << 64, whole & u128::from(u64::MAX));
                high | low >> 8
            }
        };
        Ipv6Addr::from_bits(self.bits | bits)
    }

    /// The IPv4 address for which an address of the prefix stands; the suffix says nothing. `None`: it is not in the prefix.
    #[inline]
    pub fn extract(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.contains(addr) {
            return None;
        }
        let bits = addr.to_bits();
        let v4 = match self.len {
            96 => bits,
            len => {
                let (high, low) = (bits >> 64 << 64, (bits << 8) & u128::from(u64::MAX));
                (high | low) >> (96 - u32::from(len))
            }
        };
        Some(Ipv4Addr::from_bits(v4 as u32))
    }
}

/// Networks that are not global (RFC 6052 section 3.1 names RFC 1918 and RFC 5735 section 3; RFC 6598 came later).
const NOT_GLOBAL: [(u32, u32); 13] = [
    net(0, 0, 0, 8),
    net(10, 0, 0, 8),
    net(100, 64, 0, 10),
    net(127, 0, 0, 8),
    net(169, 254, 0, 16),
    net(172, 16, 0, 12),
    net(192, 0, 0, 24),
    net(192, 0, 2, 24),
    net(192, 168, 0, 16),
    net(198, 18, 0, 15),
    net(198, 51, 100, 24),
    net(203, 0, 113, 24),
    net(224, 0, 0, 3),
];

/// Network and mask.
const fn net(a: u32, b: u32, c: u32, len: u32) -> (u32, u32) {
    (a << 24 | b << 16 | c << 8, u32::MAX << (32 - len))
}

/// Whether the well-known prefix may stand in front of an address.
pub fn is_global(addr: Ipv4Addr) -> bool {
    let bits = addr.to_bits();
    !NOT_GLOBAL.iter().any(|(network, mask)| bits & mask == *network)
}

/// Whether an address is one that packets are forwarded to and from, be it private: not of this network, loopback, link,
/// multicast or what is reserved above (RFC 1812 section 5.3.7, RFC 3927 section 2.7).
pub fn is_host(addr: Ipv4Addr) -> bool {
    let first = addr.octets()[0];
    first != 0 && first < 224 && !addr.is_loopback() && !addr.is_link_local()
}
