// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Frames that XDP has sent and the kernel or the driver of the device has not taken. XDP counts them as forwarded: what
 * becomes of a redirect is decided after the program has ended. Two tracepoints tell: one of each flush of up to 16
 * frames, which returns at once if none was lost, and one of redirects that fail before they are queued.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define GW_LOST_MAX 1024

/* What is read of the kernel's structures; where it is comes from the running kernel's BTF. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
};
#pragma clang attribute pop

/* Either the interface, or the device's slot in the map of devices with GW_LOST_SLOT. */
#define GW_LOST_SLOT (1u << 31)

struct gw_lost_key {
	__u32 device;
	__s32 error; /* -errno; 0: the device's queue was full */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, GW_LOST_MAX);
	__type(key, struct gw_lost_key);
	__type(value, __u64);
} gw_lost SEC(".maps");

/* The network namespace of the gateway, and its map of devices: other XDP programs lose frames of their own. */
const volatile __u32 gw_netns;
const volatile __u32 gw_devs_id;

static __always_inline int gw_note(__u32 device, __s32 error, __u64 frames)
{
	struct gw_lost_key key = { .device = device, .error = error };
	__u64 *count = bpf_map_lookup_elem(&gw_lost, &key), none = 0;

	if (!count) {
		bpf_map_update_elem(&gw_lost, &key, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(&gw_lost, &key);
	}
	if (count)
		__sync_fetch_and_add(count, frames);
	return 0;
}

/* from, to, sent, drops, error */
SEC("tp_btf/xdp_devmap_xmit")
int gw_devmap_xmit(__u64 *ctx)
{
	const struct net_device *to = (void *)ctx[1];
	__s32 drops = ctx[3];

	if (drops <= 0 || to->nd_net.net->ns.inum != gw_netns)
		return 0;
	return gw_note(to->ifindex, ctx[4], drops);
}

/* device, program, target, error, type of the map, its number, index */
SEC("tp_btf/xdp_redirect_err")
int gw_redirect_err(__u64 *ctx)
{
	if ((__u32)ctx[5] != gw_devs_id)
		return 0;
	return gw_note((__u32)ctx[6] | GW_LOST_SLOT, ctx[3], 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
