// SPDX-License-Identifier: GPL-2.0-only
/*
 * send: run with live frames, turns each page it is given into the next packet and sends it.
 *
 * The whole header is written anew every time: pages come back with whatever was done to them on
 * their way. To keep a rate the program drops (which costs little) until a packet is due.
 */
#include "wire.h"

#define SIZES 16

struct range {
	__u32 first; /* host order */
	__u32 count;
};

struct plan {
	__u32 macs[2 * ETH_ALEN / 4]; /* destination, source */
	__be16 vlan;		 /* 0: none */
	__u8 protocol; /* 0: ARP */
	__u8 tcp_flags;
	struct range sports;
	struct range dports;
	struct range destinations;
	struct range sources;
	__u32 flows;
	__u32 is_random;
	__u32 sizes[SIZES]; /* frames without tag, in turn */
	__u32 size_count;
	__u32 stamps;	/* packets say when they were sent: asking for the time costs as much as the rest */
	__u64 interval; /* nanoseconds from one packet to the next; 0: as fast as it goes */
	__u64 limit;
};

const volatile struct plan plan;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} progress SEC(".maps");

/* One processor sends: nobody else counts here. */
struct progress {
	__u64 sent;
	__u64 bytes;
	__u64 due;
	__u32 flow; /* these five: where the walk through the flows is */
	__u32 sport;
	__u32 dport;
	__u32 destination;
	__u32 source;
	__u32 size;
};

static __always_inline int is_due(struct progress *at, __u64 now)
{
	if (!plan.interval)
		return 1;
	// What was missed while nobody ran is not made up for.
	if (at->due + 1000000 < now)
		at->due = now;
	if (at->due > now)
		return 0;
	at->due += plan.interval;
	return 1;
}

/* The next flow, sequentially: like the wheels of a counter, source ports fastest. */
static __always_inline void turn(struct progress *at)
{
	if (++at->flow >= plan.flows) {
		at->flow = at->sport = at->dport = at->destination = at->source = 0;
		return;
	}
	if (++at->sport < plan.sports.count)
		return;
	at->sport = 0;
	if (++at->dport < plan.dports.count)
		return;
	at->dport = 0;
	if (++at->destination < plan.destinations.count)
		return;
	at->destination = 0;
	if (++at->source >= plan.sources.count)
		at->source = 0;
}

static __always_inline void draw(struct progress *at)
{
	__u32 flow = bpf_get_prandom_u32() % plan.flows;

	at->sport = flow % plan.sports.count;
	flow /= plan.sports.count;
	at->dport = flow % plan.dports.count;
	flow /= plan.dports.count;
	at->destination = flow % plan.destinations.count;
	at->source = flow / plan.destinations.count;
}

static __always_inline __u64 put_stamp(struct stamp *stamp, __u32 sequence, __u64 now)
{
	stamp->magic = MAGIC;
	stamp->sequence = sequence;
	stamp->sent = now;
	return (__u64)MAGIC + sequence + (__u32)now + (now >> 32);
}

static __always_inline int put_udp(struct udphdr *udp, void *end, __be16 sport, __be16 dport,
				   __u32 length, __u64 pseudo, __u32 sequence, __u64 now)
{
	struct stamp *stamp = (void *)(udp + 1);
	__u16 sum;

	if ((void *)(stamp + 1) > end)
		return 0;
	udp->source = sport;
	udp->dest = dport;
	udp->len = bpf_htons(length);
	sum = ~fold(pseudo + sport + dport + udp->len + put_stamp(stamp, sequence, now));
	udp->check = sum ? sum : 0xffff;
	return 1;
}

static __always_inline int put_tcp(struct tcphdr *tcp, void *end, __be16 sport, __be16 dport,
				   __u32 length, __u64 pseudo, __u32 sequence, __u64 now)
{
	struct stamp *stamp = (void *)(tcp + 1);
	__u32 *words = (void *)tcp;
	__u64 sum = pseudo;

	if ((void *)(tcp + 1) > end)
		return 0;
	words[0] = sport | (__u32)dport << 16;
	words[1] = bpf_htonl(sequence);
	words[2] = 0;
	words[3] = bpf_htonl(5 << 28 | (__u32)plan.tcp_flags << 16 | 0xffff);
	words[4] = 0;
	sum += (__u64)words[0] + words[1] + words[3];
	if (length >= sizeof(*tcp) + sizeof(*stamp)) {
		if ((void *)(stamp + 1) > end)
			return 0;
		sum += put_stamp(stamp, sequence, now);
	} else {
		// A page comes back with what was in it.
		volatile __u16 *rest = (void *)stamp;

#pragma unroll
		for (int n = 0; n < 7; n++)
			if ((void *)(rest + n + 1) <= end)
				rest[n] = 0;
	}
	tcp->check = ~fold(sum);
	return 1;
}

static __always_inline int put_echo(struct echo *echo, void *end, __be16 id, __u32 sequence,
				    __u64 now)
{
	struct stamp *stamp = (void *)(echo + 1);

	if ((void *)(stamp + 1) > end)
		return 0;
	echo->type = 8;
	echo->code = 0;
	echo->id = id;
	echo->sequence = bpf_htons(sequence);
	echo->checksum = ~fold(8ULL + id + echo->sequence + put_stamp(stamp, sequence, now));
	return 1;
}

/* Who has the destination's address? The source asks. */
static __always_inline int put_arp(struct arp *arp, void *end, const struct progress *at)
{
	const volatile __u16 *own = (const volatile __u16 *)plan.macs + 3;

	if ((void *)(arp + 1) > end)
		return 0;
	arp->hardware = bpf_htons(1);
	arp->protocol = bpf_htons(ETH_P_IP);
	arp->lengths = bpf_htons(6 << 8 | 4);
	arp->operation = bpf_htons(1);
	for (int n = 0; n < 3; n++) {
		arp->sender_mac[n] = own[n];
		arp->target_mac[n] = 0;
	}
	arp->sender = bpf_htonl(plan.sources.first + at->source);
	arp->target = bpf_htonl(plan.destinations.first + at->destination);
	return 1;
}

/* Writes the packet that progress says, as long as the frame is; false if it does not fit. */
static __always_inline int put_packet(void *data, void *end, const struct progress *at, __u64 now)
{
	struct ethhdr *ethernet = data;
	struct tag *tag = (void *)(ethernet + 1);
	struct iphdr *ip = plan.vlan ? (void *)(tag + 1) : (void *)tag;
	__be16 sport = bpf_htons(plan.sports.first + at->sport);
	__be16 dport = bpf_htons(plan.dports.first + at->dport);
	__u32 length = end - (void *)ip, sequence = at->sent;
	__u16 ethertype = plan.protocol ? ETH_P_IP : ETH_P_ARP;
	__u64 pseudo;
	__u32 *words;

	if ((void *)(ip + 1) > end || (void *)(tag + 1) > end)
		return 0;
	words = data;
	words[0] = plan.macs[0];
	words[1] = plan.macs[1];
	words[2] = plan.macs[2];
	words = (void *)ip;
	ethernet->h_proto = bpf_htons(plan.vlan ? ETH_P_8021Q : ethertype);
	if (plan.vlan) {
		tag->tci = plan.vlan;
		tag->protocol = bpf_htons(ethertype);
	}
	if (!plan.protocol)
		return put_arp((void *)ip, end, at);
	words[0] = bpf_htonl(0x45000000 | length);
	words[1] = bpf_htonl(sequence << 16 | 0x4000);
	words[2] = bpf_htonl(64 << 24 | (__u32)plan.protocol << 16);
	words[3] = bpf_htonl(plan.sources.first + at->source);
	words[4] = bpf_htonl(plan.destinations.first + at->destination);
	pseudo = (__u64)words[3] + words[4];
	ip->check = ~fold(pseudo + words[0] + words[1] + words[2]);
	length -= sizeof(*ip);
	pseudo += bpf_htons(plan.protocol) + bpf_htons(length);
	switch (plan.protocol) {
	case IPPROTO_UDP:
		return put_udp((void *)(ip + 1), end, sport, dport, length, pseudo, sequence, now);
	case IPPROTO_TCP:
		return put_tcp((void *)(ip + 1), end, sport, dport, length, pseudo, sequence, now);
	default:
		return put_echo((void *)(ip + 1), end, sport, sequence, now);
	}
}

/* The size of the next frame, with its tag. */
static __always_inline int size_of(const struct progress *at)
{
	return plan.sizes[at->size & (SIZES - 1)] + (plan.vlan ? sizeof(struct tag) : 0);
}

SEC("xdp")
int send(struct xdp_md *ctx)
{
	__u32 zero = 0, length;
	struct progress *at = bpf_map_lookup_elem(&progress, &zero);
	__u64 now = plan.stamps || plan.interval ? bpf_ktime_get_ns() : 0;

	if (!at || at->sent >= plan.limit || !is_due(at, now))
		return XDP_DROP;
	if (plan.size_count > 1) {
		if (++at->size >= plan.size_count)
			at->size = 0;
		length = (void *)(long)ctx->data_end - (void *)(long)ctx->data;
		if (bpf_xdp_adjust_tail(ctx, size_of(at) - (int)length))
			return XDP_ABORTED;
	}
	if (!put_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end, at,
			plan.stamps ? now : 0))
		return XDP_ABORTED;
	at->sent++;
	at->bytes += (void *)(long)ctx->data_end - (void *)(long)ctx->data;
	if (plan.is_random)
		draw(at);
	else
		turn(at);
	return XDP_TX;
}

char licence[] SEC("license") = "GPL";
