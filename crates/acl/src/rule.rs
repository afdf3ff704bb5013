//! Rules and keys, and the linear scan that defines what a match is.

use crate::addr::Addr;

/// Why a prefix or a port range cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The prefix length is larger than an address.
    #[error("prefix length {len} is over {max}: use a length from 0 to {max}")]
    PrefixLength {
        /// The length given.
        len: u8,
        /// Bits of an address of the family.
        max: u8,
    },
    /// The first port is above the last.
    #[error("port range {lo}/{hi} runs backwards: put the lower port first")]
    PortOrder {
        /// The first port given.
        lo: u16,
        /// The last port given.
        hi: u16,
    },
}

/// Protocols whose header starts with a source and a destination port: TCP, UDP, SCTP, UDP-Lite.
pub const fn proto_has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 132 | 136)
}

/// An address prefix; bits beyond the length are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix<A> {
    addr: A,
    len: u8,
}

impl<A: Addr> Prefix<A> {
    /// Every address of the family.
    pub const ANY: Self = Prefix { addr: A::ZERO, len: 0 };

    /// The prefix of the first `len` bits of `addr`; the other bits are cleared.
    ///
    /// # Errors
    /// [`RuleError::PrefixLength`] if `len` is larger than [`Addr::BITS`].
    pub fn new(addr: A, len: u8) -> Result<Self, RuleError> {
        if len > A::BITS {
            return Err(RuleError::PrefixLength { len, max: A::BITS });
        }
        Ok(Prefix { addr: addr & A::prefix_mask(len), len })
    }

    /// The network address.
    pub fn addr(&self) -> A {
        self.addr
    }

    /// The length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// The first address, which is the network address.
    pub fn first(&self) -> A {
        self.addr
    }

    /// The last address.
    pub fn last(&self) -> A {
        self.addr | !A::prefix_mask(self.len)
    }

    /// Whether the address is in the prefix.
    pub fn contains(&self, addr: A) -> bool {
        addr & A::prefix_mask(self.len) == self.addr
    }

    /// Whether every address of `other` is in this prefix.
    pub fn covers(&self, other: &Self) -> bool {
        self.len <= other.len && self.contains(other.addr)
    }
}

/// Ports from `lo` to `hi`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortRange {
    lo: u16,
    hi: u16,
}

impl PortRange {
    /// Every port, and packets without ports.
    pub const ANY: Self = PortRange { lo: 0, hi: u16::MAX };

    /// The ports from `lo` to `hi`, both included.
    ///
    /// # Errors
    /// [`RuleError::PortOrder`] if `lo` is above `hi`.
    pub fn new(lo: u16, hi: u16) -> Result<Self, RuleError> {
        if lo > hi { Err(RuleError::PortOrder { lo, hi }) } else { Ok(PortRange { lo, hi }) }
    }

    /// One port.
    pub const fn single(port: u16) -> Self {
        PortRange { lo: port, hi: port }
    }

    /// The first port.
    pub const fn lo(&self) -> u16 {
        self.lo
    }

    /// The last port.
    pub const fn hi(&self) -> u16 {
        self.hi
    }

    /// Whether it holds every port, and so does not restrict packets to those that have ports.
    pub const fn is_any(&self) -> bool {
        self.lo == 0 && self.hi == u16::MAX
    }

    /// Whether the port is in the range.
    pub const fn contains(&self, port: u16) -> bool {
        self.lo <= port && port <= self.hi
    }
}

/// What a packet must look like to match.
///
/// A rule that restricts a port matches only packets that have ports. So one that restricts a port
/// and names a protocol without ports (ICMP, GRE, …) matches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule<A> {
    /// IP protocol number; `None` is every protocol.
    pub proto: Option<u8>,
    /// Source addresses.
    pub src: Prefix<A>,
    /// Destination addresses.
    pub dst: Prefix<A>,
    /// Source ports.
    pub sport: PortRange,
    /// Destination ports.
    pub dport: PortRange,
}

impl<A: Addr> Rule<A> {
    /// Matches every packet of the family.
    pub const ANY: Self = Rule {
        proto: None,
        src: Prefix::ANY,
        dst: Prefix::ANY,
        sport: PortRange::ANY,
        dport: PortRange::ANY,
    };

    /// Whether the rule matches a packet.
    pub fn matches(&self, key: &Key<A>) -> bool {
        self.proto.is_none_or(|p| p == key.proto())
            && (key.has_ports() || !self.needs_ports())
            && self.src.contains(key.src)
            && self.dst.contains(key.dst)
            && self.sport.contains(key.sport)
            && self.dport.contains(key.dport)
    }

    /// Whether the rule matches only packets with ports.
    pub fn needs_ports(&self) -> bool {
        !(self.sport.is_any() && self.dport.is_any())
    }

    /// Whether no packet can match, because the rule restricts ports of a protocol that has none.
    pub fn is_unmatchable(&self) -> bool {
        self.needs_ports() && self.proto.is_some_and(|p| !proto_has_ports(p))
    }
}

/// The five-tuple of a packet. A packet without ports carries port 0 and a flag that says so; the
/// constructors set both, so a key never contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    /// Protocol in the low byte, [`NO_PORTS`] above it.
    pub(crate) class: u16,
}

/// The flag in [`Key::class`] of a packet without ports.
pub(crate) const NO_PORTS: u16 = 0x100;

impl<A: Addr> Key<A> {
    /// The key of a packet; ports are ignored if the protocol has none.
    #[inline]
    pub fn new(proto: u8, src: A, dst: A, sport: u16, dport: u16) -> Self {
        if proto_has_ports(proto) {
            Key { src, dst, sport, dport, class: u16::from(proto) }
        } else {
            Key::without_ports(proto, src, dst)
        }
    }

    /// The key of a packet whose ports cannot be read: a later fragment, an ICMP or GRE packet. No rule
    /// that restricts a port matches it, whatever its protocol.
    #[inline]
    pub fn without_ports(proto: u8, src: A, dst: A) -> Self {
        Key { src, dst, sport: 0, dport: 0, class: u16::from(proto) | NO_PORTS }
    }

    /// IP protocol number.
    pub fn proto(&self) -> u8 {
        (self.class & 0xff) as u8
    }

    /// Whether the packet has ports.
    pub fn has_ports(&self) -> bool {
        self.class & NO_PORTS == 0
    }

    /// Source address.
    pub fn src(&self) -> A {
        self.src
    }

    /// Destination address.
    pub fn dst(&self) -> A {
        self.dst
    }

    /// Source port; 0 without ports.
    pub fn sport(&self) -> u16 {
        self.sport
    }

    /// Destination port; 0 without ports.
    pub fn dport(&self) -> u16 {
        self.dport
    }
}

/// The index that stands for "no rule matches".
pub const NO_MATCH: u32 = u32::MAX;

/// The index of the first rule that matches: the definition that every faster method is checked against.
pub fn linear<A: Addr>(rules: &[Rule<A>], key: &Key<A>) -> Option<u32> {
    rules.iter().position(|r| r.matches(key)).map(|i| i as u32)
}
