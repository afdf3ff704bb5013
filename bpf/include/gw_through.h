/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Established flows through tunnels: out of one, into one, or both. At the first doubt the packet is
 * left as it was, to the general path, which gives it to a worker.
 */
#ifndef GW_THROUGH_H
#define GW_THROUGH_H

#include "gw_exit.h"
#include "gw_forward.h"
#include "gw_front.h"
#include "gw_leave.h"
#include "gw_police.h"
#include "gw_tunnel.h"

/* The traffic class after the tunnel; false: the packet has to be dropped (RFC 6040 4.2). */
static __always_inline bool gw_tos_after(__u64 left, __u8 *tos)
{
	__u32 no = GW_LEFT_NO(left);
	__u8 inner = *tos & GW_ECN, outer = GW_LEFT_TOS(left) & GW_ECN, mark = inner;
	const struct gw_tunnel *t = bpf_map_lookup_elem(&gw_tunnels, &no);

	if (!t)
		return false;
	if (!inner && outer == GW_ECN)
		return false;
	if (inner && outer == GW_ECN)
		mark = GW_ECN;
	else if (inner && inner != GW_ECN && outer == 1)
		mark = 1;
	*tos = ((t->flags & GW_TUNNEL_UNIFORM ? GW_LEFT_TOS(left) : *tos) & ~GW_ECN) | mark;
	return true;
}

/* What is known of a packet that is about to go. */
struct gw_going {
	struct gw_order order;
	struct gw_hop hop;
	struct gw_way way;
	__u64 hash;
	__u16 ip_len;
	__u8 tos;
	__u8 inner6;
	__u8 df;
};

/* The last of the doubts, as gw_judge() and gw_admit() have them. If there is none, the redirect is set up. */
static __always_inline bool gw_may_go(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_shape *s,
				      __u32 *epoch, __u32 *last_seen, __u32 was, __u64 left, struct gw_going *g)
{
	__u32 now = GW_READ_ONCE(gw_shared.control.epoch);
	const struct gw_order *o = &g->order;

	if (!(left || o->tunnel) || pkt->punt != GW_PUNT_MISS || s->ttl <= 1 || o->flags & GW_FLOW_PUNT_ALL ||
	    o->action != GW_ACT_FORWARD || s->tcp_flags & (GW_TCP_SYN | GW_TCP_FIN | GW_TCP_RST))
		return false;
	gw_read_hop(o->nexthop, &g->hop);
	if (!(g->hop.dev >> 56 & GW_NH_VALID) || (__u8)(g->hop.dev >> 48) != o->gen)
		return false;
	g->ip_len = s->ip_len;
	if (o->tunnel) {
		if (!gw_way(o->tunnel, &g->way) || g->way.flags & (GW_TUNNEL_WORKER | GW_TUNNEL_SUM) ||
		    s->ip_len > g->way.mtu)
			return false;
	} else if (s->ip_len > g->hop.smac_mtu >> 48) {
		return false;
	}
	if (left && !gw_tos_after(left, &g->tos))
		return false;
	if (was != now) {
		if (!pkt->port)
			pkt->port = gw_device(ctx->ingress_ifindex);
		if (!pkt->port || !gw_by_old_verdict(ctx, pkt, epoch, last_seen, was, now))
			return false;
	}
	return bpf_redirect_map(&gw_devs, (__u8)(g->hop.dev >> 32), XDP_ABORTED) == XDP_REDIRECT;
}

/* Why the meters refuse the packet, or 0: then it has the mark that its CAR gives, outside too. */
static __always_inline __u32 gw_meter_through(struct gw_going *g)
{
	int mark = g->order.flags & GW_FLOW_METER ? gw_metered(g->order.meter, g->ip_len) : 0;

	if (mark < 0)
		return -mark;
	if (mark)
		g->tos = mark << 2 | (g->tos & GW_ECN);
	return 0;
}

/* What gw_put_front() needs to know of the packet inside, in one word. */
#define GW_FRONT(no, ip_len, tos, inner6, df) \
	((__u64)(no) | (__u64)(ip_len) << 8 | (__u64)(tos) << 24 | (__u64)(inner6) << 32 | (__u64)(df) << 33)

/*
 * Link header, and the tunnel's if there is one, in front of a packet for which there is room. A
 * program of its own to the verifier. False: the tunnel is not what it was a moment ago.
 */
__noinline int gw_put_front(struct xdp_md *ctx, __u64 what, __u64 hash, __u64 dmac_vlan, __u64 smac_mtu)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct gw_hop hop = { .dmac_vlan = dmac_vlan, .smac_mtu = smac_mtu };
	struct gw_front f = {
		.entropy = (__u32)(hash >> 8) & 0xFFFFF,
		.tos = what >> 24,
		.inner6 = what >> 32 & 1,
		.df = what >> 33 & 1,
	};
	bool outer6 = f.inner6, tunnel = (__u8)what;
	__u16 vlan = dmac_vlan >> 48;
	struct gw_eth *eth = data;
	struct gw_vlan_tag *tag = (void *)(eth + 1);
	__u32 at = sizeof(*eth);

	if (tunnel) {
		if (!gw_way((__u8)what, &f.way))
			return false;
		outer6 = f.way.flags & GW_TUNNEL_V6;
		f.total = f.way.len + (__u16)(what >> 8);
		if (f.way.flags & GW_TUNNEL_DSCP)
			f.tos = f.way.tos | (f.tos & GW_ECN);
	}
	if ((void *)(tag + 1) > end)
		return false;
	gw_macs(eth, &hop);
	eth->type = outer6 ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
	if (vlan) {
		tag->type = eth->type;
		tag->tci = bpf_htons(vlan);
		eth->type = bpf_htons(GW_ETH_VLAN);
		at += sizeof(*tag);
	}
	/* One path for both lengths. */
	asm volatile("" : "+r"(at));
	return !tunnel || gw_put_header(data + (at & 0x1F), end, &f);
}

/*
 * Makes room for the new front of the frame, or takes what is too much of it. `*l3` is where the packet
 * begins then.
 */
static __always_inline bool gw_new_front(struct xdp_md *ctx, struct gw_packet *pkt, __u32 was,
					 const struct gw_going *g, __u32 *l3)
{
	*l3 = sizeof(struct gw_eth) + (g->hop.dmac_vlan >> 48 ? 4 : 0) + (g->order.tunnel ? g->way.len : 0);
	if (bpf_xdp_adjust_head(ctx, (int)(was - *l3)))
		return false;
	pkt->data = (void *)(long)ctx->data;
	pkt->end = (void *)(long)ctx->data_end;
	pkt->len = pkt->end - pkt->data;
	return true;
}

/* Counts a packet that goes, or is dropped for `why`. */
static __always_inline int gw_gone(struct gw_packet *pkt, __u8 port, __u32 rx_len, const struct gw_going *g,
				   __u64 left, __u32 why)
{
	struct gw_counts *in = gw_counts(pkt->stats, port);
	struct gw_counts *out = gw_counts(pkt->stats, g->hop.dev >> 40);

	in->rx_packets++;
	in->rx_bytes += rx_len;
	if (left)
		gw_count_tunnel(GW_LEFT_NO(left), true, g->ip_len);
	if (why) {
		gw_count_reason(port, true, why);
		return GW_DROP;
	}
	in->fast++;
	out->tx_packets++;
	out->tx_bytes += pkt->len;
	if (g->order.tunnel)
		gw_count_tunnel(g->order.tunnel, false, g->ip_len);
	return GW_FORWARD;
}

static __always_inline int gw_through4(struct xdp_md *ctx, struct gw_packet *pkt, __u64 left, __u32 rx_len,
				       __u8 port)
{
	__u32 was = sizeof(struct gw_eth) + (pkt->vlan ? 4 : 0), now = 0, why, zero = 0, old;
	struct gw_ip4 *ip = pkt->l3;
	struct gw_key4 key = {};
	struct gw_shape shape = {};
	struct gw_going g = {};
	struct gw_flow4 *r;

	if ((void *)(ip + 1) > pkt->end || gw_parse4(pkt, ip, &key, &shape) != GW_CONTINUE)
		return GW_CONTINUE;
	r = gw_find4(&key, &pkt->record);
	pkt->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!r || !pkt->stats)
		return GW_CONTINUE;
	g.tos = ip->tos;
	g.df = !!(ip->frag & bpf_htons(0x4000));
	old = GW_READ_ONCE(r->epoch);
	g.order = gw_order(GW_READ_ONCE(*(__u64 *)&r->nexthop));
	if (!gw_may_go(ctx, pkt, &shape, &r->epoch, &r->last_seen, old, left, &g))
		return GW_CONTINUE;
	g.hash = gw_hash4(&key, gw_shared.control.seed);
	why = gw_meter_through(&g);
	/* From here on nothing is taken back. */
	if (!why && !gw_new_front(ctx, pkt, was, &g, &now))
		why = GW_DROP_FRAME_TOO_BIG;
	ip = pkt->data + (now & 0xFF);
	if (!why && (void *)(ip + 1) <= pkt->end) {
		shape.l4 = (void *)(ip + 1);
		if (ip->tos != g.tos) {
			old = *(__u16 *)ip;
			ip->tos = g.tos;
			ip->check = gw_plus_zero(gw_sum_add(ip->check, gw_fold(old + (__u16)~*(__u16 *)ip)));
		}
		gw_rewrite4(pkt, ip, &shape, r, &g.order);
		GW_COUNT_FLOW(r, pkt->stats, shape.ip_len);
		if (!gw_put_front(ctx, GW_FRONT(g.order.tunnel, g.ip_len, g.tos, g.inner6, g.df), g.hash,
				  g.hop.dmac_vlan, g.hop.smac_mtu))
			why = GW_DROP_FRAME_TOO_BIG;
	}
	return gw_gone(pkt, port, rx_len, &g, left, why);
}

static __always_inline int gw_through6(struct xdp_md *ctx, struct gw_packet *pkt, __u64 left, __u32 rx_len,
				       __u8 port)
{
	__u32 was = sizeof(struct gw_eth) + (pkt->vlan ? 4 : 0), now = 0, why, zero = 0, epoch;
	struct gw_ip6 *ip = pkt->l3;
	struct gw_key6 key = {};
	struct gw_shape shape = {};
	struct gw_going g = { .inner6 = 1, .df = 1 };
	struct gw_flow6 *r;

	if ((void *)(ip + 1) > pkt->end || gw_parse6(pkt, ip, &key, &shape) != GW_CONTINUE)
		return GW_CONTINUE;
	r = gw_find6(&key, &pkt->record);
	pkt->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!r || !pkt->stats)
		return GW_CONTINUE;
	g.tos = bpf_ntohl(ip->version_class) >> 20;
	epoch = GW_READ_ONCE(r->epoch);
	g.order = gw_order(GW_READ_ONCE(*(__u64 *)&r->nexthop));
	if (!gw_may_go(ctx, pkt, &shape, &r->epoch, &r->last_seen, epoch, left, &g))
		return GW_CONTINUE;
	g.hash = gw_hash6(&key, gw_shared.control.seed);
	why = gw_meter_through(&g);
	/* From here on nothing is taken back. */
	if (!why && !gw_new_front(ctx, pkt, was, &g, &now))
		why = GW_DROP_FRAME_TOO_BIG;
	ip = pkt->data + (now & 0xFF);
	if (!why && (void *)(ip + 1) <= pkt->end) {
		shape.l4 = (void *)(ip + 1);
		ip->version_class =
			(ip->version_class & ~bpf_htonl(0x0FF00000)) | bpf_htonl((__u32)g.tos << 20);
		gw_rewrite6(pkt, ip, &shape, r, &g.order);
		GW_COUNT_FLOW(r, pkt->stats, shape.ip_len);
		if (!gw_put_front(ctx, GW_FRONT(g.order.tunnel, g.ip_len, g.tos, g.inner6, g.df), g.hash,
				  g.hop.dmac_vlan, g.hop.smac_mtu))
			why = GW_DROP_FRAME_TOO_BIG;
	}
	return gw_gone(pkt, port, rx_len, &g, left, why);
}

/* A packet that has left a tunnel, or (`left` is 0) one as it was received, which may enter one. */
__noinline int gw_through(struct xdp_md *ctx, __u64 left)
{
	struct gw_packet pkt = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct gw_eth *eth = pkt.data;
	__u32 rx_len;
	__u8 port;

	pkt.len = pkt.end - pkt.data;
	rx_len = pkt.len + GW_LEFT_SKIP(left);
	if (left) {
		if ((void *)(eth + 1) > pkt.end)
			return GW_CONTINUE;
		pkt.l3 = eth + 1;
		pkt.zone = GW_ZONE_OVERLAY;
		pkt.ethertype = GW_LEFT_V6(left) ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
		port = GW_LEFT_PORT(left);
	} else {
		if (!gw_through_link(ctx, &pkt))
			return GW_CONTINUE;
		port = pkt.port->port;
	}
	if (pkt.ethertype == bpf_htons(GW_ETH_IP4))
		return gw_through4(ctx, &pkt, left, rx_len, port);
	if (pkt.ethertype == bpf_htons(GW_ETH_IP6))
		return gw_through6(ctx, &pkt, left, rx_len, port);
	return GW_CONTINUE;
}

/* GW_CONTINUE: the frame is as it was. */
static __always_inline int gw_tunnels_first(struct xdp_md *ctx)
{
	__u64 left = gw_leave(ctx);
	int verdict = gw_through(ctx, left);

	if (verdict == GW_CONTINUE && left && bpf_xdp_adjust_head(ctx, -(int)GW_LEFT_SKIP(left)))
		return GW_NOT_OURS;
	return verdict;
}

#endif /* GW_THROUGH_H */
