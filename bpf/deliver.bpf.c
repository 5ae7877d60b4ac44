// SPDX-License-Identifier: GPL-2.0-only
/*
 * The two ends of the punt link, and a probe.
 *
 * punt, XDP at tl-punt1: a frame on its way up, to the worker that serves the queue it came by.
 * answer, tc at tl-punt1: what no worker takes, ARP, is answered where it can be.
 * probe, on no interface: to see whether one takes what XDP sends it.
 * deliver, tc at tl-punt0: a frame on its way down, to the port its outer tag names.
 */
#include "answer.h"
#include "maps.h"
#include "parse.h"
#include "quota.h"

/* Run by the daemon over a live frame, which leaves by the interface that the run names. */
SEC("xdp")
int probe(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_TX;
}

/* The outer tag; NULL if there is none. */
static __always_inline struct vlan_tag *outer_tag(void *data, void *end)
{
	struct ethhdr *ethernet = data;
	struct vlan_tag *tag = (void *)(ethernet + 1);

	if ((void *)(tag + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_8021AD))
		return NULL;
	return tag;
}

SEC("xdp")
int punt(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	struct vlan_tag *tag;
	__u32 number;

	if (queue < PUNT_SOCKETS && bpf_redirect_map(&sockets, queue, XDP_DROP) == XDP_REDIRECT)
		return XDP_REDIRECT;
	tag = outer_tag((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	if (tag && tag->protocol == bpf_htons(ETH_P_ARP))
		return XDP_PASS;
	number = tag ? bpf_ntohs(tag->tci) & TAG_NUMBER : 0;
	count_drop(number, number ? DROP_NO_DAEMON : DROP_NO_PORT, 1);
	return XDP_DROP;
}

static __always_inline int send_to(const struct port *port)
{
	if (port->flags & PORT_PEER)
		return bpf_redirect_peer(port->ifindex, 0);
	return bpf_redirect(port->ifindex, 0);
}

static __always_inline __u32 number_beside(struct __sk_buff *skb)
{
	int is_outer = skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021AD);

	return is_outer ? skb->vlan_tci & TAG_NUMBER : 0;
}

static __always_inline void count_answer(const struct port *port, __u32 bytes)
{
	struct counters *row = counters_of(port->number);

	if (!row)
		return;
	row->answered++;
	row->tx_packets++;
	row->tx_bytes += bytes;
}

/* Nothing that comes up reaches the stack behind tl-punt1. */
SEC("tc")
int answer(struct __sk_buff *skb)
{
	__u32 number = number_beside(skb);
	struct port *port = port_of(number);

	if (!port) {
		count_drop(0, DROP_NO_PORT, 1);
		return TC_ACT_SHOT;
	}
	if (!answer_arp((void *)(long)skb->data, (void *)(long)skb->data_end, port) ||
	    bpf_skb_vlan_pop(skb)) {
		count_drop(number, DROP_NO_DAEMON, 1);
		return TC_ACT_SHOT;
	}
	count_answer(port, skb->len);
	return send_to(port);
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
	if (!meets_quota(port, QUOTA_IN, skb->len)) {
		row->drops[DROP_QUOTA_IN] += frames;
		return TC_ACT_SHOT;
	}
	row->tx_packets += frames;
	row->tx_bytes += skb->len;
	return send_to(port);
}

char licence[] SEC("license") = "GPL";
