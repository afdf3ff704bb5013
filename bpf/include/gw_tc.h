/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Established flows in tc: whole socket buffers, with what their sender has left to offloads. A buffer of up to 64 KB
 * that a device or a host segments later (GSO) is looked up, charged and rewritten once. Checks, meters, addresses and
 * counters are those of XDP; what this does not do itself goes to XDP, segmented (gw_tc_to_xdp() in tc.bpf.c).
 */
#ifndef GW_TC_H
#define GW_TC_H

#include "gw_check.h"
#include "gw_parse.h"
#include "gw_police.h"
#include "gw_rewrite.h"
#include "gw_sock.h"
#include "gw_table.h"
#include "gw_local.h"

/* Ethernet, IPv6 and TCP headers without options. */
#define GW_TC_HEADERS 74
/* Of Ethernet. */
#define GW_TC_L2 14

/* What a socket buffer is on the wire. */
struct gw_tc_size {
	__u32 segments;
	__u32 longest; /* IP bytes of the first segment: none is longer */
	__u32 bytes;   /* IP bytes of all */
};

/*
 * A buffer of `ip_len` bytes as one IP packet. Each segment but the last has gso_size bytes behind headers like those of
 * the buffer. gso_segs is not read: a virtual machine's host leaves it out.
 */
static __always_inline void gw_tc_measure(const struct __sk_buff *skb, __u32 ip_len, __u32 headers,
					  struct gw_tc_size *size)
{
	__u32 gso = skb->gso_size;

	size->segments = 1;
	size->longest = ip_len;
	size->bytes = ip_len;
	if (!gso || ip_len <= headers + gso)
		return;
	size->segments = (ip_len - headers + gso - 1) / gso;
	size->longest = gso + headers;
	size->bytes = ip_len + (size->segments - 1) * headers;
}

/* Counts what is received of a buffer, as segments. */
static __always_inline struct gw_counts *gw_tc_count_rx(struct gw_stats *stats, __u8 port,
							const struct gw_tc_size *size)
{
	struct gw_counts *in = gw_counts(stats, port);

	in->rx_packets += size->segments;
	in->rx_bytes += size->bytes + size->segments * GW_TC_L2;
	return in;
}

static __always_inline void gw_tc_count_drop(struct gw_stats *stats, __u32 port, const struct gw_tc_size *size,
					     __u32 reason)
{
	struct gw_reasons *why = bpf_map_lookup_elem(&gw_reasons, &port);

	gw_tc_count_rx(stats, port, size);
	if (why)
		why->drops[reason % GW_MAX_DROPS] += size->segments;
}

/*
 * The meters of a buffer of several segments: the mark that it gets (0: none). -1: they do not admit all of it at once,
 * and the segments are judged one by one, by XDP. A program of its own to the verifier.
 */
__noinline int gw_tc_metered(__u32 no, __u32 ip_len, __u32 segments)
{
	struct gw_meter_group *group = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u32 zero = 0, bytes;
	struct gw_stats *stats = bpf_map_lookup_elem(&gw_stats, &zero);

	if (!group || !stats || !no)
		return 0;
	bytes = ip_len + segments * group->overhead;
	gw_now(stats);
	if (gw_police(&gw_meters, group, bytes, stats->nanos, group->slack) &&
	    gw_police(&gw_meters, group, bytes, bpf_ktime_get_ns(), 0))
		return -1;
	gw_count_passed(no, bytes);
	return group->remark;
}

/* Says what becomes of a buffer: GW_FORWARD, the checks have passed; GW_DROP; GW_WORKER, it is XDP's. */
static __always_inline int gw_tc_check(struct gw_packet *pkt, const struct gw_shape *s, __u64 key_l4, __u64 l4,
				       __u32 epoch, const struct gw_tc_size *size)
{
	struct gw_fwd_ctx *f = &pkt->fwd;
	int verdict;

	if (pkt->punt != GW_PUNT_MISS || !gw_fast_path_on() || !gw_is_current(epoch))
		return GW_WORKER;
	verdict = gw_check_flow(f->action);
	if (verdict == GW_DROP)
		return gw_drop(pkt, GW_ACTION_NEXTHOP(f->action));
	if (verdict || !gw_same_ingress(key_l4, l4) || GW_ACTION_TUNNEL(f->action) ||
	    gw_check_headers(s->ttl, s->tcp_flags_xack))
		return GW_WORKER;
	f->ip_len = size->longest;
	if (gw_check_egress(f, GW_LINK_MTU))
		return GW_WORKER;
	return GW_FORWARD;
}

/* The mark of the meters (0: none), -1: the buffer is XDP's, or less: minus one, minus the reason of a drop. */
static __always_inline int gw_tc_meter(const struct gw_fwd_ctx *f, const struct gw_tc_size *size)
{
	__u32 no = GW_ACTION_METER(f->action);
	int mark;

	if (!GW_ACTION_HAS(f->action, GW_FLOW_METER))
		return 0;
	if (size->segments > 1)
		return gw_tc_metered(no, size->bytes, size->segments);
	mark = gw_metered(no, size->bytes);
	return mark < 0 ? mark - 1 : mark;
}

/* GSO of UDP may be that of a tunnel, whose segments have more headers than the first one shows. */
static __always_inline bool gw_tc_fits(struct __sk_buff *skb, const struct gw_shape *s, __u32 ifindex)
{
	__u32 mtu = 0;

	return !skb->gso_size || s->proto == GW_TCP || !bpf_check_mtu(skb, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);
}

#define GW_TC_FIELD(proto) \
	((proto) == GW_TCP ? __builtin_offsetof(struct gw_tcp, check) : __builtin_offsetof(struct gw_l4, check))

/*
 * The transport checksum after translation. The kernel knows whether the field has the whole sum, of which all changes
 * are a part, or is left to an offload: then it has the sum of the pseudo header, of which the addresses alone are.
 */
static __always_inline bool gw_tc_translate_sum(struct __sk_buff *skb, __u8 proto, __u64 was, __u64 now,
						__u32 was_ports, __u32 now_ports)
{
	__u32 at = GW_TC_L2 + sizeof(struct gw_ip4) + GW_TC_FIELD(proto);
	__u64 flags = proto == GW_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__s64 addrs = bpf_csum_diff((__be32 *)&was, sizeof(was), (__be32 *)&now, sizeof(now), 0);
	__s64 ports = bpf_csum_diff(&was_ports, sizeof(was_ports), &now_ports, sizeof(now_ports), 0);

	return !bpf_l4_csum_replace(skb, at, 0, addrs, flags | BPF_F_PSEUDO_HDR) &&
	       !bpf_l4_csum_replace(skb, at, 0, ports, flags);
}

/* The IPv4 header and the ports: gw_rewrite4() without the transport checksum. Packet pointers are void after this. */
static __always_inline bool gw_tc_rewrite4(struct __sk_buff *skb, struct gw_ip4 *ip, __u8 proto,
					   const struct gw_flow4 *r, struct gw_fwd_ctx *f, int mark)
{
	bool nat = GW_ACTION_NAT(f->action);
	__u32 delta = bpf_htons(0x0100);
	struct gw_eth *eth;
	struct gw_l4 *l4 = (void *)(ip + 1);
	void *end;

	if (nat && !gw_tc_translate_sum(skb, proto, *gw_u64(&ip->src), *(const __u64 *)&r->new_saddr, l4->ports,
					*(const __u32 *)&r->new_sport))
		return false;
	eth = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ip = (void *)(eth + 1);
	l4 = (void *)(ip + 1);
	if ((void *)(l4 + 1) > end)
		return false;
	if (mark)
		gw_set_tos4(ip, gw_marked(mark, ip->tos));
	if (nat) {
		gw_renumber(ip, f->action);
		*gw_u64(&ip->src) = *(const __u64 *)&r->new_saddr;
		delta += r->l3_delta;
		l4->ports = *(const __u32 *)&r->new_sport;
	}
	ip->ttl--;
	ip->check = gw_plus_zero(gw_sum_add(ip->check, delta));
	gw_macs(eth, &f->hop);
	return true;
}

/* Counts a buffer in its record. */
#define GW_TC_COUNT_FLOW(r, f, size)              \
	({                                        \
		__u32 now = gw_now((f)->stats);   \
		(r)->packets += (size)->segments; \
		(r)->bytes += (size)->bytes;      \
		if ((r)->last_seen != now)        \
			(r)->last_seen = now;     \
	})

/*
 * Whether a TCP or UDP packet without a record is for a socket of this box, or for an address that NAT does not use.
 * False: XDP knows (gw_local4_owner()). A program of its own to the verifier.
 */
__noinline int gw_tc_local4(struct __sk_buff *skb, __u64 addrs, __u64 l4)
{
	__u32 dst = addrs >> 32, local;
	const __u32 *value = bpf_map_lookup_elem(&gw_local4, &dst);
	__u8 proto = l4 >> 32;

	if (!value || gw_nat64_on(GW_PUNT_MISS) || (proto != GW_TCP && proto != GW_UDP))
		return false;
	local = GW_READ_ONCE(*value);
	if (!gw_same_vrf(local, l4))
		return false;
	if (!(local & ~(GW_LOCAL_ON | GW_LOCAL_VRF)))
		return true;
	return proto == GW_TCP && gw_owned4((void *)skb, addrs, dst, l4);
}

#endif /* GW_TC_H */
