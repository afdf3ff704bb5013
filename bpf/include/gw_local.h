/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets without a usable session: the kernel's if they are for this box, else a worker's.
 */
#ifndef GW_LOCAL_H
#define GW_LOCAL_H

#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_parse.h"

/* An offer to a port that has no address yet is unicast to the address it will have. */
static __always_inline bool gw_dhcp_offer(const struct gw_packet *pkt, const struct gw_key4 *key)
{
	return pkt->port->flags & GW_PORT_DHCP && (__u8)(key->l4 >> 32) == GW_UDP &&
	       (__u16)(key->l4 >> 16) == bpf_htons(GW_DHCP_CLIENT);
}

static __always_inline int gw_local4_or_worker(struct gw_packet *pkt, const struct gw_ip4 *ip,
					       const struct gw_key4 *key)
{
	__u32 dst = ip->dst;
	__u8 first = dst;

	/* Multicast 224/4 and limited broadcast. */
	if (first >= 224 && (first < 240 || dst == 0xFFFFFFFF))
		return GW_KERNEL;
	if (bpf_map_lookup_elem(&gw_local4, &dst) || gw_dhcp_offer(pkt, key))
		return GW_KERNEL;
	return GW_WORKER;
}

static __always_inline int gw_local6_or_worker(const struct gw_ip6 *ip)
{
	struct gw_addr6 dst = { .w = { ip->dst[0], ip->dst[1], ip->dst[2], ip->dst[3] } };
	__u32 first = bpf_ntohl(ip->dst[0]);

	/* Multicast ff00::/8 and link-local fe80::/10. */
	if (first >> 24 == 0xFF || first >> 22 == 0xFE80 >> 6)
		return GW_KERNEL;
	if (bpf_map_lookup_elem(&gw_local6, &dst))
		return GW_KERNEL;
	return GW_WORKER;
}

#endif /* GW_LOCAL_H */
