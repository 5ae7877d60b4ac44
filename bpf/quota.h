/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a port has to pay for: frames it sends up to the workers, and bytes of a VM with a quota.
 */
#pragma once
#include "maps.h"

/* Two CPUs may want to pay from one bucket at once; who lost this often drops. */
#define BUCKET_TRIES 8

/*
 * Pays a price from a bucket; false if there is not enough in it.
 *
 * The bucket is one number, the moment until which everything is paid for (GCRA): each payment
 * moves it on by its price, it may lie at most at now, and it is never further back than burst.
 * So one compare-and-swap does it, without a lock. What costs more than the bucket holds is let
 * through a full one, and the debt is waited for.
 */
static __always_inline int pay(__u64 *bucket, __u64 price, __u64 burst)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 floor = now > burst ? now - burst : 0;

	for (int try = 0; try < BUCKET_TRIES; try++) {
		__u64 paid = *(volatile __u64 *)bucket;
		__u64 from = paid > floor ? paid : floor;
		__u64 next = from + price;

		if (next > now && from != floor)
			return 0;
		if (__sync_val_compare_and_swap(bucket, paid, next) == paid)
			return 1;
	}
	return 0;
}

/* Pays for frames on their way up. */
static __always_inline int pay_up(const struct port *port, __u32 frames)
{
	__u32 number = port->number;
	struct buckets *row;

	if (!port->punt_cost)
		return 1;
	row = bpf_map_lookup_elem(&buckets, &number);
	return row && pay(&row->paid[PAID_UP], (__u64)port->punt_cost * frames, port->punt_burst);
}

/* Whether so many bytes are within one rate of a port's quota. */
static __always_inline int is_within(const struct quota *quota, struct buckets *row, __u32 rate,
				     __u32 bytes)
{
	__u64 price = (__u64)quota->rates[rate].cost * bytes >> QUOTA_SHIFT;

	return !quota->rates[rate].cost ||
	       pay(&row->paid[PAID_QUOTA + rate], price, quota->rates[rate].burst);
}

/*
 * Whether bytes are within a port's quota. The peak is asked first: what it lets through is no
 * more than it, and of that the average has the last word. Not static: it is verified by itself,
 * once, and not again wherever it is called.
 */
__attribute__((noinline)) int meter(__u32 number, __u32 way, __u32 bytes)
{
	struct quota *quota = bpf_map_lookup_elem(&quotas, &number);
	struct buckets *row = bpf_map_lookup_elem(&buckets, &number);

	if (!quota || !row || way > QUOTA_IN)
		return 0;
	return is_within(quota, row, way + QUOTA_PEAK, bytes) && is_within(quota, row, way, bytes);
}

/* The same of a VM's port, from it (QUOTA_OUT) or to it (QUOTA_IN); few have a quota. */
static __always_inline int meets_quota(const struct port *port, __u32 way, __u32 bytes)
{
	return !(port->flags & PORT_METERED) || meter(port->number, way, bytes);
}
