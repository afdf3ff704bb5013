/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Wire formats. Their fields are naturally aligned within them, so none is packed: the compiler may
 * load a field with one instruction wherever the frame starts.
 */
#ifndef GW_WIRE_H
#define GW_WIRE_H

struct gw_eth {
	__u8 dst[6];
	__u8 src[6];
	__u16 type;
};

struct gw_vlan_tag {
	__u16 tci;
	__u16 type;
};

struct gw_ip4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 len;
	__u16 id;
	__u16 frag;
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__u32 src;
	__u32 dst;
};

struct gw_ip6 {
	__u32 version_class;
	__u16 payload;
	__u8 next;
	__u8 hops;
	__u32 src[4];
	__u32 dst[4];
};

/* The first eight bytes of every transport header that we look into. */
struct gw_l4 {
	union {
		struct {
			__u16 sport;
			__u16 dport;
		};
		__u32 ports;
		struct {
			__u8 icmp_type;
			__u8 icmp_code;
			__u16 icmp_check;
		};
	};
	__u16 len;   /* UDP length, ICMP identifier */
	__u16 check; /* UDP checksum, ICMP sequence */
};

struct gw_tcp {
	__u32 ports;
	__u32 seq;
	__u32 ack;
	__u8 offset;
	__u8 flags;
	__u16 window;
	__u16 check;
	__u16 urgent;
};

/* A BOOTP message up to the client's Ethernet address; DHCP has the same. */
struct gw_bootp {
	__u8 op;
	__u8 hardware[3];
	__u32 xid;
	__u16 secs;
	__u16 flags;
	__u32 ciaddr;
	__u32 yiaddr;
	__u32 siaddr;
	__u32 giaddr;
	__u8 chaddr[6];
	__u8 _pad[2];
};

enum {
	GW_ETH_IP4 = 0x0800,
	GW_ETH_IP6 = 0x86DD,
	GW_ETH_VLAN = 0x8100,
	GW_ETH_QINQ = 0x88A8,

	GW_ICMP = 1,
	GW_TCP = 6,
	GW_UDP = 17,
	GW_ICMP6 = 58,

	GW_TCP_FIN = 1 << 0,
	GW_TCP_SYN = 1 << 1,
	GW_TCP_RST = 1 << 2,
	GW_TCP_ACK = 1 << 4,

	GW_FRAG_OFFSET = 0x1FFF,
	GW_DF = 0x4000,
	GW_FRAG_ANY = 0x3FFF, /* offset or more-fragments */

	GW_ECN = 3, /* lower bits of the TOS octet */

	GW_DHCP_SERVER = 67,
	GW_DHCP_CLIENT = 68,
	GW_BOOTREPLY = 2,
};

#endif /* GW_WIRE_H */
