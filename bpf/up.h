/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way up, to the workers: the NIC's AF_XDP socket where the NIC has XDP, and the punt link for
 * all others: outer 802.1ad tag with the port's number, then into tl-punt0.
 */
#pragma once
#include "maps.h"
#include "parse.h"
#include "quota.h"

static __always_inline int drop_xdp(struct counters *row, __u32 reason)
{
	row->drops[reason]++;
	return XDP_DROP;
}

/*
 * Into the punt link. A device map cannot be shared by a program that takes frames in pieces and
 * one that does not; the one in the stack, where maps of devices save nothing, goes without.
 */
static __always_inline int into_punt(int in_stack)
{
	struct settings *node;

	if (!in_stack)
		return bpf_redirect_map(&punts, 0, XDP_DROP);
	node = node_settings();
	return node && node->punt ? bpf_redirect(node->punt, 0) : XDP_DROP;
}

/* Up by the punt link. */
static __always_inline int to_punt_xdp(struct xdp_md *ctx, const struct port *port,
				       struct counters *row, int in_stack)
{
	__u32 *words;
	__be16 *tag;

	if (!pay_up(port, 1))
		return drop_xdp(row, DROP_PUNT_RATE);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(struct vlan_tag)))
		return drop_xdp(row, DROP_NO_ROOM);
	words = (void *)(long)ctx->data;
	tag = (void *)(words + 3);
	if ((void *)(words + 4) > (void *)(long)ctx->data_end)
		return drop_xdp(row, DROP_MALFORMED);
	// Both addresses move into the new room, and the tag behind them.
	words[0] = words[1];
	words[1] = words[2];
	words[2] = words[3];
	tag[0] = bpf_htons(ETH_P_8021AD);
	tag[1] = bpf_htons(port->number);
	if (into_punt(in_stack) != XDP_REDIRECT)
		return drop_xdp(row, DROP_NO_DAEMON);
	row->punted++;
	return XDP_REDIRECT;
}

/*
 * Up by the NIC's own socket for this queue. Without one no worker is there; what asks for an address
 * is answered at the punt link.
 */
static __always_inline int to_socket(struct xdp_md *ctx, const struct port *port,
				     const struct packet *packet, struct counters *row,
				     int in_stack)
{
	__u32 queue = ctx->rx_queue_index;

	// Beyond its queues lie the sockets of another NIC.
	if (queue < port->queues &&
	    bpf_redirect_map(&sockets, port->sockets + queue, XDP_DROP) == XDP_REDIRECT) {
		row->punted++;
		return XDP_REDIRECT;
	}
	if (packet->kind == PACKET_ARP)
		return to_punt_xdp(ctx, port, row, in_stack);
	return drop_xdp(row, DROP_NO_DAEMON);
}

static __always_inline int drop_tc(struct counters *row, __u32 reason, __u32 frames)
{
	row->drops[reason] += frames;
	return TC_ACT_SHOT;
}

/* Up by the punt link. A tag that the kernel holds beside the frame goes into it, behind ours. */
static __always_inline int to_punt_tc(struct __sk_buff *skb, const struct port *port,
				      struct counters *row, __u32 frames)
{
	struct settings *node = node_settings();

	if (!node || !node->punt)
		return drop_tc(row, DROP_NO_DAEMON, frames);
	if (!pay_up(port, frames))
		return drop_tc(row, DROP_PUNT_RATE, frames);
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), port->number))
		return drop_tc(row, DROP_NO_ROOM, frames);
	row->punted += frames;
	return bpf_redirect(node->punt, 0);
}
