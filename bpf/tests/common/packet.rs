//! Frames for tests: every field can be set, lengths and checksums are filled in at the end by the
//! textbook algorithm, on purpose not by the code under test.

use super::{GW_MAC, HOST_MAC};
use sag_model::MacAddr;
use std::net::{Ipv4Addr, Ipv6Addr};

pub fn ones_sum(data: &[u8], start: u32) -> u32 {
    let mut s = start;
    for c in data.chunks(2) {
        s += u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0));
        s = (s & 0xFFFF) + (s >> 16);
    }
    s
}

/// Link header: destination is the gateway, source a host.
pub fn eth(vlan: Option<u16>, ethertype: u16) -> Vec<u8> {
    eth_to(GW_MAC, HOST_MAC, vlan, ethertype)
}

pub fn eth_to(dst: MacAddr, src: MacAddr, vlan: Option<u16>, ethertype: u16) -> Vec<u8> {
    let mut f = [dst.0, src.0].concat();
    if let Some(v) = vlan {
        f.extend([0x81, 0x00]);
        f.extend(v.to_be_bytes());
    }
    f.extend(ethertype.to_be_bytes());
    f
}

/// Joins byte strings.
pub fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[derive(Clone)]
pub struct V4 {
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
    pub proto: u8,
    pub ttl: u8,
    pub frag: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub fn v4(src: [u8; 4], dst: [u8; 4], proto: u8, payload: Vec<u8>) -> V4 {
    V4 { src: src.into(), dst: dst.into(), proto, ttl: 64, frag: 0x4000, options: vec![], payload }
}

impl V4 {
    /// The packet with its header and transport checksums.
    pub fn build(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut p = vec![0u8; header];
        p[0] = 0x40 | (header / 4) as u8;
        p[2..4].copy_from_slice(&((header + self.payload.len()) as u16).to_be_bytes());
        p[4..6].copy_from_slice(&0x1c46u16.to_be_bytes());
        p[6..8].copy_from_slice(&self.frag.to_be_bytes());
        p[8] = self.ttl;
        p[9] = self.proto;
        p[12..16].copy_from_slice(&self.src.octets());
        p[16..20].copy_from_slice(&self.dst.octets());
        p[20..].copy_from_slice(&self.options);
        let c = !(ones_sum(&p, 0) as u16);
        p[10..12].copy_from_slice(&c.to_be_bytes());
        p.extend(&self.payload);
        if self.frag & 0x3FFF == 0 {
            fix_l4(&mut p, header, self.proto, 12, 4);
        }
        p
    }

    pub fn frame(&self, vlan: Option<u16>) -> Vec<u8> {
        cat(&[&eth(vlan, 0x0800), &self.build()])
    }
}

pub fn v6(src: &str, dst: &str, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst): (Ipv6Addr, Ipv6Addr) = (src.parse().unwrap(), dst.parse().unwrap());
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((payload.len() as u16).to_be_bytes());
    p.extend([next, hops]);
    p.extend(src.octets());
    p.extend(dst.octets());
    p.extend(payload);
    fix_l4(&mut p, 40, next, 8, 16);
    p
}

pub fn v6_frame(vlan: Option<u16>, packet: &[u8]) -> Vec<u8> {
    cat(&[&eth(vlan, 0x86DD), packet])
}

pub fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut d = cat(&[&sport.to_be_bytes(), &dport.to_be_bytes()]);
    d.extend((8 + payload.len() as u16).to_be_bytes());
    d.extend([0, 0]);
    d.extend(payload);
    d
}

pub fn tcp(sport: u16, dport: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut d = cat(&[&sport.to_be_bytes(), &dport.to_be_bytes()]);
    d.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    d.extend(payload);
    d
}

pub fn icmp(kind: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut d = vec![kind, 0, 0, 0];
    d.extend(id.to_be_bytes());
    d.extend([0, 1]);
    d.extend(payload);
    d
}

/// Where the transport checksum is, and whether it covers the addresses.
fn l4_check(proto: u8) -> Option<(usize, bool)> {
    match proto {
        1 => Some((2, false)),
        6 => Some((16, true)),
        17 => Some((6, true)),
        58 => Some((2, true)),
        _ => None,
    }
}

fn l4_sum(p: &[u8], l4: usize, proto: u8, addrs: usize, addr_len: usize) -> u16 {
    let mut s = 0;
    if l4_check(proto).unwrap().1 {
        s = ones_sum(&p[addrs..addrs + 2 * addr_len], s);
        s = ones_sum(&[0, proto], s);
        s = ones_sum(&((p.len() - l4) as u16).to_be_bytes(), s);
    }
    ones_sum(&p[l4..], s) as u16
}

fn fix_l4(p: &mut [u8], l4: usize, proto: u8, addrs: usize, addr_len: usize) {
    let Some((at, _)) = l4_check(proto).filter(|(at, _)| p.len() >= l4 + at + 2) else { return };
    p[l4 + at..l4 + at + 2].fill(0);
    let mut c = !l4_sum(p, l4, proto, addrs, addr_len);
    if proto == 17 && c == 0 {
        c = 0xFFFF;
    }
    p[l4 + at..l4 + at + 2].copy_from_slice(&c.to_be_bytes());
}

/// Panics unless every checksum of the IPv4 packet is right.
pub fn assert_v4_sums(p: &[u8]) {
    let header = usize::from(p[0] & 15) * 4;
    assert_eq!(ones_sum(&p[..header], 0), 0xFFFF, "IPv4 header checksum");
    let len = usize::from(u16::from_be_bytes([p[2], p[3]]));
    assert_l4_sum(&p[..len], header, p[9], 12, 4);
}

pub fn assert_v6_sums(p: &[u8]) {
    let len = 40 + usize::from(u16::from_be_bytes([p[4], p[5]]));
    assert_l4_sum(&p[..len], 40, p[6], 8, 16);
}

fn assert_l4_sum(p: &[u8], l4: usize, proto: u8, addrs: usize, addr_len: usize) {
    let Some((at, _)) = l4_check(proto) else { return };
    if proto == 17 && p[l4 + at..l4 + at + 2] == [0, 0] {
        return;
    }
    assert_eq!(l4_sum(p, l4, proto, addrs, addr_len), 0xFFFF, "transport checksum of protocol {proto}");
}
