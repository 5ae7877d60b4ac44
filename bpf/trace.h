/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a replay did, for a test: a test run shows neither where a frame is redirected nor a tag
 * that is beside it.
 */
#pragma once
#include "replay.h"

#ifdef TRACED
struct trace {
	__u32 replayed;
	__u32 egress;
	__u32 vlan;
	__u32 push; /* told by the test: the tag to come with */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace);
} traces SEC(".maps");

static __always_inline void trace_replay(const struct way *way)
{
	__u32 zero = 0;
	struct trace *trace = bpf_map_lookup_elem(&traces, &zero);

	if (!trace)
		return;
	trace->replayed = 1;
	trace->egress = way->egress->number;
	trace->vlan = line_vlan(way->word5);
}
#else
static __always_inline void trace_replay(const struct way *way)
{
	(void)way;
}
#endif
