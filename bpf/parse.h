/* SPDX-License-Identifier: GPL-2.0-only */
/* What a frame says of itself: its VLAN, and how many frames it is on the wire. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

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
