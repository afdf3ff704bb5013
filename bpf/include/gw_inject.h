/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames that a worker returns to the kernel: run on as live frames, passed up the stack as if
 * the device had received them. No port has this program; the daemon runs it.
 */
#ifndef GW_INJECT_H
#define GW_INJECT_H

#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_table.h"

/*
 * Puts a priority tag (802.1Q, VLAN 0) in front, and a mark in front of the frame (its metadata). The stack takes the tag
 * off again; but before that a generic mode program of the device runs once more, and ours leaves frames with such a tag
 * and the mark to the kernel (gw_injected). The seed of the flow hash is the mark: frames from outside cannot have it.
 */
static __always_inline bool gw_priority_tag(struct xdp_md *ctx)
{
	struct gw_eth *eth;
	struct gw_vlan_tag *tag;
	__u64 *mark;

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
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*mark)))
		return false;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) > (void *)(long)ctx->data)
		return false;
	*mark = GW_READ_ONCE(gw_shared.control.seed);
	return true;
}

#endif /* GW_INJECT_H */
