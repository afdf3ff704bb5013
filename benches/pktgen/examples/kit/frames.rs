//! Frames of one flow each, to the gateway.

use super::GW_MAC;
use sag_packet::checksum;

const SRC: [u8; 4] = [172, 16, 0, 1];
const DST: [u8; 4] = [198, 51, 100, 9];
const SRC6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DST6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub const VLAN: u16 = 5;
pub const UDP: u8 = 17;
pub const TCP: u8 = 6;
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;

/// Link header to the gateway.
fn eth(ethertype: u16, tagged: bool) -> Vec<u8> {
    let mut f = GW_MAC.0.to_vec();
    f.extend([2, 0, 0, 0, 0, 2]);
    if tagged {
        f.extend([0x81, 0, 0, VLAN as u8]);
    }
    f.extend(ethertype.to_be_bytes());
    f
}

/// Transport header and zeros, `len` bytes; ports or identifier tell the flows apart.
fn transport(proto: u8, flow: u8, len: usize) -> Vec<u8> {
    let mut l4 = vec![0; len];
    match proto {
        UDP => l4[..8].copy_from_slice(&[0x10, flow, 0, 53, 0, len as u8, 0x12, 0x34]),
        TCP => l4[..20].copy_from_slice(&[
            0x10, flow, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0x12, 0x34, 0, 0,
        ]),
        ICMP => l4[..8].copy_from_slice(&[8, 0, 0x12, 0x34, 0x10, flow, 0, 1]),
        _ => l4[..8].copy_from_slice(&[128, 0, 0x12, 0x34, 0x10, flow, 0, 1]),
    }
    l4
}

pub fn ip4(proto: u8, flow: u8, ip_len: u8, tagged: bool) -> Vec<u8> {
    let mut f = eth(0x0800, tagged);
    let mut ip = vec![0x45, 0, 0, ip_len, 0, 0, 0x40, 0, 64, proto, 0, 0];
    ip.extend(SRC);
    ip.extend(DST);
    let sum = !checksum::fold(checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());
    f.extend(ip);
    f.extend(transport(proto, flow, usize::from(ip_len) - 20));
    f
}

/// A payload of 10 bytes makes a frame of 64.
pub fn ip6(proto: u8, flow: u8, payload: u8) -> Vec<u8> {
    let mut f = eth(0x86DD, false);
    f.extend([0x60, 0, 0, 0, 0, payload, proto, 64]);
    f.extend(SRC6);
    f.extend(DST6);
    f.extend(transport(proto, flow, payload.into()));
    f
}
