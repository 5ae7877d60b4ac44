/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's own echo requests. The shared address is the host's too, and nothing keeps its
 * identifiers from being those of tenants' requests. So what the host asks is noted as it leaves,
 * with its sequence number and checksum, which the answer has as well: an answer to both is the
 * host's once, and what both asked alike is answered alike.
 */
#pragma once
#include "lookup.h"
#include "parse.h"
#include "replay.h"

#define ASKED 16384
#define ASKED_SECONDS 60 /* nobody waits longer for an answer */
/* The first word of an echo request; of a reply it is 0. */
#define ECHO_WORD (ICMP_ECHO << 8)

/* What the answer will be like. */
struct asked {
	__u32 whom;
	__u16 id;
	__u16 sequence;
	__u16 checksum; /* host order, with 0 for 0xffff: they are one number */
	__u16 spare;
};
_Static_assert(sizeof(struct asked) == 12, "asked");

/* When it was asked, seconds since boot. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ASKED);
	__type(key, struct asked);
	__type(value, __u32);
} asked SEC(".maps");

static __always_inline struct asked answer_of(__u32 whom, const struct icmp *icmp)
{
	__u32 sum = bpf_ntohs(icmp->checksum) + (icmp->type == ICMP_ECHO ? ECHO_WORD : 0);

	sum = (sum & 0xffff) + (sum >> 16);
	return (struct asked){
		.whom = whom,
		.id = icmp->id,
		.sequence = icmp->sequence,
		.checksum = sum == 0xffff ? 0 : sum,
	};
}

/* Notes an echo request of the host's; what came by another interface is not the host's. */
static __always_inline void note_request(struct __sk_buff *skb)
{
	struct asked answer;
	struct iphdr ip;
	struct icmp icmp;
	__u32 now;

	if (skb->ingress_ifindex || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_ICMP ||
	    ip.frag_off & bpf_htons(IP_FRAGMENT) || owned_as(ip.saddr) != OWNED_SNAT ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, &icmp, sizeof(icmp)) ||
	    icmp.type != ICMP_ECHO)
		return;
	answer = answer_of(ip.daddr, &icmp);
	now = seconds_now();
	bpf_map_update_elem(&asked, &answer, &now, BPF_ANY);
}

/* A call, so that the verifier does not walk all that follows once for each way through this. */
static __noinline int is_asked(void *data, void *end, int forgets)
{
	struct iphdr *ip = data + ETH_HLEN;
	struct icmp *icmp = (void *)(ip + 1);
	struct asked answer;
	__u32 *when;

	if ((void *)(icmp + 1) > end || icmp->type != ICMP_ECHO_REPLY ||
	    owned_as(ip->daddr) != OWNED_SNAT)
		return 0;
	answer = answer_of(ip->saddr, icmp);
	when = bpf_map_lookup_elem(&asked, &answer);
	if (!when || seconds_now() - *when > ASKED_SECONDS)
		return 0;
	if (forgets)
		bpf_map_delete_elem(&asked, &answer);
	return 1;
}

/*
 * Whether a packet from a public NIC answers what the host asked. Behind XDP is tc, which must
 * find the same: only tc `forgets` it.
 */
static __always_inline int answers_host(void *data, void *end, const struct packet *packet,
					int forgets)
{
	return packet->protocol == IPPROTO_ICMP && packet->kind == PACKET_FLOW &&
	       packet->l3 == ETH_HLEN && packet->headers == sizeof(struct iphdr) &&
	       is_asked(data, end, forgets);
}
