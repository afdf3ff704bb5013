// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The meters' arithmetic with everything given, time included: for comparing it with that of the
 * workers, number by number.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gw_meter.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct gw_meter);
} lab_meters SEC(".maps");

struct lab_case {
	struct gw_meter_group group;
	__u64 now;
	__u64 slack;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lab_case);
} lab_case SEC(".maps");

/* 0, or the reason. */
SEC("xdp")
int lab_police(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 zero = 0;
	struct lab_case *c = bpf_map_lookup_elem(&lab_case, &zero);

	return c ? gw_police(&lab_meters, &c->group, c->bytes, c->now, c->slack) : 255;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
