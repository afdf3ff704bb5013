/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The end of the general path: turns a verdict into an XDP action and counts it, once.
 */
#ifndef GW_EXIT_H
#define GW_EXIT_H

#include "gw_count.h"
#include "gw_maps.h"
#include "gw_packet.h"

/* What the worker need not find out again. Drivers without metadata cost it a lookup, no more. */
static __always_inline void gw_set_punt_meta(struct xdp_md *ctx, const struct gw_packet *pkt)
{
	struct gw_punt_meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return;
	meta->record = pkt->record;
	meta->vlan = pkt->vlan;
	meta->port = pkt->port->port;
	meta->punt = pkt->punt | GW_PUNT_SET;
}

/*
 * Whether packets of no known flow come faster than this receive queue's worker is to get them. What
 * belongs to a session passes: its FIN must not wait behind a flood. Not so its SYN (gw_check()): who
 * resets a connection and opens one in turn costs the worker as much as who opens many.
 */
static __always_inline bool gw_flooded(const struct gw_packet *pkt)
{
	__u32 interval = GW_READ_ONCE(gw_shared.control.guard_interval);
	__u32 port = pkt->port->port;
	struct gw_reasons *share;
	__u64 now, used;

	if (!interval || pkt->record || !gw_fast_path_on())
		return false;
	share = bpf_map_lookup_elem(&gw_reasons, &port);
	if (!share)
		return false;
	now = bpf_ktime_get_ns();
	used = share->guard > now ? share->guard : now;
	if (used + interval > now + gw_shared.control.guard_burst)
		return true;
	share->guard = used + interval;
	return false;
}

/*
 * To the AF_XDP socket of the receive queue, or what the policy says while there is none: the box
 * itself stays within reach whatever it says.
 */
static __always_inline int gw_to_worker(struct xdp_md *ctx, struct gw_packet *pkt)
{
	bool pass = pkt->local || gw_shared.control.fail_action == XDP_PASS;
	__u32 fallback = pass ? XDP_PASS : XDP_DROP;
	__u32 queue = ctx->rx_queue_index;
	struct gw_counts *in;
	long action = fallback;

	if (gw_flooded(pkt)) {
		gw_finish(&pkt->fwd, 0, GW_DROP_FLOOD_GUARD);
		return XDP_DROP;
	}
	if (queue < GW_QUEUES_PER_DEV)
		action = bpf_redirect_map(&gw_xsks, pkt->port->dev * GW_QUEUES_PER_DEV + queue, fallback);
	if (action == XDP_DROP) {
		gw_finish(&pkt->fwd, 0, GW_DROP_NO_WORKER);
		return XDP_DROP;
	}
	in = gw_count_rx(&pkt->fwd);
	if (action == XDP_REDIRECT) {
		in->punted++;
		gw_count_reason(pkt->port->port, false, pkt->punt);
		gw_set_punt_meta(ctx, pkt);
		return XDP_REDIRECT;
	}
	in->to_kernel++;
	return XDP_PASS;
}

static __always_inline int gw_exit(struct xdp_md *ctx, struct gw_packet *pkt, int verdict)
{
	if (verdict == GW_NOT_OURS)
		return XDP_PASS;
	pkt->fwd.port = pkt->port->port;
	switch (verdict) {
	case GW_FORWARD:
		gw_finish(&pkt->fwd, pkt->len - pkt->padding, 0);
		/* What a link has put behind a packet to fill a short frame stays on that link. */
		if (unlikely(pkt->padding))
			bpf_xdp_adjust_tail(ctx, -(int)pkt->padding);
		return XDP_REDIRECT;
	case GW_KERNEL:
		gw_count_rx(&pkt->fwd)->to_kernel++;
		return XDP_PASS;
	case GW_DROP:
		gw_finish(&pkt->fwd, 0, pkt->reason);
		return XDP_DROP;
	default:
		return gw_to_worker(ctx, pkt);
	}
}

#endif /* GW_EXIT_H */
