/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames that a worker returns to the kernel: run on as live frames, passed up the stack as if
 * the device had received them. No port has this program; the daemon runs it.
 */
#ifndef GW_INJECT_H
#define GW_INJECT_H

#include "gw_packet.h"

/*
 * Puts a priority tag (802.1Q, VLAN 0) in front. The stack takes it off again; but before that a
 * generic mode program of the device runs once more, and ours leaves frames with such a tag to
 * the kernel.
 */
static __always_inline bool gw_priority_tag(struct xdp_md *ctx)
{
	struct gw_eth *eth;
	struct gw_vlan_tag *tag;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*tag)))
		return false;
	eth = (void *)(long)ctx->data;
	tag = (void *)(eth + 1);
	if ((void *)(tag + 1) > (void *)(long)ctx->data_end)
		return false;
	__builtin_memmove(eth, (void *)eth + sizeof(*tag), 2 * sizeof(eth->dst));
	/* The ethertype that was there is the tag's now, where it lies. */
	eth->type = bpf_htons(GW_ETH_VLAN);
	tag->tci = 0;
	return true;
}

#endif /* GW_INJECT_H */
