/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The counters. Every path counts a packet once as received and once by its outcome.
 */
#ifndef GW_COUNT_H
#define GW_COUNT_H

#include "gw_maps.h"
#include "gw_packet.h"

static __always_inline struct gw_counts *gw_counts(struct gw_stats *stats, __u8 port)
{
	return &stats->port[port % GW_MAX_PORTS];
}

static __always_inline struct gw_counts *gw_count_rx(const struct gw_fwd_ctx *f)
{
	struct gw_counts *in = gw_counts(f->stats, f->port);

	in->rx_packets++;
	in->rx_bytes += f->rx_len;
	return in;
}

static __always_inline void gw_count_reason(__u32 port, bool drop, __u32 reason)
{
	struct gw_reasons *why = bpf_map_lookup_elem(&gw_reasons, &port);

	if (!why)
		return;
	if (drop)
		why->drops[reason % GW_MAX_DROPS]++;
	else
		why->punts[reason % 16]++;
}

static __always_inline void gw_count_tunnel(__u32 no, bool rx, __u32 ip_len)
{
	struct gw_tunnel_counts *c = bpf_map_lookup_elem(&gw_tunnel_stats, &no);

	if (!c)
		return;
	if (rx) {
		c->rx_packets++;
		c->rx_bytes += ip_len;
	} else {
		c->tx_packets++;
		c->tx_bytes += ip_len;
	}
}

/* The end of a packet that XDP forwards, as a frame of `tx_len` bytes, or drops for `why`. */
static __always_inline int gw_finish(const struct gw_fwd_ctx *f, __u32 tx_len, __u32 why)
{
	struct gw_counts *in = gw_count_rx(f);
	struct gw_counts *out;

	if (f->from_tunnel)
		gw_count_tunnel(f->from_tunnel, true, f->ip_len);
	if (why) {
		gw_count_reason(f->port, true, why);
		return GW_DROP;
	}
	out = gw_counts(f->stats, f->hop.dev >> 40);
	in->fast++;
	out->tx_packets++;
	out->tx_bytes += tx_len;
	if (f->into_tunnel)
		gw_count_tunnel(f->into_tunnel, false, f->ip_len);
	return GW_FORWARD;
}

/* Ticks of the coarse clock, which moves with the jiffies: within one, it would say the same again. */
static __always_inline __u32 gw_now(struct gw_stats *stats)
{
	__u64 clock = stats->clock;
	__u32 jiffy = bpf_jiffies64();

	if (unlikely((__u32)(clock >> 32) != jiffy)) {
		stats->nanos = bpf_ktime_get_coarse_ns();
		clock = (__u64)jiffy << 32 | (__u32)(stats->nanos >> GW_TICK_SHIFT);
		stats->clock = clock;
	}
	return clock;
}

/* Counts a packet in its record, of either family. */
#define GW_COUNT_FLOW(r, f)                     \
	({                                      \
		__u32 now = gw_now((f)->stats); \
		(r)->packets++;                 \
		(r)->bytes += (f)->ip_len;      \
		if ((r)->last_seen != now)      \
			(r)->last_seen = now;   \
	})

#endif /* GW_COUNT_H */
