/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Out of a tunnel: which one the outer packet belongs to, and the outer headers taken away.
 */
#ifndef GW_DECAP_H
#define GW_DECAP_H

#include "gw_link.h"
#include "gw_tunnel.h"

enum {
	GW_VXLAN_BYTES = 16 + sizeof(struct gw_eth), /* UDP, VXLAN and Ethernet */
	GW_GRE_CHECKSUM = 0x8000,
	GW_GRE_KEY = 0x2000,
	GW_GRE_SEQUENCE = 0x1000,
};

/*
 * What gw_decap() says, in one word. 0: the packet is no tunnel's. `rest`: bytes behind the outer packet. `vrf` is
 * above `v6` as it is above the zone of a key.
 */
#define GW_DECAP(no, skip, port, tos, v6, vrf, rest)                                                       \
	((__u64)(no) | (__u64)(skip) << 8 | (__u64)(port) << 16 | (__u64)(tos) << 24 | (__u64)(v6) << 32 | \
	 (__u64)(vrf) << (32 + GW_VRF_SHIFT) | (__u64)(rest) << 40)
#define GW_DECAP_NO(decap) ((__u8)(decap))
#define GW_DECAP_SKIP(decap) ((__u8)((decap) >> 8))
#define GW_DECAP_PORT(decap) ((__u8)((decap) >> 16))
#define GW_DECAP_TOS(decap) ((__u8)((decap) >> 24))
#define GW_DECAP_V6(decap) ((decap) >> 32 & 1)
#define GW_DECAP_ZONE(decap) ((__u8)((decap) >> 32) & ~1U | GW_ZONE_OVERLAY)
#define GW_DECAP_REST(decap) ((__u16)((decap) >> 40))

/* The traffic class after the tunnel; false: the packet has to be dropped (RFC 6040 4.2). */
static __always_inline bool gw_tos_after(const struct gw_tunnel *t, __u8 outside, __u8 *tos)
{
	__u8 inner = *tos & GW_ECN, outer = outside & GW_ECN, mark = inner;

	if (!inner && outer == GW_ECN)
		return false;
	if (inner && outer == GW_ECN)
		mark = GW_ECN;
	else if (inner && inner != GW_ECN && outer == 1)
		mark = 1;
	*tos = ((t->flags & GW_TUNNEL_UNIFORM ? outside : *tos) & ~GW_ECN) | mark;
	return true;
}

/* Finds port, family and start of IP of a frame for us, counting nothing. */
static __always_inline bool gw_tunnel_link(struct xdp_md *ctx, struct gw_packet *pkt)
{
	struct gw_eth *eth = pkt->data;

	pkt->port = gw_device(ctx->ingress_ifindex);
	if (!pkt->port || (void *)(eth + 1) > pkt->end)
		return false;
	pkt->ethertype = eth->type;
	pkt->l3 = eth + 1;
	if (eth->type == bpf_htons(GW_ETH_VLAN)) {
		struct gw_vlan_tag *tag = pkt->l3;
		struct gw_vlan_key key = { .ifindex = ctx->ingress_ifindex };

		if ((void *)(tag + 1) > pkt->end)
			return false;
		pkt->vlan = bpf_ntohs(tag->tci) & 0x0FFF;
		key.vlan = pkt->vlan;
		pkt->port = bpf_map_lookup_elem(&gw_vlans, &key);
		if (!pkt->port)
			return false;
		pkt->ethertype = tag->type;
		pkt->l3 = tag + 1;
	}
	pkt->zone = pkt->port->zone;
	return pkt->port->flags & GW_PORT_ON && gw_for_us(pkt->port, pkt->data);
}

/* The ends of an outer packet without options that is whole; false: it is no tunnel's. */
static __always_inline bool gw_parse_outer(struct gw_packet *pkt, struct gw_end *end, __u8 *tos, __u32 *len, void **l4)
{
	__u32 room = pkt->len - (__u32)(pkt->l3 - pkt->data);
	__u8 proto;

	if (pkt->ethertype == bpf_htons(GW_ETH_IP4)) {
		struct gw_ip4 *ip = pkt->l3;

		if ((void *)(ip + 1) > pkt->end)
			return false;
		proto = ip->proto;
		*len = bpf_ntohs(ip->len);
		*tos = ip->tos;
		*l4 = ip + 1;
		end->local[0] = ip->dst;
		end->remote[0] = ip->src;
		if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(GW_FRAG_ANY) || *len > room || *len < sizeof(*ip) ||
		    !gw_sum_ok(ip))
			return false;
	} else if (pkt->ethertype == bpf_htons(GW_ETH_IP6)) {
		struct gw_ip6 *ip = pkt->l3;

		if ((void *)(ip + 1) > pkt->end)
			return false;
		proto = ip->next;
		*len = sizeof(*ip) + bpf_ntohs(ip->payload);
		*tos = bpf_ntohl(ip->version_class) >> 20;
		*l4 = ip + 1;
		__builtin_memcpy(end->local, ip->dst, sizeof(ip->dst));
		__builtin_memcpy(end->remote, ip->src, sizeof(ip->src));
		if ((*(__u8 *)ip & 0xF0) != 0x60 || *len > room)
			return false;
	} else {
		return false;
	}
	end->proto = proto == GW_IP6_IN_IP ? GW_IPIP : proto;
	if (proto == GW_IPIP || proto == GW_IP6_IN_IP) {
		end->match = GW_END_PLAIN;
		pkt->ethertype = proto == GW_IPIP ? bpf_htons(GW_ETH_IP4) : bpf_htons(GW_ETH_IP6);
		return true;
	}
	return proto == GW_UDP || proto == GW_GRE;
}

/* VNI and what is inside; the bytes from the transport header on, 0: not plainly VXLAN. */
static __always_inline __u32 gw_decap_vxlan(struct gw_packet *pkt, void *l4, __u32 room, struct gw_end *end)
{
	struct gw_l4 *udp = l4;
	__u32 *vx = (void *)(udp + 1);
	struct gw_eth *eth = (void *)(vx + 2);

	if ((void *)(eth + 1) > pkt->end || !(*(__u8 *)vx & 0x08) || bpf_ntohs(udp->len) < sizeof(*udp) ||
	    bpf_ntohs(udp->len) > room)
		return 0;
	end->port = bpf_ntohs(udp->dport);
	end->id = bpf_ntohl(vx[1]) >> 8;
	end->match = GW_END_ID;
	pkt->ethertype = eth->type;
	pkt->l3 = eth;
	return GW_VXLAN_BYTES;
}

/* The same of GRE with or without key; checksums are a worker's. */
static __always_inline __u32 gw_decap_gre(struct gw_packet *pkt, void *l4, struct gw_end *end)
{
	__u16 *h = l4, flags;
	__u32 len = 4;

	if ((void *)(h + 2) > pkt->end)
		return 0;
	flags = bpf_ntohs(h[0]);
	if (flags & ~(GW_GRE_KEY | GW_GRE_SEQUENCE))
		return 0;
	pkt->ethertype = h[1];
	end->match = GW_END_PLAIN;
	if (flags & GW_GRE_KEY) {
		if ((void *)(h + 4) > pkt->end)
			return 0;
		end->id = bpf_ntohl(*(__u32 *)(h + 2));
		end->match = GW_END_ID;
		len += 4;
	}
	return flags & GW_GRE_SEQUENCE ? len + 4 : len;
}

/*
 * If the frame is a tunnel's, its outer headers go, so that it begins with fourteen bytes in front of the
 * packet inside, whatever they are. Nothing is overwritten: the headers can be put back.
 */
__noinline __u64 gw_decap(struct xdp_md *ctx)
{
	struct gw_packet pkt = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct gw_end end = {};
	const struct gw_tunnel *t;
	const __u32 *found;
	__u32 len, front, skip, no, inner;
	__u8 tos, port;
	bool v6;
	void *l4;

	pkt.len = pkt.end - pkt.data;
	if (!gw_tunnel_link(ctx, &pkt))
		return 0;
	port = pkt.port->port;
	inner = pkt.l3 - pkt.data;
	if (!gw_parse_outer(&pkt, &end, &tos, &len, &l4))
		return 0;
	front = inner;
	inner += l4 - pkt.l3;
	pkt.l3 = NULL;
	if (end.proto == GW_UDP)
		skip = gw_decap_vxlan(&pkt, l4, front + len - inner, &end);
	else if (end.proto == GW_GRE)
		skip = gw_decap_gre(&pkt, l4, &end);
	else
		skip = 0;
	if (!skip && end.proto != GW_IPIP)
		return 0;
	found = bpf_map_lookup_elem(&gw_tunnel_ends, &end);
	if (!found)
		return 0;
	no = GW_READ_ONCE(*found);
	t = bpf_map_lookup_elem(&gw_tunnels, &no);
	if (!no || !t || !(t->flags & GW_TUNNEL_ON))
		return 0;
	/* What the reverse path of the peer's address is not: the worker drops it. */
	if (!(GW_READ_ONCE(t->ingress) >> (port & 63) & 1))
		return 0;
	if (pkt.l3 && *(__u64 *)pkt.l3 << 16 != t->mac)
		return 0;
	v6 = pkt.ethertype == bpf_htons(GW_ETH_IP6);
	if (!v6 && pkt.ethertype != bpf_htons(GW_ETH_IP4))
		return 0;
	/* What is inside begins within the outer packet. */
	if (front + len < inner + skip)
		return 0;
	skip += inner - sizeof(struct gw_eth);
	if (skip > 0xFF || bpf_xdp_adjust_head(ctx, skip))
		return 0;
	return GW_DECAP(no, skip, port, tos, v6, t->vrf & GW_MAX_VRF, pkt.len - (front + len));
}

#endif /* GW_DECAP_H */
