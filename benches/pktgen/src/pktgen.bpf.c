// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Traffic source (run with live frames; it redirects into a device), sinks, and the bare redirect
 * that a gateway is compared with.
 */
#include "pktgen.h"
#include "pg_source.h"
#include "pg_sink.h"

/* As fast as it can. */
SEC("xdp")
int pg_flood(struct xdp_md *ctx)
{
	return pg_send(ctx, 0);
}

/* A frame every `interval`. */
SEC("xdp")
int pg_paced(struct xdp_md *ctx)
{
	__u64 now = bpf_ktime_get_ns();

	if (state.sent >= plan.frames || !pg_due(now))
		return XDP_DROP;
	return pg_send(ctx, now);
}

/* As fast as the sink sees them arrive. */
SEC("xdp")
int pg_windowed(struct xdp_md *ctx)
{
	if (!pg_window())
		return XDP_DROP;
	return pg_send(ctx, 0);
}

/* Frames of a capture, in turns. */
SEC("xdp")
int pg_replay(struct xdp_md *ctx)
{
	return pg_send_captured(ctx);
}

/* What a redirect costs at least: nothing is looked at. */
SEC("xdp")
int pg_bare(struct xdp_md *ctx __attribute__((unused)))
{
	return bpf_redirect_map(&pg_devs, 1, XDP_DROP);
}

/* Every flow has another place, in an order that no prefetcher foresees: sources count through their flows. */
static __always_inline __u32 pg_place(__u32 flow)
{
	__u32 half = fixed.places / 2 + 1, mask = (1u << fixed.places) - 1;

	flow = flow * 0x9E3779B1 & mask;
	flow = (flow ^ flow >> half) * 0x85EBCA6B & mask;
	return flow ^ flow >> half;
}

/*
 * What no flow table can be below: the bare redirect, and a line of memory for every flow, read and counted in, whose
 * place needs no search; with two looks another one, which is known only when the first is there. Its own IPv4 frames.
 */
SEC("xdp")
int pg_look(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 *flow = data + sizeof(struct pg_eth) + sizeof(struct pg_ip4) + sizeof(struct pg_udp) + sizeof(__u16), at;
	struct pg_line *line;

	if ((void *)(flow + 1) > end)
		return XDP_DROP;
	at = pg_place(*flow);
	line = bpf_map_lookup_elem(&pg_lines, &at);
	if (!line || *flow >= fixed.known)
		return XDP_DROP;
	if (fixed.looks > 1) {
		at = line->next;
		line = bpf_map_lookup_elem(&pg_lines, &at);
		if (!line)
			return XDP_DROP;
	}
	line->packets++;
	/* Where to is known when the line is there. */
	return bpf_redirect_map(&pg_devs, 1 + line->nothing, XDP_DROP);
}

/* The cheaper sink of frames that XDP redirects. */
SEC("xdp")
int pg_sink_xdp(struct xdp_md *ctx)
{
	return pg_take((void *)(long)ctx->data, (void *)(long)ctx->data_end) ? XDP_DROP : XDP_PASS;
}

/* The cheaper sink of socket buffers: of what the kernel or an AF_XDP socket in copy mode sends. */
SEC("tcx/ingress")
int pg_sink_tcx(struct __sk_buff *skb)
{
	/* TCX_DROP and TCX_NEXT, which older headers do not have. */
	return pg_take((void *)(long)skb->data, (void *)(long)skb->data_end) ? 2 : -1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
