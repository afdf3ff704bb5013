// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs around the gateway's for measuring it: a frame source (run with live frames, it redirects
 * into a veth), the bare redirect to compare with, and a sink.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "gw_packet.h"

/* Slot 0: where the source sends; slot 1: where the bare redirect sends. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} lab_devs SEC(".maps");

const volatile __u32 flows = 10000;
const volatile __u32 stride = 7919;	/* coprime with flows: visits all of them out of order */
const volatile __u64 dmac;		/* gateway's address in the low 48 bits */

__u64 sent;
__u64 received;
__u32 flow;

/* UDP from 10.0.0.0 + flow, port 1000, to 198.51.100.7 port 53; 60 bytes without FCS. */
SEC("xdp")
int lab_source(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct gw_eth *eth = data;
	struct gw_ip4 *ip = data + sizeof(*eth);
	struct gw_l4 *udp = (void *)(ip + 1);
	__u32 src, sum;

	if ((void *)(udp + 1) > end)
		return XDP_DROP;
	flow += stride;
	if (flow >= flows)
		flow -= flows;
	src = bpf_htonl(0x0A000000 + flow);
	*(__u64 *)eth->dst = dmac | 0x0002ULL << 48;
	*(__u32 *)(eth->src + 2) = 0x01020304;
	eth->type = bpf_htons(GW_ETH_IP4);
	ip->version_ihl = 0x45;
	ip->tos = 0;
	ip->len = bpf_htons(46);
	ip->id = 0;
	ip->frag = bpf_htons(0x4000);
	ip->ttl = 64;
	ip->proto = GW_UDP;
	ip->src = src;
	ip->dst = bpf_htonl(0xC6336407);
	sum = 0x0045 + bpf_htons(46) + 0x0040 + (64 | GW_UDP << 8) + (src & 0xFFFF) + (src >> 16) +
	      bpf_htons(0xC633) + bpf_htons(0x6407);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	ip->check = ~sum;
	udp->sport = bpf_htons(1000);
	udp->dport = bpf_htons(53);
	udp->len = bpf_htons(26);
	udp->check = 0x1234;
	sent++;
	return bpf_redirect_map(&lab_devs, 0, XDP_DROP);
}

SEC("xdp")
int lab_bare(struct xdp_md *ctx __attribute__((unused)))
{
	return bpf_redirect_map(&lab_devs, 1, XDP_DROP);
}

SEC("xdp")
int lab_sink(struct xdp_md *ctx __attribute__((unused)))
{
	received++;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
