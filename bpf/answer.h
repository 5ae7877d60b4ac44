/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Answering ARP while no daemon does: for the gateway of a segment to its VMs, for floating addresses
 * on the public side. So nobody forgets the node, and open connections go on.
 */
#pragma once
#include "lookup.h"
#include "maps.h"
#include "parse.h"

#define ARP_REQUEST 1
#define ARP_REPLY 2

/* Whether the node has the address that somebody behind this port asks for. */
static __always_inline int has_address(const struct port *port, const __u8 *address)
{
	__u32 asked = *(const __u32 *)address, number = port->segment;
	struct segment *segment;

	if (port->kind == PORT_VIF) {
		segment = bpf_map_lookup_elem(&segments, &number);
		return segment && asked && *(__u32 *)segment->gateway == asked;
	}
	return port->flags & PORT_IS_PUBLIC && owned_as(asked) == OWNED_FLOAT;
}

/* Makes the question in this frame its answer; false if it is none, or not ours to answer. */
static __always_inline int answer_arp(void *data, void *end, const struct port *port)
{
	struct ethhdr *ethernet = data;
	struct arp *arp = (void *)(ethernet + 1);
	__u8 asked[4];

	if ((void *)(arp + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_ARP) ||
	    arp->operation != bpf_htons(ARP_REQUEST) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != sizeof(asked) ||
	    !has_address(port, arp->target))
		return 0;
	__builtin_memcpy(asked, arp->target, sizeof(asked));
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->target, arp->sender, sizeof(asked));
	__builtin_memcpy(arp->sender_mac, port->mac, ETH_ALEN);
	__builtin_memcpy(arp->sender, asked, sizeof(asked));
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(ethernet->h_dest, arp->target_mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, port->mac, ETH_ALEN);
	return 1;
}
