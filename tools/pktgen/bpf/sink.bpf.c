// SPDX-License-Identifier: GPL-2.0-only
/*
 * sink: counts what is expected, checks it, and drops it. Everything else goes on to the stack.
 * It sits at XDP, which is the cheapest place, and at tc for what does not pass there.
 */
#include "wire.h"

#define BUCKETS 512 /* eight for each power of two nanoseconds */
#define LONGEST 1600
#define CLOCK_EVERY 64
#define VLAN_ID 0x0fff

struct bounds {
	__u32 first; /* host order, both included */
	__u32 last;
};

struct expected {
	__u16 vlan; /* 0: none */
	__u8 protocol; /* 0: any */
	__u8 drops_others;
	__u32 verify_every; /* 0: checksums are not looked at */
	struct bounds sources;
	struct bounds destinations;
	struct bounds sports;
	struct bounds dports;
};

const volatile struct expected expected;

struct tally {
	__u64 packets;
	__u64 bytes;
	__u64 first; /* nanoseconds */
	__u64 last;
	__u64 timed; /* packets by then */
	__u64 reordered;
	__u64 highest; /* sequence number, and one */
	__u64 wrong_vlan;
	__u64 wrong_address;
	__u64 verified;
	__u64 wrong_checksum;
	__u64 others;
	__u64 latencies[BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

static __always_inline int within(__u32 value, __u32 first, __u32 last)
{
	return value >= first && value <= last;
}

/* The bucket of a time: its power of two, and the three bits behind the first. */
static __always_inline __u32 bucket_of(__u64 time)
{
	__u32 power = 3;

	if (time < 8)
		return time;
#pragma unroll
	for (int step = 32; step; step >>= 1)
		if (time >> power >> step)
			power += step;
	return ((power - 2) << 3 | (time >> (power - 3) & 7)) & (BUCKETS - 1);
}

static __always_inline void note_stamp(struct tally *tally, const struct stamp *stamp, void *end)
{
	__u64 now;

	if ((void *)(stamp + 1) > end || stamp->magic != MAGIC)
		return;
	if (stamp->sequence + 1ULL > tally->highest)
		tally->highest = stamp->sequence + 1ULL;
	else
		tally->reordered++;
	if (!stamp->sent)
		return;
	now = bpf_ktime_get_ns();
	if (now > stamp->sent)
		tally->latencies[bucket_of(now - stamp->sent)]++;
}

/* The sum of so many bytes from there; the caller's bounds are the frame's. */
static __always_inline __u64 sum_of(const void *from, void *end, __u32 length)
{
	const __u16 *word = from;
	__u64 sum = 0;

	for (__u32 at = 0; at < LONGEST; at += 2) {
		if (at + 1 >= length || (void *)(word + 1) > end)
			break;
		sum += *word++;
	}
	if (length & 1 && (void *)word + 1 <= end)
		sum += *(const __u8 *)word;
	return sum;
}

static __always_inline int has_whole_checksums(const struct iphdr *ip, void *end)
{
	__u32 length = bpf_ntohs(ip->tot_len) - sizeof(*ip);
	const struct udphdr *udp = (const void *)(ip + 1);
	__u64 sum;

	if (fold(sum_of(ip, end, sizeof(*ip))) != 0xffff)
		return 0;
	if (ip->protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && !udp->check)
		return 1;
	sum = sum_of(ip + 1, end, length);
	if (ip->protocol != IPPROTO_ICMP)
		sum += (__u64)ip->saddr + ip->daddr + bpf_htons(ip->protocol) + bpf_htons(length);
	return fold(sum) == 0xffff;
}

static __always_inline int is_expected(const struct iphdr *ip, void *end, struct tally *tally)
{
	const __be16 *ports = (const void *)(ip + 1);

	if (expected.protocol && ip->protocol != expected.protocol)
		return 0;
	if (!within(bpf_ntohl(ip->saddr), expected.sources.first, expected.sources.last) ||
	    !within(bpf_ntohl(ip->daddr), expected.destinations.first,
		    expected.destinations.last)) {
		tally->wrong_address++;
		return 0;
	}
	if (ip->protocol == IPPROTO_ICMP || (void *)(ports + 2) > end)
		return 1;
	return within(bpf_ntohs(ports[0]), expected.sports.first, expected.sports.last) &&
	       within(bpf_ntohs(ports[1]), expected.dports.first, expected.dports.last);
}

/* Counts an IPv4 packet that came in this VLAN, 0 for none; true if it is one of ours. */
static __always_inline int count(struct tally *tally, const struct iphdr *ip, void *end, __u32 vlan,
				 __u32 bytes)
{
	__u32 header;

	if ((void *)(ip + 1) > end || ip->ihl != 5 || !is_expected(ip, end, tally))
		return 0;
	if (vlan != expected.vlan) {
		tally->wrong_vlan++;
		return 0;
	}
	tally->bytes += bytes;
	// Asking for the time costs as much as all else here.
	if (!(tally->packets++ % CLOCK_EVERY)) {
		tally->last = bpf_ktime_get_ns();
		tally->timed = tally->packets;
		if (!tally->first)
			tally->first = tally->last;
	}
	header = ip->protocol == IPPROTO_TCP ? sizeof(struct tcphdr) : sizeof(struct udphdr);
	note_stamp(tally, (void *)(ip + 1) + header, end);
	if (expected.verify_every && tally->packets % expected.verify_every == 0) {
		tally->verified++;
		if (!has_whole_checksums(ip, end))
			tally->wrong_checksum++;
	}
	return 1;
}

static __always_inline struct tally *tally_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tallies, &zero);
}

/* What the kernel knows of a frame whose tag is beside it (6.8, and a driver that tells). */
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *protocol,
					__u16 *tci) __ksym __weak;

static __always_inline int sink_xdp(struct xdp_md *ctx, __u32 vlan)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	struct tag *tag = (void *)(ethernet + 1);
	struct tally *tally = tally_here();
	void *payload = tag;
	__be16 protocol;

	if (!tally || (void *)(tag + 1) > end)
		return XDP_PASS;
	protocol = ethernet->h_proto;
	if (protocol == bpf_htons(ETH_P_8021Q)) {
		vlan = bpf_ntohs(tag->tci) & VLAN_ID;
		protocol = tag->protocol;
		payload = tag + 1;
	}
	if (protocol == bpf_htons(ETH_P_IP) && count(tally, payload, end, vlan, end - data))
		return XDP_DROP;
	tally->others++;
	return expected.drops_others ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	return sink_xdp(ctx, 0);
}

/* The same where tags are beside their frames, as on a veth. It is bound to its interface. */
SEC("xdp")
int sink_beside(struct xdp_md *ctx)
{
	__be16 protocol = 0;
	__u16 tci = 0;

	if (bpf_xdp_metadata_rx_vlan_tag(ctx, &protocol, &tci))
		return sink_xdp(ctx, 0);
	return sink_xdp(ctx, protocol == bpf_htons(ETH_P_8021Q) ? tci & VLAN_ID : 0);
}

/* What never met XDP, since it was put straight into the stack: another host on one machine. */
SEC("tc")
int sink_tc(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 vlan = skb->vlan_present ? skb->vlan_tci & VLAN_ID : 0;
	struct ethhdr *ethernet = data;
	struct tally *tally = tally_here();

	if (!tally || (void *)(ethernet + 1) > end)
		return TC_ACT_UNSPEC;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP) &&
	    count(tally, (void *)(ethernet + 1), end, vlan, skb->len))
		return TC_ACT_SHOT;
	// XDP has counted the others that it saw.
	return expected.drops_others ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char licence[] SEC("license") = "GPL";
