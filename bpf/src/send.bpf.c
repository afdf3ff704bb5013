// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Sends a batch of frames that a worker has written to memory that it shares with this program, which BPF_PROG_TEST_RUN
 * runs once for all of them. By AF_XDP in copy mode a frame for a veth device is sent and received before the next one:
 * the NAPI of the device's peer runs for each. Softirqs wait while this program runs (since Linux 6.10), so here it runs
 * once for the batch.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

/* FRAMES and FRAME_BYTES of send.rs. */
#define GW_SEND_FRAMES 64
#define GW_SEND_BYTES 2032

struct gw_send_slot {
	__u32 ifindex;
	__u16 len;  /* 0 behind the last frame */
	__u16 left; /* not 0: the frame was not sent; cleared by the program */
	__u64 unused;
	__u8 frame[GW_SEND_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_SEND_FRAMES);
	__type(key, __u32);
	__type(value, struct gw_send_slot);
} gw_send_slots SEC(".maps");

SEC("tc")
int gw_send(struct __sk_buff *skb)
{
	for (__u32 n = 0; n < GW_SEND_FRAMES; n++) {
		/* A variable of its own: the address of the counter would keep it out of a register. */
		__u32 key = n;
		struct gw_send_slot *slot = bpf_map_lookup_elem(&gw_send_slots, &key);
		__u32 len;

		if (!slot)
			break;
		len = *(volatile __u16 *)&slot->len;
		if (len == 0 || len > GW_SEND_BYTES)
			break;
		/* Each clone keeps what was written for it: the first write behind it makes a copy. */
		if (skb->len != len && bpf_skb_change_tail(skb, len, 0))
			continue;
		if (bpf_skb_store_bytes(skb, 0, slot->frame, len, 0))
			continue;
		if (!bpf_clone_redirect(skb, slot->ifindex, 0))
			slot->left = 0;
	}
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
