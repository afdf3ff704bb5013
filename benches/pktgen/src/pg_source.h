/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How frames are made, and when they may go. */
#ifndef PG_SOURCE_H
#define PG_SOURCE_H

#include "pktgen.h"

static __always_inline __u16 pg_fold(__u64 sum)
{
	sum = (sum & 0xFFFFFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + ((sum >> 16) & 0xFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return ~((sum & 0xFFFF) + (sum >> 16));
}

/* The next flow; no division, which costs more than the rest. */
static __always_inline void pg_advance(void)
{
	__u64 e = state.e + plan.stride_e, r = state.r + plan.stride_r, n = plan.endpoints;

	if (e >= n) {
		e -= n;
		r++;
	}
	if (r > plan.flows_r || (r == plan.flows_r && e >= plan.flows_e)) {
		if (e < plan.flows_e) {
			e += n;
			r--;
		}
		e -= plan.flows_e;
		r -= plan.flows_r;
	}
	state.e = e;
	state.r = r;
}

static __always_inline void pg_link(void *data, __u16 type)
{
	struct pg_eth *eth = data;
	__u64 from = plan.smac;

	*(__u64 *)eth->dst = plan.dmac | from << 48;
	*(__u32 *)(eth->src + 2) = from >> 16;
	eth->type = type;
}

/* UDP header and payload; `sum` is that of the addresses. */
static __always_inline void pg_datagram(struct pg_udp *udp, __u16 sport, __u16 dport, __u16 len, __u32 flow, __u64 now,
					__u64 sum)
{
	__u16 *mark = (void *)(udp + 1);
	__u32 *word = (void *)(mark + 1);
	__u64 *time = (void *)(word + 2);
	__u32 seq = state.sent + 1;

	*mark = bpf_htons(PG_MARK);
	word[0] = flow;
	word[1] = seq;
	*time = now;
	udp->sport = sport;
	udp->dport = dport;
	udp->len = len;
	sum += bpf_htons(PG_UDP) + 2 * len + sport + dport + bpf_htons(PG_MARK);
	sum += (__u64)flow + seq + (now & 0xFFFFFFFF) + (now >> 32);
	udp->check = pg_fold(sum);
}

static __always_inline bool pg_write4(void *data, void *end, __u32 len, __u64 now)
{
	struct pg_ip4 *ip = data + sizeof(struct pg_eth);
	struct pg_udp *udp = (void *)(ip + 1);
	__u64 e = state.e, r = state.r;
	__u32 src = bpf_htonl(plan.src + (e & plan.source_mask)), dst = bpf_htonl(plan.dst + r);
	__u64 addrs = (__u64)src + dst;
	__u16 total = bpf_htons(len - sizeof(struct pg_eth));

	if ((void *)(udp + 1) + PG_PAYLOAD > end)
		return false;
	if (!fixed.outer_len)
		pg_link(data, bpf_htons(PG_ETH_IP4));
	ip->version_ihl = 0x45;
	ip->tos = 0;
	ip->len = total;
	ip->id = 0;
	ip->frag = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->proto = PG_UDP;
	ip->src = src;
	ip->dst = dst;
	ip->check = pg_fold(0x0045 + total + 0x0040 + (64 | PG_UDP << 8) + addrs);
	pg_datagram(udp, bpf_htons(plan.sport + e), bpf_htons(plan.dport),
		    bpf_htons(len - sizeof(struct pg_eth) - sizeof(*ip)), r * plan.endpoints + e, now, addrs);
	return true;
}

static __always_inline bool pg_write6(void *data, void *end, __u32 len, __u64 now)
{
	struct pg_ip6 *ip = data + sizeof(struct pg_eth);
	struct pg_udp *udp = (void *)(ip + 1);
	__u64 e = state.e, r = state.r, addrs = 0;
	__u16 payload = bpf_htons(len - sizeof(struct pg_eth) - sizeof(*ip));

	if ((void *)(udp + 1) + PG_PAYLOAD > end)
		return false;
	pg_link(data, bpf_htons(PG_ETH_IP6));
	ip->version_class = bpf_htonl(0x60000000);
	ip->payload = payload;
	ip->next = PG_UDP;
	ip->hops = 64;
	ip->src[0] = plan.src6[0];
	ip->src[1] = plan.src6[0] >> 32;
	ip->src[2] = plan.src6[1];
	ip->src[3] = bpf_htonl(plan.src + (e & plan.source_mask));
	ip->dst[0] = plan.dst6[0];
	ip->dst[1] = plan.dst6[0] >> 32;
	ip->dst[2] = plan.dst6[1];
	ip->dst[3] = bpf_htonl(plan.dst + r);
#pragma unroll
	for (int i = 0; i < 4; i++)
		addrs += (__u64)ip->src[i] + ip->dst[i];
	pg_datagram(udp, bpf_htons(plan.sport + e), bpf_htons(plan.dport), payload, r * plan.endpoints + e, now, addrs);
	return true;
}

/*
 * Link header and the header of a tunnel over IPv4, as its far end sends them, in front of the packet of flow state.e: a
 * VXLAN frame's own link header is the tail of the tunnel's.
 */
static __always_inline bool pg_write_outer(void *data, void *end, __u32 len)
{
	struct pg_ip4 *ip = data + sizeof(struct pg_eth);
	struct pg_udp *udp = (void *)(ip + 1);
	__u32 n = fixed.outer_len, i;

	if ((void *)ip + 8 * PG_OUTER_WORDS > end)
		return false;
	pg_link(data, bpf_htons(PG_ETH_IP4));
#pragma unroll
	for (i = 0; i < PG_OUTER_WORDS; i++) {
		if (8 * i + 8 <= n) {
			*((__u64 *)ip + i) = fixed.outer[i];
		} else if (8 * i < n) {
			/* Headers are of whole words, or have two or four bytes more. */
			if (n & 4)
				*(__u32 *)((__u64 *)ip + i) = fixed.outer[i];
			if (n & 2)
				*(__u16 *)((__u64 *)ip + i) = fixed.outer[i];
		}
	}
	ip->len = bpf_htons(len - sizeof(struct pg_eth));
	ip->check = pg_fold(fixed.outer_sum + ip->len);
	if (ip->proto == PG_UDP) {
		udp->sport = bpf_htons(0xC000 | (state.e & 0x3FFF));
		udp->len = bpf_htons(len - sizeof(struct pg_eth) - sizeof(*ip));
	}
	return true;
}

/* What every frame that goes is counted by. The clock is looked at now and then. */
static __always_inline void pg_count(__u32 len, __u64 now)
{
	__u64 sent = state.sent;

	if (!(sent & 63) || now) {
		if (!now)
			now = bpf_ktime_get_ns();
		if (!sent)
			state.started = now;
		state.ended = now;
	}
	state.sent = sent + 1;
	state.bytes += len;
}

/* `now`: the time if it is known. */
static __always_inline int pg_send(struct xdp_md *ctx, __u64 now)
{
	__u32 len = fixed.sizes[0], step;
	void *data, *end;

	if (fixed.size_count > 1) {
		step = state.step;
		if (step >= fixed.size_count || step >= PG_MAX_SIZES)
			step = 0;
		len = fixed.sizes[step];
		state.step = step + 1;
		if (bpf_xdp_adjust_tail(ctx, (int)len - (int)fixed.longest))
			return XDP_DROP;
	}
	if (fixed.stamped && !now)
		now = bpf_ktime_get_ns();
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (fixed.outer_len) {
		if (!pg_write4(data + fixed.outer_len, end, len - fixed.outer_len, now) ||
		    !pg_write_outer(data, end, len))
			return XDP_DROP;
	} else if (!(fixed.ip6 ? pg_write6(data, end, len, now) : pg_write4(data, end, len, now))) {
		return XDP_DROP;
	}
	pg_advance();
	pg_count(len, now);
	return bpf_redirect_map(&pg_devs, 0, XDP_DROP);
}

/* Whether the time for another frame has come. Where it has long been, it is not made up for. */
static __always_inline bool pg_due(__u64 now)
{
	__u64 due = state.due, fine = now << 10;

	if (!due)
		due = fine;
	if (fine < due)
		return false;
	if (fine - due > (__u64)PG_SLACK << 10) {
		state.late += (fine - due) >> 10;
		due = fine;
	}
	state.due = due + plan.interval;
	return true;
}

static __always_inline __u64 pg_arrived(void)
{
	__u64 sum = 0;
	__u32 zero = 0;

	for (__u32 cpu = 0; cpu < 64; cpu++) {
		struct pg_rx *rx;

		if (cpu >= plan.cpus)
			break;
		rx = bpf_map_lookup_percpu_elem(&pg_rx, &zero, cpu);
		if (rx)
			sum += *(volatile __u64 *)&rx->packets;
	}
	return sum;
}

/*
 * Whether another frame may go. The sink's counters are looked at when the window seems full, and then
 * not more often than every few microseconds: each look takes their cache lines from another core.
 */
static __always_inline bool pg_window(void)
{
	__u64 now, arrived;

	if (state.sent >= plan.frames)
		return false;
	if (state.sent - state.lost - state.seen < plan.window)
		return true;
	now = bpf_ktime_get_ns();
	if (now < state.due)
		return false;
	state.due = now + PG_LOOK;
	arrived = pg_arrived();
	if (arrived != state.seen) {
		state.seen = arrived;
		state.since = now;
	} else if (now - state.since > PG_TIMEOUT) {
		if (state.since)
			state.lost = state.sent - arrived;
		state.since = now;
	}
	return state.sent - state.lost - arrived < plan.window;
}

/* Frames of a capture: as they are but for the link addresses, if the plan has some. */
static __always_inline int pg_send_captured(struct xdp_md *ctx)
{
	__u32 step = state.step;
	struct pg_captured *c;
	struct pg_eth *eth;
	__u64 now = 0;
	__u32 len;

	if (state.sent >= plan.frames)
		return XDP_DROP;
	if (step >= fixed.captured_count)
		step = 0;
	c = bpf_map_lookup_elem(&pg_capture, &step);
	if (!c)
		return XDP_DROP;
	len = c->len;
	if (len < sizeof(*eth) || len > PG_CAPTURED)
		return XDP_DROP;
	if (fixed.timed || plan.interval) {
		now = bpf_ktime_get_ns();
		if (fixed.timed) {
			if (!state.due)
				state.due = now;
			if (now < state.due + c->gap)
				return XDP_DROP;
			state.due += c->gap;
		} else if (!pg_due(now)) {
			return XDP_DROP;
		}
	}
	state.step = step + 1;
	if (bpf_xdp_adjust_tail(ctx, (int)len - (int)fixed.longest))
		return XDP_DROP;
	if (bpf_xdp_store_bytes(ctx, 0, c->bytes, len))
		return XDP_DROP;
	eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	if (plan.dmac)
		pg_link(eth, eth->type);
	pg_count(len, now);
	return bpf_redirect_map(&pg_devs, 0, XDP_DROP);
}

#endif /* PG_SOURCE_H */
