/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the IP header to the flow key. GW_CONTINUE: the key is good, and gw_packet.punt holds what
 * sends the packet to a worker even so (GW_PUNT_MISS: nothing). GW_WORKER: there is no key.
 *
 * Accepts exactly what crates/packet/src/parse.rs accepts; what it would refuse goes to a worker,
 * which names the reason.
 */
#ifndef GW_PARSE_H
#define GW_PARSE_H

#include "gw_packet.h"
#include "gw_table.h"

/* What the forwarding step needs besides the key. */
struct gw_shape {
	struct gw_l4 *l4;
	__u16 ip_len;
	__u8 proto;
	__u8 ttl;
	__u8 tcp_flags_xack; /* the flags with ACK inverted: see gw_check_headers() */
	__u8 icmp_type;	     /* of an ICMP message without an identifier */
};

/* ICMP messages with an identifier: echo, and in IPv4 the timestamp (RFC 5508, REQ-1). */
static __always_inline bool gw_icmp_query(__u8 icmp, __u8 type)
{
	return icmp == GW_ICMP6 ? type == 128 : type == 8 || type == 13;
}

static __always_inline bool gw_icmp_answer(__u8 icmp, __u8 type)
{
	return icmp == GW_ICMP6 ? type == 129 : type == 0 || type == 14;
}

/* Ports of TCP and UDP, identifier of ICMP queries; `len` bytes of transport are in the packet. */
static __always_inline int gw_parse_l4(struct gw_packet *pkt, struct gw_shape *s, __u32 len, __u8 icmp, __u32 *ports)
{
	bool whole = pkt->punt != GW_PUNT_FRAGMENT;
	struct gw_l4 *l4 = s->l4;

	*ports = 0;
	if (s->proto == GW_UDP) {
		__u32 udp_len;

		if (len < 8 || (void *)(l4 + 1) > pkt->end)
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		udp_len = bpf_ntohs(l4->len);
		if (udp_len < 8 || (udp_len > len && whole))
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		*ports = l4->ports;
	} else if (s->proto == GW_TCP) {
		struct gw_tcp *tcp = (void *)l4;
		__u32 offset;

		if (len < sizeof(*tcp) || (void *)(tcp + 1) > pkt->end)
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		offset = (tcp->offset >> 4) * 4;
		if (offset < sizeof(*tcp) || (offset > len && whole))
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		*ports = tcp->ports;
		s->tcp_flags_xack = tcp->flags ^ GW_TCP_ACK;
	} else if (s->proto == icmp) {
		if (len < 8 || (void *)(l4 + 1) > pkt->end)
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		if (gw_icmp_query(icmp, l4->icmp_type)) {
			*ports = l4->len;
		} else if (gw_icmp_answer(icmp, l4->icmp_type)) {
			*ports = (__u32)l4->len << 16;
		} else {
			s->icmp_type = l4->icmp_type;
			return gw_worker(pkt, whole ? GW_PUNT_ICMP : GW_PUNT_FRAGMENT);
		}
	}
	return GW_CONTINUE;
}

/* Ones' complement sum of an IPv4 header without options is all ones. */
static __always_inline bool gw_sum_ok(const struct gw_ip4 *ip)
{
	const __u32 *w = (const __u32 *)ip;
	__u64 sum = (__u64)w[0] + w[1] + w[2] + w[3] + w[4];

	/* At most 0x20001 after the first fold, and of those 0xFFFF and 0x1FFFE come out as all ones. */
	sum = (sum & 0xFFFF) + ((sum >> 16) & 0xFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return sum == 0xFFFF;
}

/* The caller has checked that the fixed header is there. */
static __always_inline int gw_parse4(struct gw_packet *pkt, struct gw_ip4 *ip, struct gw_key4 *key, struct gw_shape *s)
{
	__u32 room = pkt->len - gw_distance(pkt->data, pkt->l3);
	__u32 len = bpf_ntohs(ip->len), header = sizeof(*ip), ports;
	int verdict;

	s->l4 = (void *)(ip + 1);
	s->ip_len = len;
	s->ttl = ip->ttl;
	s->proto = ip->proto;
	s->tcp_flags_xack = 0;
	pkt->punt = GW_PUNT_MISS;
	if (unlikely(ip->version_ihl != 0x45)) {
		header = (ip->version_ihl & 0x0F) * 4;
		if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
			return gw_worker(pkt, GW_PUNT_MALFORMED);
		s->l4 = (void *)ip + header;
		pkt->punt = GW_PUNT_OPTIONS;
	} else if (!gw_sum_ok(ip)) {
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	}
	if (len > room || len < header)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	pkt->padding = gw_opaque(room - len);
	if (unlikely(ip->frag & bpf_htons(GW_FRAG_ANY))) {
		if (ip->frag & bpf_htons(GW_FRAG_OFFSET))
			return gw_worker(pkt, GW_PUNT_FRAGMENT);
		pkt->punt = GW_PUNT_FRAGMENT;
	}
	verdict = gw_parse_l4(pkt, s, len - header, GW_ICMP, &ports);
	if (verdict)
		return verdict;
	key->addrs = ip->src | (__u64)ip->dst << 32;
	key->l4 = gw_l4_word(ports, ip->proto, pkt->zone) | (__u64)pkt->ingress << 48;
	return GW_CONTINUE;
}

static __always_inline int gw_parse6(struct gw_packet *pkt, struct gw_ip6 *ip, struct gw_key6 *key, struct gw_shape *s)
{
	__u32 room = pkt->len - gw_distance(pkt->data, pkt->l3);
	__u32 payload = bpf_ntohs(ip->payload), ports;
	const __u64 *addrs = (const __u64 *)ip->src;
	int verdict;

	s->l4 = (void *)(ip + 1);
	s->ip_len = sizeof(*ip) + payload;
	s->ttl = ip->hops;
	s->proto = ip->next;
	s->tcp_flags_xack = 0;
	pkt->punt = GW_PUNT_MISS;
	if ((*(__u8 *)ip & 0xF0) != 0x60 || sizeof(*ip) + payload > room || sizeof(*ip) + payload > 0xFFFF)
		return gw_worker(pkt, GW_PUNT_MALFORMED);
	pkt->padding = gw_opaque(room - s->ip_len);
	switch (ip->next) {
	case 44: /* fragment */
		return gw_worker(pkt, GW_PUNT_FRAGMENT);
	case 0:	 /* hop by hop */
	case 43: /* routing */
	case 60: /* destination options */
		return gw_worker(pkt, GW_PUNT_OPTIONS);
	}
	verdict = gw_parse_l4(pkt, s, payload, GW_ICMP6, &ports);
	if (verdict)
		return verdict;
	key->src[0] = addrs[0];
	key->src[1] = addrs[1];
	key->dst[0] = addrs[2];
	key->dst[1] = addrs[3];
	key->l4 = gw_l4_word(ports, ip->next, pkt->zone) | (__u64)pkt->ingress << 48;
	return GW_CONTINUE;
}

#endif /* GW_PARSE_H */
