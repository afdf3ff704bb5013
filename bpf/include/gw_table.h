/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The flow table as the program reads it: hash, two buckets of the live index, records. The daemon
 * is the only writer of keys and index words (crates/model/src/flow.rs has the same hash).
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

static __always_inline __u64 gw_mix(__u64 h, __u64 word, __u64 m)
{
	h = (h ^ word) * m;
	return h ^ h >> 32;
}

static __always_inline __u64 gw_hash4(const struct gw_key4 *k, __u64 seed)
{
	__u64 h = gw_mix(gw_mix(seed, k->addrs, GW_HASH_M1), k->l4, GW_HASH_M2);

	return gw_mix(h, 0, GW_HASH_M1);
}

static __always_inline __u64 gw_hash6(const struct gw_key6 *k, __u64 seed)
{
	__u64 h = gw_mix(gw_mix(seed, k->src[0], GW_HASH_M1), k->src[1], GW_HASH_M2);

	h = gw_mix(gw_mix(h, k->dst[0], GW_HASH_M1), k->dst[1], GW_HASH_M2);
	return gw_mix(gw_mix(h, k->l4, GW_HASH_M1), 0, GW_HASH_M2);
}

static __always_inline bool gw_same6(const struct gw_flow6 *r, const struct gw_key6 *k)
{
	const __u64 *src = (const __u64 *)r->saddr, *dst = (const __u64 *)r->daddr;

	return r->key_l4 == k->l4 && src[0] == k->src[0] && src[1] == k->src[1] &&
	       dst[0] == k->dst[0] && dst[1] == k->dst[1];
}

static __always_inline struct gw_flow4 *gw_scan4(__u32 at, __u32 tag, const struct gw_key4 *key,
						 __u32 *found)
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
		if (r && r->key_addrs == key->addrs && r->key_l4 == key->l4) {
			*found = n;
			return r;
		}
	}
	return NULL;
}

static __always_inline struct gw_flow4 *gw_find4(const struct gw_control *c, const struct gw_key4 *key,
						 __u32 *found)
{
	__u64 hash = gw_hash4(key, c->seed);
	__u32 base = GW_READ_ONCE(c->index4_base), mask = GW_READ_ONCE(c->index4_mask);
	struct gw_flow4 *r = gw_scan4(base + ((__u32)hash & mask), hash >> 56, key, found);

	return r ?: gw_scan4(base + ((__u32)(hash >> 24) & mask), hash >> 56, key, found);
}

static __always_inline struct gw_flow6 *gw_scan6(__u32 at, __u32 tag, const struct gw_key6 *key,
						 __u32 *found)
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
		if (r && gw_same6(r, key)) {
			*found = n;
			return r;
		}
	}
	return NULL;
}

static __always_inline struct gw_flow6 *gw_find6(const struct gw_control *c, const struct gw_key6 *key,
						 __u32 *found)
{
	__u64 hash = gw_hash6(key, c->seed);
	__u32 base = GW_READ_ONCE(c->index6_base), mask = GW_READ_ONCE(c->index6_mask);
	struct gw_flow6 *r = gw_scan6(base + ((__u32)hash & mask), hash >> 56, key, found);

	return r ?: gw_scan6(base + ((__u32)(hash >> 24) & mask), hash >> 56, key, found);
}

#endif /* GW_TABLE_H */
