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

/// TCP flags that a rule looks at, and those of them that must be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// The flags that the rule looks at.
    pub mask: u8,
    /// Those that must be set; the others of `mask` must be clear.
    pub set: u8,
}

impl TcpFlags {
    /// Whether a segment with these flags matches.
    pub const fn matches(&self, flags: u8) -> bool {
        flags & self.mask == self.set
    }
}

/// A type of ICMP or ICMPv6 message, and a code if only that one is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// The type.
    pub kind: u8,
    /// The code; `None` is every code.
    pub code: Option<u8>,
}

/// What a rule asks of a packet's headers beyond the five-tuple: packets of one flow differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The code point, 0 to 63.
    pub dscp: Option<u8>,
    /// Flags of a TCP segment; packets of other protocols do not match.
    pub tcp_flags: Option<TcpFlags>,
    /// Message of ICMP or ICMPv6, whichever the rule's protocol is.
    pub icmp: Option<IcmpMatch>,
}

impl HeaderMatch {
    /// Asks nothing.
    pub const ANY: Self = HeaderMatch { dscp: None, tcp_flags: None, icmp: None };

    /// Whether nothing is asked, so that all packets of a five-tuple are alike.
    pub const fn is_any(&self) -> bool {
        self.dscp.is_none() && self.tcp_flags.is_none() && self.icmp.is_none()
    }
}

/// Protocols whose messages have a type and a code: ICMP and ICMPv6.
pub const fn proto_is_icmp(proto: u8) -> bool {
    matches!(proto, 1 | 58)
}

/// The protocol that has flags.
const TCP: u8 = 6;

/// What a packet must look like to match.
///
/// A rule that restricts a port matches only packets that have ports. So one that restricts a port
/// and names a protocol without ports (ICMP, GRE, …) matches nothing. The same goes for one that asks for TCP flags
/// or an ICMP message and does not name that protocol.
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
    /// What else the headers must say.
    pub header: HeaderMatch,
}

impl<A: Addr> Rule<A> {
    /// Matches every packet of the family.
    pub const ANY: Self = Rule {
        proto: None,
        src: Prefix::ANY,
        dst: Prefix::ANY,
        sport: PortRange::ANY,
        dport: PortRange::ANY,
        header: HeaderMatch::ANY,
    };

    /// Whether the rule matches a packet.
    pub fn matches(&self, key: &Key<A>) -> bool {
        self.proto.is_none_or(|p| p == key.proto())
            && (key.has_ports() || !self.needs_ports())
            && self.src.contains(key.src)
            && self.dst.contains(key.dst)
            && (!self.needs_ports() || self.sport.contains(key.sport) && self.dport.contains(key.dport))
            && self.header.dscp.is_none_or(|d| d == key.dscp())
            && self
                .header
                .tcp_flags
                .is_none_or(|t| self.proto == Some(TCP) && key.tcp_flags().is_some_and(|f| t.matches(f)))
            && self.header.icmp.is_none_or(|m| {
                let message = key.icmp().filter(|_| self.proto.is_some_and(proto_is_icmp));
                message.is_some_and(|(kind, code)| m.kind == kind && m.code.is_none_or(|c| c == code))
            })
    }

    /// Whether the rule matches only packets with ports.
    pub fn needs_ports(&self) -> bool {
        !(self.sport.is_any() && self.dport.is_any())
    }

    /// Whether no packet can match, because the rule restricts ports of a protocol that has none, or asks for TCP flags
    /// or an ICMP message of another protocol.
    pub fn is_unmatchable(&self) -> bool {
        let h = &self.header;
        self.needs_ports() && self.proto.is_some_and(|p| !proto_has_ports(p))
            || h.tcp_flags.is_some_and(|t| self.proto != Some(TCP) || t.set & !t.mask != 0)
            || h.icmp.is_some() && !self.proto.is_some_and(proto_is_icmp)
            || h.dscp.is_some_and(|d| d > MAX_DSCP)
    }

    /// The values that the words for the ports have in keys that match: of an ICMP message, type and code stand there.
    pub(crate) fn port_words(&self) -> [PortRange; 2] {
        match self.header.icmp {
            Some(m) => {
                let code = m.code.map_or(PortRange::ANY, |c| PortRange::single(c.into()));
                [PortRange::single(m.kind.into()), code]
            }
            None => [self.sport, self.dport],
        }
    }

    /// Bits of [`Key::class`] that the rule looks at, and their values.
    pub(crate) fn class_test(&self) -> (u16, u16) {
        let (mut mask, mut value) = match self.proto {
            Some(TCP) => (IS_TCP, IS_TCP),
            Some(p) => (IS_TCP | LOW, u16::from(p)),
            None => (0, 0),
        };
        if self.needs_ports() {
            mask |= NO_PORTS;
        }
        if let Some(dscp) = self.header.dscp {
            mask |= u16::from(MAX_DSCP) << DSCP_SHIFT;
            value |= u16::from(dscp & MAX_DSCP) << DSCP_SHIFT;
        }
        if let Some(t) = self.header.tcp_flags {
            mask |= u16::from(t.mask);
            value |= u16::from(t.set);
        }
        (mask, value)
    }

    /// [`Rule::class_test`] without the protocol, which is a word of its own in the tree.
    pub(crate) fn header_test(&self) -> (u16, u16) {
        let (mask, value) = self.class_test();
        let aside = if self.header.tcp_flags.is_some() { IS_TCP } else { IS_TCP | LOW };
        (mask & !aside, value & !aside)
    }
}

/// The five-tuple of a packet, and what else of its headers rules look at: DSCP, TCP flags, type and code of an ICMP
/// message. A packet without ports carries a flag that says so; the constructors see to it that a key never contradicts
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    /// Of an ICMP message its type, or [`NO_MESSAGE`].
    pub(crate) sport: u16,
    /// Of an ICMP message its code.
    pub(crate) dport: u16,
    /// [`IS_TCP`], [`NO_PORTS`], the DSCP in six bits from [`DSCP_SHIFT`] on; in the low byte the flags of TCP, else the
    /// protocol.
    pub(crate) class: u16,
}

/// The flag in [`Key::class`] of TCP, whose low byte has the flags of the segment.
pub(crate) const IS_TCP: u16 = 0x8000;

/// The flag in [`Key::class`] of a packet without ports.
pub(crate) const NO_PORTS: u16 = 0x4000;

/// Where the DSCP is in [`Key::class`].
const DSCP_SHIFT: u32 = 8;

/// The low byte of [`Key::class`].
const LOW: u16 = 0xff;

/// The largest code point.
const MAX_DSCP: u8 = 63;

/// In place of the type where that of an ICMP message is not known: no rule names it.
const NO_MESSAGE: u16 = 0x100;

impl<A: Addr> Key<A> {
    /// The key of a packet; ports are ignored if the protocol has none.
    #[inline]
    pub fn new(proto: u8, src: A, dst: A, sport: u16, dport: u16) -> Self {
        if proto_has_ports(proto) {
            Key { src, dst, sport, dport, class: class_of(proto) }
        } else {
            Key::without_ports(proto, src, dst)
        }
    }

    /// The key of a packet whose ports cannot be read: a later fragment, an ICMP or GRE packet. No rule
    /// that restricts a port matches it, whatever its protocol.
    #[inline]
    pub fn without_ports(proto: u8, src: A, dst: A) -> Self {
        let sport = if proto_is_icmp(proto) { NO_MESSAGE } else { 0 };
        Key { src, dst, sport, dport: 0, class: class_of(proto) | NO_PORTS }
    }

    /// The same packet with this code point, 0 to 63.
    #[inline]
    #[must_use]
    pub fn with_dscp(self, dscp: u8) -> Self {
        let old = u16::from(MAX_DSCP) << DSCP_SHIFT;
        Key { class: self.class & !old | u16::from(dscp & MAX_DSCP) << DSCP_SHIFT, ..self }
    }

    /// The same packet with these TCP flags, if it is one of TCP.
    #[inline]
    #[must_use]
    pub fn with_tcp_flags(self, flags: u8) -> Self {
        if self.class & IS_TCP == 0 {
            return self;
        }
        Key { class: self.class & !LOW | u16::from(flags), ..self }
    }

    /// The same packet as a message of this type and code, if it is one of ICMP or ICMPv6.
    #[inline]
    #[must_use]
    pub fn with_icmp(self, kind: u8, code: u8) -> Self {
        if !proto_is_icmp(self.proto()) {
            return self;
        }
        Key { sport: kind.into(), dport: code.into(), ..self }
    }

    /// IP protocol number.
    #[inline]
    pub fn proto(&self) -> u8 {
        if self.class & IS_TCP != 0 { TCP } else { (self.class & LOW) as u8 }
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
        if self.has_ports() { self.sport } else { 0 }
    }

    /// Destination port; 0 without ports.
    pub fn dport(&self) -> u16 {
        if self.has_ports() { self.dport } else { 0 }
    }

    /// Code point, 0 to 63.
    pub fn dscp(&self) -> u8 {
        (self.class >> DSCP_SHIFT) as u8 & MAX_DSCP
    }

    /// The flags of a TCP segment.
    pub fn tcp_flags(&self) -> Option<u8> {
        (self.class & IS_TCP != 0).then_some((self.class & LOW) as u8)
    }

    /// Type and code of an ICMP or ICMPv6 message, as far as they are known.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let known = proto_is_icmp(self.proto()) && self.sport != NO_MESSAGE;
        known.then_some((self.sport as u8, self.dport as u8))
    }
}

/// [`Key::class`] of a protocol.
const fn class_of(proto: u8) -> u16 {
    if proto == TCP { IS_TCP } else { proto as u16 }
}

/// The index that stands for "no rule matches".
pub const NO_MATCH: u32 = u32::MAX;

/// The index of the first rule that matches: the definition that every faster method is checked against.
pub fn linear<A: Addr>(rules: &[Rule<A>], key: &Key<A>) -> Option<u32> {
    rules.iter().position(|r| r.matches(key)).map(|i| i as u32)
}
