/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The XDP tunnel path: established flows out of a tunnel, into one, or both. At the first doubt the packet is
 * left as it was, to the general path, which gives it to a worker.
 */
#ifndef GW_TUNNEL_FWD_H
#define GW_TUNNEL_FWD_H

#include "gw_check.h"
#include "gw_checksum.h"
#include "gw_decap.h"
#include "gw_encap.h"
#include "gw_police.h"
#include "gw_revalidate.h"
#include "gw_rewrite.h"
#include "gw_tunnel.h"

/* gw_tos_after() of the tunnel that the packet has left. */
static __always_inline bool gw_decap_tos(__u64 decap, __u8 *tos)
{
	__u32 no = GW_DECAP_NO(decap);
	const struct gw_tunnel *t = bpf_map_lookup_elem(&gw_tunnels, &no);

	return t && gw_tos_after(t, GW_DECAP_TOS(decap), tos);
}

/* What is known of the packet inside, besides what gw_fwd_ctx has. */
struct gw_inner {
	struct gw_tunnel_ctl ctl; /* of the tunnel that it enters */
	__u64 hash;
	__u8 tos;
	__u8 v6;
	__u8 df;
};

/*
 * Whether the packet goes by the action of its record, as gw_check() has it on the general path. If so, the
 * redirect is set up.
 */
static __always_inline bool gw_tunnel_check(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_shape *s,
					    __u32 *epoch, __u32 *last_seen, __u32 was, __u64 decap, struct gw_inner *in)
{
	struct gw_fwd_ctx *f = &pkt->fwd;
	__u32 mtu = GW_LINK_MTU;

	f->into_tunnel = GW_ACTION_TUNNEL(f->action);
	f->ip_len = s->ip_len;
	if (!(decap || f->into_tunnel) || pkt->punt != GW_PUNT_MISS || gw_check_headers(s->ttl, s->tcp_flags_xack))
		return false;
	if (f->into_tunnel) {
		if (!gw_tunnel_ctl(f->into_tunnel, &in->ctl) || in->ctl.flags & (GW_TUNNEL_WORKER | GW_TUNNEL_SUM))
			return false;
		mtu = in->ctl.mtu;
	}
	if (!gw_can_forward(f, mtu))
		return false;
	if (decap && !gw_decap_tos(decap, &in->tos))
		return false;
	if (!gw_is_current(was)) {
		if (!pkt->port)
			pkt->port = gw_device(ctx->ingress_ifindex);
		if (!pkt->port || !gw_use_stale_action(ctx, pkt, epoch, last_seen, was))
			return false;
	}
	return gw_redirect(f);
}

/* Why the meters refuse the packet, or 0: then it has the mark that its CAR gives, outside too. */
static __always_inline __u32 gw_tunnel_meter(const struct gw_fwd_ctx *f, struct gw_inner *in)
{
	int mark = gw_meter(f, false);

	if (mark < 0)
		return -mark;
	if (mark)
		in->tos = gw_marked(mark, in->tos);
	return 0;
}

/* What gw_push_headers() needs to know of the packet inside, in one word. */
#define GW_INNER(no, ip_len, tos, v6, df) \
	((__u64)(no) | (__u64)(ip_len) << 8 | (__u64)(tos) << 24 | (__u64)(v6) << 32 | (__u64)(df) << 33)

/*
 * Link header, and the tunnel's if there is one, in front of a packet for which there is room. A
 * program of its own to the verifier. False: the tunnel is not what it was a moment ago.
 */
__noinline int gw_push_headers(struct xdp_md *ctx, __u64 inner, __u64 hash, __u64 dmac_vlan, __u64 smac_mtu)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct gw_hop hop = { .dmac_vlan = dmac_vlan, .smac_mtu = smac_mtu };
	struct gw_encap e = {
		.entropy = (__u32)(hash >> 8) & 0xFFFFF,
		.tos = inner >> 24,
		.inner6 = inner >> 32 & 1,
		.df = inner >> 33 & 1,
	};
	bool outer6 = e.inner6, tunnel = (__u8)inner;
	__u16 vlan = dmac_vlan >> 48;
	struct gw_eth *eth = data;
	struct gw_vlan_tag *tag = (void *)(eth + 1);
	__u32 at = sizeof(*eth);

	if (tunnel) {
		if (!gw_tunnel_ctl((__u8)inner, &e.ctl))
			return false;
		outer6 = e.ctl.flags & GW_TUNNEL_V6;
		e.total = e.ctl.len + (__u16)(inner >> 8);
		if (e.ctl.flags & GW_TUNNEL_DSCP)
			e.tos = e.ctl.tos | (e.tos & GW_ECN);
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
	return !tunnel || gw_write_outer(data + (at & 0x1F), end, &e);
}

/* Link header and tunnel header as they are to be: see gw_push_headers(). */
static __always_inline bool gw_push(struct xdp_md *ctx, const struct gw_fwd_ctx *f, const struct gw_inner *in)
{
	return gw_push_headers(ctx, GW_INNER(f->into_tunnel, f->ip_len, in->tos, in->v6, in->df), in->hash,
			       f->hop.dmac_vlan, f->hop.smac_mtu);
}

/*
 * Makes room for the new headers of the frame, or takes what is too much, and cuts off what is behind the packet. `*l3`
 * is where the packet begins then.
 */
static __always_inline bool gw_make_room(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_inner *in,
					 __u32 *l3)
{
	const struct gw_fwd_ctx *f = &pkt->fwd;
	__u32 was = sizeof(struct gw_eth) + (pkt->vlan ? 4 : 0);
	__u32 padding = gw_distance(pkt->data, pkt->end) - was - f->ip_len;

	if (unlikely(padding) && bpf_xdp_adjust_tail(ctx, -(int)padding))
		return false;
	*l3 = sizeof(struct gw_eth) + (f->hop.dmac_vlan >> 48 ? 4 : 0) + (f->into_tunnel ? in->ctl.len : 0);
	if (bpf_xdp_adjust_head(ctx, (int)(was - *l3)))
		return false;
	pkt->data = (void *)(long)ctx->data;
	pkt->end = (void *)(long)ctx->data_end;
	pkt->len = pkt->end - pkt->data;
	return true;
}

/*
 * Meters the packet and makes room for its new headers; `*l3` is where it begins then. Nothing is taken back from
 * here on: a reason, or 0.
 */
static __always_inline __u32 gw_tunnel_begin(struct xdp_md *ctx, struct gw_packet *pkt, struct gw_inner *in, __u32 *l3)
{
	__u32 why = gw_tunnel_meter(&pkt->fwd, in);

	if (!why && !gw_make_room(ctx, pkt, in, l3))
		why = GW_DROP_FRAME_TOO_BIG;
	return why;
}

static __always_inline int gw_tunnel_forward4(struct xdp_md *ctx, struct gw_packet *pkt, __u64 decap)
{
	struct gw_transport t = { .icmp = GW_ICMP };
	struct gw_fwd_ctx *f = &pkt->fwd;
	struct gw_ip4 *ip = pkt->l3;
	struct gw_inner in = {};
	struct gw_key4 key = {};
	struct gw_shape shape = {};
	__u32 l3 = 0, zero = 0, epoch, why;
	struct gw_flow4 *r;

	if ((void *)(ip + 1) > pkt->end || gw_parse4(pkt, ip, &key, &shape) != GW_CONTINUE)
		return GW_CONTINUE;
	r = gw_find4(&key, &pkt->record);
	f->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!r || !f->stats || !gw_same_ingress(r->key_l4, key.l4))
		return GW_CONTINUE;
	in.tos = ip->tos;
	in.df = !!(ip->frag & bpf_htons(GW_DF));
	epoch = GW_READ_ONCE(r->epoch);
	f->action = gw_flow_action(r);
	if (!gw_tunnel_check(ctx, pkt, &shape, &r->epoch, &r->last_seen, epoch, decap, &in))
		return GW_CONTINUE;
	if (!gw_checksummed(ctx, pkt->data, ip, r->packets))
		return GW_CONTINUE;
	in.hash = gw_hash4(&key, gw_shared.control.seed);
	why = gw_tunnel_begin(ctx, pkt, &in, &l3);
	ip = pkt->data + (l3 & 0xFF);
	if (!why && (void *)(ip + 1) <= pkt->end) {
		t.l4 = (void *)(ip + 1);
		t.end = pkt->end;
		t.proto = shape.proto;
		gw_set_tos4(ip, in.tos);
		gw_rewrite4(ip, &t, r, f->action);
		GW_COUNT_FLOW(r, f);
		if (!gw_push(ctx, f, &in))
			why = GW_DROP_FRAME_TOO_BIG;
	}
	return gw_finish(f, pkt->len, why);
}

static __always_inline int gw_tunnel_forward6(struct xdp_md *ctx, struct gw_packet *pkt, __u64 decap)
{
	struct gw_transport t = { .icmp = GW_ICMP6 };
	struct gw_fwd_ctx *f = &pkt->fwd;
	struct gw_ip6 *ip = pkt->l3;
	struct gw_inner in = { .v6 = 1, .df = 1 };
	struct gw_key6 key = {};
	struct gw_shape shape = {};
	__u32 l3 = 0, zero = 0, epoch, why;
	struct gw_flow6 *r;

	if ((void *)(ip + 1) > pkt->end || gw_parse6(pkt, ip, &key, &shape) != GW_CONTINUE)
		return GW_CONTINUE;
	r = gw_find6(&key, &pkt->record);
	f->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!r || !f->stats || !gw_same_ingress(r->key_l4, key.l4))
		return GW_CONTINUE;
	in.tos = gw_tos6(ip);
	epoch = GW_READ_ONCE(r->epoch);
	f->action = gw_flow_action(r);
	if (!gw_tunnel_check(ctx, pkt, &shape, &r->epoch, &r->last_seen, epoch, decap, &in))
		return GW_CONTINUE;
	if (!gw_checksummed(ctx, pkt->data, ip, r->packets))
		return GW_CONTINUE;
	in.hash = gw_hash6(&key, gw_shared.control.seed);
	why = gw_tunnel_begin(ctx, pkt, &in, &l3);
	ip = pkt->data + (l3 & 0xFF);
	if (!why && (void *)(ip + 1) <= pkt->end) {
		t.l4 = (void *)(ip + 1);
		t.end = pkt->end;
		t.proto = shape.proto;
		gw_set_tos6(ip, in.tos);
		gw_rewrite6(ip, &t, r, f->action);
		GW_COUNT_FLOW(r, f);
		if (!gw_push(ctx, f, &in))
			why = GW_DROP_FRAME_TOO_BIG;
	}
	return gw_finish(f, pkt->len, why);
}

/* A packet that has left a tunnel, or (`decap` is 0) one as it was received, which may enter one. */
__noinline int gw_tunnel_forward(struct xdp_md *ctx, __u64 decap)
{
	struct gw_packet pkt = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct gw_eth *eth = pkt.data;
	struct gw_fwd_ctx *f = &pkt.fwd;

	/* The packet inside must not go on behind the outer one: the link's padding is not its own. */
	pkt.len = gw_distance(pkt.data, pkt.end);
	f->rx_len = pkt.len + GW_DECAP_SKIP(decap);
	pkt.len -= GW_DECAP_REST(decap);
	f->from_tunnel = GW_DECAP_NO(decap);
	if (decap) {
		if ((void *)(eth + 1) > pkt.end)
			return GW_CONTINUE;
		pkt.l3 = eth + 1;
		pkt.zone = GW_DECAP_ZONE(decap);
		pkt.ingress = GW_INGRESS_TUNNEL | GW_DECAP_NO(decap);
		pkt.ethertype = GW_DECAP_V6(decap) ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
		f->port = GW_DECAP_PORT(decap);
	} else {
		if (!gw_tunnel_link(ctx, &pkt))
			return GW_CONTINUE;
		f->port = pkt.port->port;
		pkt.ingress = f->port;
	}
	if (pkt.ethertype == bpf_htons(GW_ETH_IP4))
		return gw_tunnel_forward4(ctx, &pkt, decap);
	if (pkt.ethertype == bpf_htons(GW_ETH_IP6))
		return gw_tunnel_forward6(ctx, &pkt, decap);
	return GW_CONTINUE;
}

/* GW_CONTINUE: the frame is as it was. */
static __always_inline int gw_tunnel_path(struct xdp_md *ctx)
{
	__u64 decap = gw_decap(ctx);
	int verdict = gw_tunnel_forward(ctx, decap);

	if (verdict == GW_CONTINUE && decap && bpf_xdp_adjust_head(ctx, -(int)GW_DECAP_SKIP(decap)))
		return GW_NOT_OURS;
	return verdict;
}

#endif /* GW_TUNNEL_FWD_H */
