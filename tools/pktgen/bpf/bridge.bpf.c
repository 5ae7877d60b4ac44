// SPDX-License-Identifier: GPL-2.0-only
/* bridge: every frame to the other interface, unread. What a test bed can do at most. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} others SEC(".maps");

/* The same for tc, which asks for no map of devices. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} indexes SEC(".maps");

SEC("xdp")
int bridge(struct xdp_md *ctx)
{
	(void)ctx;
	return bpf_redirect_map(&others, 0, XDP_DROP);
}

static __always_inline __u32 other(void)
{
	__u32 zero = 0, *index = bpf_map_lookup_elem(&indexes, &zero);

	return index ? *index : 0;
}

SEC("tc")
int bridge_tc(struct __sk_buff *skb)
{
	(void)skb;
	return bpf_redirect(other(), 0);
}

SEC("tc")
int bridge_peer(struct __sk_buff *skb)
{
	(void)skb;
	return bpf_redirect_peer(other(), 0);
}

char licence[] SEC("license") = "GPL";
