/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The XDP fast path: an established flow of TCP or UDP between untagged ports. It is the general path
 * with everything left out that such a packet does not need; at the first doubt, before anything is
 * counted or changed, it leaves the packet to the general path.
 */
#ifndef GW_FAST_H
#define GW_FAST_H

#include "gw_check.h"
#include "gw_checksum.h"
#include "gw_fast_encap.h"
#include "gw_link.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_parse.h"
#include "gw_police.h"
#include "gw_rewrite.h"
#include "gw_table.h"

/* The frame in hand, and the port that it came in by, whether that is one or not: gw_fast_port_ok() says. */
struct gw_fast {
	struct gw_fwd_ctx fwd;
	const void *end;
	struct gw_port *port;
	__u64 head; /* first word of the port's entry */
	__u32 ifindex;
};

static __always_inline void gw_fast_port(struct xdp_md *ctx, struct gw_fast *q)
{
	q->ifindex = ctx->ingress_ifindex;
	q->port = &gw_shared.ports[q->ifindex % GW_PORT_SLOTS];
	q->head = GW_READ_ONCE(*gw_u64(q->port));
	q->fwd.port = q->head >> 16;
}

static __always_inline bool gw_fast_port_ok(const struct gw_fast *q, const void *eth)
{
	return q->head & GW_PORT_ON && q->head >> 32 == q->ifindex && gw_for_us(q->port, eth) && gw_fast_path_on();
}

/* Ports, protocol, zone and ingress; the last two are the second and third byte of the port's entry. */
static __always_inline __u64 gw_fast_l4(const struct gw_fast *q, __u32 ports, __u8 proto)
{
	return gw_l4_word(ports, proto, 0) | (q->head & 0xFFFF00) << 32;
}

/* Of sound lengths, and nothing in the headers that a worker wants to see. */
static __always_inline bool gw_fast_headers(const struct gw_l4 *l4, __u8 proto, __u8 ttl, __u32 ip_header,
					    const struct gw_fast *q)
{
	const struct gw_tcp *tcp = (const void *)l4;
	__u32 len;

	if (proto == GW_UDP) {
		len = bpf_ntohs(l4->len);
		return len >= sizeof(*l4) && len + ip_header <= q->fwd.ip_len && !gw_check_headers(ttl, 0);
	}
	if (proto != GW_TCP || (const void *)(tcp + 1) > q->end)
		return false;
	len = tcp->offset >> 4 << 2;
	return len >= sizeof(*tcp) && len + ip_header <= q->fwd.ip_len &&
	       !gw_check_headers(ttl, tcp->flags ^ GW_TCP_ACK);
}

/* Whether the packet goes, untagged. If so, the redirect is set up. */
static __always_inline bool gw_fast_check(struct gw_fwd_ctx *f)
{
	__u32 zero = 0;

	if (!gw_can_forward(f, GW_LINK_MTU) || f->hop.dmac_vlan >> 48)
		return false;
	f->stats = bpf_map_lookup_elem(&gw_stats, &zero);
	return f->stats && gw_redirect(f);
}

int gw_fast_padded4(struct xdp_md *ctx, struct gw_flow4 *r);

/*
 * In both families the lookup comes first: while the record comes from memory, the processor sees
 * whether the packet may use it. `padded` ones go into tunnels by gw_tunnel_forward().
 */
static __always_inline int gw_fast_known4(struct xdp_md *ctx, struct gw_fast *q, struct gw_eth *eth,
					  const struct gw_key4 *key, struct gw_flow4 *r, bool padded)
{
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_transport t = { .l4 = (void *)(ip + 1), .end = q->end };
	struct gw_fwd_ctx *f = &q->fwd;
	int mark;

	if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(GW_FRAG_ANY) || !gw_sum_ok(ip))
		return GW_CONTINUE;
	if (unlikely(!padded && f->ip_len != (__u32)(q->end - (void *)ip)))
		return gw_fast_padded4(ctx, r);
	if (!gw_fast_headers(t.l4, ip->proto, ip->ttl, sizeof(*ip), q) || !gw_fast_port_ok(q, eth))
		return GW_CONTINUE;
	if (r->key_addrs != key->addrs || r->key_l4 != key->l4 || !gw_is_current(GW_READ_ONCE(r->epoch)))
		return GW_CONTINUE;
	f->action = gw_flow_action(r);
	if (unlikely(GW_ACTION_TUNNEL(f->action)))
		return padded ? GW_CONTINUE : gw_fast_encap4(ctx, r, gw_hash4(key, gw_shared.control.seed), f->port);
	if (!gw_fast_check(f) || !gw_checksummed(ctx, eth, ip, r->packets))
		return GW_CONTINUE;
	mark = gw_meter(f, true);
	if (unlikely(mark < 0))
		return gw_finish(f, 0, -mark);
	if (unlikely(mark))
		gw_set_tos4(ip, gw_marked(mark, ip->tos));

	t.proto = ip->proto;
	gw_rewrite4(ip, &t, r, f->action);
	gw_macs(eth, &f->hop);
	GW_COUNT_FLOW(r, f);
	return gw_finish(f, sizeof(*eth) + f->ip_len, 0);
}

/*
 * A short packet with what the link has put behind it, probably of this record: most acknowledgements of TCP are such. A
 * program of its own to the verifier, so that packets without padding do not pay for it.
 */
__noinline int gw_fast_padded4(struct xdp_md *ctx, struct gw_flow4 *r)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	struct gw_fast q = { .end = (void *)(long)ctx->data_end };
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_key4 key;
	__u32 padding;
	int verdict;

	if (!r || (void *)(l4 + 1) > q.end)
		return GW_CONTINUE;
	q.fwd.rx_len = q.end - (void *)eth;
	q.fwd.ip_len = bpf_ntohs(ip->len);
	padding = q.fwd.rx_len - sizeof(*eth) - q.fwd.ip_len;
	if ((__s32)padding < 0)
		return GW_CONTINUE;
	gw_fast_port(ctx, &q);
	key.addrs = *gw_u64(&ip->src);
	key.l4 = gw_fast_l4(&q, l4->ports, ip->proto);
	verdict = gw_fast_known4(ctx, &q, eth, &key, r, true);
	if (verdict == GW_FORWARD)
		bpf_xdp_adjust_tail(ctx, -(int)padding);
	return verdict;
}

static __always_inline int gw_fast4(struct xdp_md *ctx, struct gw_fast *q, struct gw_eth *eth)
{
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_key4 key;
	struct gw_flow4 *r;

	if ((void *)(l4 + 1) > q->end)
		return GW_CONTINUE;
	gw_fast_port(ctx, q);
	key.addrs = *gw_u64(&ip->src);
	key.l4 = gw_fast_l4(q, l4->ports, ip->proto);
	r = gw_peek4(&gw_shared.control, &key);
	if (!r)
		return GW_CONTINUE;
	q->fwd.ip_len = bpf_ntohs(ip->len);
	return gw_fast_known4(ctx, q, eth, &key, r, false);
}

/* Translated IPv6 is rare, and no link fills a frame of that length: the general path does both. */
static __always_inline int gw_fast6(struct xdp_md *ctx, struct gw_fast *q, struct gw_eth *eth)
{
	struct gw_ip6 *ip = (void *)(eth + 1);
	struct gw_transport t = { .l4 = (void *)(ip + 1), .end = q->end };
	struct gw_fwd_ctx *f = &q->fwd;
	struct gw_key6 key;
	struct gw_flow6 *r;
	int mark;

	if ((void *)(t.l4 + 1) > q->end)
		return GW_CONTINUE;
	gw_fast_port(ctx, q);
	key.src[0] = gw_u64(ip->src)[0];
	key.src[1] = gw_u64(ip->src)[1];
	key.dst[0] = gw_u64(ip->dst)[0];
	key.dst[1] = gw_u64(ip->dst)[1];
	key.l4 = gw_fast_l4(q, t.l4->ports, ip->next);
	r = gw_peek6(&gw_shared.control, &key);
	if (!r)
		return GW_CONTINUE;
	f->ip_len = sizeof(*ip) + bpf_ntohs(ip->payload);
	if ((*(__u8 *)ip & 0xF0) != 0x60 || f->ip_len > 0xFFFF || f->ip_len != (__u32)(q->end - (void *)ip) ||
	    !gw_fast_headers(t.l4, ip->next, ip->hops, sizeof(*ip), q) || !gw_fast_port_ok(q, eth))
		return GW_CONTINUE;
	if (r->key_l4 != key.l4 || !gw_same6(r, &key) || !gw_is_current(GW_READ_ONCE(r->epoch)))
		return GW_CONTINUE;
	f->action = gw_flow_action(r);
	if (unlikely(GW_ACTION_TUNNEL(f->action)))
		return gw_fast_encap6(ctx, r, gw_hash6(&key, gw_shared.control.seed), f->port);
	if (GW_ACTION_NAT(f->action) || !gw_fast_check(f) || !gw_checksummed(ctx, eth, ip, r->packets))
		return GW_CONTINUE;
	mark = gw_meter(f, true);
	if (unlikely(mark < 0))
		return gw_finish(f, 0, -mark);
	if (unlikely(mark))
		gw_set_tos6(ip, gw_marked(mark, gw_tos6(ip)));

	gw_rewrite6(ip, &t, r, f->action);
	gw_macs(eth, &f->hop);
	GW_COUNT_FLOW(r, f);
	return gw_finish(f, f->rx_len, 0);
}

static __always_inline int gw_fast(struct xdp_md *ctx)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	struct gw_fast q = { .end = (void *)(long)ctx->data_end };

	if ((void *)(eth + 1) > q.end)
		return GW_CONTINUE;
	q.fwd.rx_len = q.end - (void *)eth;
	if (eth->type == bpf_htons(GW_ETH_IP4))
		return gw_fast4(ctx, &q, eth);
	if (eth->type == bpf_htons(GW_ETH_IP6))
		return gw_fast6(ctx, &q, eth);
	return GW_CONTINUE;
}

#endif /* GW_FAST_H */
