/* SPDX-License-Identifier: GPL-2.0-only */
/* What a frame says of itself: its VLAN, its packet, and how many frames it is on the wire. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "line.h"

/* Said when the programs are loaded: the JIT makes a number of it. */
const volatile __u64 hash_key = 0; /* header.hash_key */

#define VLAN_ID 0x0fff
#define VLAN_FOREIGN -1 /* tagged, but not with an 802.1Q tag */
#define VLAN_CUT -2     /* cut within its headers */

struct vlan_tag {
	__be16 tci;
	__be16 protocol; /* of what follows */
};

/*
 * The VLAN of a frame with this tag. A priority tag (VID 0) is none: such a frame is
 * untagged (IEEE 802.1Q 9.6).
 */
static __always_inline int vlan_of(__be16 protocol, __u16 tci)
{
	if (protocol == bpf_htons(ETH_P_8021Q))
		return tci & VLAN_ID;
	return protocol == bpf_htons(ETH_P_8021AD) ? VLAN_FOREIGN : 0;
}

/* The VLAN of a frame whose tag, if it has one, is in the frame. */
static __always_inline int vlan_in_frame(void *data, void *end)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = (void *)(ethernet + 1);

	if ((void *)(ethernet + 1) > end)
		return VLAN_CUT;
	if (ethernet->h_proto != bpf_htons(ETH_P_8021Q) &&
	    ethernet->h_proto != bpf_htons(ETH_P_8021AD))
		return 0;
	if ((void *)(tag + 1) > end)
		return VLAN_CUT;
	return vlan_of(ethernet->h_proto, bpf_ntohs(tag->tci));
}

/* The VLAN of a frame in tc, where the kernel has mostly taken the tag out of the frame. */
static __always_inline int vlan_of_skb(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return vlan_of(skb->vlan_proto, skb->vlan_tci);
	return vlan_in_frame((void *)(long)skb->data, (void *)(long)skb->data_end);
}

/*
 * How many frames a GSO packet is on the wire. What a guest hands in by virtio says its gso_size
 * and leaves gso_segs at 0 until somebody segments it.
 */
static __always_inline __u32 frames_of(struct __sk_buff *skb)
{
	__u32 size = skb->gso_size;
	__u32 frames = skb->gso_segs;

	if (!size)
		return 1;
	return frames ? frames : (skb->len + size - 1) / size;
}

#define IP_FRAGMENT 0x3fff /* there are more fragments, or this is not the first */

/* An ICMP echo (RFC 792); every message begins with a type. linux/icmp.h asks for a C library. */
struct icmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};
_Static_assert(sizeof(struct icmp) == 8, "icmp");

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_SOURCE_QUENCH 4
#define ICMP_REDIRECT 5
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define IPV6_HOST_IDENTITY 139 /* extension headers that linux/in.h does not have (IANA) */
#define IPV6_SHIM6 140
#define ICMPV6_ECHO 128 /* RFC 4443 */
#define ICMPV6_ECHO_REPLY 129

/* The flag byte of TCP (RFC 9293) and where it is. */
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_OFFSET_AT 12
#define TCP_FLAGS_AT 13

/* ARP for IPv4 over Ethernet (RFC 826). */
struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__u8 sender[4];
	__u8 target_mac[ETH_ALEN];
	__u8 target[4];
};
_Static_assert(sizeof(struct arp) == 28, "arp");

enum packet_kind {
	PACKET_OTHER, /* neither ARP nor IPv4; IPv6 that is for the workers to read */
	PACKET_IPV6,  /* with a transport header next, or a protocol that has no ports */
	PACKET_ARP,   /* destination is its target */
	PACKET_FLOW,  /* IPv4: TCP, UDP, ICMP echo, or without ports: a line can be for it */
	PACKET_FRAGMENT,
	PACKET_ICMP_ERROR,
	PACKET_IPV4, /* ICMP that is neither echo nor error, or cut before its ports */
};

/* A packet as far as it is read; addresses and ports raw, an echo's id where line.h has it. */
struct packet {
	enum packet_kind kind;
	__u32 source;
	__u32 destination;
	__u64 addresses; /* of IPv6: both, as word 1 of its line has them */
	__u16 sport;
	__u16 dport;
	__u16 ethertype;
	__u8 protocol;
	__u8 mark; /* of IPv6: what its line has in the place of a protocol */
	__u8 ttl;
	__u16 bits;    /* what it says of its connection's end: LINE_FIN, LINE_RST */
	__u8 l3;       /* offset of what the Ethernet header carries */
	__u8 replays;  /* a line may be replayed for it: whole, and nothing in it asks for a decision */
	__u32 headers; /* bytes of its IP and TCP or UDP header, which each segment of it repeats */
};

static __always_inline int parse_tcp(const __u8 *tcp, void *end, __u32 length,
				     struct packet *packet)
{
	__u32 header;

	if ((void *)(tcp + sizeof(struct tcphdr)) > end)
		return 0;
	header = (tcp[TCP_OFFSET_AT] >> 4) * 4;
	packet->bits = (tcp[TCP_FLAGS_AT] & TCP_FIN ? LINE_FIN : 0) |
		       (tcp[TCP_FLAGS_AT] & TCP_RST ? LINE_RST : 0);
	packet->headers += header;
	// A SYN begins a connection anew, or has options for the workers to see.
	packet->replays = header >= sizeof(struct tcphdr) && header <= length &&
			  !(tcp[TCP_FLAGS_AT] & TCP_SYN);
	return 1;
}

static __always_inline void parse_udp(const struct udphdr *udp, __u32 length,
				      struct packet *packet)
{
	__u32 said = bpf_ntohs(udp->len);

	packet->headers += sizeof(struct udphdr);
	packet->replays = said >= sizeof(struct udphdr) && said <= length;
}

static __always_inline void parse_icmp(const struct icmp *icmp, __u32 length,
				       struct packet *packet)
{
	switch (icmp->type) {
	case ICMP_ECHO:
		packet->kind = PACKET_FLOW;
		packet->sport = icmp->id;
		packet->replays = length >= sizeof(struct icmp);
		break;
	case ICMP_ECHO_REPLY:
		packet->kind = PACKET_FLOW;
		packet->dport = icmp->id;
		packet->replays = length >= sizeof(struct icmp);
		break;
	case ICMP_UNREACHABLE:
	case ICMP_SOURCE_QUENCH:
	case ICMP_REDIRECT:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER_PROBLEM:
		packet->kind = PACKET_ICMP_ERROR;
	}
}

/* What follows the IPv4 header; length is what the packet says there is of it. */
static __always_inline int parse_transport(void *payload, void *end, __u32 length,
					   struct packet *packet)
{
	__u16 *ports = payload;

	// The headers of UDP and ICMP have this length, and that of TCP begins like UDP's.
	if (payload + sizeof(struct icmp) > end)
		return 0;
	if (packet->protocol == IPPROTO_ICMP) {
		parse_icmp(payload, length, packet);
		return 1;
	}
	packet->kind = PACKET_FLOW;
	packet->sport = ports[0];
	packet->dport = ports[1];
	if (packet->protocol == IPPROTO_TCP)
		return parse_tcp(payload, end, length, packet);
	parse_udp(payload, length, packet);
	return 1;
}

/* length is that of the frame behind the Ethernet header, of which end may not show all. */
static __always_inline int parse_ipv4(const struct iphdr *ip, void *end, __u32 length,
				      struct packet *packet)
{
	__u32 total, header;
	int read;

	if ((void *)(ip + 1) > end)
		return 0;
	if (ip->version != 4 || ip->ihl < 5)
		return 1;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	packet->kind = ip->frag_off & bpf_htons(IP_FRAGMENT) ? PACKET_FRAGMENT : PACKET_IPV4;
	packet->source = ip->saddr;
	packet->destination = ip->daddr;
	packet->protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->headers = header;
	if (packet->kind == PACKET_FRAGMENT || ip->protocol >= LINE_PROTOCOL_OURS)
		return 1;
	if (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP ||
	    ip->protocol == IPPROTO_ICMP) {
		read = parse_transport((void *)ip + header, end, total - header, packet);
	} else {
		// Lines of other protocols have zeros in the place of ports.
		packet->kind = PACKET_FLOW;
		read = packet->replays = 1;
	}
	if (ip->ihl != 5 || total < header || total > length)
		packet->replays = 0;
	return read;
}

static __always_inline int parse_arp(const struct arp *arp, void *end, struct packet *packet)
{
	if ((void *)(arp + 1) > end)
		return 0;
	if (arp->protocol != bpf_htons(ETH_P_IP) || arp->hardware_length != ETH_ALEN ||
	    arp->protocol_length != 4)
		return 1;
	packet->kind = PACKET_ARP;
	__builtin_memcpy(&packet->destination, arp->target, sizeof(packet->destination));
	return 1;
}

/* An echo of ICMPv6. The other messages are neighbour discovery and errors: not for lines. */
static __always_inline void parse_icmpv6(const struct icmp *icmp, __u32 length,
					 struct packet *packet)
{
	packet->replays = length >= sizeof(struct icmp);
	if (icmp->type == ICMPV6_ECHO)
		packet->sport = icmp->id;
	else if (icmp->type == ICMPV6_ECHO_REPLY)
		packet->dport = icmp->id;
	else
		packet->replays = 0;
}

/*
 * Extension headers, "nothing follows", and IPv4's ICMP: what is behind them is for the workers to
 * read.
 */
#define IPV6_EXTENSIONS                                                                            \
	(1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ICMP | 1ULL << IPPROTO_ROUTING |                \
	 1ULL << IPPROTO_FRAGMENT | 1ULL << IPPROTO_AH | 1ULL << IPPROTO_NONE |                    \
	 1ULL << IPPROTO_DSTOPTS)

static __always_inline int is_extension(__u8 number)
{
	if (number < 64)
		return IPV6_EXTENSIONS >> number & 1;
	return number == IPPROTO_MH || number == IPV6_HOST_IDENTITY || number == IPV6_SHIM6;
}

/* What follows the IPv6 header, of which the packet says it is so long. */
static __always_inline int parse_behind_ipv6(void *payload, void *end, __u32 length,
					     struct packet *packet)
{
	__u16 *ports = payload;

	if (packet->protocol != IPPROTO_TCP && packet->protocol != IPPROTO_UDP &&
	    packet->protocol != IPPROTO_ICMPV6) {
		packet->mark = LINE_PROTOCOL_OTHER6;
		packet->sport = packet->dport = packet->protocol << 8; // as a port lies in a packet
		packet->replays = !is_extension(packet->protocol);
		return 1;
	}
	if (payload + sizeof(struct icmp) > end)
		return 0;
	if (packet->protocol == IPPROTO_ICMPV6) {
		packet->mark = LINE_PROTOCOL_ICMP6;
		parse_icmpv6(payload, length, packet);
		return 1;
	}
	packet->sport = ports[0];
	packet->dport = ports[1];
	if (packet->protocol == IPPROTO_TCP) {
		packet->mark = LINE_PROTOCOL_TCP6;
		return parse_tcp(payload, end, length, packet);
	}
	packet->mark = LINE_PROTOCOL_UDP6;
	parse_udp(payload, length, packet);
	return 1;
}

static __always_inline int parse_ipv6(struct ipv6hdr *ip, void *end, __u32 length,
				      struct packet *packet)
{
	__u32 said;
	int read;

	if ((void *)(ip + 1) > end)
		return 0;
	said = bpf_ntohs(ip->payload_len);
	packet->protocol = ip->nexthdr;
	packet->headers = sizeof(*ip);
	packet->addresses = line_ipv6_word1(ip->saddr.in6_u.u6_addr32, ip->daddr.in6_u.u6_addr32,
					    hash_key);
	read = parse_behind_ipv6(ip + 1, end, said, packet);
	if (ip->version != 6 || sizeof(*ip) + said > length)
		packet->replays = 0;
	packet->kind = packet->replays ? PACKET_IPV6 : PACKET_OTHER;
	return read;
}

/* A frame that is bridged unread. */
static __always_inline int parse_other(__u32 length, struct packet *packet)
{
	// No real frame is so short that a tag would not fit behind its header.
	packet->replays = packet->ethertype != bpf_htons(ETH_P_8021AD) &&
			  packet->ethertype != bpf_htons(ETH_P_8021Q) &&
			  length >= sizeof(struct vlan_tag);
	return 1;
}

/*
 * Reads the packet of a frame of that length into one of zeros. False if what can be seen of the
 * frame ends before all was read.
 */
static __always_inline int parse(void *data, void *end, __u32 length, struct packet *packet)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = (void *)(ethernet + 1);
	void *at = tag;

	if (at > end)
		return 0;
	packet->ethertype = ethernet->h_proto;
	packet->l3 = sizeof(*ethernet);
	if (packet->ethertype == bpf_htons(ETH_P_8021Q)) {
		if ((void *)(tag + 1) > end)
			return 0;
		packet->ethertype = tag->protocol;
		packet->l3 += sizeof(*tag);
		at = tag + 1;
	}
	length -= packet->l3;
	if (packet->ethertype == bpf_htons(ETH_P_ARP))
		return parse_arp(at, end, packet);
	if (packet->ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(at, end, length, packet);
	if (packet->ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(at, end, length, packet);
	return parse_other(length, packet);
}

/* How far that goes: a tag, the longest IPv4 header, and TCP's without options. */
#define PARSED_BYTES (ETH_HLEN + sizeof(struct vlan_tag) + 60 + sizeof(struct tcphdr))

/* The same in tc, where headers may lie in pages beyond data_end: then they are fetched. */
static __always_inline void parse_skb(struct __sk_buff *skb, struct packet *packet)
{
	__u32 length = skb->len < PARSED_BYTES ? skb->len : PARSED_BYTES;

	if (parse((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, packet))
		return;
	if (bpf_skb_pull_data(skb, length))
		return;
	*packet = (struct packet){};
	parse((void *)(long)skb->data, (void *)(long)skb->data_end, skb->len, packet);
}
