//! Tunnel headers: VXLAN (RFC 7348), GRE (RFC 2784, 2890) and IP in IP (RFC 2003, 2473).
//!
//! What all packets of a tunnel have in common is a [`Template`], which the XDP program copies too;
//! the [`Fields`] are filled in for each packet.

use crate::checksum;
use crate::parse::Family;
use crate::proto::*;
use sag_model::MacAddr;
use std::net::IpAddr;

/// Room for the longest header: VXLAN over IPv6.
pub const HEADER_MAX: usize = 80;
/// Bytes of a VXLAN header.
pub const VXLAN_LEN: usize = 8;
/// First of the source ports that carry a flow's entropy (RFC 7348 5: the dynamic range).
pub const ENTROPY_FIRST: u16 = 49152;
/// The bits of a hash that choose one of these ports.
pub const ENTROPY_MASK: u16 = 0x3FFF;

const GRE_CHECKSUM: u16 = 0x8000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
/// Routing, strict source route, recursion control, version: nobody may send these (RFC 2784 2.1).
const GRE_UNSUPPORTED: u16 = 0x4C07;

/// What a tunnel puts between the outer IP header and the inner packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encap {
    /// VXLAN (RFC 7348).
    Vxlan {
        /// VXLAN network identifier, 24 bits.
        vni: u32,
        /// UDP destination port; 4789 by default.
        port: u16,
        /// The gateway's address on the tunnel's inner Ethernet.
        mac: MacAddr,
        /// The peer's address there.
        remote_mac: MacAddr,
    },
    /// GRE (RFC 2784, RFC 2890).
    Gre {
        /// The key, if packets carry one.
        key: Option<u32>,
        /// Packets carry a checksum.
        checksum: bool,
        /// Packets carry a sequence number.
        sequence: bool,
    },
    /// IP in IP (RFC 2003, RFC 2473).
    Ipip,
    /// ESP in tunnel mode (RFC 4303); the sealing fills in SPI, sequence number and IV.
    Esp {
        /// ESP in UDP (RFC 3948) from and to this port.
        udp: Option<u16>,
    },
}

/// Bytes of SPI, sequence number and IV (RFC 4303 2, RFC 4106 3.1).
pub const ESP_LEN: usize = 16;
/// Padding, its length, next header and ICV at the most.
const ESP_TRAILER: usize = 21;

/// The header of a tunnel from the outer IP header on, without what differs from packet to packet:
/// lengths, identification, traffic class, flow label, checksums, source port, sequence number, and
/// the protocol of the packet inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    /// The header; what differs from packet to packet is 0.
    pub bytes: [u8; HEADER_MAX],
    /// Bytes of the header.
    pub len: u8,
    /// IP version of the outer header.
    pub outer: Family,
    /// Bytes of the outer IP header.
    pub ip: u8,
    /// What follows the outer IP header.
    pub encap: Encap,
}

/// What differs from packet to packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// IP version of the inner packet.
    pub inner: Family,
    /// Traffic class of the outer header.
    pub tos: u8,
    /// Don't-fragment flag of an outer IPv4 header.
    pub dont_fragment: bool,
    /// Identification of an outer IPv4 header that may be fragmented.
    pub id: u16,
    /// Hash of the inner flow: chooses the outer source port or flow label.
    pub hash: u64,
    /// GRE sequence number.
    pub sequence: u32,
}

/// The 20 bits of a flow's hash that go into the outer source port or flow label.
#[inline]
pub const fn entropy(hash: u64) -> u32 {
    (hash >> 8) as u32 & 0xF_FFFF
}

impl Template {
    /// The header of a tunnel from `local` to `remote`. If one of the two is IPv6, both are
    /// (an IPv4 address is mapped).
    pub fn new(local: IpAddr, remote: IpAddr, ttl: u8, encap: Encap) -> Template {
        let mut bytes = [0; HEADER_MAX];
        let proto = match encap {
            Encap::Vxlan { .. } => UDP,
            Encap::Gre { .. } => GRE,
            Encap::Ipip => IPIP,
            Encap::Esp { udp: None } => ESP,
            Encap::Esp { udp: Some(_) } => UDP,
        };
        let (outer, ip) = match (local, remote) {
            (IpAddr::V4(l), IpAddr::V4(r)) => {
                bytes[0] = 0x45;
                bytes[8] = ttl;
                bytes[9] = proto;
                bytes[12..16].copy_from_slice(&l.octets());
                bytes[16..20].copy_from_slice(&r.octets());
                (Family::V4, IPV4_LEN)
            }
            (l, r) => {
                let v6 = |a: IpAddr| match a {
                    IpAddr::V6(a) => a.octets(),
                    IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
                };
                bytes[0] = 0x60;
                bytes[6] = proto;
                bytes[7] = ttl;
                bytes[8..24].copy_from_slice(&v6(l));
                bytes[24..40].copy_from_slice(&v6(r));
                (Family::V6, IPV6_LEN)
            }
        };
        let h = &mut bytes[ip..];
        let n = match encap {
            Encap::Vxlan { vni, port, mac, remote_mac } => {
                h[2..4].copy_from_slice(&port.to_be_bytes());
                h[8] = 0x08;
                h[12..16].copy_from_slice(&(vni << 8).to_be_bytes());
                h[16..22].copy_from_slice(&remote_mac.0);
                h[22..28].copy_from_slice(&mac.0);
                UDP_LEN + VXLAN_LEN + ETH_LEN
            }
            Encap::Gre { key, checksum, sequence } => {
                let mut flags = 0;
                let mut at = 4;
                if checksum {
                    flags |= GRE_CHECKSUM;
                    at += 4;
                }
                if let Some(key) = key {
                    flags |= GRE_KEY;
                    h[at..at + 4].copy_from_slice(&key.to_be_bytes());
                    at += 4;
                }
                if sequence {
                    flags |= GRE_SEQUENCE;
                    at += 4;
                }
                h[0..2].copy_from_slice(&flags.to_be_bytes());
                at
            }
            Encap::Ipip => 0,
            Encap::Esp { udp: None } => ESP_LEN,
            Encap::Esp { udp: Some(port) } => {
                h[0..2].copy_from_slice(&port.to_be_bytes());
                h[2..4].copy_from_slice(&port.to_be_bytes());
                UDP_LEN + ESP_LEN
            }
        };
        Template { bytes, len: (ip + n) as u8, outer, ip: ip as u8, encap }
    }

    /// Bytes that the tunnel adds to an IP packet, at the most.
    pub const fn overhead(&self) -> u16 {
        match self.encap {
            Encap::Esp { .. } => self.len as u16 + ESP_TRAILER as u16,
            _ => self.len as u16,
        }
    }

    /// Writes the header to the first bytes of `packet`, which are followed by the inner packet.
    /// With `udp_checksum` the checksum of an outer UDP header is computed; otherwise it is 0.
    /// False, changing nothing: `packet` is shorter than the header.
    pub fn write(&self, packet: &mut [u8], f: &Fields, udp_checksum: bool) -> bool {
        let (ip, len, total) = (usize::from(self.ip), usize::from(self.len), packet.len());
        let Some(h) = packet.get_mut(..len) else { return false };
        h.copy_from_slice(&self.bytes[..len]);
        let inner_proto = match f.inner {
            Family::V4 => IPIP,
            Family::V6 => IPV6_IN_IP,
        };
        let ethertype = match f.inner {
            Family::V4 => ETHERTYPE_IPV4,
            Family::V6 => ETHERTYPE_IPV6,
        }
        .to_be_bytes();
        let bare = matches!(self.encap, Encap::Ipip);
        match self.outer {
            Family::V4 => {
                h[1] = f.tos;
                h[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                // An atomic datagram's identification means nothing (RFC 6864 4.1).
                h[4..6].copy_from_slice(&(if f.dont_fragment { 0 } else { f.id }).to_be_bytes());
                h[6] = if f.dont_fragment { 0x40 } else { 0 };
                if bare {
                    h[9] = inner_proto;
                }
                let check = checksum::finish(checksum::sum(&h[..IPV4_LEN]));
                h[10..12].copy_from_slice(&check.to_ne_bytes());
            }
            Family::V6 => {
                let word = 6 << 28 | u32::from(f.tos) << 20 | entropy(f.hash);
                h[0..4].copy_from_slice(&word.to_be_bytes());
                h[4..6].copy_from_slice(&((total - IPV6_LEN) as u16).to_be_bytes());
                if bare {
                    h[6] = inner_proto;
                }
            }
        }
        match self.encap {
            Encap::Vxlan { .. } => {
                h[ip..ip + 2].copy_from_slice(&entropy_port(f.hash).to_be_bytes());
                h[ip + 4..ip + 6].copy_from_slice(&((total - ip) as u16).to_be_bytes());
                h[len - 2..len].copy_from_slice(&ethertype);
                self.fill_udp_checksum(packet, udp_checksum);
            }
            Encap::Gre { checksum: summed, sequence, .. } => {
                h[ip + 2..ip + 4].copy_from_slice(&ethertype);
                if sequence {
                    h[len - 4..len].copy_from_slice(&f.sequence.to_be_bytes());
                }
                if summed {
                    let check = checksum::finish(checksum::sum(&packet[ip..]));
                    packet[ip + 4..ip + 6].copy_from_slice(&check.to_ne_bytes());
                }
            }
            Encap::Esp { udp: Some(_) } => {
                h[ip + 4..ip + 6].copy_from_slice(&((total - ip) as u16).to_be_bytes());
            }
            Encap::Ipip | Encap::Esp { udp: None } => {}
        }
        true
    }

    /// Puts the ones' complement sum of what is the same in every packet of a VXLAN tunnel (header and
    /// pseudo-header) into the UDP checksum's place, as loaded: XDP adds the rest.
    pub fn preset_udp_checksum(&self, header: &mut [u8; HEADER_MAX]) {
        let (ip, len) = (usize::from(self.ip), usize::from(self.len));
        let addrs = match self.outer {
            Family::V4 => 12..20,
            Family::V6 => 8..40,
        };
        let sum = checksum::pseudo(&header[addrs], UDP, 0) + checksum::sum(&header[ip..len]);
        header[ip + 6..ip + 8].copy_from_slice(&checksum::fold(sum).to_ne_bytes());
    }

    /// Fills in the UDP checksum of a whole packet; without `enabled` it is 0, which means none.
    pub fn fill_udp_checksum(&self, packet: &mut [u8], enabled: bool) {
        let ip = usize::from(self.ip);
        let addrs = match self.outer {
            Family::V4 => 12..20,
            Family::V6 => 8..40,
        };
        let Some(len) = packet.len().checked_sub(ip + UDP_LEN).map(|n| n + UDP_LEN) else { return };
        packet[ip + 6..ip + 8].fill(0);
        if !enabled {
            return;
        }
        let sum = checksum::pseudo(&packet[addrs], UDP, len) + checksum::sum(&packet[ip..]);
        // Zero would say that there is none (RFC 768).
        let check = match checksum::finish(sum) {
            0 => 0xFFFF,
            c => c,
        };
        packet[ip + 6..ip + 8].copy_from_slice(&check.to_ne_bytes());
    }
}

/// Whether the first eight bytes of a GRE header, quoted by an ICMP error, fit a tunnel with this key.
/// Where a checksum pushes the key out of the quote, they do.
pub fn gre_quote_matches(d: &[u8; 8], key: Option<u32>) -> bool {
    let flags = u16::from_be_bytes([d[0], d[1]]);
    let second = u32::from_be_bytes([d[4], d[5], d[6], d[7]]);
    match key {
        None => flags & GRE_KEY == 0,
        Some(_) if flags & GRE_CHECKSUM != 0 => flags & GRE_KEY != 0,
        Some(key) => flags & GRE_KEY != 0 && second == key,
    }
}

/// Bytes of a GRE header that an ICMP error quotes: nothing can be summed up there.
pub fn gre_quote_len(d: &[u8]) -> Option<usize> {
    let flags = u16::from_be_bytes(*d.first_chunk()?);
    let optional = [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE].into_iter().filter(|f| flags & f != 0).count();
    (flags & GRE_UNSUPPORTED == 0).then_some(4 + 4 * optional)
}

/// The UDP source port of a flow's packets in a VXLAN tunnel.
pub const fn entropy_port(hash: u64) -> u16 {
    ENTROPY_FIRST | entropy(hash) as u16 & ENTROPY_MASK
}

/// A received GRE header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GreHeader {
    /// The key, if there is one.
    pub key: Option<u32>,
    /// Protocol type of the inner packet.
    pub ethertype: u16,
    /// Bytes of the header.
    pub len: usize,
}

/// Reads the GRE header at the front of `d`, the IP payload.
///
/// `None`: it is cut short, has a flag that must not be sent or another version (RFC 2784 2.1), or its
/// checksum is wrong.
pub fn gre(d: &[u8]) -> Option<GreHeader> {
    let h: &[u8; 4] = d.first_chunk()?;
    let flags = u16::from_be_bytes([h[0], h[1]]);
    if flags & GRE_UNSUPPORTED != 0 {
        return None;
    }
    let word = |at: usize| d.get(at..)?.first_chunk().map(|w| u32::from_be_bytes(*w));
    let (mut len, mut key) = (4, None);
    if flags & GRE_CHECKSUM != 0 {
        word(len)?;
        if checksum::fold(checksum::sum(d)) != 0xFFFF {
            return None;
        }
        len += 4;
    }
    if flags & GRE_KEY != 0 {
        key = Some(word(len)?);
        len += 4;
    }
    if flags & GRE_SEQUENCE != 0 {
        word(len)?;
        len += 4;
    }
    Some(GreHeader { key, ethertype: u16::from_be_bytes([h[2], h[3]]), len })
}

/// The VNI of the VXLAN header at the front of `d`. `None`: it is cut short or has no valid VNI.
pub fn vxlan(d: &[u8]) -> Option<u32> {
    let h: &[u8; VXLAN_LEN] = d.first_chunk()?;
    (h[0] & 0x08 != 0).then(|| u32::from_be_bytes([0, h[4], h[5], h[6]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{L4, NetworkLayer, parse};
    use proptest::prelude::*;

    fn ends(v6: bool) -> (IpAddr, IpAddr) {
        match v6 {
            false => ([203, 0, 113, 2].into(), [203, 0, 113, 9].into()),
            true => ("2001:db8::2".parse().unwrap(), "2001:db8::9".parse().unwrap()),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            v6 in any::<bool>(), inner6 in any::<bool>(), kind in 0..3, key in any::<Option<u32>>(),
            summed in any::<bool>(), sequence in any::<bool>(), vni in 0u32..1 << 24,
            tos in any::<u8>(), df in any::<bool>(), id in any::<u16>(), hash in any::<u64>(),
            data in prop::collection::vec(any::<u8>(), 20..200),
        ) {
            let (mac, remote_mac) = (MacAddr([2, 1, 1, 1, 1, 1]), MacAddr([2, 2, 2, 2, 2, 2]));
            let encap = match kind {
                0 => Encap::Vxlan { vni, port: 4789, mac, remote_mac },
                1 => Encap::Gre { key, checksum: summed, sequence },
                _ => Encap::Ipip,
            };
            let (local, remote) = ends(v6);
            let t = Template::new(local, remote, 64, encap);
            let inner = if inner6 { Family::V6 } else { Family::V4 };
            let n = usize::from(t.len);
            let mut frame = vec![0; 14];
            frame.extend(vec![0xEE; n]);
            frame.extend(&data);
            let f = Fields { inner, tos, dont_fragment: df, id, hash, sequence: 7 };
            prop_assert!(t.write(&mut frame[14..], &f, summed));
            let Ok(NetworkLayer::Ip(p)) = parse(&frame, if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 }, 14) else {
                return Err(TestCaseError::fail("the outer packet does not parse"));
            };
            prop_assert_eq!((p.src(&frame), p.dst(&frame)), (local, remote));
            prop_assert_eq!((p.tos, p.ttl, usize::from(p.ip_len)), (tos, 64, n + data.len()));
            prop_assert_eq!(p.dont_fragment, df || v6);
            let d = &frame[usize::from(p.l4_at)..];
            let et = if inner6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            match encap {
                Encap::Vxlan { .. } => {
                    prop_assert_eq!(p.l4, L4::Udp);
                    let (sport, dport) = p.ports();
                    prop_assert!(sport >= 49152 && dport == 4789);
                    prop_assert_eq!(vxlan(&d[8..]), Some(vni));
                    prop_assert_eq!(&d[16..22], &remote_mac.0);
                    prop_assert_eq!(&d[28..30], &et.to_be_bytes());
                    let check = [d[6], d[7]];
                    prop_assert_eq!(check != [0, 0], summed);
                    if summed {
                        let addrs = if v6 { &frame[22..54] } else { &frame[26..34] };
                        let sum = checksum::pseudo(addrs, UDP, d.len()) + checksum::sum(d);
                        prop_assert_eq!(checksum::fold(sum), 0xFFFF);
                    }
                }
                Encap::Gre { .. } => {
                    let h = gre(d).expect("a GRE header");
                    prop_assert_eq!((h.key, h.ethertype), (key, et));
                    prop_assert_eq!(&d[h.len..], &data[..]);
                    if summed {
                        let mut bad = d.to_vec();
                        *bad.last_mut().unwrap() ^= 1;
                        prop_assert_eq!(gre(&bad), None);
                    }
                }
                Encap::Ipip => prop_assert_eq!(p.proto, if inner6 { IPV6_IN_IP } else { IPIP }),
                Encap::Esp { .. } => unreachable!(),
            }
            prop_assert!(frame.ends_with(&data));
        }

        #[test]
        fn any_bytes_may_come(d in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (vxlan(&d), gre(&d));
        }
    }
}
