// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The XDP program of every gateway port, gw_ingress. Reads as the list of its steps: link header, IP header and
 * flow key, flow table, then either what the record orders or a worker or the kernel.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "gw_abi.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_link.h"
#include "gw_table.h"
#include "gw_parse.h"
#include "gw_tunnel.h"
#include "gw_local.h"
#include "gw_count.h"
#include "gw_check.h"
#include "gw_revalidate.h"
#include "gw_rewrite.h"
#include "gw_checksum.h"
#include "gw_forward.h"
#include "gw_police.h"
#include "gw_exit.h"
#include "gw_fast.h"
#include "gw_fast_decap.h"
#include "gw_tunnel_fwd.h"
#include "gw_syn.h"
#include "gw_inject.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "flow keys are defined for little-endian machines"
#endif

static __always_inline int gw_ip4(struct xdp_md *ctx, struct gw_packet *pkt)
{
	struct gw_ip4 *ip = pkt->l3;
	struct gw_key4 key = {};
	struct gw_shape shape = {};
	struct gw_fwd_ctx *f = &pkt->fwd;
	struct gw_transport t = { .icmp = GW_ICMP };
	struct gw_flow4 *r = NULL;
	int verdict, mark;

	if ((void *)(ip + 1) > pkt->end)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	verdict = gw_parse4(pkt, ip, &key, &shape);
	if (verdict == GW_CONTINUE)
		r = gw_find4(&key, &pkt->record);
	if (!r)
		return gw_local4_or_worker(ctx, pkt, ip, &shape, &key);
	/* Looked for even so: a session wins over a local address. */
	if (!gw_fast_path_on()) {
		pkt->record = 0;
		return GW_WORKER;
	}

	__u32 epoch = GW_READ_ONCE(r->epoch);

	f->action = gw_flow_action(r);
	f->ip_len = shape.ip_len;
	if (unlikely(gw_foreign_ingress(r->key_l4, key.l4, f->action)))
		return gw_to_reverse_path_check(pkt);
	verdict = gw_check(ctx, pkt, &shape, &r->epoch, &r->last_seen, epoch);
	if (verdict == GW_DROP)
		GW_COUNT_FLOW(r, f);
	if (verdict)
		return verdict;
	mark = gw_meter(f, false);
	if (mark < 0)
		return gw_drop(pkt, -mark);
	/* From here on the packet changes. */
	ip = gw_relink(ctx, pkt);
	if (!ip)
		return GW_WORKER;
	if ((void *)(ip + 1) > pkt->end)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	if (unlikely(mark))
		gw_set_tos4(ip, gw_marked(mark, ip->tos));
	t.l4 = (void *)(ip + 1);
	t.end = pkt->end;
	t.proto = shape.proto;
	gw_rewrite4(ip, &t, r, f->action);
	GW_COUNT_FLOW(r, f);
	return GW_FORWARD;
}

static __always_inline int gw_ip6(struct xdp_md *ctx, struct gw_packet *pkt)
{
	struct gw_ip6 *ip = pkt->l3;
	struct gw_key6 key = {};
	struct gw_shape shape = {};
	struct gw_fwd_ctx *f = &pkt->fwd;
	struct gw_transport t = { .icmp = GW_ICMP6 };
	struct gw_flow6 *r = NULL;
	int verdict, mark;

	if ((void *)(ip + 1) > pkt->end)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	verdict = gw_parse6(pkt, ip, &key, &shape);
	if (verdict == GW_CONTINUE && gw_fast_path_on())
		r = gw_find6(&key, &pkt->record);
	if (!r)
		return gw_local6_or_worker(pkt, ip, &key);

	__u32 epoch = GW_READ_ONCE(r->epoch);

	f->action = gw_flow_action(r);
	f->ip_len = shape.ip_len;
	if (unlikely(gw_foreign_ingress(r->key_l4, key.l4, f->action)))
		return gw_to_reverse_path_check(pkt);
	verdict = gw_check(ctx, pkt, &shape, &r->epoch, &r->last_seen, epoch);
	if (verdict == GW_DROP)
		GW_COUNT_FLOW(r, f);
	if (verdict)
		return verdict;
	mark = gw_meter(f, false);
	if (mark < 0)
		return gw_drop(pkt, -mark);
	/* From here on the packet changes. */
	ip = gw_relink(ctx, pkt);
	if (!ip)
		return GW_WORKER;
	if ((void *)(ip + 1) > pkt->end)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	if (unlikely(mark))
		gw_set_tos6(ip, gw_marked(mark, gw_tos6(ip)));
	t.l4 = (void *)(ip + 1);
	t.end = pkt->end;
	t.proto = shape.proto;
	gw_rewrite6(ip, &t, r, f->action);
	GW_COUNT_FLOW(r, f);
	return GW_FORWARD;
}

/*
 * Every packet that the fast path and the tunnel path leave. A program of its own to the verifier. `syn`: what gw_syn()
 * says of it; asked for by GW_SYN_ASK.
 */
__noinline int gw_general(struct xdp_md *ctx, __u32 syn)
{
	struct gw_packet pkt = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	__u32 zero = 0;
	int verdict;

	pkt.len = pkt.end - pkt.data;
	pkt.fwd.rx_len = pkt.len;
	pkt.fwd.stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!pkt.fwd.stats)
		return XDP_PASS;
	verdict = gw_link(ctx, &pkt);
	if (!verdict) {
		if (pkt.ethertype == bpf_htons(GW_ETH_IP4))
			verdict = gw_ip4(ctx, &pkt);
		else if (pkt.ethertype == bpf_htons(GW_ETH_IP6))
			verdict = gw_ip6(ctx, &pkt);
		else
			verdict = GW_KERNEL;
		if (verdict == GW_WORKER && unlikely(GW_READ_ONCE(gw_shared.syn.services)) && gw_syn_concerns(&pkt)) {
			if (syn == GW_SYN_UNKNOWN)
				return gw_syn_ask(&pkt);
			verdict = gw_syn_result(&pkt, syn);
		}
	}
	return gw_exit(ctx, &pkt, verdict);
}

SEC("xdp")
int gw_ingress(struct xdp_md *ctx)
{
	int verdict = GW_CONTINUE, asked;

	if (unlikely(gw_shared.control.tunnels) && gw_looks_tunneled(ctx))
		verdict = gw_fast_decap(ctx);
	if (verdict == GW_CONTINUE)
		verdict = gw_fast(ctx);
	if (verdict == GW_CONTINUE && unlikely(gw_has_tag(ctx)) && gw_untag(ctx) == GW_NOT_OURS)
		return XDP_PASS;
	if (verdict == GW_CONTINUE && gw_shared.control.tunnels && gw_fast_path_on())
		verdict = gw_tunnel_path(ctx);
	if (verdict == GW_FORWARD)
		return XDP_REDIRECT;
	if (verdict != GW_CONTINUE)
		return XDP_DROP;
	asked = gw_general(ctx, GW_SYN_UNKNOWN);
	if (likely(!(asked & GW_SYN_ASK)))
		return asked;
	verdict = gw_syn(ctx, asked);
	return verdict == GW_SYN_ANSWERED ? gw_syn_send(asked) : gw_general(ctx, verdict);
}

SEC("xdp")
int gw_inject(struct xdp_md *ctx)
{
	return gw_priority_tag(ctx) ? XDP_PASS : XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
