/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the steps of the program know of the packet in hand, the wire formats that they read, and
 * the verdicts that they return.
 */
#ifndef GW_PACKET_H
#define GW_PACKET_H

#include "gw_abi.h"


/* What a step says. Every packet ends in one of these but GW_CONTINUE, and in gw_exit() once. */
enum gw_verdict {
	GW_CONTINUE = 0,
	GW_NOT_OURS,	/* no port of the gateway: the kernel's, uncounted */
	GW_KERNEL,
	GW_WORKER,	/* gw_packet.punt says why */
	GW_FORWARD,	/* redirected */
	GW_DROP,	/* gw_packet.reason says why */
};

struct gw_packet {
	void *data;
	void *end;
	void *l3;
	struct gw_port *port;
	struct gw_stats *stats;
	struct gw_counts *in;		/* of the ingress port */
	__u32 len;			/* of the frame */
	__u32 record;			/* found in the flow table, 0 = none */
	__u16 ethertype;		/* after the tag; network order */
	__u16 vlan;			/* host order, 0 = untagged */
	__u8 punt;			/* enum gw_punt */
	__u8 reason;			/* enum gw_drop */
	__u8 zone;			/* enum gw_zone: where it comes from */
	bool local;			/* to an address of this box: the kernel's without a worker */
};

/*
 * Wire formats. Their fields are naturally aligned within them, so none is packed: the compiler may
 * load a field with one instruction wherever the frame starts.
 */
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
	__u16 len;	/* UDP length, ICMP identifier */
	__u16 check;	/* UDP checksum, ICMP sequence */
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

enum {
	GW_ETH_IP4 = 0x0800,
	GW_ETH_IP6 = 0x86DD,
	GW_ETH_VLAN = 0x8100,

	GW_ICMP = 1,
	GW_TCP = 6,
	GW_UDP = 17,
	GW_ICMP6 = 58,

	GW_TCP_FIN = 1 << 0,
	GW_TCP_SYN = 1 << 1,
	GW_TCP_RST = 1 << 2,

	GW_FRAG_OFFSET = 0x1FFF,
	GW_FRAG_ANY = 0x3FFF,	/* offset or more-fragments */

	GW_DHCP_CLIENT = 68,
};

/* Shorthands for the steps. */
static __always_inline int gw_worker(struct gw_packet *pkt, enum gw_punt why)
{
	pkt->punt = why;
	return GW_WORKER;
}

static __always_inline int gw_drop(struct gw_packet *pkt, enum gw_drop why)
{
	pkt->reason = why;
	return GW_DROP;
}

/* 0: there is no reason. */
static __always_inline int gw_drop_if(struct gw_packet *pkt, __u32 why)
{
	return why ? gw_drop(pkt, why) : GW_CONTINUE;
}

#endif /* GW_PACKET_H */
