/* SPDX-License-Identifier: GPL-2.0-only */
/* What sender and sink agree on. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MAGIC 0x746c7067 /* "tlpg" */

struct tag {
	__be16 tci;
	__be16 protocol;
};

struct echo {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

struct arp {
	__be16 hardware;
	__be16 protocol;
	__be16 lengths;
	__be16 operation;
	__u16 sender_mac[3];
	__be32 sender;
	__u16 target_mac[3];
	__be32 target;
} __attribute__((packed));
_Static_assert(sizeof(struct arp) == 28, "arp");

/* Behind the transport header of UDP and ICMP, and of TCP where there is room. */
struct stamp {
	__u32 magic;
	__u32 sequence;
	__u64 sent; /* monotonic nanoseconds; 0: not said */
};
_Static_assert(sizeof(struct stamp) == 16, "stamp");

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}
