/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a wall around a VM must see of a packet that a line would be replayed for.
 *
 * The source of IPv4 is in the line's key, and the connection's first packet went past the
 * workers' wall (crates/pipeline: spoof.rs). A line of IPv6 has MAC addresses alone: its packets
 * are looked at here.
 */
#pragma once
#include "replay.h"

#define DHCPV6_SERVER 547

/* Types of ICMPv6 (RFC 4443). */
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_REPLY 129

/*
 * Whether an IPv6 packet is TCP, UDP or an echo. Neighbour discovery, what a DHCP server says and
 * what extension headers may hide is for the workers to read.
 */
static __always_inline int is_plain(const struct ipv6hdr *ip)
{
	const struct udphdr *udp = (void *)(ip + 1);
	const __u8 *type = (void *)(ip + 1);

	if (bpf_ntohs(ip->payload_len) < sizeof(*udp))
		return 0;
	switch (ip->nexthdr) {
	case IPPROTO_TCP:
		return 1;
	case IPPROTO_UDP:
		return udp->source != bpf_htons(DHCPV6_SERVER);
	case IPPROTO_ICMPV6:
		return *type == ICMPV6_ECHO || *type == ICMPV6_ECHO_REPLY;
	}
	return 0;
}

/* Half of an IPv6 address, raw. */
static __always_inline __u64 half_of(const __be32 *words)
{
	return words[0] | (__u64)words[1] << 32;
}

/* The lower half of the addresses that a station makes of its MAC (RFC 4291 appendix A). */
static __always_inline __u64 interface_id(__u64 mac)
{
	return ((mac & 0xffffff) ^ 2) | 0xfeffULL << 24 | mac >> 24 << 40;
}

/* Whether the source is the VM's: made of its MAC and no group's, or one that it was told. */
static __always_inline int is_own(const struct arrival *from, const struct in6_addr *source)
{
	__u64 network = half_of(&source->in6_u.u6_addr32[0]);
	__u64 interface = half_of(&source->in6_u.u6_addr32[2]);
	__u32 number = from->port->number;
	struct told *told;

	if (interface == interface_id(from->source))
		return (network & 0xff) != 0xff;
	told = bpf_map_lookup_elem(&tolds, &number);
	// Zeros are no address, neither here nor there.
	if (!told || !(network | interface))
		return 0;
#pragma unroll
	for (__u32 at = 0; at < TOLD; at++) {
		if (network == told->address[at][0] && interface == told->address[at][1])
			return 1;
	}
	return 0;
}

/* Whether a packet from a station that may speak is past the wall, as far as its line is not. */
static __always_inline int passes_wall(const struct arrival *from, void *data, void *end)
{
	struct ipv6hdr *ip = data + from->packet.l3;

	if (from->packet.ethertype != bpf_htons(ETH_P_IPV6) || !(from->port->flags & PORT_WALLED))
		return 1;
	if ((void *)(ip + 1) + sizeof(struct udphdr) > end)
		return 0;
	return is_plain(ip) && is_own(from, &ip->saddr);
}
