// SPDX-License-Identifier: GPL-2.0-only
/*
 * forward: the program on every port, as XDP and as tc, whatever the port is.
 *
 * What belongs to a segment, or comes by a public NIC, and has a line that may be replayed, is
 * rewritten and sent on here. Of the rest a frame from a vif or a host port goes up to the
 * workers. One from a NIC goes up if its VLAN is a segment's, or if the NIC is public and its
 * packet is for an address of ours; everything else on a NIC is the host's and passes.
 *
 * note, tc egress at public NICs: remembers what the host asks, so that its answers are its own.
 *
 * On a port with XDP there is the tc program as well: it replays what XDP lets pass because XDP
 * cannot send it there, and what it cannot replay goes the same ways as elsewhere.
 *
 * What is ours and cannot go up is dropped and counted, never passed: a host that forwards would
 * route it past everything the workers decide.
 */
#include "asked.h"
#include "lookup.h"
#include "maps.h"
#include "parse.h"
#include "replay.h"
#include "replay_tc.h"
#include "replay_xdp.h"
#include "up.h"

/* A TCP segment of so many bytes, with its headers, is one of many. */
#define BULK_BYTES 1200

/* A vif or host port: all its frames are ours. */
static __always_inline int goes_up_always(const struct port *port)
{
	return port->kind == PORT_VIF || port->kind == PORT_HOST;
}

/* Finds the segment of a frame that came by this port in this VLAN, 0 for untagged. */
static __always_inline void find_segment(struct arrival *from, int vlan)
{
	__u32 at = from->port->nic * VLANS + (vlan & VLAN_ID);
	struct segment *segment;
	__u32 number, *of_vlan;

	if (goes_up_always(from->port)) {
		number = vlan ? 0 : from->port->segment;
	} else {
		of_vlan = vlan < 0 ? NULL : bpf_map_lookup_elem(&vlans, &at);
		number = of_vlan ? *of_vlan : 0;
	}
	segment = number ? bpf_map_lookup_elem(&segments, &number) : NULL;
	if (!segment || !(segment->flags & SEGMENT_UP))
		return;
	from->segment = segment;
	from->number = number;
}

/* Whether packets of this NIC may be for an address of ours: in no VLAN, and no segment's. */
static __always_inline int may_be_owned(const struct port *port, int vlan)
{
	return port->flags & PORT_IS_PUBLIC && vlan == 0;
}

static __always_inline int has_line(const struct port *port, const struct packet *packet)
{
	struct key key = ipv4_key(port, PUBLIC_ZONE, packet);

	return find_line(&key) != NULL;
}

/* Whether it is for a port of a SNAT address that leads to a VM. */
static __always_inline int is_forwarded(const struct packet *packet)
{
	struct forward_key key = { .address = packet->destination, .port = packet->dport };

	return packet->protocol == IPPROTO_UDP && bpf_map_lookup_elem(&forwards, &key);
}

/*
 * Whether a packet from a public NIC is ours. But for such a port nobody can open a connection to
 * a SNAT address, so without a line a packet to it is the host's; with one it is ours even if the line is of no use
 * at the moment, for the host would answer it with a reset. Of which connection a fragment or an
 * ICMP error is, only the workers can tell.
 */
static __always_inline int is_owned(const struct port *port, const struct packet *packet)
{
	if (packet->kind == PACKET_OTHER || packet->kind == PACKET_IPV6)
		return 0;
	switch (owned_as(packet->destination)) {
	case OWNED_FLOAT:
		return 1;
	case OWNED_NETWORK:
		return packet->kind != PACKET_ARP;
	case OWNED_SNAT:
		if (packet->kind == PACKET_FLOW)
			return is_forwarded(packet) || has_line(port, packet);
		return packet->kind == PACKET_FRAGMENT || packet->kind == PACKET_ICMP_ERROR;
	}
	return 0;
}

/* Whether to look for a line at all: for what is no segment's, only if it has addresses. */
static __always_inline int may_replay(const struct arrival *from, int vlan)
{
	const struct packet *packet = &from->packet;

	if (!replays || !packet->replays || !may_speak(from))
		return 0;
	return from->segment || (may_be_owned(from->port, vlan) && packet->kind == PACKET_FLOW);
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

/* How long a frame is, all its pieces together. */
static __always_inline __u32 frame_length(struct xdp_md *ctx, const struct port *port)
{
	if (has_frags && port && port->flags & PORT_LONG)
		return bpf_xdp_get_buff_len(ctx);
	return ctx->data_end - ctx->data;
}

static __always_inline int forward_frame(struct xdp_md *ctx, int in_stack)
{
	struct port *port = port_on(ctx->ingress_ifindex);
	struct counters *row = counters_of(port ? port->number : 0);
	struct arrival from = { .port = port };
	struct way way = {};
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	__u32 length = frame_length(ctx, port);
	int vlan;

	if (!row)
		return XDP_DROP;
	if (port && has_pass(ctx, port)) {
		if (bpf_xdp_adjust_head(ctx, sizeof(__u64)))
			return drop_xdp(row, DROP_MALFORMED);
		return XDP_PASS;
	}
	row->rx_packets++;
	row->rx_bytes += length;
	if (!port)
		return drop_xdp(row, DROP_NO_PORT);
	if (!meets_quota(port, QUOTA_OUT, length))
		return drop_xdp(row, DROP_QUOTA_OUT);
	vlan = vlan_in_frame(data, end);
	if (vlan == VLAN_CUT)
		return drop_xdp(row, DROP_MALFORMED);
	find_segment(&from, vlan);
	parse(data, end, length, &from.packet);
	read_macs(data, end, &from);
	from.length = length - from.packet.l3;
	if (may_be_owned(port, vlan) && answers_host(data, end, &from.packet, 0)) {
		row->passed++;
		return XDP_PASS;
	}
	if ((from.packet.protocol == IPPROTO_TCP && from.length >= BULK_BYTES) ||
	    length > end - data)
		from.packet.bits |= LINE_BULK;
	if (may_replay(&from, vlan) && find_way(&from, &way)) {
		// What XDP cannot send there, the tc program behind it can, frames in pieces among
		// it, which not every driver takes; and segments of bulk TCP come to it merged by
		// GRO, which is worth more than to be early. Once one of a direction has gone that
		// way all do: they must not overtake each other.
		if (way.egress->flags & PORT_TAKES_XDP && !(way.bits & LINE_BULK))
			return replay_xdp(ctx, &from, &way, row, in_stack);
		return XDP_PASS;
	}
	if (goes_up_always(port))
		return to_punt_xdp(ctx, port, row, in_stack);
	if (from.segment || (may_be_owned(port, vlan) && is_owned(port, &from.packet)))
		return to_socket(ctx, port, &from.packet, row, in_stack);
	row->passed++;
	return XDP_PASS;
}

/* In the driver: loaded to take frames in pieces where the kernel has them (5.18). */
SEC("xdp")
int forward_xdp(struct xdp_md *ctx)
{
	return forward_frame(ctx, 0);
}

/*
 * In the stack, which puts the pieces together for it. To a program that takes pieces it would
 * give a copy of the packet that tc cannot read any more (its mac_len is 0, as of 6.18).
 */
SEC("xdp")
int forward_whole(struct xdp_md *ctx)
{
	return forward_frame(ctx, 1);
}

/* A packet's length, or that of the longest frame it will be cut into, behind Ethernet. */
static __always_inline __u32 length_of(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 headers = packet->headers;

	// Read before: else clang makes one load of it and of skb->len, which no verifier takes.
	barrier_var(headers);
	return skb->gso_size ? skb->gso_size + headers : skb->len - sizeof(struct ethhdr);
}

static __always_inline int forward_skb(struct __sk_buff *skb)
{
	struct port *port = port_on(skb->ifindex);
	struct counters *row = counters_of(port ? port->number : 0);
	struct arrival from = { .port = port };
	__u32 frames = frames_of(skb);
	struct way way = {};
	int vlan, first;

	if (!row)
		return TC_ACT_SHOT;
	// TC_ACT_UNSPEC: on to who is next, and in the end to the stack (TCX_NEXT is the same).
	if (skb->mark == MARK_HOST && port && !goes_up_always(port)) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	// Behind XDP it has been counted.
	first = !port || port->hook == HOOK_TC || port->hook == HOOK_NONE;
	if (first) {
		row->rx_packets += frames;
		row->rx_bytes += skb->len;
	}
	if (!port)
		return drop_tc(row, DROP_NO_PORT, frames);
	if (first && !meets_quota(port, QUOTA_OUT, skb->len))
		return drop_tc(row, DROP_QUOTA_OUT, frames);
	vlan = vlan_of_skb(skb);
	if (vlan == VLAN_CUT)
		return drop_tc(row, DROP_MALFORMED, frames);
	find_segment(&from, vlan);
	parse_skb(skb, &from.packet);
	read_macs((void *)(long)skb->data, (void *)(long)skb->data_end, &from);
	from.length = length_of(skb, &from.packet);
	if (may_be_owned(port, vlan) &&
	    answers_host((void *)(long)skb->data, (void *)(long)skb->data_end, &from.packet, 1)) {
		if (first)
			row->passed += frames;
		return TC_ACT_UNSPEC;
	}
	// A tag in the frame is one too many, if there is one beside it; else it is rare.
	if (from.packet.l3 == L3_AT && may_replay(&from, vlan) &&
	    find_way(&from, &way))
		return replay_tc(skb, &from, &way, row, frames);
	if (goes_up_always(port) || from.segment ||
	    (may_be_owned(port, vlan) && is_owned(port, &from.packet)))
		return to_punt_tc(skb, port, row, frames);
	if (first)
		row->passed += frames;
	return TC_ACT_UNSPEC;
}

SEC("tc")
int forward_tc(struct __sk_buff *skb)
{
	return forward_skb(skb);
}

SEC("tc")
int note(struct __sk_buff *skb)
{
	note_request(skb);
	return TC_ACT_UNSPEC;
}

#ifdef TRACED
/* A test run gives a frame no tag beside it: this puts one there. */
SEC("tc")
int forward_tc_tagged(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct trace *trace = bpf_map_lookup_elem(&traces, &zero);

	if (!trace || bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), trace->push))
		return TC_ACT_SHOT;
	return forward_skb(skb);
}
#endif

char licence[] SEC("license") = "GPL";
