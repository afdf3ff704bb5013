/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The general path of packets with a record: dropped, given to a worker, or rewritten and sent.
 */
#ifndef GW_FORWARD_H
#define GW_FORWARD_H

#include "gw_check.h"
#include "gw_checksum.h"
#include "gw_parse.h"
#include "gw_police.h"
#include "gw_revalidate.h"
#include "gw_rewrite.h"

/*
 * Everything that can send the packet elsewhere comes before the first change to it. On GW_CONTINUE the redirect is set
 * up. Tunnels are not executed here: their flows are a worker's, those that may go by a stale action did not come here.
 */
static __always_inline int gw_check(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_shape *s, __u32 *epoch,
				    __u32 *last_seen, __u32 was)
{
	struct gw_fwd_ctx *f = &pkt->fwd;
	bool tunnel = GW_ACTION_TUNNEL(f->action);
	enum gw_punt why;
	int verdict;

	if (unlikely(pkt->punt != GW_PUNT_MISS))
		return GW_WORKER;
	/* A SYN may begin another connection: without the record the flood guard holds for it. */
	if (unlikely((s->tcp_flags_xack & (GW_TCP_SYN | GW_TCP_ACK)) == (GW_TCP_SYN | GW_TCP_ACK)) &&
	    GW_ACTION_KIND(f->action) != GW_ACT_DROP) {
		pkt->record = 0;
		return gw_worker(pkt, GW_PUNT_TCP_FLAGS);
	}
	if (unlikely(!gw_is_current(was)) && (tunnel || !gw_use_stale_action(ctx, pkt, epoch, last_seen, was)))
		return gw_worker(pkt, GW_PUNT_EPOCH);
	if (unlikely(tunnel))
		return gw_worker(pkt, GW_PUNT_FLOW);
	verdict = gw_check_flow(f->action);
	if (unlikely(verdict == GW_WORKER))
		return gw_worker(pkt, GW_PUNT_FLOW);
	if (unlikely(verdict == GW_DROP))
		return gw_drop(pkt, GW_ACTION_NEXTHOP(f->action));
	why = gw_check_headers(s->ttl, s->tcp_flags_xack) ?: gw_check_egress(f, GW_LINK_MTU);
	if (!why && !gw_redirect(f))
		why = GW_PUNT_NEXTHOP;
	if (!why && !gw_checksummed(ctx, pkt->data, pkt->l3, GW_SUMS_NO_LOOK))
		why = GW_PUNT_CHECKSUM;
	return why ? gw_worker(pkt, why) : GW_CONTINUE;
}

/*
 * Whether a packet comes in by another port or tunnel than those of its record. A record that drops does so wherever
 * its packets come from, and one that no packet has gone by yet is a worker's anyway.
 */
static __always_inline bool gw_foreign_ingress(__u64 key_l4, __u64 l4, __u64 action)
{
	return !gw_same_ingress(key_l4, l4) && key_l4 >> 48 != GW_INGRESS_NONE && GW_ACTION_KIND(action) != GW_ACT_DROP;
}

/*
 * Such a packet is a worker's, which drops it or moves the flow. It is forged more often than not, so the session
 * does not take it past the flood guard.
 */
static __always_inline int gw_to_reverse_path_check(struct gw_packet *pkt)
{
	pkt->record = 0;
	return gw_worker(pkt, GW_PUNT_INGRESS);
}

/* The link header that the next hop wants, which may move the packet. NULL: gw_packet.punt says why not. */
static __always_inline void *gw_relink(struct xdp_md *ctx, struct gw_packet *pkt)
{
	void *l3 = pkt->l3;

	if (unlikely(pkt->vlan || pkt->fwd.hop.dmac_vlan >> 48))
		return gw_retag(ctx, pkt, &l3) ? NULL : l3;
	gw_macs(pkt->data, &pkt->fwd.hop);
	return l3;
}

#endif /* GW_FORWARD_H */
