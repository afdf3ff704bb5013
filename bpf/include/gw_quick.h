/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The quick path: an established flow of TCP or UDP between untagged ports. It is the general path
 * with everything left out that such a packet does not need; at the first doubt, before anything is
 * counted or changed, it leaves the packet to the general path.
 */
#ifndef GW_QUICK_H
#define GW_QUICK_H

#include "gw_link.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_table.h"
#include "gw_parse.h"
#include "gw_forward.h"
#include "gw_police.h"
#include "gw_exit.h"
#include "gw_enter.h"

/* Where the action word says: forward, and nothing that the general path would punt. */
#define GW_QUICK_MASK                                                            \
	(0xFFULL << 48 | (__u64)GW_FLOW_PUNT_ALL << 40 | 0xFFULL << 32)
#define GW_QUICK_WANT ((__u64)GW_ACT_FORWARD << 32)
#define GW_QUICK_METER ((__u64)GW_FLOW_METER << 40)
#define GW_QUICK_TUNNEL (0xFFULL << 48)
#define GW_QUICK_NAT ((__u64)(GW_FLOW_SNAT | GW_FLOW_DNAT) << 40)

struct gw_quick {
	const void *end;
	struct gw_port *port;
	struct gw_stats *stats;
	__u64 head;		/* first word of the port's entry */
	__u64 order;		/* action word of the record */
	struct gw_hop hop;
	__u32 ifindex;
	__u32 ip_len;
	__u32 len;		/* of the frame */
};

/* Eight bytes wherever they lie in the packet: one instruction instead of two halves put together. */
static __always_inline __u64 *gw_u64(void *p)
{
	return p;
}

/* The port that the frame came in by, whether it is one or not: gw_quick_port_ok() says. */
static __always_inline void gw_quick_port(struct xdp_md *ctx, struct gw_quick *q)
{
	q->ifindex = ctx->ingress_ifindex;
	q->port = &gw_shared.ports[q->ifindex % GW_PORT_SLOTS];
	q->head = GW_READ_ONCE(*gw_u64(q->port));
}

static __always_inline bool gw_quick_port_ok(const struct gw_quick *q, const void *eth)
{
	return q->head & GW_PORT_ON && q->head >> 32 == q->ifindex && gw_for_us(q->port, eth) &&
	       GW_READ_ONCE(gw_shared.control.fast_path);
}

/* Ports, protocol and zone; the zone is the third byte of the port's entry. */
static __always_inline __u64 gw_quick_l4(const struct gw_quick *q, __u32 ports, __u8 proto)
{
	return gw_l4_word(ports, proto, 0) | (q->head & 0xFF0000) << 24;
}

/* Of sound lengths, with nothing in the TCP flags that a worker wants to see. */
static __always_inline bool gw_plain_l4(const struct gw_l4 *l4, __u8 proto, __u32 ip_header,
					const struct gw_quick *q)
{
	const struct gw_tcp *tcp = (const void *)l4;
	__u32 len;

	if (proto == GW_UDP) {
		len = bpf_ntohs(l4->len);
		return len >= sizeof(*l4) && len + ip_header <= q->ip_len;
	}
	if (proto != GW_TCP || (const void *)(tcp + 1) > q->end)
		return false;
	len = tcp->offset >> 4 << 2;
	return len >= sizeof(*tcp) && len + ip_header <= q->ip_len &&
	       !(tcp->flags & (GW_TCP_SYN | GW_TCP_FIN | GW_TCP_RST));
}

/* The last of the doubts. If there is none, the redirect is set up. */
static __always_inline bool gw_quick_admit(struct gw_quick *q)
{
	__u32 zero = 0;

	if ((q->order & GW_QUICK_MASK) != GW_QUICK_WANT)
		return false;
	gw_read_hop(q->order, &q->hop);
	/* Valid, of the generation that the record was made for, untagged, and large enough. */
	if (q->hop.dev >> 48 != (q->order >> 56 | GW_NH_VALID << 8) || q->hop.dmac_vlan >> 48 ||
	    q->ip_len > q->hop.smac_mtu >> 48)
		return false;
	q->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	return q->stats &&
	       bpf_redirect_map(&gw_devs, (__u8)(q->hop.dev >> 32), XDP_ABORTED) == XDP_REDIRECT;
}

static __always_inline int gw_quick_done(const struct gw_quick *q, void *eth)
{
	struct gw_counts *in = gw_counts(q->stats, q->head >> 8);
	struct gw_counts *out = gw_counts(q->stats, q->hop.dev >> 40);

	gw_macs(eth, &q->hop);
	in->rx_packets++;
	in->rx_bytes += q->len;
	in->fast++;
	out->tx_packets++;
	out->tx_bytes += q->len;
	return GW_FORWARD;
}

/*
 * The last step before the packet is changed: is it within its rates? The mark that it gets (0: none), or minus the
 * reason why it is dropped.
 */
static __always_inline int gw_quick_meter(const struct gw_quick *q)
{
	__u32 set = (__u16)(q->order >> 16);
	int mark = gw_passes_one(set, q->ip_len, q->stats);

	return mark < 0 ? gw_metered(set, q->ip_len) : mark;
}

/* Over a rate. */
static __always_inline int gw_quick_drop(const struct gw_quick *q, __u32 why)
{
	struct gw_counts *in = gw_counts(q->stats, q->head >> 8);

	in->rx_packets++;
	in->rx_bytes += q->len;
	gw_count_reason((__u8)(q->head >> 8), true, why);
	return GW_DROP;
}

/*
 * In both families the lookup comes first: while the record comes from memory, the processor sees
 * whether the packet may use it.
 */
static __always_inline int gw_quick4(struct xdp_md *ctx, struct gw_quick *q, struct gw_eth *eth)
{
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_tcp *tcp = (void *)l4;
	__u32 delta = bpf_htons(0x0100);
	struct gw_key4 key;
	struct gw_flow4 *r;
	int mark;

	if ((void *)(l4 + 1) > q->end)
		return GW_CONTINUE;
	gw_quick_port(ctx, q);
	key.addrs = *gw_u64(&ip->src);
	key.l4 = gw_quick_l4(q, l4->ports, ip->proto);
	r = gw_peek4(&gw_shared.control, &key);
	if (!r)
		return GW_CONTINUE;
	q->ip_len = bpf_ntohs(ip->len);
	if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(GW_FRAG_ANY) || ip->ttl <= 1 || !gw_sum_ok(ip) ||
	    q->ip_len > (__u32)(q->end - (void *)ip) || !gw_plain_l4(l4, ip->proto, sizeof(*ip), q) ||
	    !gw_quick_port_ok(q, eth))
		return GW_CONTINUE;
	if (r->key_addrs != key.addrs || r->key_l4 != key.l4 ||
	    GW_READ_ONCE(r->epoch) != GW_READ_ONCE(gw_shared.control.epoch))
		return GW_CONTINUE;
	q->order = GW_READ_ONCE(*gw_u64(&r->nexthop));
	if (unlikely(q->order & GW_QUICK_TUNNEL))
		return gw_enter4(ctx, r, gw_hash4(&key, gw_shared.control.seed), (__u8)(q->head >> 8));
	if (!gw_quick_admit(q))
		return GW_CONTINUE;
	if (q->order & GW_QUICK_METER) {
		mark = gw_quick_meter(q);
		if (mark < 0)
			return gw_quick_drop(q, -mark);
		if (unlikely(mark))
			gw_remark4(ip, mark);
	}

	if (q->order & GW_QUICK_NAT) {
		*gw_u64(&ip->src) = *gw_u64(&r->new_saddr);
		l4->ports = *(__u32 *)&r->new_sport;
		delta += r->l3_delta;
		if (ip->proto == GW_UDP) {
			if (l4->check)
				l4->check = gw_sum_add(l4->check, r->l4_delta);
		} else if ((void *)(tcp + 1) <= q->end) {
			tcp->check = gw_plus_zero(gw_sum_add(tcp->check, r->l4_delta));
		}
	}
	ip->ttl--;
	ip->check = gw_plus_zero(gw_sum_add(ip->check, delta));
	GW_COUNT_FLOW(r, q->stats, q->ip_len);
	return gw_quick_done(q, eth);
}

/* Translated IPv6 is rare: the general path does it. */
static __always_inline int gw_quick6(struct xdp_md *ctx, struct gw_quick *q, struct gw_eth *eth)
{
	struct gw_ip6 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_key6 key;
	struct gw_flow6 *r;
	int mark;

	if ((void *)(l4 + 1) > q->end)
		return GW_CONTINUE;
	gw_quick_port(ctx, q);
	key.src[0] = gw_u64(ip->src)[0];
	key.src[1] = gw_u64(ip->src)[1];
	key.dst[0] = gw_u64(ip->dst)[0];
	key.dst[1] = gw_u64(ip->dst)[1];
	key.l4 = gw_quick_l4(q, l4->ports, ip->next);
	r = gw_peek6(&gw_shared.control, &key);
	if (!r)
		return GW_CONTINUE;
	q->ip_len = sizeof(*ip) + bpf_ntohs(ip->payload);
	if ((*(__u8 *)ip & 0xF0) != 0x60 || ip->hops <= 1 || q->ip_len > 0xFFFF ||
	    q->ip_len > (__u32)(q->end - (void *)ip) || !gw_plain_l4(l4, ip->next, sizeof(*ip), q) ||
	    !gw_quick_port_ok(q, eth))
		return GW_CONTINUE;
	if (!gw_same6(r, &key) || GW_READ_ONCE(r->epoch) != GW_READ_ONCE(gw_shared.control.epoch))
		return GW_CONTINUE;
	q->order = GW_READ_ONCE(*gw_u64(&r->nexthop));
	if (unlikely(q->order & GW_QUICK_TUNNEL))
		return gw_enter6(ctx, r, gw_hash6(&key, gw_shared.control.seed), (__u8)(q->head >> 8));
	if (q->order & GW_QUICK_NAT || !gw_quick_admit(q))
		return GW_CONTINUE;
	if (q->order & GW_QUICK_METER) {
		mark = gw_quick_meter(q);
		if (mark < 0)
			return gw_quick_drop(q, -mark);
		if (unlikely(mark))
			gw_remark6(ip, mark);
	}
	ip->hops--;
	GW_COUNT_FLOW(r, q->stats, q->ip_len);
	return gw_quick_done(q, eth);
}

static __always_inline int gw_quick(struct xdp_md *ctx)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	struct gw_quick q = { .end = (void *)(long)ctx->data_end };

	if ((void *)(eth + 1) > q.end)
		return GW_CONTINUE;
	q.len = q.end - (void *)eth;
	if (eth->type == bpf_htons(GW_ETH_IP4))
		return gw_quick4(ctx, &q, eth);
	if (eth->type == bpf_htons(GW_ETH_IP6))
		return gw_quick6(ctx, &q, eth);
	return GW_CONTINUE;
}

#endif /* GW_QUICK_H */
