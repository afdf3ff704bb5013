/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the steps of the program know of the packet in hand, and the verdicts that they return.
 */
#ifndef GW_PACKET_H
#define GW_PACKET_H

#include "gw_abi.h"
#include "gw_wire.h"

/* What a step says. Every packet ends in one of these but GW_CONTINUE, and is counted once. */
enum gw_verdict {
	GW_CONTINUE = 0,
	GW_NOT_OURS, /* no port of the gateway: the kernel's, uncounted */
	GW_KERNEL,
	GW_WORKER,  /* gw_packet.punt says why */
	GW_FORWARD, /* redirected */
	GW_DROP,    /* gw_packet.reason says why */
};

/* A next hop as read: three words, each whole. */
struct gw_hop {
	__u64 dmac_vlan;
	__u64 smac_mtu;
	__u64 dev;
};

/* A packet that a record forwards: what checks, meters and counters of every path work on. */
struct gw_fwd_ctx {
	__u64 action; /* action word of the record, read once: gw_flow_action() */
	struct gw_hop hop;
	struct gw_stats *stats;
	__u32 rx_len;	   /* bytes of the frame as received */
	__u32 ip_len;	   /* inside, if a tunnel is left or entered */
	__u32 from_tunnel; /* tunnel that the packet has left, 0 = none */
	__u32 into_tunnel; /* tunnel that it enters, 0 = none */
	__u8 port;	   /* that it came in by */
};

struct gw_packet {
	void *data;
	void *end;
	void *l3;
	struct gw_port *port;
	__u32 len;	 /* of the frame */
	__u32 padding;	 /* behind the packet; set with the flow key */
	__u32 record;	 /* found in the flow table, 0 = none */
	__u16 ethertype; /* after the tag; network order */
	__u16 vlan;	 /* host order, 0 = untagged */
	__u16 ingress;	 /* enum gw_ingress */
	__u8 punt;	 /* enum gw_punt */
	__u8 reason;	 /* enum gw_drop */
	__u8 zone;	 /* where it comes from, as in gw_port */
	bool local;	 /* to an address of this box: the kernel's without a worker */
	struct gw_fwd_ctx fwd;
};

/* A number of which the compiler does not know where it comes from. */
static __always_inline __u32 gw_opaque(__u64 n)
{
	asm volatile("" : "+r"(n));
	return n;
}

/* The verifier forbids the compiler to go on from the difference of two pointers. */
static __always_inline __u32 gw_distance(const void *from, const void *to)
{
	return gw_opaque(to - from);
}

/* Eight bytes wherever they lie in the packet: one instruction instead of two halves put together. */
static __always_inline __u64 *gw_u64(void *p)
{
	return p;
}

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

#endif /* GW_PACKET_H */
