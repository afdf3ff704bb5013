/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Transport checksums that a sender has left to an offload: CHECKSUM_PARTIAL, of a host on the same machine whose frames
 * no wire has seen. Such a field holds the sum of the pseudo header, not complemented. Whoever gets the frame by a
 * redirect takes it for a checksum, so it has to be completed here or by a worker.
 *
 * A checksum that is complete and has this value by chance (one in 65,536) is the same afterwards: the sum over a whole
 * segment with its pseudo header is zero.
 */
#ifndef GW_CHECKSUM_H
#define GW_CHECKSUM_H

#include "gw_link.h"
#include "gw_rewrite.h"

/* No frame is longer: XDP has it in one page. */
#define GW_FRAME_MASK 0xFFF
/* More than bpf_csum_diff() takes at once before Linux 6.13. */
#define GW_CSUM_CHUNK 512

/* The sum of the addresses of a pseudo header, its protocol and its length. */
static __always_inline __u16 gw_pseudo_sum(const __u32 *addrs, int words, __u8 proto, __u32 len)
{
	__u64 sum = (__u64)bpf_htons(proto) + bpf_htons(len);

#pragma unroll
	for (int i = 0; i < words; i++)
		sum += addrs[i];
	sum = (sum & 0xFFFF) + (sum >> 16 & 0xFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return (sum & 0xFFFF) + (sum >> 16);
}

/* The next `n` bytes of the segment; the mask keeps what the verifier knows of the place alike on every way. */
#define GW_SUM_NEXT(n)                                            \
	do {                                                      \
		void *p = data + (at & GW_FRAME_MASK);            \
                                                                  \
		if (p + (n) > end)                                \
			return false;                             \
		sum = (__u32)bpf_csum_diff(NULL, 0, p, (n), sum); \
		at = (at + (n)) & GW_FRAME_MASK;                  \
	} while (0)

/*
 * Completes the checksum of the segment of `len` bytes at `at` of the frame; its field is `field` bytes further. Only
 * for frames that are sent or dropped: a socket buffer that the kernel gets back would be completed once more.
 */
static __always_inline bool gw_complete_checksum(struct xdp_md *ctx, __u32 at, __u32 len, __u32 field, bool udp)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u16 *check = data + ((at + field) & GW_FRAME_MASK);
	__u32 sum = 0;
	__u8 *tail;

	if (len > GW_FRAME_MASK || (void *)(check + 1) > end)
		return false;
#pragma unroll
	for (__u32 bit = 2048; bit; bit >>= 1) {
		if (!(len & bit))
			continue;
		if (bit >= 4) {
#pragma unroll
			for (__u32 i = 0; i < 2048; i += GW_CSUM_CHUNK)
				if (i < bit)
					GW_SUM_NEXT(bit < GW_CSUM_CHUNK ? bit : GW_CSUM_CHUNK);
			continue;
		}
		tail = data + (at & GW_FRAME_MASK);
		if (tail + bit > (__u8 *)end)
			return false;
		/* An odd byte is the first of its word. */
		sum = (sum & 0xFFFF) + (sum >> 16) + (bit == 2 ? *(__u16 *)tail : *tail);
		at = (at + bit) & GW_FRAME_MASK;
	}
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = ~sum & 0xFFFF;
	*check = udp && !sum ? 0xFFFF : sum;
	return true;
}

/* From now on all packets are looked at, as when a worker has seen a partial checksum. */
static __always_inline void gw_expect_partial(void)
{
	if (!(GW_READ_ONCE(gw_shared.control.fast_path) & GW_FAST_PATH_SUMS))
		__sync_fetch_and_or(&gw_shared.control.fast_path, GW_FAST_PATH_SUMS);
}

/*
 * Completes the checksum of a TCP or UDP packet without options whose IP header is at `l3` of the frame, if it is
 * partial. False: it is, and a worker has to do it. A program of its own to the verifier.
 */
__noinline int gw_complete(struct xdp_md *ctx, __u32 l3)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct gw_port *port;
	struct gw_ip6 *ip6;
	struct gw_ip4 *ip;
	__u32 len, at, field;
	__u16 sum, *check;
	__u8 proto;

	l3 &= 0xFF;
	ip = data + l3;
	ip6 = data + l3;
	if ((void *)(ip + 1) > end)
		return true;
	if (ip->version_ihl == 0x45) {
		proto = ip->proto;
		len = bpf_ntohs(ip->len) - sizeof(*ip);
		at = l3 + sizeof(*ip);
		sum = gw_pseudo_sum(&ip->src, 2, proto, len);
	} else {
		if ((void *)(ip6 + 1) > end)
			return true;
		proto = ip6->next;
		len = bpf_ntohs(ip6->payload);
		at = l3 + sizeof(*ip6);
		sum = gw_pseudo_sum(ip6->src, 8, proto, len);
	}
	if (proto == GW_TCP)
		field = __builtin_offsetof(struct gw_tcp, check);
	else if (proto == GW_UDP)
		field = __builtin_offsetof(struct gw_l4, check);
	else
		return true;
	check = data + at + field;
	if ((void *)(check + 1) > end || *check != sum)
		return true;
	port = gw_device(ctx->ingress_ifindex);
	/* A socket buffer is sent with what it says of its checksum, whatever the field holds. */
	if (!port || port->flags & GW_PORT_SKB) {
		gw_expect_partial();
		return false;
	}
	if (!gw_complete_checksum(ctx, at, len, field, proto == GW_UDP))
		return false;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	check = data + at + field;
	/* One in 65,536 complete ones looks like a partial one, and stays as it is. */
	if ((void *)(check + 1) <= end && *check != sum)
		gw_expect_partial();
	return true;
}

/* First packets of a flow that are looked at in any case, and `packets` of a packet whose record is not at hand. */
#define GW_SUMS_LOOKS 8
#define GW_SUMS_NO_LOOK (~0ULL)

/*
 * Whether the packet at `l3` of the frame, which is to be sent, has the checksum that it goes with. `packets` of its flow
 * came before. Costs two comparisons until a partial one was seen. Workers see the first packet, which may be complete where
 * later ones are not: a router that merges segments and takes them apart again leaves their checksums to the device.
 */
static __always_inline bool gw_checksummed_at(struct xdp_md *ctx, __u32 l3, __u64 packets)
{
	if (likely(!(GW_READ_ONCE(gw_shared.control.fast_path) & GW_FAST_PATH_SUMS) && packets >= GW_SUMS_LOOKS))
		return true;
	return gw_complete(ctx, l3);
}

static __always_inline bool gw_checksummed(struct xdp_md *ctx, const void *data, const void *l3, __u64 packets)
{
	return gw_checksummed_at(ctx, l3 - data, packets);
}

#endif /* GW_CHECKSUM_H */
