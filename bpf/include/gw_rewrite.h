/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What forwarding changes in a packet: addresses, ports, TTL, traffic class, link header. Checksums follow
 * incrementally (RFC 1624).
 */
#ifndef GW_REWRITE_H
#define GW_REWRITE_H

#include "gw_check.h"
#include "gw_parse.h"
#include "gw_table.h"

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

/* Where the transport header is, and what it is. */
struct gw_transport {
	struct gw_l4 *l4;
	const void *end; /* of the packet */
	__u8 proto;
	__u8 icmp; /* the family's ICMP; 0: the caller's packets are none */
};

/* New ports or identifier, and the transport checksum. */
static __always_inline void gw_translate_l4(const struct gw_transport *t, __u32 ports, __u16 delta)
{
	struct gw_l4 *l4 = t->l4;

	if (t->proto == GW_UDP) {
		if ((void *)(l4 + 1) > t->end)
			return;
		l4->ports = ports;
		/* Zero is no checksum (RFC 768), and no sum of others is zero. */
		if (l4->check)
			l4->check = gw_sum_add(l4->check, delta);
	} else if (t->proto == GW_TCP) {
		struct gw_tcp *tcp = (void *)l4;

		if ((void *)(tcp + 1) > t->end)
			return;
		tcp->ports = ports;
		tcp->check = gw_plus_zero(gw_sum_add(tcp->check, delta));
	} else if (t->icmp && t->proto == t->icmp) {
		__u16 id;

		if ((void *)(l4 + 1) > t->end)
			return;
		id = gw_icmp_query(t->icmp, l4->icmp_type) ? ports : ports >> 16;
		/*
		 * A query and an answer with the identifier 0 have the same key, but not the same identifier after
		 * translation: the sum that the record holds may be the other one's. That of ICMPv6 covers the
		 * addresses too (RFC 4443 2.3), so there it is the record's: the identifier of IPv6 is never translated.
		 */
		l4->icmp_check = gw_plus_zero(
			gw_sum_add(l4->icmp_check, t->icmp == GW_ICMP ? (__u32)l4->len + (__u16)~id : delta));
		l4->len = id;
	}
}

static __always_inline void gw_set_tos4(struct gw_ip4 *ip, __u8 tos)
{
	if (tos == ip->tos)
		return;
	/* The upper byte of its word as loaded: what it has less, the checksum has more. */
	ip->check = gw_plus_zero(gw_sum_add(ip->check, 0xFFFF + ((__u32)ip->tos << 8) - ((__u32)tos << 8)));
	ip->tos = tos;
}

/* Version, traffic class and the head of the flow label are one word. */
static __always_inline void gw_set_tos6(struct gw_ip6 *ip, __u8 tos)
{
	__u16 *word = (__u16 *)ip;

	*word = (*word & bpf_htons(0xF00F)) | bpf_htons((__u16)tos << 4);
}

static __always_inline __u8 gw_tos6(const struct gw_ip6 *ip)
{
	return bpf_ntohl(ip->version_class) >> 20;
}

/* The octet with the mark of a meter in its upper six bits. Those of ECN stay (RFC 3168 5). */
static __always_inline __u8 gw_marked(__u8 mark, __u8 tos)
{
	return mark << 2 | (tos & GW_ECN);
}

/*
 * The next number of a datagram to a destination as loaded from the packet, in network order. All destinations that the
 * record translates count as one. As `Identifications` of the workers has it. A program of its own to the verifier.
 */
__noinline __u32 gw_next_id(__u32 dst, __u64 action)
{
	__u32 to = GW_ACTION_HAS(action, GW_FLOW_DNAT) ? 0 : dst;
	__u64 h = gw_mix(gw_mix(gw_shared.control.seed, to, GW_HASH_M1), 0, GW_HASH_M2);
	__u32 slot = h % GW_IP_IDS;
	__u64 *counter = bpf_map_lookup_elem(&gw_ip_ids, &slot);

	return counter ? bpf_htons(__sync_fetch_and_add(counter, 1) + (h >> 32)) : 0;
}

/*
 * With another source a datagram that may become fragments gets another identification, which must not be that of
 * another host behind the same address (RFC 6864 5.3.1). Before the addresses change.
 */
static __always_inline void gw_renumber(struct gw_ip4 *ip, __u64 action)
{
	/* DF, inverted, at the place of GW_FLOW_SNAT in the action: the verifier would follow two tests apart. */
	__u64 needed = (__u64)(~ip->frag & bpf_htons(GW_DF)) << 34 & action;
	__u16 id;

	_Static_assert((__u64)0x40 << 34 == (__u64)GW_FLOW_SNAT << 40, "DF as loaded is 0x40");
	asm volatile("" : "+r"(needed));
	if (likely(!needed))
		return;
	id = gw_next_id(ip->dst, action);
	ip->check = gw_plus_zero(gw_sum_add(ip->check, (__u32)ip->id + (__u16)~id));
	ip->id = id;
}

static __always_inline void gw_rewrite4(struct gw_ip4 *ip, const struct gw_transport *t, const struct gw_flow4 *r,
					__u64 action)
{
	/* TTL is the first byte of its word: one less there is one more in the checksum. */
	__u32 delta = bpf_htons(0x0100);

	if (GW_ACTION_NAT(action)) {
		gw_renumber(ip, action);
		*gw_u64(&ip->src) = *(const __u64 *)&r->new_saddr;
		delta += r->l3_delta;
		gw_translate_l4(t, *(const __u32 *)&r->new_sport, r->l4_delta);
	}
	ip->ttl--;
	ip->check = gw_plus_zero(gw_sum_add(ip->check, delta));
}

static __always_inline void gw_rewrite6(struct gw_ip6 *ip, const struct gw_transport *t, const struct gw_flow6 *r,
					__u64 action)
{
	if (GW_ACTION_NAT(action)) {
		__u64 *addrs = (__u64 *)ip->src;
		const __u64 *src = (const __u64 *)r->new_saddr, *dst = (const __u64 *)r->new_daddr;

		addrs[0] = src[0];
		addrs[1] = src[1];
		addrs[2] = dst[0];
		addrs[3] = dst[1];
		gw_translate_l4(t, *(const __u32 *)&r->new_sport, r->l4_delta);
	}
	ip->hops--;
}

/* Destination and source address in two stores. */
static __always_inline void gw_macs(void *eth, const struct gw_hop *hop)
{
	*(__u64 *)eth = (hop->dmac_vlan & 0xFFFFFFFFFFFFULL) | hop->smac_mtu << 48;
	*(__u32 *)(eth + 8) = hop->smac_mtu >> 16;
}

/*
 * The link header of a frame that has a tag or gets one. Takes or returns the four bytes, so
 * packet pointers are void after this; `*l3` is where IP starts then. Nothing has been changed if
 * it says anything but GW_CONTINUE.
 */
static __always_inline int gw_retag(struct xdp_md *ctx, struct gw_packet *pkt, void **l3)
{
	const struct gw_hop *hop = &pkt->fwd.hop;
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

#endif /* GW_REWRITE_H */
