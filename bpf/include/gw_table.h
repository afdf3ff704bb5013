/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow table as the program reads it: hash, two buckets of the live index, records. The daemon
 * is the only writer of keys and index words (crates/model/src/flow/key.rs has the same hash).
 */
#ifndef GW_TABLE_H
#define GW_TABLE_H

#include "gw_maps.h"
#include "gw_packet.h"

#define GW_HASH_M1 0x9E3779B97F4A7C15ULL
#define GW_HASH_M2 0xD6E8FEB86659FD93ULL
#define GW_RECORD_BITS 24
#define GW_RECORD_MASK ((1u << GW_RECORD_BITS) - 1)
#define GW_BUCKET_WORDS 16

#define GW_READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

/* Whether XDP forwards established flows by itself. */
static __always_inline bool gw_fast_path_on(void)
{
	return GW_READ_ONCE(gw_shared.control.fast_path) & GW_FAST_PATH_ON;
}
#define GW_WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))

struct gw_key4 {
	__u64 addrs;
	__u64 l4;
};

struct gw_key6 {
	__u64 src[2];
	__u64 dst[2];
	__u64 l4;
};

static __always_inline __u64 gw_l4_word(__u32 ports, __u8 proto, __u8 zone)
{
	return ports | (__u64)proto << 32 | (__u64)zone << 40;
}

/* Such a word without the ingress above it, shifted, which is one instruction. */
static __always_inline __u64 gw_key_l4(__u64 l4)
{
	return l4 << 16;
}

static __always_inline __u64 gw_mix(__u64 h, __u64 word, __u64 m)
{
	h = (h ^ word) * m;
	return h ^ h >> 32;
}

/*
 * The direction of a packet (from the LAN, or from outside) chooses between pages of the index: bit 6 for the first bucket,
 * bit 30, inverted, for the second. Where traffic flows in one direction, the index words of the other take no cache.
 */
#define GW_HASH_DIRECTION (1ULL << 6 | 1ULL << 30)

static __always_inline __u64 gw_partition_by_direction(__u64 h, __u64 l4)
{
	return (h & ~GW_HASH_DIRECTION) | (l4 >> 41 & 1 ? 1ULL << 6 : 1ULL << 30);
}

static __always_inline __u64 gw_hash4(const struct gw_key4 *k, __u64 seed)
{
	__u64 h = gw_mix(gw_mix(seed, k->addrs, GW_HASH_M1), gw_key_l4(k->l4), GW_HASH_M2);

	return gw_partition_by_direction(gw_mix(h, 0, GW_HASH_M1), k->l4);
}

static __always_inline __u64 gw_hash6(const struct gw_key6 *k, __u64 seed)
{
	__u64 h = gw_mix(gw_mix(seed, k->src[0], GW_HASH_M1), k->src[1], GW_HASH_M2);

	h = gw_mix(gw_mix(h, k->dst[0], GW_HASH_M1), k->dst[1], GW_HASH_M2);
	return gw_partition_by_direction(gw_mix(gw_mix(h, gw_key_l4(k->l4), GW_HASH_M1), 0, GW_HASH_M2), k->l4);
}

/* Whether the addresses are the record's. */
static __always_inline bool gw_same6(const struct gw_flow6 *r, const struct gw_key6 *k)
{
	const __u64 *src = (const __u64 *)r->saddr, *dst = (const __u64 *)r->daddr;

	return src[0] == k->src[0] && src[1] == k->src[1] && dst[0] == k->dst[0] && dst[1] == k->dst[1];
}

/* Whether a packet of the key comes in as those of the record do: `l4` is that word of its key, with its ingress. */
static __always_inline bool gw_same_ingress(__u64 key_l4, __u64 l4)
{
	return key_l4 == l4;
}

static __always_inline struct gw_flow4 *gw_scan4(__u32 at, __u32 tag, const struct gw_key4 *key, __u32 *found)
{
	struct gw_bucket *b = bpf_map_lookup_elem(&gw_index4, &at);
	struct gw_flow4 *r;
	int i;

	if (!b)
		return NULL;
	for (i = 0; i < GW_BUCKET_WORDS; i++) {
		__u32 word = GW_READ_ONCE(b->word[i]), n = word & GW_RECORD_MASK;

		if (word >> GW_RECORD_BITS != tag)
			continue;
		r = bpf_map_lookup_elem(&gw_flows4, &n);
		if (r && r->key_addrs == key->addrs && gw_key_l4(r->key_l4) == gw_key_l4(key->l4)) {
			*found = n;
			return r;
		}
	}
	return NULL;
}

static __always_inline struct gw_flow4 *gw_find4(const struct gw_key4 *key, __u32 *found)
{
	const struct gw_control *c = &gw_shared.control;
	__u64 hash = gw_hash4(key, c->seed), live = GW_READ_ONCE(c->index4);
	__u32 base = live, mask = live >> 32;
	struct gw_flow4 *r = gw_scan4(base + ((__u32)hash & mask), hash >> 56, key, found);

	return r ?: gw_scan4(base + ((__u32)(hash >> 24) & mask), hash >> 56, key, found);
}

/* A word less its tag is a record number, if the tag is the one looked for. */
#define GW_IS_RECORD(n) ((n) <= GW_RECORD_MASK)

/* The record of the first word of a bucket that has the tag; no record if none has. */
static __always_inline __u32 gw_first_tagged(const struct gw_bucket *b, __u32 tag)
{
#pragma unroll
	for (int i = 0; i < GW_BUCKET_WORDS; i++) {
		__u32 n = GW_READ_ONCE(b->word[i]) ^ tag;

		if (GW_IS_RECORD(n))
			return n;
	}
	return ~0u;
}

/*
 * The fast path looks here: the number of the one record worth comparing, any number if there is none. The
 * daemon puts a word where its hash wants it if it can, so the first guess is mostly right and the
 * branch predicted.
 */
static __always_inline __u32 gw_peek(void *index, __u64 hash, __u64 live)
{
	__u32 base = live, mask = live >> 32, at = base + ((__u32)hash & mask), tag = hash >> 56 << GW_RECORD_BITS, n;
	struct gw_bucket *b = bpf_map_lookup_elem(index, &at);

	if (!b)
		return ~0u;
	n = GW_READ_ONCE(b->word[hash >> 52 & (GW_BUCKET_WORDS - 1)]) ^ tag;
	if (GW_IS_RECORD(n))
		return n;
	n = gw_first_tagged(b, tag);
	if (GW_IS_RECORD(n))
		return n;
	at = base + ((__u32)(hash >> 24) & mask);
	b = bpf_map_lookup_elem(index, &at);
	return b ? gw_first_tagged(b, tag) : ~0u;
}

static __always_inline struct gw_flow4 *gw_peek4(const struct gw_control *c, const struct gw_key4 *key)
{
	__u32 n = gw_peek(&gw_index4, gw_hash4(key, c->seed), GW_READ_ONCE(c->index4));

	return bpf_map_lookup_elem(&gw_flows4, &n);
}

static __always_inline struct gw_flow6 *gw_peek6(const struct gw_control *c, const struct gw_key6 *key)
{
	__u32 n = gw_peek(&gw_index6, gw_hash6(key, c->seed), GW_READ_ONCE(c->index6));

	return bpf_map_lookup_elem(&gw_flows6, &n);
}

static __always_inline struct gw_flow6 *gw_scan6(__u32 at, __u32 tag, const struct gw_key6 *key, __u32 *found)
{
	struct gw_bucket *b = bpf_map_lookup_elem(&gw_index6, &at);
	struct gw_flow6 *r;
	int i;

	if (!b)
		return NULL;
	for (i = 0; i < GW_BUCKET_WORDS; i++) {
		__u32 word = GW_READ_ONCE(b->word[i]), n = word & GW_RECORD_MASK;

		if (word >> GW_RECORD_BITS != tag)
			continue;
		r = bpf_map_lookup_elem(&gw_flows6, &n);
		if (r && gw_key_l4(r->key_l4) == gw_key_l4(key->l4) && gw_same6(r, key)) {
			*found = n;
			return r;
		}
	}
	return NULL;
}

static __always_inline struct gw_flow6 *gw_find6(const struct gw_key6 *key, __u32 *found)
{
	const struct gw_control *c = &gw_shared.control;
	__u64 hash = gw_hash6(key, c->seed), live = GW_READ_ONCE(c->index6);
	__u32 base = live, mask = live >> 32;
	struct gw_flow6 *r = gw_scan6(base + ((__u32)hash & mask), hash >> 56, key, found);

	return r ?: gw_scan6(base + ((__u32)(hash >> 24) & mask), hash >> 56, key, found);
}

/* Whether a packet without a session of its family may be of a NAT64 session. */
static __always_inline bool gw_nat64_on(__u8 punt)
{
	return punt == GW_PUNT_MISS && GW_READ_ONCE(gw_shared.control.fast_path) & GW_FAST_PATH_NAT64;
}

/*
 * The record of the NAT64 session that an IPv4 packet belongs to, 0 = none or not where its hash wants it. It is in the
 * table of IPv6, under addresses of ::ffff:0:0/96 (crates/pipeline/src/family.rs). A program of its own to the verifier,
 * for which a look at one record is cheap.
 */
__noinline __u32 gw_find64(__u64 addrs, __u64 l4, __u8 punt)
{
	__u8 proto = l4 >> 32;
	struct gw_key6 key = {
		.src = { 0, addrs << 32 | 0xFFFF0000 },
		.dst = { 0, addrs >> 32 << 32 | 0xFFFF0000 },
		.l4 = l4,
	};
	const struct gw_control *c = &gw_shared.control;
	struct gw_flow6 *r;
	__u32 n;

	if (!gw_nat64_on(punt))
		return 0;
	if (proto == GW_ICMP6)
		return 0;
	if (proto == GW_ICMP)
		key.l4 ^= (__u64)(GW_ICMP ^ GW_ICMP6) << 32;
	n = gw_peek(&gw_index6, gw_hash6(&key, c->seed), GW_READ_ONCE(c->index6));
	r = bpf_map_lookup_elem(&gw_flows6, &n);
	return r && gw_key_l4(r->key_l4) == gw_key_l4(key.l4) && gw_same6(r, &key) ? n : 0;
}

#endif /* GW_TABLE_H */
