// SPDX-License-Identifier: GPL-2.0-only
/* bridge: every frame to the other interface, unread. What a test bed can do at most. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} others SEC(".maps");

SEC("xdp")
int bridge(struct xdp_md *ctx)
{
	(void)ctx;
	return bpf_redirect_map(&others, 0, XDP_DROP);
}

char licence[] SEC("license") = "GPL";
