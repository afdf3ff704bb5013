/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The first step: which port is this, is the frame for us, where does IP start.
 */
#ifndef GW_LINK_H
#define GW_LINK_H

#include "gw_maps.h"
#include "gw_packet.h"

/* The entry of a device, NULL if it is not ours. */
static __always_inline struct gw_port *gw_device(__u32 ifindex)
{
	struct gw_port *port = &gw_shared.ports[ifindex % GW_PORT_SLOTS];

	return port->ifindex == ifindex && port->flags ? port : NULL;
}

/* Multicast, broadcast, what a switch floods and what a promiscuous port overhears is not. */
static __always_inline bool gw_for_us(const struct gw_port *port, const void *eth)
{
	return *(const __u64 *)eth << 16 == port->mac;
}

/*
 * A tagged frame belongs to its sub-port. Tags that no sub-port claims are the kernel's, which may
 * have a VLAN device for them.
 */
static __always_inline int gw_tagged(struct xdp_md *ctx, struct gw_packet *pkt)
{
	struct gw_vlan_tag *tag = pkt->l3;
	struct gw_port *sub = NULL;

	if ((void *)(tag + 1) > pkt->end) {
		if (!(pkt->port->flags & GW_PORT_ON))
			return GW_NOT_OURS;
		return gw_drop(pkt, GW_DROP_ETH_TRUNCATED);
	}
	pkt->vlan = bpf_ntohs(tag->tci) & 0x0FFF;
	if (pkt->port->flags & GW_PORT_VLANS) {
		struct gw_vlan_key key = { .ifindex = ctx->ingress_ifindex, .vlan = pkt->vlan };

		sub = bpf_map_lookup_elem(&gw_vlans, &key);
	}
	if (!sub || !(sub->flags & GW_PORT_ON))
		return pkt->port->flags & GW_PORT_ON ? GW_KERNEL : GW_NOT_OURS;
	pkt->port = sub;
	pkt->ethertype = tag->type;
	pkt->l3 = tag + 1;
	return GW_CONTINUE;
}

static __always_inline int gw_link(struct xdp_md *ctx, struct gw_packet *pkt)
{
	struct gw_eth *eth = pkt->data;
	int verdict;

	pkt->port = gw_device(ctx->ingress_ifindex);
	if (!pkt->port)
		return GW_NOT_OURS;
	if ((void *)(eth + 1) > pkt->end) {
		if (!(pkt->port->flags & GW_PORT_ON))
			return GW_NOT_OURS;
		return gw_drop(pkt, GW_DROP_ETH_TRUNCATED);
	}
	pkt->ethertype = eth->type;
	pkt->l3 = eth + 1;
	if (unlikely(eth->type == bpf_htons(GW_ETH_VLAN)))
		verdict = gw_tagged(ctx, pkt);
	else
		verdict = pkt->port->flags & GW_PORT_ON ? GW_CONTINUE : GW_NOT_OURS;
	if (verdict)
		return verdict;

	pkt->zone = pkt->port->zone;
	pkt->ingress = pkt->port->port;
	return gw_for_us(pkt->port, pkt->data) ? GW_CONTINUE : GW_KERNEL;
}

#endif /* GW_LINK_H */
