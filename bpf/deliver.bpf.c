// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two ends of the punt link, and a probe.
 *
 * punt, XDP at tl-punt1: a frame on its way up, to the worker that serves the queue it came by.
 * probe, on no interface: to see whether one takes what XDP sends it.
 * deliver, tc at tl-punt0: a frame on its way down, to the port its outer tag names.
 */
#include "maps.h"
#include "parse.h"

/* Run by the daemon over a live frame, which leaves by the interface that the run names. */
SEC("xdp")
int probe(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

/* The port number in the outer tag; 0 if there is no such tag. */
static __always_inline __u32 number_in_frame(void *data, void *end)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = (void *)(ethernet + 1);

	if ((void *)(tag + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_8021AD))
		return 0;
	return bpf_ntohs(tag->tci) & TAG_NUMBER;
}

SEC("xdp")
int punt(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	__u32 number;

	if (queue < PUNT_SOCKETS && bpf_redirect_map(&sockets, queue, XDP_DROP) == XDP_REDIRECT)
		return XDP_REDIRECT;
	number = number_in_frame((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	count_drop(number, number ? DROP_NO_DAEMON : DROP_NO_PORT, 1);
	return XDP_DROP;
}

/*
 * Hands a frame to the stack of the NIC it came by. The NIC's tc program meets it there once more,
 * and lets it by for its mark; so does generic XDP, for what is put before the frame. Native XDP
 * is not met.
 */
static __always_inline int to_host(struct __sk_buff *skb, const struct port *port,
				   struct counters *row, __u32 frames)
{
	struct settings *node = node_settings();

	skb->mark = MARK_HOST;
	if (port->hook == HOOK_GENERIC &&
	    (!node || bpf_skb_change_head(skb, sizeof(node->pass), 0) ||
	     bpf_skb_store_bytes(skb, 0, &node->pass, sizeof(node->pass), 0))) {
		row->drops[DROP_NO_ROOM] += frames;
		return TC_ACT_SHOT;
	}
	row->passed += frames;
	return bpf_redirect(port->ifindex, BPF_F_INGRESS);
}

/*
 * Nothing leaves tl-punt0 for the stack behind it. The outer tag is beside the frame here: the
 * kernel takes it out before any program runs. Popping it brings the inner one, if there is one,
 * to its place, and what sends the frame puts it back in.
 */
SEC("tc")
int deliver(struct __sk_buff *skb)
{
	__u32 frames = frames_of(skb);
	struct counters *row;
	struct port *port;
	__u16 tag = 0;

	if (skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021AD))
		tag = skb->vlan_tci;
	port = port_of(tag & TAG_NUMBER);
	row = counters_of(port ? port->number : 0);
	if (!row)
		return TC_ACT_SHOT;
	if (!port) {
		row->drops[DROP_NO_PORT] += frames;
		return TC_ACT_SHOT;
	}
	if (bpf_skb_vlan_pop(skb)) {
		row->drops[DROP_NO_ROOM] += frames;
		return TC_ACT_SHOT;
	}
	if (tag & TAG_TO_HOST)
		return to_host(skb, port, row, frames);
	row->tx_packets += frames;
	row->tx_bytes += skb->len;
	if (port->flags & PORT_PEER)
		return bpf_redirect_peer(port->ifindex, 0);
	return bpf_redirect(port->ifindex, 0);
}

char licence[] SEC("license") = "GPL";
