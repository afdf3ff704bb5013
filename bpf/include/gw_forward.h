/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a flow record orders: drop, punt, or rewrite and send.
 */
#ifndef GW_FORWARD_H
#define GW_FORWARD_H

#include "gw_link.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_parse.h"

/* The action word of a record, read once: the daemon changes it with one store. */
struct gw_order {
	__u16 nexthop;
	__u16 meter;
	__u8 action;
	__u8 flags;
	__u8 tunnel;
	__u8 gen;
	__u8 mark;	/* of what its meters let pass */
};

static __always_inline struct gw_order gw_order(__u64 word)
{
	struct gw_order o = {
		.nexthop = word,
		.meter = word >> 16,
		.action = word >> 32,
		.flags = word >> 40,
		.tunnel = word >> 48,
		.gen = word >> 56,
	};

	return o;
}

/* A next hop as read: three words, each whole. */
struct gw_hop {
	__u64 dmac_vlan;
	__u64 smac_mtu;
	__u64 dev;
};

static __always_inline void gw_read_hop(__u16 index, struct gw_hop *hop)
{
	const struct gw_nexthop *nh = gw_shared.nexthops;

	/* Keeps the compiler from adding up the large offset anew for every word. */
	asm volatile("" : "+r"(nh));
	nh += index;
	hop->dev = GW_READ_ONCE(*(const __u64 *)&nh->ifindex);
	hop->dmac_vlan = GW_READ_ONCE(*(const __u64 *)nh->dmac);
	hop->smac_mtu = GW_READ_ONCE(*(const __u64 *)nh->smac);
}

/* Ticks of the coarse clock, which moves with the jiffies: asking it again within one is no use. */
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

#define GW_COUNT_FLOW(r, stats, ip_len)                                          \
	({                                                                       \
		__u32 now = gw_now(stats);                                       \
		(r)->packets++;                                                  \
		(r)->bytes += (ip_len);                                          \
		if ((r)->last_seen != now)                                       \
			(r)->last_seen = now;                                    \
	})

/*
 * Everything that can send the packet elsewhere comes before the first change to it. On
 * GW_CONTINUE the redirect is set up and `hop` is filled.
 */
static __always_inline int gw_admit(struct gw_packet *pkt, const struct gw_shape *s,
				    const struct gw_order *o, struct gw_hop *hop)
{
	if (unlikely(s->ttl <= 1))
		return gw_worker(pkt, GW_PUNT_TTL);
	if (unlikely(s->tcp_flags & (GW_TCP_SYN | GW_TCP_FIN | GW_TCP_RST)))
		return gw_worker(pkt, GW_PUNT_TCP_FLAGS);
	gw_read_hop(o->nexthop, hop);
	if (unlikely(!(hop->dev >> 56 & GW_NH_VALID) || (__u8)(hop->dev >> 48) != o->gen))
		return gw_worker(pkt, GW_PUNT_NEXTHOP);
	if (unlikely(s->ip_len > hop->smac_mtu >> 48))
		return gw_worker(pkt, GW_PUNT_MTU);
	if (unlikely(bpf_redirect_map(&gw_devs, (__u8)(hop->dev >> 32), XDP_ABORTED) != XDP_REDIRECT))
		return gw_worker(pkt, GW_PUNT_NEXTHOP);
	return GW_CONTINUE;
}

/* One more packet may be under way to ask: a worker that is behind gets no more of them. */
static __always_inline bool gw_may_ask(struct xdp_md *ctx, const struct gw_packet *pkt, __u32 tick)
{
	__u32 at = pkt->port->dev * GW_QUEUES_PER_DEV + ctx->rx_queue_index;
	struct gw_revalidation_queue *ask = &gw_shared.revalidations[at % (GW_MAX_DEVS * GW_QUEUES_PER_DEV)];
	__u32 taken = GW_READ_ONCE(ask->taken);
	__s32 away = ask->sent - taken;

	if (away < 0 || (__s32)(tick - ask->since) > GW_REVALIDATION_TIMEOUT)
		away = 0;
	if (away >= (__s32)GW_READ_ONCE(gw_shared.control.revalidation_credit))
		return false;
	ask->sent = taken + away + 1;
	ask->since = tick;
	return true;
}

/*
 * Of an older epoch: true if the packet goes by the old verdict all the same, because a worker has been
 * asked in this tick or has enough to do. So a commit under load does not flood the workers. A packet that
 * asks goes to the worker, and so do all when the time for asking is over.
 */
static __always_inline bool gw_by_old_verdict(struct xdp_md *ctx, const struct gw_packet *pkt, __u32 *epoch,
					      __u32 *last_seen, __u32 was, __u32 now)
{
	bool asked = (was & GW_EPOCH_NUMBER) == now;
	__u32 tick;

	if (!GW_READ_ONCE(gw_shared.control.revalidation_credit))
		return false;
	tick = gw_now(pkt->stats);
	/* The coarse clock may be a little behind the moment at which the epoch began. */
	if ((__s32)(tick - GW_READ_ONCE(gw_shared.control.epoch_since)) >= GW_REVALIDATION_TICKS)
		return false;
	if ((asked && GW_READ_ONCE(*last_seen) == tick) || !gw_may_ask(ctx, pkt, tick))
		return true;
	/* The worker may have judged it just now, or another CPU asked. */
	if (!asked && __sync_val_compare_and_swap(epoch, was, now | GW_EPOCH_REVALIDATING) != was)
		return true;
	GW_WRITE_ONCE(*last_seen, tick);
	return false;
}

/* Stale records and those that are the worker's by nature; drops. */
static __always_inline int gw_judge(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_order *o,
				    __u32 *epoch, __u32 *last_seen, __u32 was)
{
	__u32 now = GW_READ_ONCE(gw_shared.control.epoch);

	if (unlikely(pkt->punt != GW_PUNT_MISS))
		return GW_WORKER;
	/* Flows through tunnels that may go by the old verdict did not come here. */
	if (unlikely(was != now) && (o->tunnel || !gw_by_old_verdict(ctx, pkt, epoch, last_seen, was, now)))
		return gw_worker(pkt, GW_PUNT_EPOCH);
	/* Tunnels are not executed here: their flows go to the worker. */
	if (unlikely(o->flags & GW_FLOW_PUNT_ALL || o->tunnel))
		return gw_worker(pkt, GW_PUNT_FLOW);
	if (unlikely(o->action == GW_ACT_DROP))
		return gw_drop(pkt, o->nexthop);
	if (unlikely(o->action != GW_ACT_FORWARD))
		return gw_worker(pkt, GW_PUNT_FLOW);
	return GW_CONTINUE;
}

/*
 * Adds a ones' complement sum to a stored checksum (RFC 1624), folded once: at most 0xFFFF for a
 * transport checksum. For a header `delta` may be 0x10000, and both zeros are right in a header that is
 * received: then the sum may be 0x10000, which gw_plus_zero() takes care of.
 */
static __always_inline __u32 gw_sum_add(__u32 check, __u32 delta)
{
	__u32 sum = check + delta;

	return (sum & 0xFFFF) + (sum >> 16);
}

/* As a full computation would have it, which never gives 0xFFFF. */
static __always_inline __u16 gw_plus_zero(__u32 check)
{
	return check >= 0xFFFF ? check - 0xFFFF : check;
}

/* New ports or identifier, and the transport checksum. */
static __always_inline void gw_rewrite_l4(const struct gw_packet *pkt, const struct gw_shape *s,
					  __u32 ports, __u16 delta, __u8 icmp)
{
	struct gw_l4 *l4 = s->l4;

	if (s->proto == GW_UDP) {
		if ((void *)(l4 + 1) > pkt->end)
			return;
		l4->ports = ports;
		/* Zero is no checksum (RFC 768), and no sum of others is zero. */
		if (l4->check)
			l4->check = gw_sum_add(l4->check, delta);
	} else if (s->proto == GW_TCP) {
		struct gw_tcp *tcp = (void *)l4;

		if ((void *)(tcp + 1) > pkt->end)
			return;
		tcp->ports = ports;
		tcp->check = gw_plus_zero(gw_sum_add(tcp->check, delta));
	} else if (s->proto == icmp) {
		if ((void *)(l4 + 1) > pkt->end)
			return;
		l4->len = gw_icmp_query(icmp, l4->icmp_type) ? ports : ports >> 16;
		l4->icmp_check = gw_plus_zero(gw_sum_add(l4->icmp_check, delta));
	}
}

/*
 * A mark of gw_metered(): the upper six bits of the octet. Those of ECN stay (RFC 3168 5).
 */
static __always_inline void gw_remark4(struct gw_ip4 *ip, __u8 mark)
{
	__u8 tos = mark << 2 | (ip->tos & GW_ECN);

	if (tos == ip->tos)
		return;
	/* The upper byte of its word as loaded: what it has less, the checksum has more (RFC 1624). */
	ip->check = gw_plus_zero(gw_sum_add(ip->check, 0xFFFF + ((__u32)ip->tos << 8) - ((__u32)tos << 8)));
	ip->tos = tos;
}

/* Version, traffic class and the head of the flow label are one word. */
static __always_inline void gw_remark6(struct gw_ip6 *ip, __u8 mark)
{
	__u16 *word = (__u16 *)ip;

	*word = (*word & bpf_htons(0xF03F)) | bpf_htons((mark & 0x3F) << 6);
}

static __always_inline void gw_rewrite4(struct gw_packet *pkt, struct gw_ip4 *ip, const struct gw_shape *s,
					const struct gw_flow4 *r, const struct gw_order *o)
{
	/* TTL is the first byte of its word: one less there is one more in the checksum. */
	__u32 delta = bpf_htons(0x0100);

	if (unlikely(o->mark))
		gw_remark4(ip, o->mark);
	if (o->flags & (GW_FLOW_SNAT | GW_FLOW_DNAT)) {
		ip->src = r->new_saddr;
		ip->dst = r->new_daddr;
		delta += r->l3_delta;
		gw_rewrite_l4(pkt, s, *(const __u32 *)&r->new_sport, r->l4_delta, GW_ICMP);
	}
	ip->ttl = s->ttl - 1;
	ip->check = gw_plus_zero(gw_sum_add(ip->check, delta));
}

static __always_inline void gw_rewrite6(struct gw_packet *pkt, struct gw_ip6 *ip, const struct gw_shape *s,
					const struct gw_flow6 *r, const struct gw_order *o)
{
	if (unlikely(o->mark))
		gw_remark6(ip, o->mark);
	if (o->flags & (GW_FLOW_SNAT | GW_FLOW_DNAT)) {
		__u64 *addrs = (__u64 *)ip->src;
		const __u64 *src = (const __u64 *)r->new_saddr, *dst = (const __u64 *)r->new_daddr;

		addrs[0] = src[0];
		addrs[1] = src[1];
		addrs[2] = dst[0];
		addrs[3] = dst[1];
		gw_rewrite_l4(pkt, s, *(const __u32 *)&r->new_sport, r->l4_delta, GW_ICMP6);
	}
	ip->hops = s->ttl - 1;
}

/* Destination and source address in two stores. */
static __always_inline void gw_macs(void *eth, const struct gw_hop *hop)
{
	*(__u64 *)eth = (hop->dmac_vlan & 0xFFFFFFFFFFFFULL) | hop->smac_mtu << 48;
	*(__u32 *)(eth + 8) = hop->smac_mtu >> 16;
}

/*
 * The link header of a frame that has a tag or gets one. Takes or gives back the four bytes, so
 * packet pointers are void after this; `*l3` is where IP starts then. Nothing has been changed if
 * it says anything but GW_CONTINUE.
 */
static __always_inline int gw_retag(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_hop *hop,
				    void **l3)
{
	__u16 vlan = hop->dmac_vlan >> 48;
	int grow = (vlan ? 4 : 0) - (pkt->vlan ? 4 : 0);
	struct gw_eth *eth;
	struct gw_vlan_tag *tag;

	if (grow && bpf_xdp_adjust_head(ctx, -grow))
		return gw_worker(pkt, GW_PUNT_FLOW);
	pkt->len += grow;
	pkt->data = (void *)(long)ctx->data;
	pkt->end = (void *)(long)ctx->data_end;
	eth = pkt->data;
	tag = (void *)(eth + 1);
	if ((void *)(tag + 1) > pkt->end)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	gw_macs(eth, hop);
	if (vlan) {
		eth->type = bpf_htons(GW_ETH_VLAN);
		tag->tci = bpf_htons(vlan);
		tag->type = pkt->ethertype;
		*l3 = tag + 1;
	} else {
		eth->type = pkt->ethertype;
		*l3 = tag;
	}
	return GW_CONTINUE;
}

static __always_inline void gw_count_tx(const struct gw_packet *pkt, const struct gw_hop *hop)
{
	struct gw_counts *out = gw_counts(pkt->stats, hop->dev >> 40);

	out->tx_packets++;
	out->tx_bytes += pkt->len;
}

/* One for each family: the packet is judged and goes out by `hop`. */
static __always_inline int gw_forward4(struct xdp_md *ctx, struct gw_packet *pkt, struct gw_ip4 *ip,
				       struct gw_shape *s, struct gw_flow4 *r, const struct gw_order *o,
				       const struct gw_hop *hop)
{
	if (unlikely(pkt->vlan || hop->dmac_vlan >> 48)) {
		void *l3;
		int verdict = gw_retag(ctx, pkt, hop, &l3);

		if (verdict)
			return verdict;
		ip = l3;
		if ((void *)(ip + 1) > pkt->end)
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		s->l4 = (void *)(ip + 1);
	} else {
		gw_macs(pkt->data, hop);
	}
	gw_rewrite4(pkt, ip, s, r, o);
	GW_COUNT_FLOW(r, pkt->stats, s->ip_len);
	gw_count_tx(pkt, hop);
	return GW_FORWARD;
}

static __always_inline int gw_forward6(struct xdp_md *ctx, struct gw_packet *pkt, struct gw_ip6 *ip,
				       struct gw_shape *s, struct gw_flow6 *r, const struct gw_order *o,
				       const struct gw_hop *hop)
{
	if (unlikely(pkt->vlan || hop->dmac_vlan >> 48)) {
		void *l3;
		int verdict = gw_retag(ctx, pkt, hop, &l3);

		if (verdict)
			return verdict;
		ip = l3;
		if ((void *)(ip + 1) > pkt->end)
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		s->l4 = (void *)(ip + 1);
	} else {
		gw_macs(pkt->data, hop);
	}
	gw_rewrite6(pkt, ip, s, r, o);
	GW_COUNT_FLOW(r, pkt->stats, s->ip_len);
	gw_count_tx(pkt, hop);
	return GW_FORWARD;
}

#endif /* GW_FORWARD_H */
