/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The box's own connections share addresses and ports with the hosts behind its NAT. The kernel knows
 * which are its own.
 */
#ifndef GW_SOCK_H
#define GW_SOCK_H

#include "gw_packet.h"

/* A connection, half open or closing too; a listener has none. */
static __always_inline bool gw_tcp_owned(struct xdp_md *ctx, struct bpf_sock_tuple *t)
{
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, t, sizeof(t->ipv4), BPF_F_CURRENT_NETNS, 0);
	bool owned;

	if (!sk)
		return false;
	owned = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return owned;
}

/* Any socket that would get the packet. */
static __always_inline bool gw_udp_owned(struct xdp_md *ctx, struct bpf_sock_tuple *t)
{
	struct bpf_sock *sk = bpf_sk_lookup_udp(ctx, t, sizeof(t->ipv4), BPF_F_CURRENT_NETNS, 0);

	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* Whether a socket of the box owns a TCP or UDP packet. */
static __always_inline bool gw_owned4(struct xdp_md *ctx, __u32 src, __u32 dst, __u64 l4)
{
	struct bpf_sock_tuple t = {
		.ipv4 = { .saddr = src, .daddr = dst, .sport = l4, .dport = l4 >> 16 },
	};

	return (__u8)(l4 >> 32) == GW_UDP ? gw_udp_owned(ctx, &t) : gw_tcp_owned(ctx, &t);
}

/* Whether a socket of the box would get a SYN: a listener, or what is left of a connection. */
static __always_inline bool gw_tcp_wanted(struct xdp_md *ctx, __u32 src, __u32 dst, __u64 l4)
{
	struct bpf_sock_tuple t = {
		.ipv4 = { .saddr = src, .daddr = dst, .sport = l4, .dport = l4 >> 16 },
	};
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, &t, sizeof(t.ipv4), BPF_F_CURRENT_NETNS, 0);

	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

#endif /* GW_SOCK_H */
