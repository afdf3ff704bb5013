//! One pass from Ethernet to transport.

use crate::checksum;
use crate::proto::*;
use sag_model::DropReason;
use sag_model::flow::{Key4, Key6, l4_word};
use sag_model::ids::VrfZone;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 extension headers walked before the packet counts as malformed.
const MAX_EXT_HEADERS: usize = 8;

/// IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Position of the packet in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    /// The first fragment: has the transport header.
    First {
        /// Identification of the datagram.
        id: u32,
    },
    /// A later fragment: has no transport header.
    Later {
        /// Identification of the datagram.
        id: u32,
        /// Offset of its data in the datagram, in bytes.
        offset: u16,
    },
}

/// What the transport header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum L4 {
    /// TCP.
    Tcp {
        /// The flags of the header.
        flags: u8,
    },
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo, or ICMP timestamp (RFC 5508 calls them queries); the identifier stands
    /// in for the port of the side that sent the request.
    Echo {
        /// Whether it is the reply.
        reply: bool,
    },
    /// An ICMP or ICMPv6 error that quotes a packet.
    IcmpError {
        /// The message's type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// Another ICMP or ICMPv6 message.
    IcmpOther {
        /// The message's type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// No ports: other protocols, and later fragments.
    Other,
}

/// What the parser finds in a frame. Offsets count from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// IP version.
    pub family: Family,
    /// Position of the packet in its datagram.
    pub fragment: Fragment,
    /// The transport header.
    pub l4: L4,
    /// Transport protocol, after IPv6 extension headers.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Traffic class: DSCP and ECN.
    pub tos: u8,
    /// IPv4 options or IPv6 extension headers are present.
    pub options: bool,
    /// IPv4 "don't fragment"; always true of IPv6.
    pub dont_fragment: bool,
    /// Start of the IP header.
    pub l3: u16,
    /// Start of the transport header (or of a later fragment's data).
    pub l4_at: u16,
    /// IP length: header and payload, without link-layer padding.
    pub ip_len: u16,
    /// Source port as loaded (network byte order); see [`L4::Echo`] for ICMP.
    pub sport: u16,
    /// Destination port as loaded.
    pub dport: u16,
    /// The flags of TCP, or type and code of an ICMP or ICMPv6 message in the upper and the lower byte: what access
    /// lists look at. Of a later fragment that of its datagram's first, once that is known.
    pub message: u16,
    /// IPv4: source | destination << 32 as loaded. IPv6: zero.
    pub addrs4: u64,
}

/// The frame is malformed: the reason to drop it.
pub type Malformed = DropReason;

/// What follows the link header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLayer {
    /// An IPv4 or IPv6 packet.
    Ip(Parsed),
    /// Neither IPv4 nor IPv6: for the kernel.
    NotIp {
        /// The EtherType.
        ethertype: u16,
    },
}

/// VLAN tag (0 = untagged), EtherType and start of the network header. A priority tag (VLAN 0) is none: the frame is an
/// untagged one (IEEE 802.1Q 6.9), be it a tag of 802.1Q or of 802.1ad. Other tags of 802.1ad, and a second tag behind the
/// first one, are left as EtherType.
///
/// # Errors
/// [`DropReason::EthTruncated`] if the frame is shorter than its link header; [`DropReason::VlanUnknown`] if one of two
/// tags is a priority tag.
#[inline]
pub fn link(frame: &[u8]) -> Result<(u16, u16, usize), Malformed> {
    let Some(eth) = frame.first_chunk::<ETH_LEN>() else { return Err(DropReason::EthTruncated) };
    let ethertype = u16::from_be_bytes([eth[12], eth[13]]);
    if !is_tag(ethertype) {
        return Ok((0, ethertype, ETH_LEN));
    }
    tag(frame, ethertype)
}

const fn is_tag(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_QINQ
}

/// [`link`] of a frame with a tag of this EtherType.
#[inline]
fn tag(frame: &[u8], outer: u16) -> Result<(u16, u16, usize), Malformed> {
    const L3: usize = ETH_LEN + VLAN_LEN;
    let Some(tagged) = frame.first_chunk::<L3>() else { return Err(DropReason::EthTruncated) };
    let vlan = u16::from_be_bytes([tagged[14], tagged[15]]) & 0x0FFF;
    let ethertype = u16::from_be_bytes([tagged[16], tagged[17]]);
    if vlan != 0 && outer == ETHERTYPE_QINQ {
        return Ok((0, outer, ETH_LEN));
    }
    if is_tag(ethertype) {
        // The kernel takes priority tags off wherever they stand: it would take such a frame for one with one tag.
        let inner = frame.get(L3..L3 + VLAN_LEN).map_or(0, |t| u16::from_be_bytes([t[0], t[1]]) & 0x0FFF);
        if vlan == 0 || inner == 0 {
            return Err(DropReason::VlanUnknown);
        }
    }
    Ok((vlan, ethertype, L3))
}

/// Parses a frame whose link header ends at `l3` and announced `ethertype` (see [`link`]).
///
/// # Errors
/// The reason to drop the frame: truncated, a bad version, length, checksum, option or extension header,
/// source routing, a fragment that cuts the transport header.
#[inline]
pub fn parse(frame: &[u8], ethertype: u16, l3: usize) -> Result<NetworkLayer, Malformed> {
    let mut p = Parsed::NONE;
    match parse_into(frame, ethertype, l3, &mut p)? {
        true => Ok(NetworkLayer::Ip(p)),
        false => Ok(NetworkLayer::NotIp { ethertype }),
    }
}

/// As [`parse`], into a place of the caller's: a value that is written field by field and copied as a whole
/// right after stalls the processor (store forwarding). False: neither IPv4 nor IPv6, and `p` is unchanged.
///
/// # Errors
/// As [`parse`]; `p` is unspecified then.
#[inline]
pub fn parse_into(frame: &[u8], ethertype: u16, l3: usize, p: &mut Parsed) -> Result<bool, Malformed> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, l3, p)?,
        ETHERTYPE_IPV6 => ipv6(frame, l3, p)?,
        _ => return Ok(false),
    }
    Ok(true)
}

#[inline]
fn ipv4(frame: &[u8], l3: usize, p: &mut Parsed) -> Result<(), Malformed> {
    let ip = frame.get(l3..).ok_or(DropReason::Ip4Truncated)?;
    let Some(h) = ip.first_chunk::<IPV4_LEN>() else { return Err(DropReason::Ip4Truncated) };
    if h[0] >> 4 != 4 {
        return Err(DropReason::Ip4BadVersion);
    }
    let ihl = usize::from(h[0] & 0x0F) * 4;
    if ihl < IPV4_LEN {
        return Err(DropReason::Ip4BadIhl);
    }
    let ip_len = u16::from_be_bytes([h[2], h[3]]);
    if usize::from(ip_len) > ip.len() {
        return Err(DropReason::Ip4BadTotalLength);
    }
    if usize::from(ip_len) < ihl {
        return Err(if usize::from(ip_len) < IPV4_LEN {
            DropReason::Ip4BadTotalLength
        } else {
            DropReason::Ip4BadIhl
        });
    }
    let options = ihl != IPV4_LEN;
    let header_sum = if options { checksum::sum(&ip[..ihl]) } else { checksum::sum(h) };
    if checksum::fold(header_sum) != 0xFFFF {
        return Err(DropReason::Ip4BadChecksum);
    }
    if options {
        check_ipv4_options(&ip[IPV4_LEN..ihl])?;
    }
    let frag_word = u16::from_be_bytes([h[6], h[7]]);
    let id = u32::from(u16::from_be_bytes([h[4], h[5]]));
    let fragment = fragment_of(id, (frag_word & 0x1FFF) << 3, frag_word & 0x2000 != 0);
    *p = Parsed {
        family: Family::V4,
        fragment,
        l4: L4::Other,
        proto: h[9],
        ttl: h[8],
        tos: h[1],
        options,
        dont_fragment: frag_word & 0x4000 != 0,
        l3: l3 as u16,
        l4_at: (l3 + ihl) as u16,
        ip_len,
        sport: 0,
        dport: 0,
        message: 0,
        addrs4: u64::from_le_bytes([h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19]]),
    };
    transport(&ip[ihl..usize::from(ip_len)], p)
}

/// Walks IPv4 options (RFC 791 3.1). Source routing is refused (RFC 7126 4.3, 4.4).
fn check_ipv4_options(mut opts: &[u8]) -> Result<(), Malformed> {
    while let Some((&kind, rest)) = opts.split_first() {
        match kind {
            0 => return Ok(()),
            1 => opts = rest,
            131 | 137 => return Err(DropReason::Ip4SourceRoute),
            _ => {
                let len = usize::from(*rest.first().ok_or(DropReason::Ip4BadOptions)?);
                if len < 2 || len > opts.len() {
                    return Err(DropReason::Ip4BadOptions);
                }
                opts = &opts[len..];
            }
        }
    }
    Ok(())
}

#[inline]
fn fragment_of(id: u32, offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First { id },
        _ => Fragment::Later { id, offset },
    }
}

#[inline]
fn ipv6(frame: &[u8], l3: usize, p: &mut Parsed) -> Result<(), Malformed> {
    let ip = frame.get(l3..).ok_or(DropReason::Ip6Truncated)?;
    let Some(h) = ip.first_chunk::<IPV6_LEN>() else { return Err(DropReason::Ip6Truncated) };
    if h[0] >> 4 != 6 {
        return Err(DropReason::Ip6BadVersion);
    }
    let payload = usize::from(u16::from_be_bytes([h[4], h[5]]));
    let total = IPV6_LEN + payload;
    if total > ip.len() || total > usize::from(u16::MAX) {
        return Err(DropReason::Ip6BadPayloadLength);
    }
    *p = Parsed {
        family: Family::V6,
        fragment: Fragment::Whole,
        l4: L4::Other,
        proto: h[6],
        ttl: h[7],
        tos: h[0] << 4 | h[1] >> 4,
        options: false,
        dont_fragment: true,
        l3: l3 as u16,
        l4_at: 0,
        ip_len: total as u16,
        sport: 0,
        dport: 0,
        message: 0,
        addrs4: 0,
    };
    let mut at = IPV6_LEN;
    if matches!(p.proto, HOP_BY_HOP | ROUTING | FRAGMENT | DEST_OPTIONS) {
        p.options = true;
        at = walk_extensions(&ip[..total], p)?;
    }
    p.l4_at = (l3 + at) as u16;
    transport(&ip[at..total], p)
}

/// Walks the extension headers (RFC 8200 4); returns where the transport header starts.
fn walk_extensions(ip: &[u8], p: &mut Parsed) -> Result<usize, Malformed> {
    let bad = DropReason::Ip6BadExtHeaders;
    let mut at = IPV6_LEN;
    for n in 0..MAX_EXT_HEADERS {
        let h = match p.proto {
            HOP_BY_HOP if n > 0 => return Err(bad),
            HOP_BY_HOP | ROUTING | FRAGMENT | DEST_OPTIONS => ip.get(at..at + 8).ok_or(bad)?,
            _ => return Ok(at),
        };
        let len = match p.proto {
            FRAGMENT => 8,
            _ => (usize::from(h[1]) + 1) * 8,
        };
        if at + len > ip.len() {
            return Err(bad);
        }
        if p.proto == ROUTING && h[2] == 0 {
            return Err(DropReason::Ip6RoutingHeader0);
        }
        if p.proto == FRAGMENT {
            let word = u16::from_be_bytes([h[2], h[3]]);
            let id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
            p.fragment = fragment_of(id, word & 0xFFF8, word & 1 != 0);
        }
        p.proto = h[0];
        at += len;
        if matches!(p.fragment, Fragment::Later { .. }) {
            return Ok(at);
        }
    }
    match p.proto {
        HOP_BY_HOP | ROUTING | FRAGMENT | DEST_OPTIONS => Err(bad),
        _ => Ok(at),
    }
}

/// Ports, flags and kind of the transport header in `d`, the IP payload.
#[inline]
fn transport(d: &[u8], p: &mut Parsed) -> Result<(), Malformed> {
    if let Fragment::Later { offset, .. } = p.fragment {
        // Every first fragment holds a whole TCP header, so this would write over one (RFC 1858, 3128).
        return if p.proto == TCP && offset < 20 { Err(DropReason::FragmentTiny) } else { Ok(()) };
    }
    let cut = match p.fragment {
        Fragment::Whole => DropReason::L4Truncated,
        _ => DropReason::FragmentTiny,
    };
    match p.proto {
        TCP => {
            let Some(h) = d.first_chunk::<20>() else { return Err(cut) };
            let offset = usize::from(h[12] >> 4) * 4;
            if offset < 20 || (offset > d.len() && p.fragment == Fragment::Whole) {
                return Err(DropReason::TcpBadOffset);
            }
            p.l4 = L4::Tcp { flags: h[13] };
            p.message = h[13].into();
            (p.sport, p.dport) = (u16::from_le_bytes([h[0], h[1]]), u16::from_le_bytes([h[2], h[3]]));
        }
        UDP => {
            let Some(h) = d.first_chunk::<8>() else { return Err(cut) };
            let len = usize::from(u16::from_be_bytes([h[4], h[5]]));
            // A zero length is a jumbogram's (RFC 2675), which needs an option that we do not carry.
            if len < 8 || (len > d.len() && p.fragment == Fragment::Whole) {
                return Err(DropReason::UdpBadLength);
            }
            p.l4 = L4::Udp;
            (p.sport, p.dport) = (u16::from_le_bytes([h[0], h[1]]), u16::from_le_bytes([h[2], h[3]]));
        }
        ICMP if p.family == Family::V4 => {
            let Some(h) = d.first_chunk::<8>() else { return Err(cut) };
            p.l4 = match h[0] {
                8 | 13 => L4::Echo { reply: false },
                0 | 14 => L4::Echo { reply: true },
                3 | 4 | 5 | 11 | 12 => L4::IcmpError { kind: h[0], code: h[1] },
                kind => L4::IcmpOther { kind, code: h[1] },
            };
            p.message = u16::from_be_bytes([h[0], h[1]]);
            echo_ids(p, [h[4], h[5]]);
        }
        ICMPV6 if p.family == Family::V6 => {
            let Some(h) = d.first_chunk::<8>() else { return Err(cut) };
            p.l4 = match h[0] {
                128 => L4::Echo { reply: false },
                129 => L4::Echo { reply: true },
                kind @ 0..128 => L4::IcmpError { kind, code: h[1] },
                kind => L4::IcmpOther { kind, code: h[1] },
            };
            p.message = u16::from_be_bytes([h[0], h[1]]);
            echo_ids(p, [h[4], h[5]]);
        }
        _ => {}
    }
    Ok(())
}

#[inline]
fn echo_ids(p: &mut Parsed, id: [u8; 2]) {
    match p.l4 {
        L4::Echo { reply: false } => p.sport = u16::from_le_bytes(id),
        L4::Echo { reply: true } => p.dport = u16::from_le_bytes(id),
        _ => {}
    }
}

impl Parsed {
    /// A value to parse into.
    pub const NONE: Parsed = Parsed {
        family: Family::V4,
        fragment: Fragment::Whole,
        l4: L4::Other,
        proto: 0,
        ttl: 0,
        tos: 0,
        options: false,
        dont_fragment: false,
        l3: 0,
        l4_at: 0,
        ip_len: 0,
        sport: 0,
        dport: 0,
        message: 0,
        addrs4: 0,
    };

    /// The IPv4 flow key of this packet, received `from` a zone of a VRF.
    #[inline]
    pub fn key4(&self, from: impl Into<VrfZone>) -> Key4 {
        Key4 { addrs: self.addrs4, l4: l4_word(self.sport, self.dport, self.proto, from) }
    }

    /// The IPv6 flow key; `frame` is the frame that was parsed.
    #[inline]
    pub fn key6(&self, frame: &[u8], from: impl Into<VrfZone>) -> Key6 {
        let at = usize::from(self.l3) + 8;
        let words: [u64; 4] = match frame.get(at..).and_then(|f| f.first_chunk::<32>()) {
            Some(a) => std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|b| a[i * 8 + b]))),
            None => [0; 4],
        };
        Key6 {
            src: [words[0], words[1]],
            dst: [words[2], words[3]],
            l4: l4_word(self.sport, self.dport, self.proto, from),
        }
    }

    /// The IPv4 source address.
    #[inline]
    pub fn src4(&self) -> Ipv4Addr {
        Ipv4Addr::from((self.addrs4 as u32).to_le_bytes())
    }

    /// The IPv4 destination address.
    #[inline]
    pub fn dst4(&self) -> Ipv4Addr {
        Ipv4Addr::from(((self.addrs4 >> 32) as u32).to_le_bytes())
    }

    fn addr6(&self, frame: &[u8], at: usize) -> Ipv6Addr {
        let at = usize::from(self.l3) + at;
        frame
            .get(at..)
            .and_then(|f| f.first_chunk::<16>())
            .map_or(Ipv6Addr::UNSPECIFIED, |a| Ipv6Addr::from(*a))
    }

    /// The IPv6 source address; `frame` is the frame that was parsed.
    pub fn src6(&self, frame: &[u8]) -> Ipv6Addr {
        self.addr6(frame, 8)
    }

    /// The IPv6 destination address.
    pub fn dst6(&self, frame: &[u8]) -> Ipv6Addr {
        self.addr6(frame, 24)
    }

    /// The source address; `frame` is the frame that was parsed.
    #[inline]
    pub fn src(&self, frame: &[u8]) -> IpAddr {
        match self.family {
            Family::V4 => self.src4().into(),
            Family::V6 => self.src6(frame).into(),
        }
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self, frame: &[u8]) -> IpAddr {
        match self.family {
            Family::V4 => self.dst4().into(),
            Family::V6 => self.dst6(frame).into(),
        }
    }

    /// The IP packet of the frame, without link-layer padding.
    pub fn ip<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let l3 = usize::from(self.l3);
        frame.get(l3..l3 + usize::from(self.ip_len)).unwrap_or(&[])
    }

    /// Source and destination port in host byte order.
    pub fn ports(&self) -> (u16, u16) {
        (self.sport.swap_bytes(), self.dport.swap_bytes())
    }
}
