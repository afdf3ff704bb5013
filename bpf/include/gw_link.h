/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The first step: which port is this, is the frame for us, where does IP start.
 */
#ifndef GW_LINK_H
#define GW_LINK_H

#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_table.h"

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

static __always_inline bool gw_is_tag(__u16 type)
{
	return type == bpf_htons(GW_ETH_VLAN) || type == bpf_htons(GW_ETH_QINQ);
}

static __always_inline bool gw_has_tag(const struct xdp_md *ctx)
{
	const struct gw_eth *eth = (void *)(long)ctx->data;

	return (void *)(eth + 1) <= (void *)(long)ctx->data_end && gw_is_tag(eth->type);
}

/*
 * Whether a frame with a priority tag is one that a worker gives to the kernel, on a device in generic mode (gw_inject.h):
 * in front of it is what nobody outside knows. Packet pointers are void after this.
 */
static __always_inline bool gw_injected(struct xdp_md *ctx)
{
	__u64 seed = GW_READ_ONCE(gw_shared.control.seed), *mark;
	bool is;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*mark)))
		return false;
	mark = (void *)(long)ctx->data_meta;
	if ((void *)(mark + 1) > (void *)(long)ctx->data)
		return false;
	is = seed && *mark == seed;
	/* It holds for this frame alone, not for one that comes to lie in the same memory. */
	if (is)
		*mark = 0;
	bpf_xdp_adjust_meta(ctx, sizeof(*mark));
	return is;
}

/*
 * Takes a priority tag (VLAN 0) off: the kernel does so, and goes on as without it, so nothing behind one may get there
 * that would not without it. What is behind a second tag is left to gw_tagged(). GW_NOT_OURS: the frame is the kernel's,
 * and counted already. A program of its own to the verifier.
 */
__noinline int gw_untag(struct xdp_md *ctx)
{
	struct gw_eth *eth = (void *)(long)ctx->data;
	struct gw_vlan_tag *tag = (void *)(eth + 1);
	const struct gw_port *port;
	__u32 *w;

	if ((void *)(tag + 1) > (void *)(long)ctx->data_end || tag->tci & bpf_htons(0x0FFF))
		return GW_CONTINUE;
	if (gw_injected(ctx))
		return GW_NOT_OURS;
	port = gw_device(ctx->ingress_ifindex);
	w = (void *)(long)ctx->data;
	tag = (void *)w + sizeof(*eth);
	if (!port || !(port->flags & GW_PORT_ON) || (void *)(tag + 1) > (void *)(long)ctx->data_end ||
	    gw_is_tag(tag->type))
		return GW_CONTINUE;
	/* The ethertype of the tag is the frame's where it lies. */
	w[3] = w[2];
	w[2] = w[1];
	w[1] = w[0];
	bpf_xdp_adjust_head(ctx, sizeof(*tag));
	return GW_CONTINUE;
}

/*
 * A tagged frame belongs to its sub-port. Tags that no sub-port claims are the kernel's, which may have a VLAN device for
 * them. Of two tags none may be a priority tag: the kernel would take the frame for one with one tag, or with none.
 */
static __always_inline int gw_tagged(struct xdp_md *ctx, struct gw_packet *pkt)
{
	struct gw_vlan_tag *tag = pkt->l3, *inner = tag + 1;
	bool on = pkt->port->flags & GW_PORT_ON;
	struct gw_port *sub = NULL;

	if ((void *)(tag + 1) > pkt->end)
		return on ? gw_drop(pkt, GW_DROP_ETH_TRUNCATED) : GW_NOT_OURS;
	pkt->vlan = bpf_ntohs(tag->tci) & 0x0FFF;
	if (pkt->port->flags & GW_PORT_VLANS && pkt->ethertype == bpf_htons(GW_ETH_VLAN)) {
		struct gw_vlan_key key = { .ifindex = ctx->ingress_ifindex, .vlan = pkt->vlan };

		sub = bpf_map_lookup_elem(&gw_vlans, &key);
	}
	if (unlikely(gw_is_tag(tag->type) && (sub || !pkt->vlan)) &&
	    ((void *)(inner + 1) > pkt->end || !pkt->vlan || !(inner->tci & bpf_htons(0x0FFF))))
		return gw_drop(pkt, GW_DROP_VLAN_UNKNOWN);
	if (!sub || !(sub->flags & GW_PORT_ON))
		return on ? GW_KERNEL : GW_NOT_OURS;
	pkt->port = sub;
	pkt->ethertype = tag->type;
	pkt->l3 = tag + 1;
	return GW_CONTINUE;
}

/*
 * Whether a frame is for a macvlan device above the port: who uses a virtual router (VRRP) sends to its address. A program
 * of its own to the verifier.
 */
__noinline int gw_for_macvlan(struct xdp_md *ctx, __u32 vlan)
{
	struct gw_mac_key key = { .ifindex = ctx->ingress_ifindex };
	const __u64 *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return false;
	key.mac = *eth << 16 | (__u16)vlan;
	return !(key.mac & 1 << 16) && bpf_map_lookup_elem(&gw_other_macs, &key);
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
	if (unlikely(gw_is_tag(eth->type)))
		verdict = gw_tagged(ctx, pkt);
	else
		verdict = pkt->port->flags & GW_PORT_ON ? GW_CONTINUE : GW_NOT_OURS;
	if (verdict)
		return verdict;

	pkt->zone = pkt->port->zone;
	pkt->ingress = pkt->port->port;
	if (likely(gw_for_us(pkt->port, pkt->data)) || gw_for_macvlan(ctx, pkt->vlan))
		return GW_CONTINUE;
	return GW_KERNEL;
}

#endif /* GW_LINK_H */
