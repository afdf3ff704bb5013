/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The only definition of every layout that the XDP program and the daemon share.
 *
 * libbpf-cargo turns what the maps use into Rust types. Records that both sides touch at once have
 * one hand-written view of atomics in Rust (crates/model/src/flow/); the `bpf` crate asserts its
 * offsets against the generated types at compile time. docs/abi.md explains the protocol.
 *
 * All padding is explicit. Change a layout or its meaning => raise GW_ABI_VERSION: pinned maps of
 * another version are never reused.
 */
#ifndef GW_ABI_H
#define GW_ABI_H

#define GW_ABI_VERSION 9

#define GW_MAX_PORTS 64	     /* sag_model::PortIdx::MAX */
#define GW_MAX_DROPS 128     /* sag_model::DropReason::COUNT */
#define GW_QUEUES_PER_DEV 64 /* XSKMAP slots of a device */
#define GW_MAX_DEVS 64
#define GW_MAX_NEXTHOPS 65536
#define GW_PORT_SLOTS 4096 /* a device is in slot ifindex % GW_PORT_SLOTS */
#define GW_NAT_SLOTS 64	   /* outside addresses of NAT */
#define GW_IP_IDS 4096	   /* counters of IPv4 identifications */
#define GW_NAT_LINES 256   /* struct gw_nat_line of a slot: 128 of TCP, then 128 of UDP */
#define GW_TUNNELS 256	   /* number 0 is none */
#define GW_TUNNEL_HEADER 80
#define GW_METERS 1024
#define GW_METER_GROUPS 16384
#define GW_GROUP_LINKS 3
#define GW_REMARK 128	 /* in gw_meter_group.remark: there is a DSCP */
#define GW_UNIT_SHIFT 8	 /* meter time: 2^-8 ns */
#define GW_COST_SHIFT 16 /* bits of a byte's time below that */
#define GW_MAX_DEBT (16000000000ULL << GW_UNIT_SHIFT)
#define GW_SYN_SERVICES 64 /* bits of gw_syn_control.active */
#define GW_TICK_SHIFT 24   /* last_seen counts 2^24 ns */

enum gw_zone {
	GW_ZONE_LAN = 1,
	GW_ZONE_WAN = 2,
	GW_ZONE_OVERLAY = 3,
};

#define GW_MAX_VRF 63
#define GW_VRF_SHIFT 2 /* above the zone of ports and keys: the VRF, 0 is the default one */

/* What a flow record says about its packets. */
enum gw_action {
	GW_ACT_PUNT = 0, /* not judged yet, or always the worker's */
	GW_ACT_FORWARD = 1,
	GW_ACT_DROP = 2, /* field `nexthop` holds the drop reason */
};

enum gw_flow_flags {
	GW_FLOW_SNAT = 1 << 0,	   /* new_saddr, new_sport differ from the key */
	GW_FLOW_DNAT = 1 << 1,	   /* new_daddr, new_dport differ from the key */
	GW_FLOW_METER = 1 << 2,	   /* field `meter` is valid */
	GW_FLOW_PUNT_ALL = 1 << 3, /* every packet goes to the worker */
	GW_FLOW_STATE = 0xF0,	   /* forward record: state of the session, for the next daemon; XDP does not look */
};

/*
 * gw_flow*.epoch: the number of the epoch, and marks of XDP and the daemon. With a mark the
 * action is stale and stands for the moment; without, the record is of that epoch.
 */
enum gw_epoch {
	GW_EPOCH_NUMBER = 0x3FFFFFFF,
	GW_EPOCH_SESSION = 1 << 30,	  /* the session is judged, the route of this direction is not renewed */
	GW_EPOCH_REVALIDATING = 1U << 31, /* a revalidation is under way to a worker */
};

#define GW_REVALIDATION_TICKS 240 /* about 4 s: then every packet of an older epoch is a worker's */
#define GW_REVALIDATION_TIMEOUT 6 /* ticks after which those under way count as lost */

/*
 * gw_flow*.key_l4, above the key: how the packets of the record come in, which a worker has checked. A packet of the
 * same key that comes in otherwise is a worker's.
 */
enum gw_ingress {
	GW_INGRESS_TUNNEL = 1 << 8,  /* or-ed to the number of a tunnel; else it is that of a port */
	GW_INGRESS_REVOKED = 0xFFFE, /* where they came in they may not any more */
	GW_INGRESS_NONE = 0xFFFF,    /* none has come in yet */
};

enum gw_nexthop_flags {
	GW_NH_VALID = 1 << 0, /* neighbour resolved and port up: XDP may transmit */
};

/*
 * One direction of an IPv4 session: one cache line. Records stand in blocks of 64 of one direction
 * (the peer of record r is r ^ 64); session 0 is never used.
 *
 * Key words are as loaded from the packet (network byte order inside each field), so comparing
 * needs no swap on a little-endian machine.
 */
struct gw_flow4 {
	__u64 key_addrs; /* saddr | daddr << 32 */
	__u64 key_l4; /* sport | dport << 16 | proto << 32 | zone and VRF << 40, and no part of the key: ingress << 48 */
	__u32 new_saddr; /* after NAT; equal to the key's without NAT */
	__u32 new_daddr;
	__u16 new_sport;
	__u16 new_dport;
	__u16 l3_delta; /* ones' complement sum (old + ~new, RFC 1624) to add to the stored header checksum */
	__u16 l4_delta; /* the same for the transport checksum: addresses and ports; ICMP: identifier alone */
	__u16 nexthop;	/* index into gw_nexthops, or the drop reason */
	__u16 meter;	/* group of meters */
	__u8 action;	/* enum gw_action */
	__u8 flags;	/* enum gw_flow_flags */
	__u8 tunnel;
	__u8 nh_gen;	 /* must equal the next hop's generation */
	__u32 epoch;	 /* judged under this policy epoch */
	__u32 last_seen; /* ticks */
	__u64 packets;
	__u64 bytes; /* IP total length */
};

/* One direction of an IPv6 session: two cache lines, the first is all that a miss touches. */
struct gw_flow6 {
	__u8 saddr[16];
	__u8 daddr[16];
	__u64 key_l4;
	__u16 nexthop;
	__u16 meter;
	__u8 action;
	__u8 flags;
	__u8 tunnel;
	__u8 nh_gen;
	__u32 epoch;
	__u32 last_seen;
	__u64 _pad0;
	__u64 packets;
	__u64 bytes;
	__u8 new_saddr[16];
	__u8 new_daddr[16];
	__u16 new_sport;
	__u16 new_dport;
	__u16 l4_delta;
	__u16 nat64; /* 1: of a session of NAT64; the daemon's */
	__u64 _pad2;
};

/* 16 words of tag << 24 | record number; 0 is free. */
struct gw_bucket {
	__u32 word[16];
};

/* Written word by word, so a reader sees each word old or new, never mixed. */
struct gw_nexthop {
	__u8 dmac[6];
	__u16 vlan; /* host order, 0 = untagged */
	__u8 smac[6];
	__u16 mtu; /* IP bytes */
	__u32 ifindex;
	__u8 dev;  /* slot in the device map */
	__u8 port; /* egress port, for counters */
	__u8 gen;
	__u8 flags; /* enum gw_nexthop_flags */
	__u64 _pad;
};

/*
 * A port (or VLAN sub-port) as the ingress side needs it: two words, each written by one store, the
 * second (the address) first.
 */
struct gw_port {
	__u8 flags; /* enum gw_port_flags; 0 = not ours, everything goes to the kernel */
	__u8 zone;  /* enum gw_zone | VRF << GW_VRF_SHIFT, as in a key */
	__u8 port;  /* index of the [[port]]; beside the zone, as in a key with its ingress */
	__u8 dev;   /* device slot: XSKMAP index is dev * GW_QUEUES_PER_DEV + queue */
	__u32 ifindex;
	__u64 mac; /* the first eight bytes of a frame for it, as loaded, << 16 */
};

enum gw_port_flags {
	GW_PORT_ON = 1 << 0,
	GW_PORT_VLANS = 1 << 1, /* look up tagged frames in gw_vlans */
	GW_PORT_SKB = 1 << 3,	/* frames are (or may be) socket buffers: generic XDP */
};

struct gw_vlan_key {
	__u32 ifindex;
	__u16 vlan; /* host order */
	__u16 _pad;
};

/* Another Ethernet address at which a port is reached: that of a macvlan device above it. */
struct gw_mac_key {
	__u64 mac; /* as in gw_port; the lower bits are the VLAN */
	__u32 ifindex;
	__u32 _pad;
};

/* An IPv6 address as a map key. */
struct gw_addr6 {
	__u32 w[4]; /* network order */
};

/*
 * Value of an address of this box. Bits 8 to 15 are its NAT slot + 1; 0: no NAT uses the address. From
 * GW_LOCAL_VRF_SHIFT on the VRF in which it is. One that is in several is not in the map: its packets are a worker's.
 */
enum gw_local_flags {
	GW_LOCAL_ON = 1 << 0,
	GW_LOCAL_ANY = 1 << 1,	  /* every protocol and port is mapped inside */
	GW_LOCAL_TUNNEL = 1 << 2, /* tunnels end here */
	GW_LOCAL_SILENT = 1 << 3, /* a SYN from the Internet that nobody wants is dropped */
};

#define GW_LOCAL_VRF_SHIFT 16
#define GW_LOCAL_VRF (GW_MAX_VRF << GW_LOCAL_VRF_SHIFT)

/*
 * One bit for each of 512 ports in host order, port % 64 in word port / 64 % 8: an unsolicited packet
 * to the port is for a worker.
 */
struct gw_nat_line {
	__u64 word[8];
};

/*
 * A rate, or the two rates of a CAR: the moment at which all that passed would have left a line of
 * that rate. See sag_model::meter.
 */
struct gw_meter {
	__u64 tat; /* peak rate, or that of a link */
	__u64 committed_tat;
	__u64 cost;	      /* time of a byte << GW_COST_SHIFT */
	__u64 committed_cost; /* 0: no committed rate */
	__u64 burst;	      /* how far ahead it may be */
	__u64 committed_burst;
	__u64 id; /* whose it is */
	__u64 _pad;
};

/* The meters that a flow passes, and what became of its bytes. 0 is no meter. */
struct gw_meter_group {
	__u16 car;
	__u16 links[GW_GROUP_LINKS];
	__u16 overhead; /* added to the length of every packet */
	__u8 remark;	/* GW_REMARK | DSCP of what passes; 0: it stays as it is */
	__u8 _pad;
	__u32 slack;			    /* how far the coarse clock may be behind, ns */
	__u64 borrow_limit[GW_GROUP_LINKS]; /* how far ahead a link may be for a packet that borrows */
	__u64 passed_bytes;		    /* by workers; see gw_passed */
	__u64 car_dropped_bytes;
	__u64 link_dropped_bytes;
};

/*
 * A tunnel's header, from the outer IP header on, and what is to be filled in for each packet
 * (sag_packet::encap). The last word but one is written by one store, as the last thing.
 */
struct gw_tunnel {
	__u8 header[GW_TUNNEL_HEADER];
	__u64 mac;     /* VXLAN: first eight bytes of a frame inside that is for us, as loaded, << 16 */
	__u8 len;      /* of the header */
	__u8 kind;     /* enum gw_tunnel_kind */
	__u16 mtu;     /* IP bytes inside that fit */
	__u8 flags;    /* enum gw_tunnel_flags */
	__u8 tos;      /* with GW_TUNNEL_DSCP */
	__u16 sum;     /* IPv4: ones' complement sum of the header as it stands above */
	__u64 ingress; /* bit by port: an outer packet that comes in by another one is a worker's */
	__u8 vrf;      /* of the packets inside */
	__u8 _pad[23];
};

enum gw_tunnel_kind {
	GW_TUNNEL_VXLAN = 1,
	GW_TUNNEL_GRE = 2,
	GW_TUNNEL_IPIP = 3,
};

enum gw_tunnel_flags {
	GW_TUNNEL_ON = 1 << 0,
	GW_TUNNEL_V6 = 1 << 1, /* outside */
	GW_TUNNEL_DF_COPY = 1 << 2,
	GW_TUNNEL_DF_CLEAR = 1 << 3, /* neither: set */
	GW_TUNNEL_DSCP = 1 << 4,     /* fixed outside */
	GW_TUNNEL_UNIFORM = 1 << 5,  /* the outer code point comes back in */
	GW_TUNNEL_WORKER = 1 << 6,   /* more than XDP can do */
	GW_TUNNEL_SUM = 1 << 7,	     /* UDP checksum: its place in the header has the sum of what stays */
};

/* What a received tunnel packet says of the tunnel it is of. Values are tunnel numbers. */
struct gw_end {
	__u32 local[4]; /* network order; IPv4 in the first word */
	__u32 remote[4];
	__u32 id;   /* VNI or key, host order */
	__u16 port; /* UDP, host order */
	__u8 proto; /* IP protocol; 4 for both families inside */
	__u8 match; /* enum gw_end_match */
};

enum gw_end_match {
	GW_END_ANY = 0,	  /* some tunnel has these addresses, protocol and port */
	GW_END_PLAIN = 1, /* without VNI or key */
	GW_END_ID = 2,
};

/* Counters of one tunnel on one CPU: packets inside and their IP bytes. */
struct gw_tunnel_counts {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 _pad[4];
};

/* Counters of one port on one CPU, all that a forwarded packet touches: one cache line. Every
 * received packet ends in exactly one of fast, to_kernel, punted or gw_reasons.drops[]. */
struct gw_counts {
	__u64 rx_packets;
	__u64 rx_bytes; /* frame bytes */
	__u64 fast;	/* forwarded by XDP (counted at the ingress port) */
	__u64 to_kernel;
	__u64 punted;	  /* handed to an AF_XDP socket */
	__u64 tx_packets; /* sent by XDP out of this port */
	__u64 tx_bytes;
	__u64 originated; /* of those, made by XDP: SYN-ACKs with a cookie */
};

struct gw_stats {
	__u64 clock; /* last jiffy << 32 | its tick: the time, read once a jiffy */
	__u64 nanos; /* the same time in nanoseconds */
	/* What this CPU has charged a meter for before its packets come: gw_meter_ahead(). */
	__u64 ahead;	   /* left of it, in the units of meters */
	__u64 ahead_nanos; /* `nanos` when it was charged */
	__u32 ahead_group; /* 0: none */
	__u32 _pad32;
	__u64 _pad[3];
	struct gw_counts port[GW_MAX_PORTS];
};

/* The same for packets that are not forwarded. */
struct gw_reasons {
	__u64 drops[GW_MAX_DROPS];
	__u64 punts[16]; /* by enum gw_punt */
	__u64 guard;	 /* when the share of this receive queue is used up to */
	__u64 _pad[7];
};

/* Why XDP gave a packet to a worker. */
enum gw_punt {
	GW_PUNT_MISS = 0,      /* no session */
	GW_PUNT_EPOCH = 1,     /* session of an older policy epoch */
	GW_PUNT_NEXTHOP = 2,   /* next hop unresolved or changed */
	GW_PUNT_TCP_FLAGS = 3, /* SYN, FIN or RST, or no ACK */
	GW_PUNT_FRAGMENT = 4,
	GW_PUNT_OPTIONS = 5, /* IPv4 options or IPv6 extension headers */
	GW_PUNT_TTL = 6,
	GW_PUNT_MTU = 7,
	GW_PUNT_ICMP = 8,      /* ICMP without an identifier */
	GW_PUNT_MALFORMED = 9, /* the worker names the reason */
	GW_PUNT_FLOW = 10,     /* the record says so */
	GW_PUNT_INGRESS = 11,  /* of a session, but by another port or tunnel than its packets */
	GW_PUNT_COOKIE = 12,   /* no session, and acknowledges a valid SYN cookie */
	GW_PUNT_CHECKSUM = 13, /* partial, in a socket buffer */
	GW_PUNT_LAST,
	GW_PUNT_SET = 0x80, /* or-ed into gw_punt_meta.punt: the metadata is there */
};

/* Why a packet is dropped: the numbers and names of sag_model::DropReason (a test compares them). */
enum gw_drop {
	GW_DROP_ETH_TRUNCATED = 1,
	GW_DROP_VLAN_UNKNOWN = 2,
	GW_DROP_IP4_TRUNCATED = 3,
	GW_DROP_IP4_BAD_VERSION = 4,
	GW_DROP_IP4_BAD_IHL = 5,
	GW_DROP_IP4_BAD_TOTAL_LENGTH = 6,
	GW_DROP_IP4_BAD_CHECKSUM = 7,
	GW_DROP_IP4_SOURCE_ROUTE = 8,
	GW_DROP_IP4_BAD_OPTIONS = 9,
	GW_DROP_IP6_TRUNCATED = 10,
	GW_DROP_IP6_BAD_VERSION = 11,
	GW_DROP_IP6_BAD_PAYLOAD_LENGTH = 12,
	GW_DROP_IP6_BAD_EXT_HEADERS = 13,
	GW_DROP_IP6_ROUTING_HEADER_0 = 14,
	GW_DROP_L4_TRUNCATED = 15,
	GW_DROP_TCP_BAD_OFFSET = 16,
	GW_DROP_UDP_BAD_LENGTH = 17,
	GW_DROP_SOURCE_MARTIAN = 18,
	GW_DROP_DEST_MARTIAN = 19,
	GW_DROP_SOURCE_IS_OURS = 20,
	GW_DROP_TTL_EXPIRED = 21,
	GW_DROP_NO_ROUTE = 22,
	GW_DROP_ROUTE_BLACKHOLE = 23,
	GW_DROP_ROUTE_UNREACHABLE = 24,
	GW_DROP_ROUTE_PROHIBIT = 25,
	GW_DROP_EGRESS_NOT_OURS = 26,
	GW_DROP_EGRESS_DOWN = 27,
	GW_DROP_NEIGHBOR_FAILED = 28,
	GW_DROP_NEIGHBOR_QUEUE_FULL = 29,
	GW_DROP_MTU_EXCEEDED = 30,
	GW_DROP_ACL_DENIED = 31,
	GW_DROP_ACL_DEFAULT_DENIED = 32,
	GW_DROP_SESSION_TABLE_FULL = 33,
	GW_DROP_FRAGMENT_NO_FIRST = 34,
	GW_DROP_FRAGMENT_OVERLAP = 35,
	GW_DROP_FRAGMENT_TABLE_FULL = 36,
	GW_DROP_FRAGMENT_TINY = 37,
	GW_DROP_TX_RING_FULL = 38,
	GW_DROP_NO_FRAME = 39,
	GW_DROP_RX_RING_FULL = 40,
	GW_DROP_NO_WORKER = 41,
	GW_DROP_FRAME_TOO_BIG = 42,
	GW_DROP_LINK_LOCAL_SCOPE = 43,
	GW_DROP_PORT_NOT_READY = 44,
	GW_DROP_SNAT_EXHAUSTED = 45,
	GW_DROP_SNAT_HOST_LIMIT = 46,
	GW_DROP_NAT_FILTERED = 47,
	GW_DROP_TCP_OUT_OF_WINDOW = 48,
	GW_DROP_CAR_EXCEEDED = 49,
	GW_DROP_LINK_EXCEEDED = 50,
	GW_DROP_FLOOD_GUARD = 51,
	GW_DROP_ICMP_UNMATCHED = 52,
	GW_DROP_NAT_NO_ADDRESS = 53,
	GW_DROP_SEND_FAILED = 54,
	GW_DROP_NO_KERNEL_PATH = 55,
	GW_DROP_ICMP_BAD_CHECKSUM = 56,
	GW_DROP_NAT_NO_SESSION = 57,
	GW_DROP_NAT_PROTOCOL = 58,
	GW_DROP_TUNNEL_UNKNOWN = 59,
	GW_DROP_TUNNEL_BAD_HEADER = 60,
	GW_DROP_TUNNEL_ECN = 61,
	GW_DROP_TUNNEL_DOWN = 62,
	GW_DROP_TUNNEL_LOCAL = 63,
	GW_DROP_ESP_UNKNOWN_SPI = 64,
	GW_DROP_ESP_TRUNCATED = 65,
	GW_DROP_ESP_REPLAY = 66,
	GW_DROP_ESP_BAD_ICV = 67,
	GW_DROP_ESP_BAD_PADDING = 68,
	GW_DROP_ESP_BAD_NEXT_HEADER = 69,
	GW_DROP_ESP_DUMMY = 70,
	GW_DROP_ESP_KEEPALIVE = 71,
	GW_DROP_ESP_NO_KEYS = 72,
	GW_DROP_ESP_EXHAUSTED = 73,
	GW_DROP_FEC_BAD_HEADER = 74,
	GW_DROP_FEC_DUPLICATE = 75,
	GW_DROP_NEIGHBOR_RATE_LIMIT = 76,
	GW_DROP_ESP_UNRESERVED = 77,
	GW_DROP_HOST_SHARE = 78,
	GW_DROP_HOST_HALF_OPEN = 79,
	GW_DROP_REVERSE_PATH = 80,
	GW_DROP_TUNNEL_SOURCE = 81,
	GW_DROP_ICMP_REDIRECT = 82,
	GW_DROP_SYN_COOKIE = 83,
	GW_DROP_SYN_COOKIE_INVALID = 84,
	GW_DROP_SYN_PROXY_WAIT = 85,
	GW_DROP_ACL_MAX_SESSIONS = 86,
	GW_DROP_ACL_MAX_SESSIONS_PER_SOURCE = 87,
	GW_DROP_ACL_SOURCES_FULL = 88,
	GW_DROP_TX_LOST = 89,
	GW_DROP_NAT64_REFUSED = 90,
	GW_DROP_NAT64_UNTRANSLATABLE = 91,
	GW_DROP_TUNNEL_LOCAL_RATE = 92,
	GW_DROP_NAT_WAN_CHANGED = 93,
};

/* In front of the packet of a punted frame (XDP metadata). */
struct gw_punt_meta {
	__u32 record; /* the record found, 0 = none */
	__u16 vlan;   /* host order, 0 = untagged */
	__u8 port;
	__u8 punt; /* enum gw_punt | GW_PUNT_SET; a driver without XDP metadata leaves stale bytes */
};

/* gw_control.fast_path */
enum gw_fast_path {
	GW_FAST_PATH_ON = 1 << 0,    /* else everything is the workers' */
	GW_FAST_PATH_SUMS = 1 << 1,  /* a partial checksum was seen: others may be */
	GW_FAST_PATH_NAT64 = 1 << 2, /* IPv4 packets may be of sessions in the table of IPv6 */
};

/* One per gateway. */
struct gw_control {
	__u32 abi_version;
	__u32 epoch;
	__u64 seed;   /* of the flow hash */
	__u64 index4; /* live index: first bucket | (number of buckets - 1) << 32 */
	__u64 index6;
	__u32 fail_action;	   /* XDP action for unknown flows while no worker is attached: 1 drop, 2 pass */
	__u32 fast_path;	   /* enum gw_fast_path */
	__u32 guard_interval;	   /* ns that a packet of no known flow takes of its queue's share; 0: no guard */
	__u32 guard_burst;	   /* ns that may be taken at once */
	__u32 revalidation_credit; /* revalidations of a queue that may be under way; 0: no stale actions */
	__u32 epoch_since;	   /* tick at which the epoch began */
	__u32 nexthops_from;	   /* where the next hops of the daemon that has the epoch begin; 0: not known */
	__u32 tunnels;		   /* how many tunnels there are */
};

/* Revalidations of a receive queue: `sent` by XDP, `taken` by the worker. */
struct gw_revalidation_queue {
	__u32 sent;
	__u32 taken;
	__u32 since; /* tick of the last one */
	__u32 _pad;
};

/* SYN cookies: see gw_syn.h. The services are in gw_syn_services, by number. */
struct gw_syn_control {
	__u64 secret[2][2]; /* SipHash keys of the two time slots */
	__u64 active;	    /* bit by service: XDP answers its SYNs */
	__u32 slot;	    /* that of the cookies made now */
	__u32 services;	    /* how many; 0: no packet is looked at */
	__u32 mss4;	    /* what SYN-ACKs announce */
	__u32 mss6;
	__u64 _pad;
};

/* A service as its clients address it. IPv4 as in ::ffff:192.0.2.1. */
struct gw_syn_service {
	__u32 addr[4]; /* network order */
	__u16 port;    /* network order */
	__u16 _pad;
};

/* Counters of a service on one CPU. */
struct gw_syn_counts {
	__u64 syns; /* without a session */
	__u64 sent;
	__u64 accepted;
	__u64 refused;
	__u64 _pad[4];
};

/* Everything of fixed size that is written by the daemon and read for every packet. */
struct gw_shared {
	struct gw_control control;
	struct gw_port ports[GW_PORT_SLOTS];
	struct gw_nexthop nexthops[GW_MAX_NEXTHOPS];
	struct gw_revalidation_queue revalidations[GW_MAX_DEVS * GW_QUEUES_PER_DEV]; /* as in gw_xsks */
	struct gw_syn_control syn;
};

_Static_assert(sizeof(struct gw_flow4) == 64, "one cache line");
_Static_assert(sizeof(struct gw_flow6) == 128, "two cache lines");
_Static_assert(sizeof(struct gw_bucket) == 64, "one cache line");
_Static_assert(sizeof(struct gw_nexthop) == 32, "half a cache line");
_Static_assert(sizeof(struct gw_control) == 64, "one cache line");
_Static_assert(sizeof(struct gw_counts) == 64, "one cache line");
_Static_assert(sizeof(struct gw_nat_line) == 64, "one cache line");
_Static_assert(sizeof(struct gw_meter) == 64, "one cache line");
_Static_assert(sizeof(struct gw_meter_group) == 64, "one cache line");
_Static_assert(sizeof(struct gw_revalidation_queue) == 16, "a quarter of a cache line");
_Static_assert(sizeof(struct gw_tunnel) == 128, "two cache lines");
_Static_assert(sizeof(struct gw_end) == 40, "no padding");
_Static_assert(sizeof(struct gw_tunnel_counts) == 64, "one cache line");
_Static_assert(sizeof(struct gw_syn_control) == 64, "one cache line");
_Static_assert(sizeof(struct gw_syn_counts) == 64, "one cache line");
_Static_assert(sizeof(struct gw_port) == 16, "a quarter of a cache line");
_Static_assert(sizeof(struct gw_shared) <= 4 << 20, "largest map value before Linux 5.17");
_Static_assert(sizeof(struct gw_punt_meta) == 8, "metadata is a multiple of 4");

#endif /* GW_ABI_H */
