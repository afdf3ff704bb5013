// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The tc programs of a port in tc mode. No XDP program is on its device, so nobody has to turn offloads off: gw_tc_port()
 * forwards established flows as the socket buffers that they come in. What it leaves goes by a pair of devices (veth) to
 * XDP, which sees frames of one segment with whole checksums, and what XDP and the workers send comes back by the pair:
 *
 *	port ── gw_tc_port ──► out of another port
 *	           │  ▲ gw_tc_to_kernel: what XDP leaves to the kernel
 *	           ▼  │
 *	tc end ◄────► XDP end: gw_ingress, sockets of the workers
 *	   │
 *	   └ gw_tc_from_xdp: out of the port
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "gw_abi.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_link.h"
#include "gw_tc.h"

/* What a device of a pair, or a port, is joined with. */
struct gw_tc_device {
	__u32 other; /* number of the device */
	__u32 limit; /* of a port: longest frame that the pair carries */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 3 * GW_MAX_DEVS);
	__type(key, __u32);
	__type(value, struct gw_tc_device);
} gw_tc_devices SEC(".maps");

/*
 * On a packet that XDP has left to the kernel. Nobody outside knows the seed of the flow hash, and marks do not cross
 * network namespaces.
 */
static __always_inline __u32 gw_tc_mark(void)
{
	return GW_READ_ONCE(gw_shared.control.seed) >> 32 | 1;
}

/* Whether a worker gives the packet to the kernel: gw_inject.h. */
static __always_inline bool gw_tc_injected(const struct __sk_buff *skb)
{
	__u64 *mark = (void *)(long)skb->data_meta, seed = GW_READ_ONCE(gw_shared.control.seed);

	return (void *)(mark + 1) <= (void *)(long)skb->data && seed && *mark == seed;
}

/* Leaves a packet to XDP. */
static __always_inline int gw_tc_to_xdp(struct __sk_buff *skb, const struct gw_packet *pkt,
					const struct gw_tc_size *size)
{
	__u32 ifindex = skb->ifindex;
	const struct gw_tc_device *device = bpf_map_lookup_elem(&gw_tc_devices, &ifindex);

	if (device && size->longest + GW_TC_L2 <= device->limit)
		return bpf_redirect(device->other, 0);
	gw_tc_count_drop(pkt->fwd.stats, pkt->fwd.port, size, GW_DROP_FRAME_TOO_BIG);
	return TC_ACT_SHOT;
}

static __always_inline int gw_tc_to_stack(const struct gw_packet *pkt, const struct gw_tc_size *size)
{
	gw_tc_count_rx(pkt->fwd.stats, pkt->fwd.port, size)->to_kernel += size->segments;
	return TC_ACT_UNSPEC;
}

static __always_inline int gw_tc_drop(const struct gw_packet *pkt, const struct gw_tc_size *size, __u32 reason)
{
	gw_tc_count_drop(pkt->fwd.stats, pkt->fwd.port, size, reason);
	return TC_ACT_SHOT;
}

/* The packet has been rewritten. */
static __always_inline int gw_tc_send(struct __sk_buff *skb, const struct gw_packet *pkt, const struct gw_tc_size *size)
{
	const struct gw_fwd_ctx *f = &pkt->fwd;
	__u16 vlan = f->hop.dmac_vlan >> 48;
	struct gw_counts *out;

	if (pkt->padding)
		bpf_skb_change_tail(skb, pkt->len - pkt->padding, 0);
	gw_tc_count_rx(f->stats, f->port, size)->fast += size->segments;
	out = gw_counts(f->stats, f->hop.dev >> 40);
	out->tx_packets += size->segments;
	out->tx_bytes += size->bytes + size->segments * (vlan ? GW_TC_L2 + 4 : GW_TC_L2);
	if (vlan && bpf_skb_vlan_push(skb, bpf_htons(GW_ETH_VLAN), vlan))
		return TC_ACT_SHOT;
	return bpf_redirect((__u32)f->hop.dev, 0);
}

/* IP and transport header in bytes, of what gw_parse4() or gw_parse6() has let pass. */
static __always_inline __u32 gw_tc_headers(const struct gw_packet *pkt, const struct gw_shape *s, __u32 ip_header)
{
	const struct gw_tcp *tcp = (const void *)s->l4;

	if (s->proto != GW_TCP || (const void *)(tcp + 1) > pkt->end)
		return ip_header + sizeof(struct gw_l4);
	return ip_header + (tcp->offset >> 4) * 4;
}

static __always_inline int gw_tc_ip4(struct __sk_buff *skb, struct gw_packet *pkt, struct gw_tc_size *size)
{
	struct gw_fwd_ctx *f = &pkt->fwd;
	struct gw_ip4 *ip = pkt->l3;
	struct gw_shape shape = {};
	struct gw_key4 key = {};
	struct gw_flow4 *r;
	int verdict, mark;

	if ((void *)(ip + 1) > pkt->end)
		return gw_tc_to_xdp(skb, pkt, size);
	verdict = gw_parse4(pkt, ip, &key, &shape);
	if (verdict != GW_CONTINUE || ip->version_ihl != 0x45 || (shape.proto != GW_TCP && shape.proto != GW_UDP))
		return gw_tc_to_xdp(skb, pkt, size);
	ip = pkt->l3;
	shape.l4 = (void *)(ip + 1);
	if ((void *)(shape.l4 + 1) > pkt->end)
		return gw_tc_to_xdp(skb, pkt, size);
	gw_tc_measure(skb, shape.ip_len, gw_tc_headers(pkt, &shape, sizeof(*ip)), size);
	r = gw_find4(&key, &pkt->record);
	if (!r) {
		if (pkt->punt == GW_PUNT_MISS && gw_tc_local4(skb, key.addrs, key.l4))
			return gw_tc_to_stack(pkt, size);
		return gw_tc_to_xdp(skb, pkt, size);
	}
	f->action = gw_flow_action(r);
	verdict = gw_tc_check(pkt, &shape, r->key_l4, key.l4, GW_READ_ONCE(r->epoch), size);
	if (verdict == GW_DROP) {
		GW_TC_COUNT_FLOW(r, f, size);
		return gw_tc_drop(pkt, size, pkt->reason);
	}
	if (verdict != GW_FORWARD || !gw_tc_fits(skb, &shape, f->hop.dev))
		return gw_tc_to_xdp(skb, pkt, size);
	mark = gw_tc_meter(f, size);
	if (mark == -1)
		return gw_tc_to_xdp(skb, pkt, size);
	if (mark < 0)
		return gw_tc_drop(pkt, size, -(mark + 1));
	if (!gw_tc_rewrite4(skb, ip, shape.proto, r, f, mark))
		return gw_tc_drop(pkt, size, GW_DROP_L4_TRUNCATED);
	GW_TC_COUNT_FLOW(r, f, size);
	return gw_tc_send(skb, pkt, size);
}

/* Translated IPv6 is XDP's. */
static __always_inline int gw_tc_ip6(struct __sk_buff *skb, struct gw_packet *pkt, struct gw_tc_size *size)
{
	struct gw_fwd_ctx *f = &pkt->fwd;
	struct gw_ip6 *ip = pkt->l3;
	struct gw_shape shape = {};
	struct gw_key6 key = {};
	struct gw_addr6 dst;
	const __u32 *local;
	struct gw_flow6 *r;
	int verdict, mark;

	if ((void *)(ip + 1) > pkt->end)
		return gw_tc_to_xdp(skb, pkt, size);
	verdict = gw_parse6(pkt, ip, &key, &shape);
	if (verdict != GW_CONTINUE || (shape.proto != GW_TCP && shape.proto != GW_UDP))
		return gw_tc_to_xdp(skb, pkt, size);
	gw_tc_measure(skb, shape.ip_len, gw_tc_headers(pkt, &shape, sizeof(*ip)), size);
	r = gw_find6(&key, &pkt->record);
	if (!r) {
		__builtin_memcpy(&dst, ip->dst, sizeof(dst));
		local = bpf_map_lookup_elem(&gw_local6, &dst);
		if (local && gw_same_vrf(GW_READ_ONCE(*local), key.l4) && !(GW_READ_ONCE(*local) & GW_LOCAL_TUNNEL))
			return gw_tc_to_stack(pkt, size);
		return gw_tc_to_xdp(skb, pkt, size);
	}
	f->action = gw_flow_action(r);
	verdict = gw_tc_check(pkt, &shape, r->key_l4, key.l4, GW_READ_ONCE(r->epoch), size);
	if (verdict == GW_DROP) {
		GW_TC_COUNT_FLOW(r, f, size);
		return gw_tc_drop(pkt, size, pkt->reason);
	}
	if (verdict != GW_FORWARD || GW_ACTION_NAT(f->action) || !gw_tc_fits(skb, &shape, f->hop.dev))
		return gw_tc_to_xdp(skb, pkt, size);
	mark = gw_tc_meter(f, size);
	if (mark == -1)
		return gw_tc_to_xdp(skb, pkt, size);
	if (mark < 0)
		return gw_tc_drop(pkt, size, -(mark + 1));
	if (mark)
		gw_set_tos6(ip, gw_marked(mark, gw_tos6(ip)));
	ip->hops--;
	gw_macs(pkt->data, &f->hop);
	GW_TC_COUNT_FLOW(r, f, size);
	return gw_tc_send(skb, pkt, size);
}

/* Whether a frame is for the port, or for a macvlan device above it: as gw_link() has it. */
static __always_inline bool gw_tc_for_us(const struct __sk_buff *skb, const struct gw_port *port, const void *eth)
{
	struct gw_mac_key key = { .mac = *(const __u64 *)eth << 16, .ifindex = skb->ifindex };

	return gw_for_us(port, eth) || (!(key.mac & 1 << 16) && bpf_map_lookup_elem(&gw_other_macs, &key));
}

SEC("tc")
int gw_tc_port(struct __sk_buff *skb)
{
	struct gw_tc_size size = { .segments = 1 };
	struct gw_packet pkt = {};
	__u32 zero = 0, mark = skb->mark;
	struct gw_eth *eth;

	pkt.port = gw_device(skb->ifindex);
	if (!pkt.port || gw_tc_injected(skb))
		return TC_ACT_UNSPEC;
	if (mark == gw_tc_mark()) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	pkt.fwd.stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!pkt.fwd.stats)
		return TC_ACT_SHOT;
	pkt.fwd.port = pkt.port->port;
	pkt.len = skb->len;
	gw_tc_measure(skb, pkt.len - GW_TC_L2, sizeof(struct gw_ip4) + sizeof(struct gw_tcp), &size);
	if ((void *)(long)skb->data + GW_TC_HEADERS > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, pkt.len < GW_TC_HEADERS ? pkt.len : GW_TC_HEADERS);
	pkt.data = (void *)(long)skb->data;
	pkt.end = (void *)(long)skb->data_end;
	eth = pkt.data;
	if ((void *)(eth + 1) > pkt.end)
		return gw_tc_to_xdp(skb, &pkt, &size);
	/* Sub-ports, and priority tags: XDP sees the tag in the frame. */
	if (skb->vlan_present) {
		if (pkt.port->flags & GW_PORT_VLANS || !(skb->vlan_tci & 0x0FFF) || gw_is_tag(eth->type))
			return gw_tc_to_xdp(skb, &pkt, &size);
		return pkt.port->flags & GW_PORT_ON ? gw_tc_to_stack(&pkt, &size) : TC_ACT_UNSPEC;
	}
	if (!(pkt.port->flags & GW_PORT_ON))
		return TC_ACT_UNSPEC;
	if (!gw_tc_for_us(skb, pkt.port, eth))
		return gw_tc_to_stack(&pkt, &size);
	pkt.ethertype = eth->type;
	pkt.l3 = eth + 1;
	pkt.zone = pkt.port->zone;
	pkt.ingress = pkt.port->port;
	if (pkt.ethertype == bpf_htons(GW_ETH_IP4))
		return gw_tc_ip4(skb, &pkt, &size);
	if (pkt.ethertype == bpf_htons(GW_ETH_IP6))
		return gw_tc_ip6(skb, &pkt, &size);
	return gw_tc_to_stack(&pkt, &size);
}

/* On the tc end of a pair: what XDP and the workers send leaves by the port. */
SEC("tc")
int gw_tc_from_xdp(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	const struct gw_tc_device *device = bpf_map_lookup_elem(&gw_tc_devices, &ifindex);

	return device ? bpf_redirect(device->other, 0) : TC_ACT_SHOT;
}

/* On the XDP end: what XDP leaves to the kernel is received by the port, for good. */
SEC("tc")
int gw_tc_to_kernel(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	const struct gw_tc_device *device = bpf_map_lookup_elem(&gw_tc_devices, &ifindex);

	if (!device)
		return TC_ACT_SHOT;
	skb->mark = gw_tc_mark();
	return bpf_redirect(device->other, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
