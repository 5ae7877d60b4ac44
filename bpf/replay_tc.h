/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replaying a packet in tc. It may be a GSO packet of many frames, its checksum may be left to a
 * device, or known to the kernel; its tag is beside it. The kernel's helpers keep all that right.
 */
#pragma once
#include "rewrite.h"
#include "up.h"

#define L3_AT sizeof(struct ethhdr)
#define L4_AT (L3_AT + sizeof(struct iphdr))

/* Brings the transport's checksum up to date. */
static __always_inline int mend(struct __sk_buff *skb, __u32 at, __u64 sum, __u64 flags)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum ? bpf_l4_csum_replace(skb, at, 0, sum, flags) : 0;
}

/* Changes ports and checksum; false if they cannot be reached. */
static __always_inline int rewrite_transport_skb(struct __sk_buff *skb, __u8 protocol,
						 const struct way *way, struct changes *made)
{
	__u16 sport = way->word4, dport = way->word4 >> LINE_DPORT_SHIFT;
	void *l4 = (void *)(long)skb->data + L4_AT;
	__u32 at = L4_AT + TCP_CHECKSUM_AT;
	struct icmp *icmp = l4;
	__u16 *ports = l4;
	__u64 flags = 0;

	if (l4 + sizeof(struct icmp) > (void *)(long)skb->data_end)
		return 0;
	if (protocol == IPPROTO_ICMP) {
		made->ports = rewrite_port(&icmp->id, icmp->type == ICMP_ECHO ? sport : dport);
		return !mend(skb, L4_AT + ICMP_CHECKSUM_AT, made->ports, 0);
	}
	made->ports = rewrite_port(&ports[0], sport) + rewrite_port(&ports[1], dport);
	if (protocol == IPPROTO_UDP) {
		at = L4_AT + UDP_CHECKSUM_AT;
		flags = BPF_F_MARK_MANGLED_0;
	}
	return !mend(skb, at, made->addresses, flags | BPF_F_PSEUDO_HDR) &&
	       !mend(skb, at, made->ports, flags);
}

/* Changes Ethernet and IPv4 header; false if they cannot be reached. */
static __always_inline int rewrite_skb(struct __sk_buff *skb, const struct arrival *from,
				       const struct way *way)
{
	int rewrites = line_flags(way->word4) & LINE_REWRITES;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(ethernet + 1);
	struct changes made = {};

	if ((void *)(ethernet + 1) > end)
		return 0;
	if (from->destination != way->destination)
		put_mac(ethernet->h_dest, way->destination);
	if (from->source != way->source)
		put_mac(ethernet->h_source, way->source);
	if (from->packet.kind != PACKET_FLOW || (!way->hop && !rewrites))
		return 1;
	if ((void *)(ip + 1) > end)
		return 0;
	rewrite_ipv4(ip, way, &made);
	if (!rewrites || !has_transport(from->packet.protocol))
		return 1;
	return rewrite_transport_skb(skb, from->packet.protocol, way, &made);
}

/* Does to the packet what its way says, and sends it. */
static __always_inline int replay_tc(struct __sk_buff *skb, const struct arrival *from,
				     const struct way *way, struct counters *row, __u32 frames)
{
	__u16 vlan = line_vlan(way->word5);
	struct counters *out = counters_of(way->egress->number);

	if (!out)
		return drop_tc(row, DROP_MALFORMED, frames);
	if (!meets_quota(way->egress, QUOTA_IN, skb->len))
		return drop_tc(out, DROP_QUOTA_IN, frames);
	if (!rewrite_skb(skb, from, way))
		return drop_tc(row, DROP_MALFORMED, frames);
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return drop_tc(row, DROP_NO_ROOM, frames);
	if (vlan && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), vlan))
		return drop_tc(row, DROP_NO_ROOM, frames);
	trace_replay(way->egress->number, vlan);
	row->replayed += frames;
	out->tx_packets += frames;
	out->tx_bytes += skb->len;
	if (way->egress->flags & PORT_PEER)
		return bpf_redirect_peer(way->egress->ifindex, 0);
	return bpf_redirect(way->egress->ifindex, 0);
}
