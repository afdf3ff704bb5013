/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which packets are tunnels'. Those that are not whole, or not of an established flow inside, are a
 * worker's.
 */
#ifndef GW_TUNNEL_H
#define GW_TUNNEL_H

#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_parse.h"

enum {
	GW_IPIP = 4,
	GW_IP6_IN_IP = 41,
	GW_GRE = 47,
	GW_ESP = 50,
	GW_FRAGMENT6 = 44,
};

/* Bit by type: unreachable, quench, redirect, time exceeded, parameter problem. */
#define GW_ICMP_ERRORS (1u << 3 | 1u << 4 | 1u << 5 | 1u << 11 | 1u << 12)

static __always_inline bool gw_icmp_error(__u8 type)
{
	return type < 32 && GW_ICMP_ERRORS >> type & 1;
}

/* Protocol and port of a tunnel's end; false: no tunnel has this protocol. */
static __always_inline bool gw_end_proto(struct gw_end *end, __u64 l4)
{
	__u8 proto = l4 >> 32;

	end->proto = proto == GW_IP6_IN_IP ? GW_IPIP : proto;
	end->port = proto == GW_UDP ? bpf_ntohs(l4 >> 16) : 0;
	return proto == GW_UDP || proto == GW_GRE || proto == GW_ESP || proto == GW_IPIP || proto == GW_IP6_IN_IP;
}

/* ESP is known by its keys, whatever address it comes from. */
static __always_inline bool gw_end_known(struct gw_end *end)
{
	if (bpf_map_lookup_elem(&gw_tunnel_ends, end))
		return true;
	if (end->proto != GW_UDP && end->proto != GW_ESP)
		return false;
	end->remote[0] = end->remote[1] = end->remote[2] = end->remote[3] = 0;
	return bpf_map_lookup_elem(&gw_tunnel_ends, end);
}

/* Whether a packet to an address at which tunnels end may be about them. `l4` is that word of the key. */
static __always_inline bool gw_tunneled4(__u64 addrs, __u64 l4, __u8 punt, __u8 icmp_type)
{
	struct gw_end end = { .local = { addrs >> 32 }, .remote = { (__u32)addrs } };

	if (punt == GW_PUNT_FRAGMENT)
		return true;
	if (punt == GW_PUNT_ICMP)
		return gw_icmp_error(icmp_type);
	return gw_end_proto(&end, l4) && gw_end_known(&end);
}

static __always_inline bool gw_tunneled6(const struct gw_ip6 *ip, __u64 l4, __u8 punt)
{
	struct gw_end end = {
		.local = { ip->dst[0], ip->dst[1], ip->dst[2], ip->dst[3] },
		.remote = { ip->src[0], ip->src[1], ip->src[2], ip->src[3] },
	};

	if (ip->next == GW_FRAGMENT6)
		return true;
	/* ICMP without an identifier: the worker sees which are errors. */
	if (punt == GW_PUNT_ICMP)
		return true;
	return punt != GW_PUNT_MALFORMED && gw_end_proto(&end, l4) && gw_end_known(&end);
}

#endif /* GW_TUNNEL_H */
