/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a replay did, for a test: a test run shows neither where a frame is redirected nor a tag
 * that is beside it.
 */
#pragma once
#include <bpf/bpf_helpers.h>

#include "line.h"

#ifdef TRACED
struct trace {
	__u32 replayed;
	__u32 egress;
	__u32 vlan;
	__u32 push;  /* told by the test: the tag to come with */
	__u64 reads; /* lines that were read whole */
	__u64 torn;  /* of these, such as no writer wrote: see trace_read */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace);
} traces SEC(".maps");

static __always_inline void trace_replay(__u32 egress, __u32 vlan)
{
	__u32 zero = 0;
	struct trace *trace = bpf_map_lookup_elem(&traces, &zero);

	if (!trace)
		return;
	trace->replayed = 1;
	trace->egress = egress;
	trace->vlan = vlan;
}

/* The test that asks for torn reads has lines with one number in three words. */
static __always_inline void trace_read(__u64 word3, __u64 word5, __u64 word6)
{
	__u32 zero = 0, number = word3;
	struct trace *trace = bpf_map_lookup_elem(&traces, &zero);

	if (!trace)
		return;
	trace->reads++;
	trace->torn += number != word3 >> 32 || number != (__u32)word5 || number != word6 >> 32;
}
#else
static __always_inline void trace_replay(__u32 egress, __u32 vlan)
{
	(void)egress;
	(void)vlan;
}

static __always_inline void trace_read(__u64 word3, __u64 word5, __u64 word6)
{
	(void)word3;
	(void)word5;
	(void)word6;
}
#endif
