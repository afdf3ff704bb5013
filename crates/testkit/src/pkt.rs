//! Packets from a description. Everything derived (lengths, checksums) is computed from scratch by
//! the textbook, so that the same description with another TTL is the expected output.

use crate::{LAN2, LAN2_VLAN, host_mac};
use sag_model::{MacAddr, PortIdx};
use sag_packet::proto::*;
use sag_pipeline::nat::Endpoint;
use std::net::{IpAddr, Ipv4Addr};

/// MAC addresses of the gateway's ports in [`super::Net::branch`].
pub const GATEWAY_MACS: [MacAddr; 4] = [
    MacAddr([2, 0, 0, 0, 1, 0]),
    MacAddr([2, 0, 0, 0, 1, 1]),
    MacAddr([2, 0, 0, 0, 1, 2]),
    MacAddr([2, 0, 0, 0, 1, 3]),
];

/// The Internet checksum, two bytes at a time.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut s: u32 = 0;
    for d in parts {
        for c in d.chunks(2) {
            s += u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
            s = (s & 0xFFFF) + (s >> 16);
        }
    }
    !(s as u16)
}

/// An IPv4 endpoint.
pub fn end(addr: &str, port: u16) -> Endpoint {
    Endpoint::new(addr.parse().expect("IPv4 address"), port)
}

/// Where the IP header of a frame starts.
pub fn l3(frame: &[u8]) -> usize {
    if frame[12..14] == ETHERTYPE_VLAN.to_be_bytes() { 18 } else { 14 }
}

/// Source and destination of an IPv4 frame: ports, or the identifier of an ICMP query on the side that
/// asked.
pub fn ends4(frame: &[u8]) -> (Endpoint, Endpoint) {
    let ip = &frame[l3(frame)..];
    let l4 = &ip[usize::from(ip[0] & 15) * 4..];
    let addr = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    let (sport, dport) = match (ip[9], l4.first()) {
        (TCP | UDP, _) => (word(0), word(2)),
        (ICMP, Some(8 | 13)) => (word(4), 0),
        (ICMP, Some(0 | 14)) => (0, word(4)),
        _ => (0, 0),
    };
    (Endpoint::new(addr(12), sport), Endpoint::new(addr(16), dport))
}

/// A frame, described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkt {
    /// Destination of the frame.
    pub dmac: MacAddr,
    /// Source of the frame.
    pub smac: MacAddr,
    /// The whole tag control word; `None` = untagged.
    pub tag: Option<u16>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Identification of IPv4.
    pub id: u16,
    /// IPv4 flags and fragment offset, as in the header.
    pub frag: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: type, and all bytes after the "next header" byte.
    pub ext: Vec<(u8, Vec<u8>)>,
    /// Of the transport header.
    pub proto: u8,
    /// Transport header and payload, checksum right.
    pub l4: Vec<u8>,
    /// Bytes of link-layer padding.
    pub pad: usize,
}

impl Pkt {
    /// From a host on the LAN's wire to the gateway, TTL 64, "don't fragment" not set.
    pub fn new(src: &str, dst: &str, proto: u8, l4: Vec<u8>) -> Pkt {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().expect("source"), dst.parse().expect("destination"));
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one family");
        let mut p = Pkt {
            dmac: GATEWAY_MACS[0],
            smac: MacAddr([2, 0xFE, 0, 0, 0, 1]),
            tag: None,
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0x1234,
            frag: 0,
            options: Vec::new(),
            ext: Vec::new(),
            proto,
            l4,
            pad: 0,
        };
        p.fix_l4();
        p
    }

    /// A UDP datagram with a payload.
    pub fn udp(src: &str, dst: &str, sport: u16, dport: u16) -> Pkt {
        Pkt::new(src, dst, UDP, udp_bytes(sport, dport, b"sixteen bytes ok"))
    }

    /// A TCP segment with these flags.
    pub fn tcp(src: &str, dst: &str, sport: u16, dport: u16, flags: u8) -> Pkt {
        let mut l4 = Vec::new();
        l4.extend(sport.to_be_bytes());
        l4.extend(dport.to_be_bytes());
        l4.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x10, 0, 0, 0, 0, 0]);
        l4.extend(b"payload");
        Pkt::new(src, dst, TCP, l4)
    }

    /// Echo request or reply of the family.
    pub fn echo(src: &str, dst: &str, id: u16, reply: bool) -> Pkt {
        let v6 = src.contains(':');
        let kind = match (v6, reply) {
            (false, false) => 8,
            (false, true) => 0,
            (true, false) => 128,
            (true, true) => 129,
        };
        let word = u32::from(id) << 16 | 7;
        Pkt::icmp(src, dst, kind, 0, word, b"ping data")
    }

    /// An ICMP message of the IP version of the addresses.
    pub fn icmp(src: &str, dst: &str, kind: u8, code: u8, word: u32, data: &[u8]) -> Pkt {
        let proto = if src.contains(':') { ICMPV6 } else { ICMP };
        let mut l4 = vec![kind, code, 0, 0];
        l4.extend(word.to_be_bytes());
        l4.extend(data);
        Pkt::new(src, dst, proto, l4)
    }

    /// With this TTL.
    pub fn ttl(mut self, ttl: u8) -> Pkt {
        self.ttl = ttl;
        self
    }

    /// With this TOS.
    pub fn tos(mut self, tos: u8) -> Pkt {
        self.tos = tos;
        self
    }

    /// With "don't fragment" set.
    pub fn df(mut self) -> Pkt {
        self.frag |= 0x4000;
        self
    }

    /// To the gateway's port with this index of [`GATEWAY_MACS`]; tagged if it is the VLAN port.
    pub fn into_port(mut self, port: PortIdx) -> Pkt {
        self.dmac = GATEWAY_MACS[port.index()];
        self.tag = (port == LAN2).then_some(LAN2_VLAN);
        self
    }

    /// The same packet between other endpoints; the identifier of an ICMP query is the port of the
    /// asking side.
    pub fn between(mut self, src: Endpoint, dst: Endpoint) -> Pkt {
        (self.src, self.dst) = (src.addr.into(), dst.addr.into());
        match (self.proto, self.l4.first()) {
            (TCP | UDP, _) => {
                self.l4[0..2].copy_from_slice(&src.port.to_be_bytes());
                self.l4[2..4].copy_from_slice(&dst.port.to_be_bytes());
            }
            (ICMP, Some(8 | 13)) => self.l4[4..6].copy_from_slice(&src.port.to_be_bytes()),
            (ICMP, Some(0 | 14)) => self.l4[4..6].copy_from_slice(&dst.port.to_be_bytes()),
            _ => {}
        }
        self.fix_l4();
        self
    }

    /// The frame as it must leave by `port` for its next hop `via`: one hop older, new link header,
    /// no padding.
    pub fn forwarded(&self, port: PortIdx, via: &str) -> Vec<u8> {
        let mut p = self.clone();
        p.ttl -= 1;
        p.pad = 0;
        let vlan = if port == LAN2 { LAN2_VLAN } else { 0 };
        p.link(host_mac(port, via), GATEWAY_MACS[port.index()], vlan).build()
    }

    /// With the identification of what has become of it: NAT gives another one to IPv4 datagrams that are not atomic
    /// (RFC 6864 section 5.3.1).
    pub fn numbered_as(mut self, frame: &[u8]) -> Pkt {
        const DF: u16 = 0x4000;
        if self.src.is_ipv4() && self.frag & 0x7FFF != DF {
            let ip = &frame[l3(frame)..];
            self.id = u16::from_be_bytes([ip[4], ip[5]]);
        }
        self
    }

    /// From one Ethernet address to another, with a VLAN tag unless `vlan` is 0.
    pub fn link(mut self, dmac: MacAddr, smac: MacAddr, vlan: u16) -> Pkt {
        (self.dmac, self.smac, self.tag) = (dmac, smac, (vlan != 0).then_some(vlan));
        self
    }

    /// With this tag control word.
    pub fn tagged(mut self, tci: u16) -> Pkt {
        self.tag = Some(tci);
        self
    }

    /// With bytes behind the packet.
    pub fn padded(mut self, bytes: usize) -> Pkt {
        self.pad = bytes;
        self
    }

    /// With IPv4 options.
    pub fn options(mut self, options: &[u8]) -> Pkt {
        assert!(options.len().is_multiple_of(4));
        self.options = options.to_vec();
        self
    }

    /// Adds an extension header; `body` is all after its "next header" byte.
    pub fn ext(mut self, kind: u8, body: &[u8]) -> Pkt {
        self.ext.push((kind, body.to_vec()));
        self
    }

    /// Payload of this many bytes after the transport header's `header` bytes.
    pub fn payload(mut self, bytes: usize) -> Pkt {
        let header = match self.proto {
            TCP => 20,
            UDP | ICMP | ICMPV6 => 8,
            _ => 0,
        };
        self.l4.truncate(header);
        self.l4.extend((0..bytes).map(|i| (i * 7) as u8));
        self.fix_l4();
        self
    }

    /// The datagram's fragment with `len` bytes from `at`.
    pub fn fragment(&self, at: usize, len: usize) -> Pkt {
        let mut f = self.clone();
        let end = (at + len).min(self.l4.len());
        let more = u16::from(end < self.l4.len());
        f.l4 = self.l4[at..end].to_vec();
        match self.src {
            IpAddr::V4(_) => f.frag = (self.frag & 0xC000) | more << 13 | (at / 8) as u16,
            IpAddr::V6(_) => {
                let [a, b] = (at as u16 | more).to_be_bytes();
                let [c, d] = self.id.to_be_bytes();
                f.ext.push((FRAGMENT, vec![0, a, b, 0, 0, c, d]));
            }
        }
        f
    }

    /// Length and checksum of the transport header.
    pub fn fix_l4(&mut self) {
        if self.proto == UDP && self.l4.len() >= 8 {
            let len = self.l4.len() as u16;
            self.l4[4..6].copy_from_slice(&len.to_be_bytes());
        }
        let at = match self.proto {
            TCP => 16,
            UDP => 6,
            ICMP | ICMPV6 => 2,
            _ => return,
        };
        if self.l4.len() < at + 2 {
            return;
        }
        self.l4[at..at + 2].fill(0);
        let pseudo = match (self.src, self.dst) {
            _ if self.proto == ICMP => Vec::new(),
            (IpAddr::V4(s), IpAddr::V4(d)) => [&s.octets()[..], &d.octets()].concat(),
            (IpAddr::V6(s), IpAddr::V6(d)) => [&s.octets()[..], &d.octets()].concat(),
            _ => unreachable!("checked by new"),
        };
        let tail = match self.proto {
            ICMP => Vec::new(),
            _ => [&[0, self.proto][..], &(self.l4.len() as u16).to_be_bytes()].concat(),
        };
        let check = match (checksum(&[&pseudo, &tail, &self.l4]), self.proto) {
            (0, UDP) => 0xFFFF,
            (c, _) => c,
        };
        self.l4[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }

    /// The IP packet alone.
    pub fn ip(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let ihl = 20 + self.options.len();
                let total = (ihl + self.l4.len()) as u16;
                let mut h = vec![0x40 | (ihl / 4) as u8, self.tos];
                h.extend(total.to_be_bytes());
                h.extend(self.id.to_be_bytes());
                h.extend(self.frag.to_be_bytes());
                h.extend([self.ttl, self.proto, 0, 0]);
                h.extend(s.octets());
                h.extend(d.octets());
                h.extend(&self.options);
                let check = checksum(&[&h]).to_be_bytes();
                h[10..12].copy_from_slice(&check);
                h.extend(&self.l4);
                h
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let ext: usize = self.ext.iter().map(|e| e.1.len() + 1).sum();
                let first = self.ext.first().map_or(self.proto, |e| e.0);
                let mut h = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
                h.extend(((ext + self.l4.len()) as u16).to_be_bytes());
                h.extend([first, self.ttl]);
                h.extend(s.octets());
                h.extend(d.octets());
                for (i, (_, body)) in self.ext.iter().enumerate() {
                    h.push(self.ext.get(i + 1).map_or(self.proto, |e| e.0));
                    h.extend(body);
                }
                h.extend(&self.l4);
                h
            }
            _ => unreachable!("checked by new"),
        }
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut f = [self.dmac.0, self.smac.0].concat();
        if let Some(tci) = self.tag {
            f.extend(ETHERTYPE_VLAN.to_be_bytes());
            f.extend(tci.to_be_bytes());
        }
        f.extend(if self.src.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }.to_be_bytes());
        f.extend(self.ip());
        f.extend(std::iter::repeat_n(0xA5, self.pad));
        f
    }
}

fn udp_bytes(sport: u16, dport: u16, data: &[u8]) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(sport.to_be_bytes());
    l4.extend(dport.to_be_bytes());
    l4.extend([0; 4]);
    l4.extend(data);
    l4
}
