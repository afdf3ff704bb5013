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

/* Verdicts of gw_meter_one_rate() beside the mark. Both leave everything as it was. */
#define GW_METER_UNDECIDED -1 /* gw_metered() decides */
#define GW_METER_CONTENDED -2 /* another CPU charges the meter: gw_meter_ahead() */

/*
 * The same for a group of one rate without a committed one, which most are: the mark if the packet passes by the coarse
 * clock at the first attempt, or by what this CPU has charged ahead.
 */
static __always_inline int gw_meter_one_rate(__u32 no, __u32 ip_len, struct gw_stats *stats)
{
	struct gw_meter_group *group = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u64 at, old, next, rates, bytes, time;
	struct gw_meter *m;
	__u32 only;

	if (!group)
		return GW_METER_UNDECIDED;
	/* The CAR, or the first link, and nothing behind it. */
	rates = *(__u64 *)&group->car;
	only = rates & 0xFFFF ?: rates >> 16;
	if (only > 0xFFFF || (rates & 0xFFFF && rates >> 16))
		return GW_METER_UNDECIDED;
	m = bpf_map_lookup_elem(&gw_meters, &only);
	if (!m || m->committed_cost)
		return GW_METER_UNDECIDED;
	gw_now(stats);
	at = stats->nanos << GW_UNIT_SHIFT;
	bytes = ip_len + group->overhead;
	time = gw_time_of(bytes, m->cost);
	if (stats->ahead_group == no) {
		if (stats->ahead < time)
			return GW_METER_CONTENDED;
		stats->ahead -= time;
	} else {
		old = GW_METER_LOAD(m->tat);
		next = gw_after(old, time, at + ((__u64)group->slack << GW_UNIT_SHIFT));
		if (gw_before(at + (rates & 0xFFFF ? m->burst : group->borrow_limit[0]), next))
			return GW_METER_UNDECIDED;
		if (__sync_val_compare_and_swap(&m->tat, old, next) != old)
			return GW_METER_CONTENDED;
	}
	gw_count_passed(no, bytes);
	return group->remark;
}

/*
 * A meter of one rate that several CPUs charge at the same time: its line goes from one to the other for every packet. So
 * this CPU charges it for the next packets, too, which then look at this CPU's memory alone. What passes is charged before,
 * so no more passes than the rate allows; a packet of later may be one that was charged for up to GW_AHEAD_NANOS of the rate
 * ago. With the next jiffy the meter is charged for single packets again, until another CPU comes between.
 */
__noinline int gw_meter_ahead(__u32 no, __u32 ip_len)
{
	struct gw_meter_group *group = bpf_map_lookup_elem(&gw_meter_sets, &no);
	__u32 zero = 0, only;
	struct gw_stats *stats = bpf_map_lookup_elem(&gw_stats, &zero);
	__u64 at, old, seen, next, limit, base, bytes, time, ahead;
	struct gw_meter *m;
	bool mine, now;
	int i;

	if (!group || !stats)
		return GW_METER_UNDECIDED;
	mine = stats->ahead_group == no;
	now = stats->ahead_nanos == stats->nanos;
	if (mine && !now)
		stats->ahead_group = 0;
	/* In a jiffy a CPU charges ahead for one group: what is left for another is not thrown away. */
	if (mine != now)
		return GW_METER_UNDECIDED;
	only = group->car ?: group->links[0];
	m = bpf_map_lookup_elem(&gw_meters, &only);
	if (!m)
		return GW_METER_UNDECIDED;
	bytes = ip_len + group->overhead;
	time = gw_time_of(bytes, m->cost);
	ahead = time * GW_AHEAD_PACKETS;
	if (ahead > (__u64)GW_AHEAD_NANOS << GW_UNIT_SHIFT)
		ahead = (__u64)GW_AHEAD_NANOS << GW_UNIT_SHIFT;
	at = stats->nanos << GW_UNIT_SHIFT;
	base = at + ((__u64)group->slack << GW_UNIT_SHIFT);
	limit = at + (group->car ? m->burst : group->borrow_limit[0]);
	old = GW_METER_LOAD(m->tat);
	for (i = 0; i < GW_METER_TRIES; i++) {
		next = gw_after(old, time + ahead, base);
		if (gw_before(limit, next))
			return GW_METER_UNDECIDED;
		seen = __sync_val_compare_and_swap(&m->tat, old, next);
		if (seen == old) {
			stats->ahead = (mine ? stats->ahead : 0) + ahead;
			stats->ahead_nanos = stats->nanos;
			stats->ahead_group = no;
			gw_count_passed(no, bytes);
			return group->remark;
		}
		old = seen;
	}
	return GW_METER_UNDECIDED;
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
	mark = fast ? gw_meter_one_rate(no, f->ip_len, f->stats) : GW_METER_UNDECIDED;
	if (unlikely(mark == GW_METER_CONTENDED))
		mark = gw_meter_ahead(no, f->ip_len);
	return mark < 0 ? gw_metered(no, f->ip_len) : mark;
}

#endif /* GW_POLICE_H */
