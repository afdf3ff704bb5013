/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a packet may go by the record of its flow: what every path of XDP checks. The paths differ in what they do
 * with a refusal alone: the fast ones leave the packet to the general path, which acts on it.
 */
#ifndef GW_CHECK_H
#define GW_CHECK_H

#include "gw_count.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_table.h"

/* The action word of a record: the daemon changes it with one store. */
#define gw_flow_action(r) GW_READ_ONCE(*(const __u64 *)&(r)->nexthop)

#define GW_ACTION_NEXTHOP(a) ((__u16)(a))
#define GW_ACTION_METER(a) ((__u16)((a) >> 16))
#define GW_ACTION_KIND(a) ((__u8)((a) >> 32))
#define GW_ACTION_TUNNEL(a) ((__u8)((a) >> 48))
#define GW_ACTION_GEN(a) ((__u8)((a) >> 56))
#define GW_ACTION_HAS(a, flags) ((a) & (__u64)(flags) << 40)
#define GW_ACTION_NAT(a) GW_ACTION_HAS(a, GW_FLOW_SNAT | GW_FLOW_DNAT)

/* Whether a record is of the policy epoch in force. */
static __always_inline bool gw_is_current(__u32 epoch)
{
	return epoch == GW_READ_ONCE(gw_shared.control.epoch);
}

/* GW_CONTINUE: the record forwards. GW_DROP: its next hop is the reason. GW_WORKER: GW_PUNT_FLOW. */
static __always_inline int gw_check_flow(__u64 action)
{
	if (unlikely(GW_ACTION_HAS(action, GW_FLOW_PUNT_ALL)))
		return GW_WORKER;
	if (likely(GW_ACTION_KIND(action) == GW_ACT_FORWARD))
		return GW_CONTINUE;
	return GW_ACTION_KIND(action) == GW_ACT_DROP ? GW_DROP : GW_WORKER;
}

/*
 * What in its headers makes a packet the worker's. GW_PUNT_MISS: nothing. The flags have ACK inverted, so that zero stands
 * for the segments that are not the worker's, and for packets without flags.
 */
static __always_inline enum gw_punt gw_check_headers(__u8 ttl, __u8 tcp_flags_xack)
{
	if (unlikely(ttl <= 1))
		return GW_PUNT_TTL;
	if (unlikely(tcp_flags_xack & (GW_TCP_SYN | GW_TCP_FIN | GW_TCP_RST | GW_TCP_ACK)))
		return GW_PUNT_TCP_FLAGS;
	return GW_PUNT_MISS;
}

static __always_inline void gw_read_hop(__u16 index, struct gw_hop *hop)
{
	const struct gw_nexthop *nh = gw_shared.nexthops;

	/* Keeps the compiler from adding up the large offset for every word. */
	asm volatile("" : "+r"(nh));
	nh += index;
	hop->dev = GW_READ_ONCE(*(const __u64 *)&nh->ifindex);
	hop->dmac_vlan = GW_READ_ONCE(*(const __u64 *)nh->dmac);
	hop->smac_mtu = GW_READ_ONCE(*(const __u64 *)nh->smac);
}

#define GW_LINK_MTU (~0u)

/*
 * Reads the next hop: it must be valid, of the generation for which the record was made, and take a packet of this
 * length. `mtu`: that of the tunnel which the packet enters, else GW_LINK_MTU. GW_PUNT_MISS: nothing is against it.
 */
static __always_inline enum gw_punt gw_check_egress(struct gw_fwd_ctx *f, __u32 mtu)
{
	gw_read_hop(GW_ACTION_NEXTHOP(f->action), &f->hop);
	if (unlikely(f->hop.dev >> 48 != (GW_ACTION_GEN(f->action) | GW_NH_VALID << 8)))
		return GW_PUNT_NEXTHOP;
	if (unlikely(f->ip_len > (mtu == GW_LINK_MTU ? f->hop.smac_mtu >> 48 : mtu)))
		return GW_PUNT_MTU;
	return GW_PUNT_MISS;
}

/* The last check: sets up the redirect. False: there is no device in the next hop's slot. */
static __always_inline bool gw_redirect(const struct gw_fwd_ctx *f)
{
	return likely(bpf_redirect_map(&gw_devs, (__u8)(f->hop.dev >> 32), XDP_ABORTED) == XDP_REDIRECT);
}

/* Record and next hop let the packet pass. What is the path's own to check comes next, then gw_redirect(). */
static __always_inline bool gw_can_forward(struct gw_fwd_ctx *f, __u32 mtu)
{
	return gw_check_flow(f->action) == GW_CONTINUE && gw_check_egress(f, mtu) == GW_PUNT_MISS;
}

#endif /* GW_CHECK_H */
