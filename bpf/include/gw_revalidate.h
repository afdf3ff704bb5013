/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Records of an older policy epoch. One packet of the flow revalidates it: a worker judges it by the new rules. Others
 * go by the action that the record has, so that a commit under load does not flood the workers.
 */
#ifndef GW_REVALIDATE_H
#define GW_REVALIDATE_H

#include "gw_check.h"

/* Whether one more revalidation may be under way: a worker that is behind gets no more of them. */
static __always_inline bool gw_may_revalidate(struct xdp_md *ctx, const struct gw_packet *pkt, __u32 tick)
{
	__u32 at = pkt->port->dev * GW_QUEUES_PER_DEV + ctx->rx_queue_index;
	struct gw_revalidation_queue *queue = &gw_shared.revalidations[at % (GW_MAX_DEVS * GW_QUEUES_PER_DEV)];
	__u32 taken = GW_READ_ONCE(queue->taken);
	__s32 away = queue->sent - taken;

	if (away < 0 || (__s32)(tick - queue->since) > GW_REVALIDATION_TIMEOUT)
		away = 0;
	if (away >= (__s32)GW_READ_ONCE(gw_shared.control.revalidation_credit))
		return false;
	queue->sent = taken + away + 1;
	queue->since = tick;
	return true;
}

/*
 * Of an older epoch: true if the packet goes by the record's action all the same, because a revalidation was sent in
 * this tick or the worker has enough of them. Otherwise the packet is the worker's: it revalidates the flow, or the
 * time for stale actions is over.
 */
static __always_inline bool gw_use_stale_action(struct xdp_md *ctx, const struct gw_packet *pkt, __u32 *epoch,
						__u32 *last_seen, __u32 was)
{
	__u32 now = GW_READ_ONCE(gw_shared.control.epoch), tick;
	bool sent = (was & GW_EPOCH_NUMBER) == now;

	if (!GW_READ_ONCE(gw_shared.control.revalidation_credit))
		return false;
	tick = gw_now(pkt->fwd.stats);
	/* The coarse clock may be a little behind the moment at which the epoch began. */
	if ((__s32)(tick - GW_READ_ONCE(gw_shared.control.epoch_since)) >= GW_REVALIDATION_TICKS)
		return false;
	if ((sent && GW_READ_ONCE(*last_seen) == tick) || !gw_may_revalidate(ctx, pkt, tick))
		return true;
	/* The worker may have judged it just now, or another CPU has sent a packet. */
	if (!sent && __sync_val_compare_and_swap(epoch, was, now | GW_EPOCH_REVALIDATING) != was)
		return true;
	GW_WRITE_ONCE(*last_seen, tick);
	return false;
}

#endif /* GW_REVALIDATE_H */
