/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every map of the gateway. Names are at most 15 characters (kernel limit) and are also the names
 * of the pins. Sizes marked "loader" are set from the configuration before loading.
 */
#ifndef GW_MAPS_H
#define GW_MAPS_H

#include "gw_abi.h"

/*
 * Control block, ports by interface number, next hops. A global variable is a map of one value that
 * the program addresses without a lookup; its pin is called gw_shared.
 */
struct gw_shared gw_shared;

/* VLAN sub-ports of devices with GW_PORT_VLANS. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gw_vlan_key);
	__type(value, struct gw_port);
} gw_vlans SEC(".maps");

/* Ethernet addresses of ports beside their own; the value is 1. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gw_mac_key);
	__type(value, __u32);
} gw_other_macs SEC(".maps");

/*
 * Addresses of this box, subnet broadcasts included: packets to them are the kernel's, except for what
 * NAT has mapped inside. The value is enum gw_local_flags and the NAT slot.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} gw_local4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct gw_addr6);
	__type(value, __u32);
} gw_local6 SEC(".maps");

/* Ports of the outside addresses that lead inside: slot, protocol (TCP, UDP), port / 512. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_NAT_SLOTS *GW_NAT_LINES);
	__type(key, __u32);
	__type(value, struct gw_nat_line);
} gw_nat_ports SEC(".maps");

/*
 * What translated IPv4 datagrams are numbered by: counters that XDP and workers draw from, by destination. They outlive
 * the daemon, so no number comes again early.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_IP_IDS);
	__type(key, __u32);
	__type(value, __u64);
} gw_ip_ids SEC(".maps");

/* AF_XDP sockets of the workers: dev * GW_QUEUES_PER_DEV + queue. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, GW_MAX_DEVS *GW_QUEUES_PER_DEV);
	__type(key, __u32);
	__type(value, __u32);
} gw_xsks SEC(".maps");

/* Egress devices by slot. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, GW_MAX_DEVS);
	__type(key, __u32);
	__type(value, __u32);
} gw_devs SEC(".maps");

/* Session records, filled from the front. Loader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct gw_flow4);
} gw_flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct gw_flow6);
} gw_flows6 SEC(".maps");

/* Room for an index of every size: the one of S buckets (a power of two) is at S..2S. Loader. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct gw_bucket);
} gw_index4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct gw_bucket);
} gw_index6 SEC(".maps");

/* Meters, and the groups of them that flows name. The name of the second is that of its pin. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_METERS);
	__type(key, __u32);
	__type(value, struct gw_meter);
} gw_meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_METER_GROUPS);
	__type(key, __u32);
	__type(value, struct gw_meter_group);
} gw_meter_sets SEC(".maps");

/*
 * Bytes that XDP let pass, of CPU c and group n at c * GW_METER_GROUPS + n: a CPU counts without a lock. What workers let
 * pass is in the group. Loader.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_METER_GROUPS);
	__type(key, __u32);
	__type(value, __u64);
} gw_passed SEC(".maps");

/* Tunnels by number, and how a received packet finds its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GW_TUNNELS);
	__type(key, __u32);
	__type(value, struct gw_tunnel);
} gw_tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gw_end);
	__type(value, __u32);
} gw_tunnel_ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GW_TUNNELS);
	__type(key, __u32);
	__type(value, struct gw_tunnel_counts);
} gw_tunnel_stats SEC(".maps");

/* Services that SYN cookies protect; the value is the number of the service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct gw_syn_service);
	__type(value, __u32);
} gw_syn_services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GW_SYN_SERVICES);
	__type(key, __u32);
	__type(value, struct gw_syn_counts);
} gw_syn_stats SEC(".maps");

/*
 * What sequence numbers of a session are translated by, of connections that the daemon has opened for a client with a
 * SYN cookie. Here to outlive the daemon; XDP does not look. Loader.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} gw_sequences4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} gw_sequences6 SEC(".maps");

/* Counters. One value for all ports: a forwarded packet counts at two of them. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gw_stats);
} gw_stats SEC(".maps");

/* Why packets were dropped or given to a worker, by port. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GW_MAX_PORTS);
	__type(key, __u32);
	__type(value, struct gw_reasons);
} gw_reasons SEC(".maps");

#endif /* GW_MAPS_H */
