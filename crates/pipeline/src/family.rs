//! What differs between IPv4 and IPv6 in the flow table's use.

use crate::nat::Endpoint;
use crate::policy::Tuple;
use sag_model::DropReason;
use sag_model::flow::{
    FLOW_DNAT, FLOW_SNAT, FlowRecord, FlowRecord4, FlowRecord6, HASH_M1, HASH_M2, Key4, Key6, l4_word,
    vrf_zone,
};
use sag_model::ids::{VrfNo, VrfZone, Zone};
use sag_packet::checksum;
use sag_packet::parse::{Family, Parsed};
use sag_packet::proto::*;
use sag_packet::translate::{self, BadError, Words4};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Source and destination.
pub type EndpointPair = (Endpoint, Endpoint);

/// A record type and its family's way with keys.
pub trait FlowFamily: FlowRecord {
    /// The address family of the records.
    const FAMILY: Family;

    /// The key of a parsed packet that arrived `from` a zone of a VRF.
    fn flow_key(p: &Parsed, frame: &[u8], from: impl Into<VrfZone>) -> Self::Key;
    /// The key of the answers to a flow, arriving `from` there.
    fn reverse(key: &Self::Key, from: impl Into<VrfZone>) -> Self::Key;
    /// The zone and the VRF in a key; `None`: its number is no zone's.
    fn side(key: &Self::Key) -> Option<VrfZone>;
    /// The VRF in a key.
    fn vrf(key: &Self::Key) -> VrfNo {
        Self::side(key).map_or(VrfNo::DEFAULT, VrfZone::vrf)
    }
    /// The five-tuple of a key.
    fn tuple(key: &Self::Key) -> Tuple;
    /// The port fields of a key in host order; of ICMP echo, its identifier stands there.
    fn raw_ports(key: &Self::Key) -> (u16, u16);
    /// Whose session it is that begins with this key, for shares: the source address, or a hash of it. `seed`: nobody
    /// can take an address that counts as another one's.
    fn host(key: &Self::Key, seed: u64) -> u64;
    /// The network that has a share too: of IPv6 the /64, of which any host has as many addresses as it likes.
    fn network(key: &Self::Key) -> Option<u64>;
    /// Who is named as heavy by [`FlowFamily::network`], or by [`FlowFamily::host`] if there is none: address and
    /// length of the prefix, and the VRF, unless the network counts in all of them.
    fn named(heavy: u64) -> (IpAddr, u8, Option<VrfNo>);
    /// Writes what becomes of a packet with this key: addresses and ports of `to`.
    fn set_translation(&self, key: &Self::Key, to: &Self::Key);
    /// What becomes of a packet with the record's key; protocol and zone are the key's.
    fn translated(&self) -> Self::Key;
    /// Flags of an action for packets that are translated so.
    fn nat_flags(key: &Self::Key, to: &Self::Key) -> u8;
    /// Both endpoints, an ICMP identifier in place of a port. `None`: a family whose ports are never translated.
    fn endpoints(key: &Self::Key) -> Option<EndpointPair>;
    /// The key with other endpoints; protocol and zone stay.
    fn with_endpoints(key: &Self::Key, endpoints: EndpointPair) -> Self::Key;
    /// The key with other addresses of IPv6; ports, protocol and zone stay.
    fn with_addresses6(key: &Self::Key, addrs: (Option<Ipv6Addr>, Option<Ipv6Addr>)) -> Self::Key;
    /// The key with these endpoints, of either family; protocol and zone stay. For records that may be of NAT64.
    fn with_endpoints64(key: &Self::Key, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self::Key;
    /// Whether the record's packets go through NAT64.
    fn crosses(&self) -> bool;
    /// Notes that they do.
    fn set_crosses(&self);
    /// Whether the record may be one of packets of this family.
    fn suits(&self, family: Family) -> bool;
    /// Translates a packet of this record.
    fn rewrite(&self, frame: &mut [u8], p: &Parsed);
    /// Translates an ICMP error about a packet whose answers this record translates.
    ///
    /// # Errors
    ///
    /// The reason to drop the packet: what it quotes cannot be translated.
    fn rewrite_error(&self, frame: &mut [u8], p: &Parsed) -> Result<(), DropReason>;
    /// Key from the addresses of an IP header that an ICMP error quotes, as its *answer* would
    /// arrive `from` there. The table of IPv6 has sessions of NAT64 too: there the header may be one of IPv4.
    fn answer_to(header: &[u8], l4: (u16, u16), proto: u8, from: VrfZone) -> Option<Self::Key>;
}

fn reverse_l4(l4: u64, from: VrfZone) -> u64 {
    l4_word((l4 >> 16) as u16, l4 as u16, (l4 >> 32) as u8, from)
}

/// Ports of a key in host order, zero where the protocol has none.
const fn rule_ports(l4: u64) -> (u8, u16, u16) {
    let proto = (l4 >> 32) as u8;
    match proto {
        TCP | UDP => (proto, (l4 as u16).swap_bytes(), ((l4 >> 16) as u16).swap_bytes()),
        _ => (proto, 0, 0),
    }
}

impl FlowFamily for FlowRecord4 {
    const FAMILY: Family = Family::V4;

    #[inline]
    fn flow_key(p: &Parsed, _: &[u8], from: impl Into<VrfZone>) -> Key4 {
        p.key4(from)
    }

    fn reverse(key: &Key4, from: impl Into<VrfZone>) -> Key4 {
        Key4 { addrs: key.addrs.rotate_left(32), l4: reverse_l4(key.l4, from.into()) }
    }

    #[inline]
    fn side(key: &Key4) -> Option<VrfZone> {
        vrf_zone(key.l4)
    }

    fn raw_ports(key: &Key4) -> (u16, u16) {
        ((key.l4 as u16).swap_bytes(), ((key.l4 >> 16) as u16).swap_bytes())
    }

    fn tuple(key: &Key4) -> Tuple {
        let addr = |w: u32| IpAddr::V4(Ipv4Addr::from(w.to_le_bytes()));
        let (proto, sport, dport) = rule_ports(key.l4);
        Tuple { proto, src: addr(key.addrs as u32), dst: addr((key.addrs >> 32) as u32), sport, dport }
    }

    #[inline]
    fn host(key: &Key4, _: u64) -> u64 {
        key.addrs & 0xFFFF_FFFF | u64::from(Self::vrf(key).get()) << 32
    }

    #[inline]
    fn network(_: &Key4) -> Option<u64> {
        None
    }

    fn named(heavy: u64) -> (IpAddr, u8, Option<VrfNo>) {
        (IpAddr::V4(Ipv4Addr::from((heavy as u32).to_le_bytes())), 32, VrfNo::new((heavy >> 32) as u8))
    }

    fn set_translation(&self, key: &Key4, to: &Key4) {
        let w = if to == key {
            // Most sessions are not translated: there is no difference to sum up.
            Words4 { addrs: to.addrs, ports: to.l4 & 0xFFFF_FFFF }
        } else {
            Words4::between((key.addrs, key.l4 as u32), (to.addrs, to.l4 as u32), (key.l4 >> 32) as u8)
        };
        self.new_addrs.store(w.addrs, Ordering::Relaxed);
        self.new_ports.store(w.ports, Ordering::Relaxed);
    }

    fn translated(&self) -> Key4 {
        let l4 = self.key().l4 >> 32 << 32;
        let ports = self.new_ports.load(Ordering::Relaxed) & 0xFFFF_FFFF;
        Key4 { addrs: self.new_addrs.load(Ordering::Relaxed), l4: l4 | ports }
    }

    fn nat_flags(key: &Key4, to: &Key4) -> u8 {
        let src = key.addrs as u32 != to.addrs as u32 || key.l4 as u16 != to.l4 as u16;
        let dst = key.addrs >> 32 != to.addrs >> 32 || (key.l4 >> 16) as u16 != (to.l4 >> 16) as u16;
        (u8::from(src) * FLOW_SNAT) | (u8::from(dst) * FLOW_DNAT)
    }

    #[inline]
    fn endpoints(key: &Key4) -> Option<EndpointPair> {
        let end = |addr: u32, port: u16| Endpoint {
            addr: Ipv4Addr::from(addr.to_le_bytes()),
            port: u16::from_be_bytes(port.to_le_bytes()),
            vrf: Self::vrf(key),
        };
        let (src, dst) =
            (end(key.addrs as u32, key.l4 as u16), end((key.addrs >> 32) as u32, (key.l4 >> 16) as u16));
        Some((src, dst))
    }

    fn with_endpoints(key: &Key4, (src, dst): EndpointPair) -> Key4 {
        let addr = |e: Endpoint| u64::from(u32::from_le_bytes(e.addr.octets()));
        let port = |e: Endpoint| u64::from(u16::from_le_bytes(e.port.to_be_bytes()));
        Key4 { addrs: addr(src) | addr(dst) << 32, l4: key.l4 >> 32 << 32 | port(src) | port(dst) << 16 }
    }

    fn with_addresses6(key: &Key4, _: (Option<Ipv6Addr>, Option<Ipv6Addr>)) -> Key4 {
        *key
    }

    fn with_endpoints64(key: &Key4, _: (IpAddr, u16), _: (IpAddr, u16)) -> Key4 {
        *key
    }

    #[inline]
    fn crosses(&self) -> bool {
        false
    }

    fn set_crosses(&self) {}

    #[inline]
    fn suits(&self, _: Family) -> bool {
        true
    }

    #[inline]
    fn rewrite(&self, frame: &mut [u8], p: &Parsed) {
        let words = Words4 {
            addrs: self.new_addrs.load(Ordering::Relaxed),
            ports: self.new_ports.load(Ordering::Relaxed),
        };
        translate::packet4(frame, p, words);
    }

    fn rewrite_error(&self, frame: &mut [u8], p: &Parsed) -> Result<(), DropReason> {
        let (key, new) = (self.key(), self.translated());
        translate::check_error4(frame, p).map_err(|e| match e {
            BadError::Checksum => DropReason::IcmpBadChecksum,
            BadError::Quote => DropReason::IcmpUnmatched,
        })?;
        // A router on the way speaks for itself, unless it is behind the translation: its address
        // says nothing out there (RFC 5508 REQ-5).
        let hidden = key.addrs as u32 != new.addrs as u32;
        let src = if hidden { new.addrs as u32 } else { p.addrs4 as u32 };
        let outer = u64::from(src) | new.addrs >> 32 << 32;
        let quoted = FlowRecord4::reverse(&new, Zone::Lan);
        translate::error4(frame, p, outer, (quoted.addrs, quoted.l4 as u32));
        Ok(())
    }

    fn answer_to(header: &[u8], (sport, dport): (u16, u16), proto: u8, from: VrfZone) -> Option<Key4> {
        let a: &[u8; 8] = header.get(12..)?.first_chunk()?;
        let addrs = u64::from_le_bytes(*a).rotate_left(32);
        Some(Key4 { addrs, l4: l4_word(dport, sport, proto, from) })
    }
}

impl FlowFamily for FlowRecord6 {
    const FAMILY: Family = Family::V6;

    #[inline]
    fn flow_key(p: &Parsed, frame: &[u8], from: impl Into<VrfZone>) -> Key6 {
        match p.family {
            Family::V6 => p.key6(frame, from),
            Family::V4 => key_of_v4(&p.key4(from)),
        }
    }

    fn reverse(key: &Key6, from: impl Into<VrfZone>) -> Key6 {
        Key6 { src: key.dst, dst: key.src, l4: reverse_l4(key.l4, from.into()) }
    }

    #[inline]
    fn side(key: &Key6) -> Option<VrfZone> {
        vrf_zone(key.l4)
    }

    fn raw_ports(key: &Key6) -> (u16, u16) {
        ((key.l4 as u16).swap_bytes(), ((key.l4 >> 16) as u16).swap_bytes())
    }

    fn tuple(key: &Key6) -> Tuple {
        let (proto, sport, dport) = rule_ports(key.l4);
        Tuple { proto, src: address(key.src), dst: address(key.dst), sport, dport }
    }

    #[inline]
    fn host(key: &Key6, seed: u64) -> u64 {
        let h = (key.src[0] ^ seed ^ u64::from(Self::vrf(key).get())).wrapping_mul(HASH_M1);
        (h ^ h >> 32).wrapping_mul(HASH_M2) ^ key.src[1]
    }

    #[inline]
    fn network(key: &Key6) -> Option<u64> {
        // Hosts of IPv4 that reach one of IPv6 by NAT64 are of no network.
        unmapped(key.src).is_none().then_some(key.src[0])
    }

    fn named(heavy: u64) -> (IpAddr, u8, Option<VrfNo>) {
        let mut b = [0u8; 16];
        b[..8].copy_from_slice(&heavy.to_le_bytes());
        (IpAddr::V6(Ipv6Addr::from(b)), 64, None)
    }

    fn set_translation(&self, key: &Key6, to: &Key6) {
        for i in 0..2 {
            self.new_src[i].store(to.src[i], Ordering::Relaxed);
            self.new_dst[i].store(to.dst[i], Ordering::Relaxed);
        }
        let sum = translate::delta6(key.src, to.src) + translate::delta6(key.dst, to.dst);
        let ports = to.l4 & 0xFFFF_FFFF;
        self.new_ports.store(ports | u64::from(checksum::fold(sum)) << 32, Ordering::Relaxed);
    }

    fn translated(&self) -> Key6 {
        let two = |w: &[AtomicU64; 2]| [w[0].load(Ordering::Relaxed), w[1].load(Ordering::Relaxed)];
        let l4 = self.key().l4 >> 32 << 32;
        let ports = self.new_ports.load(Ordering::Relaxed) & 0xFFFF_FFFF;
        Key6 { src: two(&self.new_src), dst: two(&self.new_dst), l4: l4 | ports }
    }

    fn nat_flags(key: &Key6, to: &Key6) -> u8 {
        (u8::from(key.src != to.src) * FLOW_SNAT) | (u8::from(key.dst != to.dst) * FLOW_DNAT)
    }

    fn endpoints(_: &Key6) -> Option<EndpointPair> {
        None
    }

    fn with_endpoints(key: &Key6, _: EndpointPair) -> Key6 {
        *key
    }

    fn with_addresses6(key: &Key6, (src, dst): (Option<Ipv6Addr>, Option<Ipv6Addr>)) -> Key6 {
        Key6 { src: src.map_or(key.src, words6), dst: dst.map_or(key.dst, words6), l4: key.l4 }
    }

    fn with_endpoints64(key: &Key6, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Key6 {
        let words = |addr| match addr {
            IpAddr::V6(a) => words6(a),
            IpAddr::V4(a) => mapped(u32::from_le_bytes(a.octets())),
        };
        let ports = u64::from(src.1.to_be()) | u64::from(dst.1.to_be()) << 16;
        Key6 { src: words(src.0), dst: words(dst.0), l4: key.l4 >> 32 << 32 | ports }
    }

    #[inline]
    fn crosses(&self) -> bool {
        self.new_ports.load(Ordering::Relaxed) & CROSSES != 0
    }

    fn set_crosses(&self) {
        self.new_ports.fetch_or(CROSSES, Ordering::Relaxed);
    }

    #[inline]
    fn suits(&self, family: Family) -> bool {
        let of_v4 = self.crosses() && unmapped(self.key().src).is_some();
        of_v4 == (family == Family::V4)
    }

    #[inline]
    fn rewrite(&self, frame: &mut [u8], p: &Parsed) {
        let new = self.translated();
        let sum = (self.new_ports.load(Ordering::Relaxed) >> 32) as u16;
        translate::packet6(frame, p, [new.src, new.dst], sum);
    }

    fn rewrite_error(&self, frame: &mut [u8], p: &Parsed) -> Result<(), DropReason> {
        let new = self.translated();
        translate::check_error6(frame, p).map_err(|_| DropReason::IcmpBadChecksum)?;
        // The quoted packet goes the other way. Its sender's own words come from whoever sends the message.
        translate::error6(frame, p, new.dst, [new.dst, new.src]).map_err(|_| DropReason::IcmpUnmatched)
    }

    fn answer_to(header: &[u8], (sport, dport): (u16, u16), proto: u8, from: VrfZone) -> Option<Key6> {
        if header.first()? >> 4 == 4 {
            let key = FlowRecord4::answer_to(header, (sport, dport), proto, from)?;
            return Some(key_of_v4(&key));
        }
        let a: &[u8; 32] = header.get(8..)?.first_chunk()?;
        let w: [u64; 4] = std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|b| a[i * 8 + b])));
        Some(Key6 { src: [w[2], w[3]], dst: [w[0], w[1]], l4: l4_word(dport, sport, proto, from) })
    }
}

/// In a record of IPv6, beside its ports: its packets go through NAT64.
const CROSSES: u64 = 1 << 48;

/// How the IPv4 side of a NAT64 session stands in the table of IPv6: as an address of ::ffff:0:0/96, which no packet may
/// have (RFC 4291 section 2.5.5.2). The address is as loaded from a packet.
#[inline]
const fn mapped(addr: u32) -> [u64; 2] {
    [0, (addr as u64) << 32 | 0xFFFF_0000]
}

/// The IPv4 address that stands in such a key.
#[inline]
const fn unmapped(addr: [u64; 2]) -> Option<u32> {
    if addr[0] == 0 && addr[1] as u32 == 0xFFFF_0000 { Some((addr[1] >> 32) as u32) } else { None }
}

/// The key of an IPv4 packet in the table of IPv6. Echo messages of both families have one protocol there; the number
/// that the other one has is no protocol of IPv4 (RFC 7915 section 4.1).
#[inline]
pub fn key_of_v4(key: &Key4) -> Key6 {
    let proto = match (key.l4 >> 32) as u8 {
        ICMP => ICMPV6,
        ICMPV6 => ICMP,
        same => same,
    };
    let l4 = key.l4 & !(0xFF << 32) | (proto as u64) << 32;
    Key6 { src: mapped(key.addrs as u32), dst: mapped((key.addrs >> 32) as u32), l4 }
}

/// An address of a key; one of IPv4 as such.
fn address(w: [u64; 2]) -> IpAddr {
    if let Some(addr) = unmapped(w) {
        return Ipv4Addr::from(addr.to_le_bytes()).into();
    }
    let mut b = [0u8; 16];
    b[..8].copy_from_slice(&w[0].to_le_bytes());
    b[8..].copy_from_slice(&w[1].to_le_bytes());
    Ipv6Addr::from(b).into()
}

fn words6(a: Ipv6Addr) -> [u64; 2] {
    let b = a.octets();
    [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| b[at + i])))
}

/// A packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy)]
pub struct Quote<K> {
    /// The key of its answers, seen from where the error came: that is how it is known, before and after translation alike.
    pub answers: K,
    /// Its TCP sequence number.
    pub sequence: Option<u32>,
}

/// The packet that an ICMP error quotes.
pub fn quoted<R: FlowFamily>(p: &Parsed, frame: &[u8], from: VrfZone) -> Option<Quote<R::Key>> {
    quote::<R>(p.ip(frame).get(usize::from(p.l4_at - p.l3) + 8..)?, from)
}

/// A packet as it is quoted, from its IP header on, by an error `from` there.
pub fn quote<R: FlowFamily>(quote: &[u8], from: VrfZone) -> Option<Quote<R::Key>> {
    // Of IPv4 there is no table but its own and that with the sessions of NAT64.
    let family = match (R::FAMILY, quote.first()? >> 4) {
        (Family::V6, 4) => Family::V4,
        (own, _) => own,
    };
    let (proto, l4_at) = match family {
        Family::V4 => quoted_v4(quote)?,
        Family::V6 => quoted_v6(quote)?,
    };
    // Eight bytes are all that RFC 792 promises of the transport header.
    let l4: &[u8; 8] = quote.get(l4_at..)?.first_chunk()?;
    let word = |i: usize| u16::from_le_bytes([l4[i], l4[i + 1]]);
    let ports = match (family, proto, l4[0]) {
        (_, TCP | UDP, _) => (word(0), word(2)),
        (Family::V4, ICMP, 8 | 13) | (Family::V6, ICMPV6, 128) => (word(4), 0),
        (Family::V4, ICMP, 0 | 14) | (Family::V6, ICMPV6, 129) => (0, word(4)),
        _ => (0, 0),
    };
    let sequence = (proto == TCP).then(|| u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]));
    Some(Quote { answers: R::answer_to(quote, ports, proto, from)?, sequence })
}

/// Protocol and start of the transport header of a quoted IPv4 packet.
fn quoted_v4(quote: &[u8]) -> Option<(u8, usize)> {
    let h: &[u8; IPV4_LEN] = quote.first_chunk()?;
    let ihl = usize::from(h[0] & 0x0F) * 4;
    let later = u16::from_be_bytes([h[6], h[7]]) & 0x1FFF != 0;
    (h[0] >> 4 == 4 && ihl >= IPV4_LEN && !later).then_some((h[9], ihl))
}

/// The same of IPv6, past its extension headers.
fn quoted_v6(quote: &[u8]) -> Option<(u8, usize)> {
    let h: &[u8; IPV6_LEN] = quote.first_chunk()?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let (mut proto, mut at) = (h[6], IPV6_LEN);
    for _ in 0..8 {
        let len = match proto {
            FRAGMENT => 8,
            HOP_BY_HOP | ROUTING | DEST_OPTIONS => (usize::from(*quote.get(at + 1)?) + 1) * 8,
            _ => return Some((proto, at)),
        };
        let later =
            proto == FRAGMENT && u16::from_be_bytes([*quote.get(at + 2)?, *quote.get(at + 3)?]) & 0xFFF8 != 0;
        if later {
            return None;
        }
        proto = *quote.get(at)?;
        at += len;
    }
    None
}
