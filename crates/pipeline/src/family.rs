//! What differs between IPv4 and IPv6 in the flow table's use.

use crate::policy::Tuple;
use crate::table::FlowTable;
use crate::worker::Tables;
use sag_model::flow::{FlowRecord, FlowRecord4, FlowRecord6, Key4, Key6, l4_word};
use sag_model::ids::Zone;
use sag_packet::parse::{Family, Parsed};
use sag_packet::proto::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// A record type and its family's way with keys.
pub trait FamilyOf: FlowRecord {
    const FAMILY: Family;

    fn table(t: &Tables) -> &FlowTable<Self>
    where
        Self: Sized;
    fn flow_key(p: &Parsed, frame: &[u8], zone: Zone) -> Self::Key;
    /// The key of the answers to a flow, arriving from `zone`.
    fn reverse(key: &Self::Key, zone: Zone) -> Self::Key;
    fn zone(key: &Self::Key) -> Option<Zone>;
    fn tuple(key: &Self::Key) -> Tuple;
    /// The port fields of a key in host order; of ICMP echo, its identifier stands there.
    fn raw_ports(key: &Self::Key) -> (u16, u16);
    /// No translation: the new addresses and ports are the key's.
    fn set_identity(&self, key: &Self::Key);
    /// Key from the addresses of an IP header that an ICMP error quotes, as its *answer* would
    /// arrive from `zone`.
    fn answer_to(header: &[u8], l4: (u16, u16), proto: u8, zone: Zone) -> Option<Self::Key>;
}

const fn zone_of(l4: u64) -> Option<Zone> {
    match (l4 >> 40) as u8 {
        1 => Some(Zone::Lan),
        2 => Some(Zone::Wan),
        3 => Some(Zone::Overlay),
        _ => None,
    }
}

const fn reverse_l4(l4: u64, zone: Zone) -> u64 {
    l4_word((l4 >> 16) as u16, l4 as u16, (l4 >> 32) as u8, zone)
}

/// Ports of a key in host order, zero where the protocol has none.
const fn rule_ports(l4: u64) -> (u8, u16, u16) {
    let proto = (l4 >> 32) as u8;
    match proto {
        TCP | UDP => (proto, (l4 as u16).swap_bytes(), ((l4 >> 16) as u16).swap_bytes()),
        _ => (proto, 0, 0),
    }
}

impl FamilyOf for FlowRecord4 {
    const FAMILY: Family = Family::V4;

    #[inline]
    fn table(t: &Tables) -> &FlowTable<Self> {
        &t.v4
    }

    #[inline]
    fn flow_key(p: &Parsed, _: &[u8], zone: Zone) -> Key4 {
        p.key4(zone)
    }

    fn reverse(key: &Key4, zone: Zone) -> Key4 {
        Key4 { addrs: key.addrs.rotate_left(32), l4: reverse_l4(key.l4, zone) }
    }

    fn zone(key: &Key4) -> Option<Zone> {
        zone_of(key.l4)
    }

    fn raw_ports(key: &Key4) -> (u16, u16) {
        ((key.l4 as u16).swap_bytes(), ((key.l4 >> 16) as u16).swap_bytes())
    }

    fn tuple(key: &Key4) -> Tuple {
        let addr = |w: u32| IpAddr::V4(Ipv4Addr::from(w.to_le_bytes()));
        let (proto, sport, dport) = rule_ports(key.l4);
        Tuple { proto, src: addr(key.addrs as u32), dst: addr((key.addrs >> 32) as u32), sport, dport }
    }

    fn set_identity(&self, key: &Key4) {
        self.new_addrs.store(key.addrs, Ordering::Relaxed);
        self.new_ports.store(key.l4 & 0xFFFF_FFFF, Ordering::Relaxed);
    }

    fn answer_to(header: &[u8], (sport, dport): (u16, u16), proto: u8, zone: Zone) -> Option<Key4> {
        let a: &[u8; 8] = header.get(12..)?.first_chunk()?;
        let addrs = u64::from_le_bytes(*a).rotate_left(32);
        Some(Key4 { addrs, l4: l4_word(dport, sport, proto, zone) })
    }
}

impl FamilyOf for FlowRecord6 {
    const FAMILY: Family = Family::V6;

    #[inline]
    fn table(t: &Tables) -> &FlowTable<Self> {
        &t.v6
    }

    #[inline]
    fn flow_key(p: &Parsed, frame: &[u8], zone: Zone) -> Key6 {
        p.key6(frame, zone)
    }

    fn reverse(key: &Key6, zone: Zone) -> Key6 {
        Key6 { src: key.dst, dst: key.src, l4: reverse_l4(key.l4, zone) }
    }

    fn zone(key: &Key6) -> Option<Zone> {
        zone_of(key.l4)
    }

    fn raw_ports(key: &Key6) -> (u16, u16) {
        ((key.l4 as u16).swap_bytes(), ((key.l4 >> 16) as u16).swap_bytes())
    }

    fn tuple(key: &Key6) -> Tuple {
        let addr = |w: [u64; 2]| {
            let mut b = [0u8; 16];
            b[..8].copy_from_slice(&w[0].to_le_bytes());
            b[8..].copy_from_slice(&w[1].to_le_bytes());
            IpAddr::V6(Ipv6Addr::from(b))
        };
        let (proto, sport, dport) = rule_ports(key.l4);
        Tuple { proto, src: addr(key.src), dst: addr(key.dst), sport, dport }
    }

    fn set_identity(&self, key: &Key6) {
        for i in 0..2 {
            self.new_src[i].store(key.src[i], Ordering::Relaxed);
            self.new_dst[i].store(key.dst[i], Ordering::Relaxed);
        }
        self.new_ports.store(key.l4 & 0xFFFF_FFFF, Ordering::Relaxed);
    }

    fn answer_to(header: &[u8], (sport, dport): (u16, u16), proto: u8, zone: Zone) -> Option<Key6> {
        let a: &[u8; 32] = header.get(8..)?.first_chunk()?;
        let w: [u64; 4] = std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|b| a[i * 8 + b])));
        Some(Key6 { src: [w[2], w[3]], dst: [w[0], w[1]], l4: l4_word(dport, sport, proto, zone) })
    }
}

/// The key under which the packet that an ICMP error quotes is known: its answer, seen from where
/// the error came. Works before and after translation alike.
pub fn quoted_key<R: FamilyOf>(p: &Parsed, frame: &[u8], zone: Zone) -> Option<R::Key> {
    let quote = p.ip(frame).get(usize::from(p.l4_at - p.l3) + 8..)?;
    let (proto, l4_at) = match R::FAMILY {
        Family::V4 => quoted_v4(quote)?,
        Family::V6 => quoted_v6(quote)?,
    };
    // Eight bytes are all that RFC 792 promises of the transport header.
    let l4: &[u8; 8] = quote.get(l4_at..)?.first_chunk()?;
    let word = |i: usize| u16::from_le_bytes([l4[i], l4[i + 1]]);
    let ports = match (R::FAMILY, proto, l4[0]) {
        (_, TCP | UDP, _) => (word(0), word(2)),
        (Family::V4, ICMP, 8) | (Family::V6, ICMPV6, 128) => (word(4), 0),
        (Family::V4, ICMP, 0) | (Family::V6, ICMPV6, 129) => (0, word(4)),
        _ => (0, 0),
    };
    R::answer_to(quote, ports, proto, zone)
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
