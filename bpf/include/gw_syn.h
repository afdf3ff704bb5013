/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * SYN cookies (RFC 4987 3.6): while a service is under a flood of SYNs, XDP answers them itself and remembers nothing.
 * What it must know of a client is in the sequence number of its SYN-ACK, which the client acknowledges; a worker then
 * opens the connection to the server. crates/pipeline/src/syn_cookie.rs has the same cookie.
 *
 *   hash of 24 bits | slot | MSS, 2 bits | SACK permitted | window scale, 4 bits (15: none)
 *
 * The hash is SipHash-2-4 of addresses, ports, the client's sequence number and the lower octet, under the secret of the
 * slot. Timestamps and ECN are not negotiated.
 */
#ifndef GW_SYN_H
#define GW_SYN_H

#include "gw_count.h"
#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_table.h"
#include "gw_wire.h"

#define GW_SYN_WINDOW_SCALE 7 /* that SYN-ACKs announce */
#define GW_SYN_OPTIONS 12     /* bytes of options of a SYN-ACK */

/*
 * What gw_general() returns for a packet that gw_syn() is to look at, and what that takes: where the IP header starts,
 * and the port and its device slot above it.
 */
#define GW_SYN_ASK 0x1000 /* no XDP action has this bit */
#define GW_SYN_V6 0x100
#define GW_SYN_PORT_SHIFT 16
#define GW_SYN_DEV_SHIFT 24

/* What gw_syn() says. */
enum gw_syn_verdict {
	GW_SYN_UNKNOWN = 0, /* it was not asked */
	GW_SYN_OTHER,	    /* nothing to do with it */
	GW_SYN_ANSWERED,    /* the frame has become the answer, and is counted */
	GW_SYN_VALID,
	GW_SYN_INVALID,
};

/* The words that the cookie's hash covers. IPv4 addresses as in ::ffff:192.0.2.1. */
struct gw_cookie {
	__u32 saddr[4];
	__u32 daddr[4];
	__u32 ports;
	__u32 isn;     /* of the client, host order */
	__u32 options; /* the lower octet of the cookie */
	__u32 zero;
};

struct gw_syn_packet {
	struct gw_cookie c;
	__u32 seq; /* host order */
	__u32 ack;
	__u8 flags;
	__u8 header; /* of TCP, bytes */
	__u8 tcp_at;
};

#define GW_ROTATE(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define GW_SIP_ROUND                    \
	do {                            \
		v0 += v1;               \
		v1 = GW_ROTATE(v1, 13); \
		v1 ^= v0;               \
		v0 = GW_ROTATE(v0, 32); \
		v2 += v3;               \
		v3 = GW_ROTATE(v3, 16); \
		v3 ^= v2;               \
		v0 += v3;               \
		v3 = GW_ROTATE(v3, 21); \
		v3 ^= v0;               \
		v2 += v1;               \
		v1 = GW_ROTATE(v1, 17); \
		v1 ^= v2;               \
		v2 = GW_ROTATE(v2, 32); \
	} while (0)

/* The cookie for what `c` says, by the secret of the slot that its options name. */
static __noinline __u32 gw_cookie_of(const struct gw_cookie *c)
{
	const __u64 *secret = gw_shared.syn.secret[c->options >> 7 & 1];
	const __u64 *word = (const __u64 *)c;
	__u64 k0 = GW_READ_ONCE(secret[0]), k1 = GW_READ_ONCE(secret[1]);
	__u64 v0 = k0 ^ 0x736F6D6570736575ULL, v1 = k1 ^ 0x646F72616E646F6DULL;
	__u64 v2 = k0 ^ 0x6C7967656E657261ULL, v3 = k1 ^ 0x7465646279746573ULL;
	__u64 last = (__u64)sizeof(*c) << 56;
	int i;

#pragma unroll
	for (i = 0; i < 6; i++) {
		v3 ^= word[i];
		GW_SIP_ROUND;
		GW_SIP_ROUND;
		v0 ^= word[i];
	}
	v3 ^= last;
	GW_SIP_ROUND;
	GW_SIP_ROUND;
	v0 ^= last;
	v2 ^= 0xFF;
	GW_SIP_ROUND;
	GW_SIP_ROUND;
	GW_SIP_ROUND;
	GW_SIP_ROUND;
	return ((__u32)(v0 ^ v1 ^ v2 ^ v3) & ~0xFFu) | (c->options & 0xFF);
}

/*
 * An option of a TCP header, `at` bytes behind the start of the frame: kind | length << 8 | its first two bytes << 16, in
 * host order. 0: there is none. Scalars alone go in and out, so the verifier walks this once.
 */
__noinline __u32 gw_syn_option(struct xdp_md *ctx, __u32 at)
{
	const __u8 *end = (void *)(long)ctx->data_end, *o = (void *)(long)ctx->data;
	__u32 value = 0;

	if (at > 127)
		return 0;
	o += at;
	if (o + 1 > end || !o[0])
		return 0;
	if (o[0] == 1)
		return 1 | 1 << 8;
	if (o + 2 > end || o[1] < 2)
		return 0;
	/* A window scale has one byte, and may be the last of the frame. */
	if (o + 3 <= end)
		value = o[2] << 8;
	if (o + 4 <= end)
		value |= o[3];
	return o[0] | o[1] << 8 | value << 16;
}

static __always_inline __u32 gw_mss_index(__u32 mss, bool v6)
{
	if (v6)
		return mss >= 1440 ? 3 : mss >= 1420 ? 2 : mss >= 1360 ? 1 : 0;
	return mss >= 1460 ? 3 : mss >= 1440 ? 2 : mss >= 1220 ? 1 : 0;
}

/*
 * The lower octet of a cookie, without the slot: what the options of a SYN say, whose bytes `at` to `end` of the frame
 * are. Scalars alone go in and out, so the verifier walks this once.
 */
__noinline __u32 gw_syn_options(struct xdp_md *ctx, __u32 at, __u32 end, __u32 v6)
{
	__u32 mss = 0, scale = 15, sack = 0;
	int i;

	for (i = 0; i < 16 && at < end; i++) {
		__u32 option = gw_syn_option(ctx, at), len = option >> 8 & 0xFF;

		if (!len || at + len > end)
			break;
		switch (option & 0xFFFF) {
		case 2 | 4 << 8:
			mss = option >> 16;
			break;
		case 3 | 3 << 8:
			scale = option >> 24;
			if (scale > 14)
				scale = 14;
			break;
		case 4 | 2 << 8:
			sack = 1;
			break;
		}
		at += len;
	}
	return gw_mss_index(mss, v6) << 5 | sack << 4 | scale;
}

/* Reads what cookies need. False: it is nothing for them. */
static __always_inline bool gw_syn_read(struct xdp_md *ctx, __u32 l3, struct gw_syn_packet *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	void *ip = (l3 & 0xFF) == 18 ? data + 18 : data + 14;
	struct gw_tcp *tcp;

	if (l3 & GW_SYN_V6) {
		struct gw_ip6 *ip6 = ip;

		tcp = (void *)(ip6 + 1);
		if ((void *)(tcp + 1) > end || ip6->next != GW_TCP)
			return false;
		__builtin_memcpy(p->c.saddr, ip6->src, 16);
		__builtin_memcpy(p->c.daddr, ip6->dst, 16);
	} else {
		struct gw_ip4 *ip4 = ip;

		tcp = (void *)(ip4 + 1);
		if ((void *)(tcp + 1) > end || ip4->proto != GW_TCP)
			return false;
		p->c.saddr[2] = bpf_htonl(0xFFFF);
		p->c.saddr[3] = ip4->src;
		p->c.daddr[2] = bpf_htonl(0xFFFF);
		p->c.daddr[3] = ip4->dst;
	}
	p->c.ports = tcp->ports;
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack);
	p->flags = tcp->flags;
	p->header = (tcp->offset >> 4) * 4;
	p->tcp_at = (void *)tcp - data;
	return true;
}

/* Hosts alone are answered: not 0/8, 127/8, 224/3; not ::/16, fe80::/10, ff00::/8. */
static __always_inline bool gw_syn_from_host(const struct gw_syn_packet *p, bool v6)
{
	__u8 first = v6 ? p->c.saddr[0] : p->c.saddr[3];
	__u8 second = p->c.saddr[0] >> 8;

	if (v6)
		return first != 0xFF && (first || second) && !(first == 0xFE && (second & 0xC0) == 0x80);
	return first && first != 127 && first < 224;
}

static __always_inline __u16 gw_fold_all(__u64 sum)
{
	sum = (sum & 0xFFFFFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return sum;
}

/* A SYN-ACK as it is sent: always with as many bytes of options. */
struct gw_synack {
	struct gw_tcp tcp;
	__u32 options[GW_SYN_OPTIONS / 4];
};

static __always_inline void gw_fill_synack(const struct gw_syn_packet *p, __u32 cookie, bool v6, struct gw_synack *s)
{
	__u32 mss = v6 ? gw_shared.syn.mss6 : gw_shared.syn.mss4;
	const __u32 *word = (const __u32 *)s;
	__u64 sum = bpf_htons(GW_TCP) + bpf_htons(sizeof(*s));
	int i;

	s->tcp.ports = p->c.ports << 16 | p->c.ports >> 16;
	s->tcp.seq = bpf_htonl(cookie);
	s->tcp.ack = bpf_htonl(p->seq + 1);
	s->tcp.offset = sizeof(*s) / 4 << 4;
	s->tcp.flags = GW_TCP_SYN | GW_TCP_ACK;
	/* Nothing may come before the server has answered; its window is then the client's (as SYNPROXY of Linux). */
	s->tcp.window = 0;
	s->tcp.check = 0;
	s->tcp.urgent = 0;
	s->options[0] = bpf_htonl(2 << 24 | 4 << 16 | mss);
	s->options[1] = bpf_htonl(cookie & 1 << 4 ? 0x01010402 : 0x01010101);
	s->options[2] = bpf_htonl((cookie & 15) == 15 ? 0x01010101 : 0x01030300 | GW_SYN_WINDOW_SCALE);
#pragma unroll
	for (i = 0; i < (int)sizeof(*s) / 4; i++)
		sum += word[i];
	/* The mark of an IPv4 address is no part of the pseudo-header. */
	for (i = v6 ? 0 : 3; i < 4; i++)
		sum += (__u64)p->c.saddr[i] + p->c.daddr[i];
	s->tcp.check = ~gw_fold_all(sum);
}

/* Turns the frame into the answer; its first bytes stay where a tag was. False: the frame is as it was. */
static __always_inline bool gw_answer_syn(struct xdp_md *ctx, __u32 l3, const struct gw_syn_packet *p,
					  const struct gw_synack *s)
{
	bool v6 = l3 & GW_SYN_V6, tagged = (l3 & 0xFF) == 18;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 len = (tagged ? 18 : 14) + (v6 ? sizeof(struct gw_ip6) : sizeof(struct gw_ip4)) + sizeof(*s);
	struct gw_synack *out;
	long old = end - data;
	struct gw_eth eth;
	__u32 tag;
	void *ip;

	/* Keeps the compiler from a difference of the pointers' lower halves. */
	asm volatile("" : "+r"(old));
	if (data + 18 > end)
		return false;
	__builtin_memcpy(&eth, data, sizeof(eth));
	__builtin_memcpy(&tag, data + 14, sizeof(tag));
	if (bpf_xdp_adjust_head(ctx, (int)(old - len)))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + 18 > end)
		return true;
	__builtin_memcpy(data, eth.src, 6);
	__builtin_memcpy(data + 6, eth.dst, 6);
	__builtin_memcpy(data + 12, &eth.type, 2);
	if (tagged)
		__builtin_memcpy(data + 14, &tag, 4);
	ip = tagged ? data + 18 : data + 14;
	if (v6) {
		struct gw_ip6 *h = ip;

		out = (void *)(h + 1);
		if ((void *)(out + 1) > end)
			return true;
		h->version_class = bpf_htonl(6 << 28);
		h->payload = bpf_htons(sizeof(*s));
		h->next = GW_TCP;
		h->hops = 64;
		__builtin_memcpy(h->src, p->c.daddr, 16);
		__builtin_memcpy(h->dst, p->c.saddr, 16);
	} else {
		struct gw_ip4 *h = ip;
		const __u32 *w = ip;

		out = (void *)(h + 1);
		if ((void *)(out + 1) > end)
			return true;
		h->version_ihl = 0x45;
		h->tos = 0;
		h->len = bpf_htons(sizeof(*h) + sizeof(*s));
		h->id = 0;
		h->frag = bpf_htons(GW_DF);
		h->ttl = 64;
		h->proto = GW_TCP;
		h->check = 0;
		h->src = p->c.daddr[3];
		h->dst = p->c.saddr[3];
		h->check = ~gw_fold_all((__u64)w[0] + w[1] + w[2] + w[3] + w[4]);
	}
	*out = *s;
	return true;
}

/* Counts a SYN of `len` bytes as dropped for its answer, and the answer as sent by the same port. */
static __always_inline void gw_count_answer(const struct xdp_md *ctx, __u32 len, __u8 port)
{
	struct gw_fwd_ctx f = { .rx_len = len, .port = port };
	struct gw_counts *out;
	__u32 zero = 0;

	f.stats = bpf_map_lookup_elem(&gw_stats, &zero);
	if (!f.stats)
		return;
	gw_finish(&f, 0, GW_DROP_SYN_COOKIE);
	out = gw_counts(f.stats, port);
	out->originated++;
	out->tx_packets++;
	out->tx_bytes += ctx->data_end - ctx->data;
}

/*
 * A packet of no session, from the Internet, as gw_syn_ask() names it. Scalars alone go in and out, so the verifier walks
 * this once.
 */
__noinline int gw_syn(struct xdp_md *ctx, __u32 l3)
{
	__u32 len = ctx->data_end - ctx->data;
	struct gw_syn_service key = {};
	struct gw_syn_packet p = {};
	struct gw_synack synack = {};
	struct gw_syn_counts *counts;
	bool v6 = l3 & GW_SYN_V6;
	const __u32 *number;
	__u32 service, begins;

	if (!gw_syn_read(ctx, l3, &p))
		return GW_SYN_OTHER;
	begins = p.flags & (GW_TCP_SYN | GW_TCP_ACK | GW_TCP_RST | GW_TCP_FIN);
	if (begins != GW_TCP_SYN && (p.flags & (GW_TCP_SYN | GW_TCP_RST | GW_TCP_ACK)) != GW_TCP_ACK)
		return GW_SYN_OTHER;
	__builtin_memcpy(key.addr, p.c.daddr, 16);
	key.port = p.c.ports >> 16;
	number = bpf_map_lookup_elem(&gw_syn_services, &key);
	if (!number)
		return GW_SYN_OTHER;
	service = *number % GW_SYN_SERVICES;
	counts = bpf_map_lookup_elem(&gw_syn_stats, &service);
	if (!counts)
		return GW_SYN_OTHER;
	if (begins == GW_TCP_SYN)
		counts->syns++;
	if (!(GW_READ_ONCE(gw_shared.syn.active) >> service & 1) || !gw_syn_from_host(&p, v6))
		return GW_SYN_OTHER;
	if (begins == GW_TCP_SYN) {
		p.c.isn = p.seq;
		p.c.options = gw_syn_options(ctx, p.tcp_at + sizeof(struct gw_tcp), p.tcp_at + p.header, v6) |
			      (GW_READ_ONCE(gw_shared.syn.slot) & 1) << 7;
		gw_fill_synack(&p, gw_cookie_of(&p.c), v6, &synack);
		if (!gw_answer_syn(ctx, l3, &p, &synack))
			return GW_SYN_OTHER;
		counts->sent++;
		gw_count_answer(ctx, len, l3 >> GW_SYN_PORT_SHIFT);
		return GW_SYN_ANSWERED;
	}
	p.c.options = (p.ack - 1) & 0xFF;
	p.c.isn = p.seq - 1;
	if (gw_cookie_of(&p.c) != p.ack - 1) {
		/* A probe of the zero window repeats the last octet before it (RFC 9293 3.8.6.1). */
		p.c.isn = p.seq;
		if (gw_cookie_of(&p.c) != p.ack - 1) {
			counts->refused++;
			return GW_SYN_INVALID;
		}
	}
	counts->accepted++;
	return GW_SYN_VALID;
}

/* Whether gw_syn() is to look at a packet that is for a worker. Without the fast path no session was looked for. */
static __always_inline bool gw_syn_concerns(const struct gw_packet *pkt)
{
	return pkt->punt == GW_PUNT_MISS && !pkt->record && pkt->zone == GW_ZONE_WAN && gw_fast_path_on();
}

static __always_inline int gw_syn_ask(const struct gw_packet *pkt)
{
	__u32 l3 = (pkt->vlan ? 18 : 14) | (pkt->ethertype == bpf_htons(GW_ETH_IP6) ? GW_SYN_V6 : 0);

	l3 |= (__u32)pkt->port->port << GW_SYN_PORT_SHIFT;
	return GW_SYN_ASK | l3 | (__u32)(pkt->port->dev % GW_MAX_DEVS) << GW_SYN_DEV_SHIFT;
}

/*
 * Out of the device that the SYN came in by. As all forwarded frames it is redirected: on veth, XDP_TX leaves a frame in
 * the peer's ring until the next one comes, unless the peer has an XDP program.
 */
static __always_inline int gw_syn_send(__u32 asked)
{
	return bpf_redirect_map(&gw_devs, asked >> GW_SYN_DEV_SHIFT, XDP_TX);
}

static __always_inline int gw_syn_result(struct gw_packet *pkt, __u32 said)
{
	if (said == GW_SYN_INVALID)
		return gw_drop(pkt, GW_DROP_SYN_COOKIE_INVALID);
	return said == GW_SYN_VALID ? gw_worker(pkt, GW_PUNT_COOKIE) : GW_WORKER;
}

#endif /* GW_SYN_H */
