/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The quick path's way into a tunnel: an established flow of TCP or UDP between untagged ports, all of
 * whose headers gw_quick() has looked at. At the first doubt the packet is left to gw_through(), which
 * takes everything else that enters a tunnel.
 */
#ifndef GW_ENTER_H
#define GW_ENTER_H

#include "gw_exit.h"
#include "gw_forward.h"
#include "gw_front.h"
#include "gw_police.h"

struct gw_enter {
	struct gw_front front;
	struct gw_hop hop;
	struct gw_stats *stats;
	__u32 meter;		/* its set, 0: none */
	__u32 ip_len;		/* inside */
	__u32 len;		/* of the frame received */
	__u8 port;		/* that it came in by */
};

/* Whether record, next hop and tunnel let it pass. If so, the redirect is set up. */
static __always_inline bool gw_may_enter(struct gw_enter *e, __u64 order)
{
	__u32 no = (__u8)(order >> 48), zero = 0;

	if ((__u8)(order >> 32) != GW_ACT_FORWARD || order >> 40 & GW_FLOW_PUNT_ALL)
		return false;
	gw_read_hop(order, &e->hop);
	if (e->hop.dev >> 48 != (order >> 56 | GW_NH_VALID << 8) || e->hop.dmac_vlan >> 48)
		return false;
	if (!no || !gw_way(no, &e->front.way) || e->front.way.flags & GW_TUNNEL_WORKER ||
	    e->ip_len > e->front.way.mtu)
		return false;
	e->front.total = e->front.way.len + e->ip_len;
	e->meter = order >> 40 & GW_FLOW_METER ? (__u16)(order >> 16) : 0;
	e->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	return e->stats && bpf_redirect_map(&gw_devs, (__u8)(e->hop.dev >> 32), XDP_ABORTED) == XDP_REDIRECT;
}

/* The mark that the packet gets (0: none), or minus the reason why it is over a rate. */
static __always_inline int gw_enter_meter(const struct gw_enter *e)
{
	int mark = e->meter ? gw_passes_one(e->meter, e->ip_len, e->stats) : 0;

	return mark < 0 ? gw_metered(e->meter, e->ip_len) : mark;
}

/*
 * The ones' complement sum of a packet inside, by its headers alone: a transport header's checksum makes the sum of
 * segment and pseudo header zero, and an IPv4 header's that of the header. If they are wrong, the outer checksum is
 * wrong as well, which is no loss: the packet would have been dropped a little later.
 */
static __always_inline __u32 gw_inner_sum4(const struct gw_ip4 *ip, __u32 ip_len)
{
	__u64 sum = (__u64)ip->src + ip->dst + bpf_htons(ip->proto) + bpf_htons(ip_len - sizeof(*ip));

	return (__u16)~gw_fold64(sum);
}

/* Addresses and length are in header and pseudo header, so only what differs counts. */
static __always_inline __u32 gw_inner_sum6(const struct gw_ip6 *ip)
{
	__u32 word = ip->version_class, next = ip->next;

	return (word & 0xFFFF) + (word >> 16) + (next | (__u32)ip->hops << 8) + (0xFFFF - (next << 8));
}

/* Whether the transport header's checksum covers all that is behind the IP header. */
static __always_inline bool gw_all_summed(const struct gw_l4 *l4, __u8 proto, __u32 len)
{
	return proto == GW_TCP || (l4->check && bpf_ntohs(l4->len) == len);
}

/* Counts a packet that goes, or is dropped for `why`. */
static __always_inline int gw_entered(const struct gw_enter *e, __u32 why)
{
	struct gw_counts *in = gw_counts(e->stats, e->port);
	struct gw_counts *out = gw_counts(e->stats, e->hop.dev >> 40);

	in->rx_packets++;
	in->rx_bytes += e->len;
	if (why) {
		gw_count_reason(e->port, true, why);
		return GW_DROP;
	}
	in->fast++;
	out->tx_packets++;
	out->tx_bytes += e->len + e->front.way.len;
	gw_count_tunnel(e->front.way.no, false, e->ip_len);
	return GW_FORWARD;
}

/* Link header and the tunnel's in front of the packet, which is as it is to be inside. */
static __always_inline bool gw_dress(struct xdp_md *ctx, struct gw_enter *e)
{
	bool v6 = e->front.way.flags & GW_TUNNEL_V6;
	struct gw_eth *eth;
	void *end;

	if (bpf_xdp_adjust_head(ctx, -(int)e->front.way.len))
		return false;
	eth = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(eth + 1) > end)
		return false;
	gw_macs(eth, &e->hop);
	eth->type = v6 ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
	if (e->front.way.flags & GW_TUNNEL_DSCP)
		e->front.tos = e->front.way.tos | (e->front.tos & GW_ECN);
	return gw_put_header(eth + 1, end, &e->front);
}

/* GW_CONTINUE: the packet is as it was. A program of its own to the verifier. */
__noinline int gw_enter4(struct xdp_md *ctx, struct gw_flow4 *r, __u64 hash, __u32 port)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_tcp *tcp = (void *)l4;
	__u32 delta = bpf_htons(0x0100);
	struct gw_enter e = {};
	__u64 order;
	int mark;

	if (!r || (void *)(l4 + 1) > end)
		return GW_CONTINUE;
	order = GW_READ_ONCE(*(__u64 *)&r->nexthop);
	e.ip_len = bpf_ntohs(ip->len);
	e.len = end - (void *)eth;
	e.port = port;
	if (!gw_may_enter(&e, order))
		return GW_CONTINUE;
	if (e.front.way.flags & GW_TUNNEL_SUM && !gw_all_summed(l4, ip->proto, e.ip_len - sizeof(*ip)))
		return GW_CONTINUE;
	mark = gw_enter_meter(&e);
	if (mark < 0)
		return gw_entered(&e, -mark);
	if (mark)
		gw_remark4(ip, mark);
	e.front.entropy = (__u32)(hash >> 8) & 0xFFFFF;
	e.front.tos = ip->tos;
	e.front.df = !!(ip->frag & bpf_htons(0x4000));

	if (order >> 40 & (GW_FLOW_SNAT | GW_FLOW_DNAT)) {
		ip->src = r->new_saddr;
		ip->dst = r->new_daddr;
		l4->ports = *(__u32 *)&r->new_sport;
		delta += r->l3_delta;
		if (ip->proto == GW_UDP) {
			if (l4->check)
				l4->check = gw_sum_add(l4->check, r->l4_delta);
		} else if ((void *)(tcp + 1) <= end) {
			tcp->check = gw_plus_zero(gw_sum_add(tcp->check, r->l4_delta));
		}
	}
	ip->ttl--;
	ip->check = gw_plus_zero(gw_sum_add(ip->check, delta));
	if (e.front.way.flags & GW_TUNNEL_SUM)
		e.front.inner_sum = gw_inner_sum4(ip, e.ip_len);
	/* From here on nothing is taken back. */
	if (!gw_dress(ctx, &e))
		return gw_entered(&e, GW_DROP_FRAME_TOO_BIG);
	GW_COUNT_FLOW(r, e.stats, e.ip_len);
	return gw_entered(&e, 0);
}

/* Translated IPv6 is rare: gw_through() does it. */
__noinline int gw_enter6(struct xdp_md *ctx, struct gw_flow6 *r, __u64 hash, __u32 port)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct gw_ip6 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_enter e = { .front = { .inner6 = true, .df = true } };
	__u64 order;
	int mark;

	if (!r || (void *)(l4 + 1) > end)
		return GW_CONTINUE;
	order = GW_READ_ONCE(*(__u64 *)&r->nexthop);
	e.ip_len = sizeof(*ip) + bpf_ntohs(ip->payload);
	e.len = end - (void *)eth;
	e.port = port;
	if (order >> 40 & (GW_FLOW_SNAT | GW_FLOW_DNAT) || !gw_may_enter(&e, order))
		return GW_CONTINUE;
	if (e.front.way.flags & GW_TUNNEL_SUM && !gw_all_summed(l4, ip->next, e.ip_len - sizeof(*ip)))
		return GW_CONTINUE;
	mark = gw_enter_meter(&e);
	if (mark < 0)
		return gw_entered(&e, -mark);
	if (mark)
		gw_remark6(ip, mark);
	e.front.entropy = (__u32)(hash >> 8) & 0xFFFFF;
	e.front.tos = bpf_ntohl(ip->version_class) >> 20;
	ip->hops--;
	if (e.front.way.flags & GW_TUNNEL_SUM)
		e.front.inner_sum = gw_inner_sum6(ip);
	/* From here on nothing is taken back. */
	if (!gw_dress(ctx, &e))
		return gw_entered(&e, GW_DROP_FRAME_TOO_BIG);
	GW_COUNT_FLOW(r, e.stats, e.ip_len);
	return gw_entered(&e, 0);
}

#endif /* GW_ENTER_H */
