//! Numbers of the wire formats.

pub const ETH_LEN: usize = 14;
pub const VLAN_LEN: usize = 4;
pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86DD;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_ARP: u16 = 0x0806;

pub const IPV4_LEN: usize = 20;
pub const IPV6_LEN: usize = 40;
/// Without options.
pub const TCP_LEN: usize = 20;
pub const UDP_LEN: usize = 8;
/// The fixed part of every message that we read.
pub const ICMP_LEN: usize = 8;

pub const ICMP: u8 = 1;
/// IPv4 in IP (RFC 2003), IPv6 in IP (RFC 2473).
pub const IPIP: u8 = 4;
pub const IPV6_IN_IP: u8 = 41;
pub const GRE: u8 = 47;
pub const ESP: u8 = 50;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const DCCP: u8 = 33;
pub const ICMPV6: u8 = 58;
pub const UDP_LITE: u8 = 136;

pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DEST_OPTIONS: u8 = 60;

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;
