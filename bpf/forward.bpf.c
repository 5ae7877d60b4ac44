// SPDX-License-Identifier: GPL-2.0-only
/*
 * forward: the program on every port, as XDP and as tc, whatever the port is.
 *
 * A frame from a vif or a host port goes up to the workers. One from a NIC goes up if its VLAN is
 * a segment's, or if the NIC is public and its packet is for an address of ours; everything else
 * on a NIC is the host's and passes. Up is the NIC's AF_XDP socket where the NIC has XDP, and the
 * punt link for all others: outer 802.1ad tag with the port's number, then into tl-punt0.
 *
 * What is ours and cannot go up is dropped and counted, never passed: a host that forwards would
 * route it past everything the workers decide.
 */
#include "lookup.h"
#include "maps.h"
#include "parse.h"

/* Two CPUs may want to pay from one bucket at once; who lost this often drops. */
#define BUCKET_TRIES 8

/* A vif or host port: all its frames are ours. */
static __always_inline int goes_up_always(const struct port *port)
{
	return port->kind == PORT_VIF || port->kind == PORT_HOST;
}

/* Whether the frames of a NIC's VLAN, 0 for untagged, belong to a segment that is up. */
static __always_inline int is_segments(const struct port *port, int vlan)
{
	struct vlan_key key = { .port = port->number, .vlan = vlan };
	struct segment *segment;
	__u32 *number;

	if (vlan < 0)
		return 0;
	number = bpf_map_lookup_elem(&vlans, &key);
	if (!number)
		return 0;
	segment = bpf_map_lookup_elem(&segments, number);
	return segment && segment->flags & SEGMENT_UP;
}

/* Whether packets of this NIC may be for an address of ours: in no VLAN, and no segment's. */
static __always_inline int may_be_owned(const struct port *port, int vlan)
{
	return port->flags & PORT_IS_PUBLIC && vlan == 0;
}

/*
 * Whether a packet from a public NIC is ours. Nobody can open a connection to a SNAT address, so
 * without a line a packet to it is the host's; with one it is ours even if the line is of no use
 * at the moment, for the host would answer it with a reset. Of which connection a fragment or an
 * ICMP error is, only the workers can tell.
 */
static __always_inline int is_owned(const struct port *port, const struct packet *packet)
{
	if (packet->kind == PACKET_OTHER)
		return 0;
	switch (owned_as(packet->destination)) {
	case OWNED_FLOAT:
		return 1;
	case OWNED_NETWORK:
		return packet->kind != PACKET_ARP;
	case OWNED_SNAT:
		if (packet->kind == PACKET_FLOW)
			return line_of_public(port, packet) != NULL;
		return packet->kind == PACKET_FRAGMENT || packet->kind == PACKET_ICMP_ERROR;
	}
	return 0;
}

/*
 * Pays for frames from the port's bucket; false if there is not enough in it.
 *
 * The bucket is one number, the moment until which everything is paid for (GCRA): each frame
 * moves it on by punt_cost, it may lie at most at now, and it is never further back than
 * punt_burst. So one compare-and-swap does it, without a lock. A packet of more frames than the
 * bucket holds is let through a full one, and the debt is waited for.
 */
static __always_inline int pay(const struct port *port, __u32 frames)
{
	__u32 number = port->number;
	struct bucket *bucket;
	__u64 now, floor;

	if (!port->punt_cost)
		return 1;
	bucket = bpf_map_lookup_elem(&buckets, &number);
	if (!bucket)
		return 0;
	now = bpf_ktime_get_ns();
	floor = now > port->punt_burst ? now - port->punt_burst : 0;
	for (int try = 0; try < BUCKET_TRIES; try++) {
		__u64 paid = *(volatile __u64 *)&bucket->paid;
		__u64 from = paid > floor ? paid : floor;
		__u64 next = from + (__u64)port->punt_cost * frames;

		if (next > now && from != floor)
			return 0;
		if (__sync_val_compare_and_swap(&bucket->paid, paid, next) == paid)
			return 1;
	}
	return 0;
}

static __always_inline int drop_xdp(struct counters *row, __u32 reason)
{
	row->drops[reason]++;
	return XDP_DROP;
}

/* Up by the NIC's own socket for this queue. */
static __always_inline int to_socket(struct xdp_md *ctx, const struct port *port,
				     struct counters *row)
{
	__u32 queue = ctx->rx_queue_index;

	// Beyond its queues lie the sockets of another NIC.
	if (queue >= port->queues ||
	    bpf_redirect_map(&sockets, port->sockets + queue, XDP_DROP) != XDP_REDIRECT)
		return drop_xdp(row, DROP_NO_DAEMON);
	row->punted++;
	return XDP_REDIRECT;
}

/* Up by the punt link. */
static __always_inline int to_punt_xdp(struct xdp_md *ctx, const struct port *port,
				       struct counters *row)
{
	__u32 *words;
	__be16 *tag;

	if (!pay(port, 1))
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
	if (bpf_redirect_map(&punts, 0, XDP_DROP) != XDP_REDIRECT)
		return drop_xdp(row, DROP_NO_DAEMON);
	row->punted++;
	return XDP_REDIRECT;
}

/*
 * Whether this is a frame that deliver hands to the stack of a NIC. In the driver XDP has run
 * before; in the stack it meets the frame again, and cannot see a mark.
 */
static __always_inline int has_pass(struct xdp_md *ctx, const struct port *port)
{
	__u64 *pass = (void *)(long)ctx->data;
	struct settings *node;

	if (port->hook != HOOK_GENERIC || (void *)(pass + 1) > (void *)(long)ctx->data_end)
		return 0;
	node = node_settings();
	return node && *pass == node->pass;
}

SEC("xdp")
int forward_xdp(struct xdp_md *ctx)
{
	struct port *port = port_on(ctx->ingress_ifindex);
	struct counters *row = counters_of(port ? port->number : 0);
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	int vlan;

	if (!row)
		return XDP_DROP;
	if (port && has_pass(ctx, port)) {
		if (bpf_xdp_adjust_head(ctx, sizeof(__u64)))
			return drop_xdp(row, DROP_MALFORMED);
		return XDP_PASS;
	}
	row->rx_packets++;
	row->rx_bytes += end - data;
	if (!port)
		return drop_xdp(row, DROP_NO_PORT);
	vlan = vlan_in_frame(data, end);
	if (vlan == VLAN_CUT)
		return drop_xdp(row, DROP_MALFORMED);
	if (goes_up_always(port))
		return to_punt_xdp(ctx, port, row);
	if (is_segments(port, vlan))
		return to_socket(ctx, port, row);
	if (may_be_owned(port, vlan)) {
		struct packet packet = {};

		parse(data, end, &packet);
		if (is_owned(port, &packet))
			return to_socket(ctx, port, row);
	}
	row->passed++;
	return XDP_PASS;
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
	if (!pay(port, frames))
		return drop_tc(row, DROP_PUNT_RATE, frames);
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), port->number))
		return drop_tc(row, DROP_NO_ROOM, frames);
	row->punted += frames;
	return bpf_redirect(node->punt, 0);
}

SEC("tc")
int forward_tc(struct __sk_buff *skb)
{
	struct port *port = port_on(skb->ifindex);
	struct counters *row = counters_of(port ? port->number : 0);
	__u32 frames = frames_of(skb);
	int vlan;

	if (!row)
		return TC_ACT_SHOT;
	// TC_ACT_UNSPEC: on to who is next, and in the end to the stack (TCX_NEXT is the same).
	if (skb->mark == MARK_HOST && port && !goes_up_always(port)) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	row->rx_packets += frames;
	row->rx_bytes += skb->len;
	if (!port)
		return drop_tc(row, DROP_NO_PORT, frames);
	vlan = vlan_of_skb(skb);
	if (vlan == VLAN_CUT)
		return drop_tc(row, DROP_MALFORMED, frames);
	if (goes_up_always(port) || is_segments(port, vlan))
		return to_punt_tc(skb, port, row, frames);
	if (may_be_owned(port, vlan)) {
		struct packet packet = {};

		parse_skb(skb, &packet);
		if (is_owned(port, &packet))
			return to_punt_tc(skb, port, row, frames);
	}
	row->passed += frames;
	return TC_ACT_UNSPEC;
}

char licence[] SEC("license") = "GPL";
