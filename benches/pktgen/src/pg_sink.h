/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is looked at in the frames that arrive. */
#ifndef PG_SINK_H
#define PG_SINK_H

#include "pktgen.h"

/*
 * Sixteen buckets for every power of two: a bucket is at most 6.25 % wide. Values below 16 have their
 * own; beyond 2^43 ns all share the last one.
 */
static __always_inline __u32 pg_bucket(__u64 v)
{
	__u32 log = 0, b;
	__u64 x = v;

	if (v < 16)
		return v;
	if (x >> 32) {
		x >>= 32;
		log += 32;
	}
	if (x >> 16) {
		x >>= 16;
		log += 16;
	}
	if (x >> 8) {
		x >>= 8;
		log += 8;
	}
	if (x >> 4) {
		x >>= 4;
		log += 4;
	}
	if (x >> 2) {
		x >>= 2;
		log += 2;
	}
	if (x >> 1)
		log += 1;
	b = (log - 3) * 16 + ((v >> (log - 4)) & 15);
	return b < PG_BUCKETS ? b : PG_BUCKETS - 1;
}

static __always_inline void pg_latency(struct pg_rx *rx, __u64 sent)
{
	__u64 now = bpf_ktime_get_ns(), took = now > sent ? now - sent : 0;
	__u32 b = pg_bucket(took);

	rx->last = now;
	if (!rx->first)
		rx->first = now;
	rx->latency_sum += took;
	if (took > rx->latency_max)
		rx->latency_max = took;
	if (b < PG_BUCKETS)
		rx->latency[b]++;
}

/* Order within the flow, and whether the addresses are those of the flow. */
static __always_inline void pg_examine(struct pg_rx *rx, __u32 flow, __u32 seq, __u32 src, __u32 dst, __u16 sport)
{
	struct pg_flow *f = bpf_map_lookup_elem(&pg_flows, &flow);
	__u32 n = plan.endpoints ? flow / (__u32)plan.endpoints : 0;

	if (bpf_ntohl(dst) != (__u32)plan.dst + n || (plan.outside && src != (__u32)plan.outside))
		rx->foreign++;
	if (!f) {
		rx->other++;
		return;
	}
	if (!f->seq) {
		rx->flows++;
		f->sport = sport;
	} else if (f->sport != sport) {
		rx->renumbered++;
		f->sport = sport;
	}
	if (f->seq && seq == f->seq)
		rx->duplicate++;
	else if (f->seq && (__s32)(seq - f->seq) < 0)
		rx->reordered++;
	else
		f->seq = seq;
}

/* Whether it is traffic of ours. Everything else (neighbour discovery) is the kernel's. */
static __always_inline bool pg_take(void *data, void *end)
{
	struct pg_eth *eth = data;
	struct pg_ip4 *ip4 = data + sizeof(*eth);
	struct pg_ip6 *ip6h = (void *)ip4;
	struct pg_udp *udp;
	struct pg_rx *rx;
	__u32 zero = 0, src, dst;
	__u8 proto;
	__u16 *mark;
	__u32 *word;

	rx = bpf_map_lookup_elem(&pg_rx, &zero);
	if (!rx)
		return false;
	if (fixed.any == PG_ANY_ALL)
		goto count;
	if (fixed.ip6) {
		udp = (void *)(ip6h + 1);
		if ((void *)(udp + 1) + PG_PAYLOAD > end || eth->type != bpf_htons(PG_ETH_IP6))
			goto other;
		proto = ip6h->next;
		src = ip6h->src[3];
		dst = ip6h->dst[3];
	} else {
		udp = (void *)(ip4 + 1);
		if ((void *)(udp + 1) + PG_PAYLOAD > end || eth->type != bpf_htons(PG_ETH_IP4))
			goto other;
		proto = ip4->proto;
		src = ip4->src;
		dst = ip4->dst;
	}
	mark = (void *)(udp + 1);
	word = (void *)(mark + 1);
	if (proto != PG_UDP || *mark != bpf_htons(PG_MARK)) {
		if (!fixed.any || (proto != PG_UDP && proto != PG_ESP && proto != PG_GRE && proto != PG_IPIP))
			goto other;
	} else if (fixed.checked) {
		pg_examine(rx, word[0], word[1], src, dst, udp->sport);
	}
	if (fixed.stamped && *mark == bpf_htons(PG_MARK)) {
		pg_latency(rx, *(__u64 *)(word + 2));
		goto counted;
	}
count:
	if (!(rx->packets & 63)) {
		rx->last = bpf_ktime_get_ns();
		if (!rx->first)
			rx->first = rx->last;
	}
counted:
	rx->packets++;
	rx->bytes += end - data;
	return true;
other:
	rx->other++;
	return false;
}

#endif /* PG_SINK_H */
