/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The quick path: an established IPv4 flow of TCP or UDP between untagged ports. It is the general
 * path with everything left out that such a packet does not need; at the first doubt, before
 * anything is counted or changed, it leaves the packet to the general path.
 */
#ifndef GW_QUICK_H
#define GW_QUICK_H

#include "gw_link.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_table.h"
#include "gw_parse.h"
#include "gw_forward.h"

/* Where the action word says: forward, and nothing that the general path would punt. */
#define GW_QUICK_MASK                                                            \
	(0xFFULL << 48 | (__u64)(GW_FLOW_PUNT_ALL | GW_FLOW_METER) << 40 | 0xFFULL << 32)
#define GW_QUICK_WANT ((__u64)GW_ACT_FORWARD << 32)

/* Whole, of sound lengths, with nothing in the TCP flags that a worker wants to see. */
static __always_inline bool gw_plain_l4(const struct gw_ip4 *ip, const struct gw_l4 *l4, __u32 len,
					const void *end)
{
	const struct gw_tcp *tcp = (const void *)l4;
	__u32 transport;

	if (ip->proto == GW_UDP) {
		transport = bpf_ntohs(l4->len);
		return transport >= sizeof(*l4) && transport + sizeof(*ip) <= len;
	}
	if (ip->proto != GW_TCP || (const void *)(tcp + 1) > end)
		return false;
	transport = tcp->offset >> 4 << 2;
	return transport >= sizeof(*tcp) && transport + sizeof(*ip) <= len &&
	       !(tcp->flags & (GW_TCP_SYN | GW_TCP_FIN | GW_TCP_RST));
}

/* Eight bytes wherever they lie in the packet: one instruction instead of two halves put together. */
static __always_inline __u64 *gw_u64(void *p)
{
	return p;
}

static __always_inline int gw_quick(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct gw_control *c = &gw_shared.control;
	__u32 zero = 0, delta, len, ifindex = ctx->ingress_ifindex;
	struct gw_eth *eth = data;
	struct gw_ip4 *ip = (void *)(eth + 1);
	struct gw_l4 *l4 = (void *)(ip + 1);
	struct gw_counts *in, *out;
	struct gw_stats *stats;
	struct gw_port *port;
	struct gw_flow4 *r;
	struct gw_key4 key;
	struct gw_hop hop;
	__u64 order, head;

	if ((void *)(l4 + 1) > end || eth->type != bpf_htons(GW_ETH_IP4))
		return GW_CONTINUE;
	port = &gw_shared.ports[ifindex % GW_PORT_SLOTS];
	head = GW_READ_ONCE(*gw_u64(port));
	key.addrs = *gw_u64(&ip->src);
	/* The zone is the third byte of the port's entry. */
	key.l4 = gw_l4_word(l4->ports, ip->proto, 0) | (head & 0xFF0000) << 24;
	r = gw_peek4(c, &key);
	if (!r)
		return GW_CONTINUE;
	/* While the record comes from memory, see whether the packet may use it. */
	len = bpf_ntohs(ip->len);
	if (ip->version_ihl != 0x45 || ip->frag & bpf_htons(GW_FRAG_ANY) || ip->ttl <= 1 || !gw_sum_ok(ip) ||
	    len > (__u32)(end - (void *)ip) || !gw_plain_l4(ip, l4, len, end) || !(head & GW_PORT_ON) ||
	    head >> 32 != ifindex || !gw_for_us(port, eth) || !GW_READ_ONCE(c->fast_path))
		return GW_CONTINUE;
	if (r->key_addrs != key.addrs || r->key_l4 != key.l4 || GW_READ_ONCE(r->epoch) != GW_READ_ONCE(c->epoch))
		return GW_CONTINUE;
	order = GW_READ_ONCE(*gw_u64(&r->nexthop));
	if ((order & GW_QUICK_MASK) != GW_QUICK_WANT)
		return GW_CONTINUE;
	gw_read_hop(order, &hop);
	/* Valid, of the generation that the record was made for, untagged, and large enough. */
	if (hop.dev >> 48 != (order >> 56 | GW_NH_VALID << 8) || hop.dmac_vlan >> 48 ||
	    len > hop.smac_mtu >> 48)
		return GW_CONTINUE;
	stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!stats || bpf_redirect_map(&gw_devs, (__u8)(hop.dev >> 32), XDP_ABORTED) != XDP_REDIRECT)
		return GW_CONTINUE;

	delta = bpf_htons(0x0100);
	if (order >> 40 & (GW_FLOW_SNAT | GW_FLOW_DNAT)) {
		struct gw_tcp *tcp = (void *)l4;

		*gw_u64(&ip->src) = *gw_u64(&r->new_saddr);
		l4->ports = *(__u32 *)&r->new_sport;
		delta += r->l3_delta;
		if (ip->proto == GW_UDP) {
			if (l4->check)
				l4->check = gw_sum_add(l4->check, r->l4_delta);
		} else if ((void *)(tcp + 1) <= end) {
			tcp->check = gw_plus_zero(gw_sum_add(tcp->check, r->l4_delta));
		}
	}
	ip->ttl--;
	ip->check = gw_plus_zero(gw_sum_add(ip->check, delta));
	gw_macs(eth, &hop);

	GW_COUNT_FLOW(r, stats, len);
	len = end - data;
	in = gw_counts(stats, head >> 8);
	out = gw_counts(stats, hop.dev >> 40);
	in->rx_packets++;
	in->rx_bytes += len;
	in->fast++;
	out->tx_packets++;
	out->tx_bytes += len;
	return GW_FORWARD;
}

#endif /* GW_QUICK_H */
