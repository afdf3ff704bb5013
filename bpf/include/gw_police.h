/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The meters of a flow, executed. A program of its own to the verifier.
 */
#ifndef GW_POLICE_H
#define GW_POLICE_H

#include "gw_check.h"
#include "gw_maps.h"
#include "gw_meter.h"

static __always_inline void gw_count_passed(__u32 group, __u32 bytes)
{
	__u32 at = bpf_get_smp_processor_id() * GW_METER_GROUPS + group;
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
	struct gw_meter_group *group = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u32 zero = 0, bytes, verdict;
	struct gw_stats *stats = bpf_map_lookup_elem(&gw_stats, &zero);
	__u64 now, slack;
	int i;

	if (!group || !stats || !no)
		return 0;
	bytes = ip_len + group->overhead;
	gw_now(stats);
	now = stats->nanos;
	slack = group->slack;
	for (i = 0; i < 2; i++) {
		verdict = gw_police(&gw_meters, group, bytes, now, slack);
		if (!verdict) {
			gw_count_passed(no, bytes);
			return group->remark;
		}
		now = bpf_ktime_get_ns();
		slack = 0;
	}
	if (verdict == GW_DROP_CAR_EXCEEDED)
		__sync_fetch_and_add(&group->car_dropped_bytes, bytes);
	else
		__sync_fetch_and_add(&group->link_dropped_bytes, bytes);
	return -(int)verdict;
}

/*
 * The same for a group of one rate without a committed one, which most are: the mark if the packet passes by the coarse
 * clock at the first attempt. -1 leaves everything as it was: gw_metered() decides.
 */
static __always_inline int gw_meter_one_rate(__u32 no, __u32 ip_len, struct gw_stats *stats)
{
	struct gw_meter_group *group = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u64 at, old, next, rates, bytes;
	struct gw_meter *m;
	__u32 only;

	if (!group)
		return -1;
	/* The CAR, or the first link, and nothing behind it. */
	rates = *(__u64 *)&group->car;
	only = rates & 0xFFFF ?: rates >> 16;
	if (only > 0xFFFF || (rates & 0xFFFF && rates >> 16))
		return -1;
	m = bpf_map_lookup_elem(&gw_meters, &only);
	if (!m || m->committed_cost)
		return -1;
	gw_now(stats);
	at = stats->nanos << GW_UNIT_SHIFT;
	bytes = ip_len + group->overhead;
	old = GW_METER_LOAD(m->tat);
	next = gw_after(old, gw_time_of(bytes, m->cost), at + ((__u64)group->slack << GW_UNIT_SHIFT));
	if (gw_before(at + (rates & 0xFFFF ? m->burst : group->borrow_limit[0]), next) ||
	    __sync_val_compare_and_swap(&m->tat, old, next) != old)
		return -1;
	gw_count_passed(no, bytes);
	return group->remark;
}

/*
 * The last check before the packet is changed, of flows with meters: is it within its rates? The mark that it gets
 * (0: none), or minus the reason why it is dropped. `fast`: the attempt at one rate comes first, inline.
 */
static __always_inline int gw_meter(const struct gw_fwd_ctx *f, bool fast)
{
	__u32 no = GW_ACTION_METER(f->action);
	int mark;

	if (!GW_ACTION_HAS(f->action, GW_FLOW_METER))
		return 0;
	mark = fast ? gw_meter_one_rate(no, f->ip_len, f->stats) : -1;
	return mark < 0 ? gw_metered(no, f->ip_len) : mark;
}

#endif /* GW_POLICE_H */
