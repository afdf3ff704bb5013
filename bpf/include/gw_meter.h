/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Meters: the same arithmetic as sag_pipeline::qos::meter, on the same memory.
 */
#ifndef GW_METER_H
#define GW_METER_H

#include "gw_abi.h"

#define GW_METER_LOAD(x) (*(const volatile typeof(x) *)&(x))
/* Races that a charge loses before it adds first and looks afterwards. */
#define GW_METER_TRIES 4
/* How much a CPU charges ahead where others charge the same meter: packets, and no more of the rate than these nanoseconds. */
#define GW_AHEAD_PACKETS 63
#define GW_AHEAD_NANOS 2048

/* Whether moment `a` is before `b`; they are compared by their difference. */
static __always_inline bool gw_before(__u64 a, __u64 b)
{
	return (__s64)(a - b) < 0;
}

/* Time of a packet, rounded up. */
static __always_inline __u64 gw_time_of(__u32 bytes, __u64 cost)
{
	return (bytes * cost + ((1ULL << GW_COST_SHIFT) - 1)) >> GW_COST_SHIFT;
}

/* Where a rate would stand after a packet: never behind `base`, which is now. */
static __always_inline __u64 gw_after(__u64 tat, __u64 time, __u64 base)
{
	return (gw_before(tat, base) ? base : tat) + time;
}

static __always_inline bool gw_fits(const __u64 *tat, __u64 time, __u64 base, __u64 limit)
{
	return !gw_before(limit, gw_after(GW_METER_LOAD(*tat), time, base));
}

/* Lets a packet pass if the rate allows it. */
static __always_inline bool gw_charge(__u64 *tat, __u64 time, __u64 base, __u64 limit)
{
	__u64 old = GW_METER_LOAD(*tat), seen, next;
	int i;

	for (i = 0; i < GW_METER_TRIES; i++) {
		next = gw_after(old, time, base);
		if (gw_before(limit, next))
			return false;
		seen = __sync_val_compare_and_swap(tat, old, next);
		if (seen == old)
			return true;
		old = seen;
	}
	/* Many cores at it: charge first, and give back what was too much. Others may see less than
	 * there is for that long, never more. */
	next = __sync_fetch_and_add(tat, time) + time;
	if (!gw_before(limit, next))
		return true;
	__sync_fetch_and_add(tat, -time);
	return false;
}

static __always_inline struct gw_meter *gw_meter_of(void *meters, __u32 no)
{
	return no ? bpf_map_lookup_elem(meters, &no) : NULL;
}

/*
 * A packet of so many bytes through a group of meters at `now` nanoseconds, by a clock that may be
 * `slack` behind. 0, or the reason why it is dropped. First a look at all rates, then the charge: a
 * packet that is dropped is charged nowhere, unless another core comes between.
 */
static __always_inline __u32 gw_police(void *meters, const struct gw_meter_group *group, __u32 bytes, __u64 now,
				       __u64 slack)
{
	__u64 base = (now + slack) << GW_UNIT_SHIFT, at = now << GW_UNIT_SHIFT;
	struct gw_meter *car = gw_meter_of(meters, group->car), *link[GW_GROUP_LINKS];
	__u64 limit[GW_GROUP_LINKS];
	bool committed = false;
	int i;

	if (car) {
		if (!gw_fits(&car->tat, gw_time_of(bytes, car->cost), base, at + car->burst))
			return GW_DROP_CAR_EXCEEDED;
		if (car->committed_cost)
			committed = gw_charge(&car->committed_tat, gw_time_of(bytes, car->committed_cost), base,
					      at + car->committed_burst);
	}
#pragma unroll
	for (i = 0; i < GW_GROUP_LINKS; i++) {
		link[i] = gw_meter_of(meters, group->links[i]);
		if (!link[i])
			continue;
		/* Within the committed rate it passes whatever the link has left, and is charged to it. */
		limit[i] = at + (committed ? GW_MAX_DEBT : group->borrow_limit[i]);
		if (!gw_fits(&link[i]->tat, gw_time_of(bytes, link[i]->cost), base, limit[i]))
			return GW_DROP_LINK_EXCEEDED;
	}
#pragma unroll
	for (i = 0; i < GW_GROUP_LINKS; i++)
		if (link[i] && !gw_charge(&link[i]->tat, gw_time_of(bytes, link[i]->cost), base, limit[i]))
			return GW_DROP_LINK_EXCEEDED;
	if (car && !gw_charge(&car->tat, gw_time_of(bytes, car->cost), base, at + car->burst))
		return GW_DROP_CAR_EXCEEDED;
	return 0;
}

#endif /* GW_METER_H */
