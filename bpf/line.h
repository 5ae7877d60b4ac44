/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The connection table's line: the contract between the kernel programs and
 * crates/conntrack/src/layout.rs, where every #define has a constant of the same name without
 * LINE_ and the same value (a test compares them). Needs linux/types.h alone.
 *
 * One line is one direction of a connection. "Raw" is a field as it lies in the packet, loaded as
 * a native integer; nothing is byte-swapped to look something up.
 *
 *           bits 0..                                                    IPv4            L2
 *   word 0  state 2, count 62
 *   word 1  source 32, destination 32                                   raw             destination
 *                                                                                       MAC 48,
 *                                                                                       ethertype 16
 *   word 2  source port 16, destination port 16, protocol 8,            raw; an echo    source MAC's
 *           ingress port 12, zone 12                                    request has     last 4 bytes,
 *                                                                       (id, 0), a      255, ingress,
 *                                                                       reply (0, id)   segment
 *   word 3  new source 32, new destination 32 (0: stays)                raw             source MAC 48
 *   word 4  new source port 16, new destination port 16 (0: stays),
 *           egress port 12, egress segment 12, flags 8
 *   word 5  new destination MAC 48, VLAN to leave with 12 (0: none), spare 4
 *   word 6  index of the other direction 32, stamp 32
 *   word 7  last seen 32 (seconds), low bits of the count at install 16, state bits 16
 *
 * A line of IPv6 is one of L2, but that word 1 is what both addresses come to under the table's key
 * (line_ipv6_word1), and word 2 has ports as in IPv4, or twice the protocol that has none, and in
 * the place of the protocol one of the marks _TCP6 to _OTHER6.
 *
 * To read: word 0 (it must be live), words 1 and 2, the others, word 0 again; volatile loads; any
 * difference is a miss. Any other order tears. x86-64 keeps loads in this order; arm64 needs
 * load-acquire. The kernel writes word 7 alone, and only by compare-and-swap on the value it read
 * between the two loads of word 0: if the line was recycled since, the count in it differs.
 */
#pragma once
#include <linux/types.h>

#define LINE_WORDS 8
#define LINE_BYTES 64
#define LINE_HOME 4

/* word 0 */
#define LINE_FREE 0
#define LINE_NEVER_TAKEN 0 /* the whole word; neither was any line behind it in its home */
#define LINE_CLAIMED 1 /* somebody writes it */
#define LINE_LIVE 2
#define LINE_STATE_MASK 3
#define LINE_COUNT_SHIFT 2

/* words 1 and 3 */
#define LINE_DST_SHIFT 32
#define LINE_ETHERTYPE_SHIFT 48
#define LINE_MAC_MASK 0xffffffffffffULL

/* words 2 and 4 */
#define LINE_DPORT_SHIFT 16
#define LINE_PROTOCOL_SHIFT 32
#define LINE_INGRESS_SHIFT 40
#define LINE_ZONE_SHIFT 52
#define LINE_NUMBER_MASK 0xfffULL
#define LINE_PROTOCOL_OURS 249 /* from here on no protocols, but marks of lines */
#define LINE_PROTOCOL_TCP6 249
#define LINE_PROTOCOL_UDP6 250
#define LINE_PROTOCOL_ICMP6 251
#define LINE_PROTOCOL_OTHER6 252
#define LINE_PROTOCOL_L2 255

#define LINE_EGRESS_SHIFT 32
#define LINE_SEGMENT_SHIFT 44
#define LINE_FLAGS_SHIFT 56
#define LINE_PATH_KNOWN 1 /* without it the line is a miss */
#define LINE_REPLY 2      /* the reply's direction */
#define LINE_REWRITES 4   /* addresses or ports change */
#define LINE_NEXT_HOP 8   /* word 5 holds the number of a next hop */
#define LINE_L2 16        /* IPv6 or L2: word 3 holds the source MAC */
#define LINE_ROUTED 32    /* the connection's first packet was addressed to the gateway */
#define LINE_BRIDGED 64   /* the way is one of packets addressed to a station */

/* words 5 and 6 */
#define LINE_VLAN_SHIFT 48
#define LINE_STAMP_SHIFT 32

/* word 7 */
#define LINE_INSTALL_SHIFT 32
#define LINE_INSTALL_MASK 0xffffULL
#define LINE_BITS_SHIFT 48
#define LINE_SEEN 1
#define LINE_FIN 2
#define LINE_RST 4
#define LINE_OUTLIVED 8
#define LINE_BULK 16 /* TCP of full segments, or frames in pieces: XDP leaves them to tc */
#define LINE_RST_TIME_SHIFT 5

#define LINE_HASH_1 0x9e3779b97f4a7c15ULL
#define LINE_HASH_2 0xff51afd7ed558ccdULL
#define LINE_HASH_FOLD 32
#define LINE_HASH_TURN 20

struct line {
	__u64 word[LINE_WORDS];
} __attribute__((aligned(LINE_BYTES)));

_Static_assert(sizeof(struct line) == LINE_BYTES, "a line is a cache line");
_Static_assert((1 << LINE_COUNT_SHIFT) == LINE_STATE_MASK + 1, "word 0");
_Static_assert(LINE_LIVE <= LINE_STATE_MASK, "word 0");
_Static_assert(LINE_MAC_MASK == (1ULL << LINE_ETHERTYPE_SHIFT) - 1, "words 1, 3 and 5");
_Static_assert(LINE_ETHERTYPE_SHIFT == LINE_VLAN_SHIFT, "words 1 and 5");
_Static_assert(LINE_PROTOCOL_SHIFT + 8 == LINE_INGRESS_SHIFT, "word 2");
_Static_assert(LINE_INGRESS_SHIFT + 12 == LINE_ZONE_SHIFT && LINE_ZONE_SHIFT + 12 == 64, "word 2");
_Static_assert(LINE_NUMBER_MASK == (1 << 12) - 1, "words 2, 4 and 5");
_Static_assert(LINE_EGRESS_SHIFT + 12 == LINE_SEGMENT_SHIFT, "word 4");
_Static_assert(LINE_SEGMENT_SHIFT + 12 == LINE_FLAGS_SHIFT && LINE_FLAGS_SHIFT + 8 == 64, "word 4");
_Static_assert((LINE_PATH_KNOWN | LINE_REPLY | LINE_REWRITES | LINE_NEXT_HOP | LINE_L2 |
		LINE_ROUTED | LINE_BRIDGED) == 127,
	       "flags are one bit each");
_Static_assert(LINE_INSTALL_MASK == (1 << (LINE_BITS_SHIFT - LINE_INSTALL_SHIFT)) - 1, "word 7");
_Static_assert(LINE_BITS_SHIFT + 16 == 64, "word 7");
_Static_assert((LINE_SEEN | LINE_FIN | LINE_RST | LINE_OUTLIVED | LINE_BULK) ==
		       (1 << LINE_RST_TIME_SHIFT) - 1,
	       "state bits are one bit each, below the time");
_Static_assert((LINE_HOME & (LINE_HOME - 1)) == 0, "homes are aligned");

#define line_inline static inline __attribute__((always_inline, unused))

/* Words 1 and 2 of an IPv4 key; addresses and ports raw. */
line_inline __u64 line_ipv4_word1(__u32 src, __u32 dst)
{
	return src | (__u64)dst << LINE_DST_SHIFT;
}

line_inline __u64 line_ipv4_word2(__u16 sport, __u16 dport, __u8 protocol, __u16 ingress, __u16 zone)
{
	return sport | (__u64)dport << LINE_DPORT_SHIFT | (__u64)protocol << LINE_PROTOCOL_SHIFT |
	       (ingress & LINE_NUMBER_MASK) << LINE_INGRESS_SHIFT |
	       (zone & LINE_NUMBER_MASK) << LINE_ZONE_SHIFT;
}

/* Half of an IPv6 address, raw. */
line_inline __u64 line_half(const __u32 *words)
{
	return words[0] | (__u64)words[1] << 32;
}

line_inline __u64 line_fold(__u64 word)
{
	return word ^ word >> LINE_HASH_FOLD;
}

/*
 * Word 1 of an IPv6 key. Each step turns one half of an address around among all words, so that
 * two that differ in one half never come to the same.
 */
line_inline __u64 line_ipv6_word1(const __u32 *src, const __u32 *dst, __u64 key)
{
	__u64 hash = line_fold((key ^ line_half(src)) * LINE_HASH_1);

	hash = line_fold((hash ^ line_half(src + 2)) * LINE_HASH_2);
	hash = line_fold((hash ^ line_half(dst)) * LINE_HASH_1);
	return line_fold((hash ^ line_half(dst + 2)) * LINE_HASH_2);
}

/* A MAC address as a number, first byte lowest. */
line_inline __u64 line_mac(const __u8 *mac)
{
	return mac[0] | (__u64)mac[1] << 8 | (__u64)mac[2] << 16 | (__u64)mac[3] << 24 |
	       (__u64)mac[4] << 32 | (__u64)mac[5] << 40;
}

/* Words 1 and 2 of an L2 key; ethertype raw. */
line_inline __u64 line_l2_word1(const __u8 *dst, __u16 ethertype)
{
	return line_mac(dst) | (__u64)ethertype << LINE_ETHERTYPE_SHIFT;
}

line_inline __u64 line_l2_word2(const __u8 *src, __u16 ingress, __u16 segment)
{
	return line_mac(src) >> 16 |
	       line_ipv4_word2(0, 0, LINE_PROTOCOL_L2, ingress, segment);
}

/*
 * Hash of words 1 and 2 under the table's key. The fold between the multiplies brings ingress
 * port and zone, the top of word 2, below the second one: a multiply carries only upwards.
 */
line_inline __u64 line_hash(__u64 word1, __u64 word2, __u64 key)
{
	__u64 hash = (word1 ^ key) * LINE_HASH_1 ^ word2;

	hash ^= hash >> LINE_HASH_FOLD;
	hash *= LINE_HASH_2;
	return hash ^ hash >> LINE_HASH_FOLD;
}

/* Index of the first line of a key's home, 0 or 1; lines is a power of two. */
line_inline __u32 line_home(__u64 hash, __u32 which, __u32 lines)
{
	if (which)
		hash = hash << LINE_HASH_TURN | hash >> (64 - LINE_HASH_TURN);
	return (__u32)hash & (lines - LINE_HOME);
}

line_inline __u32 line_state(__u64 word0)
{
	return word0 & LINE_STATE_MASK;
}

line_inline __u8 line_flags(__u64 word4)
{
	return word4 >> LINE_FLAGS_SHIFT;
}

line_inline __u16 line_egress(__u64 word4)
{
	return word4 >> LINE_EGRESS_SHIFT & LINE_NUMBER_MASK;
}

line_inline __u16 line_segment(__u64 word4)
{
	return word4 >> LINE_SEGMENT_SHIFT & LINE_NUMBER_MASK;
}

line_inline __u16 line_vlan(__u64 word5)
{
	return word5 >> LINE_VLAN_SHIFT & LINE_NUMBER_MASK;
}

line_inline __u32 line_stamp(__u64 word6)
{
	return word6 >> LINE_STAMP_SHIFT;
}

/* What word 7 becomes when the direction has a packet at now that brings these state bits. */
line_inline __u64 line_touched(__u64 word7, __u32 now, __u16 bits)
{
	__u32 seen = (__s32)(now - (__u32)word7) > 0 ? now : (__u32)word7;

	return (word7 >> 32 << 32 | seen) | (__u64)bits << LINE_BITS_SHIFT;
}
