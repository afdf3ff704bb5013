/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets without a usable session: the kernel's if they are for this box, else a worker's.
 */
#ifndef GW_LOCAL_H
#define GW_LOCAL_H

#include "gw_maps.h"
#include "gw_packet.h"
#include "gw_parse.h"
#include "gw_sock.h"
#include "gw_tunnel.h"

/*
 * What a DHCP server offers this box is unicast to the address that the port is to get (RFC 2131 4.1), whatever others it
 * has. Who the offer is for is in it: the Ethernet address to which the frame was sent. `ip4` is where IP begins. A
 * program of its own to the verifier.
 */
__noinline int gw_dhcp_offer(struct xdp_md *ctx, __u32 ip4)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct gw_ip4 *ip = ip4 == 18 ? data + 18 : data + 14;
	const struct gw_l4 *udp = (const void *)(ip + 1);
	const struct gw_bootp *dhcp = (const void *)(udp + 1);

	if ((const void *)(dhcp + 1) > end)
		return false;
	return ip->version_ihl == 0x45 && udp->sport == bpf_htons(GW_DHCP_SERVER) && dhcp->op == GW_BOOTREPLY &&
	       dhcp->yiaddr == ip->dst && *(const __u64 *)dhcp->chaddr << 16 == *(const __u64 *)data << 16;
}

/* No session has a packet that may be one. */
static __always_inline bool gw_may_be_offer(const struct gw_packet *pkt, const struct gw_key4 *key)
{
	return (__u8)(key->l4 >> 32) == GW_UDP && (__u16)(key->l4 >> 16) == bpf_htons(GW_DHCP_CLIENT) &&
	       pkt->punt == GW_PUNT_MISS;
}

/* Whether an address of this box is one in the VRF of a packet with this word of a key. */
static __always_inline bool gw_same_vrf(__u32 local, __u64 l4)
{
	return local >> GW_LOCAL_VRF_SHIFT == (__u8)(l4 >> 40) >> GW_VRF_SHIFT;
}

/* That word of a packet's key, with the VRF of the packet also where it was not parsed as far as its ports. */
static __always_inline __u64 gw_l4_in_vrf(const struct gw_packet *pkt, __u64 l4)
{
	return l4 | (__u64)pkt->zone << 40;
}

/* Whether a port of an outside address leads inside. */
static __always_inline bool gw_nat_port(__u32 local, __u8 proto, __u16 port)
{
	__u32 slot = (local >> 8 & 0xFF) - 1; /* without NAT beyond the map */
	__u32 at = slot * GW_NAT_LINES + (proto == GW_UDP) * (GW_NAT_LINES / 2) + (port >> 9);
	const struct gw_nat_line *line = bpf_map_lookup_elem(&gw_nat_ports, &at);

	return line && GW_READ_ONCE(line->word[port >> 6 & 7]) >> (port & 63) & 1;
}

/* Whether a TCP packet without IP options begins a connection. */
static __always_inline bool gw_begins(struct xdp_md *ctx)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct gw_eth *eth = data;
	const struct gw_ip4 *ip = data + sizeof(*eth);
	const struct gw_tcp *tcp;

	if ((const void *)(eth + 1) > end)
		return false;
	if (eth->type == bpf_htons(GW_ETH_VLAN))
		ip = data + sizeof(*eth) + sizeof(struct gw_vlan_tag);
	tcp = (const void *)(ip + 1);
	return (const void *)(tcp + 1) <= end && ip->version_ihl == 0x45 &&
	       (tcp->flags & (GW_TCP_SYN | GW_TCP_ACK | GW_TCP_RST)) == GW_TCP_SYN;
}

/*
 * An echo reply where NAT64 is on: it may be of a session whose record is not where gw_find64() looks. A worker has it, and
 * gives replies to the gateway's own pings to the kernel.
 */
static __always_inline bool gw_echo_reply64(__u64 l4, __u8 punt)
{
	return (__u8)(l4 >> 32) == GW_ICMP && !(__u16)l4 && gw_nat64_on(punt);
}

/*
 * Whose a packet to `dst` is: GW_CONTINUE, no address of this box. An address may be shared with the
 * hosts behind NAT. Then what may belong to a mapping and to no socket of the box is a worker's, which
 * knows its fragments and what ICMP errors are about; the rest is the kernel's. GW_DROP: a SYN from the Internet for which
 * the box has no socket either. Its kernel would refuse it at once, and a host inside that opens the same connection at
 * that moment would fail (RFC 5382 REQ-4).
 *
 * Scalars alone go in and out, so the verifier walks this once. `l4` is that word of the key.
 */
__noinline int gw_local4_owner(struct xdp_md *ctx, __u64 addrs, __u64 l4, __u8 punt, __u8 icmp_type)
{
	__u32 dst = addrs >> 32;
	const __u32 *value = bpf_map_lookup_elem(&gw_local4, &dst);
	__u8 proto = l4 >> 32;
	__u32 local;

	if (!value)
		return GW_CONTINUE;
	local = GW_READ_ONCE(*value);
	if (!gw_same_vrf(local, l4))
		return GW_CONTINUE;
	if (!(local & ~(GW_LOCAL_ON | GW_LOCAL_VRF)) || punt == GW_PUNT_MALFORMED)
		return gw_echo_reply64(l4, punt) ? GW_WORKER : GW_KERNEL;
	if (local & GW_LOCAL_TUNNEL && gw_tunneled4(addrs, l4, punt, icmp_type))
		return GW_WORKER;
	if (punt == GW_PUNT_FRAGMENT)
		return GW_WORKER;
	if (punt == GW_PUNT_ICMP)
		return local & GW_LOCAL_ANY || gw_icmp_error(icmp_type) ? GW_WORKER : GW_KERNEL;
	if (proto != GW_TCP && proto != GW_UDP)
		return local & GW_LOCAL_ANY || gw_echo_reply64(l4, punt) ? GW_WORKER : GW_KERNEL;
	if (!(local & GW_LOCAL_ANY) && !gw_nat_port(local, proto, bpf_ntohs(l4 >> 16))) {
		if (local & GW_LOCAL_SILENT && proto == GW_TCP && (l4 >> 40 & 3) == GW_ZONE_WAN && gw_begins(ctx) &&
		    !gw_tcp_wanted(ctx, addrs, dst, l4))
			return GW_DROP;
		return GW_KERNEL;
	}
	return gw_owned4(ctx, addrs, dst, l4) ? GW_KERNEL : GW_WORKER;
}

static __always_inline int gw_local4_or_worker(struct xdp_md *ctx, struct gw_packet *pkt, const struct gw_ip4 *ip,
					       const struct gw_shape *s, const struct gw_key4 *key)
{
	__u64 addrs = ip->src | (__u64)ip->dst << 32;
	__u32 dst = ip->dst;
	__u64 l4 = gw_l4_in_vrf(pkt, key->l4);
	__u8 first = dst;
	__u32 record, owner;

	/* Multicast 224/4 and limited broadcast. */
	if (first >= 224 && (first < 240 || dst == 0xFFFFFFFF))
		return GW_KERNEL;
	if (unlikely(gw_may_be_offer(pkt, key)) && gw_dhcp_offer(ctx, pkt->vlan ? 18 : 14))
		return GW_KERNEL;
	/*
	 * NAT64 sessions are a worker's, and their addresses may be this box's own. Asked for here and not in a function that
	 * calls both: each frame on the way down counts in 32 bytes on Linux 6.1, and 512 are all there are.
	 */
	record = gw_find64(addrs, l4, pkt->punt);
	/* The flood guard lets what belongs to a session pass, but no SYN. */
	pkt->record = record & ((s->tcp_flags_xack >> 1 & 1) - 1);
	if (record)
		return GW_WORKER;
	owner = gw_local4_owner(ctx, addrs, l4, pkt->punt, s->icmp_type);
	if (owner == GW_KERNEL)
		return GW_KERNEL;
	if (owner == GW_DROP)
		return gw_drop(pkt, GW_DROP_NAT_FILTERED);
	pkt->local = owner == GW_WORKER;
	return GW_WORKER;
}

static __always_inline int gw_local6_or_worker(struct gw_packet *pkt, const struct gw_ip6 *ip,
					       const struct gw_key6 *key)
{
	struct gw_addr6 dst = { .w = { ip->dst[0], ip->dst[1], ip->dst[2], ip->dst[3] } };
	__u32 first = bpf_ntohl(ip->dst[0]);
	const __u32 *value;

	/* Multicast ff00::/8 and link-local fe80::/10. */
	if (first >> 24 == 0xFF || first >> 22 == 0xFE80 >> 6)
		return GW_KERNEL;
	value = bpf_map_lookup_elem(&gw_local6, &dst);
	if (!value || !gw_same_vrf(GW_READ_ONCE(*value), gw_l4_in_vrf(pkt, key->l4)))
		return GW_WORKER;
	if (!(GW_READ_ONCE(*value) & GW_LOCAL_TUNNEL) || !gw_tunneled6(ip, key->l4, pkt->punt))
		return GW_KERNEL;
	pkt->local = true;
	return GW_WORKER;
}

#endif /* GW_LOCAL_H */
