//! Numbers of the wire formats: lengths in bytes, EtherTypes, IP protocol numbers, TCP flags.

/// Ethernet header.
pub const ETH_LEN: usize = 14;
/// 802.1Q tag.
pub const VLAN_LEN: usize = 4;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86DD;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const ETHERTYPE_QINQ: u16 = 0x88A8;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// TCP header without options.
pub const TCP_LEN: usize = 20;
/// UDP header.
pub const UDP_LEN: usize = 8;
/// The fixed part of the ICMP and ICMPv6 messages that are read.
pub const ICMP_LEN: usize = 8;

/// IP protocol: ICMP.
pub const ICMP: u8 = 1;
/// IP protocol: IPv4 in IP (RFC 2003).
pub const IPIP: u8 = 4;
/// IP protocol: IPv6 in IP (RFC 2473).
pub const IPV6_IN_IP: u8 = 41;
/// IP protocol: GRE.
pub const GRE: u8 = 47;
/// IP protocol: ESP.
pub const ESP: u8 = 50;
/// IP protocol: TCP.
pub const TCP: u8 = 6;
/// IP protocol: UDP.
pub const UDP: u8 = 17;
/// IP protocol: DCCP.
pub const DCCP: u8 = 33;
/// IP protocol: ICMPv6.
pub const ICMPV6: u8 = 58;
/// IP protocol: UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// IPv6 extension header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// IPv6 extension header: routing.
pub const ROUTING: u8 = 43;
/// IPv6 extension header: fragment.
pub const FRAGMENT: u8 = 44;
/// IPv6 extension header: destination options.
pub const DEST_OPTIONS: u8 = 60;

/// TCP flag FIN.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 0x10;
