/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The meters of a flow, executed. A program of its own to the verifier.
 */
#ifndef GW_POLICE_H
#define GW_POLICE_H

#include "gw_forward.h"
#include "gw_maps.h"
#include "gw_meter.h"

/*
 * The coarse clock says most of the time that a packet passes, at no cost. It is behind, so it never
 * lets too much pass; where it refuses, the precise one has the last word.
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
			__sync_fetch_and_add(&set->passed_bytes, bytes);
			return 0;
		}
		now = bpf_ktime_get_ns();
		slack = 0;
	}
	if (verdict == GW_DROP_CAR_EXCEEDED)
		__sync_fetch_and_add(&set->car_dropped_bytes, bytes);
	else
		__sync_fetch_and_add(&set->link_dropped_bytes, bytes);
	return verdict;
}

#endif /* GW_POLICE_H */
