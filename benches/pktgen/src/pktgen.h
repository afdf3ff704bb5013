/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What source, sink and user space share. `plan.rs` and `outcome.rs` know the layouts of pg_plan,
 * pg_state and pg_rx word by word: every field has eight bytes.
 */
#ifndef PKTGEN_H
#define PKTGEN_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* First two bytes of a payload; the other 16 are flow, sequence number in the flow's stream, time. */
#define PG_MARK 0x5347
#define PG_ANY_TUNNELLED 1 /* all UDP, ESP, GRE and IP-in-IP */
#define PG_ANY_ALL 2	   /* every frame: captured ones have no mark */
#define PG_PAYLOAD 18
#define PG_MAX_SIZES 16
#define PG_OUTER_WORDS 7    /* of the longest tunnel header */
#define PG_BUCKETS 640	    /* of the latency histogram, see pg_bucket() */
#define PG_SLACK 200000	    /* ns that a paced source may be late and catch up */
#define PG_LOOK 4000	    /* ns between looks at what has arrived */
#define PG_TIMEOUT 20000000 /* ns without a packet after which those under way count as lost */

/*
 * Flow n is from endpoint e = n % endpoints to remote r = n / endpoints. Endpoint e has the address
 * src + (e & source_mask) and the port sport + e; remote r the address dst + r and the port dport.
 * From one frame to the next flow n becomes n + stride modulo flows.
 */
struct pg_plan {
	__u64 dmac; /* low 48 bits, first byte lowest */
	__u64 smac;
	__u64 src; /* IPv4, or the last 32 bits of IPv6; host order */
	__u64 dst;
	__u64 src6[2]; /* first 96 bits, network order */
	__u64 dst6[2];
	__u64 sport;
	__u64 dport;
	__u64 endpoints;
	__u64 source_mask;
	__u64 stride_e; /* stride % endpoints, stride / endpoints */
	__u64 stride_r;
	__u64 flows_e; /* flows % endpoints, flows / endpoints */
	__u64 flows_r;
	__u64 frames;	/* to send, then no more */
	__u64 interval; /* between frames of a paced source, 2^-10 ns */
	__u64 window;	/* frames under way at most, of a windowed source */
	__u64 outside;	/* what sources must have become, network order; 0: not looked at */
	__u64 cpus;
};

struct pg_state {
	__u64 e; /* the next flow */
	__u64 r;
	__u64 sent;
	__u64 bytes;
	__u64 started;
	__u64 ended;
	__u64 due;   /* when the next frame may go, 2^-10 ns */
	__u64 late;  /* ns that a paced source gave up catching up with */
	__u64 step;  /* in the sequence of sizes, or of captured frames */
	__u64 seen;  /* what the sink had received at the last look */
	__u64 since; /* when that became so */
	__u64 lost;  /* given up by the window */
};

struct pg_rx {
	__u64 packets;
	__u64 bytes;
	__u64 first;
	__u64 last;
	__u64 other; /* not of the source's */
	__u64 reordered;
	__u64 duplicate;
	__u64 flows;	  /* of which a first packet came */
	__u64 foreign;	  /* with other addresses than were to be */
	__u64 renumbered; /* flows whose source port changed, each time */
	__u64 latency_max;
	__u64 latency_sum;
	__u64 latency[PG_BUCKETS];
};

/* Of a flow, when the sink checks. */
struct pg_flow {
	__u32 seq;   /* the highest that came, plus one */
	__u32 sport; /* as it arrived, network order */
};

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} pg_devs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pg_rx);
} pg_rx SEC(".maps");

/* Sized by user space before loading. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pg_flow);
} pg_flows SEC(".maps");

/* Captured frames: length, nanoseconds since the one before, bytes. */
#define PG_CAPTURED 1536
struct pg_captured {
	__u32 len;
	__u32 gap;
	__u8 bytes[PG_CAPTURED];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pg_captured);
} pg_capture SEC(".maps");

/* The places of pg_look: a cache line each. */
struct pg_line {
	__u64 next;    /* the place to look at after this one */
	__u64 nothing; /* 0 */
	__u64 packets;
	__u64 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pg_line);
} pg_lines SEC(".maps");

/* Fixed when the programs are loaded, so that what is not asked for costs nothing. */
struct pg_fixed {
	__u32 ip6;
	__u32 stamped; /* the time is in the payload, and the sink looks at it */
	__u32 checked; /* the sink looks at every flow's sequence and addresses */
	__u32 any;     /* what the sink counts: its own frames, PG_ANY_… */
	__u32 timed;   /* captured frames keep their distances */
	__u32 captured_count;
	__u32 longest;		     /* length of a frame as it is handed to the source */
	__u32 size_count;	     /* sizes take turns */
	__u32 sizes[PG_MAX_SIZES];   /* bytes without FCS */
	__u32 looks;		     /* of pg_look at memory */
	__u32 places;		     /* bits of a place in pg_lines */
	__u32 known;		     /* flows that have one */
	__u32 outer_len;	     /* bytes of a tunnel's header in front of the packet; 0: none */
	__u64 outer[PG_OUTER_WORDS]; /* its bytes: lengths, source port and checksum of IPv4 open */
	__u64 outer_sum;	     /* ones' complement sum of its IPv4 header */
};
const volatile struct pg_fixed fixed SEC(".rodata.fixed") = {};

volatile struct pg_plan plan SEC(".data.plan") __attribute__((aligned(64)));
volatile struct pg_state state SEC(".data.state") __attribute__((aligned(64)));

struct pg_eth {
	__u8 dst[6];
	__u8 src[6];
	__u16 type;
};

struct pg_ip4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 len;
	__u16 id;
	__u16 frag;
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__u32 src;
	__u32 dst;
};

struct pg_ip6 {
	__u32 version_class;
	__u16 payload;
	__u8 next;
	__u8 hops;
	__u32 src[4];
	__u32 dst[4];
};

struct pg_udp {
	__u16 sport;
	__u16 dport;
	__u16 len;
	__u16 check;
};

#define PG_ETH_IP4 0x0800
#define PG_ETH_IP6 0x86DD
#define PG_UDP 17
#define PG_ESP 50
#define PG_GRE 47
#define PG_IPIP 4

#endif /* PKTGEN_H */
