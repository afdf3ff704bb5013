//! Translation of IPv6 prefixes, RFC 6296: one prefix for another, and a word of the address adjusted so that no checksum
//! changes.

use std::net::Ipv6Addr;

/// A pair of prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Npt {
    inside: u128,
    external: u128,
    /// Bits of both prefixes, the shorter one extended by zeros (section 3.7).
    len: u8,
    /// What a word of an inside address gets added, in ones' complement.
    adjustment: u16,
}

/// The longest prefix: hosts choose the bits behind it.
pub const LONGEST: u8 = 64;

impl Npt {
    /// Of an inside and an external prefix. Each is a network and its length, at most [`LONGEST`].
    pub fn new(inside: (Ipv6Addr, u8), external: (Ipv6Addr, u8)) -> Npt {
        let len = inside.1.max(external.1).min(LONGEST);
        let [inside, external] = [inside, external].map(|(net, own)| net.to_bits() & mask(own));
        let adjustment = add(sum(inside), !sum(external));
        Npt { inside, external, len, adjustment }
    }

    /// Bits of the prefixes.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether an address is in the inside prefix.
    pub fn has_inside(&self, addr: Ipv6Addr) -> bool {
        addr.to_bits() & mask(self.len) == self.inside
    }

    /// Whether an address is in the external prefix.
    pub fn has_external(&self, addr: Ipv6Addr) -> bool {
        addr.to_bits() & mask(self.len) == self.external
    }

    /// The external address of one that is in the inside prefix. `None`: it has none (sections 3.5 and 3.7).
    pub fn outbound(&self, inside: Ipv6Addr) -> Option<Ipv6Addr> {
        self.map(inside, self.external, self.adjustment)
    }

    /// The inside address of one that is in the external prefix.
    pub fn inbound(&self, external: Ipv6Addr) -> Option<Ipv6Addr> {
        self.map(external, self.inside, !self.adjustment)
    }

    fn map(&self, addr: Ipv6Addr, prefix: u128, adjustment: u16) -> Option<Ipv6Addr> {
        let mut words = Ipv6Addr::from_bits(addr.to_bits() & !mask(self.len) | prefix).segments();
        let word = if self.len <= 48 {
            // The subnet. All ones have no inverse.
            words.get_mut(3).filter(|w| **w != u16::MAX)?
        } else {
            // The anycast address of the subnet's routers is no host's.
            let host = words.get_mut(4..).filter(|host| host.iter().any(|w| *w != 0))?;
            host.iter_mut().find(|w| **w != u16::MAX)?
        };
        *word = match add(*word, adjustment) {
            u16::MAX => 0,
            other => other,
        };
        Some(Ipv6Addr::from(words))
    }
}

const fn mask(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - if len > 128 { 128 } else { len }) }
}

/// Ones' complement sum.
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

fn sum(bits: u128) -> u16 {
    Ipv6Addr::from_bits(bits).segments().into_iter().fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(a: &str) -> Ipv6Addr {
        a.parse().unwrap()
    }

    fn npt(inside: &str, external: &str) -> Npt {
        let prefix = |p: &str| {
            let (net, len) = p.split_once('/').unwrap();
            (addr(net), len.parse().unwrap())
        };
        Npt::new(prefix(inside), prefix(external))
    }

    /// Section 3.6, with erratum 3033.
    #[test]
    fn the_example_of_the_rfc() {
        let n = npt("fd01:203:405::/48", "2001:db8:1::/48");
        assert_eq!(n.adjustment, 0xD54F);
        let (inside, external) = (addr("fd01:203:405:1::1234"), addr("2001:db8:1:d550::1234"));
        assert_eq!((n.outbound(inside), n.inbound(external)), (Some(external), Some(inside)));
        assert!(n.has_inside(inside) && n.has_external(external));
        assert!(!n.has_inside(external) && !n.has_external(inside));
    }

    /// Every address keeps its sum, and comes back as it was; no two have the same external one.
    #[test]
    fn the_mapping_is_neutral_and_has_an_inverse() {
        let pairs = [
            npt("fd01:203:405::/48", "2001:db8:1::/48"),
            npt("fd00::/40", "2001:db8:ff00::/40"),
            // A shorter one is extended with zeros.
            npt("fd01:203:405::/48", "2001:db8:1:aa00::/56"),
            npt("fd01:203:405:600::/56", "2001:db8:1::/48"),
            npt("fd01:203:405:607::/64", "2001:db8:1:ffff::/64"),
            // Of equal sums: nothing is adjusted.
            npt("fd01:1:2::/48", "fd01:2:1::/48"),
        ];
        for n in pairs {
            let mut seen = std::collections::HashSet::new();
            for w in 0..=u16::MAX {
                let word = if n.len() <= 48 { 3 } else { 4 };
                let mut words = Ipv6Addr::from_bits(n.inside).segments();
                (words[word], words[7]) = (w, 0x1234);
                let inside = Ipv6Addr::from(words);
                let external = match n.outbound(inside) {
                    Some(e) => e,
                    None => {
                        assert!(w == u16::MAX && n.len() <= 48, "{inside}");
                        continue;
                    }
                };
                assert!(n.has_inside(inside) && n.has_external(external), "{inside} {external}");
                let zero = |s: u16| if s == u16::MAX { 0 } else { s };
                assert_eq!(zero(sum(inside.to_bits())), zero(sum(external.to_bits())), "{inside} {external}");
                assert_eq!(n.inbound(external), Some(inside), "{external}");
                assert!(seen.insert(external), "{external} twice");
            }
        }
    }

    #[test]
    fn addresses_that_have_no_other() {
        let n = npt("fd01:203:405::/48", "2001:db8:1::/48");
        assert_eq!(n.outbound(addr("fd01:203:405:ffff::1")), None);
        assert_eq!(n.inbound(addr("2001:db8:1:ffff::1")), None);
        let n = npt("fd01:203:405:6::/64", "2001:db8:1:7::/64");
        assert_eq!(n.outbound(addr("fd01:203:405:6::")), None, "anycast of routers");
        assert_eq!(n.outbound(addr("fd01:203:405:6:ffff:ffff:ffff:ffff")), None);
        // The first word that is not all ones.
        let external = n.outbound(addr("fd01:203:405:6:ffff:2::3")).unwrap();
        assert_eq!(external.segments()[..5], [0x2001, 0xdb8, 1, 7, 0xffff]);
        assert_eq!(external.segments()[6..], [0, 3]);
        assert_eq!(n.inbound(external), Some(addr("fd01:203:405:6:ffff:2::3")));
    }

    /// What xt_NPT of Linux does (net/ipv6/netfilter/ip6t_NPT.c) gives the same addresses.
    #[test]
    fn as_linux_does() {
        // ip6tables -t mangle -A POSTROUTING -j SNPT --src-pfx fd01:203:405::/48 --dst-pfx 2001:db8:1::/48
        let n = npt("fd01:203:405::/48", "2001:db8:1::/48");
        for (inside, external) in [
            ("fd01:203:405::1", "2001:db8:1:d54f::1"),
            ("fd01:203:405:2ab0::1", "2001:db8:1::1"),
            ("fd01:203:405:2ab1::1", "2001:db8:1:1::1"),
            ("fd01:203:405:fffe::1", "2001:db8:1:d54e::1"),
        ] {
            assert_eq!(n.outbound(addr(inside)), Some(addr(external)), "{inside}");
        }
    }
}
