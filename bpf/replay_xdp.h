/* SPDX-License-Identifier: GPL-2.0-only */
/* Replaying a frame in XDP: everything is in the frame, its tag and its checksums as well. */
#pragma once
#include "rewrite.h"
#include "up.h"

/* What there is of every transport header; TCP's checksum lies behind. */
#define TRANSPORT_BYTES sizeof(struct udphdr)
_Static_assert(sizeof(struct icmp) == TRANSPORT_BYTES, "ICMP and UDP");

/* Changes ports and checksum; l4 has TRANSPORT_BYTES to be seen. False if a checksum is not. */
static __always_inline int rewrite_transport(void *l4, void *end, __u8 protocol,
					     const struct way *way, struct changes *made)
{
	__u16 sport = way->word4, dport = way->word4 >> LINE_DPORT_SHIFT;
	struct icmp *icmp = l4;
	__u16 *ports = l4;
	__u16 *checksum;

	switch (protocol) {
	case IPPROTO_TCP:
		checksum = l4 + TCP_CHECKSUM_AT;
		if ((void *)(checksum + 1) > end)
			return 0;
		break;
	case IPPROTO_UDP:
		checksum = l4 + UDP_CHECKSUM_AT;
		break;
	case IPPROTO_ICMP:
		made->ports = rewrite_port(&icmp->id, icmp->type == ICMP_ECHO ? sport : dport);
		if (made->ports)
			icmp->checksum = changed(icmp->checksum, made->ports);
		return 1;
	default:
		return 1;
	}
	made->ports = rewrite_port(&ports[0], sport) + rewrite_port(&ports[1], dport);
	if (!(made->addresses + made->ports) || (protocol == IPPROTO_UDP && !*checksum))
		return 1;
	*checksum = changed(*checksum, made->addresses + made->ports);
	// A datagram's 0 says that it has none (RFC 768).
	if (protocol == IPPROTO_UDP && !*checksum)
		*checksum = 0xffff;
	return 1;
}

/* Changes what is behind the Ethernet header; false if that is not all to be seen. */
static __always_inline int rewrite_xdp(void *l3, void *end, const struct packet *packet,
				       const struct way *way)
{
	struct iphdr *ip = l3;
	struct changes made = {};

	if (packet->kind != PACKET_FLOW || (!way->hop && !(line_flags(way->word4) & LINE_REWRITES)))
		return 1;
	if ((void *)(ip + 1) > end)
		return 0;
	rewrite_ipv4(ip, way, &made);
	if (!(line_flags(way->word4) & LINE_REWRITES) || !has_transport(packet->protocol))
		return 1;
	if ((void *)(ip + 1) + TRANSPORT_BYTES > end)
		return 0;
	return rewrite_transport(ip + 1, end, packet->protocol, way, &made);
}

/* Writes the Ethernet header; what it carries and its tag, if it has one, are behind it. */
static __always_inline void put_ethernet(struct ethhdr *ethernet, const struct way *way,
					 __be16 protocol)
{
	put_mac(ethernet->h_dest, way->destination);
	put_mac(ethernet->h_source, way->source);
	ethernet->h_proto = protocol;
}

/*
 * Does to the frame what its way says, and sends it. With a tag before or after, what the frame
 * carries is behind room for one: a tag to come makes the room first, one that goes leaves it last.
 */
static __always_inline int replay_xdp(struct xdp_md *ctx, const struct arrival *from,
				      const struct way *way, struct counters *row, int in_stack)
{
	__u16 vlan = line_vlan(way->word5);
	int tagged = from->packet.l3 != sizeof(struct ethhdr);
	__u32 number = way->egress->number;
	struct counters *out = counters_of(number);
	struct ethhdr *ethernet;
	struct vlan_tag *tag;
	void *data, *end;

	if (!out)
		return drop_xdp(row, DROP_MALFORMED);
	if (!meets_quota(way->egress, QUOTA_IN, from->length + sizeof(*ethernet)))
		return drop_xdp(out, DROP_QUOTA_IN);
	if (!tagged && vlan && bpf_xdp_adjust_head(ctx, -(int)sizeof(*tag)))
		return drop_xdp(row, DROP_NO_ROOM);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	ethernet = data;
	tag = (void *)(ethernet + 1);
	if ((void *)(tag + 1) > end)
		return drop_xdp(row, DROP_MALFORMED);
	if (!rewrite_xdp(tagged || vlan ? (void *)(tag + 1) : (void *)tag, end, &from->packet, way))
		return drop_xdp(row, DROP_MALFORMED);
	if (vlan) {
		put_ethernet(ethernet, way, bpf_htons(ETH_P_8021Q));
		tag->tci = bpf_htons(vlan);
		tag->protocol = from->packet.ethertype;
	} else if (tagged) {
		put_ethernet(data + sizeof(*tag), way, from->packet.ethertype);
		if (bpf_xdp_adjust_head(ctx, sizeof(*tag)))
			return drop_xdp(row, DROP_MALFORMED);
	} else {
		put_ethernet(ethernet, way, from->packet.ethertype);
	}
	trace_replay(way->egress->number, vlan);
	row->replayed++;
	out->tx_packets++;
	out->tx_xdp++;
	out->tx_bytes += ctx->data_end - ctx->data;
	if (in_stack)
		return bpf_redirect(way->egress->ifindex, 0);
	return bpf_redirect_map(&devices, number, XDP_DROP);
}
