// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Programs around the gateway's for measuring it (examples/): a frame source (run with live frames, it
 * redirects into a veth), the bare redirect to compare with, a sink, and what calls two versions of the
 * gateway's program in turns.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "gw_wire.h"

#define LAB_IMAGE_WORDS 16

/* Slot 0: where the source sends; slot 1: where the bare redirect sends. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} lab_devs SEC(".maps");

const volatile __u32 flows = 10000;
const volatile __u32 stride = 7919; /* coprime with flows: visits all of them out of order */
const volatile __u64 dmac;	    /* gateway's address in the low 48 bits */

__u64 sent;
__u64 received;
__u32 flow;

static __always_inline __u16 lab_fold(__u32 sum)
{
	sum = (sum & 0xFFFF) + (sum >> 16);
	return ~((sum & 0xFFFF) + (sum >> 16));
}

/* A UDP datagram of 18 zero bytes: 60 bytes without FCS. Addresses and ports in network order. */
static __always_inline bool lab_frame(struct xdp_md *ctx, __u64 to, __u32 src, __u32 dst, __u16 sport, __u16 dport)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct gw_eth *eth = data;
	struct gw_ip4 *ip = data + sizeof(*eth);
	struct gw_l4 *udp = (void *)(ip + 1);
	__u32 addrs = (src & 0xFFFF) + (src >> 16) + (dst & 0xFFFF) + (dst >> 16);

	if ((void *)(udp + 1) > end)
		return false;
	*(__u64 *)eth->dst = to | 0x0002ULL << 48;
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
	ip->dst = dst;
	ip->check = lab_fold(0x0045 + bpf_htons(46) + 0x0040 + (64 | GW_UDP << 8) + addrs);
	udp->sport = sport;
	udp->dport = dport;
	udp->len = bpf_htons(26);
	udp->check = lab_fold(addrs + bpf_htons(GW_UDP) + bpf_htons(26) + sport + dport + bpf_htons(26));
	return true;
}

/* The next flow's frame: from 10.0.0.0 + flow, port 1000, to 198.51.100.7 port 53. */
static __always_inline bool lab_next(struct xdp_md *ctx)
{
	flow += stride;
	if (flow >= flows)
		flow -= flows;
	return lab_frame(ctx, dmac, bpf_htonl(0x0A000000 + flow), bpf_htonl(0xC6336407), bpf_htons(1000),
			 bpf_htons(53));
}

SEC("xdp")
int lab_source(struct xdp_md *ctx)
{
	if (!lab_next(ctx))
		return XDP_DROP;
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

/* The versions of the gateway's program that examples/cost.rs compares. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} lab_versions SEC(".maps");

/* The frame that cost_frame* begins every run with; its length is a multiple of 8. */
struct lab_image {
	__u32 len;
	__u32 _pad;
	__u64 words[LAB_IMAGE_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lab_image);
} lab_images SEC(".maps");

/* Makes the frame the image again, whatever the run before left of it. */
static __always_inline bool lab_restore(struct xdp_md *ctx)
{
	__u32 zero = 0;
	const struct lab_image *image = bpf_map_lookup_elem(&lab_images, &zero);
	__u64 *data;
	int more;

	if (!image)
		return false;
	more = (int)(ctx->data_end - ctx->data) - (int)image->len;
	if (more && bpf_xdp_adjust_head(ctx, more))
		return false;
	data = (void *)(long)ctx->data;
	for (__u32 i = 0; i < LAB_IMAGE_WORDS && i * 8 < image->len; i++) {
		if ((void *)(data + i + 1) > (void *)(long)ctx->data_end)
			return false;
		data[i] = image->words[i];
	}
	return true;
}

/* A frame to no version, for the time that making it takes, and to each of both. */
SEC("xdp")
int cost_flows_none(struct xdp_md *ctx)
{
	return lab_next(ctx) ? XDP_DROP : XDP_ABORTED;
}

SEC("xdp")
int cost_flows_0(struct xdp_md *ctx)
{
	if (lab_next(ctx))
		bpf_tail_call(ctx, &lab_versions, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int cost_flows_1(struct xdp_md *ctx)
{
	if (lab_next(ctx))
		bpf_tail_call(ctx, &lab_versions, 1);
	return XDP_ABORTED;
}

SEC("xdp")
int cost_frame_none(struct xdp_md *ctx)
{
	return lab_restore(ctx) ? XDP_DROP : XDP_ABORTED;
}

SEC("xdp")
int cost_frame_0(struct xdp_md *ctx)
{
	if (lab_restore(ctx))
		bpf_tail_call(ctx, &lab_versions, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int cost_frame_1(struct xdp_md *ctx)
{
	if (lab_restore(ctx))
		bpf_tail_call(ctx, &lab_versions, 1);
	return XDP_ABORTED;
}

/*
 * Traffic for a gateway that translates sources: examples/nat_load.rs fills in the first part. Flow n
 * is from inside endpoint n % endpoints to remote address n / endpoints.
 */
#define LAB_TCX_DROP 2 /* TCX_DROP, which older headers do not have */
#define NAT_REMOTES 64
#define NAT_REMOTE 0xC6336401 /* the first one, 198.51.100.1 */
#define NAT_LOOK 4000	      /* ns between looks at what has arrived */
#define NAT_TIMEOUT 5000000   /* ns without a packet after which those under way count as lost */

struct nat_lab {
	__u64 dmac;
	__u32 endpoints; /* up to 60,000 */
	__u32 flows;
	__u32 stride;  /* from a flow to the next one; coprime with flows */
	__u32 outside; /* address that sources become, network order */
	__u64 frames;  /* to send, then no more */
	__u64 window;  /* that may be under way */
	/* The source's. */
	__u64 flow;
	__u64 sent;
	__u64 lost;
	__u64 started;
	__u64 seen;  /* what the sink had received at the last look */
	__u64 since; /* when that became so */
	__u64 pad[5];
	/* The sink's, in cache lines of its own. */
	__u64 received;
	__u64 distinct; /* outside tuples */
	__u64 foreign;	/* not translated to the outside address */
	__u64 last;	/* when the last one came, by 16 */
};

volatile struct nat_lab nat SEC(".data.nat") __attribute__((aligned(128)));
/* A bit for every remote address and outside port. */
__u64 nat_tuples[NAT_REMOTES * 65536 / 64] SEC(".bss.nat");

/*
 * Whether another frame may go. The sink's counter is looked at when the window seems full, and then
 * not more often than every few microseconds: each look takes its cache line from the gateway's core.
 */
static __always_inline bool nat_may_send(void)
{
	__u64 received, now, next = 0;

	if (nat.sent >= nat.frames)
		return false;
	if (nat.sent - nat.lost - nat.seen < nat.window)
		return true;
	for (int i = 0; i < 400; i++) {
		now = bpf_ktime_get_ns();
		if (now < next)
			continue;
		next = now + NAT_LOOK;
		received = nat.received;
		if (received != nat.seen) {
			nat.seen = received;
			nat.since = now;
		} else if (now - nat.since > NAT_TIMEOUT) {
			nat.lost = nat.sent - received;
			nat.since = now;
		}
		if (nat.sent - nat.lost - received < nat.window)
			return true;
	}
	return false;
}

SEC("xdp")
int nat_source(struct xdp_md *ctx)
{
	__u32 endpoints = nat.endpoints, n = nat.flow, e, remote;

	if (!endpoints || !nat_may_send())
		return XDP_DROP;
	if (!nat.sent)
		nat.started = bpf_ktime_get_ns();
	e = n % endpoints;
	remote = n / endpoints % NAT_REMOTES;
	n += nat.stride;
	nat.flow = n >= nat.flows ? n - nat.flows : n;
	if (!lab_frame(ctx, nat.dmac, bpf_htonl(0x0A000002 + e % 250), bpf_htonl(NAT_REMOTE + remote),
		       bpf_htons(1024 + e), bpf_htons(53)))
		return XDP_DROP;
	nat.sent++;
	return bpf_redirect_map(&lab_devs, 0, XDP_DROP);
}

static __always_inline void nat_count(void *data, void *end)
{
	struct gw_eth *eth = data;
	struct gw_ip4 *ip = data + sizeof(*eth);
	struct gw_l4 *udp = (void *)(ip + 1);
	__u32 remote, tuple;
	__u64 bit;

	if ((void *)(udp + 1) > end || eth->type != bpf_htons(GW_ETH_IP4) || ip->proto != GW_UDP)
		return;
	if (nat.received++ % 16 == 0)
		nat.last = bpf_ktime_get_ns();
	remote = bpf_ntohl(ip->dst) - NAT_REMOTE;
	if (ip->src != nat.outside || remote >= NAT_REMOTES) {
		nat.foreign++;
		return;
	}
	tuple = remote << 16 | bpf_ntohs(udp->sport);
	bit = 1ULL << (tuple % 64);
	if (tuple / 64 < NAT_REMOTES * 65536 / 64 && !(nat_tuples[tuple / 64] & bit)) {
		nat_tuples[tuple / 64] |= bit;
		nat.distinct++;
	}
}

/* The cheaper sink of frames that XDP redirects. */
SEC("xdp")
int nat_sink_xdp(struct xdp_md *ctx)
{
	nat_count((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	return XDP_DROP;
}

/* The cheaper sink of socket buffers: of what the kernel or an AF_XDP socket in copy mode sends. */
SEC("tcx/ingress")
int nat_sink_tcx(struct __sk_buff *skb)
{
	nat_count((void *)(long)skb->data, (void *)(long)skb->data_end);
	return LAB_TCX_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
