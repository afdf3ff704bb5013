/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The XDP fast path into a tunnel: an established flow of TCP or UDP between untagged ports, all of
 * whose headers gw_fast() has looked at. At the first doubt the packet is left to gw_tunnel_forward(),
 * which takes everything else that enters a tunnel.
 */
#ifndef GW_FAST_ENCAP_H
#define GW_FAST_ENCAP_H

#include "gw_check.h"
#include "gw_checksum.h"
#include "gw_encap.h"
#include "gw_police.h"
#include "gw_rewrite.h"

/* Whether record, next hop and tunnel let the packet pass, untagged. If so, the redirect is set up. */
static __always_inline bool gw_encap_check(struct gw_fwd_ctx *f, struct gw_encap *e)
{
	__u32 zero = 0;

	f->into_tunnel = GW_ACTION_TUNNEL(f->action);
	if (!f->into_tunnel || !gw_tunnel_ctl(f->into_tunnel, &e->ctl) || e->ctl.flags & GW_TUNNEL_WORKER)
		return false;
	if (!gw_can_forward(f, e->ctl.mtu) || f->hop.dmac_vlan >> 48)
		return false;
	e->total = e->ctl.len + f->ip_len;
	f->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	return f->stats && gw_redirect(f);
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

/*
 * Link header and the tunnel's in front of the packet, which is as it is to be inside. What the link had put behind it
 * to fill a short frame is cut off.
 */
static __always_inline bool gw_push_encap(struct xdp_md *ctx, const struct gw_fwd_ctx *f, struct gw_encap *e)
{
	__u32 padding = f->rx_len - sizeof(struct gw_eth) - f->ip_len;
	bool v6 = e->ctl.flags & GW_TUNNEL_V6;
	struct gw_eth *eth;
	void *end;

	if (unlikely(padding) && bpf_xdp_adjust_tail(ctx, -(int)padding))
		return false;
	if (bpf_xdp_adjust_head(ctx, -(int)e->ctl.len))
		return false;
	eth = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if ((void *)(eth + 1) > end)
		return false;
	gw_macs(eth, &f->hop);
	eth->type = v6 ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
	if (e->ctl.flags & GW_TUNNEL_DSCP)
		e->tos = e->ctl.tos | (e->tos & GW_ECN);
	return gw_write_outer(eth + 1, end, e);
}

/* GW_CONTINUE: the packet is as it was. A program of its own to the verifier. */
__noinline int gw_fast_encap4(struct xdp_md *ctx, struct gw_flow4 *r, __u64 hash, __u32 port)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_transport t = { .l4 = (void *)(ip + 1), .end = end };
	struct gw_fwd_ctx f = { .port = port };
	struct gw_encap e = {};
	int mark;

	if (!r || (void *)(t.l4 + 1) > end)
		return GW_CONTINUE;
	f.action = gw_flow_action(r);
	f.ip_len = bpf_ntohs(ip->len);
	f.rx_len = end - (void *)eth;
	if (!gw_encap_check(&f, &e))
		return GW_CONTINUE;
	if (e.ctl.flags & GW_TUNNEL_SUM && !gw_all_summed(t.l4, ip->proto, f.ip_len - sizeof(*ip)))
		return GW_CONTINUE;
	if (!gw_checksummed(ctx, eth, ip, r->packets))
		return GW_CONTINUE;
	mark = gw_meter(&f, true);
	if (mark < 0)
		return gw_finish(&f, 0, -mark);
	if (mark)
		gw_set_tos4(ip, gw_marked(mark, ip->tos));
	e.entropy = (__u32)(hash >> 8) & 0xFFFFF;
	e.tos = ip->tos;
	e.df = !!(ip->frag & bpf_htons(GW_DF));

	t.proto = ip->proto;
	gw_rewrite4(ip, &t, r, f.action);
	if (e.ctl.flags & GW_TUNNEL_SUM)
		e.inner_sum = gw_inner_sum4(ip, f.ip_len);
	/* From here on nothing is taken back. */
	if (!gw_push_encap(ctx, &f, &e))
		return gw_finish(&f, 0, GW_DROP_FRAME_TOO_BIG);
	GW_COUNT_FLOW(r, &f);
	return gw_finish(&f, sizeof(*eth) + e.total, 0);
}

/* Translated IPv6 is rare: gw_tunnel_forward() does it. */
__noinline int gw_fast_encap6(struct xdp_md *ctx, struct gw_flow6 *r, __u64 hash, __u32 port)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct gw_ip6 *ip = (void *)(eth + 1);
	struct gw_transport t = { .l4 = (void *)(ip + 1), .end = end };
	struct gw_fwd_ctx f = { .port = port };
	struct gw_encap e = { .inner6 = true, .df = true };
	int mark;

	if (!r || (void *)(t.l4 + 1) > end)
		return GW_CONTINUE;
	f.action = gw_flow_action(r);
	f.ip_len = sizeof(*ip) + bpf_ntohs(ip->payload);
	f.rx_len = end - (void *)eth;
	if (GW_ACTION_NAT(f.action) || !gw_encap_check(&f, &e))
		return GW_CONTINUE;
	if (e.ctl.flags & GW_TUNNEL_SUM && !gw_all_summed(t.l4, ip->next, f.ip_len - sizeof(*ip)))
		return GW_CONTINUE;
	if (!gw_checksummed(ctx, eth, ip, r->packets))
		return GW_CONTINUE;
	mark = gw_meter(&f, true);
	if (mark < 0)
		return gw_finish(&f, 0, -mark);
	if (mark)
		gw_set_tos6(ip, gw_marked(mark, gw_tos6(ip)));
	e.entropy = (__u32)(hash >> 8) & 0xFFFFF;
	e.tos = gw_tos6(ip);

	gw_rewrite6(ip, &t, r, f.action);
	if (e.ctl.flags & GW_TUNNEL_SUM)
		e.inner_sum = gw_inner_sum6(ip);
	/* From here on nothing is taken back. */
	if (!gw_push_encap(ctx, &f, &e))
		return gw_finish(&f, 0, GW_DROP_FRAME_TOO_BIG);
	GW_COUNT_FLOW(r, &f);
	return gw_finish(&f, sizeof(*eth) + e.total, 0);
}

#endif /* GW_FAST_ENCAP_H */
