/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a way does to a packet. Checksums are brought up to date by the words that changed (RFC
 * 1624, equation 3), so a whole one stays whole and a wrong one stays wrong.
 */
#pragma once
#include "replay.h"

#define UDP_CHECKSUM_AT __builtin_offsetof(struct udphdr, check)
#define TCP_CHECKSUM_AT __builtin_offsetof(struct tcphdr, check)
#define ICMP_CHECKSUM_AT __builtin_offsetof(struct icmp, checksum)
#define ICMP_ID_AT __builtin_offsetof(struct icmp, id)

/* What changes say to a checksum: the sum of each old word's complement and each new word. */
static __always_inline __u64 change(__u32 old, __u32 new, __u32 all)
{
	return (__u64)(old ^ all) + new;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline __u16 changed(__u16 checksum, __u64 changes)
{
	return ~fold((__u16)~checksum + changes);
}

/* What was changed in a packet, as its checksums must know. */
struct changes {
	__u64 addresses;
	__u64 ports;
};

/* New addresses, and one hop less. */
static __always_inline void rewrite_ipv4(struct iphdr *ip, const struct way *way,
					 struct changes *made)
{
	__u16 *life = (void *)&ip->ttl; // with the protocol: a word of the checksum
	__u32 source = way->word3, destination = way->word3 >> LINE_DST_SHIFT;
	__u64 sum = 0;

	if (line_flags(way->word4) & LINE_REWRITES) {
		if (source) {
			sum += change(ip->saddr, source, 0xffffffff);
			ip->saddr = source;
		}
		if (destination) {
			sum += change(ip->daddr, destination, 0xffffffff);
			ip->daddr = destination;
		}
	}
	made->addresses = sum;
	if (way->hop) {
		sum += change(*life, *life - 1, 0xffff);
		ip->ttl--;
	}
	if (sum)
		ip->check = changed(ip->check, sum);
}

/* A new port, or the identifier of an echo; 0 leaves it, and so does what it is: SNAT mostly keeps it. */
static __always_inline __u64 rewrite_port(__u16 *port, __u16 new)
{
	__u64 sum = change(*port, new, 0xffff);

	if (!new || new == *port)
		return 0;
	*port = new;
	return sum;
}

/* Whether a protocol has ports and a checksum that the addresses are part of, or ICMP's. */
static __always_inline int has_transport(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_ICMP;
}

static __always_inline void put_mac(__u8 *at, __u64 mac)
{
	*(__u32 *)at = mac;
	*(__u16 *)(at + 4) = mac >> 32;
}
