/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The meters of a flow, executed. A program of its own to the verifier.
 */
#ifndef GW_POLICE_H
#define GW_POLICE_H

#include "gw_forward.h"
#include "gw_maps.h"
#include "gw_meter.h"

static __always_inline void gw_count_passed(__u32 set, __u32 bytes)
{
	__u32 at = bpf_get_smp_processor_id() * GW_METER_SETS + set;
	__u64 *passed = bpf_map_lookup_elem(&gw_passed, &at);

	if (passed)
		*passed += bytes;
}

/*
 * The coarse clock says most of the time that a packet passes, at no cost. It is behind, so it never
 * lets too much pass; where it refuses, the precise one has the last word.
 *
 * The mark of a packet that passes (0: none), or minus the reason why it does not.
 */
__noinline int gw_metered(__u32 no, __u32 ip_len)
{
	struct gw_meter_set *set = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u32 zero = 0, bytes, verdict;
	struct gw_stats *stats = bpf_map_lookup_elem(&gw_stats, &zero);
	__u64 now, slack;
	int i;

	if (!set || !stats || !no)
		return 0;
	bytes = ip_len + set->overhead;
	gw_now(stats);
	now = stats->nanos;
	slack = set->slack;
	for (i = 0; i < 2; i++) {
		verdict = gw_police(&gw_meters, set, bytes, now, slack);
		if (!verdict) {
			gw_count_passed(no, bytes);
			return set->remark;
		}
		now = bpf_ktime_get_ns();
		slack = 0;
	}
	if (verdict == GW_DROP_CAR_EXCEEDED)
		__sync_fetch_and_add(&set->car_dropped_bytes, bytes);
	else
		__sync_fetch_and_add(&set->link_dropped_bytes, bytes);
	return -(int)verdict;
}

/*
 * The same for a set of one rate without a floor, on the way of the many: the mark if the packet passes by the
 * coarse clock at the first attempt. -1 leaves everything as it was, and the question to gw_metered().
 */
static __always_inline int gw_passes_one(__u32 no, __u32 ip_len, struct gw_stats *stats)
{
	struct gw_meter_set *set = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u64 at, old, next, rates, bytes;
	struct gw_meter *m;
	__u32 only;

	if (!set)
		return -1;
	/* The CAR, or the first link, and nothing behind it. */
	rates = *(__u64 *)&set->car;
	only = rates & 0xFFFF ?: rates >> 16;
	if (only > 0xFFFF || (rates & 0xFFFF && rates >> 16))
		return -1;
	m = bpf_map_lookup_elem(&gw_meters, &only);
	if (!m || m->floor_cost)
		return -1;
	gw_now(stats);
	at = stats->nanos << GW_UNIT_SHIFT;
	bytes = ip_len + set->overhead;
	old = GW_METER_LOAD(m->tat);
	next = gw_after(old, gw_time_of(bytes, m->cost), at + ((__u64)set->slack << GW_UNIT_SHIFT));
	if (gw_before(at + (rates & 0xFFFF ? m->burst : set->window[0]), next) ||
	    __sync_val_compare_and_swap(&m->tat, old, next) != old)
		return -1;
	gw_count_passed(no, bytes);
	return set->remark;
}

/* On the general path. */
static __always_inline int gw_meter(struct gw_packet *pkt, struct gw_order *o, __u32 ip_len)
{
	int mark = gw_metered(o->meter, ip_len);

	if (mark < 0)
		return gw_drop(pkt, -mark);
	o->mark = mark;
	return GW_CONTINUE;
}

#endif /* GW_POLICE_H */
