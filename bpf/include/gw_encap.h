/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is put in front of a packet that enters a tunnel.
 */
#ifndef GW_ENCAP_H
#define GW_ENCAP_H

#include "gw_decap.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_rewrite.h"

/* The control word of a tunnel, read once. */
struct gw_tunnel_ctl {
	__u32 no;
	__u8 len;
	__u8 kind;
	__u8 flags;
	__u8 tos;
	__u16 mtu;
	__u16 sum;
	const struct gw_tunnel *t;
};

static __always_inline bool gw_tunnel_ctl(__u32 no, struct gw_tunnel_ctl *w)
{
	__u64 word;

	w->no = no;
	w->t = bpf_map_lookup_elem(&gw_tunnels, &no);
	if (!w->t)
		return false;
	word = GW_READ_ONCE(*(const __u64 *)&w->t->len);
	w->len = word;
	w->kind = word >> 8;
	w->mtu = word >> 16;
	w->flags = word >> 32;
	w->tos = word >> 40;
	w->sum = word >> 48;
	return w->flags & GW_TUNNEL_ON;
}

/* Adds up to sixteen bits twice. */
static __always_inline __u16 gw_fold(__u32 sum)
{
	sum = (sum & 0xFFFF) + (sum >> 16);
	return (sum & 0xFFFF) + (sum >> 16);
}

static __always_inline __u16 gw_fold64(__u64 sum)
{
	sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
	return gw_fold(sum);
}

struct gw_encap {
	struct gw_tunnel_ctl ctl;
	__u32 total; /* bytes of the outer packet */
	__u32 entropy;
	__u32 inner_sum; /* with GW_TUNNEL_SUM: of the packet inside */
	__u8 tos;	 /* outside */
	bool inner6;
	bool df;
};

/* In words, wherever they lie: the compiler would copy byte by byte, which the loads that follow would wait for. */
static __always_inline void gw_copy(void *to, const __u8 *from, __u32 n)
{
#pragma unroll
	for (__u32 i = 0; i + 8 <= n; i += 8)
		*(__u64 *)(to + i) = *(const __u64 *)(from + i);
	if (n & 4)
		*(__u32 *)(to + (n & ~7u)) = *(const __u32 *)(from + (n & ~7u));
	if (n & 2)
		*(__u16 *)(to + (n & ~3u)) = *(const __u16 *)(from + (n & ~3u));
}

/* The header of so many bytes, if it fits. */
#define GW_COPY_HEADER(n)                           \
	case n:                                     \
		if (at + (n) > end)                 \
			return false;               \
		gw_copy(at, f->ctl.t->header, (n)); \
		break

/* The outer header at `at`, and what differs from packet to packet in it. */
static __always_inline bool gw_write_outer(void *at, void *end, const struct gw_encap *f)
{
	__u16 type = f->inner6 ? bpf_htons(GW_ETH_IP6) : bpf_htons(GW_ETH_IP4);
	bool v6 = f->ctl.flags & GW_TUNNEL_V6;
	bool as41 = f->ctl.kind == GW_TUNNEL_IPIP && f->inner6;
	struct gw_ip4 *ip = at;
	struct gw_ip6 *ip6 = at;
	struct gw_l4 *udp;
	__u16 *gre;
	__u32 sum, len, frag, id = 0;

	switch (f->ctl.len) {
		GW_COPY_HEADER(20);
		GW_COPY_HEADER(24);
		GW_COPY_HEADER(28);
		GW_COPY_HEADER(40);
		GW_COPY_HEADER(44);
		GW_COPY_HEADER(48);
		GW_COPY_HEADER(50);
		GW_COPY_HEADER(70);
	default:
		return false;
	}
	if (v6) {
		if ((void *)(ip6 + 1) > end)
			return false;
		ip6->version_class = bpf_htonl(6u << 28 | (__u32)f->tos << 20 | f->entropy);
		ip6->payload = bpf_htons(f->total - sizeof(*ip6));
		if (as41)
			ip6->next = GW_IP6_IN_IP;
		at = ip6 + 1;
	} else {
		if ((void *)(ip + 1) > end)
			return false;
		len = bpf_htons(f->total);
		frag = bpf_htons(GW_DF);
		if (f->ctl.flags & GW_TUNNEL_DF_CLEAR || (f->ctl.flags & GW_TUNNEL_DF_COPY && !f->df)) {
			id = (__u16)bpf_get_prandom_u32();
			frag = 0;
		}
		ip->tos = f->tos;
		ip->len = len;
		*(__u32 *)&ip->id = id | frag << 16;
		sum = f->ctl.sum + bpf_htons(f->tos) + len + id + frag;
		if (as41) {
			ip->proto = GW_IP6_IN_IP;
			sum += bpf_htons(GW_IP6_IN_IP - GW_IPIP);
		}
		ip->check = ~gw_fold(sum);
		at = ip + 1;
	}
	if (f->ctl.kind == GW_TUNNEL_VXLAN) {
		udp = at;
		if (at + GW_VXLAN_BYTES > end)
			return false;
		id = bpf_htons(0xC000 | (f->entropy & 0x3FFF));
		len = bpf_htons(f->total - (v6 ? sizeof(*ip6) : sizeof(*ip)));
		udp->sport = id;
		udp->len = len;
		if (f->ctl.flags & GW_TUNNEL_SUM) {
			/* The length once more, of the pseudo header. Zero would say that there is none. */
			sum = udp->check + id + 2 * len + type + f->inner_sum;
			udp->check = ~gw_fold(sum) ?: 0xFFFF;
		}
		*(__u16 *)(at + GW_VXLAN_BYTES - 2) = type;
	} else if (f->ctl.kind == GW_TUNNEL_GRE) {
		gre = at;
		if ((void *)(gre + 2) > end)
			return false;
		gre[1] = type;
	}
	return true;
}

#endif /* GW_ENCAP_H */
