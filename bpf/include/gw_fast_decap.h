/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The XDP fast path out of a tunnel over IPv4: an established flow of TCP or UDP in the default VRF, between untagged
 * ports. The record of the packet inside names the tunnel that its packets come through, and the outer headers are
 * compared with that tunnel's own, so no table of tunnels is searched. At the first doubt, before anything is counted or
 * changed, the packet is left to gw_tunnel_path(), which takes everything else that comes out of a tunnel.
 */
#ifndef GW_FAST_DECAP_H
#define GW_FAST_DECAP_H

#include "gw_checksum.h"
#include "gw_decap.h"
#include "gw_fast.h"
#include "gw_police.h"
#include "gw_rewrite.h"
#include "gw_tunnel.h"

/* Places in the header of a tunnel over IPv4, as it is sent. */
enum {
	GW_OUTER_PROTO = 9,
	GW_OUTER_ADDRS = 12,
	GW_OUTER_PORT = 22,
	GW_OUTER_VXLAN = 28,
	GW_OUTER_GRE = 20,
};

/* The offset of a packet inside is less. */
#define GW_OUTER_MASK 0x3F

/* A VXLAN header without its VNI, as loaded: the flag that there is one, all else zero (RFC 7348 5). */
#define GW_VXLAN_FLAGS 0x08ULL
#define GW_VXLAN_REST (~0ULL >> 32 | 0xFFULL << 56)

/* What the outer headers say, and the tunnel that they are compared with. */
struct gw_outer {
	const struct gw_tunnel *t;
	__u64 addrs; /* destination | source << 32: as the tunnel has them */
	__u64 id;    /* VXLAN header; GRE flags and key */
	__u64 mac;   /* VXLAN: as in gw_tunnel, else 0 */
	__u32 at;    /* where the packet inside begins, from the outer one on */
	__u32 len;   /* of the outer packet */
	__u16 port;  /* UDP destination, network order */
	__u16 type;  /* EtherType of what is inside */
	__u8 proto;
	__u8 tos;
};

/*
 * Whether a frame may have come through a tunnel, by what costs least. VXLAN has no port of its own: tunnels are set to
 * one. Few datagrams of others begin as it does, and they lose nothing but time.
 */
static __always_inline bool gw_looks_tunneled(const struct xdp_md *ctx)
{
	const struct gw_eth *eth = (void *)(long)ctx->data;
	const struct gw_ip4 *ip = (const void *)(eth + 1);
	const struct gw_l4 *udp = (const void *)(ip + 1);
	const __u64 *vxlan = (const void *)(udp + 1);

	if ((const void *)(vxlan + 1) > (void *)(long)ctx->data_end || eth->type != bpf_htons(GW_ETH_IP4))
		return false;
	if (ip->proto == GW_UDP)
		return (*vxlan & GW_VXLAN_REST) == GW_VXLAN_FLAGS;
	return ip->proto == GW_GRE || ip->proto == GW_IPIP || ip->proto == GW_IP6_IN_IP;
}

/* Reads the outer headers. False: something in them is not as in most packets. */
static __always_inline bool gw_read_outer(const struct gw_ip4 *ip, const void *end, struct gw_outer *o)
{
	const struct gw_l4 *udp = (const void *)(ip + 1);
	const struct gw_eth *eth = (const void *)(udp + 2);
	const __u32 *gre = (const void *)udp;

	if ((const void *)(udp + 1) > end)
		return false;
	o->len = bpf_ntohs(ip->len);
	o->proto = ip->proto;
	o->tos = ip->tos;
	o->addrs = ip->dst | (__u64)ip->src << 32;
	if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(GW_FRAG_ANY) || !gw_sum_ok(ip) ||
	    o->len > (__u32)(end - (const void *)ip))
		return false;
	if (o->proto == GW_UDP) {
		if ((const void *)(eth + 1) > end || bpf_ntohs(udp->len) < sizeof(*udp) ||
		    sizeof(*ip) + bpf_ntohs(udp->len) > o->len)
			return false;
		o->port = udp->dport;
		o->id = *(const __u64 *)(udp + 1);
		o->mac = *(const __u64 *)eth << 16;
		o->type = eth->type;
		o->at = gw_opaque(sizeof(*ip) + GW_VXLAN_BYTES);
	} else if (o->proto == GW_GRE) {
		/* No flag but that of the key, and the type of what is inside. */
		o->type = gre[0] >> 16;
		o->id = gre[0] & 0xFFFF;
		o->at = sizeof(*ip) + 4;
		if (o->id == bpf_htons(GW_GRE_KEY)) {
			o->id |= (__u64)gre[1] << 32;
			o->at += 4;
		} else if (o->id) {
			return false;
		}
		o->at = gw_opaque(o->at);
	} else {
		o->type = o->proto == GW_IP6_IN_IP ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
		o->proto = GW_IPIP;
		o->at = gw_opaque(sizeof(*ip));
	}
	return true;
}

/*
 * Whether the outer headers are those of the tunnel that packets with this word of a key come through, and it takes them
 * by this port.
 */
static __always_inline bool gw_is_outer(struct gw_outer *o, __u64 key_l4, __u8 port)
{
	__u32 no = (__u8)(key_l4 >> 48);
	const struct gw_tunnel *t = bpf_map_lookup_elem(&gw_tunnels, &no);
	const __u8 *header;

	if (key_l4 >> 56 != GW_INGRESS_TUNNEL >> 8 || !t)
		return false;
	o->t = t;
	header = t->header;
	if (*(const __u64 *)(header + GW_OUTER_ADDRS) != o->addrs || header[GW_OUTER_PROTO] != o->proto)
		return false;
	if (o->proto == GW_UDP && (*(const __u64 *)(header + GW_OUTER_VXLAN) != o->id ||
				   *(const __u16 *)(header + GW_OUTER_PORT) != o->port || t->mac != o->mac))
		return false;
	if (o->proto == GW_GRE && *(const __u64 *)(header + GW_OUTER_GRE) != o->id)
		return false;
	return (t->flags & (GW_TUNNEL_ON | GW_TUNNEL_V6)) == GW_TUNNEL_ON && !t->vrf &&
	       GW_READ_ONCE(t->ingress) >> (port & 63) & 1;
}

/* Takes away what is in front of the link header at `o->at` of the frame, and `padding` bytes behind the packet. */
static __always_inline int gw_fast_decap_finish(struct xdp_md *ctx, const struct gw_fwd_ctx *f,
						const struct gw_outer *o, __u32 padding)
{
	if (bpf_xdp_adjust_head(ctx, (int)o->at))
		return gw_finish(f, 0, GW_DROP_FRAME_TOO_BIG);
	if (unlikely(padding))
		bpf_xdp_adjust_tail(ctx, -(int)padding);
	return gw_finish(f, sizeof(struct gw_eth) + f->ip_len, 0);
}

/* `eth`: where the frame will begin. */
static __always_inline int gw_fast_decap4(struct xdp_md *ctx, struct gw_fast *q, struct gw_outer *o, struct gw_eth *eth)
{
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_transport t = { .l4 = (void *)(ip + 1), .end = q->end };
	struct gw_fwd_ctx *f = &q->fwd;
	struct gw_key4 key;
	struct gw_flow4 *r;
	__u32 padding;
	__u8 tos;
	int mark;

	if ((void *)(t.l4 + 1) > q->end)
		return GW_CONTINUE;
	key.addrs = *gw_u64(&ip->src);
	key.l4 = gw_l4_word(t.l4->ports, ip->proto, GW_ZONE_OVERLAY);
	r = gw_peek4(&gw_shared.control, &key);
	if (!r)
		return GW_CONTINUE;
	f->ip_len = bpf_ntohs(ip->len);
	padding = (__u32)(q->end - (void *)ip) - f->ip_len;
	tos = ip->tos;
	if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(GW_FRAG_ANY) || !gw_sum_ok(ip) ||
	    o->at + f->ip_len > o->len || !gw_fast_headers(t.l4, ip->proto, ip->ttl, sizeof(*ip), q))
		return GW_CONTINUE;
	if (r->key_addrs != key.addrs || gw_key_l4(r->key_l4) != gw_key_l4(key.l4) ||
	    !gw_is_current(GW_READ_ONCE(r->epoch)) || !gw_is_outer(o, r->key_l4, f->port) ||
	    !gw_tos_after(o->t, o->tos, &tos))
		return GW_CONTINUE;
	f->action = gw_flow_action(r);
	if (GW_ACTION_TUNNEL(f->action) || !gw_fast_check(f) ||
	    !gw_checksummed_at(ctx, sizeof(*eth) + o->at, r->packets))
		return GW_CONTINUE;
	f->from_tunnel = (__u8)(r->key_l4 >> 48);
	mark = gw_meter(f, true);
	if (unlikely(mark < 0))
		return gw_finish(f, 0, -mark);
	if (unlikely(mark))
		tos = gw_marked(mark, tos);

	t.proto = ip->proto;
	gw_set_tos4(ip, tos);
	gw_rewrite4(ip, &t, r, f->action);
	gw_macs(eth, &f->hop);
	eth->type = bpf_htons(GW_ETH_IP4);
	GW_COUNT_FLOW(r, f);
	return gw_fast_decap_finish(ctx, f, o, padding);
}

static __always_inline int gw_fast_decap6(struct xdp_md *ctx, struct gw_fast *q, struct gw_outer *o, struct gw_eth *eth)
{
	struct gw_ip6 *ip = (void *)(eth + 1);
	struct gw_transport t = { .l4 = (void *)(ip + 1), .end = q->end };
	struct gw_fwd_ctx *f = &q->fwd;
	struct gw_key6 key;
	struct gw_flow6 *r;
	__u32 padding;
	__u8 tos;
	int mark;

	if ((void *)(t.l4 + 1) > q->end)
		return GW_CONTINUE;
	key.src[0] = gw_u64(ip->src)[0];
	key.src[1] = gw_u64(ip->src)[1];
	key.dst[0] = gw_u64(ip->dst)[0];
	key.dst[1] = gw_u64(ip->dst)[1];
	key.l4 = gw_l4_word(t.l4->ports, ip->next, GW_ZONE_OVERLAY);
	r = gw_peek6(&gw_shared.control, &key);
	if (!r)
		return GW_CONTINUE;
	f->ip_len = sizeof(*ip) + bpf_ntohs(ip->payload);
	padding = (__u32)(q->end - (void *)ip) - f->ip_len;
	tos = gw_tos6(ip);
	if ((*(__u8 *)ip & 0xF0) != 0x60 || o->at + f->ip_len > o->len ||
	    !gw_fast_headers(t.l4, ip->next, ip->hops, sizeof(*ip), q))
		return GW_CONTINUE;
	if (gw_key_l4(r->key_l4) != gw_key_l4(key.l4) || !gw_same6(r, &key) || !gw_is_current(GW_READ_ONCE(r->epoch)) ||
	    !gw_is_outer(o, r->key_l4, f->port) || !gw_tos_after(o->t, o->tos, &tos))
		return GW_CONTINUE;
	f->action = gw_flow_action(r);
	if (GW_ACTION_TUNNEL(f->action) || GW_ACTION_NAT(f->action) || !gw_fast_check(f) ||
	    !gw_checksummed_at(ctx, sizeof(*eth) + o->at, r->packets))
		return GW_CONTINUE;
	f->from_tunnel = (__u8)(r->key_l4 >> 48);
	mark = gw_meter(f, true);
	if (unlikely(mark < 0))
		return gw_finish(f, 0, -mark);
	if (unlikely(mark))
		tos = gw_marked(mark, tos);

	gw_set_tos6(ip, tos);
	gw_rewrite6(ip, &t, r, f->action);
	gw_macs(eth, &f->hop);
	eth->type = bpf_htons(GW_ETH_IP6);
	GW_COUNT_FLOW(r, f);
	return gw_fast_decap_finish(ctx, f, o, padding);
}

/* GW_CONTINUE: the frame is as it was. A program of its own to the verifier. */
__noinline int gw_fast_decap(struct xdp_md *ctx)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	struct gw_fast q = { .end = (void *)(long)ctx->data_end };
	struct gw_outer o = {};

	if ((void *)(eth + 1) > q.end || !gw_read_outer((void *)(eth + 1), q.end, &o))
		return GW_CONTINUE;
	gw_fast_port(ctx, &q);
	if (!gw_fast_port_ok(&q, eth))
		return GW_CONTINUE;
	/* What the verifier knows of the packet is the same for all kinds of tunnels from here on. */
	asm volatile("" ::: "memory");
	eth = (void *)(long)ctx->data;
	q.end = (void *)(long)ctx->data_end;
	q.fwd.rx_len = q.end - (void *)eth;
	eth = (void *)eth + (o.at & GW_OUTER_MASK);
	if (o.type == bpf_htons(GW_ETH_IP4))
		return gw_fast_decap4(ctx, &q, &o, eth);
	if (o.type == bpf_htons(GW_ETH_IP6))
		return gw_fast_decap6(ctx, &q, &o, eth);
	return GW_CONTINUE;
}

#endif /* GW_FAST_DECAP_H */
